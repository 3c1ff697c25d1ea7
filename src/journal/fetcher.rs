//! Reads records again whose places are known, whatever stands between them.
//!
//! A batch is read when it is written, not kept since it was found: its records are in the cache of
//! the operating system as a rule, and a backlog takes no memory. Records that follow each other are
//! read in one go.

use std::io;
use std::sync::Arc;

use super::frame::Scanner;
use super::reader::{count_damage, scanner};
use super::shared::{Shared, locked};
use super::{Location, Position};

/// Reads records by their places.
pub struct Fetcher {
    shared: Arc<Shared>,
    scanner: Option<Scanner>,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, scanner: None }
    }

    /// The record at `at`; `None` when it is no longer there, or was damaged since, which is counted.
    /// Fastest in order of position. Blocking: call it off the async workers.
    ///
    /// # Errors
    /// When the disk cannot be read; the next call tries again.
    pub fn fetch(&mut self, at: Location) -> io::Result<Option<&[u8]>> {
        if !self.covers(at) && !self.open(at)? {
            return Ok(None);
        }
        let Some(scanner) = &mut self.scanner else { return Ok(None) };
        let Some(payload_bytes) = scanner.seek(at.offset, at.position)? else {
            count_damage(&self.shared, &mut locked(&self.shared.table), at.epoch, at.offset);
            return Ok(None);
        };
        Ok(Some(scanner.payload(at.offset, payload_bytes)))
    }

    /// Whether what is open is the segment, as far as it has been written when the record was found.
    fn covers(&self, at: Location) -> bool {
        let scanner = self.scanner.as_ref();
        scanner.is_some_and(|scanner| scanner.epoch() == at.epoch && at.offset < scanner.end())
    }

    /// Opens the segment; false when it is no longer there.
    fn open(&mut self, at: Location) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let (name, end) = match locked(&shared.table).segment_mut(at.epoch) {
            Some(segment) => (segment.name.clone(), segment.end),
            None => return Ok(false),
        };
        if let Some(scanner) = self.scanner.as_mut().filter(|open| open.epoch() == at.epoch) {
            scanner.extend(end);
            return Ok(true);
        }
        match scanner(&shared, &name, at.epoch, end, Position(0)) {
            Ok(scanner) => {
                self.scanner = Some(scanner);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Recycled since the table was looked at, or taken away by somebody.
                count_damage(&shared, &mut locked(&shared.table), at.epoch, 0);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
