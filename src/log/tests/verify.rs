//! Verifying and repairing where the device fails, and where the process or the power does.

use std::{
    ops::{ControlFlow, Range},
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{
    partition::RepairAction,
    random::Sequence,
    storage::{
        File,
        sim::{Crash, Step},
    },
    verification::{Verification, VerifyFinding, VerifyReport},
};

fn options() -> LogOptions {
    Log::options().segment_bytes(64 << 10)
}

/// A log with damage of each kind that can be mended: frames amid a segment and at the ends of two, a copy of a header,
/// indexes, commits. Answers the records that are left.
fn damaged(storage: &Arc<dyn Storage>) -> Vec<(u64, Vec<u8>)> {
    let log = options().open_on(Path::new(DIR), storage.clone(), Clock::default()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    for number in 0..170_u64 {
        topic.append(Record::new(vec![number as u8; 1000])).unwrap();
    }
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    for offset in [3, 5] {
        consumer.commit_offsets([("orders", 0, offset)]).unwrap();
    }
    drop(consumer);
    log.close().unwrap();
    let folder = Path::new(DIR).join("orders-0");
    let mut segments: Vec<_> = names(&**storage, &folder).into_iter().filter(|name| name.ends_with(".log")).collect();
    segments.sort();
    assert_eq!(segments.len(), 3);
    let paths: Vec<_> = segments.iter().map(|name| folder.join(name)).collect();
    let end = |path: &Path| storage.open(path, OpenMode::Read).unwrap().len().unwrap();
    flip(storage, &paths[0], 4192 + 1040 + 700);
    flip(storage, &paths[0], end(&paths[0]) - 20);
    flip(storage, &paths[1], 4192);
    flip(storage, &paths[1], 4192 + 1040);
    flip(storage, &paths[1], 30);
    flip(storage, &paths[2], end(&paths[2]) - 20);
    flip(storage, &paths[1].with_extension("index"), 40);
    let commits = Path::new(DIR).join("__offsets-0/00000000000000000000.log");
    let bytes = storage.read(&commits, u64::MAX).unwrap();
    let last = (0..bytes.len()).rfind(|&at| bytes[at..].starts_with(b"\x01\x07billing")).unwrap();
    flip(storage, &commits, last as u64);
    let before = verified(storage);
    assert_eq!(before.findings().iter().filter(|finding| finding.name() == "corruption").count(), 5, "{before:?}");
    let lost: Vec<_> = before.findings().iter().filter(|it| it.path().unwrap().starts_with(&folder)).cloned().collect();
    let is_lost = |offset: u64| lost.iter().filter_map(VerifyFinding::offsets).any(|lost| lost.contains(&offset));
    (0..170).filter(|&offset| !is_lost(offset)).map(|offset| (offset, vec![offset as u8; 1000])).collect()
}

fn names(storage: &dyn Storage, dir: &Path) -> Vec<String> {
    storage.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn flip(storage: &Arc<dyn Storage>, path: &Path, at: u64) {
    let file = storage.open(path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.sync_all().unwrap();
}

fn verified(storage: &Arc<dyn Storage>) -> VerifyReport {
    let mut watch = |_: &_| ControlFlow::Continue(());
    let mut verification = Verification::new(&mut watch);
    options().verify_on(Path::new(DIR), storage.clone(), &mut verification).unwrap();
    verification.finish().unwrap()
}

fn repair(storage: &Arc<dyn Storage>) -> Result<RepairReport> {
    options().repair_on(Path::new(DIR), storage.clone(), Clock::default())
}

/// Every file but the locks and what is a cache, with its content.
fn contents(storage: &Arc<dyn Storage>) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in ["orders-0", "__offsets-0", "topics"] {
        let folder = Path::new(DIR).join(folder);
        for name in names(&**storage, &folder).into_iter().filter(|name| name != "partition.state") {
            let bytes = storage.read(&folder.join(&name), u64::MAX).unwrap();
            found.push((folder.join(name), bytes));
        }
    }
    found
}

/// What a repair has to come to, however often it was stopped.
fn check_mended(storage: &Arc<dyn Storage>, expected: &[(u64, Vec<u8>)], context: &str) {
    let report = repair(storage).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(report.after().is_sound(), "{context}: {:?}", report.after());
    let mended = contents(storage);
    let again = repair(storage).unwrap();
    assert!(again.actions().is_empty() && again.recovery().is_clean(), "{context}: {again:?}");
    assert!(contents(storage) == mended, "{context}: the second repair does nothing");
    let log = options().open_on(Path::new(DIR), storage.clone(), Clock::default()).unwrap();
    assert!(log.recovery().is_clean(), "{context}: {:?}", log.recovery());
    let partition = log.topic("orders").unwrap().partition(0).unwrap();
    let found: Vec<_> = partition.read_from(0).unwrap().map(|record| record.unwrap()).collect();
    let found: Vec<_> = found.iter().map(|record| (record.offset(), record.value().unwrap().to_vec())).collect();
    assert!(found == expected, "{context}: other records");
    assert_eq!(log.describe_group("billing").unwrap().committed.first().map(|it| it.offset), Some(3), "{context}");
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();
}

#[test]
fn a_repair_that_fails_at_any_operation_can_be_repeated() {
    let mut total = u64::MAX;
    let mut n = 0;
    while n <= total {
        let sim = SimStorage::default();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let expected = damaged(&storage);
        let before = sim.operations();
        if n > 0 {
            sim.fail_nth(n, io::ErrorKind::Other, Repeat::Forever);
        }
        let outcome = repair(&storage);
        if n == 0 {
            total = sim.operations() - before;
            assert!(outcome.unwrap().after().is_sound() && total > 50);
        }
        sim.heal();
        check_mended(&storage, &expected, &format!("operation {n} of {total}"));
        n += 1;
    }
}

/// A read fails, and the retries of it, but later ones of the same bytes don't.
#[test]
fn a_repair_sets_nothing_aside_that_could_not_be_read_for_a_moment() {
    let made = SimStorage::tracked();
    let expected = damaged(&(Arc::new(made.clone()) as Arc<dyn Storage>));
    let mut total = u64::MAX;
    let (mut n, mut refused) = (0, 0);
    while n <= total {
        let sim = made.crash(Crash::Power, &mut Sequence::new(0));
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let storage: Arc<dyn Storage> = Arc::new(Faulty::on_read(&sim, move |path, _, _| {
            let is_segment = path.extension().is_some_and(|extension| extension == "log");
            let number = if is_segment { counted.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
            // The window, and all blocks of it.
            let fails = n > 0 && (n..n + 20).contains(&number);
            if fails { Err(io::Error::other("a device that comes back")) } else { Ok(()) }
        }));
        let outcome = repair(&storage);
        if n == 0 {
            total = count.load(Ordering::Relaxed);
            assert!(outcome.unwrap().after().is_sound() && total > 50);
        } else if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            refused += 1;
        }
        check_mended(&(Arc::new(sim) as Arc<dyn Storage>), &expected, &format!("read {n} of {total}"));
        n += 1;
    }
    assert!(refused > 20, "{refused} of {total}");
}

#[test]
fn a_repair_that_the_power_ends_at_any_step_loses_nothing_more() {
    let made = SimStorage::tracked();
    let expected = damaged(&(Arc::new(made.clone()) as Arc<dyn Storage>));
    // As the device has it.
    let sim = made.crash(Crash::Power, &mut Sequence::new(0));
    let images: Arc<Mutex<Vec<(u64, SimStorage)>>> = Arc::default();
    let taken = images.clone();
    sim.on_step(Some(Arc::new(move |machine: &SimStorage, step: &Step<'_>| {
        taken.lock().push((step.number, machine.crash(Crash::Power, &mut Sequence::new(step.number))));
    })));
    assert!(repair(&(Arc::new(sim.clone()) as Arc<dyn Storage>)).unwrap().after().is_sound());
    sim.on_step(None);
    let images = std::mem::take(&mut *images.lock());
    assert!(images.len() > 50, "{} steps", images.len());
    for (step, image) in images {
        check_mended(&(Arc::new(image) as Arc<dyn Storage>), &expected, &format!("step {step}"));
    }
}

#[test]
fn copies_are_exact_and_made_before_anything_changes() {
    let sim = SimStorage::default();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    damaged(&storage);
    let before = contents(&storage);
    sim.take_trace();
    let report = repair(&storage).unwrap();
    let trace = sim.take_trace();
    let mut copies = 0;
    for action in report.actions() {
        let RepairAction::SetAside { file, range, kept_in: Some(copy), .. } = action else { continue };
        let original = &before.iter().find(|(path, _)| path == file).unwrap().1;
        let kept = storage.read(copy, u64::MAX).unwrap();
        assert!(kept == original[range.start as usize..range.end as usize], "{action}");
        let made = trace.iter().position(|it| it.operation == Operation::Rename && it.path == *copy).unwrap();
        let is_write = |it: &&crate::storage::sim::Performed| it.operation == Operation::Write && it.path == *file;
        let synced = |at: usize| trace[..at].iter().any(|it| it.operation == Operation::SyncAll);
        assert!(synced(made), "the copy is durable before it has its name");
        assert!(trace[made..].iter().any(|it| is_write(&it)));
        copies += 1;
    }
    assert_eq!(copies, 5);
}

/// What a device makes of bytes that are read from a position of a file.
type OnRead = dyn Fn(&Path, u64, &mut [u8]) -> io::Result<()> + Send + Sync;
/// Says why a file can't be opened.
type OnOpen = dyn Fn(&Path) -> io::Result<()> + Send + Sync;

/// A storage that can't open everything, or whose device doesn't give everything.
#[derive(Clone)]
struct Faulty {
    inner: SimStorage,
    on_open: Arc<OnOpen>,
    on_read: Arc<OnRead>,
}

impl Faulty {
    fn on_open(inner: &SimStorage, on_open: impl Fn(&Path) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { inner: inner.clone(), on_open: Arc::new(on_open), on_read: Arc::new(|_, _, _| Ok(())) }
    }

    fn on_read(
        inner: &SimStorage,
        on_read: impl Fn(&Path, u64, &mut [u8]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { inner: inner.clone(), on_open: Arc::new(|_| Ok(())), on_read: Arc::new(on_read) }
    }

    /// Some bytes of one file are never given.
    fn bad_block(inner: &SimStorage, path: &Path, bad: Range<u64>) -> Self {
        let path = path.to_owned();
        Self::on_read(inner, move |read, position, bytes| {
            let is_bad = read == path && position < bad.end && position + bytes.len() as u64 > bad.start;
            if is_bad { Err(io::Error::other("a bad block")) } else { Ok(()) }
        })
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

struct FaultyFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    on_read: Arc<OnRead>,
}

impl std::fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Storage for Faulty {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.inner.entry_kind(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<crate::storage::DirEntry>> {
        self.inner.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        (self.on_open)(path)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile { inner, path: path.to_owned(), on_read: self.on_read.clone() }))
    }
    fn reopen(&self, path: &Path, region: &crate::storage::Region) -> io::Result<Arc<dyn File>> {
        self.inner.reopen(path, region)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn lock_exclusive(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock_exclusive(path)
    }
    fn lock_shared(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock_shared(path)
    }
    fn file_system(&self, path: &Path) -> io::Result<crate::storage::FileSystem> {
        self.inner.file_system(path)
    }
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = self.inner.read_at(buffer, position)?;
        (self.on_read)(&self.path, position, &mut buffer[..read])?;
        Ok(read)
    }
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, position)
    }
    fn reserve(&self, range: std::ops::Range<u64>) -> io::Result<()> {
        self.inner.reserve(range)
    }
    fn start_writeback(&self, range: std::ops::Range<u64>) -> io::Result<()> {
        self.inner.start_writeback(range)
    }
    fn is_on_device(&self, range: std::ops::Range<u64>) -> io::Result<bool> {
        self.inner.is_on_device(range)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
    fn map(&self, len: u64) -> io::Result<crate::storage::Region> {
        self.inner.map(len)
    }
    fn identity(&self) -> io::Result<Option<crate::storage::FileIdentity>> {
        self.inner.identity()
    }
    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(position)
    }
}

/// A log of three segments and a group that has committed, closed.
fn sound() -> SimStorage {
    let sim = SimStorage::default();
    let log = options().open_on(Path::new(DIR), Arc::new(sim.clone()), Clock::default()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    for number in 0..170_u64 {
        topic.append(Record::new(vec![number as u8; 1000])).unwrap();
    }
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    consumer.commit_offsets([("orders", 0, 3)]).unwrap();
    drop(consumer);
    log.close().unwrap();
    sim
}

/// Verifies with each of the opens failing in turn: a log that nobody has open, then one that is. Answers how many
/// failed.
fn fail_each_open(error: fn() -> io::Error, mut check: impl FnMut(&str, Result<VerifyReport>)) -> u64 {
    let mut failed = 0;
    for is_open in [false, true] {
        let left = Arc::new(AtomicU64::new(0));
        let counted = left.clone();
        let faulty = Faulty::on_open(&sound(), move |_| match counted.load(Ordering::Relaxed) {
            0 => Ok(()),
            left => {
                counted.store(left - 1, Ordering::Relaxed);
                if left == 1 { Err(error()) } else { Ok(()) }
            }
        });
        let storage: Arc<dyn Storage> = Arc::new(faulty);
        let stepped = LogOptions { background: Background::Stepped, ..options() };
        let log = is_open.then(|| stepped.open_on(Path::new(DIR), storage.clone(), Clock::default()).unwrap());
        for n in 1.. {
            left.store(n, Ordering::Relaxed);
            let outcome = match &log {
                Some(log) => log.verify(),
                None => {
                    let mut watch = |_: &_| ControlFlow::Continue(());
                    let mut verification = Verification::new(&mut watch);
                    let outcome = options().verify_on(Path::new(DIR), storage.clone(), &mut verification);
                    outcome.and_then(|()| verification.finish())
                }
            };
            if left.swap(0, Ordering::Relaxed) > 0 {
                assert!(outcome.unwrap().is_sound(), "there are no more opens");
                break;
            }
            failed += 1;
            check(&format!("open {n}, {}", if is_open { "open" } else { "closed" }), outcome);
        }
    }
    failed
}

/// A device that gives other bytes for some time. What is copied and compared later on may be what was written.
#[test]
fn a_repair_sets_nothing_aside_that_is_sound_when_it_is_copied() {
    const AT: u64 = 4192 + 1040 + 700;
    let segment = Path::new(DIR).join("orders-0/00000000000000000000.log");
    let (mut n, mut set_aside, mut refused) = (0, 0, 0);
    loop {
        n += 1;
        let sim = sound();
        let good = sim.read(&segment, u64::MAX).unwrap();
        let left = Arc::new(AtomicU64::new(n));
        let (path, counted) = (segment.clone(), left.clone());
        let storage: Arc<dyn Storage> = Arc::new(Faulty::on_read(&sim, move |read, position, bytes| {
            let at = AT.checked_sub(position).and_then(|at| bytes.get_mut(at as usize)).filter(|_| read == path);
            if let Some(byte) = at.filter(|_| counted.load(Ordering::Relaxed) > 0) {
                counted.fetch_sub(1, Ordering::Relaxed);
                *byte ^= 4;
            }
            Ok(())
        }));
        match repair(&storage) {
            Ok(report) => {
                for action in report.actions() {
                    let RepairAction::SetAside { range, kept_in: Some(copy), .. } = action else { continue };
                    let range = range.start as usize..range.end as usize;
                    assert!(sim.read(copy, u64::MAX).unwrap() != good[range], "{n} reads: {action}");
                    set_aside += 1;
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{n} reads: {error}");
                assert!(sim.read(&segment, u64::MAX).unwrap() == good, "{n} reads: {error}");
                refused += 1;
            }
        }
        if left.load(Ordering::Relaxed) > 0 {
            break;
        }
    }
    assert!(refused > 0 && set_aside > 0 && n > 5, "{refused} and {set_aside} of {n}");
}

#[cfg(unix)]
#[test]
fn a_lack_of_descriptors_is_an_error_and_no_finding() {
    let mut told = 0;
    let failed = fail_each_open(
        || io::Error::from_raw_os_error(libc::EMFILE),
        |context, outcome| match outcome {
            Ok(report) => assert!(report.is_sound(), "{context}: {:?}", report.findings()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LimitReached, "{context}: {error}");
                told += 1;
            }
        },
    );
    assert!(told > 15, "{told} of {failed}");
}

#[test]
fn a_file_that_the_device_does_not_open_is_unreadable_and_not_damaged() {
    let mut told = 0;
    let failed = fail_each_open(
        || io::Error::other("a device that fails"),
        |context, outcome| match outcome {
            Ok(report) => {
                let names: Vec<_> = report.findings().iter().map(VerifyFinding::name).collect();
                assert!(names.iter().all(|name| *name == "unreadable"), "{context}: {:?}", report.findings());
                told += names.len();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{context}: {error}"),
        },
    );
    assert!(told > 15, "{told} of {failed}");
}

#[test]
fn what_the_device_does_not_give_is_a_finding_and_a_repair_leaves_it() {
    let sim = SimStorage::default();
    let log = options().open_on(Path::new(DIR), Arc::new(sim.clone()), Clock::default()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    for number in 0..170_u64 {
        topic.append(Record::new(vec![number as u8; 1000])).unwrap();
    }
    log.close().unwrap();
    let orders = Path::new(DIR).join("orders-0");
    let segment = orders.join("00000000000000000000.log");
    let bad = 20480..24576;
    for (path, bad, expected) in [
        (segment.clone(), bad.clone(), &["corruption", "unreadable"][..]),
        (segment.clone(), 0..512, &["unreadable", "segment-header"]),
        (segment.with_extension("index"), 0..4096, &["unreadable", "index"]),
        (orders.join("partition.checkpoint"), 4096..8192, &["unreadable"]),
        (Path::new(DIR).join("topics/orders.json"), 0..4096, &["unreadable"]),
    ] {
        let storage: Arc<dyn Storage> = Arc::new(Faulty::bad_block(&sim, &path, bad));
        let report = verified(&storage);
        let names = report.findings().iter().map(VerifyFinding::name).filter(|name| *name != "orphaned-folder");
        let names: Vec<_> = names.collect();
        assert_eq!(names, expected, "{path:?}: {:?}", report.findings());
        let unreadable = report.findings().iter().find(|finding| finding.name() == "unreadable").unwrap();
        assert_eq!(unreadable.path(), Some(&*path));
        assert!(unreadable.to_string().contains("a bad block"), "{unreadable}");
        let before = contents(&(Arc::new(sim.clone()) as Arc<dyn Storage>));
        let error = repair(&storage).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(&*path)));
        assert!(contents(&(Arc::new(sim.clone()) as Arc<dyn Storage>)) == before, "nothing was done");
    }
    // Others use it meanwhile.
    let storage: Arc<dyn Storage> = Arc::new(Faulty::bad_block(&sim, &segment, bad.clone()));
    let log = options().open_on(Path::new(DIR), storage, Clock::default()).unwrap();
    let partition = log.topic("orders").unwrap().partition(0).unwrap();
    for report in [log.verify(), partition.verify()] {
        let report = report.unwrap();
        let names: Vec<_> = report.findings().iter().map(VerifyFinding::name).collect();
        assert_eq!(names, ["corruption", "unreadable"], "{:?}", report.findings());
        assert_eq!(report.findings()[1].range(), Some(bad.clone()));
    }
    log.close().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Faulty::bad_block(&sim, &segment, bad.clone()));
    let report = verified(&storage);
    let ranges: Vec<_> = report.findings().iter().filter_map(VerifyFinding::range).collect();
    assert_eq!(ranges[1], bad, "the very block");
    assert!(ranges[0].start <= bad.start && ranges[0].end >= bad.end && ranges[0].end - ranges[0].start < 8192);
    assert_eq!(report.records(), 170 - (ranges[0].end - ranges[0].start) / 1040, "the others are read");
}
