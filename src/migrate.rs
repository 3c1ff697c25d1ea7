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
        BackendConfig::ClickHouse(config) => Err(MigrateError {
            name: config.name.clone(),
            source: StoreError::Unavailable("not in this version yet".into()),
        }),
        #[cfg(not(feature = "duckdb"))]
        BackendConfig::DuckDb(config) => Err(MigrateError {
            name: config.name.clone(),
            source: StoreError::Unavailable("this program was built without DuckDB".into()),
        }),
    }
}

#[cfg(all(test, feature = "duckdb"))]
mod tests {
    use std::fmt::Write;

    use crate::backends::duckdb::MIGRATIONS;

    /// SHA-256 of each file as it was released. A line is added with a file and never changed: a
    /// store that has applied the old text would never see the new one.
    const RELEASED: &[(&str, &str)] = &[
        ("0001_core", "9e88d270f492da927507383de61f33c826ced8ef7c10da36dc17ab8cab6d9845"),
        ("0002_payments", "5d167d20d330d93672e0c5cb49a867a5c7764e896174738e156d61cbeecb00fa"),
        ("0003_ingest", "ab76dfd80918196a5b02ee7cb551413612e1b82c83219e8ddca28edc176bb212"),
    ];

    #[test]
    fn released_files_are_as_they_were() {
        let found: Vec<(String, String)> = MIGRATIONS
            .iter()
            .map(|step| {
                let digest =
                    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, step.text.as_bytes());
                let hash = digest.as_ref().iter().fold(String::new(), |mut hash, byte| {
                    write!(hash, "{byte:02x}").unwrap();
                    hash
                });
                (format!("{:04}_{}", step.number, step.name), hash)
            })
            .collect();
        let expect: Vec<(String, String)> =
            RELEASED.iter().map(|&(name, hash)| (name.to_owned(), hash.to_owned())).collect();
        assert_eq!(found, expect);
    }
}
