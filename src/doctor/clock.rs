//! The machine's clock: events are stamped by it, certificates are judged by it.

use std::path::Path;

use chrono::{DateTime, Datelike as _, Utc};

use super::{Finding, Findings, Level};

/// The first year in which this program existed.
const YEAR_MIN: i32 = 2026;
/// Files whose presence says that a service keeps the clock right, with its name.
const KEEPERS: [(&str, &str); 4] = [
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("/run/chrony/chronyd.pid", "chrony"),
    ("/run/chronyd.pid", "chrony"),
    ("/run/ntpd.pid", "ntpd"),
];

/// Whether the clock can be right, and who keeps it so.
pub(super) fn look() -> Vec<Finding> {
    judge(Utc::now(), |path| Path::new(path).exists())
}

fn judge(now: DateTime<Utc>, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Findings::about("clock");
    let text = now.format("%Y-%m-%d %H:%M:%S UTC");
    if now.year() < YEAR_MIN {
        found.add(
            Level::Failure,
            format!("says {text}, which is in the past"),
            "set it: events would be stamped wrongly, and no certificate is valid yet",
        );
        return found.found;
    }
    match KEEPERS.iter().find(|(path, _)| exists(path)) {
        Some((_, keeper)) => found.good(format!("says {text}, kept right by {keeper}")),
        None => found.add(
            Level::Unknown,
            format!("says {text}; no service that keeps it right was seen"),
            "in a container the host keeps it; else enable systemd-timesyncd or chrony",
        ),
    }
    found.found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_the_past_is_a_failure_and_one_nobody_keeps_is_unknown() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let level = |now, kept: bool| judge(now, |_| kept)[0].level;
        assert_eq!(level(at("1970-01-01T00:00:10Z"), true), Level::Failure);
        assert_eq!(level(at("2026-11-21T00:00:00Z"), false), Level::Unknown);
        assert_eq!(level(at("2026-11-21T00:00:00Z"), true), Level::Good);
    }
}
