//! A relay between the program and a server that breaks connections where a test wants it.
//!
//! It knows one thing about what passes: after an answer, the next byte from the client begins another
//! request. So a fault can be aimed at the requests that contain a word, and at a byte of the request or
//! of its answer.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "each test uses its part, and what fails here should fail the run with its reason"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How much of a request is searched for the word: heads are smaller.
const SEARCHED_BYTES: usize = 16 << 10;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks after so many bytes of the request.
    CutRequest(usize),
    /// The request arrives whole; of its answer so many bytes come back, and the connection breaks.
    CutAnswer(usize),
    /// The request arrives whole; its answer never comes back, and the connection stays.
    Silence,
    /// So long passes before the request goes on, and as long before its answer does.
    Delay(Duration),
}

struct Shared {
    upstream: SocketAddr,
    refuses: AtomicBool,
    ends: AtomicBool,
    /// The word that a request must contain, the fault, and how many requests it is for.
    armed: Mutex<Option<(&'static str, Fault, usize)>>,
    struck: AtomicU64,
    returned: AtomicUsize,
    passed: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// The relay; ends when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    /// Where the program should connect.
    pub address: SocketAddr,
}

impl Relay {
    /// Listens, and passes everything on to `upstream` until told otherwise.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            upstream,
            refuses: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            armed: Mutex::new(None),
            struck: AtomicU64::new(0),
            returned: AtomicUsize::new(0),
            passed: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let relay = Self { shared: Arc::clone(&shared), address };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ends.load(Ordering::SeqCst) {
                    break;
                }
                if !shared.refuses.load(Ordering::SeqCst) {
                    pass(&shared, client);
                }
            }
        });
        relay
    }

    /// Strikes the next `times` requests that contain `word`, in any case, with `fault`.
    pub fn arm(&self, word: &'static str, fault: Fault, times: usize) {
        *self.shared.armed.lock().expect("a lock") = Some((word, fault, times));
    }

    /// Ends every connection, and each new one at once.
    pub fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
        self.break_all();
    }

    /// Passes everything on again; what hangs is let go by breaking its connection.
    pub fn heal(&self) {
        *self.shared.armed.lock().expect("a lock") = None;
        self.shared.refuses.store(false, Ordering::SeqCst);
        self.break_all();
    }

    /// How many requests were struck so far.
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::SeqCst)
    }

    /// Bytes of the answer to the request that was struck last, as far as the server gave them.
    pub fn returned(&self) -> usize {
        self.shared.returned.load(Ordering::SeqCst)
    }

    /// How many requests were answered so far, at least in part.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    fn break_all(&self) {
        for stream in self.shared.open.lock().expect("a lock").drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.break_all();
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
    }
}

/// One request and its answer on a connection, as far as they have come.
#[derive(Default)]
struct Exchange {
    answered: bool,
    /// The beginning of the request, in lower case.
    head: Vec<u8>,
    /// Bytes that went on, in each direction.
    sent: usize,
    returned: usize,
    fault: Option<Fault>,
}

impl Exchange {
    /// Takes note of a piece of a request, and finds out whether this is one to strike.
    fn request(&mut self, shared: &Shared, piece: &[u8]) -> Option<Fault> {
        if self.answered {
            *self = Self::default();
        }
        if self.fault.is_none() && self.head.len() < SEARCHED_BYTES {
            self.head.extend(piece.iter().take(SEARCHED_BYTES).map(u8::to_ascii_lowercase));
            let mut armed = shared.armed.lock().expect("a lock");
            if let Some((word, fault, times)) = armed.as_mut()
                && *times > 0
                && contains(&self.head, word.to_ascii_lowercase().as_bytes())
            {
                *times -= 1;
                self.fault = Some(*fault);
                shared.struck.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.fault
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Connects `client` with the server, a thread for each direction.
fn pass(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect(shared.upstream) else { return };
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    shared.open.lock().expect("a lock").extend([clone(&client), clone(&server)]);
    let exchange = Arc::new(Mutex::new(Exchange::default()));
    let ends = [(clone(&client), clone(&server)), (server, client)];
    for ((from, to), is_request) in ends.into_iter().zip([true, false]) {
        let (shared, exchange) = (Arc::clone(shared), Arc::clone(&exchange));
        thread::spawn(move || {
            copy(&shared, &exchange, &from, &to, is_request);
            drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
        });
    }
}

/// Copies one direction until either end closes or a fault breaks the connection.
fn copy(
    shared: &Shared,
    exchange: &Mutex<Exchange>,
    mut from: &TcpStream,
    mut to: &TcpStream,
    is_request: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let piece = buffer.get(..length).unwrap_or_default();
        let (fault, before) = {
            let mut exchange = exchange.lock().expect("a lock");
            if is_request {
                let fault = exchange.request(shared, piece);
                exchange.sent += length;
                (fault, exchange.sent - length)
            } else {
                if !exchange.answered && exchange.fault.is_none() {
                    shared.passed.fetch_add(1, Ordering::SeqCst);
                }
                exchange.answered = true;
                exchange.returned += length;
                if exchange.fault.is_some() {
                    shared.returned.store(exchange.returned, Ordering::SeqCst);
                }
                (exchange.fault, exchange.returned - length)
            }
        };
        let until = match fault {
            Some(Fault::CutRequest(bytes)) if is_request => bytes.saturating_sub(before),
            Some(Fault::CutAnswer(bytes)) if !is_request => bytes.saturating_sub(before),
            Some(Fault::Silence) if !is_request => continue,
            Some(Fault::Delay(time)) if before == 0 => {
                thread::sleep(time);
                length
            }
            _ => length,
        };
        let passed = piece.get(..until).unwrap_or(piece);
        if to.write_all(passed).is_err() || passed.len() < piece.len() {
            return;
        }
    }
}
