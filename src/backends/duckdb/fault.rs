//! What an error of DuckDB means for us. The library tells kinds of errors apart only by the first
//! words of their text, so this is the one place that reads them.

use std::time::Duration;

use crate::backends::{BoxError, SinkError, StoreError};

/// One variant for each reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The value or the statement is wrong; another attempt gives the same.
    Refused,
    /// Stopped by us.
    Interrupted,
    /// Disk, memory, a lock: may pass.
    Passing,
    /// The library gave up on the open database; open it again.
    Closed,
    /// The file cannot be read.
    Corrupt,
}

/// First words of errors that a value or a statement causes.
const REFUSED: &[&str] = &[
    "binder error",
    "cardinality exception",
    "catalog error",
    "constraint error",
    "conversion error",
    "decimal error",
    "divide by zero error",
    "expression error",
    "invalid error",
    "invalid input error",
    "invalid type error",
    "mismatch type error",
    "not implemented error",
    "out of range error",
    "parameter not allowed error",
    "parser error",
    "permission error",
    "sequence error",
    "syntax error",
    "transactioncontext error: cannot write to database",
    "type mismatch in appenddatachunk",
];

/// Words of the machine's refusals. Whatever the file holds, it is not to blame.
const PASSING: &[&str] = &[
    "could not set lock",
    "permission denied",
    "operation not permitted",
    "no space left",
    "disk quota",
    "too many open files",
    "out of memory",
    "cannot open file",
    "cannot open directory",
    "is a directory",
    "no such file",
    "read-only file system",
    "input/output error",
    "not recognized",
];

/// Words by which the library says that bytes on disk are not what it wrote.
const CORRUPT: &[&str] = &[
    "checksum",
    "corrupt",
    "not a valid duckdb database",
    "could not read enough bytes",
    "reached the end of the file",
    "failed to deserialize",
    "serialization error",
    "failure while replaying wal",
];

/// What `error` means while the database is open.
pub(super) fn of(error: &duckdb::Error) -> Fault {
    match error {
        duckdb::Error::DuckDBFailure(_, Some(text)) => of_text(text),
        duckdb::Error::DuckDBFailure(_, None) => Fault::Passing,
        _ => Fault::Refused,
    }
}

fn of_text(text: &str) -> Fault {
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.starts_with("interrupt error") {
        Fault::Interrupted
    } else if REFUSED.iter().any(|word| text.starts_with(word)) {
        Fault::Refused
    } else if has(PASSING) {
        if text.starts_with("fatal error") { Fault::Closed } else { Fault::Passing }
    } else if has(CORRUPT) {
        Fault::Corrupt
    } else if text.starts_with("fatal error")
        || text.starts_with("internal error")
        || text.contains("has been invalidated")
    {
        Fault::Closed
    } else {
        Fault::Passing
    }
}

/// Whether `error`, met while opening a file, is the file's own fault. What is not known to come
/// from the machine is, because a tracker that does not start is worse than a file set aside.
pub(super) fn file_is_unusable(error: &duckdb::Error) -> bool {
    let text = error.to_string().to_lowercase();
    !PASSING.iter().any(|word| text.contains(word))
}

/// Whether `error`, met while opening a file, is the fault of its write-ahead log alone.
pub(super) fn log_is_unusable(error: &duckdb::Error) -> bool {
    file_is_unusable(error) && error.to_string().to_lowercase().contains("replaying wal")
}

/// Whether another process holds the file.
pub(super) fn file_is_locked(error: &duckdb::Error) -> bool {
    error.to_string().to_lowercase().contains("could not set lock")
}

/// The reaction of delivery to a failed write.
pub(super) fn sink_error(error: duckdb::Error) -> SinkError {
    match of(&error) {
        Fault::Refused => SinkError::Reject { source: error.into() },
        Fault::Interrupted | Fault::Passing | Fault::Closed | Fault::Corrupt => retry(error),
    }
}

/// A write that may succeed later.
pub(super) fn retry(error: impl Into<BoxError>) -> SinkError {
    SinkError::Retry { after: None, source: error.into() }
}

/// The reaction of a route to a failed question that could take `time_max`. What the statement
/// asks for beyond the memory limit is the statement's fault too.
pub(super) fn store_error(error: duckdb::Error, time_max: Duration) -> StoreError {
    let text = error.to_string();
    match of(&error) {
        Fault::Interrupted => StoreError::Timeout(time_max),
        Fault::Refused => StoreError::Invalid(text),
        Fault::Passing if text.to_lowercase().starts_with("out of memory") => {
            StoreError::Invalid(text)
        }
        Fault::Passing | Fault::Closed | Fault::Corrupt => StoreError::Unavailable(error.into()),
    }
}

/// Whether a failed question left a database that must be opened anew.
pub(super) fn database_is_closed(error: &StoreError) -> bool {
    let StoreError::Unavailable(source) = error else { return false };
    source.downcast_ref().is_some_and(|error| of(error) == Fault::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_leads_to_its_reaction() {
        let cases = [
            ("Conversion Error: Could not convert string 'x' to INT32", Fault::Refused),
            ("Constraint Error: NOT NULL constraint failed", Fault::Refused),
            ("Invalid Input Error: Malformed JSON at byte 1", Fault::Refused),
            ("Out of Range Error: overflow", Fault::Refused),
            ("type mismatch in AppendDataChunk, expected INTEGER, got BIGINT", Fault::Refused),
            ("INTERRUPT Error: Interrupted!", Fault::Interrupted),
            ("Out of Memory Error: could not allocate block", Fault::Passing),
            ("IO Error: Could not write file: No space left on device", Fault::Passing),
            ("FATAL Error: Failed to commit: No space left on device", Fault::Closed),
            ("FATAL Error: Failed: database has been invalidated", Fault::Closed),
            ("INTERNAL Error: Attempted to dereference", Fault::Closed),
            ("IO Error: Corrupt database file: computed checksum 1", Fault::Corrupt),
            ("TransactionContext Error: Conflict on update!", Fault::Passing),
            ("something new", Fault::Passing),
        ];
        for (text, expect) in cases {
            assert_eq!(of_text(text), expect, "{text}");
        }
    }
}
