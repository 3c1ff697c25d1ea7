//! Headers on their way to a server behind us and back.
//!
//! What belongs to one connection (RFC 9110 §7.6.1) is not passed on, nor what `Connection` names.
//! What says who the client is, is ours to say: those headers are removed whoever sent them and
//! written anew from what we know. Of a peer that is no trusted proxy all other headers of that kind
//! go too, also with `_` for `-`, which many servers read as the same name.
//!
//! Cookies and `Authorization` are passed on, the visitor's cookie too: the server behind belongs to
//! the same operator. A key of the tracker's own is not.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Of one connection only; `expect` because we have already answered it.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    // Never meant for more than one hop, but often sent on.
    "proxy-status",
];

/// Always ours to say, or a way round the path that was checked.
const OURS: [&str; 9] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-origin-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Believed of trusted proxies only. All that begins with `x-forwarded` belongs here too.
const CLAIMS: [&str; 32] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ipcountry",
    "cf-pseudo-ipv4",
    "client-ip",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-for",
    "front-end-https",
    "proxy-client-ip",
    "remote-addr",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-arr-clientip",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-host",
    "x-http-host-override",
    "x-nf-client-connection-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-real-host",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-vercel-forwarded-for",
];

/// Where a key of the tracker's own may stand.
pub(super) const KEYS: [HeaderName; 2] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];

/// What we know about a request and tell the server behind.
pub(super) struct Story<'a> {
    /// The client behind trusted proxies.
    pub(super) client: IpAddr,
    /// The peer is a trusted proxy.
    pub(super) is_peer_trusted: bool,
    /// The client used TLS.
    pub(super) is_https: bool,
    /// What the client asked for, with port; empty when it named none.
    pub(super) host: &'a str,
    /// The server behind.
    pub(super) origin: &'a HeaderValue,
}

/// Removes what must not go on.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Turns the headers of a request into those of ours to the server behind.
pub(super) fn prepare(headers: &mut HeaderMap, story: &Story<'_>) {
    strip(headers);
    // The length is known from the body itself, which was read by one rule and is written by one.
    headers.remove(header::CONTENT_LENGTH);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str().replace('_', "-");
            let is_claim = name.starts_with("x-forwarded") || CLAIMS.contains(&name.as_str());
            OURS.contains(&name.as_str()) || is_claim && !story.is_peer_trusted
        })
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    let proto = if story.is_https { "https" } else { "http" };
    let address = story.client.to_string();
    let node = if story.client.is_ipv6() { format!("\"[{address}]\"") } else { address.clone() };
    let forwarded = match story.host {
        "" => format!("for={node};proto={proto}"),
        host => format!("for={node};proto={proto};host=\"{host}\""),
    };
    let mut say = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    say("x-forwarded-for", &address);
    say("x-real-ip", &address);
    say("x-forwarded-proto", proto);
    say("forwarded", &forwarded);
    if !story.host.is_empty() {
        say("x-forwarded-host", story.host);
    }
    headers.insert("x-origin-host", story.origin.clone());
}

/// Whether the request asks to go on as a WebSocket. No other protocol is tunnelled: `h2c` would be
/// a way round everything that is decided here.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// Marks a message as one that goes on as a WebSocket.
pub(super) fn mark_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Removes what the server behind said about CORS, where that is ours to say.
pub(super) fn strip_cors(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn prepared(pairs: &[(&'static str, &'static str)], is_peer_trusted: bool) -> HeaderMap {
        let mut headers = map(pairs);
        let origin = HeaderValue::from_static("10.0.0.7:3000");
        let story = Story {
            client: "2001:db8::7".parse().unwrap(),
            is_peer_trusted,
            is_https: true,
            host: "t.example:8443",
            origin: &origin,
        };
        prepare(&mut headers, &story);
        headers
    }

    #[test]
    fn what_connection_names_and_what_is_of_one_hop_stays_here() {
        let headers = prepared(
            &[
                ("connection", "close, X-Secret"),
                ("connection", "x-forwarded-for"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
                ("proxy-authorization", "Basic x"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("cookie", "vid=1"),
                ("authorization", "Bearer y"),
            ],
            false,
        );
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expect = [
            "authorization",
            "cookie",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-origin-host",
            "x-real-ip",
        ];
        assert_eq!(names, expect);
    }

    #[test]
    fn who_the_client_is_is_said_by_us_alone() {
        let forged = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("cf-connecting-ip", "1.1.1.1"),
            ("true-client-ip", "1.1.1.1"),
            ("x-original-url", "/admin"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
        ];
        let headers = prepared(&forged, false);
        assert_eq!(headers["x-forwarded-for"], "2001:db8::7");
        assert_eq!(headers["x-real-ip"], "2001:db8::7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "t.example:8443");
        let expect = "for=\"[2001:db8::7]\";proto=https;host=\"t.example:8443\"";
        assert_eq!(headers["forwarded"], expect);
        assert_eq!(headers["x-origin-host"], "10.0.0.7:3000");
        for gone in ["x_forwarded_for", "x-forwarded-prefix", "cf-connecting-ip", "x-original-url"]
        {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        let kept = prepared(&forged, true);
        assert!(kept.contains_key("cf-connecting-ip") && kept.contains_key("x-forwarded-prefix"));
        assert!(!kept.contains_key("x-original-url"));
        assert_eq!(kept["x-forwarded-for"], "2001:db8::7");
    }

    #[test]
    fn only_a_websocket_is_an_upgrade() {
        let check = |pairs: &[(&'static str, &'static str)], expect: bool| {
            assert_eq!(is_websocket(&map(pairs)), expect, "{pairs:?}");
        };
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], true);
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], false);
        check(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], false);
        check(&[("upgrade", "websocket")], false);
        check(&[("connection", "close"), ("upgrade", "websocket")], false);
    }
}
