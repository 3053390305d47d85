//! Rolls: whoever learns of the next segment knows where the one before it ends.

use super::{super::control, publish::weaken, *};

/// One thread begins a new segment and appends to it; another reads.
fn roll(mistake: impl FnOnce(&PartitionLog)) {
    let world = World::new();
    append(&world.partition, "first");
    mistake(&world.partition);
    let mut cursor = Cursor::new(&world.partition, 0).expect("in range");
    explore();
    let appender = world.spawn(|partition| {
        partition.roll().expect("a roll");
        append(partition, "second");
    });
    let mut found = read_on(&mut cursor);
    appender.join().expect("a roll and an append");
    found.extend(read_on(&mut cursor));
    assert_eq!(found, ["first", "second"], "a gap");
}

#[test]
fn a_reader_passes_a_roll() {
    check("roll", || roll(|_| {}));
}

#[test]
#[should_panic(expected = "a gap")]
fn a_segment_that_is_never_sealed_hides_records() {
    let never = |partition: &PartitionLog| {
        let active = partition.segments.load().last().and_then(|slot| slot.held.clone());
        active.expect("the active one").sealed_end.weaken(Mistake::NoStores);
    };
    check("mistake:never_sealed", move || roll(never));
}

/// Not the commit word alone: the words that tell who the segments are release too, and would hide it.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_roll_that_releases_nothing_shows_half_a_segment() {
    let words = (0..=control::DURABLE_OFFSET).map(|word| (word, Mistake::RelaxedStores)).collect::<Vec<_>>();
    check("mistake:roll_relaxed", move || roll(|partition| weaken(partition, &words)));
}
