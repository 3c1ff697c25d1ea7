//! The rules of the source text, executed: floors, crates bound to a module, file heads, columns
//! against the schema, routes against the README.
//!
//! Rules are data at the top; each checker is a function from text to complaints, and each is shown
//! to complain about a bad sample. A new edge between modules or a new exemption edits a table here,
//! so that no reviewer can miss it.

#![expect(clippy::expect_used, reason = "a file that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tracker::tables;

/// The floor of each module: it names lower floors only, and never a neighbour.
const FLOORS: &[(&str, u8)] = &[
    ("background", 1),
    ("clock", 1),
    ("config", 1),
    ("breaker", 2),
    ("event", 2),
    ("telemetry", 2),
    ("tls", 2),
    ("geo", 3),
    ("journal", 3),
    ("tables", 3),
    ("backends", 4),
    ("fresh", 4),
    ("consent", 5),
    ("delivery", 5),
    ("intake", 5),
    ("links", 5),
    ("migrate", 5),
    ("prune", 5),
    ("http", 6),
    ("app", 7),
    ("doctor", 7),
    ("import", 7),
    ("cli", 8),
    ("main", 9),
];

/// Edges that break the rule of floors, each with a reason. One that is no longer needed fails.
const EXEMPT_EDGES: &[(&str, &str)] = &[
    // The quarantine counter's label is the closed set of reasons that events know.
    ("src/telemetry/metrics.rs", "event"),
];

/// Crates that belong to some places only.
const BOUND_CRATES: &[(&str, &[&str])] = &[
    ("axum", &["src/http/"]),
    ("clap", &["src/cli/"]),
    ("clickhouse", &["src/backends/clickhouse/"]),
    ("duckdb", &["src/backends/duckdb/"]),
    ("governor", &["src/http/"]),
    ("maxminddb", &["src/geo/"]),
    // `/metrics` as JSON is computed from the same families that the text form prints.
    ("prometheus", &["src/telemetry/", "src/http/"]),
    ("rcgen", &["src/http/", "src/tls.rs"]),
    ("rustls", &["src/http/", "src/tls.rs"]),
    ("webpki_roots", &["src/tls.rs"]),
    ("tracing_subscriber", &["src/telemetry/"]),
    // Opening intake fails at start-up only, and then for a person.
    ("anyhow", &["src/app.rs", "src/cli/", "src/main.rs", "src/intake/mod.rs"]),
    ("std::env", &["src/build.rs", "src/config/", "src/main.rs"]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "helpers", "common", "prelude"];

/// What may not stand in a source file, and what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("#[allow(", "write #[expect(…, reason = …)]"),
    ("#![allow(", "write #![expect(…, reason = …)]"),
    ("#[ignore", "a test runs or does not exist"),
    ("todo!(", "finish it or answer with an error"),
    ("unimplemented!(", "finish it or answer with an error"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a file of the repository")
}

/// Every Rust file below `folder`, as (path from the root, text).
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root");
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((name.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The text without comments and without what stands between quotes.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if next == '"' {
            quoted(rest)
        } else if let Some(character) = character(rest) {
            character
        } else {
            code.push(next);
            next.len_utf8()
        };
        rest = rest.get(skipped..).unwrap_or("");
    }
    code
}

/// Bytes of the raw string that `text` starts with.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let fence = hashes.len() - hashes.trim_start_matches('#').len();
    let inside = hashes.trim_start_matches('#').strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(fence));
    Some(fence + 2 + inside.find(&end)? + end.len())
}

/// Bytes of the string that `text` starts with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        if c == '"' && !escaped {
            return index + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Bytes of the character literal that `text` starts with; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let mut rest = escape.chars();
        let first = rest.next()?.len_utf8();
        return Some(2 + first + escape.get(first..)?.find('\'')? + 1);
    }
    let first = inside.chars().next()?.len_utf8();
    inside.get(first..)?.starts_with('\'').then_some(first + 2)
}

/// Modules at the top that `code` names through `prefix` (`crate` or `tracker`), also in a nested
/// `use crate::{…}`.
fn named_modules(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(prefix) {
        rest = after;
        let Some(path) = after.trim_start().strip_prefix("::").map(str::trim_start) else {
            continue;
        };
        if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
            continue;
        }
        match path.strip_prefix('{') {
            Some(group) => named.extend(group_heads(group)),
            None => named.extend(identifier(path)),
        }
    }
    named
}

/// The first names of a `use` group whose opening brace was read.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut at_head, mut heads) = (0_u32, true, Vec::new());
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && (c.is_alphabetic() || c == '_') => {
                heads.extend(group.get(index..).and_then(identifier));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.get(..end).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The module at the top that a file of `src/` belongs to; `None` for the list of modules and the
/// build script.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib" && module != "build").then_some(module)
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// Edges of one file that go up or sideways.
fn bad_edges(path: &str, text: &str) -> Vec<(String, String)> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let code = code(text);
    let prefix = if module == "main" { "tracker" } else { "crate" };
    let named = named_modules(&code, prefix);
    let down = |other: &str| floor(other).zip(floor(module)).is_some_and(|(to, from)| to < from);
    // `crate::` may also name an item of `lib.rs`; only modules have floors.
    let modules = named.into_iter().filter(|other| floor(other).is_some());
    modules
        .filter(|other| other != module && !down(other))
        .map(|other| (path.to_owned(), other))
        .collect()
}

/// Complaints about crates named outside their places.
fn foreign_crates(path: &str, text: &str) -> Vec<String> {
    // Tests may look at the environment, for the number of their cases.
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let code = code(text);
    let complaints = BOUND_CRATES.iter().filter(|(name, places)| {
        let at_home = places.iter().any(|place| path.starts_with(place));
        let is_allowed = at_home || is_test && *name == "std::env";
        !is_allowed && names_crate(&code, name)
    });
    complaints.map(|(name, _)| format!("{path} names the crate {name}")).collect()
}

/// Whether `name::` stands in `code` as a crate: not behind another path, and not as a module that
/// the file declares or imports under that name.
fn names_crate(code: &str, name: &str) -> bool {
    let local = code.contains(&format!("mod {name};")) || named_below_crate(code, name);
    let mut start = 0;
    while let Some(at) = code.get(start..).and_then(|rest| rest.find(name)).map(|at| start + at) {
        start = at + name.len();
        let before = code.get(..at).unwrap_or("").trim_end();
        let after = code.get(start..).unwrap_or("");
        let part = before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && code.get(..at).is_some_and(|text| text.len() == before.len());
        let in_path = before.ends_with("::") && !before.ends_with("use ::");
        let is_path = after.starts_with("::") || before.ends_with("use") && after.starts_with(';');
        let begins = before.ends_with("use") || before.ends_with("use ::");
        if is_path && !part && !in_path && (begins || !local) {
            return true;
        }
    }
    false
}

/// Whether the file imports something called `name` from this crate.
fn named_below_crate(code: &str, name: &str) -> bool {
    let imports = code.split("use ").skip(1).filter_map(|import| import.split(';').next());
    imports
        .filter(|import| ["crate::", "super::", "self::"].iter().any(|own| import.starts_with(own)))
        .any(|import| {
            import.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
        })
}

/// Complaints about a file's head and name, and about what may stand in no file.
fn untidy(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let head = text.lines().next().unwrap_or("");
    if head.strip_prefix("//! ").is_none_or(|sentence| sentence.len() <= 10) {
        complaints.push(format!("{path} does not begin with a sentence about what it is"));
    }
    if let Some(name) =
        EMPTY_NAMES.iter().find(|name| path.split(['/', '.']).any(|part| part == **name))
    {
        complaints.push(format!("{path} has the empty name {name}"));
    }
    let code = code(text);
    // What a support file of tests offers is not used by every test program that includes it.
    let is_shared = |word: &str| word == "#![allow(" && path.starts_with("tests/");
    for (word, instead) in FORBIDDEN.iter().filter(|(word, _)| code.contains(word)) {
        if is_shared(word) {
            continue;
        }
        complaints.push(format!("{path} has {word} {instead}"));
    }
    for (number, line) in text.lines().enumerate() {
        if line.contains(concat!("TO", "DO")) || line.contains(concat!("FIX", "ME")) {
            complaints.push(format!("{path}:{} leaves something to do", number + 1));
        }
    }
    complaints
}

/// Column names of `create table NAME (…)` and of what was added to it in `sql`; `None` without such a
/// table.
fn columns_of(sql: &str, table: &str) -> Option<BTreeSet<String>> {
    let heads = ["create table", "create table if not exists"];
    let (_, body) = heads.iter().find_map(|head| sql.split_once(&format!("{head} {table} (\n")))?;
    let (body, _) = body.split_once("\n)")?;
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let mut columns: BTreeSet<String> =
        lines.filter_map(|line| identifier(line.trim_start_matches('"'))).collect();
    let addition = format!("alter table {table} add column ");
    let added = sql.split(&addition).skip(1);
    columns.extend(added.filter_map(|rest| identifier(rest.trim_start_matches('"'))));
    Some(columns)
}

/// Columns that are declared and not in the schema.
fn missing_columns(sql: &str, table: &str, declared: &[&str]) -> Vec<String> {
    let Some(columns) = columns_of(sql, table) else {
        return vec![format!("the schema has no table {table}")];
    };
    let missing = declared.iter().filter(|column| !columns.contains(**column));
    missing.map(|column| format!("{table} has no column {column}")).collect()
}

/// Paths of the router, with `1` for the version.
fn routes_of(router: &str) -> BTreeSet<String> {
    let native = router.split("native(\"").skip(1);
    let native =
        native.filter_map(|rest| rest.split('"').next()).map(|name| format!("/tr/v1/{name}"));
    let plain = router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    native.chain(plain.map(str::to_owned)).collect()
}

/// Paths of the README's table below the heading `## Routes`: the first cell, in backticks, with or
/// without a slash or `*` at its end.
fn routes_in(readme: &str) -> BTreeSet<String> {
    let section = readme.split("\n## Routes").nth(1).unwrap_or("");
    let section = section.split("\n## ").next().unwrap_or("");
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `/"));
    let paths = cells.filter_map(|cell| cell.split('`').next());
    paths.map(|path| format!("/{}", path.trim_end_matches(['*', '/']))).collect()
}

/// Source files of the map's table.
fn files_in(map: &str) -> BTreeSet<String> {
    let cells = map.lines().filter_map(|line| line.strip_prefix("| `src/"));
    let names = cells.filter_map(|cell| cell.split('`').next());
    names.map(|name| format!("src/{name}")).collect()
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn modules_name_lower_floors_only() {
    let edges: Vec<(String, String)> =
        sources("src").iter().flat_map(|(path, text)| bad_edges(path, text)).collect();
    let exempt = |(path, to): &(String, String)| {
        EXEMPT_EDGES.iter().any(|(from, other)| path == from && to == other)
    };
    let complaints: Vec<String> = edges
        .iter()
        .filter(|edge| !exempt(edge))
        .map(|(path, to)| format!("{path} names {to}, which is not on a lower floor"))
        .collect();
    none(&complaints);
    let idle: Vec<String> = EXEMPT_EDGES
        .iter()
        .filter(|(from, to)| !edges.iter().any(|(path, other)| path == from && other == to))
        .map(|(from, to)| format!("the exemption of {from} for {to} is no longer needed"))
        .collect();
    none(&idle);
}

#[test]
fn the_crate_lists_its_modules_in_the_order_of_floors() {
    let lib = code(&read("src/lib.rs"));
    let listed: Vec<&str> =
        lib.split("pub mod ").skip(1).filter_map(|rest| rest.split(';').next()).collect();
    let floors: Vec<Option<u8>> = listed.iter().map(|module| floor(module)).collect();
    assert!(floors.iter().all(Option::is_some) && floors.is_sorted(), "{listed:?} {floors:?}");
    assert_eq!(listed.len() + 1, FLOORS.len(), "every floor has a module, and main");
}

#[test]
fn crates_stay_in_their_places() {
    let complaints: Vec<String> =
        sources("src").iter().flat_map(|(path, text)| foreign_crates(path, text)).collect();
    none(&complaints);
}

#[test]
fn every_file_says_what_it_is_and_leaves_nothing_to_do() {
    let files = ["src", "tests"].into_iter().flat_map(sources);
    let complaints: Vec<String> = files.flat_map(|(path, text)| untidy(&path, &text)).collect();
    none(&complaints);
}

#[test]
fn every_declared_column_is_in_every_schema() {
    let mut complaints = Vec::new();
    for store in ["duckdb", "clickhouse"] {
        let mut folder: Vec<PathBuf> = fs::read_dir(root().join("schema").join(store))
            .expect("the schema")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        folder.sort();
        let texts = folder.iter().map(|path| fs::read_to_string(path).expect("SQL"));
        let sql: String = texts.collect();
        for table in tables::ALL {
            let missing = missing_columns(&sql, table.name(), &table.columns());
            complaints.extend(missing.into_iter().map(|missing| format!("{store}: {missing}")));
        }
    }
    none(&complaints);
}

/// The comment line before the first table of that name in a schema of ClickHouse.
fn line_before<'s>(sql: &'s str, table: &str, head: &str) -> Option<&'s str> {
    let (before, _) = sql.split_once(&format!("create table if not exists {table} ("))?;
    let mut comments = before.lines().rev().take_while(|line| line.starts_with("--"));
    comments.find_map(|line| line.strip_prefix(head))
}

#[test]
fn every_fact_of_clickhouse_is_spread_by_what_the_row_says() {
    let sql = read("schema/clickhouse/0001_core.sql");
    let complaints = tables::ALL.iter().filter_map(|table| {
        let name = table.name();
        match line_before(&sql, name, "-- shard by ") {
            Some(shard) if !shard.contains("rand") => None,
            found => Some(format!("{name} is spread by {found:?}")),
        }
    });
    none(&complaints.collect::<Vec<_>>());
}

#[test]
fn the_readme_lists_exactly_the_routes_of_the_router() {
    let (router, readme) = (routes_of(&read("src/http/mod.rs")), routes_in(&read("README.md")));
    assert!(router.contains("/ping") && router.contains("/tr/v1/tr"), "{router:?}");
    assert_eq!(readme, router);
}

#[test]
fn the_map_lists_exactly_the_source_files() {
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("/tests.rs");
    let files = sources("src").into_iter().map(|(path, _)| path).filter(|path| !is_test(path));
    assert_eq!(files_in(&read("ARCHITECTURE.md")), files.collect());
}

#[test]
fn the_checks_see_through_nested_uses_comments_and_strings() {
    let text = "//! A sentence.\nuse crate::{config::{Config, x}, http, event as e};\n// crate::cli\n\
                const A: &str = \"crate::app\"; fn f<'a>(c: char) { c == '\"'; crate::journal::x() }\n\
                const B: &str = r#\"crate::intake \" \"#; use crate::tables;";
    let named: Vec<String> = named_modules(&code(text), "crate").into_iter().collect();
    assert_eq!(named, ["config", "event", "http", "journal", "tables"]);
    let edges: Vec<String> =
        bad_edges("src/journal/mod.rs", text).into_iter().map(|(_, to)| to).collect();
    assert_eq!(edges, ["http", "tables"]);
    assert_eq!(bad_edges("src/lib.rs", text), []);
}

#[test]
fn a_crate_outside_its_place_is_seen_and_a_module_of_its_name_is_not() {
    let check =
        |text: &str, expect: bool| assert_eq!(names_crate(text, "duckdb"), expect, "{text}");
    check("use duckdb::Connection;", true);
    check("use duckdb;", true);
    check("fn f() { duckdb::params![] }", true);
    check("fn f() { x(::duckdb::y) }", false);
    check("mod duckdb; fn f() { duckdb::connect() }", false);
    check("use crate::backends::{duckdb, Rows}; fn f() { duckdb::connect() }", false);
    check("use super::duckdb; use duckdb::Connection;", true);
    check("crate::backends::duckdb::connect()", false);
    check("fn f() { my_duckdb::x() }", false);
    assert_eq!(foreign_crates("src/intake/mod.rs", "use axum::Router;").len(), 1);
    assert_eq!(foreign_crates("src/http/mod.rs", "use axum::Router;"), [""; 0]);
    assert_eq!(foreign_crates("src/intake/mod.rs", "fn f() { std::env::var(x) }").len(), 1);
    assert_eq!(foreign_crates("src/intake/mod.rs", "// use axum::Router;"), [""; 0]);
}

#[test]
fn an_untidy_file_is_named() {
    assert_eq!(untidy("src/a.rs", "//! A sentence.\nfn f() {}"), [""; 0]);
    assert_eq!(untidy("src/a.rs", "fn f() {}").len(), 1);
    assert_eq!(untidy("src/utils.rs", "//! A sentence.").len(), 1);
    assert_eq!(untidy("src/common/x.rs", "//! A sentence.").len(), 1);
    assert_eq!(untidy("src/a.rs", "//! A sentence.\n#[allow(x)]\nfn f() {}").len(), 1);
    assert_eq!(untidy("src/a.rs", concat!("//! A sentence.\n// TO", "DO: x")).len(), 1);
}

#[test]
fn a_column_without_a_migration_is_named() {
    let sql = "create table a (\n    -- why\n    x uuid,\n    \"order\" varchar\n);\n";
    let other = "create table if not exists a (\n    x UUID\n)\nengine = X;\n";
    assert_eq!(missing_columns(other, "a", &["x", "y"]), ["a has no column y"]);
    assert_eq!(missing_columns(sql, "a", &["x", "order"]), [""; 0]);
    assert_eq!(missing_columns(sql, "a", &["x", "y", "why"]).len(), 2);
    let more = format!("{sql}alter table a add column y bigint;\n");
    assert_eq!(missing_columns(&more, "a", &["x", "y"]), [""; 0]);
    assert_eq!(missing_columns(sql, "b", &["x"]), ["the schema has no table b"]);
}

#[test]
fn routes_are_read_from_code_and_from_the_table() {
    let router = "Router::new().merge(subtree(&native(\"tr\"), f)).route(\"/ping\", any(g))\
                  .route(&native(\"ws\"), h).route(path, handler())";
    let expect = ["/ping", "/tr/v1/tr", "/tr/v1/ws"].map(str::to_owned).into();
    assert_eq!(routes_of(router), expect);
    let readme = "# x\n| `/no` |\n\n## Routes\n\n| Route | |\n|---|---|\n| `/tr/v1/tr/*` | a |\n\
                  | `/ping` | b |\n| `/tr/v1/ws` | c |\n\n## Next\n| `/other` |\n";
    assert_eq!(routes_in(readme), expect);
    let map = "| File |\n| `src/a.rs` | x |\n| `src/b/mod.rs` | y |\n| `tests/c.rs` | z |\n";
    assert_eq!(files_in(map), ["src/a.rs", "src/b/mod.rs"].map(str::to_owned).into());
}
