//! What the transport knows about a request, gathered in one pass over its headers.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::cookie::{self, Scope};
use super::cors::Access;
use super::state::Shared;
use crate::intake::{RequestFacts, Tenant};

/// Bytes of a header kept as text; longer ones are cut. Intake cuts further, by column.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Hosts as proxies pass them on, in order of precedence (contract §2.2).
const FORWARDED_HOSTS: [&str; 3] = ["x-original-host", "x-forwarded-host", "x-host"];

/// Headers the bot classifier looks at.
const HINTS: [&str; 13] = [
    "accept",
    "accept-encoding",
    "sec-fetch-site",
    "sec-fetch-mode",
    "sec-fetch-dest",
    "sec-purpose",
    "purpose",
    "from",
    "x-purpose",
    "x-moz",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
];

/// The connection a request came on; put into its extensions by the server.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The other end.
    pub peer: IpAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl Caller {
    /// The caller of a request; one that came on no connection has no address.
    pub fn of(parts: &Parts) -> Self {
        let nobody = Self { peer: Ipv4Addr::UNSPECIFIED.into(), tls: false };
        parts.extensions.get().copied().unwrap_or(nobody)
    }
}

/// Reads the facts of a request to `route`.
///
/// `trusted` is about the client found behind the proxies, not about the last proxy: a visitor does
/// not become believable by coming through ours.
pub(super) fn read(shared: &Shared, parts: &Parts, route: &'static str) -> RequestFacts {
    let caller = Caller::of(parts);
    shared.app.disbelieved.note(&shared.trusted, caller.peer, &parts.headers);
    let ip = shared.trusted.client(caller.peer, &parts.headers);
    let mut facts = RequestFacts {
        received_at: shared.app.clock.wall(),
        ip,
        trusted: ip.is_loopback() || shared.trusted.contains(ip),
        // Until `Keys::admit` knows more.
        tenant: if shared.keys.is_empty() { Tenant::AsSaid } else { Tenant::Fixed(None) },
        query_has_key: false,
        route,
        method: parts.method.as_str().to_owned(),
        http2: parts.version == Version::HTTP_2,
        host: host(shared, parts, caller),
        uri: parts.uri.path_and_query().map_or_else(String::new, |uri| uri.as_str().to_owned()),
        header_names: Vec::with_capacity(parts.headers.keys_len()),
        user_agent: None,
        language: None,
        referer: None,
        user: None,
        cookies: cookie::parse(parts.headers.get_all(header::COOKIE).iter()),
        greeted: None,
        gpc: false,
        dnt: false,
        hints: std::collections::BTreeMap::new(),
    };
    for name in parts.headers.keys() {
        let Some(value) = parts.headers.get(name) else { continue };
        one_header(&mut facts, name, value);
    }
    facts
}

fn one_header(facts: &mut RequestFacts, name: &HeaderName, value: &HeaderValue) {
    match name.as_str() {
        // As in the Go server, which keeps it apart from the other headers.
        "host" => return,
        "user-agent" => facts.user_agent = Some(text(value)),
        "accept-language" => facts.language = Some(text(value)),
        "referer" => facts.referer = Some(text(value)),
        // Cut JSON would be no JSON: the whole header, which has its own bound.
        "user" => facts.user = Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        "sec-gpc" => facts.gpc = value.as_bytes().trim_ascii() == b"1",
        "dnt" => facts.dnt = value.as_bytes().trim_ascii() == b"1",
        other => {
            if let Some(hint) = HINTS.iter().find(|hint| **hint == other) {
                facts.hints.insert(hint, text(value));
            }
        }
    }
    facts.header_names.push(canonical(name.as_str()));
}

/// The host without port, lower case; a proxy's word counts when the proxy is ours.
pub(super) fn host(shared: &Shared, parts: &Parts, caller: Caller) -> String {
    if shared.trusted.contains(caller.peer) {
        let forwarded = FORWARDED_HOSTS
            .iter()
            .filter_map(|name| parts.headers.get(*name)?.to_str().ok())
            .map(|value| without_port(value.split(',').next().unwrap_or_default()))
            .find(|host| !host.is_empty());
        if let Some(host) = forwarded {
            return host;
        }
    }
    let named = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()),
    };
    named.map_or_else(String::new, without_port)
}

pub(super) fn without_port(host: &str) -> String {
    let host = host.trim();
    let end = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(bracket) => bracket + 2,
        None => host.rfind(':').unwrap_or(host.len()),
    };
    host.get(..end).unwrap_or(host).to_ascii_lowercase()
}

/// Whether the client spoke TLS, with us or with a proxy of ours.
pub(super) fn is_https(shared: &Shared, parts: &Parts) -> bool {
    let caller = Caller::of(parts);
    let says = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"https");
    let forwarded = parts.headers.get("x-forwarded-proto").is_some_and(says);
    caller.tls || forwarded && shared.trusted.contains(caller.peer)
}

/// How the visitor cookie must be marked for this request.
pub(super) fn scope(shared: &Shared, parts: &Parts, host: &str) -> Scope {
    let headers = &parts.headers;
    if !is_https(shared, parts) {
        return Scope::Plain;
    }
    let listed = headers
        .get(header::ORIGIN)
        .filter(|origin| shared.origins.access(origin) == Access::Listed);
    match listed {
        Some(origin) if is_cross_site(headers, origin, host) => Scope::CrossSite,
        _ => Scope::Secure,
    }
}

/// The browser's own word, else a comparison of registrable domains.
fn is_cross_site(headers: &HeaderMap, origin: &HeaderValue, host: &str) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "cross-site";
    }
    let origin = origin.to_str().unwrap_or_default();
    let origin = without_port(origin.split_once("://").map_or(origin, |(_, host)| host));
    match (psl::domain_str(&origin), psl::domain_str(host)) {
        (Some(a), Some(b)) => a != b,
        _ => origin != host,
    }
}

fn text(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes)).into_owned()
}

/// `user-agent` → `User-Agent`, as the Go server names headers.
fn canonical(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let c = if start { c.to_ascii_uppercase() } else { c };
            start = c == '-';
            c
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_and_its_case() {
        for (host, expect) in [
            ("Example.COM:8443", "example.com"),
            ("example.com", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("[broken", "[broken"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(without_port(host), expect, "{host}");
        }
    }

    #[test]
    fn header_names_are_canonical() {
        for (name, expect) in
            [("user-agent", "User-Agent"), ("dnt", "Dnt"), ("x--y", "X--Y"), ("", "")]
        {
            assert_eq!(canonical(name), expect);
        }
    }

    #[test]
    fn another_site_is_another_registrable_domain() {
        let check =
            |fetch: Option<&'static str>, origin: &'static str, host: &str, expect: bool| {
                let mut headers = HeaderMap::new();
                if let Some(fetch) = fetch {
                    headers.insert("sec-fetch-site", HeaderValue::from_static(fetch));
                }
                let found = is_cross_site(&headers, &HeaderValue::from_static(origin), host);
                assert_eq!(found, expect, "{fetch:?} {origin} {host}");
            };
        check(None, "https://app.example.co.uk", "t.example.co.uk", false);
        check(None, "https://one.co.uk", "two.co.uk", true);
        check(None, "https://a.github.io", "b.github.io", true);
        check(None, "http://localhost:3000", "localhost", false);
        check(None, "http://localhost:3000", "127.0.0.1", true);
        check(Some("same-site"), "https://one.example", "two.example", false);
        check(Some("cross-site"), "https://app.example.com", "t.example.com", true);
    }
}
