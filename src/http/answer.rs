//! The few forms an ordinary answer takes.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

/// A transparent picture of one pixel, as `GIF89a`.
const PIXEL: &[u8] = include_bytes!("assets/pixel.gif");

/// `value` as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Only maps with keys that are no text fail to serialise, and no answer has such a map.
    let body = serde_json::to_vec(value).unwrap_or_default();
    with_type(status, "application/json", body.into())
}

/// Plain text.
pub(super) fn text(body: impl Into<Bytes>) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", body.into())
}

/// `body` of any type.
pub(super) fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A text of this program, or, for who `asked` with its tag, that it has not changed.
pub(super) fn tagged(asked: &HeaderMap, kind: &'static str, body: Bytes) -> Response {
    let tag = format!("\"{:08x}-{:x}\"", crc32c::crc32c(&body), body.len());
    let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| {
        known.split(',').map(str::trim).any(|known| known == "*" || known.ends_with(&tag))
    });
    let mut response = if is_known {
        with_type(StatusCode::NOT_MODIFIED, kind, Bytes::new())
    } else {
        with_type(StatusCode::OK, kind, body)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Success with nothing to say.
pub(super) fn empty() -> Response {
    Response::new(Body::empty())
}

/// The pixel: never cached, and free to be embedded by pages that isolate themselves.
pub(super) fn pixel(status: StatusCode) -> Response {
    let mut response = with_type(status, "image/gif", Bytes::from_static(PIXEL));
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-cache, must-revalidate, private"),
    );
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_text_is_told_so() {
        let ask = |known: &str| {
            let mut asked = HeaderMap::new();
            asked.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
            tagged(&asked, "text/plain", Bytes::from_static(b"text"))
        };
        let other = ask("\"other\"");
        assert_eq!(other.status(), 200);
        let tag = other.headers()[header::ETAG].to_str().unwrap();
        for known in [tag, &format!("\"other\", W/{tag}"), "*"] {
            assert_eq!(ask(known).status(), 304, "{known}");
        }
    }

    #[test]
    fn the_pixel_is_one_transparent_pixel() {
        assert_eq!(&PIXEL[..6], b"GIF89a");
        assert_eq!(&PIXEL[6..10], &[1, 0, 1, 0], "width and height");
        assert_eq!(
            &PIXEL[19..24],
            &[0x21, 0xf9, 4, 1, 0],
            "control block with the transparency bit"
        );
        assert_eq!(PIXEL.last(), Some(&0x3b));
    }
}
