//! Blocks read as the format describes them, and what does not fit is named.

use chrono::{Months, NaiveDate};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::backends::memory;
use crate::event::Money;
use crate::tables::{self, samples};

/// One column of each kind, with and without NULL.
const COLUMNS: [(&str, &str); 14] = [
    ("text", "LowCardinality(String)"),
    ("maybe_text", "Nullable(String)"),
    ("json", "JSON"),
    ("uuid", "UUID"),
    ("maybe_uuid", "Nullable(UUID)"),
    ("truth", "Bool"),
    ("int", "Int32"),
    ("unsigned", "UInt64"),
    ("float", "Nullable(Float64)"),
    ("money", "Nullable(Decimal(18, 4))"),
    ("time", "DateTime64(3, 'UTC')"),
    ("date", "Date"),
    ("texts", "Array(LowCardinality(String))"),
    ("uuids", "Array(UUID)"),
];

fn columns() -> Vec<Column> {
    COLUMNS.iter().map(|&(name, data_type)| Column::of(name, data_type).unwrap()).collect()
}

/// Reads blocks as the format's description says, each value as text, NULL as "-".
struct Reading<'b>(&'b [u8]);

impl Reading<'_> {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken.to_vec()
    }

    fn length(&mut self) -> usize {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.bytes(1)[0];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return length;
            }
        }
    }

    fn text(&mut self) -> String {
        let length = self.length();
        String::from_utf8(self.bytes(length)).unwrap()
    }

    fn number(&mut self, width: usize) -> u64 {
        let mut bytes = self.bytes(width);
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    fn value(&mut self, data_type: &str) -> String {
        match data_type {
            "String" => self.text(),
            "UUID" => Uuid::from_u64_pair(self.number(8), self.number(8)).to_string(),
            "Bool" => (self.number(1) == 1).to_string(),
            "Int32" | "Date32" => i32::from_le_bytes(self.bytes(4).try_into().unwrap()).to_string(),
            "UInt64" => self.number(8).to_string(),
            "Float64" => f64::from_bits(self.number(8)).to_string(),
            "Decimal(18, 4)" | "DateTime64(3, 'UTC')" => self.number(8).cast_signed().to_string(),
            other => panic!("{other}"),
        }
    }

    fn column(&mut self, rows: usize) -> (String, Vec<String>) {
        let (name, data_type) = (self.text(), self.text());
        let inner = |outer: &str| data_type.strip_prefix(outer)?.strip_suffix(')');
        let values = if let Some(inner) = inner("Nullable(") {
            let nulls = self.bytes(rows);
            let value = |null: &u8| {
                let value = self.value(inner);
                if *null == 1 { "-".to_owned() } else { value }
            };
            nulls.iter().map(value).collect()
        } else if let Some(inner) = inner("Array(") {
            let ends: Vec<u64> = (0..rows).map(|_| self.number(8)).collect();
            let mut from = 0;
            let list = |end: u64| {
                let items: Vec<String> = (from..end).map(|_| self.value(inner)).collect();
                from = end;
                items.join("|")
            };
            ends.into_iter().map(list).collect()
        } else if data_type.starts_with("JSON") {
            assert_eq!(self.bytes(8), JSON_AS_TEXT);
            (0..rows).map(|_| self.text()).collect()
        } else {
            (0..rows).map(|_| self.value(&data_type)).collect()
        };
        (name, values)
    }

    /// Rows of texts.
    fn block(&mut self) -> Vec<Vec<String>> {
        let (width, rows) = (self.length(), self.length());
        let columns: Vec<_> = (0..width).map(|_| self.column(rows)).collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, COLUMNS.map(|(name, _)| name));
        (0..rows)
            .map(|row| columns.iter().map(|(_, column)| column[row].clone()).collect())
            .collect()
    }
}

/// A row, and the texts it should be read as.
fn row() -> impl Strategy<Value = (Vec<Cell<'static>>, Vec<String>)> {
    let id = any::<u128>().prop_map(Uuid::from_u128);
    let ids = proptest::collection::vec(any::<u128>().prop_map(Uuid::from_u128), 0..3);
    let texts = proptest::collection::vec("[a-zé]{0,200}", 0..3);
    (
        (".{0,300}", proptest::option::of(".{0,3}"), id, proptest::option::of(any::<u128>())),
        (any::<bool>(), any::<i32>(), 0..=i64::MAX, proptest::option::of(-1e9..1e9)),
        (proptest::option::of(-1_000_000i64..1_000_000), 0i64..4_000_000_000_000, 0i32..40_000),
        (texts, ids),
    )
        .prop_map(|(a, b, c, d)| {
            let none = || "-".to_owned();
            let uuid = a.3.map(Uuid::from_u128);
            let money = c.0.map(|units| Money::from_units(units.into()).unwrap());
            let moment = DateTime::from_timestamp_millis(c.1).unwrap();
            let day = NaiveDate::from_num_days_from_ce_opt(c.2 + EPOCH_DAYS).unwrap();
            let ids: Vec<String> = d.1.iter().map(ToString::to_string).collect();
            let cells = vec![
                Cell::Text(a.0.clone().into()),
                a.1.clone().map_or(Cell::Null, |text| Cell::Text(text.into())),
                Cell::Null,
                Cell::Uuid(a.2),
                uuid.map_or(Cell::Null, Cell::Uuid),
                Cell::Bool(b.0),
                Cell::Int(b.1.into()),
                Cell::Int(b.2),
                b.3.map_or(Cell::Null, Cell::Float),
                money.map_or(Cell::Null, Cell::Money),
                Cell::Time(moment),
                Cell::Date(day),
                Cell::List(d.0.clone().into()),
                Cell::List(ids.clone().into()),
            ];
            let texts = vec![
                a.0,
                a.1.unwrap_or_else(none),
                "{}".to_owned(),
                a.2.to_string(),
                uuid.map_or_else(none, |id| id.to_string()),
                b.0.to_string(),
                b.1.to_string(),
                b.2.to_string(),
                b.3.map_or_else(none, |number| number.to_string()),
                money.map_or_else(none, |amount| amount.units().to_string()),
                c.1.to_string(),
                c.2.to_string(),
                d.0.join("|"),
                ids.join("|"),
            ];
            (cells, texts)
        })
}

proptest! {
    #[test]
    fn a_block_reads_as_the_rows_that_were_pushed(
        blocks in proptest::collection::vec(proptest::collection::vec(row(), 1..5), 1..3),
    ) {
        let columns = columns();
        let (mut block, mut bytes) = (Block::new(&columns), Vec::new());
        for rows in &blocks {
            for (cells, _) in rows {
                block.push(cells).unwrap();
            }
            block.write(&mut bytes).unwrap();
        }
        let mut reading = Reading(&bytes);
        for rows in &blocks {
            let expect: Vec<Vec<String>> = rows.iter().map(|(_, texts)| texts.clone()).collect();
            prop_assert_eq!(reading.block(), expect);
        }
        prop_assert!(reading.0.is_empty());
    }
}

#[test]
fn a_cell_of_another_kind_or_beyond_its_type_is_named_without_its_value() {
    let column = |data_type| Column::of("c", data_type).unwrap();
    let refused = |data_type, cell| Values::default().push(&column(data_type), &cell);
    assert_eq!(refused("UUID", Cell::from("secret")), Err("text"));
    assert_eq!(refused("Int8", Cell::Int(128)), Err("whole number beyond the type"));
    assert_eq!(refused("Int8", Cell::Int(-128)), Ok(()));
    assert_eq!(refused("UInt32", Cell::Int(-1)), Err("whole number beyond the type"));
    assert_eq!(refused("UInt32", Cell::Int(u32::MAX.into())), Ok(()));
    assert_eq!(
        refused("Array(UUID)", Cell::List(vec!["x".to_owned()].into())),
        Err("text that is no id")
    );
    assert_eq!(Kind::of("AggregateFunction(uniq, UUID)"), None);
    assert_eq!(Kind::of("Map(String, String)"), None);
}

/// The layout of `events` where every column is of the type that its cell asks for.
pub(in super::super) fn events() -> Layout {
    let table = tables::find("events").unwrap();
    let sample = samples::event(1);
    let mut cells = Vec::new();
    table.rows(&sample, &mut cells);
    let named = |cell: &Cell<'_>| match cell {
        Cell::Uuid(_) => "UUID",
        Cell::Int(_) => "Int64",
        Cell::Float(_) => "Float64",
        Cell::Bool(_) => "Bool",
        Cell::Time(_) => "DateTime64(3)",
        Cell::List(_) => "Array(String)",
        Cell::Json(_) => "JSON",
        _ => "String",
    };
    let types = table.columns().into_iter().zip(&cells);
    let types = types.map(|(name, cell)| (name.to_owned(), named(cell).to_owned())).collect();
    Layout::new(table, &types, "toYYYYMM(created_at)").unwrap()
}

#[test]
fn rows_of_many_months_are_several_inserts_the_same_ones_each_time() {
    let first = samples::event(1).created_at;
    let event = |number: u32| {
        let mut event = samples::event(u64::from(number));
        event.created_at = first.checked_sub_months(Months::new(number % 250)).unwrap();
        event.into()
    };
    let events_of_250_months: Vec<_> = (0..1_000).map(event).collect();
    let batch = memory::batch(tables::find("events").unwrap(), events_of_250_months).unwrap();
    let layout = events();
    let inserts = layout.encode(&batch, &HashSet::new()).unwrap();
    assert_eq!(inserts.iter().map(|insert| insert.rows).collect::<Vec<_>>(), [400, 400, 200]);
    let again = layout.encode(&batch, &HashSet::new()).unwrap();
    assert!(inserts.iter().zip(&again).all(|(one, other)| one.body == other.body));
    let stored = (0..999).collect();
    let left = layout.encode(&batch, &stored).unwrap();
    assert_eq!(left.iter().map(|insert| insert.rows).collect::<Vec<_>>(), [1]);
}

#[test]
fn large_rows_make_blocks_of_few() {
    let event = |number| {
        let mut event = samples::event(number);
        event.page.url = Some("x".repeat(5 << 20));
        event.into()
    };
    let batch = memory::batch(tables::find("events").unwrap(), (1..=6).map(event).collect());
    let inserts = events().encode(&batch.unwrap(), &HashSet::new()).unwrap();
    let mut blocks = Vec::new();
    let mut body = lz4_flex::frame::FrameDecoder::new(&*inserts[0].body);
    std::io::Read::read_to_end(&mut body, &mut blocks).unwrap();
    let mut first = Reading(&blocks);
    assert_eq!((first.length(), first.length()), (events().columns.len(), 4));
    assert_eq!(inserts[0].rows, 6);
}

#[test]
fn what_a_server_lacks_is_named_column_by_column() {
    let table = tables::find("redirects").unwrap();
    let types = json!({"urlfrom": "String", "urlto": "AggregateFunction(any, String)"});
    let types = serde_json::from_value(types).unwrap();
    let Err(words) = Layout::new(table, &types, "") else { panic!("it fits") };
    assert!(words.contains("urlto has the type AggregateFunction(any, String)"), "{words}");
    assert!(words.contains("oid is missing"), "{words}");
}

#[test]
fn partition_keys_of_ours_and_of_existing_databases_are_read() {
    let columns = ["oid", "created_at"].map(|name| Column::of(name, "String").unwrap());
    let by = |key| partition_by(key, &columns);
    assert_eq!(by("toYYYYMM(created_at)"), [PartitionBy::Month(1)]);
    assert_eq!(by("(oid, toYYYYMM(created_at))"), [PartitionBy::Value(0), PartitionBy::Month(1)]);
    assert_eq!(by("tuple()"), []);
    assert_eq!(by("intHash32(created_at)"), []);
}
