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
    let uid = change.uid().to_string();
    let account = match change {
        AccountChange::Add(account) => {
            let sql = "select count(*) > 0 from accounts where uid = ?::uuid";
            if connection.query_row(sql, [&uid], |row| row.get(0))? {
                return Ok(false);
            }
            Some(account)
        }
        AccountChange::Put(account) => Some(account),
        AccountChange::Remove(_) => None,
    };
    let removed = connection.execute("delete from accounts where uid = ?::uuid", [&uid])?;
    let Some(account) = account else { return Ok(removed > 0) };
    let time = |time: chrono::DateTime<chrono::Utc>| {
        Value::Timestamp(TimeUnit::Microsecond, time.timestamp_micros())
    };
    let updated_at = time(account.updated_at);
    connection.execute(
        "insert into accounts (uid, pwd, owner, expires, created_at, updated_at) \
         values (?::uuid, ?, ?::uuid, ?, ?, ?)",
        params![
            uid,
            account.password_hash,
            account.organisation.map(|organisation| organisation.to_string()),
            account.expires.map_or(Value::Null, time),
            updated_at.clone(),
            updated_at,
        ],
    )?;
    Ok(true)
}
