//! The servers of one ClickHouse, and how they are asked: by HTTP, in turn, each with a deadline.
//!
//! All addresses lead to the same data, so any of them may be asked. One that could not be reached
//! rests for a while, twice as long each time, and the others take its turns; when all rest, the one
//! that rests least is asked all the same, so an outage ends when the first of them answers. A
//! question that got no answer goes to the next address within its time, of which each address but the
//! last has half of what is left; an insert goes on only when nothing of it was sent, because what
//! becomes of the rest is the caller's knowledge.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clickhouse::{Client, Compression};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::fault::Fault;
use crate::backends::Rows;
use crate::clock::Clock;
use crate::config::ClickHouseConfig;
use crate::tls::{self, ClientTlsError};

/// First rest of an address that could not be reached.
const REST_MIN: Duration = Duration::from_millis(500);
/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(15);
/// Idle connections are kept less long than the server keeps them (3 s in older versions), so that
/// none is closed while a request goes out.
const IDLE_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'q> {
    /// The statement, with `{name:Type}` where a parameter stands.
    pub(super) sql: &'q str,
    /// Values of those.
    pub(super) parameters: &'q [(&'q str, &'q str)],
    /// Settings of this statement.
    pub(super) settings: &'q [(&'q str, &'q str)],
    /// Longest wait for the whole answer, from whichever address it comes. More than a small question
    /// has is for one that may really take so long: slowness is then no sign against an address.
    pub(super) time_max: Duration,
}

/// Rows as they came, with the types of their columns.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Names of the columns.
    pub(super) columns: Vec<String>,
    /// Their types, as ClickHouse writes them.
    pub(super) types: Vec<String>,
    /// Rows, each value as its text of JSON.
    pub(super) rows: Vec<Vec<Box<RawValue>>>,
    /// There were more rows, or more bytes than an answer may have.
    pub(super) truncated: bool,
}

/// The servers of one store.
pub(super) struct Transport {
    addresses: Vec<Arc<Address>>,
    turn: AtomicUsize,
    clock: Arc<dyn Clock>,
    question_time_max: Duration,
    insert_time_max: Duration,
}

struct Address {
    url: String,
    client: Client,
    health: Mutex<Health>,
}

/// The bytes of an answer.
pub(super) struct Answer {
    /// As they came.
    pub(super) bytes: Vec<u8>,
    /// More would have come.
    pub(super) is_cut: bool,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Transport {
    /// Prepares the clients; nothing is connected.
    ///
    /// # Errors
    /// When the files of TLS cannot be used.
    pub(super) fn new(
        config: &ClickHouseConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientTlsError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.question_time_max));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(&config.tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = || {
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIME_MAX)
                .build(connector.clone())
        };
        let client = |url: &String| {
            let client = Client::with_http_client(http())
                .with_url(url)
                .with_user(&config.username)
                .with_compression(Compression::None)
                .with_validation(false)
                .with_product_info("tracker", env!("CARGO_PKG_VERSION"));
            match &config.password {
                Some(password) => client.with_password(password.reveal()),
                None => client,
            }
        };
        let address = |url: &String| Address {
            url: url.clone(),
            client: client(url),
            health: Mutex::default(),
        };
        Ok(Self {
            addresses: config.addresses.iter().map(address).map(Arc::new).collect(),
            turn: AtomicUsize::new(0),
            clock,
            question_time_max: config.question_time_max,
            insert_time_max: config.insert_time_max,
        })
    }

    /// Runs a statement that gives no rows.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn execute_within(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        time_max: Duration,
    ) -> Result<(), Fault> {
        let question = Question { sql, parameters: &[], settings, time_max };
        self.ask(question, "Null").await.map(drop)
    }

    /// The rows of a small question.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn rows(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<Rows, Fault> {
        let time_max = self.question_time_max;
        self.rows_of(Question { sql, parameters, settings: &[], time_max }).await
    }

    /// The rows of a small question asked with `settings`.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn rows_with(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
    ) -> Result<Rows, Fault> {
        let time_max = self.question_time_max;
        self.rows_of(Question { sql, parameters: &[], settings, time_max }).await
    }

    /// The rows of a question. Whole numbers of 64 bits are numbers, moments are texts.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn rows_of(&self, question: Question<'_>) -> Result<Rows, Fault> {
        let mut settings = question.settings.to_vec();
        settings.push(("output_format_json_quote_64bit_integers", "0"));
        let answer = self.ask(Question { settings: &settings, ..question }, "JSONCompact").await?;
        parse(&answer)
    }

    /// The first `rows_max` rows of a question.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn table(
        &self,
        question: Question<'_>,
        rows_max: usize,
    ) -> Result<Table, Fault> {
        // Before the rows come two lines with names and types.
        let lines_max = rows_max.saturating_add(2);
        let answer = self.read(question, TABLE_FORMAT, lines_max).await?;
        parse_table(&answer, rows_max)
    }

    /// The answer in `format`; one that is too large is refused.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn ask(&self, question: Question<'_>, format: &str) -> Result<Bytes, Fault> {
        let answer = self.read(question, format, usize::MAX).await?;
        if answer.is_cut {
            let megabytes = ANSWER_BYTES_MAX >> 20;
            let message = format!("the answer is larger than {megabytes} MiB; ask for less");
            return Err(Fault::Refused { code: Some(396), message });
        }
        Ok(answer.bytes.into())
    }

    async fn read(
        &self,
        question: Question<'_>,
        format: &str,
        lines_max: usize,
    ) -> Result<Answer, Fault> {
        let deadline = Instant::now() + question.time_max;
        let mut order = self.order().into_iter();
        loop {
            // There is always one: a configuration names at least one address.
            let Some(address) = order.next() else {
                return Err(Fault::Answer("no address is configured".to_owned()));
            };
            let is_small = question.time_max <= self.question_time_max;
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if is_small && order.len() > 0 { left / 2 } else { left };
            let asked = timeout(share, address.ask(question, format, lines_max)).await;
            match asked.unwrap_or_else(|_| Err(address.slow(question.time_max))) {
                Ok(answer) => {
                    address.answered();
                    return Ok(answer);
                }
                Err(fault @ Fault::Slow { .. }) if !is_small => return Err(fault),
                Err(fault) if fault.is_of_address() => {
                    address.failed(self.clock.monotonic());
                    if order.len() == 0 {
                        return Err(fault);
                    }
                }
                Err(fault) => {
                    address.answered();
                    return Err(fault);
                }
            }
        }
    }

    /// Sends `body`, one LZ4 frame, as the data of the insert `sql`.
    ///
    /// # Errors
    /// As [`Fault`] says; [`Fault::is_ambiguous`] tells whether it may have been done.
    pub(super) async fn insert(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        body: &Bytes,
    ) -> Result<(), Fault> {
        let mut order = self.order().into_iter();
        loop {
            let Some(address) = order.next() else {
                return Err(Fault::Answer("no address is configured".to_owned()));
            };
            let sent = timeout(self.insert_time_max, address.insert(sql, settings, body)).await;
            match sent.unwrap_or_else(|_| Err(address.slow(self.insert_time_max))) {
                Ok(()) => {
                    address.answered();
                    return Ok(());
                }
                Err(fault) => {
                    if fault.is_of_address() {
                        address.failed(self.clock.monotonic());
                    }
                    if fault.is_of_address() && !fault.is_ambiguous() && order.len() > 0 {
                        continue;
                    }
                    return Err(fault);
                }
            }
        }
    }

    /// The first address that answers, alone: for what is done step by step and must not be spread
    /// over servers that turn out to be different stores.
    ///
    /// # Errors
    /// When none answers, as the last of them did not.
    pub(super) async fn alone(&self) -> Result<Self, Fault> {
        let mut fault = Fault::Answer("no address is configured".to_owned());
        for (index, address) in self.addresses.iter().enumerate() {
            match self.rows_at(index, "select 1").await {
                Ok(_) => {
                    return Ok(Self {
                        addresses: vec![Arc::clone(address)],
                        turn: AtomicUsize::new(0),
                        clock: Arc::clone(&self.clock),
                        question_time_max: self.question_time_max,
                        insert_time_max: self.insert_time_max,
                    });
                }
                Err(found) => fault = found,
            }
        }
        Err(fault)
    }

    /// Every address by name, in the order of the configuration.
    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().map(|address| address.url.as_str())
    }

    /// The answer of one address, by its place in the configuration; rested or not.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn rows_at(&self, index: usize, sql: &str) -> Result<Rows, Fault> {
        let time_max = self.question_time_max;
        let question = Question { sql, parameters: &[], settings: &[], time_max };
        let Some(address) = self.addresses.get(index) else {
            return Err(Fault::Answer("no such address".to_owned()));
        };
        let asked = timeout(time_max, address.ask(question, "JSONCompact", usize::MAX)).await;
        let answer = asked.unwrap_or_else(|_| Err(address.slow(time_max)));
        match &answer {
            Err(fault) if fault.is_of_address() => address.failed(self.clock.monotonic()),
            Ok(_) | Err(_) => address.answered(),
        }
        parse(&answer?.bytes)
    }

    /// The addresses in the order in which to try them: the next in turn first, those that rest
    /// last, by the end of their rest.
    fn order(&self) -> Vec<&Address> {
        let now = self.clock.monotonic();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.addresses.len().max(1);
        let (before, after) = self.addresses.split_at(turn.min(self.addresses.len()));
        let mut order: Vec<&Address> = after.iter().chain(before).map(AsRef::as_ref).collect();
        order.sort_by_key(|address| address.rests_until().filter(|until| *until > now));
        order
    }
}

impl Address {
    /// The answer, or its beginning where it is longer than it may be.
    async fn ask(
        &self,
        question: Question<'_>,
        format: &str,
        lines_max: usize,
    ) -> Result<Answer, Fault> {
        let fault = |error| Fault::of(&self.url, error);
        let mut query = self.client.query_raw(question.sql);
        for (name, value) in question.parameters {
            query = query.param(name, value);
        }
        for (name, value) in question.settings {
            query = query.with_setting(*name, *value);
        }
        let mut cursor = query.fetch_bytes(format).map_err(fault)?;
        let mut answer = Answer { bytes: Vec::new(), is_cut: false };
        let mut lines = 0_usize;
        while let Some(chunk) = cursor.next().await.map_err(fault)? {
            let is_full = lines > lines_max || answer.bytes.len() > ANSWER_BYTES_MAX;
            if is_full {
                answer.is_cut = true;
                break;
            }
            if lines_max < usize::MAX {
                lines += memchr::memchr_iter(b'\n', &chunk).count();
            }
            answer.bytes.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    async fn insert(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        body: &Bytes,
    ) -> Result<(), Fault> {
        let fault = |error| Fault::of(&self.url, error);
        let client = self.client.clone().with_header("content-encoding", "lz4");
        let mut insert = client.insert_formatted_with(sql);
        for (name, value) in settings {
            insert = insert.with_setting(*name, *value);
        }
        insert.send(body.clone()).await.map_err(fault)?;
        insert.end().await.map_err(fault)
    }

    fn slow(&self, time_max: Duration) -> Fault {
        Fault::Slow { address: self.url.clone(), time_max }
    }

    fn answered(&self) {
        *self.health() = Health::default();
    }

    fn failed(&self, now: Instant) {
        let mut health = self.health();
        let rest = REST_MIN.saturating_mul(1 << health.failures.min(16)).min(REST_MAX);
        health.failures = health.failures.saturating_add(1);
        health.rests_until = Some(now + rest);
    }

    fn rests_until(&self) -> Option<Instant> {
        self.health().rests_until
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the format `JSONCompact`.
///
/// # Errors
/// [`Fault::Answer`] when it is in another.
pub(super) fn parse(answer: &[u8]) -> Result<Rows, Fault> {
    #[derive(Deserialize)]
    struct Column {
        name: String,
    }
    #[derive(Deserialize)]
    struct Answer {
        meta: Vec<Column>,
        data: Vec<Vec<Value>>,
    }
    // A statement that gives no rows has an empty answer.
    if answer.is_empty() {
        return Ok(Rows::default());
    }
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|error| Fault::Answer(error.to_string()))?;
    let columns: Vec<String> = answer.meta.into_iter().map(|column| column.name).collect();
    if answer.data.iter().any(|row| row.len() != columns.len()) {
        return Err(other_width());
    }
    Ok(Rows { columns, rows: answer.data, truncated: false })
}

/// An array of JSON in each line: names, types, then the rows.
const TABLE_FORMAT: &str = "JSONCompactEachRowWithNamesAndTypes";

/// Reads [`TABLE_FORMAT`].
///
/// # Errors
/// [`Fault::Answer`] when it is in another.
pub(super) fn parse_table(answer: &Answer, rows_max: usize) -> Result<Table, Fault> {
    // A text that is not UTF-8 comes as it is stored.
    let text = String::from_utf8_lossy(&answer.bytes);
    let mut table = Table { truncated: answer.is_cut, ..Table::default() };
    // The last line of an answer that was cut may be half a line.
    let whole = if answer.is_cut { text.rfind('\n').unwrap_or(0) } else { text.len() };
    let mut lines = text.get(..whole).unwrap_or_default().lines();
    let (names, types) = match (lines.next(), lines.next()) {
        (Some(names), Some(types)) => (names, types),
        (Some(_), None) => return Err(Fault::Answer("its columns have no types".to_owned())),
        // A statement that gives no rows has an empty answer.
        (None, _) => return Ok(table),
    };
    let fault = |error: serde_json::Error| Fault::Answer(error.to_string());
    table.columns = serde_json::from_str(names).map_err(fault)?;
    table.types = serde_json::from_str(types).map_err(fault)?;
    if table.types.len() != table.columns.len() {
        return Err(other_width());
    }
    for line in lines {
        if table.rows.len() == rows_max {
            table.truncated = true;
            break;
        }
        let row: Vec<Box<RawValue>> = serde_json::from_str(line).map_err(fault)?;
        if row.len() != table.columns.len() {
            return Err(other_width());
        }
        table.rows.push(row);
    }
    Ok(table)
}

fn other_width() -> Fault {
    Fault::Answer("a row is not as wide as the columns".to_owned())
}
