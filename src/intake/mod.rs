//! From request facts to a durable event: build, enrich, privacy, encode, append.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::clock::Clock;
use crate::config::IntakeConfig;
use crate::event::{EventId, Origin, Reason, VisitorId};
use crate::geo::GeoDb;
use crate::journal::{Journal, Pending};
use crate::telemetry::Metrics;

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
pub struct RequestFacts {
    /// When the head had arrived.
    pub received_at: DateTime<Utc>,
    /// The client's address behind trusted proxies only.
    pub ip: IpAddr,
    /// The peer is loopback or a trusted proxy: its word on time is believed (D27).
    pub trusted: bool,
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
    /// `Sec-GPC: 1`.
    pub gpc: bool,
    /// `DNT: 1`.
    pub dnt: bool,
    /// Other headers the bot classifier looks at, lower-case names: accept, accept-encoding,
    /// sec-fetch-site, sec-fetch-mode, sec-fetch-dest, sec-purpose, from, x-purpose, sec-ch-ua,
    /// sec-ch-ua-mobile, sec-ch-ua-platform.
    pub hints: BTreeMap<&'static str, String>,
}

/// An event that was taken.
pub struct Receipt {
    /// Its id: the caller's or a new one.
    pub id: EventId,
    /// Resolves when it is durable.
    pub pending: Pending,
    /// The visitor cookie to set: present for client events whose visitor may be remembered.
    pub cookie: Option<VisitorCookie>,
}

/// What the answer should set (D4, §2.7): built by the HTTP layer into one `Set-Cookie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitorCookie {
    /// The visitor.
    pub vid: VisitorId,
    /// Registrable domain by the public suffix list; `None` = host-only cookie.
    pub domain: Option<String>,
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

/// Takes hits.
pub struct Intake {}

impl Intake {
    /// Reads keys and databases named in `config`.
    ///
    /// # Errors
    /// When a key, expression or database cannot be read.
    pub fn open(
        _config: &IntakeConfig,
        _geo: Arc<GeoDb>,
        _journal: Journal,
        _clock: Arc<dyn Clock>,
        _metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        unimplemented!()
    }
    /// Build, enrich, privacy, encode, append; never waits. Counts the event and its outcome: a
    /// refusal at once, the journal's answer through [`crate::journal::Settle`].
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn accept(&self, _hit: Hit) -> Result<Receipt, IntakeError> {
        unimplemented!()
    }
    /// Sets malformed input aside (pixel, frame, batch item).
    ///
    /// # Errors
    /// When the journal cannot take it.
    pub fn quarantine(
        &self,
        _facts: &RequestFacts,
        _reason: Reason,
        _message: &str,
        _raw: &[u8],
    ) -> Result<Receipt, IntakeError> {
        unimplemented!()
    }
}
