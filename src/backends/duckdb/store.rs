//! The questions of the routes, as bound statements over the open file.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use duckdb::types::{TimeUnit, Value as Bound};
use duckdb::{Connection, Params};
use serde_json::{Map, Value};

use super::worker::Command;
use super::{DuckDb, query};
use crate::backends::{
    Account, AccountChange, Agreement, Link, Rows, ShortLink, SinkError, Store, StoreError,
};
use crate::event::{OrgId, UserId, VisitorId};

/// Longest a route waits for one of the small questions.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest a change of an account may take: the worker may be in the middle of a large batch.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(10);

/// Links, agreements or regulations of one answer; more than anybody reads in a list.
const LIST_ROWS_MAX: usize = 10_000;

impl DuckDb {
    /// Asks for rows as objects by column name.
    async fn list(
        &self,
        sql: &'static str,
        parameters: impl Params + Send + 'static,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        self.questions
            .ask(QUESTION_TIME_MAX, move |connection| {
                objects(connection, sql, parameters)
                    .map_err(|error| error.into_store_error(QUESTION_TIME_MAX))
            })
            .await
    }
}

fn objects(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> Result<Vec<Map<String, Value>>, query::QueryError> {
    let rows = query::select(connection, sql, parameters, LIST_ROWS_MAX)?;
    let columns = &rows.columns;
    Ok(rows.rows.into_iter().map(|row| columns.iter().cloned().zip(row).collect()).collect())
}

fn moment(moment: DateTime<Utc>) -> Bound {
    Bound::Timestamp(TimeUnit::Microsecond, moment.timestamp_micros())
}

#[async_trait]
impl Store for DuckDb {
    async fn redirect(&self, from: &str) -> Result<Option<ShortLink>, StoreError> {
        let sql = "select urlfrom, urlto, oid::varchar as oid, org from redirects \
                   where urlfrom = ? order by updated_at desc limit 1";
        let links = self.list(sql, [from.to_owned()]).await?;
        Ok(links.first().map(ShortLink::of_row))
    }

    async fn redirects_at(&self, path: &str) -> Result<Vec<ShortLink>, StoreError> {
        let sql = "select urlfrom, urlto, oid::varchar as oid, org from redirects \
                   where urlfrom[strpos(urlfrom, '/'):] = ? \
                   qualify row_number() over (partition by urlfrom order by updated_at desc) = 1 \
                   limit 2";
        let links = self.list(sql, [path.to_owned()]).await?;
        Ok(links.iter().map(ShortLink::of_row).collect())
    }

    async fn redirects(&self, host: &str, of: Option<OrgId>) -> Result<Vec<Link>, StoreError> {
        let sql = "select * exclude (ingest_node, ingest_seq) from redirect_history \
                   where hostfrom = $1 \
                   and ($2::varchar is null or oid = $2::uuid) order by updated_at desc";
        let of = of.map_or(Bound::Null, |oid| oid.to_string().into());
        let links = self.list(sql, [host.to_owned().into(), of]).await?;
        Ok(links.into_iter().map(|fields| Link { fields }).collect())
    }

    async fn agreements(&self, visitor: VisitorId) -> Result<Vec<Agreement>, StoreError> {
        let sql = "select * from agreements where vid = ?::uuid \
                   order by updated_at desc, ingest_seq desc";
        let agreements = self.list(sql, [visitor.to_string()]).await?;
        Ok(agreements.into_iter().map(|fields| Agreement { fields }).collect())
    }

    async fn jurisdictions(&self) -> Result<Vec<Map<String, Value>>, StoreError> {
        self.list("select * from jurisdictions order by regulation, compliance, seq", ()).await
    }

    async fn account(&self, uid: UserId) -> Result<Option<Account>, StoreError> {
        let sql = "select uid::varchar as uid, pwd, owner::varchar as owner, expires, updated_at \
                   from accounts where uid = ?::uuid and pwd is not null \
                   and (expires is null or expires > ?) order by updated_at desc limit 1";
        let found = self.list(sql, [uid.to_string().into(), moment(self.clock.wall())]).await?;
        Ok(found.first().and_then(Account::of_row))
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let sql = "select uid::varchar as uid, pwd, owner::varchar as owner, expires, updated_at \
                   from accounts where pwd is not null order by uid";
        Ok(self.list(sql, ()).await?.iter().filter_map(Account::of_row).collect())
    }

    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        let changed = self.ask(|reply| Command::Account(change, reply));
        let changed = tokio::time::timeout(CHANGE_TIME_MAX, changed).await;
        changed.map_err(|_| StoreError::Timeout(CHANGE_TIME_MAX))?.map_err(|error| {
            let (SinkError::Retry { source, .. }
            | SinkError::TooLarge { source }
            | SinkError::Unfit { source, .. }
            | SinkError::Reject { source }) = error;
            StoreError::Unavailable(source)
        })
    }

    async fn query(
        &self,
        sql: &str,
        rows_max: usize,
        time_max: Duration,
    ) -> Result<Rows, StoreError> {
        let sql = sql.to_owned();
        self.queries
            .ask(time_max, move |connection| {
                query::run(connection, &sql, rows_max)
                    .map_err(|error| error.into_store_error(time_max))
            })
            .await
    }
}
