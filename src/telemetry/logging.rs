//! The log: constant messages with values as fields, text or JSON, to standard error.

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts the log once for the process; `filter` is a `tracing` filter such as `info` or
/// `tracker::delivery=debug`. A second call changes nothing.
pub fn start(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Already started: tests in one process share the first log.
    drop(started);
}
