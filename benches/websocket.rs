//! Events by `WebSocket` beside single events by POST, in one run on one machine.
//!
//! The baseline is POST of single events over kept connections. Then come frames of 1, 10 and 100
//! events over as many sockets, acknowledged (`?ack=1`) with a window of frames on the way, so that
//! every event counted is durable, as every POST is. Text and LZ4. Rounds alternate, so that a machine
//! whose speed drifts favours nobody; medians are printed, and their ratio to the POSTs.
//!
//! Client and server share the machine, and the client of a socket masks and compresses: the ratio
//! says what a site gains as a whole.
//!
//! `cargo bench --bench websocket -- [seconds per round] [rounds]` (default 4 and 3).

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what fails here should fail the run, with the reason in words"
)]
#[path = "../tests/support/socket.rs"]
mod socket;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use socket::Socket;
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
/// About 900 bytes, what a page sends.
const EVENT: &str = include_str!("page_view.json");
const CONNECTIONS: usize = 16;
/// Frames on the way before an acknowledgement is waited for; a POST has one.
const WINDOW: usize = 8;
const EVENTS_PER_FRAME: [usize; 3] = [1, 10, 100];

/// How events travel.
#[derive(Clone, Copy)]
enum Way {
    Post,
    Text(usize),
    Lz4(usize),
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Post => "POST of one event".to_owned(),
            Self::Text(events) => format!("text frames of {events}"),
            Self::Lz4(events) => format!("LZ4 frames of {events}"),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let seconds = args.first().and_then(|n| n.parse().ok()).unwrap_or(4);
    let rounds: usize = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(3);
    println!("{seconds} s a round, {rounds} rounds of each, {CONNECTIONS} connections, medians");
    let frames = EVENTS_PER_FRAME.iter().flat_map(|&n| [Way::Text(n), Way::Lz4(n)]);
    let ways: Vec<Way> = std::iter::once(Way::Post).chain(frames).collect();
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (way, rates) in ways.iter().zip(&mut rates) {
            rates.push(round(*way, Duration::from_secs(seconds)));
        }
    }
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    for (way, rate) in ways.iter().zip(&rates) {
        println!("{:<22} {rate:>10.0} events/s   ratio {:.2}", way.name(), rate / rates[0]);
    }
}

/// Durable events a second over all connections.
fn round(way: Way, length: Duration) -> f64 {
    let unpaced = json!({
        "JournalSegmentBytes": "64MiB",
        "WebSocketFramesPerSecond": 0,
        "WebSocketEventsPerSecond": 0,
    });
    let site = Site::new(PROGRAM, unpaced);
    let server = site.start();
    Client::connect(server.address)
        .and_then(|mut client| client.request("POST", "/tr/v1/tr/", &[], b"{\"ename\":\"warm\"}"))
        .expect("a first event");
    server.drained();
    let address = server.address;
    let started = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| std::thread::spawn(move || client(address, way, length)))
        .collect();
    let events: usize = clients.into_iter().map(|c| c.join().expect("a client")).sum();
    let rate = events as f64 / started.elapsed().as_secs_f64();
    check(&server, events);
    server.stop();
    rate
}

fn client(address: SocketAddr, way: Way, length: Duration) -> usize {
    let ends = Instant::now() + length;
    let array = |events: usize| match events {
        1 => EVENT.to_owned(),
        _ => format!("[{}]", vec![EVENT; events].join(",")),
    };
    match way {
        Way::Post => {
            let mut client = Client::connect(address).expect("connecting");
            let mut events = 0;
            while Instant::now() < ends {
                let answer = client.request("POST", "/tr/v1/tr/", &[], EVENT.as_bytes());
                assert_eq!(answer.expect("an answer").status, 200);
                events += 1;
            }
            events
        }
        Way::Text(events) => {
            let text = array(events);
            events * acknowledged(address, ends, |socket| socket.text(text.as_str()))
        }
        Way::Lz4(events) => {
            let text = array(events);
            events * acknowledged(address, ends, |socket| socket.lz4(&text))
        }
    }
}

/// Frames sent by `frame` and acknowledged until `ends`.
fn acknowledged(address: SocketAddr, ends: Instant, frame: impl Fn(&mut Socket)) -> usize {
    let mut socket = Socket::open(address, "/tr/v1/ws?ack=1", &[]);
    let (mut sent, mut settled) = (0, 0);
    while Instant::now() < ends || settled < sent {
        while Instant::now() < ends && sent - settled < WINDOW {
            frame(&mut socket);
            sent += 1;
        }
        if settled < sent {
            settled += 1;
            assert_eq!(socket.reply(), json!({"ack": settled}));
        }
    }
    settled
}

/// What was counted is what was stored.
fn check(server: &Server, events: usize) {
    let stored = server.metric("tracker_events_stored_total");
    assert_eq!(stored, events as u64 + 1, "events stored are not those acknowledged");
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
