//! A real ClickHouse server as a child process, and a client for it that shares nothing with the program.
//!
//! `.ci/services install` gets it. A server ends with the value that stands for it, and at the latest with
//! the process of the test, because it watches its standard input.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "each test uses its part, and what fails here should fail the run with its reason"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for an answer or a start; far above what either takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may do everything.
pub const USER: (&str, &str) = ("tracker", "secret");
/// Who may only read.
pub const READER: (&str, &str) = ("looker", "secret");

/// The Python that has the engine; `None` where it is not installed and need not be.
fn python() -> Option<PathBuf> {
    let asked = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/services"))
        .arg("clickhouse")
        .output()
        .expect("running .ci/services");
    if asked.status.success() {
        let path = String::from_utf8(asked.stdout).expect("a path");
        return Some(PathBuf::from(path.trim()));
    }
    assert!(std::env::var_os("CI").is_none(), "no ClickHouse; run .ci/services install");
    eprintln!("not tested: ClickHouse; run .ci/services install");
    None
}

/// A server with a folder of its own.
pub struct ClickHouse {
    python: PathBuf,
    folder: tempfile::TempDir,
    options: Vec<String>,
    child: Child,
    /// Where it answers HTTP; the same after a restart.
    pub address: SocketAddr,
}

impl ClickHouse {
    /// An empty server; `None`, with a line that says so, where ClickHouse is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`ClickHouse::start`], with more options of `tests/services/clickhouse`.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let python = python()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let (child, port) = launch(&python, &folder, 0, &options);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Some(Self { python, folder, options, child, address })
    }

    /// Two empty servers, the shards of the cluster `name`; `None` as of [`ClickHouse::start`].
    pub fn shards(name: &str) -> Option<[Self; 2]> {
        let ports = [native_port(), native_port()];
        let cluster = format!("{name}={},{}", ports[0], ports[1]);
        let start = |shard: &str| Self::start_with(&["--cluster", &cluster, "--shard", shard]);
        Some([start("1")?, start("2")?])
    }

    /// One server for the tests of a process that run at the same time; each takes a database of its own.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<ClickHouse>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().expect("a test that started it has failed");
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    /// The entry of `Notify` that sends everything to `database` here, a tenth of a second late at most.
    pub fn entry(&self, database: &str) -> Value {
        entry(self.address, database)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; what it had stored stays in its folder.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing it");
        self.child.wait().expect("its end");
    }

    /// An orderly end.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "ended with {status}: {}", self.log());
    }

    /// Starts it again after [`ClickHouse::kill`] or [`ClickHouse::stop`], on its folder and address.
    pub fn restart(&mut self) {
        let port = self.address.port();
        (self.child, _) = launch(&self.python, &self.folder, port, &self.options);
    }

    /// As [`ClickHouse::restart`], with other options than it was started with.
    pub fn restart_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.restart();
    }

    /// SIGSTOP: it accepts connections, and says nothing.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(done.success(), "kill -s {name} {pid}");
    }

    /// What it logged.
    pub fn log(&self) -> String {
        let said = |name| std::fs::read_to_string(self.folder.path().join(name));
        format!("{}{}", said("said").unwrap_or_default(), said("errors").unwrap_or_default())
    }

    /// The rows of `sql`, or the server's message.
    pub fn try_query(&self, sql: &str) -> Result<Vec<Value>, String> {
        let answer = self.ask(&[], sql.as_bytes())?;
        Ok(answer
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object a line"))
            .collect())
    }

    /// The rows of `sql`.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        self.try_query(sql).unwrap_or_else(|message| panic!("{sql}: {message}"))
    }

    /// The single number that `sql` answers.
    pub fn number(&self, sql: &str) -> u64 {
        let rows = self.query(sql);
        let row = rows.first().and_then(Value::as_object).expect("one row");
        row.values().next().and_then(Value::as_u64).unwrap_or_else(|| panic!("{sql}: {row:?}"))
    }

    /// Sends a statement, with `parameters` of its address such as settings; the text of the answer, or of
    /// the refusal.
    pub fn ask(&self, parameters: &[(&str, &str)], statement: &[u8]) -> Result<String, String> {
        let mut path = String::from(
            "/?default_format=JSONEachRow&wait_end_of_query=1&output_format_json_quote_64bit_integers=0",
        );
        for (name, value) in parameters {
            write!(path, "&{name}=").expect("text");
            for byte in value.bytes() {
                write!(path, "%{byte:02X}").expect("text");
            }
        }
        // In the older HTTP an answer has neither chunks nor a successor: it ends with the connection.
        let head = format!(
            "POST {path} HTTP/1.0\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n\
             Content-Length: {}\r\n\r\n",
            USER.0,
            USER.1,
            statement.len()
        );
        let whole = (|| {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(head.as_bytes())?;
            stream.write_all(statement)?;
            let mut whole = String::new();
            stream.read_to_string(&mut whole).map(|_| whole)
        })()
        .map_err(|error: std::io::Error| error.to_string())?;
        let (head, body) = whole.split_once("\r\n\r\n").ok_or("half an answer")?;
        if head.split(' ').nth(1) == Some("200") {
            Ok(body.to_owned())
        } else {
            Err(body.to_owned())
        }
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The entry of `Notify` that sends everything to `database` behind `address`, a tenth of a second late at
/// most, and that waits two seconds for an answer.
pub fn entry(address: SocketAddr, database: &str) -> Value {
    json!({
        "Type": "clickhouse",
        "Host": address.ip().to_string(),
        "HTTPPort": address.port(),
        "Database": database,
        "Username": USER.0,
        "Password": USER.1,
        "MaxBatchTime": "100ms",
        "Timeout": "2s",
        "InsertTimeout": "2s",
    })
}

/// A free port, another for each test at a time, below those that the system gives to outgoing connections.
fn native_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let start = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    let free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let from = 12_000 + start + step * 50;
    (from..from + 50).find(free).expect("a free port")
}

/// Starts the server over `folder` and waits until it answers; port 0 lets it choose.
fn launch(
    python: &PathBuf,
    folder: &tempfile::TempDir,
    port: u16,
    options: &[String],
) -> (Child, u16) {
    let said = folder.path().join("said");
    let output = std::fs::OpenOptions::new().create(true).append(true).open(&said).expect("a file");
    let asked = Instant::now();
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/clickhouse"))
        .arg("--dir")
        .arg(folder.path())
        .args(["--http", &port.to_string()])
        .args(["--user", &format!("{}:{}", USER.0, USER.1)])
        .args(["--reader", &format!("{}:{}", READER.0, READER.1)])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(output)
        .spawn()
        .expect("starting ClickHouse");
    let lines = BufReader::new(child.stdout.take().expect("its standard output"));
    let ready = lines
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("READY ")?.parse().ok());
    let Some(port) = ready else {
        drop(child.wait());
        let said = std::fs::read_to_string(said).unwrap_or_default();
        panic!("ClickHouse did not start within {:?}: {said}", asked.elapsed());
    };
    (child, port)
}
