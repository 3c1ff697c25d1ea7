//! Where: addresses reduced to scheme, host and path, after what their query says was read.
//!
//! Addresses are parsed as browsers do (WHATWG), so no text inside a query can pose as the address.
//! Credentials, query and fragment never get further than this file's [`Address`]; a path segment
//! that is an e-mail address is blanked. Case is kept. Addresses that carry their content in
//! themselves (`data:`, `javascript:`, `mailto:`, `blob:`) are no place and are left out.

use percent_encoding::percent_decode_str;
use regex::Regex;
use url::{Position, Url};

use super::super::build::Said;
use super::super::fields::cut;
use super::super::{IntakeError, RequestFacts};
use crate::event::Event;

/// Bytes of an address that are looked at; browsers send no longer ones.
const ADDRESS_BYTES_MAX: usize = 16 << 10;
/// Routes on which the address of the request itself says nothing about a page.
const OWN_ROUTES: [&str; 8] = ["tr", "str", "img", "ws", "pub", "rdr", "xrdr", "ltv"];

/// An address taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    /// Scheme, host and path: what is stored.
    pub clean: String,
    /// Host in lower case; empty when the address names none.
    pub host: String,
    /// The query, for campaign parameters; never stored.
    pub query: String,
}

/// Cleans addresses; with `UrlFilter`, by the operator's expression.
pub(in super::super) struct Cleaner {
    filter: Option<Regex>,
    /// Group of the expression that is kept; 0 = the last.
    group: usize,
    text_bytes_max: usize,
}

/// The addresses of an event, for the classification of its source.
#[derive(Default)]
pub(in super::super) struct Addresses {
    /// The page.
    pub(in super::super) page: Option<Address>,
    /// The page before, or the referrer.
    pub(in super::super) last: Option<Address>,
}

impl Cleaner {
    /// Compiles the filter once.
    ///
    /// # Errors
    /// When it is no regular expression.
    pub(in super::super) fn new(
        filter: Option<&str>,
        group: usize,
        text_bytes_max: usize,
    ) -> Result<Self, regex::Error> {
        let filter = filter.filter(|text| !text.is_empty()).map(Regex::new).transpose()?;
        Ok(Self { filter, group, text_bytes_max })
    }

    /// Fills `url` and `last`, and hands back both with their queries.
    pub(in super::super) fn apply(
        &self,
        event: &mut Event,
        said: &Said,
        facts: &RequestFacts,
    ) -> Addresses {
        let referer = facts.referer.as_deref();
        let is_pixel = is_pixel(facts);
        let own = own_address(facts);
        let page = said.url.as_deref().or(referer.filter(|_| is_pixel)).or(own.as_deref());
        let last = said.last.as_deref().or(referer.filter(|_| !is_pixel));
        let addresses = Addresses {
            page: page.and_then(|text| self.read(text)),
            last: last.and_then(|text| self.read(text)),
        };
        let stored = |address: &Option<Address>| {
            address.as_ref().map(|address| address.clean.clone()).filter(|text| !text.is_empty())
        };
        event.page.url = stored(&addresses.page);
        event.page.last = stored(&addresses.last);
        addresses
    }

    fn read(&self, text: &str) -> Option<Address> {
        let mut address = clean_url(text)?;
        let group = self.filter.as_ref().and_then(|filter| {
            let groups = filter.captures(text)?;
            let group = if self.group == 0 { groups.len() - 1 } else { self.group };
            groups.get(group).map(|found| path_only(found.as_str()).to_owned())
        });
        if let Some(group) = group {
            address.clean = blank_emails(group);
        }
        cut(&mut address.clean, self.text_bytes_max);
        Some(address)
    }
}

/// Takes an address apart; `None` when it is empty or no place. Never fails on any text.
pub fn clean_url(text: &str) -> Option<Address> {
    let text = text.trim();
    if text.is_empty() || text.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let parsed = match text.strip_prefix("//") {
        Some(_) => Url::parse(&format!("https:{text}")),
        None => Url::parse(text),
    };
    match parsed {
        Ok(url) if !url.cannot_be_a_base() => Some(absolute(url)),
        // `localhost:3000/a` parses as a scheme named localhost; a digit after the colon is a port.
        Ok(url) if !url.path().starts_with(|first: char| first.is_ascii_digit()) => None,
        _ => Some(relative(text)),
    }
}

fn absolute(mut url: Url) -> Address {
    if !url.username().is_empty() || url.password().is_some() {
        // Cannot fail: an address with credentials has a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    let clean = url[..Position::AfterPath].to_owned();
    Address {
        clean: blank_emails(clean),
        host: url.host_str().unwrap_or_default().to_ascii_lowercase(),
        query: url.query().unwrap_or_default().to_owned(),
    }
}

/// An address without a scheme: everything before query and fragment, credentials left out.
fn relative(text: &str) -> Address {
    let clean: String =
        path_only(text).chars().filter(|character| !character.is_control()).collect();
    let (authority, path) = clean.split_at(clean.find('/').unwrap_or(clean.len()));
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let query = text.split('#').next().and_then(|text| text.split_once('?')).map_or("", |(_, q)| q);
    let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    Address { clean: blank_emails(format!("{authority}{path}")), host, query: query.to_owned() }
}

fn path_only(text: &str) -> &str {
    text.find(['?', '#']).and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Replaces path segments that are e-mail addresses by `*`.
fn blank_emails(clean: String) -> String {
    if !clean.contains('@') && !clean.contains("%40") {
        return clean;
    }
    let segments = clean.split('/').map(|segment| {
        let plain = percent_decode_str(segment).decode_utf8_lossy();
        if super::privacy::is_email(&plain) { "*" } else { segment }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Whether the page itself could not say where it is, so that the `Referer` is the page: an image,
/// or a beacon (which browsers send without CORS).
fn is_pixel(facts: &RequestFacts) -> bool {
    let hint = |name| facts.hints.get(name).map(String::as_str);
    let is_beacon =
        hint("sec-fetch-mode") == Some("no-cors") && hint("sec-fetch-dest") == Some("empty");
    facts.route == "img" || hint("sec-fetch-dest") == Some("image") || is_beacon
}

/// The address of the request, on routes where that is itself a page or a link.
fn own_address(facts: &RequestFacts) -> Option<String> {
    let is_page = !OWN_ROUTES.contains(&facts.route) && !facts.host.is_empty();
    (is_page && facts.uri.starts_with('/')).then(|| format!("https://{}{}", facts.host, facts.uri))
}

/// The account check of the Go tracker: `acct` must be the hash of host and mixer.
///
/// # Errors
/// [`IntakeError::Invalid`] when it is not.
pub(in super::super) fn check_account(
    said: &Said,
    host: &str,
    mixer: &str,
) -> Result<(), IntakeError> {
    let expect = || super::super::keys::base36(&format!("{host}{mixer}"));
    if mixer.is_empty() || host.is_empty() || said.account.as_deref() == Some(&*expect()) {
        return Ok(());
    }
    Err(IntakeError::Invalid {
        field: "acct".to_owned(),
        message: "is not the account of this host".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_cut_to_scheme_host_and_path_with_its_case() {
        for (text, expect) in [
            ("https://Example.COM/A/b?x=1#y", Some("https://example.com/A/b")),
            ("https://a.com/p?next=https://evil.com/x", Some("https://a.com/p")),
            ("https://a.com/p#https://b.com", Some("https://a.com/p")),
            ("http://localhost:3000/a?b", Some("http://localhost:3000/a")),
            ("https://a.com:443/", Some("https://a.com/")),
            ("https://joe:secret@a.com/x", Some("https://a.com/x")),
            ("https://bücher.de/ü", Some("https://xn--bcher-kva.de/%C3%BC")),
            ("//a.com/x?y", Some("https://a.com/x")),
            ("/only/Path?x=1", Some("/only/Path")),
            ("a.com/x?y#z", Some("a.com/x")),
            ("localhost:3000/a?b", Some("localhost:3000/a")),
            ("joe:secret@a.com/x", None),
            ("android-app://com.google.android.gm/", Some("android-app://com.google.android.gm/")),
            ("app://screen/Home?x", Some("app://screen/Home")),
            ("https://a.com/u/joe@x.com/edit", Some("https://a.com/u/*/edit")),
            ("https://a.com/u/joe%40x.com", Some("https://a.com/u/*")),
            ("https://medium.com/@joe/x", Some("https://medium.com/@joe/x")),
            ("data:text/html,<b>", None),
            ("javascript:alert(1)", None),
            ("mailto:joe@x.com", None),
            ("about:blank", None),
            ("", None),
            ("   ", None),
        ] {
            let clean = clean_url(text).map(|address| address.clean);
            assert_eq!(clean.as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn host_and_query_are_those_of_the_address_itself() {
        let address =
            clean_url("https://Shop.example/x?utm_source=A&u=https://b.com/?q=1#f").unwrap();
        assert_eq!(address.host, "shop.example");
        assert_eq!(address.query, "utm_source=A&u=https://b.com/?q=1");
        assert_eq!(clean_url("/a?b=c#d").unwrap().query, "b=c");
    }

    #[test]
    fn a_filter_keeps_its_group_and_an_address_it_does_not_match_is_cut_as_ever() {
        let sample = r"http(s|)://(api|tr)\.(valid9\.com|localhost)(:[0-9]*|)(/[^\?#]*)(\?|#|)";
        for (filter, group, text, expect) in [
            (sample, 5, "https://tr.valid9.com/a/b?c", "/a/b"),
            (sample, 5, "https://other.com/a/b?c", "https://other.com/a/b"),
            (r"://([^/]+)(/.*)", 0, "https://x.com/a?b", "/a"),
            (r"://([^/]+)(/.*)", 9, "https://x.com/a?b", "https://x.com/a"),
        ] {
            let cleaner = Cleaner::new(Some(filter), group, 100).unwrap();
            assert_eq!(cleaner.read(text).unwrap().clean, expect, "{text}");
        }
        assert!(Cleaner::new(Some("("), 0, 100).is_err());
    }
}
