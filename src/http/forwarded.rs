//! The client's address behind proxies: the nearest hop that is not one of ours.
//!
//! Anyone can send a forwarding header, so none is read unless the peer itself is trusted. Then, in
//! this order, the first source that is present decides:
//!
//! 1. `CF-Connecting-IP`, only when the peer is an edge of Cloudflare and that preset is on: the
//!    edge always overwrites it.
//! 2. `X-Forwarded-For`, from right to left. It stands before `Forwarded` because nearly every proxy
//!    appends to it, while many pass a client's own `Forwarded` on untouched.
//! 3. `Forwarded` (RFC 7239), from right to left.
//! 4. `X-Real-IP`.
//! 5. The peer.
//!
//! Walking right to left, each hop was written by the hop before it. The walk goes on while that
//! writer is trusted and stops at the first address that is not, or at `unknown`, an obfuscated name
//! or text that is no address; the last address reached is the client's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::TrustedProxy;

/// Hops looked at; a longer chain is cut at the far end, which only its sender wrote.
const HOPS_MAX: usize = 32;

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

const PRIVATE: [&str; 6] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"];

/// As published by Cloudflare (cloudflare.com/ips).
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");

/// The peers whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    networks: Vec<IpNet>,
    cloudflare: Vec<IpNet>,
}

impl Trusted {
    /// Presets and networks of the configuration, resolved.
    pub fn new(proxies: &[TrustedProxy]) -> Self {
        let mut trusted = Self::default();
        for proxy in proxies {
            match proxy {
                TrustedProxy::Net(network) => trusted.networks.push(*network),
                TrustedProxy::Loopback => trusted.networks.extend(parse(&LOOPBACK)),
                TrustedProxy::Private => trusted.networks.extend(parse(&PRIVATE)),
                TrustedProxy::Cloudflare => trusted.cloudflare = parse(&CLOUDFLARE).collect(),
            }
        }
        trusted
    }

    /// Whether `ip` may speak for others.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        holds(&self.networks, ip) || holds(&self.cloudflare, ip)
    }

    /// The address of the client behind `peer`, in canonical form: a v4 address never appears as
    /// v4-mapped v6.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        if holds(&self.cloudflare, peer)
            && let Some(client) = single(headers, &CF_CONNECTING_IP)
        {
            return client;
        }
        if headers.contains_key(&X_FORWARDED_FOR) {
            let lines = headers.get_all(&X_FORWARDED_FOR).iter().rev();
            let hops = lines.flat_map(|line| text(line.as_bytes()).rsplit(',')).map(node);
            return self.nearest_stranger(peer, hops);
        }
        if headers.contains_key(header::FORWARDED) {
            let lines = headers.get_all(header::FORWARDED).iter().rev();
            let hops =
                lines.flat_map(|line| forwarded_for(text(line.as_bytes())).into_iter().rev());
            return self.nearest_stranger(peer, hops);
        }
        single(headers, &X_REAL_IP).unwrap_or(peer)
    }

    /// `hops` come nearest first; `None` is a hop without an address.
    fn nearest_stranger(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for hop in hops.take(HOPS_MAX) {
            if !self.contains(nearest) {
                break;
            }
            match hop {
                Some(ip) => nearest = ip,
                None => break,
            }
        }
        nearest
    }
}

/// Peers that name clients without being believed, so that an operator learns of a proxy that is
/// missing in `TrustedProxies`.
#[derive(Debug, Default)]
pub struct Disbelieved(Mutex<BTreeMap<IpAddr, u64>>);

/// Peers that are told apart; anybody may send such headers, so there is a bound.
const PEERS_MAX: usize = 32;

impl Disbelieved {
    /// Counts a request of `peer` if it names a client and `trusted` does not believe it.
    pub(super) fn note(&self, trusted: &Trusted, peer: IpAddr, headers: &HeaderMap) {
        let claims = [X_FORWARDED_FOR, header::FORWARDED, X_REAL_IP, CF_CONNECTING_IP];
        if !claims.iter().any(|name| headers.contains_key(name)) || trusted.contains(peer) {
            return;
        }
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = peers.len() < PEERS_MAX;
        match peers.entry(peer.to_canonical()) {
            Entry::Occupied(mut seen) => *seen.get_mut() += 1,
            Entry::Vacant(new) if has_room => drop(new.insert(1)),
            Entry::Vacant(_) => {}
        }
    }

    /// Each with its number of requests.
    pub(super) fn seen(&self) -> Value {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(peer, requests)| json!({"peer": peer, "requests": requests})).collect()
    }
}

/// The `for` of each element of a `Forwarded` line, in the order written; `None` where an element
/// names no address.
pub fn forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    unquoted(line, ',')
        .map(|element| {
            unquoted(element, ';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| node(value))
            })?
        })
        .collect()
}

/// The address in a node: with or without quotes, brackets, port and zone.
pub fn node(value: &str) -> Option<IpAddr> {
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.trim(),
        None => value,
    };
    let address = if let Some(bracketed) = value.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        if !(port.is_empty() || is_port(port.strip_prefix(':')?)) {
            return None;
        }
        without_zone(address).parse::<std::net::Ipv6Addr>().ok()?.into()
    } else if let Some((address, port)) = value.split_once(':').filter(|_| value.contains('.'))
        && !port.contains(':')
    {
        if !is_port(port) {
            return None;
        }
        address.parse().ok()?
    } else {
        without_zone(value).parse::<IpAddr>().ok()?
    };
    Some(address.to_canonical())
}

fn without_zone(address: &str) -> &str {
    address.split_once('%').map_or(address, |(address, _)| address)
}

/// A number or an obfuscated port (`_name`).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => !name.is_empty(),
        None => port.parse::<u16>().is_ok(),
    }
}

/// The pieces between separators that stand outside quotes.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
}

fn single(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    node(text(headers.get(name)?.as_bytes()))
}

/// A value that is no UTF-8 names no address.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn holds(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

fn parse(networks: &[&str]) -> impl Iterator<Item = IpNet> {
    networks.iter().filter_map(|network| network.parse().ok())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// Trusts loopback, 10.0.0.0/8 and the like, and Cloudflare.
    fn check(peer: &str, headers: &[(&'static str, &str)], expect: &str) {
        let trusted = Trusted::new(&[
            TrustedProxy::Loopback,
            TrustedProxy::Private,
            TrustedProxy::Cloudflare,
            TrustedProxy::Net("2001:db8:aaaa::/48".parse().unwrap()),
        ]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let client = trusted.client(peer.parse().unwrap(), &map);
        assert_eq!(client, expect.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
    }

    #[test]
    fn a_stranger_speaks_only_for_itself() {
        for name in ["x-forwarded-for", "x-real-ip", "cf-connecting-ip"] {
            check("203.0.113.9", &[(name, "198.51.100.7")], "203.0.113.9");
        }
        check("203.0.113.9", &[("forwarded", "for=198.51.100.7")], "203.0.113.9");
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        let trusted = Trusted::new(&[]);
        let mut map = HeaderMap::new();
        map.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(trusted.client(loopback, &map), loopback);
    }

    #[test]
    fn a_chain_is_walked_from_right_to_left_to_the_first_stranger() {
        let xff = "x-forwarded-for";
        check("127.0.0.1", &[(xff, "198.51.100.7")], "198.51.100.7");
        check("10.0.0.1", &[(xff, "1.1.1.1, 198.51.100.7, 10.0.0.2")], "198.51.100.7");
        check("10.0.0.1", &[(xff, "1.1.1.1"), (xff, "198.51.100.7,10.0.0.2")], "198.51.100.7");
        check("10.0.0.1", &[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check("10.0.0.1", &[(xff, "198.51.100.7:4711")], "198.51.100.7");
        check("10.0.0.1", &[(xff, "[2001:db8::7]:4711")], "2001:db8::7");
        check("::1", &[(xff, "2001:db8::7")], "2001:db8::7");
        check("2001:db8:aaaa::1", &[(xff, "fe80::1%eth0")], "fe80::1");
    }

    #[test]
    fn a_hop_without_an_address_ends_the_walk_at_the_hop_that_named_it() {
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, garbage")], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, garbage, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1");
        check("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=unknown")], "10.0.0.1");
        check("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden, for=10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("forwarded", "for=1.1.1.1, by=10.9.9.9")], "10.0.0.1");
        check("10.0.0.1", &[("forwarded", "for=\"1.1.1.1")], "10.0.0.1");
    }

    #[test]
    fn forwarded_takes_quotes_ports_brackets_and_any_case() {
        let check = |value: &str, expect: &str| check("10.0.0.1", &[("forwarded", value)], expect);
        check("for=198.51.100.7", "198.51.100.7");
        check("For=\"198.51.100.7:47011\"", "198.51.100.7");
        check("proto=https;FOR=\"[2001:db8:cafe::17]:4711\";by=10.0.0.1", "2001:db8:cafe::17");
        check("for=\"[2001:db8::17]\"", "2001:db8::17");
        check("for=1.1.1.1, for=198.51.100.7;host=\"a,b;c\", for=10.0.0.2", "198.51.100.7");
        check("for=\"198.51.100.7:_obf\"", "198.51.100.7");
        check("for=198.51.100.7;ext=\"a\\\"b,c\"", "198.51.100.7");
    }

    #[test]
    fn precedence_is_cloudflare_then_x_forwarded_for_then_forwarded_then_x_real_ip() {
        let all = [
            ("cf-connecting-ip", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.2"),
            ("forwarded", "for=198.51.100.3"),
            ("x-real-ip", "198.51.100.4"),
        ];
        check("173.245.48.5", &all, "198.51.100.1");
        check("10.0.0.1", &all, "198.51.100.2");
        check("10.0.0.1", &all[2..], "198.51.100.3");
        check("10.0.0.1", &all[3..], "198.51.100.4");
        check("10.0.0.1", &all[..1], "10.0.0.1");
        check("10.0.0.1", &[("x-real-ip", "nonsense")], "10.0.0.1");
    }

    #[test]
    fn a_mapped_v4_address_is_a_v4_address() {
        check("::ffff:203.0.113.9", &[], "203.0.113.9");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.7")], "198.51.100.7");
    }

    #[test]
    fn every_published_network_is_readable() {
        assert_eq!(parse(&CLOUDFLARE).count(), CLOUDFLARE.len());
        assert_eq!(parse(&PRIVATE).count(), PRIVATE.len());
    }
}
