//! What pruning asks of a store: find the rows that say too much for their age, and take it away.
//!
//! A job is cut into portions, so that a run shows how far it is and may be ended at any moment: a
//! row that a job has changed is not found by it again, so the next run goes on where this one was.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{BoxError, StoreError};
use crate::config::PruneAction;

/// Changes stored rows.
#[async_trait]
pub trait Pruner: Send + Sync {
    /// The tables whose rows have an age.
    fn tables(&self) -> Vec<String>;

    /// The portions of `job` in which there would be something to do if `after` were done, in order;
    /// asks, and changes nothing. Of `after`, whose portions were found so, other tables' are skipped.
    ///
    /// # Errors
    /// [`PruneError::Unfit`] when the store can never do what is asked.
    async fn portions(&self, job: &Job, after: &[Job]) -> Result<Vec<Portion>, PruneError>;

    /// Does the job in one portion; returns after it is done. Calls `waiting` now and then with what
    /// is left, in parts of the store's own kind.
    ///
    /// # Errors
    /// When the store gave up or cannot be asked; what is done stays done.
    async fn apply(
        &self,
        job: &Job,
        portion: &Portion,
        waiting: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PruneError>;

    /// What else holds the values that `job` takes away, and is not derived from its rows anew.
    fn followers(&self, job: &Job) -> Vec<Job>;
}

/// What becomes of the rows of one table that are old enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The setting that asks for it.
    pub why: String,
    /// The table.
    pub table: String,
    /// Rows of moments before this one.
    pub before: DateTime<Utc>,
    /// Rows of moments before this one are left alone.
    pub not_before: Option<DateTime<Utc>>,
    /// Rows that share one of these consent flags are left alone.
    pub spared_flags: i64,
    /// What becomes of the others.
    pub action: PruneAction,
    /// For hashes that stand in for values.
    pub key: PruneKey,
}

/// The key of hashes that stand in for values; printed as `***`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneKey(pub [u8; 32]);

impl fmt::Debug for PruneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A part of a table in which a job has something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portion {
    /// The store's name for it, for example a month.
    pub name: String,
    /// Rows to be changed.
    pub rows: u64,
}

/// Why a job is not done: one variant for each reaction.
#[derive(Debug, Error)]
pub enum PruneError {
    /// It can never be: the rule has to be changed. The text says how.
    #[error("{0}")]
    Unfit(String),
    /// The store gave up in the middle.
    #[error("the store gave up: {0}")]
    GaveUp(String),
    /// The store cannot be asked now.
    #[error("the store cannot answer")]
    Unavailable(#[source] BoxError),
}

impl From<StoreError> for PruneError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => Self::Unavailable(source),
            other => Self::Unavailable(other.into()),
        }
    }
}
