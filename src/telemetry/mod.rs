//! What operators see: metrics and logs.

mod logging;
mod metrics;

pub use logging::start as start_logging;
pub use metrics::{
    Counter, CounterVec, LOST_REASONS, Metrics, PROXY_OUTCOMES, REJECT_REASONS, SinkMetrics,
};
