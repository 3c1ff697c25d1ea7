//! Settings of certificates: the ones we show, and what outgoing connections show and believe.

use std::path::{Path, PathBuf};

use super::section::Section;

/// Names in one certificate; what Let's Encrypt allows.
const DOMAINS_MAX: usize = 100;
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Where the local certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsConfig {
    /// `TLSCert` and `TLSKey`: PEM files.
    Files {
        /// Chain, leaf first.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Generated at first start and kept in this folder (`DataDirectory/tls`).
    Generated {
        /// Where certificate and key are kept.
        directory: PathBuf,
    },
}

/// How the certificate authority finds out that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcmeChallenge {
    /// `tls-alpn-01`: by a handshake with the TLS listener, which the name's port 443 must reach.
    #[default]
    TlsAlpn,
    /// `http-01`: by a request to a plain listener, which the name's port 80 must reach.
    Http,
}

/// Certificates by ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// `LetsEncryptDomains`: the names of the one certificate; at least one.
    pub domains: Vec<String>,
    /// `LetsEncryptEmail`: where the authority may write to. Default none.
    pub email: Option<String>,
    /// `LetsEncryptDirectory`: the authority's directory. Default Let's Encrypt, or its test
    /// service with `LetsEncryptStaging`.
    pub directory_url: String,
    /// `LetsEncryptCACert`: who signed the directory's own certificate, beside the public
    /// authorities. Default none.
    pub ca_cert: Option<PathBuf>,
    /// `LetsEncryptChallenge`. Default `tls-alpn-01`.
    pub challenge: AcmeChallenge,
    /// Where account key and certificate are kept (`DataDirectory/tls/acme`).
    pub folder: PathBuf,
}

/// What an outgoing TLS connection believes and shows. The public authorities are believed in any
/// case, and a certificate is always verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// `CACert`: PEM file of further authorities.
    pub ca_cert: Option<PathBuf>,
    /// `Cert` and `Key`: PEM files of what we show.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The local certificate.
pub(super) fn local(file: &mut Section<'_>, folder: &Path, data_directory: &Path) -> TlsConfig {
    match pair(file, folder, "TLSCert", "TLSKey") {
        Some((cert, key)) => TlsConfig::Files { cert, key },
        None => TlsConfig::Generated { directory: data_directory.join("tls") },
    }
}

/// Certificates by ACME; `None` when `LetsEncryptDomains` names nothing.
pub(super) fn acme(
    file: &mut Section<'_>,
    folder: &Path,
    data_directory: &Path,
) -> Option<AcmeConfig> {
    let domains = file.list("LetsEncryptDomains").unwrap_or_default();
    let staging = file.flag("LetsEncryptStaging", false);
    let own = file.filled("LetsEncryptDirectory");
    let email = file.filled("LetsEncryptEmail");
    let challenges = [("tls-alpn-01", AcmeChallenge::TlsAlpn), ("http-01", AcmeChallenge::Http)];
    let challenge = file.choice("LetsEncryptChallenge", &challenges).unwrap_or_default();
    let ca_cert = file.filled("LetsEncryptCACert").map(|path| folder.join(path));
    for domain in domains.iter().filter(|domain| !is_host_name(domain)) {
        let message = if domain.starts_with("*.") {
            format!("{domain:?} cannot be had by these challenges; name each host")
        } else {
            format!("{domain:?} is not a host like \"example.com\"")
        };
        file.error("LetsEncryptDomains", message);
    }
    if domains.len() > DOMAINS_MAX {
        file.error("LetsEncryptDomains", format!("more than {DOMAINS_MAX} names"));
    }
    if email.as_ref().is_some_and(|email| !email.contains('@')) {
        file.error("LetsEncryptEmail", "expected an address like \"admin@example.com\"");
    }
    if own.as_ref().is_some_and(|url| !url.starts_with("https://")) {
        file.error("LetsEncryptDirectory", "expected an address that begins with https://");
    }
    if staging && own.is_some() {
        file.error("LetsEncryptStaging", "stands beside LetsEncryptDirectory; keep one of them");
    }
    let public = if staging { LETS_ENCRYPT_STAGING } else { LETS_ENCRYPT };
    (!domains.is_empty()).then(|| AcmeConfig {
        domains: domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
        email,
        directory_url: own.unwrap_or_else(|| public.to_owned()),
        ca_cert,
        challenge,
        folder: data_directory.join("tls").join("acme"),
    })
}

/// What the whole file says about outgoing connections.
pub(super) fn outgoing(file: &mut Section<'_>, folder: &Path) -> ClientTlsConfig {
    if file.flag("IgnoreInsecureTLS", false) {
        file.error(
            "IgnoreInsecureTLS",
            "certificates are always verified; name the authority in TLSCACert or CACert",
        );
    }
    ClientTlsConfig {
        ca_cert: file.filled("TLSCACert").map(|path| folder.join(path)),
        identity: pair(file, folder, "TLSClientCert", "TLSClientKey"),
    }
}

/// What an entry says about its own connections; where it is silent, `standard` holds. The keys are
/// those of the Go tracker's entries.
pub(super) fn of_entry(
    entry: &mut Section<'_>,
    folder: &Path,
    standard: &ClientTlsConfig,
) -> ClientTlsConfig {
    let ca_cert = entry.filled("CACert").map(|path| folder.join(path));
    let identity = pair(entry, folder, "Cert", "Key");
    ClientTlsConfig {
        ca_cert: ca_cert.or_else(|| standard.ca_cert.clone()),
        identity: identity.or_else(|| standard.identity.clone()),
    }
}

/// A certificate and its key, which come together.
fn pair(
    section: &mut Section<'_>,
    folder: &Path,
    cert: &'static str,
    key: &'static str,
) -> Option<(PathBuf, PathBuf)> {
    match (section.filled(cert), section.filled(key)) {
        (Some(cert), Some(key)) => Some((folder.join(cert), folder.join(key))),
        (None, None) => None,
        (found, _) => {
            let missing = if found.is_none() { cert } else { key };
            section.error(missing, "is missing: a certificate and its key come together");
            None
        }
    }
}

/// A name in the public DNS: labels of letters, digits and hyphens, at least two, and no address.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253
        && text.contains('.')
        && text.split('.').all(label)
        && !text.rsplit('.').next().is_some_and(is_number)
}
