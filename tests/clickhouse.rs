//! The ClickHouse that tests run against does what they rely on: another version of the package that
//! brings it fails here first, with the reason.

#![expect(clippy::expect_used, reason = "what fails here should fail the run with its reason")]
#[path = "support/clickhouse.rs"]
mod clickhouse;
#[path = "support/relay.rs"]
mod relay;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clickhouse::ClickHouse;
use relay::{Fault, Relay};
use serde_json::json;

#[test]
fn a_real_server_of_the_pinned_version_answers() {
    let Some(server) = ClickHouse::shared() else { return };
    assert_eq!(
        server.query("select version() as version, 18446744073709551615 as largest"),
        [json!({"version": "26.9.2.1", "largest": u64::MAX})]
    );
    let refused = server.try_query("select nonsense").expect_err("a refusal");
    assert!(refused.starts_with("Code: 47."), "{refused}");
}

#[test]
fn killed_and_started_again_the_server_has_its_rows_and_its_address() {
    let Some(mut server) = ClickHouse::start() else { return };
    let address = server.address;
    server.query("create table kept (n UInt64) engine = MergeTree order by n");
    server.query("insert into kept select number from numbers(1000)");
    server.kill();
    assert!(server.try_query("select 1").is_err());
    server.restart();
    assert_eq!(server.address, address);
    assert_eq!(server.number("select sum(n) from kept"), 499_500);
    server.stop();
    server.restart();
    assert_eq!(server.number("select sum(n) from kept"), 499_500);
}

#[test]
fn rows_under_the_same_token_are_stored_once_in_the_table_and_what_derives_from_it() {
    let Some(server) = ClickHouse::shared() else { return };
    server.query("create database tokens");
    let window = "settings non_replicated_deduplication_window = 100";
    for table in ["told", "derived"] {
        let columns = "(n UInt64) engine = MergeTree order by n";
        server.query(&format!("create table tokens.{table} {columns} {window}"));
    }
    server.query(
        "create materialized view tokens.deriving to tokens.derived as select n from tokens.told",
    );
    let insert = |token| {
        let settings = [("insert_deduplication_token", token), ("async_insert", "0")];
        server.ask(&settings, b"insert into tokens.told select 7").expect("an insert");
    };
    insert("first");
    insert("first");
    insert("second");
    assert_eq!(server.number("select count() from tokens.told"), 2);
    assert_eq!(server.number("select count() from tokens.derived"), 2);
}

#[test]
fn a_json_column_keeps_types_and_refuses_a_path_that_is_two_things() {
    let Some(server) = ClickHouse::shared() else { return };
    server.query("create database documents");
    server.query("create table documents.kept (params JSON) engine = MergeTree order by tuple()");
    server.query(
        r#"insert into documents.kept format JSONEachRow {"params": {"a": {"b": 1}, "c": "x"}}"#,
    );
    assert_eq!(
        server.query("select params.a.b as b, dynamicType(params.c) as c from documents.kept"),
        [json!({"b": 1, "c": "String"})]
    );
    let twice = r#"insert into documents.kept format JSONEachRow {"params": {"a": 1, "a": 2}}"#;
    let refused = server.try_query(twice).expect_err("a refusal");
    assert!(refused.starts_with("Code: 117."), "{refused}");
}

#[test]
fn a_stopped_server_says_nothing_and_goes_on_where_it_was() {
    let Some(server) = ClickHouse::start() else { return };
    server.pause();
    let mut stream = TcpStream::connect(server.address).expect("connecting");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n").expect("sending");
    assert!(stream.read(&mut [0; 1]).is_err());
    server.resume();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("Ok.\n"), "{answer}");
}

#[test]
fn who_may_only_read_is_refused_with_164_and_a_wrong_password_with_516() {
    let Some(server) = ClickHouse::shared() else { return };
    let code = |user: &str, password: &str| {
        let mut stream = TcpStream::connect(server.address).expect("connecting");
        write!(
            stream,
            "POST /?query=create%20database%20other HTTP/1.0\r\nX-ClickHouse-User: {user}\r\n\
             X-ClickHouse-Key: {password}\r\nContent-Length: 0\r\n\r\n"
        )
        .expect("sending");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let code =
            answer.lines().find_map(|line| line.strip_prefix("X-ClickHouse-Exception-Code: "));
        code.map(|code| code.trim().to_owned())
    };
    assert_eq!(code(clickhouse::READER.0, clickhouse::READER.1).as_deref(), Some("164"));
    assert_eq!(code(clickhouse::USER.0, "guessed").as_deref(), Some("516"));
}

/// Sends an insert through `relay`, as far as it lets it; the bytes of the answer.
fn insert(relay: &Relay) -> Vec<u8> {
    let mut stream = TcpStream::connect(relay.address).expect("connecting");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let request = format!(
        "POST /?query=INSERT%20INTO%20relayed%20VALUES HTTP/1.0\r\nX-ClickHouse-User: {}\r\n\
         X-ClickHouse-Key: {}\r\nContent-Length: 3\r\n\r\n(7)",
        clickhouse::USER.0,
        clickhouse::USER.1
    );
    let mut answer = Vec::new();
    // A broken connection is what may happen here.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn the_relay_breaks_a_request_or_loses_an_answer_at_the_byte_it_was_told() {
    let Some(server) = ClickHouse::start() else { return };
    server.query("create table relayed (n UInt64) engine = MergeTree order by n");
    let relay = Relay::start(server.address);
    let stored = || server.number("select count() from relayed");
    let whole = insert(&relay);
    assert!(whole.starts_with(b"HTTP/1.0 200 OK\r\n"));
    assert_eq!(stored(), 1);
    relay.arm("insert", Fault::CutRequest(100), 1);
    assert_eq!(insert(&relay), b"");
    assert_eq!(stored(), 1);
    for bytes in [0, 1, 17, whole.len() - 1] {
        let before = stored();
        relay.arm("insert", Fault::CutAnswer(bytes), 1);
        assert_eq!(insert(&relay).len(), bytes);
        assert_eq!(stored(), before + 1, "the answer at byte {bytes} was lost, the row was not");
    }
    relay.arm("select", Fault::CutRequest(0), 1);
    assert_eq!(insert(&relay)[..15], whole[..15], "another word was to be struck");
    relay.arm("insert", Fault::Delay(Duration::from_millis(200)), 1);
    let asked = Instant::now();
    assert_eq!(insert(&relay)[..15], whole[..15]);
    assert!(asked.elapsed() >= Duration::from_millis(400));
    relay.refuse();
    assert_eq!(insert(&relay), b"");
    relay.heal();
    assert_eq!(insert(&relay)[..15], whole[..15]);
    assert_eq!(relay.struck(), 6);
    assert_eq!(stored(), 8);
}
