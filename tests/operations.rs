//! What an operator does to a running server, done to the program as built: new settings, a look at
//! its health, a file that cannot be used.

#![expect(clippy::expect_used, reason = "what fails here should fail the run with its reason")]
mod support;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const EVENT: &[u8] = br#"{"ename":"x"}"#;

fn tracker(site: &Site, args: &[&str]) -> Output {
    let config = site.path().join("config.json");
    Command::new(PROGRAM).args(args).arg("--config").arg(config).output().expect("running it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn post(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let mut client = Client::connect(server.address).expect("connecting");
    client.request("POST", "/tr/v1/str/", headers, body).expect("an answer").status
}

/// Waits until `is_so`.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn new_settings_are_taken_up_under_load_without_a_failed_request() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(server.address).expect("connecting");
                while !done.load(Ordering::Relaxed) {
                    let answer = client.request("POST", "/tr/v1/tr/", &[], EVENT);
                    assert_eq!(answer.expect("an answer").status, 200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for bytes in [4096, 8192, 2048] {
            let before = sent.load(Ordering::Relaxed);
            until("requests between reloads", || sent.load(Ordering::Relaxed) > before + 20);
            site.reconfigure(json!({ "MaxBodyBytes": bytes }));
            let done = tracker(&site, &["reload"]);
            assert!(done.status.success(), "{}", text(&done.stderr));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(post(&server, &[], &[b' '; 3000]), 413);
    server.drained();
    assert_eq!(site.number("select count(*) from events"), sent.load(Ordering::Relaxed));
    server.stop();
}

#[test]
fn a_key_that_is_added_counts_from_the_signal_on() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let key = "9f1c27d84b6ae35072d9c1f8e4ab6053";
    assert_eq!(post(&server, &[], EVENT), 200);
    site.reconfigure(json!({"Keys": [{"Name": "billing", "Key": key, "Kind": "server"}]}));
    server.signal("HUP");
    until("the key binds", || post(&server, &[], EVENT) == 401);
    assert_eq!(post(&server, &[("X-Api-Key", key)], EVENT), 200);
    server.stop();
}

#[test]
fn a_file_that_cannot_be_used_is_refused_whole() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    site.reconfigure(json!({"MaxBodyBytes": 2048, "GeoIPDatabase": "none.mmdb"}));
    let refused = tracker(&site, &["reload"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("none.mmdb"), "{}", text(&refused.stderr));
    assert_eq!(post(&server, &[], &[b' '; 3000]), 200, "the bound of before stays");
    site.reconfigure(json!({"MaxBodyBytes": 2048, "GeoIPDatabase": "", "Colour": "red"}));
    server.signal("HUP");
    let log = || std::fs::read_to_string(site.path().join("log")).expect("the log");
    until("it is told in the log", || log().contains("the one before stays"));
    assert_eq!(post(&server, &[], &[b' '; 3000]), 200, "the bound of before stays");
    server.stop();
}

#[test]
fn what_needs_a_restart_is_named() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    site.reconfigure(json!({"JournalKeep": "1h", "ListenHTTP": "127.0.0.1:1"}));
    let done = tracker(&site, &["reload"]);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    for key in ["ListenHTTP: takes effect at the next start", "journal: takes effect at the next"] {
        assert!(said.contains(key), "{key} in {said}");
    }
    assert_eq!(post(&server, &[], EVENT), 200);
    server.stop();
}

fn findings(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_fresh_server_and_names_a_proxy_that_is_missing() {
    let site = Site::new(PROGRAM, json!({"Domains": ["example.com"]}));
    let server = site.start();
    post(&server, &[], EVENT);
    server.drained();
    let well = tracker(&site, &["doctor", "--json"]);
    let found = findings(&well);
    assert!(well.status.success(), "{found:?}");
    for topic in ["configuration", "clock", "disk", "cookies", "server", "stores", "proxies"] {
        assert!(found.iter().any(|finding| finding["topic"] == topic), "{topic} in {found:?}");
    }
    assert!(tracker(&site, &["doctor", "--health"]).status.success());

    post(&server, &[("X-Forwarded-For", "203.0.113.9")], EVENT);
    let warned = findings(&tracker(&site, &["doctor", "--json"]));
    let proxy = warned.iter().find(|finding| finding["topic"] == "proxies").expect("proxies");
    assert_eq!(proxy["level"], "warning", "{proxy}");
    assert!(proxy["what"].as_str().is_some_and(|what| what.starts_with("127.0.0.1 ")), "{proxy}");

    let url = format!("http://{}", server.address);
    let public = findings(&tracker(&site, &["doctor", "--json", "--url", &url]));
    let seen = public.iter().find(|finding| finding["topic"] == "public").expect("public");
    assert_eq!(seen["level"], "ok", "{seen}");
    server.stop();
    assert!(!tracker(&site, &["doctor", "--health"]).status.success());
}

#[test]
fn migrating_beside_a_running_server_leaves_its_file_to_it_and_goes_on_with_the_other_stores() {
    // Nobody listens there, which has to be said after the first store, not instead of it.
    let gone =
        json!({"Type": "clickhouse", "Host": "127.0.0.1", "HTTPPort": 9, "Timeout": "200ms"});
    let site = Site::new(PROGRAM, json!({"Notify": [{"Type": "duckdb"}]}));
    let server = site.start();
    post(&server, &[], EVENT);
    server.drained();
    let migrated = tracker(&site, &["migrate"]);
    assert!(migrated.status.success(), "{}", text(&migrated.stderr));
    assert_eq!(text(&migrated.stdout), "duckdb: left to the running tracker, which has the file\n");
    site.reconfigure(json!({"Notify": [gone, {"Type": "duckdb"}]}));
    let migrated = tracker(&site, &["migrate"]);
    assert!(!migrated.status.success());
    assert!(text(&migrated.stdout).starts_with("duckdb: left"), "{}", text(&migrated.stdout));
    assert!(text(&migrated.stderr).contains("migrating clickhouse"), "{}", text(&migrated.stderr));
}
