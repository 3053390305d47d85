//! Steps and faults.

use std::sync::atomic::Ordering;

use super::*;
use crate::random::Sequence;

type Seen = Arc<Mutex<Vec<(u64, Operation, String, String)>>>;

/// Takes down each step with what a kill leaves of file `a`'s first bytes.
fn watch(storage: &SimStorage, bytes: usize) -> Seen {
    let seen = Seen::default();
    let hook: StepHook = Arc::new({
        let seen = seen.clone();
        move |storage, step| {
            let killed = storage.crash(Crash::Kill, &mut Sequence::new(0));
            let content = killed.read(Path::new("a"), 1 << 20).unwrap_or_default();
            let content = content[..bytes.min(content.len())].escape_ascii().to_string();
            seen.lock().push((step.number, step.operation, step.path.to_str().unwrap().to_owned(), content));
        }
    });
    storage.on_step(Some(hook));
    seen
}

fn told(seen: &Seen) -> Vec<(Operation, String)> {
    std::mem::take(&mut *seen.lock()).into_iter().map(|(_, operation, _, content)| (operation, content)).collect()
}

#[test]
fn there_is_a_step_behind_each_operation_and_each_put() {
    let storage = SimStorage::tracked();
    let seen = watch(&storage, 6);
    let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    file.set_len(8192).unwrap();
    file.reserve(0..8192).unwrap();
    let region = file.map(8192).unwrap();
    // SAFETY: nobody else uses the file.
    unsafe { region.encode(0, &Pieces) }.unwrap();
    file.sync_data().unwrap();
    storage.fail_syncs(1);
    file.sync_all().unwrap_err();
    drop(storage.open(Path::new("a"), OpenMode::ReadWrite).unwrap());
    storage.rename(Path::new("a"), Path::new("b")).unwrap();
    let zeros = |n: usize| "\\x00".repeat(n);
    let ef = format!("{}ef", zeros(4));
    let abef = format!("ab{}ef", zeros(2));
    let expected = [
        (0, Operation::Create, "a", ""),
        (1, Operation::SetLen, "a", &zeros(6)),
        (2, Operation::Reserve, "a", &zeros(6)),
        (3, Operation::Put, "a", &ef),
        (4, Operation::Put, "a", &abef),
        (5, Operation::Put, "a", "abcdef"),
        (6, Operation::SyncData, "a", "abcdef"),
        (7, Operation::SyncAll, "a", "abcdef"),
        (8, Operation::Rename, "b", ""),
    ];
    let expected = expected.map(|(number, operation, path, content)| (number, operation, path.into(), content.into()));
    assert_eq!(*seen.lock(), expected);
    storage.on_step(None);
    storage.remove_file(Path::new("b")).unwrap();
    assert_eq!(seen.lock().len(), 9);
}

#[test]
fn words_are_a_step_of_their_own_before_what_follows() {
    let storage = SimStorage::tracked();
    let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[b'.'; 4096], 0).unwrap();
    let region = file.map(4096).unwrap();
    let other = storage.open(Path::new("b"), OpenMode::CreateNew).unwrap();
    other.write_all_at(&[0; 100], 0).unwrap();
    let other_region = other.map(100).unwrap();
    let seen = watch(&storage, 16);
    let words = region.words();
    words[0].store(u64::from_ne_bytes(*b"first..."), Ordering::SeqCst);
    // SAFETY: nobody else uses the file.
    unsafe { other_region.encode(0, &b"put"[..]) }.unwrap();
    region.words()[1].store(u64::from_ne_bytes(*b"second.."), Ordering::SeqCst);
    region.words()[1].store(u64::from_ne_bytes(*b"third..."), Ordering::SeqCst);
    file.sync_data().unwrap();
    let expected = [
        (Operation::Word, "first..........."),
        (Operation::Put, "first..........."),
        (Operation::Word, "first...second.."),
        (Operation::Word, "first...third..."),
        (Operation::SyncData, "first...third..."),
    ];
    assert_eq!(told(&seen), expected.map(|(operation, content)| (operation, content.to_owned())));
    // To load words is no step.
    assert_eq!(region.words()[1].load(Ordering::SeqCst), u64::from_ne_bytes(*b"third..."));
    storage.open(Path::new("a"), OpenMode::Read).unwrap().map(4096).unwrap().words()[5].load(Ordering::SeqCst);
    storage.sync_dir(Path::new("/")).unwrap();
    assert_eq!(told(&seen).len(), 1);
}

#[test]
fn a_process_may_be_killed_between_the_pages_of_a_write() {
    let storage = SimStorage::tracked();
    let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    let lengths = Arc::new(Mutex::new(Vec::new()));
    storage.on_step(Some(Arc::new({
        let lengths = lengths.clone();
        move |storage: &SimStorage, _: &Step<'_>| {
            let killed = storage.crash(Crash::Kill, &mut Sequence::new(0));
            lengths.lock().push(killed.read(Path::new("a"), 1 << 20).unwrap().iter().filter(|&&b| b == 1).count());
        }
    })));
    file.write_all_at(&[1; 9000], 4000).unwrap();
    assert_eq!(*lengths.lock(), [96, 4192, 8288, 9000]);
    // And so it may end where there is no space.
    storage.on_step(None);
    storage.limit_space(Some(storage.used_space() + 4096));
    assert_eq!(kind_of(file.write_all_at(&[2; 8192], 16384)), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 16384 + 4096);
}

#[test]
fn a_short_write_or_reservation_is_half_done() {
    let (storage, file) = with_file();
    storage.fail_nth(1, Fault::Short(io::ErrorKind::StorageFull), Repeat::Once);
    assert_eq!(kind_of(file.write_all_at(b"abcdef", 0)), io::ErrorKind::StorageFull);
    assert_eq!(storage.read(Path::new("a"), 8192).unwrap()[..7], *b"abc\0\0\0\0");
    storage.fail_nth(1, Fault::Short(io::ErrorKind::StorageFull), Repeat::Forever);
    assert_eq!(kind_of(file.reserve(0..8192)), io::ErrorKind::StorageFull);
    assert_eq!(kind_of(file.reserve(0..8192)), io::ErrorKind::StorageFull);
    assert_eq!(storage.used_space(), 4096);
    assert_eq!(kind_of(file.set_len(1)), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 8192);
    storage.fail_nth(2, io::ErrorKind::Interrupted, Repeat::Once);
    file.reserve(0..8192).unwrap();
    assert_eq!(kind_of(file.sync_data()), io::ErrorKind::Interrupted);
    file.sync_data().unwrap();
}

#[test]
fn readings_fail_and_are_counted_on_their_own() {
    let (storage, file) = with_file();
    let root = Path::new("/");
    let operations = storage.operations();
    type Read<'a> = &'a dyn Fn() -> io::Result<()>;
    let all: [Read<'_>; 4] = [
        &|| storage.open(Path::new("a"), OpenMode::Read).map(drop),
        &|| file.read_at(&mut [0; 8], 0).map(drop),
        &|| storage.list(root).map(drop),
        &|| storage.entry_kind(root).map(drop),
    ];
    let before = storage.readings();
    for failing in 1..=4 {
        storage.fail_nth_reading(failing, io::ErrorKind::Other, Repeat::Once);
        for (number, read) in (1..).zip(all) {
            assert_eq!(read().is_err(), number == failing);
        }
    }
    storage.fail_nth_reading(3, io::ErrorKind::Interrupted, Repeat::Forever);
    assert_eq!(all.map(|read| read().is_err()), [false, false, true, true]);
    storage.fail_readings_if(|reading, path| {
        (reading == Reading::ReadAt && path == Path::new("a")).then_some(io::ErrorKind::Other)
    });
    storage.heal();
    assert!(all.iter().all(|read| read().is_ok()));
    storage.fail_readings_if(|reading, path| {
        (reading == Reading::ReadAt && path == Path::new("a")).then_some(io::ErrorKind::Other)
    });
    assert_eq!(all.map(|read| read().is_err()), [false, true, false, false]);
    assert_eq!(storage.readings() - before, 28);
    assert_eq!(storage.operations(), operations);
    file.write_all_at(b"x", 0).unwrap();
}
