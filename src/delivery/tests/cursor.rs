//! A cursor never moves back, whatever the file went through.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::{NODE, at, cases, range};
use crate::delivery::cursor::{
    Cursor, CursorFile, Found, MovedBack, SLOT_BYTES, TableCursor, highest_cursor,
};
use crate::journal::{File, Position, RealFs};

/// A file that survives whoever writes it. A write may be cut after some bytes.
#[derive(Clone, Default)]
struct Torn(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    tear_after: Option<usize>,
}

impl Torn {
    /// The next write fails after so many bytes.
    fn tear(&self, after: usize) {
        self.0.lock().unwrap().tear_after = Some(after);
    }

    fn open(&self) -> (CursorFile, Option<Cursor>) {
        CursorFile::over(Arc::new(self.clone())).unwrap()
    }
}

impl File for Torn {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.0.lock().unwrap();
        // Half of what there is, as a real file may give.
        let rest = inner.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len()).div_ceil(2);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let length = inner.tear_after.take();
        let written = &bytes[..length.unwrap_or(bytes.len()).min(bytes.len())];
        let start = usize::try_from(offset).unwrap();
        let end = (start + written.len()).max(inner.bytes.len());
        inner.bytes.resize(end, 0);
        inner.bytes[start..start + written.len()].copy_from_slice(written);
        length.map_or(Ok(()), |_| Err(io::Error::other("power cut")))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }
}

fn cursor(stored: u64) -> Cursor {
    let mut cursor = Cursor::new("store", NODE);
    let sending = Some(range(stored + 1, stored + 9));
    cursor.set("events", TableCursor { stored: Position(stored), sending }).unwrap();
    cursor
}

fn open(directory: &Path) -> (CursorFile, Cursor, Found) {
    CursorFile::open(&RealFs, directory, "duck db", "store", NODE).unwrap()
}

#[test]
fn what_was_written_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, empty, found) = open(folder.path());
    assert_eq!((empty, found), (Cursor::new("store", NODE), Found::Nothing));
    for stored in [5, 6, 7] {
        file.write(&cursor(stored)).unwrap();
        let (_, again, found) = open(folder.path());
        assert_eq!((again, found), (cursor(stored), Found::Whole));
    }
}

#[test]
fn a_write_torn_at_any_byte_leaves_the_state_before_or_the_new_one() {
    let length = serde_json::to_vec(&cursor(2)).unwrap().len() + 20;
    for torn in 0..=length {
        let disk = Torn::default();
        let (mut file, _) = disk.open();
        file.write(&cursor(1)).unwrap();
        disk.tear(torn);
        file.write(&cursor(2)).unwrap_err();
        let (_, found) = disk.open();
        let expect = if torn < length { cursor(1) } else { cursor(2) };
        assert_eq!(found, Some(expect), "torn after {torn} of {length} bytes");
    }
}

#[test]
fn a_failed_write_is_repeated_in_the_same_slot() {
    let disk = Torn::default();
    let (mut file, _) = disk.open();
    file.write(&cursor(1)).unwrap();
    for torn in [0, 10, 30, 60] {
        disk.tear(torn);
        file.write(&cursor(2)).unwrap_err();
        assert_eq!(disk.open().1, Some(cursor(1)), "the whole slot was not touched");
    }
    file.write(&cursor(2)).unwrap();
    assert_eq!(disk.open().1, Some(cursor(2)));
}

#[test]
fn a_file_without_a_whole_slot_is_a_new_start() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with("duck_db-"));
    for damage in [vec![], vec![0; 3], vec![7; 2 * SLOT_BYTES]] {
        std::fs::write(&path, damage).unwrap();
        let (_, cursor, found) = open(folder.path());
        assert_eq!((cursor, found), (Cursor::new("store", NODE), Found::Damaged));
        assert_eq!(open(folder.path()).2, Found::Whole, "and it is whole again");
    }
}

#[test]
fn another_store_has_another_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _, _) = open(folder.path());
    file.write(&cursor(5)).unwrap();
    let (_, _, found) =
        CursorFile::open(&RealFs, folder.path(), "duck db", "store 2", NODE).unwrap();
    assert_eq!(found, Found::Nothing);
    assert_eq!(open(folder.path()).1, cursor(5));
}

#[test]
fn a_cursor_told_to_move_back_stays() {
    let mut cursor = Cursor::new("store", NODE);
    cursor.set("events", at(9)).unwrap();
    let back = MovedBack { from: Position(9), to: Position(8) };
    assert_eq!(cursor.set("events", at(8)), Err(back));
    assert_eq!(cursor.table("events", Position(0)), at(9));
    assert_eq!(cursor.table("logs", Position(4)), at(4), "a new table starts at the origin");
}

#[test]
fn another_journal_keeps_positions_and_forgets_frozen_ranges() {
    let mut cursor = cursor(5);
    assert_eq!(cursor.adopt(NODE), []);
    assert_eq!(cursor.adopt("node-2"), [("events".to_owned(), range(6, 14))]);
    assert_eq!(cursor.table("events", Position(0)), at(5));
}

#[test]
fn the_highest_cursor_is_the_highest_end_of_any_store() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(highest_cursor(&folder.path().join("none")).unwrap(), Position(0));
    assert_eq!(highest_cursor(folder.path()).unwrap(), Position(0));
    open(folder.path()).0.write(&cursor(5)).unwrap();
    let (mut other, _, _) = CursorFile::open(&RealFs, folder.path(), "b", "s", NODE).unwrap();
    other.write(&cursor(3)).unwrap();
    std::fs::write(folder.path().join("damaged.cursor"), [9; 100]).unwrap();
    assert_eq!(highest_cursor(folder.path()).unwrap(), Position(14));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_is_written_torn_and_opened_again_the_last_whole_write_counts(
        writes in prop::collection::vec((prop::option::of(0usize..60), any::<bool>()), 1..40),
    ) {
        let disk = Torn::default();
        let mut file = disk.open().0;
        let mut expect = None;
        for (step, (torn, reopen)) in writes.into_iter().enumerate() {
            // Contents differ behind the cut, so that a torn write never completes an older slot.
            let next = cursor(step as u64);
            if let Some(after) = torn {
                disk.tear(after);
                prop_assert!(file.write(&next).is_err());
            } else {
                file.write(&next).unwrap();
                expect = Some(next);
            }
            if reopen {
                let (again, found) = disk.open();
                prop_assert_eq!(&found, &expect);
                file = again;
            }
        }
        prop_assert_eq!(disk.open().1, expect);
    }
}
