//! The local certificate: from files, or generated at first start.
//!
//! A generated one is signed by nobody: it names `localhost`, the loopback addresses and the
//! site's own domains, lies in `DataDirectory/tls` with its key (mode 0600), and is replaced when it
//! is near its end, cannot be read, or names other hosts than are configured now.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::extensions::GeneralName;

use crate::tls::ClientTlsError;

/// Some systems refuse a certificate that is valid for longer than 825 days, even one they were told
/// to trust.
const VALID_DAYS: i64 = 820;
/// A generated certificate with less time left than this is replaced.
const RENEW_DAYS: i64 = 90;

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
    /// The authority cannot be spoken with.
    #[error("preparing certificates by ACME")]
    Client(#[from] ClientTlsError),
    /// The library offers no version of the protocol.
    #[error("preparing the TLS listener")]
    Protocol(#[source] rustls::Error),
}

/// Whether the two PEM files can be shown together.
///
/// # Errors
/// When one cannot be read or holds something else, or they do not fit.
pub fn check_certificate(cert: &Path, key: &Path) -> Result<(), TlsError> {
    Identity::load(cert, key).map(|_| ())
}

/// A certificate with its key, ready to be shown, and what it says about itself.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// Hosts and addresses, lower case.
    pub(super) names: Vec<String>,
    pub(super) not_before: DateTime<Utc>,
    pub(super) not_after: DateTime<Utc>,
}

impl Identity {
    /// From two PEM files, the leaf first.
    pub(super) fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::read((cert, &read(cert)?), (key, &read(key)?))
    }

    /// From the one PEM file at `path`, which has both.
    pub(super) fn of_pem(path: &Path, pem: &[u8]) -> Result<Self, TlsError> {
        Self::read((path, pem), (path, pem))
    }

    fn read(
        (cert, chain): (&Path, &[u8]),
        (key, secret): (&Path, &[u8]),
    ) -> Result<Self, TlsError> {
        let content = |path: &Path, what, error: &dyn std::fmt::Display| TlsError::Content {
            path: path.to_owned(),
            what,
            reason: error.to_string(),
        };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| content(cert, "certificate", &error))?;
        let Some(leaf) = chain.first() else {
            return Err(content(cert, "certificate", &"no section of that kind"));
        };
        let (names, [not_before, not_after]) =
            described(leaf).ok_or_else(|| content(cert, "certificate", &"not X.509"))?;
        let secret = PrivateKeyDer::from_pem_slice(secret)
            .map_err(|error| content(key, "private key", &error))?;
        let pair = CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider());
        let pair = pair.map_err(|source| TlsError::Pair {
            cert: cert.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        Ok(Self { key: Arc::new(pair), names, not_before, not_after })
    }

    /// Whether a client that asked for `host` gets a name it expects.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Names and validity of a certificate.
fn described(leaf: &[u8]) -> Option<(Vec<String>, [DateTime<Utc>; 2])> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let validity = parsed.validity();
    let time = |at: i64| DateTime::from_timestamp(at, 0);
    let (from, until) =
        (time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?);
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    });
    Some((names.collect(), [from, until]))
}

/// The kept certificate while it is good, else a new one.
pub(super) fn kept(
    directory: &Path,
    domains: &[String],
    now: DateTime<Utc>,
) -> Result<Identity, TlsError> {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    if cert.exists() {
        match Identity::load(&cert, &key) {
            Ok(found) if is_good(&found, domains, now) => return Ok(found),
            Ok(_) => tracing::info!("generated certificate is renewed"),
            Err(error) => tracing::warn!(%error, "generated certificate is replaced"),
        }
    }
    generate(directory, &cert, &key, domains, now)?;
    Identity::load(&cert, &key)
}

/// Not near its end, and for exactly the hosts that are configured.
pub(super) fn is_good(found: &Identity, domains: &[String], now: DateTime<Utc>) -> bool {
    let (mut has, mut wanted) = (found.names.clone(), names(domains));
    has.sort_unstable();
    wanted.sort_unstable();
    has == wanted && found.not_after - now > TimeDelta::days(RENEW_DAYS)
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
    create_private(directory).map_err(file(directory))?;
    write(key, pair.serialize_pem().as_bytes(), 0o600).map_err(file(key))?;
    write(cert, signed.pem().as_bytes(), 0o644).map_err(file(cert))
}

/// A folder, and those above it, that only we may enter.
pub(super) fn create_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// A month or a day, which always fit.
fn small(part: u32) -> u8 {
    u8::try_from(part).unwrap_or(1)
}

/// `localhost`, both loopback addresses, and the domains that are host names.
fn names(domains: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for domain in domains {
        let domain = domain.trim().trim_start_matches('.').to_ascii_lowercase();
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
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
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
        let domains = ["example.com".to_owned()];
        kept(&directory, &domains, now()).unwrap();
        let first = fs::read(directory.join("cert.pem")).unwrap();
        let again = kept(&directory, &domains, now() + TimeDelta::days(VALID_DAYS - 92)).unwrap();
        assert_eq!(fs::read(directory.join("cert.pem")).unwrap(), first);
        assert_eq!(again.names, ["localhost", "127.0.0.1", "::1", "example.com"]);
        assert!(again.covers("EXAMPLE.com") && !again.covers("other.example"));
        let mode = fs::metadata(directory.join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_generated_certificate_is_replaced_when_old_broken_or_for_other_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join("cert.pem");
        let mut last = Vec::new();
        let mut replaced = |domains: &[String], days: i64| {
            kept(folder.path(), domains, now() + TimeDelta::days(days)).unwrap();
            let found = fs::read(&cert).unwrap();
            std::mem::replace(&mut last, found.clone()) != found
        };
        let domains = ["example.com".to_owned()];
        assert!(replaced(&[], 0));
        assert!(!replaced(&[], 0));
        assert!(replaced(&[], 731), "near its end");
        assert!(replaced(&domains, 731), "another host");
        assert!(!replaced(&domains, 731));
        fs::write(folder.path().join("key.pem"), "torn").unwrap();
        assert!(replaced(&domains, 731), "torn");
    }

    #[test]
    fn an_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let error = || Identity::load(&cert, &key).err().unwrap().to_string();
        assert!(error().contains("c.pem"), "{}", error());
        fs::write(&cert, "nothing").unwrap();
        fs::write(&key, "nothing").unwrap();
        assert!(error().contains("c.pem holds no certificate"), "{}", error());
        let generated = folder.path().join("tls");
        kept(&generated, &[], now()).unwrap();
        fs::copy(generated.join("cert.pem"), &cert).unwrap();
        assert!(error().contains("k.pem holds no private key"), "{}", error());
        fs::remove_file(&key).unwrap();
        assert!(error().contains("k.pem"), "{}", error());
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
