//! Where visitors may be sent: the policy of destinations, pure.
//!
//! A destination is read once, as browsers read it, and what is sent on is what was read, never the
//! text that came: no spelling can mean one host here and another in a browser. Hosts are judged by
//! their name or their literal address; names are not resolved, because it is the visitor's browser
//! that goes there, not this server.

use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use thiserror::Error;
use url::{Host, Url};

use crate::config::LinksConfig;

/// Bytes of a destination; browsers send and bookmarks keep no longer ones.
const TARGET_BYTES_MAX: usize = 4096;

/// Why a visitor is not sent somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refused {
    /// No destination was named.
    #[error("is missing")]
    Missing,
    /// Not an address that every browser reads alike.
    #[error("is no address like \"https://example.com/\"")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("is neither http nor https")]
    Scheme,
    /// Holds a user name, which is there to deceive.
    #[error("holds credentials")]
    Credentials,
    /// The host is not among those that may be led to, and no signature says so.
    #[error("leads to a host that is not configured, and is not signed")]
    Host,
    /// The signature is not this installation's.
    #[error("has a signature that is not this installation's")]
    Signature,
    /// A loopback, private or link-local host.
    #[error("leads to a loopback, private or link-local host")]
    Private,
    /// Comes back to this server.
    #[error("leads back to this server (self-referential)")]
    Own,
}

impl Refused {
    /// Every reason, for metrics that must exist from the start.
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::Malformed,
        Self::Scheme,
        Self::Credentials,
        Self::Host,
        Self::Signature,
        Self::Private,
        Self::Own,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Scheme => "scheme",
            Self::Credentials => "credentials",
            Self::Host => "host",
            Self::Signature => "signature",
            Self::Private => "private",
            Self::Own => "own",
        }
    }
}

/// Where a short link leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Where the visitor is sent.
    pub url: Url,
    /// The fields of a tracked destination (`/tr/vN/rdr/?url=…&…`), which is followed here in one
    /// step; `None` for a plain one.
    pub tracked: Option<Map<String, Value>>,
}

/// Which destinations are allowed.
#[derive(Debug, Clone)]
pub struct Policy {
    hosts: Vec<String>,
    domains: Vec<String>,
    allows_private: bool,
    /// `/tr/vN/`.
    native: String,
}

impl Policy {
    /// What `config` allows.
    pub fn new(config: &LinksConfig, api_version: u32) -> Self {
        let fold = |hosts: &[String]| -> Vec<String> {
            hosts.iter().map(|host| host.trim().to_lowercase()).filter(|h| !h.is_empty()).collect()
        };
        Self {
            hosts: fold(&config.redirect_hosts),
            domains: fold(&config.domains),
            allows_private: config.private_targets,
            native: format!("/tr/v{api_version}/"),
        }
    }

    /// The destination of `rdr` and `xrdr`: `text` leads to a configured host, or its maker signed it.
    ///
    /// # Errors
    /// Why not.
    pub fn redirect(&self, text: &str, is_signed: bool) -> Result<Url, Refused> {
        let url = read(text)?;
        if self.is_configured(&url) {
            return Ok(url);
        }
        if !is_signed {
            return Err(Refused::Host);
        }
        self.public(&url)?;
        Ok(url)
    }

    /// Whether `url` is on a host that may be led to without a signature.
    pub fn is_configured(&self, url: &Url) -> bool {
        is_among(&self.hosts, url)
    }

    /// Whether `url` is on a host of this site.
    pub fn is_own(&self, url: &Url) -> bool {
        is_among(&self.domains, url)
    }

    /// The destination of a short link of `host_from`: a public host that is not ours, or the
    /// tracked form of one.
    ///
    /// # Errors
    /// Why not.
    pub fn link(&self, text: &str, host_from: &str) -> Result<Target, Refused> {
        let url = read(text)?;
        if !self.is_tracked(&url) {
            self.public(&url)?;
            if self.is_own(&url) || url.host_str().is_some_and(|host| host == host_from) {
                return Err(Refused::Own);
            }
            return Ok(Target { url, tracked: None });
        }
        let mut fields = Map::new();
        for (name, value) in url.query_pairs() {
            let name = name.to_lowercase();
            fields.entry(name).or_insert_with(|| Value::String(value.into_owned()));
        }
        fields.shift_remove("sig");
        let inner = fields.shift_remove("url").unwrap_or_default();
        let inner = read(inner.as_str().ok_or(Refused::Missing)?)?;
        self.public(&inner)?;
        if self.is_tracked(&inner) || inner.host_str().is_some_and(|host| host == host_from) {
            return Err(Refused::Own);
        }
        Ok(Target { url: inner, tracked: Some(fields) })
    }

    /// Whether `url` is a redirect of a tracker.
    fn is_tracked(&self, url: &Url) -> bool {
        let path = url.path().strip_prefix(self.native.as_str());
        path.is_some_and(|rest| {
            ["rdr", "xrdr"].iter().any(|route| {
                rest.strip_prefix(route)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        })
    }

    fn public(&self, url: &Url) -> Result<(), Refused> {
        if self.allows_private || url.host().is_some_and(|host| is_public(&host)) {
            Ok(())
        } else {
            Err(Refused::Private)
        }
    }
}

/// Reads a destination.
fn read(text: &str) -> Result<Url, Refused> {
    if text.trim().is_empty() {
        return Err(Refused::Missing);
    }
    if text.len() > TARGET_BYTES_MAX
        || text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\')
    {
        return Err(Refused::Malformed);
    }
    let (scheme, rest) = text.split_once(':').ok_or(Refused::Malformed)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        return Err(if is_scheme { Refused::Scheme } else { Refused::Malformed });
    }
    // Two slashes and a name: browsers forgive less and more, each in its way.
    let authority = rest.strip_prefix("//").ok_or(Refused::Malformed)?;
    if authority.starts_with(['/', '?', '#', '@', ':']) {
        return Err(Refused::Malformed);
    }
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let authority = authority.get(..end).unwrap_or_default();
    let decoded = percent_decode_str(authority).decode_utf8_lossy();
    if authority.contains('@') || decoded.contains('@') {
        return Err(Refused::Credentials);
    }
    if authority.contains('%') {
        return Err(Refused::Malformed);
    }
    let url = Url::parse(text).map_err(|_| Refused::Malformed)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::Credentials);
    }
    if url.host().is_none() { Err(Refused::Malformed) } else { Ok(url) }
}

/// Whether one of `hosts` is the host of `url`; `.example.com` is that host and all below it.
fn is_among(hosts: &[String], url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_end_matches('.');
    hosts.iter().any(|allowed| match allowed.strip_prefix('.') {
        None => host == allowed,
        Some(base) => host == base || host.strip_suffix(base).is_some_and(|sub| sub.ends_with('.')),
    })
}

/// Zones that mean something else in every network.
const PRIVATE: [&str; 5] = ["localhost", "local", "internal", "lan", "home.arpa"];

/// Whether anybody on the internet can mean this host.
fn is_public(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => is_public_v4(*ip),
        Host::Ipv6(ip) => is_public_v6(*ip),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let is_below = |zone: &str| {
                name.strip_suffix(zone).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
            };
            // A name without a dot is resolved by the visitor's own network.
            name.contains('.') && !PRIVATE.iter().any(|zone| is_below(zone))
        }
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // Shared address space (RFC 6598), IETF protocols (RFC 6890), benchmarks (RFC 2544).
    let is_special = (a == 100 && (64..128).contains(&b))
        || ip.octets().starts_with(&[192, 0, 0])
        || (a == 198 && (b & 0xfe) == 18);
    !(a == 0
        || a >= 224
        || is_special
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    // Forms that carry an IPv4 address: mapped, compatible, translated (RFC 6052) and 6to4.
    let [.., g, h] = ip.segments();
    let inner = Ipv4Addr::from(u32::from(g) << 16 | u32::from(h));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => is_public_v4(inner),
        [0x2002, a, b, ..] => is_public_v4(Ipv4Addr::from(u32::from(a) << 16 | u32::from(b))),
        [0x2001, 0xdb8, ..] => false,
        // Global unicast is 2000::/3; everything else is local, multicast or not given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &[&str], domains: &[&str]) -> Policy {
        let own = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        let config = LinksConfig {
            redirect_hosts: own(hosts),
            domains: own(domains),
            ..LinksConfig::default()
        };
        Policy::new(&config, 1)
    }

    /// Texts that must not lead to evil.example, nor anywhere but a configured host.
    const EVIL: &[(&str, Refused)] = &[
        ("", Refused::Missing),
        (" ", Refused::Missing),
        ("//evil.example", Refused::Malformed),
        ("///evil.example", Refused::Malformed),
        ("/\\evil.example", Refused::Malformed),
        ("\\\\evil.example", Refused::Malformed),
        ("/path", Refused::Malformed),
        ("evil.example", Refused::Malformed),
        ("https:evil.example", Refused::Malformed),
        ("https:/evil.example", Refused::Malformed),
        ("https:///evil.example", Refused::Malformed),
        ("https:\\\\evil.example", Refused::Malformed),
        ("https://evil.example\\@good.example", Refused::Malformed),
        ("javascript:alert(1)", Refused::Scheme),
        ("JaVaScRiPt:alert(1)", Refused::Scheme),
        ("java\tscript:alert(1)", Refused::Malformed),
        (" javascript:alert(1)", Refused::Malformed),
        ("data:text/html,x", Refused::Scheme),
        ("file:///etc/passwd", Refused::Scheme),
        ("ftp://good.example/", Refused::Scheme),
        ("https://good.example/\r\nSet-Cookie: a=b", Refused::Malformed),
        ("https://good.example/\u{0}", Refused::Malformed),
        ("https://good.example@evil.example/", Refused::Credentials),
        ("https://good.example:x@evil.example/", Refused::Credentials),
        ("https://good.example%40evil.example/", Refused::Credentials),
        ("https://@evil.example/", Refused::Malformed),
        ("https://gооd.example/", Refused::Host),
        ("https://good.example.evil.example/", Refused::Host),
        ("https://evilgood.example/", Refused::Host),
        ("https://evil.example/?good.example", Refused::Host),
        ("https://evil.example/#good.example", Refused::Host),
        ("https%3A%2F%2Fevil.example", Refused::Malformed),
        ("https://%65vil.example/", Refused::Malformed),
        ("https://good.example%2eevil.example/", Refused::Malformed),
        ("https://evil。example/", Refused::Host),
        ("https://127.0.0.1/", Refused::Host),
    ];

    #[test]
    fn nothing_leads_to_a_host_that_is_not_configured() {
        let policy = policy(&["good.example"], &[]);
        for (text, expect) in EVIL {
            assert_eq!(policy.redirect(text, false), Err(*expect), "{text:?}");
        }
        let open = Policy::new(&LinksConfig::default(), 1);
        assert_eq!(open.redirect("https://good.example/", false), Err(Refused::Host));
    }

    #[test]
    fn a_configured_host_is_led_to_in_the_form_that_was_read() {
        let policy = policy(&["good.example", ".wide.example"], &[]);
        for (text, expect) in [
            ("https://good.example", "https://good.example/"),
            ("HTTPS://GOOD.example:8443/Path?Q=A#F", "https://good.example:8443/Path?Q=A#F"),
            ("http://good.example/ü", "http://good.example/%C3%BC"),
            ("https://wide.example/", "https://wide.example/"),
            ("https://a.b.wide.example/", "https://a.b.wide.example/"),
        ] {
            assert_eq!(policy.redirect(text, false).unwrap().as_str(), expect);
        }
        assert_eq!(policy.redirect("https://notwide.example/", false), Err(Refused::Host));
    }

    #[test]
    fn a_signature_opens_any_public_host_and_no_other() {
        let policy = policy(&[], &[]);
        assert!(policy.redirect("https://any.example/", true).is_ok());
        assert_eq!(policy.redirect("https://10.0.0.1/", true), Err(Refused::Private));
        assert_eq!(policy.redirect("javascript:alert(1)", true), Err(Refused::Scheme));
    }

    #[test]
    fn links_lead_to_public_hosts_only() {
        let policy = policy(&[], &["own.example"]);
        for private in [
            "localhost",
            "a.localhost",
            "printer",
            "printer.local",
            "db.internal",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fc00::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::a00:1]",
            "[2002:7f00:1::]",
        ] {
            let outcome = policy.link(&format!("https://{private}/x"), "go.example");
            assert_eq!(outcome, Err(Refused::Private), "{private}");
        }
        for public in ["example.com", "8.8.8.8", "172.32.0.1", "[2606:4700::1]", "local.example"] {
            assert!(policy.link(&format!("https://{public}/x"), "go.example").is_ok(), "{public}");
        }
    }

    #[test]
    fn links_do_not_come_back_to_us() {
        let policy = policy(&["own.example"], &["own.example"]);
        for text in [
            "https://own.example/other",
            "https://OWN.example/other",
            "https://go.example/other",
            "https://go.example/tr/v1/rdr/?url=https://go.example/x",
            "https://own.example/tr/v1/rdr/?url=https%3A%2F%2Fx.example%2Ftr%2Fv1%2Frdr%2F%3Furl%3Dy",
        ] {
            assert_eq!(policy.link(text, "go.example"), Err(Refused::Own), "{text}");
        }
    }

    #[test]
    fn a_tracked_destination_is_followed_in_one_step_with_its_fields() {
        let policy = policy(&[], &["own.example"]);
        let text = "https://own.example/tr/v1/rdr/?URL=https://Example.com/Land?a=1\
                    &utm_source=News&url=https://second.example/&Sink=Buy&sig=00";
        let target = policy.link(text, "go.example").unwrap();
        assert_eq!(target.url.as_str(), "https://example.com/Land?a=1");
        let fields = target.tracked.unwrap();
        assert_eq!(Value::Object(fields), serde_json::json!({"utm_source": "News", "sink": "Buy"}));
        let inner = |text: &str| {
            let text = format!("https://own.example/tr/v1/rdr/?url={text}");
            policy.link(&text, "go.example")
        };
        assert_eq!(inner("https://10.0.0.1/"), Err(Refused::Private));
        assert_eq!(inner("javascript:alert(1)"), Err(Refused::Scheme));
        assert_eq!(inner("//evil.example"), Err(Refused::Malformed));
        assert_eq!(inner(""), Err(Refused::Missing));
        assert!(inner("https://own.example/landing").is_ok());
    }
}
