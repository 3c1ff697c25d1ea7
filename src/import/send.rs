//! Sends one event at a time over kept connections, and tries again while the server says "later".

use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Hit, ImportError};
use crate::config::Secret;
use crate::telemetry::chain;

/// Where single events go when the address names no path.
const PATH: &str = "/tr/v1/tr/";
/// Longest wait for one answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest pause that a server's `Retry-After` is given.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// First pause where the server names none; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Attempts before the import ends: minutes, with the pauses between them.
const ATTEMPTS_MAX: u32 = 30;
/// Bytes of an answer that are read for its reason.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    key: Option<HeaderValue>,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    /// Attempts after the first.
    pub(super) retries: u32,
    /// The server's reason where it refused the event for good.
    pub(super) refused: Option<String>,
}

impl Sender {
    pub(super) fn new(
        url: &Uri,
        connections: usize,
        key: Option<&Secret>,
    ) -> Result<Self, ImportError> {
        let wrong = || ImportError::Url(url.clone());
        if url.scheme() != Some(&Scheme::HTTP) {
            return Err(wrong());
        }
        let path = if matches!(url.path(), "" | "/") { PATH } else { url.path() };
        let authority = url.authority().ok_or_else(wrong)?.as_str();
        let uri = format!("http://{authority}{path}").parse().map_err(|_| wrong())?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(connections)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let key = key.map(|key| HeaderValue::from_str(key.reveal())).transpose();
        let mut key = key.map_err(|_| ImportError::Key)?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        Ok(Self { client, uri, key })
    }

    /// Sends until the event is stored or refused.
    ///
    /// # Errors
    /// When it was neither after [`ATTEMPTS_MAX`] attempts.
    pub(super) async fn send(&self, hit: Hit) -> Result<Sent, ImportError> {
        let body = Bytes::from(Value::Object(hit.fields.clone()).to_string());
        let mut pause = PAUSE_FIRST;
        let mut problem = String::new();
        for retries in 0..ATTEMPTS_MAX {
            let Some(request) = self.request(&hit, body.clone()) else {
                let refused = Some("a field of the line cannot travel in a header".to_owned());
                return Ok(Sent { retries, refused });
            };
            let wish = match timeout(ANSWER_WAIT_MAX, self.client.request(request)).await {
                Err(_) => {
                    problem = format!("no answer within {ANSWER_WAIT_MAX:?}");
                    None
                }
                Ok(Err(error)) => {
                    problem = chain(&error);
                    None
                }
                Ok(Ok(answer)) => {
                    let (status, wish) = (answer.status(), retry_after(&answer));
                    let text = read(answer).await;
                    if status.is_success() {
                        return Ok(Sent { retries, refused: None });
                    }
                    problem = format!("{status} {}", text.trim());
                    if !is_later(status) {
                        return Ok(Sent { retries, refused: Some(problem) });
                    }
                    wish
                }
            };
            sleep(wish.unwrap_or(pause).min(PAUSE_MAX)).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        Err(ImportError::Unreachable(format!(
            "{} after {ATTEMPTS_MAX} attempts: {problem}",
            self.uri
        )))
    }

    fn request(&self, hit: &Hit, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, value(&hit.host)?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(agent) = &hit.agent {
            headers.insert(header::USER_AGENT, value(agent)?);
        }
        if let Some(key) = &self.key {
            headers.insert(HeaderName::from_static("x-api-key"), key.clone());
        }
        Some(request)
    }
}

/// The server did not store it, and says that it may later.
fn is_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads the answer to its end, so that the connection can be used again.
async fn read(answer: Response<Incoming>) -> String {
    let body =
        timeout(ANSWER_WAIT_MAX, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect());
    match body.await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    }
}
