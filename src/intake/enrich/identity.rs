//! Who: the visitor and session ids, hashes of personal values, and the cookie that remembers.

use super::super::build::Said;
use super::super::keys::{Keys, Purpose};
use crate::event::{Event, SessionId, VisitorId};

/// Fills visitor, session and hashes. A visitor that was neither sent nor known by cookie is the
/// one already `greeted`, or made here; the first session of a new visitor has the visitor's id. A missing session of a known
/// visitor stays absent: sessions are derived from events.
pub(in super::super) fn apply(
    event: &mut Event,
    said: &Said,
    greeted: Option<VisitorId>,
    keys: &Keys,
) {
    let who = &mut event.who;
    if who.vid.is_none() {
        let vid = greeted.unwrap_or_else(VisitorId::generate);
        who.vid = Some(vid);
        who.is_new = true;
        who.sid = who.sid.or(Some(SessionId::from(vid.uuid())));
    }
    for (hash, plain, purpose) in [
        (&mut who.ehash, &said.email, Purpose::Email),
        (&mut who.chash, &said.cell, Purpose::Cell),
        (&mut who.nhash, &said.uname, Purpose::UserName),
    ] {
        // An address sent as its own hash is hashed like one sent by its name.
        let sent = hash.take_if(|sent| super::privacy::is_email(sent));
        let plain = plain.as_deref().or(sent.as_deref()).map(|text| text.trim().to_lowercase());
        if let Some(plain) = plain.filter(|text| hash.is_none() && !text.is_empty()) {
            *hash = Some(keys.hash(purpose, &plain));
        }
    }
    if !event.host.is_empty() {
        event.hhash = keys.hash(Purpose::Host, event.host.trim());
    }
}

/// The widest domain a cookie of `host` may have: its registrable domain by the public suffix list.
/// `None` (a cookie for this host only) for addresses, single labels and public suffixes themselves.
pub fn cookie_domain(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.');
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if is_address || !host.contains('.') || host.split('.').any(str::is_empty) {
        return None;
    }
    psl::domain_str(host).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_the_registrable_domain_and_never_for_a_public_suffix() {
        for (host, expect) in [
            ("example.com", Some("example.com")),
            ("t.example.com", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("a.b.shop.co.uk", Some("shop.co.uk")),
            ("co.uk", None),
            ("joe.github.io", Some("joe.github.io")),
            ("a.joe.github.io", Some("joe.github.io")),
            ("github.io", None),
            ("com", None),
            ("localhost", None),
            ("tracker", None),
            ("127.0.0.1", None),
            ("[::1]", None),
            ("::1", None),
            ("", None),
            ("a..b", None),
            ("metrics.corp.internal", Some("corp.internal")),
        ] {
            assert_eq!(cookie_domain(host).as_deref(), expect, "{host}");
        }
    }
}
