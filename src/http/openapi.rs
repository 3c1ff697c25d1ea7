//! `/openapi.json`: the wire as a document for programs, from `assets/openapi.json`.
//!
//! A test sends every example of it to a running server and compares routes, statuses, headers and
//! bodies; a fuzzer is driven by it.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
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
pub(super) struct Document(Bytes);

impl Document {
    /// With the routes of `api_version`.
    pub(super) fn new(api_version: u32) -> Self {
        Self(TEXT.replace("\"/tr/v1/", &format!("\"/tr/v{api_version}/")).into())
    }

    /// The document, or that it has not changed.
    pub(super) fn answer(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return ApiError::Method("GET, HEAD").into_response();
        }
        let text = self.0.clone();
        let mut response = answer::tagged(request.headers(), "application/json", text);
        let headers = response.headers_mut();
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
        let text = Document::new(7).0;
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("\"/tr/v7/tr/\"") && !text.contains("\"/tr/v1/"));
    }
}
