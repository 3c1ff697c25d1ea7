//! `ws`: events over one lasting connection, as frames (contract §1.6).
//!
//! A text frame is JSON; a binary frame is an LZ4 block behind its inflated length, of the same JSON.
//! A frame holds what a body of `tr` may hold, one event or many, and goes the same way: [`Taker`] with
//! the facts of the handshake, whose query wins over the fields of a frame. Works over HTTP/1.1 on
//! both listeners; HTTP/2 is not offered for it, so browsers open a connection of their own.
//!
//! The server says nothing unless the handshake asked for it with `?ack=1`. Then each frame, counted
//! from 1, is answered in order once its fate is known ([`Reply`]).
//!
//! Bounds: bytes of a frame, bytes inflated, [`FRAMES_MAX`] frames and [`EVENTS_MAX`] events without an
//! outcome, the memory that unfinished frames share with bodies, the rates of the configuration (above
//! them a connection is read more slowly, so nothing is lost), the limits of its sender (a frame above
//! them is refused), and time: a connection ends that shows no sign of life, or leaves a frame
//! unfinished.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prometheus::IntGauge;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::body::Share;
use super::cors::Access;
use super::error::ApiError;
use super::frame::{Frame, Reply, payload};
use super::keys::Need;
use super::lease::Lease;
use super::limits::{Class, Client};
use super::quota::Pace;
use super::state::Shared;
use super::track::{self, INLINE_BYTES_MAX, Outcome, Taker};
use super::{cookie, facts};
use crate::event::Origin;
use crate::intake::{Fact, Refusal};

/// The route's name in facts.
pub(super) const ROUTE: &str = "ws";

/// Frames of one connection whose events are not durable yet. A commit takes milliseconds, so this
/// keeps the writer busy; when it is reached the connection is not read.
const FRAMES_MAX: usize = 64;
/// Events of those frames: enough for any frame of ordinary size, so that only a client that sends
/// the largest ones waits for each.
const EVENTS_MAX: usize = 4096;
/// Made for each connection at once; larger frames are gathered in several reads.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Parts of the idle time: after one in silence the server asks, after three it ends.
const IDLE_PARTS: u32 = 3;
/// How long the other end may take to answer our goodbye.
const GOODBYE_MAX: Duration = Duration::from_millis(250);
/// Bytes of a masked control frame before its payload.
const CONTROL_HEAD_BYTES: usize = 6;
/// The version of the protocol there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// The handshake.
pub(super) async fn ws(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match handshake(&shared, request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = error.into_response();
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, VERSION);
            response
        }
    }
}

async fn handshake(shared: &Arc<Shared>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    if parts.method != Method::GET {
        return Err(ApiError::Method("GET"));
    }
    if !may_open(shared, &parts.headers) {
        return Err(ApiError::Forbidden("this origin may not open a WebSocket here"));
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| {
        let message = "this route speaks WebSocket version 13 over HTTP/1.1".to_owned();
        ApiError::Malformed { field: None, message }
    })?;
    let lease = parts.extensions.remove::<Lease>().ok_or(ApiError::Internal)?;
    let mut facts = facts::read(shared, &parts, ROUTE);
    shared.keys.admit(&parts, &mut facts, Need::Site)?;
    let scope = facts::scope(shared, &parts, &facts.host);
    let client = shared.limits.client(shared, &parts);
    let (acks, query) = without_ack(parts.uri.query().unwrap_or_default());
    let rest = track::rest(parts.uri.path());
    let (shared, facts) = (Arc::clone(shared), Arc::new(facts));
    let mut taker = Taker {
        shared,
        facts,
        origin: Origin::Client,
        fact: Fact::Track,
        rest,
        query: Some(query),
    };
    // The cookie can only be set now, so the visitor is known before the first event.
    let cookie = taker.shared.app.intake.greet(taker.hit(taker.query.as_deref(), None, 0));
    Arc::make_mut(&mut taker.facts).greeted = cookie.as_ref().map(|cookie| cookie.vid);
    let frame_bytes_max = taker.shared.app.http.websocket.frame_bytes_max;
    let conversation = Conversation::new(taker, lease, client, acks);
    let mut response = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_frame_size(frame_bytes_max)
        .max_message_size(frame_bytes_max)
        .on_upgrade(|socket| conversation.run(socket));
    if let Some(cookie) = &cookie {
        cookie::set(response.headers_mut(), cookie, scope);
    }
    Ok(response)
}

/// Browsers ask nobody before they open a WebSocket: what CORS does elsewhere is done here. Only
/// browsers name an origin; a page of our own host needs no listing.
fn may_open(shared: &Shared, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let own = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let site = [&b"https://"[..], b"http://"].iter().find_map(|scheme| {
        origin.as_bytes().strip_prefix(*scheme).filter(|host| host.eq_ignore_ascii_case(own))
    });
    site.is_some() || shared.origins.access(origin) != Access::Denied
}

/// Whether the query asks for acknowledgements, and the query without that.
fn without_ack(query: &str) -> (bool, String) {
    let is_ack = |pair: &&str| pair.split('=').next() == Some("ack");
    let asks = query.split('&').filter(is_ack).any(|pair| pair == "ack=1" || pair == "ack=true");
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_ack(pair)).collect();
    (asks, rest.join("&"))
}

/// A frame on its way.
struct Waiting {
    events: usize,
    /// Its answer, where one is wanted.
    reply: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

/// Why a connection ends, as its other end is told.
type Goodbye = (u16, &'static str);

const STOPPING: Goodbye = (close_code::AWAY, "the server stops");
const SILENT: Goodbye = (close_code::AWAY, "no sign of life");
const UNFINISHED: Goodbye = (close_code::POLICY, "a frame was not finished in time");
const TOO_LARGE: Goodbye = (close_code::SIZE, "the frame is too large");
const NO_TEXT: Goodbye = (close_code::INVALID, "a text frame is not UTF-8");
const BROKEN: Goodbye = (close_code::PROTOCOL, "this is no WebSocket frame");

/// One open WebSocket.
struct Conversation {
    taker: Taker,
    lease: Lease,
    client: Client,
    acks: bool,
    /// Frames with events so far.
    frames: u64,
    waiting: VecDeque<Waiting>,
    frame_pace: Pace,
    event_pace: Pace,
    /// Not read before, because it sent too fast.
    paused: Option<Instant>,
    life: Life,
}

/// What a connection showed of itself since the last tick of its clock.
#[derive(Default)]
struct Life {
    /// Something came.
    heard: bool,
    /// Parts of the idle time in which nothing came.
    silent: u32,
    /// A frame had begun by then, and none was finished since.
    unfinished: bool,
}

impl Life {
    /// Once in each part of the idle time; `unread` are bytes of a frame that has begun. Why to end,
    /// if there is a reason; after one part in silence the other end is to be asked.
    fn tick(&mut self, unread: usize) -> Option<Goodbye> {
        let was_unfinished = self.unfinished;
        self.silent = if std::mem::take(&mut self.heard) { 0 } else { self.silent + 1 };
        self.unfinished = unread > 0;
        if self.silent >= IDLE_PARTS {
            return Some(SILENT);
        }
        (was_unfinished && self.unfinished).then_some(UNFINISHED)
    }
}

/// Counts an open WebSocket until it is dropped.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Conversation {
    fn new(taker: Taker, lease: Lease, client: Client, acks: bool) -> Self {
        let settings = &taker.shared.app.http.websocket;
        let now = Instant::now().into_std();
        let frame_pace = Pace::new(settings.frames_per_second, now);
        let event_pace = Pace::new(settings.events_per_second, now);
        Self {
            taker,
            lease,
            client,
            acks,
            frames: 0,
            waiting: VecDeque::new(),
            frame_pace,
            event_pace,
            paused: None,
            life: Life::default(),
        }
    }

    /// From the handshake to the goodbye.
    async fn run(mut self, mut socket: WebSocket) {
        let gauge = self.taker.shared.app.metrics.websockets.clone();
        gauge.inc();
        let _open = Open(gauge);
        let lease = self.lease.clone();
        let unread = lease.count_unread(&self.taker.shared.bodies);
        if let Some(goodbye) = self.converse(&mut socket, unread).await {
            self.end(&mut socket, goodbye).await;
        }
    }

    /// Reads frames and answers them; `None` when the other end is gone.
    ///
    /// Cancel-safe: reading keeps its state in the socket, an answer is taken out of the queue only
    /// when it is whole, and the rest are clocks.
    async fn converse(&mut self, socket: &mut WebSocket, unread: &Share) -> Option<Goodbye> {
        // A token of its own, so that connections do not share a lock at each wake.
        let stop = self.lease.stop().asked.child_token();
        let part = self.taker.shared.app.http.websocket.idle / IDLE_PARTS;
        let mut clock = interval_at(Instant::now() + part, part);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let events: usize = self.waiting.iter().map(|frame| frame.events).sum();
            let reads =
                self.waiting.len() < FRAMES_MAX && events < EVENTS_MAX && self.paused.is_none();
            let paused = self.paused.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Some(STOPPING),
                reply = settled(&mut self.waiting), if !self.waiting.is_empty() => {
                    if let Some(reply) = reply {
                        socket.send(Message::Text(reply.into())).await.ok()?;
                    }
                }
                () = sleep_until(paused), if self.paused.is_some() => self.paused = None,
                // Who is not read cannot be heard. Before reading, or a flood would keep it waiting.
                _ = clock.tick(), if reads => {
                    if let Some(goodbye) = self.life.tick(unread.taken()) {
                        return Some(goodbye);
                    }
                    if self.life.silent == 1 {
                        socket.send(Message::Ping(Bytes::new())).await.ok()?;
                    }
                }
                message = socket.recv(), if reads => match message? {
                    Ok(message) => self.hear(message, unread).await,
                    Err(error) => return self.unreadable(error),
                },
            }
        }
    }

    /// Takes one message. Control frames are answered by the socket itself.
    async fn hear(&mut self, message: Message, unread: &Share) {
        self.life.heard = true;
        let mut events = 0;
        match message {
            Message::Text(text) => {
                unread.release(usize::MAX);
                events = self.take(Frame::Text(text.into())).await;
            }
            Message::Binary(block) => {
                unread.release(usize::MAX);
                events = self.take(Frame::Binary(block)).await;
            }
            // One may stand between the pieces of a frame, whose bytes stay counted.
            Message::Ping(data) | Message::Pong(data) => {
                unread.release(CONTROL_HEAD_BYTES + data.len());
            }
            Message::Close(_) => unread.release(usize::MAX),
        }
        let now = Instant::now();
        let wait = self.frame_pace.owe(now.into_std(), 1);
        let wait = wait.max(self.event_pace.owe(now.into_std(), events));
        if !wait.is_zero() {
            self.taker.shared.app.metrics.websocket_paused.inc();
            self.paused = Some(now + wait);
        }
    }

    /// Takes a frame with events; how many it held.
    async fn take(&mut self, frame: Frame) -> usize {
        self.life.unfinished = false;
        self.frames += 1;
        let shared = Arc::clone(&self.taker.shared);
        shared.app.metrics.websocket_frames.inc();
        Arc::make_mut(&mut self.taker.facts).received_at = shared.app.clock.wall();
        let outcome = match shared.limits.spend(self.client, Class::Event) {
            Ok(_) => read(self.taker.clone(), frame).await,
            Err(exceeded) => {
                shared.app.intake.refuse(Refusal::Limited);
                Err(exceeded.error())
            }
        };
        let events = match &outcome {
            Ok(Outcome::Many(items)) => items.len(),
            _ => 1,
        };
        if outcome.is_ok() {
            self.remember();
        }
        let (number, acks) = (self.frames, self.acks);
        let reply = Box::pin(async move {
            let reply = Reply::of(number, outcome).await;
            // Only maps with keys that are no text fail to serialise, and there are none.
            acks.then(|| serde_json::to_string(&reply).unwrap_or_default())
        });
        self.waiting.push_back(Waiting { events, reply });
        events
    }

    /// The visitor made at the handshake has an event now, and is a known one from here on.
    fn remember(&mut self) {
        let facts = Arc::make_mut(&mut self.taker.facts);
        if let Some(vid) = facts.greeted.take() {
            facts.cookies.entry("vid".to_owned()).or_insert_with(|| vid.to_string());
        }
    }

    /// What could not be read as a message; where it was a frame, it is counted.
    fn unreadable(&self, error: axum::Error) -> Option<Goodbye> {
        let error = error.into_inner();
        match error.downcast_ref::<tungstenite::Error>()? {
            tungstenite::Error::Capacity(_) => {
                self.taker.shared.app.intake.refuse(Refusal::TooLarge);
                Some(TOO_LARGE)
            }
            tungstenite::Error::Utf8(_) => {
                let message = NO_TEXT.1.to_owned();
                self.taker.unread(ApiError::Malformed { field: None, message }, &[]);
                Some(NO_TEXT)
            }
            tungstenite::Error::Protocol(_) => Some(BROKEN),
            _ => None,
        }
    }

    /// Answers what is under way, says goodbye and waits a moment for the other end's.
    async fn end(mut self, socket: &mut WebSocket, (code, reason): Goodbye) {
        let deadline = self.lease.stop().deadline.clone();
        let goodbye = async {
            while !self.waiting.is_empty() {
                if let Some(reply) = settled(&mut self.waiting).await {
                    socket.send(Message::Text(reply.into())).await?;
                }
            }
            let frame = CloseFrame { code, reason: reason.into() };
            socket.send(Message::Close(Some(frame))).await?;
            let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
            let _: Result<(), _> = timeout(GOODBYE_MAX, answered).await;
            Ok::<_, axum::Error>(())
        };
        tokio::select! {
            // Who is gone already needs no goodbye.
            _ = goodbye => {}
            () = deadline.cancelled() => {}
        }
    }
}

/// The answer to the oldest frame on its way, once its fate is known. Cancel-safe.
async fn settled(waiting: &mut VecDeque<Waiting>) -> Option<String> {
    let reply = waiting.front_mut()?.reply.as_mut().await;
    waiting.pop_front();
    reply
}

/// The events of a frame, on their way to the journal.
async fn read(taker: Taker, frame: Frame) -> Result<Outcome, ApiError> {
    let (shared, raw) = (Arc::clone(&taker.shared), frame.bytes().clone());
    let (is_text, size) = (matches!(frame, Frame::Text(_)), frame.inflated_bytes());
    let max = shared.app.http.inflated_bytes_max;
    // Counted before the size is known to be true: a bomb must not find the room first.
    let room = Share::of(&shared.bodies);
    room.take(size.min(max)).inspect_err(|_| shared.app.intake.refuse(Refusal::Busy))?;
    let read = if is_text || size <= INLINE_BYTES_MAX {
        payload(frame, max)
    } else {
        shared.off_worker(move || payload(frame, max)).await?
    };
    match read {
        Ok((form, bytes)) => taker.body(form, bytes).await,
        Err(error) => Err(taker.unread(error, &raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_for_answers_is_no_field() {
        for (query, expect) in [
            ("", (false, "")),
            ("ack=1", (true, "")),
            ("ack", (false, "")),
            ("ack=0&a=b", (false, "a=b")),
            ("utm_source=x&ack=1&ack2=1", (true, "utm_source=x&ack2=1")),
        ] {
            let (acks, rest) = without_ack(query);
            assert_eq!((acks, rest.as_str()), expect, "{query}");
        }
    }

    #[test]
    fn a_connection_is_asked_after_a_part_of_silence_and_ended_after_another() {
        let mut life = Life::default();
        assert_eq!((life.tick(0), life.silent), (None, 1));
        life.heard = true;
        assert_eq!((life.tick(0), life.silent), (None, 0));
        assert_eq!((life.tick(0), life.silent), (None, 1));
        assert_eq!((life.tick(0), life.silent), (None, 2));
        assert_eq!(life.tick(0), Some(SILENT));
    }

    #[test]
    fn a_frame_may_take_one_part_but_not_two() {
        let mut life = Life::default();
        let tick = |life: &mut Life, unread| {
            life.heard = true;
            life.tick(unread)
        };
        assert_eq!(tick(&mut life, 5), None);
        life.unfinished = false;
        assert_eq!(tick(&mut life, 5), None);
        assert_eq!(tick(&mut life, 0), None);
        assert_eq!(tick(&mut life, 5), None);
        assert_eq!(tick(&mut life, 9), Some(UNFINISHED));
    }
}
