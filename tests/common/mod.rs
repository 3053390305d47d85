//! What the tests on real files share.

// Each test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod executor;
#[cfg(target_os = "linux")]
pub(crate) mod mount;
#[cfg(unix)]
pub(crate) mod process;
pub(crate) mod require;

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use tidelog::{Durability, Log, LogOptions, Partition, Record};

/// Whether appends use `pwrite` unless options say otherwise: the whole suite runs in that mode with
/// `RUSTFLAGS="--cfg tidelog_positional"`. Then a process that is killed leaves no control page, nothing is set aside for
/// appends, and active segments have no index files.
pub(crate) const POSITIONAL: bool = cfg!(tidelog_positional);

/// Whether a process that is killed leaves a control page to believe in this folder: appends go through maps here, and
/// the system tells the mount's unique number (`STATX_MNT_ID_UNIQUE`, since Linux 6.8) and a file's time of birth.
#[cfg(target_os = "linux")]
pub(crate) fn is_believable(folder: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statfs, statx};
    /// ext4, xfs, tmpfs.
    const MAPPED: [u32; 3] = [0xef53, 0x5846_5342, 0x0102_1994];
    let wanted = StatxFlags::from_bits_retain(0x4000) | StatxFlags::BTIME;
    let told = statx(CWD, folder, AtFlags::empty(), wanted)
        .is_ok_and(|found| StatxFlags::from_bits_retain(found.stx_mask).contains(wanted));
    !POSITIONAL && told && statfs(folder).is_ok_and(|found| MAPPED.contains(&(found.f_type as u32)))
}

/// Runs a future on this thread: the least that an executor can be.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Parked(Thread);

    impl Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): numbers that a seed decides.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes that only this number has.
pub(crate) fn value_of(number: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(number);
    let mut value = number.to_le_bytes().to_vec();
    while value.len() < bytes {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(bytes.max(size_of::<u64>()));
    value
}

/// Appends values of these numbers and answers their offsets.
pub(crate) fn append(partition: &Partition, numbers: std::ops::Range<u64>, bytes: usize) -> Vec<u64> {
    numbers.map(|number| partition.append(Record::new(value_of(number, bytes))).unwrap().offset).collect()
}

/// Checks that the partition holds exactly these numbers, as [`append`] appends them.
#[track_caller]
pub(crate) fn check_numbers(partition: &Partition, numbers: std::ops::Range<u64>, bytes: usize) {
    let mut expected = numbers.clone();
    for record in partition.read_from(partition.start_offset()).unwrap() {
        let record = record.unwrap();
        let number = expected.next();
        assert_eq!(record.value().map(<[u8]>::to_vec), number.map(|number| value_of(number, bytes)), "{numbers:?}");
    }
    assert_eq!(expected.next(), None, "records are missing at the end");
}

/// Options with small segments.
pub(crate) fn small_segments() -> LogOptions {
    Log::options().segment_bytes(64 << 10).durability(Durability::Interval(Duration::from_millis(5)))
}

/// Every file and folder below `root`, with its content.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), None);
                folders.push(path);
            } else {
                found.insert(path.clone(), Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}
