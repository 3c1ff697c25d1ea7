//! ClickHouse as the sink, beside what its server can do and beside a client that inserts each event
//! by itself, in one run on one machine.
//!
//! - `load`: page views on 64 connections: accepted and stored events a second, p99, memory; beside
//!   a bare handler, and beside the naive client on 16 connections.
//! - `drain`: a backlog made while the server is away: rows a second and processor time of a row,
//!   beside the server's own limit, which is the same rows, encoded before, inserted by nothing but
//!   a socket, in batches of the program's size and in larger ones.
//! - `formats`: the same rows as `Native` and as `RowBinary`: the server's time for each.
//! - `parts`: 1,000 events a second for 30 s: parts made of a million events.
//!
//! `cargo bench --bench clickhouse -- [load] [drain] [formats] [parts]` (default all). ClickHouse is
//! got by `.ci/services install`; `load` needs `wrk`.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what fails here should fail the run, with the reason in words"
)]
mod bare;
#[path = "../tests/support/clickhouse.rs"]
mod clickhouse;
mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bare::Bare;
use clickhouse::{ClickHouse, USER};
use load::{median, watching, wrk};
use serde_json::json;
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const DATABASE: &str = "sfpla";
const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 3;
const ROUND_SECONDS: u32 = 6;
/// Events of the backlog.
const BACKLOG: usize = 400_000;
/// Events of one request while the backlog is made.
const BATCH: usize = 1_000;
/// Rows that the program has stored.
const STORED_ROWS: &str = "tracker_sink_rows_total{sink=\"clickhouse\",table=\"events\"}";
/// Rows of a large batch.
const LARGE: u64 = 100_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "--bare") {
        bare::serve(
            axum::Router::new()
                .route("/", axum::routing::post(|body: bytes::Bytes| async move { drop(body) })),
        );
        return;
    }
    let Some(mut server) = ClickHouse::start() else { return };
    let wants = |part: &str| args.is_empty() || args.iter().any(|arg| arg == part);
    if wants("load") {
        under_load(&server);
    }
    if wants("drain") || wants("formats") {
        drained(&mut server, wants("formats"));
    }
    if wants("parts") {
        parts(&server);
    }
}

/// A tracker that delivers to nothing but `server`.
fn site(server: &ClickHouse) -> Site {
    let entry = json!({
        "Type": "clickhouse", "Host": server.address.ip().to_string(),
        "HTTPPort": server.address.port(), "Database": DATABASE,
        "Username": USER.0, "Password": USER.1,
    });
    Site::new(PROGRAM, json!({"JournalSegmentBytes": "64MiB", "Notify": [entry]}))
}

fn empty(server: &ClickHouse) {
    drop(server.try_query(&format!("drop database if exists {DATABASE} sync")));
}

fn stored(server: &ClickHouse) -> u64 {
    server.number(&format!("select count() as n from {DATABASE}.events"))
}

fn under_load(server: &ClickHouse) {
    println!("load: {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND_SECONDS} s, medians");
    let (mut bare, mut ours, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rates, mut naive, mut naive_async) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let baseline = Bare::start();
        bare.push(wrk(baseline.address, CONNECTIONS, ROUND_SECONDS, "/"));
        drop(baseline);
        empty(server);
        let site = site(server);
        let tracker = site.start();
        Client::connect(tracker.address)
            .and_then(|mut client| {
                client.request("POST", "/tr/v1/tr/", &[], b"{\"ename\":\"warm\"}")
            })
            .expect("a first event");
        tracker.drained();
        let before = stored(server);
        let started = Instant::now();
        let (round, peak) = watching(
            || tracker.resident(),
            || wrk(tracker.address, CONNECTIONS, ROUND_SECONDS, "/tr/v1/tr/"),
        );
        tracker.drained();
        rates.push((stored(server) - before) as f64 / started.elapsed().as_secs_f64());
        ours.push(round);
        peaks.push(peak as f64 / f64::from(1 << 20));
        tracker.stop();
        naive.push(one_by_one(server, ""));
        naive_async.push(one_by_one(server, "&async_insert=1&wait_for_async_insert=1"));
    }
    let (bare, ours) = (load::middle(&bare), load::middle(&ours));
    let (rate, naive, naive_async) = (median(rates), median(naive), median(naive_async));
    bare.print("  bare handler ");
    ours.print("  tracker      ");
    println!("  ratio          {:>10.2}   (reach: 0.40 or more)", ours.rate / bare.rate);
    println!("  p99 ratio      {:>10.1}", ours.p99_ms / bare.p99_ms);
    println!(
        "  stored         {rate:>10.0} events/s, from the first request until the last is in ClickHouse"
    );
    println!("  memory         {:>10.0} MiB peak (reach: 128)", median(peaks));
    println!(
        "  naive client   {naive:>10.0} events/s, each an insert: ours is {:.1} times that \
         (documentation: 5 to 10)",
        rate / naive
    );
    println!(
        "  naive, async   {naive_async:>10.0} events/s, joined by the server: ours is {:.1} times that",
        rate / naive_async
    );
}

/// Events a second of a client that inserts each by itself, on 16 connections for 4 s.
fn one_by_one(server: &ClickHouse, settings: &str) -> f64 {
    const THREADS: u64 = 16;
    let started = Instant::now();
    let until = started + Duration::from_secs(4);
    let columns = "eid,created_at,ename,etyp,url,params";
    let path = format!(
        "/?query=INSERT%20INTO%20{DATABASE}.events%20({columns})%20FORMAT%20JSONEachRow{settings}"
    );
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let path = &path;
                scope.spawn(move || {
                    let mut client = Socket::connect(server);
                    let mut done = 0;
                    while Instant::now() < until {
                        let row = format!(
                            "{{\"eid\":\"00000000-0000-4000-8{thread:03x}-{done:012x}\",\
                             \"created_at\":\"2026-01-01 00:00:00.000\",\"ename\":\"page_view\",\
                             \"etyp\":\"page\",\"url\":\"https://shop.example.com/lamps\",\
                             \"params\":{{\"sku\":\"LAMP-0042\",\"price\":79.5}}}}\n"
                        );
                        client.insert(path, row.as_bytes());
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).sum()
    });
    total as f64 / started.elapsed().as_secs_f64()
}

/// One connection to the server that inserts, and shares no code with the program.
struct Socket(BufReader<TcpStream>, String);

impl Socket {
    fn connect(server: &ClickHouse) -> Self {
        let stream = TcpStream::connect(server.address).expect("connecting");
        stream.set_nodelay(true).expect("a socket");
        Self(BufReader::new(stream), server.address.to_string())
    }

    fn insert(&mut self, path: &str, body: &[u8]) {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n", self.1);
        write!(head, "X-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n", USER.0, USER.1).unwrap();
        if body.starts_with(&[0x04, 0x22, 0x4d, 0x18]) {
            head.push_str("Content-Encoding: lz4\r\n");
        }
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sending");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        let ok = line.contains(" 200 ");
        let mut chunked = false;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a head");
            let line = line.trim_end().to_ascii_lowercase();
            chunked |= line == "transfer-encoding: chunked";
            if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).expect("a body");
        while chunked {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a chunk");
            let size = usize::from_str_radix(line.trim(), 16).expect("a size");
            let mut chunk = vec![0; size + 2];
            self.0.read_exact(&mut chunk).expect("a chunk");
            answer.extend(chunk);
            chunked = size > 0;
        }
        assert!(ok, "{line}{}", String::from_utf8_lossy(&answer));
    }
}

fn drained(server: &mut ClickHouse, formats: bool) {
    empty(server);
    let site = site(server);
    let tracker = site.start();
    // The schema is made before the server goes away.
    post(&tracker, 1);
    tracker.drained();
    server.kill();
    let made = Instant::now();
    for _ in 0..BACKLOG / BATCH {
        post(&tracker, BATCH);
    }
    println!(
        "\ndrain: a backlog of {BACKLOG} events, taken at {:.0} events/s while the server was away",
        BACKLOG as f64 / made.elapsed().as_secs_f64()
    );
    server.restart();
    let (ours, theirs) = (cpu(tracker.pid()), cpu(server.pid()));
    // By the program's own count: asking the server again and again would cost it more than the rows.
    let done = || tracker.metric(STORED_ROWS);
    let mut began = Instant::now();
    let first = done();
    while done() == first {
        began = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
    }
    let at_first = done();
    let ((), peak) = watching(
        || tracker.resident(),
        || {
            while done() < BACKLOG as u64 + 1 {
                std::thread::sleep(Duration::from_millis(50));
            }
        },
    );
    let rate = (BACKLOG as u64 + 1 - at_first) as f64 / began.elapsed().as_secs_f64();
    let each = |spent: f64| spent * 1e6 / BACKLOG as f64;
    let (ours, theirs) = (each(cpu(tracker.pid()) - ours), each(cpu(server.pid()) - theirs));
    let inserts =
        tracker.metric("tracker_sink_batches_total{sink=\"clickhouse\",table=\"events\"}");
    let of_batch = BACKLOG as u64 / inserts.max(1);
    tracker.stop();
    println!(
        "  tracker        {rate:>10.0} rows/s in batches of {of_batch}, {ours:.1} µs of a processor a row, \
              the server {theirs:.1} µs"
    );
    println!("  memory         {:>10.0} MiB peak (reach: 256)", peak as f64 / f64::from(1 << 20));
    let same = limit(server, "events", "Native", of_batch);
    let large = limit(server, "events", "Native", LARGE);
    println!(
        "  server's limit {:>10.0} rows/s in the same batches ({:.1} µs a row): {:.2} of it",
        same.0,
        same.1,
        rate / same.0
    );
    println!(
        "                 {:>10.0} rows/s in batches of {LARGE} ({:.1} µs a row): {:.2} of it   (reach: 0.60)",
        large.0,
        large.1,
        rate / large.0
    );
    if formats {
        println!("\nformats: batches of {LARGE} into a table like events that feeds no view");
        server.query(&format!("create table {DATABASE}.plain as {DATABASE}.events"));
        for format in ["Native", "RowBinary", "Native", "RowBinary"] {
            let (rate, each) = limit(server, "plain", format, LARGE);
            println!(
                "  {format:<14} {rate:>10.0} rows/s, {each:.2} µs of the server's processors a row"
            );
        }
    }
}

/// Rows a second and microseconds of the server's processors a row, when all rows of the backlog go
/// once into `table`, which is emptied before, in batches of so many rows, encoded before as the
/// program encodes them and under tokens as it sends them.
fn limit(server: &ClickHouse, table: &str, format: &str, rows: u64) -> (f64, f64) {
    let columns = server.query(&format!(
        "select name, type from system.columns where database = '{DATABASE}' and table = 'events'"
    ));
    let select: Vec<String> = columns
        .iter()
        .map(|column| {
            let (name, kind) = (column["name"].as_str().unwrap(), column["type"].as_str().unwrap());
            if kind.starts_with("LowCardinality") {
                format!("CAST({name} AS String) AS {name}")
            } else {
                name.to_owned()
            }
        })
        .collect();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    let (select, names) = (select.join(","), names.join(","));
    server.query(&format!("create table if not exists {DATABASE}.source as {DATABASE}.events"));
    if server.number(&format!("select count() as n from {DATABASE}.source")) == 0 {
        server.query(&format!("insert into {DATABASE}.source select * from {DATABASE}.events"));
    }
    let batches: Vec<Vec<u8>> = (0..BACKLOG as u64 / rows)
        .map(|batch| {
            let sql = format!(
                "select {select} from {DATABASE}.source where ingest_seq > {} and ingest_seq <= {}",
                batch * rows,
                (batch + 1) * rows
            );
            lz4(&fetch(server, &format!("/?default_format={format}&wait_end_of_query=1"), &sql))
        })
        .collect();
    server.query(&format!("truncate table {DATABASE}.{table} sync"));
    let mut socket = Socket::connect(server);
    let (began, before) = (Instant::now(), cpu(server.pid()));
    for (number, batch) in batches.iter().enumerate() {
        let token = format!("{table}{format}{rows}{number}");
        let path = format!(
            "/?async_insert=0&deduplicate_blocks_in_dependent_materialized_views=1\
             &insert_deduplication_token={token}\
             &query=INSERT%20INTO%20{DATABASE}.{table}%20({names})%20FORMAT%20{format}"
        );
        socket.insert(&path, batch);
    }
    let (seconds, sent) = (began.elapsed().as_secs_f64(), batches.len() as f64 * rows as f64);
    (sent / seconds, (cpu(server.pid()) - before) * 1e6 / sent)
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frame.write_all(bytes).expect("memory");
    frame.finish().expect("memory")
}

/// The bytes of an answer.
fn fetch(server: &ClickHouse, path: &str, sql: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).expect("connecting");
    let head = format!(
        "POST {path} HTTP/1.0\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n\
         Content-Length: {}\r\n\r\n{sql}",
        USER.0,
        USER.1,
        sql.len()
    );
    stream.write_all(head.as_bytes()).expect("sending");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    assert!(
        answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"),
        "{sql}: {}",
        String::from_utf8_lossy(&answer)
    );
    answer.split_off(at + 4)
}

/// Sends a batch of so many page views.
fn post(tracker: &Server, events: usize) {
    let event = page_view();
    let body = format!("[{}]", vec![event; events].join(","));
    let mut client = Client::connect(tracker.address).expect("connecting");
    let answer = client.request("POST", "/tr/v1/tr/", &[], body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

/// The page view of `post.lua`.
fn page_view() -> String {
    let script = include_str!("post.lua");
    let start = script.find("wrk.body = [[").expect("a body") + "wrk.body = [[".len();
    let end = script[start..].find("]]").expect("its end");
    script[start..start + end].to_owned()
}

fn parts(server: &ClickHouse) {
    const SECONDS: u64 = 30;
    empty(server);
    let site = site(server);
    let tracker = site.start();
    post(&tracker, 1);
    tracker.drained();
    let made = |table: &str| {
        server.number(&format!(
            "select toUInt64(max(max_block_number)) as n from system.parts \
             where database = '{DATABASE}' and table like '{table}'"
        ))
    };
    let before = made("events");
    let began = Instant::now();
    for tick in 0..SECONDS * 20 {
        post(&tracker, 50);
        let next = Duration::from_millis((tick + 1) * 50);
        std::thread::sleep(next.saturating_sub(began.elapsed()));
    }
    tracker.drained();
    let events = SECONDS * 1_000;
    let parts = made("events") - before;
    println!("\nparts: 1,000 events/s for {SECONDS} s");
    println!(
        "  events         {:>10.0} parts of a million events   (reach: 1,100 or fewer)",
        parts as f64 * 1e6 / events as f64
    );
    tracker.stop();
}

/// Seconds of processor time that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
    let after = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}
