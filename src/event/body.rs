//! The part of an event that only its kind of fact has. A new variant lights up every `match`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::agreement::Agreement;
use super::ids::{OtherId, UserId};
use super::payment::Payments;

/// What kind of fact it is, with the fields of that kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Something a visitor or a server did.
    Track(Box<Track>),
    /// Something was paid or given back.
    Payment(Box<Payments>),
    /// A visitor agreed to something, or took it back.
    Agreement(Box<Agreement>),
    /// A short link was made or changed.
    Link(Box<Link>),
    /// Input or a row that could not take the ordinary way.
    Quarantine(Box<Quarantine>),
}

/// An ordinary tracked event.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Track {
    /// Event name, folded to lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ename: Option<String>,
    /// Event type, folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etyp: Option<String>,
    /// Outcome reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Score given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Where the visitor was heading (contract: `sink`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// What `rid` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// Related thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<OtherId>,
    /// Thread or campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<OtherId>,
    /// Invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoice_id: Option<OtherId>,
    /// Targets, as sent.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub targets: Map<String, Value>,
    /// The client's own counter; gaps measure loss before us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// The message-system fields of an event with a `tid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Box<Thread>>,
}

/// What an event with a `tid` and a name says about its thread: the sources of the tables
/// `mthreads`, `mstore`, `mtriage` and `impression_daily`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// The thread.
    pub tid: OtherId,
    /// The message, made here.
    pub mid: OtherId,
    /// Fields by the column names of those tables, as sent.
    pub fields: Map<String, Value>,
}

/// A short link as it was made or changed; whose it is stands in [`super::Who`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is found by: host without port and path, decoded, in lower case.
    pub urlfrom: String,
    /// The host of `urlfrom`.
    pub hostfrom: String,
    /// The path of `urlfrom`.
    pub slugfrom: String,
    /// Where it leads, case kept.
    pub urlto: String,
    /// The host of `urlto`.
    pub hostto: String,
    /// The path of `urlto`.
    pub pathto: String,
    /// The query of `urlto`, or what its maker named so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searchto: Option<String>,
    /// Whose account made the change.
    pub updater: UserId,
}

/// Something set aside with its reason, so that nothing is lost without a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Why, from a closed set.
    pub reason: Reason,
    /// The words for a person: the parser's or the store's message.
    pub message: String,
    /// Bytes of the input, whether or not they are kept.
    pub length: u64,
    /// The input or row itself, where it may be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The sink that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// The table it was meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// Why something is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not readable as JSON, a query or a frame.
    Malformed,
    /// Readable, but not an event.
    Invalid,
    /// Above a bound.
    TooLarge,
    /// A store refused the row for good.
    Refused,
    /// A record of the journal could not be decoded.
    Undecodable,
    /// No input: marks that the refused row named in the message was put back.
    Replayed,
}

impl Reason {
    /// Every reason, for metrics that must exist from the start.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Invalid,
        Self::TooLarge,
        Self::Refused,
        Self::Undecodable,
        Self::Replayed,
    ];

    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Undecodable => "undecodable",
            Self::Replayed => "replayed",
        }
    }
}
