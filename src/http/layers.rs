//! What stands around every route: a number for the request, preflight, limits, panics, CORS, counting.
//! One layer, because each costs an allocation and an indirect call per request.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::error::ApiError;
use super::facts::{self, Caller};
use super::proxy::Passed;
use super::state::Shared;
use super::{cors, limits};

/// Names a request in its answer, in the log, and to a server behind us.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of one that a proxy of ours has given.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The label of requests that no route takes.
const NO_ROUTE: &str = "none";

/// Runs a request and marks and counts its answer.
pub(super) async fn around(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(&shared, &request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or(NO_ROUTE, |path| label(path.as_str()));
    let origin = request.headers().get(header::ORIGIN).cloned();
    let (request, is_preflight) = sort(&shared, request);
    let mut response = if is_preflight {
        cors::preflight()
    } else if shared.limits.is_on() {
        limited(&shared, route, request, next).await
    } else {
        or_500(route, next.run(request)).await
    };
    let passed = response.extensions_mut().remove::<Passed>();
    let headers = response.headers_mut();
    if passed.is_none() {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    if passed.as_ref().is_none_or(|passed| !passed.leaves_cors) {
        shared.origins.apply(origin.as_ref(), headers);
    }
    let id_text = id.to_str().unwrap_or_default();
    let status = response.status();
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(id = id_text, route, "request failed by our own fault");
    } else {
        let elapsed_us = started.elapsed().as_micros();
        tracing::debug!(id = id_text, route, status = status.as_u16(), elapsed_us, "request");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    let metrics = &shared.app.metrics;
    let route = passed.as_ref().map_or(route, |passed| &passed.label);
    metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    response
}

/// The number that a proxy of ours gave the request, else a new one. A stranger's word is not taken:
/// it would be in the log.
fn request_id(shared: &Shared, request: &Request) -> HeaderValue {
    let peer = request.extensions().get::<Caller>().map(|caller| caller.peer);
    let given = request.headers().get(REQUEST_ID);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match given {
        Some(id)
            if peer.is_some_and(|peer| shared.trusted.contains(peer))
                && (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.as_bytes().iter().all(is_plain) =>
        {
            id.clone()
        }
        _ => {
            let mut text = Uuid::encode_buffer();
            let new = Uuid::now_v7().simple().encode_lower(&mut text);
            HeaderValue::from_str(new).unwrap_or(HeaderValue::from_static("none"))
        }
    }
}

/// Runs a request if its sender may ask for more, and says in the answer how much is left.
async fn limited(shared: &Shared, route: &str, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let allowance = match limits::admit(shared, &parts, route) {
        Ok(allowance) => allowance,
        Err(exceeded) => return limits::refusal(shared, &parts, route, exceeded),
    };
    let request = Request::from_parts(parts, body);
    let mut response = or_500(route, next.run(request)).await;
    if let Some(allowance) = allowance {
        allowance.tell(response.headers_mut());
    }
    response
}

/// The request, and whether it is an `OPTIONS` that no server behind us answers itself.
fn sort(shared: &Shared, request: Request) -> (Request, bool) {
    if request.method() != Method::OPTIONS || request.extensions().get::<MatchedPath>().is_some() {
        let is_options = request.method() == Method::OPTIONS;
        return (request, is_options);
    }
    let (parts, body) = request.into_parts();
    let host = facts::host(shared, &parts, Caller::of(&parts));
    let is_theirs = shared.app.proxies.leaves_cors(&host, parts.uri.path());
    (Request::from_parts(parts, body), !is_theirs)
}

/// A panic costs its own request: it becomes a 500, and the connection goes on.
async fn or_500(route: &str, answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    })
    .await;
    outcome.unwrap_or_else(|| {
        // The panic's own message is the hook's to print; it may hold what a visitor sent.
        tracing::error!(route, "a handler panicked");
        ApiError::Internal.into_response()
    })
}

/// One label for the spellings of a route: with and without a slash or a rest.
fn label(pattern: &str) -> &str {
    let pattern = pattern.split_once("/{").map_or(pattern, |(head, _)| head);
    if pattern.len() > 1 { pattern.trim_end_matches('/') } else { pattern }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_route_share_a_label() {
        for pattern in ["/tr/v1/tr", "/tr/v1/tr/", "/tr/v1/tr/{*rest}"] {
            assert_eq!(label(pattern), "/tr/v1/tr");
        }
        assert_eq!(label("/ping"), "/ping");
        assert_eq!(label("/"), "/");
    }

    #[tokio::test]
    async fn a_panic_is_a_500() {
        let response = or_500("/x", async { panic!("boom") }).await;
        assert_eq!(response.status().as_u16(), 500);
    }
}
