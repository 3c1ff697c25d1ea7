//! `tracker import`: a web server's log as events, with progress, a summary and a comparison.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::format::printable;
use super::{load, socket};
use crate::config::Secret;
use crate::import::{Comparison, Import, Outcome, Progress, Site, Verdict, run as import, verify};

/// Formats of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Apache's and nginx's "combined": with referrer and user agent.
    Combined,
}

/// Arguments of `tracker import`. A server's key, where the installation has keys, comes from the
/// environment variable `TRACKER_KEY`: arguments can be read by everyone on the machine.
#[derive(Debug, Clone, Args)]
pub(super) struct ImportArguments {
    /// The log, plain or gzip.
    file: PathBuf,
    /// The running server; plain HTTP.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: http::Uri,
    /// Format of the log.
    #[arg(long, value_enum, default_value = "combined")]
    format: LogFormat,
    /// The site the log is of, which a log does not name: example.com or `https://example.com`
    #[arg(long, default_value = "localhost")]
    host: Site,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    in_flight: u16,
    /// Afterwards compare every event with what the store has; differences fail the command.
    #[arg(long)]
    verify: bool,
    /// Configuration file of the running server, for --verify.
    #[arg(long, default_value = "config.json")]
    config: PathBuf,
}

/// Imports, prints what happened, and fails when an event was refused or differs.
pub(super) fn run(
    arguments: &ImportArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    // The only format; naming it keeps scripts valid when there are more.
    let LogFormat::Combined = arguments.format;
    let socket =
        if arguments.verify { Some(socket(&load(&arguments.config, env)?.config)) } else { None };
    let what = Import {
        file: arguments.file.clone(),
        url: arguments.url.clone(),
        site: arguments.host.clone(),
        in_flight: arguments.in_flight.into(),
        key: env.get("TRACKER_KEY").map(Secret::new),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let terminal = io::stderr().is_terminal();
    let outcome = runtime.block_on(import(&what, &mut |progress| report(&progress, terminal)))?;
    if terminal {
        eprintln!();
    }
    let mut out = io::stdout().lock();
    summary(&outcome, &mut out).context("printing the summary")?;
    let mut good = outcome.refused == 0;
    if let Some(socket) = socket {
        let verdict = runtime.block_on(verify(&socket, &what.file, &what.site))?;
        compared(&verdict, &mut out).context("printing the comparison")?;
        good &= verdict.is_equal();
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(progress: &Progress, terminal: bool) {
    let Progress { lines, sent, share, elapsed } = *progress;
    let seconds = elapsed.as_secs_f64().max(0.001);
    let left = if share > 0.0 { seconds / share - seconds } else { 0.0 };
    let rate = rate(sent, seconds);
    let start = if terminal { "\r" } else { "" };
    let end = if terminal { "   " } else { "\n" };
    let percent = share * 100.0;
    eprint!(
        "{start}{percent:3.0} %  {lines} lines  {sent} events  {rate:.0}/s  {left:.0} s left{end}"
    );
}

fn rate(events: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let events = events as f64;
    events / seconds
}

fn summary(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let seconds = outcome.elapsed.as_secs_f64().max(0.001);
    writeln!(out, "lines      {}", outcome.lines)?;
    let rate = rate(outcome.sent, seconds);
    writeln!(out, "stored     {} in {seconds:.1} s, {rate:.0}/s", outcome.sent)?;
    writeln!(out, "refused    {}", outcome.refused)?;
    writeln!(out, "retries    {}", outcome.retries)?;
    writeln!(out, "cut short  {}", outcome.cut)?;
    let odd: u64 = outcome.odd.values().sum();
    writeln!(out, "no request {odd}")?;
    for (reason, count) in &outcome.odd {
        writeln!(out, "  {count} {reason}")?;
    }
    for (number, reason) in &outcome.examples {
        writeln!(out, "  line {number}: {}", printable(reason))?;
    }
    Ok(())
}

fn compared(verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{:<10} {:>10} {:>10} {:>10}", "compared", "sent", "stored", "equal")?;
    for Comparison { what, sent, stored, equal } in &verdict.comparisons {
        writeln!(out, "{what:<10} {sent:>10} {stored:>10} {equal:>10}")?;
    }
    for difference in &verdict.differences {
        writeln!(out, "  {}", printable(difference))?;
    }
    let word = if verdict.is_equal() { "all equal" } else { "there are differences" };
    writeln!(out, "{word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_accounts_for_every_line() {
        let outcome = Outcome {
            lines: 10,
            sent: 7,
            odd: BTreeMap::from([(crate::import::Odd::NoRequest, 2)]),
            refused: 1,
            retries: 3,
            cut: 1,
            examples: vec![(4, "no request".to_owned())],
            elapsed: std::time::Duration::from_secs(2),
        };
        let mut out = Vec::new();
        summary(&outcome, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "lines      10\nstored     7 in 2.0 s, 4/s\nrefused    1\nretries    3\ncut short  1\n\
             no request 2\n  2 no request\n  line 4: no request\n"
        );
    }
}
