//! What every handler shares.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use super::cors::Origins;
use super::error::ApiError;
use super::files::Folder;
use super::forwarded::Trusted;
use crate::clock::Clock;
use crate::config::{Durability, HttpConfig, IntakeConfig, LinksConfig};
use crate::delivery::SinkHealth;
use crate::intake::Intake;
use crate::journal::Journal;
use crate::links::Links;
use crate::links::accounts::Accounts;
use crate::telemetry::Metrics;

/// How the sinks are; asked for each `/health` and `/metrics`.
pub type HealthSource = Arc<dyn Fn() -> Vec<SinkHealth> + Send + Sync>;

/// What the server is given by the composition root.
#[derive(Clone)]
pub struct AppState {
    /// Takes hits.
    pub intake: Arc<Intake>,
    /// Finds short links and says where visitors may go.
    pub links: Arc<Links>,
    /// Who may make short links.
    pub accounts: Arc<Accounts>,
    /// Where refused visitors go, and the folder of static files.
    pub site: LinksConfig,
    /// For its statistics.
    pub journal: Journal,
    /// How the sinks are.
    pub health: HealthSource,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Bounds, origins, proxies.
    pub http: HttpConfig,
    /// How input is read.
    pub reading: Reading,
    /// When the server started.
    pub started_at: DateTime<Utc>,
    /// What a 200 means; the word in `X-Ack`.
    pub durability: Durability,
    /// The site's own hosts, for a generated certificate.
    pub domains: Vec<String>,
}

/// The settings of intake that already matter while a request is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Nesting of JSON input.
    pub nesting_max: usize,
    /// A query with this key is not read.
    pub ignore_query_key: Option<String>,
}

impl From<&IntakeConfig> for Reading {
    fn from(config: &IntakeConfig) -> Self {
        Self {
            nesting_max: config.nesting_max,
            ignore_query_key: config.ignore_query_params_key.clone(),
        }
    }
}

/// [`AppState`] with what the routes make of it, once.
pub(super) struct Shared {
    pub(super) app: AppState,
    pub(super) origins: Origins,
    pub(super) trusted: Trusted,
    pub(super) files: Option<Folder>,
    /// Bytes of bodies that did not fit into one read; see `body.rs`.
    pub(super) bodies: Arc<AtomicUsize>,
    heavy: Semaphore,
}

impl Shared {
    pub(super) fn new(app: AppState) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            origins: Origins::new(&app.http.allow_origins),
            trusted: Trusted::new(&app.http.trusted_proxies),
            files: app
                .site
                .static_directory
                .as_deref()
                .map(|folder| Folder::new(folder, app.http.api_version)),
            bodies: Arc::default(),
            heavy: Semaphore::new(cores),
            app,
        }
    }

    /// Runs what would hold a worker for longer than about a millisecond on a thread for blocking
    /// work; at most one for each core at a time, the others wait.
    pub(super) async fn off_worker<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let _permit = self.heavy.acquire().await.map_err(|_| ApiError::Internal)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::Internal)
    }
}
