//! `tracker account`: who may make short links. There is no account until one is added.
//!
//! The password is hashed here; a running server and the store are only given the hash.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::{TimeDelta, Utc};
use clap::{Args, Subcommand};
use rand::Rng as _;
use uuid::Uuid;

use super::{answering, keys, load, runtime, socket};
use crate::backends::{Account, AccountChange, clickhouse};
use crate::clock::SystemClock;
use crate::config::{BackendConfig, Config, DuckDbConfig};
use crate::http::control::{AskError, ask};
use crate::links::accounts::hash_password;

/// Letters of a made password, without look-alikes.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Letters of it; 24 of 55 are 138 bits.
const PASSWORD_LETTERS: usize = 24;

/// Arguments of `tracker account`.
#[derive(Debug, Clone, Args)]
pub(super) struct AccountArguments {
    #[command(subcommand)]
    action: Action,
    /// Configuration file.
    #[arg(long, default_value = "config.json", global = true)]
    config: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Add an account. The password is made and printed once.
    Add {
        /// Its name: a UUID or any other text.
        user: String,
        /// Where there is one of that name, replace its password, organisation and end.
        #[arg(long)]
        replace: bool,
        /// The only organisation whose links it may see and change.
        #[arg(long)]
        organisation: Option<String>,
        /// Days until it ends.
        #[arg(long, value_parser = clap::value_parser!(i64).range(1..=36_500))]
        days: Option<i64>,
        /// Read the password from the first line of standard input instead of making one.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove an account.
    Remove {
        /// Its name.
        user: String,
    },
}

/// Makes the change through the running server or, without one, in the first store.
pub(super) fn run(
    arguments: &AccountArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let config = load(&arguments.config, env)?.config;
    let keys = keys(&config)?;
    let id = |text: &str| Uuid::parse_str(text.trim()).unwrap_or_else(|_| keys.id(text.trim()));
    match &arguments.action {
        Action::Add { user, replace, organisation, days, password_stdin } => {
            let given = password_stdin.then(read_password).transpose()?;
            let password = given.clone().unwrap_or_else(make_password);
            let now = Utc::now();
            let account = Account {
                uid: id(user).into(),
                password_hash: hash_password(&password)?,
                organisation: organisation.as_deref().map(|text| id(text).into()),
                expires: days.map(|days| now + TimeDelta::days(days)),
                updated_at: now,
            };
            let uid = account.uid;
            let wish = if *replace { AccountChange::Put } else { AccountChange::Add };
            if !change(&config, &wish(account))? {
                bail!(
                    "there is an account {user} already; --replace gives it another password, \
                     organisation and end"
                );
            }
            println!("account  {user} ({uid})");
            if given.is_none() {
                println!("password {password}");
            }
        }
        Action::Remove { user } => {
            if !change(&config, &AccountChange::Remove(id(user).into()))? {
                bail!("there is no account {user}");
            }
            println!("account {user} removed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(config: &Config, change: &AccountChange) -> anyhow::Result<bool> {
    let store = answering(config)?;
    let runtime = runtime()?;
    let wish = serde_json::to_value(change).context("writing the change")?;
    match runtime.block_on(ask(&socket(config), "/account", &wish)) {
        Ok(answer) => Ok(answer.get("changed").and_then(serde_json::Value::as_bool) == Some(true)),
        Err(AskError::Nobody(_)) => match store {
            BackendConfig::DuckDb(store) => offline(store, change),
            BackendConfig::ClickHouse(settings) => {
                let store = clickhouse::store(settings, Arc::new(SystemClock))?;
                let changed = runtime.block_on(store.change_account(change.clone()));
                changed.with_context(|| format!("changing {}", settings.name))
            }
        },
        Err(error) => Err(error).context("asking the running server"),
    }
}

#[cfg(feature = "duckdb")]
fn offline(store: &DuckDbConfig, change: &AccountChange) -> anyhow::Result<bool> {
    let changed = crate::backends::duckdb::change_account_file(store, change);
    changed.with_context(|| format!("no server runs; changing {}", store.path.display()))
}

#[cfg(not(feature = "duckdb"))]
fn offline(store: &DuckDbConfig, _change: &AccountChange) -> anyhow::Result<bool> {
    bail!(
        "no server runs, and this program was built without DuckDB to open {}",
        store.path.display()
    )
}

fn read_password() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn make_password() -> String {
    let mut random = rand::rng();
    let letter = |_| LETTERS.get(random.random_range(0..LETTERS.len())).copied().map(char::from);
    (0..PASSWORD_LETTERS).filter_map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_password_is_long_and_never_the_same() {
        let (one, other) = (make_password(), make_password());
        assert_eq!(one.len(), PASSWORD_LETTERS);
        assert_ne!(one, other);
    }
}
