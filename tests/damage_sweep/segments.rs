//! Damage to segments: bits, and ends.

use crate::{
    common::Random,
    ground::Ground,
    harm::{Change, Harm},
    sweep::Extent,
    written::{DATA_START, Segment},
};

/// Every bit of so many bytes at the end of the active segment's frames.
const FLIPPED_BYTES: u64 = 64 << 10;
/// Cut, zeroed and filled from each byte of so many at the end.
const TAIL_BYTES: u64 = 4 << 10;

/// Bits of the active segment's last frames: all; or some, and all of some frames.
pub(crate) fn active_bits(ground: &Ground, extent: &Extent) -> Vec<Harm> {
    let active = ground.written.segments.len() - 1;
    let segment = ground.written.active();
    let start = segment.end() - FLIPPED_BYTES;
    let flip = |bit: u64| Harm::to_segment(ground, active, Change::Flip(bit / 8, (bit % 8) as u8));
    if let Some((from, to)) = extent.share(FLIPPED_BYTES * 8) {
        return (start * 8 + from..start * 8 + to).map(flip).collect();
    }
    let mut random = Random(extent.seed);
    let mut bits: Vec<u64> = (0..200).map(|_| start * 8 + random.below(FLIPPED_BYTES * 8)).collect();
    let short = |frames: &[crate::written::Frame]| {
        let found = frames.iter().rfind(|frame| frame.range.end - frame.range.start < 60);
        found.unwrap().range.clone()
    };
    // The last frames, and one that is surely durable.
    let (last, middle) = (short(&segment.frames), short(&segment.frames[..segment.frames.len() / 2]));
    for range in [last, middle] {
        bits.extend(range.start * 8..range.end * 8);
    }
    bits.into_iter().map(flip).collect()
}

/// A bit here and there: in both copies of all headers, between them, and in each frame's header, body and end.
pub(crate) fn spread_bits(ground: &Ground, extent: &Extent) -> Vec<Harm> {
    let mut harms = Vec::new();
    for (at, segment) in ground.written.segments.iter().enumerate() {
        let mut changes = header_changes();
        let every = extent.one_in(60);
        for frame in segment.frames.iter().step_by(every) {
            let (start, end) = (frame.range.start, frame.range.end);
            let fields = [0, 1, 3, 4, 8, 12, 16, 18, 20, 24, 28, 32, 36, 40].map(|within| start + within);
            let flips = fields.into_iter().filter(|&at| at < end).chain([end - 1]);
            changes.extend(flips.map(|at| Change::Flip(at, (at % 8) as u8)));
            changes.push(Change::Zero(start..end));
            changes.push(Change::Noise(start..start + 32, start));
        }
        let changes = changes.into_iter().step_by(if extent.all() { 1 } else { 7 });
        harms.extend(changes.map(|change| Harm::to_segment(ground, at, change)));
    }
    harms
}

/// In one copy, in the zeros between, in both.
fn header_changes() -> Vec<Change> {
    let copies = (0..96).flat_map(|at| [at, 4096 + at]);
    let mut changes: Vec<_> = copies.map(|at| Change::Flip(at, (at % 8) as u8)).collect();
    changes.extend([
        Change::Flip(96, 0),
        Change::Noise(96..4096, 1),
        Change::Zero(0..96),
        Change::Zero(4096..DATA_START),
        Change::Noise(0..96, 2),
        Change::Zero(0..DATA_START),
        Change::Noise(0..DATA_START, 3),
        Change::Cut(0),
        Change::Cut(96),
        Change::Cut(4096),
        Change::Cut(DATA_START),
        Change::Cut(DATA_START + 1),
    ]);
    changes
}

/// Cut, zeroed, and filled with noise from each of the last bytes on, in all segments.
pub(crate) fn ends(ground: &Ground, extent: &Extent) -> Vec<Harm> {
    let mut harms = Vec::new();
    for (at, segment) in ground.written.segments.iter().enumerate() {
        // Whole frames are gone, as if there had never been any.
        for frame in segment.frames.iter().rev().take(3) {
            let gone = [Change::Zero(frame.range.start..segment.end()), Change::Cut(frame.range.start)];
            harms.extend(gone.map(|change| Harm::to_segment(ground, at, change)));
        }
        let active = at + 1 == ground.written.segments.len();
        let every = if active { extent.one_in(83) } else { extent.one_in(797) };
        for from in (segment.end() - TAIL_BYTES..segment.end()).step_by(every) {
            harms.extend(from_here(segment, from).map(|change| Harm::to_segment(ground, at, change)));
        }
    }
    harms
}

fn from_here(segment: &Segment, from: u64) -> [Change; 3] {
    [Change::Cut(from), Change::Zero(from..segment.end()), Change::Noise(from..segment.end(), from)]
}
