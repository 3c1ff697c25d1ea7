//! The power goes after each single operation of a script, and the disk keeps nothing, everything,
//! or any part of what was not synced.

use std::collections::BTreeMap;

use super::*;

/// What a process was told before the power went.
#[derive(Default)]
struct Told {
    /// Stored, by id.
    stored: BTreeMap<u64, Position>,
    /// Accepted, whatever became of it.
    accepted: u64,
}

/// Appends, rolls, forgets, recycles and reopens, until something fails.
fn script(rig: &Rig, told: &mut Told, forgotten: &mut Position) {
    for _ in 0..2 {
        let Ok((journal, _)) = rig.try_open(forgotten.0) else { return };
        for step in 0..12 {
            let mut pending = Vec::new();
            for _ in 0..=step % 3 {
                told.accepted += 1;
                match journal.append(record(told.accepted, 1500), settle) {
                    Ok(accepted) => pending.push((told.accepted, accepted)),
                    Err(_) => break,
                }
            }
            for (id, pending) in pending {
                if let Ok(position) = wait(pending) {
                    told.stored.insert(id, position);
                }
            }
            if !rig.fs.is_powered() {
                return;
            }
            if step == 8 {
                *forgotten = Position(journal.durable().0.saturating_sub(4));
                journal.forget(*forgotten);
            }
        }
        journal.close();
    }
}

fn check(mut rig: Rig, told: &Told, forgotten: Position) {
    let (journal, _) = rig.try_open(forgotten.0).unwrap();
    let records = read_all(&mut journal.reader(forgotten)).unwrap();
    // What was read may be in a store by now, so no power cut may take it back.
    rig.restart(Survival::Nothing);
    drop(journal);
    let (journal, _) = rig.try_open(forgotten.0).unwrap();
    assert_eq!(read_all(&mut journal.reader(forgotten)).unwrap(), records, "read, and gone");
    let found: Vec<u64> = records.iter().map(id_of).collect();
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "order, or twice: {found:?}");
    assert!(found.last().is_none_or(|last| *last <= told.accepted));
    for (id, position) in told.stored.iter().filter(|(_, position)| **position > forgotten) {
        let at = records
            .iter()
            .find(|record| id_of(record) == *id)
            .map(|record| record.location.position);
        assert_eq!(at, Some(*position), "stored and lost or moved: {id}");
    }
    let next = wait(journal.append(record(u64::MAX, 100), settle).unwrap()).unwrap();
    assert!(told.stored.values().all(|position| *position < next), "a position given twice");
    journal.close();
    let (journal, _) = rig.try_open(forgotten.0).unwrap();
    let again = read_all(&mut journal.reader(forgotten)).unwrap();
    assert_eq!(again.split_last().unwrap().1, records, "what was found once is found again");
}

#[test]
fn no_operation_is_one_after_which_a_power_cut_loses_what_was_stored() {
    let whole = Rig::new(0);
    script(&whole, &mut Told::default(), &mut Position(0));
    let operations = whole.fs.operations();
    assert!(operations > 100, "{operations}");
    for operation in 1..=operations {
        let kinds = [Survival::Nothing, Survival::Some, Survival::Some, Survival::Killed];
        for (kind, survival) in (0..).zip(kinds) {
            let mut rig = Rig::new(operation * 7 + kind);
            rig.fs.cut_power_at(operation);
            let (mut told, mut forgotten) = (Told::default(), Position(0));
            script(&rig, &mut told, &mut forgotten);
            rig.restart(survival);
            check(rig, &told, forgotten);
        }
    }
}

#[test]
fn any_operation_may_fail_and_what_was_stored_is_there() {
    let whole = Rig::new(0);
    script(&whole, &mut Told::default(), &mut Position(0));
    for operation in 1..=whole.fs.operations() {
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            let mut rig = Rig::new(operation);
            rig.fs.fail_at(operation, error);
            let (mut told, mut forgotten) = (Told::default(), Position(0));
            script(&rig, &mut told, &mut forgotten);
            rig.restart(Survival::Nothing);
            check(rig, &told, forgotten);
        }
    }
}
