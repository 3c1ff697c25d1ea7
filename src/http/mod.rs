//! How requests come in and answers go out: listeners, routes, and what every request meets.
//!
//! [`router`] is the only list of routes. Around all of them stands one layer (`layers.rs`); in front
//! of it the server bounds connections, heads and time (`server.rs`). `tracker query` and `tracker
//! replay` have a socket of their own ([`control`]), which no listener reaches.

mod acme;
mod answer;
pub mod batch;
mod body;
mod certificate;
mod connection;
pub mod control;
pub mod cookie;
mod cors;
mod credentials;
mod error;
mod facts;
mod files;
pub mod forwarded;
mod frame;
mod keys;
mod layers;
mod lease;
mod limits;
mod links;
mod openapi;
mod ops;
mod pages;
mod privacy;
pub mod proxy;
mod qr;
mod quota;
mod redirect;
mod server;
mod state;
mod swap;
mod tls;
mod to_https;
mod track;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, any};

pub use body::{Encoding, inflate, inflate_block};
pub use certificate::{TlsError, check_certificate};
pub use control::{Control, Handlers, Replay};
pub use error::ApiError;
pub use facts::Caller;
pub use forwarded::Disbelieved;
pub use frame::{Frame, payload};
pub use proxy::Proxies;
pub use server::{Server, ServerError};
pub use state::{AppState, HealthSource, Reading};
pub use swap::Reload;
pub use tls::{CertificateFact, Certificates, TlsHealth};

use state::Shared;

/// Every route of the server.
pub fn router(state: AppState) -> Router {
    routes(&Arc::new(Shared::new(state)))
}

fn routes(shared: &Arc<Shared>) -> Router {
    let native = |route: &str| format!("/tr/v{}/{route}", shared.app.http.api_version);
    let document = openapi::Document::new(shared.app.http.api_version);
    Router::new()
        .merge(subtree(&native("tr"), || any(track::tr)))
        .merge(subtree(&native("str"), || any(track::str)))
        .merge(subtree(&native("img"), || any(track::img)))
        .merge(subtree(&native("rdr"), || any(redirect::rdr)))
        .merge(subtree(&native("xrdr"), || any(redirect::xrdr)))
        .merge(subtree(&native("rpi/redirect"), || any(links::create)))
        .merge(subtree(&native("rpi/redirects"), || any(links::list)))
        .route(&native("rpi/qr"), any(qr::qr))
        .merge(subtree(&native("pub"), || any(files::serve)))
        .merge(subtree(&native("ws"), || any(websocket::ws)))
        .merge(subtree(&native("ltv"), || any(track::ltv)))
        .merge(subtree(&native("ppi"), || any(privacy::unknown)))
        .merge(exact(&native("ppi/agree"), || any(privacy::agree)))
        .merge(exact(&native("ppi/jds"), || any(privacy::jurisdictions)))
        .merge(exact(&native("ppi/geoip"), || any(privacy::geoip)))
        .route("/ping", any(ops::ping))
        .route("/status", any(ops::status))
        .route("/health", any(ops::health))
        .route("/metrics", any(ops::metrics))
        .route("/clear", any(ops::clear))
        .route("/openapi.json", any(move |request| async move { document.answer(&request) }))
        .route("/.well-known/acme-challenge/{token}", any(to_https::challenge))
        .fallback(proxy::or_not_found)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(shared), layers::around))
        .with_state(Arc::clone(shared))
}

/// A route with or without a slash at its end.
fn exact(path: &str, handler: impl Fn() -> MethodRouter<Arc<Shared>>) -> Router<Arc<Shared>> {
    Router::new().route(path, handler()).route(&format!("{path}/"), handler())
}

/// A route with or without a slash or a rest; a missing slash is never answered with a redirect,
/// which would turn a POST into a GET.
fn subtree(path: &str, handler: impl Fn() -> MethodRouter<Arc<Shared>>) -> Router<Arc<Shared>> {
    Router::new()
        .route(path, handler())
        .route(&format!("{path}/"), handler())
        .route(&format!("{path}/{{*rest}}"), handler())
}
