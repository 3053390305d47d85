//! Segments of all kinds in a partition whose other files are sound.
//!
//! An input: where the segment stands, what the checkpoint says, how it ends (1 byte); what becomes of the header
//! (1 byte); which place is durable (2 bytes); a header, if it isn't to be a sound one (96 bytes); then the frames, see
//! [`Frames`].

use super::{frames::Stop, *};
use crate::{
    partition::{
        RecoveryEvent,
        checkpoint::{self, CheckpointState, CleanMark},
        control::LogPosition,
        segment::segment_path,
    },
    segment_header::{self, COPY_A_AT, COPY_B_AT, DATA_START, Predecessor, SEGMENT_HEADER_BYTES, SegmentHeader},
};

/// More than a fuzzed segment can reach.
const FAR: u64 = 1 << 40;
/// What all files together may take: a few copies of what there was.
const MOST_SPACE: u64 = 4 << 20;

/// Where the segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Alone,
    /// Behind a sound one.
    Last,
    /// Before a sound one, which says that this one ends where its file does.
    First,
}

/// A partition of one or two segments.
struct Made {
    frames: Frames,
    /// What the sound segment holds, if there is one.
    others: Vec<OwnedRecord>,
    has_checkpoint: bool,
    /// All below this position of the segment is durable, by a checkpoint that knows.
    durable: u64,
    /// The header wasn't tampered with.
    is_headed: bool,
}

/// A segment of any bytes: it can be opened; what is read was in it, what is whole before the first damage, or below the
/// durable mark, is read; a second open finds what the first one left.
pub fn segment_open(data: &[u8]) {
    let mut input = Input::new(data);
    let (shape, header_shape, durable_choice) = (input.u8(), input.u8(), input.u16());
    let bench = Bench { positional_appends: shape & 0x80 != 0, ..Bench::default() };
    let Some(made) = Made::of(&bench, shape, header_shape, durable_choice, &mut input) else { return };
    let (partition, report) = match bench.open() {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!made.is_headed, "{error}");
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::UnsupportedFormat), "{error}");
            return;
        }
    };
    let reading = Reading::of(&partition);
    made.check_read(&bench, &reading);
    made.check_cuts(&bench, report.events());
    reading.check_suffixes(&partition, reading.offsets().flat_map(|offset| [offset.saturating_sub(1), offset + 1]));
    if made.is_headed {
        reading.check_bounds(&partition);
    }
    // Without a checkpoint a frame that can't be read may have had any offset.
    let greatest = if made.has_checkpoint { made.greatest_offset() } else { reading.offsets().last() };
    let (mut expected, stopped) = (reading.records, reading.stopped);
    if let Some(offset) = append(&partition, "one") {
        assert!(!made.is_headed || Some(offset) > greatest, "offset {offset} of {greatest:?} is used again");
        let behind = Reading::from(&partition, offset).records;
        assert_eq!(behind.len(), 1);
        if !stopped {
            expected.extend(behind);
        }
    }
    assert_eq!(Reading::of(&partition).records, expected);
    bench.end(partition, Ending::from_bits(shape >> 5));
    let (partition, report) = bench.open().unwrap();
    for event in report.events() {
        let again = matches!(event, RecoveryEvent::SegmentsMissing { .. } | RecoveryEvent::Corruption { .. });
        assert!(again, "{event}");
    }
    assert_eq!(Reading::of(&partition).records, expected);
    assert!(bench.storage.used_space() < MOST_SPACE, "{} bytes", bench.storage.used_space());
}

impl Made {
    fn of(bench: &Bench, shape: u8, header_shape: u8, durable_choice: u16, input: &mut Input<'_>) -> Option<Self> {
        let place = [Place::Alone, Place::Last, Place::First, Place::Alone][usize::from(shape % 4)];
        let is_given = header_shape & 8 != 0;
        let given = input.bytes(if is_given { SEGMENT_HEADER_BYTES } else { 0 });
        let sound = Self::sound_segment(bench, place);
        let header = match &sound {
            Some(before) if place == Place::Last => Self::header(bench, 1, 4, Some((before, 4))),
            _ => Self::header(bench, 0, 0, None),
        };
        let mut frames = Frames::of(header, input);
        for (at, bit) in [(COPY_A_AT, 1), (COPY_B_AT, 2)] {
            let copy = &mut frames.bytes[at as usize..][..SEGMENT_HEADER_BYTES];
            if is_given && header_shape & bit != 0 {
                copy[..given.len()].copy_from_slice(given);
                let sealed = segment_header::fuzzing::sealed((&*copy).try_into().ok()?);
                if header_shape & 4 != 0 {
                    copy.copy_from_slice(&sealed);
                }
            } else if header_shape & bit != 0 {
                copy[usize::from(header_shape >> 4)] ^= 0x10;
            }
        }
        let [a, b] = [COPY_A_AT, COPY_B_AT].map(|at| &frames.bytes[at as usize..][..SEGMENT_HEADER_BYTES]);
        let read = SegmentHeader::read_either(a, b);
        let is_headed = read == Ok(header);
        frames.header = read.unwrap_or(header);
        bench.write_at(header.base_offset, &frames.bytes);
        let mut made = Self { frames, others: Vec::new(), has_checkpoint: true, durable: DATA_START, is_headed };
        made.add_other(bench, place, sound);
        made.add_checkpoint(bench, place, shape, durable_choice, header);
        Some(made)
    }

    fn header(bench: &Bench, sequence: u64, base_offset: u64, before: Option<(&Frames, u64)>) -> SegmentHeader {
        SegmentHeader {
            sequence,
            base_offset,
            predecessor: before.map(|(before, end_offset)| Predecessor {
                segment_id: before.header.segment_id,
                end_position: before.bytes.len() as u64,
                end_offset,
            }),
            ..Frames::first_header(bench, 0x5eed + sequence)
        }
    }

    /// The sound segment before this one.
    fn sound_segment(bench: &Bench, place: Place) -> Option<Frames> {
        (place == Place::Last).then(|| Self::four_records(0, Self::header(bench, 0, 0, None)))
    }

    fn four_records(epoch: u32, header: SegmentHeader) -> Frames {
        Frames::from_epoch(epoch, header, &mut Input::new(&[0, 0, 1, 7, 255].repeat(4)))
    }

    fn add_other(&mut self, bench: &Bench, place: Place, before: Option<Frames>) {
        let other = match place {
            Place::Alone => return,
            Place::Last => before,
            Place::First => {
                let end_offset = self.greatest_offset().map_or(0, |greatest| greatest + 1);
                Some(Self::four_records(
                    self.greatest_epoch(),
                    Self::header(bench, 1, FAR, Some((&self.frames, end_offset))),
                ))
            }
        };
        let Some(other) = other else { return };
        bench.write_segment(&other);
        self.others = records_of(&other, bench, other.everywhere());
        assert_eq!(self.others.len(), 4);
    }

    /// One that is as a partition's of this segment could be.
    fn add_checkpoint(&mut self, bench: &Bench, place: Place, shape: u8, choice: u16, header: SegmentHeader) {
        let kind = shape >> 2 & 3;
        if kind == 0 {
            self.has_checkpoint = false;
            self.durable = DATA_START;
            return;
        }
        let stops = self.frames.walk();
        let mut ends = vec![DATA_START];
        ends.extend(stops.iter().filter(|stop| stop.header.is_some()).map(|stop| stop.end));
        let len = self.frames.bytes.len() as u64;
        let clean = kind == 3 && len % 8 == 0 && place != Place::First;
        self.durable = if clean || place == Place::First { len } else { ends[usize::from(choice) % ends.len()] };
        if kind == 1 && place != Place::First {
            self.durable = DATA_START;
        }
        // A filler has no record; what it says of offsets counts if it says so itself, and not if its body is damaged.
        let counts = |stop: &&Stop| stop.header.is_some() || stop.claimed.is_some_and(|frame| !frame.is_filler());
        let framed = stops.iter().filter(counts).filter_map(|stop| stop.claimed);
        let framed = framed.map(|frame| header.base_offset.saturating_add(frame.next_relative_offset())).max();
        let next = self.greatest_offset().map_or(header.base_offset, |greatest| greatest + 1);
        let next = next.max(framed.unwrap_or(0));
        let before =
            stops.iter().filter(|stop| stop.end <= self.durable).filter(counts).filter_map(|stop| stop.claimed);
        let durable_offset = before.map(|frame| header.base_offset + frame.next_relative_offset()).max();
        let mut mark = LogPosition::new(header.sequence, self.durable / 8 * 8).unwrap();
        if place == Place::First {
            mark = LogPosition::new(1, DATA_START).unwrap();
        }
        let state = CheckpointState {
            topic_id: bench.spec.topic_id,
            partition: bench.spec.number,
            log_start_offset: 0,
            durable: mark,
            durable_offset: if place == Place::First { FAR } else { durable_offset.unwrap_or(header.base_offset) },
            offset_ceiling: next + 100,
            epoch: self.greatest_epoch(),
            poisoned: header.sequence == 0 && choice & 0x8000 != 0,
            clean: clean.then_some(CleanMark {
                segment_id: header.segment_id,
                end_position: len,
                next_offset: next,
                last_time_ms: header.base_timestamp_ms + len as i64,
            }),
        };
        bench.write(checkpoint::FILE_NAME, &checkpoint::fuzzing::file(&state));
    }

    fn greatest_epoch(&self) -> u32 {
        self.frames.everywhere().map(|(_, header)| header.epoch).max().unwrap_or(1)
    }

    /// The greatest offset that was ever assigned.
    fn greatest_offset(&self) -> Option<u64> {
        let base = self.frames.header.base_offset;
        let frames = self.frames.walk().into_iter().filter_map(|stop| stop.claimed).filter(|it| !it.is_filler());
        let fuzzed = frames.map(|header| base.saturating_add(header.next_relative_offset()) - 1).max();
        fuzzed.max(self.others.last().map(OwnedRecord::offset))
    }

    /// Everything is read that has to be, and nothing that isn't there.
    fn check_read(&self, bench: &Bench, reading: &Reading) {
        let there = records_of(&self.frames, bench, self.frames.everywhere());
        for record in &reading.records {
            assert!(there.contains(record) || self.others.contains(record), "{record:?} is in no frame");
        }
        if !self.is_headed || reading.stopped {
            return;
        }
        for record in &self.others {
            assert!(reading.records.contains(record), "{record:?} of a sound segment is lost");
        }
        let (mut next, mut epoch, mut unbroken, mut damaged) = (0, 0, true, false);
        for stop in self.frames.walk() {
            let Some(header) = stop.header else {
                (unbroken, damaged) = (false, true);
                continue;
            };
            let falls = u64::from(header.relative_offset) < next || header.epoch < epoch;
            unbroken &= !falls;
            if !falls && (unbroken || stop.end <= self.durable) {
                let records = records_of(&self.frames, bench, [(stop.position, header)]);
                let is_read = records.iter().all(|record| reading.records.contains(record));
                assert!(is_read, "the frame at position {} isn't read", stop.position);
                // What takes no offset away is passed over by who looks an offset up behind it.
                let missing = damaged && u64::from(header.relative_offset) > next;
                assert!(!missing || !reading.damage.is_empty(), "the damage before {} isn't told", stop.position);
            }
            damaged = false;
            (next, epoch) = (next.max(header.next_relative_offset()), epoch.max(header.epoch));
        }
    }

    /// What was cut lies beside, whole.
    fn check_cuts(&self, bench: &Bench, events: &[RecoveryEvent]) {
        for event in events {
            let (RecoveryEvent::TornTail(cut) | RecoveryEvent::ReorderedTail(cut)) = event else { continue };
            for kept in &cut.kept_in {
                let kept = bench.storage.read(kept, u64::MAX).unwrap();
                let mine = segment_path(Path::new(DIR), self.frames.header.base_offset);
                let from = if cut.file == mine { cut.position as usize } else { 0 };
                let whole = self.frames.bytes.get(from..).is_some_and(|bytes| bytes.starts_with(&kept))
                    || self.frames.bytes == kept;
                assert!(whole, "what was cut at {from} isn't what was kept");
            }
        }
    }
}

fn records_of(
    frames: &Frames,
    bench: &Bench,
    places: impl IntoIterator<Item = (u64, crate::frame::FrameHeader)>,
) -> Vec<OwnedRecord> {
    let of = |(position, header)| frames.records_at(position, &header, &bench.spec);
    places.into_iter().flat_map(of).collect()
}
