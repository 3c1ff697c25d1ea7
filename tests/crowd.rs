//! A crowd that only holds connections open, beside people who want something: it costs them nothing.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    reason = "what fails here should fail the run with its reason"
)]
#[path = "support/socket.rs"]
mod socket;
mod support;

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde_json::json;
use socket::Socket;
use support::{Client, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");

/// Connections that say nothing, and as many that send a byte now and then.
const CROWD: usize = 1000;
/// Descriptors that the test itself and the tests beside it need.
const SPARE: usize = 1500;
/// How long honest clients are watched beside the crowd.
const LENGTH: Duration = Duration::from_secs(6);
/// More than any honest request should take on a shared machine that runs other tests as well.
const SLOW: Duration = Duration::from_secs(2);
/// What a connection may cost: buffers of the parser, and of TLS or WebSocket where there is one.
const CONNECTION_BYTES_MAX: u64 = 64 << 10;

/// As many of [`CROWD`] as the limit of open files allows; the crowd is two of these.
fn crowd_size() -> usize {
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    (files.saturating_sub(SPARE) / 2).min(CROWD)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connecting");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Sends a byte of its request on each connection in turn, for as long as it is wanted.
fn drip(mut streams: Vec<TcpStream>, stop: &AtomicBool) {
    let head = b"POST /tr/v1/tr HTTP/1.1\r\nHost: slow\r\nContent-Length: 4000\r\nX-Padding: ";
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let byte = head.get(next).copied().unwrap_or(b'x');
        next += 1;
        for stream in &mut streams {
            // The server may have lost patience with it.
            let _ = stream.write_all(&[byte]);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Posts one event after the other; the answers and the slowest.
fn honest(address: SocketAddr, stop: &AtomicBool) -> (u64, Duration) {
    let mut client = Client::connect(address).expect("connecting");
    let (mut stored, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let answer =
            client.request("POST", "/tr/v1/tr", &[], b"{\"ename\":\"honest\"}").expect("an answer");
        assert_eq!(answer.status, 200);
        stored += 1;
        slowest = slowest.max(started.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    (stored, slowest)
}

#[test]
fn a_thousand_idle_and_a_thousand_slow_connections_cost_honest_clients_nothing() {
    let crowd = crowd_size();
    assert!(crowd > 0, "the limit of open files leaves no room for a crowd");
    let site = Site::new(PROGRAM, json!({"ConnectionTimeout": 5}));
    let server = site.start();
    let address = server.address;
    Client::connect(address)
        .and_then(|mut client| client.request("POST", "/tr/v1/tr", &[], b"{}"))
        .expect("a first event");
    server.drained();
    let alone = server.memory(&site);
    let stop = Arc::new(AtomicBool::new(false));
    // Half of the idle ones say nothing at all, the others opened a WebSocket first.
    let idle: Vec<TcpStream> = (0..crowd / 2).map(|_| connect(address)).collect();
    let sockets: Vec<Socket> =
        (crowd / 2..crowd).map(|_| Socket::open(address, "/tr/v1/ws", &[])).collect();
    let slow: Vec<TcpStream> = (0..crowd).map(|_| connect(address)).collect();
    let dripping = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || drip(slow, &stop))
    };
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || honest(address, &stop))
        })
        .collect();
    let (mut peak, mut open) = (0, 0);
    let ends = Instant::now() + LENGTH;
    while Instant::now() < ends {
        peak = peak.max(server.memory(&site));
        open = open.max(server.metric("tracker_http_connections"));
        std::thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    dripping.join().expect("the slow ones");
    let honest: Vec<(u64, Duration)> =
        clients.into_iter().map(|client| client.join().expect("an honest client")).collect();
    let stored: u64 = honest.iter().map(|(stored, _)| stored).sum();
    let slowest = honest.iter().map(|(_, slowest)| *slowest).max().expect("four clients");
    println!(
        "{crowd} idle, {crowd} slow: {stored} events, slowest {slowest:?}, {} KiB more",
        (peak.saturating_sub(alone)) >> 10
    );
    assert!(open as usize >= 2 * crowd, "only {open} of {} were open at one time", 2 * crowd);
    assert!(slowest < SLOW, "an honest request took {slowest:?}");
    assert!(stored > 400, "only {stored} events in {LENGTH:?}");
    let bound = alone + CONNECTION_BYTES_MAX * (2 * crowd as u64) + (64 << 20);
    assert!(peak < bound, "{} MiB with the crowd, {} MiB without", peak >> 20, alone >> 20);
    // The time limit of heads ends the idle and the slow, and the places are free again.
    drop((idle, sockets));
    let deadline = Instant::now() + Duration::from_secs(8);
    while server.metric("tracker_http_connections") > 1 {
        assert!(Instant::now() < deadline, "connections are left behind");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.drained();
    assert_eq!(site.number("select count(*) as n from events where ename = 'honest'"), stored);
    assert_eq!(server.metric("tracker_events_received_total"), stored + 1);
    server.stop();
}

/// Sends frames as fast as they are taken, asks for answers and reads none.
fn flood(address: SocketAddr, frame: &str, stop: &AtomicBool) -> u64 {
    let mut socket = Socket::open(address, "/tr/v1/ws?ack=1", &[]);
    socket.stream().set_write_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += u64::from(socket.try_text(frame.to_owned()).is_ok());
    }
    sent
}

#[test]
fn a_flood_of_frames_is_read_as_fast_as_it_may_be_and_costs_no_memory() {
    let site = Site::new(PROGRAM, json!({"WebSocketFramesPerSecond": 20}));
    let server = site.start();
    let address = server.address;
    let alone = server.memory(&site);
    let stop = Arc::new(AtomicBool::new(false));
    let large = json!({"ename": "flood", "text": "x".repeat(4000)}).to_string();
    // Before the first of them connects: their allowance grows from then on.
    let started = Instant::now();
    let flooders: Vec<_> = (0..16)
        .map(|_| {
            let (stop, large) = (Arc::clone(&stop), large.clone());
            std::thread::spawn(move || flood(address, &large, &stop))
        })
        .collect();
    let client = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || honest(address, &stop))
    };
    let mut peak = 0;
    while started.elapsed() < Duration::from_secs(4) {
        peak = peak.max(server.memory(&site));
        std::thread::sleep(Duration::from_millis(100));
    }
    let frames = server.metric("tracker_websocket_frames_total");
    // A second's worth at once, then so many a second; the frame above it has been read by then.
    let most = 16.0 * (20.0 * (started.elapsed().as_secs_f64() + 1.0) + 1.0);
    stop.store(true, Ordering::Relaxed);
    let sent: u64 = flooders.into_iter().map(|f| f.join().expect("a flooder")).sum();
    let (stored, slowest) = client.join().expect("an honest client");
    println!("{sent} frames sent, {frames} read; {stored} honest, slowest {slowest:?}");
    assert!(frames > 0 && (frames as f64) < most, "{frames} of {sent} were read, {most} may be");
    assert!(stored > 50 && slowest < SLOW, "{stored} honest events, slowest {slowest:?}");
    assert!(peak < alone + (96 << 20), "{} MiB, {} before", peak >> 20, alone >> 20);
    assert!(server.metric("tracker_websocket_paused_total") > 0);
    server.stop();
}

#[test]
fn frames_that_are_never_finished_share_a_bound_of_memory() {
    // A little less than a frame's limit each, and together far more than the bound.
    let crowd = crowd_size().min(400);
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let alone = server.memory(&site);
    let length = (1_u64 << 20).to_be_bytes();
    let head = [&[0x82, 0xff][..], &length, &[0; 4]].concat();
    let part = vec![0_u8; (1 << 20) - 64];
    let mut sockets = Vec::with_capacity(crowd);
    let mut peak = 0;
    for number in 0..crowd {
        let mut socket = Socket::open(server.address, "/tr/v1/ws", &[]);
        // Beyond the bound the server hangs up.
        let stream = socket.stream();
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let _ = stream.write_all(&head).and_then(|()| stream.write_all(&part));
        sockets.push(socket);
        if number % 20 == 0 {
            peak = peak.max(server.memory(&site));
        }
    }
    peak = peak.max(server.memory(&site));
    println!("{crowd} unfinished frames: {} MiB more", peak.saturating_sub(alone) >> 20);
    // The bound of all bodies, half as much for buffers that grow, and the connections themselves.
    assert!(peak < alone + (400 << 20), "{} MiB, {} before", peak >> 20, alone >> 20);
    let open = server.metric("tracker_websocket_connections");
    assert!(
        open <= 260 && open >= 200.min(crowd as u64),
        "{open} of {crowd} hold a frame of 1 MiB"
    );
    let mut client = Client::connect(server.address).expect("connecting");
    let answer = client.request("POST", "/tr/v1/tr", &[], b"{\"ename\":\"still\"}");
    assert_eq!(answer.expect("an answer").status, 200);
    drop(sockets);
    server.stop();
}
