//! ClickHouse: the store of larger installations.
//!
//! Assumed: this tracker's batches of a table come one at a time and in order. Promised:
//! - a batch is stored once, whatever happens to the answer, the server or this process (`sink`);
//! - one insert is on its way for each table, and one a second unless a backlog drains;
//! - what is stored is what `tables` says: types come from the server's catalog (`encode`);
//! - nothing in a database that was there before is dropped or renamed (`migrate`).

mod catalog;
mod encode;
mod fault;
mod repeat;
mod sink;
mod transport;

use std::io;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use self::sink::{Encoder, Remembered};
use self::transport::Transport;
use super::{Backend, SinkError};
use crate::clock::Clock;
use crate::config::ClickHouseConfig;

/// The store: its servers, and what the sink remembers of them.
struct ClickHouse {
    config: ClickHouseConfig,
    transport: Transport,
    encoder: Encoder,
    memory: Remembered,
    clock: Arc<dyn Clock>,
    /// Since when this process is the one that sends.
    started_at: DateTime<Utc>,
}

/// Prepares the store and answers at once; it is reached behind.
///
/// # Errors
/// When the files of TLS cannot be used, or the machine gives no thread.
pub fn connect(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> io::Result<Backend> {
    let transport = Transport::new(config, Arc::clone(&clock)).map_err(io::Error::other)?;
    let store = Arc::new(ClickHouse {
        config: config.clone(),
        transport,
        encoder: Encoder::start()?,
        memory: Remembered::default(),
        started_at: clock.wall(),
        clock,
    });
    Ok(Backend { name: config.name.clone(), kind: "clickhouse", sink: Some(store), store: None })
}

impl ClickHouse {
    /// Which store this is. Every address that answers must give the same, or rows would go to one
    /// and questions to another.
    async fn identify(&self) -> Result<String, SinkError> {
        let sql = format!(
            "select toString(id) from `{}`.store_identity order by created_at limit 1",
            self.config.database
        );
        let mut found: Option<(String, &str)> = None;
        let mut failure = None;
        for (index, url) in self.transport.urls().enumerate() {
            let rows = match self.transport.rows_at(index, &sql).await {
                Ok(rows) => rows,
                Err(fault) => {
                    failure.get_or_insert(fault);
                    continue;
                }
            };
            let id = rows.rows.first().and_then(|row| row.first()?.as_str()).unwrap_or_default();
            match &found {
                Some((other, at)) if other != id => {
                    let words = format!("{at} and {url} are different stores");
                    return Err(SinkError::Retry { after: None, source: words.into() });
                }
                Some(_) => {}
                None => found = Some((id.to_owned(), url)),
            }
        }
        match (found, failure) {
            (Some((id, _)), _) => Ok(id),
            (None, Some(fault)) => Err(fault.into_sink_error()),
            (None, None) => Err(SinkError::Retry { after: None, source: "no address".into() }),
        }
    }
}
