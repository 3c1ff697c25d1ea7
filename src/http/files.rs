//! Static files below `pub`: the operator's folder, and the built-in pages where it has none of them.
//!
//! `tower-http` does ranges, conditions, precompressed variants and types. Around it: no listing, no
//! file whose name or any of whose folders begins with a dot, and nothing outside the folder, by
//! whatever link. Every served file is a client event (D4), so answers are for their visitor alone.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tower::ServiceExt as _;
use tower_http::services::ServeDir;
use tower_http::services::fs::{Backend, DefaultServeDirFallback, TokioBackend, TokioFile};

use super::error::ApiError;
use super::state::Shared;
use super::{cookie, facts, pages};
use crate::event::Origin;
use crate::intake::{self, Hit};

/// How long a browser uses a file without asking; pages are asked for every time.
const FILE: HeaderValue = HeaderValue::from_static("private, max-age=300");
const PAGE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// `pub`: a file, or a built-in page.
pub(super) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return ApiError::Method("GET, HEAD").into_response();
    }
    // `/tr/vN/pub` and then the rest, with its slash.
    let path = parts.uri.path();
    let from = path.match_indices('/').nth(3).map_or(path.len(), |(at, _)| at);
    let rest = path.get(from..).unwrap_or_default().to_owned();
    if has_hidden(&rest) {
        return ApiError::NotFound.into_response();
    }
    // Which bytes a range means is known only if they are the same as before.
    if parts.headers.contains_key(header::IF_RANGE) {
        parts.headers.remove(header::RANGE);
    }
    let mut response = match &shared.files {
        Some(folder) => folder.serve(&parts, &rest).await,
        None => None,
    };
    if response.is_none() {
        response = pages::find(&rest).map(|page| page.answer(&parts));
    }
    let Some(mut response) = response else { return ApiError::NotFound.into_response() };
    let is_served = response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED;
    if is_served {
        mark(&mut response);
        if parts.method == Method::GET {
            record(&shared, &parts, &rest, &mut response);
        }
    }
    response
}

/// Appends the event and sets the visitor's cookie; does not wait.
fn record(shared: &Arc<Shared>, parts: &Parts, rest: &str, response: &mut Response) {
    let facts = facts::read(shared, parts, "pub");
    let scope = facts::scope(shared, parts, &facts.host);
    let mut own = Map::new();
    own.insert("etyp".to_owned(), "file".into());
    own.insert(
        "url".to_owned(),
        Value::String(format!("https://{}{}", facts.host, parts.uri.path())),
    );
    let ignore = shared.app.reading.ignore_query_key.as_deref();
    let pairs = rest.trim_start_matches('/');
    let fields = intake::fields(&facts, pairs, parts.uri.query(), Some(own), ignore);
    let length = facts.uri.len();
    let hit = Hit { origin: Origin::Client, facts: Arc::new(facts), fields, length };
    // A refusal is counted by intake; the file is served all the same.
    let Ok(receipt) = shared.app.intake.accept(hit) else { return };
    if receipt.pending.is_open() {
        shared.app.metrics.events_unconfirmed.inc();
    }
    if let Some(cookie) = &receipt.cookie {
        cookie::set(response.headers_mut(), cookie, scope);
    }
}

/// Says how long it may be kept, and in which letters it is written.
fn mark(response: &mut Response) {
    let headers = response.headers_mut();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let is_page = kind.starts_with("text/html");
    if kind.starts_with("text/")
        && !kind.contains("charset")
        && let Ok(kind) = HeaderValue::from_str(&format!("{kind}; charset=utf-8"))
    {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CACHE_CONTROL, if is_page { PAGE } else { FILE });
}

/// Whether a segment begins with a dot, `..` included, however it is encoded.
fn has_hidden(path: &str) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    decoded.split(['/', '\\']).any(|segment| segment.starts_with('.'))
}

/// The operator's folder.
pub(super) struct Folder {
    files: ServeDir<DefaultServeDirFallback, Guarded>,
}

impl Folder {
    pub(super) fn new(folder: &Path, api_version: u32) -> Self {
        let guarded = Guarded { root: folder.into() };
        let files = ServeDir::with_backend(folder, guarded)
            .redirect_path_prefix(format!("/tr/v{api_version}/pub"))
            .ignore_multi_range_requests(true)
            .precompressed_gzip()
            .precompressed_br();
        Self { files }
    }

    /// The answer for the path `rest`; `None` when there is no such file.
    async fn serve(&self, parts: &Parts, rest: &str) -> Option<Response> {
        let path = if rest.is_empty() { "/" } else { rest };
        let mut request = Request::new(Body::empty());
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        *request.uri_mut() = Uri::from(path.parse::<PathAndQuery>().ok()?);
        let Ok(response) = self.files.clone().oneshot(request).await;
        let is_missing = response.status() == StatusCode::NOT_FOUND;
        (!is_missing).then(|| response.map(Body::new))
    }
}

/// The file system below one folder, without what is hidden there and without ways out.
#[derive(Clone)]
struct Guarded {
    root: Arc<Path>,
}

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Backend for Guarded {
    type File = TokioFile;
    type Metadata = std::fs::Metadata;
    type OpenFuture = Opening<TokioFile>;
    type MetadataFuture = Opening<std::fs::Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let root = Arc::clone(&self.root);
        Box::pin(async move {
            let inside = resolve(root, path).await?;
            if tokio::fs::metadata(&inside).await?.is_dir() {
                return Err(io::ErrorKind::NotFound.into());
            }
            TokioBackend.open(inside).await
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let root = Arc::clone(&self.root);
        Box::pin(async move { TokioBackend.metadata(resolve(root, path).await?).await })
    }
}

/// The real place of `path`, which must be visible and inside `root`.
async fn resolve(root: Arc<Path>, path: PathBuf) -> io::Result<PathBuf> {
    let outside = || io::Error::from(io::ErrorKind::NotFound);
    let root = tokio::fs::canonicalize(&root).await?;
    let real = tokio::fs::canonicalize(&path).await?;
    let inside = real.strip_prefix(&root).map_err(|_| outside())?;
    let is_hidden =
        inside.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
    if is_hidden { Err(outside()) } else { Ok(real) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_and_ways_up_are_seen_in_every_spelling() {
        for (path, expect) in [
            ("/a.txt", false),
            ("/a/b.tar.gz", false),
            ("/", false),
            ("/.env", true),
            ("/a/.git/config", true),
            ("/../x", true),
            ("/%2e%2e/x", true),
            ("/a/..%2fx", true),
            ("/..\\x", true),
            ("/%2eenv", true),
            ("/a%5c..%5cx", true),
        ] {
            assert_eq!(has_hidden(path), expect, "{path}");
        }
    }
}
