//! What is written is there, once, and as it was.

use serde_json::{Value, json};
use tempfile::tempdir;

use super::*;
use crate::backends::SinkError;
use crate::backends::duckdb::file;
use crate::event::{Body, Quarantine, Reason, Thread};

#[tokio::test]
async fn every_column_of_an_event_is_stored_as_it_was() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    sink(&backend).write(&events(1, 1)).await.unwrap();
    let stored = store(&backend).query("from events", 10, TIME_MAX).await.unwrap();
    let declared = tables::find("events").unwrap().columns();
    assert_eq!(stored.columns, declared, "the file has the declared columns and no others");
    let row: serde_json::Map<String, Value> =
        stored.columns.into_iter().zip(stored.rows[0].clone()).collect();
    for (name, value) in &row {
        assert_ne!(*value, Value::Null, "{name}");
    }
    for (name, expect) in [
        ("eid", json!("00000000-0000-0000-0000-000000000001")),
        ("is_new", json!(true)),
        ("origin", json!("client")),
        ("created_at", json!("2026-02-01T12:00:01.000Z")),
        ("ver", json!(3)),
        ("score", json!(0.5)),
        ("lat", json!(52.5)),
        ("cflags", json!(5)),
        ("reasons", json!(["one", "two, or more"])),
        ("params", json!({"plan": "Pro", "n": 1})),
        ("targets", json!({"video": ["v1"]})),
        ("ip", json!("192.0.2.0")),
        ("ingest_node", json!("node-a")),
        ("ingest_seq", json!(1)),
    ] {
        assert_eq!(row[name], expect, "{name}");
    }
}

#[tokio::test]
async fn every_table_takes_its_rows() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    let mut threaded = samples::event(1);
    let Body::Track(track) = &mut threaded.body else { unreachable!() };
    let fields = json!({
        "cats": ["a", "b"], "subs": ["00000000-0000-0000-0000-000000000001"], "variants": [1],
        "deleted": 0, "urgency": 3, "provider_cost": 1.5, "svc": "mail", "repl": {"a": 1},
        "users": ["00000000-0000-0000-0000-000000000002"], "sys": true,
    });
    let Value::Object(fields) = fields else { unreachable!() };
    track.ename = Some("conversion".into());
    track.thread = Some(Box::new(Thread {
        tid: uuid::Uuid::from_u128(1).into(),
        mid: uuid::Uuid::from_u128(2).into(),
        fields,
    }));
    let mut set_aside = samples::event(1);
    set_aside.body = Body::Quarantine(Box::new(Quarantine {
        reason: Reason::Malformed,
        message: "no json".into(),
        length: 3,
        raw: Some("{{{".into()),
        sink: None,
        table: None,
    }));
    let (paid, agreed) = (samples::payment(1), samples::agreement(1));
    let linked = samples::link(1, "/a", "https://example.net/b");
    for table in tables::ALL {
        let events = [&threaded, &set_aside, &paid, &agreed, &linked];
        let event = events.into_iter().find(|event| table.has_row(event)).unwrap();
        sink(&backend).write(&batch(table.name(), [event.clone()])).await.unwrap();
        let count = rows(&backend, &format!("select count(*) from {}", table.name())).await;
        assert_eq!(count, [[json!(1)]], "{}", table.name());
    }
    let found = rows(&backend, "select cats, subs, variants, deleted from mthreads").await;
    assert_eq!(
        found,
        [[
            json!(["a", "b"]),
            json!(["00000000-0000-0000-0000-000000000001"]),
            json!([1]),
            json!("1970-01-01T00:00:00.000Z"),
        ]]
    );
}

#[tokio::test]
async fn a_repeated_batch_is_stored_once() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    for _ in 0..3 {
        sink(&backend).write(&events(1, 500)).await.unwrap();
    }
    let counts = rows(&backend, "select count(*), count(distinct eid) from events").await;
    assert_eq!(counts, [[json!(500), json!(500)]]);
}

#[tokio::test]
async fn a_batch_whose_borders_moved_is_stored_once() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    for (from, to) in [(1, 10), (5, 8), (5, 20), (1, 30)] {
        sink(&backend).write(&events(from, to)).await.unwrap();
    }
    let found =
        rows(&backend, "select count(*), count(distinct ingest_seq), max(ingest_seq) from events")
            .await;
    assert_eq!(found, [[json!(30), json!(30), json!(30)]]);
}

#[tokio::test]
async fn positions_of_another_journal_are_counted_apart() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    let mut other = samples::event(1);
    other.ingest.node = "node-b".into();
    sink(&backend).write(&events(1, 5)).await.unwrap();
    sink(&backend).write(&batch("events", [other])).await.unwrap();
    let found =
        rows(&backend, "select ingest_node, count(*) from events group by all order by all").await;
    assert_eq!(found, [[json!("node-a"), json!(5)], [json!("node-b"), json!(1)]]);
}

#[tokio::test]
async fn tables_have_cursors_of_their_own() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    sink(&backend).write(&events(1, 5)).await.unwrap();
    let mut event = samples::event(2);
    let Body::Track(track) = &mut event.body else { unreachable!() };
    let id = uuid::Uuid::from_u128(1);
    let fields = serde_json::Map::new();
    track.thread = Some(Box::new(Thread { tid: id.into(), mid: id.into(), fields }));
    sink(&backend).write(&batch("mstore", [event])).await.unwrap();
    assert_eq!(rows(&backend, "select count(*) from mstore").await, [[json!(1)]]);
}

/// A file whose column `ver` is too narrow for what is to come.
fn narrow(path: &Path) {
    let database = file::open(&config(path)).unwrap();
    database.connection.execute_batch("drop view main.visitors cascade").unwrap_or_default();
    database.connection.execute_batch("alter table events alter ver type smallint").unwrap();
}

#[tokio::test]
async fn a_row_that_does_not_fit_refuses_its_batch_and_nothing_of_it_stays() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("t.duckdb");
    narrow(&path);
    let backend = started(&path);
    let mut poison = samples::event(3);
    poison.page.ver = Some(70_000);
    let healthy = (1..=2).map(samples::event);
    let whole = batch("events", healthy.chain([poison.clone()]));
    let refused = sink(&backend).write(&whole).await.unwrap_err();
    assert!(matches!(refused, SinkError::Reject { .. }), "{refused:?}");
    assert_eq!(rows(&backend, "select count(*) from events").await, [[json!(0)]]);
    sink(&backend).write(&events(1, 2)).await.unwrap();
    let refused = sink(&backend).write(&batch("events", [poison])).await.unwrap_err();
    assert!(matches!(refused, SinkError::Reject { .. }), "{refused:?}");
    sink(&backend).write(&events(4, 4)).await.unwrap();
    assert_eq!(rows(&backend, "select count(*) from events").await, [[json!(3)]]);
}
