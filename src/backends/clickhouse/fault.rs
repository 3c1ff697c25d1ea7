//! What a failure of ClickHouse means for us.
//!
//! A server says what is wrong by a number (its `ErrorCodes`). Most of them pass: memory, parts,
//! time, rights that somebody mends. A few are about the rows themselves, and only those may lead
//! to quarantine. What is not known passes too: a batch that waits is safe, a row that was set
//! aside by mistake is not where people look for it.

use std::time::Duration;

use clickhouse::error::Error as ClientError;
use hyper_util::client::legacy::Error as HttpError;
use thiserror::Error;

use crate::backends::{SinkError, StoreError};

/// Bytes of a server's message that are kept; some repeat the statement.
const MESSAGE_BYTES_MAX: usize = 600;

/// A request that did not succeed.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// Nothing was sent.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Which server.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// It was sent, at least in part, and no answer came: it may have been done.
    #[error("{address} gave no answer")]
    Lost {
        /// Which server.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// No answer came within the time; it may have been done.
    #[error("{address} gave no answer within {time_max:?}")]
    Slow {
        /// Which server.
        address: String,
        /// How long was waited.
        time_max: Duration,
    },
    /// The server said no. An insert that is refused has stored nothing, but for what `code` says.
    #[error("{message}")]
    Refused {
        /// Its number; `None` when the answer was not ClickHouse's.
        code: Option<u32>,
        /// Its words.
        message: String,
    },
    /// The answer is not what was asked for.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

/// What a refusal is about: one for each reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The server or the moment: the same again, later.
    Moment,
    /// The rows: look for the one.
    Rows,
    /// How much it is: it may be taken in parts.
    Size,
    /// The table is not as it was described: look at it again.
    Table,
    /// A setting that may not be set.
    Setting,
}

/// The numbers that are not about the moment. Names are those of the server's `ErrorCodes`.
const KNOWN: &[(u32, About)] = &[
    // Rows: what the text or number of one cell can cause.
    (6, About::Rows),   // CANNOT_PARSE_TEXT
    (26, About::Rows),  // CANNOT_PARSE_QUOTED_STRING
    (27, About::Rows),  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    (38, About::Rows),  // CANNOT_PARSE_DATE
    (41, About::Rows),  // CANNOT_PARSE_DATETIME
    (69, About::Rows),  // ARGUMENT_OUT_OF_BOUND
    (72, About::Rows),  // CANNOT_PARSE_NUMBER
    (117, About::Rows), // INCORRECT_DATA
    (131, About::Rows), // TOO_LARGE_STRING_SIZE
    (306, About::Rows), // TOO_DEEP_RECURSION
    (321, About::Rows), // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    (349, About::Rows), // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    (376, About::Rows), // CANNOT_PARSE_UUID
    (407, About::Rows), // DECIMAL_OVERFLOW
    (467, About::Rows), // CANNOT_PARSE_BOOL
    (469, About::Rows), // VIOLATED_CONSTRAINT
    (675, About::Rows), // CANNOT_PARSE_IPV4
    (691, About::Rows), // UNKNOWN_ELEMENT_OF_ENUM
    // Size: more than a server, a user or a statement may have.
    (159, About::Size), // TIMEOUT_EXCEEDED
    (173, About::Size), // CANNOT_ALLOCATE_MEMORY
    (241, About::Size), // MEMORY_LIMIT_EXCEEDED
    // Table: somebody changed it.
    (8, About::Table),  // THERE_IS_NO_COLUMN
    (10, About::Table), // NOT_FOUND_COLUMN_IN_BLOCK
    (16, About::Table), // NO_SUCH_COLUMN_IN_TABLE
    (47, About::Table), // UNKNOWN_IDENTIFIER
    (50, About::Table), // UNKNOWN_TYPE
    (53, About::Table), // TYPE_MISMATCH
    (60, About::Table), // UNKNOWN_TABLE
    (70, About::Table), // CANNOT_CONVERT_TYPE
    (81, About::Table), // UNKNOWN_DATABASE
    // Settings.
    (115, About::Setting), // UNKNOWN_SETTING
    (164, About::Setting), // READONLY
    (452, About::Setting), // SETTING_CONSTRAINT_VIOLATION
];

/// What `code` is about.
pub(super) fn about(code: Option<u32>) -> About {
    let known = KNOWN.iter().find(|(known, _)| Some(*known) == code);
    known.map_or(About::Moment, |(_, about)| *about)
}

impl Fault {
    /// The failure of a request to `address`.
    pub(super) fn of(address: &str, error: ClientError) -> Self {
        let address = address.to_owned();
        match error {
            ClientError::BadResponse(text) => Self::of_words(&text),
            ClientError::Network(source) => {
                let http = source.downcast_ref::<HttpError>();
                let before_sending = http.is_some_and(HttpError::is_connect);
                let source = ClientError::Network(source);
                if before_sending {
                    Self::Unreachable { address, source }
                } else {
                    Self::Lost { address, source }
                }
            }
            source => Self::Lost { address, source },
        }
    }

    /// A refusal in a server's words: reads `Code: 241. DB::Exception: …`.
    pub(super) fn of_words(text: &str) -> Self {
        let number = text.strip_prefix("Code: ").map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.split_at(end).0
        });
        let code = number.and_then(|number| number.parse().ok());
        let words = text.split_once("DB::Exception: ").map_or(text, |(_, words)| words);
        let words = words.split(" (version ").next().unwrap_or(words).trim();
        let mut end = words.len().min(MESSAGE_BYTES_MAX);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        let words = words.get(..end).unwrap_or_default();
        let message =
            code.map_or_else(|| words.to_owned(), |code: u32| format!("{words} (code {code})"));
        Self::Refused { code, message }
    }

    /// Whether the request, or a part of it, may have reached the server and been done.
    pub(super) fn is_ambiguous(&self) -> bool {
        match self {
            // Time that ran out inside the server may have run out after a partition was stored.
            Self::Refused { code, .. } => matches!(about(*code), About::Moment | About::Size),
            other => other.is_unanswered(),
        }
    }

    /// Whether the server may still be at it.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Slow { .. } | Self::Answer(_))
    }

    /// Whether another server of the same store may do better; so may it where something between
    /// answered for this one.
    pub(super) fn is_of_address(&self) -> bool {
        !matches!(self, Self::Refused { code: Some(_), .. } | Self::Answer(_))
    }

    /// The server's number.
    pub(super) fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { code, .. } => *code,
            _ => None,
        }
    }

    /// What a sink says of it.
    pub(super) fn into_sink_error(self) -> SinkError {
        match about(self.code()) {
            About::Rows => SinkError::Reject { source: self.into() },
            About::Size | About::Moment | About::Table | About::Setting => {
                SinkError::Retry { after: None, source: self.into() }
            }
        }
    }

    /// What a store says of it: a question that cannot be right is the asker's.
    pub(super) fn into_store_error(self, time_max: Duration) -> StoreError {
        match self {
            Self::Slow { .. } | Self::Refused { code: Some(159), .. } => {
                StoreError::Timeout(time_max)
            }
            // Syntax, names, types: what a person writes. The rest is the server's.
            Self::Refused { code: Some(code), message } if is_of_asker(code) => {
                StoreError::Invalid(message)
            }
            other => StoreError::Unavailable(other.into()),
        }
    }
}

/// Whether a refused statement of a person is that person's mistake.
fn is_of_asker(code: u32) -> bool {
    const ASKER: [u32; 12] = [36, 42, 43, 44, 46, 62, 63, 80, 184, 215, 386, 396];
    ASKER.contains(&code) || !matches!(about(Some(code)), About::Moment | About::Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_read() {
        let text = "Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) \
                    (version 26.9.2.1 (official build))";
        let fault = Fault::of_words(text);
        assert_eq!(fault.code(), Some(241));
        assert_eq!(
            fault.to_string(),
            "Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) (code 241)"
        );
        assert_eq!(Fault::of_words("502 Bad Gateway").code(), None);
    }

    #[test]
    fn only_what_is_about_rows_may_be_set_aside() {
        for (code, is_reject) in [
            (Some(117), true),
            (Some(469), true),
            (Some(241), false),
            (Some(999), false),
            (None, false),
        ] {
            let fault = Fault::Refused { code, message: String::new() };
            let rejected = matches!(fault.into_sink_error(), SinkError::Reject { .. });
            assert_eq!(rejected, is_reject, "{code:?}");
        }
    }
}
