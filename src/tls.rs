//! TLS of outgoing connections: what they believe and what they show, built in one place.
//!
//! The public certificate authorities are believed, and those the operator names beside them. There
//! is no way to believe everything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use crate::config::ClientTlsConfig;

/// Why there is no such configuration.
#[derive(Debug, Error)]
pub enum ClientTlsError {
    /// A file cannot be read.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found instead.
        reason: String,
    },
    /// The library offers no version of the protocol.
    #[error("preparing outgoing TLS")]
    Protocol(#[source] rustls::Error),
    /// Certificate and key cannot be used.
    #[error("client certificate {cert}")]
    Identity {
        /// The certificate's file.
        cert: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// TLS 1.2 and 1.3 towards a server, without ALPN, which is the caller's to add.
///
/// # Errors
/// When a file cannot be read, holds something else, or certificate and key do not fit.
pub fn client(config: &ClientTlsConfig) -> Result<ClientConfig, ClientTlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &config.ca_cert {
        for authority in certificates(path)? {
            roots.add(authority).map_err(|error| content(path, "certificate", &error))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ClientTlsError::Protocol)?
        .with_root_certificates(roots);
    let Some((cert, key)) = &config.identity else { return Ok(builder.with_no_client_auth()) };
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| content(key, "private key", &error))?;
    builder
        .with_client_auth_cert(certificates(cert)?, secret)
        .map_err(|source| ClientTlsError::Identity { cert: cert.clone(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(path, "certificate", &error))?;
    if found.is_empty() {
        return Err(content(path, "certificate", &"no section of that kind"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ClientTlsError> {
    std::fs::read(path).map_err(|source| ClientTlsError::File { path: path.to_owned(), source })
}

fn content(path: &Path, what: &'static str, reason: &dyn std::fmt::Display) -> ClientTlsError {
    ClientTlsError::Content { path: path.to_owned(), what, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_believed_beside_the_public_ones_and_a_bad_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let config = ClientTlsConfig { ca_cert: Some(path.clone()), identity: None };
        let error = || client(&config).unwrap_err().to_string();
        assert!(error().ends_with("ca.pem"), "{}", error());
        std::fs::write(&path, "nothing").unwrap();
        assert!(error().contains("ca.pem holds no certificate"), "{}", error());
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        client(&config).unwrap();
        let key = folder.path().join("key.pem");
        std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
        let both = ClientTlsConfig { ca_cert: None, identity: Some((path.clone(), key.clone())) };
        client(&both).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&key, other.serialize_pem()).unwrap();
        assert!(matches!(client(&both), Err(ClientTlsError::Identity { .. })));
    }
}
