//! The cluster form of the ClickHouse schema, through the program as built: two shards have each event
//! once whatever is killed, and what is asked of one of them is answered for both.
//!
//! The servers are real, and so is what distributes rows and questions over them. A stand-in is the
//! queue behind `on cluster` (`support/queue.rs`). The engine of the tests can make replicated tables and
//! not write to them, so what is written here has one replica: engines without `Replicated`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/clickhouse.rs"]
mod clickhouse;
#[path = "support/queue.rs"]
mod queue;
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clickhouse::{ClickHouse, entry};
use queue::{Adapt, Queue};
use serde_json::{Value, json};
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const PATIENCE: Duration = Duration::from_secs(30);

/// The two shards, and a queue before each.
struct Cluster {
    shards: [ClickHouse; 2],
    queues: [Queue; 2],
}

impl Cluster {
    fn start(adapt: Adapt) -> Option<Self> {
        let shards = ClickHouse::shards("pair")?;
        let all = shards.each_ref().map(|shard| shard.address);
        let queues = all.map(|address| Queue::start("pair", address, &all, adapt));
        Some(Self { shards, queues })
    }

    fn site(&self, more: &Value) -> Site {
        let mut entry = entry(self.queues[0].address, "many");
        let object = entry.as_object_mut().unwrap();
        object.remove("Host");
        object.remove("HTTPPort");
        let hosts = self.queues.each_ref().map(|queue| queue.address.to_string());
        object.insert("Hosts".to_owned(), json!(hosts));
        object.insert("Cluster".to_owned(), json!("pair"));
        object.extend(more.as_object().unwrap().clone());
        Site::new(PROGRAM, json!({"Notify": [entry]}))
    }

    /// The number that every shard must answer alike.
    fn number(&self, sql: &str) -> u64 {
        let [one, other] = self.shards.each_ref().map(|shard| shard.number(sql));
        assert_eq!(one, other, "{sql}");
        one
    }

    /// What each shard has of its own.
    fn parts(&self, sql: &str) -> [u64; 2] {
        self.shards.each_ref().map(|shard| shard.number(sql))
    }

    fn statements(&self) -> usize {
        self.queues.iter().map(|queue| queue.run().len()).sum()
    }
}

/// One replica: the same table without a Keeper.
fn alone(statement: String) -> String {
    let Some((before, rest)) = statement.split_once("engine = Replicated") else {
        return statement;
    };
    let (family, rest) = rest.split_once('(').expect("arguments");
    let (_, rest) = rest.split_once("'{replica}'").expect("the path and the replica");
    let arguments = rest.strip_prefix(", ").unwrap_or(rest);
    let whole = format!("{before}engine = {family}({arguments}");
    let lines = whole.lines().filter(|line| !line.contains("window_seconds"));
    let lines: Vec<&str> = lines.collect();
    lines.join("\n").replace(" replicated_dedup", " non_replicated_dedup")
}

/// As it is. The queue of a cluster gives each table an id, which is in the path in Keeper. What the
/// program keeps about the schema has to be written to.
fn replicated(statement: String) -> String {
    if statement.contains("exists schema_version") || statement.contains("exists store_identity") {
        return alone(statement);
    }
    let id = format!("_local uuid '{}' (", uuid::Uuid::new_v4());
    statement.replacen("_local (", &id, 1)
}

fn post(server: &Server, path: &str, body: &Value) {
    let mut client = Client::connect(server.address).unwrap();
    let headers =
        [("Content-Type", "application/json"), ("User-Agent", "Mozilla/5.0 Firefox/140.0")];
    let answer = client.request("POST", path, &headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
}

fn track(server: &Server, numbers: std::ops::Range<u64>) {
    for number in numbers {
        post(
            server,
            "/tr/v1/tr/",
            &json!({"vid": format!("00000000-0000-4000-8000-{:012x}", number % 20),
                "sid": format!("00000000-0000-4000-8001-{:012x}", number % 20),
                "oid": "00000000-0000-4000-8000-000000000001", "ename": "viewed",
                "email": "someone@example.org", "outcome": "signup", "sink": "form",
                "url": "https://example.org/a", "xid": number.to_string(), "app": "site",
                "params": {"sku": number}, "created_at": "2026-02-03T04:05:06Z"}),
        );
    }
}

/// Runs a command of the program; what it printed, and whether it succeeded.
fn run(site: &Site, arguments: &[&str], input: &str) -> (String, bool) {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .arg("--config")
        .arg(site.path().join("config.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("running tracker");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

fn done(site: &Site, arguments: &[&str], input: &str) -> String {
    let (said, is_done) = run(site, arguments, input);
    assert!(is_done, "{arguments:?}: {said}");
    said
}

const STORED: &str = "select count() from many.events";
const DIFFERENT: &str = "select uniqExact(xid) from many.events";

#[test]
fn two_shards_have_each_event_once_whatever_is_killed() {
    let Some(mut cluster) = Cluster::start(alone) else { return };
    let site = cluster.site(&json!({}));
    let server = site.start();
    track(&server, 0..100);
    server.drained();
    assert_eq!([cluster.number(STORED), cluster.number(DIFFERENT)], [100, 100]);
    let parts = cluster.parts("select count() from many.events_local");
    assert!(parts.iter().all(|part| *part > 20) && parts.iter().sum::<u64>() == 100, "{parts:?}");
    let sinks = server.health()["sinks"].clone();
    assert_eq!(sinks[0]["guarantee"], "exactly-once", "{sinks}");

    // One shard takes its half of a batch, and the other refuses until it is killed as well.
    let refuse = "alter table many.events_local modify setting parts_to_throw_insert = 1, \
                  parts_to_delay_insert = 1";
    cluster.shards[1].query(refuse);
    track(&server, 100..200);
    let half = "select count() from many.events_local";
    wait_until(|| cluster.shards[0].number(half) > parts[0], &server);
    cluster.shards[1].kill();
    // The program is killed as well, and does not know what was sent.
    server.kill();
    let server = site.start();
    track(&server, 200..250);
    cluster.shards[1].restart();
    let accept = "alter table many.events_local reset setting parts_to_throw_insert, \
                  parts_to_delay_insert";
    cluster.shards[1].query(accept);
    track(&server, 250..300);
    server.drained();
    assert_eq!([cluster.number(STORED), cluster.number(DIFFERENT)], [300, 300]);

    // What is counted while it is inserted is counted where the event is, and is asked over both.
    for (sum, expect) in [
        ("select sum(total) from many.hits", 300),
        ("select sum(total) from many.ips", 300),
        ("select sum(total) from many.dailies", 300),
        ("select sum(total) from many.outcomes", 300),
        ("select uniqExact(vid) from many.events final", 20),
        ("select count() from many.visitors", 20),
        ("select count() from (select hostname from many.hosts group by hostname)", 1),
        ("select count() from many.sessions", 20),
        ("select uniqExact(toString(params.sku)) from many.events", 300),
    ] {
        assert_eq!(cluster.number(sum), expect, "{sum}");
    }
    let views = "select name from system.tables where database = 'many' and engine = 'View'";
    for view in cluster.shards[0].query(views) {
        cluster.number(&format!("select count() from many.{}", view["name"].as_str().unwrap()));
    }
    server.stop();
}

#[test]
fn what_one_server_answers_and_changes_is_of_the_whole_cluster() {
    let Some(cluster) = Cluster::start(alone) else { return };
    let rules = json!([{"Table": "events", "TTL": 86400, "ClearParams": true,
        "Fields": [{"Id": "ip", "DestParamHash": "iphash"}, {"Id": "url"}]}]);
    let site = cluster.site(&json!({"Prune": rules}));
    let server = site.start();
    track(&server, 0..60);
    for flags in [1, 2] {
        post(
            &server,
            "/tr/v1/ppi/agree/",
            &json!({"vid": "00000000-0000-4000-8000-000000000001", "cflags": flags}),
        );
    }
    server.drained();
    assert_eq!(cluster.number("select count() from many.agreements final"), 2);
    server.stop();

    // Accounts are read and written through what distributes.
    for password in ["correct horse battery", "another horse battery"] {
        let add = ["account", "add", "--replace", "marketing", "--password-stdin"];
        done(&site, &add, &format!("{password}\n"));
    }
    assert_eq!(cluster.number("select count() from many.accounts final where pwd <> ''"), 1);
    done(&site, &["account", "remove", "marketing"], "");
    assert_eq!(cluster.number("select count() from many.accounts final where pwd <> ''"), 0);
    let told = done(&site, &["query", "--format", "ndjson", "select count() as n from events"], "");
    assert_eq!(told.trim(), r#"{"n":60}"#);

    // A second look finds nothing to do, but for the views, which are made anew.
    let made = "select name, create_table_query from system.tables where database = 'many' \
                order by name";
    let before = cluster.shards.each_ref().map(|shard| shard.query(made));
    assert_eq!(before[0], before[1]);
    done(&site, &["migrate"], "");
    assert_eq!(cluster.shards.each_ref().map(|shard| shard.query(made)), before);
    let statements = cluster.statements();
    site.start().stop();
    assert_eq!(cluster.statements(), statements, "a start makes nothing that is there");

    // What a later version adds is added to the parts and to what distributes over them.
    for shard in &cluster.shards {
        for table in ["logs_local", "logs"] {
            shard.query(&format!("alter table many.{table} drop column msg"));
        }
    }
    let said = done(&site, &["migrate"], "");
    assert!(said.contains("logs: added msg"), "{said}");
    cluster.number("select count() from many.logs where msg <> ''");

    prunes(&cluster, &site);
}

fn prunes(cluster: &Cluster, site: &Site) {
    let says = "select count() from many.events where url <> '' and ip <> ''";
    assert_eq!(cluster.number(says), 60);
    let dry = done(site, &["prune", "--dry-run"], "");
    assert!(dry.contains("(Prune[0]): 60 rows in 1 portions"), "{dry}");
    assert_eq!(cluster.number(says), 60);
    // A shard that cannot make the change ends the run, and no mutation stays behind.
    let only = &cluster.shards[1];
    only.query(
        "alter table many.events_local add column known UInt8 \
         materialized throwIf(ip = '', 'an address is required')",
    );
    let (said, is_done) = run(site, &["prune"], "");
    assert!(!is_done && said.contains("an address is required"), "{said}");
    let left = "select count() from clusterAllReplicas('pair', system.mutations) where \
                database = 'many' and not is_done and not is_killed";
    assert_eq!(cluster.number(left), 0);
    only.query("alter table many.events_local drop column known");
    done(site, &["prune"], "");
    assert_eq!(cluster.number("select count() from many.events where url <> '' or ip <> ''"), 0);
    assert_eq!(
        cluster.number("select count() from many.events where toString(params.iphash) = ''"),
        0
    );
    assert_eq!(done(site, &["prune"], ""), "clickhouse: 0 rows changed\n");
    assert_eq!(cluster.number(STORED), 60);
}

#[test]
fn the_replicated_form_is_made_and_is_known_for_what_it_remembers() {
    let Some(cluster) = Cluster::start(replicated) else { return };
    let site = cluster.site(&json!({}));
    let server = site.start();
    let guarantee = || server.health()["sinks"][0]["guarantee"].clone();
    wait_until(|| !guarantee().to_string().contains("reached"), &server);
    assert_eq!(guarantee(), "exactly-once");
    let count = |engine: &str| {
        cluster.number(&format!(
            "select count() from system.tables where database = 'many' and engine like '{engine}'"
        ))
    };
    // All but the two that the program has to write to here.
    assert_eq!(count("Replicated%MergeTree") + 2, count("Distributed"));
    let full =
        "select engine_full from system.tables where database = 'many' and name = 'events_local'";
    let full = cluster.shards[1].query(full)[0]["engine_full"].to_string();
    for words in [
        "replicated_deduplication_window = 10000",
        "window_seconds = 604800",
        "fsync_after_insert = 1",
    ] {
        assert!(full.contains(words), "{words:?} is not in {full}");
    }
    // What distributes waits for a replica that cannot be written to. Rows wait as well, and no insert
    // is left behind to stand in the way of the next.
    track(&server, 0..3);
    wait_until(|| server.health()["sinks"][0]["last_error"].is_string(), &server);
    assert_eq!(server.health()["sinks"][0]["lag_events"], 3);
    server.kill();
    let stand = "select count() from system.processes where query ilike 'insert into%'";
    let deadline = Instant::now() + PATIENCE;
    while cluster.parts(stand) != [0, 0] {
        assert!(Instant::now() < deadline, "{:?}", cluster.shards[0].query(stand));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(cluster.number(STORED), 0);
}

fn wait_until(is_so: impl Fn() -> bool, server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{}", server.health());
        std::thread::sleep(Duration::from_millis(20));
    }
}
