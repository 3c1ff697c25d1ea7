//! The server as its users meet it: requests over real sockets in, records of the journal out.

mod http_control;
mod http_hostile;
mod http_ops;
mod http_server;
mod http_track;
mod support;
