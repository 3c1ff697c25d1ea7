//! The built-in pages: a builder of tracked links, and a list of short links with a form.
//!
//! They are files of this program, use nothing from elsewhere, and may be replaced by files of the
//! same name in the static folder. Their policy allows their own script and style and nothing else.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

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
        let tag = format!("\"{:08x}-{:x}\"", crc32c::crc32c(self.text.as_bytes()), self.text.len());
        let is_known = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|known| {
            let known = known.to_str().unwrap_or_default();
            known.split(',').map(str::trim).any(|known| known == "*" || known.ends_with(&tag))
        });
        let body = match (is_known, &parts.method) {
            (false, &Method::GET) => Body::from(Bytes::from_static(self.text.as_bytes())),
            _ => Body::empty(),
        };
        let mut response = Response::new(body);
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}
