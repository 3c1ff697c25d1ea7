//! What every handler shares.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use super::certificate::TlsError;
use super::cors::Origins;
use super::error::ApiError;
use super::files::Folder;
use super::forwarded::{Disbelieved, Trusted};
use super::keys::Keys;
use super::limits::Limits;
use super::privacy::Lookups;
use super::proxy::Proxies;
use super::tls::Certificates;
use crate::clock::Clock;
use crate::config::{Durability, HttpConfig, IntakeConfig, LinksConfig};
use crate::consent::Consent;
use crate::delivery::SinkHealth;
use crate::geo::GeoDb;
use crate::intake::Intake;
use crate::journal::Journal;
use crate::links::accounts::Accounts;
use crate::links::{Links, Policy};
use crate::telemetry::Metrics;

/// How the sinks are; asked for each `/health` and `/metrics`.
pub type HealthSource = Arc<dyn Fn() -> Vec<SinkHealth> + Send + Sync>;

/// What the server is given by the composition root.
#[derive(Clone)]
pub struct AppState {
    /// Takes hits.
    pub intake: Arc<Intake>,
    /// Finds short links.
    pub links: Arc<Links>,
    /// Who may make short links.
    pub accounts: Arc<Accounts>,
    /// Where visitors may go, and the folder of static files.
    pub site: LinksConfig,
    /// For its statistics.
    pub journal: Journal,
    /// What visitors agreed to, and the regulations.
    pub consent: Arc<Consent>,
    /// Where an address is; knows nothing with `UseGeoIP: false`.
    pub geo: Arc<GeoDb>,
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
    /// What the TLS listener shows; `None` without one.
    pub certificates: Option<Arc<Certificates>>,
    /// Servers behind us.
    pub proxies: Arc<Proxies>,
    /// Who names clients without being believed.
    pub disbelieved: Arc<Disbelieved>,
}

impl AppState {
    /// Reads the certificate files again; handshakes from now on show them. Blocks for the time of
    /// reading two files.
    ///
    /// # Errors
    /// When they cannot be used; the certificate before stays.
    pub fn reload_certificates(&self) -> Result<(), TlsError> {
        self.certificates.as_ref().map_or(Ok(()), |certificates| certificates.reload())
    }
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
    pub(super) policy: Policy,
    pub(super) files: Option<Folder>,
    pub(super) keys: Keys,
    /// Bytes of bodies that did not fit into one read; see `body.rs`.
    pub(super) bodies: Arc<AtomicUsize>,
    pub(super) limits: Arc<Limits>,
    /// Look-ups of addresses that are not the caller's own.
    pub(super) lookups: Lookups,
    heavy: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(app: AppState) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            origins: Origins::new(&app.http.allow_origins),
            trusted: Trusted::new(&app.http.trusted_proxies),
            policy: Policy::new(&app.site, app.http.api_version),
            files: app
                .site
                .static_directory
                .as_deref()
                .map(|folder| Folder::new(folder, app.http.api_version)),
            keys: Keys::new(&app.http.keys),
            bodies: Arc::default(),
            limits: Arc::new(Limits::new(
                &app.http.limits,
                Arc::clone(&app.clock),
                Arc::clone(&app.metrics),
            )),
            lookups: Lookups::default(),
            heavy: Arc::new(Semaphore::new(cores)),
            app,
        }
    }

    /// What requests meet after a change of settings: what is in flight goes on being counted.
    pub(super) fn successor(&self, app: AppState) -> Self {
        let mut next = Self::new(app);
        next.bodies = Arc::clone(&self.bodies);
        next.heavy = Arc::clone(&self.heavy);
        // Changed limits begin to count anew; others go on.
        if next.app.http.limits == self.app.http.limits {
            next.limits = Arc::clone(&self.limits);
        }
        next
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
