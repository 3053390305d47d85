//! Damage to every file but the partition's segments, which are just deleted here.

use std::path::Path;

use tidelog::ErrorKind;

use crate::{
    ground::{Content, Ground},
    harm::{Change, Commits, Expected, Harm, Payments, lost_of},
    sweep::Extent,
    written::{OTHER_TOPIC, noise},
};

/// Each file, damaged in each way.
pub(crate) fn files(ground: &Ground, extent: &Extent) -> Vec<Harm> {
    let mut harms = Vec::new();
    for (path, content) in &ground.image {
        let Some(content) = content else { continue };
        if let Some(at) = ground.written.segments.iter().position(|segment| segment.path == *path) {
            let harm = Harm::to_segment(ground, at, Change::Delete);
            harms.push(Harm { expected: Expected { payments: Payments::Intact, ..harm.expected }, ..harm });
            continue;
        }
        for change in changes(content, extent) {
            let deleted = matches!(change, Change::Delete);
            let payments = payments(ground, path, &change);
            harms.push(Harm::new(path, change, Expected { payments, ..expected(path, deleted) }));
        }
    }
    harms
}

fn changes(content: &Content, extent: &Extent) -> Vec<Change> {
    let (len, used) = (content.len, content.bytes.len() as u64);
    let noisy = |seed, bytes: u64| Change::Replace(Content { bytes: noise(seed, bytes as usize), len: bytes });
    let mut changes = vec![
        Change::Delete,
        Change::Zero(0..used),
        Change::Noise(0..used, len),
        noisy(1, used + 4096),
        Change::Replace(Content { bytes: Vec::new(), len: 0 }),
        Change::Replace(Content { bytes: Vec::new(), len: 1 << 20 }),
        // A full length and nothing in it, as a power cut leaves a file that wasn't synced.
        Change::Replace(Content { bytes: Vec::new(), len }),
    ];
    let steps = if extent.all() { 64 } else { 3 };
    for step in 1..steps {
        let at = used * step / steps;
        changes.extend([Change::Cut(at), Change::Zero(at..used), Change::Noise(at..used, at), Change::Zero(0..at)]);
    }
    // A bit here and there, or everywhere.
    let every = if extent.all() { (used / 4096).max(1) } else { (used / 5).max(1) };
    changes.extend((0..used).step_by(every as usize).map(|at| Change::Flip(at, (at % 8) as u8)));
    // Nothing is there to change in an empty file.
    changes.retain(|change| !matches!(change, Change::Zero(range) | Change::Noise(range, _) if range.is_empty()));
    changes
}

fn expected(path: &Path, deleted: bool) -> Expected {
    let refused = |kind| Expected { refused: Some(kind), ..Expected::nothing() };
    let name = path.file_name().unwrap().to_str().unwrap();
    let of_offsets = path.starts_with("__offsets-0");
    match name {
        "tidelog.meta" if !deleted => refused(ErrorKind::Corruption),
        _ if name.ends_with(".json") && !deleted => refused(ErrorKind::Corruption),
        _ if of_offsets && Path::new(name).extension().is_some_and(|it| it == "log") => {
            Expected { commits: Commits::MayGo, ..Expected::nothing() }
        }
        _ => Expected::nothing(),
    }
}

/// What becomes of the other topic's record.
fn payments(ground: &Ground, path: &Path, change: &Change) -> Payments {
    let (segment, _) = &ground.written.payments;
    if segment.path == *path && !lost_of(segment, change, true).is_empty() {
        Payments::Lost
    } else if path == Path::new("topics").join(OTHER_TOPIC).with_extension("json") && matches!(change, Change::Delete) {
        Payments::Orphaned
    } else {
        Payments::Intact
    }
}
