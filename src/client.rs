//! Speaks to a running server through its control socket.
//!
//! The socket stands in the data folder, readable by its owner only; what may be asked there is
//! never offered by the public listeners.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::backends::{BoxError, Rows};

/// Largest answer that is read: far above what the row bound of a query lets through.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Why the server did not answer a question: one variant for each reaction.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens: no server runs on this data folder.
    #[error("no server runs on this data folder")]
    NotRunning,
    /// The server's own words about the question.
    #[error("{message}")]
    Refused {
        /// A word from a closed set, for programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The connection or the answer broke.
    #[error("the server did not answer as expected")]
    Broken(#[source] BoxError),
}

/// The control socket of one data folder.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    code: String,
    message: String,
}

impl Control {
    /// The socket in `data_directory`.
    pub fn new(data_directory: &Path) -> Self {
        Self { socket: data_directory.join("tracker.sock") }
    }

    /// At most `rows_max` rows of a read-only query to the embedded store.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn query(&self, sql: &str, rows_max: usize) -> Result<Rows, ControlError> {
        let body = json!({ "sql": sql, "rows_max": rows_max }).to_string();
        let (status, answer) = self.post("/query", body).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).map_err(|e| ControlError::Broken(e.into()));
        }
        match serde_json::from_slice(&answer) {
            Ok(Refusal { error: RefusalBody { code, message } }) => {
                Err(ControlError::Refused { code, message })
            }
            Err(_) => Err(ControlError::Broken(format!("status {status}").into())),
        }
    }

    async fn post(&self, path: &str, body: String) -> Result<(StatusCode, Bytes), ControlError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
                // Refused: the file of a server that was killed.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ControlError::NotRunning
                }
                _ => ControlError::Broken(error.into()),
            })?;
        let broken = |error: hyper::Error| ControlError::Broken(error.into());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ControlError::Broken(error.into()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        Ok((status, body.map_err(ControlError::Broken)?.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one request with `answer` and gives back what was asked.
    async fn ask(answer: &'static str) -> (String, Result<Rows, ControlError>) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("tracker.sock")).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let result = Control::new(folder.path()).query("select 1", 5).await;
        (server.await.unwrap(), result)
    }

    #[tokio::test]
    async fn a_query_is_posted_and_its_rows_are_read() {
        let (asked, rows) = ask("HTTP/1.1 200 OK\r\ncontent-length: 51\r\n\r\n\
             {\"columns\":[\"a\"],\"rows\":[[1]],\"truncated\":false}  \n")
        .await;
        assert!(asked.starts_with("POST /query HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("{\"sql\":\"select 1\",\"rows_max\":5}"), "{asked}");
        assert_eq!(rows.unwrap().columns, ["a"]);
    }

    #[tokio::test]
    async fn a_refusal_is_the_servers_own_words() {
        let (_, rows) = ask("HTTP/1.1 400 Bad Request\r\ncontent-length: 45\r\n\r\n\
             {\"error\":{\"code\":\"invalid\",\"message\":\"no x\"}}")
        .await;
        let error = rows.expect_err("refused");
        assert!(
            matches!(&error, ControlError::Refused { code, .. } if code == "invalid"),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "no x");
    }

    #[tokio::test]
    async fn a_folder_without_a_server_is_told_apart_from_a_broken_one() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path());
        assert!(matches!(control.query("x", 1).await, Err(ControlError::NotRunning)));
        drop(UnixListener::bind(folder.path().join("tracker.sock")).unwrap());
        assert!(matches!(control.query("x", 1).await, Err(ControlError::NotRunning)));
        let (_, broken) = ask("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnot").await;
        assert!(matches!(broken, Err(ControlError::Broken(_))));
    }
}
