//! `/openapi.json`: the wire as a document for programs (OpenAPI 3.1), from `assets/openapi.json`.
//!
//! A test sends every example of it to a running server and compares routes, statuses, headers and
//! bodies; a fuzzer is driven by it.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::answer;
use super::error::ApiError;

/// Written for version 1 of the routes.
static TEXT: &str = include_str!("assets/openapi.json");

/// Kept for an hour, then asked for again: the document changes with the program.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// The document of one installation.
#[derive(Clone)]
pub(super) struct Document {
    text: Bytes,
    tag: HeaderValue,
}

impl Document {
    /// With the routes of `api_version`.
    pub(super) fn new(api_version: u32) -> Self {
        let text = TEXT.replace("\"/tr/v1/", &format!("\"/tr/v{api_version}/"));
        let tag = format!("\"{:08x}-{:x}\"", crc32c::crc32c(text.as_bytes()), text.len());
        // Hexadecimal digits between quotes are a header's text.
        let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"0\""));
        Self { text: text.into(), tag }
    }

    /// The document, or that it has not changed.
    pub(super) fn answer(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return ApiError::Method("GET, HEAD").into_response();
        }
        let known = request.headers().get(header::IF_NONE_MATCH);
        let is_known = known.and_then(|known| known.to_str().ok()).is_some_and(|known| {
            let mut tags = known.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
            tags.any(|tag| tag == "*" || tag.as_bytes() == self.tag.as_bytes())
        });
        let mut response = if is_known {
            let mut unchanged = Response::new(Body::empty());
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            unchanged
        } else {
            answer::with_type(StatusCode::OK, "application/json", self.text.clone())
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        headers.insert(header::CACHE_CONTROL, KEPT);
        // Pages of documentation read it wherever they are; it holds nothing of anyone.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_the_routes_of_its_installation() {
        let text = Document::new(7).text;
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("\"/tr/v7/tr/\"") && !text.contains("/tr/v1/"));
    }

    #[test]
    fn who_has_the_document_is_told_so() {
        let document = Document::new(1);
        let status = |known: &str| {
            let request = Request::get("/").header(header::IF_NONE_MATCH, known);
            document.answer(&request.body(Body::empty()).unwrap()).status().as_u16()
        };
        let tag = document.tag.to_str().unwrap();
        assert_eq!([status(tag), status(&format!("\"a\", W/{tag}")), status("*")], [304; 3]);
        assert_eq!(status("\"a\""), 200);
    }
}
