//! Opening after anything.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::tempdir;

use super::*;
use crate::backends::SinkError;
use crate::backends::duckdb::file::{self, Database, OpenError};
use crate::backends::duckdb::{MIGRATIONS, migrate_file, query_file};

/// What a power cut leaves: the bytes as they are, while the store is open.
fn pull_the_plug(path: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn count(database: &Database) -> u64 {
    let sql = "select count(*) from events";
    database.connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn killed_started_stopped_and_started_again_it_opens_every_time_with_every_row() {
    let folder = tempdir().unwrap();
    let mut path = folder.path().join("0").join("t.duckdb");
    let mut identity = None;
    for round in 1..=12_u64 {
        let backend = started(&path);
        let found = sink(&backend).identity().await.unwrap();
        assert_eq!(*identity.get_or_insert(found.clone()), found, "round {round}");
        // The batch before the kill comes again.
        sink(&backend).write(&events((round - 1).max(1) * 10, round * 10)).await.unwrap();
        let expect = round * 10 - 9;
        let found = rows(&backend, "select count(*), count(distinct ingest_seq) from events").await;
        assert_eq!(found, [[json!(expect), json!(expect)]], "round {round}");
        if round % 3 == 0 {
            sink(&backend).close().await;
        } else {
            let next = folder.path().join(round.to_string());
            pull_the_plug(&path, &next);
            path = next.join("t.duckdb");
        }
    }
}

#[test]
fn a_kill_inside_a_transaction_leaves_neither_rows_nor_cursor() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a").join("t.duckdb");
    let database = file::open(&config(&path)).unwrap();
    database
        .connection
        .execute_batch(
            "begin transaction;
             insert into events (eid) select uuid() from range(1000);
             insert into sink_cursor values ('events', 'node-a', 1000);",
        )
        .unwrap();
    pull_the_plug(&path, &folder.path().join("b"));
    let after = file::open(&config(&folder.path().join("b").join("t.duckdb"))).unwrap();
    assert_eq!(count(&after), 0);
    assert!(after.cursors.is_empty());
}

#[test]
fn many_cursor_rows_are_folded_to_one_for_each_table_and_node() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("t.duckdb");
    let database = file::open(&config(&path)).unwrap();
    database
        .connection
        .execute_batch(
            "insert into sink_cursor select 'events', 'node-a', range + 1 from range(5000);
             insert into sink_cursor values ('mstore', 'node-b', 7)",
        )
        .unwrap();
    drop(database);
    let database = file::open(&config(&path)).unwrap();
    let sql = "select count(*) from sink_cursor";
    let left: u64 = database.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 2);
    assert_eq!(database.cursors[&("events".to_owned(), "node-a".to_owned())], 5000);
    assert_eq!(database.cursors[&("mstore".to_owned(), "node-b".to_owned())], 7);
}

/// A closed file with rows, and the folder it is in.
async fn filled() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("t.duckdb");
    let backend = started(&path);
    let identity = sink(&backend).identity().await.unwrap();
    sink(&backend).write(&events(1, 3000)).await.unwrap();
    sink(&backend).close().await;
    (folder, path, identity)
}

/// Damages a filled file and expects it to be set aside and replaced.
async fn is_set_aside(what: &str, damage: impl FnOnce(&Path)) {
    let (folder, path, before) = filled().await;
    damage(&path);
    let backend = started(&path);
    let after = sink(&backend).identity().await.unwrap();
    assert_ne!(after, before, "{what}: a new file is a new store");
    let notice = sink(&backend).notice().unwrap();
    assert!(notice.contains("t.duckdb.corrupt-20260201T120000Z"), "{what}: {notice}");
    assert!(folder.path().join("t.duckdb.corrupt-20260201T120000Z").exists(), "{what}");
    sink(&backend).write(&events(1, 10)).await.unwrap();
    assert_eq!(rows(&backend, "select count(*) from events").await, [[json!(10)]], "{what}");
}

fn overwrite(path: &Path, from: usize, with: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    bytes[from..from + with.len()].copy_from_slice(with);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_file_of_garbage_is_set_aside() {
    is_set_aside("garbage", |path| fs::write(path, vec![0x5a; 100_000]).unwrap()).await;
}

#[tokio::test]
async fn a_file_that_lost_its_end_is_set_aside() {
    is_set_aside("truncated", |path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_of_another_version_is_set_aside() {
    // The main header: checksum, magic, version.
    is_set_aside("version", |path| overwrite(path, 12, &[0xff; 8])).await;
}

#[tokio::test]
async fn a_file_with_damaged_headers_is_set_aside() {
    is_set_aside("headers", |path| overwrite(path, 4096, &[0x11; 8192])).await;
}

#[tokio::test]
async fn a_file_cut_to_nothing_is_set_aside() {
    is_set_aside("empty", |path| fs::write(path, b"").unwrap()).await;
}

#[tokio::test]
async fn of_a_damaged_log_only_its_rows_come_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a").join("t.duckdb");
    let backend = started(&path);
    sink(&backend).write(&events(1, 100)).await.unwrap();
    sink(&backend).close().await;
    let backend = started(&path);
    let before = sink(&backend).identity().await.unwrap();
    sink(&backend).write(&events(101, 200)).await.unwrap();
    sink(&backend).write(&events(201, 300)).await.unwrap();
    pull_the_plug(&path, &folder.path().join("b"));
    let path = folder.path().join("b").join("t.duckdb");
    let log = path.with_extension("duckdb.wal");
    let middle = usize::try_from(fs::metadata(&log).unwrap().len() / 2).unwrap();
    overwrite(&log, middle, &[0x5a; 64]);

    let backend = started(&path);
    let after = sink(&backend).identity().await.unwrap();
    assert_ne!(after, before, "delivery has to start over");
    let notice = sink(&backend).notice().unwrap();
    assert!(notice.contains("t.duckdb.corrupt-20260201T120000Z.wal"), "{notice}");
    assert_eq!(rows(&backend, "select count(*) from events").await, [[json!(100)]]);
    sink(&backend).write(&events(1, 300)).await.unwrap();
    let found = rows(&backend, "select count(*), count(distinct eid) from events").await;
    assert_eq!(found, [[json!(300), json!(300)]]);
    sink(&backend).close().await;
    let backend = started(&path);
    assert_eq!(sink(&backend).identity().await.unwrap(), after, "it is renewed once");
}

#[tokio::test]
async fn a_healthy_store_has_no_notice() {
    let (_folder, path, identity) = filled().await;
    let backend = started(&path);
    assert_eq!(sink(&backend).identity().await.unwrap(), identity);
    assert_eq!(sink(&backend).notice(), None);
}

#[tokio::test]
async fn a_table_without_a_column_is_a_clear_error_and_not_a_damaged_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("t.duckdb");
    let database = file::open(&config(&path)).unwrap();
    database.connection.execute_batch("alter table quarantine drop column raw").unwrap();
    drop(database);
    let backend = started(&path);
    let SinkError::Retry { source, .. } = sink(&backend).identity().await.unwrap_err() else {
        panic!("not a retry");
    };
    assert_eq!(source.to_string(), "quarantine has no column raw");
    assert_eq!(sink(&backend).notice(), None);
}

#[test]
fn a_folder_that_cannot_be_made_is_no_reason_to_set_a_file_aside() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"x").unwrap();
    let error = file::open(&config(&file.join("t.duckdb"))).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Io(_)), "{error:?}");
}

#[test]
fn two_files_set_aside_in_one_second_have_two_names() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("t.duckdb");
    let mut names = Vec::new();
    for _ in 0..2 {
        fs::write(&path, b"x").unwrap();
        fs::write(folder.path().join("t.duckdb.wal"), b"y").unwrap();
        names.push(file::set_aside(&path, samples::noon()).unwrap());
    }
    assert_eq!(names[0], folder.path().join("t.duckdb.corrupt-20260201T120000Z"));
    assert_eq!(names[1], folder.path().join("t.duckdb.corrupt-20260201T120000Z-1"));
    assert!(folder.path().join("t.duckdb.corrupt-20260201T120000Z-1.wal").exists());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_without_a_server_can_be_read_and_not_written() {
    let (_folder, path, _) = filled().await;
    let found = query_file(&path, "select count(*) from sfpla.events", 10, TIME_MAX).unwrap();
    assert_eq!(found.rows, [[json!(3000)]]);
    assert!(query_file(&path, "drop table events", 10, TIME_MAX).is_err());
    assert!(query_file(&path.with_extension("none"), "select 1", 10, TIME_MAX).is_err());
}

#[tokio::test]
async fn a_killed_servers_file_can_be_read_without_a_server() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a").join("t.duckdb");
    let backend = started(&path);
    sink(&backend).write(&events(1, 100)).await.unwrap();
    pull_the_plug(&path, &folder.path().join("b"));
    let copy = folder.path().join("b").join("t.duckdb");
    let found = query_file(&copy, "select count(*) from events", 10, TIME_MAX).unwrap();
    assert_eq!(found.rows, [[json!(100)]]);
}

#[test]
fn a_file_is_migrated_once() {
    let folder = tempdir().unwrap();
    let config = config(&folder.path().join("t.duckdb"));
    let first = migrate_file(&config).unwrap().unwrap();
    let second = migrate_file(&config).unwrap().unwrap();
    let newest = MIGRATIONS.last().unwrap().number;
    assert_eq!((first.from, first.to, second.from, second.to), (0, newest, newest, newest));
}
