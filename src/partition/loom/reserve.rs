//! Space is told to be in use before it is: a process that is killed leaves nothing behind that place.
//!
//! Of a process that is killed the next one finds what it had stored up to then, in the order of its program. So what
//! has to hold holds before each store.

use std::sync::atomic::AtomicBool;

use super::{super::control, publish::weaken, *};

/// Two threads append, one of them into a new segment; a third one has everything synced and closes the file, so that
/// whoever appends next opens it again.
fn appends(mistakes: &[(usize, Mistake)]) {
    let world = World::new();
    weaken(&world.partition, mistakes);
    explore();
    let found = Found::default();
    let one = world.spawn({
        let found = found.clone();
        move |partition| watched(partition, "one", &found)
    });
    let closer = world.spawn(|partition| {
        partition.flush().expect("a flush");
        partition.close_clean_handle();
    });
    watched(&world.partition, "two", &found);
    one.join().expect("an append");
    closer.join().expect("a flush");
    assert_eq!(world.partition.end_offset(), 2);
    // Not where it is found: a thread of a model that panics takes the process along.
    assert!(!found.load(Ordering::Relaxed), "stored in space that isn't reserved");
}

type Found = Arc<AtomicBool>;

/// Appends, and looks before each store whether it lies in space that is told to be in use.
fn watched(partition: &Arc<PartitionLog>, value: &str, found: &Found) {
    for slot in partition.segments.load().iter() {
        let Some(segment) = slot.held.clone() else { continue };
        let (log, sequence, found) = (Arc::downgrade(partition), segment.header.sequence, found.clone());
        segment.region.borrows.watch(Arc::new(move |stored| {
            let Some(log) = log.upgrade() else { return };
            let reserved = log.control.reserved();
            let known = u64::from(reserved.sequence()) == sequence;
            // Of a segment that isn't named nothing is known, and then all of it is looked through.
            let inside = log.control.committed() <= reserved && stored.end as u64 <= reserved.file_position();
            found.fetch_or(known && !inside, Ordering::Relaxed);
        }));
    }
    append(partition, value);
}

#[test]
fn nothing_is_stored_in_space_that_is_not_reserved() {
    check("reserve", || appends(&[]));
}

#[test]
#[should_panic(expected = "stored in space that isn't reserved")]
fn space_that_is_never_told_is_found() {
    check("mistake:reserve_not_told", || appends(&[(control::RESERVED, Mistake::NoStores)]));
}
