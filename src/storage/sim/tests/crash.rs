//! What crashes leave of contents and lengths.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use super::*;
use crate::random::Sequence;

/// So many cuts are tried where all that may happen is to be seen. The rarest outcome below has a chance of 1 in 100.
const CUTS: u64 = 3000;

/// What is seen of a machine, over many power cuts.
fn outcomes<T: Ord>(storage: &SimStorage, look: impl Fn(&SimStorage) -> T) -> BTreeSet<T> {
    (0..CUTS).map(|seed| look(&storage.crash(Crash::Power, &mut Sequence::new(seed)))).collect()
}

fn contents(storage: &SimStorage, path: &str) -> Vec<u8> {
    storage.read(Path::new(path), 1 << 30).unwrap()
}

/// A file on a tracked machine, of which everything is durable: so many sectors of the letter `a`.
fn durable_file(sectors: usize) -> (SimStorage, Arc<dyn File>) {
    let storage = SimStorage::tracked();
    let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&vec![b'a'; sectors * 512], 0).unwrap();
    file.sync_all().unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    (storage, file)
}

/// The letters that the sectors hold; each must be of one letter.
fn letters(storage: &SimStorage) -> String {
    let bytes = contents(storage, "a");
    let whole = bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0]));
    assert!(whole, "a torn sector");
    bytes.chunks(512).map(|sector| if sector[0] == 0 { '0' } else { char::from(sector[0]) }).collect()
}

fn set(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|&letters| letters.to_owned()).collect()
}

#[test]
fn a_tracked_machine_keeps_the_contract_of_the_seam() {
    let storage = SimStorage::tracked();
    conformance::check(&storage, Path::new("/data"));
    let killed = storage.crash(Crash::Kill, &mut Sequence::new(1));
    conformance::check(&killed, Path::new("/again"));
    conformance::check(&killed.crash(Crash::Power, &mut Sequence::new(1)), Path::new("/once more"));
}

#[test]
fn every_combination_of_versions_of_two_sectors_appears_and_no_other() {
    let (storage, file) = durable_file(4);
    file.write_all_at(&[b'b'; 512], 512).unwrap();
    file.write_all_at(&[b'c'; 1024], 512).unwrap();
    let expected = ["aaaa", "aaca", "abaa", "abca", "acaa", "acca"];
    assert_eq!(outcomes(&storage, letters), set(&expected));
    // Also where they lie in files of their own, of which one is as good as the other.
    let other = storage.open(Path::new("b"), OpenMode::CreateNew).unwrap();
    other.write_all_at(b"1", 0).unwrap();
    other.sync_all().unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    other.write_all_at(b"2", 0).unwrap();
    let expected = expected.into_iter().flat_map(|letters| ["1", "2"].map(|other| format!("{letters}{other}")));
    let both = |found: &SimStorage| letters(found) + &String::from_utf8(contents(found, "b")).unwrap();
    assert_eq!(outcomes(&storage, both), expected.collect());
}

#[test]
fn a_sync_leaves_the_last_version_alone() {
    let (storage, file) = durable_file(3);
    file.write_all_at(&[b'b'; 1536], 0).unwrap();
    file.write_all_at(&[b'c'; 512], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, letters), set(&["cbb"]));
    file.write_all_at(&[b'd'; 512], 1024).unwrap();
    assert_eq!(outcomes(&storage, letters), set(&["cbb", "cbd"]));
    file.start_writeback(0..1536).unwrap();
    assert_eq!(outcomes(&storage, letters), set(&["cbb", "cbd"]));
}

/// Two pieces in one sector, and a third one in the next.
struct Frame;

impl Encode for Frame {
    fn encoded_len(&self) -> usize {
        1024
    }

    fn encode<S: Store>(&self, mut store: S) {
        store.put(8, b"body");
        store.put(600, b"tail");
        store.put(0, b"head");
    }
}

#[test]
fn an_encode_may_be_there_to_any_part() {
    let (storage, file) = durable_file(2);
    let region = file.map(1024).unwrap();
    // SAFETY: nobody else uses the file.
    unsafe { region.encode(0, &Frame) }.unwrap();
    let seen = outcomes(&storage, |found| {
        let bytes = contents(found, "a");
        let rest = [&bytes[4..8], &bytes[12..600], &bytes[604..]].concat();
        assert!(rest.iter().all(|&byte| byte == b'a'));
        [0, 8, 600].map(|at| String::from_utf8(bytes[at..at + 4].to_vec()).unwrap())
    });
    let expected = [["aaaa", "aaaa"], ["aaaa", "body"], ["head", "body"]];
    let expected = expected.into_iter().flat_map(|[head, body]| ["aaaa", "tail"].map(|tail| [head, body, tail]));
    assert_eq!(seen, expected.map(|found| found.map(str::to_owned)).collect());
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, |found| contents(found, "a")).len(), 1);
}

#[test]
fn any_length_since_the_last_sync_may_be_there_with_zeros_behind_it() {
    let (storage, file) = durable_file(1);
    file.set_len(100).unwrap();
    file.write_all_at(&[b'b'; 500], 600).unwrap();
    let seen = outcomes(&storage, |found| {
        let bytes = contents(found, "a");
        let count = |letter| bytes.iter().filter(|&&byte| byte == letter).count();
        let (a, b) = (count(b'a'), count(b'b'));
        assert_eq!(bytes.len(), a + b + count(0));
        (bytes.len(), a, b)
    });
    // Cut or not, written or not: the last 76 bytes are in a sector of their own.
    let long = [512, 100].into_iter().flat_map(|a| [0, 424, 76, 500].map(|b| (1100, a, b)));
    assert_eq!(seen, [(100, 100, 0), (512, 100, 0), (512, 512, 0)].into_iter().chain(long).collect());
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, |found| contents(found, "a").len()), BTreeSet::from([1100]));
    assert_eq!(contents(&storage.crash(Crash::Power, &mut Sequence::new(1)), "a"), contents(&storage, "a"));
}

#[test]
fn a_file_that_was_emptied_may_be_as_it_was() {
    let (storage, _file) = durable_file(2);
    let emptied = storage.open(Path::new("a"), OpenMode::Truncate).unwrap();
    emptied.write_all_at(&[b'n'; 512], 0).unwrap();
    let seen = outcomes(&storage, letters);
    assert_eq!(seen, set(&["", "a", "0", "n", "aa", "a0", "0a", "00", "na", "n0"]));
    emptied.sync_all().unwrap();
    assert_eq!(outcomes(&storage, letters), set(&["n"]));
}

#[test]
fn many_versions_are_thinned_but_not_the_first_nor_the_last() {
    let (storage, file) = durable_file(1);
    (0..1000_u32).for_each(|n| file.write_all_at(&n.to_le_bytes(), 0).unwrap());
    let seen = outcomes(&storage, |found| u32::from_le_bytes(contents(found, "a")[..4].try_into().unwrap()));
    assert!(seen.contains(&u32::from_le_bytes(*b"aaaa")) && seen.contains(&999), "{seen:?}");
    assert!(seen.len() >= 32 && seen.len() <= 64, "{}", seen.len());
    assert!(seen.iter().all(|&n| n < 1000 || n == u32::from_le_bytes(*b"aaaa")));
}

#[test]
fn a_failed_sync_counts_pages_as_clean_until_they_are_written_again() {
    let (storage, file) = durable_file(16);
    let keeps = |letters: &str| format!("{letters:a<16}");
    file.write_all_at(&[b'b'; 512], 0).unwrap();
    file.write_all_at(&[b'b'; 512], 4096).unwrap();
    assert!(!file.is_on_device(0..512).unwrap() && file.is_on_device(512..4096).unwrap());
    storage.fail_syncs(1);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert!(!file.is_on_device(0..1).unwrap() && !file.is_on_device(4000..5000).unwrap());
    assert!(file.is_on_device(512..4096).unwrap());
    // The cache keeps what the second sync didn't write.
    assert_eq!(letters(&storage), "baaaaaaabaaaaaaa");
    let lost = ["", "b", "aaaaaaaab", "baaaaaaab"].map(keeps);
    assert_eq!(outcomes(&storage, letters), lost.into_iter().collect());
    // Another sector of the first page takes it along; the second page stays as it is.
    file.write_all_at(&[b'c'; 512], 512).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, letters), ["bc", "bcaaaaaab"].map(keeps).into_iter().collect());
    // The same bytes once more are a store too.
    file.write_all_at(&[b'b'; 512], 4096).unwrap();
    assert_eq!(outcomes(&storage, letters).len(), 2);
    file.sync_all().unwrap();
    assert_eq!(outcomes(&storage, letters), ["bcaaaaaab"].map(keeps).into_iter().collect());
    assert!(file.is_on_device(0..8192).unwrap());
    // A length that isn't durable is as good as bytes that aren't, where it matters.
    file.set_len(9000).unwrap();
    assert!(file.is_on_device(0..8192).unwrap() && !file.is_on_device(8192..9000).unwrap());
}

#[test]
fn a_failed_sync_may_leave_any_length_but_cuts_off_nothing_that_is_synced_later() {
    let (storage, file) = durable_file(1);
    file.write_all_at(&[b'b'; 4096 * 2], 512).unwrap();
    file.set_len(20_000).unwrap();
    storage.fail_nth(1, io::ErrorKind::Other, Repeat::Once);
    file.sync_all().unwrap_err();
    file.sync_all().unwrap();
    let lengths = |storage: &SimStorage| outcomes(storage, |found| contents(found, "a").len());
    // A write grows the file page by page.
    assert_eq!(lengths(&storage), BTreeSet::from([512, 4096, 8192, 8704, 20_000]));
    file.write_all_at(b"c", 5000).unwrap();
    file.sync_all().unwrap();
    assert_eq!(lengths(&storage), BTreeSet::from([8192, 8704, 20_000]));
    file.set_len(19_000).unwrap();
    file.sync_all().unwrap();
    assert_eq!(lengths(&storage), BTreeSet::from([19_000]));
}

#[test]
fn failed_pages_are_dropped_where_a_test_says_so() {
    let (storage, file) = durable_file(2);
    storage.drop_failed_pages(true);
    let region = file.map(1024).unwrap();
    // SAFETY: nobody else uses the file.
    unsafe { region.encode(512, &[b'b'; 512][..]) }.unwrap();
    storage.fail_syncs(1);
    file.sync_data().unwrap_err();
    assert_eq!(letters(&storage), "aa");
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, letters), set(&["aa", "ab"]));
    file.write_all_at(&[b'c'; 512], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, letters), set(&["ca"]));
}

#[test]
fn words_are_seen_as_they_are_stored_and_never_tear() {
    let (storage, file) = durable_file(8);
    let region = file.map(4096).unwrap();
    let word = |at: usize| &region.words()[at];
    word(0).store(1, Ordering::SeqCst);
    word(0).store(2, Ordering::SeqCst);
    word(63).store(0x0101_0101_0101_0101, Ordering::SeqCst);
    word(64).store(3, Ordering::SeqCst);
    let seen = outcomes(&storage, |found| {
        let bytes = contents(found, "a");
        [0, 63, 64].map(|at| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap()))
    });
    let old = u64::from_le_bytes([b'a'; 8]);
    let first = [[old, old], [1, old], [2, old], [2, 0x0101_0101_0101_0101]];
    let expected = first.into_iter().flat_map(|[a, b]| [old, 3].map(|c| [a, b, c]));
    assert_eq!(seen, expected.collect());
    // A kill keeps them all, and a sync makes them durable.
    assert_eq!(contents(&storage.crash(Crash::Kill, &mut Sequence::new(1)), "a"), contents(&storage, "a"));
    word(5).store(7, Ordering::SeqCst);
    file.sync_data().unwrap();
    assert_eq!(outcomes(&storage, |found| contents(found, "a")), BTreeSet::from([contents(&storage, "a")]));
}

#[test]
fn a_kill_takes_nothing_and_makes_nothing_durable() {
    let (storage, file) = durable_file(3);
    let LockOutcome::Acquired(_lock) = storage.lock_exclusive(Path::new("lock")).unwrap() else { panic!("held") };
    file.write_all_at(&[b'b'; 512], 512).unwrap();
    storage.fail_syncs(1);
    file.sync_data().unwrap_err();
    file.write_all_at(&[b'c'; 512], 1024).unwrap();
    storage.open(Path::new("new"), OpenMode::CreateNew).unwrap();
    let killed = storage.crash(Crash::Kill, &mut Sequence::new(7));
    assert_eq!(letters(&killed), "abc");
    assert_eq!(killed.image_hash(), storage.image_hash());
    let found = killed.open(Path::new("a"), OpenMode::ReadWrite).unwrap();
    assert_eq!(found.identity().unwrap(), file.identity().unwrap());
    assert!(matches!(killed.lock_exclusive(Path::new("lock")).unwrap(), LockOutcome::Acquired(_)));
    // All of it is one page, which the failed sync has cleaned and the last write made dirty again.
    assert_eq!(outcomes(&killed, letters), set(&["aaa", "aac", "aba", "abc"]));
    let names = |found: &SimStorage| found.list(Path::new("/")).unwrap().len();
    assert_eq!(outcomes(&killed, names), BTreeSet::from([1, 2, 3]));
    found.sync_data().unwrap();
    assert_eq!(outcomes(&killed, letters), set(&["abc"]));
    // The machine that it was made of has seen nothing of this.
    assert_eq!(outcomes(&storage, letters).len(), 4);
    assert_eq!(storage.used_space(), killed.used_space());
}

#[test]
fn what_a_power_cut_left_is_durable_and_has_another_boot() {
    let (storage, file) = durable_file(6);
    file.write_all_at(&[b'b'; 3072], 0).unwrap();
    storage.open(Path::new("new"), OpenMode::CreateNew).unwrap();
    let before = file.identity().unwrap().unwrap();
    for (seed, crash) in (0..10).zip([Crash::Power, Crash::Remount].into_iter().cycle()) {
        let found = storage.crash(crash, &mut Sequence::new(seed));
        let identity = found.open(Path::new("a"), OpenMode::Read).unwrap().identity().unwrap().unwrap();
        assert_eq!(identity.boot_id == before.boot_id, crash == Crash::Remount);
        assert_ne!(identity.mount_id, before.mount_id);
        assert_eq!(identity.inode, before.inode);
        let again = (0..100).map(|seed| found.crash(Crash::Power, &mut Sequence::new(seed)).image_hash());
        assert_eq!(again.collect::<BTreeSet<_>>(), BTreeSet::from([found.image_hash()]));
    }
    let hashes = || (0..100).map(|seed| storage.crash(Crash::Power, &mut Sequence::new(seed)).image_hash());
    assert!(hashes().eq(hashes()), "the same choices leave the same");
    assert!(outcomes(&storage, letters).len() == 64);
    let new = found_new(&storage);
    assert!(new.open(Path::new("b"), OpenMode::CreateNew).unwrap().identity().unwrap().unwrap().inode > before.inode);
}

fn found_new(storage: &SimStorage) -> SimStorage {
    storage.crash(Crash::Power, &mut Sequence::new(0))
}

#[test]
fn an_image_has_nothing_in_common_with_its_machine() {
    let (storage, file) = durable_file(2);
    let found = storage.crash(Crash::Power, &mut Sequence::new(1));
    found.open(Path::new("a"), OpenMode::ReadWrite).unwrap().write_all_at(&[b'z'; 512], 0).unwrap();
    found.open(Path::new("b"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[b'y'; 512], 512).unwrap();
    assert_eq!((letters(&storage), letters(&found)), ("ay".to_owned(), "za".to_owned()));
    assert_eq!(storage.list(Path::new("/")).unwrap().len(), 1);
    found.fail_nth(1, io::ErrorKind::Other, Repeat::Forever);
    file.sync_data().unwrap();
}

/// Everything in a machine.
fn dump(storage: &SimStorage) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![PathBuf::from("/")]);
    while let Some(dir) = dirs.pop() {
        for entry in storage.list(&dir).unwrap() {
            let path = dir.join(entry.name);
            if entry.kind == EntryKind::Dir {
                dirs.push(path.clone());
                found.insert(path, None);
            } else {
                found.insert(path.clone(), Some(storage.read(&path, 1 << 30).unwrap()));
            }
        }
    }
    found
}

#[test]
fn images_have_equal_hashes_if_they_are_equal_and_no_others() {
    let (storage, file) = durable_file(12);
    file.write_all_at(&[0; 4096], 512).unwrap();
    file.write_all_at(b"x", 5000).unwrap();
    file.set_len(5500).unwrap();
    storage.create_dir_all(Path::new("/d/e")).unwrap();
    for path in ["/d/f", "/d/e/f", "/g"] {
        storage.replace(Path::new(path).parent().unwrap(), "temporary", "f", path.as_bytes()).unwrap();
        storage.rename(&Path::new(path).with_file_name("f"), Path::new(path)).unwrap();
        storage.open(Path::new(path), OpenMode::ReadWrite).unwrap().write_all_at(b"1", 0).unwrap();
    }
    storage.rename(Path::new("/d/e/f"), Path::new("/d/h")).unwrap();
    storage.create_dirs(Path::new("/d"), &["i".to_owned()]).unwrap();
    let mut by_dump = BTreeMap::new();
    for seed in 0..CUTS {
        let found = storage.crash(Crash::Power, &mut Sequence::new(seed));
        let hash = found.image_hash();
        assert_eq!(*by_dump.entry(dump(&found)).or_insert(hash), hash);
    }
    let hashes: BTreeSet<_> = by_dump.values().collect();
    assert_eq!(hashes.len(), by_dump.len());
    assert!(hashes.len() > 300, "{}", hashes.len());
    // A bit in each half of each sector, and zeros at another place.
    let hash = |at: u64, byte: u8| {
        let (storage, file) = durable_file(0);
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[byte], at).unwrap();
        storage.image_hash()
    };
    let hashes: BTreeSet<_> = (0..400).flat_map(|at| [hash(at * 256, 1), hash(at * 256 + 8, 0x80)]).collect();
    assert_eq!(hashes.len(), 800);
    assert_eq!(hash(0, 0), hash(99_999, 0));
}

#[test]
fn an_untracked_machine_loses_nothing() {
    let (storage, file) = with_file();
    file.write_all_at(&[1; 5000], 0).unwrap();
    for crash in [Crash::Kill, Crash::Power, Crash::Remount] {
        let found = storage.crash(crash, &mut Sequence::new(3));
        assert_eq!(found.image_hash(), storage.image_hash());
        assert_eq!(found.used_space(), storage.used_space());
    }
}

#[test]
fn space_and_memory_of_images_are_given_back_as_zeros() {
    let (storage, file) = durable_file(40);
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&[9; 3000], 900_000).unwrap();
    let region = file.map(1 << 20).unwrap();
    region.words()[1000].store(5, Ordering::SeqCst);
    for seed in 0..20 {
        let found = storage.crash(Crash::Power, &mut Sequence::new(seed));
        let copy = found.open(Path::new("a"), OpenMode::ReadWrite).unwrap();
        let mapped = copy.map(copy.len().unwrap()).unwrap();
        mapped.words()[2000].store(seed, Ordering::SeqCst);
        drop((found, copy));
        // As long as somebody has it mapped it isn't given to another file.
        let other = SimStorage::tracked().open(Path::new("b"), OpenMode::CreateNew).unwrap();
        other.set_len(1 << 20).unwrap();
        let mut bytes = vec![1; 1 << 20];
        other.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert_eq!(mapped.words()[2000].load(Ordering::SeqCst), seed);
    }
}

#[test]
#[should_panic(expected = "SIGBUS")]
fn a_store_without_blocks_on_a_full_disk_ends_the_process() {
    let (storage, file) = durable_file(1);
    file.set_len(8192).unwrap();
    let region = file.map(8192).unwrap();
    storage.limit_space(Some(4096));
    // SAFETY: nobody else uses the file, and it is in memory.
    unsafe {
        region.encode(4000, &[1; 96][..]).unwrap();
        region.encode(4096, &[1; 1][..]).unwrap();
    }
}
