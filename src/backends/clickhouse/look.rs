//! What each server of a ClickHouse says of itself, for `tracker doctor`.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::transport::Transport;
use super::values;
use crate::clock::{Clock, SystemClock};
use crate::config::ClickHouseConfig;
use crate::tables;
use crate::telemetry::chain;
use crate::tls::ClientTlsError;

/// One server as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its address.
    pub url: String,
    /// What it said, or why it did not.
    pub answer: Result<Said, String>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its version.
    pub version: String,
    /// How far its clock is ahead of ours, to the time of one question.
    pub clock_ahead: TimeDelta,
    /// The tables of facts that are not in the database.
    pub lacking: Vec<&'static str>,
}

/// Asks every address.
///
/// # Errors
/// When the files of TLS cannot be used.
pub async fn look(config: &ClickHouseConfig) -> Result<Vec<Seen>, ClientTlsError> {
    let transport = Transport::new(config, Arc::new(SystemClock))?;
    let sql = format!(
        "select version(), now64(3, 'UTC'), \
         (select groupArray(name) from system.tables where database = '{}')",
        config.database
    );
    let mut seen = Vec::new();
    for (index, url) in transport.urls().enumerate() {
        let asked = SystemClock.wall();
        let answer = match transport.rows_at(index, &sql).await {
            Ok(rows) => {
                let half = (SystemClock.wall() - asked) / 2;
                let row = rows.rows.into_iter().next().unwrap_or_default();
                read(&row, asked + half).ok_or_else(|| "an answer of another form".to_owned())
            }
            Err(fault) => Err(chain(&fault)),
        };
        seen.push(Seen { url: url.to_owned(), answer });
    }
    Ok(seen)
}

fn read(row: &[Value], now: DateTime<Utc>) -> Option<Said> {
    let [Value::String(version), Value::String(moment), Value::Array(names)] = row else {
        return None;
    };
    let theirs = values::utc(moment)?;
    let is_lacking = |name: &&str| !names.iter().any(|there| there == name);
    let lacking = tables::ALL.iter().map(|table| table.name()).filter(is_lacking).collect();
    Some(Said { version: version.clone(), clock_ahead: theirs - now, lacking })
}
