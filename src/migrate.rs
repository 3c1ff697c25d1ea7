//! Brings a store's schema up to this program's, as `tracker migrate` asks for.
//!
//! The steps are files in `schema/<store>/`, numbered, embedded, applied in order and never edited
//! after a release: a test keeps their hashes. DuckDB also migrates whenever it is opened.

use thiserror::Error;

use crate::backends::StoreError;
use crate::config::BackendConfig;

/// What was done to one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The store's configured name.
    pub name: String,
    /// Schema number before; 0 for an empty store.
    pub from: i32,
    /// Schema number now.
    pub to: i32,
}

/// A store that could not be migrated.
#[derive(Debug, Error)]
#[error("migrating {name}")]
pub struct MigrateError {
    /// The store's configured name.
    pub name: String,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// Applies what is missing in the store of `config`. Blocks; no server may run on an embedded one.
///
/// # Errors
/// When the store cannot be opened or a step fails, which then leaves nothing behind.
pub fn migrate(config: &BackendConfig) -> Result<Report, MigrateError> {
    match config {
        #[cfg(feature = "duckdb")]
        BackendConfig::DuckDb(config) => {
            let applied = crate::backends::duckdb::migrate_file(config)
                .map_err(|source| MigrateError { name: config.name.clone(), source })?;
            Ok(Report { name: config.name.clone(), from: applied.from, to: applied.to })
        }
        #[cfg(not(feature = "duckdb"))]
        BackendConfig::DuckDb(config) => Err(MigrateError {
            name: config.name.clone(),
            source: StoreError::Unavailable("this program was built without DuckDB".into()),
        }),
    }
}
