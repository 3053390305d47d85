mod crash;
mod names;
mod steps;

use super::{
    super::{Encode, Store, conformance},
    *,
};

/// A storage with a file of two blocks' length, and that file.
fn with_file() -> (SimStorage, Arc<dyn File>) {
    let storage = SimStorage::default();
    let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    file.set_len(8192).unwrap();
    (storage, file)
}

fn kind_of<T: fmt::Debug>(outcome: io::Result<T>) -> io::ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn keeps_the_contract_of_the_seam() {
    let storage = SimStorage::default();
    conformance::check(&storage, Path::new("/data"));
    conformance::check(&storage, Path::new("relative/./data"));
}

#[test]
fn clones_are_the_same_and_new_ones_are_empty() {
    let (storage, _file) = with_file();
    assert_eq!(storage.clone().list(Path::new("/")).unwrap().len(), 1);
    assert!(SimStorage::default().list(Path::new("/")).unwrap().is_empty());
}

#[test]
fn paths_are_resolved_from_the_root() {
    let (storage, _file) = with_file();
    for path in ["/a", "./a", "/../a", "/x/../a"] {
        assert_eq!(storage.entry_kind(Path::new(path)).unwrap(), Some(EntryKind::File), "{path}");
    }
    assert_eq!(storage.entry_kind(Path::new("/")).unwrap(), Some(EntryKind::Dir));
    assert_eq!(kind_of(storage.remove_dir_all(Path::new("/"))), io::ErrorKind::InvalidInput);
}

#[test]
fn the_nth_operation_fails_and_changes_nothing() {
    let (storage, file) = with_file();
    storage.fail_nth(2, io::ErrorKind::PermissionDenied, Repeat::Once);
    file.write_all_at(b"first", 0).unwrap();
    assert_eq!(kind_of(file.set_len(0)), io::ErrorKind::PermissionDenied);
    assert_eq!(file.len().unwrap(), 8192);
    file.set_len(4096).unwrap();

    storage.fail_nth(1, io::ErrorKind::StorageFull, Repeat::Forever);
    let at = Path::new;
    assert_eq!(kind_of(storage.open(at("b"), OpenMode::CreateNew)), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(storage.rename(at("a"), at("b"))), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(storage.remove_file(at("a"))), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(file.reserve(0..1)), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(file.sync_data()), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(storage.sync_dir(at("/"))), io::ErrorKind::StorageFull);
    // What only reads goes on.
    assert_eq!(storage.read(at("a"), 4096).unwrap()[..5], *b"first");
    assert_eq!(storage.list(at("/")).unwrap().len(), 1);
    storage.heal();
    storage.remove_file(at("a")).unwrap();
}

#[test]
fn operations_fail_by_kind_and_path() {
    let (storage, file) = with_file();
    storage.fail_if(|operation, path| {
        (operation == Operation::Write && path.ends_with("b")).then_some(io::ErrorKind::TimedOut)
    });
    file.write_all_at(b"x", 0).unwrap();
    storage.rename(Path::new("a"), Path::new("b")).unwrap();
    assert_eq!(kind_of(file.write_all_at(b"x", 0)), io::ErrorKind::TimedOut);
    storage.heal();
    file.write_all_at(b"x", 0).unwrap();
}

#[test]
fn syncs_fail_as_often_as_asked() {
    let (storage, file) = with_file();
    storage.fail_syncs(2);
    file.write_all_at(b"x", 0).unwrap();
    assert!(file.sync_data().is_err());
    storage.sync_dir(Path::new("/")).unwrap();
    assert!(file.sync_all().is_err());
    file.sync_data().unwrap();
    storage.fail_syncs(u64::MAX);
    assert!((0..10).all(|_| file.sync_data().is_err()));
    storage.heal();
    storage.take_trace();
    storage.fail_syncs(1);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    let outcomes: Vec<_> = storage.take_trace().into_iter().map(|performed| performed.succeeded).collect();
    assert_eq!(outcomes, [false, true]);
}

#[test]
fn the_trace_tells_that_a_folder_was_synced_after_a_rename() {
    let storage = SimStorage::default();
    storage.create_dir_all(Path::new("/data")).unwrap();
    let before = storage.operations();
    storage.take_trace();
    storage.replace(Path::new("/data"), "new", "name", b"bytes").unwrap();
    let trace: Vec<_> = storage.take_trace().into_iter().map(|p| (p.operation, p.path, p.succeeded)).collect();
    let expected = [
        (Operation::Create, "/data/new"),
        (Operation::Write, "/data/new"),
        (Operation::SyncAll, "/data/new"),
        (Operation::Rename, "/data/name"),
        (Operation::SyncDir, "/data"),
    ];
    assert_eq!(trace, expected.map(|(operation, path)| (operation, PathBuf::from(path), true)));
    assert_eq!(storage.operations() - before, 5);
}

#[test]
fn a_replacement_that_fails_anywhere_leaves_the_old_file_or_the_new_one() {
    for n in 1..=5 {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/data")).unwrap();
        storage.replace(Path::new("/data"), "new", "name", b"old").unwrap();
        storage.fail_nth(n, io::ErrorKind::Other, Repeat::Once);
        storage.replace(Path::new("/data"), "new", "name", b"new").unwrap_err();
        let expected: &[u8] = if n < 5 { b"old" } else { b"new" };
        assert_eq!(storage.read(Path::new("/data/name"), 10).unwrap(), expected, "{n}");
        assert_eq!(storage.list(Path::new("/data")).unwrap().len(), 1, "{n}");
    }
}

#[test]
fn a_full_disk_refuses_what_needs_space_until_some_is_given_back() {
    let (storage, file) = with_file();
    storage.limit_space(Some(3 * 4096));
    file.reserve(0..4096).unwrap();
    file.write_all_at(b"x", 100).unwrap();
    assert_eq!(storage.used_space(), 4096);
    let other = storage.open(Path::new("b"), OpenMode::CreateNew).unwrap();
    other.write_all_at(&[1; 5000], 0).unwrap();
    assert_eq!(storage.used_space(), 3 * 4096);
    assert_eq!(kind_of(file.reserve(0..8192)), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(file.write_all_at(b"x", 4096)), io::ErrorKind::StorageFull);
    // What has its blocks is written over, and lengths take nothing.
    file.write_all_at(b"y", 100).unwrap();
    file.set_len(1 << 30).unwrap();

    other.set_len(4096).unwrap();
    file.reserve(4096..8192).unwrap();
    assert_eq!(kind_of(file.reserve(8192..8193)), io::ErrorKind::StorageFull);
    let region = other.map(4096).unwrap();
    storage.remove_file(Path::new("b")).unwrap();
    drop(other);
    assert_eq!(kind_of(file.reserve(8192..8193)), io::ErrorKind::StorageFull);
    drop(region);
    file.reserve(8192..8193).unwrap();
    storage.limit_space(None);
    file.reserve(0..1 << 20).unwrap();
    drop(file);
    storage.open(Path::new("a"), OpenMode::Truncate).unwrap();
    assert_eq!(storage.used_space(), 0);
}

/// Encodes itself in three pieces.
struct Pieces;

impl Encode for Pieces {
    fn encoded_len(&self) -> usize {
        6
    }

    fn encode<S: Store>(&self, mut store: S) {
        store.put(4, b"ef");
        store.put(0, b"ab");
        assert_eq!(store.bytes(), b"ab\0\0ef");
        store.put(2, b"cd");
    }
}

#[test]
fn an_observer_sees_every_piece_of_an_encode_before_it_is_stored() {
    let (storage, file) = with_file();
    let unobserved = file.map(8192).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    storage.observe(Some(Arc::new({
        let (seen, file) = (seen.clone(), file.clone());
        move |path: &Path, position, bytes: &[u8]| {
            let mut before = [0; 6];
            file.read_at(&mut before, 1000).unwrap();
            seen.lock().push((path.to_owned(), position, bytes.to_vec(), before));
        }
    })));
    let region = file.map(8192).unwrap();
    storage.rename(Path::new("a"), Path::new("b")).unwrap();
    // SAFETY: nobody else uses the file.
    unsafe {
        unobserved.encode(0, &b"unseen"[..]).unwrap();
        region.encode(1000, &Pieces).unwrap();
    }
    let path = PathBuf::from("b");
    let expected = [
        (path.clone(), 1004, b"ef".to_vec(), *b"\0\0\0\0\0\0"),
        (path.clone(), 1000, b"ab".to_vec(), *b"\0\0\0\0ef"),
        (path, 1002, b"cd".to_vec(), *b"ab\0\0ef"),
    ];
    assert_eq!(*seen.lock(), expected);
    assert_eq!(storage.read(Path::new("b"), 8192).unwrap()[1000..1006], *b"abcdef");
}

#[test]
fn a_crash_in_the_middle_of_an_encode_leaves_what_was_stored_before() {
    let (storage, file) = with_file();
    storage.observe(Some(Arc::new(|_: &Path, position, _: &[u8]| assert_ne!(position, 2, "the machine stops here"))));
    let region = file.map(8192).unwrap();
    // SAFETY: nobody else uses the file.
    let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { region.encode(0, &Pieces) }));
    assert!(crashed.is_err());
    assert_eq!(storage.read(Path::new("a"), 8192).unwrap()[..6], *b"ab\0\0ef");
}

#[test]
fn a_reboot_and_a_new_mount_change_identities() {
    let (storage, file) = with_file();
    let first = file.identity().unwrap().unwrap();
    storage.remount();
    let second = file.identity().unwrap().unwrap();
    assert_eq!(first.boot_id, second.boot_id);
    assert_ne!(first.mount_id, second.mount_id);
    storage.reboot();
    let third = file.identity().unwrap().unwrap();
    assert_ne!(second.boot_id, third.boot_id);
    assert_ne!(second.mount_id, third.mount_id);
    assert_eq!((first.inode, first.birth_ns), (third.inode, third.birth_ns));
}

#[test]
fn the_file_system_is_what_a_test_says() {
    let (storage, _file) = with_file();
    let root = Path::new("/");
    assert_eq!(storage.file_system(root).unwrap().class, FileSystemClass::Local);
    storage.set_file_system("nfs", FileSystemClass::Network);
    let found = storage.file_system(root).unwrap();
    assert_eq!((found.name.as_str(), found.class), ("nfs", FileSystemClass::Network));
}

#[test]
fn growing_beyond_the_memory_keeps_contents_and_old_regions_alive() {
    let (storage, file) = with_file();
    file.write_all_at(b"kept", 4094).unwrap();
    let old = file.map(8192).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    assert_eq!(storage.read(Path::new("a"), 1 << 20).unwrap()[4094..4098], *b"kept");
    // SAFETY: nobody stores there.
    assert_eq!(unsafe { old.bytes(4094..4098) }, Some(&b"kept"[..]));
}
