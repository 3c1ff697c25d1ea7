//! ClickHouse fails in every way that it is known to, under the real program: what was answered with a
//! 200 stands there exactly once afterwards, and DuckDB beside it noticed nothing.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what fails here should fail the run with its reason"
)]
#[path = "support/clickhouse.rs"]
mod clickhouse;
#[path = "support/promises.rs"]
mod promises;
#[path = "support/relay.rs"]
mod relay;
mod support;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clickhouse::{ClickHouse, entry};
use promises::Promises;
use relay::{Fault, Relay};
use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, Site};

const VISITOR: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";
const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
/// What only an insert has in its address.
const INSERT: &str = "query=insert+into";

/// A folder of a tracker that sends to ClickHouse as `entry` says, and to DuckDB.
fn site(entry: &Value) -> Site {
    Site::new(PROGRAM, settings(entry))
}

/// DuckDB is first, because `tracker query` asks the first.
fn settings(entry: &Value) -> Value {
    json!({"Notify": [{"Type": "duckdb", "MaxBatchTime": "50ms"}, entry]})
}

fn sink(server: &Server, name: &str) -> Value {
    let health = server.health();
    let sinks = health["sinks"].as_array().expect("sinks");
    sinks.iter().find(|sink| sink["name"] == name).expect("the sink").clone()
}

/// Waits until `condition` holds for a sink.
fn wait(server: &Server, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sink = sink(server, name);
        if condition(&sink) {
            return sink;
        }
        assert!(Instant::now() < deadline, "waited in vain: {sink}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the sink says `words`; only an error that names its reason helps whoever is woken by it.
fn complains(server: &Server, words: &str) {
    wait(server, "clickhouse", |sink| {
        sink["last_error"].as_str().is_some_and(|error| error.contains(words))
    });
}

/// DuckDB gets everything while ClickHouse still lacks something.
fn only_duckdb_has_all(server: &Server) {
    wait(server, "duckdb", |sink| sink["lag_events"] == 0);
    assert!(sink(server, "clickhouse")["lag_events"].as_u64() > Some(0), "it was stored already");
}

/// What holds after every fault.
fn all_is_well(
    promises: &Promises,
    clickhouse: &ClickHouse,
    database: &str,
    site: &Site,
    server: &Server,
) {
    facts_are_well(promises, clickhouse, database, site, server);
    promises.check(clickhouse, database);
}

/// As [`all_is_well`], but for counters that derive: what a server keeps of those when it is killed in the
/// middle of an insert is its own affair.
fn facts_are_well(
    promises: &Promises,
    clickhouse: &ClickHouse,
    database: &str,
    site: &Site,
    server: &Server,
) {
    server.drained();
    promises.check_events(clickhouse, database);
    assert!(promises.unanswered.is_empty(), "the tracker itself did not fail");
    let all = promises.acknowledged.len() as u64;
    assert_eq!(clickhouse.number(&format!("select uniqExact(eid) from {database}.events")), all);
    assert_eq!(site.number("select count(*) as n from events"), all);
    assert_eq!(server.metric_sum("tracker_sink_lost_total"), 0);
    assert_eq!(site.number("select count(*) as n from quarantine"), 0);
    assert_eq!(sink(server, "clickhouse")["state"], "up");
}

#[test]
fn what_came_while_clickhouse_refused_connections_is_stored_when_it_is_back() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("refused"));
    // From the start on: there is not even a schema.
    clickhouse.kill();
    let server = site.start();
    promises.send(server.address, 2, 50);
    complains(&server, "cannot be reached");
    only_duckdb_has_all(&server);
    clickhouse.restart();
    all_is_well(&promises, &clickhouse, "refused", &site, &server);
    // And later.
    clickhouse.kill();
    promises.send(server.address, 2, 50);
    only_duckdb_has_all(&server);
    clickhouse.restart();
    all_is_well(&promises, &clickhouse, "refused", &site, &server);
    server.stop();
}

#[test]
fn a_slow_clickhouse_makes_nobody_else_wait() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let relay = Relay::start(clickhouse.address);
    let site = site(&entry(relay.address, "slow"));
    let server = site.start();
    promises.send(server.address, 1, 1);
    server.drained();
    relay.arm(INSERT, Fault::Delay(Duration::from_millis(700)), usize::MAX);
    let asked = Instant::now();
    promises.send(server.address, 2, 100);
    assert!(asked.elapsed() < Duration::from_secs(5), "clients waited {:?}", asked.elapsed());
    only_duckdb_has_all(&server);
    all_is_well(&promises, &clickhouse, "slow", &site, &server);
    assert!(relay.struck() > 0, "it was not slow");
    server.stop();
}

#[test]
fn a_hung_clickhouse_is_noticed_and_loses_nothing() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("hung"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    clickhouse.pause();
    promises.send(server.address, 2, 100);
    only_duckdb_has_all(&server);
    complains(&server, "no answer within 2s");
    promises.send(server.address, 1, 10);
    clickhouse.resume();
    all_is_well(&promises, &clickhouse, "hung", &site, &server);
    server.stop();
}

#[test]
fn a_clickhouse_killed_in_the_middle_of_inserts_loses_nothing_and_doubles_nothing() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("killed"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    for cycle in 0..4_u64 {
        let address = server.address;
        promises = thread::scope(|scope| {
            let sending = scope.spawn(move || {
                promises.send(address, 2, 600);
                promises
            });
            // Somewhere in the first inserts.
            thread::sleep(Duration::from_millis(110 + 37 * cycle));
            clickhouse.kill();
            sending.join().expect("the clients")
        });
        clickhouse.restart();
        facts_are_well(&promises, &clickhouse, "killed", &site, &server);
    }
    server.stop();
}

/// Sends a few events under each of `faults`, and waits until it has struck.
fn under_each(
    faults: impl IntoIterator<Item = Fault>,
    promises: &mut Promises,
    relay: &Relay,
    server: &Server,
) {
    for fault in faults {
        let before = relay.struck();
        relay.arm(INSERT, fault, 1);
        promises.send(server.address, 1, 13);
        let deadline = Instant::now() + PATIENCE;
        while relay.struck() == before {
            assert!(Instant::now() < deadline, "{fault:?} never struck");
            thread::sleep(Duration::from_millis(10));
        }
        server.drained();
    }
}

#[test]
fn whichever_byte_of_an_answer_is_lost_after_the_commit_the_rows_are_stored_once() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let relay = Relay::start(clickhouse.address);
    let site = site(&entry(relay.address, "answers"));
    let server = site.start();
    // A fault that lets everything pass tells how long an answer is.
    under_each([Fault::CutAnswer(usize::MAX)], &mut promises, &relay, &server);
    let whole = relay.returned();
    assert!(whole > 100, "an answer of {whole} bytes");
    let stages = [0, 1, whole / 4, whole / 2, whole - 5, whole - 1].map(Fault::CutAnswer);
    under_each(stages, &mut promises, &relay, &server);
    under_each([Fault::Silence], &mut promises, &relay, &server);
    all_is_well(&promises, &clickhouse, "answers", &site, &server);
    assert_eq!(relay.struck(), 8);
    server.stop();
}

#[test]
fn wherever_an_insert_is_cut_off_its_rows_are_stored_once() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let relay = Relay::start(clickhouse.address);
    let site = site(&entry(relay.address, "requests"));
    let server = site.start();
    promises.send(server.address, 1, 1);
    server.drained();
    let stages = [0, 1, 100, 1000, 2000, 3000].map(Fault::CutRequest);
    under_each(stages, &mut promises, &relay, &server);
    all_is_well(&promises, &clickhouse, "requests", &site, &server);
    server.stop();
}

/// Waits until `relay` has struck again.
fn struck(relay: &Relay) {
    let (before, deadline) = (relay.struck(), Instant::now() + PATIENCE);
    while relay.struck() == before {
        assert!(Instant::now() < deadline, "no request was struck");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn rows_of_which_a_killed_server_kept_the_token_alone_are_stored() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    let relay = Relay::start(clickhouse.address);
    let site = site(&entry(relay.address, "token"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    relay.arm(INSERT, Fault::CutAnswer(0), usize::MAX);
    promises.send(server.address, 1, 1);
    struck(&relay);
    // As a kill between the log of tokens and the rows leaves it.
    let lost = "alter table token.events delete where eid not in (select eid from token.kept)";
    let until = Instant::now() + PATIENCE;
    while clickhouse.number("select count() from token.events") < 11 {
        assert!(Instant::now() < until, "it was not stored");
    }
    clickhouse.query("create table token.kept (eid UUID) engine = Memory");
    clickhouse
        .query("insert into token.kept select eid from token.events order by ingest_seq limit 10");
    clickhouse.ask(&[("mutations_sync", "2")], lost.as_bytes()).expect("a mutation");
    assert_eq!(clickhouse.number("select count() from token.events"), 10);
    clickhouse.kill();
    clickhouse.restart();
    relay.heal();
    server.drained();
    assert_eq!(clickhouse.number("select count() from token.events"), 11);
    assert_eq!(clickhouse.number("select uniqExact(eid) from token.events"), 11);
    server.stop();
}

#[test]
fn a_batch_that_both_killed_programs_tried_in_turn_stands_once() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    let relay = Relay::start(clickhouse.address);
    let site = site(&entry(relay.address, "turns"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    // It never arrives whole before ClickHouse is killed,
    relay.arm(INSERT, Fault::CutRequest(1500), usize::MAX);
    promises.send(server.address, 1, 9);
    struck(&relay);
    clickhouse.kill();
    clickhouse.restart();
    // arrives then, and the tracker is killed before it is told.
    relay.arm(INSERT, Fault::CutAnswer(0), usize::MAX);
    let until = Instant::now() + PATIENCE;
    while clickhouse.number("select count() from turns.events") < 19 {
        assert!(Instant::now() < until, "it was not stored");
        thread::sleep(Duration::from_millis(10));
    }
    server.kill();
    relay.heal();
    let server = site.start();
    all_is_well(&promises, &clickhouse, "turns", &site, &server);
    server.stop();
}

#[test]
fn an_order_told_twice_in_one_batch_is_no_lost_row_after_a_lost_answer() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let relay = Relay::start(clickhouse.address);
    let mut entry = entry(relay.address, "orders");
    entry["Tables"] = json!({"payments": {"Strategy": "hybrid", "MaxBatchTime": "300ms"}});
    let site = site(&entry);
    let server = site.start();
    let mut client = Client::connect(server.address).expect("connecting");
    let mut pay = || {
        let order = json!({"uid": "u", "oid": "org", "amt": 9.99, "orid": "o-1"}).to_string();
        let answer = client.request("POST", "/tr/v1/ltv/", &[], order.as_bytes()).expect("sent");
        assert_eq!(answer.status, 200);
    };
    pay();
    server.drained();
    relay.arm("payments", Fault::CutAnswer(0), 1);
    for _ in 0..5 {
        pay();
    }
    server.drained();
    assert_eq!(relay.struck(), 1);
    assert_eq!(clickhouse.number("select count() from orders.payments final"), 1);
    assert!(!log(&site).contains("that it does not have"), "{}", log(&site));
    server.stop();
}

#[test]
fn an_event_told_twice_in_one_batch_does_not_hold_the_sink_after_a_lost_answer() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let relay = Relay::start(clickhouse.address);
    let mut entry = entry(relay.address, "twice");
    entry["Tables"] = json!({"events": {"Strategy": "hybrid", "MaxBatchTime": "300ms"}});
    let site = site(&entry);
    let server = site.start();
    let mut client = Client::connect(server.address).expect("connecting");
    let mut tell = |number: u32| {
        let event = json!({
            "eid": format!("01a1ff25-ad1f-7539-9844-97d3112f000{number}"), "vid": VISITOR,
            "ename": "told", "created_at": "2026-11-21T10:00:00.000Z",
        });
        let body = event.to_string();
        let answer = client.request("POST", "/tr/v1/tr/", &[], body.as_bytes()).expect("sent");
        assert_eq!(answer.status, 200);
    };
    tell(0);
    server.drained();
    relay.arm("events", Fault::CutAnswer(0), 1);
    for number in [1, 1, 2, 2, 3] {
        tell(number);
    }
    // The two that were folded are never found, however often they are looked for.
    server.drained();
    assert_eq!(relay.struck(), 1);
    assert_eq!(clickhouse.number("select count() from twice.events final"), 4);
    server.stop();
}

#[test]
fn too_many_parts_are_waited_for() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("parts"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    let limit = |parts: u32| {
        clickhouse.query(&format!(
            "alter table parts.events modify setting parts_to_throw_insert = {parts}, \
             parts_to_delay_insert = {parts}"
        ));
    };
    clickhouse.query("system stop merges parts.events");
    limit(2);
    let deadline = Instant::now() + PATIENCE;
    loop {
        promises.send(server.address, 1, 10);
        let error = sink(&server, "clickhouse")["last_error"].clone();
        if error.as_str().is_some_and(|error| error.contains("TOO_MANY_PARTS")) {
            break;
        }
        assert!(Instant::now() < deadline, "there were never too many parts: {error}");
        thread::sleep(Duration::from_millis(50));
    }
    only_duckdb_has_all(&server);
    clickhouse.query("system start merges parts.events");
    limit(3000);
    all_is_well(&promises, &clickhouse, "parts", &site, &server);
    server.stop();
}

#[test]
fn a_memory_limit_of_the_server_is_waited_for() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("memory"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    clickhouse.stop();
    clickhouse.restart_with(&["--setting", "max_memory_usage=100000"]);
    promises.send(server.address, 2, 100);
    complains(&server, "MEMORY_LIMIT_EXCEEDED");
    only_duckdb_has_all(&server);
    clickhouse.stop();
    clickhouse.restart_with(&[]);
    all_is_well(&promises, &clickhouse, "memory", &site, &server);
    server.stop();
}

#[test]
fn a_server_with_little_memory_gets_less_at_once() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let mut promises = Promises::default();
    // A batch is cut when no attempt without an answer can be left, which is twice this time.
    let mut entry = clickhouse.entry("little");
    entry["InsertTimeout"] = json!("3s");
    let site = site(&entry);
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    clickhouse.stop();
    promises.send(server.address, 20, 1000);
    only_duckdb_has_all(&server);
    clickhouse.restart_with(&["--setting", "max_memory_usage=40000000"]);
    complains(&server, "MEMORY_LIMIT_EXCEEDED");
    all_is_well(&promises, &clickhouse, "little", &site, &server);
    assert!(log(&site).contains("batch is too large and is cut"), "it was taken as it was");
    server.stop();
}

#[test]
fn a_user_who_may_only_read_is_named_and_a_better_one_delivers_everything() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let mut reader = clickhouse.entry("rights");
    reader["Username"] = json!(clickhouse::READER.0);
    reader["Password"] = json!(clickhouse::READER.1);
    let site = site(&reader);
    let server = site.start();
    promises.send(server.address, 2, 50);
    complains(&server, "READONLY");
    only_duckdb_has_all(&server);
    server.stop();
    site.reconfigure(settings(&clickhouse.entry("rights")));
    let server = site.start();
    all_is_well(&promises, &clickhouse, "rights", &site, &server);
    server.stop();
}

#[test]
fn a_wrong_password_is_named_and_the_right_one_delivers_everything() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let mut stranger = clickhouse.entry("password");
    stranger["Password"] = json!("guessed-4711");
    let site = site(&stranger);
    let server = site.start();
    promises.send(server.address, 2, 50);
    complains(&server, "AUTHENTICATION_FAILED");
    only_duckdb_has_all(&server);
    let told = format!("{}{}", server.health(), log(&site));
    assert!(!told.contains("guessed-4711"), "the password is shown");
    server.stop();
    site.reconfigure(settings(&clickhouse.entry("password")));
    let server = site.start();
    all_is_well(&promises, &clickhouse, "password", &site, &server);
    server.stop();
}

fn log(site: &Site) -> String {
    std::fs::read_to_string(site.path().join("log")).expect("the log")
}

#[test]
fn a_table_that_may_not_be_written_is_waited_for() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("writing"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    clickhouse.query("alter table writing.events modify setting table_readonly = 1");
    promises.send(server.address, 2, 50);
    complains(&server, "readonly");
    only_duckdb_has_all(&server);
    clickhouse.query("alter table writing.events modify setting table_readonly = 0");
    all_is_well(&promises, &clickhouse, "writing", &site, &server);
    server.stop();
}

#[test]
fn a_column_that_is_missing_is_named_and_everything_comes_after_tracker_migrate() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("missing"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    clickhouse.query("alter table missing.events drop column term");
    promises.send(server.address, 2, 50);
    complains(&server, "term");
    complains(&server, "run tracker migrate");
    only_duckdb_has_all(&server);
    server.stop();
    let migrated = Command::new(PROGRAM)
        .args(["migrate", "--config"])
        .arg(site.path().join("config.json"))
        .output()
        .expect("migrating");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let server = site.start();
    all_is_well(&promises, &clickhouse, "missing", &site, &server);
    server.stop();
}

#[test]
fn a_column_of_another_type_is_named_and_everything_comes_when_it_is_mended() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("types"));
    let server = site.start();
    promises.send(server.address, 1, 10);
    server.drained();
    let column = clickhouse.query(
        "select type from system.columns where database = 'types' and table = 'events' and name = 'term'",
    );
    let column = column[0]["type"].as_str().expect("a type").to_owned();
    let change = |to: &str| {
        clickhouse.query("alter table types.events drop column term");
        clickhouse.query(&format!("alter table types.events add column term {to}"));
    };
    change("Array(UUID)");
    promises.send(server.address, 2, 50);
    complains(&server, "term");
    only_duckdb_has_all(&server);
    change(&column);
    all_is_well(&promises, &clickhouse, "types", &site, &server);
    server.stop();
}

#[test]
fn one_row_that_the_server_refuses_is_set_aside_with_its_words_and_the_rest_is_stored() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut promises = Promises::default();
    let site = site(&clickhouse.entry("poison"));
    let server = site.start();
    promises.send(server.address, 1, 1);
    server.drained();
    clickhouse.query("alter table poison.events add constraint no_poison check ename != 'poison'");
    let poison = "0190a8f0-0000-7000-8000-00000000dead";
    let body = json!({"eid": poison, "ename": "poison", "url": "https://shop.example/"});
    // In the middle of one batch.
    let batch: Vec<Value> = (0..20)
        .map(|n| {
            if n == 11 {
                return body.clone();
            }
            let id = uuid::Uuid::now_v7().to_string();
            promises.acknowledged.insert(id.clone());
            json!({"eid": id, "ename": "food", "url": "https://shop.example/"})
        })
        .collect();
    let mut client = Client::connect(server.address).expect("connecting");
    let answer = client
        .request("POST", "/tr/v1/tr/", &[], json!(batch).to_string().as_bytes())
        .expect("sent");
    assert_eq!(answer.status, 200);
    promises.send(server.address, 1, 30);
    server.drained();
    promises.check(&clickhouse, "poison");
    let kept = site.query("select reason, sink, table_name, message from quarantine");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["reason"], "refused");
    assert_eq!(kept[0]["sink"], "clickhouse");
    assert_eq!(kept[0]["table_name"], "events");
    assert!(kept[0]["message"].as_str().is_some_and(|words| words.contains("no_poison")));
    let kept = clickhouse.query("select reason, sink, message, raw from poison.quarantine");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0]["message"].as_str().is_some_and(|words| words.contains("no_poison")));
    assert!(kept[0]["raw"].as_str().is_some_and(|raw| raw.contains(poison)));
    // DuckDB had nothing against it.
    let all = promises.acknowledged.len() as u64 + 1;
    assert_eq!(site.number("select count(*) as n from events"), all);
    assert_eq!(site.number("select count(*) as n from events where ename = 'poison'"), 1);
    server.stop();
}

#[test]
fn parameters_are_stored_as_sent_and_only_those_that_are_two_things_at_one_path_are_set_aside() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse.entry("paths"));
    let server = site.start();
    let mut client = Client::connect(server.address).expect("connecting");
    let kept = [
        json!({"x": 1}),
        json!({"": {"": ""}}),
        json!({"a": [1, "x", {"b": [null]}]}),
        json!({"n": 1e300, "big": u64::MAX, "text": "\u{1f600}"}),
        // Texts that look like dates are texts.
        json!({"day": "2026-01-31", "none": "2026-02-30", "moment": "2026-01-01 00:00:00"}),
    ];
    let refused = json!({"a.b": 1, "a": {"b": 2}});
    for params in kept.iter().chain([&refused]) {
        let event = json!({"ename": "odd", "params": params}).to_string();
        let answer = client.request("POST", "/tr/v1/tr/", &[], event.as_bytes()).expect("sent");
        assert_eq!(answer.status, 200, "{event}");
    }
    server.drained();
    let rows = clickhouse.query("select params from paths.events order by ingest_seq");
    let stored: Vec<_> = rows.iter().map(|row| row["params"].clone()).collect();
    assert_eq!(stored, kept);
    let set_aside = site.query("select sink, message from quarantine");
    assert_eq!(set_aside.len(), 1, "{set_aside:?}");
    assert_eq!(set_aside[0]["sink"], "clickhouse");
    let words = set_aside[0]["message"].as_str().expect("words");
    assert!(words.contains("two values at one path"), "{words}");
    assert_eq!(site.number("select count(*) as n from events"), 1 + kept.len() as u64);
    server.stop();
}
