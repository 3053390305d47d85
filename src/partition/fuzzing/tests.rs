//! The targets over their seeds, and over random inputs.

use std::{env, fs};

use proptest::{collection::vec, prelude::*};

use super::*;

/// Feeds a target its seeds. Those that are told here are among them; `TIDELOG_SEEDS=write` writes them.
pub(crate) fn feed(name: &str, target: fn(&[u8]), made: &[(&str, Vec<u8>)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    for (seed, bytes) in made {
        if env::var_os("TIDELOG_SEEDS").is_some_and(|what| what == "write") {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(seed), bytes).unwrap();
        }
        let found = fs::read(folder.join(seed)).unwrap_or_default();
        assert!(found == *bytes, "{name}/{seed} isn't what TIDELOG_SEEDS=write writes");
    }
    let mut seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= made.len() && !seeds.is_empty());
    for seed in seeds {
        println!("{}", seed.display());
        target(&fs::read(seed).unwrap());
    }
}

#[test]
fn seeds_of_state_open() {
    // Word 32 of a page is the commit word, in units of 8 bytes; a frame of those here takes 9.
    let commit = |how: u8, number: u64| [&[32, how], &number.to_le_bytes()[..]].concat();
    let poison = [&[30, 0], &b"poisoned"[..]].concat();
    // The durable offset of the first slot, and the log start of the second one.
    let forged = [&[128 + 16, 2, 1, 0, 0, 0, 0, 0, 0, 0, 192 + 10, 2, 1, 0, 0, 0, 0, 0, 0, 0][..]].concat();
    let of = |head: [u8; 4], patches: &[u8]| [&head, patches].concat();
    let mut made = vec![
        ("killed", of([0, 0, 0, 0], &[])),
        ("closed", of([1, 0, 0, 0], &[])),
        ("rebooted", of([0, 2, 0, 0], &[])),
        ("copied", of([2, 3, 0, 0], &[])),
        ("rolled", of([3, 4, 0, 0], &[])),
        ("reopened", of([4, 8, 0, 0], &[])),
        ("closed-twice", of([5, 0, 0, 0], &[])),
        ("page-before-the-last-appends", of([0, 4, 1, 0], &[])),
        ("page-before-the-roll", of([0, 0, 4, 0], &[])),
        ("page-of-zeros", of([2, 0, 14, 0], &[])),
        ("no-page", of([2, 0, 15, 0], &[])),
        ("no-checkpoint", of([0, 0, 0, 15], &[])),
        ("no-page-no-checkpoint", of([4, 0, 15, 15], &[])),
        ("old-checkpoint", of([3, 2, 0, 3], &[])),
        ("one-frame-back", of([2, 0, 0x40, 0], &commit(2, 9_u64.wrapping_neg()))),
        ("two-frames-back", of([2, 0, 0x40, 0], &commit(2, 18_u64.wrapping_neg()))),
        ("one-frame-on", of([2, 0, 0x40, 0], &commit(2, 9))),
        ("another-segment", of([3, 0, 0x40, 0], &commit(1, 3 << 32))),
        ("poisoned-page", of([0, 0, 0, 0], &poison)),
        ("forged-slots", of([0, 2, 0, 0xc0], &forged)),
        ("torn-slot", of([0, 2, 0, 0], &forged[..10])),
    ];
    made.sort();
    feed("state_open", state_open, &made);
}

#[test]
fn seeds_of_segment_open() {
    // Kind of the piece, shape of the record, value, key.
    let frame = |value: u8| vec![0, 0, 4, value, 1, 2, 3, 255];
    let three = [frame(1), frame(2), frame(3)].concat();
    let of = |shape: u8, header: u8, durable: u16, frames: &[&[u8]]| {
        [&[shape, header][..], &durable.to_le_bytes(), &frames.concat()].concat()
    };
    let flip = |back: u16| [&[5][..], &back.to_le_bytes(), &[3]].concat();
    let header = [&b"tidelog\xd7\x01\0\0\0\x03\0\0\0\xed\x5e"[..], &[0; 78]].concat();
    let made = [
        ("empty", of(8, 0, 0, &[])),
        ("three-frames", of(8, 0, 9, &[&three])),
        ("no-checkpoint", of(0, 0, 0, &[&three])),
        ("clean", of(12, 0, 0, &[&three])),
        ("behind-a-sound-one", of(9, 0, 9, &[&three])),
        ("before-a-sound-one", of(10, 0, 0, &[&three, &flip(60), &three])),
        ("torn-tail", of(8, 0, 1, &[&three, &[7, 0, 4, 9, 9, 9, 9, 255, 40]])),
        ("reordered-tail", of(8, 0, 1, &[&three, &[4, 7], &frame(4)])),
        ("interior-damage", of(8, 0, 9, &[&three, &flip(10), &three])),
        ("damage-without-checkpoint", of(0, 0, 0, &[&three, &flip(80), &three])),
        ("noise", of(8, 0, 1, &[&three, &[3, 20], &[0xd7; 20], &three])),
        ("batch-with-headers", of(8, 0, 9, &[&[0xc0, 3, 2, 7, 7, 1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'n', 255]])),
        ("gap", of(8, 0, 9, &[&three, &[2, 0, 200], &three])),
        ("epoch-falls", of(8, 0, 9, &[&[2, 2, 5], &three, &[2, 3, 2], &three])),
        ("offset-falls", of(8, 0, 9, &[&three, &[2, 1, 2], &three])),
        (
            "offset-falls-at-the-likely-place",
            of(8, 0, 5, &[&three, &[4, 240], &[2, 1, 2], &frame(9), &[2, 0, 1], &[4, 255], &[4, 255], &frame(4)]),
        ),
        ("offset-again-behind-damage", of(8, 0, 9, &[&three, &flip(10), &[2, 1, 1], &three])),
        ("damage-that-takes-nothing", of(10, 0, 0, &[&[4, 0], &three])),
        ("claims-durability", of(8, 0, 0, &[&three, &[2, 4, 0], &frame(4), &flip(90)])),
        ("last-offsets", of(0x48, 0, 9, &[&[2, 5, 1], &three])),
        ("sealed-bytes", of(8, 0, 9, &[&[6, 48, 0xd7, 6], &[0; 46]])),
        ("one-header-copy", of(8, 1, 9, &[&three])),
        ("no-header-copy", of(9, 3, 9, &[&three])),
        ("given-header", of(0, 8 | 7, 9, &[&header, &three])),
        ("positional", of(0x88, 0, 9, &[&three])),
        ("poisoned", of(0x28, 0, 0x8001, &[&three])),
    ];
    feed("segment_open", segment_open, &made);
}

#[test]
fn seeds_of_index_open() {
    let mut made = index_open::seeds();
    let of = |which: u8, how: u8, index: &[u8], times: &[u8]| {
        [&[which, how][..], &(index.len() as u16).to_le_bytes(), index, times].concat()
    };
    made.extend([
        ("empty".to_owned(), of(0, 3, &[], &[])),
        ("empty-active".to_owned(), of(2, 1, &[], &[])),
        ("noise".to_owned(), of(1, 3, &[0xa5; 100], &[0x5a; 100])),
        ("sealed-noise".to_owned(), of(4, 15, &[0xa5; 100], &[0x5a; 100])),
    ]);
    let made: Vec<_> = made.iter().map(|(name, bytes)| (&**name, bytes.clone())).collect();
    feed("index_open", index_open, &made);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_page_and_checkpoint_can_be_opened(head in any::<[u8; 4]>(), patches in vec(any::<u8>(), 0..40)) {
        state_open(&[&head[..], &patches].concat());
    }

    #[test]
    fn a_segment_of_any_bytes_can_be_opened(head in any::<[u8; 4]>(), frames in vec(any::<u8>(), 0..200)) {
        segment_open(&[&head[..], &frames].concat());
    }

    #[test]
    fn lookups_by_any_index_give_what_a_walk_gives(
        head in any::<[u8; 2]>(),
        length in 0u8..100,
        indexes in vec(any::<u8>(), 0..200),
    ) {
        index_open(&[&head[..], &[length, 0], &indexes].concat());
    }
}
