//! ClickHouse: the store of larger installations.
//!
//! Assumed: this tracker's batches of a table come one at a time and in order. Promised:
//! - a batch is stored once, whatever happens to the answer, the server or this process (`sink`);
//! - one insert is on its way for each table, and one a second unless a backlog drains;
//! - what is stored is what `tables` says: types come from the server's catalog (`encode`);
//! - nothing in a database that was there before is dropped or renamed (`migrate`).

mod adopt;
mod catalog;
mod encode;
mod encoder;
mod fault;
mod json;
mod look;
mod migrate;
mod prune;
mod repeat;
mod scan;
mod schema;
mod sink;
mod store;
mod transport;
mod values;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

pub use self::adopt::Remarks;
use self::encoder::Encoder;
use self::fault::Fault;
pub use self::look::{Said, Seen, look};
pub use self::migrate::Migrated;
use self::migrate::Prepared;
pub use self::scan::{scan_answer, scan_description, scan_refusal, scan_small_answer, scan_type};
use self::sink::Remembered;
use self::store::Questions;
use self::transport::Transport;
use super::{Backend, PruneError, Pruner, SinkError, Store, StoreError};
use crate::clock::{Clock, SystemClock};
use crate::config::ClickHouseConfig;

/// The store: its servers, and what the sink remembers of them.
struct ClickHouse {
    config: ClickHouseConfig,
    transport: Arc<Transport>,
    encoder: Encoder,
    memory: Remembered,
    clock: Arc<dyn Clock>,
    /// Since when this process is the one that sends.
    started_at: DateTime<Utc>,
    /// The same moment by the clock that never steps.
    began: Instant,
}

/// Prepares the store and answers at once; it is reached behind.
///
/// # Errors
/// When the files of TLS cannot be used, or the machine gives no thread.
pub fn connect(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> io::Result<Backend> {
    let transport = Transport::new(config, Arc::clone(&clock)).map_err(io::Error::other)?;
    let transport = Arc::new(transport);
    let questions = Questions::new(config, Arc::clone(&transport), Arc::clone(&clock));
    let sink = Arc::new(ClickHouse {
        config: config.clone(),
        transport,
        encoder: Encoder::start()?,
        memory: Remembered::default(),
        started_at: clock.wall(),
        began: clock.monotonic(),
        clock,
    });
    Ok(Backend {
        name: config.name.clone(),
        kind: "clickhouse",
        sink: Some(sink),
        store: Some(Arc::new(questions)),
        pruner: None,
    })
}

/// Only what answers questions, for a command that runs without a server.
///
/// # Errors
/// When the files of TLS cannot be used.
pub fn store(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> io::Result<Arc<dyn Store>> {
    let transport = Transport::new(config, Arc::clone(&clock)).map_err(io::Error::other)?;
    Ok(Arc::new(Questions::new(config, Arc::new(transport), clock)))
}

/// Makes what is missing in the database, and says what was done and what does not fit.
///
/// # Errors
/// [`StoreError::Unavailable`] when a server cannot be asked, or refuses.
pub async fn migrate_database(config: &ClickHouseConfig) -> Result<Migrated, StoreError> {
    let transport = Transport::new(config, Arc::new(SystemClock))
        .map_err(|error| StoreError::Unavailable(error.into()))?;
    let unavailable = |fault: Fault| StoreError::Unavailable(fault.into());
    let transport = transport.alone().await.map_err(unavailable)?;
    migrate::migrate(&transport, config).await.map_err(unavailable)
}

/// What prunes the store; nothing is asked yet.
///
/// # Errors
/// When the files of TLS cannot be used.
pub fn pruner(config: &ClickHouseConfig) -> Result<Box<dyn Pruner>, PruneError> {
    Ok(Box::new(prune::ClickHousePruner::new(config)?))
}

/// The statements that make the schema, for those who apply it by hand.
pub fn statements(config: &ClickHouseConfig) -> Vec<String> {
    migrate::statements(config)
}

/// The numbered files of the schema: number, name, text.
#[cfg(test)]
pub(crate) fn steps() -> impl Iterator<Item = (i32, &'static str, &'static str)> {
    schema::STEPS.iter().map(|step| (step.number, step.name, step.text))
}

impl ClickHouse {
    /// Which store this is. Every address that answers must give the same, or rows would go to one
    /// and questions to another.
    async fn identify(&self) -> Result<String, SinkError> {
        let down = |words: String| SinkError::Retry { after: None, source: words.into() };
        let alone = self.transport.alone().await.map_err(Fault::into_sink_error)?;
        match migrate::prepare(&alone, &self.config).await {
            Ok(Prepared::Current) => {}
            Ok(Prepared::Older { from, to }) => {
                return Err(down(format!(
                    "its schema is {from} and this program's {to}: run tracker migrate"
                )));
            }
            Ok(Prepared::Foreign) => {
                return Err(down(format!(
                    "the tables in {} were made by another program: tracker migrate uses what \
                     fits, drops nothing, and says what does not fit",
                    self.config.database
                )));
            }
            Err(fault) => return Err(fault.into_sink_error()),
        }
        let sql = format!(
            "select toString(id) from `{}`.store_identity order by created_at limit 1",
            self.config.database
        );
        let mut found: Option<(String, &str)> = None;
        let (mut failure, mut without) = (None, None);
        for (index, url) in self.transport.urls().enumerate() {
            let rows = match self.transport.rows_at(index, &sql).await {
                Ok(rows) => rows,
                // It answers, and does not have what another address has.
                Err(fault @ Fault::Refused { .. }) => {
                    without.get_or_insert(format!("{url}: {fault}"));
                    continue;
                }
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
        match (found, without, failure) {
            (Some((_, at)), Some(words), _) => {
                Err(down(format!("{at} and {words}: every address must lead to one store")))
            }
            (Some((id, _)), None, _) => Ok(id),
            (None, Some(words), _) => Err(down(words)),
            (None, None, Some(fault)) => Err(fault.into_sink_error()),
            (None, None, None) => Err(down("no address is configured".to_owned())),
        }
    }
}
