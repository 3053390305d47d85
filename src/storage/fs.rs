//! The machine's file system behind the storage seam.
//!
//! # Invariants
//! - Only regular files are opened as files; folders, pipes and devices are errors, and opening one never waits.
//! - Every call that a signal can interrupt is repeated, and short reads and writes are gone on with.
//! - A file is synced through the handle that mapped it: outside Linux, where a sync of the file isn't promised to
//!   take stores through maps along, the handle knows its living maps and flushes them first.
//!
//! What differs from one system to another stands in [`sys`] (calls on files), [`lock`] and [`file_system`] (what a
//! folder lies on). Linux is the one that is measured and tested the most; the others have the same promises from
//! their documented calls.
//!
//! # Thread safety
//! Everything may be called from any thread. All reads and writes are positional; the file's cursor means nothing.

use std::{
    any::Any,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
};

use memmap2::{MmapOptions, MmapRaw};

use super::{
    DirEntry, EntryKind, File, FileIdentity, FileSystem, LockOutcome, OpenMode, Region, Storage, another_file,
};

mod file_system;
mod lock;
mod sys;

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FsStorage;

impl Storage for FsStorage {
    /// A folder that was already there isn't synced: whoever can't rule out that its maker died before the name was
    /// durable syncs the parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        for missing in missing_folders(path)?.iter().rev() {
            match fs::create_dir(missing) {
                // Somebody else made it since; its name has to be durable for us too.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(missing)?.is_dir() => {}
                outcome => outcome?,
            }
            self.sync_dir(parent(missing))?;
        }
        Ok(())
    }

    /// One sync for all: with thousands of partitions that is a quarter of what it takes to create a topic.
    fn create_dirs(&self, dir: &Path, names: &[String]) -> io::Result<()> {
        for name in names {
            let path = dir.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(&path)?.is_dir() => {
                }
                outcome => outcome?,
            }
        }
        self.sync_dir(dir)
    }

    fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(kind(metadata.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            entries.push(DirEntry { name, kind: kind(entry.file_type()?) });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FsFile::open(path, mode)?))
    }

    fn reopen(&self, path: &Path, region: &Region) -> io::Result<Arc<dyn File>> {
        let Ok(map) = region.map().clone().downcast::<FileMap>() else { return Err(another_file()) };
        let file = FsFile::open(path, OpenMode::ReadWrite)?;
        // The map keeps its file alive, so the number was not given to another one meanwhile.
        if sys::number(&file.file.metadata()?) != map.number {
            return Err(another_file());
        }
        file.maps.remember(&map);
        Ok(Arc::new(file))
    }

    fn open_files_limit(&self) -> Option<u64> {
        sys::open_files_limit()
    }

    fn page_limit(&self) -> u64 {
        sys::page_limit()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        sys::sync_dir(path)
    }

    fn lock_exclusive(&self, path: &Path) -> io::Result<LockOutcome> {
        lock::lock_exclusive(path)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<LockOutcome> {
        lock::lock_shared(path)
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        file_system::file_system(path)
    }
}

/// See [`Region::expect_stream`]; does nothing where `map` is no file's.
pub(super) fn expect_stream(map: &Arc<dyn Any + Send + Sync>) {
    if let Some(file) = map.downcast_ref::<FileMap>() {
        sys::expect_stream(&file.map);
    }
}

/// See [`Region::prefault`].
pub(super) fn prefault(map: &Arc<dyn Any + Send + Sync>, range: Range<usize>) -> bool {
    map.downcast_ref::<FileMap>().is_some_and(|file| sys::prefault(&file.map, range))
}

/// See [`Region::expect_random`]; does nothing where `map` is no file's.
pub(super) fn expect_random(map: &Arc<dyn Any + Send + Sync>) {
    if let Some(file) = map.downcast_ref::<FileMap>() {
        sys::expect_random(&file.map);
    }
}

/// The folders that `path` lacks, itself first. An error if something on the way isn't a folder.
fn missing_folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        match fs::metadata(ancestor) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(ancestor.to_owned()),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// The folder that a name is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The seam's word for a type of file.
fn kind(file_type: fs::FileType) -> EntryKind {
    if file_type.is_file() {
        EntryKind::File
    } else if file_type.is_dir() {
        EntryKind::Dir
    } else {
        EntryKind::Other
    }
}

/// An open file.
#[derive(Debug)]
struct FsFile {
    file: fs::File,
    writable: bool,
    maps: sys::Maps,
}

/// A mapping, and whose it is.
#[derive(Debug)]
struct FileMap {
    map: MmapRaw,
    number: Option<sys::FileNumber>,
}

impl FsFile {
    fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => {}
            OpenMode::CreateNew => drop(options.create_new(true)),
            OpenMode::Truncate => drop(options.create(true).truncate(true)),
        }
        let file = sys::open_regular(&mut options, path)?;
        Ok(Self { file, writable: mode != OpenMode::Read, maps: sys::Maps::default() })
    }
}

/// An error if a range that is going to be stored into reaches beyond the file: the store would end the process.
fn check_within(end: u64, file: &fs::Metadata) -> io::Result<()> {
    if end > file.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the file"));
    }
    Ok(())
}

impl File for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match sys::read_some_at(&self.file, &mut buffer[done..], position.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        sys::write_all_at(&self.file, bytes, position)
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        check_within(range.end, &self.file.metadata()?)?;
        sys::reserve(&self.file, range)
    }

    fn start_writeback(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        sys::start_writeback(&self.file, range)
    }

    fn is_on_device(&self, range: Range<u64>) -> io::Result<bool> {
        /// What direct reads are aligned to, at the most.
        const BLOCK: u64 = 4096;
        /// Bytes that are read at once.
        const PIECE: u64 = 256 << 10;
        let Some(direct) = sys::open_direct(&self.file)? else { return Ok(true) };
        let mut from_device = vec![0; (PIECE + BLOCK) as usize];
        let aligned = from_device.as_ptr().align_offset(BLOCK as usize).min(BLOCK as usize);
        let from_device = &mut from_device[aligned..][..PIECE as usize];
        let mut cached = vec![0; PIECE as usize];
        let end = range.end.min(self.len()?);
        let mut position = range.start / BLOCK * BLOCK;
        while position < end {
            let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(PIECE as usize);
            let read = match sys::read_some_at(&direct, from_device, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Whose device wants other alignments, say.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(true),
                outcome => outcome?.min(wanted),
            };
            if read == 0 || self.read_at(&mut cached[..read], position)? < read || cached[..read] != from_device[..read]
            {
                return Ok(false);
            }
            // A read that was cut short is gone on with at a block's beginning.
            position += if read < wanted { (read as u64 / BLOCK * BLOCK).max(1) } else { read as u64 };
            if position % BLOCK != 0 && position < end {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.maps.flush()?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.maps.flush()?;
        self.file.sync_all()
    }

    fn map(&self, len: u64) -> io::Result<Region> {
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty map"));
        }
        let metadata = self.file.metadata()?;
        check_within(len, &metadata)?;
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut options = MmapOptions::new();
        options.len(len);
        let map = match self.writable {
            true => options.map_raw(&self.file)?,
            false => options.map_raw_read_only(&self.file)?,
        };
        let map = Arc::new(FileMap { map, number: sys::number(&metadata) });
        self.maps.remember(&map);
        let start = NonNull::new(map.map.as_mut_ptr()).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: `map` is a mapping of `len` bytes that lives as long as the `Arc`, and that is handed out as this
        // region alone. It is writable unless the file was opened for reading, whose regions are only read.
        Ok(unsafe { Region::new(start, len, map, None) })
    }

    fn expect_random(&self) {
        sys::expect_random_reads(&self.file);
    }

    fn identity(&self) -> io::Result<Option<FileIdentity>> {
        sys::identity(&self.file)
    }

    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        sys::next_data(&self.file, position)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::conformance, *};

    #[test]
    fn keeps_the_contract_of_the_seam() {
        let root = tempfile::tempdir().unwrap();
        conformance::check(&FsStorage, root.path());
    }

    #[test]
    fn a_relative_folder_is_created_beside_the_working_one() {
        assert_eq!(parent(Path::new("data")), Path::new("."));
        assert_eq!(parent(Path::new("data/orders-0")), Path::new("data"));
    }

    #[test]
    fn a_map_longer_than_the_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = FsStorage.open(&root.path().join("a"), OpenMode::CreateNew).unwrap();
        file.set_len(100).unwrap();
        assert_eq!(file.map(101).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(file.map(100).unwrap().len(), 100);
    }

    #[test]
    fn what_was_synced_is_on_the_device() {
        let root = tempfile::tempdir().unwrap();
        let file = FsStorage.open(&root.path().join("a"), OpenMode::CreateNew).unwrap();
        file.set_len(1 << 20).unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
        file.write_all_at(&bytes, 5000).unwrap();
        file.sync_all().unwrap();
        for range in [0..0, 0..1 << 20, 5000..705_000, 4096..8192, 8191..300_001, 600_000..1 << 40] {
            assert!(file.is_on_device(range.clone()).unwrap(), "{range:?}");
        }
        // One whose length is no multiple of a block's.
        file.set_len(600_001).unwrap();
        file.sync_all().unwrap();
        assert!(file.is_on_device(0..600_001).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed_and_what_is_odd_is_refused_without_waiting() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), b"abc").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(".", at("folder")).unwrap();
        assert_eq!(FsStorage.entry_kind(&at("link")).unwrap(), Some(EntryKind::Other));
        assert_eq!(FsStorage.entry_kind(&at("dangling")).unwrap(), Some(EntryKind::Other));
        let kinds: Vec<_> = FsStorage.list(root.path()).unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("dangling".to_owned(), EntryKind::Other),
                ("file".to_owned(), EntryKind::File),
                ("folder".to_owned(), EntryKind::Other),
                ("link".to_owned(), EntryKind::Other),
                ("socket".to_owned(), EntryKind::Other)
            ]
        );
        for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew, OpenMode::Truncate] {
            for name in ["link", "dangling", "folder", "socket"] {
                assert!(FsStorage.open(&at(name), mode).is_err(), "{name}");
            }
        }
        assert!(FsStorage.lock_exclusive(&at("link")).is_err());
        for name in ["link", "dangling", "folder"] {
            assert_eq!(FsStorage.create_own_dir(&at(name)).unwrap_err().kind(), io::ErrorKind::NotADirectory, "{name}");
            FsStorage.create_dirs(root.path(), &[name.to_owned()]).unwrap_err();
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"abc");
        assert!(!at("nowhere").exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_is_refused_without_waiting_for_its_other_end() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(FsStorage.open(&pipe, OpenMode::Read).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    /// To open a device may be to do something with it.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_is_not_even_opened() {
        use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &pipe, inotify::WatchFlags::OPEN).unwrap();
        let was_opened = || rustix::io::read(&watch, &mut [0; 256]).is_ok();
        for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew, OpenMode::Truncate] {
            FsStorage.open(&pipe, mode).unwrap_err();
            assert!(!was_opened(), "{mode:?}");
        }
        drop(fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap());
        assert!(was_opened(), "the watch would have seen it");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_copy_with_the_same_name_has_another_identity() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let file = FsStorage.open(&path, OpenMode::CreateNew).unwrap();
        let Some(identity) = file.identity().unwrap() else {
            println!("skipped: the kernel or the file system can't tell who a file is");
            return;
        };
        let copy = FsStorage.open(&root.path().join("b"), OpenMode::CreateNew).unwrap();
        FsStorage.rename(&root.path().join("b"), &path).unwrap();
        let reopened = FsStorage.open(&path, OpenMode::Read).unwrap().identity().unwrap();
        assert_ne!(reopened, Some(identity));
        assert_eq!(reopened, copy.identity().unwrap());
        assert_ne!(identity.boot_id, [0; 16]);
        assert!(identity.birth_ns > 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_reserved_range_has_blocks_and_a_length_has_none() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let file = FsStorage.open(&path, OpenMode::CreateNew).unwrap();
        let bytes = || std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap()) * 512;
        file.set_len(16 << 20).unwrap();
        assert!(bytes() < 1 << 20);
        file.reserve(4 << 20..6 << 20).unwrap();
        assert!((2 << 20..4 << 20).contains(&bytes()));
    }

    #[test]
    fn filling_holes_keeps_what_is_stored() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let file = FsStorage.open(&path, OpenMode::CreateNew).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"here", 300_000).unwrap();
        let raw = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        sys::fill_holes(&raw, 4096..(1 << 20) - 4096).unwrap();
        let mut expected = vec![0; 1 << 20];
        expected[300_000..300_004].copy_from_slice(b"here");
        assert!(fs::read(&path).unwrap() == expected);
        #[cfg(unix)]
        assert!(std::os::unix::fs::MetadataExt::blocks(&raw.metadata().unwrap()) * 512 >= (1 << 20) - 8192);
    }
}
