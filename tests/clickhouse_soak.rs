//! Many faults of ClickHouse, of the way to it and of the program itself, one after the other in an order
//! that chance chose; and a long outage. Whatever was acknowledged stands in ClickHouse exactly once.
//!
//! The same holds for counters that derive, but for one case that no client can mend: a server that was
//! killed may know the token of rows that it does not have, in a table of counters too. So a run in which
//! ClickHouse was killed may leave counters that are off by a batch; each is said, and few may be.
//!
//! `SOAK_RUNS` (50) says how many, `SOAK_SEED` repeats an order, `SOAK_BACKLOG_MB` (64) is what the
//! journal holds at the end of the outage. `make soak` takes 500 and 5,120.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what fails here should fail the run with its reason"
)]
#[path = "support/clickhouse.rs"]
mod clickhouse;
#[path = "support/promises.rs"]
mod promises;
#[path = "support/relay.rs"]
mod relay;
mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clickhouse::{ClickHouse, entry};
use promises::Promises;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use relay::{Fault, Relay};
use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
/// What only an insert has in its address.
const INSERT: &str = "query=insert+into";
/// Every event is looked at after so many runs; in between they are counted.
const FULL_CHECK_RUNS: u64 = 25;
/// Of a hundred runs in which ClickHouse is killed, so many may leave counters that are off.
const OFF_PERCENT: u64 = 10;
/// How often the long outage may be longer than everything else here takes.
const OUTAGE_PATIENCE: u32 = 40;

fn number(name: &str, standard: u64) -> u64 {
    std::env::var(name).map_or(standard, |text| text.parse().expect("a number"))
}

/// What happens in one run, and for how long.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// ClickHouse is killed, or stopped in order, and comes back.
    Killed(Duration),
    Stopped(Duration),
    /// It hangs.
    Paused(Duration),
    /// The way to it is closed.
    Refused(Duration),
    /// So many inserts are struck.
    Struck(Fault, usize),
    /// The tracker is killed, or stopped in order, and comes back.
    TrackerKilled,
    TrackerStopped,
    /// Both die at once.
    BothKilled,
}

impl Trouble {
    fn choose(chance: &mut StdRng) -> Self {
        let mut time = |longest: u64| Duration::from_millis(chance.random_range(0..longest));
        let (short, long) = (time(300), time(1500));
        let times = chance.random_range(1..4);
        match chance.random_range(0..16) {
            0 => Self::None,
            1 | 2 => Self::Killed(short),
            3 => Self::Stopped(short),
            4 => Self::Paused(long),
            5 => Self::Refused(long),
            6 | 7 => Self::Struck(Fault::CutRequest(chance.random_range(0..4000)), times),
            8..=10 => Self::Struck(Fault::CutAnswer(chance.random_range(0..900)), times),
            11 => Self::Struck(Fault::Silence, 1),
            12 => Self::Struck(Fault::Delay(short), times),
            13 => Self::TrackerKilled,
            14 => Self::TrackerStopped,
            _ => Self::BothKilled,
        }
    }
}

/// Everything that lives through the runs.
struct Soak {
    clickhouse: ClickHouse,
    relay: Relay,
    site: Site,
    /// `None` while it is down.
    server: Option<Server>,
    promises: Promises,
    /// What `hits` and `reqs` have beyond the events, since a server lied.
    off: [i64; 2],
    /// Runs in which ClickHouse was killed, and of those the ones after which counters were off.
    killed: u64,
    lied: u64,
}

impl Soak {
    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// A burst of events under `trouble`, which begins `after` its start and is over in the end.
    fn run(&mut self, trouble: Trouble, after: Duration, clients: usize, each: usize) {
        let address = self.server().address;
        let mut promises = std::mem::take(&mut self.promises);
        self.promises = thread::scope(|scope| {
            let sending = scope.spawn(move || {
                promises.send(address, clients, each);
                promises
            });
            thread::sleep(after);
            self.suffer(trouble);
            sending.join().expect("the clients")
        });
        self.relay.heal();
    }

    fn suffer(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::None => {}
            Trouble::Killed(time) => {
                self.clickhouse.kill();
                thread::sleep(time);
                self.clickhouse.restart();
            }
            Trouble::Stopped(time) => {
                self.clickhouse.stop();
                thread::sleep(time);
                self.clickhouse.restart();
            }
            Trouble::Paused(time) => {
                self.clickhouse.pause();
                thread::sleep(time);
                self.clickhouse.resume();
            }
            Trouble::Refused(time) => {
                self.relay.refuse();
                thread::sleep(time);
            }
            Trouble::Struck(fault, times) => {
                let (before, deadline) = (self.relay.struck(), Instant::now() + PATIENCE / 30);
                self.relay.arm(INSERT, fault, times);
                while self.relay.struck() < before + times as u64 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            Trouble::TrackerKilled => {
                self.server.take().expect("it runs").kill();
                self.server = Some(self.site.start());
            }
            Trouble::TrackerStopped => {
                self.server.take().expect("it runs").stop();
                self.server = Some(self.site.start());
            }
            Trouble::BothKilled => {
                self.clickhouse.kill();
                self.server.take().expect("it runs").kill();
                self.server = Some(self.site.start());
                self.clickhouse.restart();
            }
        }
    }

    /// The counts after every run: nothing twice, nothing lost, and what derives adds up.
    fn count(&mut self, trouble: Trouble) {
        let counts = self.clickhouse.query(
            "select toInt64(count()) as rows, toInt64(uniqExact(eid)) as events, \
             (select toInt64(sum(total)) from soak.hits) as hits, \
             (select toInt64(sum(total)) from soak.reqs) as reqs from soak.events",
        );
        let [rows, events, hits, reqs] = ["rows", "events", "hits", "reqs"]
            .map(|name| counts[0][name].as_i64().expect("a count"));
        assert_eq!(rows, events, "events that stand more than once");
        let stored = usize::try_from(rows).expect("a count");
        let acknowledged = self.promises.acknowledged.len();
        assert!(stored >= acknowledged, "{stored} of {acknowledged}");
        assert!(
            stored <= acknowledged + self.promises.unanswered.len(),
            "{stored} of {acknowledged}"
        );
        let off = [hits - rows, reqs - rows];
        let was_killed = matches!(trouble, Trouble::Killed(_) | Trouble::BothKilled);
        self.killed += u64::from(was_killed);
        if off != self.off {
            println!("counters are off by {off:?}, and were by {:?}", self.off);
            assert!(was_killed, "counters are off, and ClickHouse was not killed");
            self.lied += 1;
            self.off = off;
        }
    }
}

#[test]
fn whatever_fails_in_whatever_order_all_that_was_acknowledged_stands_once() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let seed = number("SOAK_SEED", rand::random());
    let runs = number("SOAK_RUNS", 50);
    println!("{runs} runs; SOAK_SEED={seed} chooses them again");
    let mut chance = StdRng::seed_from_u64(seed);
    let relay = Relay::start(clickhouse.address);
    let duckdb = json!({"Type": "duckdb", "MaxBatchTime": "50ms", "QueryMaxRows": 10_000_000});
    let site = Site::new(PROGRAM, json!({"Notify": [duckdb, entry(relay.address, "soak")]}));
    let server = site.start();
    server.drained();
    let (server, promises) = (Some(server), Promises::default());
    let mut soak =
        Soak { clickhouse, relay, site, server, promises, off: [0; 2], killed: 0, lied: 0 };
    let mut peak = 0;
    for run in 1..=runs {
        let trouble = Trouble::choose(&mut chance);
        let after = Duration::from_millis(chance.random_range(0..250));
        let (clients, each) = (chance.random_range(1..4), chance.random_range(10..200));
        let began = Instant::now();
        soak.run(trouble, after, clients, each);
        soak.server().drained();
        println!("run {run}: {trouble:?} after {after:?}, {:?}", began.elapsed());
        soak.count(trouble);
        if run % FULL_CHECK_RUNS == 0 || run == runs {
            soak.promises.check_events(&soak.clickhouse, "soak");
            peak = peak.max(soak.server().memory(&soak.site));
        }
    }
    let rows = soak.clickhouse.number("select count() from soak.events");
    assert_eq!(soak.site.number("select count(*) as n from events"), rows);
    assert_eq!(soak.site.number("select count(*) as n from quarantine"), 0);
    assert_eq!(soak.server().metric_sum("tracker_sink_lost_total"), 0);
    assert!(peak < 256 << 20, "{} MiB beside DuckDB's pool", peak >> 20);
    // One is bad luck however few were killed.
    assert!(
        soak.lied <= 1 + soak.killed * OFF_PERCENT / 100,
        "counters were off after {} of {} kills",
        soak.lied,
        soak.killed
    );
    println!("{rows} events, {} kills, {} MiB", soak.killed, peak >> 20);
    soak.server.take().expect("it runs").stop();
}

/// Posts batches until `stop`; how many events were acknowledged.
fn pour(address: SocketAddr, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut client = Client::connect(address).expect("connecting");
    let events: Vec<Value> = (0..500)
        .map(|n| {
            json!({
                "vid": format!("0190a8f0-0000-7000-8000-{n:012}"),
                "ename": "page_view",
                "etyp": "view",
                "url": format!("https://shop.example/category/{}/page/{n}", n % 13),
                "last": "https://search.example/?q=shoes",
                "tz": "Europe/Berlin",
                "params": {"price": 12.5, "currency": "EUR", "stock": n, "words": ["a", "b"]},
            })
        })
        .collect();
    let body = json!(events).to_string();
    while !stop.load(Ordering::Relaxed) {
        let answer = client.request("POST", "/tr/v1/tr/", &[], body.as_bytes()).expect("an answer");
        match answer.status {
            200 => drop(acknowledged.fetch_add(events.len() as u64, Ordering::Relaxed)),
            status => {
                assert_eq!(status, 503, "neither stored nor refused");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

#[test]
fn the_backlog_of_a_long_outage_drains_in_bounded_memory_and_stands_once() {
    let Some(mut clickhouse) = ClickHouse::start() else { return };
    let megabytes = number("SOAK_BACKLOG_MB", 64);
    let mut entry = clickhouse.entry("outage");
    entry["InsertTimeout"] = json!("60s");
    // A backlog goes out in batches of this size.
    entry["MaxBatchSize"] = json!(100_000);
    let site = Site::new(
        PROGRAM,
        json!({
            "Notify": [entry],
            "JournalSegmentBytes": "64MiB",
            "JournalMaxBytes": format!("{}MiB", 1024 + 2 * megabytes),
        }),
    );
    clickhouse.kill();
    let server = site.start();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut peak = 0;
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pour(server.address, &stop, &acknowledged));
        }
        while server.metric("tracker_journal_bytes_total") < megabytes << 20 {
            peak = peak.max(server.resident());
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (acknowledged, filled) = (acknowledged.into_inner(), began.elapsed());
    assert_eq!(server.health()["sinks"][0]["lag_events"], acknowledged);
    clickhouse.restart();
    let began = Instant::now();
    while server.health()["sinks"][0]["lag_events"] != 0 {
        assert!(began.elapsed() < OUTAGE_PATIENCE * PATIENCE, "it lags: {}", server.health());
        peak = peak.max(server.resident());
        thread::sleep(Duration::from_millis(50));
    }
    println!(
        "{megabytes} MB, {acknowledged} events in {filled:?}, drained in {:?}, {} MiB",
        began.elapsed(),
        peak >> 20
    );
    for count in [
        "count() from outage.events",
        "uniqExact(eid) from outage.events",
        "sum(total) from outage.hits",
        "sum(total) from outage.reqs",
    ] {
        assert_eq!(clickhouse.number(&format!("select {count}")), acknowledged, "{count}");
    }
    assert!(peak < 512 << 20, "{} MiB", peak >> 20);
    server.stop();
}
