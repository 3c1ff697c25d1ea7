//! The few file operations the journal needs, as traits, so that a test can take the power away.
//!
//! Nothing here is cached or retried: the journal decides what an error means. Every operation
//! that changes something is one call, because a power cut is simulated between calls.

use std::any::Any;
use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// One file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// How much a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes this process may still take.
    pub free: u64,
    /// Bytes of the whole volume.
    pub total: u64,
}

/// A lock on a folder; ends when dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A file system.
pub trait Fs: Send + Sync + 'static {
    /// Makes a folder only its owner may enter, with the folders above it; it may exist.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Locks `path`, which is created when absent; `None` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
    /// The regular files of a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Creates a file only its owner may read; an error when it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file within its folder, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the folder's names durable: until then a new, renamed or removed file may come back.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// What is left on the volume of `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. Dropping it closes it without syncing.
pub trait File: Send + Sync {
    /// Reads some bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. After an error any part of it may be in the file.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`: contents and length are durable. After an error what was written before it may
    /// be lost even if a later call succeeds.
    fn sync_data(&self) -> io::Result<()>;
    /// Shortens or extends the file; what is new reads as zero.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Length of the file.
    fn bytes(&self) -> io::Result<u64>;
}

/// Fills `buffer` from `offset` on, and says how much the file had.
pub(super) fn read_full(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// True when the error means that there is no room, which passes, rather than that the disk fails.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // A name that is no text was not given by the journal.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if metadata.is_file() {
                entries.push(Entry { name, bytes: metadata.len() });
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // The folder above a bare name is the one we are in.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let volume = rustix::fs::statvfs(path)?;
        Ok(Space {
            free: volume.f_bavail.saturating_mul(volume.f_frsize),
            total: volume.f_blocks.saturating_mul(volume.f_frsize),
        })
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        fs::File::set_len(self, bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Bytes in memory that are read as a file, for callers that have a segment's bytes at hand.
pub(super) struct InMemory(pub(super) Vec<u8>);

impl File for InMemory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = self.0.get(from..).unwrap_or_default();
        let count = source.len().min(buffer.len());
        for (target, byte) in buffer.iter_mut().zip(source) {
            *target = *byte;
        }
        Ok(count)
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
