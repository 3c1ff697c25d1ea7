//! Tables that were there before: what they lack is added, what does not fit is named.
//!
//! A database of the Go tracker has tables of our names, made for other habits. Its columns are
//! used where a value of ours can be written to them. Nothing is dropped, renamed or replaced, so
//! what cannot be mended by an addition is told the operator.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::encode::inside;
use super::fault::Fault;
use super::migrate::{Catalog, Database, Present, files, stored};
use super::schema::{self, Kind, MARK, Shape, Statement};

/// Settings of what is inserted into, on one server.
const SETTINGS: [(&str, &str); 3] = [
    ("non_replicated_deduplication_window", "10000"),
    ("fsync_after_insert", "1"),
    ("fsync_part_directory", "1"),
];

/// What a migration says to people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What was added, and what of another program's was left as it is.
    pub notes: Vec<String>,
    /// Where rows of ours cannot be stored, or are not kept whole; and views that could not be made.
    pub unfit: Vec<String>,
}

/// Adds to a table that is there what it lacks, and notes what does not fit.
///
/// # Errors
/// When a server cannot be asked, or refuses.
pub(super) async fn complement(
    database: &Database<'_>,
    statement: &Statement<'_>,
    catalog: &Catalog,
    remarks: &mut Remarks,
) -> Result<(), Fault> {
    let (name, shape) = (statement.name, statement.shape());
    let Some((kept_in, present)) = stored(name, catalog) else { return Ok(()) };
    if !present.engine.ends_with("MergeTree") {
        let engine = &present.engine;
        let words = format!("{name}: is a {engine}, which this program cannot write to safely");
        remarks.unfit.push(words);
        return Ok(());
    }
    let columns = columns(database, kept_in).await?;
    let mut added = Vec::new();
    for &(column, definition) in &shape.columns {
        match columns.get(column) {
            None => added.push((column, definition)),
            Some(found) if !takes(found, &schema::type_of(definition)) => {
                let ours = schema::type_of(definition);
                let words = format!("{name}.{column}: is {found}, which cannot hold our {ours}");
                remarks.unfit.push(words);
            }
            Some(_) => {}
        }
    }
    let storage = format!("`{kept_in}`{}", database.form.on());
    for (column, definition) in &added {
        let sql = format!("alter table {storage} add column if not exists `{column}` {definition}");
        database.run(&sql).await?;
    }
    add_indexes(database, kept_in, &storage, &shape).await?;
    if kept_in != name {
        add_to_twin(database, name, &shape).await?;
    }
    if !added.is_empty() {
        let names: Vec<&str> = added.iter().map(|(column, _)| *column).collect();
        remarks.notes.push(format!("{name}: added {}", names.join(", ")));
    }
    let has_window = statement.render(database.form).concat().contains(SETTINGS[0].0);
    if has_window && !present.engine.starts_with("Replicated") {
        set_window(database, &storage, present).await?;
    }
    let folds = folds_otherwise(name, &shape, present);
    // Where nothing is folded nothing is lost.
    match fold(&present.engine) {
        Fold::None => remarks.notes.extend(folds),
        Fold::Latest | Fold::Sum => remarks.unfit.extend(folds),
    }
    Ok(())
}

async fn columns(database: &Database<'_>, table: &str) -> Result<BTreeMap<String, String>, Fault> {
    let sql = format!(
        "select name, type from system.columns where database = {{database:String}} and table = \
         '{table}'"
    );
    Ok(pairs(&database.ask(&sql).await?))
}

fn pairs(rows: &[Vec<Value>]) -> BTreeMap<String, String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    rows.iter().filter_map(|row| Some((text(row.first())?, text(row.get(1))?))).collect()
}

async fn add_indexes(
    database: &Database<'_>,
    table: &str,
    storage: &str,
    shape: &Shape<'_>,
) -> Result<(), Fault> {
    let sql = format!(
        "select name, type from system.data_skipping_indices where database = {{database:String}} \
         and table = '{table}'"
    );
    let found = pairs(&database.ask(&sql).await?);
    for (index, definition) in &shape.indexes {
        if !found.contains_key(*index) {
            let add = format!("add index if not exists {index} {definition} granularity 1");
            database.run(&format!("alter table {storage} {add}")).await?;
        }
    }
    Ok(())
}

/// What distributes over a table shows its columns.
async fn add_to_twin(database: &Database<'_>, name: &str, shape: &Shape<'_>) -> Result<(), Fault> {
    let found = columns(database, name).await?;
    let on = database.form.on();
    for (column, definition) in &shape.columns {
        if !found.contains_key(*column) {
            let kind = schema::type_of(definition);
            let add = format!("add column if not exists `{column}` {kind}");
            database.run(&format!("alter table `{name}`{on} {add}")).await?;
        }
    }
    Ok(())
}

/// Lets a table remember the tokens of batches, and store what it answers for.
async fn set_window(
    database: &Database<'_>,
    storage: &str,
    present: &Present,
) -> Result<(), Fault> {
    // A window of zero is none; whoever chose not to sync keeps that.
    let is_none = |name: &str| {
        let has = |setting: &str| present.full.contains(setting);
        !has(&format!("{name} = ")) || name == SETTINGS[0].0 && has(&format!("{name} = 0"))
    };
    let lacks = |(name, _): &&(&str, &str)| is_none(name);
    let missing: Vec<String> =
        SETTINGS.iter().filter(lacks).map(|(name, value)| format!("{name} = {value}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    database.run(&format!("alter table {storage} modify setting {}", missing.join(", "))).await
}

/// How rows of one sorting key combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    None,
    Latest,
    Sum,
}

fn fold(engine: &str) -> Fold {
    match engine.trim_start_matches("Replicated") {
        engine if engine.starts_with("Replacing") => Fold::Latest,
        engine if engine.starts_with("MergeTree") => Fold::None,
        _ => Fold::Sum,
    }
}

/// Names the columns of a sorting key.
fn key(order: &str) -> BTreeSet<&str> {
    order
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect()
}

/// What a table does to rows that this program tells apart, or does not to those it does not.
fn folds_otherwise(name: &str, shape: &Shape<'_>, present: &Present) -> Option<String> {
    let (ours, theirs) = (fold(shape.engine), fold(&present.engine));
    let (own_key, found_key) = (key(shape.order), key(&present.order));
    // Our version column means that what is told again replaces; without one a row is one fact.
    let is_replaced = ours == Fold::Latest && shape.engine.contains('(');
    let engine = &present.engine;
    match (ours, theirs) {
        (Fold::Latest, Fold::None) if is_replaced => Some(format!(
            "{name}: is a {engine}; what is told again stays beside what was told before"
        )),
        (Fold::Latest, Fold::None) => {
            Some(format!("{name}: is a {engine}, so `final` is refused by it; leave it out"))
        }
        (Fold::Latest, Fold::Sum) => Some(format!(
            "{name}: is a {engine}; what is told again is added up, and our rows lose what tells \
             them apart"
        )),
        (Fold::Latest, Fold::Latest) if !own_key.is_subset(&found_key) && !is_replaced => {
            // A key that ends in an id of the row's own keeps rows apart as well.
            let row_ids = ["eid", "ingest_seq"];
            (!row_ids.iter().any(|id| found_key.contains(id))).then(|| {
                format!(
                    "{name}: keeps one row for each ({}), so rows that this program tells apart \
                     replace each other",
                    present.order
                )
            })
        }
        (Fold::Sum, Fold::None | Fold::Latest) => {
            Some(format!("{name}: is a {engine}, which does not add up what is counted"))
        }
        _ => None,
    }
}

/// Whether the target of one of our feeds has a feed already, or cannot be fed; notes which.
pub(super) fn is_fed(statement: &Statement<'_>, catalog: &Catalog, remarks: &mut Remarks) -> bool {
    let target = statement.target();
    let others = catalog
        .iter()
        .filter(|(_, present)| present.engine == "MaterializedView" && present.comment != MARK);
    let feeder = others
        .filter_map(|(name, present)| Some((name, target_of(present)?)))
        .find(|(_, fed)| schema::whole_of(fed) == target);
    if let Some((feeder, _)) = feeder {
        remarks.notes.push(format!(
            "{target}: is fed by {feeder}; with ours it would count twice, so ours was not made \
             (drop {feeder} and run this again to have ours)"
        ));
        return true;
    }
    stored(target, catalog).is_some_and(|(_, present)| !present.engine.ends_with("MergeTree"))
}

/// The table a materialized view writes to, without its database; `None` for one of its own.
fn target_of(present: &Present) -> Option<&str> {
    table_after(&present.made_by, " TO ")
}

/// The table that stands in a statement behind the first `word`, without its database.
pub(super) fn table_after<'s>(statement: &'s str, word: &str) -> Option<&'s str> {
    let (_, rest) = statement.split_once(word)?;
    let name = rest.split([' ', '\n', '(', ')']).next()?;
    Some(name.rsplit('.').next().unwrap_or(name).trim_matches('`'))
}

/// Lets the targets of other programs' materialized views over our facts remember tokens too: a
/// batch that comes again would be counted again there.
///
/// # Errors
/// When a server cannot be asked, or refuses.
pub(super) async fn guard_readers(
    database: &Database<'_>,
    catalog: &Catalog,
    remarks: &mut Remarks,
) -> Result<(), Fault> {
    let ours: BTreeSet<&str> = files().map(|statement| statement.name).collect();
    let facts = files().filter(|statement| statement.kind == Kind::Table);
    let names: BTreeSet<&str> = facts.map(|fact| fact.name).collect();
    let read = catalog.iter().filter(|(name, _)| names.contains(schema::whole_of(name)));
    let readers: BTreeSet<&String> = read.flat_map(|(_, present)| &present.read_by).collect();
    for reader in readers {
        let Some(view) = catalog.get(reader).filter(|view| view.comment != MARK) else { continue };
        let inner = inner_of(database, reader).await?;
        let target = target_of(view).map_or(inner, |target| Some(target.to_owned()));
        let Some(target) = target else { continue };
        let is_ours = ours.contains(schema::whole_of(&target));
        match catalog.get(&target) {
            Some(_) if is_ours => {}
            Some(present) if present.engine.starts_with("Replicated") => {}
            Some(present) if present.engine.ends_with("MergeTree") => {
                set_window(database, &format!("`{target}`"), present).await?;
            }
            _ => remarks.notes.push(format!(
                "{reader}: writes to {target}, where a batch that comes again would count twice"
            )),
        }
    }
    Ok(())
}

/// The table inside a materialized view that has no target.
async fn inner_of(database: &Database<'_>, view: &str) -> Result<Option<String>, Fault> {
    let sql = format!(
        "select concat('.inner_id.', toString(uuid)) from system.tables where database = \
         {{database:String}} and name = '{view}'"
    );
    let rows = database.ask(&sql).await?;
    let name = rows.first().and_then(|row| row.first()).and_then(Value::as_str);
    Ok(name.map(str::to_owned))
}

/// Whether a column of type `found` takes the values that our type `ours` has.
pub(super) fn takes(found: &str, ours: &str) -> bool {
    let (found, ours) = (family(found), family(ours));
    found == ours
        || matches!(
            (ours, found),
            (Family::Json, Family::Text)
                | (Family::Money, Family::Float)
                | (Family::Float, Family::Money)
                | (Family::Truth, Family::Whole)
        )
}

/// Types that hold the same values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Id,
    Text,
    Whole,
    Float,
    Money,
    Truth,
    Day,
    Moment,
    Json,
    Texts,
    Ids,
    Other,
}

fn family(kind: &str) -> Family {
    let kind = unwrapped(kind);
    let Some(item) = inside(kind, "Array") else { return family_of_one(kind) };
    match family_of_one(unwrapped(item)) {
        Family::Text => Family::Texts,
        Family::Id => Family::Ids,
        _ => Family::Other,
    }
}

/// The type inside of what says nothing about its values.
fn unwrapped(kind: &str) -> &str {
    let kind = inside(kind, "SimpleAggregateFunction")
        .and_then(|arguments| Some(arguments.split_once(',')?.1.trim()))
        .unwrap_or(kind);
    let kind = inside(kind, "LowCardinality").unwrap_or(kind);
    inside(kind, "Nullable").unwrap_or(kind)
}

fn family_of_one(kind: &str) -> Family {
    match kind.split('(').next().unwrap_or(kind) {
        "UUID" => Family::Id,
        "String" => Family::Text,
        "Bool" => Family::Truth,
        "Float32" | "Float64" => Family::Float,
        "Decimal" => Family::Money,
        "Date" | "Date32" => Family::Day,
        "DateTime" | "DateTime64" => Family::Moment,
        "JSON" | "Object" => Family::Json,
        name if name.trim_start_matches('U').starts_with("Int") => Family::Whole,
        _ => Family::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_takes_values_of_its_family() {
        for (found, ours, expect) in [
            ("String", "LowCardinality(String)", true),
            ("Float64", "Nullable(Decimal(18, 4))", true),
            ("Int64", "Nullable(Int64)", true),
            ("Int32", "UUID", false),
            ("UInt8", "Bool", true),
            ("String", "JSON(max_dynamic_paths = 0)", true),
            ("JSON", "JSON(max_dynamic_paths = 0)", true),
            ("String", "UUID", false),
            ("DateTime", "DateTime64(3, 'UTC')", true),
            ("Array(UUID)", "Array(String)", false),
            ("Array(LowCardinality(String))", "Array(String)", true),
            ("Array(Array(String))", "Array(String)", false),
            ("LowCardinality(Nullable(String))", "String", true),
            ("SimpleAggregateFunction(min, DateTime64(3, 'UTC'))", "DateTime64(3, 'UTC')", true),
            ("SimpleAggregateFunction(anyLast, Nullable(UUID))", "UUID", true),
            ("SimpleAggregateFunction(sum, UInt64)", "String", false),
        ] {
            assert_eq!(takes(found, ours), expect, "{ours} into {found}");
        }
    }

    #[test]
    fn a_table_that_folds_otherwise_is_named() {
        let note = |name: &str, engine: &str, order: &str| {
            let statement = files().find(|statement| statement.name == name).unwrap();
            let present = Present {
                engine: engine.to_owned(),
                order: order.to_owned(),
                ..Present::default()
            };
            folds_otherwise(name, &statement.shape(), &present).unwrap_or_default()
        };
        assert!(note("events", "MergeTree", "created_at, eid").contains("`final` is refused"));
        assert_eq!(note("events", "ReplacingMergeTree", "created_at, eid"), "");
        assert!(note("ltv", "SummingMergeTree", "hhash, id, id_type").contains("added up"));
        assert_eq!(note("payments", "ReplicatedReplacingMergeTree", "oid, org, id"), "");
        assert!(note("payments", "MergeTree", "oid, org, id").contains("told again stays"));
        let key = "oid, org, tid, day, variant_id";
        assert!(note("impression_daily", "ReplacingMergeTree", key).contains("one row for each"));
        assert_eq!(note("hits", "SummingMergeTree", "hhash, url, date"), "");
        assert!(note("hits", "MergeTree", "hhash, url, date").contains("does not add up"));
    }

    #[test]
    fn the_target_of_a_view_is_read_from_its_statement() {
        let view = |made_by: &str| Present { made_by: made_by.to_owned(), ..Present::default() };
        let made = "CREATE MATERIALIZED VIEW a.b TO a.hits_local (`x` UUID) AS SELECT x FROM a.c";
        assert_eq!(target_of(&view(made)), Some("hits_local"));
        assert_eq!(target_of(&view("CREATE MATERIALIZED VIEW a.b (`x` UUID) AS SELECT x")), None);
    }
}
