//! Damage of every kind that was thought of: the journal starts, counts, and keeps the rest.

use super::*;

/// A closed journal of 40 records of 1,000 bytes in about four segments.
fn filled(seed: u64) -> Rig {
    let rig = Rig::new(seed);
    let (journal, _) = rig.open();
    for id in 1..=40 {
        store(&journal, id, 1000);
    }
    journal.close();
    rig
}

const FRAME: usize = 24 + 1000;
const FIRST: usize = 4096;

/// Applies `damage` to the files of a filled journal, and says what is left: the ids that are gone,
/// and what opening and reading counted.
fn check(damage: impl FnOnce(&Rig, &[(PathBuf, u64)]), gone: &[u64], counted: u64) -> Recovered {
    let mut rig = filled(1);
    let segments = rig.segments();
    assert!(segments.len() >= 3, "{segments:?}");
    damage(&rig, &segments);
    rig.metrics = Arc::new(Metrics::new().unwrap());
    let (journal, recovered) = rig.open();
    let expected: Vec<u64> = (1..=40).filter(|id| !gone.contains(id)).collect();
    assert_eq!(ids(&journal, 0), expected);
    assert_eq!(ids(&journal, 0), expected, "a second reader");
    assert_eq!(rig.corrupt_frames(), counted, "counted once for all readers");
    assert_eq!(rig.metrics.journal_torn_bytes.get(), recovered.torn_bytes);
    let next = store(&journal, 1000, 100);
    journal.close();
    let (journal, _) = rig.open();
    let after: Vec<u64> = expected.into_iter().chain([1000]).collect();
    assert_eq!(ids(&journal, 0), after);
    assert!(next.0 > after.iter().rev().nth(1).copied().unwrap_or(0));
    recovered
}

fn newest(segments: &[(PathBuf, u64)]) -> &Path {
    &segments.last().unwrap().0
}

#[test]
fn nothing_is_damaged_to_begin_with() {
    check(|_, _| {}, &[], 0);
}

#[test]
fn a_torn_tail_is_cut_and_counted() {
    let recovered = check(
        |rig, segments| {
            rig.edit(newest(segments), |bytes| {
                let len = bytes.len() - 5;
                bytes.truncate(len);
            });
        },
        &[40],
        0,
    );
    assert_eq!(recovered, Recovered { last: Position(39), torn_bytes: 1019, corrupt_frames: 0 });
}

#[test]
fn a_tail_whose_last_sectors_never_arrived_is_cut_and_counted() {
    let recovered = check(
        |rig, segments| {
            rig.edit(newest(segments), |bytes| {
                let from = bytes.len() - 300;
                bytes[from..].fill(0);
            });
        },
        &[40],
        0,
    );
    assert_eq!(recovered.torn_bytes, FRAME as u64);
}

#[test]
fn a_flipped_bit_in_the_newest_segment_costs_one_record() {
    let recovered = check(
        |rig, segments| {
            rig.edit(newest(segments), |bytes| {
                let at = bytes.len() - FRAME - 10;
                bytes[at] ^= 1;
            });
        },
        &[39],
        1,
    );
    assert_eq!(recovered.corrupt_frames, 1);
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_costs_one_record() {
    for at in [FIRST + 3, FIRST + 5, FIRST + 8, FIRST + 16, FIRST + 500, FIRST + 23] {
        check(|rig, segments| rig.edit(&segments[0].0, |bytes| bytes[at] ^= 4), &[1], 1);
    }
}

#[test]
fn a_flipped_bit_in_the_last_record_of_a_sealed_segment_costs_that_record() {
    let rig = filled(1);
    let (first, bytes) = rig.segments()[0].clone();
    let count = (bytes - FIRST as u64) / FRAME as u64;
    let last = FIRST + (usize::try_from(count).unwrap() - 1) * FRAME;
    drop(rig);
    check(
        |rig, segments| {
            assert_eq!(segments[0].0, first);
            rig.edit(&first, |bytes| bytes[last + 9] ^= 1);
        },
        &[count],
        1,
    );
}

#[test]
fn a_zeroed_middle_costs_what_stood_there() {
    check(
        |rig, segments| rig.edit(&segments[1].0, |bytes| bytes[FIRST..FIRST + 4096].fill(0)),
        &[13, 14, 15, 16],
        1,
    );
}

#[test]
fn a_lost_header_costs_nothing() {
    for segment in 0..3 {
        check(
            |rig, segments| rig.edit(&segments[segment].0, |bytes| bytes[..FIRST].fill(0)),
            &[],
            1,
        );
    }
}

#[test]
fn a_segment_that_cannot_be_read_at_all_is_set_aside() {
    let mut name = PathBuf::new();
    let gone: Vec<u64> = (13..=24).collect();
    check(
        |rig, segments| {
            name.clone_from(&segments[1].0);
            rig.edit(&segments[1].0, |bytes| bytes.fill(0xA5));
        },
        &gone,
        // The file, and the gap it leaves.
        2,
    );
    assert!(name.ends_with("00000002.segment"));
}

#[test]
fn names_mean_nothing() {
    check(
        |rig, segments| {
            let (a, b) = (&segments[0].0, &segments[1].0);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            rig.edit(a, |bytes| first.clone_from(bytes));
            rig.edit(b, |bytes| second.clone_from(bytes));
            rig.edit(a, |bytes| *bytes = second);
            rig.edit(b, |bytes| *bytes = first);
        },
        &[],
        0,
    );
}

#[test]
fn a_copy_of_a_segment_is_read_once() {
    check(
        |rig, segments| {
            let mut copy = Vec::new();
            rig.edit(&segments[0].0, |bytes| copy.clone_from(bytes));
            rig.fs.put(&Path::new(FOLDER).join("copy.segment"), copy);
        },
        &[],
        1,
    );
}

#[test]
fn files_of_another_journal_or_of_nobody_are_left_alone() {
    let other = Rig::new(2);
    let (journal, _) = other.open();
    store(&journal, 7, 1000);
    journal.close();
    let (name, _) = other.segments()[0].clone();
    let mut foreign = Vec::new();
    other.edit(&name, |bytes| foreign.clone_from(bytes));
    check(
        |rig, _| {
            let folder = Path::new(FOLDER);
            rig.fs.put(&folder.join("foreign.segment"), foreign);
            rig.fs.put(&folder.join("empty.segment"), Vec::new());
            rig.fs.put(&folder.join("text.segment"), b"hello".to_vec());
            rig.fs.put(&folder.join("notes.txt"), b"hello".to_vec());
            rig.fs.put(&folder.join("00000099.new"), vec![0; 9000]);
            rig.open();
            let names = rig.fs.names(folder);
            let kept =
                ["foreign.segment", "empty.segment.damaged", "text.segment.damaged", "notes.txt"];
            assert!(kept.iter().all(|kept| names.iter().any(|name| name == kept)), "{names:?}");
            assert!(!names.iter().any(|name| name == "00000099.new"));
        },
        &[],
        // The foreign one is seen at each start.
        1,
    );
}

#[test]
fn a_shortened_sealed_segment_costs_its_end() {
    check(
        |rig, segments| rig.edit(&segments[0].0, |bytes| bytes.truncate(FIRST + 3 * FRAME + 100)),
        &(4..=12).collect::<Vec<_>>(),
        1,
    );
}

#[test]
fn a_missing_segment_costs_what_it_held() {
    use crate::journal::Fs;
    let remove = |rig: &Rig, path: &Path| rig.fs.remove(path).unwrap();
    check(|rig, segments| remove(rig, &segments[1].0), &(13..=24).collect::<Vec<_>>(), 1);
    // The oldest may have been recycled, so nothing is counted.
    check(|rig, segments| remove(rig, &segments[0].0), &(1..=12).collect::<Vec<_>>(), 0);
}

#[test]
fn a_segment_that_goes_missing_while_running_is_skipped() {
    use crate::journal::Fs;
    let rig = filled(1);
    let segments = rig.segments();
    let (journal, _) = rig.open();
    rig.fs.remove(&segments[1].0).unwrap();
    let expected: Vec<u64> = (1..=12).chain(25..=40).collect();
    assert_eq!(ids(&journal, 0), expected);
    assert_eq!(ids(&journal, 0), expected);
    assert_eq!(rig.corrupt_frames(), 1);
}

#[test]
fn a_bad_sector_costs_what_touches_its_block_and_a_dead_disk_costs_nothing() {
    check(|rig, segments| rig.fs.spoil(&segments[1].0, 8192..8704).unwrap(), &[17, 18, 19, 20], 1);
    let rig = filled(1);
    let segments = rig.segments();
    let (journal, _) = rig.open();
    rig.fs.spoil(&segments[1].0, 0..1 << 20).unwrap();
    let mut reader = journal.reader(Position(0));
    let refused = loop {
        match reader.read(1) {
            Ok(records) => assert!(!records.is_empty()),
            Err(error) => break error,
        }
    };
    assert_eq!((refused.to_string().as_str(), reader.position()), ("a bad sector", Position(12)));
    assert_eq!(rig.corrupt_frames(), 0);
}

#[test]
fn a_record_damaged_since_it_was_found_is_counted_once_and_its_neighbours_are_read() {
    let rig = filled(1);
    let (journal, _) = rig.open();
    let records = read_all(&mut journal.reader(Position(0))).unwrap();
    let segments = rig.segments();
    let needle = records[5].bytes.clone();
    rig.edit(&segments[0].0, |bytes| {
        let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
        bytes[at + 9] ^= 1;
    });
    for _ in 0..2 {
        let mut fetcher = journal.fetcher();
        for (index, Record { location, bytes }) in records.iter().enumerate() {
            let found = fetcher.fetch(*location).unwrap();
            assert_eq!(found, (index != 5).then_some(bytes.as_slice()), "record {index}");
        }
    }
    assert_eq!(rig.corrupt_frames(), 1);
    let path = &segments[1].0;
    rig.fs.spoil(path, 0..1 << 20).unwrap();
    let refused = records.iter().find_map(|record| journal.fetcher().fetch(record.location).err());
    assert_eq!(refused.unwrap().to_string(), "a bad sector");
    assert_eq!(rig.corrupt_frames(), 1, "a dead disk is no damage");
}

#[test]
fn the_identity_survives_the_loss_of_its_file() {
    use crate::journal::Fs;
    let rig = filled(3);
    let path = Path::new(FOLDER).join("journal.id");
    let node = rig.open().0.node();
    rig.fs.remove(&path).unwrap();
    assert_eq!(rig.open().0.node(), node);
    rig.edit(&path, |bytes| bytes[3] ^= 1);
    let (journal, _) = rig.open();
    assert_eq!(journal.node(), node);
    assert_eq!(ids(&journal, 0).len(), 40);
}

#[test]
fn frames_of_an_earlier_use_are_never_data() {
    let mut rig = Rig::new(4);
    let (journal, _) = rig.open();
    for id in 1..=100 {
        store(&journal, id, 1000);
        journal.forget(Position(id));
    }
    eventually("recycling", || journal.first() > Position(60));
    // Segments written before are in use again, with less in them than before.
    for id in 101..=110 {
        store(&journal, id, 500);
    }
    let first = journal.first().0;
    rig.restart(Survival::Killed);
    let (journal, recovered) = rig.open();
    assert_eq!(recovered, Recovered { last: Position(110), torn_bytes: 0, corrupt_frames: 0 });
    let found = ids(&journal, 0);
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(found.ends_with(&(first..=110).collect::<Vec<_>>()));
}

#[test]
fn spares_of_a_journal_whose_segments_are_gone_bring_nothing_back() {
    use crate::journal::Fs;
    let rig = Rig::new(7);
    let (journal, _) = rig.open();
    for id in 1..=100 {
        store(&journal, id, 1000);
        journal.forget(Position(id));
    }
    eventually("recycling", || journal.first() > Position(60));
    journal.close();
    for (path, _) in rig.segments() {
        rig.fs.remove(&path).unwrap();
    }
    // The positions begin again, below those that stand in the spares.
    let (journal, recovered) = rig.open();
    assert_eq!(recovered.last, Position(0));
    for id in 1..=30 {
        store(&journal, id, 990);
    }
    journal.close();
    let (journal, recovered) = rig.open();
    assert_eq!(recovered, Recovered { last: Position(30), torn_bytes: 0, corrupt_frames: 0 });
    assert_eq!(ids(&journal, 0), (1..=30).collect::<Vec<_>>());
}

#[test]
fn bytes_that_look_like_a_frame_inside_a_record_are_not_taken_for_one() {
    let rig = Rig::new(5);
    let (journal, _) = rig.open();
    // All that a client can know: the layout, the epoch, a position. Not the key.
    let mut forged = Vec::new();
    let stamp = super::super::frame::Stamp { key: 0, epoch: 1 };
    super::super::frame::encode(&mut forged, stamp, Position(2), &record(666, 50));
    let outer: Vec<u8> = [record(1, 100), forged].concat();
    wait(journal.append(outer, settle).unwrap()).unwrap();
    store(&journal, 3, 100);
    journal.close();
    let (path, _) = rig.segments()[0].clone();
    rig.edit(&path, |bytes| bytes[FIRST + 30] ^= 1);
    assert_eq!(ids(&rig.open().0, 0), [3]);
}

#[test]
fn any_bytes_can_be_scanned() {
    let rig = filled(6);
    let (path, _) = rig.segments()[0].clone();
    let mut bytes = Vec::new();
    rig.edit(&path, |file| bytes.clone_from(file));
    assert_eq!(super::super::scan_bytes(&bytes), 12);
    for cut in [0, 1, 12, 4095, 4096, 4100, 4120, 5000] {
        super::super::scan_bytes(&bytes[..cut]);
        let mut damaged = bytes.clone();
        damaged[cut] ^= 0xFF;
        assert!(super::super::scan_bytes(&damaged) <= 12);
    }
}
