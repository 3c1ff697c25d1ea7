//! Pruning ClickHouse, through the program as built: what old rows say is taken away, what consent,
//! age and limits spare is not, and a run that was ended is gone on with by the next.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/clickhouse.rs"]
mod clickhouse;
#[path = "support/overlap.rs"]
mod overlap;
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use clickhouse::ClickHouse;
use serde_json::{Value, json};
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const DAY: u64 = 24 * 3600;
const OLD: &str = "2025-03-04T05:06:07Z";

fn site(clickhouse: &ClickHouse, database: &str, rules: Value, more: Value) -> Site {
    let mut entry = clickhouse.entry(database);
    entry["Prune"] = rules;
    let site = Site::new(PROGRAM, json!({"Notify": [entry]}));
    site.reconfigure(more);
    site
}

fn command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    if !arguments.contains(&"--prune") {
        command.arg("--config");
    }
    command.arg(site.path().join("config.json"));
    command
}

/// What it printed, and whether it succeeded.
fn run(site: &Site, arguments: &[&str]) -> (String, bool) {
    let output = command(site, arguments).output().expect("running tracker");
    let said = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (format!("{said}{error}"), output.status.success())
}

fn prune(site: &Site) -> String {
    let (said, is_done) = run(site, &["prune"]);
    assert!(is_done, "{said}");
    said
}

fn track(server: &Server, event: &Value) {
    let mut client = Client::connect(server.address).unwrap();
    let headers =
        [("Content-Type", "application/json"), ("User-Agent", "Mozilla/5.0 Firefox/140.0")];
    let body = event.to_string();
    let answer = client.request("POST", "/tr/v1/tr/", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
}

/// The hash that stands in for a value, computed anew from the installation's key.
fn hash(site: &Site, value: &str) -> String {
    let text = std::fs::read_to_string(site.path().join("data/keys/hash.key")).unwrap();
    let pairs = text.trim().as_bytes().chunks(2);
    let key: Vec<u8> = pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let sign = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let tag = sign(&sign(&sign(&key, "pruning"), "of a store"), value);
    tag[..16].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn old_rows_say_what_the_rule_leaves_them_and_spared_ones_say_all() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let rules = json!([{
        "Table": "events", "TTL": 30 * DAY, "PageSize": 10_000, "CFlagsIgnore": [4, 8],
        "ClearParams": true, "ClearNumericParams": false,
        "Fields": [
            {"Id": "ip", "Type": "inet", "DestParamHash": "iphash"},
            {"Id": "url", "DestParamHash": "urlhash"},
            {"Id": "duration"}, {"Id": "vp_w"}, {"Id": "uid"}, {"Id": "country"}
        ]
    }]);
    let site = site(&clickhouse, "blanked", rules, json!({}));
    let server = site.start();
    let event = |more: Value| {
        let mut event = json!({"vid": "00000000-0000-4000-8000-000000000001", "ename": "viewed",
            "uid": "00000000-0000-4000-8000-000000000002", "url": "https://example.org/a",
            "duration": 5, "w": 100, "plan": "Pro", "seats": 3, "nested": {"deep": ["x", 1]},
            "tz": "Europe/Berlin", "created_at": OLD});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        track(&server, &event);
    };
    event(json!({"xid": "old"}));
    event(json!({"xid": "spared", "cflags": 5}));
    event(json!({"xid": "flagged", "cflags": 3}));
    event(json!({"xid": "new", "created_at": chrono::Utc::now().to_rfc3339()}));
    server.drained();
    server.stop();
    let says = |xid: &str| {
        clickhouse.query(&format!(
            "select ip, iphash, url, duration, vp_w, toString(uid) as uid, country, params from \
             blanked.events final where xid = '{xid}'"
        ))[0]
            .clone()
    };
    let before = [says("old"), says("spared"), says("new")];
    assert_eq!(before[0]["ip"], "127.0.0.0");
    assert!(before[0]["params"]["plan"] == "Pro" && before[0]["params"]["seats"] == 3);
    let ips = "select count() from blanked.ips where date < today()";
    assert_eq!(clickhouse.number(ips), 1);

    let (dry, is_done) = run(&site, &["prune", "--dry-run"]);
    assert!(is_done && dry.contains("(Prune[0]): 2 rows in 1 portions"), "{dry}");
    assert_eq!(says("old"), before[0]);

    let said = prune(&site);
    assert!(said.contains("1/1 202503: 2 rows") && said.contains("done"), "{said}");
    let expect = json!({
        "ip": "", "iphash": before[0]["iphash"], "url": "", "duration": null, "vp_w": 0,
        "uid": "00000000-0000-0000-0000-000000000000", "country": "",
        "params": {
            "iphash": before[0]["iphash"],
            "seats": 3,
            "urlhash": hash(&site, "https://example.org/a"),
        },
    });
    assert_eq!(says("old"), expect);
    assert_eq!(says("flagged"), expect);
    assert_eq!([says("spared"), says("new")], [before[1].clone(), before[2].clone()]);
    // What holds the same values under a key of its own is gone for those days.
    assert_eq!(clickhouse.number(ips), 0);
    assert_eq!(clickhouse.number("select count() from blanked.hits where date < today()"), 0);
    assert_eq!(clickhouse.number("select sum(total) from blanked.ips"), 1);
    assert_eq!(clickhouse.number("select sum(total) from blanked.reqs"), 4);

    let again = prune(&site);
    assert_eq!(again, "clickhouse: 0 rows changed\n");
    assert_eq!(says("old"), expect);
}

#[test]
fn a_dry_run_counts_what_rules_before_leave_as_the_run_itself_does() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse, "dry", overlap::rules(), json!({}));
    let server = site.start();
    for (flags, at) in [(0, OLD), (5, OLD), (3, OLD), (0, &*chrono::Utc::now().to_rfc3339())] {
        track(
            &server,
            &json!({"vid": "00000000-0000-4000-8000-000000000001", "cflags": flags,
            "url": "https://example.org/a", "duration": 5, "plan": "Pro", "seats": 3,
            "nested": {"deep": ["x", 1]}, "created_at": at}),
        );
    }
    server.drained();
    server.stop();
    let (dry, is_done) = run(&site, &["prune", "--dry-run"]);
    assert!(is_done, "{dry}");
    assert_eq!(overlap::found(&dry), overlap::FOUND);
    assert_eq!(clickhouse.number("select count() from dry.events"), 4);
    let said = prune(&site);
    assert_eq!(overlap::found(&said), overlap::FOUND);
    assert_eq!(clickhouse.number("select count() from dry.events"), 1);
    // Counters that hold the same values go once, whichever rule asks first.
    let words = |said: &str| {
        let lines = said.lines().filter(|line| line.contains(" rows in "));
        lines.map(|line| line.split_once('(').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(words(&dry), words(&said));
    let total = |said: &str| said.split("clickhouse: ").last().unwrap().to_owned();
    assert_eq!(total(&dry).replace("would be ", ""), total(&said));
}

/// Events of six months of 2024, a thousand a month, in a schema that the program made.
fn filled(clickhouse: &ClickHouse, site: &Site, database: &str) {
    let (said, is_done) = run(site, &["migrate"]);
    assert!(is_done, "{said}");
    clickhouse.query(&format!(
        "insert into {database}.events (eid, created_at, ip, url, ingest_node, ingest_seq) select \
         generateUUIDv4(), toDateTime64('2024-01-01', 3, 'UTC') + toIntervalMonth(number % 6), \
         concat('192.0.2.', toString(number % 250)), concat('/', toString(number)), 'n', number \
         from numbers(6000)"
    ));
}

#[test]
fn a_run_that_was_killed_is_gone_on_with_and_ends_in_the_same_state() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let rules = json!([{"Table": "events", "TTL": 30 * DAY,
        "Fields": [{"Id": "ip", "DestParamHash": "iphash"}, {"Id": "url"}]}]);
    let state = |database: &str| {
        clickhouse.query(&format!(
            "select ip, url, toString(params.iphash) as hash, ingest_seq from {database}.events \
             final order by ingest_seq"
        ))
    };
    let killed = site(&clickhouse, "killed", rules.clone(), json!({}));
    filled(&clickhouse, &killed, "killed");
    let mut child =
        command(&killed, &["prune"]).stdout(Stdio::piped()).spawn().expect("starting tracker");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().expect("more lines").unwrap().contains("2/6") {}
    child.kill().unwrap();
    child.wait().unwrap();
    let left = "select count() from killed.events where ip <> ''";
    assert!(clickhouse.number(left) > 0, "it was faster than its end");
    prune(&killed);
    assert_eq!(clickhouse.number(left), 0);
    assert_eq!(prune(&killed), "clickhouse: 0 rows changed\n");

    let whole = site(&clickhouse, "whole", rules, json!({}));
    let keys = |site: &Site| site.path().join("data/keys/hash.key");
    std::fs::create_dir_all(keys(&whole).parent().unwrap()).unwrap();
    std::fs::copy(keys(&killed), keys(&whole)).unwrap();
    filled(&clickhouse, &whole, "whole");
    prune(&whole);
    assert_eq!(state("killed"), state("whole"));
    assert_eq!(state("whole")[0]["hash"].as_str().unwrap(), hash(&whole, "192.0.2.0"));
}

#[test]
fn what_cannot_be_done_is_said_fails_the_run_and_keeps_nothing_else_from_it() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let fields = |column: &str| json!([{"Id": column}]);
    let rules = json!([
        {"Table": "visitors", "TTL": DAY, "ClearAll": true},
        {"Table": "events", "TTL": DAY, "Fields": fields("vid")},
        {"Table": "events", "TTL": DAY, "Fields": fields("nonsense")},
        {"Table": "payments", "TTL": DAY, "ClearAll": true, "CFlagsIgnore": [1]},
        {"Table": "events", "TTL": DAY, "ClearAll": true}
    ]);
    let site = site(&clickhouse, "unfit", rules, json!({}));
    filled(&clickhouse, &site, "unfit");
    let (said, is_done) = run(&site, &["--prune"]);
    assert!(!is_done, "{said}");
    for words in [
        "(Prune[0]): not done: visitors has no rows of its own that grow old",
        "(Prune[1]): not done: events is sorted by vid, which therefore cannot be blanked",
        "(Prune[2]): not done: events has no column nonsense",
        "(Prune[3]): not done: payments has no cflags",
        "(Prune[4]): 6000 rows in 6 portions",
        "4 not done",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    assert_eq!(clickhouse.number("select count() from unfit.events"), 0);
    assert_eq!(clickhouse.number("select count() from unfit.ips"), 0);
    assert_eq!(clickhouse.number("select count() from unfit.hits"), 0);
}

#[test]
fn retention_limits_and_log_lines_follow_their_settings() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let start = chrono::NaiveDate::from_ymd_opt(2024, 3, 15).unwrap();
    let days = (chrono::Utc::now().date_naive() - start).num_days();
    let more = json!({"DataRetentionDays": days, "PruneOldData": true, "PruneLogsTTL": 60,
        "PruneLimit": 500, "PruneSkipToTimestamp": 1_706_745_600});
    let site = site(&clickhouse, "limited", json!([]), more);
    let (said, is_done) = run(&site, &["migrate"]);
    assert!(is_done, "{said}");
    // The server would drop them by itself, whenever it gets to it.
    clickhouse.query("system stop ttl merges limited.events");
    filled(&clickhouse, &site, "limited");
    clickhouse.query(
        "insert into limited.logs (id, created_at, msg) select generateUUIDv4(), now64(3) - \
         number * 40, 'x' from numbers(3)",
    );
    let counts = || {
        let number =
            |table: &str| clickhouse.number(&format!("select count() from limited.{table}"));
        (number("events"), number("logs"))
    };
    let (said, is_done) = run(&site, &["--prune", "--logs-only"]);
    assert!(is_done && said.contains("1 rows changed"), "{said}");
    assert_eq!(counts(), (6000, 2));
    // January is skipped; after February no further month is begun.
    let said = prune(&site);
    assert!(said.contains("as many as PruneLimit allows"), "{said}");
    assert_eq!(counts(), (5000, 2));
    site.reconfigure(json!({"PruneLimit": 0, "PruneSkipToTimestamp": 0}));
    prune(&site);
    assert_eq!(counts(), (3000, 2));
    assert_eq!(clickhouse.number("select sum(total) from limited.ips"), 3000);
}

#[test]
fn a_change_that_the_server_cannot_make_is_given_up_and_leaves_nothing_waiting() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let rules = json!([{"Table": "events", "TTL": DAY, "Fields": [{"Id": "ip"}]}]);
    let site = site(&clickhouse, "refusing", rules, json!({}));
    filled(&clickhouse, &site, "refusing");
    clickhouse.query(
        "alter table refusing.events add column known UInt8 \
         materialized throwIf(ip = '', 'an address is required')",
    );
    let (said, is_done) = run(&site, &["prune"]);
    assert!(!is_done && said.contains("an address is required"), "{said}");
    let left = "select count() from system.mutations where database = 'refusing' and not is_done \
                and not is_killed";
    assert_eq!(clickhouse.number(left), 0);
    assert_eq!(clickhouse.number("select count() from refusing.events where ip = ''"), 0);
    clickhouse.query("alter table refusing.events drop column known");
    prune(&site);
    assert_eq!(clickhouse.number("select count() from refusing.events where ip <> ''"), 0);
}
