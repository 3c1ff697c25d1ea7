//! The reverse proxy: requests for servers behind us, passed on as they come and answered as they
//! answer.
//!
//! The tracker's own routes go first. Of the rest, the entry for the request's host goes before one
//! for every host, and the longer path before the shorter. Bodies are streamed both ways and never
//! gathered. Where the connection goes is the configuration's alone: nothing in a request chooses a
//! server. Tracking a request, where that is configured, never waits for the journal.

mod headers;
pub mod path;
mod stream;
mod upstream;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::facts::{self, Caller};
use super::keys::{Need, Presented};
use super::lease::Lease;
use super::state::Shared;
use super::{ApiError, redirect};
use crate::config::ProxyConfig;
use crate::event::Origin;
use crate::intake::{self, Hit, Refusal, RequestFacts};
use crate::telemetry::Metrics;
use crate::tls::ClientTlsError;

pub use upstream::UpstreamHealth;

use stream::{Activity, Download, Noted, Reached, Upload};
use upstream::{Hold, Upstream};

/// What the Go tracker adds to answers below `/api/`.
const STRICT_TRANSPORT: HeaderValue =
    HeaderValue::from_static("max-age=15768000 ; includeSubDomains");
/// The route's name in an event.
const ROUTE: &str = "api";

/// Why the proxy cannot start.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The address of a server is none.
    #[error("the address of the server {0} cannot be used")]
    Origin(String),
    /// Its TLS settings cannot be used.
    #[error("preparing TLS for the server {name}")]
    Tls {
        /// Which server.
        name: String,
        /// Why.
        source: ClientTlsError,
    },
    /// Its filter does not compile.
    #[error("the filter of the server {name}")]
    Filter {
        /// Which server.
        name: String,
        /// Why.
        source: regex::Error,
    },
}

/// The servers behind us.
pub struct Proxies {
    /// In the order in which they are asked for.
    upstreams: Vec<Arc<Upstream>>,
    /// Tunnels, which end when the server stops.
    tunnels: TaskTracker,
    stop: CancellationToken,
}

/// Put into a response that came through the proxy, for what stands around every route.
#[derive(Clone)]
pub(super) struct Passed {
    /// The entry's name, as the label of its requests.
    pub(super) label: Arc<str>,
    /// CORS is the affair of the server behind.
    pub(super) leaves_cors: bool,
}

impl Proxies {
    /// Prepares the clients; connects to nothing yet.
    ///
    /// # Errors
    /// When an address, a filter or a certificate cannot be used.
    pub fn open(configs: &[ProxyConfig], metrics: &Arc<Metrics>) -> Result<Arc<Self>, ProxyError> {
        let upstreams = configs.iter().map(|config| Upstream::open(config, metrics).map(Arc::new));
        let mut upstreams = upstreams.collect::<Result<Vec<_>, _>>()?;
        upstreams.sort_by_key(|upstream| {
            (upstream.config.host.is_none(), usize::MAX - upstream.config.path.len())
        });
        Ok(Arc::new(Self {
            upstreams,
            tunnels: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// How the servers are.
    pub fn health(&self) -> Vec<UpstreamHealth> {
        self.upstreams.iter().map(|upstream| upstream.health()).collect()
    }

    /// The server that `path` at `host` belongs to.
    fn find(&self, host: &str, path: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| {
            let prefix = upstream.config.path.as_str();
            let is_below = path.starts_with(prefix) || prefix.strip_suffix('/') == Some(path);
            is_below && upstream.config.host.as_ref().is_none_or(|wanted| wanted == host)
        })
    }

    /// Whether a server behind answers there, so that nothing of ours can.
    pub(super) fn takes(&self, host: &str, path: &str) -> bool {
        self.find(host, path).is_some()
    }

    /// Whether an `OPTIONS` for this is for the server behind.
    pub(super) fn leaves_cors(&self, host: &str, path: &str) -> bool {
        let path = path::clean(path);
        let upstream = path.as_ref().and_then(|path| self.find(host, path));
        upstream.is_some_and(|upstream| upstream.config.leaves_cors)
    }

    /// Asks health paths until `stop`.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let probes = TaskTracker::new();
        for upstream in &self.upstreams {
            let (upstream, stop) = (Arc::clone(upstream), stop.clone());
            probes.spawn(async move { stop.run_until_cancelled(upstream.probe()).await });
        }
        probes.close();
        stop.cancelled().await;
        probes.wait().await;
    }

    /// Ends the tunnels, which would not end by themselves.
    pub(super) async fn close(&self, time_max: Duration) {
        self.stop.cancel();
        self.tunnels.close();
        let _: Result<(), _> = tokio::time::timeout(time_max, self.tunnels.wait()).await;
    }
}

/// A path that is no route of ours: a server's behind us, or nothing.
pub(super) async fn or_not_found(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path();
    let Some(target) = path::clean(path).map(Cow::into_owned) else {
        let message = "the path leads out of what is served here".to_owned();
        return ApiError::Malformed { field: None, message }.into_response();
    };
    let (parts, body) = request.into_parts();
    let host = facts::host(&shared, &parts, Caller::of(&parts));
    let Some(upstream) = shared.app.proxies.find(&host, &target).cloned() else {
        return redirect::visit(&shared, &parts).await;
    };
    let passing = Passing { shared: &shared, upstream: &upstream, target };
    let outcome = passing.on(parts, body).await;
    upstream.count(&outcome);
    let mut response = outcome.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(Passed {
        label: upstream.config.name.as_str().into(),
        leaves_cors: upstream.config.leaves_cors,
    });
    response
}

/// One request on its way.
struct Passing<'a> {
    shared: &'a Shared,
    upstream: &'a Arc<Upstream>,
    /// The path, dots followed.
    target: String,
}

impl Passing<'_> {
    async fn on(&self, parts: Parts, body: Body) -> Result<Response, ApiError> {
        if parts.method == Method::TRACE {
            return Err(ApiError::Forbidden("TRACE is not passed on"));
        }
        let config = &self.upstream.config;
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if config.body_bytes_max > 0 && length.is_some_and(|length| length > config.body_bytes_max)
        {
            let message = format!("a body here is at most {} bytes", config.body_bytes_max);
            return Err(ApiError::TooLarge(message));
        }
        let tracked = self.tracked(&parts);
        let hold = self.upstream.hold().await?;
        let is_https = facts::is_https(self.shared, &parts);
        let (request, upgrade, activity, reached) = self.request(parts, body)?;
        let response = self.upstream.ask(request, &activity, &reached).await?;
        if let Some(tracked) = tracked {
            self.track(tracked);
        }
        let mut response = match upgrade {
            Some(upgrade) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.tunnel(upgrade, response, hold)
            }
            // Not asked for, and what follows is no HTTP.
            None if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(ApiError::UpstreamBroke);
            }
            _ => {
                let mut response =
                    response.map(|body| Body::new(Download::new(body, config.idle_time_max, hold)));
                headers::strip(response.headers_mut());
                response
            }
        };
        // What the library learned about its own connection means nothing on ours.
        response.extensions_mut().clear();
        let headers = response.headers_mut();
        if !config.leaves_cors {
            headers::strip_cors(headers);
        }
        if config.strict_transport
            && is_https
            && !headers.contains_key(header::STRICT_TRANSPORT_SECURITY)
        {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
        }
        Ok(response)
    }

    /// Our request to the server behind, and the client's connection if it is to become a tunnel.
    fn request(
        &self,
        mut parts: Parts,
        body: Body,
    ) -> Result<(Request, Option<Near>, Activity, Reached), ApiError> {
        let config = &self.upstream.config;
        let is_websocket =
            parts.version == Version::HTTP_11 && headers::is_websocket(&parts.headers);
        let lease = parts.extensions.remove::<Lease>();
        let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| is_websocket);
        let upgrade = upgrade.map(|client| (client, lease));
        let caller = Caller::of(&parts);
        let host = named_host(&parts)?;
        let is_peer_trusted = self.shared.trusted.contains(caller.peer);
        let seen = parts.headers.get("x-forwarded-host").and_then(|host| host.to_str().ok());
        let seen = seen.filter(|_| is_peer_trusted).filter(|host| is_host(host));
        let seen = seen.unwrap_or(&host).to_owned();
        let story = headers::Story {
            client: self.shared.trusted.client(caller.peer, &parts.headers),
            is_peer_trusted,
            is_https: facts::is_https(self.shared, &parts),
            host: &seen,
            origin: &self.upstream.origin,
        };
        self.strip_keys(&mut parts);
        headers::prepare(&mut parts.headers, &story);
        let own = HeaderValue::from_str(&host).ok();
        let named = own.filter(|_| config.keeps_host && !host.is_empty());
        parts.headers.insert(header::HOST, named.unwrap_or_else(|| self.upstream.origin.clone()));
        if config.forces_json {
            let json = HeaderValue::from_static("application/json");
            parts.headers.insert(header::CONTENT_TYPE, json);
        }
        if upgrade.is_some() {
            headers::mark_websocket(&mut parts.headers);
        }
        let (activity, reached) = (Activity::new(), Reached::default());
        let body = if upgrade.is_some() {
            Body::empty()
        } else {
            Body::new(Upload::new(body, config.body_bytes_max, activity.clone(), reached.clone()))
        };
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = PathAndQuery::try_from(format!("{}{query}", self.target))
            .map_err(|error| ApiError::Malformed { field: None, message: error.to_string() })?;
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = self.upstream.uri(target)?;
        *request.headers_mut() = parts.headers;
        Ok((request, upgrade, activity, reached))
    }

    /// Joins both connections, once both have changed their protocol, until either ends, nothing
    /// moves for too long, or the server stops.
    fn tunnel(
        &self,
        (upgrade, lease): Near,
        mut response: axum::http::Response<Incoming>,
        hold: Hold,
    ) -> Response {
        let behind = hyper::upgrade::on(&mut response);
        let proxies = &self.shared.app.proxies;
        let (stop, quiet_max) = (proxies.stop.clone(), self.upstream.config.idle_time_max);
        proxies.tunnels.spawn(async move {
            let _held = (hold, lease);
            let activity = Activity::new();
            let joined = async {
                let (near, far) = tokio::try_join!(upgrade, behind).ok()?;
                let mut near = Noted::new(TokioIo::new(near), activity.clone());
                let mut far = Noted::new(TokioIo::new(far), activity.clone());
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok()
            };
            stop.run_until_cancelled(activity.watch(quiet_max, joined)).await;
        });
        let mut response = response.map(|_| Body::empty());
        headers::strip(response.headers_mut());
        headers::mark_websocket(response.headers_mut());
        response
    }

    /// Keys of the tracker's own are no business of the server behind. Its tokens look alike and go
    /// on, so each header is tried by itself.
    fn strip_keys(&self, parts: &mut Parts) {
        let taken = headers::KEYS.map(|name| (parts.headers.remove(&name), name));
        for (value, name) in taken {
            let Some(value) = value else { continue };
            let mut alone = HeaderMap::new();
            alone.insert(name.clone(), value.clone());
            let others = std::mem::replace(&mut parts.headers, alone);
            let is_ours = matches!(self.shared.keys.presented(parts), Presented::Key(_));
            parts.headers = others;
            if !is_ours {
                parts.headers.insert(name, value);
            }
        }
    }

    /// What an event of this request is made of, where it is to be tracked.
    fn tracked(&self, parts: &Parts) -> Option<Tracked> {
        let filter = self.upstream.url_filter.as_ref()?;
        if filter.is_match(&self.target) {
            return None;
        }
        let mut facts = facts::read(self.shared, parts, ROUTE);
        let keys = &self.shared.keys;
        let admitted = if matches!(keys.presented(parts), Presented::Wrong) {
            // A token of the server behind, which says nothing here.
            let mut parts = parts.clone();
            for name in headers::KEYS {
                parts.headers.remove(name);
            }
            keys.admit(&parts, &mut facts, Need::Site)
        } else {
            keys.admit(parts, &mut facts, Need::Site)
        };
        if admitted.is_err() {
            self.shared.app.intake.refuse(Refusal::Forbidden);
            return None;
        }
        let facts = Arc::new(facts);
        // The pairs begin behind the first segment, as on every route.
        let rest = parts.uri.path().splitn(3, '/').nth(2).unwrap_or_default();
        let ignore = self.shared.app.reading.ignore_query_key.as_deref();
        let fields = intake::fields(&facts, rest, parts.uri.query(), None, ignore);
        let length = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        Some(Tracked { facts, fields, length })
    }

    /// Hands the event to intake, which counts what becomes of it, and waits for nothing.
    fn track(&self, Tracked { facts, fields, length }: Tracked) {
        let hit = Hit { origin: Origin::Server, facts, fields, length };
        if self.shared.app.intake.accept(hit).is_ok() {
            self.shared.app.metrics.events_unconfirmed.inc();
        }
    }
}

/// The client's connection, and its right to stay open while it is a tunnel.
type Near = (OnUpgrade, Option<Lease>);

struct Tracked {
    facts: Arc<RequestFacts>,
    fields: serde_json::Map<String, serde_json::Value>,
    length: usize,
}

/// The host that a request names, with its port; empty for none.
fn named_host(parts: &Parts) -> Result<String, ApiError> {
    let invalid = |message: &str| ApiError::Malformed { field: None, message: message.to_owned() };
    let mut named = parts.headers.get_all(header::HOST).iter();
    let first = named.next();
    if named.next().is_some() {
        return Err(invalid("more than one Host"));
    }
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            first.map_or(Ok(""), HeaderValue::to_str).map_err(|_| invalid("Host is no host"))?
        }
    };
    if host.is_empty() || is_host(host) {
        return Ok(host.to_owned());
    }
    Err(invalid("Host is no host"))
}

fn is_host(text: &str) -> bool {
    !text.contains(['@', '"', '\\']) && text.parse::<Authority>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(entries: &[(Option<&str>, &str)]) -> Arc<Proxies> {
        let configs: Vec<ProxyConfig> = entries
            .iter()
            .map(|(host, path)| ProxyConfig {
                name: format!("{}{path}", host.unwrap_or("*")),
                host: host.map(str::to_owned),
                ..ProxyConfig::new(path, "http://127.0.0.1:1")
            })
            .collect();
        Proxies::open(&configs, &Arc::new(Metrics::new().unwrap())).unwrap()
    }

    #[test]
    fn a_host_goes_before_every_host_and_the_longer_path_before_the_shorter() {
        let proxies = proxies(&[
            (None, "/"),
            (None, "/api/"),
            (Some("shop.example"), "/"),
            (Some("shop.example"), "/api/v2/"),
        ]);
        let check = |host: &str, path: &str, expect: &str| {
            let found = proxies.find(host, path).map(|upstream| upstream.config.name.as_str());
            assert_eq!(found, Some(expect), "{host} {path}");
        };
        check("a.example", "/x", "*/");
        check("a.example", "/api", "*/api/");
        check("a.example", "/apiary", "*/");
        check("a.example", "/api/x", "*/api/");
        check("shop.example", "/api/x", "shop.example/");
        check("shop.example", "/api/v2/x", "shop.example/api/v2/");
        let few = super::tests::proxies(&[(None, "/api/")]);
        assert!(few.find("a.example", "/other").is_none());
        assert!(few.find("a.example", "").is_none());
    }

    #[test]
    fn a_host_with_a_login_or_two_hosts_is_refused() {
        let host = |lines: &[&str]| {
            let mut request = Request::builder().uri("/");
            for line in lines {
                request = request.header("host", *line);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            named_host(&parts).ok()
        };
        assert_eq!(host(&["a.example:8443"]).as_deref(), Some("a.example:8443"));
        assert_eq!(host(&["[::1]:80"]).as_deref(), Some("[::1]:80"));
        assert_eq!(host(&[]).as_deref(), Some(""));
        for bad in
            [&["a.example", "b.example"][..], &["x@b.example"], &["a/b"], &["a b"], &["a\"b"]]
        {
            assert_eq!(host(bad), None, "{bad:?}");
        }
    }
}
