//! Pruning the embedded store, through the program as built. ClickHouse has the same rules, in
//! `clickhouse_prune.rs`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/overlap.rs"]
mod overlap;
mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const DAY: u64 = 24 * 3600;
const OLD: &str = "2025-03-04T05:06:07Z";

fn run(site: &Site, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .arg("--config")
        .arg(site.path().join("config.json"))
        .output()
        .expect("running tracker");
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// Four events: old, old with flags 5, old with flags 3, and one of now.
fn fill(server: &Server) {
    for (xid, flags, at) in [
        ("old", 0, OLD.to_owned()),
        ("spared", 5, OLD.to_owned()),
        ("flagged", 3, OLD.to_owned()),
        ("new", 0, chrono::Utc::now().to_rfc3339()),
    ] {
        let mut event = json!({"vid": "00000000-0000-4000-8000-000000000001", "xid": xid,
            "uid": "00000000-0000-4000-8000-000000000002", "url": "https://example.org/a",
            "duration": 5, "plan": "Pro", "seats": 3, "nested": {"deep": ["x", 1]},
            "created_at": at});
        if flags > 0 {
            event["cflags"] = json!(flags);
        }
        let headers = [("Content-Type", "application/json")];
        let body = event.to_string();
        let mut client = Client::connect(server.address).unwrap();
        let answer = client.request("POST", "/tr/v1/tr/", &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
    }
    server.drained();
}

/// A site with four events, without a server.
fn filled(more: Value) -> Site {
    let site = Site::new(PROGRAM, more);
    let server = site.start();
    fill(&server);
    server.stop();
    site
}

fn says(site: &Site, xid: &str) -> Value {
    let columns = "ip, iphash, url, duration, uid, params";
    site.query(&format!("select {columns} from events where xid = '{xid}'"))[0].clone()
}

/// What a rule does to the rows of [`fill`], whoever has the file.
fn blanks(site: &Site) {
    let before = ["old", "spared", "new"].map(|xid| says(site, xid));
    let (said, is_done) = run(site, &["prune", "--dry-run"]);
    assert!(is_done && said.contains("(Prune[0]): 2 rows in 1 portions"), "{said}");
    assert_eq!(says(site, "old"), before[0]);
    let (said, is_done) = run(site, &["prune"]);
    assert!(is_done && said.contains("1/1 202503: 2 rows"), "{said}");
    let after = says(site, "old");
    let hash = after["params"]["urlhash"].as_str().expect("a hash").to_owned();
    assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    let iphash = &before[0]["iphash"];
    let expect = json!({"ip": null, "iphash": iphash, "url": null, "duration": null, "uid": null,
        "params": {"seats": 3, "iphash": iphash, "urlhash": hash}});
    assert_eq!(after, expect);
    assert_eq!(says(site, "flagged"), expect);
    assert_eq!([says(site, "spared"), says(site, "new")], [before[1].clone(), before[2].clone()]);
    assert_eq!(site.number("select count(*) from hits where date < current_date"), 1);
    let (said, is_done) = run(site, &["prune"]);
    assert_eq!((said.as_str(), is_done), ("duckdb: 0 rows changed\n", true));
}

fn rule() -> Value {
    json!({
        "Table": "events", "TTL": 30 * DAY, "CFlagsIgnore": [4], "ClearParams": true,
        "Fields": [
            {"Id": "ip", "DestParamHash": "iphash"},
            {"Id": "url", "DestParamHash": "urlhash"},
            {"Id": "duration"}, {"Id": "uid"}
        ]
    })
}

#[test]
fn old_rows_say_what_the_rule_leaves_them_and_spared_ones_say_all() {
    let site = filled(json!({"Notify": [{"Type": "duckdb", "Prune": [rule()]}]}));
    blanks(&site);
    // The file is as usable as before.
    let server = site.start();
    server.drained();
    server.stop();
}

#[test]
fn a_running_server_prunes_its_file_itself_and_goes_on_storing() {
    let site = Site::new(PROGRAM, json!({"Notify": [{"Type": "duckdb", "Prune": [rule()]}]}));
    let server = site.start();
    fill(&server);
    blanks(&site);
    fill(&server);
    assert_eq!(site.number("select count(*) from events"), 8);
    let (said, is_done) = run(&site, &["prune"]);
    assert!(is_done && said.contains("duckdb: 2 rows changed"), "{said}");
    server.stop();
}

#[test]
fn a_dry_run_counts_what_rules_before_leave_as_the_run_itself_does() {
    let notify = json!([{"Type": "duckdb", "Prune": overlap::rules()}]);
    let site = Site::new(PROGRAM, json!({"Notify": notify}));
    let server = site.start();
    fill(&server);
    let (dry, is_done) = run(&site, &["prune", "--dry-run"]);
    assert!(is_done, "{dry}");
    assert_eq!(overlap::found(&dry), overlap::FOUND);
    assert!(dry.contains("duckdb: 14 rows would be changed"), "{dry}");
    server.stop();
    let (offline, _) = run(&site, &["prune", "--dry-run"]);
    assert_eq!(overlap::found(&offline), overlap::FOUND);
    assert_eq!(site.number("select count(*) from events"), 4);
    let (said, is_done) = run(&site, &["prune"]);
    assert!(is_done, "{said}");
    assert_eq!(overlap::found(&said), overlap::FOUND);
    assert_eq!(site.number("select count(*) from events"), 1);
}

#[test]
fn rows_older_than_the_retention_go_and_a_rule_that_cannot_be_kept_fails_the_run() {
    let site = filled(json!({"DataRetentionDays": 30, "PruneOldData": true}));
    let (said, is_done) = run(&site, &["prune"]);
    assert!(is_done && said.contains("(DataRetentionDays): 3 rows in 1 portions"), "{said}");
    assert_eq!(site.number("select count(*) from events"), 1);
    let rules = json!([{"Table": "visitors", "TTL": DAY, "ClearAll": true},
        {"Table": "events", "TTL": DAY, "Fields": [{"Id": "vid"}]}]);
    site.reconfigure(json!({"Notify": [{"Type": "duckdb", "Prune": rules}]}));
    let (said, is_done) = run(&site, &["prune"]);
    assert!(!is_done && said.contains("2 not done"), "{said}");
    assert!(said.contains("visitors has no rows of its own that grow old"), "{said}");
    assert!(said.contains("events.vid tells rows apart"), "{said}");
}

#[test]
fn many_rows_are_blanked_in_chunks() {
    let rule = json!({"Table": "events", "TTL": DAY, "ClearParams": true, "ClearNumericParams": true,
        "Fields": [{"Id": "url"}]});
    let site = filled(json!({"Notify": [{"Type": "duckdb", "Prune": [rule]}]}));
    // What a person may not change through the program, a test does beside it.
    let file = duckdb::Connection::open(site.path().join("data/tracker.duckdb")).unwrap();
    file.execute_batch(
        "insert into events (eid, created_at, url, params) select uuid(), timestamp '2024-05-06', \
         'https://example.org', json_object('n', i, 't', 'x') from range(25000) t(i); checkpoint",
    )
    .unwrap();
    drop(file);
    let (said, is_done) = run(&site, &["prune"]);
    assert!(is_done && said.contains("1/2 202405: 25000 rows .. done"), "{said}");
    let left = "select count(*) from events where url is not null or params <> '{}'";
    assert_eq!(site.number(left), 1);
    assert_eq!(site.number("select count(*) from events"), 25_004);
}
