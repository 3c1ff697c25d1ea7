//! Brings a database to this program's schema: a new one at first start, others when
//! `tracker migrate` asks for it.
//!
//! Every statement makes what is not there, so an interrupted run is simply run again, and two
//! programs may do it at once. `schema_version` is made first and says how far it got; a database
//! that has our tables but not that one is another program's (`adopt`).
//!
//! Never done: dropping, renaming, or replacing a view that is not ours.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::adopt::{self, Remarks};
use super::fault::Fault;
use super::schema::{self, Form, Kind, MARK, STEPS, Statement, VIEWS};
use super::transport::{Question, Transport};
use crate::config::ClickHouseConfig;

/// Longest wait for one statement: a cluster gives its servers three minutes.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(200);

/// Name under which `schema_version` keeps the checksum of the views.
const VIEWS_NAME: &str = "views";

/// How a database stands to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepared {
    /// As this program needs it, or newer.
    Current,
    /// Ours, and older: `tracker migrate` brings it up.
    Older {
        /// Its schema number.
        from: i32,
        /// This program's.
        to: i32,
    },
    /// It has tables of our names that this program did not make: `tracker migrate` says what fits.
    Foreign,
}

/// What was done to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Schema number before; 0 for an empty or foreign database.
    pub from: i32,
    /// Schema number now.
    pub to: i32,
    /// What was added to tables that were there, and what does not fit.
    pub remarks: Remarks,
}

/// A table or view that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// The engine's name.
    pub(super) engine: String,
    /// The engine with arguments, keys, settings.
    pub(super) full: String,
    /// The statement that makes it.
    pub(super) made_by: String,
    /// The sorting key.
    pub(super) order: String,
    /// Its comment.
    pub(super) comment: String,
    /// Materialized views that read it.
    pub(super) read_by: Vec<String>,
}

/// What is in the database, by name.
pub(super) type Catalog = BTreeMap<String, Present>;

/// The table that has the rows of `name`, and its name: one server's part where it is distributed.
pub(super) fn stored<'c>(name: &str, catalog: &'c Catalog) -> Option<(&'c str, &'c Present)> {
    let found = catalog.get_key_value(&schema::part_of(name));
    let (name, present) = found.or_else(|| catalog.get_key_value(name))?;
    Some((name.as_str(), present))
}

/// The database of one configuration, and how its statements are run.
pub(super) struct Database<'a> {
    transport: &'a Transport,
    /// How the schema is made there.
    pub(super) form: Form<'a>,
    retention_days: Option<u32>,
}

/// Makes the schema where there is none, and looks how it stands where there is one.
///
/// # Errors
/// When a server cannot be asked, or refuses.
pub(super) async fn prepare(
    transport: &Transport,
    config: &ClickHouseConfig,
) -> Result<Prepared, Fault> {
    let database = Database::of(transport, config);
    let catalog = database.catalog().await?;
    match state(&catalog, database.version(&catalog).await?) {
        State::New => database.bring_up().await.map(|_| Prepared::Current),
        State::Foreign => Ok(Prepared::Foreign),
        State::At(from) if from < newest() => Ok(Prepared::Older { from, to: newest() }),
        State::At(at) => {
            if at == newest() && database.views_applied().await? != Some(checksum(VIEWS)) {
                database.make_views(&catalog, &mut Remarks::default()).await?;
            }
            database.keep_retention(&catalog, &mut Remarks::default()).await?;
            Ok(Prepared::Current)
        }
    }
}

/// Makes what is missing, and says what was done and what does not fit.
///
/// # Errors
/// When a server cannot be asked, or refuses.
pub(super) async fn migrate(
    transport: &Transport,
    config: &ClickHouseConfig,
) -> Result<Migrated, Fault> {
    Database::of(transport, config).bring_up().await
}

/// Every statement that makes the schema of an empty database, in order.
pub(super) fn statements(config: &ClickHouseConfig) -> Vec<String> {
    let form = Form { database: &config.database, cluster: config.cluster.as_deref() };
    let texts = STEPS.iter().map(|step| step.text).chain([VIEWS]);
    let made = texts.flat_map(schema::statements).flat_map(|statement| statement.render(form));
    let versions = STEPS.iter().map(|step| version_row(step.number, step.name, step.text));
    [schema::database(form), format!("use `{}`", form.database)]
        .into_iter()
        .chain(made)
        .chain(versions)
        .chain([version_row(0, VIEWS_NAME, VIEWS), NAME_STORE.to_owned()])
        .collect()
}

fn version_row(number: i32, name: &str, text: &str) -> String {
    let checksum = checksum(text);
    format!("insert into schema_version select {number}, '{name}', {checksum}, now64(3, 'UTC')")
}

/// Gives the store the name by which delivery knows it, once.
const NAME_STORE: &str = "insert into store_identity select generateUUIDv4(), now64(3, 'UTC') \
                          where (select count() from store_identity) = 0";

enum State {
    New,
    Foreign,
    At(i32),
}

/// A database whose first steps were interrupted counts as new.
fn state(catalog: &Catalog, version: Option<i32>) -> State {
    match version {
        Some(0) => State::New,
        Some(version) => State::At(version),
        None if is_of_another(catalog) => State::Foreign,
        None => State::New,
    }
}

fn is_of_another(catalog: &Catalog) -> bool {
    files().any(|statement| stored(statement.name, catalog).is_some())
}

/// Every statement of the numbered files.
pub(super) fn files() -> impl Iterator<Item = Statement<'static>> {
    STEPS.iter().flat_map(|step| schema::statements(step.text))
}

fn newest() -> i32 {
    STEPS.last().map_or(0, |step| step.number)
}

fn checksum(text: &str) -> u32 {
    crc32c::crc32c(text.as_bytes())
}

impl<'a> Database<'a> {
    /// The database that `config` names.
    pub(super) fn of(transport: &'a Transport, config: &'a ClickHouseConfig) -> Self {
        let form = Form { database: &config.database, cluster: config.cluster.as_deref() };
        Self { transport, form, retention_days: config.retention_days }
    }

    /// Runs one statement in the database.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Fault> {
        let settings = [
            ("database", self.form.database),
            // What is inserted through a distributed table is there when it is answered.
            ("insert_distributed_sync", "1"),
            // What writes parts anew may take hours; who needs its end looks for it.
            ("mutations_sync", "0"),
        ];
        self.transport.execute_within(sql, &settings, STATEMENT_TIME_MAX).await
    }

    /// The rows of a question about the database, whose name is its parameter `database`.
    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Vec<Value>>, Fault> {
        let parameters = [("database", self.form.database)];
        Ok(self.transport.rows(sql, &parameters).await?.rows)
    }

    /// The rows of a question that reads much.
    pub(super) async fn ask_at_length(&self, sql: &str) -> Result<Vec<Vec<Value>>, Fault> {
        let question =
            Question { sql, parameters: &[], settings: &[], time_max: STATEMENT_TIME_MAX };
        Ok(self.transport.rows_of(question).await?.rows)
    }

    /// What is there.
    pub(super) async fn catalog(&self) -> Result<Catalog, Fault> {
        let sql = "select name, engine, engine_full, create_table_query, sorting_key, comment, \
                   dependencies_table from system.tables where database = {database:String}";
        let rows = self.ask(sql).await?;
        let present = |row: Vec<Value>| {
            let mut cells = row.into_iter();
            let mut text = || match cells.next() {
                Some(Value::String(text)) => text,
                _ => String::new(),
            };
            let name = text();
            let mut present = Present {
                engine: text(),
                full: text(),
                made_by: text(),
                order: text(),
                comment: text(),
                read_by: Vec::new(),
            };
            let readers = cells.next().and_then(|cell| cell.as_array().cloned());
            let readers = readers.unwrap_or_default();
            present.read_by = readers.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            (name, present)
        };
        Ok(rows.into_iter().map(present).collect())
    }

    /// The newest file that was applied; `None` where no file ever was, nor begun.
    async fn version(&self, catalog: &Catalog) -> Result<Option<i32>, Fault> {
        if !catalog.contains_key("schema_version") {
            return Ok(None);
        }
        let sql = format!("select max(number) from `{}`.schema_version", self.form.database);
        let version = self.ask(&sql).await?;
        let version = version.first().and_then(|row| row.first()).and_then(Value::as_i64);
        Ok(Some(version.and_then(|version| i32::try_from(version).ok()).unwrap_or(0)))
    }

    async fn views_applied(&self) -> Result<Option<u32>, Fault> {
        let sql = format!(
            "select argMax(checksum, applied_at) from `{}`.schema_version where name = \
             '{VIEWS_NAME}'",
            self.form.database
        );
        let found = self.ask(&sql).await?;
        let found = found.first().and_then(|row| row.first()).and_then(Value::as_u64);
        Ok(found.and_then(|found| u32::try_from(found).ok()))
    }

    async fn bring_up(&self) -> Result<Migrated, Fault> {
        self.transport
            .execute_within(&schema::database(self.form), &[], STATEMENT_TIME_MAX)
            .await?;
        let catalog = self.catalog().await?;
        let from = self.version(&catalog).await?.unwrap_or(0);
        if from > newest() {
            return Ok(Migrated { from, to: from, remarks: Remarks::default() });
        }
        let mut remarks = Remarks::default();
        for step in STEPS {
            for statement in schema::statements(step.text) {
                self.make(&statement, &catalog, &mut remarks).await?;
            }
            if step.number > from {
                self.record(step.number, step.name, step.text).await?;
            }
        }
        adopt::guard_readers(self, &catalog, &mut remarks).await?;
        self.make_views(&catalog, &mut remarks).await?;
        self.keep_retention(&self.catalog().await?, &mut remarks).await?;
        self.run(NAME_STORE).await?;
        Ok(Migrated { from, to: newest(), remarks })
    }

    /// Makes a table or a feed, unless it is there: then what it lacks is added.
    async fn make(
        &self,
        statement: &Statement<'_>,
        catalog: &Catalog,
        remarks: &mut Remarks,
    ) -> Result<(), Fault> {
        let name = statement.name;
        match statement.kind {
            Kind::Table if stored(name, catalog).is_some() => {
                adopt::complement(self, statement, catalog, remarks).await
            }
            Kind::Feed if catalog.contains_key(name) => Ok(()),
            Kind::Feed if adopt::is_fed(statement, catalog, remarks) => Ok(()),
            Kind::Table | Kind::Feed | Kind::View => {
                for sql in statement.render(self.form) {
                    self.run(&sql).await?;
                }
                Ok(())
            }
        }
    }

    /// Makes the views, or makes them anew; another program's are kept.
    async fn make_views(&self, catalog: &Catalog, remarks: &mut Remarks) -> Result<(), Fault> {
        for view in schema::statements(VIEWS) {
            let name = view.name;
            if catalog.get(name).is_some_and(|present| present.comment != MARK) {
                remarks
                    .notes
                    .push(format!("{name}: kept as it is; this program would make it otherwise"));
                continue;
            }
            for sql in view.render(self.form) {
                match self.run(&sql).await {
                    // A view over columns of other types than ours.
                    Err(Fault::Refused { message, .. }) if is_of_another(catalog) => {
                        remarks.unfit.push(format!("{name}: not made: {message}"));
                    }
                    done => done?,
                }
            }
        }
        self.record(0, VIEWS_NAME, VIEWS).await
    }

    async fn record(&self, number: i32, name: &str, text: &str) -> Result<(), Fault> {
        self.run(&version_row(number, name, text)).await
    }

    /// Makes rows go when they are as old as the configuration says; another program's rule stays.
    async fn keep_retention(&self, catalog: &Catalog, remarks: &mut Remarks) -> Result<(), Fault> {
        for table in files().filter(|statement| statement.kind == Kind::Table) {
            let Some(column) = table.retention else { continue };
            let Some((kept_in, present)) = stored(table.name, catalog) else { continue };
            let Some(change) = retention_change(present, column, self.retention_days) else {
                continue;
            };
            let name = format!("`{kept_in}`{}", self.form.on());
            match change {
                Change::Set(rule) => {
                    self.run(&format!("alter table {name} modify ttl {rule}")).await?;
                    // A month of which a part is too old is written anew; once a day is enough.
                    let setting = "modify setting merge_with_ttl_timeout = 86400";
                    self.run(&format!("alter table {name} {setting}")).await?;
                }
                Change::Remove => self.run(&format!("alter table {name} remove ttl")).await?,
                Change::Another(rule) => {
                    remarks.notes.push(format!("{}: keeps its own retention, {rule}", table.name));
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set(String),
    Remove,
    Another(String),
}

/// What to do so that rows go after `days`, counted from `column`; `None`: nothing.
fn retention_change(present: &Present, column: &str, days: Option<u32>) -> Option<Change> {
    let head = format!("toDateTime({column}) + toIntervalDay(");
    let wanted = days.map(|days| format!("{head}{days})"));
    let found = present.full.split_once(" TTL ").map(|(_, rest)| {
        rest.split_once(" SETTINGS ").map_or(rest, |(rule, _)| rule).trim().to_owned()
    });
    match (found, wanted) {
        (None, None) => None,
        (Some(found), Some(wanted)) if found == wanted => None,
        (Some(found), _) if !found.starts_with(&head) => Some(Change::Another(found)),
        (_, Some(wanted)) => Some(Change::Set(wanted)),
        (Some(_), None) => Some(Change::Remove),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_by_one_from_one() {
        for (at, step) in STEPS.iter().enumerate() {
            assert_eq!(usize::try_from(step.number).unwrap(), at + 1, "{}", step.name);
        }
    }

    #[test]
    fn a_retention_is_changed_only_where_it_differs_and_is_ours() {
        let present = |full: &str| Present { full: full.to_owned(), ..Present::default() };
        let rule = |days| format!("toDateTime(created_at) + toIntervalDay({days})");
        let with = |days| present(&format!("X ORDER BY a TTL {} SETTINGS b = 1", rule(days)));
        let check = |present: &Present, days, expect| {
            assert_eq!(retention_change(present, "created_at", days), expect);
        };
        let none = present("X ORDER BY a SETTINGS b = 1");
        check(&none, None, None);
        check(&none, Some(30), Some(Change::Set(rule(30))));
        check(&with(30), Some(30), None);
        check(&with(30), Some(31), Some(Change::Set(rule(31))));
        check(&with(30), None, Some(Change::Remove));
        let other = present("X ORDER BY a TTL expires + toIntervalHour(1)");
        let expect = Change::Another("expires + toIntervalHour(1)".to_owned());
        check(&other, Some(30), Some(expect));
    }

    #[test]
    fn a_database_with_tables_of_our_names_and_no_version_is_of_another() {
        let catalog = |name: &str| Catalog::from([(name.to_owned(), Present::default())]);
        assert!(matches!(state(&Catalog::new(), None), State::New));
        assert!(matches!(state(&catalog("other"), None), State::New));
        assert!(matches!(state(&catalog("events"), None), State::Foreign));
        assert!(matches!(state(&catalog("events_local"), None), State::Foreign));
        assert!(matches!(state(&catalog("events"), Some(0)), State::New));
        assert!(matches!(state(&catalog("events"), Some(1)), State::At(1)));
    }
}
