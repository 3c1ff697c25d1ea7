//! Settings of what is removed from stores, and when it is old enough.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::section::Section;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What `tracker prune` does in every store, beside the rules of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneConfig {
    /// `DataRetentionDays`, when `PruneOldData` is on: rows that are older go.
    pub retention_days: Option<u32>,
    /// `PruneLogsTTL`: log lines that are older go; `None` with `PruneLogsSkip`. Default 30 days.
    pub logs_age_max: Option<Duration>,
    /// `PruneLogsOnly`: nothing but log lines.
    pub logs_only: bool,
    /// `PruneLimit`: no further month is begun after so many rows were changed; `None` = no limit.
    pub rows_max: Option<u64>,
    /// `PruneSkipToTimestamp`: rows created before this moment are left alone.
    pub skip_before: Option<DateTime<Utc>>,
}

impl Default for PruneConfig {
    fn default() -> Self {
        Self {
            retention_days: None,
            logs_age_max: Some(30 * DAY),
            logs_only: false,
            rows_max: None,
            skip_before: None,
        }
    }
}

/// Reads the keys of the whole file.
pub(super) fn read(file: &mut Section<'_>) -> PruneConfig {
    let standard = PruneConfig::default();
    let days = file.number("DataRetentionDays", 0..=36_500).filter(|days| *days > 0);
    let is_on = file.flag("PruneOldData", false);
    if days.is_some() && !is_on {
        file.note("DataRetentionDays does nothing without \"PruneOldData\": true");
    }
    if days.is_none() && is_on {
        file.error("PruneOldData", "DataRetentionDays says how old data may become; it is missing");
    }
    // A bare number is seconds, as the Go tracker has it.
    let age = file.number("PruneLogsTTL", 0..=36_500 * 86_400).filter(|seconds| *seconds > 0);
    let skip = file.number("PruneSkipToTimestamp", 0..=1 << 40).filter(|moment| *moment > 0);
    let skip_logs = file.flag("PruneLogsSkip", false);
    let logs_only = file.flag("PruneLogsOnly", false);
    if skip_logs && logs_only {
        file.error("PruneLogsOnly", "stands beside PruneLogsSkip, so nothing would be pruned");
    }
    // How much is changed at once is the store's affair.
    file.number("PruneLogsPageSize", 0..=u64::MAX);
    if file.flag("PruneUpdateConfig", false) {
        file.note(
            "PruneUpdateConfig is not needed: a run finds what is left by itself, and no file is \
             rewritten",
        );
    }
    PruneConfig {
        retention_days: days.filter(|_| is_on).and_then(|days| u32::try_from(days).ok()),
        logs_age_max: (!skip_logs)
            .then(|| age.map_or(standard.logs_age_max, |age| Some(Duration::from_secs(age))))
            .flatten(),
        logs_only,
        rows_max: file.number("PruneLimit", 0..=u64::MAX).filter(|rows| *rows > 0),
        skip_before: skip.and_then(|seconds| DateTime::from_timestamp(seconds.cast_signed(), 0)),
    }
}
