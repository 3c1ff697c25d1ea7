//! A query of a person reads, within bounds, and does nothing else.

use serde_json::{Value, json};
use tempfile::tempdir;

use super::*;
use crate::backends::StoreError;

#[tokio::test]
async fn what_reads_is_answered() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    sink(&backend).write(&events(1, 3)).await.unwrap();
    for (sql, rows) in [
        ("select 1", 1),
        ("select 1;", 1),
        ("  select 1 ; -- a comment; with words", 1),
        ("/* a; /* nested; */ b */ select ';' as \"a;b\"", 1),
        ("select $$;drop table events;$$", 1),
        ("from events", 3),
        ("values (1), (2)", 2),
        ("with a as (select 1 union all select 2) from a", 2),
        ("with recursive a(i) as (select 1 union all select i + 1 from a where i < 4) from a", 4),
        ("select * from (from events limit 2)", 2),
        ("select unnest([1, 2, 3])", 3),
        ("from range(5)", 5),
        ("describe events", 82),
        ("summarize events", 82),
        ("show tables", 52),
        ("explain select 1", 1),
        ("EXPLAIN ANALYZE from events", 1),
        ("select * from json_each('{\"a\": 1, \"b\": 2}')", 2),
        ("select tag from sfpla.duckdb_memory() limit 0", 0),
    ] {
        match store(&backend).query(sql, 1000, TIME_MAX).await {
            Ok(found) if sql.starts_with("describe") || sql.starts_with("summarize") => {
                let declared = tables::find("events").unwrap().columns().len();
                assert_eq!(found.rows.len(), declared, "{sql}");
            }
            Ok(found) if sql.starts_with("show") => assert!(found.rows.len() > 20, "{sql}"),
            Ok(found) => assert_eq!(found.rows.len(), rows, "{sql}"),
            Err(error) => assert_eq!(rows, 0, "{sql}: {error}"),
        }
    }
}

#[tokio::test]
async fn what_does_more_than_read_is_refused_and_does_nothing() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    sink(&backend).write(&events(1, 3)).await.unwrap();
    let outside = folder.path().join("out");
    let outside = outside.to_str().unwrap();
    for sql in [
        "SELECT 1); DROP TABLE events; --",
        "SELECT 1; DROP TABLE events",
        "DROP TABLE events; SELECT 1",
        "SELECT 1; SELECT 2",
        "select 1 /* ; */ ; drop table events",
        "select ''';'; drop table events",
        "select E'\\''; drop table events; --'",
        "select $a$ $b$; $a$; drop table events",
        "commit; drop table events; begin",
        "rollback",
        "begin",
        "insert into events (eid) values (uuid())",
        "with a as (insert into events (eid) values (uuid()) returning eid) from a",
        "update events set eid = uuid()",
        "delete from events",
        "truncate events",
        "create table stolen (a integer)",
        "create table stolen as from events",
        "create temp table stolen (a integer)",
        "create macro stolen() as 1",
        "alter table events drop column eid",
        "drop table events",
        "explain analyze drop table events",
        "explain analyze insert into events (eid) values (uuid())",
        "explain explain analyze delete from events",
        "from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from read_blob('/etc/passwd')",
        "from '/etc/passwd'",
        "from \"/etc/passwd\"",
        "from glob('/etc/*')",
        "from sniff_csv('/etc/passwd')",
        "from parquet_metadata('/etc/passwd')",
        "from query('select 1')",
        "from query_table('events')",
        "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
        "from enable_logging()",
        "from enable_profiling()",
        "from truncate_duckdb_logs()",
        "from force_checkpoint()",
        "select (select count(*) from force_checkpoint())",
        "from FORCE_CHECKPOINT()",
        "call force_checkpoint()",
        "checkpoint",
        "force checkpoint",
        "vacuum",
        "set memory_limit = '10GB'",
        "set global threads = 8",
        "reset memory_limit",
        "pragma threads = 8",
        "pragma database_list",
        "attach ':memory:' as other",
        "detach t",
        "use sfpla",
        "install httpfs",
        "load httpfs",
        "export database 'x'",
        "import database 'x'",
        "prepare a as select 1",
        "execute a",
        "set variable a = 1",
        "select $1",
        "select ?",
        "select",
        "",
        ";",
        "-- nothing",
        "explain",
    ] {
        let answer = store(&backend).query(sql, 10, TIME_MAX).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{sql}: {answer:?}");
    }
    for sql in [
        format!("copy events to '{outside}'"),
        format!("copy (from events) to '{outside}' (format parquet)"),
        format!("attach '{outside}' as other"),
        format!("export database '{outside}'"),
        format!("explain analyze copy events to '{outside}'"),
    ] {
        let answer = store(&backend).query(&sql, 10, TIME_MAX).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{sql}: {answer:?}");
    }
    assert!(!std::path::Path::new(outside).exists());
    assert_eq!(rows(&backend, "select count(*) from events").await, [[json!(3)]]);
    sink(&backend).write(&events(4, 4)).await.unwrap();
}

#[tokio::test]
async fn the_refusal_says_what_the_library_says() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    for (sql, words) in [
        ("selec 1", "syntax error at or near \"selec\""),
        ("select nothing from events", "\"nothing\" not found"),
        ("select 1; select 2", "one statement at a time"),
        ("drop table events", "only a query that reads is allowed here"),
        ("from glob('*')", "the function glob is not allowed here"),
        ("select cast('x' as integer)", "Could not convert string 'x'"),
    ] {
        let Err(StoreError::Invalid(text)) = store(&backend).query(sql, 10, TIME_MAX).await else {
            panic!("{sql}");
        };
        assert!(text.contains(words), "{sql}: {text}");
    }
}

#[tokio::test]
async fn values_keep_their_kind_in_json() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    for (sql, expect) in [
        ("1::tinyint", json!(1)),
        ("9007199254740993::bigint", json!(9_007_199_254_740_993_i64)),
        ("18446744073709551615::ubigint", json!(18_446_744_073_709_551_615_u64)),
        ("5::hugeint", json!(5)),
        (
            "170141183460469231731687303715884105727::hugeint",
            json!("170141183460469231731687303715884105727"),
        ),
        ("sum(x::bigint) from (values (1), (2)) t(x)", json!(3)),
        ("1.5::decimal(18, 4)", json!(1.5)),
        ("1.25::double", json!(1.25)),
        ("'nan'::double", Value::Null),
        ("'-inf'::double", Value::Null),
        ("null", Value::Null),
        ("true", json!(true)),
        ("'text'", json!("text")),
        ("'{\"a\": [1, null]}'::json", json!({"a": [1, null]})),
        (
            "'00000000-0000-0000-0000-000000000001'::uuid",
            json!("00000000-0000-0000-0000-000000000001"),
        ),
        ("timestamp '2026-01-02 03:04:05.678901'", json!("2026-01-02T03:04:05.678Z")),
        ("date '1969-12-31'", json!("1969-12-31")),
        ("time '10:00:00'", json!("10:00:00")),
        ("[1, null, 3]", json!([1, null, 3])),
        (
            "[uuid '00000000-0000-0000-0000-000000000001']",
            json!(["00000000-0000-0000-0000-000000000001"]),
        ),
        ("{'a': 1, 'b': ['x']}", json!({"a": 1, "b": ["x"]})),
        ("map {'a': 1}", json!({"a": 1})),
        ("'b'::enum('a', 'b')", json!("b")),
        ("'\\xAA\\x01'::blob", json!("aa01")),
    ] {
        assert_eq!(rows(&backend, &format!("select {sql}")).await, [[expect]], "{sql}");
    }
}

#[tokio::test]
async fn more_rows_than_asked_for_are_cut_and_said_so() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    let cut = store(&backend).query("from range(100000)", 5000, TIME_MAX).await.unwrap();
    assert_eq!((cut.rows.len(), cut.truncated), (5000, true));
    let whole = store(&backend).query("from range(5000)", 5000, TIME_MAX).await.unwrap();
    assert_eq!((whole.rows.len(), whole.truncated), (5000, false));
}

#[tokio::test]
async fn a_query_ends_at_its_deadline_and_the_next_is_answered() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    rows(&backend, "select 1").await;
    let time_max = Duration::from_millis(100);
    let endless = "select count(*) from range(1000000000000)";
    let answer = store(&backend).query(endless, 10, time_max).await;
    assert!(matches!(answer, Err(StoreError::Timeout(_))), "{answer:?}");
    assert_eq!(rows(&backend, "select 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_query_nobody_waits_for_is_ended() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    rows(&backend, "select 1").await;
    let endless = "select count(*) from range(1000000000000)";
    let query = store(&backend).query(endless, 10, Duration::from_secs(3600));
    assert!(tokio::time::timeout(Duration::from_millis(50), query).await.is_err());
    assert_eq!(rows(&backend, "select 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn writing_goes_on_while_a_query_runs_and_the_query_does_not_see_it() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    sink(&backend).write(&events(1, 3)).await.unwrap();
    let endless = "select count(*) from range(1000000000000), events";
    let query = store(&backend).query(endless, 10, Duration::from_secs(3600));
    let write = async {
        for seq in 4..=20 {
            sink(&backend).write(&events(seq, seq)).await.unwrap();
        }
    };
    tokio::select! {
        answer = query => panic!("{answer:?}"),
        () = write => {}
    }
    assert_eq!(rows(&backend, "select count(*) from events").await, [[json!(20)]]);
}

#[tokio::test]
async fn memory_of_the_pool_can_be_asked_for() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    let sql = "select sum(memory_usage_bytes) from duckdb_memory()";
    let found = rows(&backend, sql).await;
    assert!(found[0][0].as_i64().unwrap() > 0, "{found:?}");
}
