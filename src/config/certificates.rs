//! Settings of certificates: the ones we show, and what outgoing connections show and believe.

use std::path::{Path, PathBuf};

use super::dialect::below;
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
    let ca_cert = file.filled("LetsEncryptCACert").map(|path| below(folder, &path));
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
        ca_cert: file.filled("TLSCACert").map(|path| below(folder, &path)),
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
    let ca_cert = entry.filled("CACert").map(|path| below(folder, &path));
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
        (Some(cert), Some(key)) => Some((below(folder, &cert), below(folder, &key))),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Config, ServerConfig};

    fn read(value: &Value) -> Result<ServerConfig, Vec<String>> {
        let env = BTreeMap::new();
        let loaded = Config::parse(&value.to_string(), Path::new("/etc/tracker"), &env);
        let words = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect();
        loaded.map(|loaded| loaded.config.server).map_err(words)
    }

    #[test]
    fn acme_needs_only_the_domains() {
        let server = read(&json!({"LetsEncryptDomains": ["A.example"]})).unwrap();
        let acme = server.acme.unwrap();
        assert_eq!(acme.domains, ["a.example"]);
        assert_eq!(acme.directory_url, LETS_ENCRYPT);
        assert_eq!((acme.email, acme.ca_cert), (None, None));
        assert_eq!(acme.challenge, AcmeChallenge::TlsAlpn);
        assert_eq!(acme.folder, Path::new("/etc/tracker/data/tls/acme"));
        assert_eq!(server.public_host.as_deref(), Some("a.example"));
        assert_eq!(read(&json!({"LetsEncryptDomains": []})).unwrap().acme, None);
    }

    #[test]
    fn acme_without_local_tls_still_listens() {
        let value = json!({"UseLocalTLS": false, "LetsEncryptDomains": ["a.example"]});
        assert!(read(&value).unwrap().listen_https.is_some());
        assert!(read(&json!({"UseLocalTLS": false})).unwrap().listen_https.is_none());
    }

    #[test]
    fn every_key_of_acme_is_read() {
        let acme = read(&json!({
            "LetsEncryptDomains": ["a.example"], "LetsEncryptEmail": "admin@a.example",
            "LetsEncryptDirectory": "https://ca.example/dir", "LetsEncryptCACert": "ca.pem",
            "LetsEncryptChallenge": "http-01",
        }));
        let acme = acme.unwrap().acme.unwrap();
        assert_eq!(acme.email.as_deref(), Some("admin@a.example"));
        assert_eq!(acme.directory_url, "https://ca.example/dir");
        assert_eq!(acme.ca_cert.as_deref(), Some(Path::new("/etc/tracker/ca.pem")));
        assert_eq!(acme.challenge, AcmeChallenge::Http);
        let staging = json!({"LetsEncryptDomains": ["a.example"], "LetsEncryptStaging": true});
        assert_eq!(read(&staging).unwrap().acme.unwrap().directory_url, LETS_ENCRYPT_STAGING);
    }

    #[test]
    fn what_no_authority_would_certify_is_an_error() {
        for bad in
            ["localhost", "*.a.example", "10.0.0.1", "a..example", "a b.example", "-a.example"]
        {
            assert_eq!(read(&json!({"LetsEncryptDomains": [bad]})).unwrap_err().len(), 1, "{bad}");
        }
        let twice = json!({"LetsEncryptDomains": ["a.example"], "LetsEncryptStaging": true,
            "LetsEncryptDirectory": "http://ca.example", "LetsEncryptEmail": "admin",
            "LetsEncryptChallenge": "dns-01", "ListenHTTPS": ""});
        let errors = read(&twice).unwrap_err();
        let keys: Vec<&str> = errors.iter().filter_map(|error| error.split(':').next()).collect();
        let expect = [
            "LetsEncryptChallenge",
            "LetsEncryptEmail",
            "LetsEncryptDirectory",
            "LetsEncryptStaging",
            "LetsEncryptDomains",
        ];
        assert_eq!(keys, expect);
    }

    #[test]
    fn nobody_may_be_believed_without_proof() {
        let errors = read(&json!({"IgnoreInsecureTLS": true})).unwrap_err();
        assert!(errors[0].contains("name the authority in TLSCACert"), "{errors:?}");
        assert!(read(&json!({"IgnoreInsecureTLS": false})).is_ok());
        assert_eq!(read(&json!({"TLSClientCert": "c.pem"})).unwrap_err().len(), 1);
    }

    #[test]
    fn people_are_sent_on_to_a_host_of_the_configuration() {
        let read = |value: &Value| read(value).map(|server| server.public_host);
        let host = |host: &str| json!({"ListenRedirect": ":8081", "PublicHost": host});
        assert_eq!(read(&host("a.example:8443")).unwrap().as_deref(), Some("a.example:8443"));
        for bad in ["a.example/x", "https://a.example", "A.example", "u@a.example", "a.example:443"]
        {
            assert_eq!(read(&host(bad)).unwrap_err().len(), 1, "{bad}");
        }
        assert_eq!(read(&json!({"ListenRedirect": ":8081"})).unwrap_err().len(), 1);
        let same = json!({"ListenRedirect": "127.0.0.1:8080", "PublicHost": "a.example"});
        let error = read(&same).unwrap_err();
        assert_eq!(error, ["ListenRedirect: is the address of another listener"]);
    }
}
