//! The storage seam: every operation on files, and every store into a mapped one, goes through this module.
//!
//! Two implementations stand behind the traits: [`fs`] is the machine's file system, [`sim`] one in memory that can
//! be made to fail. No other file of the crate names `std::fs`, `rustix::fs` or `memmap2`; `tests/layering.rs` sees
//! to that.
//!
//! # Invariants
//! - Operations answer plain [`io::Error`]s; the caller, who knows what the file is for, adds operation and path.
//! - A link in the place of a file or folder of a log is not followed: nothing outside the log's folder is read or changed
//!   for it. The path that leads to the log's folder may go through any.
//! - A new, renamed or removed name is durable only after [`Storage::sync_dir`] of its folder.
//! - [`File::reserve`] is called for a range before anything is stored there through a [`Region`]: a store into an
//!   unreserved page of a full file system would end the process (SIGBUS). A page may be a large one: all of
//!   [`Storage::page_limit`] around the store has to be reserved, as far as the file goes. (Indexes are reserved by small
//!   pages alone: nobody makes large ones of them but a program that reads them ahead.)
//! - A [`Region`] keeps its mapping alive; it never outlives it, whatever happens to the file's name.
//!
//! # Thread safety
//! Everything is `Send + Sync`. Who may store where in a region is the business of its users (see [`Region`]).

use std::{
    any::Any,
    fmt, io,
    ops::Range,
    path::Path,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU64},
};

#[cfg(test)]
mod conformance;
pub(crate) mod fs;
pub(crate) mod sim;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// A file system.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// Creates the folder and its missing parents, and makes the new names durable. Fine if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// As [`create_dir_all`](Storage::create_dir_all), for a folder of which a link doesn't take the place: kind
    /// `NotADirectory`.
    fn create_own_dir(&self, path: &Path) -> io::Result<()> {
        match self.entry_kind(path)? {
            None => self.create_dir_all(path),
            Some(EntryKind::Dir) => Ok(()),
            Some(EntryKind::File | EntryKind::Other) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Creates folders of these names in a folder that is there, and makes them durable, all at once. Fine if some exist.
    fn create_dirs(&self, dir: &Path, names: &[String]) -> io::Result<()> {
        names.iter().try_for_each(|name| self.create_own_dir(&dir.join(name)))
    }

    /// What is at the path; `None` if there is nothing.
    fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// Names and kinds in a folder, in the order of names. A name that isn't UTF-8 isn't one of ours and is left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Opens a regular file, close-on-exec. Anything else is an error, a link to one too.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Opens the file that `region` maps again, for reading and writing. A sync of the answer takes what is stored
    /// through the region along. An error if the path leads to another file by now.
    fn reopen(&self, path: &Path, region: &Region) -> io::Result<Arc<dyn File>>;

    /// How many descriptors this process may have at a time, if there is a limit and the system tells it.
    fn open_files_limit(&self) -> Option<u64> {
        None
    }

    /// The size of the largest page that the system caches files in, to which such pages are aligned; a power of two. A
    /// store through a map makes all of its page dirty, so that all of it needs space. 1 where nothing more than what is
    /// stored needs any.
    fn page_limit(&self) -> u64 {
        1
    }

    /// Renames a file or folder in one step, over an existing file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Open handles and regions stay valid.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// The same; it is fine if there is none (any more).
    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes a folder and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the folder's names durable. If there is no descriptor for that, nothing was tried: that is no failed sync.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on a file, creating it if missing, and records this process's id in it. Never waits.
    /// The kernel gives the lock back when the process dies; a child started by exec doesn't hold it.
    fn lock_exclusive(&self, path: &Path) -> io::Result<LockOutcome>;

    /// Keeps everybody from taking the exclusive lock on a file that is there, and changes nothing. Several may, where
    /// the system has such locks. Never waits.
    fn lock_shared(&self, path: &Path) -> io::Result<LockOutcome>;

    /// The file system that an existing folder lies on.
    fn file_system(&self, path: &Path) -> io::Result<FileSystem>;

    /// Reads a whole file of at most `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = file.len()?;
        if len > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes, at most {limit} expected")));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Replaces a file, all or nothing: writes `<dir>/<temporary>`, syncs it, renames it to `<dir>/<name>`, syncs
    /// the folder.
    fn replace(&self, dir: &Path, temporary: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = dir.join(temporary);
        let outcome = self.open(&temporary, OpenMode::Truncate).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync_all()?;
            self.rename(&temporary, &dir.join(name))
        });
        if outcome.is_err() {
            // The first error is the one to tell; a leftover temporary file is overwritten by the next attempt.
            let _ = self.remove_file(&temporary);
        }
        outcome?;
        self.sync_dir(dir)
    }
}

/// An open file. Reads and writes at positions; there is no cursor.
pub(crate) trait File: fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the length; what is added reads as zeros and takes no space until reserved or written.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Fills `buffer` from `position`; answers how many bytes there were before the end of the file. Short reads and
    /// interruptions are retried inside.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `position`.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Gives a range blocks of its own, so that storing there through a map can't run out of space. Contents stay.
    /// The range lies within the file's length.
    fn reserve(&self, range: Range<u64>) -> io::Result<()>;

    /// Begins to write a range's dirty pages to the device without waiting for it. A hint; may do nothing. An error is worth
    /// as much as that of a sync: what couldn't be written may count as clean.
    fn start_writeback(&self, range: Range<u64>) -> io::Result<()>;

    /// Whether the device holds the same as the page cache in a range that was just synced, which after a failure that
    /// somebody else was told of it needn't: reads past the cache. True also where that can't be found out.
    fn is_on_device(&self, range: Range<u64>) -> io::Result<bool>;

    /// Makes contents and length durable (`fdatasync`), stores through `region` included.
    ///
    /// After an error neither the file's contents on the device nor a later success of this call is to be trusted:
    /// the kernel marks pages clean that it failed to write.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](File::sync_data), with all metadata.
    fn sync_all(&self) -> io::Result<()>;

    /// Maps the first `len` bytes, shared. The file must be that long. `len` is above zero.
    fn map(&self, len: u64) -> io::Result<Region>;

    /// Says that bytes are going to be read here and there through this handle, and that nothing needs to be read ahead,
    /// which makes large pages. A hint.
    fn expect_random(&self) {}

    /// Who this file is, beyond its name; `None` where the system can't tell. See [`FileIdentity`].
    fn identity(&self) -> io::Result<Option<FileIdentity>>;

    /// The first position at or after `position` that may hold data, as far as the file system knows its holes;
    /// `None` if only a hole follows.
    fn next_data(&self, position: u64) -> io::Result<Option<u64>>;
}

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; created, and an error if it exists.
    CreateNew,
    /// For reading and writing; created, or emptied if it exists.
    Truncate,
}

/// The answer of [`Storage::reopen`] for a path that leads elsewhere.
fn another_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "another file has taken the place of the one that is mapped")
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// Anything else: a link, a socket, a device.
    Other,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: String,
    pub(crate) kind: EntryKind,
}

/// A held lock; dropping it gives it back.
pub(crate) type Lock = Box<dyn Any + Send + Sync>;

/// The answer of [`Storage::lock_exclusive`] and [`Storage::lock_shared`].
pub(crate) enum LockOutcome {
    /// Ours until dropped.
    Acquired(Lock),
    /// Held by somebody else; the id is what the last holder recorded, if that can be read.
    Held(Option<u32>),
}

/// Where a folder lies and what may be expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSystem {
    /// Its name as `mount` would print it, or its magic number.
    pub(crate) name: String,
    pub(crate) class: FileSystemClass,
}

/// How far a file system can be relied on.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux tells all of them apart"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystemClass {
    /// Local; a reserved block can be rewritten without new space.
    Local,
    /// Local, but rewriting a reserved block may take new space: appends use `pwrite`, where a full disk is an error
    /// and not a signal.
    LocalCopyOnWrite,
    /// Another machine's: locks, maps and caches don't behave. Refused.
    Network,
    /// Not known; used only when an option says so, and then like a copy-on-write one.
    Unknown,
}

/// Tells whether a file is still the very one, in the very same mount, since the same boot: then, and only then,
/// what it holds in the page cache is what was stored there.
///
/// The boot id alone isn't enough: a file system can be shut down and mounted again within one boot. Nor is the
/// device with the inode: inodes are reused, and a restored copy has new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    /// A random number that the kernel draws at boot.
    pub(crate) boot_id: [u8; 16],
    /// A number never used for another mount of this boot.
    pub(crate) mount_id: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Nanoseconds since the epoch at which the inode was made.
    pub(crate) birth_ns: i128,
}

/// A piece of memory that something is encoded into: a mapped file, an observed one, or a plain buffer.
///
/// The encoder is generic over this, so that the real map is written with plain stores and no call in between.
pub(crate) trait Store {
    /// Copies `bytes` to `at`, counted from the start of the piece. Both lie within it.
    fn put(&mut self, at: usize, bytes: &[u8]);

    /// The piece as it stands.
    fn bytes(&self) -> &[u8];
}

impl Store for &mut [u8] {
    #[inline(always)]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self[at..at + bytes.len()].copy_from_slice(bytes);
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Something that knows how to write itself into a [`Store`].
pub(crate) trait Encode {
    /// Bytes that it takes.
    fn encoded_len(&self) -> usize;

    /// Writes itself to the start of `store`, which is exactly [`encoded_len`](Encode::encoded_len) long.
    fn encode<S: Store>(&self, store: S);
}

/// Plain bytes encode as themselves.
impl Encode for [u8] {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode<S: Store>(&self, mut store: S) {
        store.put(0, self);
    }
}

/// Sees every store into a region of the simulated storage.
pub(crate) trait Observer: Send + Sync {
    /// `bytes` are about to be stored at `position` of the region's file.
    fn store(&self, position: u64, bytes: &[u8]);

    /// They have been.
    #[cfg(any(test, fuzzing))]
    fn stored(&self, position: u64, len: usize);

    /// Somebody is going to load or store words.
    #[cfg(any(test, fuzzing))]
    fn words(&self);
}

/// A mapped file, from its first byte.
///
/// # Thread safety
/// Shared by writers and readers under the partition's protocol: bytes below the published end are never stored to
/// again, and only the one writer stores above it. The `unsafe` methods ask their callers for just that. Words
/// ([`words`](Region::words)) are atomic and free for all; they never overlap what is borrowed as bytes.
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the mapping alive.
    map: Arc<dyn Any + Send + Sync>,
    /// Set by the simulated storage alone.
    observer: Option<Arc<dyn Observer>>,
    /// Finds data races where models are checked.
    #[cfg(loom)]
    pub(crate) borrows: crate::sync::model::Borrows,
}

// SAFETY: the pointer leads into a mapping that `map` keeps alive and that any thread may use; data races are ruled
// out by what the unsafe methods ask of their callers.
unsafe impl Send for Region {}
// SAFETY: as above; no method stores through `&self` without the caller's promise that nobody else uses those bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Wraps a mapping.
    ///
    /// # Safety
    /// `start` leads to `len` bytes that stay mapped, readable and (unless only ever read) writable as long as `map`
    /// lives, and that nothing else in this process borrows.
    pub(crate) unsafe fn new(
        start: NonNull<u8>,
        len: usize,
        map: Arc<dyn Any + Send + Sync>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        Self {
            start,
            len,
            map,
            observer,
            #[cfg(loom)]
            borrows: Default::default(),
        }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Says that much is going to be stored here soon, one byte after the other: large pages, of which each takes one
    /// fault, serve best. A hint.
    pub(crate) fn expect_stream(&self) {
        fs::expect_stream(&self.map);
    }

    /// Makes the pages of a range, whose bytes stay what they are, so that no store there has to. They count as changed: the
    /// range is reserved. What can't be made is left out; false where nothing ever is.
    pub(crate) fn prefault(&self, range: Range<usize>) -> bool {
        let end = range.end.min(self.len);
        fs::prefault(&self.map, range.start.min(end)..end)
    }

    /// Says that bytes are going to be used here and there, and that no large pages are wanted. A hint.
    pub(crate) fn expect_random(&self) {
        fs::expect_random(&self.map);
    }

    /// The mapping that was given to [`new`](Region::new).
    fn map(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.map
    }

    /// The bytes of a range, or `None` if it lies outside.
    ///
    /// # Safety
    /// Nobody stores into the range, and the file isn't cut below its end, while the answer lives.
    #[inline]
    pub(crate) unsafe fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        #[cfg(loom)]
        self.borrows.read(range.clone());
        // SAFETY: in bounds as just checked; alive by `map`; unchanging by the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start) })
    }

    /// Encodes `value` at `position`; `None`, and nothing is stored, if it doesn't fit.
    ///
    /// # Safety
    /// The caller alone uses the bytes from `position` on, and has reserved them in the file.
    #[inline]
    pub(crate) unsafe fn encode<E: Encode + ?Sized>(&self, position: usize, value: &E) -> Option<()> {
        let len = value.encoded_len();
        if len > self.len.checked_sub(position)? {
            return None;
        }
        #[cfg(loom)]
        self.borrows.write(position..position + len);
        // SAFETY: in bounds as just checked; alive by `map`; exclusively ours by the caller's promise.
        let window = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(position), len) };
        match &self.observer {
            None => value.encode(window),
            Some(observer) => value.encode(Observed { window, position: position as u64, observer: &**observer }),
        }
        Some(())
    }

    /// All of the region as 64-bit words (what is left over at the end isn't among them).
    ///
    /// Words are atomic and free for all. Where they overlap what is borrowed or encoded as bytes, the promises made
    /// there cover them too.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        #[cfg(any(test, fuzzing))]
        if let Some(observer) = &self.observer {
            observer.words();
        }
        // SAFETY: the mapping begins on a page, so it is aligned; it is alive by `map`, in bounds by the division, and
        // an `AtomicU64` may be changed by anybody through a shared reference.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 8) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A piece of a region whose stores somebody watches.
struct Observed<'a> {
    window: &'a mut [u8],
    position: u64,
    observer: &'a dyn Observer,
}

impl Store for Observed<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.observer.store(self.position + at as u64, bytes);
        self.window[at..at + bytes.len()].copy_from_slice(bytes);
        #[cfg(any(test, fuzzing))]
        self.observer.stored(self.position + at as u64, bytes.len());
    }

    fn bytes(&self) -> &[u8] {
        self.window
    }
}

/// Keeps handles, and whatever else these are, until the process ends.
#[cfg(not(fuzzing))]
pub(crate) fn keep_open(handles: impl Any + Send) {
    std::mem::forget(handles);
}

/// What is kept open: a fuzzer ends many processes in one.
#[cfg(fuzzing)]
static KEPT_OPEN: parking_lot::Mutex<Vec<Box<dyn Any + Send>>> = parking_lot::Mutex::new(Vec::new());

#[cfg(fuzzing)]
pub(crate) fn keep_open(handles: impl Any + Send) {
    KEPT_OPEN.lock().push(Box::new(handles));
}

/// All processes that had something kept open have ended.
#[cfg(fuzzing)]
pub(crate) fn let_go() {
    let kept = std::mem::take(&mut *KEPT_OPEN.lock());
    drop(kept); // Not under the lock.
}

/// Memory of zeros that belongs to no file: for caches where the file system can't promise that a store into a mapped
/// page succeeds. `len` is above zero.
pub(crate) fn anonymous_region(len: usize) -> io::Result<Region> {
    let map = Arc::new(memmap2::MmapRaw::from(memmap2::MmapOptions::new().len(len).map_anon()?));
    let start = NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("an empty mapping"))?;
    // SAFETY: the map is `len` bytes long, writable, lives as long as the `Arc` and is used by nobody else.
    Ok(unsafe { Region::new(start, len, map, None) })
}
