//! The questions of the routes, as statements with bound parameters.
//!
//! Tables are replaced at their own time, so a question that wants the latest of something says
//! `final`. What an absent value is stored as (the zero id, the empty text) is null in the rows that
//! routes get, as every store gives them; a person who asks sees what is stored.
//!
//! A statement of a person can only read: it must begin like one that reads, and the server runs it
//! with `readonly = 1`, under which it may neither write, nor reach files, tables elsewhere or the
//! network, nor change a setting, which are its bounds of rows and time. A user whose own profile
//! takes no settings is asked without them: rows and time are then bounded from here alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::fault::{About, Fault, about};
use super::transport::{Question, Transport};
use super::values;
use crate::backends::store::text;
use crate::backends::{
    Account, AccountChange, Agreement, Link, Rows, ShortLink, Store, StoreError,
};
use crate::clock::Clock;
use crate::config::ClickHouseConfig;
use crate::event::{OrgId, UserId, VisitorId};

/// Longest a visitor's question takes, below what a visitor waits for, so that another address is
/// asked while somebody still waits.
const VISIT_TIME_MAX: Duration = Duration::from_millis(700);

/// Links, agreements or regulations of one answer; more than anybody reads in a list.
const LIST_ROWS_MAX: usize = 10_000;

/// What a statement that reads begins with.
const READING: [&str; 9] =
    ["select", "with", "from", "show", "describe", "desc", "explain", "exists", "("];

/// How moments are written where a statement wants one.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S%.3f";

/// What answers questions over the servers of one ClickHouse.
pub(super) struct Questions {
    transport: Arc<Transport>,
    clock: Arc<dyn Clock>,
    database: String,
    question_time_max: Duration,
}

impl Questions {
    /// Over `transport`, in the database that `config` names.
    pub(super) fn new(
        config: &ClickHouseConfig,
        transport: Arc<Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let question_time_max = config.question_time_max;
        Self { transport, clock, database: config.database.clone(), question_time_max }
    }

    /// The rows of a statement of ours, absent values as null.
    async fn list(
        &self,
        sql: &str,
        parameters: &[(&str, &str)],
        time_max: Duration,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        let seconds = time_max.as_secs_f64().ceil().to_string();
        let settings = [("database", &*self.database), ("max_execution_time", &seconds)];
        let question = Question { sql, parameters, settings: &settings, time_max };
        let mut answer = self.transport.table(question, LIST_ROWS_MAX).await;
        if matches!(&answer, Err(fault) if about(fault.code()) == About::Setting) {
            let settings = settings.get(..1).unwrap_or_default();
            answer = self.transport.table(Question { settings, ..question }, LIST_ROWS_MAX).await;
        }
        let rows = values::rows(answer.map_err(|fault| fault.into_store_error(time_max))?);
        let (columns, rows) = (rows.columns, rows.rows.into_iter());
        let present = |row: Vec<Value>| row.into_iter().map(present);
        Ok(rows.map(|row| columns.iter().cloned().zip(present(row)).collect()).collect())
    }

    /// As [`Self::list`], within the time of a small question.
    async fn small(
        &self,
        sql: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        self.list(sql, parameters, self.question_time_max).await
    }

    /// The latest row of `uid`, which has no password where the account was removed.
    async fn latest(&self, uid: UserId) -> Result<Option<Map<String, Value>>, StoreError> {
        let sql = "select uid, pwd, owner, expires, updated_at from accounts final \
                   where uid = {uid:UUID} order by updated_at desc limit 1";
        let rows = self.small(sql, &[("uid", &uid.to_string())]).await?;
        Ok(rows.into_iter().next())
    }

    /// How much of its settings the user may change: the profile's `readonly`.
    async fn restraint(&self) -> Result<u64, Fault> {
        let rows = self.transport.rows("select toUInt8(getSetting('readonly'))", &[]).await?;
        Ok(rows.rows.first().and_then(|row| row.first()?.as_u64()).unwrap_or(1))
    }

    async fn ask(&self, sql: &str, rows_max: usize, time_max: Duration) -> Result<Rows, Fault> {
        let (rows, seconds) = (rows_max.saturating_add(1), time_max.as_secs_f64().ceil());
        let (rows, seconds) = (rows.to_string(), seconds.to_string());
        let settings = [
            ("readonly", "1"),
            ("max_execution_time", &*seconds),
            ("timeout_overflow_mode", "throw"),
            ("max_result_rows", &*rows),
            ("result_overflow_mode", "break"),
            ("date_time_output_format", "iso"),
            ("cancel_http_readonly_queries_on_client_close", "1"),
            // No setting, so it comes last and always goes along.
            ("database", &*self.database),
        ];
        let question = Question { sql, parameters: &[], settings: &settings, time_max };
        let refused = match self.transport.table(question, rows_max).await {
            Err(fault) if about(fault.code()) == About::Setting => fault,
            answer => return answer.map(values::rows),
        };
        // Refused is either what the statement wants, or what goes along with it.
        let allowed = match self.restraint().await? {
            0 => return Err(refused),
            2 => settings.get(1..),
            _ => settings.get(settings.len() - 1..),
        };
        let question = Question { settings: allowed.unwrap_or_default(), ..question };
        self.transport.table(question, rows_max).await.map(values::rows)
    }
}

/// Null for what stands in place of an absent value.
fn present(value: Value) -> Value {
    match value {
        Value::String(text) if text.is_empty() || text == NOBODY => Value::Null,
        other => other,
    }
}

/// The id of what has none.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

fn moment(row: &Map<String, Value>, column: &str) -> Option<DateTime<Utc>> {
    text(row, column)?.parse().ok()
}

/// Refuses what does not begin like a statement that reads. Some that change the server, such as
/// `kill query`, count as reading there.
fn check(sql: &str) -> Result<(), StoreError> {
    let begins = without_comments(sql);
    let is_reading = READING.iter().any(|word| {
        begins.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
            && begins.get(word.len()..).is_some_and(|rest| {
                *word == "(" || !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
    });
    let refused = || StoreError::Invalid("only a query that reads is allowed here".to_owned());
    if is_reading { Ok(()) } else { Err(refused()) }
}

/// The text behind blanks and comments.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let behind = if rest.starts_with("--") || rest.starts_with('#') {
            rest.split_once('\n').map(|(_, behind)| behind)
        } else if rest.starts_with("/*") {
            rest.split_once("*/").map(|(_, behind)| behind)
        } else {
            return rest;
        };
        rest = behind.unwrap_or_default().trim_start();
    }
}

#[async_trait]
impl Store for Questions {
    async fn redirect(&self, from: &str) -> Result<Option<ShortLink>, StoreError> {
        let sql = "select urlfrom, urlto, oid, org from redirects final \
                   where urlfrom = {from:String} order by updated_at desc limit 1";
        let time_max = VISIT_TIME_MAX.min(self.question_time_max);
        let links = self.list(sql, &[("from", from)], time_max).await?;
        Ok(links.first().map(ShortLink::of_row))
    }

    async fn redirects_at(&self, path: &str) -> Result<Vec<ShortLink>, StoreError> {
        let sql = "select urlfrom, urlto, oid, org from redirects final \
                   where substring(urlfrom, position(urlfrom, '/')) = {path:String} \
                   order by updated_at desc limit 1 by urlfrom limit 2";
        let time_max = VISIT_TIME_MAX.min(self.question_time_max);
        let links = self.list(sql, &[("path", path)], time_max).await?;
        Ok(links.iter().map(ShortLink::of_row).collect())
    }

    async fn redirects(&self, host: &str, of: Option<OrgId>) -> Result<Vec<Link>, StoreError> {
        let sql = "select * except (ingest_node, ingest_seq) from redirect_history final \
                   where hostfrom = {host:String} \
                   and ({of:String} = '' or toString(oid) = {of:String}) \
                   order by updated_at desc limit {rows:UInt64}";
        let of = of.map(|of| of.to_string()).unwrap_or_default();
        let rows = LIST_ROWS_MAX.to_string();
        let links = self.small(sql, &[("host", host), ("of", &of), ("rows", &rows)]).await?;
        Ok(links.into_iter().map(|fields| Link { fields }).collect())
    }

    async fn agreements(&self, visitor: VisitorId) -> Result<Vec<Agreement>, StoreError> {
        let sql = "select * replace (nullIf(vp_w, 0) as vp_w, nullIf(vp_h, 0) as vp_h) \
                   from agreements final where vid = {vid:UUID} \
                   order by updated_at desc, ingest_seq desc limit {rows:UInt64}";
        let (visitor, rows) = (visitor.to_string(), LIST_ROWS_MAX.to_string());
        let agreements = self.small(sql, &[("vid", &visitor), ("rows", &rows)]).await?;
        Ok(agreements.into_iter().map(|fields| Agreement { fields }).collect())
    }

    async fn jurisdictions(&self) -> Result<Vec<Map<String, Value>>, StoreError> {
        let sql = "select * from jurisdictions final order by regulation, compliance, seq \
                   limit {rows:UInt64}";
        self.small(sql, &[("rows", &LIST_ROWS_MAX.to_string())]).await
    }

    async fn account(&self, uid: UserId) -> Result<Option<Account>, StoreError> {
        let now = self.clock.wall();
        let found = self.latest(uid).await?.as_ref().and_then(Account::of_row);
        Ok(found.filter(|account| account.expires.is_none_or(|expires| expires > now)))
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let sql = "select uid, pwd, owner, expires, updated_at from accounts final \
                   where pwd != '' order by uid limit {rows:UInt64}";
        let rows = self.small(sql, &[("rows", &LIST_ROWS_MAX.to_string())]).await?;
        Ok(rows.iter().filter_map(Account::of_row).collect())
    }

    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        let uid = change.uid();
        let latest = self.latest(uid).await?;
        let is_there = latest.as_ref().is_some_and(|row| text(row, "pwd").is_some());
        let (sql, account) = match change {
            AccountChange::Add(_) if is_there => return Ok(false),
            // What other programs keep in the row of an account stays.
            AccountChange::Put(account) if is_there => (REPLACE, account),
            AccountChange::Add(account) | AccountChange::Put(account) => (ADD, account),
            AccountChange::Remove(_) if !is_there => return Ok(false),
            AccountChange::Remove(uid) => {
                let (updated_at, password_hash) = (self.clock.wall(), String::new());
                (ADD, Account { uid, password_hash, organisation: None, expires: None, updated_at })
            }
        };
        // The latest row counts, so this one is later whatever the clocks say.
        let before = latest.as_ref().and_then(|row| moment(row, "updated_at"));
        let least = before.map(|before| before + TimeDelta::milliseconds(1));
        let at = account.updated_at.max(least.unwrap_or_default());
        let written = |moment: DateTime<Utc>| moment.format(MOMENT).to_string();
        let owner = account.organisation.map_or_else(|| Uuid::nil().to_string(), |o| o.to_string());
        let parameters = [
            ("uid", &*uid.to_string()),
            ("pwd", &account.password_hash),
            ("owner", &owner),
            ("expires", &account.expires.map(written).unwrap_or_default()),
            ("at", &written(at)),
        ];
        // On every shard before the answer.
        let settings = [("database", &*self.database), ("distributed_foreground_insert", "1")];
        let time_max = self.question_time_max;
        let question = Question { sql, parameters: &parameters, settings: &settings, time_max };
        let done = self.transport.ask(question, "Null").await;
        done.map(|_| true).map_err(|fault| fault.into_store_error(time_max))
    }

    async fn query(
        &self,
        sql: &str,
        rows_max: usize,
        time_max: Duration,
    ) -> Result<Rows, StoreError> {
        check(sql)?;
        self.ask(sql, rows_max, time_max).await.map_err(|fault| match fault {
            // A statement may name a format of its own, which then is not the one asked for.
            Fault::Answer(_) => {
                let message = "the answer has another format than asked for; leave FORMAT out";
                StoreError::Invalid(message.to_owned())
            }
            fault => fault.into_store_error(time_max),
        })
    }
}

/// Adds an account; without a password the row hides those before it.
const ADD: &str = "insert into accounts (uid, pwd, owner, expires, created_at, updated_at) \
    select {uid:UUID}, {pwd:String}, {owner:UUID}, \
    parseDateTime64BestEffortOrNull({expires:String}, 3, 'UTC'), \
    {at:DateTime64(3, 'UTC')}, {at:DateTime64(3, 'UTC')}";

/// Changes one.
const REPLACE: &str = "insert into accounts select * replace ({pwd:String} as pwd, \
    {owner:UUID} as owner, \
    parseDateTime64BestEffortOrNull({expires:String}, 3, 'UTC') as expires, \
    {at:DateTime64(3, 'UTC')} as updated_at) \
    from accounts final where uid = {uid:UUID} order by updated_at desc limit 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_like_reading_is_asked() {
        for (sql, is_reading) in [
            ("select 1", true),
            ("  -- why\n /* and\n how */ SELECT 1", true),
            ("#!note\nwith 1 as x select x", true),
            ("(select 1) union all (select 2)", true),
            ("from events select count()", true),
            ("explain select 1", true),
            ("show tables", true),
            ("kill query where 1", false),
            ("insert into events values ()", false),
            ("selected", false),
            ("/* select", false),
            ("system shutdown", false),
            ("set readonly = 0", false),
            ("", false),
        ] {
            assert_eq!(check(sql).is_ok(), is_reading, "{sql}");
        }
    }
}
