//! Which pages of other origins may talk to us, in one policy for every route.
//!
//! An origin is compared as a whole: no prefixes, suffixes or patterns, and `null` (sandboxed frames,
//! local files) is never listed. `*` answers everyone, but never with credentials.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};

/// The preflight answer of the Go tracker, with the headers a JSON or compressed post needs.
const ALLOW_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization,Accept,User,Content-Type,Content-Encoding,X-Api-Key");
const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET,POST,HEAD,PUT,DELETE");
const MAX_AGE: HeaderValue = HeaderValue::from_static("1728000");
/// What a page may read of an answer beyond the usual.
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "X-Ack,X-Request-Id,Retry-After,RateLimit-Limit,RateLimit-Remaining,RateLimit-Reset",
);

/// The configured `AllowOrigins`.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    anyone: bool,
    listed: Vec<String>,
}

/// What an origin may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: the browser keeps the answer from the page.
    Denied,
    /// Ask and read, without cookies.
    Anyone,
    /// Ask and read, with cookies.
    Listed,
}

impl Origins {
    /// Reads the list; a trailing `/` and upper case are forgiven, `null` is not.
    pub(super) fn new(origins: &[String]) -> Self {
        let listed = origins
            .iter()
            .map(|origin| origin.trim().trim_end_matches('/').to_ascii_lowercase())
            .filter(|origin| !matches!(origin.as_str(), "*" | "null" | ""))
            .collect();
        Self { anyone: origins.iter().any(|origin| origin.trim() == "*"), listed }
    }

    /// What the sender of `origin` may do.
    pub(super) fn access(&self, origin: &HeaderValue) -> Access {
        if self.listed.iter().any(|listed| listed.as_bytes() == origin.as_bytes()) {
            Access::Listed
        } else if self.anyone {
            Access::Anyone
        } else {
            Access::Denied
        }
    }

    /// Says in `headers` what the sender of `origin` may do with the answer.
    pub(super) fn apply(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if !self.listed.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = origin.filter(|origin| self.access(origin) == Access::Listed) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let credentials = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
        } else if self.anyone {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
    }
}

/// The answer to any `OPTIONS`; [`Origins::apply`] adds for whom.
pub(super) fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expect`: allowed origin, and whether with credentials.
    fn check(allow: &[&str], origin: Option<&str>, expect: Option<(&str, bool)>) {
        let allow: Vec<String> = allow.iter().map(|&origin| origin.to_owned()).collect();
        let mut headers = HeaderMap::new();
        let origin = origin.map(|origin| HeaderValue::from_str(origin).unwrap());
        Origins::new(&allow).apply(origin.as_ref(), &mut headers);
        let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        let credentials = headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        let found = allowed.map(|origin| (origin.to_str().unwrap(), credentials));
        assert_eq!(found, expect, "{allow:?} {origin:?}");
        assert_eq!(headers.contains_key(header::VARY), allow.iter().any(|origin| origin != "*"));
    }

    #[test]
    fn everyone_is_answered_without_credentials() {
        check(&["*"], None, Some(("*", false)));
        check(&["*"], Some("https://any.example"), Some(("*", false)));
        check(&["*"], Some("null"), Some(("*", false)));
    }

    #[test]
    fn a_listed_origin_is_answered_by_name_with_credentials() {
        let list = ["https://site.example/", "http://localhost:3000"];
        check(&list, Some("https://site.example"), Some(("https://site.example", true)));
        check(&list, Some("http://localhost:3000"), Some(("http://localhost:3000", true)));
        check(&list, None, None);
        let mixed = ["*", "https://site.example"];
        check(&mixed, Some("https://site.example"), Some(("https://site.example", true)));
        check(&mixed, Some("https://other.example"), Some(("*", false)));
    }

    #[test]
    fn look_alikes_of_a_listed_origin_are_refused() {
        for origin in [
            "null",
            "https://site.example.evil",
            "https://evil.site.example",
            "https://evilsite.example",
            "http://site.example",
            "https://site.example:444",
            "https://site.example/",
            "site.example",
            "",
        ] {
            check(&["https://site.example"], Some(origin), None);
            check(&["https://site.example", "null"], Some(origin), None);
        }
    }
}
