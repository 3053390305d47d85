//! What every storage has to do, as one suite that runs on each of them.

use std::{io, path::Path, sync::atomic::Ordering};

use super::{EntryKind, File, FileSystemClass, LockOutcome, OpenMode, Region, Storage};

/// Runs the suite in an empty folder.
pub(super) fn check(storage: &dyn Storage, root: &Path) {
    folders(storage, &root.join("folders"));
    opening(storage, &root.join("opening"));
    reading_and_writing(storage, &root.join("reading"));
    lengths(storage, &root.join("lengths"));
    renaming(storage, &root.join("renaming"));
    removing(storage, &root.join("removing"));
    replacing(storage, &root.join("replacing"));
    maps(storage, &root.join("maps"));
    reopening(storage, &root.join("reopening"));
    reserving(storage, &root.join("reserving"));
    holes(storage, &root.join("holes"));
    locking(storage, &root.join("locking"));
    identity(storage, &root.join("identity"));
}

fn kind_of<T: std::fmt::Debug>(outcome: io::Result<T>) -> io::ErrorKind {
    outcome.unwrap_err().kind()
}

fn contents(storage: &dyn Storage, path: &Path) -> Vec<u8> {
    storage.read(path, 1 << 30).unwrap()
}

fn write(storage: &dyn Storage, path: &Path, bytes: &[u8]) {
    storage.open(path, OpenMode::Truncate).unwrap().write_all_at(bytes, 0).unwrap();
}

/// Stores through a region of which nobody else uses these bytes.
fn store(region: &Region, position: usize, bytes: &[u8]) {
    // SAFETY: the test alone uses the file, and has reserved it or runs where there is space.
    unsafe { region.encode(position, bytes) }.unwrap();
}

fn load(region: &Region, position: usize, len: usize) -> Vec<u8> {
    // SAFETY: nobody stores while the answer is copied.
    unsafe { region.bytes(position..position + len) }.unwrap().to_vec()
}

fn folders(storage: &dyn Storage, dir: &Path) {
    assert_eq!(storage.entry_kind(dir).unwrap(), None);
    assert_eq!(kind_of(storage.list(dir)), io::ErrorKind::NotFound);
    assert_eq!(kind_of(storage.sync_dir(dir)), io::ErrorKind::NotFound);
    storage.create_dir_all(&dir.join("a/b/c")).unwrap();
    storage.create_dir_all(&dir.join("a/b/c")).unwrap();
    write(storage, &dir.join("a/z"), b"");
    write(storage, &dir.join("a/B"), b"");
    let listed: Vec<_> = storage.list(&dir.join("a")).unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
    let expected = [("B", EntryKind::File), ("b", EntryKind::Dir), ("z", EntryKind::File)];
    assert_eq!(listed, expected.map(|(name, kind)| (name.to_owned(), kind)));
    assert_eq!(storage.entry_kind(&dir.join("a")).unwrap(), Some(EntryKind::Dir));
    assert_eq!(storage.entry_kind(&dir.join("a/z")).unwrap(), Some(EntryKind::File));
    storage.sync_dir(&dir.join("a")).unwrap();
    assert_eq!(kind_of(storage.create_dir_all(&dir.join("a/z"))), io::ErrorKind::NotADirectory);
    storage.create_dirs(&dir.join("a"), &["b".to_owned(), "c".to_owned(), "d".to_owned()]).unwrap();
    assert_eq!(storage.list(&dir.join("a")).unwrap().len(), 5);
    storage.create_dirs(&dir.join("a"), &["z".to_owned()]).unwrap_err();
    assert_eq!(kind_of(storage.create_dir_all(&dir.join("a/z/y"))), io::ErrorKind::NotADirectory);
    assert_eq!(kind_of(storage.list(&dir.join("a/z"))), io::ErrorKind::NotADirectory);
    assert_eq!(kind_of(storage.sync_dir(&dir.join("a/z"))), io::ErrorKind::NotADirectory);
    assert_ne!(storage.file_system(dir).unwrap().class, FileSystemClass::Network);
    assert_eq!(kind_of(storage.file_system(&dir.join("missing"))), io::ErrorKind::NotFound);
}

fn opening(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let path = dir.join("a");
    for mode in [OpenMode::Read, OpenMode::ReadWrite] {
        assert_eq!(kind_of(storage.open(&path, mode)), io::ErrorKind::NotFound);
    }
    storage.open(&path, OpenMode::CreateNew).unwrap().write_all_at(b"first", 0).unwrap();
    assert_eq!(kind_of(storage.open(&path, OpenMode::CreateNew)), io::ErrorKind::AlreadyExists);
    assert_eq!(storage.open(&path, OpenMode::ReadWrite).unwrap().len().unwrap(), 5);
    let reader = storage.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
    assert!(reader.set_len(0).is_err());
    assert_eq!(contents(storage, &path), b"first");
    assert_eq!(storage.open(&path, OpenMode::Truncate).unwrap().len().unwrap(), 0);
    storage.open(&dir.join("b"), OpenMode::Truncate).unwrap();
    for mode in [OpenMode::CreateNew, OpenMode::Truncate] {
        assert_eq!(kind_of(storage.open(&dir.join("missing/a"), mode)), io::ErrorKind::NotFound);
        assert_eq!(kind_of(storage.open(&path.join("a"), mode)), io::ErrorKind::NotADirectory);
    }
    #[cfg(unix)]
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::Truncate] {
        assert_eq!(kind_of(storage.open(dir, mode)), io::ErrorKind::IsADirectory);
    }
    assert_eq!(kind_of(storage.read(&dir.join("c"), 10)), io::ErrorKind::NotFound);
    write(storage, &path, &[1; 11]);
    assert_eq!(kind_of(storage.read(&path, 10)), io::ErrorKind::InvalidData);
}

fn reading_and_writing(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    file.write_all_at(b"", 1_000_000).unwrap();
    assert_eq!(file.len().unwrap(), 200_000);
    file.write_all_at(b"behind a gap", 300_000).unwrap();
    assert_eq!(file.len().unwrap(), 300_012);
    let mut buffer = vec![7; 400_000];
    assert_eq!(file.read_at(&mut buffer, 100_000).unwrap(), 200_012);
    assert!(buffer[..100_000] == bytes[100_000..]);
    assert!(buffer[100_000..200_000].iter().all(|&byte| byte == 0));
    assert_eq!(&buffer[200_000..200_012], b"behind a gap");
    assert!(buffer[200_012..].iter().all(|&byte| byte == 7));
    assert_eq!(file.read_at(&mut buffer, 300_012).unwrap(), 0);
    assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
    file.start_writeback(0..300_012).unwrap();
    file.start_writeback(5..5).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
}

fn lengths(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[9; 10_000], 0).unwrap();
    file.set_len(100).unwrap();
    file.set_len(20_000).unwrap();
    let read = contents(storage, &dir.join("a"));
    assert_eq!(read.len(), 20_000);
    assert!(read[..100].iter().all(|&byte| byte == 9) && read[100..].iter().all(|&byte| byte == 0));
    // Longer than what there is to spare: lengths cost nothing. (Elsewhere a file gets its blocks with its length.)
    #[cfg(all(unix, target_pointer_width = "64"))]
    {
        file.set_len(1 << 36).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 36);
    }
}

fn renaming(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let at = |name: &str| dir.join(name);
    write(storage, &at("a"), b"a");
    write(storage, &at("b"), b"b");
    let replaced = storage.open(&at("b"), OpenMode::ReadWrite).unwrap();
    let moved = storage.open(&at("a"), OpenMode::ReadWrite).unwrap();
    storage.rename(&at("a"), &at("b")).unwrap();
    assert_eq!(storage.entry_kind(&at("a")).unwrap(), None);
    assert_eq!(contents(storage, &at("b")), b"a");
    let mut byte = [0];
    replaced.read_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"b");
    moved.write_all_at(b"through the old handle", 0).unwrap();
    assert_eq!(contents(storage, &at("b")), b"through the old handle");
    storage.rename(&at("b"), &at("b")).unwrap();

    storage.create_dir_all(&at("from/below")).unwrap();
    write(storage, &at("from/below/c"), b"c");
    storage.rename(&at("from"), &at("to")).unwrap();
    assert_eq!(contents(storage, &at("to/below/c")), b"c");
    assert_eq!(kind_of(storage.rename(&at("missing"), &at("x"))), io::ErrorKind::NotFound);
    assert_eq!(kind_of(storage.rename(&at("b"), &at("missing/x"))), io::ErrorKind::NotFound);
    #[cfg(unix)]
    {
        storage.create_dir_all(&at("full/below")).unwrap();
        assert_eq!(kind_of(storage.rename(&at("b"), &at("to"))), io::ErrorKind::IsADirectory);
        assert_eq!(kind_of(storage.rename(&at("to"), &at("b"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind_of(storage.rename(&at("to"), &at("full"))), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind_of(storage.rename(&at("to"), &at("to/below/d"))), io::ErrorKind::InvalidInput);
    }
}

fn removing(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(&dir.join("a/b")).unwrap();
    let path = dir.join("a/file");
    let file = storage.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[3; 5000], 0).unwrap();
    let region = file.map(5000).unwrap();
    storage.remove_file(&path).unwrap();
    assert_eq!(kind_of(storage.remove_file(&path)), io::ErrorKind::NotFound);
    assert_eq!(storage.entry_kind(&path).unwrap(), None);
    let mut buffer = [0; 5000];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5000);
    drop(file);
    assert_eq!(load(&region, 4990, 10), [3; 10]);
    assert!(storage.remove_file(&dir.join("a")).is_err());
    write(storage, &dir.join("a/b/c"), b"c");
    assert!(storage.remove_dir_all(&dir.join("a/b/c")).is_err());
    storage.remove_dir_all(&dir.join("a")).unwrap();
    assert!(storage.list(dir).unwrap().is_empty());
    assert_eq!(kind_of(storage.remove_dir_all(&dir.join("a"))), io::ErrorKind::NotFound);
}

fn replacing(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    write(storage, &dir.join("left over"), b"a longer leftover of an attempt that was killed");
    for bytes in [&b"first"[..], b"second"] {
        storage.replace(dir, "left over", "name", bytes).unwrap();
        assert_eq!(contents(storage, &dir.join("name")), bytes);
    }
    assert_eq!(storage.list(dir).unwrap().len(), 1);
}

fn maps(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let path = dir.join("a");
    let file = storage.open(&path, OpenMode::CreateNew).unwrap();
    assert!(file.map(1).is_err());
    file.set_len(10_000).unwrap();
    file.reserve(0..10_000).unwrap();
    assert!(file.map(0).is_err() && file.map(10_001).is_err());
    let (one, other) = (file.map(10_000).unwrap(), file.map(5000).unwrap());
    assert_eq!((one.len(), other.len()), (10_000, 5000));
    store(&one, 100, b"through a map");
    assert_eq!(load(&other, 100, 13), b"through a map");
    let reader = storage.open(&path, OpenMode::Read).unwrap();
    let mut buffer = [0; 13];
    reader.read_at(&mut buffer, 100).unwrap();
    assert_eq!(&buffer, b"through a map");
    assert_eq!(load(&reader.map(200).unwrap(), 100, 13), b"through a map");

    file.write_all_at(b"through a write", 4096).unwrap();
    assert_eq!(load(&one, 4096, 15), b"through a write");
    one.words()[1000].store(0x0102_0304_0506_0708, Ordering::SeqCst);
    file.read_at(&mut buffer[..8], 8000).unwrap();
    assert_eq!(buffer[..8], 0x0102_0304_0506_0708_u64.to_ne_bytes());
    assert_eq!(file.map(8008).unwrap().words()[1000].load(Ordering::SeqCst).to_ne_bytes(), buffer[..8]);
    // SAFETY: out of bounds, so nothing is stored.
    assert_eq!(unsafe { one.encode(9999, &b"ab"[..]) }, None);
    file.sync_data().unwrap();
    drop(file);
    store(&other, 4990, b"outlives");
    assert_eq!(load(&one, 4990, 8), b"outlives");
}

fn reopening(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let at = |name: &str| dir.join(name);
    let file = storage.open(&at("temporary"), OpenMode::CreateNew).unwrap();
    file.set_len(10_000).unwrap();
    file.reserve(0..10_000).unwrap();
    let region = file.map(10_000).unwrap();
    drop(file);
    storage.rename(&at("temporary"), &at("a")).unwrap();
    assert_eq!(kind_of(storage.reopen(&at("temporary"), &region)), io::ErrorKind::NotFound);
    let file = storage.reopen(&at("a"), &region).unwrap();
    store(&region, 100, b"through the map");
    file.write_all_at(b"through the handle", 5000).unwrap();
    assert_eq!(load(&region, 5000, 18), b"through the handle");
    file.sync_data().unwrap();
    file.set_len(9000).unwrap();
    assert_eq!(contents(storage, &at("a"))[100..115], *b"through the map");
    let anonymous = super::anonymous_region(4096).unwrap();
    assert!(storage.reopen(&at("a"), &anonymous).is_err());
    // On some systems the name of a mapped file can't be taken.
    #[cfg(unix)]
    {
        storage.rename(&at("a"), &at("moved")).unwrap();
        write(storage, &at("a"), &[0; 10_000]);
        assert_eq!(kind_of(storage.reopen(&at("a"), &region)), io::ErrorKind::InvalidData);
        assert_eq!(storage.reopen(&at("moved"), &region).unwrap().len().unwrap(), 9000);
    }
}

fn reserving(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"before", 5000).unwrap();
    file.set_len(1 << 20).unwrap();
    let region = file.map(1 << 20).unwrap();
    store(&region, 70_000, b"stored");
    file.reserve(0..1 << 20).unwrap();
    file.reserve(4096..8192).unwrap();
    file.reserve(7..7).unwrap();
    assert_eq!(load(&region, 5000, 6), b"before");
    assert_eq!(load(&region, 70_000, 6), b"stored");
    assert_eq!(load(&region, 900_000, 100), [0; 100]);
    assert_eq!(file.len().unwrap(), 1 << 20);
    assert_eq!(kind_of(file.reserve(0..(1 << 20) + 1)), io::ErrorKind::InvalidInput);
}

fn holes(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    assert_eq!(file.next_data(0).unwrap(), None);
    file.set_len(16 << 20).unwrap();
    // A file system that knows no holes calls everything data, so only this much holds for all of them.
    let may_hold = |at: u64, from: u64| {
        let found = file.next_data(from).unwrap();
        assert!(found.is_some_and(|found| (from..=at).contains(&found)), "{found:?} from {from}");
    };
    file.write_all_at(b"x", 5 << 20).unwrap();
    may_hold(5 << 20, 0);
    may_hold(5 << 20, 5 << 20);
    let region = file.map(16 << 20).unwrap();
    file.reserve(9 << 20..10 << 20).unwrap();
    store(&region, (9 << 20) + 77, b"y");
    may_hold((9 << 20) + 77, 6 << 20);
    assert_eq!(file.next_data(16 << 20).unwrap(), None);
    assert_eq!(file.next_data(17 << 20).unwrap(), None);
    #[cfg(target_os = "linux")]
    {
        assert_eq!(file.next_data(0).unwrap().map(|at| at >> 20), Some(5));
        assert_eq!(file.next_data(12 << 20).unwrap(), None);
    }
}

fn locking(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let path = dir.join("exclusive");
    let other = dir.join("other");
    for _ in 0..2 {
        let LockOutcome::Acquired(lock) = storage.lock_exclusive(&path).unwrap() else { panic!("not free") };
        for _ in 0..2 {
            match storage.lock_exclusive(&path).unwrap() {
                LockOutcome::Held(holder) => assert_eq!(holder, Some(std::process::id())),
                LockOutcome::Acquired(_) => panic!("taken twice"),
            }
        }
        assert!(matches!(storage.lock_exclusive(&other).unwrap(), LockOutcome::Acquired(_)));
        drop(lock);
    }
    assert!(storage.lock_exclusive(&dir.join("missing/exclusive")).is_err());
}

fn identity(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    let at = |name: &str| dir.join(name);
    let who = |file: &dyn File| file.identity().unwrap();
    let file = storage.open(&at("a"), OpenMode::CreateNew).unwrap();
    let first = who(&*file);
    if first.is_none() {
        println!("skipped: this system can't tell who a file is");
        return;
    }
    file.write_all_at(b"contents don't matter", 0).unwrap();
    storage.rename(&at("a"), &at("b")).unwrap();
    assert_eq!(who(&*storage.open(&at("b"), OpenMode::Read).unwrap()), first);
    let second = storage.open(&at("a"), OpenMode::CreateNew).unwrap();
    assert_ne!(who(&*second), first);
}
