//! The listener that only sends people on to HTTPS.
//!
//! The target is the configured host and nothing a request says, so that nobody can be led
//! elsewhere. 308 keeps method and body: a POST stays one. The authority's challenges, `/ping` and
//! `/health` are answered here, because those who ask do not follow.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::error::ApiError;
use super::state::Shared;
use super::{answer, layers, ops};

/// Where an authority asks for the answer to its challenge (RFC 8555 §8.3).
pub(super) const CHALLENGES: &str = "/.well-known/acme-challenge/{token}";

/// The routes of the redirecting listener.
pub(super) fn routes(shared: &Arc<Shared>, host: &str) -> Router {
    let host: Arc<str> = host.into();
    let elsewhere = move |request: Request| std::future::ready(send_on(&host, &request));
    Router::new()
        .route(CHALLENGES, any(challenge))
        .route("/ping", any(ops::ping))
        .route("/health", any(ops::health))
        .fallback(elsewhere)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(shared), layers::around))
        .with_state(Arc::clone(shared))
}

/// `/.well-known/acme-challenge/…`: the proof that the authority asked for, while it is asked for.
pub(super) async fn challenge(
    State(shared): State<Arc<Shared>>,
    Path(token): Path<String>,
) -> Response {
    let certificates = shared.app.certificates.as_ref();
    match certificates.and_then(|certificates| certificates.challenge(&token)) {
        Some(proof) => answer::with_type(StatusCode::OK, "application/octet-stream", proof.into()),
        None => ApiError::NotFound.into_response(),
    }
}

fn send_on(host: &str, request: &Request) -> Response {
    let target = request.uri().path_and_query().map(PathAndQuery::as_str);
    let target = target.filter(|target| target.starts_with('/')).unwrap_or("/");
    let mut response = answer::empty();
    match HeaderValue::from_str(&format!("https://{host}{target}")) {
        Ok(location) => {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => ApiError::NotFound.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_target_is_the_configured_host_whatever_is_asked() {
        for (uri, expect) in [
            ("/a?b=c", "https://t.example/a?b=c"),
            ("//evil.example/a", "https://t.example//evil.example/a"),
            ("http://evil.example/a", "https://t.example/a"),
            ("/%0d%0aSet-Cookie:x", "https://t.example/%0d%0aSet-Cookie:x"),
            ("/\\evil", "https://t.example/\\evil"),
            ("*", "https://t.example/"),
        ] {
            let Ok(request) = Request::builder()
                .uri(uri)
                .header("host", "evil.example")
                .header("x-forwarded-host", "evil.example")
                .body(Body::empty())
            else {
                assert_eq!(uri, "/\\evil", "only this one is no address at all");
                continue;
            };
            let response = send_on("t.example", &request);
            assert_eq!(response.status().as_u16(), 308);
            assert_eq!(response.headers()["location"], expect, "{uri}");
        }
    }
}
