//! The composition root: builds every part from its section of the configuration, starts them in the
//! reverse order of the flow, and stops them in its order. Decides nothing about business.
//!
//! Start: journal recovered, stores named (they open behind), shippers, listeners. The server serves
//! with every sink down. Stop: listeners, requests in flight, shippers flush what is due until the
//! deadline, journal synced and closed. An event is in the journal before it is answered, so a kill
//! at any point of this loses nothing.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::backends::{self, Backend, Store};
use crate::clock::{Clock, SystemClock};
use crate::config::{BackendConfig, Config, ConfigErrors, Loaded, ServerConfig, TlsConfig};
use crate::consent::Consent;
use crate::delivery::{self, Delivery};
use crate::fresh::{self, StoredUpTo};
use crate::geo::GeoDb;
use crate::http::{
    self, AppState, Certificates, Control, Handlers, Proxies, Reload, Replay, Server,
};
use crate::intake::Intake;
use crate::journal::{Journal, RealFs};
use crate::links::Links;
use crate::links::accounts::Accounts;
use crate::telemetry::{self, Metrics};

/// Stop has three parts, which take at most a third of the deadline each: requests in flight, what
/// waits for the sinks, and the sinks' own closing.
const STOP_PARTS: u32 = 3;
/// How long blocking calls that ignore the deadline may hold the end of the process.
const LINGER: Duration = Duration::from_millis(100);

/// Reads the configuration again, from where it was read at the start.
pub type Reread = Box<dyn Fn() -> Result<Loaded, ConfigErrors> + Send + Sync>;

/// Serves until SIGTERM or SIGINT; at SIGHUP takes up what `reread` gives.
///
/// # Errors
/// When a part cannot start, or one broke for good while serving.
pub fn serve(loaded: Loaded, reread: Reread) -> anyhow::Result<()> {
    let Loaded { config, notes } = loaded;
    telemetry::start_logging(&config.log);
    tell(&notes);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(run(config, reread));
    runtime.shutdown_timeout(LINGER);
    outcome
}

fn tell(notes: &[String]) {
    for note in notes {
        tracing::warn!(note, "configuration");
    }
}

async fn run(config: Config, reread: Reread) -> anyhow::Result<()> {
    let parts = Parts::start(&config, reread).await?;
    print_welcome(&parts.server, &config);
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let reloading = tokio::spawn(reload_at(hangup, parts.reloader));

    let stop = CancellationToken::new();
    let control = tokio::spawn(parts.control.serve(stop.clone()));
    let mut serving = tokio::spawn(parts.server.serve(stop.clone()));
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        () = parts.journal.failed() => Some("the journal's disk failed; see the log"),
        () = parts.delivery.failed() => Some("delivery broke; see the log"),
        _ = &mut serving => Some("the listeners broke; see the log"),
    };
    tracing::info!("stopping");
    stop.cancel();
    reloading.abort();
    if !serving.is_finished() {
        drop(serving.await);
    }
    parts.delivery.stop(config.server.stop_deadline / STOP_PARTS).await;
    drop(control.await);
    let journal = parts.journal.clone();
    tokio::task::spawn_blocking(move || journal.close()).await.context("closing the journal")?;
    match failure {
        Some(failure) => bail!(failure),
        None => Ok(()),
    }
}

/// Everything that runs.
struct Parts {
    journal: Journal,
    delivery: Arc<Delivery>,
    server: Server,
    control: Control,
    reloader: Arc<Reloader>,
}

impl Parts {
    async fn start(config: &Config, reread: Reread) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().context("registering metrics")?);
        let data = &config.server.data_directory;
        let cursors = data.join("cursors");
        for folder in [data, &cursors] {
            create_private(folder)
                .with_context(|| format!("creating the folder {}", folder.display()))?;
        }

        let resume_after = delivery::highest_cursor(&cursors).context("reading the cursors")?;
        let (journal, _) = Journal::open(
            &config.journal,
            resume_after,
            Arc::new(RealFs),
            Arc::clone(&clock),
            Arc::clone(&metrics),
        )
        .context("opening the journal")?;
        let connected = connect(config, &clock)?;
        let backends: Vec<Backend> = connected.iter().map(|(backend, _)| backend.clone()).collect();
        let store = backends::answering(&backends);
        let delivery = Delivery::start(&connected, &journal, &cursors, &clock, &metrics)
            .context("starting delivery")?;
        let delivery = Arc::new(delivery);
        await_critical(config, &connected).await?;

        let geo = Arc::new(open_places(config)?);
        let intake =
            Intake::open(&config.intake, Arc::clone(&geo), journal.clone(), Arc::clone(&metrics))?;
        let (links, consent) =
            seen_at_once(config, &backends, store.as_ref(), &delivery, &journal, &clock);
        let certificates = Certificates::open(
            &config.server,
            &config.intake.domains,
            Arc::clone(&clock),
            Arc::clone(&metrics),
        )
        .context("preparing the TLS listener")?;
        let proxies =
            Proxies::open(&config.server.http.proxies, &metrics).context("preparing the proxy")?;
        let state = AppState {
            intake: Arc::new(intake),
            links,
            accounts: Arc::new(Accounts::new(store.clone(), Arc::clone(&clock))),
            site: config.links.clone(),
            journal: journal.clone(),
            consent,
            geo,
            health: Arc::new({
                let delivery = Arc::clone(&delivery);
                move || delivery.health()
            }),
            metrics,
            started_at: clock.wall(),
            clock,
            http: config.server.http.clone(),
            reading: (&config.intake).into(),
            durability: config.journal.durability,
            certificates,
            proxies,
            disbelieved: Arc::default(),
        };
        let listeners = ServerConfig {
            stop_deadline: config.server.stop_deadline / STOP_PARTS,
            ..config.server.clone()
        };
        let server = Server::bind(&listeners, state.clone()).context("listening")?;
        let reloader = Arc::new(Reloader {
            reread,
            reload: server.reload(),
            now: Mutex::new(Now { config: config.clone(), state: state.clone() }),
        });
        let handlers = handlers(config, state, &backends, store, &journal, &reloader);
        let control = Control::bind(&data.join("tracker.sock"), handlers)
            .await
            .context("opening the control socket")?;
        Ok(Self { journal, delivery, server, control, reloader })
    }
}

/// Links and agreements over the system that answers questions. What it may lack is read from the
/// journal behind the start.
fn seen_at_once(
    config: &Config,
    backends: &[Backend],
    store: Option<&Arc<dyn Store>>,
    delivery: &Arc<Delivery>,
    journal: &Journal,
    clock: &Arc<dyn Clock>,
) -> (Arc<Links>, Arc<Consent>) {
    let first = backends.iter().find(|backend| backend.store.is_some());
    let name = first.map(|backend| backend.name.clone()).unwrap_or_default();
    let stored: StoredUpTo = Arc::new({
        let (delivery, name) = (Arc::clone(delivery), name.clone());
        move || delivery.stored(&name)
    });
    let links = Links::new(store.cloned(), Arc::clone(&stored), Arc::clone(clock));
    let consent = Consent::new(store.cloned(), stored, Arc::clone(clock), journal.node());
    links.will_recover();
    consent.will_recover();
    let both = (Arc::new(links), Arc::new(consent));
    let cursors = config.server.data_directory.join("cursors");
    let ((links, consent), journal) = (both.clone(), journal.clone());
    // Nobody waits for its end but visitors, each with a deadline.
    drop(tokio::task::spawn_blocking(move || {
        let after = ["redirects", "agreements"]
            .map(|table| delivery::stored_cursor(&cursors, &name, table).unwrap_or_default());
        let after = after.into_iter().min().unwrap_or_default();
        let read = fresh::read_behind(&journal, after, |event, position| {
            links.recover(event, position);
            consent.remember(event, position);
        });
        if let Err(error) = read {
            tracing::warn!(%error, "facts that the store lacks could not be read from the journal");
        }
        links.recovered();
        consent.recovered();
    }));
    both
}

/// What a start would stumble over, found without starting anything: files that are named and cannot
/// be used. Nothing is made or changed.
pub fn rehearse(config: &Config) -> Vec<anyhow::Error> {
    let files = match &config.server.tls {
        TlsConfig::Files { cert, key } if config.server.listen_https.is_some() => {
            http::check_certificate(cert, key).context("TLSCert and TLSKey").err()
        }
        TlsConfig::Files { .. } | TlsConfig::Generated { .. } => None,
    };
    let places = open_places(config).err();
    let proxies = match Metrics::new() {
        Ok(metrics) => Proxies::open(&config.server.http.proxies, &Arc::new(metrics))
            .context("ProxyUrl and Proxies")
            .err(),
        Err(error) => Some(error.into()),
    };
    let folder = config.links.static_directory.as_deref().filter(|folder| !folder.is_dir());
    let folder = folder.map(|folder| anyhow!("StaticDirectory: {} is no folder", folder.display()));
    let stores = config.backends.iter().filter_map(|backend| {
        let usable = backends::rehearse(backend);
        usable.with_context(|| format!("Notify: {}", backend.name())).err()
    });
    [files, places, proxies, folder].into_iter().flatten().chain(stores).collect()
}

/// The database of places as configured; none where places are not wanted.
fn open_places(config: &Config) -> anyhow::Result<GeoDb> {
    if !config.intake.geo_ip {
        return Ok(GeoDb::none());
    }
    GeoDb::open(config.intake.geo_ip_database.as_deref()).context("opening the database of places")
}

/// Names every configured system; none is waited for.
fn connect(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Vec<(Backend, crate::config::LimitsByTable)>> {
    config
        .backends
        .iter()
        .map(|backend| {
            let connected = backends::connect(backend, Arc::clone(clock))
                .with_context(|| format!("starting {}", backend.name()))?;
            Ok((connected, backend.limits().clone()))
        })
        .collect()
}

/// A critical system that cannot be reached ends the start.
async fn await_critical(
    config: &Config,
    connected: &[(Backend, crate::config::LimitsByTable)],
) -> anyhow::Result<()> {
    for (settings, (backend, _)) in config.backends.iter().zip(connected) {
        if let (true, Some(sink)) = (settings.critical(), &backend.sink) {
            sink.identity().await.with_context(|| {
                format!("connecting to {}, which is configured as critical", backend.name)
            })?;
        }
    }
    Ok(())
}

/// What the control socket answers with.
fn handlers(
    config: &Config,
    app: AppState,
    backends: &[Backend],
    store: Option<Arc<dyn Store>>,
    journal: &Journal,
    reloader: &Arc<Reloader>,
) -> Handlers {
    let (rows_max, time_max) =
        config.backends.first().map(BackendConfig::query_bounds).unwrap_or_default();
    let (journal, kept, clock) = (journal.clone(), store.clone(), Arc::clone(&app.clock));
    let replay: Replay = Arc::new(move |_| {
        let (journal, store, now) = (journal.clone(), kept.clone(), clock.wall());
        Box::pin(async move {
            let store = store.ok_or("no configured store keeps quarantined rows")?;
            let done = delivery::replay(&*store, &journal, now)
                .await
                .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
            Ok(serde_json::json!({"appended": done.appended, "undecodable": done.undecodable}))
        })
    });
    let reloader = Arc::clone(reloader);
    let reload: Replay = Arc::new(move |_| {
        let reloader = Arc::clone(&reloader);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || reloader.reload()).await;
            let notes = done.map_err(|error| error.to_string())?;
            let notes = notes.map_err(|error| format!("{error:#}"))?;
            Ok(serde_json::json!({ "notes": notes }))
        })
    });
    let disbelieved = Arc::clone(&app.disbelieved);
    let pruners = backends
        .iter()
        .filter_map(|backend| Some((backend.name.clone(), backend.pruner.clone()?)))
        .collect();
    Handlers { app, store, rows_max, time_max, replay, reload, pruners, disbelieved }
}

/// Takes up a changed configuration while the server serves.
struct Reloader {
    reread: Reread,
    reload: Reload,
    now: Mutex<Now>,
}

/// What the server runs with.
struct Now {
    config: Config,
    state: AppState,
}

impl Reloader {
    /// Reads the file and the files it names; requests from now on meet what they say. Gives what
    /// the operator should know, settings that wait for a restart among it. Blocks while it reads.
    ///
    /// # Errors
    /// When anything in it cannot be used; then nothing has changed.
    fn reload(&self) -> anyhow::Result<Vec<String>> {
        let Loaded { config: wanted, mut notes } = (self.reread)()?;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, waiting) = wanted.within(&now.config);
        notes.extend(
            waiting.into_iter().map(|key| format!("{key}: takes effect at the next start")),
        );
        // The built-in database is the same every time; a file may hold something new.
        let places =
            |config: &Config| (config.intake.geo_ip, config.intake.geo_ip_database.clone());
        let is_kept =
            config.intake.geo_ip_database.is_none() && places(&config) == places(&now.config);
        let geo =
            if is_kept { Arc::clone(&now.state.geo) } else { Arc::new(open_places(&config)?) };
        let intake = now.state.intake.successor(&config.intake, Arc::clone(&geo))?;
        now.state.reload_certificates().context("reading the certificate")?;
        let state = AppState {
            intake: Arc::new(intake),
            geo,
            site: config.links.clone(),
            http: config.server.http.clone(),
            reading: (&config.intake).into(),
            ..now.state.clone()
        };
        self.reload.apply(state.clone());
        *now = Now { config, state };
        tell(&notes);
        tracing::info!("configuration was read again");
        Ok(notes)
    }
}

/// Reloads at each signal.
async fn reload_at(mut hangup: Signal, reloader: Arc<Reloader>) {
    while hangup.recv().await.is_some() {
        let reloader = Arc::clone(&reloader);
        match tokio::task::spawn_blocking(move || reloader.reload()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(
                error = format!("{error:#}"),
                "configuration cannot be used, the one before stays"
            ),
            Err(error) => tracing::error!(%error, "reading the configuration broke"),
        }
    }
}

/// Where to look, for whoever started it.
fn print_welcome(server: &Server, config: &Config) {
    if let Some(address) = server.http_address() {
        println!("tracker listens on http://{address}");
    }
    if let Some(address) = server.https_address() {
        println!("tracker listens on https://{address}");
    }
    if let (Some(address), Some(host)) = (server.redirect_address(), &config.server.public_host) {
        println!("tracker sends http://{address} on to https://{host}");
    }
    println!("data in {}", config.server.data_directory.display());
    let api = config.server.http.api_version;
    let base = match (server.http_address(), server.https_address()) {
        (Some(address), _) => format!("curl -i http://{address}"),
        (None, Some(address)) => format!("curl -ik https://{address}"),
        (None, None) => return,
    };
    println!("try:  {base}/tr/v{api}/tr/ -d '{{\"ename\":\"hello\",\"etyp\":\"try\"}}'");
    println!("then: tracker query \"select created_at, ename, country from events\"");
}

fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
