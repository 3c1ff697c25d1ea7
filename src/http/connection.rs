//! One connection: its protocol, its time limits, and its end.
//!
//! - A head must arrive within the limit, counted from the end of the request before it: that is the
//!   idle limit too. HTTP/2 has no such clock, so there the limit is on silence.
//! - A peer that does not take what we send within the limit is dropped.
//! - When the server stops, a request in flight may finish until the deadline; a connection without
//!   one is closed at once.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::facts::Caller;
use super::lease::Lease;
use super::swap::Routes;
use crate::config::HttpConfig;

/// What a stopping connection without a request gets to say goodbye.
const GOODBYE: Duration = Duration::from_millis(100);
/// HTTP/2 requests at one time on one connection.
const STREAMS_MAX: u32 = 128;
/// The least buffer that the HTTP/1 parser takes.
const BUFFER_BYTES_MIN: usize = 8192;

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// How a connection learns that the server stops.
#[derive(Clone)]
pub(super) struct Stop {
    /// No new requests.
    pub(super) asked: CancellationToken,
    /// No more time.
    pub(super) deadline: CancellationToken,
}

/// Who is served on a connection, and by what.
#[derive(Clone)]
pub(super) struct Guest {
    pub(super) caller: Caller,
    pub(super) routes: Routes,
    /// In the extensions of a request that wants another protocol; `None` where there is none.
    pub(super) lease: Option<Lease>,
}

/// What all connections share.
#[derive(Clone)]
pub(super) struct Connections {
    http1: http1::Builder,
    http2: http2::Builder<Tracked>,
    timeout: Duration,
    stop: Stop,
}

impl Connections {
    pub(super) fn new(http: &HttpConfig, tasks: &TaskTracker, stop: Stop) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(http.timeout)
            .max_buf_size(http.header_bytes_max.max(BUFFER_BYTES_MIN))
            .max_header_size(http.header_bytes_max)
            // A client that closes its side after the request still gets the answer. With servers
            // behind us it counts as gone: it must not hold their connections.
            .half_close(http.proxies.is_empty());
        let mut http2 = http2::Builder::new(Tracked(tasks.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(http.header_bytes_max).unwrap_or(u32::MAX));
        Self { http1, http2, timeout: http.timeout, stop }
    }

    /// Serves one connection to its end. Errors are the peer's: it went away, or broke the protocol
    /// and was told so.
    pub(super) async fn serve(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        protocol: Protocol,
        guest: Guest,
    ) {
        let active = Active::default();
        let silence = (protocol == Protocol::Http2).then_some(self.timeout);
        let io = TokioIo::new(Watched::new(io, silence, self.timeout, guest.lease.clone()));
        let service = {
            let active = active.clone();
            service_fn(move |request| answer(guest.clone(), request, active.enter()))
        };
        match protocol {
            Protocol::Http1 => {
                let connection = pin!(self.http1.serve_connection(io, service).with_upgrades());
                self.drive(connection, http1::UpgradeableConnection::graceful_shutdown, &active)
                    .await;
            }
            Protocol::Http2 => {
                let connection = pin!(self.http2.serve_connection(io, service));
                self.drive(connection, http2::Connection::graceful_shutdown, &active).await;
            }
        }
    }

    /// How a connection learns that the server stops.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Resolves when it is too late for a first byte: a request that was already sent when the stop
    /// came is still answered.
    pub(super) async fn stopped(&self) {
        self.stop.asked.cancelled().await;
        sleep(GOODBYE).await;
    }

    /// Cancel-safe throughout: the connection itself is only ever borrowed.
    async fn drive<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        finish: impl FnOnce(Pin<&mut C>),
        active: &Active,
    ) {
        // A token of its own, so that connections do not share a lock at each wake.
        let asked = self.stop.asked.child_token();
        tokio::select! {
            _ = connection.as_mut() => return,
            () = asked.cancelled() => {}
        }
        finish(connection.as_mut());
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(GOODBYE) => {}
        }
        while active.any() {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = self.stop.deadline.cancelled() => return,
                () = sleep(GOODBYE) => {}
            }
        }
    }
}

async fn answer(
    mut guest: Guest,
    request: hyper::Request<Incoming>,
    _entered: Entered,
) -> Result<Response, Infallible> {
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(guest.caller);
    if request.headers().contains_key(header::UPGRADE)
        && let Some(lease) = guest.lease.take()
    {
        request.extensions_mut().insert(lease);
    }
    guest.routes.now().call(request).await
}

/// Requests in flight on one connection.
#[derive(Clone, Default)]
struct Active(Arc<AtomicUsize>);

/// One of them; ends when dropped.
struct Entered(Active);

impl Active {
    fn enter(&self) -> Entered {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs the streams of HTTP/2 connections where stop waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// A connection that fails when the other end is silent or does not take what is sent for too long.
struct Watched<T> {
    io: T,
    reading: Option<Watch>,
    writing: Watch,
    lease: Option<Lease>,
}

impl<T> Watched<T> {
    fn new(io: T, silence: Option<Duration>, stall: Duration, lease: Option<Lease>) -> Self {
        Self { io, reading: silence.map(Watch::new), writing: Watch::new(stall), lease }
    }
}

/// A clock that runs only while something waits; made at the first wait.
struct Watch {
    limit: Duration,
    clock: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Watch {
    fn new(limit: Duration) -> Self {
        Self { limit, clock: None, running: false }
    }

    /// Called while waiting: an error once the limit is over.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let until = Instant::now() + self.limit;
        let clock = self.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.running {
            clock.as_mut().reset(until);
            self.running = true;
        }
        ready!(clock.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// `polled`, with the clock running while it is pending.
    fn guard<R>(
        &mut self,
        polled: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.running = false;
            return polled;
        }
        self.wait(cx).map(Err)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        if let Some(lease) = &this.lease {
            let arrived = buffer.filled().len() - before;
            lease.arrived(arrived).map_err(|_| io::ErrorKind::OutOfMemory)?;
        }
        match &mut this.reading {
            Some(watch) => watch.guard(polled, cx),
            None => polled,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.writing.guard(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        this.writing.guard(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.writing.guard(polled, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        this.writing.guard(polled, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_dropped_at_the_limit() {
        let (near, far) = tokio::io::duplex(8);
        let mut near = Watched::new(near, None, LIMIT, None);
        let started = Instant::now();
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= LIMIT);
        drop(far);
    }

    #[tokio::test]
    async fn silence_counts_from_the_last_byte() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = Watched::new(near, Some(LIMIT), LIMIT, None);
        let started = Instant::now();
        let talk = async {
            sleep(LIMIT / 2).await;
            far.write_all(b"x").await.unwrap();
            std::future::pending::<()>().await;
        };
        let listen = async {
            assert_eq!(near.read_u8().await.unwrap(), b'x');
            near.read_u8().await.unwrap_err().kind()
        };
        tokio::select! {
            () = talk => {}
            kind = listen => assert_eq!(kind, io::ErrorKind::TimedOut),
        }
        assert!(started.elapsed() >= LIMIT + LIMIT / 2);
    }
}
