//! The routes for operators, CORS, and the answer to what is served nowhere.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, ORIGIN};
use serde_json::{Value, json};
use tracker::config::TrustedProxy;
use tracker::delivery::{SinkHealth, SinkState};

use crate::support::{Served, client, json};

#[tokio::test]
async fn ping_and_status_answer_as_the_contract_says() {
    let served = Served::start().await;
    for url in [served.url("/ping"), served.tls_url("/ping")] {
        let response = client().get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert_eq!(response.text().await.unwrap(), "pong");
    }
    let response = client().get(served.url("/status")).send().await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let status = json(response).await;
    assert_eq!(status[0], json!({ "Key": "client", "Value": "127.0.0.1" }));
    assert_eq!(status[1]["Key"], "conns");
    assert!(status[1]["Value"].as_u64().unwrap() >= 1);
}

#[tokio::test]
async fn status_names_the_client_behind_trusted_proxies_only() {
    let ask = async |served: &Served| {
        let request = client().get(served.url("/status"));
        json(request.header("x-forwarded-for", "198.51.100.7").send().await.unwrap()).await
    };
    let served = Served::start().await;
    assert_eq!(ask(&served).await[0]["Value"], "127.0.0.1");
    let trusting =
        Served::with(|setup| setup.server.http.trusted_proxies = vec![TrustedProxy::Loopback]);
    assert_eq!(ask(&trusting.await).await[0]["Value"], "198.51.100.7");
}

#[tokio::test]
async fn health_prints_sinks_and_is_200_while_only_a_sink_is_down() {
    let served = Served::start().await;
    let health = async || {
        let response = client().get(served.url("/health")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        json(response).await
    };
    let well = health().await;
    assert_eq!((&well["status"], &well["sinks"]), (&json!("ok"), &json!([])));
    assert_eq!(well["version"], env!("CARGO_PKG_VERSION"));
    assert!(well["uptime_s"].as_f64().unwrap() >= 0.0);
    assert_eq!(well["journal"]["healthy"], true);
    served.sinks.lock().unwrap().push(SinkHealth {
        name: "store".into(),
        kind: "duckdb",
        state: SinkState::Down,
        guarantee: "exactly-once".into(),
        lag_events: 7,
        lag_seconds: 2,
        last_error: Some("no route".into()),
    });
    let degraded = health().await;
    assert_eq!(degraded["status"], "degraded");
    let sink = json!({
        "name": "store", "type": "duckdb", "state": "down", "guarantee": "exactly-once",
        "lag_events": 7, "lag_s": 2, "last_error": "no route",
    });
    assert_eq!(degraded["sinks"][0], sink);
}

#[tokio::test]
async fn metrics_are_the_documented_json_or_text_for_scrapers() {
    let served = Served::start().await;
    client().get(served.url("/tr/v1/tr/ename/x")).send().await.unwrap();
    let sink = served.app.metrics.sink("duckdb", "events");
    sink.rows.inc_by(10);
    sink.batches.inc_by(4);
    let document = json(client().get(served.url("/metrics")).send().await.unwrap()).await;
    for key in [
        "enabled",
        "total_batches",
        "total_items",
        "failed_batches",
        "avg_batch_size",
        "avg_flush_latency_ms",
        "queued_items",
        "memory_usage_mb",
        "batch_success_rate",
        "events_per_second",
    ] {
        assert!(!document["batching"][key].is_null(), "{key}");
    }
    assert_eq!(document["batching"]["avg_batch_size"], 2.5);
    assert_eq!(document["metrics"]["event_count"], 1);
    assert!(document["calculated"]["uptime_seconds"].is_number());
    assert!(document["timestamp"].as_str().unwrap().ends_with('Z'));
    let scraped = client().get(served.url("/metrics")).header(ACCEPT, "text/plain;version=0.0.4");
    let response = scraped.send().await.unwrap();
    assert!(response.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    let text = response.text().await.unwrap();
    for line in [
        "tracker_http_requests_total{route=\"/tr/v1/tr\",status=\"200\"} 1",
        "tracker_http_requests_total{route=\"/metrics\",status=\"200\"} 1",
        "tracker_events_stored_total 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn clear_is_for_the_users_own_request() {
    let served = Served::start().await;
    let clear = async |site: Option<&str>| {
        let mut request = client().get(served.url("/clear"));
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        request.send().await.unwrap()
    };
    for site in [None, Some("none"), Some("same-origin"), Some("same-site")] {
        let response = clear(site).await;
        assert_eq!(response.headers()["clear-site-data"], "\"*\"");
        assert_eq!(response.text().await.unwrap(), "OK");
    }
    let response = clear(Some("cross-site")).await;
    assert_eq!(response.status(), 403);
    assert!(response.headers().get("clear-site-data").is_none());
}

#[tokio::test]
async fn an_unknown_path_is_a_404_in_json() {
    let served = Served::start().await;
    for path in ["/", "/favicon.ico", "/tr/v2/tr/", "/tr/v1/", "/tr/v1/trx", "/short"] {
        let response = client().get(served.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(json(response).await["error"]["code"], "not_found");
    }
    assert_eq!(served.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_browser_of_an_allowed_origin_may_post_json() {
    let site = "https://site.example";
    let preflight = async |served: &Served, origin: &str| {
        let request = client()
            .request(Method::OPTIONS, served.url("/tr/v1/tr/"))
            .header(ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_lowercase())
        };
        assert!(header("access-control-allow-headers").unwrap().contains("content-type"));
        assert!(header("access-control-allow-methods").unwrap().contains("post"));
        let credentials = header("access-control-allow-credentials");
        (header("access-control-allow-origin"), credentials, header("vary"))
    };
    let some = |text: &str| Some(text.to_owned());
    let open = Served::start().await;
    assert_eq!(preflight(&open, site).await, (some("*"), None, None));
    let listed = Served::with(|setup| setup.server.http.allow_origins = vec![site.into()]).await;
    assert_eq!(preflight(&listed, site).await, (some(site), some("true"), some("origin")));
    for hostile in ["null", "https://site.example.evil", "https://evil.example"] {
        assert_eq!(preflight(&listed, hostile).await, (None, None, some("origin")));
    }
    assert_eq!(listed.names(), Vec::<String>::new(), "a preflight is no event");
}

#[tokio::test]
async fn labels_and_metrics_hold_no_personal_data() {
    let served = Served::start().await;
    let secret = "very-personal";
    let path = format!("/tr/v1/tr/vid/{secret}/email/{secret}?q={secret}");
    client().get(served.url(&path)).header("user-agent", secret).send().await.unwrap();
    client().get(served.url(&format!("/{secret}"))).send().await.unwrap();
    let text = served.app.metrics.text().unwrap();
    assert!(!text.contains(secret) && !text.contains("127.0.0.1"), "{text}");
    let value: Value = json(client().get(served.url("/metrics")).send().await.unwrap()).await;
    assert!(!value.to_string().contains(secret));
}

#[tokio::test]
async fn an_answer_names_its_request_and_only_a_proxy_of_ours_may_say_how() {
    let ask = async |served: &Served, given: &str| {
        let request = client().get(served.url("/ping")).header("x-request-id", given);
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    let served = Served::start().await;
    let (one, two) = (ask(&served, "mine").await, ask(&served, "mine").await);
    assert!(one != two && one.len() == 32, "{one} {two}");
    let trusting =
        Served::with(|setup| setup.server.http.trusted_proxies = vec![TrustedProxy::Loopback]);
    let trusting = trusting.await;
    assert_eq!(ask(&trusting, "mine-7.a_b").await, "mine-7.a_b");
    for bad in ["a b", "someone@example.com", &"x".repeat(65)] {
        assert_eq!(ask(&trusting, bad).await.len(), 32, "{bad}");
    }
}
