//! `tracker doctor`: what is wrong and what to do, for a person or a script.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{load, runtime, socket};
use crate::app;
use crate::doctor::{Finding, Level, examine};
use crate::http::control::ask;

/// Arguments of `tracker doctor`.
#[derive(Debug, Clone, Args)]
pub(super) struct DoctorArguments {
    /// Where visitors reach the server, for example `https://t.example.com`: asked as a visitor would.
    #[arg(long)]
    url: Option<http::Uri>,
    /// Only whether the running server takes events: nothing is printed, 0 is yes.
    #[arg(long, conflicts_with = "url")]
    health: bool,
    /// One JSON object a line instead of text.
    #[arg(long)]
    json: bool,
    /// Configuration file.
    #[arg(long, default_value = "config.json")]
    config: PathBuf,
}

/// Prints every finding; 1 when one is a failure.
pub(super) fn run(
    arguments: &DoctorArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let loaded = load(&arguments.config, env)?;
    let runtime = runtime()?;
    if arguments.health {
        let socket = socket(&loaded.config);
        let health = runtime.block_on(ask(&socket, "/health", &Value::Null));
        let health = health.context("asking the running server")?;
        let takes_events = health.pointer("/journal/healthy") == Some(&Value::Bool(true));
        return Ok(if takes_events { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut found: Vec<Finding> = app::rehearse(&loaded.config)
        .into_iter()
        .map(|problem| Finding {
            level: Level::Failure,
            topic: "files",
            what: format!("{problem:#}"),
            advice: "the server does not start, or does not take it up, until this is mended"
                .into(),
        })
        .collect();
    found.extend(runtime.block_on(examine(&loaded, arguments.url.as_ref())));
    for finding in &found {
        if arguments.json {
            println!("{}", as_json(finding));
        } else {
            println!("{finding}");
        }
    }
    let has_failure = found.iter().any(|finding| finding.level == Level::Failure);
    Ok(if has_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "level": finding.level.as_str(),
        "topic": finding.topic,
        "what": finding.what,
        "advice": finding.advice,
    })
}
