//! Where an address is: a country database that travels with the program, or the operator's MMDB.
//!
//! Two record shapes are in the wild: flat (`country_code`, `city`, `latitude` as 32-bit floats) and
//! nested (`country.iso_code`, `city.names.en`, `location.latitude` as doubles). They are told apart
//! value by value, not by the file's name, because names are free text. Empty text means unknown.
//!
//! The built-in database is unpacked by a thread of its own, so that it costs the start nothing; a
//! look-up before that is over (some tens of milliseconds) finds nothing and never waits. Readers
//! never lock: a database is one pointer, replaced whole.

pub mod ip2location;
pub mod mmdb;
mod record;
pub mod timezones;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use flate2::read::GzDecoder;
use maxminddb::Reader;
use thiserror::Error;

use record::Record;

/// The country database that travels with the program; see `LICENCES.md`.
static BUILT_IN: &[u8] = include_bytes!("country.mmdb.gz");
/// Bytes the built-in database has at most when unpacked: twice today's 7.8 MB.
const BUILT_IN_BYTES_MAX: u64 = 16 << 20;

/// Why a database cannot be used.
#[derive(Debug, Error)]
pub enum GeoError {
    /// The file cannot be read.
    #[error("reading geo-IP database {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no MMDB database.
    #[error("geo-IP database {path} is not a readable MMDB file")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: maxminddb::MaxMindDbError,
    },
}

/// A place as a database knows it. Everything is absent rather than empty when unknown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Place {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    /// The country's name, in English where the database has it.
    pub country_name: Option<String>,
    /// Region or state, as the database writes it.
    pub region: Option<String>,
    /// City, as the database writes it.
    pub city: Option<String>,
    /// Postal code.
    pub zip: Option<String>,
    /// Degrees north.
    pub lat: Option<f64>,
    /// Degrees east.
    pub lon: Option<f64>,
    /// IANA time zone, or the database's own form of an offset.
    pub tz: Option<String>,
}

/// Database of places. Cheap to clone: clones share the database and its replacement.
#[derive(Clone, Default)]
pub struct GeoDb {
    current: Arc<ArcSwapOption<Reader<Vec<u8>>>>,
    loading: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl GeoDb {
    /// A database that knows nothing (`UseGeoIP: false`).
    pub fn none() -> Self {
        Self::default()
    }

    /// The database in `path`, read at once; without one, the built-in countries, which load behind.
    /// An `IP2Location` `.BIN` file is passed over with a warning.
    ///
    /// # Errors
    /// When the file cannot be read or is no MMDB database.
    pub fn open(path: Option<&Path>) -> Result<Self, GeoError> {
        let db = Self::none();
        match path {
            None => db.load_built_in(),
            Some(path) => db.reload(path)?,
        }
        Ok(db)
    }

    /// Puts the database in `path` in place of the current one; look-ups in flight finish with the
    /// old one.
    ///
    /// # Errors
    /// As [`GeoDb::open`]; the current database then stays.
    pub fn reload(&self, path: &Path) -> Result<(), GeoError> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bin")) {
            tracing::warn!(
                path = %path.display(),
                "an IP2Location .BIN file is not read; import the CSV edition instead; going on without"
            );
            return Ok(());
        }
        let bytes = std::fs::read(path)
            .map_err(|source| GeoError::Read { path: path.to_owned(), source })?;
        let reader = Reader::from_source(bytes)
            .map_err(|source| GeoError::Format { path: path.to_owned(), source })?;
        self.current.store(Some(Arc::new(reader)));
        Ok(())
    }

    /// Where `ip` is, by the record of the smallest network that holds it. Never waits.
    pub fn lookup(&self, ip: IpAddr) -> Option<Place> {
        self.lookup_network(ip).map(|(place, _, _)| place)
    }

    /// As [`GeoDb::lookup`], with the first and last address of the network the record is about.
    pub fn lookup_network(&self, ip: IpAddr) -> Option<(Place, IpAddr, IpAddr)> {
        let guard = self.current.load();
        let reader = guard.as_ref()?;
        let ip = ip.to_canonical();
        // A v6 address in a v4 file, and a damaged record, are "unknown" to the caller.
        let found = reader.lookup(ip).ok()?;
        let record: Record<'_> = found.decode().ok()??;
        let place = record.into_place();
        if place == Place::default() {
            return None;
        }
        let prefix = found.network().map(|network| network.prefix()).unwrap_or_default();
        let (first, last) = bounds(ip, prefix);
        Some((place, first, last))
    }

    /// Whether there is a database; the built-in one takes a moment after the start.
    pub fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// Waits until the built-in database is loaded; returns at once when it is, or is not used.
    pub fn wait(&self) {
        let handle = self.loading.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic in the loader leaves the database empty, which look-ups already tolerate.
        drop(handle.map(JoinHandle::join));
    }

    fn load_built_in(&self) {
        let current = Arc::clone(&self.current);
        let load = move || {
            let Some(reader) = unpack(BUILT_IN) else {
                return tracing::error!("the built-in country database is damaged");
            };
            // A database of the operator's that came meanwhile stays.
            current.compare_and_swap(&None::<Arc<_>>, Some(Arc::new(reader)));
        };
        match std::thread::Builder::new().name("geo-load".to_owned()).spawn(load) {
            Ok(handle) => {
                *self.loading.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
            }
            Err(error) => tracing::error!(%error, "the built-in country database is not loaded"),
        }
    }
}

impl std::fmt::Debug for GeoDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GeoDb")
            .field("loaded", &self.current.load().is_some())
            .finish_non_exhaustive()
    }
}

fn unpack(packed: &[u8]) -> Option<Reader<Vec<u8>>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).take(BUILT_IN_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    bytes.shrink_to_fit();
    Reader::from_source(bytes).ok()
}

/// First and last address of the network of `ip`; a v4 address in a v6 file has a v6 prefix.
fn bounds(ip: IpAddr, prefix: u8) -> (IpAddr, IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            let prefix = if prefix > 32 { prefix.saturating_sub(96) } else { prefix };
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let bits = u32::from(ip);
            (Ipv4Addr::from(bits & !host).into(), Ipv4Addr::from(bits | host).into())
        }
        IpAddr::V6(ip) => {
            let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let bits = u128::from(ip);
            (Ipv6Addr::from(bits & !host).into(), Ipv6Addr::from(bits | host).into())
        }
    }
}

#[cfg(test)]
mod tests;
