//! Hashes of personal values and ids made from texts: keyed by the installation, or the Go tracker's.
//!
//! The key is 256 random bits, made at first start and kept as 64 hex digits in a file of mode 0600
//! in a folder of mode 0700. It is written beside its place, synced and then linked into it, so that
//! a crash leaves either no key or a whole one. Each purpose has a key of its own derived from it:
//! the hash of a host can never be compared with the hash of a telephone number.
//!
//! The legacy forms are kept bit for bit for continuity with old data. They are neither secret nor
//! strong; the address chain can be reversed by trying all addresses.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, hmac, rand};
use thiserror::Error;
use uuid::{Builder, Uuid, Version};

use crate::config::{HashMode, IntakeConfig};

/// Name of the key's file in the folder of keys.
const FILE: &str = "hash.key";
/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Bytes of a keyed hash: 32 hex characters.
const HASH_BYTES: usize = 16;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file or its folder cannot be read or made.
    #[error("key file {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds no key of ours. It is not replaced, since old hashes would no longer join.
    #[error(
        "{path} holds no 256-bit key in hex; restore it from a backup, or remove it to lose continuity"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// What a hash is for. Each has its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Host,
    Agent,
    Address,
    Email,
    Cell,
    UserName,
}

/// The installation's keys.
pub struct Keys {
    mode: HashMode,
    prefix: String,
    host: hmac::Key,
    agent: hmac::Key,
    address: hmac::Key,
    email: hmac::Key,
    cell: hmac::Key,
    user_name: hmac::Key,
    id: hmac::Key,
    redirect: hmac::Key,
    pruning: hmac::Key,
}

impl Keys {
    /// The key that `config` names, as [`Self::open`] reads it.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn of(config: &IntakeConfig) -> Result<Self, KeyError> {
        Self::open(&config.keys_directory, config.hash_mode, &config.prefix_private_hash)
    }

    /// Reads the key in `directory`, or makes it at first start.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn open(directory: &Path, mode: HashMode, prefix: &str) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let io = |source| KeyError::Io { path: path.clone(), source };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                rand::fill(&mut key).map_err(|_| KeyError::Random)?;
                create(directory, &path, &hex(&key)).map_err(io)?;
                // Whoever was first to make one has made the key.
                fs::read_to_string(&path).map_err(io)?
            }
            Err(error) => return Err(io(error)),
        };
        if fs::metadata(&path).map_err(io)?.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others may read the hash key; mode 0600 is right");
        }
        let key = unhex(text.trim()).ok_or(KeyError::Damaged { path })?;
        Ok(Self::from_bytes(key, mode, prefix))
    }

    /// Keys derived from `key`, for tests and measurements.
    pub fn from_bytes(key: [u8; KEY_BYTES], mode: HashMode, prefix: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let derive = |purpose: &str| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, purpose.as_bytes()).as_ref())
        };
        Self {
            mode,
            prefix: prefix.to_owned(),
            host: derive("host"),
            agent: derive("agent"),
            address: derive("address"),
            email: derive("email"),
            cell: derive("cell"),
            user_name: derive("user name"),
            id: derive("id"),
            redirect: derive("redirect"),
            pruning: derive("pruning"),
        }
    }

    /// The hash of `text`, which the caller has normalised (trimmed, lower case).
    pub(super) fn hash(&self, purpose: Purpose, text: &str) -> String {
        match (self.mode, purpose) {
            (HashMode::Keyed, _) => self.keyed(purpose, text.as_bytes()),
            (HashMode::Legacy, Purpose::Host | Purpose::Agent) => base36(text),
            (HashMode::Legacy, Purpose::Address) => chain(text),
            (HashMode::Legacy, Purpose::Email | Purpose::Cell | Purpose::UserName) => {
                salted(&self.prefix, text)
            }
        }
    }

    /// The hash of an address. In keyed mode of its bytes, so that spellings do not matter.
    pub(super) fn address(&self, ip: IpAddr) -> String {
        match (self.mode, ip) {
            (HashMode::Legacy, _) => chain(&ip.to_string()),
            (HashMode::Keyed, IpAddr::V4(ip)) => self.keyed(Purpose::Address, &ip.octets()),
            (HashMode::Keyed, IpAddr::V6(ip)) => self.keyed(Purpose::Address, &ip.octets()),
        }
    }

    /// The key for values that stored rows lose when they are pruned. A store may see it, so it is of
    /// no other use.
    pub fn pruning(&self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        let derived = hmac::sign(&self.pruning, b"of a store");
        for (to, from) in key.iter_mut().zip(derived.as_ref()) {
            *to = *from;
        }
        key
    }

    /// The id that stands for a text that is no UUID: same text, same id, in this installation.
    /// Always keyed. Version 8 of RFC 9562, so that it cannot be taken for another kind.
    pub fn id(&self, text: &str) -> Uuid {
        let tag = hmac::sign(&self.id, text.as_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Builder::from_bytes(bytes).with_version(Version::Custom).into_uuid()
    }

    /// The signature under which `rdr` leads to `url` although its host is not configured: 64 hex
    /// digits.
    pub fn sign_redirect(&self, url: &str) -> String {
        hex(hmac::sign(&self.redirect, url.as_bytes()).as_ref())
    }

    /// Whether `signature` is the one of `url`; takes the same time for every wrong one.
    pub fn is_redirect_signed(&self, url: &str, signature: &str) -> bool {
        unhex(signature)
            .is_some_and(|tag| hmac::verify(&self.redirect, url.as_bytes(), &tag).is_ok())
    }

    fn keyed(&self, purpose: Purpose, bytes: &[u8]) -> String {
        let key = match purpose {
            Purpose::Host => &self.host,
            Purpose::Agent => &self.agent,
            Purpose::Address => &self.address,
            Purpose::Email => &self.email,
            Purpose::Cell => &self.cell,
            Purpose::UserName => &self.user_name,
        };
        let tag = hmac::sign(key, bytes);
        hex(tag.as_ref().get(..HASH_BYTES).unwrap_or_default())
    }
}

/// Writes `text` beside `path`, then links it there unless a key is there already.
fn create(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let draft = directory.join(format!("{FILE}.{}", Uuid::new_v4().simple()));
    let written = (|| {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    })();
    fs::remove_file(&draft)?;
    written?;
    fs::File::open(directory)?.sync_all()?;
    // The folder may be new too: its own name must survive a power cut as well.
    directory.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

/// FNV-1a, 32 bits, in base 36: host and agent hash of the Go tracker, and the account check.
pub(super) fn base36(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut digits = Vec::with_capacity(7);
    let mut rest = hash;
    loop {
        digits.push(char::from_digit(rest % 36, 36).unwrap_or('0'));
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    digits.iter().rev().collect()
}

/// The address hash of the Go tracker: four pieces, each over the address and all before it.
fn chain(text: &str) -> String {
    let mut chain = base36(text);
    for _ in 0..3 {
        chain.push_str(&base36(&format!("{text}{chain}")));
    }
    chain
}

/// SHA-1 of prefix and text in URL-safe base 64 with padding: the Go tracker's personal hashes.
fn salted(prefix: &str, text: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(prefix.as_bytes());
    context.update(text.as_bytes());
    base64_url(context.finish().as_ref())
}

fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .enumerate()
            .fold(0, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            let used = at <= group.len();
            text.push(ALPHABET.get(digit).filter(|_| used).map_or('=', |byte| char::from(*byte)));
        }
    }
    text
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS.get(usize::from(value)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The key in `text`; an all-equal key is a placeholder, not a key.
fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != KEY_BYTES * 2 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    let first = *key.first()?;
    key.iter().any(|byte| *byte != first).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy() -> Keys {
        Keys::from_bytes([7; 32], HashMode::Legacy, "")
    }

    #[test]
    fn legacy_hashes_are_those_of_the_go_tracker() {
        for (text, expect) in [
            ("localhost", "d4md6"),
            ("localhost:8443", "ixzovd"),
            ("tr.example.com", "i5pkuo"),
            ("mozilla/5.0", "4dc1h5"),
            ("", "ztntfp"),
        ] {
            assert_eq!(legacy().hash(Purpose::Host, text), expect);
            assert_eq!(legacy().hash(Purpose::Agent, text), expect);
        }
        for (ip, expect) in [
            ("8.8.8.8", "b4c84prdbt401t5oxss1cy8xcx"),
            ("127.0.0.1", "2eauxqsti0h26dc3qe1mfglks"),
            ("::1", "617frg803j0byf1pcg4uwwf"),
            ("2001:4860:4860::8888", "1tu49v45ca6ili5ho2va6eaj4"),
        ] {
            assert_eq!(legacy().address(ip.parse().unwrap()), expect, "{ip}");
        }
        for (text, expect) in [
            ("password", "W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
            ("admin", "0DPiKuNIrrVmD8IUCuw1hQxNqZc="),
            ("lalala@aaa.com", "-MbtIBwImNmusGbGdX7jHdk6fe4="),
        ] {
            assert_eq!(legacy().hash(Purpose::Email, text), expect, "{text}");
        }
        let salted = Keys::from_bytes([7; 32], HashMode::Legacy, "pass");
        assert_eq!(salted.hash(Purpose::Cell, "word"), "W6ph5Mm5Pz8GgiULbPgzG37mj9g=");
    }

    #[test]
    fn a_keyed_hash_depends_on_key_and_purpose_and_is_32_hex_characters() {
        let one = Keys::from_bytes([1; 32], HashMode::Keyed, "");
        let two = Keys::from_bytes([2; 32], HashMode::Keyed, "");
        let hash = one.hash(Purpose::Email, "joe@example.com");
        assert_eq!(hash.len(), 32);
        assert!(hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{hash}");
        assert_eq!(hash, one.hash(Purpose::Email, "joe@example.com"));
        assert_ne!(hash, one.hash(Purpose::Cell, "joe@example.com"));
        assert_ne!(hash, two.hash(Purpose::Email, "joe@example.com"));
    }

    #[test]
    fn a_text_has_one_version_8_id_for_each_installation() {
        let one = Keys::from_bytes([1; 32], HashMode::Legacy, "");
        let two = Keys::from_bytes([2; 32], HashMode::Keyed, "");
        assert_eq!(one.id("user-123"), one.id("user-123"));
        assert_eq!(one.id("user-123").get_version_num(), 8);
        assert_ne!(one.id("user-123"), one.id("user-124"));
        assert_ne!(one.id("user-123"), two.id("user-123"));
    }

    #[test]
    fn the_key_is_made_once_for_the_owner_only_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("data/keys");
        let first = Keys::open(&directory, HashMode::Keyed, "").unwrap();
        let again = Keys::open(&directory, HashMode::Keyed, "").unwrap();
        assert_eq!(first.id("a"), again.id("a"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(FILE)), 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        let other = Keys::open(&folder.path().join("other"), HashMode::Keyed, "").unwrap();
        assert_ne!(first.id("a"), other.id("a"));
    }

    #[test]
    fn a_damaged_or_placeholder_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for text in ["", "abc", &"0".repeat(64), &"g1".repeat(32), &"ü".repeat(32)] {
            fs::write(&path, text).unwrap();
            let opened = Keys::open(folder.path(), HashMode::Keyed, "");
            assert!(matches!(opened, Err(KeyError::Damaged { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
