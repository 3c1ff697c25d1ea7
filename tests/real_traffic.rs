//! Ten thousand requests of a real public site, sent through the running server's public routes and
//! compared with what DuckDB stored: the same number, each id once, everything as sent.

mod support;

use std::process::Command;

use serde_json::json;
use support::Site;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");

#[test]
fn a_real_access_log_is_stored_as_it_was_sent() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let output = Command::new(PROGRAM)
        .args(["import", "--verify", "--url"])
        .arg(format!("http://{}", server.address))
        .arg("--config")
        .arg(site.path().join("config.json"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/access_log"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("all equal"), "{said}");
    server.stop();
    assert_eq!(site.number("select count(*) as n from events"), 10_000);
    // Counted in the log itself: the agents of the most active feed reader.
    let log =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/access_log"));
    let universal =
        log.unwrap().lines().filter(|line| line.contains("UniversalFeedParser")).count();
    assert_eq!(
        site.number(
            "select count(*) as n from events where user_agent like '%UniversalFeedParser%'"
        ),
        universal as u64
    );
}
