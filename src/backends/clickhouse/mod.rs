//! ClickHouse: the store of larger installations.
//!
//! Assumed: this tracker's batches of a table come one at a time and in order. Promised:
//! - a batch is stored once, whatever happens to the answer, the server or this process (`sink`);
//! - one insert is on its way for each table, and one a second unless a backlog drains;
//! - what is stored is what `tables` says: types come from the server's catalog (`encode`);
//! - nothing in a database that was there before is dropped or renamed (`migrate`).

#[expect(dead_code, reason = "its sink follows")]
mod fault;
#[expect(dead_code, reason = "its sink follows")]
mod transport;

use std::io;
use std::sync::Arc;

use super::Backend;
use crate::clock::Clock;
use crate::config::ClickHouseConfig;

use self::transport::Transport;

/// Prepares the store and answers at once; it is reached behind.
///
/// # Errors
/// When the files of TLS cannot be used, or the machine gives no thread.
pub fn connect(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> io::Result<Backend> {
    let transport = Transport::new(config, clock).map_err(io::Error::other)?;
    let _transport = Arc::new(transport);
    Ok(Backend { name: config.name.clone(), kind: "clickhouse", sink: None, store: None })
}
