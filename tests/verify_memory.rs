//! Verifying takes no more memory for a large log than for a small one.

#![allow(clippy::unwrap_used)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use tidelog::{Durability, Log, Record, TopicConfig};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting what is held.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all calls go on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most that is held while a log of so many MiB in one segment is verified, in bytes.
fn peak(mebibytes: usize) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let options = || Log::options().segment_bytes(1 << 30).durability(Durability::Written);
    let log = options().open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    let value = vec![7; 1000];
    for _ in 0..mebibytes * 1024 {
        topic.append(Record::new(&value[..])).unwrap();
    }
    log.close().unwrap();
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let report = options().verify(dir.path()).unwrap();
    assert!(report.is_sound() && report.bytes() as usize > mebibytes << 20);
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn memory_does_not_grow_with_the_log() {
    let (small, large) = (peak(2), peak(64));
    assert!(small < 2 << 20 && large < small + (256 << 10), "{small} bytes, then {large}");
}
