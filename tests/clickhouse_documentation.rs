//! The documentation's own acceptance, tried as it stands there: its requests, a wait, and its questions
//! to ClickHouse.

#![expect(clippy::expect_used, reason = "what fails here should fail the run with its reason")]
#[path = "support/clickhouse.rs"]
mod clickhouse;
mod support;

use clickhouse::ClickHouse;
use serde_json::{Value, json};
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const VID: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";
const UID: &str = "24fb0860-b4bf-11e9-8971-7b80435315ac";
const OID: &str = "34fb0860-b4bf-11e9-8971-7b80435315ac";
const TID: &str = "44fb0860-b4bf-11e9-8971-7b80435315ac";

/// A server of its own, because the documentation's database has one name.
fn start() -> Option<(ClickHouse, Site, Server)> {
    let clickhouse = ClickHouse::start()?;
    let mut entry = clickhouse.entry("sfpla");
    entry.as_object_mut().expect("an object").remove("Database");
    let site = Site::new(PROGRAM, json!({"Notify": [entry]}));
    let server = site.start();
    Some((clickhouse, site, server))
}

fn request(server: &Server, method: &str, path: &str, body: &str) -> support::Answer {
    let mut client = Client::connect(server.address).expect("connecting");
    let headers = [("Content-Type", "application/json")];
    client.request(method, path, &headers, body.as_bytes()).expect("an answer")
}

fn post(server: &Server, path: &str, body: &Value) {
    let answer = request(server, "POST", path, &body.to_string());
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
}

/// How many rows each of `tables` has.
fn counts(clickhouse: &ClickHouse, tables: &[&str]) -> Value {
    let count = |table: &&str| {
        let rows = clickhouse.number(&format!("SELECT count() FROM sfpla.{table} FINAL"));
        ((*table).to_owned(), json!(rows))
    };
    Value::Object(tables.iter().map(count).collect())
}

#[test]
fn the_end_to_end_example_stores_each_of_its_four_steps() {
    let Some((clickhouse, _site, server)) = start() else { return };
    post(&server, "/tr/v1/tr/", &json!({"vid": VID, "ename": "page_view", "etyp": "view"}));
    post(
        &server,
        "/tr/v1/str/",
        &json!({"vid": VID, "uid": UID, "oid": OID, "ename": "signup", "etyp": "conversion"}),
    );
    post(&server, "/tr/v1/ltv/", &json!({"vid": VID, "uid": UID, "oid": OID, "amt": 149.99}));
    post(&server, "/tr/v1/ppi/agree", &json!({"vid": VID, "cflags": 1024}));
    server.drained();
    let names = clickhouse.query(&format!("SELECT ename FROM sfpla.events WHERE vid='{VID}'"));
    let mut names: Vec<&str> = names.iter().filter_map(|row| row["ename"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["page_view", "signup"]);
    assert_eq!(
        counts(&clickhouse, &["events", "payments", "ltv", "agreements", "agreed"]),
        json!({"events": 2, "payments": 1, "ltv": 2, "agreements": 1, "agreed": 1})
    );
    server.stop();
}

#[test]
fn the_example_queries_run_as_written() {
    let Some((clickhouse, _site, server)) = start() else { return };
    for (path, body) in [
        ("/tr/v1/tr/", json!({"vid": VID, "ename": "page_view"})),
        ("/tr/v1/tr/", json!({"vid": VID, "ename": "page_view"})),
        ("/tr/v1/tr/", json!({"vid": VID, "ename": "click"})),
        ("/tr/v1/ltv/", json!({"uid": UID, "oid": OID, "amt": 99.99, "orid": "order-123"})),
    ] {
        post(&server, path, &body);
    }
    server.drained();
    for last in ["", " FINAL"] {
        let events = format!("SELECT count() FROM sfpla.events{last}");
        assert_eq!(clickhouse.number(&events), 3, "{events}");
        let names = format!("SELECT ename, count() FROM sfpla.events{last} GROUP BY ename");
        let mut rows = clickhouse.query(&names);
        rows.sort_by_key(Value::to_string);
        let expected =
            [json!({"ename": "click", "count()": 1}), json!({"ename": "page_view", "count()": 2})];
        assert_eq!(rows, expected, "{names}");
        let values = format!("SELECT * FROM sfpla.ltv{last} ORDER BY updated_at DESC LIMIT 10");
        let rows = clickhouse.query(&values);
        let mut kinds: Vec<_> = rows.iter().filter_map(|row| row["id_type"].as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["orid", "uid"], "{values}");
        assert!(rows.iter().all(|row| row["paid"].to_string().trim_matches('"') == "99.99"));
    }
    assert_eq!(clickhouse.number("SELECT COUNT(*) FROM sfpla.events"), 3);
    server.stop();
}

#[test]
fn every_documented_request_leaves_its_rows_table_by_table() {
    let Some((clickhouse, _site, server)) = start() else { return };
    // Health.
    for path in ["/health", "/ping", "/status", "/metrics"] {
        assert_eq!(request(&server, "GET", path, "").status, 200, "{path}");
    }
    // Events of clients and servers.
    let path = "/tr/v1/tr/vid/USER_ID/ename/page_view/etyp/view";
    assert_eq!(request(&server, "GET", path, "").status, 200);
    post(
        &server,
        "/tr/v1/tr/",
        &json!({
            "vid": VID, "sid": "session-123", "ename": "page_view", "etyp": "view",
            "url": "https://example.com/page", "tz": "America/Los_Angeles",
            "device": "Desktop", "os": "macOS"
        }),
    );
    let server_side = json!({
        "vid": VID, "oid": "org-id", "ename": "server_event", "etyp": "conversion",
        "revenue": "99.99"
    });
    post(&server, "/tr/v1/str/", &server_side);
    // Lifetime values: one payment, then two.
    post(
        &server,
        "/tr/v1/ltv/",
        &json!({
            "vid": "user-id", "uid": "user-123", "oid": "org-id", "amt": 99.99,
            "currency": "USD", "orid": "order-123"
        }),
    );
    post(
        &server,
        "/tr/v1/ltv/",
        &json!({
            "vid": "user-id", "uid": "user-123", "oid": "org-id",
            "payments": [
                {"amt": 50.00, "currency": "USD", "orid": "order-124"},
                {"amt": 25.00, "currency": "USD", "orid": "order-125"}
            ]
        }),
    );
    // Consent.
    post(
        &server,
        "/tr/v1/ppi/agree",
        &json!({
            "vid": "user-id", "cflags": 1024, "tz": "America/Los_Angeles",
            "lat": 37.7749, "lon": -122.4194
        }),
    );
    // A conversion in a thread, for the tables of messages.
    post(
        &server,
        "/tr/v1/tr/",
        &json!({"vid": VID, "oid": OID, "tid": TID, "ename": "conversion", "score": 1}),
    );
    // A hundred events together.
    let batch: Vec<Value> =
        (0..100).map(|n| json!({"vid": VID, "ename": format!("batch_{n}")})).collect();
    post(&server, "/tr/v1/tr/", &json!(batch));
    server.drained();
    assert_eq!(
        counts(
            &clickhouse,
            &[
                "events",
                "payments",
                "ltv",
                "agreements",
                "agreed",
                "mthreads",
                "mstore",
                "mtriage",
                "impression_daily",
                "quarantine",
            ]
        ),
        json!({
            "events": 104, "payments": 3, "ltv": 9, "agreements": 1, "agreed": 1,
            "mthreads": 1, "mstore": 1, "mtriage": 1, "impression_daily": 1, "quarantine": 0
        })
    );
    let sums = clickhouse.query(
        "SELECT id_type, count(DISTINCT id) AS holders, toString(sum(paid)) AS paid \
         FROM sfpla.ltv FINAL GROUP BY id_type ORDER BY id_type",
    );
    assert_eq!(
        sums,
        [
            json!({"id_type": "orid", "holders": 3, "paid": "174.99"}),
            json!({"id_type": "uid", "holders": 1, "paid": "174.99"}),
            json!({"id_type": "vid", "holders": 1, "paid": "174.99"}),
        ]
    );
    server.stop();
}
