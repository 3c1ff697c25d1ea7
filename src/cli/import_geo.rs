//! `tracker import-geo`: IP2Location's CSV files as one MMDB file, which `GeoIPDatabase` then names.
//!
//! The file appears under its name only when it is whole; a server that uses an older one takes the
//! new one up with `tracker reload`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;

use super::format::printable;
use crate::geo::Place;
use crate::geo::ip2location::Lines;
use crate::geo::mmdb::Builder;

/// Bytes of one line; real ones have a few hundred.
const LINE_BYTES_MAX: u64 = 4 << 10;
/// Wrong lines that are named; the rest is only counted.
const EXAMPLES_MAX: usize = 20;
/// Lines between two looks at the clock.
const LINES_PER_LOOK: u64 = 1 << 16;
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// What the file says it is.
const KIND: &str = "IP2Location-City";

/// Arguments of `tracker import-geo`.
#[derive(Debug, Clone, Args)]
pub(super) struct ImportGeoArguments {
    /// CSV files of IP2Location (DB11 or DB11-LITE, unpacked), of IPv4, IPv6 or both.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The MMDB file to write; replaced when it is there.
    #[arg(long, short, default_value = "geo.mmdb")]
    output: PathBuf,
}

/// What became of the lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    lines: u64,
    ranges: u64,
    /// Ranges of which the file says nothing.
    unknown: u64,
    wrong: u64,
    /// File, line number and reason of the first wrong lines.
    examples: Vec<(PathBuf, u64, &'static str)>,
}

/// Imports, prints what happened, and fails when a line was wrong.
pub(super) fn run(arguments: &ImportGeoArguments) -> anyhow::Result<ExitCode> {
    let terminal = io::stderr().is_terminal();
    let mut builder = Builder::new();
    let mut outcome = Outcome::default();
    for path in &arguments.files {
        let report = |share: f64, lines: u64| {
            let (start, end) = if terminal { ("\r", "   ") } else { ("", "\n") };
            let name = path.display();
            eprint!("{start}{name}  {:3.0} %  {lines} lines{end}", share * 100.0);
        };
        read(path, &mut builder, &mut outcome, &report)?;
        if terminal {
            eprintln!();
        }
    }
    if outcome.ranges == 0 {
        summary(&outcome, &mut io::stderr().lock()).context("printing the summary")?;
        bail!("no line says where an address is; nothing was written");
    }
    write(&builder, &arguments.output)?;
    let mut out = io::stdout().lock();
    summary(&outcome, &mut out).context("printing the summary")?;
    writeln!(out, "written    {}", arguments.output.display()).context("printing the summary")?;
    Ok(if outcome.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(
    path: &Path,
    builder: &mut Builder,
    outcome: &mut Outcome,
    report: &dyn Fn(f64, u64),
) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut source = BufReader::with_capacity(1 << 20, file);
    let (mut lines, mut bytes, mut read_bytes, mut number) = (Lines::default(), Vec::new(), 0, 0);
    let mut shown = Instant::now();
    loop {
        bytes.clear();
        let limited = (&mut source).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        let count = limited.with_context(|| format!("reading {}", path.display()))?;
        if count == 0 {
            return Ok(());
        }
        number += 1;
        read_bytes += count as u64;
        if count as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
            bail!("{}: line {number} is longer than {LINE_BYTES_MAX} bytes", path.display());
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        outcome.lines += 1;
        let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8");
        match text.and_then(|text| lines.read(text)) {
            Ok(range) if range.place == Place::default() => outcome.unknown += 1,
            Ok(range) => {
                let added = builder.add(range.first, range.last, &range.place);
                added.with_context(|| format!("{}: line {number}", path.display()))?;
                outcome.ranges += 1;
            }
            Err(reason) => {
                outcome.wrong += 1;
                if outcome.examples.len() < EXAMPLES_MAX {
                    outcome.examples.push((path.to_owned(), number, reason));
                }
            }
        }
        if number.is_multiple_of(LINES_PER_LOOK) && shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            #[expect(clippy::cast_precision_loss, reason = "a share for people")]
            let share = read_bytes as f64 / length.max(1) as f64;
            report(share.min(1.0), number);
        }
    }
}

/// Writes beside `output` and then takes its name.
fn write(builder: &Builder, output: &Path) -> anyhow::Result<()> {
    let mut beside = output.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let built_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let written = (|| -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&beside)?);
        builder.write(&mut file, KIND, built_at)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&beside, output)
    })();
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written.with_context(|| format!("writing {}", output.display()))
}

fn summary(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "lines      {}", outcome.lines)?;
    writeln!(out, "ranges     {}", outcome.ranges)?;
    writeln!(out, "unknown    {}", outcome.unknown)?;
    writeln!(out, "wrong      {}", outcome.wrong)?;
    for (path, number, reason) in &outcome.examples {
        writeln!(out, "  {}: line {number} {}", path.display(), printable(reason))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::GeoDb;

    fn arguments(folder: &Path, files: &[(&str, &str)]) -> ImportGeoArguments {
        let files = files.iter().map(|(name, text)| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        });
        ImportGeoArguments { files: files.collect(), output: folder.join("geo.mmdb") }
    }

    #[test]
    fn both_families_become_one_file_that_answers() {
        let folder = tempfile::tempdir().unwrap();
        let v4 = "\"0\",\"16777215\",\"-\",\"-\",\"-\",\"-\",\"0.000000\",\"0.000000\",\"-\",\"-\"\n\
                  \"134744064\",\"134744319\",\"US\",\"United States of America\",\"California\",\
                  \"Mountain View\",\"37.405992\",\"-122.078515\",\"94043\",\"-07:00\"\r\n";
        let v6 = "\"0\",\"281470681743359\",\"-\",\"-\",\"-\",\"-\",\"0.0\",\"0.0\",\"-\",\"-\"\n\
                  \"42540528726795050063891204319802818560\",\"42540528806023212578155541913346768895\",\
                  \"JP\",\"Japan\",\"Tokyo\",\"Tokyo\",\"35.689497\",\"139.692317\",\"100-0001\",\"+09:00\"\n";
        let arguments = arguments(folder.path(), &[("v4.csv", v4), ("v6.csv", v6)]);
        assert_eq!(run(&arguments).unwrap(), ExitCode::SUCCESS);
        let db = GeoDb::open(Some(&arguments.output)).unwrap();
        let at = |ip: &str| db.lookup(ip.parse().unwrap());
        let found = at("8.8.8.8").unwrap();
        assert_eq!(found.city.as_deref(), Some("Mountain View"));
        assert_eq!((found.lat, found.lon), (Some(37.405_992), Some(-122.078_515)));
        assert_eq!((found.zip.as_deref(), found.tz.as_deref()), (Some("94043"), Some("-07:00")));
        assert_eq!(found.country_name.as_deref(), Some("United States of America"));
        assert_eq!(at("2001:200::1").unwrap().city.as_deref(), Some("Tokyo"));
        assert_eq!(at("8.8.9.0"), None);
        assert_eq!(at("8.8.7.255"), None);
        assert_eq!(at("2001:1ff:ffff::"), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "no part is left behind");
    }

    #[test]
    fn wrong_lines_are_named_and_the_others_imported() {
        let folder = tempfile::tempdir().unwrap();
        let text = "ip_from,ip_to,country\n1,5,US,x\n\n3,9,DE,x\n10,12,DE,Germany\n";
        let arguments = arguments(folder.path(), &[("a.csv", text)]);
        let mut outcome = Outcome::default();
        let path = &arguments.files[0];
        read(path, &mut Builder::new(), &mut outcome, &|_, _| {}).unwrap();
        assert_eq!((outcome.lines, outcome.ranges, outcome.wrong), (4, 2, 2));
        let named: Vec<_> =
            outcome.examples.iter().map(|(_, number, why)| (*number, *why)).collect();
        assert_eq!(
            named,
            [
                (1, "does not begin with two addresses as numbers"),
                (4, "is out of order, or overlaps a line before it")
            ]
        );
        assert_eq!(run(&arguments).unwrap(), ExitCode::FAILURE);
        assert!(arguments.output.exists());
    }

    #[test]
    fn a_file_that_says_nothing_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments(folder.path(), &[("a.csv", "no\nno\n")]);
        fs::write(&arguments.output, "old").unwrap();
        assert!(run(&arguments).is_err());
        assert_eq!(fs::read_to_string(&arguments.output).unwrap(), "old");
        let long = "1,5,US,".to_owned() + &"x".repeat(5_000);
        let arguments = self::arguments(folder.path(), &[("b.csv", &long)]);
        let error = run(&arguments).unwrap_err().to_string();
        assert!(error.ends_with("line 1 is longer than 4096 bytes"), "{error}");
    }
}
