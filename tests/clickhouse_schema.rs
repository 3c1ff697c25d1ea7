//! The schema of ClickHouse, through the program as built: a first start makes it, `tracker migrate`
//! brings others to it, and what derives says the same as in DuckDB.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/clickhouse.rs"]
mod clickhouse;
mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use clickhouse::ClickHouse;
use serde_json::{Value, json};
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const OID: &str = "00000000-0000-4000-8000-000000000001";

fn post(server: &Server, path: &str, body: &Value) {
    let mut client = Client::connect(server.address).unwrap();
    let headers = [
        ("Content-Type", "application/json"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept-Language", "de"),
    ];
    let answer = client.request("POST", path, &headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
}

fn id(kind: u8, number: u32) -> String {
    format!("00000000-0000-4000-8{kind:03x}-{number:012x}")
}

/// Minutes after the first of February 2026.
fn at(minutes: i64) -> String {
    let start = chrono::DateTime::from_timestamp(1_769_904_000, 0).unwrap();
    (start + chrono::TimeDelta::minutes(minutes)).to_rfc3339()
}

/// Events of every kind that something derives from.
fn tell(server: &Server) {
    let track = |more: Value| {
        let mut event = json!({"oid": OID, "org": "acme", "ename": "viewed", "app": "site"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(server, "/tr/v1/tr/", &event);
    };
    // A visitor that comes every 25 minutes for more than a day, one that comes twice, one once.
    for step in 0..62_i64 {
        track(json!({"vid": id(1, 1), "sid": id(2, 1), "created_at": at(step * 25),
            "url": format!("https://example.org/{}", step % 3), "last": "https://example.net/x"}));
    }
    for (minutes, url) in [(5, "a"), (5, "b"), (34, "c"), (64, "d"), (10_000, "e")] {
        track(json!({"vid": id(1, 2), "uid": id(3, 2), "created_at": at(minutes), "duration": 0,
            "email": "Someone@example.org", "cell": "+49 151 1", "uname": "someone",
            "url": format!("https://example.org/{url}"), "rcode": url, "ref": id(4, 7),
            "tz": "Europe/Berlin", "lat": 52.5, "lon": 13.4, "outcome": "signup", "sink": "form"}));
    }
    track(json!({"created_at": at(1), "ename": "conversion", "tid": id(5, 1), "xid": "a",
        "campaign_id": "spring", "url": "https://example.org/new"}));
    for (vid, score) in [(2, 1), (2, 0), (3, 1)] {
        track(json!({"vid": id(1, vid), "created_at": at(2), "score": score, "tid": id(5, 1),
            "xid": "a", "campaign_id": "spring", "priority": 3, "cats": ["x", "y"]}));
    }
    for (tags, campaign) in [
        (json!({"audience": ["young", " old"], "content": "cars, boats"}), "spring"),
        (json!({"audience_tags": "young"}), ""),
        (json!({"tags": ["a", "b", "a"]}), "autumn"),
    ] {
        let mut event = json!({"vid": id(1, 2), "uid": id(3, 2), "created_at": at(3),
            "campaign": campaign});
        event.as_object_mut().unwrap().extend(tags.as_object().unwrap().clone());
        track(event);
    }
    for vid in [2, 3] {
        track(json!({"vid": id(1, vid), "created_at": at(4), "etyp": "redirect",
            "link": "example.org/go", "to": "https://example.net/there"}));
    }
    let server_event = json!({"oid": OID, "vid": id(1, 1), "ename": "billed", "created_at": at(7)});
    post(server, "/tr/v1/str/", &server_event);
    for (amount, uid) in [("10.10", 2), ("7.25", 3)] {
        post(
            server,
            "/tr/v1/ltv/",
            &json!({"oid": OID, "uid": id(3, uid), "vid": id(1, 2),
            "orid": "order-1", "revenue": amount, "currency": "EUR"}),
        );
    }
    post(
        server,
        "/tr/v1/ltv/",
        &json!({"oid": OID, "uid": id(3, 2), "invid": id(6, 1),
        "revenue": 0.2, "product": "shoe"}),
    );
    for flags in [1, 5] {
        post(server, "/tr/v1/ppi/agree/", &json!({"vid": id(1, 2), "oid": OID, "cflags": flags}));
    }
}

/// What both stores hold, in one form: absent is absent, moments have no zeros at their end.
fn plain(value: Value) -> Option<Value> {
    const ZERO: &str = "00000000-0000-0000-0000-000000000000";
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() || text == ZERO => None,
        Value::String(text) if text.starts_with('{') => {
            serde_json::from_str(&text).ok().and_then(plain)
        }
        Value::String(text) if text.len() > 18 && text.as_bytes()[10].is_ascii() => {
            let is_moment = chrono::NaiveDate::parse_from_str(&text[..10], "%Y-%m-%d").is_ok();
            let text = if is_moment {
                let text = text.replacen('T', " ", 1);
                let text = text.trim_end_matches('Z').trim_end_matches("+00:00").to_owned();
                if text.contains('.') {
                    text.trim_end_matches('0').trim_end_matches('.').to_owned()
                } else {
                    text
                }
            } else {
                text
            };
            Some(Value::String(text))
        }
        // Money is a text in one and a number in the other.
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) if text.contains('.') => plain(json!(number)),
            _ => Some(Value::String(text)),
        },
        Value::Number(number) => match number.as_f64() {
            Some(0.0) | None => None,
            Some(number) => Some(json!(number)),
        },
        Value::Bool(truth) => truth.then_some(Value::Bool(true)),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(plain).collect())),
        Value::Object(fields) => {
            let fields = fields.into_iter().filter_map(|(name, value)| Some((name, plain(value)?)));
            let fields: BTreeMap<String, Value> = fields.collect();
            (!fields.is_empty()).then(|| json!(fields))
        }
    }
}

fn sorted(rows: Vec<Value>) -> Vec<String> {
    let mut rows: Vec<String> =
        rows.into_iter().filter_map(plain).map(|row| row.to_string()).collect();
    rows.sort();
    rows
}

#[test]
fn both_stores_say_the_same_of_the_same_events() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let notify = json!([{"Type": "duckdb"}, clickhouse.entry("alike")]);
    let site = Site::new(PROGRAM, json!({"Notify": notify}));
    let server = site.start();
    tell(&server);
    server.drained();
    let mut complaints = Vec::new();
    let mut compare = |duckdb: &str, sql: &str| {
        let told = sorted(site.query(duckdb));
        let found = sorted(clickhouse.query(sql));
        if told.is_empty() || told != found {
            let only = |one: &[String], other: &[String]| {
                one.iter().filter(|row| !other.contains(row)).cloned().collect::<Vec<_>>()
            };
            let (told, found) = (only(&told, &found), only(&found, &told));
            complaints.push(format!("{sql}\n  only in DuckDB {told:#?}\n  only here {found:#?}"));
        }
    };
    for table in ["events", "mthreads", "mstore", "mtriage", "impression_daily", "agreements"] {
        compare(&format!("from {table}"), &format!("select * from alike.{table} final"));
    }
    for view in [
        "payments_latest",
        "ltv_totals",
        "impression_daily_totals",
        "agreements_latest",
        "counters_totals",
        "routed",
        "nodes",
        "locations",
        "aliases",
        "referrals",
        "referred",
        "visitors",
        "visitors_latest",
        "sessions",
        "visitor_interests",
        "link_visits",
        "link_totals",
    ] {
        compare(&format!("from {view}"), &format!("select * from alike.{view}"));
    }
    for table in ["hosts", "userhosts", "usernames", "emails", "cells"] {
        compare(&format!("from {table}"), &format!("select * from alike.{table} final"));
    }
    for table in ["ips", "hits", "dailies", "outcomes", "referrers", "browsers", "reqs"] {
        let sql =
            format!("select * except total, sum(total) as total from alike.{table} group by all");
        compare(&format!("from {table}"), &sql);
    }
    assert!(clickhouse.query("select * from alike.events_recent").is_empty());
    assert!(clickhouse.query("select * from alike.quarantined").is_empty());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    server.stop();
}

/// Runs `tracker migrate` with `more` arguments; what it printed, or what it failed with.
fn migrate(site: &Site, more: &[&str]) -> Result<String, String> {
    match migrate_to_its_end(site, more) {
        (Some(0), said, _) => Ok(said),
        (_, _, errors) => Err(errors),
    }
}

/// Its exit code, what it printed, and what it complained of.
fn migrate_to_its_end(site: &Site, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM)
        .args(["migrate", "--config"])
        .arg(site.path().join("config.json"))
        .args(more)
        .output()
        .expect("running tracker migrate");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn site(clickhouse: &ClickHouse, database: &str, more: Value) -> Site {
    let site = Site::new(PROGRAM, json!({"Notify": [clickhouse.entry(database)]}));
    site.reconfigure(more);
    site
}

/// Waits until the only sink's last error in `/health` contains `words`.
fn complains(server: &Server, words: &str) {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        let health = server.health();
        if health["sinks"][0]["last_error"].to_string().contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "{words:?} is not in {health}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn migrating_makes_the_schema_once_and_a_program_that_needs_a_newer_one_waits() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse, "older", json!({}));
    assert_eq!(migrate(&site, &[]).unwrap(), "clickhouse: schema 0 -> 2\n");
    assert_eq!(migrate(&site, &[]).unwrap(), "clickhouse: schema 2 -> 2\n");
    assert_eq!(clickhouse.number("select count() from older.store_identity"), 1);
    clickhouse.query("drop table older.hits_feed");
    clickhouse.query("drop view older.sessions");
    assert_eq!(migrate(&site, &[]).unwrap(), "clickhouse: schema 2 -> 2\n");
    clickhouse.query("select * from older.sessions");
    let feeds = "select count() from system.tables where database = 'older' and name = 'hits_feed'";
    assert_eq!(clickhouse.number(feeds), 1);
    // As an earlier version of this program would have left it.
    clickhouse.query("truncate table older.schema_version");
    clickhouse.query("insert into older.schema_version select 1, 'core', 1, now64(3)");
    let server = site.start();
    post(&server, "/tr/v1/tr/", &json!({"vid": id(1, 1), "ename": "early"}));
    complains(&server, "its schema is 1 and this program's 2: run tracker migrate");
    assert_eq!(migrate(&site, &[]).unwrap(), "clickhouse: schema 1 -> 2\n");
    server.drained();
    assert_eq!(clickhouse.number("select count() from older.events"), 1);
    assert_eq!(clickhouse.number("select sum(total) from older.reqs"), 1);
    server.stop();
}

#[test]
fn the_printed_schema_is_what_a_first_start_makes_and_its_cluster_form_is_read_by_the_server() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let by_hand = site(&clickhouse, "by_hand", json!({}));
    let printed = migrate(&by_hand, &["--print"]).unwrap();
    for statement in printed.split(";\n\n").filter(|text| !text.trim().is_empty()) {
        let settings = if statement.starts_with("create database") { "default" } else { "by_hand" };
        clickhouse.ask(&[("database", settings)], statement.as_bytes()).expect(statement);
    }
    let made = site(&clickhouse, "by_program", json!({}));
    migrate(&made, &[]).unwrap();
    let tables = |database: &str| {
        let sql = format!(
            "select name, engine, sorting_key, partition_key, replaceAll(create_table_query, \
             '{database}', 'x') as made from system.tables where database = '{database}' and \
             name not like '.inner%' order by name"
        );
        clickhouse.query(&sql)
    };
    let (by_hand, by_program) = (tables("by_hand"), tables("by_program"));
    assert_eq!(by_hand, by_program);
    assert!(by_hand.len() > 60, "{}", by_hand.len());

    let mut entry = clickhouse.entry("spread");
    entry["Cluster"] = json!("tracker_cluster");
    let spread = Site::new(PROGRAM, json!({"Notify": [entry]}));
    let printed = migrate(&spread, &["--print"]).unwrap();
    let statements: Vec<&str> =
        printed.split(";\n\n").filter(|text| !text.trim().is_empty()).collect();
    let create = statements.iter().filter(|text| text.starts_with("create "));
    let mut local = 0;
    for statement in create {
        assert!(statement.contains(" on cluster 'tracker_cluster'"), "{statement}");
        clickhouse.ask(&[], format!("explain ast {statement}").as_bytes()).expect(statement);
        local += usize::from(statement.contains("engine = Replicated"));
    }
    let distributed = printed.matches("engine = Distributed(").count();
    assert_eq!(local, distributed);
    assert!(!printed.contains("rand()"));
    // Without a Keeper such a schema cannot be made, and that is said.
    let failed = migrate(&spread, &[]).unwrap_err();
    assert!(failed.contains("migrating clickhouse"), "{failed}");
}

#[test]
fn retention_follows_the_configuration_and_leaves_another_rule_alone() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let on = json!({"DataRetentionDays": 30, "PruneOldData": true});
    let site = site(&clickhouse, "kept", on);
    migrate(&site, &[]).unwrap();
    let full = |table: &str| {
        let sql = format!(
            "select engine_full from system.tables where database = 'kept' and name = '{table}'"
        );
        clickhouse.query(&sql)[0]["engine_full"].as_str().unwrap().to_owned()
    };
    let rule = |table: &str| {
        let full = full(table);
        let ttl = full.split_once(" TTL ").map(|(_, rest)| rest.split(" SETTINGS").next().unwrap());
        ttl.unwrap_or("none").to_owned()
    };
    assert_eq!(rule("events"), "toDateTime(created_at) + toIntervalDay(30)");
    assert_eq!(rule("hits"), "toDateTime(date) + toIntervalDay(30)");
    assert_eq!(rule("dailies"), "toDateTime(day) + toIntervalDay(30)");
    assert_eq!(rule("quarantine"), "toDateTime(received_at) + toIntervalDay(30)");
    assert_eq!((rule("redirects"), rule("agreements")), ("none".into(), "none".into()));
    clickhouse.query("alter table kept.logs modify ttl toDateTime(ltime) + toIntervalDay(3)");
    site.reconfigure(json!({"DataRetentionDays": 400}));
    let server = site.start();
    post(&server, "/tr/v1/tr/", &json!({"vid": id(1, 1), "ename": "now"}));
    server.drained();
    assert_eq!(rule("events"), "toDateTime(created_at) + toIntervalDay(400)");
    assert_eq!(rule("logs"), "toDateTime(ltime) + toIntervalDay(3)");
    server.stop();
    site.reconfigure(json!({"PruneOldData": false}));
    let said = migrate(&site, &[]).unwrap();
    assert!(said.contains("logs: keeps its own retention"), "{said}");
    assert_eq!((rule("events"), rule("hits")), ("none".into(), "none".into()));
}

/// Tables as the Go tracker's schema has them, in the form for one server: those that show each way
/// in which its habits differ from ours.
const GO: &str = "
create table events (
    eid UUID, oid UUID, org LowCardinality(String), vid UUID, device_id UUID, sid UUID, uid UUID,
    tid UUID, auth_id UUID, invoice_id UUID, rid UUID, ref UUID, hhash String, app String,
    rel String, last String, url String, ip String, iphash String, ptyp String, bhash String,
    xid String, split String, ename String, source String, medium String, campaign String,
    content String, country String, region String, city String, zip String, term String,
    etyp String, sink String, relation String, ja4h String, gaid String, idfa String, msid String,
    fbid String, culture String, rcode String, aff String, arm_id String, mcid String,
    browser String, device String, os String, tz String, cflags Int64, duration Int64, vp_w Int64,
    vp_h Int64, created_at DateTime64(3), lat Float64, lon Float64, score Float64, ver Int32,
    params JSON, targets JSON
) engine = MergeTree partition by (oid, toYYYYMM(created_at)) order by (created_at, eid);
create table hits (hhash String, url String, total UInt64, date Date)
    engine = SummingMergeTree(total) partition by toYYYYMM(date) order by (hhash, url, date);
create materialized view hits_mv to hits as
    select hhash, url, toUInt64(1) as total, toDate(created_at) as date from events where url <> '';
create materialized view by_country engine = SummingMergeTree order by country as
    select country, toUInt64(1) as n from events;
create table ltv (
    hhash String, id UUID, id_type LowCardinality(String), paid Float64, oid UUID,
    org LowCardinality(String), updated_at DateTime64(3), updater UUID, created_at DateTime64(3),
    owner UUID
) engine = SummingMergeTree(paid) order by (hhash, id, id_type);
create table impression_daily (
    oid UUID, org String, tid UUID, campaign_id String, day Date, variant_id String, vid UUID,
    total_impressions Int64, anonymous_impressions Int64, identified_impressions Int64,
    unique_visitors Int64, conversions Int64, updated_at DateTime64(3)
) engine = ReplacingMergeTree(updated_at) partition by (oid, toYYYYMM(day))
    order by (oid, org, tid, day, variant_id);
create table redirects (
    hhash String, urlfrom String, urlto String, oid UUID, org String, updater String,
    updated_at DateTime64(3), created_at DateTime64(3)
) engine = ReplacingMergeTree(updated_at) order by urlfrom;
create table updates (id String, updated_at DateTime64(3), msg String) engine = Memory;
create view visitors as select * from events;
insert into events (eid, url, created_at) values
    ('00000000-0000-4000-8000-0000000000ff', 'https://example.org/old', '2024-01-01 00:00:00')";

#[test]
fn a_database_of_the_go_tracker_is_used_where_it_fits_and_nothing_in_it_is_dropped() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    clickhouse.query("create database go");
    for statement in GO.split(';') {
        clickhouse.ask(&[("database", "go")], statement.as_bytes()).expect(statement);
    }
    let there = "select name, uuid from system.tables where database = 'go' order by name";
    let before = clickhouse.query(there);
    let site = site(&clickhouse, "go", json!({}));
    let server = site.start();
    post(
        &server,
        "/tr/v1/tr/",
        &json!({"vid": id(1, 1), "oid": OID, "ename": "new",
        "url": "https://example.org/new", "tz": "Europe/Berlin"}),
    );
    complains(&server, "were made by another program: tracker migrate uses what fits");
    let (code, said, unfit) = migrate_to_its_end(&site, &[]);
    assert_eq!(code, Some(1), "{unfit}");
    for words in [
        "clickhouse: schema 0 -> 2\n",
        "events: added is_new, origin, received_at, host, outcome, channel, click, user_agent, \
         device_class, verdict, reasons, ehash, chash, nhash, gpc, dnt, seq, ingest_node, \
         ingest_seq\n",
        "events: is a MergeTree, so `final` is refused by it; leave it out\n",
        "hits: is fed by hits_mv; with ours it would count twice, so ours was not made",
        "visitors: kept as it is; this program would make it otherwise\n",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let misfits = [
        "clickhouse: does not fit: ltv: is a SummingMergeTree; what is told again is added up",
        "clickhouse: does not fit: impression_daily: keeps one row for each (oid, org, tid, day, \
         variant_id)",
        "clickhouse: does not fit: redirects.updater: is String, which cannot hold our UUID\n",
        "clickhouse: does not fit: updates: is a Memory, which this program cannot write to safely",
    ];
    for words in misfits {
        assert!(unfit.contains(words), "{words:?} is not in\n{unfit}");
    }
    assert_eq!(unfit.matches("does not fit").count(), misfits.len(), "{unfit}");
    assert!(migrate(&site, &["--print"]).is_ok());
    server.drained();
    assert_eq!(clickhouse.number("select count() from go.events"), 2);
    let new = "select ename, tz, ingest_seq from go.events where vid <> toUUIDOrZero('')";
    assert_eq!(
        clickhouse.query(new),
        [json!({"ename": "new", "tz": "Europe/Berlin", "ingest_seq": 1})]
    );
    assert_eq!(clickhouse.number("select sum(total) from go.hits"), 2);
    assert_eq!(clickhouse.number("select count() from go.reqs"), 1);
    assert_eq!(clickhouse.number("select sum(n) from go.by_country"), 2);
    let after = clickhouse.query(there);
    assert!(before.iter().all(|table| after.contains(table)), "{before:?} {after:?}");
    let windows = "select count() from system.tables where database = 'go' and engine_full like \
                   '%non_replicated_deduplication_window = 10000%' and (name in ('events', 'hits') \
                   or name like '.inner_id%')";
    assert_eq!(clickhouse.number(windows), 3);
    // What was named once is named again, and nothing is added a second time.
    let (code, again, unfit) = migrate_to_its_end(&site, &[]);
    assert_eq!(code, Some(1));
    assert!(again.contains("schema 2 -> 2") && !again.contains(": added "), "{again}");
    assert!(again.contains("hits_mv") && unfit.contains("redirects.updater"), "{again} {unfit}");
    server.stop();
    // Out of the way by the operator's hand, each is made anew and nothing is left to say.
    for table in ["ltv", "impression_daily", "redirects", "updates"] {
        clickhouse.query(&format!("rename table go.{table} to go.{table}_old"));
    }
    let (code, said, unfit) = migrate_to_its_end(&site, &[]);
    assert_eq!((code, &*unfit), (Some(0), ""), "{said}");
}

#[test]
fn a_column_of_our_own_table_that_became_unfit_fails_the_migration_and_no_other_store() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let notify = json!([clickhouse.entry("misfit"), {"Type": "duckdb"}]);
    let site = Site::new(PROGRAM, json!({"Notify": notify}));
    migrate(&site, &[]).unwrap();
    clickhouse.query("alter table misfit.events drop column duration");
    clickhouse.query("alter table misfit.events add column duration String");
    let (code, said, unfit) = migrate_to_its_end(&site, &[]);
    assert_eq!(code, Some(1));
    assert!(unfit.contains("events.duration: is String, which cannot hold our "), "{unfit}");
    assert!(said.contains("clickhouse: schema 2 -> 2\nduckdb: schema "), "{said}");
}

#[test]
fn addresses_of_different_servers_are_named_and_get_the_schema_once() {
    let Some(one) = ClickHouse::shared() else { return };
    let Some(other) = ClickHouse::start() else { return };
    let mut entry = one.entry("apart");
    entry.as_object_mut().unwrap().remove("Host");
    entry.as_object_mut().unwrap().remove("HTTPPort");
    entry["Hosts"] = json!([one.address.to_string(), other.address.to_string()]);
    let site = Site::new(PROGRAM, json!({"Notify": [entry]}));
    let server = site.start();
    complains(&server, "every address must lead to one store");
    complains(&server, &other.address.to_string());
    let tables = "select count() from system.tables where database = 'apart'";
    assert_eq!(other.number(tables), 0);
    assert!(one.number(tables) > 60);
    other.query("create database apart");
    complains(&server, "every address must lead to one store");
}

#[test]
fn migrating_gives_a_table_without_a_window_one_again() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse, "windowless", json!({}));
    migrate(&site, &[]).unwrap();
    clickhouse.query(
        "alter table windowless.events modify setting non_replicated_deduplication_window = 0",
    );
    let server = site.start();
    let deadline = Instant::now() + support::PATIENCE;
    while server.health()["sinks"][0]["state"] != "up" {
        assert!(Instant::now() < deadline, "{}", server.health());
        std::thread::sleep(Duration::from_millis(50));
    }
    let guarantee = server.health()["sinks"][0]["guarantee"].to_string();
    assert!(guarantee.contains("events has no deduplication window"), "{guarantee}");
    server.stop();
    migrate(&site, &[]).unwrap();
    let window = "select count() from system.tables where database = 'windowless' and \
                  name = 'events' and engine_full like '%_deduplication_window = 10000%'";
    assert_eq!(clickhouse.number(window), 1);
}
