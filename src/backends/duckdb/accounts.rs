//! Accounts: the one table that is changed on an operator's word instead of from the journal.

use duckdb::types::{TimeUnit, Value};
use duckdb::{Connection, params};

use crate::backends::AccountChange;

/// Makes a change, all of it or nothing; false when there was nothing to change.
pub(super) fn change(
    connection: &Connection,
    change: &AccountChange,
) -> Result<bool, duckdb::Error> {
    connection.execute_batch("begin transaction")?;
    let changed = apply(connection, change);
    connection.execute_batch(if changed.is_ok() { "commit" } else { "rollback" })?;
    changed
}

fn apply(connection: &Connection, change: &AccountChange) -> Result<bool, duckdb::Error> {
    let uid = match change {
        AccountChange::Put(account) => account.uid,
        AccountChange::Remove(uid) => *uid,
    };
    let replaced =
        connection.execute("delete from accounts where uid = ?::uuid", [uid.to_string()])?;
    let AccountChange::Put(account) = change else { return Ok(replaced > 0) };
    let time = |time: chrono::DateTime<chrono::Utc>| {
        Value::Timestamp(TimeUnit::Microsecond, time.timestamp_micros())
    };
    let updated_at = time(account.updated_at);
    connection.execute(
        "insert into accounts (uid, pwd, owner, expires, created_at, updated_at) \
         values (?::uuid, ?, ?::uuid, ?, ?, ?)",
        params![
            uid.to_string(),
            account.password_hash,
            account.organisation.map(|organisation| organisation.to_string()),
            account.expires.map_or(Value::Null, time),
            updated_at.clone(),
            updated_at,
        ],
    )?;
    Ok(true)
}
