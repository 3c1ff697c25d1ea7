//! A stand-in for the queue behind `on cluster`, which the ClickHouse of the tests lacks.
//!
//! It stands before one server of a cluster and passes everything on, but for statements that say
//! `on cluster`: those it runs on every server in turn without these words, as the servers of a cluster
//! would by themselves. It does not wait for a server that is away; there the statement fails.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "each test uses its part, and what fails here should fail the run with its reason"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a statement becomes on each server.
pub type Adapt = fn(String) -> String;

struct Shared {
    cluster: String,
    before: SocketAddr,
    servers: Vec<SocketAddr>,
    adapt: Adapt,
    /// Statements that were run on every server.
    run: Mutex<Vec<String>>,
    ends: AtomicUsize,
}

/// The queue; ends when it is dropped.
pub struct Queue {
    shared: Arc<Shared>,
    /// Where the program should connect.
    pub address: SocketAddr,
}

impl Queue {
    /// Stands before `before`, and runs what is for the whole `cluster` on `servers`, as `adapt` makes it.
    pub fn start(cluster: &str, before: SocketAddr, servers: &[SocketAddr], adapt: Adapt) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            cluster: format!(" on cluster '{cluster}'"),
            before,
            servers: servers.to_vec(),
            adapt,
            run: Mutex::default(),
            ends: AtomicUsize::new(0),
        });
        let queue = Self { shared: Arc::clone(&shared), address };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ends.load(Ordering::SeqCst) > 0 {
                    break;
                }
                let shared = Arc::clone(&shared);
                // A connection that breaks is the client's to notice.
                thread::spawn(move || drop(serve(&shared, &client)));
            }
        });
        queue
    }

    /// The statements that were run on every server so far, without the words on cluster.
    pub fn run(&self) -> Vec<String> {
        self.shared.run.lock().expect("its list").clone()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.ends.store(1, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// One request of a connection, which ends with its answer.
fn serve(shared: &Shared, mut client: &TcpStream) -> io::Result<()> {
    let (mut received, mut chunk) = (Vec::new(), [0; 16 << 10]);
    let (head_end, length) = loop {
        let end = received.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|length| length.trim().parse::<usize>().ok());
            break (end + 4, length);
        }
        match client.read(&mut chunk)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&chunk[..count]),
        }
    };
    while received.len() < head_end + length.unwrap_or(0) {
        match client.read(&mut chunk)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&chunk[..count]),
        }
    }
    let head = String::from_utf8_lossy(&received[..head_end - 2]).into_owned();
    let body = String::from_utf8_lossy(&received[head_end..]);
    if length.is_some() && body.contains(&shared.cluster) {
        let statement = body.replace(&shared.cluster, "");
        shared.run.lock().expect("its list").push(statement.clone());
        client.write_all(&on_each(shared, &head, &(shared.adapt)(statement))?)?;
        return client.shutdown(Shutdown::Both);
    }
    let mut server = TcpStream::connect(shared.before)?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&received[head_end..])?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to));
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// The answer of the last server, or the first that is a refusal.
fn on_each(shared: &Shared, head: &str, statement: &str) -> io::Result<Vec<u8>> {
    let is_length = |line: &&str| line.to_ascii_lowercase().starts_with("content-length:");
    let head: String = head.split_inclusive("\r\n").filter(|line| !is_length(line)).collect();
    let length = statement.len();
    let request = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{statement}");
    let mut answer = Vec::new();
    for server in &shared.servers {
        let mut server = TcpStream::connect(server)?;
        server.write_all(request.as_bytes())?;
        answer.clear();
        server.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
    }
    Ok(answer)
}
