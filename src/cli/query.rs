//! `tracker query`: one read-only question to the first store.
//!
//! A running server is asked through its control socket, because only one process may have the
//! file of an embedded store open for writing. Without a server that file is opened read-only, and
//! a store that is a server itself is asked directly.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::format::{self, Format};
use super::{answering, load, runtime, socket};
use crate::backends::{Rows, clickhouse};
use crate::clock::SystemClock;
use crate::config::{BackendConfig, DuckDbConfig};
use crate::http::control::{AskError, ask};

/// Arguments of `tracker query`.
#[derive(Debug, Clone, Args)]
pub(super) struct QueryArguments {
    /// One statement that reads, for example: select count(*) from events
    sql: String,
    /// How rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Most rows to print; `QueryMaxRows` of the configuration is the upper bound.
    #[arg(long)]
    rows_max: Option<usize>,
    /// Configuration file.
    #[arg(long, default_value = "config.json")]
    config: PathBuf,
}

/// Asks, prints, and says on standard error when rows were cut.
pub(super) fn run(
    arguments: &QueryArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let config = load(&arguments.config, env)?.config;
    let store = answering(&config)?;
    let (rows_bound, _) = store.query_bounds();
    let rows_max = arguments.rows_max.unwrap_or(rows_bound).min(rows_bound);
    let question = json!({ "sql": arguments.sql, "rows_max": rows_max });
    let runtime = runtime()?;
    let answer = runtime.block_on(ask(&socket(&config), "/query", &question));
    let rows: Rows = match answer {
        Ok(rows) => serde_json::from_value(rows).context("reading the server's answer")?,
        Err(AskError::Nobody(_)) => match store {
            BackendConfig::DuckDb(store) => offline(store, &arguments.sql, rows_max)?,
            BackendConfig::ClickHouse(settings) => {
                let store = clickhouse::store(settings, Arc::new(SystemClock))?;
                let asked = store.query(&arguments.sql, rows_max, settings.query_time_max);
                runtime.block_on(asked).with_context(|| format!("asking {}", settings.name))?
            }
        },
        Err(error) => return Err(error).context("asking the running server"),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = format::write(&rows, arguments.format, &mut out).and_then(|()| out.flush());
    match written {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        other => other.context("writing the answer")?,
    }
    if rows.truncated {
        eprintln!(
            "only the first {} rows; --rows-max and QueryMaxRows bound them",
            rows.rows.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "duckdb")]
fn offline(store: &DuckDbConfig, sql: &str, rows_max: usize) -> anyhow::Result<Rows> {
    let rows =
        crate::backends::duckdb::query_file(&store.path, sql, rows_max, store.query_time_max);
    rows.with_context(|| format!("no server runs; asking {}", store.path.display()))
}

#[cfg(not(feature = "duckdb"))]
fn offline(store: &DuckDbConfig, _sql: &str, _rows_max: usize) -> anyhow::Result<Rows> {
    anyhow::bail!(
        "no server runs, and this program was built without DuckDB to open {}",
        store.path.display()
    )
}
