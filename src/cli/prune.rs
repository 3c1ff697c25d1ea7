//! `tracker prune`: takes away what stored rows no longer may say, and shows how far it is.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use chrono::Utc;
use clap::Args;

use super::{load, runtime};
use crate::backends::{self, Job};
use crate::config::{BackendConfig, PruneAction, PruneConfig};
use crate::intake::Keys;
use crate::prune::{Step, Summary, jobs, prune};

/// Arguments of `tracker prune`.
#[derive(Debug, Clone, Args)]
pub(super) struct PruneArguments {
    /// Configuration file.
    #[arg(long, default_value = "config.json")]
    config: PathBuf,
    /// Change nothing: count the rows that would be changed.
    #[arg(long)]
    dry_run: bool,
    /// Only log lines.
    #[arg(long)]
    logs_only: bool,
}

impl PruneArguments {
    /// Those of the documented form, `tracker --prune [--logs-only] config.json`.
    pub(super) fn documented(config: PathBuf, logs_only: bool) -> Self {
        Self { config, dry_run: false, logs_only }
    }
}

/// Prunes every configured store, one after the other; fails when something could not be done.
pub(super) fn run(
    arguments: &PruneArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let config = load(&arguments.config, env)?.config;
    let intake = &config.intake;
    let keys = Keys::open(&intake.keys_directory, intake.hash_mode, &intake.prefix_private_hash)
        .context("reading the installation's key")?;
    let mut failures = 0;
    for backend in &config.backends {
        failures += of_store(backend, &config.prune, keys.pruning(), arguments)?;
    }
    if failures > 0 {
        println!("{failures} not done");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prunes one store; how many jobs were not done.
fn of_store(
    backend: &BackendConfig,
    config: &PruneConfig,
    key: [u8; 32],
    arguments: &PruneArguments,
) -> anyhow::Result<usize> {
    let name = backend.name();
    let pruner = match backends::pruner(backend, key) {
        Ok(pruner) => pruner,
        Err(error) => {
            println!("{name}: {:#}", anyhow::Error::from(error));
            return Ok(1);
        }
    };
    let rules = backend.prune_rules();
    let jobs = jobs(config, rules, &pruner.tables(), arguments.logs_only, Utc::now());
    let mut tell = |step: Step<'_>| tell(name, &step);
    let done = prune(&*pruner, &jobs, arguments.dry_run, config.rows_max, &mut tell);
    let Summary { rows, failures } = runtime()?.block_on(done);
    let what = if arguments.dry_run { "would be changed" } else { "changed" };
    println!("{name}: {rows} rows {what}");
    Ok(failures)
}

/// One line for each step; within a portion the line grows.
fn tell(name: &str, step: &Step<'_>) {
    match step {
        // What has nothing to do is not worth a line.
        Step::Found(_, 0, _) => {}
        Step::Found(job, rows, portions) => {
            println!("{name}: {}: {rows} rows in {portions} portions", words(job));
        }
        Step::Begun(_, portion, place, of) => {
            print!("{name}:   {place}/{of} {}: {} rows ", portion.name, portion.rows);
        }
        Step::Waiting(_) => print!("."),
        Step::Done => println!(" done"),
        Step::Failed(job, error) => {
            let mut causes = String::new();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                causes.push_str(&format_args!(": {inner}").to_string());
                cause = inner.source();
            }
            println!("{name}: {}: not done: {error}{causes}", words(job));
        }
        Step::Enough(rows) => {
            println!("{name}: {rows} rows are as many as PruneLimit allows; the next run goes on");
        }
    }
    // Who looks sees it grow; who does not loses nothing.
    drop(std::io::stdout().flush());
}

fn words(job: &Job) -> String {
    let what = match &job.action {
        PruneAction::Delete => "delete",
        PruneAction::Blank(_) => "blank",
    };
    format!("{what} {} before {} ({})", job.table, job.before.format("%F %T"), job.why)
}
