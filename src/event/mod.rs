//! The fact, typed: what the journal holds and what every table is computed from.
//!
//! An [`Event`] is complete, enriched and already stripped of what privacy forbids. It knows no
//! transport, no store and no setting. Fields keep the names of the `events` table
//! (contract of the tracker, chapter 4), grouped by what they are about.

mod agreement;
mod body;
mod codec;
mod glance;
mod ids;
mod money;
mod payment;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use agreement::Agreement;
pub use body::{Body, Link, Quarantine, Reason, Thread, Track};
pub use codec::{DecodeError, EncodeError, decode, encode};
pub use glance::Glance;
pub use ids::{EventId, Id, OrgId, OtherId, SessionId, UserId, VisitorId, kind};
pub use money::Money;
pub use payment::{Credit, Holder, Payment, Payments};

/// One fact about one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The caller's `eid` where it is any UUID, else version 7.
    pub id: EventId,
    /// When this server took it, by its own clock.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub received_at: DateTime<Utc>,
    /// When it happened: the caller's word where it may be believed, else `received_at`.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub created_at: DateTime<Utc>,
    /// Whether a visitor's own client sent it.
    pub origin: Origin,
    /// The host it was sent to, lower case, without port; empty when none was named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Keyed hash of `host`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hhash: String,
    /// Whose event it is.
    #[serde(default)]
    pub who: Who,
    /// Where on the site or in the application.
    #[serde(default)]
    pub page: Page,
    /// What brought the visitor.
    #[serde(default)]
    pub campaign: Campaign,
    /// With what it was sent.
    #[serde(default)]
    pub agent: Agent,
    /// Where in the world.
    #[serde(default)]
    pub place: Place,
    /// What the visitor allowed.
    #[serde(default)]
    pub consent: Consent,
    /// Custom fields with their case and JSON types, as sent.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// The part that only this kind of fact has.
    pub body: Body,
    /// Set on an event that was put back after one store refused it: only that store lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aim: Option<Aim>,
    /// Where the journal holds it. Not part of the stored bytes: the reader knows it.
    #[serde(skip)]
    pub ingest: Ingest,
}

/// The one place an event still has to go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aim {
    /// The sink's configured name.
    pub sink: String,
    /// The table.
    pub table: String,
}

impl Event {
    /// One that says no more than this, of nobody and nowhere; its id is nil.
    pub fn bare(received_at: DateTime<Utc>, body: Body) -> Self {
        Self {
            id: uuid::Uuid::nil().into(),
            received_at,
            created_at: received_at,
            origin: Origin::default(),
            host: String::new(),
            hhash: String::new(),
            who: Who::default(),
            page: Page::default(),
            campaign: Campaign::default(),
            agent: Agent::default(),
            place: Place::default(),
            consent: Consent::default(),
            params: Map::new(),
            body,
            aim: None,
            ingest: Ingest::default(),
        }
    }

    /// Whether `table` in `sink` is to have it.
    pub fn is_for(&self, sink: &str, table: &str) -> bool {
        self.aim.as_ref().is_none_or(|aim| aim.sink == sink && aim.table == table)
    }
}

/// Where in which journal an event stands; with it a store can be audited by range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ingest {
    /// The journal's identity.
    pub node: Arc<str>,
    /// The position in that journal, from 1.
    pub seq: u64,
}

/// Who spoke: a visitor's client or a server on their behalf (decides cookie and visitor tables).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Routes `tr img ws xrdr pub` and plain short links.
    #[default]
    Client,
    /// Routes `str rdr` and tracked links.
    Server,
}

impl Origin {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Whose event it is. Every field is absent rather than zero when unknown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    /// Visitor: sent, from the cookie, or made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vid: Option<VisitorId>,
    /// True when `vid` was made here: the visitor's first event.
    #[serde(skip_serializing_if = "is_false")]
    pub is_new: bool,
    /// Session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// Signed-in user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<UserId>,
    /// Organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<OrgId>,
    /// Organisation's name, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Author (`auth_id`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_id: Option<OtherId>,
    /// Device (`did`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<OtherId>,
    /// Hash of the e-mail address; the address itself is never kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ehash: Option<String>,
    /// Hash of the telephone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chash: Option<String>,
    /// Hash of the user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nhash: Option<String>,
    /// Google advertising id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaid: Option<String>,
    /// Apple advertising id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idfa: Option<String>,
    /// Microsoft advertising id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msid: Option<String>,
    /// Facebook id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fbid: Option<String>,
}

/// Where on the site or in the application it happened.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// Scheme, host and path; no query, no fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The page before, in the same form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Application name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Application release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel: Option<String>,
    /// Page type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ptyp: Option<String>,
    /// Version of the experiment or page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ver: Option<i32>,
    /// Viewport width, CSS pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vp_w: Option<i64>,
    /// Viewport height, CSS pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vp_h: Option<i64>,
    /// Milliseconds, as the client measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<i64>,
}

/// What brought the visitor here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Campaign {
    /// `utm_source`, folded to lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `utm_medium`, folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// `utm_campaign`, folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// `utm_content`, folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// `utm_term`, folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// Affiliate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aff: Option<String>,
    /// Referral code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// Who referred: the contract's UUID `ref`, not a referrer.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub referral: Option<OtherId>,
    /// Channel group, for example `organic_search`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Which click id was present (`gclid` …); its value stays in `params` where consent allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub click: Option<String>,
    /// Experiment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<String>,
    /// Experiment's split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Bandit arm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm_id: Option<String>,
    /// Marketing campaign id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcid: Option<String>,
}

/// What sent it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// The header's text as sent, at most 512 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Keyed hash of the user agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bhash: Option<String>,
    /// Browser family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<String>,
    /// Operating system: sent, else read from the user agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Device: sent, else read from the user agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `desktop`, `mobile`, `tablet`, `tv` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// First language the client asked for, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub culture: Option<String>,
    /// Header fingerprint in the contract's form `a_b_c_d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4h: Option<String>,
    /// Human or which machine.
    pub verdict: Verdict,
    /// Why the verdict was given: short words from a closed set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// Human, or which kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No sign of a machine.
    #[default]
    Human,
    /// Search engines, feed readers, libraries.
    Crawler,
    /// Crawlers and agents of language models.
    AiCrawler,
    /// Link previews of messengers and networks.
    Preview,
    /// Security and mail scanners.
    Scanner,
    /// Uptime monitors.
    Monitor,
    /// Automated browsers.
    Headless,
    /// Mail clients' image proxies.
    ProxyOpen,
}

impl Verdict {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Crawler => "crawler",
            Self::AiCrawler => "ai_crawler",
            Self::Preview => "preview",
            Self::Scanner => "scanner",
            Self::Monitor => "monitor",
            Self::Headless => "headless",
            Self::ProxyOpen => "proxy_open",
        }
    }
}

/// Where in the world, as far as it may be known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The address, cut to its network unless configured otherwise; absent when it may not be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    /// Keyed hash of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iphash: Option<String>,
    /// ISO 3166-1 alpha-2, upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Region, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// City, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Postal code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zip: Option<String>,
    /// Degrees north.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    /// Degrees east.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
    /// IANA time zone, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
}

/// What the visitor allowed or refused.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Consent {
    /// Consent bits; their meaning is the deployment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cflags: Option<i64>,
    /// Global Privacy Control was on.
    #[serde(skip_serializing_if = "is_false")]
    pub gpc: bool,
    /// Do Not Track was on.
    #[serde(skip_serializing_if = "is_false")]
    pub dnt: bool,
    /// Sinks for advertising may have it.
    #[serde(skip_serializing_if = "is_false")]
    pub advertising: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
