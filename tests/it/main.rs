//! The server as its users meet it: requests over real sockets in, records of the journal out.

#![expect(
    unreachable_pub,
    clippy::unused_async,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod http_acme;
mod http_control;
mod http_hostile;
mod http_keys;
mod http_limits;
mod http_ops;
mod http_privacy;
mod http_proxy;
mod http_server;
mod http_tls;
mod http_track;
mod http_websocket;
#[path = "../support/socket.rs"]
mod socket;
mod support;
