//! The baseline of the benches that drive the program: the least a server can do, in a process of its
//! own, which is the bench itself started with `--bare`.
#![allow(unreachable_pub, clippy::missing_panics_doc, reason = "shared by benches")]

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Serves `router` on a free port, and says where, until it is killed.
#[tokio::main]
pub async fn serve(router: axum::Router) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binding");
    println!("{}", listener.local_addr().expect("an address"));
    axum::serve(listener, router).await.expect("serving");
}

/// The running baseline; killed when dropped.
pub struct Bare {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Bare {
    /// Starts this program as its own baseline.
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("--bare")
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the baseline");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        std::io::BufReader::new(out).read_line(&mut line).expect("its address");
        Self { child, address: line.trim().parse().expect("an address") }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
