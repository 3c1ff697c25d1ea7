//! The routes about privacy, where what they ask is scripted.

use serde_json::{Map, Value, json};
use tracker::backends::memory::Memory;

use crate::support::{Served, client, json};

const VID: &str = "0190a8f0-0000-7000-8000-000000000001";

fn row(regulation: &str, compliance: &str, consent: &str) -> Map<String, Value> {
    let row = json!({
        "regulation": regulation, "compliance": compliance, "seq": 1,
        "rules": {"consent": consent}, "locs": {"countries": ["DE"]},
    });
    row.as_object().unwrap().clone()
}

async fn get(served: &Served, path: &str) -> (u16, Value) {
    let cookie = format!("vid={VID}");
    let request = client().get(served.url(path)).header("cookie", cookie);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), json(response).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_own_regulations_stand_over_those_of_the_program() {
    let store = Memory::new();
    store.add_jurisdiction(row("GDPR", "personal_data", "ours"));
    store.add_jurisdiction(row("House rules", "all", "opt_in"));
    let served = Served::with(|setup| setup.store = Some(store.clone())).await;
    let consents = |rows: &Value| -> Vec<Value> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| json!([row["regulation"], row["rules"]["consent"]])).collect()
    };
    let (status, rows) = get(&served, "/tr/v1/ppi/jds?country=DE").await;
    assert_eq!(status, 200);
    let expect =
        [json!(["GDPR", "ours"]), json!(["House rules", "opt_in"]), json!(["ePrivacy", "opt_in"])];
    assert_eq!(consents(&rows), expect);
    // What a store said stays for a while; one that never did takes nothing away from what the
    // program knows.
    store.set_reachable(false);
    let (_, rows) = get(&served, "/tr/v1/ppi/jds?country=DE").await;
    assert_eq!(consents(&rows), expect);
    let served = Served::with(|setup| setup.store = Some(store.clone())).await;
    let (status, rows) = get(&served, "/tr/v1/ppi/jds?country=DE").await;
    assert_eq!(status, 200);
    assert_eq!(consents(&rows)[0], json!(["GDPR", "opt_in"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn agreements_cannot_be_read_without_a_store_that_answers() {
    let served = Served::start().await;
    let (status, error) = get(&served, "/tr/v1/ppi/agree").await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("unavailable")));
    let store = Memory::new();
    store.set_reachable(false);
    let served = Served::with(|setup| setup.store = Some(store)).await;
    let (status, error) = get(&served, "/tr/v1/ppi/agree").await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_not_answered_before_a_database_is_there() {
    let served = Served::start().await;
    let (status, error) = get(&served, "/tr/v1/ppi/geoip").await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_action_is_unknown() {
    let served = Served::start().await;
    for path in ["/tr/v1/ppi", "/tr/v1/ppi/", "/tr/v1/ppi/agreed", "/tr/v1/ppi/agree/x"] {
        let (status, error) = get(&served, path).await;
        assert_eq!((status, &error["error"]["message"]), (400, &json!("Unknown action")), "{path}");
    }
}
