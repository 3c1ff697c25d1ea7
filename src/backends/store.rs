//! What the routes ask of a system: small, bounded questions, each with an answer or a clear failure.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Account, AccountChange, BoxError};
use crate::event::{OrgId, UserId, VisitorId};

/// Answers questions.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The short link `from` (host without port, and path).
    async fn redirect(&self, from: &str) -> Result<Option<ShortLink>, StoreError>;
    /// Short links with this path on any host; two are enough to know that there are several.
    async fn redirects_at(&self, path: &str) -> Result<Vec<ShortLink>, StoreError>;
    /// Every change of a link of `host`, newest first; of one organisation's links, or of all.
    async fn redirects(&self, host: &str, of: Option<OrgId>) -> Result<Vec<Link>, StoreError>;
    /// What `visitor` agreed to, newest first.
    async fn agreements(&self, visitor: VisitorId) -> Result<Vec<Agreement>, StoreError>;
    /// The regulations in force.
    async fn jurisdictions(&self) -> Result<Vec<Map<String, Value>>, StoreError>;
    /// The account `uid`, unless it has expired.
    async fn account(&self, uid: UserId) -> Result<Option<Account>, StoreError>;
    /// Every account.
    async fn accounts(&self) -> Result<Vec<Account>, StoreError>;
    /// Makes a change of the accounts; durable when it returns. False when there was nothing to
    /// change.
    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError>;
    /// The rows of a read-only query, within the bounds given; more than `rows_max` rows are cut
    /// and said so in [`Rows::truncated`].
    async fn query(
        &self,
        sql: &str,
        rows_max: usize,
        time_max: Duration,
    ) -> Result<Rows, StoreError>;
}

/// Why a question has no answer: one variant for each reaction.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The question itself is wrong; the text says how.
    #[error("{0}")]
    Invalid(String),
    /// It took longer than it may.
    #[error("the query took longer than {0:?}")]
    Timeout(Duration),
    /// The store cannot answer now.
    #[error("the store cannot answer")]
    Unavailable(#[source] BoxError),
}

/// A short link as a visit needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortLink {
    /// Host without port and path, lower case.
    pub urlfrom: String,
    /// Where it leads.
    pub urlto: String,
    /// Whose it is.
    pub oid: Option<OrgId>,
    /// That organisation's name.
    pub org: Option<String>,
}

impl ShortLink {
    /// From columns of `redirects` by name.
    pub(super) fn of_row(row: &Map<String, Value>) -> Self {
        Self {
            urlfrom: text(row, "urlfrom").unwrap_or_default(),
            urlto: text(row, "urlto").unwrap_or_default(),
            oid: text(row, "oid").and_then(|oid| oid.parse().ok()),
            org: text(row, "org"),
        }
    }
}

/// A column of a row, where it is a text.
pub(super) fn text(row: &Map<String, Value>, column: &str) -> Option<String> {
    row.get(column).and_then(Value::as_str).map(str::to_owned)
}

/// A short link as its owner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Columns of `redirect_history`.
    pub fields: Map<String, Value>,
}

/// One agreement.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Columns of `agreements`.
    pub fields: Map<String, Value>,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Rows {
    /// Column names in order.
    pub columns: Vec<String>,
    /// Rows in order, each as wide as `columns`.
    pub rows: Vec<Vec<Value>>,
    /// There were more rows than asked for.
    pub truncated: bool,
}
