//! Looks for what commonly goes wrong, and says what to do about it.
//!
//! Everything is looked at from outside, as an operator would: the configuration as a file, the
//! running server through its control socket and its public listeners, the disk by writing to it.
//! Nothing is changed. Each finding stands for itself; one that cannot be made says so.

mod clickhouse;
mod clock;
mod disk;
mod web;

use std::fmt;

use serde_json::Value;

use crate::config::{Config, Loaded};
use crate::http::control::{AskError, ask};
use crate::intake::cookie_domain;

/// Days before its end at which a certificate is worth a word.
const CERTIFICATE_DAYS_MIN: i64 = 14;
/// Events behind the journal from which a store is worth a word.
const LAG_EVENTS_MAX: u64 = 100_000;
/// Part of the journal's room, in percent, from which it is worth a word.
const JOURNAL_PERCENT_MAX: u64 = 70;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Could not be looked at.
    Unknown,
    /// Works, and may hurt later.
    Warning,
    /// Does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is to be taken.
    pub level: Level,
    /// What was looked at: `configuration`, `disk` …
    pub topic: &'static str,
    /// What was found.
    pub what: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
}

impl Level {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<14} {}", self.level.as_str(), self.topic, self.what)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n{:24}-> {}", "", self.advice) }
    }
}

/// Findings about one topic, being gathered.
struct Findings {
    topic: &'static str,
    found: Vec<Finding>,
}

impl Findings {
    fn about(topic: &'static str) -> Self {
        Self { topic, found: Vec::new() }
    }

    fn add(&mut self, level: Level, what: impl Into<String>, advice: impl Into<String>) {
        let (topic, what, advice) = (self.topic, what.into(), advice.into());
        self.found.push(Finding { level, topic, what, advice });
    }

    fn good(&mut self, what: impl Into<String>) {
        self.add(Level::Good, what, "");
    }
}

/// Looks at everything. `public_url` is where visitors reach the server, for what only shows there.
pub async fn examine(loaded: &Loaded, public_url: Option<&http::Uri>) -> Vec<Finding> {
    let config = &loaded.config;
    let mut found = configuration(&loaded.notes);
    found.extend(clock::look());
    found.extend(disk::look(&config.server.data_directory));
    found.extend(cookies(&config.intake.domains));
    found.extend(clickhouse::look(config).await);
    let socket = config.server.data_directory.join("tracker.sock");
    match ask(&socket, "/health", &Value::Null).await {
        Ok(health) => {
            found.extend(server(&health));
            found.extend(stores(&health));
            found.extend(certificates(&health, chrono::Utc::now()));
            let seen = ask(&socket, "/proxies", &Value::Null).await.ok();
            found.extend(proxies(seen.as_ref()));
            found.extend(web::cors(config).await);
        }
        Err(error) => found.extend(nobody(config, &error)),
    }
    if let Some(url) = public_url {
        found.extend(web::public(config, url).await);
    }
    found
}

fn configuration(notes: &[String]) -> Vec<Finding> {
    let mut found = Findings::about("configuration");
    found.good("can be served");
    for note in notes {
        found.add(Level::Warning, note.clone(), "");
    }
    found.found
}

fn nobody(config: &Config, error: &AskError) -> Vec<Finding> {
    let mut found = Findings::about("server");
    match error {
        AskError::Nobody(_) => found.add(
            Level::Unknown,
            format!("none runs on {}", config.server.data_directory.display()),
            "start it to have stores, certificates, proxies and origins looked at",
        ),
        other => found.add(
            Level::Failure,
            format!("does not answer its control socket: {other}"),
            "look into its log; a server that hangs is best restarted: what it acknowledged is kept",
        ),
    }
    found.found
}

fn server(health: &Value) -> Vec<Finding> {
    let mut found = Findings::about("server");
    let text = |key: &str| health[key].as_str().unwrap_or("?").to_owned();
    let (ours, theirs) = (env!("CARGO_PKG_VERSION"), text("version"));
    if ours == theirs {
        found.good(format!("version {theirs} runs and is {}", text("status")));
    } else {
        found.add(
            Level::Warning,
            format!("version {theirs} runs, this program is {ours}"),
            "restart the server to run the version that is installed",
        );
    }
    let journal = &health["journal"];
    let (used, max) = (journal["disk_bytes"].as_u64(), journal["disk_bytes_max"].as_u64());
    let percent = used.zip(max).and_then(|(used, max)| (used * 100).checked_div(max)).unwrap_or(0);
    if journal["healthy"] == false {
        let why = journal["last_error"].as_str().unwrap_or("no reason given").to_owned();
        let advice =
            "events are answered with 503 until this is mended: make room, or replace the disk";
        found.add(Level::Failure, format!("the journal takes no events: {why}"), advice);
    } else if percent >= JOURNAL_PERCENT_MAX {
        found.add(
            Level::Warning,
            format!("the journal has used {percent} % of its room"),
            "a store is behind or down (see stores); or raise JournalMaxBytes",
        );
    } else {
        found.good(format!("the journal takes events; {percent} % of its room is used"));
    }
    if journal["durability"] != "durable" {
        found.add(
            Level::Warning,
            format!("a 200 means {}, not durable", journal["durability"]),
            "it does not survive a power cut; set Durability to \"disk\" unless that is what you want",
        );
    }
    found.found
}

fn stores(health: &Value) -> Vec<Finding> {
    let mut found = Findings::about("stores");
    for sink in health["sinks"].as_array().into_iter().flatten() {
        let name = sink["name"].as_str().unwrap_or("?");
        let lag = sink["lag_events"].as_u64().unwrap_or(0);
        let error = sink["last_error"].as_str().unwrap_or("no reason given");
        if sink["state"] != "up" {
            found.add(
                Level::Failure,
                format!("{name} is {}: {error}", sink["state"].as_str().unwrap_or("?")),
                "nothing is lost: the journal keeps what it lacks, as long as there is room",
            );
        } else if lag > LAG_EVENTS_MAX {
            found.add(
                Level::Warning,
                format!("{name} is {lag} events behind"),
                "it takes less than comes in: look at its machine, or at the batches of its entry",
            );
        } else {
            let guarantee = sink["guarantee"].as_str().unwrap_or("?");
            found.good(format!("{name} is up, {guarantee}, {lag} events behind"));
        }
    }
    found.found
}

fn certificates(health: &Value, now: chrono::DateTime<chrono::Utc>) -> Vec<Finding> {
    let mut found = Findings::about("certificates");
    let tls = &health["tls"];
    for certificate in tls["certificates"].as_array().into_iter().flatten() {
        let names: Vec<&str> = certificate["names"]
            .as_array()
            .map_or_else(Vec::new, |names| names.iter().filter_map(Value::as_str).collect());
        let source = certificate["source"].as_str().unwrap_or("?");
        let what = format!("{source} for {}", names.join(", "));
        let ends = certificate["expires_at"].as_str();
        let ends = ends.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
        let Some(days) = ends.map(|ends| (ends.to_utc() - now).num_days()) else { continue };
        if days < CERTIFICATE_DAYS_MIN {
            let level = if days < 0 { Level::Failure } else { Level::Warning };
            let advice = match source {
                "files" => "put a new one in place of TLSCert and TLSKey; it is taken up by itself",
                "acme" => "renewal fails: see the error beside it and the log",
                _ => "restart the server to have a new one made",
            };
            found.add(level, format!("{what}: ends in {days} days"), advice);
        } else {
            found.good(format!("{what}: {days} days left"));
        }
    }
    if let Some(error) = tls["acme_error"].as_str() {
        found.add(
            Level::Failure,
            format!("no certificate by ACME: {error}"),
            "each of LetsEncryptDomains must lead to this server, on port 443 (tls-alpn-01) or 80 \
             (http-01); try with LetsEncryptStaging first",
        );
    }
    found.found
}

/// Who names clients to the server without being believed.
fn proxies(seen: Option<&Value>) -> Vec<Finding> {
    let mut found = Findings::about("proxies");
    let Some(seen) = seen.and_then(Value::as_array) else {
        found.add(Level::Unknown, "the running server does not tell", "restart it");
        return found.found;
    };
    for peer in seen {
        let (ip, requests) = (peer["peer"].as_str().unwrap_or("?"), &peer["requests"]);
        found.add(
            Level::Warning,
            format!("{ip} names clients (X-Forwarded-For or the like) and is not believed: {requests} requests"),
            format!("if it is a proxy of yours, add \"{ip}\" to TrustedProxies; else leave it: anybody can send such headers"),
        );
    }
    if found.found.is_empty() {
        found.good("nobody names clients without being believed");
    }
    found.found
}

fn cookies(domains: &[String]) -> Vec<Finding> {
    let mut found = Findings::about("cookies");
    if domains.is_empty() {
        found.add(
            Level::Warning,
            "Domains names no host of yours",
            "name your sites there: referrers among them are then no source of visits",
        );
    }
    for domain in domains {
        let host = domain.trim_start_matches("*.").trim_start_matches('.');
        let domain = host;
        match cookie_domain(host) {
            Some(shared) => {
                found.good(format!("a visitor of {domain} is known on all of {shared}"));
            }
            None if psl::suffix_str(host) == Some(host) && host.contains('.') => found.add(
                Level::Failure,
                format!("{domain} is a public suffix: browsers take no cookie for it"),
                "name the host below it that is yours",
            ),
            None => found.good(format!("a visitor of {domain} is known on that host only")),
        }
    }
    found.found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn levels(found: &[Finding]) -> Vec<Level> {
        found.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_store_that_is_down_is_a_failure_and_one_that_lags_is_a_warning() {
        let sink = |state: &str, lag: u64| json!({"name": "x", "state": state, "lag_events": lag, "guarantee": "exactly once"});
        let health = json!({"sinks": [sink("up", 3), sink("up", 100_001), sink("down", 0)]});
        assert_eq!(levels(&stores(&health)), [Level::Good, Level::Warning, Level::Failure]);
    }

    #[test]
    fn a_certificate_is_worth_a_word_two_weeks_before_its_end() {
        let now = chrono::DateTime::parse_from_rfc3339("2026-11-01T00:00:00Z").unwrap().to_utc();
        let certificate =
            |ends: &str| json!({"source": "files", "names": ["a.example"], "expires_at": ends});
        let health = json!({"tls": {"certificates": [
            certificate("2026-12-01T00:00:00Z"), certificate("2026-11-10T00:00:00Z"),
            certificate("2026-10-01T00:00:00Z")], "acme_error": "refused"}});
        let expect = [Level::Good, Level::Warning, Level::Failure, Level::Failure];
        assert_eq!(levels(&certificates(&health, now)), expect);
    }

    #[test]
    fn a_journal_without_room_is_a_failure() {
        let health = |healthy: bool, used: u64| {
            json!({"version": env!("CARGO_PKG_VERSION"), "status": "ok", "journal":
                {"healthy": healthy, "disk_bytes": used, "disk_bytes_max": 100, "durability": "durable"}})
        };
        assert_eq!(levels(&server(&health(true, 10))), [Level::Good, Level::Good]);
        assert_eq!(levels(&server(&health(true, 70))), [Level::Good, Level::Warning]);
        assert_eq!(levels(&server(&health(false, 10))), [Level::Good, Level::Failure]);
    }

    #[test]
    fn a_proxy_that_is_not_believed_is_named() {
        let seen = json!([{"peer": "10.0.0.5", "requests": 7}]);
        let found = proxies(Some(&seen));
        assert_eq!(levels(&found), [Level::Warning]);
        assert!(found[0].advice.contains("\"10.0.0.5\" to TrustedProxies"), "{found:?}");
        assert_eq!(levels(&proxies(Some(&json!([])))), [Level::Good]);
    }

    #[test]
    fn a_public_suffix_can_have_no_cookie() {
        let domains = ["shop.example.co.uk", "co.uk", "localhost"].map(str::to_owned);
        assert_eq!(levels(&cookies(&domains)), [Level::Good, Level::Failure, Level::Good]);
        assert_eq!(levels(&cookies(&[])), [Level::Warning]);
    }
}
