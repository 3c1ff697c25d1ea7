//! Settings of the journal.

use std::path::PathBuf;
use std::time::Duration;

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After `fdatasync`: survives a power cut.
    #[default]
    Disk,
    /// After the write reached the operating system: survives a kill.
    Os,
    /// When the queue took it: survives nothing.
    Memory,
}

impl Durability {
    /// The word in the configuration, in `X-Ack` and in `/health`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "durable",
            Self::Os => "os",
            Self::Memory => "memory",
        }
    }
}

/// Where the journal lives and how large it may grow.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalConfig {
    /// Folder of the segments (`DataDirectory/journal`).
    pub directory: PathBuf,
    /// `Durability`.
    pub durability: Durability,
    /// `JournalSegmentBytes`: size of one segment file, 1 MiB to 1 GiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// `JournalMaxBytes`: the journal refuses events above this; 0 = a tenth of the volume, at
    /// least 1 GiB.
    pub disk_bytes_max: u64,
    /// `JournalKeep`: how long segments that every sink has stay for refill. Default 24 h.
    pub keep: Duration,
    /// Upper bound of what `keep` holds. Default 2 GiB.
    pub keep_bytes_max: u64,
    /// Appends waiting for the writer; more are refused. Default 16,384.
    pub queue_records_max: usize,
}

impl JournalConfig {
    /// The defaults, in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            durability: Durability::Disk,
            segment_bytes: 64 << 20,
            disk_bytes_max: 0,
            keep: Duration::from_secs(24 * 60 * 60),
            keep_bytes_max: 2 << 30,
            queue_records_max: 16_384,
        }
    }
}
