//! Every metric once; each field's comment is its meaning and the `help` beside its name is what
//! scrapers read. No global registry: tests read values of the server they started.
//!
//! The identity that must hold at any time:
//! `events_received = events_stored + events_quarantined + Σ events_rejected{reason} + events_in_flight`.

use std::sync::{PoisonError, RwLock};

use prometheus::core::{AtomicU64, GenericCounter, GenericCounterVec};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::event::Reason;

/// A counter that only grows.
pub type Counter = GenericCounter<AtomicU64>;
/// Counters by label.
pub type CounterVec = GenericCounterVec<AtomicU64>;

/// Why an event was refused and not stored anywhere; the closed set of the label `reason`.
pub const REJECT_REASONS: [&str; 9] = [
    "malformed",
    "invalid",
    "too_large",
    "forbidden",
    "rate_limited",
    "privacy",
    "overloaded",
    "journal_full",
    "journal_failed",
];

/// Which limits a client can exceed; the closed set of the label `limit`.
const LIMITS: [&str; 3] = ["address_rate", "key_rate", "address_day"];

/// Why a sink will never get something; the closed set of the label `reason` of `sink_lost`.
pub const LOST_REASONS: [&str; 3] = ["refused_quarantine", "missing_range", "damaged"];

/// What became of a request for a server behind us; the closed set of the label `outcome`.
pub const PROXY_OUTCOMES: [&str; 6] =
    ["answered", "unreachable", "broken_off", "timeout", "overloaded", "refused"];

/// All metrics of one server.
pub struct Metrics {
    registry: Registry,
    /// Shared by those who move an event from one counter to another, exclusive for the scrape that
    /// reads them all: see [`Metrics::book`].
    books: RwLock<()>,
    /// Events that arrived, before anything is known about them.
    pub events_received: Counter,
    /// Events that are in the journal as ordinary events.
    pub events_stored: Counter,
    /// Inputs that are in the journal as quarantine.
    pub events_quarantined: Counter,
    /// The same by reason.
    pub quarantined: CounterVec,
    /// Events refused, by reason; the caller was told.
    pub events_rejected: CounterVec,
    /// Events between arrival and their outcome.
    pub events_in_flight: IntGauge,
    /// Answers given before durability was known (pixels, redirects).
    pub events_unconfirmed: Counter,
    /// Visitors sent on, by route and by what they are: a verdict, or `prefetch`.
    pub redirects: CounterVec,
    /// Destinations refused, by reason.
    pub redirects_refused: CounterVec,
    /// Short links that could not be looked up.
    pub links_unknown: Counter,
    /// Events whose `created_at` was not believed.
    pub times_replaced: Counter,
    /// Requests by route pattern and status.
    pub requests: CounterVec,
    /// Seconds from request to answer.
    pub request_seconds: Histogram,
    /// Connections open now.
    pub connections: IntGauge,
    /// Connections refused because too many were open.
    pub connections_refused: Counter,
    /// Requests and frames above a limit, by limit and by what became of them: `refused`, or
    /// `allowed` in a dry run.
    pub limit_exceeded: CounterVec,
    /// Clients that took over what another had spent, because the table of clients was full.
    pub limit_inherited: Counter,
    /// `WebSocket` connections open now.
    pub websockets: IntGauge,
    /// Frames with events.
    pub websocket_frames: Counter,
    /// Times a WebSocket was read later because it sent faster than it may.
    pub websocket_paused: Counter,
    /// Unix seconds at which a certificate ends, by where it comes from.
    pub certificate_end: IntGaugeVec,
    /// Changed certificate files that could not be used.
    pub certificate_failures: Counter,
    /// Failed steps towards a certificate by ACME.
    pub acme_failures: Counter,
    /// Requests for servers behind us, by server and outcome.
    pub proxy_requests: CounterVec,
    /// Requests and tunnels that a server behind us has now.
    pub proxy_open: IntGaugeVec,
    /// 1 while a server behind us answers, 0 while it does not.
    pub proxy_up: IntGaugeVec,
    /// Records appended to the journal.
    pub journal_records: Counter,
    /// Bytes appended to the journal.
    pub journal_bytes: Counter,
    /// Commits: one write and one sync each.
    pub journal_commits: Counter,
    /// Seconds of one commit.
    pub journal_commit_seconds: Histogram,
    /// Appends waiting for the writer.
    pub journal_queue: IntGauge,
    /// Bytes of segments on disk.
    pub journal_disk_bytes: IntGauge,
    /// Frames skipped because they were damaged.
    pub journal_corrupt_frames: Counter,
    /// Bytes cut from a torn tail at start.
    pub journal_torn_bytes: Counter,
    /// Failed writes or syncs.
    pub journal_errors: Counter,
    /// Rows stored, by sink and table.
    pub sink_rows: CounterVec,
    /// Batches stored, by sink and table.
    pub sink_batches: CounterVec,
    /// Failed attempts, by sink and table.
    pub sink_failures: CounterVec,
    /// Rows a sink refused for good, by sink and table.
    pub sink_rows_quarantined: CounterVec,
    /// Milliseconds spent in successful writes, by sink and table.
    pub sink_write_milliseconds: CounterVec,
    /// What a sink will never get, by sink and reason.
    pub sink_lost: CounterVec,
    /// Journal records that are no event, by the sink that read them.
    pub sink_undecodable: CounterVec,
    /// Journal records a sink does not have yet.
    pub sink_lag: IntGaugeVec,
    /// Rows waiting in lanes, by sink.
    pub sink_queued_rows: IntGaugeVec,
    /// Bytes waiting in lanes, by sink.
    pub sink_queued_bytes: IntGaugeVec,
    /// 1 while the sink takes batches, 0 while it does not.
    pub sink_up: IntGaugeVec,
    /// Unix seconds of the last stored batch, by sink.
    pub sink_last_stored: IntGaugeVec,
}

/// The metrics of one sink and table, looked up once.
#[derive(Clone)]
pub struct SinkMetrics {
    /// Rows stored.
    pub rows: Counter,
    /// Batches stored.
    pub batches: Counter,
    /// Failed attempts.
    pub failures: Counter,
    /// Rows refused for good.
    pub quarantined: Counter,
    /// Milliseconds of successful writes.
    pub write_milliseconds: Counter,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// Only when two metrics share a name, which a test excludes.
    #[expect(clippy::too_many_lines, reason = "one line or four for each metric, and no branch")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            events_received: counter(r, "events_received_total", "events that arrived")?,
            events_stored: counter(r, "events_stored_total", "events durable in the journal")?,
            events_quarantined: counter(
                r,
                "events_quarantined_total",
                "inputs set aside in the journal as quarantine",
            )?,
            quarantined: counters(
                r,
                "quarantined_total",
                "quarantine records by reason, sinks' refusals included",
                &["reason"],
            )?,
            events_rejected: counters(
                r,
                "events_rejected_total",
                "events refused and not stored, by reason",
                &["reason"],
            )?,
            events_in_flight: gauge(r, "events_in_flight", "events without an outcome yet")?,
            events_unconfirmed: counter(
                r,
                "events_unconfirmed_total",
                "answers given before durability was known",
            )?,
            redirects: counters(
                r,
                "redirects_total",
                "visitors sent on, by route and by verdict or prefetch",
                &["route", "verdict"],
            )?,
            redirects_refused: counters(
                r,
                "redirects_refused_total",
                "destinations refused, by reason",
                &["reason"],
            )?,
            links_unknown: counter(
                r,
                "links_unknown_total",
                "visits of paths that could not be looked up, as the store did not answer",
            )?,
            times_replaced: counter(
                r,
                "event_times_replaced_total",
                "events whose created_at was not believed",
            )?,
            requests: counters(
                r,
                "http_requests_total",
                "requests by route pattern and status",
                &["route", "status"],
            )?,
            request_seconds: histogram(r, "http_request_seconds", "request to answer")?,
            connections: gauge(r, "http_connections", "connections open now")?,
            connections_refused: counter(
                r,
                "http_connections_refused_total",
                "connections refused because too many were open",
            )?,
            limit_exceeded: counters(
                r,
                "limit_exceeded_total",
                "requests and frames above a limit; allowed means that it was a dry run",
                &["limit", "outcome"],
            )?,
            limit_inherited: counter(
                r,
                "limit_inherited_total",
                "clients that took over what another had spent, as the table was full",
            )?,
            websockets: gauge(r, "websocket_connections", "websockets open now")?,
            websocket_frames: counter(r, "websocket_frames_total", "frames with events")?,
            websocket_paused: counter(
                r,
                "websocket_paused_total",
                "times a websocket was read later because it sent too fast",
            )?,
            certificate_end: gauges(
                r,
                "tls_certificate_end_timestamp_seconds",
                "unix time at which the certificate ends",
                &["source"],
            )?,
            certificate_failures: counter(
                r,
                "tls_certificate_failures_total",
                "changed certificate files that could not be used",
            )?,
            acme_failures: counter(
                r,
                "acme_failures_total",
                "failed steps towards a certificate by ACME",
            )?,
            proxy_requests: counters(
                r,
                "proxy_requests_total",
                "requests for servers behind us",
                &["upstream", "outcome"],
            )?,
            proxy_open: gauges(
                r,
                "proxy_open",
                "requests and tunnels a server behind us has now",
                &["upstream"],
            )?,
            proxy_up: gauges(r, "proxy_up", "1 while a server behind us answers", &["upstream"])?,
            journal_records: counter(r, "journal_records_total", "records appended")?,
            journal_bytes: counter(r, "journal_bytes_total", "bytes appended")?,
            journal_commits: counter(r, "journal_commits_total", "commits")?,
            journal_commit_seconds: histogram(r, "journal_commit_seconds", "one commit")?,
            journal_queue: gauge(r, "journal_queue_records", "appends waiting for the writer")?,
            journal_disk_bytes: gauge(r, "journal_disk_bytes", "bytes of segments on disk")?,
            journal_corrupt_frames: counter(
                r,
                "journal_corrupt_frames_total",
                "damaged frames skipped",
            )?,
            journal_torn_bytes: counter(
                r,
                "journal_torn_bytes_total",
                "bytes cut from a torn tail at start",
            )?,
            journal_errors: counter(r, "journal_errors_total", "failed writes or syncs")?,
            sink_rows: counters(r, "sink_rows_total", "rows stored", &["sink", "table"])?,
            sink_batches: counters(r, "sink_batches_total", "batches stored", &["sink", "table"])?,
            sink_failures: counters(
                r,
                "sink_failures_total",
                "failed attempts",
                &["sink", "table"],
            )?,
            sink_rows_quarantined: counters(
                r,
                "sink_rows_quarantined_total",
                "rows a sink refused for good",
                &["sink", "table"],
            )?,
            sink_write_milliseconds: counters(
                r,
                "sink_write_milliseconds_total",
                "milliseconds spent in successful writes",
                &["sink", "table"],
            )?,
            sink_lost: counters(
                r,
                "sink_lost_total",
                "refused quarantine rows given up, frozen ranges no longer in the journal, and rows whose \
                 record was damaged since it was found, at each attempt",
                &["sink", "reason"],
            )?,
            sink_undecodable: counters(
                r,
                "sink_undecodable_records_total",
                "journal records that are no event",
                &["sink"],
            )?,
            sink_lag: gauges(
                r,
                "sink_lag_records",
                "journal records the sink does not have yet",
                &["sink"],
            )?,
            sink_queued_rows: gauges(r, "sink_queued_rows", "rows in lanes", &["sink"])?,
            sink_queued_bytes: gauges(r, "sink_queued_bytes", "bytes in lanes", &["sink"])?,
            sink_up: gauges(r, "sink_up", "1 while the sink takes batches", &["sink"])?,
            sink_last_stored: gauges(
                r,
                "sink_last_stored_timestamp_seconds",
                "unix time of the last stored batch",
                &["sink"],
            )?,
            registry,
            books: RwLock::new(()),
        };
        for reason in REJECT_REASONS {
            metrics.events_rejected.with_label_values(&[reason]);
        }
        for limit in LIMITS {
            for outcome in ["refused", "allowed"] {
                metrics.limit_exceeded.with_label_values(&[limit, outcome]);
            }
        }
        for reason in Reason::ALL {
            metrics.quarantined.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    /// The metrics of one sink and table; they exist at zero from this call on.
    pub fn sink(&self, sink: &str, table: &str) -> SinkMetrics {
        let labels = [sink, table];
        SinkMetrics {
            rows: self.sink_rows.with_label_values(&labels),
            batches: self.sink_batches.with_label_values(&labels),
            failures: self.sink_failures.with_label_values(&labels),
            quarantined: self.sink_rows_quarantined.with_label_values(&labels),
            write_milliseconds: self.sink_write_milliseconds.with_label_values(&labels),
        }
    }

    /// Makes `change`, which moves an event between counters, one step for every scrape: a scrape
    /// sees all of it or nothing, so the identity in this file's head holds in each.
    pub fn book(&self, change: impl FnOnce(&Self)) {
        let _shared = self.books.read().unwrap_or_else(PoisonError::into_inner);
        change(self);
    }

    /// Books an event that arrived: it is in flight until its outcome is booked.
    pub fn arrived(&self) {
        self.book(|metrics| {
            metrics.events_received.inc();
            metrics.events_in_flight.inc();
        });
    }

    /// Books the outcome of an event that arrived and was refused, for one of [`REJECT_REASONS`].
    pub fn refused(&self, reason: &str) {
        self.book(|metrics| {
            metrics.events_in_flight.dec();
            metrics.events_rejected.with_label_values(&[reason]).inc();
        });
    }

    /// The Prometheus text form, version 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut bytes = Vec::new();
        let families = {
            let _exclusive = self.books.write().unwrap_or_else(PoisonError::into_inner);
            self.registry.gather()
        };
        TextEncoder::new().encode(&families, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Events refused so far, all reasons together.
    pub fn rejected(&self) -> u64 {
        REJECT_REASONS
            .iter()
            .map(|reason| self.events_rejected.with_label_values(&[reason]).get())
            .sum()
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("tracker_{name}"), help)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<Counter, prometheus::Error> {
    let metric = Counter::with_opts(options(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<CounterVec, prometheus::Error> {
    let metric = CounterVec::new(options(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::with_opts(options(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(options(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 16)?;
    let metric = Histogram::with_opts(HistogramOpts::from(options(name, help)).buckets(buckets))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_a_closed_set_exists_at_zero_from_the_start() {
        let text = Metrics::new().unwrap().text().unwrap();
        for reason in REJECT_REASONS {
            let line = format!("tracker_events_rejected_total{{reason=\"{reason}\"}} 0");
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("tracker_events_received_total 0"));
    }
}
