//! The questions of the routes, as bound statements over the open file.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveTime, Utc};
use duckdb::types::{TimeUnit, Value as Bound};
use duckdb::{Connection, OptionalExt, Params};
use serde_json::{Map, Value};

use super::{DuckDb, fault, query};
use crate::backends::{Agreement, Link, Rows, Store, StoreError};
use crate::event::VisitorId;

/// Longest a route waits for one of the small questions.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(2);

/// Links, agreements or regulations of one answer; more than anybody reads in a list.
const LIST_ROWS_MAX: usize = 10_000;

impl DuckDb {
    /// Asks for one value, or none.
    async fn one<T>(
        &self,
        sql: &'static str,
        parameters: impl Params + Send + 'static,
    ) -> Result<Option<T>, StoreError>
    where
        T: duckdb::types::FromSql + Send + 'static,
    {
        self.questions
            .ask(QUESTION_TIME_MAX, move |connection| {
                connection
                    .query_row(sql, parameters, |row| row.get(0))
                    .optional()
                    .map_err(|error| fault::store_error(error, QUESTION_TIME_MAX))
            })
            .await
    }

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
    async fn redirect(&self, from: &str) -> Result<Option<String>, StoreError> {
        let sql = "select urlto from redirects where urlfrom = ? order by updated_at desc limit 1";
        self.one(sql, [from.to_owned()]).await
    }

    async fn redirects(&self, host: &str) -> Result<Vec<Link>, StoreError> {
        let sql = "select * from redirect_history where hostfrom = ? order by updated_at desc";
        let links = self.list(sql, [host.to_owned()]).await?;
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

    async fn password_hash(&self, account: &str) -> Result<Option<String>, StoreError> {
        let sql = "select pwd from accounts \
                   where uid = try_cast(? as uuid) and (expires is null or expires > ?) \
                   order by updated_at desc limit 1";
        let found: Option<Option<String>> =
            self.one(sql, [account.to_owned().into(), moment(self.clock.wall())]).await?;
        Ok(found.flatten())
    }

    async fn daily_total(&self, ip: IpAddr) -> Result<u64, StoreError> {
        let day = self.clock.wall().date_naive().and_time(NaiveTime::MIN).and_utc();
        let next = day + chrono::TimeDelta::days(1);
        let sql = "select count(*) from events where origin = 'client' and ip = ? \
                   and received_at >= ? and received_at < ?";
        let parameters = [ip.to_string().into(), moment(day), moment(next)];
        Ok(self.one(sql, parameters).await?.unwrap_or(0))
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
