//! What a short link is found by: its host without port and its path, both in lower case.
//!
//! The Go tracker stored keys in lower case and looked them up as they came, with the port, so a
//! link with a capital was never found. Here both sides are brought to one form: a person who types
//! a link from paper may use any case. The path is percent-decoded; query and fragment do not count.

use percent_encoding::percent_decode_str;
use thiserror::Error;
use url::Url;

/// Bytes of a key; longer ones are no short links.
const KEY_BYTES_MAX: usize = 512;

/// Paths that the server answers itself.
const OWN_PATHS: [&str; 6] = ["/ping", "/status", "/health", "/metrics", "/clear", "/openapi.json"];

/// Why a text names no short link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No address of the web, with or without its scheme.
    #[error("is no address like \"https://example.com/short\"")]
    Address,
    /// The path is empty.
    #[error("needs a path behind the host")]
    Path,
    /// Too long.
    #[error("is longer than {KEY_BYTES_MAX} bytes")]
    Long,
}

/// Host and path of a short link in the one form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    text: String,
    /// Where the path begins.
    path: usize,
}

impl Key {
    /// Reads the address that a maker gives, which may leave the scheme out.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.contains(|c: char| c.is_control() || c == '\\') {
            return Err(KeyError::Address);
        }
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let has_scheme = lower.starts_with("https://") || lower.starts_with("http://");
        let with_scheme = if has_scheme { text.to_owned() } else { format!("https://{text}") };
        if !has_scheme && (text.contains("://") || text.starts_with('/')) {
            return Err(KeyError::Address);
        }
        let url = Url::parse(&with_scheme).map_err(|_| KeyError::Address)?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        let host = url.host_str().filter(|_| !has_credentials).ok_or(KeyError::Address)?;
        Self::of_visit(host, url.path())
    }

    /// The key of a request to `host` for `path`, which is percent-encoded.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn of_visit(host: &str, path: &str) -> Result<Self, KeyError> {
        let host = host.trim_end_matches('.');
        if host.is_empty() || host.contains('/') {
            return Err(KeyError::Address);
        }
        if path.len() > KEY_BYTES_MAX * 3 {
            return Err(KeyError::Long);
        }
        let path = percent_decode_str(path).decode_utf8().map_err(|_| KeyError::Address)?;
        if path.chars().any(char::is_control) {
            return Err(KeyError::Address);
        }
        if path.len() < 2 || !path.starts_with('/') {
            return Err(KeyError::Path);
        }
        let text = format!("{}{}", host.to_lowercase(), path.to_lowercase());
        let path = text.find('/').ok_or(KeyError::Path)?;
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::Long);
        }
        Ok(Self { text, path })
    }

    /// Host and path.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host.
    pub fn host(&self) -> &str {
        self.text.get(..self.path).unwrap_or_default()
    }

    /// The path, with its slash.
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }
}

/// Whether the server answers `path` (lower case) itself, so that no link can have it.
pub fn is_reserved(path: &str) -> bool {
    let is_native = path
        .strip_prefix("/tr/v")
        .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()));
    let is_below = ["/api/", "/.well-known/"].iter().any(|folder| path.starts_with(folder));
    is_native || is_below || path == "/" || OWN_PATHS.contains(&path)
}

/// Whether `host` (lower case, without port) is this machine by name: there, links of every host can
/// be tried.
pub fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_and_visitors_come_to_the_same_key() {
        for (made, host, path) in [
            ("https://yourdomain.com/short", "yourdomain.com", "/short"),
            ("http://YourDomain.com:8443/ShOrT?x=1#y", "yourdomain.com", "/SHORT"),
            ("yourdomain.com/short", "yourdomain.com", "/short"),
            ("yourdomain.com:8080/a/b/", "yourdomain.com", "/a/b/"),
            ("https://bücher.example/grün", "xn--bcher-kva.example", "/gr%C3%BCn"),
            ("https://[::1]:8443/x", "[::1]", "/x"),
            ("https://example.com./x", "example.com", "/x"),
        ] {
            let made = Key::parse(made).unwrap();
            assert_eq!(made, Key::of_visit(host, path).unwrap(), "{host}{path}");
            assert_eq!(format!("{}{}", made.host(), made.path()), made.as_str());
        }
    }

    #[test]
    fn what_is_no_short_address_is_refused() {
        for (text, expect) in [
            ("", KeyError::Address),
            ("ftp://example.com/x", KeyError::Address),
            ("javascript:alert(1)", KeyError::Address),
            ("//example.com/x", KeyError::Address),
            ("/short", KeyError::Address),
            ("https://user@example.com/x", KeyError::Address),
            ("https://example.com\\x", KeyError::Address),
            ("https://example.com/a\nb", KeyError::Address),
            ("https://example.com/a%0d%0ab", KeyError::Address),
            ("https://example.com", KeyError::Path),
            ("https://example.com/", KeyError::Path),
            ("example.com", KeyError::Path),
        ] {
            assert_eq!(Key::parse(text), Err(expect), "{text:?}");
        }
        let long = format!("https://example.com/{}", "x".repeat(600));
        assert_eq!(Key::parse(&long), Err(KeyError::Long));
    }

    #[test]
    fn paths_of_the_server_are_reserved() {
        for (path, expect) in [
            ("/ping", true),
            ("/openapi.json", true),
            ("/tr/v1/tr/", true),
            ("/tr/v2/x", true),
            ("/api/x", true),
            ("/.well-known/acme-challenge/x", true),
            ("/", true),
            ("/pingpong", false),
            ("/tr/vacation", false),
            ("/short", false),
        ] {
            assert_eq!(is_reserved(path), expect, "{path}");
        }
    }
}
