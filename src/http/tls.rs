//! The certificate of the TLS listener: from files, or generated at first start.
//!
//! A generated one is signed by nobody: it names `localhost`, the loopback addresses and the
//! site's own domains, lies in `DataDirectory/tls` with its key (mode 0600), and is replaced when it
//! is near its end or cannot be read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// Some systems refuse a certificate that is valid for longer than 825 days, even one they were told
/// to trust.
const VALID_DAYS: i64 = 820;
/// A generated certificate older than this is replaced at the next start.
const RENEW_DAYS: u64 = 730;

/// Why there is no TLS listener.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{path} holds no {what}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found instead.
        reason: String,
    },
    /// Certificate and key cannot be used together.
    #[error("certificate {cert} cannot be used with key {key}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No certificate could be made.
    #[error("generating a certificate")]
    Generate(#[source] rcgen::Error),
}

/// What a TLS listener needs: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
pub(super) fn acceptor(
    config: &TlsConfig,
    domains: &[String],
    now: DateTime<Utc>,
) -> Result<TlsAcceptor, TlsError> {
    let mut server = match config {
        TlsConfig::Files { cert, key } => load(cert, key)?,
        TlsConfig::Generated { directory } => kept(directory, domains, now)?,
    };
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn load(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let content = |path: &Path, what, error: &dyn std::fmt::Display| TlsError::Content {
        path: path.to_owned(),
        what,
        reason: error.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(cert, "certificate", &error))?;
    if chain.is_empty() {
        return Err(content(cert, "certificate", &"no section of that kind"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| content(key, "private key", &error))?;
    let pair = |source| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), source };
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair)
}

/// The kept certificate while it is good, else a new one.
fn kept(
    directory: &Path,
    domains: &[String],
    now: DateTime<Utc>,
) -> Result<ServerConfig, TlsError> {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    if is_young(&cert, now) {
        match load(&cert, &key) {
            Ok(server) => return Ok(server),
            Err(error) => tracing::warn!(%error, "generated certificate is replaced"),
        }
    }
    generate(directory, &cert, &key, domains, now)?;
    load(&cert, &key)
}

fn is_young(cert: &Path, now: DateTime<Utc>) -> bool {
    let Ok(written) = fs::metadata(cert).and_then(|metadata| metadata.modified()) else {
        return false;
    };
    let age = std::time::SystemTime::from(now).duration_since(written).unwrap_or_default();
    age < Duration::from_secs(RENEW_DAYS * 24 * 60 * 60)
}

fn generate(
    directory: &Path,
    cert: &Path,
    key: &Path,
    domains: &[String],
    now: DateTime<Utc>,
) -> Result<(), TlsError> {
    let mut params = CertificateParams::new(names(domains)).map_err(TlsError::Generate)?;
    params.distinguished_name.push(DnType::CommonName, "tracker");
    let (from, until) = (now - TimeDelta::days(1), now + TimeDelta::days(VALID_DAYS));
    params.not_before = rcgen::date_time_ymd(from.year(), small(from.month()), small(from.day()));
    params.not_after = rcgen::date_time_ymd(until.year(), small(until.month()), small(until.day()));
    let pair = KeyPair::generate().map_err(TlsError::Generate)?;
    let signed = params.self_signed(&pair).map_err(TlsError::Generate)?;
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file(directory))?;
    write(key, pair.serialize_pem().as_bytes(), 0o600).map_err(file(key))?;
    write(cert, signed.pem().as_bytes(), 0o644).map_err(file(cert))
}

/// A month or a day, which always fit.
fn small(part: u32) -> u8 {
    u8::try_from(part).unwrap_or(1)
}

/// `localhost`, both loopback addresses, and the domains that are host names.
fn names(domains: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for domain in domains {
        let domain = domain.trim().to_ascii_lowercase();
        let host = domain.strip_prefix("*.").unwrap_or(&domain);
        let is_host = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if is_host && !names.contains(&domain) {
            names.push(domain);
        }
    }
    names
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// The whole file or none of it, and never readable by others in between.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn now() -> DateTime<Utc> {
        Utc::now()
    }

    #[test]
    fn a_generated_certificate_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("tls");
        let config = TlsConfig::Generated { directory: directory.clone() };
        acceptor(&config, &["example.com".into()], now()).unwrap();
        let first = fs::read(directory.join("cert.pem")).unwrap();
        acceptor(&config, &[], now()).unwrap();
        assert_eq!(fs::read(directory.join("cert.pem")).unwrap(), first);
        let mode = fs::metadata(directory.join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_generated_certificate_is_replaced_when_old_or_broken() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig::Generated { directory: folder.path().to_owned() };
        let cert = folder.path().join("cert.pem");
        acceptor(&config, &[], now()).unwrap();
        let first = fs::read(&cert).unwrap();
        acceptor(&config, &[], now() + TimeDelta::days(731)).unwrap();
        let second = fs::read(&cert).unwrap();
        assert_ne!(second, first);
        fs::write(folder.path().join("key.pem"), "torn").unwrap();
        acceptor(&config, &[], now()).unwrap();
        assert_ne!(fs::read(&cert).unwrap(), second);
    }

    #[test]
    fn an_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let config = TlsConfig::Files { cert: cert.clone(), key: key.clone() };
        let error = || acceptor(&config, &[], now()).err().unwrap().to_string();
        assert!(error().contains("c.pem"), "{}", error());
        fs::write(&cert, "nothing").unwrap();
        assert!(error().contains("c.pem holds no certificate"), "{}", error());
        let generated = folder.path().join("tls");
        acceptor(&TlsConfig::Generated { directory: generated.clone() }, &[], now()).unwrap();
        fs::copy(generated.join("cert.pem"), &cert).unwrap();
        assert!(error().contains("k.pem"), "{}", error());
        fs::write(&key, "nothing").unwrap();
        assert!(error().contains("k.pem holds no private key"), "{}", error());
        fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(error().contains("cannot be used with key"), "{}", error());
    }

    #[test]
    fn only_host_names_become_names_of_the_certificate() {
        let domains = ["Example.com", "*.shop.example", "bad host", "x:80", "localhost", ""];
        let found = names(&domains.map(str::to_owned));
        assert_eq!(found, ["localhost", "127.0.0.1", "::1", "example.com", "*.shop.example"]);
    }
}
