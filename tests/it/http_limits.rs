//! How much one client may ask for.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::json as value;
use tracker::config::{KeyConfig, KeyKind, LimitsConfig, Secret, TrustedProxy};

use crate::socket::Socket;
use crate::support::{Served, client, json};

async fn limited(limits: LimitsConfig) -> Served {
    Served::with(|setup| {
        setup.server.http.limits = limits;
        setup.server.http.trusted_proxies = vec![TrustedProxy::Loopback];
    })
    .await
}

/// A request of the client at `address`, behind the trusted proxy that we are.
async fn ask(served: &Served, method: Method, path: &str, address: &str) -> Response {
    let request = client().request(method, served.url(path)).header("x-forwarded-for", address);
    request.send().await.unwrap()
}

fn number(response: &Response, name: &str) -> u64 {
    response.headers()[name].to_str().unwrap().parse().unwrap()
}

fn exceeded(served: &Served, limit: &str, outcome: &str) -> u64 {
    served.app.metrics.limit_exceeded.with_label_values(&[limit, outcome]).get()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_day_an_address_is_refused_until_midnight_and_others_are_not() {
    let served = limited(LimitsConfig { address_per_day: 3, ..LimitsConfig::default() }).await;
    for left in [2, 1, 0] {
        let response = ask(&served, Method::GET, "/tr/v1/tr/ename/x", "203.0.113.1").await;
        assert_eq!(response.status(), 200);
        assert_eq!(number(&response, "ratelimit-limit"), 3);
        assert_eq!(number(&response, "ratelimit-remaining"), left);
        assert!(number(&response, "ratelimit-reset") <= 86_400);
    }
    let response = ask(&served, Method::POST, "/tr/v1/tr", "203.0.113.1").await;
    assert_eq!(response.status(), 429);
    assert_eq!(number(&response, "ratelimit-remaining"), 0);
    assert_eq!(number(&response, "retry-after"), number(&response, "ratelimit-reset"));
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
    assert!(exposed.contains("Retry-After,RateLimit-Limit,RateLimit-Remaining"), "{exposed}");
    let error = json(response).await["error"].take();
    assert_eq!(error["code"], "rate_limited");
    assert_eq!(error["message"], "the daily limit of this address is reached");
    let other = ask(&served, Method::GET, "/tr/v1/tr", "203.0.113.2").await;
    assert_eq!(other.status(), 200);
    assert_eq!(exceeded(&served, "address_day", "refused"), 1);
    assert_eq!(served.app.metrics.events_rejected.with_label_values(&["rate_limited"]).get(), 1);
    assert_eq!(served.names(), ["x", "x", "x", ""]);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_counts_event_routes_and_the_api_but_never_operators_and_preflights() {
    let served = limited(LimitsConfig { address_per_day: 1, ..LimitsConfig::default() }).await;
    let address = "203.0.113.1";
    for path in ["/ping", "/status", "/health", "/metrics", "/clear"] {
        let response = ask(&served, Method::GET, path, address).await;
        assert_eq!(response.status(), 200, "{path}");
        assert!(!response.headers().contains_key("ratelimit-limit"), "{path}");
    }
    assert_eq!(ask(&served, Method::OPTIONS, "/tr/v1/tr", address).await.status(), 200);
    assert_eq!(ask(&served, Method::GET, "/api/thing", address).await.status(), 404);
    for path in ["/tr/v1/tr", "/tr/v1/str", "/tr/v1/img", "/api/thing"] {
        assert_eq!(ask(&served, Method::GET, path, address).await.status(), 429, "{path}");
    }
    assert_eq!(ask(&served, Method::GET, "/short", address).await.status(), 404);
    // What is not an event is not in the books, but counted.
    assert_eq!(served.app.metrics.rejected(), 3);
    assert_eq!(exceeded(&served, "address_day", "refused"), 4);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pixel_is_still_a_picture() {
    let served = limited(LimitsConfig { address_per_day: 1, ..LimitsConfig::default() }).await;
    ask(&served, Method::GET, "/tr/v1/img", "203.0.113.1").await;
    let response = ask(&served, Method::GET, "/tr/v1/img", "203.0.113.1").await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "image/gif");
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_lets_a_burst_through_and_then_so_many_in_a_second() {
    let limits = LimitsConfig { address_per_second: 5, burst: Some(5), ..LimitsConfig::default() };
    let served = limited(limits).await;
    let started = Instant::now();
    let (mut taken, mut refused) = (0_u32, 0);
    while started.elapsed() < Duration::from_secs(1) {
        let response = ask(&served, Method::GET, "/tr/v1/tr", "203.0.113.1").await;
        match response.status().as_u16() {
            200 => taken += 1,
            429 => {
                refused += 1;
                assert_eq!(number(&response, "retry-after"), 1);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            status => panic!("{status}"),
        }
    }
    let most = 5.0 + started.elapsed().as_secs_f64() * 5.0;
    assert!(f64::from(taken) <= most && taken >= 5, "{taken} of {most}");
    assert!(refused > 0);
    assert_eq!(exceeded(&served, "address_rate", "refused"), refused);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_of_one_ipv6_customer_are_one_client() {
    let served = limited(LimitsConfig { address_per_day: 1, ..LimitsConfig::default() }).await;
    let check = async |address: &str, status: u16| {
        let response = ask(&served, Method::GET, "/tr/v1/tr", address).await;
        assert_eq!(response.status(), status, "{address}");
    };
    check("2001:db8:1:1::1", 200).await;
    check("2001:db8:1:1:ffff::2", 429).await;
    check("2001:db8:1:2::1", 200).await;
    check("198.51.100.1", 200).await;
    check("::ffff:198.51.100.1", 429).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_forwarding_header_buys_nothing() {
    let limits = LimitsConfig { address_per_day: 1, ..LimitsConfig::default() };
    let served = Served::with(|setup| setup.server.http.limits = limits).await;
    for (name, status) in
        [("x-forwarded-for", 200), ("x-forwarded-for", 429), ("x-real-ip", 429), ("forwarded", 429)]
    {
        let value = if name == "forwarded" { "for=198.51.100.9" } else { "198.51.100.9" };
        let request = client().get(served.url("/tr/v1/tr")).header(name, value);
        assert_eq!(request.send().await.unwrap().status(), status, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_refuses_nothing_and_counts_what_it_would_refuse() {
    let limits = LimitsConfig {
        address_per_day: 2,
        address_per_second: 1000,
        dry_run: true,
        ..LimitsConfig::default()
    };
    let served = limited(limits).await;
    for _ in 0..5 {
        let response = ask(&served, Method::GET, "/tr/v1/tr", "203.0.113.1").await;
        assert_eq!(response.status(), 200);
    }
    assert_eq!(exceeded(&served, "address_day", "allowed"), 3);
    assert_eq!(exceeded(&served, "address_day", "refused"), 0);
    assert_eq!(served.app.metrics.rejected(), 0);
    let text = served.app.metrics.text().unwrap();
    let line = "tracker_limit_exceeded_total{limit=\"address_day\",outcome=\"allowed\"} 3";
    assert!(text.contains(line), "{text}");
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_websocket_count_like_requests() {
    let served = limited(LimitsConfig { address_per_day: 3, ..LimitsConfig::default() }).await;
    let headers = [("x-forwarded-for", "203.0.113.1")];
    let mut socket = Socket::open(served.http, "/tr/v1/ws?ack=1", &headers);
    for number in 1..=2 {
        socket.text(r#"[{"ename":"a"},{"ename":"b"}]"#);
        assert_eq!(socket.reply(), value!({ "ack": number }));
    }
    socket.text("{}");
    let reply = socket.reply();
    assert_eq!((&reply["nack"], &reply["error"]["code"]), (&value!(3), &value!("rate_limited")));
    assert!(reply["retry_after"].as_u64().unwrap() <= 86_400);
    let response = Socket::try_open(served.http, "/tr/v1/ws", &headers).err().unwrap();
    assert_eq!(response.status().as_u16(), 429, "the handshake is a request too");
    assert_eq!(exceeded(&served, "address_day", "refused"), 2);
    assert_eq!(served.app.metrics.events_rejected.with_label_values(&["rate_limited"]).get(), 1);
    assert_eq!(served.app.metrics.events_stored.get(), 4);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_a_limit_of_its_own_and_a_sites_key_changes_nothing() {
    const SERVER: &str = "5e7a1b8d3f6051c2a7e49f2c";
    const SITE: &str = "0f6051c2a7e49f2c5e7a1b8d";
    let key = |name: &str, key: &str, kind| KeyConfig {
        name: name.to_owned(),
        key: Secret::new(key),
        kind,
        organization: None,
        hosts: Vec::new(),
    };
    let served = Served::with(|setup| {
        let keys = [key("billing", SERVER, KeyKind::Server), key("shop", SITE, KeyKind::Site)];
        setup.server.http.keys = keys.to_vec();
        setup.server.http.limits = LimitsConfig {
            address_per_day: 2,
            key_per_second: 1,
            burst: Some(4),
            ..LimitsConfig::default()
        };
    })
    .await;
    let check = async |key: &str, status: u16| {
        let request = client().get(served.url("/tr/v1/tr")).header("x-api-key", key);
        assert_eq!(request.send().await.unwrap().status(), status, "{key}");
    };
    for _ in 0..2 {
        check(SITE, 200).await;
    }
    check(SITE, 429).await;
    for _ in 0..4 {
        check(SERVER, 200).await;
    }
    check(SERVER, 429).await;
    assert_eq!(exceeded(&served, "key_rate", "refused"), 1);
    assert_eq!(exceeded(&served, "address_day", "refused"), 1);
    let open = |key: &str| Socket::try_open(served.http, "/tr/v1/ws", &[("x-api-key", key)]);
    assert_eq!(open("wrong").err().unwrap().status().as_u16(), 429, "as nobody, by its address");
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_opens_no_websocket() {
    let site = KeyConfig {
        name: "shop".to_owned(),
        key: Secret::new("0f6051c2a7e49f2c5e7a1b8d"),
        kind: KeyKind::Site,
        organization: None,
        hosts: Vec::new(),
    };
    let served = Served::with(|setup| setup.server.http.keys = vec![site]).await;
    let open = |path: &str, key: &str| Socket::try_open(served.http, path, &[("x-api-key", key)]);
    assert_eq!(open("/tr/v1/ws", "wrong").err().unwrap().status().as_u16(), 401);
    drop(open("/tr/v1/ws", "0f6051c2a7e49f2c5e7a1b8d").ok().unwrap());
    drop(Socket::open(served.http, "/tr/v1/ws?key=0f6051c2a7e49f2c5e7a1b8d", &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_setting_nothing_is_limited_or_said() {
    let served = Served::start().await;
    for _ in 0..50 {
        let response = client().get(served.url("/tr/v1/tr")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("ratelimit-limit"));
    }
}
