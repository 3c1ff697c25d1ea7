//! The few forms an ordinary answer takes.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
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
