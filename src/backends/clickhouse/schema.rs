//! The text of `schema/clickhouse/`: its statements, and the form each takes for one server or for
//! a cluster.
//!
//! The files are SQL for one server, read line by line; what this reader expects of them is tested.
//! A statement ends with `;` at the end of a line. Before a table, `-- shard by <expression>` says
//! how a cluster distributes what is inserted (without it the table is fed by a view alone), and
//! `-- retention by <column>` which moment the age of a row is counted from.
//!
//! On a cluster `X` becomes `X_local` with a replicated engine, and `X` distributes over it. Feeds
//! work within a server, from `X_local` to `Y_local`; views read what is distributed.

use std::borrow::Cow;

/// One numbered file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Order, and what `schema_version` keeps.
    pub(super) number: i32,
    /// What it does, as in the file's name.
    pub(super) name: &'static str,
    /// The statements.
    pub(super) text: &'static str,
}

/// Every numbered file in order. They are never edited after a release: a test keeps hashes.
pub(super) const STEPS: &[Step] = &[
    Step {
        number: 1,
        name: "core",
        text: include_str!("../../../schema/clickhouse/0001_core.sql"),
    },
    Step {
        number: 2,
        name: "derived",
        text: include_str!("../../../schema/clickhouse/0002_derived.sql"),
    },
];

/// The views, applied again when they changed.
pub(super) const VIEWS: &str = include_str!("../../../schema/clickhouse/views.sql");

/// What a view of ours is commented with, so that one of another program is never replaced.
pub(super) const MARK: &str = "made by tracker";

/// Entries a replicated table's deduplication window is kept for: an outage of a week.
const WINDOW_SECONDS: u32 = 7 * 24 * 3600;

/// How the schema is made: on one server, or on a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'c> {
    /// The database; an identifier.
    pub(super) database: &'c str,
    /// The cluster's name; `None` = one server.
    pub(super) cluster: Option<&'c str>,
}

impl Form<'_> {
    /// What a statement that changes the schema says behind the name; nothing for one server.
    pub(super) fn on(self) -> String {
        self.cluster.map_or(String::new(), |cluster| format!(" on cluster '{cluster}'"))
    }
}

/// What the name of a table has at its end where the table is one server's part of a distributed one.
const PART: &str = "_local";

/// The name of one server's part of the distributed table `name`.
pub(super) fn part_of(name: &str) -> String {
    format!("{name}{PART}")
}

/// The name of the table that `name` is, or is a part of.
pub(super) fn whole_of(name: &str) -> &str {
    name.strip_suffix(PART).unwrap_or(name)
}

/// What a statement makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A table.
    Table,
    /// A materialized view, which feeds a table.
    Feed,
    /// A view.
    View,
}

/// One statement of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement<'t> {
    /// What it makes.
    pub(super) kind: Kind,
    /// The name of what it makes.
    pub(super) name: &'t str,
    /// Its text, without comments before it and without the end mark.
    text: &'t str,
    shard: Option<&'t str>,
    /// The column from which the age of a row is counted, where rows may grow too old.
    pub(super) retention: Option<&'t str>,
}

/// A table as its statement describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shape<'t> {
    /// Names and types, with codecs.
    pub(super) columns: Vec<(&'t str, &'t str)>,
    /// Names and definitions of skip indexes.
    pub(super) indexes: Vec<(&'t str, &'t str)>,
    /// The engine with its arguments.
    pub(super) engine: &'t str,
    /// The sorting key.
    pub(super) order: &'t str,
}

/// The statements of a file; a text that starts none is left out, which a test sees.
pub(super) fn statements(text: &str) -> Vec<Statement<'_>> {
    text.split_inclusive(";\n").filter_map(statement).collect()
}

fn statement(text: &str) -> Option<Statement<'_>> {
    let mut rest = text.trim_start();
    let (mut shard, mut retention) = (None, None);
    while let Some(comment) = rest.strip_prefix("--") {
        let (line, after) = comment.split_once('\n')?;
        shard = line.strip_prefix(" shard by ").or(shard);
        retention = line.strip_prefix(" retention by ").or(retention);
        rest = after.trim_start();
    }
    let kinds = [
        ("create table if not exists ", Kind::Table),
        ("create materialized view if not exists ", Kind::Feed),
        ("create or replace view ", Kind::View),
    ];
    let (head, kind) = kinds.into_iter().find(|(head, _)| rest.starts_with(head))?;
    let name = rest.strip_prefix(head)?.split(' ').next()?;
    Some(Statement { kind, name, text: rest.trim_end().trim_end_matches(';'), shard, retention })
}

impl<'t> Statement<'t> {
    /// The statements that make it in `form`, to be run in order in the form's database.
    pub(super) fn render(&self, form: Form<'_>) -> Vec<String> {
        let Some(cluster) = form.cluster else {
            return vec![self.marked(self.text)];
        };
        match self.kind {
            Kind::Table => vec![self.part(form), self.twin(form, cluster)],
            Kind::Feed => vec![self.part_feed(form)],
            Kind::View => {
                let name = format!("view {}{} as", self.name, form.on());
                vec![self.marked(&self.text.replacen(&format!("view {} as", self.name), &name, 1))]
            }
        }
    }

    /// A view says whose it is.
    fn marked(&self, text: &str) -> String {
        match self.kind {
            Kind::Table => text.to_owned(),
            Kind::Feed | Kind::View => format!("{text}\ncomment '{MARK}'"),
        }
    }

    /// The replicated table of one server.
    fn part(&self, form: Form<'_>) -> String {
        let name = self.name;
        let engine = self.shape().engine;
        let (family, arguments) = engine.split_once('(').unwrap_or((engine, ")"));
        let separator = if arguments == ")" { "" } else { ", " };
        let replicated = format!(
            "Replicated{family}('/clickhouse/tables/{{uuid}}/{{shard}}', \
             '{{replica}}'{separator}{arguments}"
        );
        let window = format!(
            "replicated_deduplication_window_seconds = {WINDOW_SECONDS},\n    \
             replicated_deduplication_window ="
        );
        self.text
            .replacen(
                &format!("exists {name} ("),
                &format!("exists {}{} (", part_of(name), form.on()),
                1,
            )
            .replacen(&format!("engine = {engine}"), &format!("engine = {replicated}"), 1)
            .replacen("non_replicated_deduplication_window =", &window, 1)
    }

    /// The table that distributes over the servers.
    fn twin(&self, form: Form<'_>, cluster: &str) -> String {
        let (name, part, on) = (self.name, part_of(self.name), form.on());
        let shard = self.shard.map_or(String::new(), |shard| format!(", {shard}"));
        format!(
            "create table if not exists {name}{on} as {part}\n\
             engine = Distributed('{cluster}', '{}', '{part}'{shard})",
            form.database
        )
    }

    fn part_feed(&self, form: Form<'_>) -> String {
        let (name, target, source) = (self.name, self.target(), self.source());
        let text = self
            .text
            .replacen(
                &format!("exists {name} to {target} as"),
                &format!("exists {name}{} to {} as", form.on(), part_of(target)),
                1,
            )
            .replacen(&format!("\nfrom {source}"), &format!("\nfrom {}", part_of(source)), 1);
        self.marked(&text)
    }

    /// The table a feed writes to; empty for what is none.
    pub(super) fn target(&self) -> &'t str {
        between(self.text, " to ", " as")
    }

    /// The table a feed reads.
    fn source(&self) -> &'t str {
        let rest = self.text.split_once("\nfrom ").map_or("", |(_, rest)| rest);
        rest.split([' ', '\n']).next().unwrap_or("")
    }

    /// What a table looks like; empty for what is none.
    pub(super) fn shape(&self) -> Shape<'t> {
        let mut shape = Shape::default();
        if self.kind != Kind::Table {
            return shape;
        }
        for line in self.text.lines().skip(1).take_while(|line| *line != ")") {
            let line = line.trim().trim_end_matches(',');
            match line.strip_prefix("index ").and_then(|index| index.split_once(' ')) {
                Some(index) => shape.indexes.push(index),
                None => shape.columns.extend(line.split_once(' ')),
            }
        }
        let clause = |head: &str| {
            let mut lines = self.text.lines();
            lines.find_map(|line| line.strip_prefix(head)).unwrap_or("")
        };
        (shape.engine, shape.order) = (clause("engine = "), clause("order by "));
        shape
    }
}

fn between<'t>(text: &'t str, left: &str, right: &str) -> &'t str {
    let rest = text.split_once(left).map_or("", |(_, rest)| rest);
    rest.split_once(right).map_or("", |(inside, _)| inside)
}

/// The statement that makes the database.
pub(super) fn database(form: Form<'_>) -> String {
    format!("create database if not exists `{}`{}", form.database, form.on())
}

/// The type in a column's definition, without its codec.
pub(super) fn type_of(definition: &str) -> Cow<'_, str> {
    Cow::Borrowed(definition.split(" codec(").next().unwrap_or(definition))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Form<'static> = Form { database: "sfpla", cluster: None };
    const MANY: Form<'static> = Form { database: "sfpla", cluster: Some("c1") };

    const SAMPLE: &str = "\
-- What it is.
-- shard by cityHash64(id)
-- retention by at
create table if not exists facts (
    id UUID,
    at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    index at at type minmax
)
engine = ReplacingMergeTree(at)
order by (id, at)
settings
    non_replicated_deduplication_window = 10;

create table if not exists sums (
    id UUID
)
engine = AggregatingMergeTree
order by id;

create materialized view if not exists sums_feed to sums as
select id
from facts as told
group by id;

create or replace view totals as
select * from facts;
";

    fn rendered(form: Form<'_>) -> Vec<String> {
        statements(SAMPLE).iter().flat_map(|statement| statement.render(form)).collect()
    }

    #[test]
    fn for_one_server_the_text_stays_as_it_is() {
        let rendered = rendered(ONE);
        assert_eq!(rendered.len(), 4);
        assert!(rendered[0].starts_with("create table if not exists facts (\n    id UUID,"));
        assert!(rendered[0].ends_with("non_replicated_deduplication_window = 10"));
        assert!(rendered[3].ends_with("select * from facts\ncomment 'made by tracker'"));
    }

    #[test]
    fn on_a_cluster_each_table_is_replicated_and_has_a_twin_that_distributes() {
        let rendered = rendered(MANY);
        let expect = "create table if not exists facts_local on cluster 'c1' (
    id UUID,
    at DateTime64(3, 'UTC') codec(Delta, ZSTD(1)),
    index at at type minmax
)
engine = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', at)
order by (id, at)
settings
    replicated_deduplication_window_seconds = 604800,
    replicated_deduplication_window = 10";
        assert_eq!(rendered[0], expect);
        assert_eq!(
            rendered[1],
            "create table if not exists facts on cluster 'c1' as facts_local\n\
             engine = Distributed('c1', 'sfpla', 'facts_local', cityHash64(id))"
        );
        assert!(rendered[2].contains(
            "engine = ReplicatedAggregatingMergeTree('/clickhouse/tables/{uuid}/{shard}', \
             '{replica}')\n"
        ));
        assert!(rendered[3].ends_with("Distributed('c1', 'sfpla', 'sums_local')"));
        assert_eq!(
            rendered[4],
            "create materialized view if not exists sums_feed on cluster 'c1' to sums_local as\n\
             select id\nfrom facts_local as told\ngroup by id\ncomment 'made by tracker'"
        );
        assert!(rendered[5].starts_with("create or replace view totals on cluster 'c1' as\n"));
    }

    #[test]
    fn a_table_is_read_from_its_statement() {
        let statements = statements(SAMPLE);
        let shape = statements[0].shape();
        assert_eq!(statements[0].retention, Some("at"));
        assert_eq!(
            shape.columns,
            [("id", "UUID"), ("at", "DateTime64(3, 'UTC') codec(Delta, ZSTD(1))")]
        );
        assert_eq!(shape.indexes, [("at", "at type minmax")]);
        assert_eq!((shape.engine, shape.order), ("ReplacingMergeTree(at)", "(id, at)"));
        assert_eq!(type_of(shape.columns[1].1), "DateTime64(3, 'UTC')");
        assert_eq!((statements[2].target(), statements[2].source()), ("sums", "facts"));
    }

    #[test]
    fn every_statement_of_the_files_is_read() {
        for text in STEPS.iter().map(|step| step.text).chain([VIEWS]) {
            let read = statements(text);
            assert_eq!(read.len(), text.matches(";\n").count());
            for statement in read {
                let name = statement.name;
                assert!(!statement.text.contains(';'), "{name}");
                match statement.kind {
                    Kind::Table => {
                        let shape = statement.shape();
                        assert!(!shape.columns.is_empty() && !shape.order.is_empty(), "{name}");
                        assert!(shape.engine.contains("MergeTree"), "{name}");
                        let retention = statement.retention;
                        let has = |column| shape.columns.iter().any(|(name, _)| *name == column);
                        assert!(retention.is_none_or(has), "{name} has no {retention:?}");
                        let many = statement.render(MANY);
                        assert!(many[0].contains(&format!("exists {name}_local on cluster")));
                        assert!(many[0].contains("engine = Replicated"), "{name}");
                    }
                    Kind::Feed => {
                        let many = statement.render(MANY).concat();
                        assert!(many.contains(&format!(" to {}_local as\n", statement.target())));
                        assert!(many.contains(&format!("\nfrom {}_local", statement.source())));
                    }
                    Kind::View => {
                        assert!(statement.render(MANY)[0].contains(" on cluster 'c1' as\n"));
                    }
                }
            }
        }
    }

    #[test]
    fn tables_that_batches_and_feeds_write_to_have_a_window_and_are_synced() {
        let files: Vec<Statement<'_>> =
            STEPS.iter().flat_map(|step| statements(step.text)).collect();
        let targets: Vec<&str> = files.iter().map(Statement::target).collect();
        for table in files.iter().filter(|statement| statement.kind == Kind::Table) {
            let is_written =
                crate::tables::find(table.name).is_some() || targets.contains(&table.name);
            let has = |setting: &str| table.text.contains(setting);
            assert!(!is_written || has("non_replicated_deduplication_window = 10000"), "{table:?}");
            assert!(!is_written || has("fsync_after_insert = 1"), "{table:?}");
            assert!(!is_written || has("fsync_part_directory = 1"), "{table:?}");
        }
    }
}
