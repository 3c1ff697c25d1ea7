//! `tracker prune`: takes away what stored rows no longer may say, and shows how far it is.
//!
//! ClickHouse is asked from here. The embedded file is changed by the server that has it, step by
//! step through the control socket, or here when none runs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use chrono::Utc;
use clap::Args;
use serde_json::{Value, json};

use super::{keys, load, runtime, socket};
use crate::backends::{self, Job, Portion, PruneError, PruneKey, Pruner};
use crate::config::{BackendConfig, Config, PruneAction};
use crate::http::control::{AskError, ask};
use crate::prune::{Step, Summary, jobs, prune};
use crate::telemetry::chain;

/// Arguments of `tracker prune`.
#[derive(Debug, Clone, Args)]
pub(super) struct PruneArguments {
    /// Configuration file.
    #[arg(long, default_value = "config.json")]
    config: PathBuf,
    /// Change nothing: count the rows that a run without a limit would change, rule after rule.
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
    let key = PruneKey(keys(&config)?.pruning());
    let mut failures = 0;
    let runtime = runtime()?;
    for backend in &config.backends {
        failures += runtime.block_on(of_store(backend, &config, &key, arguments));
    }
    if failures > 0 {
        println!("{failures} not done");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prunes one store; how many jobs were not done.
async fn of_store(
    backend: &BackendConfig,
    config: &Config,
    key: &PruneKey,
    arguments: &PruneArguments,
) -> usize {
    let name = backend.name();
    let pruner = match pruner(backend, &socket(config)).await {
        Ok(pruner) => pruner,
        Err(error) => {
            println!("{name}: {:#}", anyhow::Error::from(error));
            return 1;
        }
    };
    let (rules, settings) = (backend.prune_rules(), &config.prune);
    let jobs = jobs(settings, rules, &pruner.tables(), key, arguments.logs_only, Utc::now());
    let mut tell = |step: Step<'_>| tell(name, &step);
    let Summary { rows, failures } =
        prune(&*pruner, &jobs, arguments.dry_run, settings.rows_max, &mut tell).await;
    let what = if arguments.dry_run { "would be changed" } else { "changed" };
    println!("{name}: {rows} rows {what}");
    failures
}

async fn pruner(backend: &BackendConfig, socket: &Path) -> Result<Box<dyn Pruner>, PruneError> {
    match backend {
        BackendConfig::ClickHouse(_) => backends::pruner(backend),
        BackendConfig::DuckDb(_) => match Running::greet(socket, backend.name()).await {
            Ok(running) => Ok(Box::new(running)),
            Err(AskError::Nobody(_)) => backends::pruner(backend),
            Err(error) => Err(PruneError::Unavailable(error.into())),
        },
    }
}

/// A store that a running server has.
struct Running {
    socket: PathBuf,
    store: String,
    tables: Vec<String>,
}

impl Running {
    async fn greet(socket: &Path, store: &str) -> Result<Self, AskError> {
        let said = ask(socket, "/prune", &json!({ "store": store })).await?;
        let tables = serde_json::from_value(said.get("tables").cloned().unwrap_or_default());
        let tables = tables.map_err(|error| AskError::Broken(error.to_string()))?;
        Ok(Self { socket: socket.to_owned(), store: store.to_owned(), tables })
    }

    async fn ask(&self, step: Value) -> Result<Value, PruneError> {
        ask(&self.socket, "/prune", &step).await.map_err(|error| match error {
            AskError::Refused(words) => PruneError::Unfit(words),
            other => PruneError::Unavailable(other.into()),
        })
    }
}

#[async_trait]
impl Pruner for Running {
    fn tables(&self) -> Vec<String> {
        self.tables.clone()
    }

    async fn portions(&self, job: &Job, after: &[Job]) -> Result<Vec<Portion>, PruneError> {
        let step = json!({ "store": self.store, "job": job, "after": after });
        let said = self.ask(step).await?;
        let portions = serde_json::from_value(said.get("portions").cloned().unwrap_or_default());
        portions.map_err(|error| PruneError::Unavailable(error.into()))
    }

    async fn apply(
        &self,
        job: &Job,
        portion: &Portion,
        _waiting: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PruneError> {
        let step = json!({ "store": self.store, "job": job, "portion": portion });
        self.ask(step).await.map(drop)
    }

    fn followers(&self, _job: &Job) -> Vec<Job> {
        Vec::new()
    }
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
            println!("{name}: {}: not done: {}", words(job), chain(*error));
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
