//! What callers see while nothing breaks, or while the disk says no.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::config::Durability;
use crate::journal::{OpenError, RealFs};

#[test]
fn records_come_back_in_order_with_their_positions() {
    let rig = Rig::new(1);
    let (journal, recovered) = rig.open();
    assert_eq!(recovered, Recovered::default());
    assert_eq!((journal.first(), journal.durable()), (Position(1), Position(0)));
    for id in 1..=100 {
        assert_eq!(store(&journal, id, 700), Position(id));
    }
    assert_eq!(ids(&journal, 0), (1..=100).collect::<Vec<_>>());
    assert_eq!(ids(&journal, 42), (43..=100).collect::<Vec<_>>());
    assert_eq!((journal.first(), journal.durable()), (Position(1), Position(100)));
    assert_eq!(rig.metrics.journal_records.get(), 100);
    assert_eq!(rig.metrics.journal_bytes.get(), 70_000);
    assert_eq!(rig.metrics.journal_queue.get(), 0);
    assert_eq!(rig.metrics.events_stored.get(), 100);
    assert_eq!(rig.corrupt_frames(), 0);
}

#[test]
fn what_was_stored_is_there_after_closing_and_opening() {
    let rig = Rig::new(2);
    let (journal, _) = rig.open();
    let node = journal.node();
    for id in 1..=50 {
        store(&journal, id, 1000);
    }
    journal.close();
    assert!(matches!(journal.append(vec![1], settle), Err(AppendError::Failed)));
    let (journal, recovered) = rig.open();
    let expected = Recovered { last: Position(50), torn_bytes: 0, corrupt_frames: 0 };
    assert_eq!(recovered, expected);
    assert_eq!(journal.node(), node);
    assert_eq!(node.len(), 12);
    assert_eq!(ids(&journal, 0), (1..=50).collect::<Vec<_>>());
    assert_eq!(store(&journal, 51, 10), Position(51));
}

#[test]
fn closing_writes_what_is_queued() {
    let rig = Rig::new(3);
    let (journal, _) = rig.open();
    let pending: Vec<_> =
        (1..=500).map(|id| journal.append(record(id, 100), settle).unwrap()).collect();
    drop(pending);
    journal.close();
    assert_eq!(rig.metrics.events_stored.get(), 500);
    assert_eq!(ids(&rig.open().0, 0), (1..=500).collect::<Vec<_>>());
}

#[test]
fn restarts_without_traffic_take_no_room() {
    let rig = Rig::new(4);
    let (journal, _) = rig.open();
    store(&journal, 1, 100);
    journal.close();
    let mut sizes = Vec::new();
    for _ in 0..6 {
        let (journal, _) = rig.open();
        eventually("two spares", || journal.stats().disk_bytes >= 3 * SEGMENT_BYTES);
        journal.close();
        sizes.push(rig.fs.names(Path::new(FOLDER)).len());
    }
    assert_eq!(sizes.first(), sizes.last());
}

#[test]
fn positions_go_on_above_the_highest_cursor() {
    let rig = Rig::new(5);
    let (journal, recovered) = rig.try_open(900).unwrap();
    assert_eq!(recovered.last, Position(900));
    assert_eq!((journal.first(), journal.durable()), (Position(901), Position(900)));
    let mut reader = journal.reader(Position(0));
    assert!(reader.read(100).unwrap().is_empty());
    assert_eq!(reader.position(), Position(900));
    assert_eq!(store(&journal, 1, 10), Position(901));
    journal.close();
    let (journal, _) = rig.try_open(2000).unwrap();
    assert_eq!(store(&journal, 2, 10), Position(2001));
    assert_eq!(ids(&journal, 0), [1, 2]);
    assert_eq!(rig.corrupt_frames(), 0);
}

#[test]
fn a_second_opening_is_refused_and_names_the_folder() {
    let rig = Rig::new(6);
    let (journal, _) = rig.open();
    let refused = rig.try_open(0).err().unwrap();
    assert_eq!(refused.to_string(), "another tracker uses /journal");
    assert!(matches!(refused, OpenError::Locked(_)));
    drop(journal);
    rig.open();
}

#[test]
fn real_files_are_private_locked_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = JournalConfig::new(folder.path().join("data/journal"));
    config.segment_bytes = 1 << 20;
    let metrics = Arc::new(Metrics::new().unwrap());
    let open = || {
        let (fs, clock) = (Arc::new(RealFs), Arc::new(SystemClock));
        Journal::open(&config, Position(0), fs, clock, Arc::clone(&metrics))
    };
    let (journal, _) = open().unwrap();
    assert!(matches!(open(), Err(OpenError::Locked(path)) if path == config.directory));
    for id in 1..=3000 {
        drop(journal.append(record(id, 1000), settle).unwrap());
    }
    journal.close();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config.directory), 0o700);
    for entry in std::fs::read_dir(&config.directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let (journal, recovered) = open().unwrap();
    assert_eq!(recovered, Recovered { last: Position(3000), ..Recovered::default() });
    assert_eq!(ids(&journal, 0), (1..=3000).collect::<Vec<_>>());
    assert!(journal.stats().healthy);
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_the_largest_is_taken() {
    let rig = Rig::new(7);
    let (journal, _) = rig.open();
    let largest = usize::try_from(SEGMENT_BYTES).unwrap() - 4096 - 24;
    let refused = journal.append(vec![0; largest + 1], settle).err().unwrap();
    assert!(matches!(refused, AppendError::TooLarge(bytes) if bytes == largest + 1));
    store(&journal, 1, largest);
    store(&journal, 2, largest);
    store(&journal, 3, 8);
    assert_eq!(ids(&journal, 0), [1, 2, 3]);
}

#[test]
fn a_full_queue_says_busy_and_memory_takes_half() {
    for (durability, taken) in [(Durability::Disk, 4), (Durability::Memory, 2)] {
        let mut rig = Rig::new(8);
        rig.config.durability = durability;
        rig.config.queue_records_max = 4;
        let (journal, _) = rig.open();
        // The writer cannot take anything while it cannot have the table.
        let table = crate::journal::locked(&journal.shared.table);
        let first = journal.append(record(1, 8), settle).unwrap();
        eventually("the writer takes the first", || rig.metrics.journal_queue.get() == 0);
        let mut id = 2;
        let refused = loop {
            match journal.append(record(id, 8), settle) {
                Ok(_) => id += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::Busy));
        assert_eq!(id - 2, taken);
        drop(table);
        assert_eq!(wait(first).unwrap(), Position(1));
        journal.close();
        assert_eq!(ids(&rig.open().0, 0), (1..id).collect::<Vec<_>>());
    }
}

#[test]
fn what_the_operating_system_has_survives_a_kill_and_not_a_power_cut() {
    for (survival, expected) in [(Survival::Killed, vec![1, 2, 3]), (Survival::Nothing, vec![])] {
        let mut rig = Rig::new(9);
        rig.config.durability = Durability::Os;
        let (journal, _) = rig.open();
        for id in 1..=3 {
            store(&journal, id, 100);
        }
        assert_eq!(ids(&journal, 0), [1, 2, 3]);
        rig.restart(survival);
        assert_eq!(ids(&rig.open().0, 0), expected);
    }
}

#[test]
fn a_failed_sync_loses_that_commit_and_the_next_is_in_a_fresh_segment() {
    for operation in [1, 2] {
        let mut rig = Rig::new(10);
        let (journal, _) = rig.open();
        eventually("two spares", || journal.stats().disk_bytes >= 3 * SEGMENT_BYTES);
        store(&journal, 1, 100);
        rig.fs.fail_at(rig.fs.operations() + operation, io::ErrorKind::Other);
        let lost = wait(journal.append(record(2, 100), settle).unwrap());
        assert!(matches!(lost, Err(AppendError::Failed)));
        assert_eq!(store(&journal, 3, 100), Position(3));
        assert!(journal.stats().healthy);
        assert!(journal.stats().last_error.unwrap().starts_with("cannot write a segment"));
        assert_eq!(ids(&journal, 0), [1, 3]);
        assert_eq!(rig.metrics.journal_errors.get(), 1);
        assert_eq!(rig.metrics.events_rejected.with_label_values(&["journal_failed"]).get(), 1);
        rig.restart(Survival::Nothing);
        let found = ids(&rig.open().0, 0);
        assert!(found == [1, 3] || found == [1, 2, 3], "{found:?}");
        assert_eq!(rig.corrupt_frames(), 0);
    }
}

#[test]
fn a_disk_that_fails_twice_in_a_row_ends_the_journal_and_says_so() {
    let rig = Rig::new(11);
    let (journal, _) = rig.open();
    store(&journal, 1, 100);
    rig.fs.fail_all(Some(io::ErrorKind::Other));
    let lost = wait(journal.append(record(2, 100), settle).unwrap());
    assert!(matches!(lost, Err(AppendError::Failed)));
    block_on(journal.failed());
    assert!(!journal.stats().healthy);
    assert!(matches!(journal.append(record(3, 100), settle), Err(AppendError::Failed)));
    assert_eq!(ids(&journal, 0), [1]);
    journal.close();
}

#[test]
fn a_full_journal_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    let rig = Rig::new(12);
    let (journal, _) = rig.open();
    let mut stored = Vec::new();
    let mut id = 0;
    loop {
        id += 1;
        match journal.append(record(id, 1000), settle).map(wait) {
            Ok(Ok(_)) => stored.push(id),
            Ok(Err(AppendError::Full)) | Err(AppendError::Full) => break,
            Ok(Err(error)) | Err(error) => panic!("{error}"),
        }
    }
    let stats = journal.stats();
    assert!(!stats.healthy);
    assert!(stats.disk_bytes <= stats.disk_bytes_max);
    assert!(stats.disk_bytes > stats.disk_bytes_max / 10 * 8, "{}", stats.disk_bytes);
    assert_eq!(ids(&journal, 0), stored);
    journal.forget(journal.durable());
    eventually("room", || journal.stats().healthy);
    store(&journal, id, 1000);
    assert!(journal.first() > Position(1));
}

#[test]
fn a_full_disk_is_a_refusal_and_never_the_end() {
    let rig = Rig::new(13);
    let (journal, _) = rig.open();
    store(&journal, 1, 1000);
    rig.fs.set_capacity(0);
    let mut stored = vec![1];
    let mut id = 1;
    loop {
        id += 1;
        match journal.append(record(id, 1000), settle).map(wait) {
            Ok(Ok(_)) => stored.push(id),
            Ok(Err(AppendError::Full)) | Err(AppendError::Full) => break,
            Ok(Err(error)) | Err(error) => panic!("{error}"),
        }
    }
    journal.close();
    let (journal, _) = rig.open();
    assert_eq!(ids(&journal, 0), stored);
    let refused = journal.append(record(id, 1000), settle).map(wait);
    if let Ok(Ok(_)) = refused {
        stored.push(id);
    }
    rig.fs.set_capacity(8 << 20);
    eventually("room", || journal.stats().healthy);
    store(&journal, 1000, 1000);
    stored.push(1000);
    assert_eq!(ids(&journal, 0), stored);
}

#[test]
fn a_small_volume_has_small_segments_and_no_more_than_it_holds() {
    let mut rig = Rig::new(19);
    rig.config.segment_bytes = 64 << 20;
    rig.config.disk_bytes_max = 0;
    let (journal, _) = rig.open();
    assert_eq!(journal.stats().disk_bytes_max, 8 << 20);
    let largest = (512 << 10) - 4096 - 24;
    assert!(matches!(journal.append(vec![0; largest + 1], settle), Err(AppendError::TooLarge(_))));
    store(&journal, 1, largest);
}

#[test]
fn a_first_start_on_a_full_disk_waits_for_room() {
    let rig = Rig::new(14);
    rig.fs.set_capacity(0);
    let (journal, _) = rig.open();
    assert!(matches!(journal.append(record(1, 10), settle), Err(AppendError::Full)));
    assert!(!journal.stats().healthy);
    let node = journal.node();
    rig.fs.set_capacity(8 << 20);
    eventually("room", || journal.stats().healthy);
    assert_eq!(store(&journal, 1, 10), Position(1));
    journal.close();
    let (journal, _) = rig.open();
    assert_eq!(journal.node(), node);
    assert_eq!(ids(&journal, 0), [1]);
}

#[test]
fn forgotten_segments_are_kept_their_time_and_used_again() {
    let mut rig = Rig::new(15);
    rig.config.keep = Duration::from_secs(3600);
    let (journal, _) = rig.open();
    for id in 1..=60 {
        store(&journal, id, 1000);
    }
    journal.forget(Position(60));
    let round = || crate::journal::Keeper::new(Arc::clone(&journal.shared)).round();
    round();
    assert_eq!(journal.first(), Position(1));
    rig.clock.advance(Duration::from_secs(3601));
    round();
    assert!(journal.first() > Position(40), "{}", journal.first());
    let files = rig.fs.names(Path::new(FOLDER)).len();
    for id in 61..=600 {
        store(&journal, id, 1000);
        journal.forget(Position(id));
        rig.clock.advance(Duration::from_secs(3601));
    }
    round();
    assert!(rig.fs.names(Path::new(FOLDER)).len() <= files + 4);
    let first = journal.first().0;
    assert_eq!(ids(&journal, 0), (first..=600).collect::<Vec<_>>());
    assert_eq!(rig.corrupt_frames(), 0);
}

#[test]
fn a_reader_whose_segment_is_recycled_goes_on_with_the_oldest_there_is() {
    let rig = Rig::new(16);
    let (journal, _) = rig.open();
    for id in 1..=30 {
        store(&journal, id, 1000);
    }
    let mut reader = journal.reader(Position(0));
    let first = reader.read(1).unwrap();
    assert_eq!(first.iter().map(id_of).collect::<Vec<_>>(), [1]);
    for id in 31..=200 {
        store(&journal, id, 1000);
        journal.forget(Position(id));
    }
    eventually("recycling", || journal.first() > Position(150));
    let rest = read_all(&mut reader).unwrap();
    let rest: Vec<_> = rest.iter().map(id_of).collect();
    assert!(rest.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(rest.last(), Some(&200));
    assert_eq!(rig.corrupt_frames(), 0);
}

#[test]
fn a_record_is_read_by_its_place_until_that_is_used_for_another() {
    let rig = Rig::new(24);
    let (journal, _) = rig.open();
    for id in 1..=40 {
        store(&journal, id, 1000);
    }
    let records = read_all(&mut journal.reader(Position(0))).unwrap();
    let mut fetcher = journal.fetcher();
    let every_third: Vec<&Record> = records.iter().step_by(3).collect();
    for record in &every_third {
        assert_eq!(fetcher.fetch(record.location).unwrap(), Some(&*record.bytes));
    }
    // What was appended since is found by one that was there before.
    store(&journal, 41, 1000);
    let later = journal.reader(Position(40)).read(1).unwrap().remove(0);
    assert_eq!(fetcher.fetch(later.location).unwrap(), Some(&*later.bytes));
    for id in 42..=200 {
        store(&journal, id, 1000);
        journal.forget(Position(id));
    }
    eventually("recycling", || journal.first() > Position(150));
    for mut fetcher in [fetcher, journal.fetcher()] {
        assert_eq!(fetcher.fetch(every_third[0].location).unwrap(), None);
    }
    assert_eq!(fetch_nowhere(&journal), None);
    assert_eq!(rig.corrupt_frames(), 0, "nothing is damaged");
}

fn fetch_nowhere(journal: &Journal) -> Option<Vec<u8>> {
    journal.fetcher().fetch(Location::nowhere(Position(200))).unwrap().map(<[u8]>::to_vec)
}

#[test]
fn many_threads_append_while_a_reader_follows() {
    const THREADS: u64 = 4;
    const EACH: u64 = 300;
    let rig = Rig::new(17);
    let (journal, _) = rig.open();
    let mut followed = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = journal.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let id = thread * EACH + number;
                    let record = record(id, 50 + usize::try_from(id % 400).unwrap());
                    wait(journal.append(record, settle).unwrap()).unwrap();
                }
            });
        }
        let mut reader = journal.reader(Position(0));
        while (followed.len() as u64) < THREADS * EACH {
            block_on(journal.wait_after(reader.position()));
            followed.extend(reader.read(2000).unwrap());
        }
    });
    let positions: Vec<_> = followed.iter().map(|record| record.location.position.0).collect();
    assert_eq!(positions, (1..=THREADS * EACH).collect::<Vec<_>>());
    for thread in 0..THREADS {
        let own = followed.iter().map(id_of).filter(|id| id / EACH == thread);
        assert!(own.eq(thread * EACH..(thread + 1) * EACH), "order of one caller");
    }
    assert!(rig.metrics.journal_commits.get() <= THREADS * EACH);
}

#[test]
fn waiting_for_a_position_ends_with_it_and_not_before() {
    let rig = Rig::new(18);
    let (journal, _) = rig.open();
    store(&journal, 1, 10);
    block_on(async {
        journal.wait_after(Position(0)).await;
        let mut waiting = std::pin::pin!(journal.wait_after(Position(1)));
        let polled = tokio::time::timeout(Duration::ZERO, waiting.as_mut()).await;
        assert!(polled.is_err());
        journal.append(record(2, 10), settle).unwrap().durable().await.unwrap();
        waiting.await;
    });
}
