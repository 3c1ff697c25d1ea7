//! What a visitor agreed to: the fact behind the tables `agreements` and `agreed`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ids::OtherId;

/// A consent. The flags, the visitor and the place are the event's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// The agreement's version, as the sender names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avid: Option<OtherId>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<OtherId>,
    /// Which rules it is about, as sent.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub compliances: Map<String, Value>,
    /// Where, as sent.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub loc: Map<String, Value>,
}
