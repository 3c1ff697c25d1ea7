//! Keys: who is let in, and what a sender is believed.

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tracker::config::{KeyConfig, KeyKind, Secret, TrustedProxy};
use tracker::event::Event;

use crate::support::{Served, client, json};

const SERVER: &str = "5e7a1b8d3f6051c2a7e49f2c";
const AGENT: &str = "77c2a7e49f2c5e7a1b8d3f60";
const SITE: &str = "0f6051c2a7e49f2c5e7a1b8d";
const OID: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";
const ACME: &str = "7d444840-9dc0-11d1-b245-5ffdce74fad2";

fn server_key() -> KeyConfig {
    KeyConfig {
        name: "billing".to_owned(),
        key: Secret::new(SERVER),
        kind: KeyKind::Server,
        organization: None,
        hosts: Vec::new(),
    }
}

fn bound_key() -> KeyConfig {
    let key = Secret::new(AGENT);
    KeyConfig { name: "agent".to_owned(), key, organization: Some(ACME.to_owned()), ..server_key() }
}

fn site_key() -> KeyConfig {
    KeyConfig {
        name: "shop".to_owned(),
        key: Secret::new(SITE),
        kind: KeyKind::Site,
        organization: Some(ACME.to_owned()),
        hosts: vec!["shop.example".to_owned()],
    }
}

/// Every sender comes through a trusted proxy and is a stranger behind it.
async fn served(keys: &[KeyConfig]) -> Served {
    Served::with(|setup| {
        setup.server.http.trusted_proxies = vec![TrustedProxy::Loopback];
        setup.server.http.keys = keys.to_vec();
    })
    .await
}

fn stranger(request: RequestBuilder) -> RequestBuilder {
    request.header("x-forwarded-for", "203.0.113.9")
}

/// Posts an event to `path` with `headers`.
async fn post(served: &Served, path: &str, headers: &[(&str, &str)], fields: Value) -> Response {
    let mut request = stranger(client().post(served.url(path))).body(fields.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn oid(event: &Event) -> Option<String> {
    event.who.oid.map(|id| id.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_sender_says_whose_event_it_is() {
    let served = served(&[]).await;
    let headers = [("authorization", "Bearer whatever")];
    assert_eq!(post(&served, "/tr/v1/tr", &headers, json!({"oid": OID})).await.status(), 200);
    assert_eq!(post(&served, "/tr/v1/str", &[], json!({"oid": OID})).await.status(), 200);
    let found: Vec<_> = served.events().iter().map(oid).collect();
    assert_eq!(found, [Some(OID.to_owned()), Some(OID.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_only_its_holder_says_whose_event_it_is() {
    let served = served(&[server_key(), bound_key()]).await;
    let bearer = format!("Bearer {SERVER}");
    let user = format!(r#"{{"oid":"{OID}"}}"#);
    for (path, headers, expect) in [
        ("/tr/v1/tr", vec![], None),
        ("/tr/v1/tr", vec![("user", user.as_str())], None),
        ("/tr/v1/tr/OID/14fb0860-b4bf-11e9-8971-7b80435315ac", vec![], None),
        ("/tr/v1/tr", vec![("x-api-key", SERVER)], Some(OID)),
        ("/tr/v1/str", vec![("authorization", bearer.as_str())], Some(OID)),
        ("/tr/v1/str", vec![("x-api-key", AGENT)], Some(ACME)),
    ] {
        assert_eq!(post(&served, path, &headers, json!({"oid": OID})).await.status(), 200);
        let event = served.events().pop().unwrap();
        assert_eq!(oid(&event).as_deref(), expect, "{path} {headers:?}");
        assert!(!event.params.contains_key("oid"), "{:?}", event.params);
    }
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_route_needs_a_servers_key_and_a_wrong_key_never_serves() {
    let served = served(&[server_key(), site_key()]).await;
    let query = format!("/tr/v1/tr?key={SERVER}");
    for (path, headers) in [
        ("/tr/v1/str", vec![]),
        ("/tr/v1/str", vec![("x-api-key", SITE)]),
        ("/tr/v1/str", vec![("x-api-key", &SERVER[1..])]),
        ("/tr/v1/tr", vec![("authorization", "Bearer none")]),
        (query.as_str(), vec![]),
    ] {
        let response = post(&served, path, &headers, json!({"ename": "x"})).await;
        assert_eq!(response.status(), 401, "{path} {headers:?}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let body = json(response).await;
        assert_eq!(body["error"]["code"], "unauthorized");
        assert!(!body.to_string().contains(&SERVER[1..]));
    }
    assert_eq!(served.events().len(), 0);
    assert_eq!(served.app.metrics.events_rejected.with_label_values(&["forbidden"]).get(), 5);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_site_is_registered_an_event_belongs_to_one() {
    let served = served(&[site_key()]).await;
    let check = async |headers: &[(&str, &str)], status: u16| {
        let response = post(&served, "/tr/v1/tr", headers, json!({"oid": OID})).await;
        assert_eq!(response.status(), status, "{headers:?}");
    };
    check(&[], 401).await;
    check(&[("origin", "https://other.example")], 401).await;
    check(&[("origin", "null")], 401).await;
    check(&[("x-api-key", SITE), ("origin", "https://other.example")], 401).await;
    check(&[("origin", "https://shop.example")], 200).await;
    check(&[("referer", "https://shop.example/a")], 200).await;
    check(&[("x-forwarded-host", "shop.example")], 200).await;
    check(&[("x-api-key", SITE)], 200).await;
    let found: Vec<_> = served.events().iter().map(oid).collect();
    assert_eq!(found, vec![Some(ACME.to_owned()); 4]);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pixel_shows_its_sites_key_in_the_address_and_stores_it_nowhere() {
    let served = served(&[site_key()]).await;
    let path = format!("/tr/v1/img?ename=open&key={SITE}");
    let response = stranger(client().get(served.url(&path))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let event = served.events().remove(0);
    assert_eq!(oid(&event).as_deref(), Some(ACME));
    let record = tracker::event::encode(&event).unwrap();
    assert!(!String::from_utf8_lossy(&record).contains(SITE));
    let response = stranger(client().get(served.url("/tr/v1/img?ename=x"))).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["content-type"], "image/gif");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_word_on_time_and_address_is_believed() {
    let served = served(&[server_key()]).await;
    let fields = json!({"created_at": "2020-02-03T04:05:06Z", "ip": "198.51.100.7"});
    for headers in [vec![("x-api-key", SERVER)], vec![]] {
        assert_eq!(post(&served, "/tr/v1/tr", &headers, fields.clone()).await.status(), 200);
    }
    let events = served.events();
    assert_eq!(events[0].created_at.to_rfc3339(), "2020-02-03T04:05:06+00:00");
    assert_eq!(events[0].place.ip.unwrap().to_string(), "198.51.100.0");
    assert_eq!(events[1].created_at, events[1].received_at);
    assert_eq!(events[1].place.ip.unwrap().to_string(), "203.0.113.0");
    assert_eq!(served.app.metrics.times_replaced.get(), 1);
}
