//! One server behind us: its connections, their bound, and how it is.
//!
//! Connections are HTTP/1.1, pooled, and as many as requests are permitted. A request that finds the
//! connection it was given already closed is sent again on another; one that was begun never is,
//! because it may have done its work.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use regex::Regex;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::Service;

use super::ProxyError;
use super::stream::{Activity, Progress, Reached};
use crate::config::ProxyConfig;
use crate::http::ApiError;
use crate::telemetry::Metrics;
use crate::telemetry::PROXY_OUTCOMES;

/// Connections that may wait for the next request; more are closed after theirs.
const IDLE_MAX: usize = 32;
/// Below the time after which common servers close an idle connection.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Failures in a row after which a server counts as down; it is asked all the same.
const FAILURES_MAX: u32 = 3;

/// A server behind us.
pub(super) struct Upstream {
    pub(super) config: ProxyConfig,
    /// Tracked is what does not match; nothing is without it.
    pub(super) url_filter: Option<Regex>,
    /// Host and port, as its own `Host` header.
    pub(super) origin: HeaderValue,
    scheme: Scheme,
    authority: Authority,
    client: Client<Bounded, Body>,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    open: IntGauge,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    failures: u32,
    last_error: Option<String>,
}

/// A server behind us as `/health` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamHealth {
    /// By the configuration.
    pub name: String,
    /// `up`, or `down` after three failures in a row.
    pub state: &'static str,
    /// `requests` or `probe`: what the state is known by.
    pub known_by: &'static str,
    /// Requests and tunnels now.
    pub open: i64,
    /// Of the last failure, while it is the last word.
    pub last_error: Option<String>,
}

/// A place among the requests of one server; given back when dropped.
pub(super) struct Hold {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Upstream {
    pub(super) fn open(config: &ProxyConfig, metrics: &Arc<Metrics>) -> Result<Self, ProxyError> {
        let invalid = || ProxyError::Origin(config.name.clone());
        let uri: Uri = config.origin.parse().map_err(|_| invalid())?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(invalid());
        };
        let tls = crate::tls::client(&config.tls)
            .map_err(|source| ProxyError::Tls { name: config.name.clone(), source })?;
        let filter = config.url_filter.as_deref().map(Regex::new).transpose();
        for outcome in PROXY_OUTCOMES {
            metrics.proxy_requests.with_label_values(&[config.name.as_str(), outcome]);
        }
        metrics.proxy_up.with_label_values(&[&config.name]).set(1);
        Ok(Self {
            url_filter: filter
                .map_err(|source| ProxyError::Filter { name: config.name.clone(), source })?,
            origin: HeaderValue::from_str(authority.as_str()).map_err(|_| invalid())?,
            scheme,
            authority,
            client: client(tls, config.connect_time_max),
            permits: Arc::new(Semaphore::new(config.connections_max)),
            state: Mutex::default(),
            open: metrics.proxy_open.with_label_values(&[&config.name]),
            metrics: Arc::clone(metrics),
            config: config.clone(),
        })
    }

    /// The address of `target` at this server.
    pub(super) fn uri(&self, target: PathAndQuery) -> Result<Uri, ApiError> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
            .map_err(|error| ApiError::Malformed { field: None, message: error.to_string() })
    }

    /// A place, waited for as long as a connection would be.
    pub(super) async fn hold(&self) -> Result<Hold, ApiError> {
        let wait = Arc::clone(&self.permits).acquire_owned();
        match timeout(self.config.connect_time_max, wait).await {
            Ok(Ok(permit)) => {
                self.open.inc();
                Ok(Hold { _permit: permit, open: self.open.clone() })
            }
            _ => Err(ApiError::UpstreamBusy),
        }
    }

    /// Sends `request` and waits for the head of its answer.
    pub(super) async fn ask(
        &self,
        request: Request<Body>,
        activity: &Activity,
        reached: &Reached,
    ) -> Result<Response<Incoming>, ApiError> {
        let answered =
            activity.watch(self.config.head_time_max, self.client.request(request)).await;
        match (answered, reached.get()) {
            (Some(Ok(response)), _) => {
                self.note(None);
                Ok(response)
            }
            (_, Progress::TooLarge) => {
                Err(ApiError::TooLarge("the body is larger than it may be here".to_owned()))
            }
            (_, Progress::Broken) => Err(ApiError::Broken),
            (None, Progress::Awaited) => Err(ApiError::Timeout),
            (None, _) => {
                self.note(Some("no answer in time"));
                Err(ApiError::UpstreamTimeout)
            }
            (Some(Err(error)), _) => {
                self.note(Some(&words(&error)));
                Err(fault(&error))
            }
        }
    }

    /// Asks the health path, for ever.
    pub(super) async fn probe(&self) {
        let Some(path) = &self.config.health_path else { return std::future::pending().await };
        loop {
            tokio::time::sleep(self.config.health_interval).await;
            let uri = PathAndQuery::try_from(path.as_str()).map(|path| self.uri(path));
            let Ok(Ok(uri)) = uri else { continue };
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri;
            request.headers_mut().insert(header::HOST, self.origin.clone());
            let (activity, whole) = (Activity::new(), Reached::default());
            if let Ok(response) = self.ask(request, &activity, &whole).await
                && response.status().is_server_error()
            {
                let status = response.status().as_u16();
                self.note(Some(&format!("the health path answered {status}")));
            }
        }
    }

    /// What was seen last: an answer, or why there was none.
    fn note(&self, error: Option<&str>) {
        let (before, now) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = state.failures;
            state.failures = if error.is_some() { before.saturating_add(1) } else { 0 };
            state.last_error = error.map(str::to_owned);
            (before, state.failures)
        };
        let name = self.config.name.as_str();
        if before < FAILURES_MAX && now >= FAILURES_MAX {
            tracing::warn!(upstream = name, error, "server behind the proxy is down");
        } else if before >= FAILURES_MAX && now == 0 {
            tracing::info!(upstream = name, "server behind the proxy answers again");
        }
        let up = i64::from(now < FAILURES_MAX);
        self.metrics.proxy_up.with_label_values(&[name]).set(up);
    }

    /// Counts what became of a request.
    pub(super) fn count<T>(&self, outcome: &Result<T, ApiError>) {
        let label = match outcome {
            Ok(_) => "answered",
            Err(ApiError::UpstreamDown) => "unreachable",
            Err(ApiError::UpstreamBroke) => "broken_off",
            Err(ApiError::UpstreamTimeout) => "timeout",
            Err(ApiError::UpstreamBusy) => "overloaded",
            // The client's own fault.
            Err(_) => "refused",
        };
        self.metrics.proxy_requests.with_label_values(&[self.config.name.as_str(), label]).inc();
    }

    pub(super) fn health(&self) -> UpstreamHealth {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        UpstreamHealth {
            name: self.config.name.clone(),
            state: if state.failures < FAILURES_MAX { "up" } else { "down" },
            known_by: if self.config.health_path.is_some() { "probe" } else { "requests" },
            open: self.open.get(),
            last_error: state.last_error.clone(),
        }
    }
}

fn client(tls: rustls::ClientConfig, connect_time_max: Duration) -> Client<Bounded, Body> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let inner = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME_MAX)
        .pool_max_idle_per_host(IDLE_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .build(Bounded { inner, time_max: connect_time_max })
}

/// What the client did not get, as the answer to ours.
fn fault(error: &Error) -> ApiError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let is_slow = inner
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
        if is_slow {
            return ApiError::UpstreamTimeout;
        }
        cause = inner.source();
    }
    if error.is_connect() { ApiError::UpstreamDown } else { ApiError::UpstreamBroke }
}

/// The innermost cause, which says most.
fn words(error: &Error) -> String {
    let (mut words, mut cause) = (error.to_string(), error.source());
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// A connector that gives up in time, TLS included.
#[derive(Clone)]
struct Bounded {
    inner: HttpsConnector<HttpConnector>,
    time_max: Duration,
}

type Connected =
    Result<MaybeHttpsStream<TokioIo<TcpStream>>, Box<dyn std::error::Error + Send + Sync>>;

impl Service<Uri> for Bounded {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Connected> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connect, time_max) = (self.inner.call(uri), self.time_max);
        Box::pin(async move {
            match timeout(time_max, connect).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
