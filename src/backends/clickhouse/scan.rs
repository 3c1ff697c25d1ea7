//! The readers of what a server says, for fuzzing: each takes any text whatever, without a panic.
//!
//! A server is trusted with rows, not with this process: what answers at its address may be another
//! program, or a proxy's page. Names of types are written by whoever makes tables.

use std::collections::HashMap;

use super::adopt;
use super::encode::Layout;
use super::fault::Fault;
use super::transport::{self, Answer};
use super::values;
use crate::backends::Rows;
use crate::tables;

/// The answer `bytes` to a question for at most `rows_max` rows, which was cut off or not; `None`
/// when it is none.
pub fn scan_answer(bytes: &[u8], is_cut: bool, rows_max: usize) -> Option<Rows> {
    let answer = Answer { bytes: bytes.to_vec(), is_cut };
    transport::parse_table(&answer, rows_max).ok().map(values::rows)
}

/// The same bytes as the answer to a question of our own.
pub fn scan_small_answer(bytes: &[u8]) -> Option<Rows> {
    transport::parse(bytes).ok()
}

/// What is told of a refusal, and its number.
pub fn scan_refusal(text: &str) -> (Option<u32>, String) {
    let fault = Fault::of_words(text);
    (fault.code(), fault.to_string())
}

/// Whether a column of the type `data_type` is taken for one that can hold values of that type.
pub fn scan_type(data_type: &str) -> bool {
    adopt::takes(data_type, data_type)
}

/// Whether a table could be written whose columns have the type `data_type` and whose partitions are
/// by `partition_key`; and the table behind ` TO ` in the statement that made it.
pub fn scan_description<'t>(
    data_type: &str,
    partition_key: &str,
    made_by: &'t str,
) -> (bool, Option<&'t str>) {
    let is_fit = tables::ALL.iter().any(|table| {
        let names = table.columns().into_iter();
        let types = names.map(|name| (name.to_owned(), data_type.to_owned()));
        let types: HashMap<String, String> = types.collect();
        Layout::new(*table, &types, partition_key).is_ok()
    });
    (is_fit, adopt::table_after(made_by, " TO "))
}
