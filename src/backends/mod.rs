//! The systems outside, one folder each, behind four small contracts: a backend shows what it can do
//! by what is present, never by "not implemented".

#[cfg(feature = "duckdb")]
pub mod duckdb;
pub mod memory;
mod sink;
mod store;

use std::sync::Arc;

pub use sink::{Batch, BoxError, Guarantee, Sink, SinkError};
pub use store::{Agreement, Link, Rows, Store, StoreError};

/// One configured system, with its abilities.
#[derive(Clone)]
pub struct Backend {
    /// Its name in metrics, `/health` and cursor files; unique in the process.
    pub name: String,
    /// The configured type, for example `duckdb`.
    pub kind: &'static str,
    /// Takes batches.
    pub sink: Option<Arc<dyn Sink>>,
    /// Answers questions.
    pub store: Option<Arc<dyn Store>>,
}
