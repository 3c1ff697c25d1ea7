//! A file system in memory that keeps nothing that was not synced: the model of a power cut.
//!
//! What it takes for true, and the journal may rely on:
//!
//! - A file's contents survive when `sync_data` succeeded after they were written. What was written
//!   since is kept or lost by the 512-byte sector, in any order, decided by the seed.
//! - A sector is never half old and half new.
//! - A name (created, renamed, removed) survives when its folder was synced after; before, each such
//!   operation is kept or lost by itself. A rename is never half done.
//! - After a failed `sync_data` the writes before it are no longer waiting: some are on disk, the
//!   others never will be, though they can still be read until the power goes.
//!
//! Operations that change something are numbered from 1. A test can have the power go after the
//! n-th, or have the n-th fail, and then do the same for each n.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fs::{Entry, File, Fs, Lock, Space};

/// A disk writes this much or nothing.
const SECTOR_BYTES: usize = 512;

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// A power cut: it is lost.
    Nothing,
    /// A power cut: each sector and each name is kept or lost by the throw of a coin.
    Some,
    /// Only the process was killed: all can still be read, and lost by a power cut later.
    Killed,
}

/// The file system as one process sees it, until the power goes. Clones are the same process.
#[derive(Clone)]
pub struct StrictFs {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
}

/// A change of a folder that is not durable yet.
struct Renaming {
    gone: Option<PathBuf>,
    here: Option<(PathBuf, u64)>,
}

#[derive(Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    waiting: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

struct Disk {
    random: u64,
    /// Grows at each power cut; handles of an earlier one are dead.
    boot: u64,
    powered: bool,
    operations: u64,
    power_cut_at: Option<u64>,
    failing: BTreeMap<u64, io::ErrorKind>,
    failing_all: Option<io::ErrorKind>,
    /// Bytes of the disk.
    size: u64,
    /// Those of it that our files may take.
    capacity: u64,
    inodes: HashMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<PathBuf, u64>,
    names_durable: BTreeMap<PathBuf, u64>,
    names_waiting: Vec<Renaming>,
    locked: BTreeSet<PathBuf>,
    /// Bytes of files that cannot be read.
    unreadable: Vec<(u64, Range<u64>)>,
}

impl StrictFs {
    /// An empty disk of `capacity` bytes; the seed decides what survives.
    pub fn new(seed: u64, capacity: u64) -> Self {
        let disk = Disk {
            random: seed,
            boot: 0,
            powered: true,
            operations: 0,
            power_cut_at: None,
            failing: BTreeMap::new(),
            failing_all: None,
            size: capacity,
            capacity,
            inodes: HashMap::new(),
            inode_next: 0,
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_waiting: Vec::new(),
            locked: BTreeSet::new(),
            unreadable: Vec::new(),
        };
        Self { disk: Arc::new(Mutex::new(disk)), boot: 0 }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changing operations there were.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// The power goes right after the `operation`-th changing operation; all later ones, and all
    /// reads, fail until [`StrictFs::restart`].
    pub fn cut_power_at(&self, operation: u64) {
        self.disk().power_cut_at = Some(operation);
    }

    /// True until the power went.
    pub fn is_powered(&self) -> bool {
        self.disk().powered
    }

    /// The `operation`-th changing operation fails with `kind`.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.disk().failing.insert(operation, kind);
    }

    /// From now on every write and sync fails with `kind`; `None` ends it.
    pub fn fail_all(&self, kind: Option<io::ErrorKind>) {
        self.disk().failing_all = kind;
    }

    /// Somebody else fills the disk, or makes room: so many bytes are left for all our files.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk().capacity = bytes;
    }

    /// The process ends, with or without a power cut, and another begins. All that was opened
    /// before, this value included, only fails from now on; the one returned works.
    #[must_use]
    pub fn restart(&self, survival: Survival) -> Self {
        let mut disk = self.disk();
        disk.restart(survival);
        Self { disk: Arc::clone(&self.disk), boot: disk.boot }
    }

    /// The names in a folder, sorted.
    pub fn names(&self, folder: &Path) -> Vec<String> {
        let disk = self.disk();
        let files = disk.names.keys().filter(|path| path.parent() == Some(folder));
        files.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Changes a file's bytes behind everybody's back, durably: bit rot, or an operator.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.inode_of(path)?;
        let inode = disk.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        change(&mut inode.live);
        inode.durable.clone_from(&inode.live);
        inode.waiting.clear();
        Ok(())
    }

    /// From now on these bytes of a file cannot be read: bad sectors.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn spoil(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.inode_of(path)?;
        disk.unreadable.push((inode, bytes));
        Ok(())
    }

    /// Puts a durable file where there was none, or other bytes.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let inode = disk.new_inode();
        if let Some(file) = disk.inodes.get_mut(&inode) {
            file.durable.clone_from(&bytes);
            file.live = bytes;
        }
        disk.names.insert(path.to_owned(), inode);
        disk.names_durable.insert(path.to_owned(), inode);
    }
}

impl Inode {
    fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write { offset, bytes: new } => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(target) = bytes.get_mut(*offset..end) {
                    target.copy_from_slice(new);
                }
            }
            Change::Len(len) => bytes.resize(*len, 0),
        }
    }

    /// The change cut where sectors meet.
    fn sectors(change: &Change) -> Vec<Change> {
        let Change::Write { offset, bytes } = change else { return vec![change.clone()] };
        let mut sectors = Vec::new();
        let (mut at, mut rest) = (*offset, bytes.as_slice());
        while !rest.is_empty() {
            let (sector, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
            sectors.push(Change::Write { offset: at, bytes: sector.to_vec() });
            at += sector.len();
            rest = behind;
        }
        sectors
    }
}

impl Disk {
    /// The next of a fixed sequence of bits (splitmix64).
    fn coin(&mut self) -> bool {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }

    fn restart(&mut self, survival: Survival) {
        match survival {
            Survival::Nothing => self.lose(|_| false),
            Survival::Some => self.lose(Self::coin),
            Survival::Killed => {}
        }
        self.boot += 1;
        self.powered = true;
        self.power_cut_at = None;
        self.failing.clear();
        self.failing_all = None;
        self.locked.clear();
    }

    fn lose(&mut self, survives: impl Fn(&mut Self) -> bool) {
        for change in std::mem::take(&mut self.names_waiting) {
            if survives(self) {
                change.apply(&mut self.names_durable);
            }
        }
        self.names = self.names_durable.clone();
        let mut inodes = std::mem::take(&mut self.inodes);
        let mut order: Vec<u64> = inodes.keys().copied().collect();
        order.sort_unstable();
        for id in order {
            if !self.names.values().any(|named| *named == id) {
                inodes.remove(&id);
            } else if let Some(inode) = inodes.get_mut(&id) {
                for change in std::mem::take(&mut inode.waiting) {
                    for sector in Inode::sectors(&change) {
                        if survives(self) {
                            Inode::apply(&mut inode.durable, &sector);
                        }
                    }
                }
                inode.live.clone_from(&inode.durable);
            }
        }
        self.inodes = inodes;
    }

    fn powered(&self, boot: u64) -> io::Result<()> {
        if self.powered && self.boot == boot {
            return Ok(());
        }
        Err(io::Error::other("the power is off"))
    }

    /// Counts a changing operation and says whether it happens.
    fn begin(&mut self, boot: u64) -> io::Result<()> {
        self.powered(boot)?;
        self.operations += 1;
        if let Some(kind) = self.failing.remove(&self.operations) {
            return Err(kind.into());
        }
        self.failing_all.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn finish(&mut self) {
        if self.power_cut_at.is_some_and(|at| self.operations >= at) {
            self.powered = false;
        }
    }

    fn new_inode(&mut self) -> u64 {
        self.inode_next += 1;
        self.inodes.insert(self.inode_next, Inode::default());
        self.inode_next
    }

    fn inode_of(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, change: Renaming) {
        change.apply(&mut self.names);
        self.names_waiting.push(change);
        self.finish();
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|inode| self.inodes.get(inode));
        files.map(|inode| inode.live.len() as u64).sum()
    }

    fn change(&mut self, inode: u64, change: Change) -> io::Result<()> {
        let used = self.used();
        let file = self.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let new_end = match &change {
            Change::Write { offset, bytes } => offset + bytes.len(),
            Change::Len(len) => *len,
        };
        let more = new_end.saturating_sub(file.live.len()) as u64;
        if more > 0 && used + more > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Inode::apply(&mut file.live, &change);
        file.waiting.push(change);
        Ok(())
    }

    fn sync(&mut self, inode: u64, began: io::Result<()>) -> io::Result<()> {
        let file = self.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let waiting = std::mem::take(&mut file.waiting);
        for change in &waiting {
            for sector in Inode::sectors(change) {
                let kept = began.is_ok() || self.coin();
                if let Some(file) = self.inodes.get_mut(&inode).filter(|_| kept) {
                    Inode::apply(&mut file.durable, &sector);
                }
            }
        }
        began
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(path) = &self.gone {
            names.remove(path);
        }
        if let Some((path, inode)) = &self.here {
            names.insert(path.clone(), *inode);
        }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let here = self.here.as_ref().map(|(path, _)| path);
        here.or(self.gone.as_ref()).and_then(|path| path.parent()) == Some(folder)
    }
}

impl Fs for StrictFs {
    fn create_folder(&self, _path: &Path) -> io::Result<()> {
        // Folders are there whenever they are named: the journal makes one, once.
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut disk = self.disk();
        disk.powered(self.boot)?;
        if !disk.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(StrictLock { fs: self.clone(), path: path.to_owned() })))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        disk.powered(self.boot)?;
        let mut entries = Vec::new();
        for (path, inode) in disk.names.iter().filter(|(path, _)| path.parent() == Some(folder)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let bytes = disk.inodes.get(inode).map_or(0, |inode| inode.live.len() as u64);
            entries.push(Entry { name: name.to_owned(), bytes });
        }
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let disk = self.disk();
        disk.powered(self.boot)?;
        let inode = disk.inode_of(path)?;
        Ok(Arc::new(StrictFile { fs: self.clone(), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.begin(self.boot)?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.new_inode();
        disk.rename(Renaming { gone: None, here: Some((path.to_owned(), inode)) });
        Ok(Arc::new(StrictFile { fs: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(self.boot)?;
        let inode = disk.inode_of(from)?;
        disk.rename(Renaming { gone: Some(from.to_owned()), here: Some((to.to_owned(), inode)) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.powered(self.boot)?;
        disk.inode_of(path)?;
        disk.begin(self.boot)?;
        disk.rename(Renaming { gone: Some(path.to_owned()), here: None });
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(self.boot)?;
        let waiting = std::mem::take(&mut disk.names_waiting);
        let (synced, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|change| change.is_in(path));
        for change in synced {
            change.apply(&mut disk.names_durable);
        }
        disk.names_waiting = rest;
        disk.finish();
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let disk = self.disk();
        disk.powered(self.boot)?;
        Ok(Space { free: disk.capacity.saturating_sub(disk.used()), total: disk.size })
    }
}

struct StrictLock {
    fs: StrictFs,
    path: PathBuf,
}

impl Drop for StrictLock {
    fn drop(&mut self) {
        let mut disk = self.fs.disk();
        if disk.boot == self.fs.boot {
            disk.locked.remove(&self.path);
        }
    }
}

struct StrictFile {
    fs: StrictFs,
    inode: u64,
}

impl File for StrictFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.fs.disk();
        disk.powered(self.fs.boot)?;
        let file = disk.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = file.live.get(from..).unwrap_or_default();
        let count = source.len().min(buffer.len());
        let end = offset + count as u64;
        let mut bad = disk.unreadable.iter().filter(|(inode, _)| *inode == self.inode);
        if bad.any(|(_, bytes)| bytes.start < end && offset < bytes.end) {
            return Err(io::Error::other("a bad sector"));
        }
        buffer.iter_mut().zip(source).for_each(|(target, byte)| *target = *byte);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.fs.disk();
        disk.powered(self.fs.boot)?;
        let began = disk.begin(self.fs.boot);
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // A failed write leaves its beginning.
        let written = if began.is_ok() { bytes.len() } else { bytes.len() / 2 };
        let part = bytes.get(..written).unwrap_or_default().to_vec();
        let done = disk.change(self.inode, Change::Write { offset, bytes: part });
        disk.finish();
        began.and(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.fs.disk();
        disk.powered(self.fs.boot)?;
        let began = disk.begin(self.fs.boot);
        let done = disk.sync(self.inode, began);
        disk.finish();
        done
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.fs.disk();
        disk.begin(self.fs.boot)?;
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let done = disk.change(self.inode, Change::Len(len));
        disk.finish();
        done
    }

    fn bytes(&self) -> io::Result<u64> {
        let disk = self.fs.disk();
        disk.powered(self.fs.boot)?;
        let file = disk.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.live.len() as u64)
    }
}
