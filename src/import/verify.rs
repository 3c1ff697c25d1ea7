//! Compares what was sent with what the first store has, event by event.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;

use super::{Again, Hit, ImportError, Site};
use crate::backends::Rows;
use crate::http::control::ask;

/// Ids asked for at once: a query of about 20 KB.
const IDS_MAX: usize = 500;
/// Longest wait for events that are not there yet; every event that arrives starts it anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Differences of one kind that are kept as examples.
const EXAMPLES_MAX: u64 = 5;
/// The stored agent's bound in bytes.
const AGENT_BYTES_MAX: usize = 512;

/// One thing that was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// What.
    pub what: &'static str,
    /// Events that were sent with it.
    pub sent: u64,
    /// Stored rows that have it.
    pub stored: u64,
    /// Events for which both agree.
    pub equal: u64,
}

/// What comparing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Events, ids, then fields.
    pub comparisons: Vec<Comparison>,
    /// Events that were sent.
    pub events: u64,
    /// The first differences, with the numbers of their lines.
    pub differences: Vec<String>,
}

impl Verdict {
    /// Whether every event is stored once with every field as sent.
    pub fn is_equal(&self) -> bool {
        let whole = |c: &Comparison| c.equal == self.events && c.sent == c.stored;
        self.comparisons.iter().all(whole)
    }
}

/// Asks the store behind the control socket `socket` for every event of `file` and compares it with what was sent.
/// Waits for events that the store does not have yet.
///
/// # Errors
/// When the file cannot be read again or the store does not answer.
pub async fn verify(socket: &Path, file: &Path, site: &Site) -> Result<Verdict, ImportError> {
    let mut again = Again::open(file, site)?;
    let mut tally = Tally::default();
    loop {
        let hits = again.next(IDS_MAX).map_err(|e| ImportError::File(file.to_owned(), e))?;
        if hits.is_empty() {
            return Ok(tally.verdict());
        }
        let rows = stored(socket, &hits).await?;
        for hit in &hits {
            let stored = rows.get(&hit.id.to_string()).map_or(&[][..], Vec::as_slice);
            tally.add(hit, stored);
        }
    }
}

/// One stored row: host, url, last, agent, milliseconds.
type Row = Vec<Value>;

async fn stored(socket: &Path, hits: &[Hit]) -> Result<BTreeMap<String, Vec<Row>>, ImportError> {
    let ids: Vec<String> = hits.iter().map(|hit| format!("'{}'", hit.id)).collect();
    // In words that every store reads; an absent text is null in one and empty in another.
    let sql = format!(
        "select cast(eid as varchar), nullif(host, ''), nullif(url, ''), nullif(last, ''), \
         nullif(user_agent, ''), created_at from events where eid in ({})",
        ids.join(",")
    );
    let mut best = 0;
    let mut since = Instant::now();
    loop {
        // Twice as many: a repeat would show.
        let question = json!({ "sql": sql, "rows_max": 2 * hits.len() });
        let answer = ask(socket, "/query", &question).await.map_err(ImportError::Store)?;
        let answer: Rows = serde_json::from_value(answer).map_err(ImportError::Answer)?;
        let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for mut row in answer.rows {
            if row.is_empty() {
                continue;
            }
            let id = row.remove(0);
            if let Some(moment) = row.last_mut() {
                *moment = milliseconds(moment);
            }
            rows.entry(id.as_str().unwrap_or_default().to_owned()).or_default().push(row);
        }
        if rows.len() > best {
            (best, since) = (rows.len(), Instant::now());
        }
        if rows.len() >= hits.len() || since.elapsed() > PATIENCE {
            return Ok(rows);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Of a moment as answers have it.
fn milliseconds(moment: &Value) -> Value {
    let parsed = moment.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    parsed.map(|moment| moment.timestamp_millis()).into()
}

const FIELDS: [&str; 5] = ["hosts", "urls", "referrers", "agents", "times"];

#[derive(Default)]
struct Tally {
    events: u64,
    found: u64,
    rows: u64,
    once: u64,
    /// (sent, stored, equal) for each of [`FIELDS`].
    fields: [(u64, u64, u64); FIELDS.len()],
    differences: Vec<String>,
}

impl Tally {
    fn add(&mut self, hit: &Hit, stored: &[Row]) {
        self.events += 1;
        self.found += u64::from(!stored.is_empty());
        self.rows += stored.len() as u64;
        self.once += u64::from(stored.len() == 1);
        if stored.len() != 1 {
            let seen = self.events - self.once;
            self.differs(hit, seen, &format!("stored {} times", stored.len()));
        }
        let first = stored.first();
        for (index, (what, expect)) in FIELDS.iter().zip(expected(hit)).enumerate() {
            let found = first.and_then(|row| row.get(index)).unwrap_or(&Value::Null);
            let equal = first.is_some() && agree(&expect, found);
            let mut seen = 0;
            if let Some(counts) = self.fields.get_mut(index) {
                counts.0 += u64::from(!expect.is_null());
                counts.1 += u64::from(!found.is_null());
                counts.2 += u64::from(equal);
                seen = self.events - counts.2;
            }
            if first.is_some() && !equal {
                self.differs(hit, seen, &format!("{what}: sent {expect}, stored {found}"));
            }
        }
    }

    /// Keeps the first examples of each kind; `seen` counts this kind, this one included.
    fn differs(&mut self, hit: &Hit, seen: u64, how: &str) {
        if seen <= EXAMPLES_MAX {
            self.differences.push(format!("line {}: {how}", hit.number));
        }
    }

    fn verdict(self) -> Verdict {
        let events = self.events;
        let mut comparisons = vec![
            Comparison { what: "events", sent: events, stored: self.found, equal: self.found },
            Comparison { what: "ids once", sent: events, stored: self.rows, equal: self.once },
        ];
        comparisons.extend(
            FIELDS.iter().zip(self.fields).map(|(what, (sent, stored, equal))| Comparison {
                what,
                sent,
                stored,
                equal,
            }),
        );
        Verdict { comparisons, events, differences: self.differences }
    }
}

/// What the store should have, in the order of [`FIELDS`]: addresses without query and fragment,
/// the host without its port, the agent within its bound.
fn expected(hit: &Hit) -> [Value; FIELDS.len()] {
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    [
        text(Some(without_port(&hit.host))),
        text(Some(bare(&hit.url))),
        text(hit.referrer.as_deref().map(bare)),
        text(hit.agent.as_deref().map(|agent| within(agent, AGENT_BYTES_MAX))),
        hit.created_at.timestamp_millis().into(),
    ]
}

/// An address without query and fragment.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Whether the store has what was sent. Two addresses are one when a browser reads them as the same:
/// a host alone is its root, and a backslash is a slash.
fn agree(sent: &Value, stored: &Value) -> bool {
    let canonical = |value: &Value| Url::parse(value.as_str()?).ok();
    sent == stored || canonical(sent).is_some_and(|url| Some(url) == canonical(stored))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn within(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_forms_are_those_of_the_store() {
        assert_eq!(bare("http://a.example?x=1"), "http://a.example");
        assert_eq!(bare("http://a.example/p?x#y"), "http://a.example/p");
        assert_eq!(bare("/p#y"), "/p");
        assert_eq!(without_port("a.example:8080"), "a.example");
        assert_eq!(without_port("a.example"), "a.example");
        assert_eq!(within("aä", 2), "a");
        assert_eq!(within("aä", 3), "aä");
    }

    #[test]
    fn addresses_agree_when_a_browser_reads_them_as_the_same() {
        let check = |sent: &str, stored: &str, expect: bool| {
            assert_eq!(agree(&sent.into(), &stored.into()), expect, "{sent} {stored}");
        };
        check("http://a.example", "http://a.example/", true);
        check("http://a.example/x\\y", "http://a.example/x/y", true);
        check("http://A.example/", "http://a.example/", true);
        check("http://a.example/A", "http://a.example/a", false);
        check("http://a.example/x", "http://a.example/", false);
        check("not an address", "not an address", true);
        check("not an address", "another", false);
        assert!(agree(&Value::Null, &Value::Null));
        assert!(!agree(&"http://a.example/".into(), &Value::Null));
    }
}
