//! The operator's socket: `DataDirectory/tracker.sock`, HTTP over a unix socket that only the owner
//! may open. What is served here is never served by a public listener.
//!
//! | Request | Body | Answer |
//! |---|---|---|
//! | `GET /health` | – | as the public `/health` |
//! | `GET /proxies` | – | who names clients without being believed |
//! | `POST /reload` | – | what was taken up, and what needs a restart |
//! | `POST /query` | `{"sql": …, "rows_max": …}` | the rows: `columns`, `rows`, `truncated` |
//! | `POST /replay` | what to replay | what was replayed |
//! | `POST /prune` | `{"store": …}`, `"job"`, `"after"`, `"portion"` | the tables; with a job its portions, as jobs `after` which it comes would leave them; with a portion, that it is done |
//! | `POST /account` | `{"add": …}`, `{"put": …}` or `{"remove": id}` | `{"changed": …}` |

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connections, Guest, Protocol, Stop};
use super::facts::Caller;
use super::forwarded::Disbelieved;
use super::state::AppState;
use super::swap::Routes;
use super::{answer, ops};
use crate::backends::{AccountChange, Job, Portion, PruneError, Pruner, Store, StoreError};

/// Bytes of a request: a query is text that a person wrote.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer that [`ask`] takes: the largest permitted result of wide rows.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Puts rows back: what to replay → what was replayed, or why not, in words.
pub type Replay =
    Arc<dyn Fn(Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send>> + Send + Sync>;

/// What the socket serves.
#[derive(Clone)]
pub struct Handlers {
    /// For `/health`.
    pub app: AppState,
    /// Answers queries; `None` when no configured system can.
    pub store: Option<Arc<dyn Store>>,
    /// Rows of one query at most.
    pub rows_max: usize,
    /// Time of one query at most.
    pub time_max: Duration,
    /// Puts rows back.
    pub replay: Replay,
    /// Reads the configuration again.
    pub reload: Replay,
    /// What prunes the stores that only this process may change, by name.
    pub pruners: BTreeMap<String, Arc<dyn Pruner>>,
    /// Who names clients without being believed, and how often.
    pub disbelieved: Arc<Disbelieved>,
}

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Another server answers there.
    #[error("another tracker answers at {0}")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("{path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why; a path of more than about 100 bytes is too long for a socket.
        source: io::Error,
    },
}

/// A bound socket, ready to serve.
pub struct Control {
    socket: UnixListener,
    path: PathBuf,
    handlers: Handlers,
}

impl Control {
    /// Binds `path`; a socket that nobody answers at is replaced. Call it inside the runtime.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn bind(path: &Path, handlers: Handlers) -> Result<Self, ControlError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ControlError::InUse(path.to_owned()));
        }
        let socket = bind_private(path)
            .map_err(|source| ControlError::Io { path: path.to_owned(), source })?;
        Ok(Self { socket, path: path.to_owned(), handlers })
    }

    /// Serves until `stop`, then removes the socket.
    pub async fn serve(self, stop: CancellationToken) {
        let routes = Routes::new(router(self.handlers.clone()));
        let tasks = TaskTracker::new();
        // A query in flight is cut off with the stop: nothing depends on its answer.
        let stop = Stop { asked: stop.clone(), deadline: stop };
        let connections = Connections::new(&self.handlers.app.http, &tasks, stop.clone());
        let caller = Caller { peer: std::net::Ipv4Addr::LOCALHOST.into(), tls: false };
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.asked.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connections = connections.clone();
                    let guest = Guest { caller, routes: routes.clone(), lease: None };
                    tasks.spawn(async move {
                        connections.serve(stream, Protocol::Http1, guest).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control connections cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        // One that is gone already, or was replaced, is no loss.
        let _: io::Result<()> = fs::remove_file(&self.path);
    }
}

/// Binds inside a folder that only the owner may enter and moves the socket to its place when its
/// mode is right: at no time may another user open it.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let folder = path.with_extension("new");
    let _: io::Result<()> = fs::remove_dir_all(&folder);
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = (|| {
        let inside = folder.join("s");
        let socket = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(socket)
    })();
    let removed = fs::remove_dir_all(&folder);
    bound.and_then(|socket| removed.map(|()| socket))
}

fn router(handlers: Handlers) -> Router {
    Router::new()
        .route("/health", any(health))
        .route("/proxies", any(proxies))
        .route("/reload", post(reload))
        .route("/query", post(query))
        .route("/replay", post(replay))
        .route("/account", post(account))
        .route("/prune", post(prune))
        .fallback(ops::not_found)
        .with_state(Arc::new(handlers))
}

async fn health(State(handlers): State<Arc<Handlers>>) -> Response {
    answer::json(StatusCode::OK, &ops::report(&handlers.app).1)
}

async fn proxies(State(handlers): State<Arc<Handlers>>) -> Response {
    answer::json(StatusCode::OK, &handlers.disbelieved.seen())
}

async fn reload(State(handlers): State<Arc<Handlers>>) -> Result<Response, Failure> {
    let done = (handlers.reload)(Value::Null).await.map_err(|message| Failure {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        code: "refused",
        message,
    })?;
    Ok(answer::json(StatusCode::OK, &done))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    sql: String,
    rows_max: Option<usize>,
}

async fn query(
    State(handlers): State<Arc<Handlers>>,
    request: Request,
) -> Result<Response, Failure> {
    let Query { sql, rows_max } = read(request).await?;
    let store = handlers.store.as_ref().ok_or(Failure {
        status: StatusCode::NOT_IMPLEMENTED,
        code: "no_store",
        message: "none of the configured systems answers queries".to_owned(),
    })?;
    let rows_max = rows_max.unwrap_or(handlers.rows_max).min(handlers.rows_max);
    let rows = store.query(&sql, rows_max, handlers.time_max).await?;
    Ok(answer::json(StatusCode::OK, &rows))
}

async fn account(
    State(handlers): State<Arc<Handlers>>,
    request: Request,
) -> Result<Response, Failure> {
    let change: AccountChange = read(request).await?;
    let store = handlers.store.as_ref().ok_or(Failure {
        status: StatusCode::NOT_IMPLEMENTED,
        code: "no_store",
        message: "none of the configured systems keeps accounts".to_owned(),
    })?;
    let changed = store.change_account(change).await?;
    Ok(answer::json(StatusCode::OK, &serde_json::json!({ "changed": changed })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prune {
    store: String,
    job: Option<Job>,
    #[serde(default)]
    after: Vec<Job>,
    portion: Option<Portion>,
}

/// One step of a run that the command line drives.
async fn prune(
    State(handlers): State<Arc<Handlers>>,
    request: Request,
) -> Result<Response, Failure> {
    let Prune { store, job, after, portion } = read(request).await?;
    let pruner = handlers.pruners.get(&store).ok_or_else(|| Failure {
        status: StatusCode::NOT_FOUND,
        code: "no_store",
        message: format!("this server has no store {store} that it prunes"),
    })?;
    let done = match (job, portion) {
        (None, _) => serde_json::json!({ "tables": pruner.tables() }),
        (Some(job), None) => {
            serde_json::json!({ "portions": pruner.portions(&job, &after).await? })
        }
        (Some(job), Some(portion)) => {
            pruner.apply(&job, &portion, &mut |_| {}).await?;
            serde_json::json!({ "done": true })
        }
    };
    Ok(answer::json(StatusCode::OK, &done))
}

async fn replay(
    State(handlers): State<Arc<Handlers>>,
    request: Request,
) -> Result<Response, Failure> {
    let wish: Value = read(request).await?;
    let outcome = (handlers.replay)(wish).await;
    let done = outcome.map_err(|message| Failure {
        status: StatusCode::CONFLICT,
        code: "replay_failed",
        message,
    })?;
    Ok(answer::json(StatusCode::OK, &done))
}

async fn read<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let refused =
        |message: String| Failure { status: StatusCode::BAD_REQUEST, code: "malformed", message };
    let bytes = body.map_err(|error| refused(error.to_string()))?.to_bytes();
    let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
    serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))
}

/// Why the operator gets no answer; here the words may be the store's own.
struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let error = serde_json::json!({ "error": { "code": code, "message": message } });
        answer::json(status, &error)
    }
}

impl From<PruneError> for Failure {
    fn from(error: PruneError) -> Self {
        let (status, code) = match &error {
            PruneError::Unfit(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unfit"),
            PruneError::GaveUp(_) => (StatusCode::CONFLICT, "gave_up"),
            PruneError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self { status, code, message: format!("{error}{}", source.unwrap_or_default()) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            StoreError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            StoreError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self { status, code, message: format!("{error}{}", source.unwrap_or_default()) }
    }
}

/// Why a running server was not asked with success.
#[derive(Debug, Error)]
pub enum AskError {
    /// No server runs: nobody answers at the socket.
    #[error("no tracker answers at {0}")]
    Nobody(PathBuf),
    /// The server said no; its words.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("the tracker's answer broke off: {0}")]
    Broken(String),
}

/// Asks the server that serves `socket`: `POST` of `body` to `route` → its JSON.
///
/// # Errors
/// See [`AskError`].
pub async fn ask(socket: &Path, route: &str, body: &Value) -> Result<Value, AskError> {
    let stream =
        UnixStream::connect(socket).await.map_err(|_| AskError::Nobody(socket.to_owned()))?;
    let broken = |error: &dyn std::fmt::Display| AskError::Broken(error.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let request = hyper::Request::post(route)
        .header(header::HOST, "tracker")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| broken(&error))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(Body::new(response.into_body()), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).map_err(|error| broken(&error))?;
        Ok((status, answer))
    };
    // The connection only carries the conversation; its own end is no news.
    let (status, answer) = tokio::select! {
        outcome = talk => outcome?,
        Err(error) = connection => return Err(broken(&error)),
    };
    if status.is_success() {
        return Ok(answer);
    }
    let words = answer.pointer("/error/message").and_then(Value::as_str);
    Err(AskError::Refused(words.map_or_else(|| status.to_string(), str::to_owned)))
}
