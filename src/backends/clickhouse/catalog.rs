//! What the server says of its tables and settings, and what that lets a sink promise.
//!
//! Read when the sink connects, and again when the server finds a table other than it was described.
//! Exactly once rests on three things, each of which an operator can take away: the settings of the
//! insert, a deduplication window in the table, and one in the target of each materialized view over
//! it. What is missing is said in `/health`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::adopt::table_after;
use super::encode::Layout;
use super::fault::{About, Fault, about};
use super::schema;
use super::transport::{Question, Transport};
use crate::backends::{Guarantee, Rows};
use crate::tables;

/// Settings of every insert: without them a repeat could be visible.
const REQUIRED: &[(&str, &str)] = &[
    // An asynchronous insert is answered and deduplicated by other rules.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    // A view that fails must fail the insert, or its table lacks rows for good.
    ("materialized_views_ignore_errors", "0"),
];

/// Settings without which values would change: the server infers dates from texts within JSON.
const MEANING: &[(&str, &str)] = &[
    ("input_format_try_infer_dates", "0"),
    ("input_format_try_infer_datetimes", "0"),
    ("input_format_native_allow_types_conversion", "1"),
];

/// Settings where a table is spread over shards: answered when the shards have it.
const SPREAD: &[(&str, &str)] = &[("distributed_foreground_insert", "1")];

/// After so many seconds the server gives an insert up. Without it one that distributes waits without
/// end for a replica that cannot be written to, and its repeat is refused for as long.
const DEADLINE: &str = "max_execution_time";

/// Tokens that a table takes in a second at most, for windows that count inserts: one of each of
/// several trackers, some of which have several partitions.
const INSERTS_PER_SECOND: u64 = 16;

/// How long a table remembers the token of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// Not at all.
    None,
    /// For so many inserts to come, over restarts of the server.
    Inserts(u64),
    /// In Keeper, where token and rows are written at once: for so many inserts to come, and for so
    /// many seconds at most.
    Keeper {
        /// Inserts to come.
        inserts: u64,
        /// Seconds.
        seconds: u64,
    },
}

impl Window {
    /// For how long the token of an insert is surely known; 0 for none.
    pub(super) fn known_seconds(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Inserts(inserts) => inserts / INSERTS_PER_SECOND,
            // Half of it: there are two clocks, and the repeat itself takes time.
            Self::Keeper { inserts, seconds } => (seconds / 2).min(inserts / INSERTS_PER_SECOND),
        }
    }
}

/// One table as the server has it.
pub(super) struct Described {
    /// How it is written; what stands in the way, in words.
    pub(super) layout: Result<Layout, String>,
    /// Where its rows are looked for, as `from` names it: every replica where there are some, because
    /// one of them may not have yet what another has stored.
    pub(super) everywhere: String,
    /// Its rows are on several servers, which `everywhere` asks.
    pub(super) is_spread: bool,
    /// How long it remembers tokens.
    pub(super) window: Window,
    /// What a repeat of a batch does.
    pub(super) guarantee: Guarantee,
}

impl Described {
    fn absent(name: &str) -> Self {
        Self {
            layout: Err("it does not exist".to_owned()),
            everywhere: String::new(),
            is_spread: false,
            window: Window::None,
            guarantee: Guarantee::AtLeastOnce(format!("{name} does not exist")),
        }
    }
}

/// The tables of one database.
pub(super) struct Catalog {
    tables: HashMap<&'static str, Described>,
    /// The settings that inserts are sent with.
    pub(super) settings: Vec<Setting>,
}

/// A name and a value.
pub(super) type Setting = (&'static str, Cow<'static, str>);

/// What `system.tables` says of a table.
struct Found {
    engine: String,
    /// The engine with its arguments and settings.
    full: String,
    partition_key: String,
}

impl Catalog {
    /// One of `events` alone, as `layout` has it.
    #[cfg(test)]
    pub(super) fn of(layout: Layout) -> Self {
        let guarantee = Guarantee::ExactlyOnce;
        let described = Described { layout: Ok(layout), guarantee, ..Described::absent("events") };
        Self { tables: HashMap::from([("events", described)]), settings: Vec::new() }
    }

    /// Asks the server about `database`, whose inserts may take `insert_time_max` there.
    ///
    /// # Errors
    /// As [`Fault`] says.
    pub(super) async fn read(
        transport: &Transport,
        database: &str,
        insert_time_max: Duration,
    ) -> Result<Self, Fault> {
        let parameters = [("database", database)];
        let sql = "select table, name, type from system.columns where database = {database:String}";
        let mut types: HashMap<String, HashMap<String, String>> = HashMap::new();
        for [table, name, data_type] in texts(&transport.rows(sql, &parameters).await?) {
            types.entry(table).or_default().insert(name, data_type);
        }
        let sql = "select name, engine, engine_full, partition_key from system.tables \
                   where database = {database:String}";
        let mut found = HashMap::new();
        for [name, engine, full, partition_key] in texts(&transport.rows(sql, &parameters).await?) {
            found.insert(name, Found { engine, full, partition_key });
        }
        let sql = "select name, value from system.merge_tree_settings \
                   where name like '%replicated_deduplication_window%'";
        let standard: HashMap<String, String> =
            texts(&transport.rows(sql, &[]).await?).map(|[name, value]| (name, value)).collect();
        let views = views(transport, database).await?;
        let cluster = found.values().find_map(Found::distributes_over).map(|(cluster, _)| cluster);
        let narrow = match cluster {
            Some(cluster) => narrow(transport, cluster).await?,
            None => None,
        };
        let (settings, refused) = settings(transport, cluster.is_some(), insert_time_max).await?;

        let mut tables = HashMap::new();
        for &table in tables::ALL {
            let name = table.name();
            let own = match (found.get(name), types.get(name)) {
                (Some(own), Some(types)) => Some((own, types)),
                _ => None,
            };
            let Some((own, types)) = own else {
                tables.insert(name, Described::absent(name));
                continue;
            };
            let part = own.part(&found);
            let window = part.window(&standard);
            let layout = Layout::new(table, types, &part.partition_key);
            let doubt = refused
                .clone()
                .or_else(|| own.doubt(name))
                .or_else(|| own.distributes_over().and(narrow.clone()))
                .or_else(|| (window == Window::None).then(|| no_window(name)))
                .or_else(|| {
                    let targets = views.iter().filter(|(source, _)| source == name);
                    let forgets = |target: &str| {
                        let table = found.get(target).map(|table| table.part(&found));
                        table.is_some_and(|table| table.window(&standard) == Window::None)
                    };
                    targets
                        .map(|(_, target)| target)
                        .find(|target| forgets(target))
                        .map(|name| no_window(name))
                });
            let guarantee = doubt.map_or(Guarantee::ExactlyOnce, Guarantee::AtLeastOnce);
            let spread = own.distributes_over().filter(|_| narrow.is_none());
            let everywhere = spread.map_or_else(
                || format!("`{database}`.`{name}`"),
                |(on, part)| format!("clusterAllReplicas('{on}', '{database}', '{part}')"),
            );
            let is_spread = spread.is_some();
            let described = Described { layout, everywhere, is_spread, window, guarantee };
            tables.insert(name, described);
        }
        Ok(Self { tables, settings })
    }

    /// The table of that name; there is one for each of [`tables::ALL`].
    pub(super) fn table(&self, name: &str) -> Option<&Described> {
        self.tables.get(name)
    }

    /// Every table that cannot be written, and why.
    pub(super) fn unfit(&self) -> Option<String> {
        let mut unfit: Vec<String> = self
            .tables
            .iter()
            .filter_map(|(name, table)| Some(format!("{name}: {}", table.layout.as_ref().err()?)))
            .collect();
        unfit.sort();
        (!unfit.is_empty()).then(|| unfit.join("; "))
    }
}

fn no_window(table: &str) -> String {
    format!("{table} has no deduplication window (tracker migrate sets one)")
}

impl Found {
    /// The cluster, and the table on each of its servers, that this one distributes over.
    fn distributes_over(&self) -> Option<(&str, &str)> {
        let arguments = self.full.strip_prefix("Distributed(")?;
        let mut arguments = arguments
            .split(',')
            .map(|argument| argument.trim().trim_end_matches(')').trim_matches('\''));
        Some((arguments.next()?, arguments.nth(1)?))
    }

    /// The table that rows of this one are stored in.
    fn part<'f>(&'f self, all: &'f HashMap<String, Self>) -> &'f Self {
        self.distributes_over().and_then(|(_, part)| all.get(part)).unwrap_or(self)
    }

    fn window(&self, standard: &HashMap<String, String>) -> Window {
        let setting = |name: &str| {
            let own = self.full.split(&format!(" {name} = ")).nth(1);
            let own = own.map(|rest| rest.split([',', ' ']).next().unwrap_or(rest));
            own.or_else(|| standard.get(name).map(String::as_str))?.parse::<u64>().ok()
        };
        let number = |name: &str| setting(name).unwrap_or(0);
        if !self.engine.ends_with("MergeTree") {
            return Window::None;
        }
        if !self.engine.starts_with("Replicated") {
            let inserts = number("non_replicated_deduplication_window");
            return if inserts > 0 { Window::Inserts(inserts) } else { Window::None };
        }
        let seconds = number("replicated_deduplication_window_seconds");
        match number("replicated_deduplication_window") {
            0 => Window::None,
            inserts => Window::Keeper { inserts, seconds },
        }
    }

    /// What else keeps a repeat from being recognised.
    fn doubt(&self, name: &str) -> Option<String> {
        let is_random = self.engine == "Distributed" && self.full.contains("rand()");
        is_random.then(|| format!("{name} is spread by rand(), so a repeat may meet another shard"))
    }
}

/// Materialized views of the database, as (source, target).
async fn views(transport: &Transport, database: &str) -> Result<Vec<(String, String)>, Fault> {
    let sql = "select create_table_query, toString(uuid) from system.tables \
               where database = {database:String} and engine = 'MaterializedView'";
    let rows = transport.rows(sql, &[("database", database)]).await?;
    let view = |[sql, id]: [String; 2]| {
        let target =
            table_after(&sql, " TO ").map_or_else(|| format!(".inner_id.{id}"), str::to_owned);
        let select = sql.get(sql.find(" AS ").unwrap_or(0)..)?;
        // What is distributed is fed through its parts.
        let source = schema::whole_of(table_after(select, "FROM ")?).to_owned();
        Some((source, target))
    };
    Ok(texts(&rows).filter_map(view).collect())
}

/// The settings that inserts may be sent with, and what a refused one takes away.
async fn settings(
    transport: &Transport,
    is_spread: bool,
    insert_time_max: Duration,
) -> Result<(Vec<Setting>, Option<String>), Fault> {
    let spread = if is_spread { SPREAD } else { &[] };
    let fixed = |&(name, value): &(&'static str, &'static str)| (name, Cow::Borrowed(value));
    let mut wanted: Vec<Setting> =
        REQUIRED.iter().chain(spread).chain(MEANING).map(fixed).collect();
    let required = wanted.len() - MEANING.len();
    let seconds = insert_time_max.as_secs_f64().ceil();
    wanted.push((DEADLINE, seconds.to_string().into()));
    if may_set(transport, &wanted).await? {
        return Ok((wanted, None));
    }
    let (mut settings, mut refused) = (Vec::new(), None);
    for (at, setting) in wanted.into_iter().enumerate() {
        let (name, value) = &setting;
        if may_set(transport, std::slice::from_ref(&setting)).await? {
            settings.push(setting);
        } else if refused.is_none() && at < required {
            let sql = "select value from system.settings where name = {name:String}";
            let rows = transport.rows(sql, &[("name", name)]).await?;
            let has = texts(&rows).any(|[found]: [String; 1]| found == *value);
            refused = (!has).then(|| format!("the server does not let us set {name} = {value}"));
        }
    }
    Ok((settings, refused))
}

/// Goes along where replicas are asked one by one: those that are away are left out.
pub(super) const AWAY: &[(&str, &str)] = &[("skip_unavailable_shards", "1")];

/// Why not every replica of the cluster can be asked, in words.
async fn narrow(transport: &Transport, cluster: &str) -> Result<Option<String>, Fault> {
    let sql = format!("select 1 from clusterAllReplicas('{cluster}', system.one) limit 1");
    match transport.rows_with(&sql, AWAY).await {
        Ok(_) => Ok(None),
        Err(Fault::Refused { message, .. }) => {
            Ok(Some(format!("the replicas of {cluster} cannot be asked one by one: {message}")))
        }
        Err(fault) => Err(fault),
    }
}

async fn may_set(transport: &Transport, settings: &[Setting]) -> Result<bool, Fault> {
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, &**value)).collect();
    let asked = transport.rows_with("select 1", &settings).await;
    match asked {
        Ok(_) => Ok(true),
        Err(fault) if about(fault.code()) == About::Setting => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Rows of so many texts; others are left out.
fn texts<const N: usize>(rows: &Rows) -> impl Iterator<Item = [String; N]> {
    rows.rows.iter().filter_map(|row| {
        let texts: Option<Vec<String>> =
            row.iter().map(|cell| cell.as_str().map(str::to_owned)).collect();
        texts?.try_into().ok()
    })
}

/// A number of an answer, which may stand as a text.
pub(super) fn number(value: Option<&Value>) -> Option<f64> {
    let value = value?;
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Asked where a moment of the machine matters.
pub(super) const UPTIME: Question<'static> = Question {
    sql: "select value from system.asynchronous_metrics where metric = 'OSUptime'",
    parameters: &[],
    settings: &[],
    time_max: Duration::from_secs(5),
};

#[cfg(test)]
mod tests {
    use super::*;

    fn found(engine: &str, arguments: &str) -> Found {
        let full = format!("{engine}{arguments}");
        Found { engine: engine.to_owned(), full, partition_key: String::new() }
    }

    #[test]
    fn what_distributes_names_its_cluster_and_its_parts() {
        let spread = found("Distributed", "('c1', 'sfpla', 'events_local', cityHash64(eid))");
        assert_eq!(spread.distributes_over(), Some(("c1", "events_local")));
        let fed = found("Distributed", "('c1', 'sfpla', 'hits_local')");
        assert_eq!(fed.distributes_over(), Some(("c1", "hits_local")));
        assert_eq!(found("MergeTree", " ORDER BY a").distributes_over(), None);
    }

    #[test]
    fn a_window_in_keeper_ends_after_inserts_or_after_seconds_whichever_is_first() {
        let standard = HashMap::from([
            ("replicated_deduplication_window".to_owned(), "10000".to_owned()),
            ("replicated_deduplication_window_seconds".to_owned(), "3600".to_owned()),
        ]);
        let window = |settings: &str| {
            let arguments = format!("('/path', 'r') ORDER BY a SETTINGS {settings}x = 1");
            found("ReplicatedMergeTree", &arguments).window(&standard)
        };
        assert_eq!(window(""), Window::Keeper { inserts: 10_000, seconds: 3600 });
        assert_eq!(window("replicated_deduplication_window = 0, "), Window::None);
        let week = window("replicated_deduplication_window_seconds = 604800, ");
        assert_eq!(week, Window::Keeper { inserts: 10_000, seconds: 604_800 });
        assert_eq!(week.known_seconds(), 625);
        assert_eq!(window("replicated_deduplication_window = 1000000, ").known_seconds(), 1800);
        assert_eq!(Window::Inserts(10_000).known_seconds(), 625);
    }
}
