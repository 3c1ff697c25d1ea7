//! Errors as answers: the only place that knows which status a failure has.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use thiserror::Error;

use super::answer;
use super::batch::SplitError;
use crate::intake::{IntakeError, ParseError};
use crate::journal::AppendError;

/// Seconds after which a refused sender should try again. Short: a full queue drains in
/// milliseconds, and an outage only costs the sender another small request.
pub(super) const RETRY_SECONDS: u64 = 1;

/// Why a request has no ordinary answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The body cannot be read as what it should be.
    #[error("{message}")]
    Malformed {
        /// The field at which reading stopped, where there is one.
        field: Option<String>,
        /// What is wrong, never the content itself.
        message: String,
    },
    /// One field is wrong.
    #[error("{message}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// More than a bound allows; says which.
    #[error("{0}")]
    TooLarge(String),
    /// `Content-Encoding` names something else than gzip or br.
    #[error("content encoding {0:?} is not supported, only gzip and br")]
    Encoding(String),
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    Timeout,
    /// The connection broke while the body was read.
    #[error("the body broke off")]
    Broken,
    /// Only for the holder of a key, and none that serves was shown.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// Not for this sender.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What was asked for is not known.
    #[error("{0}")]
    Unknown(&'static str),
    /// There is nothing here.
    #[error("nothing is served at this path")]
    NotFound,
    /// Another method is asked for here.
    #[error("only {0} is answered here")]
    Method(&'static str),
    /// The sender asked for more than it may in this time: try again later.
    #[error("{message}")]
    Limited {
        /// Which limit, in words.
        message: &'static str,
        /// Seconds until one more request is allowed.
        retry_seconds: u64,
    },
    /// What answers this is not there or does not answer.
    #[error("{0}")]
    Unavailable(&'static str),
    /// No connection is left for the sender: try again.
    #[error("too many connections, try again")]
    Connections,
    /// Too much at once: try again.
    #[error("too many events at once, try again")]
    Busy,
    /// The journal has no room: try again.
    #[error("the journal is full, try again")]
    Full,
    /// The journal cannot write: try again.
    #[error("the event could not be made durable, try again")]
    Failed,
    /// A server behind the proxy cannot be reached.
    #[error("the server behind cannot be reached")]
    UpstreamDown,
    /// A server behind the proxy broke off, or answered what is no answer.
    #[error("the server behind gave no answer that could be read")]
    UpstreamBroke,
    /// A server behind the proxy is too slow.
    #[error("the server behind did not answer in time")]
    UpstreamTimeout,
    /// A server behind the proxy has as many requests as it may: try again.
    #[error("too many requests for the server behind, try again")]
    UpstreamBusy,
    /// Our fault, and a second attempt will not help.
    #[error("the server failed")]
    Internal,
}

#[derive(Serialize)]
struct Answer {
    error: Detail,
}

/// An error as an answer names it, alone or in the results of a batch.
#[derive(Debug, Serialize)]
pub(super) struct Detail {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl ApiError {
    /// The status that tells the sender what to do.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } | Self::Invalid { .. } | Self::Broken => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unknown(_) | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_)
            | Self::Connections
            | Self::Busy
            | Self::Full
            | Self::Failed
            | Self::UpstreamBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamDown | Self::UpstreamBroke => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for programs; stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Invalid { .. } => "invalid",
            Self::TooLarge(_) => "too_large",
            Self::Encoding(_) => "unsupported_encoding",
            Self::Timeout => "timeout",
            Self::Broken => "broken_off",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Unknown(_) | Self::NotFound => "not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Limited { .. } => "rate_limited",
            Self::Unavailable(_) => "unavailable",
            Self::Connections => "too_many_connections",
            Self::Busy => "overloaded",
            Self::Full => "journal_full",
            Self::Failed => "journal_failed",
            Self::UpstreamDown => "upstream_unreachable",
            Self::UpstreamBroke => "upstream_broken_off",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBusy => "upstream_overloaded",
            Self::Internal => "internal",
        }
    }

    /// The error as JSON.
    pub(super) fn detail(self) -> Detail {
        let (code, message) = (self.code(), self.to_string());
        let field = match self {
            Self::Invalid { field, .. } => Some(field),
            Self::Malformed { field, .. } => field,
            _ => None,
        };
        Detail { code, message, field }
    }

    /// The same request may succeed later.
    pub fn is_retry(&self) -> bool {
        self.retry_seconds().is_some()
    }

    /// Seconds after which a second attempt may succeed, if one may.
    pub(super) fn retry_seconds(&self) -> Option<u64> {
        match self {
            Self::Limited { retry_seconds, .. } => Some(*retry_seconds),
            Self::Connections | Self::Busy | Self::Full | Self::Failed | Self::UpstreamBusy => {
                Some(RETRY_SECONDS)
            }
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry = self.retry_seconds();
        let allow = if let Self::Method(methods) = self { Some(methods) } else { None };
        let unauthorized = matches!(self, Self::Unauthorized(_));
        // The body was not read to its end; what still comes must not be read as a request.
        let close = matches!(self, Self::Timeout | Self::TooLarge(_) | Self::Connections);
        let mut response = answer::json(self.status(), &Answer { error: self.detail() });
        if let Some(retry) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
        }
        if let Some(methods) = allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if unauthorized {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        Self::Malformed { field: error.field, message: error.message }
    }
}

impl From<SplitError> for ApiError {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Malformed(message) => Self::Malformed { field: None, message },
            SplitError::TooMany(_) => Self::TooLarge(error.to_string()),
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy => Self::Busy,
            AppendError::Full => Self::Full,
            AppendError::Failed => Self::Failed,
            AppendError::TooLarge(_) => Self::TooLarge(error.to_string()),
        }
    }
}

/// A refusal by intake that the sender must hear of. [`IntakeError::Private`] is none: who is
/// answered as a success does not come here.
impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Invalid { field, message } => Self::Invalid { field, message },
            IntakeError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            IntakeError::Private => Self::Forbidden("privacy policy forbids storing it"),
            IntakeError::Busy => Self::Busy,
            IntakeError::Full => Self::Full,
            IntakeError::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(error: ApiError, status: u16, retry_after: Option<&str>, body: &str) {
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), status, "{body}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let retry = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap());
        assert_eq!(retry, retry_after, "{body}");
        let bytes = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), body);
    }

    #[tokio::test]
    async fn the_senders_fault_is_a_4xx_that_names_the_field() {
        let invalid = IntakeError::Invalid { field: "vid".into(), message: "empty".into() };
        let body = r#"{"error":{"code":"invalid","message":"empty","field":"vid"}}"#;
        check(invalid.into(), 400, None, body).await;
        let large = IntakeError::TooLarge { length: 9, max: 8 };
        let body =
            r#"{"error":{"code":"too_large","message":"event of 9 bytes is larger than 8"}}"#;
        check(large.into(), 413, None, body).await;
    }

    #[tokio::test]
    async fn our_fault_is_a_503_with_a_time_to_try_again() {
        for (error, code) in [
            (IntakeError::Busy, "overloaded"),
            (IntakeError::Full, "journal_full"),
            (IntakeError::Failed, "journal_failed"),
        ] {
            let error = ApiError::from(error);
            assert!(error.is_retry());
            let body = format!(r#"{{"error":{{"code":"{code}","message":"{error}"}}}}"#);
            check(error, 503, Some("1"), &body).await;
        }
    }
}
