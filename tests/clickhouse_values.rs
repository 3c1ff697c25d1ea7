//! What a client told is the same in both stores: each column of each table of facts, compared row by
//! row between DuckDB and ClickHouse, which are given the same journal.

#![recursion_limit = "256"]
#![expect(clippy::expect_used, reason = "what fails here should fail the test, with the reason")]

#[path = "support/clickhouse.rs"]
mod clickhouse;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use clickhouse::ClickHouse;
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use support::{Client, Site};
use tracker::tables;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const VISITOR: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";
const THREAD: &str = "0198f3a0-5c1e-7e11-8a0c-2b6de1d5f7aa";

#[test]
fn every_value_is_the_same_in_both_stores() {
    let Some(server) = ClickHouse::start() else { return };
    let site = Site::new(
        PROGRAM,
        json!({"Notify": [{"Type": "duckdb", "MaxBatchTime": "100ms"}, server.entry("values_test")],
               "AnonymizeIP": false, "TrustedProxies": ["loopback"]}),
    );
    let tracker = site.start();
    let mut client = Client::connect(tracker.address).expect("connecting");
    let headers = [
        (
            "User-Agent",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15",
        ),
        ("Accept-Language", "de-CH,de;q=0.9"),
        ("X-Forwarded-For", "81.2.69.142"),
        ("Cookie", "CookieConsent=1024"),
    ];
    for (path, body) in facts() {
        let body = body.to_string();
        let answer = client.request("POST", path, &headers, body.as_bytes()).expect("an answer");
        assert!(answer.status < 300, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
    }
    tracker.drained();

    let mut filled = BTreeSet::new();
    for table in tables::ALL {
        let name = table.name();
        // Two lines of one payment may have one holder; and ids sort differently as such.
        let ids = ["id", "payment_id"].into_iter().filter(|id| table.columns().contains(id));
        let ids: Vec<String> = ids.map(|id| format!(", cast({id} as varchar)")).collect();
        let order = format!("ingest_seq{}", ids.concat());
        let ours = site.query(&format!("select * from {name} order by {order}"));
        let theirs = server.query(&format!("select * from values_test.{name} order by {order}"));
        assert_eq!(ours.len(), theirs.len(), "rows of {name}");
        assert!(
            !ours.is_empty() || name.starts_with("redirect") || name == "quarantine",
            "{name} is empty"
        );
        for (our, their) in ours.iter().zip(&theirs) {
            for column in table.columns() {
                let (our, their) = (plain(&our[column]), plain(&their[column]));
                assert_eq!(our, their, "{name}.{column}");
                if !our.is_empty() {
                    filled.insert(format!("{name}.{column}"));
                }
            }
        }
    }
    // The comparison is worth something only where there is something.
    assert!(filled.len() > 200, "only {} columns had a value: {filled:?}", filled.len());
}

/// Members of an object; several of them can meet at one path.
const NAMES: [&str; 9] = ["a", "b", "a.b", "b.a", "c.d.e", "é", "x y", "\"q\"", "0"];

/// Numbers whose text reads the same in every reader, texts, lists and objects of them.
fn values() -> impl Strategy<Value = Value> {
    let whole = any::<i64>().prop_map(Value::from);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<i32>().prop_map(|number| json!(f64::from(number) / 8.0)),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("2026-01-02 03:04:05")),
    ];
    let nested = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(select(NAMES.as_slice()), inner, 0..4).prop_map(|members| json!(members)),
        ]
    });
    prop_oneof![
        1 => whole.clone(),
        1 => any::<u64>().prop_map(Value::from),
        1 => vec(whole, 0..4).prop_map(Value::from),
        6 => nested,
    ]
}

/// What is at each path; `None` where two values are at one.
fn paths(object: &Map<String, Value>) -> Option<Map<String, Value>> {
    fn collect(above: &str, object: &Map<String, Value>, all: &mut Map<String, Value>) -> bool {
        object.iter().all(|(name, value)| {
            let path = format!("{above}{name}");
            match value {
                Value::Null => true,
                Value::Object(inner) => collect(&format!("{path}."), inner, all),
                leaf => of_list(leaf).is_some_and(|leaf| all.insert(path, leaf).is_none()),
            }
        })
    }
    fn of_list(value: &Value) -> Option<Value> {
        Some(match value {
            Value::Array(items) => items.iter().map(of_list).collect::<Option<Vec<_>>>()?.into(),
            Value::Object(inner) => paths(inner)?.into(),
            Value::Number(number) if number.is_f64() => {
                // Printed without a point where there is nothing behind it.
                let number = number.as_f64().expect("a number");
                let whole = number.to_string().parse::<i64>();
                whole.map_or_else(|_| json!(number), Value::from)
            }
            other => other.clone(),
        })
    }
    let mut all = Map::new();
    collect("", object, &mut all).then_some(all)
}

/// Whether no value stands above others, as in `{"a": 1, "a.b": 2}`: that is stored, and printed with
/// one name twice, of which readers keep one.
fn is_printable(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(is_printable),
        Value::Object(paths) => paths.iter().all(|(path, value)| {
            let below = format!("{path}.");
            is_printable(value) && !paths.keys().any(|other| other.starts_with(&below))
        }),
        _ => true,
    }
}

#[test]
fn any_object_comes_back_from_clickhouse_as_it_was_sent() {
    const OBJECTS: usize = 1_200;
    let Some(server) = ClickHouse::start() else { return };
    let site = Site::new(PROGRAM, json!({"Notify": [server.entry("objects")]}));
    let tracker = site.start();
    let mut runner = TestRunner::deterministic();
    let objects = btree_map(select(NAMES.as_slice()), values(), 0..5);
    let sent: Vec<Value> = (0..OBJECTS)
        .map(|_| json!(objects.new_tree(&mut runner).expect("an object").current()))
        .collect();
    let event = |(seq, params)| json!({"ename": "object", "seq": seq, "params": params});
    let events: Vec<Value> = sent.iter().enumerate().map(event).collect();
    let mut client = Client::connect(tracker.address).expect("connecting");
    let headers = [("Content-Type", "application/json")];
    for events in events.chunks(500) {
        let body = json!(events).to_string();
        let answer = client.request("POST", "/tr/v1/tr/", &headers, body.as_bytes());
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
    tracker.drained();
    let rows = server.query("select seq, params from objects.events order by seq");
    let mut found: BTreeMap<u64, &Value> =
        rows.iter().map(|row| (row["seq"].as_u64().expect("a number"), &row["params"])).collect();
    let (mut refused, mut compared) = (0, 0);
    for (seq, object) in (0..).zip(&sent) {
        let object = object.as_object().expect("an object");
        let there = found.remove(&seq).map(|there| paths(there.as_object().expect("an object")));
        match paths(object) {
            Some(paths) if is_printable(&json!(paths)) => {
                assert_eq!(there, Some(Some(paths)), "{seq}: {object:?}");
                compared += 1;
            }
            Some(_) => assert!(there.is_some(), "{object:?}"),
            None => {
                assert_eq!(there, None, "{object:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(server.number("select count() from objects.quarantine"), refused);
    assert!(refused > 0 && compared > OBJECTS / 2, "{refused} {compared}");
}

/// A value without what the stores print differently: how a moment is written, trailing zeros, and
/// what stands for nothing (a column that takes no NULL has zero, the empty text or the zero id).
fn plain(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(false) => String::new(),
        Value::Bool(true) => "true".to_owned(),
        Value::Number(number) => decimal(number.as_f64().expect("a number")),
        Value::String(text) => {
            let text = text.replace('T', " ").replace('Z', "");
            if text.replace(['0', '-'], "").is_empty() || text.starts_with("1970-01-01") {
                String::new()
            } else if let Ok(number) = text.parse::<f64>() {
                decimal(number)
            } else {
                text
            }
        }
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(fields) => sorted(fields),
    }
}

/// ClickHouse keeps no member that is null.
fn sorted(fields: &Map<String, Value>) -> String {
    let told = fields.iter().filter(|(_, value)| !value.is_null());
    let parts: BTreeSet<String> =
        told.map(|(name, value)| format!("{name}={}", plain(value))).collect();
    if parts.is_empty() { String::new() } else { format!("{parts:?}") }
}

fn decimal(number: f64) -> String {
    if number == 0.0 { String::new() } else { format!("{number:.6}") }
}

/// One of each kind of fact, with as many fields as there are.
fn facts() -> Vec<(&'static str, Value)> {
    let event = json!({
        "vid": VISITOR, "sid": THREAD, "uid": "user-123", "oid": THREAD, "org": "Örg",
        "auth": "author-1", "device_id": "dev-7", "rid": THREAD, "invid": THREAD, "ref": THREAD,
        "ename": "Page_View", "etyp": "view", "outcome": "won", "score": -1.25, "sink": "basket",
        "relation": "owns", "url": "https://shop.example.com/lamps?utm_source=news&gclid=Cj0K",
        "last": "https://www.google.com/", "app": "shop", "rel": "2026.11", "ptyp": "product",
        "ver": 7, "w": 1440, "h": 900, "duration": 1834, "source": "news", "medium": "email",
        "campaign": "autumn", "content": "hero", "term": "lamp", "aff": "a1", "rcode": "r1",
        "xid": "x1", "split": "s1", "arm_id": "b", "mcid": "m1", "device": "mobile", "os": "ios",
        "lat": 51.5, "lon": -0.12, "zip": "8001", "city": "Zürich", "country": "CH", "region": "ZH",
        "tz": "Europe/Zurich", "email": "a@example.com", "cell": "+41", "uname": "anna",
        "gaid": "g", "idfa": "i", "msid": "m", "fbid": "f", "seq": 17,
        "targets": {"a": ["b"]},
        "params": {"text": "2026-01-01", "moment": "2026-01-01 10:00:00", "deep": {"list": [1, "2", {"x": null}]},
                   "big": 9_007_199_254_740_993_i64, "half": 0.5, "no": false, "emoji": "👋",
                   "items": [{"sku": "a", "qty": 1, "tags": ["x"]}, {"sku": "b", "dim": {"w": 1.5, "h": [1, 2]}}],
                   "numbers": [1, 2.5], "mixed": [1, "a", true], "lists": [[1], [2, 3]], "empty": [],
                   "day": "2026-02-30"},
    });
    let thread = json!({
        "vid": VISITOR, "tid": THREAD, "oid": THREAD, "ename": "conversion", "score": 2, "xid": "v1",
        "alias": "al", "name": "Name", "subject": "Hello", "msg": "Body", "cats": ["a", "b"],
        "mtypes": ["mail"], "admins": [VISITOR, THREAD], "ddata": {"k": {"n": [1, 2]}},
        "urgency": 3, "planned_impressions": 12, "provider_cost": 1.5, "archived": true,
        "created_at": "2026-11-01T10:00:00.123Z", "abz_start_time": "2026-11-02T00:00:00Z",
        "users": [VISITOR], "keep": true, "scheduled": 1_793_000_000, "pmid": THREAD,
    });
    let payments = json!({
        "vid": VISITOR, "uid": "user-123", "oid": THREAD, "currency": "chf", "orid": "order-1",
        "payments": [
            {"product": "Lamp", "qty": 2, "price": "79.50", "revenue": 159.0, "tax": 7.7001,
             "pcat": "light", "paid_at": "2026-11-20T10:00:00Z"},
            {"product": "Shade", "revenue": -12.3456, "country": "CH"},
        ],
    });
    vec![
        ("/tr/v1/tr/", event.clone()),
        ("/tr/v1/str/", event),
        ("/tr/v1/tr/", json!({"ename": "bare"})),
        ("/tr/v1/tr/", thread),
        ("/tr/v1/ltv/", payments),
        (
            "/tr/v1/ppi/agree",
            json!({"vid": VISITOR, "cflags": 1024, "tz": "Europe/Zurich", "lat": 1.5, "lon": 2.5}),
        ),
    ]
}
