//! The built-in pages: a builder of tracked links, and a list of short links with a form.
//!
//! They are files of this program, use nothing from elsewhere, and may be replaced by files of the
//! same name in the static folder. Their policy allows their own script and style and nothing else.

use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;

use super::answer;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// One file.
pub(super) struct Page {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

static PAGES: [Page; 5] = [
    Page { path: "/track_url.html", kind: HTML, text: include_str!("assets/track_url.html") },
    Page { path: "/track_url.js", kind: SCRIPT, text: include_str!("assets/track_url.js") },
    Page { path: "/shorten_url.html", kind: HTML, text: include_str!("assets/shorten_url.html") },
    Page { path: "/shorten_url.js", kind: SCRIPT, text: include_str!("assets/shorten_url.js") },
    Page { path: "/links.css", kind: STYLE, text: include_str!("assets/links.css") },
];

/// The page of that path below `pub`.
pub(super) fn find(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

impl Page {
    /// The page, or that it has not changed.
    pub(super) fn answer(&self, parts: &Parts) -> Response {
        let text = Bytes::from_static(self.text.as_bytes());
        let mut response = answer::tagged(&parts.headers, self.kind, text);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}
