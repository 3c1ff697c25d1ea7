//! Bodies on their way through, piece by piece, and the clock that sees them move.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

/// When something last moved.
#[derive(Clone)]
pub(super) struct Activity {
    start: Instant,
    moved_ms: Arc<AtomicU64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), moved_ms: Arc::default() }
    }

    fn moved(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(since, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    /// `work` while something moves; `None` when nothing did for `quiet_max`. Cancel-safe if `work`
    /// is.
    pub(super) async fn watch<T>(
        &self,
        quiet_max: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let deadline = self.last() + quiet_max;
            match timeout_at(deadline, work.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) if self.last() + quiet_max > deadline => {}
                Err(_) => return None,
            }
        }
    }
}

/// How far the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Progress {
    /// The server behind is to take more.
    Offered = 0,
    /// The client is to send more.
    Awaited = 1,
    /// All of it was taken.
    Whole = 2,
    /// The client broke off.
    Broken = 3,
    /// It is larger than it may be.
    TooLarge = 4,
}

/// Tells how far an upload is.
#[derive(Clone, Default)]
pub(super) struct Reached(Arc<AtomicU8>);

impl Reached {
    fn set(&self, progress: Progress) {
        self.0.store(progress as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Progress {
        match self.0.load(Ordering::Relaxed) {
            0 => Progress::Offered,
            1 => Progress::Awaited,
            2 => Progress::Whole,
            3 => Progress::Broken,
            _ => Progress::TooLarge,
        }
    }
}

/// The body of a request.
pub(super) struct Upload {
    body: Body,
    /// Bytes that may still come.
    left: u64,
    activity: Activity,
    reached: Reached,
}

impl Upload {
    /// `bytes_max`: 0 means no bound.
    pub(super) fn new(body: Body, bytes_max: u64, activity: Activity, reached: Reached) -> Self {
        if body.is_end_stream() {
            reached.set(Progress::Whole);
        }
        Self { body, left: if bytes_max == 0 { u64::MAX } else { bytes_max }, activity, reached }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        this.reached.set(Progress::Awaited);
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        this.activity.moved();
        this.reached.set(Progress::Offered);
        Poll::Ready(match frame {
            None => {
                this.reached.set(Progress::Whole);
                None
            }
            Some(Err(error)) => {
                this.reached.set(Progress::Broken);
                Some(Err(io::Error::other(error)))
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = this.left.checked_sub(length) else {
                    this.reached.set(Progress::TooLarge);
                    return Poll::Ready(Some(Err(io::Error::other("larger than it may be"))));
                };
                this.left = left;
                if this.body.is_end_stream() {
                    this.reached.set(Progress::Whole);
                }
                Some(Ok(frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; keeps `hold` until it ends.
pub(super) struct Download<H> {
    body: Incoming,
    quiet_max: Duration,
    clock: Option<Pin<Box<Sleep>>>,
    _hold: H,
}

impl<H> Download<H> {
    pub(super) fn new(body: Incoming, quiet_max: Duration, hold: H) -> Self {
        Self { body, quiet_max, clock: None, _hold: hold }
    }
}

impl<H: Unpin> HttpBody for Download<H> {
    type Data = Bytes;
    type Error = io::Error;

    /// The clock runs only while the server behind is waited for: a client may take its time, within
    /// the bounds of its own connection.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.clock = None;
                Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
            }
            Poll::Pending => {
                let quiet_max = this.quiet_max;
                let clock = this
                    .clock
                    .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + quiet_max)));
                ready!(clock.as_mut().poll(cx));
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One end of a tunnel, whose reads are noted.
pub(super) struct Noted<T> {
    io: T,
    activity: Activity,
}

impl<T> Noted<T> {
    pub(super) fn new(io: T, activity: Activity) -> Self {
        Self { io, activity }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        self.activity.moved();
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
