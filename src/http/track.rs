//! The routes that take events: `tr` and `img` for a visitor's own client, `str` for servers; and `ltv`,
//! which takes payments.
//!
//! `GET` reads the query, `POST` and `PUT` the body and not the query. What would record nothing is
//! a 405, because a 200 means that something is on disk. An answer waits until the event is durable;
//! only the pixel stops waiting after a moment, and that is counted.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::batch::{self, Form};
use super::error::{ApiError, Detail, RETRY_SECONDS};
use super::keys::Need;
use super::state::Shared;
use super::{answer, body, cookie, facts};
use crate::config::KeyKind;
use crate::consent::Consent;
use crate::event::{Event, EventId, Origin, Reason};
use crate::intake::{self, Fact, Hit, IntakeError, Receipt, Refusal, RequestFacts, VisitorCookie};
use crate::journal::Pending;

const ACK: HeaderName = HeaderName::from_static("x-ack");
const PIXEL: &str = "img";
/// Routes whose sender may never hear what became of a body.
const UNTOLD: [&str; 2] = [PIXEL, super::websocket::ROUTE];
/// Above these a request is worked off beside the workers, which must stay free for others.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;
const INLINE_EVENTS_MAX: usize = 256;

/// `tr`: an event of the visitor's own client; the answer is empty.
pub(super) async fn tr(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let route = Route { name: "tr", origin: Origin::Client, need: Need::Site, fact: Fact::Track };
    match record(&shared, request, route).await {
        Ok(recorded) => recorded.finish(&shared, |_| answer::empty()).await,
        Err(error) => error.into_response(),
    }
}

/// `str`: an event of a server; the answer is its id.
pub(super) async fn str(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let route =
        Route { name: "str", origin: Origin::Server, need: Need::Server, fact: Fact::Track };
    let id = |id: EventId| answer::json(StatusCode::OK, &id);
    match record(&shared, request, route).await {
        Ok(recorded) => recorded.finish(&shared, id).await,
        Err(error) => error.into_response(),
    }
}

/// `img`: as `tr`, for pages and mails without script; the answer is a picture, whatever happened.
pub(super) async fn img(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let route = Route { name: PIXEL, origin: Origin::Client, need: Need::Site, fact: Fact::Track };
    match record(&shared, request, route).await {
        Ok(recorded) => recorded.finish_pixel(&shared).await,
        Err(error) => pixel_of(error),
    }
}

/// `ltv`: payments; the answer is empty. Who may tell of them is `PaymentsFrom`'s to say.
pub(super) async fn ltv(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let need = match shared.app.http.payments_from {
        KeyKind::Server => Need::Server,
        KeyKind::Site => Need::Site,
    };
    let route = Route { name: "ltv", origin: Origin::Server, need, fact: Fact::Payment };
    match record(&shared, request, route).await {
        Ok(recorded) => recorded.finish(&shared, |_| answer::empty()).await,
        Err(error) => error.into_response(),
    }
}

/// What distinguishes the routes.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) name: &'static str,
    pub(super) origin: Origin,
    pub(super) need: Need,
    pub(super) fact: Fact,
}

/// What became of a request, before its durability is known.
pub(super) struct Recorded {
    parts: Parts,
    pub(super) facts: Arc<RequestFacts>,
    outcome: Outcome,
}

pub(super) enum Outcome {
    /// The method records nothing.
    Nothing,
    One(Taken),
    Many(Vec<Item>),
}

/// An event on its way to the journal; nothing is pending for one that privacy policy drops.
pub(super) struct Taken {
    id: EventId,
    pub(super) pending: Option<Awaited>,
    cookie: Option<VisitorCookie>,
}

/// What an answer waits for, and who is told when it is durable.
pub(super) struct Awaited {
    pending: Pending,
    agreement: Option<(Box<Event>, Arc<Consent>)>,
}

/// One event of a batch.
pub(super) struct Item {
    /// Its own id, or the caller's where it was refused and named one.
    id: Option<String>,
    taken: Result<Taken, ApiError>,
}

/// Takes what a request says; the answer is made of what comes back.
///
/// # Errors
/// When the request as a whole was not taken.
pub(super) async fn record(
    shared: &Arc<Shared>,
    request: Request,
    route: Route,
) -> Result<Recorded, ApiError> {
    let (parts, body) = request.into_parts();
    let mut facts = facts::read(shared, &parts, route.name);
    if let Err(error) = shared.keys.admit(&parts, &mut facts, route.need) {
        shared.app.intake.refuse(Refusal::Forbidden);
        return Err(error);
    }
    let facts = Arc::new(facts);
    let taker = Taker {
        shared: Arc::clone(shared),
        facts: Arc::clone(&facts),
        origin: route.origin,
        fact: route.fact,
        rest: match route.fact {
            Fact::Agreement => String::new(),
            Fact::Track | Fact::Payment => rest(parts.uri.path()),
        },
        query: None,
    };
    let outcome = match parts.method {
        Method::GET => taker.bodiless(parts.uri.query()).map(Outcome::One)?,
        Method::POST | Method::PUT => match body::read(shared, &parts, body).await {
            Ok(body) => {
                let form = batch::form(&parts.headers, &body.bytes);
                taker.body(form, body.bytes.clone()).await?
            }
            Err(error) => return Err(taker.unread(error, &[])),
        },
        // The picture's head, which a mail client may ask for before it shows anything.
        Method::HEAD if route.name == PIXEL => Outcome::Nothing,
        _ => return Err(ApiError::Method("GET, POST, PUT")),
    };
    Ok(Recorded { parts, facts, outcome })
}

/// Turns what one request, or one frame, said into events.
#[derive(Clone)]
pub(super) struct Taker {
    pub(super) shared: Arc<Shared>,
    pub(super) facts: Arc<RequestFacts>,
    pub(super) origin: Origin,
    /// What the hits become.
    pub(super) fact: Fact,
    /// The path behind the route.
    pub(super) rest: String,
    /// What every event of a body is merged with: the query of a frame's handshake.
    pub(super) query: Option<String>,
}

impl Taker {
    /// The event of a request without a body.
    fn bodiless(&self, query: Option<&str>) -> Result<Taken, ApiError> {
        self.take(query, None, self.rest.len() + query.map_or(0, str::len))
    }

    /// The events of a body, beside the workers when there is much to do.
    pub(super) async fn body(self, form: Form, body: Bytes) -> Result<Outcome, ApiError> {
        let shared = Arc::clone(&self.shared);
        let is_batch = matches!(form, Form::Array | Form::Lines);
        if body.len() > INLINE_BYTES_MAX {
            return shared.off_worker(move || self.whole(form, &body)).await?;
        }
        if is_batch && body.len() > INLINE_EVENTS_MAX {
            let items = self.split(form, &body)?;
            if items.len() > INLINE_EVENTS_MAX {
                return shared.off_worker(move || self.many(&items)).await;
            }
            return Ok(self.many(&items));
        }
        self.whole(form, &body)
    }

    fn whole(&self, form: Form, body: &Bytes) -> Result<Outcome, ApiError> {
        match form {
            Form::Empty if self.fact == Fact::Agreement => {
                let message = "the body is empty: who agreed to what?".to_owned();
                Err(self.unread(ApiError::Malformed { field: None, message }, body))
            }
            Form::Empty => self.bodiless(self.query.as_deref()).map(Outcome::One),
            Form::Single => match self.parse(body) {
                Ok(fields) => self.with_body(fields, body.len()).map(Outcome::One),
                Err(error) => Err(self.unread(error, body)),
            },
            Form::Array | Form::Lines => Ok(self.many(&self.split(form, body)?)),
        }
    }

    fn split(&self, form: Form, body: &Bytes) -> Result<Vec<Bytes>, ApiError> {
        let events_max = self.shared.app.http.batch_events_max;
        batch::split(form, body, events_max).map_err(|error| self.unread(error.into(), body))
    }

    fn many(&self, items: &[Bytes]) -> Outcome {
        Outcome::Many(items.iter().map(|item| self.one_of_many(item)).collect())
    }

    /// One bad item never costs another: it is set aside and named in the answer.
    fn one_of_many(&self, item: &Bytes) -> Item {
        match self.parse(item) {
            Ok(fields) => {
                let named = fields.get("eid").and_then(Value::as_str).map(str::to_owned);
                let taken = self.with_body(fields, item.len());
                Item { id: taken.as_ref().map_or(named, |taken| Some(taken.id.to_string())), taken }
            }
            Err(error) => {
                self.set_aside(&error, item);
                Item { id: None, taken: Err(error) }
            }
        }
    }

    /// The fields of one event; `null` says nothing, other values than objects are none.
    fn parse(&self, bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
        let nesting_max = self.shared.app.reading.nesting_max;
        let parsed = match self.fact {
            Fact::Payment => intake::parse_payments(bytes, nesting_max)?,
            Fact::Track | Fact::Agreement => intake::parse_json(bytes, nesting_max)?,
        };
        match parsed {
            Value::Object(fields) => Ok(fields),
            Value::Null => Ok(Map::new()),
            other => Err(ApiError::Malformed {
                field: None,
                message: format!("an event is a JSON object, not {}", kind(&other)),
            }),
        }
    }

    fn with_body(&self, fields: Map<String, Value>, length: usize) -> Result<Taken, ApiError> {
        self.take(self.query.as_deref(), Some(fields), length)
    }

    fn take(
        &self,
        query: Option<&str>,
        body: Option<Map<String, Value>>,
        length: usize,
    ) -> Result<Taken, ApiError> {
        match self.shared.app.intake.accept_as(self.fact, self.hit(query, body, length)) {
            Ok(Receipt { id, pending, cookie, agreement, .. }) => {
                let consent = &self.shared.app.consent;
                let agreement = agreement.map(|event| (event, Arc::clone(consent)));
                Ok(Taken { id, pending: Some(Awaited { pending, agreement }), cookie })
            }
            // Not stored because its sender wished so; that is no failure.
            Err(IntakeError::Private) => {
                Ok(Taken { id: EventId::generate(), pending: None, cookie: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What a request says, all its sources merged.
    pub(super) fn hit(
        &self,
        query: Option<&str>,
        body: Option<Map<String, Value>>,
        length: usize,
    ) -> Hit {
        let ignore = self.shared.app.reading.ignore_query_key.as_deref();
        let fields = intake::fields(&self.facts, &self.rest, query, body, ignore);
        Hit { origin: self.origin, facts: Arc::clone(&self.facts), fields, length }
    }

    /// A body that held no event. Where the sender cannot be told it is set aside; any other is
    /// told, and it is counted.
    pub(super) fn unread(&self, error: ApiError, body: &[u8]) -> ApiError {
        if UNTOLD.contains(&self.facts.route) && matches!(error, ApiError::Malformed { .. }) {
            self.set_aside(&error, body);
            return error;
        }
        let refusal = match &error {
            ApiError::Malformed { .. } | ApiError::Encoding(_) => Refusal::Malformed,
            ApiError::TooLarge(_) => Refusal::TooLarge,
            // Nothing arrived that could be called an event.
            _ => return error,
        };
        self.shared.app.intake.refuse(refusal);
        error
    }

    /// Into quarantine; where even that fails, intake has counted why.
    fn set_aside(&self, error: &ApiError, bytes: &[u8]) {
        let (intake, message) = (&self.shared.app.intake, error.to_string());
        drop(intake.quarantine(&self.facts, Reason::Malformed, &message, bytes));
    }
}

impl Taken {
    /// Waits until the event is as durable as promised; false when there is nothing to wait for.
    pub(super) async fn durable(awaited: Option<Awaited>) -> Result<bool, ApiError> {
        let Some(Awaited { pending, agreement }) = awaited else { return Ok(false) };
        let position = pending.durable().await?;
        if let Some((event, consent)) = agreement {
            consent.remember(&event, position);
        }
        Ok(true)
    }
}

impl Recorded {
    /// The answer once everything is durable; `one` makes the body for a single event.
    pub(super) async fn finish(
        self,
        shared: &Shared,
        one: impl FnOnce(EventId) -> Response,
    ) -> Response {
        let scope = facts::scope(shared, &self.parts, &self.facts.host);
        match self.outcome {
            // Only a picture's head records nothing.
            Outcome::Nothing => answer::empty(),
            Outcome::One(taken) => match Taken::durable(taken.pending).await {
                Ok(stored) => {
                    let mut response = one(taken.id);
                    let headers = response.headers_mut();
                    if stored {
                        headers.insert(ACK, ack(shared));
                    }
                    if let Some(cookie) = &taken.cookie {
                        cookie::set(headers, cookie, scope);
                    }
                    response
                }
                Err(error) => error.into_response(),
            },
            Outcome::Many(items) => {
                let cookie = items.iter().find_map(|item| item.taken.as_ref().ok()?.cookie.clone());
                let mut response = Results::of(items).await.into_response(ack(shared));
                if let Some(cookie) = &cookie {
                    cookie::set(response.headers_mut(), cookie, scope);
                }
                response
            }
        }
    }

    /// The picture, after a moment's wait for durability.
    async fn finish_pixel(self, shared: &Shared) -> Response {
        let scope = facts::scope(shared, &self.parts, &self.facts.host);
        let taken = match self.outcome {
            Outcome::Nothing => Vec::new(),
            Outcome::One(taken) => vec![taken],
            Outcome::Many(items) => items.into_iter().filter_map(|item| item.taken.ok()).collect(),
        };
        let deadline = Instant::now() + shared.app.http.pixel_wait;
        let (mut stored, mut unconfirmed, mut failed, mut cookie) = (false, false, None, None);
        for Taken { pending, cookie: wanted, .. } in taken {
            cookie = cookie.or(wanted);
            match timeout_at(deadline, Taken::durable(pending)).await {
                Ok(Ok(one)) => stored |= one,
                Ok(Err(error)) => failed = Some(error),
                Err(_) => {
                    shared.app.metrics.events_unconfirmed.inc();
                    unconfirmed = true;
                }
            }
        }
        let mut response = match failed {
            Some(error) => pixel_of(error),
            None => answer::pixel(StatusCode::OK),
        };
        let response_ok = response.status() == StatusCode::OK;
        let headers = response.headers_mut();
        if stored && !unconfirmed && response_ok {
            headers.insert(ACK, ack(shared));
        }
        if let Some(cookie) = &cookie {
            cookie::set(headers, cookie, scope);
        }
        response
    }
}

/// A picture with the status of an error; what was set aside was taken.
pub(super) fn pixel_of(error: ApiError) -> Response {
    if matches!(error, ApiError::Malformed { .. }) {
        return answer::pixel(StatusCode::OK);
    }
    let mut response = error.into_response();
    let mut pixel = answer::pixel(response.status());
    for name in [header::RETRY_AFTER, header::CONNECTION, header::ALLOW] {
        if let Some(value) = response.headers_mut().remove(&name) {
            pixel.headers_mut().insert(name, value);
        }
    }
    pixel
}

/// The body of a batch's answer.
#[derive(Serialize)]
pub(super) struct Results {
    accepted: usize,
    #[serde(rename = "results")]
    items: Vec<ItemResult>,
    #[serde(skip)]
    rejected: usize,
    #[serde(skip)]
    retry: usize,
}

#[derive(Serialize)]
struct ItemResult {
    eid: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Detail>,
}

impl Results {
    /// Waits until every event of a batch is durable or refused.
    pub(super) async fn of(items: Vec<Item>) -> Self {
        let (mut accepted, mut rejected, mut retry) = (0, 0, 0);
        let mut settled = Vec::with_capacity(items.len());
        for Item { id, taken } in items {
            let outcome = match taken {
                Ok(taken) => Taken::durable(taken.pending).await,
                Err(error) => Err(error),
            };
            let (count, status, error) = match outcome {
                Ok(_) => (&mut accepted, "stored", None),
                Err(error) if error.is_retry() => (&mut retry, "retry", Some(error.detail())),
                Err(error) => (&mut rejected, "rejected", Some(error.detail())),
            };
            *count += 1;
            settled.push(ItemResult { eid: id, status, error });
        }
        Self { accepted, items: settled, rejected, retry }
    }

    /// Every event is stored.
    pub(super) fn is_whole(&self) -> bool {
        self.rejected == 0 && self.retry == 0
    }

    /// Some events may be stored when they are sent again.
    pub(super) fn is_retry(&self) -> bool {
        self.retry > 0
    }

    fn into_response(self, ack: HeaderValue) -> Response {
        let status = match (self.accepted, self.rejected, self.retry) {
            (_, 0, 0) => StatusCode::OK,
            (0, _, 0) => StatusCode::BAD_REQUEST,
            (0, 0, _) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::MULTI_STATUS,
        };
        let mut response = answer::json(status, &self);
        if self.accepted > 0 {
            response.headers_mut().insert(ACK, ack);
        }
        if self.is_retry() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        response
    }
}

/// What stands behind `/tr/vN/route/`, `//` included.
pub(super) fn rest(path: &str) -> String {
    path.splitn(5, '/').nth(4).unwrap_or_default().to_owned()
}

fn ack(shared: &Shared) -> HeaderValue {
    HeaderValue::from_static(shared.app.durability.as_str())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
