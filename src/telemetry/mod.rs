//! What operators see: metrics and logs, and errors in words.

mod logging;
mod metrics;

pub use logging::start as start_logging;
pub use metrics::{
    Counter, CounterVec, LOST_REASONS, Metrics, PROXY_OUTCOMES, REJECT_REASONS, SinkMetrics,
};

/// The error with its causes, for a person.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
