//! From request facts to a durable event: build, enrich, privacy, encode, append.
//!
//! Everything before the append is pure and lives in [`Preparer`]: it is told the facts and answers
//! with an event, and no input makes it fail in any other way than [`IntakeError`]. [`Intake`] adds
//! the journal and the counting. Nothing here waits.

mod agreement;
mod build;
mod enrich;
mod fields;
mod hit;
mod keys;
mod names;
mod payment;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use crate::config::IntakeConfig;
use crate::event::{
    self, Agreement, Body, Event, EventId, Link, OrgId, Origin, Quarantine, Reason, Verdict,
    VisitorId,
};
use crate::geo::GeoDb;
use crate::journal::{AppendError, Journal, Pending, Settle};
use crate::telemetry::Metrics;

pub use enrich::agent::{Agents, Known};
pub use enrich::campaign::channel;
pub use enrich::identity::cookie_domain;
pub use enrich::privacy::network;
pub use enrich::url::{Address, clean_url};
pub use hit::{ParseError, fields, parse_json};
pub use keys::{KeyError, Keys};
pub use payment::parse_payments;

/// What was said, nothing believed: loose fields and the facts of the request they came with.
pub struct Hit {
    /// Client or server event, by route (D4).
    pub origin: Origin,
    /// Facts of the request; shared by the events of a batch.
    pub facts: Arc<RequestFacts>,
    /// What the sender said, in the order of the contract (§2.4): path pairs, query and body merged.
    pub fields: Map<String, Value>,
    /// Bytes of this event as received, for the bound and for quarantine.
    pub length: usize,
}

/// What the transport knows about a request; made by one extractor.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own on the wire")]
pub struct RequestFacts {
    /// When the head had arrived.
    pub received_at: DateTime<Utc>,
    /// The client's address behind trusted proxies only.
    pub ip: IpAddr,
    /// The peer is loopback or a trusted proxy, or showed a server's key: its word on time and
    /// address is believed (D27).
    pub trusted: bool,
    /// Whose events these are.
    pub tenant: Tenant,
    /// The pair `key` of the query is the site's key and no field.
    pub query_has_key: bool,
    /// Route: `tr`, `str`, `img` …, for the classifier and `params.v1`-like fields.
    pub route: &'static str,
    /// HTTP method.
    pub method: String,
    /// HTTP/2 rather than 1.1.
    pub http2: bool,
    /// Host, lower case, without port; empty when none was named.
    pub host: String,
    /// Path and query as requested.
    pub uri: String,
    /// Header names in canonical form, as sent (for JA4H).
    pub header_names: Vec<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Accept-Language`.
    pub language: Option<String>,
    /// `Referer`.
    pub referer: Option<String>,
    /// `User` header: a JSON object of fields (contract §2.4 step 1).
    pub user: Option<String>,
    /// Cookies by name; the first of a name wins.
    pub cookies: BTreeMap<String, String>,
    /// The visitor whom an earlier answer on this connection named, for an event that names none.
    pub greeted: Option<VisitorId>,
    /// `Sec-GPC: 1`.
    pub gpc: bool,
    /// `DNT: 1`.
    pub dnt: bool,
    /// Other headers the bot classifier looks at, lower-case names: accept, accept-encoding,
    /// sec-fetch-site, sec-fetch-mode, sec-fetch-dest, sec-purpose, purpose, from, x-purpose, x-moz,
    /// sec-ch-ua, sec-ch-ua-mobile, sec-ch-ua-platform.
    pub hints: BTreeMap<&'static str, String>,
}

/// Who decides which organisation an event belongs to (D17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant {
    /// The sender: it holds a server's key, or the installation has no keys at all.
    AsSaid,
    /// The configuration, whatever the sender says; `None` is no organisation.
    Fixed(Option<String>),
}

/// An event that was taken.
pub struct Receipt {
    /// Its id: the caller's or a new one.
    pub id: EventId,
    /// Resolves when it is durable.
    pub pending: Pending,
    /// The visitor cookie to set: present for client events whose visitor may be remembered.
    pub cookie: Option<VisitorCookie>,
    /// Human or which kind of machine sent it.
    pub verdict: Verdict,
    /// The event itself where it is an agreement, which its visitor may want to see at once.
    pub agreement: Option<Box<Event>>,
    /// The browser fetched ahead: nobody has asked for it yet, and perhaps nobody will.
    pub is_prefetch: bool,
}

/// What the answer should set (D4, §2.7): built by the HTTP layer into one `Set-Cookie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitorCookie {
    /// The visitor.
    pub vid: VisitorId,
    /// Registrable domain by the public suffix list; `None` = host-only cookie.
    pub domain: Option<String>,
    /// What the visitor agreed to, for an agreement: then this is remembered, not the visitor.
    pub agreed: Option<i64>,
}

/// Why an event was not taken: one variant for each reaction.
#[derive(Debug, Error)]
pub enum IntakeError {
    /// The caller's fault; the field and the reason.
    #[error("{field}: {message}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// Larger than an event may be.
    #[error("event of {length} bytes is larger than {max}")]
    TooLarge {
        /// Bytes sent.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Privacy policy says it may not be stored (`DNTPolicy: drop`): answered as success, counted.
    #[error("privacy policy forbids storing it")]
    Private,
    /// Try again later: the queue is full.
    #[error("too many events at once")]
    Busy,
    /// Try again later: the journal is full.
    #[error("the journal is full")]
    Full,
    /// Try again later: the journal failed.
    #[error("the journal cannot write")]
    Failed,
}

/// A prepared event, ready to be encoded and appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The event, enriched and already private.
    pub event: Event,
    /// The visitor cookie to set.
    pub cookie: Option<VisitorCookie>,
    /// The sender's time was not believed.
    pub is_time_replaced: bool,
}

/// Why the transport refused an event before it became a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not readable.
    Malformed,
    /// Above a bound.
    TooLarge,
    /// Not from where it may come.
    Forbidden,
    /// More than its sender may ask for.
    Limited,
    /// No memory is left to read it.
    Busy,
}

/// What a hit is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// An event of `events`.
    Track,
    /// Payments.
    Payment,
    /// An agreement.
    Agreement,
}

/// The part of a hit that is no field of every event.
enum Special {
    None,
    Payment(payment::Lines),
    Agreement(Agreement),
}

/// Makes events of hits; pure.
pub struct Preparer {
    keys: Keys,
    geo: Arc<GeoDb>,
    agents: Agents,
    cleaner: enrich::url::Cleaner,
    policy: enrich::privacy::Policy,
    bounds: build::Bounds,
    account_mixer: String,
    domains: Vec<String>,
    has_geo: bool,
    has_regions: bool,
    event_bytes_max: usize,
}

impl Preparer {
    /// Compiles what `config` says.
    ///
    /// # Errors
    /// When `UrlFilter` is no regular expression.
    pub fn new(
        config: &IntakeConfig,
        keys: Keys,
        geo: Arc<GeoDb>,
        agents: Agents,
    ) -> Result<Self, regex::Error> {
        let filter = config.url_filter.as_deref();
        let text_bytes_max = config.text_bytes_max;
        let domain = |domain: &String| domain.trim().trim_start_matches('.').to_lowercase();
        Ok(Self {
            keys,
            geo,
            agents,
            cleaner: enrich::url::Cleaner::new(
                filter,
                config.url_filter_match_group,
                text_bytes_max,
            )?,
            policy: enrich::privacy::Policy::new(config),
            bounds: build::Bounds { text_bytes_max, nesting_max: config.nesting_max },
            account_mixer: config.account_hash_mixer.clone(),
            domains: config.domains.iter().map(domain).filter(|d| !d.is_empty()).collect(),
            has_geo: config.geo_ip,
            has_regions: config.region_descriptions,
            event_bytes_max: config.event_bytes_max,
        })
    }

    /// The event that `hit` is.
    ///
    /// # Errors
    /// [`IntakeError::Invalid`], [`IntakeError::TooLarge`] or [`IntakeError::Private`].
    pub fn prepare(&self, hit: Hit) -> Result<Prepared, IntakeError> {
        self.prepare_as(Fact::Track, hit)
    }

    /// The `fact` that `hit` is.
    ///
    /// # Errors
    /// As [`Preparer::prepare`].
    pub fn prepare_as(&self, fact: Fact, mut hit: Hit) -> Result<Prepared, IntakeError> {
        let facts = believed(&hit);
        settle_tenant(&mut hit);
        if hit.length > self.event_bytes_max {
            return Err(IntakeError::TooLarge { length: hit.length, max: self.event_bytes_max });
        }
        if fact != Fact::Agreement && self.policy.forbids(&facts) {
            return Err(IntakeError::Private);
        }
        let (keys, bounds, fields) = (&self.keys, &self.bounds, &mut hit.fields);
        let special = match fact {
            Fact::Track => Special::None,
            Fact::Payment => Special::Payment(payment::take(fields, keys, bounds)?),
            Fact::Agreement => Special::Agreement(agreement::take(fields, keys, bounds)?),
        };
        let mut draft = build::build(hit, &self.keys, &self.bounds);
        enrich::url::check_account(&draft.said, &facts.host, &self.account_mixer)?;
        let is_time_replaced = draft.settle_time(facts.trusted);
        let (event, said) = (&mut draft.event, &draft.said);
        // A payment and an agreement make no visitor.
        let session = event.who.sid;
        enrich::identity::apply(event, said, facts.greeted, &self.keys);
        if fact != Fact::Track && event.who.is_new {
            (event.who.vid, event.who.sid, event.who.is_new) = (None, session, false);
        }
        let addresses = self.cleaner.apply(event, said, &facts);
        enrich::campaign::apply(event, &addresses, &self.domains);
        self.agents.apply(event, &facts, &self.keys);
        let found = self.has_geo.then(|| self.geo.lookup(facts.ip)).flatten().unwrap_or_default();
        enrich::geo::apply(event, found, self.has_regions);
        let mut event = match special {
            Special::None => draft.finish(),
            Special::Payment(lines) => payment::finish(draft, lines, &self.keys),
            Special::Agreement(agreement) => agreement::finish(draft, agreement),
        };
        self.policy.apply(&mut event, &facts, &self.keys);
        let agreed = event.consent.cflags.filter(|_| fact == Fact::Agreement);
        let may_set = fact == Fact::Track || agreed.is_some();
        let vid = event.who.vid.filter(|_| event.origin == Origin::Client && may_set);
        let domain = || cookie_domain(&facts.host);
        let cookie = vid.map(|vid| VisitorCookie { vid, domain: domain(), agreed });
        Ok(Prepared { event, cookie, is_time_replaced })
    }
}

/// The facts, with the address that a trusted sender names in `ip`: it speaks for a visitor whom it
/// served itself. From anyone else the field means nothing.
fn believed(hit: &Hit) -> Arc<RequestFacts> {
    let named = hit.fields.get("ip").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
    match named.filter(|_| hit.facts.trusted) {
        Some(ip) => Arc::new(RequestFacts { ip, ..(*hit.facts).clone() }),
        None => Arc::clone(&hit.facts),
    }
}

/// Puts the configured organisation in the place of the one that was said.
fn settle_tenant(hit: &mut Hit) {
    const FIELD: &str = "oid";
    match &hit.facts.tenant {
        Tenant::AsSaid => {}
        Tenant::Fixed(None) => drop(hit.fields.swap_remove(FIELD)),
        Tenant::Fixed(Some(organization)) => {
            hit.fields.insert(FIELD.to_owned(), Value::String(organization.clone()));
        }
    }
}

/// Takes hits. Shared by every connection.
pub struct Intake {
    preparer: Preparer,
    journal: Journal,
    metrics: Arc<Metrics>,
    keeps_raw: bool,
}

/// Bytes of malformed input that quarantine keeps, where it may.
const RAW_BYTES_MAX: usize = 4 << 10;
/// Bytes of the words beside it.
const MESSAGE_BYTES_MAX: usize = 512;

impl Intake {
    /// Reads the key in `config`, or makes it at first start, and starts to load what loads behind.
    ///
    /// # Errors
    /// When the key cannot be read or made, or an expression does not compile.
    pub fn open(
        config: &IntakeConfig,
        geo: Arc<GeoDb>,
        journal: Journal,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let keys = Keys::of(config)?;
        let preparer = Preparer::new(config, keys, geo, Agents::start())?;
        Ok(Self { preparer, journal, metrics, keeps_raw: config.quarantine_raw })
    }

    /// What takes hits after a change of settings; knows what this one knows about agents.
    ///
    /// # Errors
    /// As [`Intake::open`].
    pub fn successor(&self, config: &IntakeConfig, geo: Arc<GeoDb>) -> anyhow::Result<Self> {
        let keys = Keys::of(config)?;
        let preparer = Preparer::new(config, keys, geo, self.preparer.agents.clone())?;
        let (journal, metrics) = (self.journal.clone(), Arc::clone(&self.metrics));
        Ok(Self { preparer, journal, metrics, keeps_raw: config.quarantine_raw })
    }

    /// Build, enrich, privacy, encode, append; never waits. Counts the event and its outcome: a
    /// refusal at once, the journal's answer through [`crate::journal::Settle`].
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn accept(&self, hit: Hit) -> Result<Receipt, IntakeError> {
        self.accept_as(Fact::Track, hit)
    }

    /// As [`Intake::accept`], for any `fact`.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn accept_as(&self, fact: Fact, hit: Hit) -> Result<Receipt, IntakeError> {
        self.metrics.arrived();
        let accepted = self.preparer.prepare_as(fact, hit).and_then(|prepared| {
            if prepared.is_time_replaced {
                self.metrics.times_replaced.inc();
            }
            let pending = self.append(&prepared.event, settle_event)?;
            let agent = &prepared.event.agent;
            Ok(Receipt {
                id: prepared.event.id,
                pending,
                cookie: prepared.cookie,
                verdict: agent.verdict,
                is_prefetch: agent.reasons.iter().any(|reason| reason == enrich::PREFETCH),
                agreement: matches!(prepared.event.body, Body::Agreement(_))
                    .then(|| Box::new(prepared.event)),
            })
        });
        accepted.inspect_err(|error| self.metrics.refused(error.label()))
    }

    /// Sets malformed input aside (pixel, frame, batch item). `message` must not hold any of it.
    ///
    /// # Errors
    /// When the journal cannot take it.
    pub fn quarantine(
        &self,
        facts: &RequestFacts,
        reason: Reason,
        message: &str,
        raw: &[u8],
    ) -> Result<Receipt, IntakeError> {
        self.metrics.arrived();
        let set_aside = || {
            if self.preparer.policy.forbids(facts) {
                return Err(IntakeError::Private);
            }
            let event = self.set_aside(facts, reason, message, raw);
            let pending = self.append(&event, settle_quarantine(reason))?;
            Ok(Receipt {
                id: event.id,
                pending,
                cookie: None,
                verdict: event.agent.verdict,
                is_prefetch: false,
                agreement: None,
            })
        };
        set_aside().inspect_err(|error| self.metrics.refused(error.label()))
    }

    /// The id that stands for `text` in this installation, as fields are read; `None` where it is
    /// malformed or the zero id.
    pub fn id_of(&self, text: &str) -> Option<Uuid> {
        let value = Value::String(text.to_owned());
        build::id(value, &self.preparer.keys).ok().flatten().map(|(id, _)| id)
    }

    /// Appends that a short link was made or changed, for the organisation `oid` called `org`. Never
    /// waits. Gives the event too: whoever looks links up remembers it once it is durable.
    ///
    /// # Errors
    /// When the journal cannot take it.
    pub fn link(
        &self,
        facts: &RequestFacts,
        link: Link,
        oid: Option<OrgId>,
        org: Option<String>,
    ) -> Result<(Event, Pending), IntakeError> {
        self.metrics.book(|metrics| {
            metrics.events_received.inc();
            metrics.events_in_flight.inc();
        });
        let mut event = build::blank(facts, Origin::Server);
        event.id = EventId::generate();
        event.hhash = self.preparer.keys.hash(keys::Purpose::Host, &event.host);
        (event.who.oid, event.who.org) = (oid, org);
        event.body = Body::Link(Box::new(link));
        let appended = self.append(&event, settle_event);
        let pending = appended.inspect_err(|error| self.metrics.refused(error.label()))?;
        Ok((event, pending))
    }

    /// The installation's keys: for signatures, and for the ids that texts stand for.
    pub fn keys(&self) -> &Keys {
        &self.preparer.keys
    }

    /// Counts an event that the transport refused and told its sender about.
    pub fn refuse(&self, refusal: Refusal) {
        let label = match refusal {
            Refusal::Malformed => "malformed",
            Refusal::TooLarge => "too_large",
            Refusal::Forbidden => "forbidden",
            Refusal::Limited => "rate_limited",
            Refusal::Busy => "overloaded",
        };
        self.metrics.arrived();
        self.metrics.refused(label);
    }

    /// The visitor cookie that an event of this request would set; nothing is stored or counted.
    pub fn greet(&self, hit: Hit) -> Option<VisitorCookie> {
        self.preparer.prepare(hit).ok()?.cookie
    }

    fn append(&self, event: &Event, settle: Settle) -> Result<Pending, IntakeError> {
        let record = event::encode(event).map_err(|error| IntakeError::Invalid {
            field: "event".to_owned(),
            message: error.to_string(),
        })?;
        let max = self.preparer.event_bytes_max;
        self.journal.append(record, settle).map_err(|error| match error {
            AppendError::Busy => IntakeError::Busy,
            AppendError::Full => IntakeError::Full,
            AppendError::Failed => IntakeError::Failed,
            AppendError::TooLarge(length) => IntakeError::TooLarge { length, max },
        })
    }

    fn set_aside(&self, facts: &RequestFacts, reason: Reason, message: &str, raw: &[u8]) -> Event {
        let kept = raw.get(..RAW_BYTES_MAX).unwrap_or(raw);
        let kept = || fields::tidy(String::from_utf8_lossy(kept).into_owned(), RAW_BYTES_MAX);
        let mut event = build::blank(facts, Origin::Server);
        event.id = EventId::generate();
        event.body = Body::Quarantine(Box::new(Quarantine {
            reason,
            message: fields::tidy(message.to_owned(), MESSAGE_BYTES_MAX),
            length: raw.len() as u64,
            raw: self.keeps_raw.then(kept),
            sink: None,
            table: None,
        }));
        event
    }
}

impl IntakeError {
    /// The label under which a refusal is counted.
    fn label(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::Private => "privacy",
            Self::Busy => "overloaded",
            Self::Full => "journal_full",
            Self::Failed => "journal_failed",
        }
    }
}

/// Counts an event's outcome, once, when the journal knows it.
fn settle_event(metrics: &Metrics, outcome: Result<(), &AppendError>) {
    settle(metrics, outcome, |metrics| metrics.events_stored.inc());
}

/// The counter of a quarantine's outcome: a plain function for each reason.
fn settle_quarantine(reason: Reason) -> Settle {
    fn aside(metrics: &Metrics, outcome: Result<(), &AppendError>, reason: Reason) {
        settle(metrics, outcome, |metrics| {
            metrics.events_quarantined.inc();
            metrics.quarantined.with_label_values(&[reason.as_str()]).inc();
        });
    }
    match reason {
        Reason::Malformed => |metrics, outcome| aside(metrics, outcome, Reason::Malformed),
        Reason::Invalid => |metrics, outcome| aside(metrics, outcome, Reason::Invalid),
        Reason::TooLarge => |metrics, outcome| aside(metrics, outcome, Reason::TooLarge),
        Reason::Refused => |metrics, outcome| aside(metrics, outcome, Reason::Refused),
        Reason::Undecodable => |metrics, outcome| aside(metrics, outcome, Reason::Undecodable),
        Reason::Replayed => |metrics, outcome| aside(metrics, outcome, Reason::Replayed),
    }
}

fn settle(metrics: &Metrics, outcome: Result<(), &AppendError>, stored: impl Fn(&Metrics)) {
    let label = match outcome {
        Ok(()) => {
            return metrics.book(|metrics| {
                metrics.events_in_flight.dec();
                stored(metrics);
            });
        }
        Err(AppendError::Busy) => "overloaded",
        Err(AppendError::Full) => "journal_full",
        Err(AppendError::Failed) => "journal_failed",
        Err(AppendError::TooLarge(_)) => "too_large",
    };
    metrics.refused(label);
}

#[cfg(test)]
mod tests;
