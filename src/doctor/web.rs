//! The server as browsers meet it: may pages of the configured origins talk to it, and what does it
//! see of a client that comes through everything in front of it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::{Finding, Findings, Level};
use crate::config::{ClientTlsConfig, Config};
use crate::telemetry::chain;
use crate::tls;

/// Longest wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Seconds by which two clocks may differ before it is worth a word.
const SKEW_SECONDS_MAX: i64 = 5;

/// Asks for each configured origin whether its pages may post.
pub(super) async fn cors(config: &Config) -> Vec<Finding> {
    let mut found = Findings::about("origins");
    if config.server.http.allow_origins.iter().any(|origin| origin == "*") {
        found.add(
            Level::Warning,
            "pages of every origin may post, none of them with cookies",
            "list your sites in AllowOrigins to know visitors across them",
        );
    }
    let Some(address) = config.server.listen_http.filter(|address| address.port() != 0) else {
        found.add(Level::Unknown, "no plain listener to ask at", "");
        return found.found;
    };
    let listed = config.server.http.allow_origins.iter().filter(|origin| *origin != "*");
    for origin in listed {
        match preflight(address, config.server.http.api_version, origin).await {
            Ok(headers)
                if headers.get("access-control-allow-origin").is_some_and(|o| o == origin) =>
            {
                found.good(format!("pages of {origin} may post, with cookies"));
            }
            Ok(_) => found.add(
                Level::Failure,
                format!("pages of {origin} may not post to the running server"),
                "it runs with another configuration: tracker reload",
            ),
            Err(why) => found.add(Level::Unknown, format!("{address} was not asked: {why}"), ""),
        }
    }
    found.found
}

async fn preflight(address: SocketAddr, version: u32, origin: &str) -> Result<HeaderMap, String> {
    let uri = format!("http://{}/tr/v{version}/tr/", reachable(address));
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(uri)
        .header(header::ORIGIN, origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    send(request).await.map(|(_, headers, _)| headers)
}

/// An address that listens on every interface is asked on this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

/// Asks the server where visitors reach it: does it answer there, and whom does it see.
pub(super) async fn public(config: &Config, url: &Uri) -> Vec<Finding> {
    let mut found = Findings::about("public");
    let text = url.to_string();
    let base = text.trim_end_matches('/');
    let request = match Request::get(format!("{base}/status")).body(Empty::new()) {
        Ok(request) => request,
        Err(error) => {
            found.add(Level::Failure, format!("{base} is no address: {error}"), "");
            return found.found;
        }
    };
    let (status, headers, body) = match send(request).await {
        Ok(answer) => answer,
        Err(why) => {
            let advice = "check the name, the port, the firewall and the certificate";
            found.add(Level::Failure, format!("{base} does not answer: {why}"), advice);
            return found.found;
        }
    };
    let client = client_of(&body);
    match client {
        Some(ip) if status == StatusCode::OK => {
            let ip: Option<std::net::IpAddr> = ip.parse().ok();
            if ip.is_some_and(is_inside) && !url.host().is_some_and(is_local) {
                found.add(
                    Level::Warning,
                    format!("{base} answers, and sees this client as an address inside a network"),
                    "unless you are inside too, a proxy in front is missing in TrustedProxies",
                );
            } else {
                found.good(format!("{base} answers, and sees a client of its own"));
            }
        }
        _ => found.add(
            Level::Failure,
            format!("{base}/status answers {status}, not as a tracker does"),
            "something else answers there, or a proxy in front changes the path",
        ),
    }
    if let Some(skew) = skew(&headers, Utc::now()).filter(|skew| skew.abs() > SKEW_SECONDS_MAX) {
        let advice = "one of the two clocks is wrong";
        found.add(Level::Warning, format!("clocks differ by {skew} s"), advice);
    }
    if url.scheme_str() == Some("http") && config.server.listen_https.is_some() {
        found.add(Level::Warning, "visitors' events would travel in the clear", "use https://");
    }
    found.found
}

/// The client's address in the documented form of `/status`.
fn client_of(body: &[u8]) -> Option<String> {
    let status: Value = serde_json::from_slice(body).ok()?;
    let entry = status.as_array()?.iter().find(|entry| entry["Key"] == "client")?;
    entry["Value"].as_str().map(str::to_owned)
}

fn is_inside(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        std::net::IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
    }
}

fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(is_inside)
}

/// Seconds by which the answer's clock is ahead of `now`.
fn skew(headers: &HeaderMap, now: DateTime<Utc>) -> Option<i64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let date = DateTime::parse_from_rfc2822(date).ok()?;
    Some((date.to_utc() - now).num_seconds())
}

async fn send(request: Request<Empty<Bytes>>) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let tls = tls::client(&ClientTlsConfig::default()).map_err(|error| error.to_string())?;
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| chain(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((parts.status, parts.headers, body))
    };
    timeout(WAIT_MAX, exchange).await.unwrap_or_else(|_| Err(format!("no answer in {WAIT_MAX:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_read_from_the_documented_form() {
        let body = br#"[{"Key":"client","Value":"203.0.113.9"},{"Key":"conns","Value":1}]"#;
        assert_eq!(client_of(body).as_deref(), Some("203.0.113.9"));
        assert_eq!(client_of(b"<html>"), None);
    }

    #[test]
    fn addresses_inside_networks_are_known() {
        for (ip, expect) in [
            ("10.1.2.3", true),
            ("127.0.0.1", true),
            ("fd00::1", true),
            ("203.0.113.9", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_inside(ip.parse().unwrap()), expect, "{ip}");
        }
    }

    #[test]
    fn a_clock_that_is_ahead_is_seen_in_the_answer() {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, "Sat, 21 Nov 2026 12:00:10 GMT".parse().unwrap());
        let now = DateTime::parse_from_rfc3339("2026-11-21T12:00:00Z").unwrap().to_utc();
        assert_eq!(skew(&headers, now), Some(10));
    }
}
