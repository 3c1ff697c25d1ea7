//! Certificates by ACME: the library orders and renews; here it is kept going, and what it gets is
//! kept and shown.
//!
//! Account key and certificate lie in `DataDirectory/tls/acme` (folder 0700, files 0600), one of
//! each for a directory and a list of names, so that a changed list orders anew and a start shows
//! what the last run got before it listens. An order that says nothing for [`SILENCE_MAX`] while a
//! certificate is wanted hangs, and is begun again.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use futures_core::Stream;
use rustls::ClientConfig;
use rustls_acme::{
    AccountCache, AcmeConfig as Order, AcmeState, CertCache, EventError, EventOk, UseChallenge,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::certificate::{self, Identity, TlsError};
use super::tls::{self, Shown};
use crate::clock::Clock;
use crate::config::{AcmeChallenge, AcmeConfig, ClientTlsConfig};
use crate::telemetry::Metrics;

/// The library's own waits between attempts grow to 18 hours.
const SILENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of an error that are logged; the authority's own words may be long.
const ERROR_BYTES_MAX: usize = 512;
/// A certificate is renewed when a third of its time is left.
const RENEWAL_PART: i32 = 3;

/// The orders of one server.
pub(super) struct Acme {
    config: AcmeConfig,
    client: Arc<ClientConfig>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    last_error: Mutex<Option<String>>,
}

type Event = Result<EventOk, EventError<io::Error, io::Error>>;

impl Acme {
    /// Shows what is kept; orders nothing yet.
    pub(super) fn open(
        config: AcmeConfig,
        shown: Arc<Shown>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let trust = ClientTlsConfig { ca_cert: config.ca_cert.clone(), identity: None };
        let client = Arc::new(crate::tls::client(&trust)?);
        certificate::create_private(&config.folder)
            .map_err(|source| TlsError::File { path: config.folder.clone(), source })?;
        let vault = Vault { folder: config.folder.clone(), shown, metrics: Arc::clone(&metrics) };
        let path = vault.certificate(&config.domains, &config.directory_url);
        if let Ok(pem) = std::fs::read(&path) {
            vault.show(&path, &pem);
        }
        Ok(Self { config, client, vault, clock, metrics, last_error: Mutex::default() })
    }

    /// Orders and renews, for ever.
    pub(super) async fn run(&self) {
        loop {
            let mut state = self.begin();
            self.vault.shown.challenges.store(Some(state.resolver()));
            loop {
                let next = poll_fn(|cx| Pin::new(&mut state).poll_next(cx));
                match timeout(SILENCE_MAX, next).await {
                    Ok(Some(event)) => self.note(&event),
                    Err(_) if self.is_wanted() => {
                        tracing::warn!("the order of a certificate hangs and is begun again");
                        break;
                    }
                    // The stream has no end.
                    Ok(None) | Err(_) => {}
                }
            }
        }
    }

    fn begin(&self) -> AcmeState<io::Error, io::Error> {
        let contact = self.config.email.iter().map(|email| format!("mailto:{email}"));
        Order::new_with_client_config(&self.config.domains, Arc::clone(&self.client))
            .directory(&self.config.directory_url)
            .contact(contact)
            .challenge_type(match self.config.challenge {
                AcmeChallenge::TlsAlpn => UseChallenge::TlsAlpn01,
                AcmeChallenge::Http => UseChallenge::Http01,
            })
            .cache(self.vault.clone())
            .state()
    }

    /// There is no certificate, or it should have been renewed by now.
    fn is_wanted(&self) -> bool {
        let issued = self.vault.shown.issued.load();
        issued.as_ref().is_none_or(|issued| {
            let renewal = issued.not_after - (issued.not_after - issued.not_before) / RENEWAL_PART;
            self.clock.wall() > renewal
        })
    }

    fn note(&self, event: &Event) {
        match event {
            Ok(done) => {
                if matches!(done, EventOk::DeployedNewCert) {
                    self.set_error(None);
                }
                tracing::info!(event = ?done, "certificate by ACME");
            }
            Err(error) => {
                let text = short(&error.to_string());
                tracing::warn!(error = text, "certificate by ACME, will try again");
                self.metrics.acme_failures.inc();
                self.set_error(Some(text));
            }
        }
    }

    fn set_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One line, and not a long one.
fn short(text: &str) -> String {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().replace(|c: char| c.is_control(), " ")
}

/// What is kept on disk, and the way of a new certificate to the listener.
#[derive(Clone)]
struct Vault {
    folder: PathBuf,
    shown: Arc<Shown>,
    metrics: Arc<Metrics>,
}

impl Vault {
    fn certificate(&self, domains: &[String], directory: &str) -> PathBuf {
        self.folder.join(format!("certificate-{}.pem", fingerprint(domains, directory)))
    }

    fn account(&self, contact: &[String], directory: &str) -> PathBuf {
        self.folder.join(format!("account-{}.der", fingerprint(contact, directory)))
    }

    fn show(&self, path: &std::path::Path, pem: &[u8]) {
        match Identity::of_pem(path, pem) {
            Ok(identity) => {
                tls::count(&self.metrics, "acme", &identity);
                self.shown.issued.store(Some(Arc::new(identity)));
            }
            Err(error) => tracing::warn!(%error, "a certificate by ACME cannot be used"),
        }
    }
}

/// Sixteen bytes that differ for another directory or other names.
fn fingerprint(names: &[String], directory: &str) -> String {
    let mut text = names.join("\0");
    text.push_str("\0\0");
    text.push_str(directory);
    let hash = digest(&SHA256, text.as_bytes());
    let first = hash.as_ref().first_chunk::<16>().copied().unwrap_or_default();
    Uuid::from_bytes(first).simple().to_string()
}

async fn read(path: PathBuf) -> io::Result<Option<Vec<u8>>> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn write(path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
    let done = tokio::task::spawn_blocking(move || certificate::write(&path, &bytes, 0o600)).await;
    done.map_err(io::Error::other)?
}

#[async_trait]
impl CertCache for Vault {
    type EC = io::Error;

    async fn load_cert(&self, domains: &[String], directory: &str) -> io::Result<Option<Vec<u8>>> {
        read(self.certificate(domains, directory)).await
    }

    /// Shown whether or not it can be kept: it is good until the next start in any case.
    async fn store_cert(&self, domains: &[String], directory: &str, pem: &[u8]) -> io::Result<()> {
        let path = self.certificate(domains, directory);
        self.show(&path, pem);
        write(path, pem.to_vec()).await
    }
}

#[async_trait]
impl AccountCache for Vault {
    type EA = io::Error;

    async fn load_account(
        &self,
        contact: &[String],
        directory: &str,
    ) -> io::Result<Option<Vec<u8>>> {
        read(self.account(contact, directory)).await
    }

    async fn store_account(
        &self,
        contact: &[String],
        directory: &str,
        account: &[u8],
    ) -> io::Result<()> {
        write(self.account(contact, directory), account.to_vec()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_or_another_directory_have_other_files() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let one = fingerprint(&names(&["a.example", "b.example"]), "https://ca.example/dir");
        assert_eq!(one.len(), 32);
        assert_ne!(one, fingerprint(&names(&["a.exampleb.example"]), "https://ca.example/dir"));
        assert_ne!(one, fingerprint(&names(&["b.example", "a.example"]), "https://ca.example/dir"));
        assert_ne!(one, fingerprint(&names(&["a.example", "b.example"]), "https://ca.example/"));
    }

    #[test]
    fn an_error_is_one_short_line() {
        assert_eq!(short("a\nb"), "a b");
        assert_eq!(short(&"ü".repeat(400)).len(), ERROR_BYTES_MAX);
    }
}
