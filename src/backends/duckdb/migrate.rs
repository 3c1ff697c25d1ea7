//! Brings a file to this program's schema when it is opened.
//!
//! `schema/duckdb/NNNN_*.sql` make the tables, each once and in order; `schema/duckdb/views.sql` is
//! applied again whenever its text or a table changed. `schema_version` keeps both. A file that is
//! newer than the program is left alone. The schema `sfpla` mirrors `main`, with the added-up form
//! of a table under the table's own name.

use duckdb::{Connection, params};

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Order, and what `schema_version` keeps.
    pub number: i32,
    /// What it does, as in the file's name.
    pub name: &'static str,
    /// The statements.
    pub text: &'static str,
}

/// Every step in order. Files are never edited after a release: [`crate::migrate`] keeps hashes.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "core",
        text: include_str!("../../../schema/duckdb/0001_core.sql"),
    },
    Migration {
        number: 2,
        name: "payments",
        text: include_str!("../../../schema/duckdb/0002_payments.sql"),
    },
    Migration {
        number: 3,
        name: "ingest",
        text: include_str!("../../../schema/duckdb/0003_ingest.sql"),
    },
];

/// The views, applied again when they changed.
const VIEWS: &str = include_str!("../../../schema/duckdb/views.sql");

/// Name under which `schema_version` keeps the checksum of [`VIEWS`].
const VIEWS_NAME: &str = "views";

/// Tables whose rows are added up or folded by a view, and the view that `sfpla` shows instead.
const FOLDED: &[(&str, &str)] = &[
    ("agreements", "agreements_latest"),
    ("counters", "counters_totals"),
    ("impression_daily", "impression_daily_totals"),
    ("ltv", "ltv_totals"),
    ("payments", "payments_latest"),
    ("quarantine", "quarantined"),
];

/// Which step the file was at, and which it is at now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Before; 0 for a new file.
    pub from: i32,
    /// Now.
    pub to: i32,
}

/// Applies what is missing, all of it or nothing.
pub(super) fn apply(
    connection: &Connection,
    steps: &[Migration],
) -> Result<Applied, duckdb::Error> {
    connection.execute_batch("begin transaction")?;
    let applied = apply_steps(connection, steps);
    connection.execute_batch(if applied.is_ok() { "commit" } else { "rollback" })?;
    applied
}

fn apply_steps(connection: &Connection, steps: &[Migration]) -> Result<Applied, duckdb::Error> {
    connection.execute_batch(
        "create table if not exists schema_version (
            number integer,
            name varchar,
            checksum ubigint,
            applied_at timestamp
        )",
    )?;
    let from = version(connection)?;
    let newest = steps.last().map_or(0, |step| step.number);
    for step in steps.iter().filter(|step| step.number > from) {
        connection.execute_batch(step.text)?;
        record(connection, Some(step.number), step.name, step.text)?;
    }
    let views = u64::from(crc32c::crc32c(VIEWS.as_bytes()));
    if from < newest || (from == newest && views_applied(connection)? != Some(views)) {
        connection.execute_batch(VIEWS)?;
        mirror(connection)?;
        connection.execute("delete from schema_version where name = ?", [VIEWS_NAME])?;
        record(connection, None, VIEWS_NAME, VIEWS)?;
    }
    Ok(Applied { from, to: from.max(newest) })
}

fn version(connection: &Connection) -> Result<i32, duckdb::Error> {
    connection
        .query_row("select coalesce(max(number), 0) from schema_version", [], |row| row.get(0))
}

fn views_applied(connection: &Connection) -> Result<Option<u64>, duckdb::Error> {
    connection.query_row(
        "select max(checksum) from schema_version where name = ?",
        [VIEWS_NAME],
        |row| row.get(0),
    )
}

fn record(
    connection: &Connection,
    number: Option<i32>,
    name: &str,
    text: &str,
) -> Result<(), duckdb::Error> {
    let checksum = u64::from(crc32c::crc32c(text.as_bytes()));
    connection.execute(
        "insert into schema_version values (?, ?, ?, make_timestamp(epoch_us(now())))",
        params![number, name, checksum],
    )?;
    Ok(())
}

/// Makes `sfpla` show every table and view of `main`.
fn mirror(connection: &Connection) -> Result<(), duckdb::Error> {
    let names: Vec<String> = connection
        .prepare(
            "select table_name from information_schema.tables \
             where table_catalog = current_database() and table_schema = 'main'",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    connection.execute_batch("create schema if not exists sfpla")?;
    for name in names {
        let shown =
            FOLDED.iter().find(|(table, _)| *table == name).map_or(&*name, |(_, view)| view);
        connection.execute_batch(&format!(
            "create or replace view sfpla.\"{name}\" as from main.\"{shown}\""
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest released step, and one after it.
    const NEWEST: i32 = MIGRATIONS[MIGRATIONS.len() - 1].number;
    const NEXT: i32 = NEWEST + 1;

    const MORE: Migration = Migration {
        number: NEXT,
        name: "more",
        text: "alter table events add column extra varchar; create table more (a integer);",
    };

    fn steps(more: &[Migration]) -> Vec<Migration> {
        MIGRATIONS.iter().chain(more).copied().collect()
    }

    #[test]
    fn numbers_rise_by_one_from_one() {
        for (at, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(step.number).unwrap(), at + 1, "{}", step.name);
        }
    }

    #[test]
    fn each_step_is_applied_once_and_views_see_new_columns() {
        let connection = Connection::open_in_memory().unwrap();
        let steps = steps(&[MORE]);
        assert_eq!(apply(&connection, MIGRATIONS).unwrap(), Applied { from: 0, to: NEWEST });
        assert_eq!(apply(&connection, &steps).unwrap(), Applied { from: NEWEST, to: NEXT });
        assert_eq!(apply(&connection, &steps).unwrap(), Applied { from: NEXT, to: NEXT });
        connection
            .execute_batch("select extra from sfpla.visitors; select a from sfpla.more")
            .unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_behind() {
        let connection = Connection::open_in_memory().unwrap();
        let broken = Migration { text: "create table half (a integer); create nonsense", ..MORE };
        apply(&connection, MIGRATIONS).unwrap();
        assert!(apply(&connection, &steps(&[broken])).is_err());
        assert!(connection.execute_batch("from half").is_err());
        assert_eq!(apply(&connection, MIGRATIONS).unwrap(), Applied { from: NEWEST, to: NEWEST });
    }

    #[test]
    fn a_file_newer_than_the_program_is_left_alone() {
        let connection = Connection::open_in_memory().unwrap();
        apply(&connection, &steps(&[MORE])).unwrap();
        connection.execute_batch("drop view sfpla.ips").unwrap();
        assert_eq!(apply(&connection, MIGRATIONS).unwrap(), Applied { from: NEXT, to: NEXT });
        assert!(connection.execute_batch("from sfpla.ips").is_err());
    }

    #[test]
    fn added_up_forms_stand_in_sfpla_under_the_name_of_the_table() {
        let connection = Connection::open_in_memory().unwrap();
        apply(&connection, MIGRATIONS).unwrap();
        connection
            .execute_batch(
                "insert into counters values ('a', 1, '2026-01-01'), ('a', 2, '2026-01-02')",
            )
            .unwrap();
        let total: i64 = connection
            .query_row("select total from sfpla.counters where id = 'a'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(total, 3);
    }
}
