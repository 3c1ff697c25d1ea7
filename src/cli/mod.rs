//! The command line: what to do, with which configuration, and the exit code.
//!
//! Without a command the server starts. Commands that ask speak to a running server through its
//! control socket; those of a later version say so and fail, so that no script takes them for done.

mod account;
mod doctor;
mod format;
mod import;
mod import_geo;
mod link;
mod prune;
mod query;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::app;
use crate::config::{BackendConfig, Config, Loaded};
use crate::http::control::ask;
use crate::intake::Keys;

const AFTER_HELP: &str = "\
Examples:
  tracker                                      serve with ./config.json
  tracker /etc/tracker/config.json             serve with another file
  tracker check                                say all that is wrong or ignored in ./config.json
  tracker query \"select ename, count(*) from events group by all\"
  tracker query --format csv \"from events\" > events.csv
  tracker import --verify access.log.gz        send a web server's log as events, then compare
  tracker account add marketing                an account that makes short links
  tracker prune --dry-run                      what the privacy rules would take away
  tracker link sign https://example.com/       a redirect to a host that is not configured

Exit codes: 0 done, 1 failed, 2 wrong arguments.";

/// Owns your user telemetry: takes events over HTTP, keeps them durable, and feeds your stores.
#[derive(Debug, Parser)]
#[command(
    name = "tracker",
    version,
    about,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file.
    #[arg(default_value = "config.json")]
    config: PathBuf,
    /// Take away what stored rows no longer may say, then exit: as the command prune.
    #[arg(long)]
    prune: bool,
    /// With --prune: only log lines.
    #[arg(long, requires = "prune")]
    logs_only: bool,
}

/// Where the settings are.
#[derive(Debug, Clone, Args)]
struct ConfigArgument {
    /// Configuration file.
    #[arg(long, default_value = "config.json")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the configuration and say all that is wrong, translated or ignored.
    Check(ConfigArgument),
    /// Ask the first store one read-only question in SQL.
    Query(query::QueryArguments),
    /// Send a web server's access log as events through a running server.
    Import(import::ImportArguments),
    /// Make a database of places from IP2Location's CSV files.
    ImportGeo(import_geo::ImportGeoArguments),
    /// Say who may make short links.
    Account(account::AccountArguments),
    /// Sign redirects to hosts that are not configured.
    Link(link::LinkArguments),
    /// Put rows that a store refused back after a mend, through the running server.
    Replay(ConfigArgument),
    /// Bring the schema of every store up to date.
    Migrate(MigrateArguments),
    /// Take away what stored rows no longer may say, or no longer may be: retention and rules.
    Prune(prune::PruneArguments),
    /// Write events to files (not in this version yet).
    Export(Later),
    /// Show or erase what is known about one person (not in this version yet).
    Subject(Later),
    /// Look for what commonly goes wrong, and say what to do about it.
    Doctor(doctor::DoctorArguments),
    /// Have the running server read its configuration again, without a failed request.
    Reload(ConfigArgument),
}

#[derive(Debug, Clone, Args)]
struct MigrateArguments {
    #[command(flatten)]
    at: ConfigArgument,
    /// Change nothing: print the statements that make the schema of ClickHouse, for the one
    /// who may run them.
    #[arg(long)]
    print: bool,
}

/// Arguments of a command that is not in this version: taken, so that the answer is about the
/// command and not about its arguments.
#[derive(Debug, Clone, Args)]
struct Later {
    /// Not looked at.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Runs the program with `args` (the first is its name); `env` is where the configuration's
/// `${NAME}` are looked up.
///
/// # Errors
/// What went wrong, for a person.
pub fn run(
    args: impl Iterator<Item = OsString>,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" too, printed to standard output with code 0.
            error.print().context("printing the answer")?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    match arguments.command {
        None if arguments.prune => prune::run(
            &prune::PruneArguments::documented(arguments.config, arguments.logs_only),
            env,
        ),
        None => {
            let loaded = load(&arguments.config, env)?;
            let (path, env) = (arguments.config, env.clone());
            app::serve(loaded, Box::new(move || Config::load(&path, &env)))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Check(at)) => check(&at.config, env),
        Some(Command::Query(query)) => query::run(&query, env),
        Some(Command::Import(import)) => import::run(&import, env),
        Some(Command::ImportGeo(import)) => import_geo::run(&import),
        Some(Command::Account(account)) => account::run(&account, env),
        Some(Command::Link(link)) => link::run(&link, env),
        Some(Command::Migrate(migrate)) => migrate_stores(&migrate, env),
        Some(Command::Replay(at)) => replay(&at.config, env),
        Some(Command::Prune(prune)) => prune::run(&prune, env),
        Some(Command::Export(_)) => later("export"),
        Some(Command::Subject(_)) => later("the subject command"),
        Some(Command::Doctor(doctor)) => doctor::run(&doctor, env),
        Some(Command::Reload(at)) => reload(&at.config, env),
    }
}

fn later(what: &str) -> anyhow::Result<ExitCode> {
    bail!("not in this version yet: {what}")
}

fn load(path: &Path, env: &BTreeMap<String, String>) -> anyhow::Result<Loaded> {
    Ok(Config::load(path, env)?)
}

/// The store that questions go to.
fn answering(config: &Config) -> anyhow::Result<&BackendConfig> {
    config.backends.first().context("Notify names no store")
}

/// The installation's key.
fn keys(config: &Config) -> anyhow::Result<Keys> {
    Keys::of(&config.intake).context("reading the installation's key")
}

/// Where a running server answers its operator.
fn socket(config: &Config) -> PathBuf {
    config.server.data_directory.join("tracker.sock")
}

/// What a command that asks waits in.
fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("starting the runtime")
}

fn check(path: &Path, env: &BTreeMap<String, String>) -> anyhow::Result<ExitCode> {
    let Loaded { config, notes } = load(path, env)?;
    for note in &notes {
        println!("note: {note}");
    }
    let problems = app::rehearse(&config);
    if !problems.is_empty() {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("\n  {problem:#}")).collect();
        bail!("{}: what it names cannot be used{}", path.display(), lines.concat());
    }
    let server = &config.server;
    let address = |listen: Option<std::net::SocketAddr>| {
        listen.map_or("off".to_owned(), |address| address.to_string())
    };
    println!("{}: ok", path.display());
    println!("  http        {}", address(server.listen_http));
    println!("  https       {}", address(server.listen_https));
    println!("  data        {}", server.data_directory.display());
    println!("  durability  {}", config.journal.durability.as_str());
    for backend in &config.backends {
        println!("  sink        {} ({})", backend.name(), backend.place());
    }
    Ok(ExitCode::SUCCESS)
}

fn migrate_stores(
    arguments: &MigrateArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let Loaded { config, .. } = load(&arguments.at.config, env)?;
    if arguments.print {
        let statements = config.backends.iter().flat_map(crate::migrate::statements);
        let text: Vec<String> = statements.map(|statement| format!("{statement};\n\n")).collect();
        // Whoever reads the first lines only closes the pipe.
        return match std::io::stdout().write_all(text.concat().as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    let runtime = runtime()?;
    let mut failed = Vec::new();
    // One that fails does not keep the others from it.
    for backend in &config.backends {
        match runtime.block_on(crate::migrate::migrate(backend)) {
            Ok(crate::migrate::Report { name, schema, notes, unfit }) => {
                match schema {
                    Some((from, to)) => println!("{name}: schema {from} -> {to}"),
                    None => println!("{name}: left to the running tracker, which has the file"),
                }
                for note in &notes {
                    println!("  {note}");
                }
                failed.extend(unfit.iter().map(|words| format!("{name}: does not fit: {words}")));
            }
            Err(error) => failed.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    if !failed.is_empty() {
        bail!(failed.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the running server to put rows back; prints what it did.
fn replay(path: &Path, env: &BTreeMap<String, String>) -> anyhow::Result<ExitCode> {
    let config = load(path, env)?.config;
    let runtime = runtime()?;
    let done = runtime.block_on(ask(&socket(&config), "/replay", &serde_json::json!({})));
    println!("{}", done.context("asking the running server")?);
    Ok(ExitCode::SUCCESS)
}

/// Asks the running server to take up its configuration; prints what it says about it.
fn reload(path: &Path, env: &BTreeMap<String, String>) -> anyhow::Result<ExitCode> {
    // Read here too: a file that cannot be used is refused in full words, before anybody is asked.
    let config = load(path, env)?.config;
    let runtime = runtime()?;
    let done = runtime.block_on(ask(&socket(&config), "/reload", &serde_json::json!({})));
    let done = done.context("asking the running server")?;
    let notes = done.get("notes").and_then(serde_json::Value::as_array).into_iter().flatten();
    for note in notes.filter_map(serde_json::Value::as_str) {
        println!("note: {note}");
    }
    println!("taken up");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(args: &[&str]) -> anyhow::Result<ExitCode> {
        let args = ["tracker"].iter().chain(args).map(OsString::from);
        super::run(args, &BTreeMap::new())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_file_without_a_command_is_served_and_config_json_is_the_default() {
        let parse = |args: &[&str]| {
            let args = ["tracker"].iter().chain(args);
            Arguments::try_parse_from(args).unwrap()
        };
        assert_eq!(parse(&[]).config, Path::new("config.json"));
        assert_eq!(parse(&["other.json"]).config, Path::new("other.json"));
        let pruned = parse(&["--prune", "--logs-only", "other.json"]);
        assert!(pruned.prune && pruned.logs_only);
        assert!(Arguments::try_parse_from(["tracker", "--logs-only"]).is_err());
    }

    #[test]
    fn commands_of_a_later_version_fail_and_say_so() {
        for args in [["export", "--to", "s3://bucket"].as_slice(), &["subject", "erase", "someone"]]
        {
            let error = run(args).expect_err("fails");
            assert!(error.to_string().starts_with("not in this version yet: "), "{args:?} {error}");
        }
    }

    #[test]
    fn checking_reads_the_file_and_names_every_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"MaxConnection": 1, "Durability": "tape"}"#).unwrap();
        let error = run(&["check", "--config", path.to_str().unwrap()]).expect_err("fails");
        let text = error.to_string();
        assert!(
            text.contains("2 errors") && text.contains("did you mean MaxConnections?"),
            "{text}"
        );
        std::fs::write(&path, "{}").unwrap();
        run(&["check", "--config", path.to_str().unwrap()]).unwrap();
    }
}
