//! Sends an access log as events through a running server's public routes.
//!
//! One request a line, so that the agent travels where a browser's does and nothing is imported that
//! a server could not have sent. The visitor's address and the time are fields (`ip`, `created_at`),
//! which the server believes from loopback and from trusted peers only: import where the server
//! runs. An event's id is made from the line's number and text, so a second import of the same file
//! sends the same ids.

mod combined;
mod lines;
mod send;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Uri;
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

pub use combined::{Line, Odd, parse};
pub use verify::{Comparison, Verdict, verify};

use crate::config::Secret;
use crate::http::control::AskError;
use lines::Lines;
use send::{Sender, Sent};

/// The namespace of imported events' ids (version 5 UUIDs).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_9a1e_52d7_4c0b_9e37_1d5a_8b64_f2c3);

/// The `etyp` of imported events.
const ETYP: &str = "import";

/// Examples that are kept of what went wrong; the rest is only counted.
const EXAMPLES_MAX: usize = 20;

/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is imported, and where to.
#[derive(Debug, Clone)]
pub struct Import {
    /// The log, plain or gzip.
    pub file: PathBuf,
    /// The server, for example `http://127.0.0.1:8080`; a path replaces `/tr/v1/tr/`.
    pub url: Uri,
    /// The site the log is of.
    pub site: Site,
    /// Requests under way at once.
    pub in_flight: usize,
    /// A server's key, where the installation has keys.
    pub key: Option<Secret>,
}

/// Scheme and host of the site, which a log does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    scheme: String,
    host: String,
}

impl std::str::FromStr for Site {
    type Err = String;

    /// Reads `example.com`, `example.com:8080` or `https://example.com`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, host) = text.split_once("://").unwrap_or(("http", text));
        let wrong = host.is_empty() || host.contains(['/', ' ', '?', '#', '@', '"']);
        if wrong || !matches!(scheme, "http" | "https") {
            return Err("expected a host like example.com or https://example.com".to_owned());
        }
        Ok(Self { scheme: scheme.to_owned(), host: host.to_ascii_lowercase() })
    }
}

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Lines read.
    pub lines: u64,
    /// Events answered with 200.
    pub sent: u64,
    /// Share of the file that was read, 0 to 1.
    pub share: f64,
    /// Since the start.
    pub elapsed: Duration,
}

/// What became of a file.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Lines read; the sum of the four below.
    pub lines: u64,
    /// Events that the server stored.
    pub sent: u64,
    /// Lines that are no request, by reason.
    pub odd: BTreeMap<Odd, u64>,
    /// Requests the server refused for good.
    pub refused: u64,
    /// Requests that were tried again.
    pub retries: u64,
    /// Lines among `sent` whose end is missing.
    pub cut: u64,
    /// Line number and reason of the first lines that were odd, cut or refused.
    pub examples: Vec<(u64, String)>,
    /// From the first line to the last answer.
    pub elapsed: Duration,
}

/// Why an import ended early.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("reading {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// The address is none that events can be sent to.
    #[error("{0} is no http:// address")]
    Url(Uri),
    /// The key cannot travel in a header.
    #[error("the key holds what no key may: spaces or signs beyond ASCII")]
    Key,
    /// The server did not take a line's event for too long.
    #[error("the server takes no events: {0}")]
    Unreachable(String),
    /// The store could not be asked.
    #[error("asking the store")]
    Store(#[source] AskError),
    /// The store's answer is no table of rows.
    #[error("reading the store's answer")]
    Answer(#[source] serde_json::Error),
}

/// The number of a line and what became of its event.
type Answered = (u64, Result<Sent, ImportError>);

/// Sends every request of the file and waits for its answer; `progress` is told about once a second.
///
/// # Errors
/// See [`ImportError`]; odd lines and refused events are in the [`Outcome`] instead.
pub async fn run(
    import: &Import,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Outcome, ImportError> {
    let file_error = |error| ImportError::File(import.file.clone(), error);
    let mut lines = Lines::open(&import.file).map_err(file_error)?;
    let sender = Sender::new(&import.url, import.in_flight, import.key.as_ref())?;
    let mut tasks: JoinSet<Answered> = JoinSet::new();
    let (start, mut reported) = (Instant::now(), Instant::now());
    let mut outcome = Outcome::default();
    while let Some(line) = lines.next().map_err(file_error)? {
        outcome.lines += 1;
        match hit(line.number, line.text.as_deref(), &import.site) {
            Ok(hit) => {
                if hit.cut {
                    outcome.cut += 1;
                    outcome.example(line.number, "sent, but the line's end is missing".to_owned());
                }
                while tasks.len() >= import.in_flight.max(1) {
                    outcome.settle(tasks.join_next().await)?;
                }
                let sender = sender.clone();
                tasks.spawn(async move { (hit.number, sender.send(hit).await) });
            }
            Err(odd) => {
                *outcome.odd.entry(odd).or_default() += 1;
                outcome.example(line.number, odd.to_string());
            }
        }
        if reported.elapsed() >= PROGRESS_EVERY {
            reported = Instant::now();
            progress(outcome.progress(lines.share(), start));
        }
    }
    while !tasks.is_empty() {
        outcome.settle(tasks.join_next().await)?;
    }
    outcome.elapsed = start.elapsed();
    progress(outcome.progress(1.0, start));
    Ok(outcome)
}

impl Outcome {
    fn example(&mut self, number: u64, reason: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push((number, reason));
        }
    }

    fn settle(&mut self, joined: Option<Result<Answered, JoinError>>) -> Result<(), ImportError> {
        match joined {
            None => Ok(()),
            Some(Err(error)) => Err(ImportError::Unreachable(error.to_string())),
            Some(Ok((number, sent))) => {
                let Sent { retries, refused } = sent?;
                self.retries += u64::from(retries);
                match refused {
                    None => self.sent += 1,
                    Some(reason) => {
                        self.refused += 1;
                        self.example(number, format!("refused: {reason}"));
                    }
                }
                Ok(())
            }
        }
    }

    fn progress(&self, share: f64, start: Instant) -> Progress {
        Progress { lines: self.lines, sent: self.sent, share, elapsed: start.elapsed() }
    }
}

/// One line as the request that is sent for it.
#[derive(Debug, Clone, PartialEq)]
struct Hit {
    number: u64,
    cut: bool,
    id: Uuid,
    /// `Host`.
    host: String,
    /// `User-Agent`.
    agent: Option<String>,
    url: String,
    referrer: Option<String>,
    created_at: chrono::DateTime<chrono::Utc>,
    fields: Map<String, Value>,
}

/// Turns a numbered line into what is sent for it.
fn hit(number: u64, text: Option<&str>, site: &Site) -> Result<Hit, Odd> {
    let text = text.ok_or(Odd::TooLong)?;
    let line = parse(text)?;
    let url = if line.target.starts_with('/') {
        format!("{}://{}{}", site.scheme, site.host, line.target)
    } else {
        line.target
    };
    let id = Uuid::new_v5(&NAMESPACE, format!("{number}\n{text}").as_bytes());
    let mut fields = Map::new();
    fields.insert("eid".to_owned(), id.to_string().into());
    fields.insert("ename".to_owned(), "page_view".into());
    fields.insert("etyp".to_owned(), ETYP.into());
    fields.insert("url".to_owned(), url.clone().into());
    if let Some(referrer) = &line.referrer {
        fields.insert("last".to_owned(), referrer.clone().into());
    }
    if let Some(address) = line.address {
        fields.insert("ip".to_owned(), address.to_string().into());
    }
    fields.insert("created_at".to_owned(), line.time.to_rfc3339().into());
    let request = json!({ "method": line.method, "status": line.status, "bytes": line.bytes });
    fields.insert("http".to_owned(), request);
    Ok(Hit {
        number,
        cut: line.cut,
        id,
        host: site.host.clone(),
        agent: line.agent.map(|agent| header_text(&agent)),
        url,
        referrer: line.referrer,
        created_at: line.time,
        fields,
    })
}

/// A header carries no control characters; a log may.
fn header_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// The sent events of the file again, `count_max` at a time, for comparing.
struct Again {
    lines: Lines,
    site: Site,
}

impl Again {
    fn open(file: &Path, site: &Site) -> Result<Self, ImportError> {
        let lines = Lines::open(file).map_err(|e| ImportError::File(file.to_owned(), e))?;
        Ok(Self { lines, site: site.clone() })
    }

    fn next(&mut self, count_max: usize) -> std::io::Result<Vec<Hit>> {
        let mut hits = Vec::with_capacity(count_max);
        while hits.len() < count_max {
            let Some(line) = self.lines.next()? else { break };
            hits.extend(hit(line.number, line.text.as_deref(), &self.site));
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests;
