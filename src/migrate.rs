//! Brings a store's schema up to this program's, as `tracker migrate` asks for.
//!
//! The steps are files in `schema/<store>/`, numbered, embedded, applied in order and never edited
//! after a release: a test keeps their hashes. DuckDB also migrates whenever it is opened, and
//! ClickHouse when its database is empty.

use thiserror::Error;

use crate::backends::StoreError;
use crate::config::BackendConfig;

/// What was done to one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The store's configured name.
    pub name: String,
    /// Schema number before, 0 for an empty store, and now. `None` when it was left to the running
    /// tracker that has the file.
    pub schema: Option<(i32, i32)>,
    /// What else was done; for people.
    pub notes: Vec<String>,
    /// What of the store does not fit and was left as it is, so that rows would be refused, or not
    /// kept whole; for people.
    pub unfit: Vec<String>,
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

/// Applies what is missing in the store of `config`; blocks while an embedded one is worked on.
///
/// # Errors
/// When the store cannot be opened or a step fails. A step of an embedded store leaves nothing
/// behind then; those of ClickHouse are simply repeated.
pub async fn migrate(config: &BackendConfig) -> Result<Report, MigrateError> {
    let name = config.name().to_owned();
    let report = match config {
        #[cfg(feature = "duckdb")]
        BackendConfig::DuckDb(config) => {
            crate::backends::duckdb::migrate_file(config).map(|done| Report {
                name: name.clone(),
                schema: done.map(|done| (done.from, done.to)),
                notes: vec![],
                unfit: vec![],
            })
        }
        #[cfg(not(feature = "duckdb"))]
        BackendConfig::DuckDb(_) => {
            Err(StoreError::Unavailable("this program was built without DuckDB".into()))
        }
        BackendConfig::ClickHouse(config) => {
            crate::backends::clickhouse::migrate_database(config).await.map(|done| Report {
                name: name.clone(),
                schema: Some((done.from, done.to)),
                notes: done.remarks.notes,
                unfit: done.remarks.unfit,
            })
        }
    };
    report.map_err(|source| MigrateError { name, source })
}

/// The statements that make the schema of a store which an operator may have to make by hand; none
/// for an embedded one.
pub fn statements(config: &BackendConfig) -> Vec<String> {
    match config {
        BackendConfig::DuckDb(_) => Vec::new(),
        BackendConfig::ClickHouse(config) => crate::backends::clickhouse::statements(config),
    }
}

#[cfg(all(test, feature = "duckdb"))]
mod tests {
    use std::fmt::Write;

    use crate::backends::{clickhouse, duckdb};

    /// SHA-256 of each file as it was released. A line is added with a file and never changed: a
    /// store that has applied the old text would never see the new one.
    const RELEASED: &[(&str, &str)] = &[
        ("0001_core", "9e88d270f492da927507383de61f33c826ced8ef7c10da36dc17ab8cab6d9845"),
        ("0002_payments", "5d167d20d330d93672e0c5cb49a867a5c7764e896174738e156d61cbeecb00fa"),
        ("0003_ingest", "ab76dfd80918196a5b02ee7cb551413612e1b82c83219e8ddca28edc176bb212"),
    ];

    /// The same for ClickHouse.
    const RELEASED_CLICKHOUSE: &[(&str, &str)] = &[
        ("0001_core", "f9bec059fc2bdd2bad0b51795f2e936a490331fb15752c3dcbec89f4ac5b86d1"),
        ("0002_derived", "e38c738b12bd94d49203b8a6af54b4abc5ee58ccd58a373fccd78ed3920bf778"),
    ];

    fn check<'t>(files: impl Iterator<Item = (i32, &'t str, &'t str)>, released: &[(&str, &str)]) {
        let found: Vec<(String, String)> = files
            .map(|(number, name, text)| {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
                let hash = digest.as_ref().iter().fold(String::new(), |mut hash, byte| {
                    let _ = write!(hash, "{byte:02x}");
                    hash
                });
                (format!("{number:04}_{name}"), hash)
            })
            .collect();
        let expect: Vec<(String, String)> =
            released.iter().map(|&(name, hash)| (name.to_owned(), hash.to_owned())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn released_files_are_as_they_were() {
        let steps = duckdb::MIGRATIONS.iter().map(|step| (step.number, step.name, step.text));
        check(steps, RELEASED);
        check(clickhouse::steps(), RELEASED_CLICKHOUSE);
    }
}
