//! Settings as plain structs, and the only reader of the configuration file.
//!
//! Each part of the program takes its own section, never the whole [`Config`]. The file is read in
//! four steps: JSON, `${NAME}` from the environment, the Go tracker's dialect into ours
//! (`legacy`), and ours into structs (`dialect`). Every mistake is reported, not only the first.

mod backends;
mod certificates;
mod clickhouse;
mod dialect;
mod intake;
mod journal;
mod json;
mod keys;
mod legacy;
mod links;
mod log;
mod notify;
mod proxy;
mod prune;
mod secret;
mod section;
mod server;
mod units;
mod variables;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use self::clickhouse::ClickHouseConfig;
pub use backends::{BackendConfig, DuckDbConfig, Limits, LimitsByTable, Strategy, TableLimits};
pub use certificates::{AcmeChallenge, AcmeConfig, ClientTlsConfig, TlsConfig};
pub use intake::{DntPolicy, HashMode, IntakeConfig};
pub use journal::{Durability, JournalConfig};
pub use keys::{KeyConfig, KeyKind};
pub use links::LinksConfig;
pub use log::{LogConfig, LogFormat};
pub use proxy::ProxyConfig;
pub use prune::{PruneAction, PruneBlank, PruneConfig, PruneField, PruneRule};
pub use secret::Secret;
pub use section::ConfigError;
pub use server::{HttpConfig, LimitsConfig, ServerConfig, TrustedProxy, WebSocketConfig};

use section::Findings;

/// Largest configuration file that is read; real ones are a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Every setting of the program.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Listeners, limits, CORS, trusted proxies.
    pub server: ServerConfig,
    /// Domains, filters, geography, privacy switches.
    pub intake: IntakeConfig,
    /// Destinations of redirects and links, static files.
    pub links: LinksConfig,
    /// Folder, sizes, durability.
    pub journal: JournalConfig,
    /// What `Notify` lists; the embedded store when it lists nothing.
    pub backends: Vec<BackendConfig>,
    /// What is removed from them, and when.
    pub prune: PruneConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// A configuration that may be used, and what its reader should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What was translated, ignored or is not in this version yet; one line each, for the log.
    pub notes: Vec<String>,
}

/// Everything that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// At least one; in the order of reading.
    pub errors: Vec<ConfigError>,
    /// What was translated or ignored until then; one line each.
    pub notes: Vec<String>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.errors.len() == 1 { "error" } else { "errors" };
        write!(f, "{}: {} {plural}", self.file.display(), self.errors.len())?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  {error}"))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  note: {note}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads the file at `path`; `env` is where `${NAME}` is looked up. Relative paths in the file
    /// are relative to its folder.
    ///
    /// # Errors
    /// Every mistake at once, each with its place in the file.
    pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Loaded, ConfigErrors> {
        let failed =
            |Findings { errors, notes }| ConfigErrors { file: path.to_owned(), errors, notes };
        let text = read(path).map_err(|message| failed(Findings::whole(message)))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self::read(&text, folder.unwrap_or(Path::new(".")), env).map_err(failed)
    }

    /// What of these settings a server that runs with `running` can take up, and the keys of the rest,
    /// which waits for a restart.
    pub fn within(self, running: &Self) -> (Self, Vec<&'static str>) {
        let (old, new) = (&running.server, &self.server);
        let kept = [
            ("ListenHTTP", old.listen_http != new.listen_http),
            ("ListenHTTPS", old.listen_https != new.listen_https),
            ("ListenRedirect", old.listen_redirect != new.listen_redirect),
            ("PublicHost", old.public_host != new.public_host),
            ("TLSCert", old.tls != new.tls),
            ("LetsEncryptDomains", old.acme != new.acme),
            ("DataDirectory", old.data_directory != new.data_directory),
            ("StopDeadline", old.stop_deadline != new.stop_deadline),
            ("ApiVersion", old.http.api_version != new.http.api_version),
            ("MaxHeaderBytes", old.http.header_bytes_max != new.http.header_bytes_max),
            ("ConnectionTimeout", old.http.timeout != new.http.timeout),
            ("Proxies", old.http.proxies != new.http.proxies),
            ("HashMode", running.intake.hash_mode != self.intake.hash_mode),
            (
                "PrefixPrivateHash",
                running.intake.prefix_private_hash != self.intake.prefix_private_hash,
            ),
            ("Durability and other keys of the journal", running.journal != self.journal),
            ("Notify", running.backends != self.backends),
            ("LogFilter and LogFormat", running.log != self.log),
        ];
        let waiting =
            kept.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        let config = Self {
            server: ServerConfig {
                http: HttpConfig {
                    api_version: old.http.api_version,
                    header_bytes_max: old.http.header_bytes_max,
                    timeout: old.http.timeout,
                    proxies: old.http.proxies.clone(),
                    ..self.server.http
                },
                ..running.server.clone()
            },
            intake: IntakeConfig {
                keys_directory: running.intake.keys_directory.clone(),
                hash_mode: running.intake.hash_mode,
                prefix_private_hash: running.intake.prefix_private_hash.clone(),
                ..self.intake
            },
            links: self.links,
            ..running.clone()
        };
        (config, waiting)
    }

    /// Reads `text` as if it stood in a file in `folder`.
    ///
    /// # Errors
    /// Every mistake at once, each with its place in the text.
    pub fn parse(
        text: &str,
        folder: &Path,
        env: &BTreeMap<String, String>,
    ) -> Result<Loaded, Vec<ConfigError>> {
        Self::read(text, folder, env).map_err(|findings| findings.errors)
    }

    fn read(text: &str, folder: &Path, env: &BTreeMap<String, String>) -> Result<Loaded, Findings> {
        let mut value =
            json::parse(text).map_err(|error| Findings::whole(format!("not JSON: {error}")))?;
        let mut findings = Findings::default();
        variables::replace(&mut value, "", env, &mut findings.errors);
        let Value::Object(written) = value else {
            return Err(Findings::whole("expected one JSON object".to_owned()));
        };
        let go = legacy::is_go(&written).then(|| legacy::translate(&written));
        if let Some(translated) = &go {
            findings.notes.extend(translated.notes());
        }
        let object = go.as_ref().map_or(&written, |translated| &translated.file);
        let (config, mut findings) = read_sections(object, folder, findings);
        if findings.errors.is_empty() {
            return Ok(Loaded { config, notes: findings.notes });
        }
        if let Some(translated) = &go {
            translated.name_errors(&mut findings.errors);
        }
        Err(findings)
    }
}

fn read_sections(
    object: &Map<String, Value>,
    folder: &Path,
    findings: Findings,
) -> (Config, Findings) {
    let findings = RefCell::new(findings);
    let config = dialect::read(object, folder, &findings);
    (config, findings.into_inner())
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        // A mistyped command is taken for the name of a configuration.
        ErrorKind::NotFound => {
            "there is no such file; `tracker --help` lists the commands".to_owned()
        }
        _ => format!("cannot be opened: {error}"),
    })?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let length = read.map_err(|error| format!("cannot be read: {error}"))?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
