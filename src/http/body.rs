//! Reading a body within its bounds: bytes as sent, bytes inflated, time, and the memory of all.
//!
//! A body that arrives in one piece is handed on without a copy. A larger one is gathered, and while
//! it is, its bytes count against [`GATHERED_BYTES_MAX`]: thousands of connections that each send
//! a permitted body slowly cannot fill the memory.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::state::Shared;

/// Bytes of all gathered and inflated bodies at one time: 128 of the largest permitted by default,
/// and a quarter of the memory of a small machine.
const GATHERED_BYTES_MAX: usize = 256 << 20;
/// First buffer of a body without a length, and the most that a promised length allocates at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A whole body, inflated, with its share of the memory bound.
pub(super) struct Gathered {
    pub(super) bytes: Bytes,
    /// Freed with the body.
    _share: Share,
}

/// Reads and inflates a body.
///
/// # Errors
/// Above a bound, too slow, broken off, an unknown encoding, or too many bodies at once.
pub(super) async fn read(shared: &Shared, parts: &Parts, body: Body) -> Result<Gathered, ApiError> {
    let http = &shared.app.http;
    let share = Share::of(&shared.bodies);
    let deadline = Instant::now() + http.timeout;
    let bytes = gather(body, http.body_bytes_max, deadline, &share).await?;
    let Some(encoding) = encoding(&parts.headers)? else {
        return Ok(Gathered { bytes, _share: share });
    };
    if bytes.is_empty() {
        return Ok(Gathered { bytes, _share: share });
    }
    let max = http.inflated_bytes_max;
    // The bound is taken before the size is known: a bomb must not find the room first.
    share.take(max)?;
    let bytes = shared.off_worker(move || inflate(encoding, &bytes, max)).await??;
    share.release(max.saturating_sub(bytes.len()));
    Ok(Gathered { bytes, _share: share })
}

async fn gather(
    mut body: Body,
    max: usize,
    deadline: Instant,
    share: &Share,
) -> Result<Bytes, ApiError> {
    let promised = body.size_hint();
    if promised.lower() > max as u64 {
        return Err(too_large(max));
    }
    let capacity = usize::try_from(promised.exact().unwrap_or(0)).unwrap_or(max).min(BUFFER_BYTES);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| ApiError::Timeout)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| ApiError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > max {
            return Err(too_large(max));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            share.take(first.len())?;
            all.reserve(capacity.max(first.len() + data.len()));
            all.extend_from_slice(&first);
            first = Bytes::new();
        }
        share.take(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large(max: usize) -> ApiError {
    ApiError::TooLarge(format!("the body is larger than {max} bytes"))
}

/// How a body may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Also as `x-gzip`; several members one after the other are one body.
    Gzip,
    /// `br`.
    Brotli,
}

fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
    match name.as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
        "br" => Ok(Some(Encoding::Brotli)),
        _ => Err(ApiError::Encoding(name)),
    }
}

/// Inflates at most `max` bytes; blocking.
///
/// # Errors
/// [`ApiError::TooLarge`] when there are more, [`ApiError::Malformed`] when the bytes are damaged.
pub fn inflate(encoding: Encoding, bytes: &[u8], max: usize) -> Result<Bytes, ApiError> {
    let limit = max as u64 + 1;
    let mut inflated = Vec::with_capacity(max.min(bytes.len().saturating_mul(4)));
    let outcome = match encoding {
        Encoding::Gzip => {
            flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut inflated)
        }
        Encoding::Brotli => brotli_decompressor::Decompressor::new(bytes, BROTLI_BUFFER)
            .take(limit)
            .read_to_end(&mut inflated),
    };
    if inflated.len() > max {
        return Err(ApiError::TooLarge(format!("the body inflates to more than {max} bytes")));
    }
    let _: usize = outcome.map_err(|error| undecodable(&error))?;
    Ok(inflated.into())
}

/// Input buffer of the brotli reader.
const BROTLI_BUFFER: usize = 4096;

fn undecodable(error: &io::Error) -> ApiError {
    let message = format!("the compressed body cannot be read: {error}");
    ApiError::Malformed { field: None, message }
}

/// Inflates an LZ4 block behind its inflated length, 4 bytes little-endian (contract §1.6): the form of
/// `compress_prepend_size` in `lz4_flex`. Blocking.
///
/// # Errors
/// [`ApiError::TooLarge`] when it declares more than `max` bytes, before anything is allocated;
/// [`ApiError::Malformed`] when it is no such block or another length comes out.
pub fn inflate_block(bytes: &[u8], max: usize) -> Result<Bytes, ApiError> {
    let malformed = |message: String| ApiError::Malformed { field: None, message };
    let (declared, block) = lz4_flex::block::uncompressed_size(bytes)
        .map_err(|_| malformed("a binary frame begins with the length of what it holds".into()))?;
    if declared > max {
        return Err(ApiError::TooLarge(format!("the frame inflates to more than {max} bytes")));
    }
    let inflated = lz4_flex::block::decompress(block, declared)
        .map_err(|error| malformed(format!("the LZ4 block cannot be read: {error}")))?;
    if inflated.len() != declared {
        let (found, message) = (inflated.len(), "bytes come out of the LZ4 block, declared were");
        return Err(malformed(format!("{found} {message} {declared}")));
    }
    Ok(inflated.into())
}

/// A part of [`GATHERED_BYTES_MAX`], given back when dropped.
pub(super) struct Share {
    taken: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Share {
    /// Nothing yet.
    pub(super) fn of(all: &Arc<AtomicUsize>) -> Self {
        Self { taken: AtomicUsize::new(0), all: Arc::clone(all) }
    }

    /// Counts `bytes` more; they are counted even when they are too many.
    ///
    /// # Errors
    /// [`ApiError::Busy`] above the bound.
    pub(super) fn take(&self, bytes: usize) -> Result<(), ApiError> {
        let before = self.all.fetch_add(bytes, Ordering::Relaxed);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > GATHERED_BYTES_MAX { Err(ApiError::Busy) } else { Ok(()) }
    }

    /// Gives back `bytes`, or what is left of the share.
    pub(super) fn release(&self, bytes: usize) {
        let take = |taken: usize| Some(taken.saturating_sub(bytes));
        let held = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let held = held.unwrap_or_else(|held| held);
        self.all.fetch_sub(held.min(bytes), Ordering::Relaxed);
    }

    /// Bytes of the share.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    /// A body that arrives in these pieces, and then stalls if `None` stands last.
    fn pieces(pieces: &'static [Option<&'static [u8]>]) -> Body {
        Body::new(Pieces(pieces))
    }

    struct Pieces(&'static [Option<&'static [u8]>]);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            let (piece, rest) = match self.0 {
                [Some(piece), rest @ ..] => (Bytes::from_static(piece), rest),
                [None, ..] => return std::task::Poll::Pending,
                [] => return std::task::Poll::Ready(None),
            };
            self.0 = rest;
            std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(piece))))
        }
    }

    async fn gathered(body: Body, max: usize) -> (Result<Bytes, ApiError>, usize) {
        let all = Arc::new(AtomicUsize::new(0));
        let share = Share::of(&all);
        let deadline = Instant::now() + LIMIT;
        let outcome = gather(body, max, deadline, &share).await;
        let held = all.load(Ordering::Relaxed);
        drop(share);
        assert_eq!(all.load(Ordering::Relaxed), 0, "the share is given back");
        (outcome, held)
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order_and_counted_only_when_gathered() {
        let (bytes, held) = gathered(pieces(&[Some(b"whole")]), 5).await;
        assert_eq!((bytes.unwrap(), held), (Bytes::from_static(b"whole"), 0));
        let (bytes, held) = gathered(pieces(&[Some(b"a"), Some(b""), Some(b"bc")]), 5).await;
        assert_eq!((bytes.unwrap(), held), (Bytes::from_static(b"abc"), 3));
        let (bytes, _) = gathered(Body::empty(), 5).await;
        assert!(bytes.unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_byte_over_the_bound_is_refused_whether_promised_or_not() {
        let (outcome, _) = gathered(Body::from("123456"), 5).await;
        assert!(matches!(outcome, Err(ApiError::TooLarge(_))));
        let (outcome, _) = gathered(pieces(&[Some(b"123"), Some(b"456")]), 5).await;
        assert!(matches!(outcome, Err(ApiError::TooLarge(_))));
    }

    #[tokio::test]
    async fn a_stalled_body_ends_at_the_deadline() {
        let started = Instant::now();
        let (outcome, _) = gathered(pieces(&[Some(b"12"), None]), 5).await;
        assert!(matches!(outcome, Err(ApiError::Timeout)));
        assert!(started.elapsed() >= LIMIT);
    }

    #[test]
    fn too_many_bytes_of_all_bodies_are_refused_and_given_back() {
        let all = Arc::new(AtomicUsize::new(GATHERED_BYTES_MAX - 10));
        let share = Share::of(&all);
        share.take(10).unwrap();
        assert!(matches!(share.take(1), Err(ApiError::Busy)));
        drop(share);
        assert_eq!(all.load(Ordering::Relaxed), GATHERED_BYTES_MAX - 10);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_cut_at_the_bound() {
        let bomb = gzip(&vec![b' '; 1 << 20]);
        assert!(bomb.len() < 2048);
        let fits = inflate(Encoding::Gzip, &bomb, 1 << 20).unwrap();
        assert_eq!(fits.len(), 1 << 20);
        let cut = inflate(Encoding::Gzip, &bomb, (1 << 20) - 1);
        assert!(matches!(cut, Err(ApiError::TooLarge(_))));
    }

    #[test]
    fn damaged_compression_is_the_senders_fault() {
        let mut bytes = gzip(b"{}");
        bytes.truncate(bytes.len() - 4);
        for encoding in [Encoding::Gzip, Encoding::Brotli] {
            let outcome = inflate(encoding, &bytes, 100);
            assert!(matches!(outcome, Err(ApiError::Malformed { .. })), "{encoding:?}");
        }
    }

    #[test]
    fn brotli_is_inflated() {
        // Window of 16 bits, one uncompressed block of 13 bytes, then the empty last block.
        let text = br#"{"ename":"b"}"#;
        let bytes = [&[0xc0, 0x00, 0x10], &text[..], &[0x03]].concat();
        assert_eq!(inflate(Encoding::Brotli, &bytes, 100).unwrap().as_ref(), text);
    }
}
