//! Settings of what is removed from stores, and when it is old enough.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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

/// One line of `Prune` in an entry of `Notify`: what becomes of rows of a table that are old enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneRule {
    /// `Table`.
    pub table: String,
    /// `TTL`: from this age on.
    pub age_max: Duration,
    /// `CFlagsIgnore`: a row that shares one of these bits stays as it is.
    pub spared_flags: i64,
    /// What becomes of the row.
    pub action: PruneAction,
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PruneAction {
    /// `ClearAll`: it goes.
    Delete,
    /// It stays, and says less.
    Blank(PruneBlank),
}

/// What a row no longer says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneBlank {
    /// `Fields`: columns that become what they are when nothing was said.
    pub fields: Vec<PruneField>,
    /// `ClearParams`: what `params` say other than numbers.
    pub texts: bool,
    /// `ClearNumericParams`: the numbers among `params`.
    pub numbers: bool,
}

/// A column that is blanked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneField {
    /// `Id`: its name.
    pub column: String,
    /// `DestParamHash`: under which name `params` keep a hash of it.
    pub hash: Option<String>,
}

/// Reads the rules of one entry.
pub(super) fn rules(entry: &mut Section<'_>) -> Vec<PruneRule> {
    entry.sections("Prune").into_iter().filter_map(rule).collect()
}

fn rule(mut rule: Section<'_>) -> Option<PruneRule> {
    // How much is changed at once is the store's affair.
    rule.accept(&["PageSize"]);
    let table = name(&mut rule, "Table");
    let age_max = rule.number("TTL", 1..=36_500 * 86_400).map(Duration::from_secs);
    let spared_flags = rule.flags("CFlagsIgnore");
    let fields: Vec<PruneField> = rule.sections("Fields").into_iter().filter_map(field).collect();
    for (index, field) in fields.iter().enumerate() {
        let column = &field.column;
        if fields.iter().take(index).any(|before| before.column == *column) {
            rule.error("Fields", format!("{column} stands there twice"));
        }
        if column == "params" {
            rule.error("Fields", "params are cleared by ClearParams and ClearNumericParams");
        }
    }
    let blank = PruneBlank {
        fields,
        texts: rule.flag("ClearParams", false),
        numbers: rule.flag("ClearNumericParams", false),
    };
    let delete = rule.flag("ClearAll", false);
    if !rule.says("Table") {
        rule.error("Table", "is missing: of which table are these rows?");
    }
    if !rule.says("TTL") {
        rule.error("TTL", "expected the age in seconds from which on rows are pruned");
    }
    if !delete && blank == PruneBlank::default() {
        rule.error_here(
            "says nothing that is cleared: ClearAll, Fields, ClearParams, ClearNumericParams",
        );
    }
    let action = if delete { PruneAction::Delete } else { PruneAction::Blank(blank) };
    rule.finish(|_| None);
    Some(PruneRule { table: table?, age_max: age_max?, spared_flags, action })
}

fn field(mut field: Section<'_>) -> Option<PruneField> {
    // What a column becomes depends on the store's type of it.
    field.accept(&["Type", "Default"]);
    let column = name(&mut field, "Id");
    if !field.says("Id") {
        field.error("Id", "is missing: which column?");
    }
    let hash = name(&mut field, "DestParamHash");
    field.finish(|_| None);
    Some(PruneField { column: column?, hash })
}

/// The name of a table, a column or a parameter; these stand in statements.
fn name(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let name = section.filled(key)?;
    let is_name = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        section.error(key, format!("{name:?}: expected letters, digits and \"_\""));
    }
    is_name.then_some(name)
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
