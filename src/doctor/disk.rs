//! The data folder: may it be written, how long does a sync take, how much room is left.
//!
//! The sync is what every answer waits for, so it is measured as the journal does it: 4 KiB written
//! in place to a file that has its length, then `fdatasync`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Finding, Findings, Level};

/// Syncs that are measured.
const SYNCS: usize = 40;
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// A median above this is felt by whoever waits for an answer.
const SLOW: Duration = Duration::from_millis(20);
/// A median below this is faster than storage that keeps its word.
const SUSPICIOUS: Duration = Duration::from_micros(8);
/// Room below which an operator should act.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Writes to `folder` and measures.
pub(super) fn look(folder: &Path) -> Vec<Finding> {
    let mut found = Findings::about("disk");
    if !folder.exists() {
        found.add(
            Level::Unknown,
            format!("{} is not there yet", folder.display()),
            "it is made at the first start",
        );
        return found.found;
    }
    match syncs(&folder.join(".doctor")) {
        Ok(took) => judge(&mut found, &took),
        Err(error) => found.add(
            Level::Failure,
            format!("{} cannot be written: {error}", folder.display()),
            "run this as the user the server runs as; that user must own the folder",
        ),
    }
    match rustix::fs::statvfs(folder) {
        Ok(volume) => {
            let free = volume.f_bavail.saturating_mul(volume.f_frsize);
            let gib = free >> 30;
            if free < FREE_BYTES_MIN {
                let advice = "make room: without any, events are answered with 503";
                found.add(Level::Warning, format!("{} MiB are free", free >> 20), advice);
            } else {
                found.good(format!("{gib} GiB are free"));
            }
        }
        Err(error) => found.add(Level::Unknown, format!("free room: {error}"), ""),
    }
    found.found
}

/// How long each sync took, sorted. The file is removed again.
fn syncs(path: &Path) -> io::Result<Vec<Duration>> {
    let measured = measure(path);
    // Also what a failure left behind.
    let removed = fs::remove_file(path);
    let mut took = measured?;
    removed?;
    took.sort_unstable();
    Ok(took)
}

fn measure(path: &Path) -> io::Result<Vec<Duration>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.set_len(BLOCK.len() as u64 * SYNCS as u64)?;
    file.sync_all()?;
    let mut took = Vec::with_capacity(SYNCS);
    for index in 0..SYNCS as u64 {
        let began = Instant::now();
        file.write_all_at(&BLOCK, index * BLOCK.len() as u64)?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(took)
}

fn judge(found: &mut Findings, took: &[Duration]) {
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    let worst = took.last().copied().unwrap_or_default();
    let what = format!("a sync takes {median:.1?}, {worst:.1?} at worst");
    if median > SLOW {
        let advice = "every answer waits so long: use a local SSD for DataDirectory";
        found.add(Level::Warning, what, advice);
    } else if median < SUSPICIOUS {
        found.add(
            Level::Warning,
            what,
            "too fast to be true: memory or a drive that does not keep its word would lose events \
             in a power cut",
        );
    } else {
        found.good(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let found = look(folder.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].what.starts_with("a sync takes"), "{found:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(look(&folder.path().join("none"))[0].level, Level::Unknown);
    }

    #[test]
    fn slow_and_too_fast_disks_are_worth_a_word() {
        for (median, expect) in [
            (Duration::from_micros(2), Level::Warning),
            (Duration::from_micros(200), Level::Good),
            (Duration::from_millis(30), Level::Warning),
        ] {
            let mut found = Findings::about("disk");
            judge(&mut found, &[median; 3]);
            assert_eq!(found.found[0].level, expect, "{median:?}");
        }
    }
}
