//! ClickHouse as the tracker reaches it: every address, its version, its clock, its tables.

use chrono::TimeDelta;

use super::{Finding, Findings, Level};
use crate::backends::clickhouse::{self, Said, Seen};
use crate::config::{BackendConfig, Config};

/// Difference of clocks from which it is worth a word: expiry and days are told by both.
const CLOCK_DIFFERENCE_MAX: TimeDelta = TimeDelta::seconds(5);

/// Looks at every ClickHouse of the configuration.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut found = Findings::about("clickhouse");
    for backend in &config.backends {
        let BackendConfig::ClickHouse(settings) = backend else { continue };
        // Files that cannot be used are a finding of their own.
        let Ok(servers) = clickhouse::look(settings).await else { continue };
        for server in servers {
            tell(&mut found, &settings.database, server);
        }
    }
    found.found
}

fn tell(found: &mut Findings, database: &str, Seen { url, answer }: Seen) {
    let Said { version, clock_ahead, lacking } = match answer {
        Ok(said) => said,
        Err(error) => {
            let advice = "is it up, and are address, Username, Password and certificates right? \
                          what it lacks meanwhile waits in the journal";
            found.add(Level::Failure, format!("{url} does not answer: {error}"), advice);
            return;
        }
    };
    let difference = clock_ahead.abs();
    let seconds = clock_ahead.num_seconds();
    if difference > CLOCK_DIFFERENCE_MAX {
        found.add(
            Level::Warning,
            format!("the clock of {url} is {seconds} s ahead of this machine's"),
            "keep both by NTP: accounts expire and days begin by them",
        );
    }
    if lacking.is_empty() {
        found.good(format!("{url} answers: version {version}, database {database} has its tables"));
    } else {
        found.add(
            Level::Warning,
            format!(
                "{url} answers: version {version}; database {database} lacks {}",
                lacking.join(", ")
            ),
            "tracker migrate makes them; so does the first start where there is none",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(answer: Result<Said, String>) -> Vec<Level> {
        let mut found = Findings::about("clickhouse");
        tell(&mut found, "sfpla", Seen { url: "http://a.example:8123".to_owned(), answer });
        found.found.iter().map(|finding| finding.level).collect()
    }

    fn said(seconds: i64, lacking: Vec<&'static str>) -> Said {
        let clock_ahead = TimeDelta::seconds(seconds);
        Said { version: "26.9.2.1".to_owned(), clock_ahead, lacking }
    }

    #[test]
    fn silence_is_a_failure_and_a_wrong_clock_or_a_lack_a_warning() {
        assert_eq!(levels(Ok(said(1, vec![]))), [Level::Good]);
        assert_eq!(levels(Ok(said(-60, vec![]))), [Level::Warning, Level::Good]);
        assert_eq!(levels(Ok(said(0, vec!["events"]))), [Level::Warning]);
        assert_eq!(levels(Err("refused".to_owned())), [Level::Failure]);
    }
}
