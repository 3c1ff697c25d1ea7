//! Identifiers as types, so that a visitor can never be stored where a session belongs.
//!
//! Any UUID is accepted as input in any of its usual spellings; identifiers made here are version 7
//! (RFC 9562), which sort by time and reveal no hardware address.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A UUID that names one kind of thing.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

/// What an [`Id`] can name; these types carry no data.
pub mod kind {
    /// One event, for ever; also the deduplication key of sinks outside.
    pub enum Event {}
    /// One browser or device, as the visitor cookie knows it.
    pub enum Visitor {}
    /// One visit.
    pub enum Session {}
    /// One signed-in user, as the site knows them.
    pub enum User {}
    /// One organisation (tenant).
    pub enum Org {}
    /// Anything else that the contract stores as a UUID: thread, author, invoice, referral.
    pub enum Other {}
}

/// Names one event.
pub type EventId = Id<kind::Event>;
/// Names one visitor.
pub type VisitorId = Id<kind::Visitor>;
/// Names one session.
pub type SessionId = Id<kind::Session>;
/// Names one user.
pub type UserId = Id<kind::User>;
/// Names one organisation.
pub type OrgId = Id<kind::Org>;
/// Names something whose kind the tracker does not interpret.
pub type OtherId = Id<kind::Other>;

impl<K> Id<K> {
    /// A new version 7 identifier.
    pub fn generate() -> Self {
        Self::from(Uuid::now_v7())
    }

    /// The bare UUID, for drivers and encoders.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl<K> Default for Id<K> {
    /// The zero id, which stands for nothing.
    fn default() -> Self {
        Self::from(Uuid::nil())
    }
}

impl<K> From<Uuid> for Id<K> {
    fn from(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
}

impl<K> FromStr for Id<K> {
    type Err = uuid::Error;

    /// Reads hyphenated, simple, braced and URN spellings.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim()).map(Self::from)
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Id<K> {}

impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Id<K> {}

impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_of_a_uuid_is_the_same_id() {
        let plain: VisitorId = "14fb0860-b4bf-11e9-8971-7b80435315ac".parse().unwrap();
        for text in [
            "14FB0860-B4BF-11E9-8971-7B80435315AC",
            "14fb0860b4bf11e989717b80435315ac",
            "{14fb0860-b4bf-11e9-8971-7b80435315ac}",
            "urn:uuid:14fb0860-b4bf-11e9-8971-7b80435315ac",
            " 14fb0860-b4bf-11e9-8971-7b80435315ac ",
        ] {
            assert_eq!(text.parse::<VisitorId>().unwrap(), plain, "{text}");
        }
        assert!("user-123".parse::<VisitorId>().is_err());
    }

    #[test]
    fn a_generated_id_is_version_7() {
        assert_eq!(EventId::generate().uuid().get_version_num(), 7);
    }
}
