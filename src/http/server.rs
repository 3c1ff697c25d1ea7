//! Listeners, the bound on connections, and a stop that loses no answer.
//!
//! A connection holds a permit until it ends, however it ends and whoever serves it then (`lease.rs`). One that finds none is told so: a few
//! at a time are served by a router that only says 503, and beyond those the connection is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::TlsError;
use super::connection::{Connections, Guest, Protocol, Stop};
use super::error::ApiError;
use super::facts::Caller;
use super::lease::Lease;
use super::proxy::Proxies;
use super::state::{AppState, Shared};
use super::swap::{Reload, Routes};
use super::tls::Certificates;
use super::{tls, to_https};
use crate::config::ServerConfig;
use crate::telemetry::Metrics;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Refused connections that are told so at one time; each costs little and lives briefly.
const REFUSALS_MAX: usize = 64;
/// What telling them may take.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(2);
/// A handshake is a few round trips; who takes longer than this or the configured time is dropped.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be had.
    #[error("listening at {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate.
    #[error("preparing TLS")]
    Tls(#[from] TlsError),
}

/// Bound listeners, ready to serve.
pub struct Server {
    listeners: Vec<Listener>,
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    redirect: Option<SocketAddr>,
    stop_deadline: Duration,
    front: Front,
    certificates: Option<Arc<Certificates>>,
    proxies: Arc<Proxies>,
    reload: Reload,
}

struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Routes,
}

/// What a new connection meets.
#[derive(Clone)]
struct Front {
    refusing: Routes,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    http: Arc<crate::config::HttpConfig>,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Binds the configured addresses; call it inside the runtime that will serve. Connections wait
    /// in the backlog until [`Server::serve`].
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn bind(config: &ServerConfig, state: AppState) -> Result<Self, ServerError> {
        let shared = Arc::new(Shared::new(state.clone()));
        let site = Routes::new(super::routes(&shared));
        let mut listeners = Vec::new();
        let (mut http, mut https, mut redirect, mut sent_on) = (None, None, None, None);
        if let Some(address) = config.listen_http {
            let socket = listen(address)?;
            http = socket.local_addr().ok();
            listeners.push(Listener { socket, tls: None, routes: site.clone() });
        }
        if let (Some(address), Some(certificates)) = (config.listen_https, &state.certificates) {
            let tls = Some(certificates.acceptor()?);
            let socket = listen(address)?;
            https = socket.local_addr().ok();
            listeners.push(Listener { socket, tls, routes: site.clone() });
        }
        if let (Some(address), Some(host)) = (config.listen_redirect, &config.public_host) {
            let socket = listen(address)?;
            redirect = socket.local_addr().ok();
            let routes = Routes::new(to_https::routes(&shared, host));
            sent_on = Some((routes.clone(), host.clone()));
            listeners.push(Listener { socket, tls: None, routes });
        }
        let front = Front {
            permits: Arc::new(Semaphore::new(config.http.connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            http: Arc::new(config.http.clone()),
            metrics: Arc::clone(&state.metrics),
            refusing: Routes::new(
                Router::new().fallback(|| async { ApiError::Connections.into_response() }),
            ),
        };
        let reload = Reload::new(shared, site, sent_on, Arc::clone(&front.permits));
        let stop_deadline = config.stop_deadline;
        let (certificates, proxies) = (state.certificates, state.proxies);
        Ok(Self {
            listeners,
            http,
            https,
            redirect,
            stop_deadline,
            front,
            certificates,
            proxies,
            reload,
        })
    }

    /// Where plain HTTP is served; the real port when 0 was configured.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where TLS is served.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Where people are only sent on to HTTPS.
    pub fn redirect_address(&self) -> Option<SocketAddr> {
        self.redirect
    }

    /// Gives it new settings while it serves.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves until `stop`, then closes the listeners, lets requests in flight finish until the
    /// deadline, and ends. Connections without a request end at once.
    pub async fn serve(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let stop = Stop { asked: stop, deadline: CancellationToken::new() };
        let connections = Connections::new(&self.front.http, &tasks, stop.clone());
        let loops = TaskTracker::new();
        for listener in self.listeners {
            let (front, tasks) = (self.front.clone(), tasks.clone());
            loops.spawn(accept(listener, front, connections.clone(), tasks, stop.clone()));
        }
        if let Some(certificates) = self.certificates {
            loops.spawn(certificates.keep(stop.asked.clone()));
        }
        loops.spawn(Arc::clone(&self.proxies).keep(stop.asked.clone()));
        loops.close();
        loops.wait().await;
        stop.asked.cancelled().await;
        self.proxies.close(self.stop_deadline).await;
        tasks.close();
        if timeout(self.stop_deadline, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests were cut off by the stop deadline");
            stop.deadline.cancel();
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| ServerError::Listen { address, source })
}

/// Accepts until stop. Cancel-safe: an accepted connection is handed on without a wait between.
async fn accept(
    listener: Listener,
    front: Front,
    connections: Connections,
    tasks: TaskTracker,
    stop: Stop,
) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.asked.cancelled() => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                let caller = Caller { peer: peer.ip(), tls: listener.tls.is_some() };
                front.admit(stream, caller, &listener, &connections, &tasks);
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "connections cannot be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer went away before it was accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

impl Front {
    /// Starts serving a connection, or refusing it.
    fn admit(
        &self,
        stream: TcpStream,
        caller: Caller,
        listener: &Listener,
        connections: &Connections,
        tasks: &TaskTracker,
    ) {
        let tls = listener.tls.clone();
        let connections = connections.clone();
        let time_max = self.http.timeout;
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let gauge = self.metrics.connections.clone();
            let lease = Lease::new(permit, tasks.token(), gauge, connections.stop().clone());
            let routes = listener.routes.clone();
            tasks.spawn(async move {
                let guest = Guest { caller, routes, lease: Some(lease) };
                serve(stream, tls, &connections, guest, time_max).await;
            });
            return;
        }
        self.metrics.connections_refused.inc();
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            let routes = self.refusing.clone();
            tasks.spawn(async move {
                let guest = Guest { caller, routes, lease: None };
                let refusing = serve(stream, tls, &connections, guest, time_max);
                let _: Result<(), _> = timeout(REFUSAL_TIME_MAX, refusing).await;
                drop(permit);
            });
        }
    }
}

/// From the first byte to the last. Who says nothing in time is dropped.
async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    connections: &Connections,
    guest: Guest,
    time_max: Duration,
) {
    // Without it a small answer could wait for the acknowledgement of the one before.
    let _: io::Result<()> = stream.set_nodelay(true);
    let opening_max = if tls.is_some() { time_max.min(HANDSHAKE_TIME_MAX) } else { time_max };
    let opening = async {
        if let Some(tls) = tls {
            let stream = tls.accept(stream).await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            return Ok((Wire::Tls(Box::new(stream)), protocol(is_http2)));
        }
        let is_http2 = begins_http2(&stream).await?;
        Ok::<_, io::Error>((Wire::Plain(stream), protocol(is_http2)))
    };
    let opened = tokio::select! {
        opened = timeout(opening_max, opening) => opened,
        () = connections.stopped() => return,
    };
    match opened {
        // The handshake itself was the answer to an authority's challenge.
        Ok(Ok((Wire::Tls(stream), _)))
            if stream.get_ref().1.alpn_protocol() == Some(tls::CHALLENGE_PROTOCOL) => {}
        Ok(Ok((Wire::Plain(stream), protocol))) => {
            connections.serve(stream, protocol, guest).await;
        }
        Ok(Ok((Wire::Tls(stream), protocol))) => {
            connections.serve(stream, protocol, guest).await;
        }
        // The peer speaks no TLS, went away or was too slow: its own affair.
        Ok(Err(error)) => tracing::debug!(%error, "connection ended before a request"),
        Err(_) => tracing::debug!("connection said nothing in time"),
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

fn protocol(is_http2: bool) -> Protocol {
    if is_http2 { Protocol::Http2 } else { Protocol::Http1 }
}

/// Whether a plain connection begins with the preface of HTTP/2, which no HTTP/1 method does.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; 3];
    stream.peek(&mut start).await?;
    Ok(&start == b"PRI")
}
