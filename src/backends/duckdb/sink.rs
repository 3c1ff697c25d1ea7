//! Batches, handed to the worker.

use std::sync::PoisonError;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::worker::Command;
use super::{DuckDb, fault};
use crate::backends::{Batch, Guarantee, Sink, SinkError};
use crate::tables::AnyTable;

/// Wait before the next attempt when the worker has too many commands.
const BUSY: Duration = Duration::from_millis(100);

/// Attempts to tell a busy worker to end.
const CLOSE_ATTEMPTS_MAX: u32 = 300;

impl DuckDb {
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, SinkError>>) -> Command,
    ) -> Result<T, SinkError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => {
                SinkError::Retry { after: Some(BUSY), source: "the database is busy".into() }
            }
            TrySendError::Disconnected(_) => fault::retry("the database is closed"),
        })?;
        answer.await.unwrap_or_else(|_| Err(fault::retry("the database is closed")))
    }
}

#[async_trait]
impl Sink for DuckDb {
    async fn identity(&self) -> Result<String, SinkError> {
        self.ask(Command::Identity).await
    }

    fn accepts(&self, _table: &dyn AnyTable) -> bool {
        true
    }

    fn guarantee(&self, _table: &dyn AnyTable) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn write(&self, batch: &Batch) -> Result<(), SinkError> {
        self.ask(|reply| Command::Write(batch.clone(), reply)).await
    }

    fn notice(&self) -> Option<String> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn close(&self) {
        for _ in 0..CLOSE_ATTEMPTS_MAX {
            let (reply, closed) = oneshot::channel();
            match self.commands.try_send(Command::Close(reply)) {
                Ok(()) => {
                    let _ = closed.await;
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(_)) => tokio::time::sleep(BUSY).await,
            }
        }
    }
}
