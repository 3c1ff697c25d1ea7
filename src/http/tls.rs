//! What the TLS listener shows: the certificate by ACME once there is one, the local one until then
//! and for names of its own, and the answers to the authority's challenges.
//!
//! The listener's configuration is made once and asks [`Shown`] in each handshake, so that a
//! certificate is replaced without touching a connection. A changed file is taken up when it has not
//! changed again for one [`CHECK`], because certificate and key are rarely written at one instant;
//! what cannot be used is refused, counted, and the one before goes on.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use chrono::{DateTime, Utc};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_acme::{ResolvesServerCertAcme, is_tls_alpn_challenge};
use serde::Serialize;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::acme::Acme;
use super::certificate::{self, Identity, TlsError};
use crate::clock::Clock;
use crate::config::{ServerConfig as Settings, TlsConfig};
use crate::telemetry::Metrics;

/// How often the operator's files are looked at.
const CHECK: Duration = Duration::from_secs(2);
/// How often the end of a generated certificate is; it is renewed months before.
const RENEWAL_CHECK: Duration = Duration::from_secs(60 * 60);
/// The protocol of a handshake that only proves who we are (RFC 8737).
pub(super) const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificates of one server, and the upkeep of them.
pub struct Certificates {
    local: TlsConfig,
    domains: Vec<String>,
    shown: Arc<Shown>,
    acme: Option<Acme>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// The files as they were last loaded or refused.
    seen: Mutex<Stamp>,
}

/// When certificate and key were last written, and how long they are.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// A certificate as `/health` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFact {
    /// `files`, `generated` or `acme`.
    pub source: &'static str,
    /// The hosts it is for.
    pub names: Vec<String>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// What `/health` says about TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsHealth {
    /// Every certificate that may be shown.
    pub certificates: Vec<CertificateFact>,
    /// Why there is no new certificate by ACME, since the last one that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_error: Option<String>,
    /// None of them has ended.
    #[serde(skip)]
    pub is_good: bool,
}

impl Certificates {
    /// Loads or makes the local certificate, and what is kept of one by ACME; nothing when there is
    /// no TLS listener. `domains` are the site's own hosts, for a generated certificate.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn open(
        settings: &Settings,
        domains: &[String],
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        if settings.listen_https.is_none() {
            return Ok(None);
        }
        let mut domains = domains.to_vec();
        domains.extend(settings.acme.iter().flat_map(|acme| acme.domains.clone()));
        let stamp = stamp(&settings.tls);
        let local = load(&settings.tls, &domains, clock.wall())?;
        count(&metrics, source(&settings.tls), &local);
        let shown = Arc::new(Shown {
            local: ArcSwap::from_pointee(local),
            issued: ArcSwapOption::empty(),
            challenges: ArcSwapOption::empty(),
        });
        let acme = settings
            .acme
            .clone()
            .map(|acme| {
                Acme::open(acme, Arc::clone(&shown), Arc::clone(&clock), Arc::clone(&metrics))
            })
            .transpose()?;
        Ok(Some(Arc::new(Self {
            local: settings.tls.clone(),
            domains,
            shown,
            acme,
            clock,
            metrics,
            seen: Mutex::new(stamp),
        })))
    }

    /// What a TLS listener needs: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let mut server =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(TlsError::Protocol)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.acme.is_some() {
            server.alpn_protocols.push(CHALLENGE_PROTOCOL.to_vec());
        }
        Ok(TlsAcceptor::from(Arc::new(server)))
    }

    /// Loads the local certificate again, or renews a generated one that is due; handshakes from now
    /// on show it. Blocks for the time of reading two files.
    ///
    /// # Errors
    /// When the files cannot be used; the certificate before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamp = stamp(&self.local);
        let loaded = load(&self.local, &self.domains, self.clock.wall());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        let identity = loaded.inspect_err(|error| {
            self.metrics.certificate_failures.inc();
            tracing::error!(%error, "certificate is refused, the one before stays");
        })?;
        count(&self.metrics, source(&self.local), &identity);
        self.shown.local.store(Arc::new(identity));
        Ok(())
    }

    /// Watches the files and drives ACME until `stop`.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let issue = async {
            match &self.acme {
                Some(acme) => acme.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = issue => {}
            () = Arc::clone(&self).watch() => {}
        }
    }

    async fn watch(self: Arc<Self>) {
        let pause = match self.local {
            TlsConfig::Files { .. } => CHECK,
            TlsConfig::Generated { .. } => RENEWAL_CHECK,
        };
        let mut before = None;
        loop {
            sleep(pause).await;
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.look(before)).await;
            before = looked.ok();
        }
    }

    /// One look at the files, which were as in `before` at the last one.
    fn look(&self, before: Option<Stamp>) -> Stamp {
        let now = stamp(&self.local);
        let is_new = *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != now;
        let is_due = matches!(self.local, TlsConfig::Generated { .. })
            && !certificate::is_good(&self.shown.local.load(), &self.domains, self.clock.wall());
        if (is_new && before == Some(now) || is_due) && self.reload().is_ok() {
            tracing::info!(source = source(&self.local), "certificate was taken up");
        }
        now
    }

    /// The answer to an `http-01` challenge.
    pub(super) fn challenge(&self, token: &str) -> Option<String> {
        self.shown.challenges.load().as_ref()?.get_http_01_key_auth(token)
    }

    /// What `/health` says.
    pub fn health(&self) -> TlsHealth {
        let fact = |source, identity: &Identity| CertificateFact {
            source,
            names: identity.names.clone(),
            expires_at: identity.not_after,
        };
        let mut certificates = vec![fact(source(&self.local), &self.shown.local.load())];
        certificates.extend(self.shown.issued.load().as_ref().map(|issued| fact("acme", issued)));
        let now = self.clock.wall();
        TlsHealth {
            is_good: certificates.iter().all(|certificate| certificate.expires_at > now),
            certificates,
            acme_error: self.acme.as_ref().and_then(Acme::last_error),
        }
    }
}

/// What a handshake is answered with.
#[derive(Debug)]
pub(super) struct Shown {
    local: ArcSwap<Identity>,
    pub(super) issued: ArcSwapOption<Identity>,
    /// The library's, which knows the open challenges.
    pub(super) challenges: ArcSwapOption<ResolvesServerCertAcme>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_tls_alpn_challenge(&hello) {
            return self.challenges.load().as_ref()?.resolve(hello);
        }
        let wanted = hello.server_name();
        let issued = self.issued.load();
        let issued = issued.as_ref().filter(|issued| wanted.is_none_or(|host| issued.covers(host)));
        Some(
            issued.map_or_else(
                || Arc::clone(&self.local.load().key),
                |issued| Arc::clone(&issued.key),
            ),
        )
    }
}

fn load(config: &TlsConfig, domains: &[String], now: DateTime<Utc>) -> Result<Identity, TlsError> {
    match config {
        TlsConfig::Files { cert, key } => Identity::load(cert, key),
        TlsConfig::Generated { directory } => certificate::kept(directory, domains, now),
    }
}

fn source(config: &TlsConfig) -> &'static str {
    match config {
        TlsConfig::Files { .. } => "files",
        TlsConfig::Generated { .. } => "generated",
    }
}

pub(super) fn count(metrics: &Metrics, source: &str, identity: &Identity) {
    metrics.certificate_end.with_label_values(&[source]).set(identity.not_after.timestamp());
}

/// Generated files are ours; only those of the operator change by another's hand.
fn stamp(config: &TlsConfig) -> Stamp {
    let of = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    match config {
        TlsConfig::Files { cert, key } => [of(cert), of(key)],
        TlsConfig::Generated { .. } => [None, None],
    }
}
