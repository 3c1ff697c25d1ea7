//! A WebSocket client that keeps what it is told, blocking.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "each test uses its part, and what fails here should fail the run with its reason"
)]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::Response;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

/// Longest wait for anything the server should say.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open WebSocket.
pub struct Socket {
    inner: WebSocket<TcpStream>,
    /// The answer to the handshake.
    pub response: Response<Option<Vec<u8>>>,
}

impl Socket {
    /// Opens `path` with `headers`.
    pub fn open(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Self {
        Self::try_open(address, path, headers)
            .unwrap_or_else(|response| panic!("the handshake was answered {}", response.status()))
    }

    /// As [`Socket::open`], or the answer that refuses it.
    pub fn try_open(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        let stream = TcpStream::connect(address).expect("connecting");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut request =
            format!("ws://{address}{path}").into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a header"));
        }
        match client(request, stream) {
            Ok((inner, response)) => Ok(Self { inner, response }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response),
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    /// Sends a text frame.
    pub fn text(&mut self, text: impl Into<String>) {
        self.inner.send(Message::text(text.into())).expect("sending");
    }

    /// Sends a binary frame as the Go tracker's clients do: an LZ4 block behind its inflated length.
    pub fn lz4(&mut self, text: &str) {
        self.binary(lz4_flex::block::compress_prepend_size(text.as_bytes()));
    }

    /// Sends a binary frame as it is.
    pub fn binary(&mut self, bytes: Vec<u8>) {
        self.inner.send(Message::binary(bytes)).expect("sending");
    }

    /// Sends a frame that the server may refuse to read.
    pub fn try_text(&mut self, text: String) -> Result<(), Error> {
        self.inner.send(Message::text(text))
    }

    /// The next answer; pings are answered on the way.
    pub fn reply(&mut self) -> Value {
        loop {
            match self.inner.read().expect("an answer") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("instead of an answer: {other:?}"),
            }
        }
    }

    /// Reads one message, and says whether it was a ping, which is then answered.
    pub fn ping(&mut self) -> bool {
        let is_ping = matches!(self.inner.read(), Ok(Message::Ping(_)));
        let _ = self.inner.flush();
        is_ping
    }

    /// Reads until the server closes: its code, or `None` where it only hung up.
    pub fn closed(&mut self) -> Option<u16> {
        loop {
            match self.inner.read() {
                Ok(Message::Close(frame)) => {
                    let code = frame.map(|frame| frame.code.into());
                    // The server waits for our goodbye.
                    let _ = self.inner.flush();
                    return code;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Says goodbye and waits for the server's.
    pub fn close(mut self) {
        self.inner.close(None).expect("closing");
        while self.inner.read().is_ok() {}
    }

    /// The connection itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.inner.get_mut()
    }
}
