//! What a verification of a partition that nobody has open tells of its end is what the next open does.

use std::ops::ControlFlow;

use super::*;
use crate::{
    frame::{FrameEncoder, FrameHeader, FramePlace, NO_DURABLE_DISTANCE},
    partition::{
        ClosedPlan, Opening, RecoveryEvent,
        scan::{Found, Scan},
    },
    segment_header::{DATA_START, SegmentHeader},
    storage::Encode,
    verification::{Verification, VerifyFinding},
};

fn verified(machine: &Machine) -> Vec<VerifyFinding> {
    let mut watch = |_: &_| ControlFlow::Continue(());
    let mut verification = Verification::new(&mut watch);
    let env = machine.environment().unwrap();
    let plan = ClosedPlan::new(&env, &machine.dir, &machine.spec, &mut verification).unwrap().unwrap();
    plan.run(&mut verification, None);
    verification.finish().unwrap().findings().to_vec()
}

/// A partition of four records in its second epoch, closed: its segment, and the last frame with its place.
fn four_records() -> (Machine, PathBuf, SegmentHeader, (u64, FrameHeader)) {
    let machine = Machine::new();
    // A second open, so that there is an epoch before it.
    drop(machine.open());
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..4);
    drop(partition);
    let path = machine.segments().pop().unwrap();
    let bytes = machine.read_file(&path);
    let segment = SegmentHeader::decode(&bytes[..crate::segment_header::SEGMENT_HEADER_BYTES]).unwrap();
    let mut scan = Scan::verified(segment.frame_seed(), DATA_START);
    let frames = std::iter::from_fn(|| match scan.next(&bytes[..]) {
        Found::Frame { position, header } => Some((position, header)),
        _ => None,
    });
    let last = frames.last().unwrap();
    (machine, path, segment, last)
}

/// The control page is right about where the frames end, and their checks hold; but the last one can't be there.
#[test]
fn a_last_frame_that_falls_back_is_told_as_the_tail_that_is_cut() {
    for (relative_offset, epoch, falls) in [(3, 1, false), (1, 1, true), (3, 0, true)] {
        let (machine, path, segment, (position, frame)) = four_records();
        assert_eq!((frame.relative_offset, frame.epoch), (3, 1));
        let records = [Record::new("record 3").key("key")];
        let encoder = FrameEncoder::new(&records).unwrap();
        let place = FramePlace {
            seed: segment.frame_seed(),
            position,
            relative_offset,
            relative_time_ms: frame.relative_time_ms,
            epoch,
            durable_distance: NO_DURABLE_DISTANCE,
        };
        let mut encoded = vec![0; frame.frame_bytes()];
        assert_eq!(encoder.frame_bytes(), encoded.len());
        encoder.at(place).encode(&mut encoded[..]);
        machine.write_file(&path, &encoded, position);

        let findings = verified(&machine);
        let (_, report) = machine.open();
        if falls {
            assert_eq!(findings, [VerifyFinding::TornTail { file: path.clone(), position, end_offset: 3 }]);
            assert_eq!(report.opening(), Opening::Scanned);
            let [RecoveryEvent::TornTail(cut)] = report.events() else { panic!("{report:?}") };
            assert_eq!((&cut.file, cut.position, cut.end_offset), (&path, position, 3));
        } else {
            assert_eq!((findings, report.opening(), report.events()), (vec![], Opening::Resumed, &[][..]));
        }
    }
}

/// Zeros are the end of a log; but the control page knows of appends that were there.
#[test]
fn appends_that_are_zeros_now_are_told_as_an_open_tells_them() {
    for at in [2, 3] {
        let (machine, path, _, (last, frame)) = four_records();
        let (frame_bytes, end) = (frame.frame_bytes() as u64, last + frame.frame_bytes() as u64);
        let start = end - (4 - at) * frame_bytes;
        machine.write_file(&path, &vec![0; (end - start) as usize], start);

        let findings = verified(&machine);
        let (_, report) = machine.open();
        let [VerifyFinding::Corruption { file, range, offsets, .. }] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((file, range, offsets), (&path, &(start..end), &(at..4)));
        let [RecoveryEvent::Corruption { file, range, offsets, .. }] = report.events() else { panic!("{report:?}") };
        assert_eq!((file, range, offsets), (&path, &(start..end), &(at..4)));
    }
}
