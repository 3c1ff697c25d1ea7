//! A hundred megabytes in each direction through the real program, in flat memory.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use support::{PATIENCE, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const BYTES: usize = 100 << 20;
const PIECE: usize = 64 << 10;
/// A small part of what passes.
const GROWTH_MAX: u64 = 16 << 20;

fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib << 10
}

/// Reads a request of `BYTES` and answers with as many.
fn behind(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut buffer, mut head, mut body) = (vec![0; PIECE], Vec::new(), 0);
    while body < BYTES {
        let read = stream.read(&mut buffer)?;
        assert!(read > 0, "the request ended after {body}");
        if head.ends_with(b"|") {
            body += read;
            continue;
        }
        head.extend_from_slice(&buffer[..read]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            body = head.len() - end - 4;
            head = b"|".to_vec();
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")?;
    send(&mut stream)
}

fn send(stream: &mut TcpStream) -> std::io::Result<()> {
    let piece = vec![b'x'; PIECE];
    for _ in 0..BYTES / PIECE {
        stream.write_all(&piece)?;
    }
    Ok(())
}

/// One request through the program; the most memory it had meanwhile.
fn pass(site: &Site, server: &Server, socket: &TcpListener) -> u64 {
    let pid = server.pid();
    let done = Arc::new(AtomicBool::new(false));
    let watching = thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(anonymous(pid));
                thread::sleep(Duration::from_millis(2));
            }
            most
        }
    });
    let serving = thread::spawn({
        let socket = socket.try_clone().expect("the same socket");
        move || behind(socket.accept().expect("the proxy connects").0).expect("both bodies")
    });
    let mut stream = TcpStream::connect(server.address).expect("connecting");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    write!(stream, "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n")
        .expect("a head");
    send(&mut stream).expect("the body goes through");
    let (mut buffer, mut received) = (vec![0; PIECE], 0);
    while received < BYTES {
        let read = stream.read(&mut buffer).expect("the answer");
        assert!(read > 0, "the answer ended after {received} in {}", site.path().display());
        received += read;
    }
    serving.join().expect("the server behind");
    done.store(true, Ordering::Relaxed);
    watching.join().expect("the watch")
}

#[test]
fn a_hundred_megabytes_pass_in_flat_memory_both_ways() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = format!("http://{}", socket.local_addr().expect("its address"));
    let site = Site::new(PROGRAM, json!({"ProxyUrl": origin}));
    let server = site.start();
    // What loads behind the start is there; what the allocator keeps comes with the first passes.
    server.drained();
    let before = anonymous(server.pid());
    let warm = (0..8).map(|_| pass(&site, &server, &socket)).max().unwrap_or_default();
    let later = pass(&site, &server, &socket);
    println!("{before} bytes before, {warm} in eight passes, {later} in another");
    assert!(warm < before + BYTES as u64, "no body is held: {before} before, {warm} at most");
    assert!(later < warm + GROWTH_MAX, "nothing adds up: {warm} before, {later} in another pass");
}
