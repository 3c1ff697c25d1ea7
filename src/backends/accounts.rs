//! One account that may make short links, as stores keep it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::store::text;
use crate::event::{OrgId, UserId};

/// Who may make and list short links.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub uid: UserId,
    /// Hash of its password: Argon2id in PHC form, or the Go tracker's SHA-1.
    pub password_hash: String,
    /// The organisation whose links it may see and change; `None`: those of all.
    pub organisation: Option<OrgId>,
    /// When it ends.
    pub expires: Option<DateTime<Utc>>,
    /// When it was made, or got its present password.
    pub updated_at: DateTime<Utc>,
}

impl Account {
    /// From columns of `accounts` by name. `None` for a removed account, and for one without a name,
    /// which nobody can use.
    pub(super) fn of_row(row: &Map<String, Value>) -> Option<Self> {
        let time = |column| text(row, column)?.parse::<DateTime<Utc>>().ok();
        Some(Self {
            uid: text(row, "uid")?.parse().ok()?,
            password_hash: text(row, "pwd")?,
            organisation: text(row, "owner").and_then(|owner| owner.parse().ok()),
            expires: time("expires"),
            updated_at: time("updated_at").unwrap_or_default(),
        })
    }
}

/// Without the hash, which is a secret.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("uid", &self.uid)
            .field("organisation", &self.organisation)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A change of the accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountChange {
    /// Adds it, unless there is one of its name, ended or not.
    Add(Account),
    /// Adds it, or replaces the one of its name.
    Put(Account),
    /// Removes the one of that name.
    Remove(UserId),
}

impl AccountChange {
    /// The account it is about.
    pub(super) fn uid(&self) -> UserId {
        match self {
            Self::Add(account) | Self::Put(account) => account.uid,
            Self::Remove(uid) => *uid,
        }
    }
}
