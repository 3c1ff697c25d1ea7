//! The real program as a child process, and the smallest client that can keep a ledger of what it
//! was promised. Shared by the tests and benches that look at the program from outside.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test uses its part, and what fails here should fail the run with its reason"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything the program was asked to do; far above what it needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A data folder with its configuration; the program can be started over it again and again.
pub struct Site {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Site {
    /// A fresh folder whose configuration is `extra` over the smallest one that runs.
    pub fn new(program: &str, extra: Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = serde_json::json!({
            "ListenHTTP": "127.0.0.1:0",
            "ListenHTTPS": "",
            "UseLocalTLS": false,
            "DataDirectory": "data",
            "JournalSegmentBytes": "4MiB",
        });
        for (key, value) in extra.as_object().expect("an object of settings") {
            config[key] = value.clone();
        }
        std::fs::write(folder.path().join("config.json"), config.to_string())
            .expect("writing the configuration");
        Self { folder, program: PathBuf::from(program) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces settings for the next start.
    pub fn reconfigure(&self, change: Value) {
        let path = self.path().join("config.json");
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("reading")).expect("valid");
        for (key, value) in change.as_object().expect("an object of settings") {
            config[key] = value.clone();
        }
        std::fs::write(&path, config.to_string()).expect("writing the configuration");
    }

    /// Starts the program and waits until it says where it listens.
    pub fn start(&self) -> Server {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path().join("log"))
            .expect("opening the log");
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .arg(self.path().join("config.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("starting the program");
        let mut lines = BufReader::new(child.stdout.take().expect("its standard output"));
        let mut said = String::new();
        let (mut http, mut https) = (None, None);
        while !said.contains("data in ") {
            let mut line = String::new();
            if lines.read_line(&mut line).expect("reading its output") == 0 {
                let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
                panic!("the program ended at start:\n{said}\n{log}");
            }
            if let Some((scheme, address)) =
                line.strip_prefix("tracker listens on ").and_then(|line| line.split_once("://"))
            {
                let address: SocketAddr = address.trim().parse().expect("an address");
                *(if scheme == "https" { &mut https } else { &mut http }) = Some(address);
            }
            said.push_str(&line);
        }
        let address = http.expect("a listener for plain HTTP");
        let listening = started.elapsed();
        // Keep reading, or the program would stall on a full pipe.
        std::thread::spawn(move || {
            let mut rest = String::new();
            drop(lines.read_to_string(&mut rest));
        });
        Server { child, address, https, listening }
    }

    /// The rows of `sql`, asked through the command line as an analyst would.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        let output = Command::new(&self.program)
            .args(["query", "--format", "ndjson", "--config"])
            .arg(self.path().join("config.json"))
            .arg(sql)
            .output()
            .expect("running a query");
        assert!(
            output.status.success(),
            "query failed: {sql}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object a line"))
            .collect()
    }

    /// The single number that `sql` answers.
    pub fn number(&self, sql: &str) -> u64 {
        let rows = self.query(sql);
        let row = rows.first().and_then(Value::as_object).expect("one row");
        row.values().next().and_then(Value::as_u64).unwrap_or_else(|| panic!("{sql}: {row:?}"))
    }
}

/// The running program.
pub struct Server {
    child: Child,
    /// Where it listens for plain HTTP.
    pub address: SocketAddr,
    /// Where it listens for HTTPS, if it does.
    pub https: Option<SocketAddr>,
    /// From spawn until it said where it listens.
    pub listening: Duration,
}

impl Server {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as a power cut of the process.
    pub fn kill(mut self) {
        self.child.kill().expect("killing it");
        self.child.wait().expect("its end");
    }

    /// SIGTERM; how long it took to end, which must be a success.
    pub fn stop(mut self) -> Duration {
        let asked = Instant::now();
        self.signal("TERM");
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "ended with {status}");
        asked.elapsed()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(done.success(), "kill -s {name} {pid}");
    }

    /// Anonymous resident memory less DuckDB's own pool, in bytes.
    pub fn memory(&self, site: &Site) -> u64 {
        let pool = site.number("select sum(memory_usage_bytes)::bigint as n from duckdb_memory()");
        self.resident().saturating_sub(pool)
    }

    /// Anonymous resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib << 10
    }

    /// Waits until no sink lags behind the journal.
    pub fn drained(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.health();
            let sinks = health["sinks"].as_array().cloned().unwrap_or_default();
            if !sinks.is_empty() && sinks.iter().all(|sink| sink["lag_events"] == 0) {
                return;
            }
            assert!(Instant::now() < deadline, "sinks still lag: {health}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `/health` as JSON, whatever its status.
    pub fn health(&self) -> Value {
        let mut client = Client::connect(self.address).expect("connecting");
        let answer = client.request("GET", "/health", &[], b"").expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// One number of `/metrics` by its full name with labels.
    pub fn metric(&self, name: &str) -> u64 {
        let mut client = Client::connect(self.address).expect("connecting");
        let answer =
            client.request("GET", "/metrics?format=prometheus", &[], b"").expect("an answer");
        let text = String::from_utf8(answer.body).expect("text");
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| {
            panic!("no metric {name} in\n{text}");
        });
        value.parse::<f64>().expect("a number").round().to_string().parse().expect("a count")
    }

    /// The sum of a metric over its labels.
    pub fn metric_sum(&self, name: &str) -> u64 {
        let mut client = Client::connect(self.address).expect("connecting");
        let answer =
            client.request("GET", "/metrics?format=prometheus", &[], b"").expect("an answer");
        let text = String::from_utf8(answer.body).expect("text");
        text.lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An answer as it came over the wire.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, by content length.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// One keep-alive HTTP/1.1 connection, blocking.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)?;
        self.answer(method)
    }

    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one answer to a request of `method`.
    pub fn answer(&mut self, method: &str) -> std::io::Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("no status in {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, headers, body })
    }
}
