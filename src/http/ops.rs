//! The routes for operators: is it there, is it well, what did it do.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use chrono::{DateTime, Local, SecondsFormat, Utc};
use prometheus::core::Collector;
use serde_json::{Value, json};

use super::answer;
use super::error::ApiError;
use super::facts::Caller;
use super::state::{AppState, Shared};
use crate::delivery::{SinkHealth, SinkState};

/// `/ping`: the process answers.
pub(super) async fn ping() -> Response {
    answer::text("pong")
}

/// `/status`: who asks, and how many connections are open.
pub(super) async fn status(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let client = shared.trusted.client(Caller::of(&parts).peer, &parts.headers);
    let status = json!([
        { "Key": "client", "Value": client.to_string() },
        { "Key": "conns", "Value": shared.app.metrics.connections.get() },
    ]);
    answer::json(StatusCode::OK, &status)
}

/// `/health`: 503 only when an event could not be made durable now; a sink that is down only
/// degrades, because the journal keeps its events.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let (word, document) = report(&shared.app);
    let status = if word == FAILING { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    answer::json(status, &document)
}

const FAILING: &str = "failing";

/// The word for the whole, and the document of `/health`.
pub(super) fn report(app: &AppState) -> (&'static str, Value) {
    let (journal, sinks) = (app.journal.stats(), (app.health)());
    let tls = app.certificates.as_ref().map(|certificates| certificates.health());
    let upstreams = app.proxies.health();
    let is_edge_well = tls.as_ref().is_none_or(|tls| tls.is_good)
        && upstreams.iter().all(|upstream| upstream.state == "up");
    let word = word(journal.healthy, is_edge_well, &sinks);
    let document = json!({
        "status": word,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": uptime_seconds(app),
        "journal": {
            "healthy": journal.healthy,
            "durability": app.durability.as_str(),
            "first": journal.first,
            "durable": journal.durable,
            "disk_bytes": journal.disk_bytes,
            "disk_bytes_max": journal.disk_bytes_max,
            "last_error": journal.last_error,
        },
        "sinks": sinks,
        "tls": tls,
        "upstreams": upstreams,
    });
    (word, document)
}

/// `is_edge_well`: no certificate has ended, and every server behind us answers.
fn word(journal_healthy: bool, is_edge_well: bool, sinks: &[SinkHealth]) -> &'static str {
    let are_up = sinks.iter().all(|sink| sink.state == SinkState::Up);
    match (journal_healthy, is_edge_well && are_up) {
        (false, _) => FAILING,
        (true, false) => "degraded",
        (true, true) => "ok",
    }
}

/// `/metrics`: the text form for scrapers, else the documented JSON.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if !wants_text(request.uri().query(), request.headers()) {
        return answer::json(StatusCode::OK, &document(&shared.app));
    }
    match shared.app.metrics.text() {
        Ok(text) => answer::with_type(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text.into(),
        ),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            axum::response::IntoResponse::into_response(ApiError::Internal)
        }
    }
}

fn wants_text(query: Option<&str>, headers: &HeaderMap) -> bool {
    match query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("format=")) {
        Some(format) => format == "prometheus",
        None => headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|accept| accept.to_str().ok())
            .any(|accept| accept.contains("text/plain") || accept.contains("openmetrics")),
    }
}

/// The documented JSON. Its names are those of the Go tracker; each is the nearest fact we have.
fn document(app: &AppState) -> Value {
    let metrics = &app.metrics;
    let batches = sum(&metrics.sink_batches, "");
    let items = sum(&metrics.sink_rows, "");
    let failed = sum(&metrics.sink_failures, "");
    let flush_ms = sum(&metrics.sink_write_milliseconds, "");
    let messages = sum(&metrics.sink_rows, "mthreads");
    let last_stored = largest(&metrics.sink_last_stored);
    let (events, errors) = (metrics.events_stored.get(), metrics.rejected());
    let latency_ms = metrics.request_seconds.get_sample_sum() * 1000.0;
    let uptime = uptime_seconds(app);
    let per_second = if uptime > 0.0 { float(events) / uptime } else { 0.0 };
    let success = if batches + failed > 0 { ratio(batches, batches + failed) } else { 1.0 };
    let stored_at = last_stored
        .and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0))
        .map(|time| time.with_timezone(&Local).to_rfc3339());
    let health = report(app).0;
    json!({
        "batching": {
            "enabled": true,
            "total_batches": batches,
            "total_items": items,
            "failed_batches": failed,
            "avg_batch_size": ratio(items, batches),
            "avg_flush_latency_ms": ratio(flush_ms, batches),
            "queued_items": sum(&metrics.sink_queued_rows, ""),
            "memory_usage_mb": ratio(sum(&metrics.sink_queued_bytes, ""), 1 << 20),
            "batch_success_rate": success,
            "events_per_second": per_second,
            "last_flush_time": stored_at,
        },
        "calculated": {
            "avg_items_per_batch": ratio(items, batches),
            "avg_latency_ms": latency_ms / float(events.max(1)),
            "batch_success_rate": success,
            "error_rate": ratio(errors, events.max(1)),
            "events_per_second": per_second,
            "uptime_seconds": uptime,
        },
        "metrics": {
            "event_count": events,
            "error_count": errors,
            // An event of a campaign is one with a thread.
            "campaign_events": messages,
            "mthreads_ops": messages,
            "mstore_ops": sum(&metrics.sink_rows, "mstore"),
            "mtriage_ops": sum(&metrics.sink_rows, "mtriage"),
            "total_latency_ns": (latency_ms * 1e6).round(),
            "last_processed_unix": last_stored.unwrap_or(0),
            "connection_count": metrics.connections.get(),
            "health_status": health,
            "start_time_unix": app.started_at.timestamp(),
        },
        "timestamp": app.clock.wall().to_rfc3339_opts(SecondsFormat::Nanos, true),
    })
}

/// The sum of all series, or of those of one table.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, which the library keeps as whole numbers and hands out as floats"
)]
fn sum(metric: &impl Collector, table: &str) -> u64 {
    metric
        .collect()
        .iter()
        .flat_map(prometheus::proto::MetricFamily::get_metric)
        .filter(|series| {
            table.is_empty()
                || series.get_label().iter().any(|l| l.name() == "table" && l.value() == table)
        })
        .map(|series| series.get_counter().get_value() + series.get_gauge().get_value())
        .sum::<f64>() as u64
}

/// The largest series; `None` when there is none, or only zeros.
#[expect(clippy::cast_possible_truncation, reason = "unix seconds, set from an i64")]
fn largest(metric: &impl Collector) -> Option<i64> {
    let families = metric.collect();
    let series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    series.map(|one| one.get_gauge().get_value() as i64).max().filter(|&seconds| seconds > 0)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; 2^52 events are far")]
fn float(count: u64) -> f64 {
    count as f64
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole > 0 { float(part) / float(whole) } else { 0.0 }
}

fn uptime_seconds(app: &AppState) -> f64 {
    (app.clock.wall() - app.started_at).to_std().unwrap_or_default().as_secs_f64()
}

/// `/clear`: lets a visitor empty the browser of what this site keeps there; no other site may.
pub(super) async fn clear(headers: HeaderMap) -> Response {
    let own = headers
        .get("sec-fetch-site")
        .is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"same-site" | b"none"));
    if !own {
        let error = ApiError::Forbidden("another site may not clear this one's data");
        return axum::response::IntoResponse::into_response(error);
    }
    let mut response = answer::text("OK");
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"*\""));
    response
}

/// Every other path.
pub(super) async fn not_found() -> ApiError {
    ApiError::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn sink(state: SinkState) -> SinkHealth {
        SinkHealth {
            name: "duckdb".into(),
            kind: "duckdb",
            state,
            guarantee: "exactly-once".into(),
            lag_events: 0,
            lag_seconds: 0,
            last_error: None,
        }
    }

    #[test]
    fn a_sink_degrades_and_only_the_journal_fails() {
        assert_eq!(word(true, true, &[]), "ok");
        assert_eq!(word(true, true, &[sink(SinkState::Up)]), "ok");
        assert_eq!(word(true, false, &[sink(SinkState::Up)]), "degraded");
        assert_eq!(word(true, true, &[sink(SinkState::Up), sink(SinkState::Down)]), "degraded");
        assert_eq!(word(false, true, &[sink(SinkState::Up)]), "failing");
    }

    #[test]
    fn scrapers_get_text_and_people_get_json() {
        let check = |query: Option<&str>, accept: Option<&'static str>, expect| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(wants_text(query, &headers), expect, "{query:?} {accept:?}");
        };
        check(None, None, false);
        check(None, Some("*/*"), false);
        check(None, Some("text/html,application/xhtml+xml,*/*;q=0.8"), false);
        check(None, Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.3"), true);
        check(None, Some("text/plain"), true);
        check(Some("format=prometheus"), Some("application/json"), true);
        check(Some("x=1&format=json"), Some("text/plain"), false);
    }

    #[test]
    fn series_are_added_up_by_table() {
        let metrics = Metrics::new().unwrap();
        metrics.sink("a", "events").rows.inc_by(3);
        metrics.sink("b", "events").rows.inc_by(4);
        metrics.sink("b", "mstore").rows.inc_by(5);
        assert_eq!(sum(&metrics.sink_rows, ""), 12);
        assert_eq!(sum(&metrics.sink_rows, "mstore"), 5);
        assert_eq!(largest(&metrics.sink_last_stored), None);
        metrics.sink_last_stored.with_label_values(&["a"]).set(1_700_000_000);
        assert_eq!(largest(&metrics.sink_last_stored), Some(1_700_000_000));
    }
}
