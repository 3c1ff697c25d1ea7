//! Cookies: reading what came, and those the tracker sets: who a visitor is, and what it agreed to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};

use crate::intake::VisitorCookie;

/// 400 days: what browsers allow at most.
const AGE_SECONDS: u32 = 34_560_000;

/// Whether and how the browser returns the cookie when another site embeds us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Plain HTTP.
    Plain,
    /// TLS, and nothing says that another site asks for us.
    Secure,
    /// TLS, and a listed origin of another site asks for us.
    CrossSite,
}

/// Cookies by name; the first of a name wins, as browsers send the most specific first. Quotes
/// around a value are no part of it; pieces without a name are passed over.
pub fn parse<'h>(lines: impl Iterator<Item = &'h HeaderValue>) -> BTreeMap<String, String> {
    let mut cookies = BTreeMap::new();
    for line in lines {
        for piece in String::from_utf8_lossy(line.as_bytes()).split(';') {
            let Some((name, value)) = piece.split_once('=') else { continue };
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() || cookies.contains_key(name) {
                continue;
            }
            let value =
                value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            cookies.insert(name.to_owned(), value.to_owned());
        }
    }
    cookies
}

/// Adds the visitor cookie to an answer, or that of an agreement. The latter pages may read and
/// change, as the shipped scripts do; it comes back with each event and becomes its `cflags`.
pub fn set(headers: &mut HeaderMap, cookie: &VisitorCookie, scope: Scope) {
    let mut text = match cookie.agreed {
        None => format!("vid={}; Path=/; Max-Age={AGE_SECONDS}; HttpOnly", cookie.vid),
        Some(flags) => format!("CookieConsent={flags}; Path=/; Max-Age={AGE_SECONDS}"),
    };
    text.push_str(match scope {
        Scope::Plain => "; SameSite=Lax",
        Scope::Secure => "; SameSite=Lax; Secure",
        Scope::CrossSite => "; SameSite=None; Secure",
    });
    if let Some(domain) = &cookie.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    // A domain that is no header text would come from a host that is none: then no cookie.
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expect: &[(&str, &str)]) {
        let values: Vec<_> = lines.iter().map(|l| HeaderValue::from_str(l).unwrap()).collect();
        let expect: BTreeMap<_, _> =
            expect.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse(values.iter()), expect, "{lines:?}");
    }

    #[test]
    fn odd_cookies_are_read_as_browsers_mean_them() {
        check(&["vid=1; sid=2"], &[("vid", "1"), ("sid", "2")]);
        check(&["vid=1", "sid=2"], &[("vid", "1"), ("sid", "2")]);
        check(&["vid=first; vid=second"], &[("vid", "first")]);
        check(&["a=\"quoted\";b=x=y ;c="], &[("a", "quoted"), ("b", "x=y"), ("c", "")]);
        check(&[";; nameless; =v; a=1;"], &[("a", "1")]);
        check(&[""], &[]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_other_cookies() {
        let line = HeaderValue::from_bytes(b"bad=\xff; vid=1").unwrap();
        assert_eq!(parse([&line].into_iter())["vid"], "1");
    }

    #[test]
    fn the_visitor_cookie_has_the_flags_of_its_transport() {
        let vid = "14fb0860-b4bf-11e9-8971-7b80435315ac";
        let check = |domain: Option<&str>, scope, flags: &str| {
            let mut headers = HeaderMap::new();
            let domain = domain.map(str::to_owned);
            set(
                &mut headers,
                &VisitorCookie { vid: vid.parse().unwrap(), domain, agreed: None },
                scope,
            );
            let expect = format!("vid={vid}; Path=/; Max-Age=34560000; HttpOnly; {flags}");
            assert_eq!(headers[header::SET_COOKIE], expect);
        };
        check(None, Scope::Plain, "SameSite=Lax");
        check(Some("example.com"), Scope::Secure, "SameSite=Lax; Secure; Domain=example.com");
        check(Some("a.co.uk"), Scope::CrossSite, "SameSite=None; Secure; Domain=a.co.uk");
    }
}
