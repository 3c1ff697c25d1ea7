//! Settings as plain structs, and the only reader of the configuration file and the environment.
//!
//! Each part of the program takes its own section, never the whole [`Config`].

mod backends;
mod intake;
mod journal;
mod server;

pub use backends::{BackendConfig, DuckDbConfig, Limits, LimitsByTable, Strategy, TableLimits};
pub use intake::{DntPolicy, HashMode, IntakeConfig};
pub use journal::{Durability, JournalConfig};
pub use server::{HttpConfig, ServerConfig, TlsConfig, TrustedProxy};

/// Every setting of the program.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Listeners, limits, CORS, trusted proxies.
    pub server: ServerConfig,
    /// Domains, filters, geography, privacy switches.
    pub intake: IntakeConfig,
    /// Folder, sizes, durability.
    pub journal: JournalConfig,
    /// What `Notify` lists.
    pub backends: Vec<BackendConfig>,
}
