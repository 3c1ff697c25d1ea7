//! The thread behind the writer: makes files ready, takes back what is no longer needed, and watches
//! how much room is left. So the writer never creates, wipes or removes a file.
//!
//! A new file is wiped in slices, each synced, with a pause as long as the slice took: one large
//! flush would stand in front of the writer's own. When the writer waits, the pauses end and the
//! file is handed over as soon as it is long enough; a short segment is as good as a long one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::fs::{self, File};
use super::segment::{FIRST_FRAME, HEADER_BYTES, Header, SUFFIX, SUFFIX_NEW, Segment, Spare};
use super::shared::{Gate, Shared, locked};
use super::table::{Release, Table, Told};
use super::writer::Loss;

/// Files kept ready: one that is next, one behind it for when the next is filled quickly.
const SPARES_READY: usize = 2;
/// Old segments kept for use beyond that; wiping new ones costs more than this room.
const SPARES_MAX: usize = 4;
/// Length of a segment that somebody waits for: a few milliseconds of wiping.
const QUICK_BYTES: u64 = 1 << 20;
/// Wiped and synced at a time while nobody waits.
const SLICE_BYTES: usize = 128 << 10;
/// Longest pause between slices.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How often room and age are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// Above this share of its bound the journal takes no more.
const FULL_PERCENT: u64 = 95;
/// Above this share of its bound the journal keeps nothing for refill.
const TIGHT_PERCENT: u64 = 70;

/// The thread's state.
pub(super) struct Keeper {
    shared: Arc<Shared>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Works until the table says stop.
    pub(super) fn run(&self) {
        let _watch = self.shared.watch_thread();
        while self.wait() {
            self.round();
        }
    }

    /// One look at everything.
    pub(super) fn round(&self) {
        let free = self.shared.fs.space(&self.shared.folder).map_or(u64::MAX, |space| space.free);
        self.release(free);
        let has_room = self.make_ready();
        self.decide(has_room);
    }

    /// True when there is work, false when the thread shall end.
    fn wait(&self) -> bool {
        let mut table = locked(&self.shared.table);
        if table.keeper == Told::Nothing && table.wanted.is_none() {
            table = Shared::wait_timeout(&self.shared.work, table, ROUND);
        }
        if table.keeper == Told::Stop {
            return false;
        }
        table.keeper = Told::Nothing;
        true
    }

    /// Takes back segments nobody needs.
    fn release(&self, free: u64) {
        let shared = &self.shared;
        let keep_ms = i64::try_from(shared.keep.as_millis()).unwrap_or(i64::MAX);
        let now_ms = shared.clock.wall().timestamp_millis();
        let rule = Release {
            created_before_ms: now_ms.saturating_sub(keep_ms),
            bytes_max: shared.keep_bytes_max,
            disk_bytes_max: shared.disk_bytes_max / 100 * TIGHT_PERCENT,
            is_volume_short: free < self.reserve_bytes() + shared.segment_bytes,
        };
        let (mut is_removed, mut given_up) = (false, 0_u32);
        loop {
            let released = locked(&shared.table).release(&rule);
            let Some(segment) = released else { break };
            // Old enough or not: what is kept for refill goes before its time when room is short.
            given_up += u32::from(segment.created_ms > rule.created_before_ms);
            match self.recycle(&segment) {
                Ok(true) => {}
                Ok(false) => is_removed = true,
                Err(error) => {
                    tracing::warn!(name = segment.name, %error, "cannot recycle a segment");
                }
            }
        }
        if given_up > 0 && rule.is_volume_short {
            tracing::info!(
                segments = given_up,
                "room is short, delivered segments are given up early"
            );
        }
        if is_removed && let Err(error) = shared.fs.sync_folder(&shared.folder) {
            tracing::warn!(%error, "cannot sync the journal's folder");
        }
    }

    /// Makes a spare of an old segment, or removes it when there are enough (false).
    fn recycle(&self, segment: &Segment) -> io::Result<bool> {
        let shared = &self.shared;
        let path = shared.folder.join(&segment.name);
        let has_enough = locked(&shared.table).spares.len() >= SPARES_MAX;
        if has_enough || segment.bytes != shared.segment_bytes {
            return shared.fs.remove(&path).map(|()| false);
        }
        let file = shared.fs.open(&path)?;
        Header::spare(shared.identity, segment.epoch, false).write(&*file)?;
        let spare =
            Spare { name: segment.name.clone(), file, bytes: segment.bytes, is_blank: false };
        locked(&shared.table).spares.push_back(spare);
        shared.spare_ready.notify_all();
        Ok(true)
    }

    /// Makes spares until there are enough. False when there is no room for another.
    fn make_ready(&self) -> bool {
        loop {
            let (wanted, has_enough) = {
                let table = locked(&self.shared.table);
                if table.keeper == Told::Stop {
                    return true;
                }
                let wanted = table
                    .wanted
                    .filter(|bytes| !table.spares.iter().any(|spare| spare.bytes >= *bytes));
                (wanted, table.spares.len() >= SPARES_READY)
            };
            if wanted.is_none() && has_enough {
                return true;
            }
            if let Err(loss) = self.make(wanted) {
                let mut table = locked(&self.shared.table);
                if table.wanted.is_some() {
                    table.refused = Some(loss);
                    self.shared.spare_ready.notify_all();
                }
                return loss != Loss::Full;
            }
        }
    }

    /// Makes one spare: a short one of at least `wanted` bytes at once, or a whole one in peace.
    pub(super) fn make(&self, wanted: Option<u64>) -> Result<(), Loss> {
        let shared = &self.shared;
        let (name, room) = {
            let mut table = locked(&shared.table);
            let number = table.name_next;
            table.name_next += 1;
            (format!("{number:08}"), shared.disk_bytes_max.saturating_sub(table.disk_bytes()))
        };
        let free = shared.fs.space(&shared.folder).map_or(u64::MAX, |space| space.free);
        let room = room.min(free.saturating_sub(self.reserve_bytes()));
        let bytes = if room >= shared.segment_bytes {
            shared.segment_bytes
        } else {
            wanted.unwrap_or(u64::MAX).max(QUICK_BYTES.min(shared.segment_bytes))
        };
        if bytes > room {
            return Err(Loss::Full);
        }
        match self.make_file(&name, bytes) {
            Ok(Some(spare)) => {
                locked(&shared.table).spares.push_back(spare);
                shared.spare_ready.notify_all();
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                let _ = shared.fs.remove(&shared.folder.join(format!("{name}{SUFFIX_NEW}")));
                Err(shared.note_error("cannot make a segment", &error))
            }
        }
    }

    /// `None` when the thread shall end.
    fn make_file(&self, name: &str, bytes_max: u64) -> io::Result<Option<Spare>> {
        let shared = &self.shared;
        let new = shared.folder.join(format!("{name}{SUFFIX_NEW}"));
        let file = shared.fs.create(&new)?;
        let Some(bytes) = self.wipe(&*file, bytes_max)? else {
            shared.fs.remove(&new)?;
            return Ok(None);
        };
        Header::spare(shared.identity, 0, true).write(&*file)?;
        let name = format!("{name}{SUFFIX}");
        shared.fs.rename(&new, &shared.folder.join(&name))?;
        shared.fs.sync_folder(&shared.folder)?;
        Ok(Some(Spare { name, file, bytes, is_blank: true }))
    }

    /// Fills the file with zeros, and says how long it became.
    fn wipe(&self, file: &dyn File, bytes_max: u64) -> io::Result<Option<u64>> {
        let quick = QUICK_BYTES.min(bytes_max);
        let mut zeros = Vec::new();
        let mut done = 0;
        while done < bytes_max {
            let wanted = {
                let table = locked(&self.shared.table);
                if table.keeper == Told::Stop {
                    return Ok(None);
                }
                table.wanted.map(|wanted| wanted.max(quick))
            };
            let slice = match wanted {
                Some(wanted) if done >= wanted => break,
                Some(wanted) => (wanted - done).min(QUICK_BYTES).max(SLICE_BYTES as u64),
                None => SLICE_BYTES as u64,
            };
            let slice = slice.min(bytes_max - done);
            zeros.resize(usize::try_from(slice).unwrap_or(SLICE_BYTES), 0);
            let began = self.shared.clock.monotonic();
            file.write_all_at(&zeros, done)?;
            file.sync_data()?;
            done += slice;
            let took = self.shared.clock.monotonic().saturating_duration_since(began);
            let table = locked(&self.shared.table);
            if table.wanted.is_none() && table.keeper != Told::Stop && !took.is_zero() {
                drop(Shared::wait_timeout(&self.shared.work, table, took.min(PAUSE_MAX)));
            }
        }
        Ok(Some(done.max(HEADER_BYTES as u64)))
    }

    /// Opens or closes the door, by what room there is.
    fn decide(&self, has_room: bool) {
        let shared = &self.shared;
        let table = locked(&shared.table);
        let gate = self.gate(&table, has_room);
        let disk_bytes = i64::try_from(table.disk_bytes()).unwrap_or(i64::MAX);
        drop(table);
        shared.metrics.journal_disk_bytes.set(disk_bytes);
        shared.set_gate(gate);
    }

    fn gate(&self, table: &Table, has_room: bool) -> Gate {
        let full_bytes = self.shared.disk_bytes_max / 100 * FULL_PERCENT;
        let has_room = has_room
            || !table.spares.is_empty()
            || table.room_bytes() >= self.shared.segment_bytes / 16;
        if table.used_bytes() < full_bytes && has_room { Gate::Open } else { Gate::Full }
    }

    /// Room on the volume that is left for cursors, stores and whoever comes to tidy up.
    fn reserve_bytes(&self) -> u64 {
        2 * self.shared.segment_bytes
    }

    /// Makes the first segment's file before anybody waits, as short as may be.
    pub(super) fn make_first(&self) -> Result<(), Loss> {
        if !locked(&self.shared.table).spares.is_empty() {
            return Ok(());
        }
        let wanted = Some(FIRST_FRAME + 1);
        locked(&self.shared.table).wanted = wanted;
        let made = self.make(wanted);
        locked(&self.shared.table).wanted = None;
        made
    }
}

/// The error behind a failed write, as what the caller is told.
pub(super) fn loss_of(error: &io::Error) -> Loss {
    if fs::is_no_space(error) { Loss::Full } else { Loss::Failed }
}
