//! Segments' bytes out of a fuzzer's bytes, and what a plain look at them finds.

use super::*;
use crate::{
    frame::{
        self, FrameEncoder, FrameFault, FrameHeader, FramePlace, FrameSeed,
        fuzzing::{any_record, seal},
    },
    segment_header::{COPY_A_AT, COPY_B_AT, DATA_START, SegmentHeader},
    storage::Encode,
};

/// The longest segment that is made.
const MOST_BYTES: usize = 40 << 10;

/// A segment that was made of an input.
pub(crate) struct Frames {
    pub(crate) header: SegmentHeader,
    /// From the file's first byte on.
    pub(crate) bytes: Vec<u8>,
}

/// What stands at the next place of a [`Walk`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) position: u64,
    pub(crate) end: u64,
    /// Of a valid frame.
    pub(crate) header: Option<FrameHeader>,
    /// Of a frame whose body may be damaged.
    pub(crate) claimed: Option<FrameHeader>,
}

/// Writes frames one behind the other.
struct Maker<'a> {
    frames: &'a mut Frames,
    next: u32,
    epoch: u32,
    durable_distance: u32,
}

impl Frames {
    /// The header of a partition's first segment.
    pub(crate) fn first_header(bench: &Bench, segment_id: u64) -> SegmentHeader {
        SegmentHeader {
            segment_id,
            topic_id: bench.spec.topic_id.to_le_bytes(),
            partition: bench.spec.number,
            sequence: 0,
            base_offset: 0,
            base_timestamp_ms: 1_700_000_000_000,
            predecessor: None,
        }
    }

    /// A segment with this header and frames as the input says, up to its end: a byte for the kind of each piece, and
    /// what the kind wants.
    pub(crate) fn of(header: SegmentHeader, input: &mut Input<'_>) -> Self {
        Self::from_epoch(1, header, input)
    }

    /// As [`of`](Frames::of), the first frame of this epoch.
    pub(crate) fn from_epoch(epoch: u32, header: SegmentHeader, input: &mut Input<'_>) -> Self {
        let mut frames = Self { bytes: vec![0; DATA_START as usize], header };
        for at in [COPY_A_AT, COPY_B_AT] {
            let copy = header.encode();
            frames.bytes[at as usize..][..copy.len()].copy_from_slice(&copy);
        }
        let mut maker = Maker { frames: &mut frames, next: 0, epoch, durable_distance: frame::NO_DURABLE_DISTANCE };
        while !input.is_empty() && maker.frames.bytes.len() < MOST_BYTES {
            maker.piece(input);
        }
        frames
    }

    fn seed(&self) -> FrameSeed {
        self.header.frame_seed()
    }

    /// The valid frame at a position; that of a later version, too, which nobody can read.
    pub(crate) fn frame_at(&self, position: u64) -> Option<FrameHeader> {
        let bytes = &self.bytes[position as usize..];
        let header = FrameHeader::decode(bytes, self.seed(), position).ok()?;
        let verified = header.verify_body(bytes, self.seed(), position);
        matches!(verified, Ok(()) | Err(FrameFault::UnknownAttributes(_))).then_some(header)
    }

    /// All that is in the valid frame at a position.
    pub(crate) fn records_at(&self, position: u64, header: &FrameHeader, spec: &PartitionSpec) -> Vec<OwnedRecord> {
        let base = self.header.base_offset.saturating_add(header.relative_offset.into());
        let time_ms = self.header.base_timestamp_ms.saturating_add(header.relative_time_ms.into());
        let views = frame::records(header, &self.bytes[position as usize..]);
        let record = |(offset, view)| RecordRef::new(&spec.topic, spec.number, offset, time_ms, view).to_owned();
        (base..).zip(views).map(record).collect()
    }

    /// The frames that there are anywhere.
    pub(crate) fn everywhere(&self) -> impl Iterator<Item = (u64, FrameHeader)> {
        let places = (DATA_START..self.bytes.len() as u64).step_by(8);
        places.filter_map(|position| Some((position, self.frame_at(position)?)))
    }

    /// One behind the other, as a reader comes along: frames, and what isn't any.
    pub(crate) fn walk(&self) -> Vec<Stop> {
        let (mut stops, mut position) = (Vec::new(), DATA_START);
        let len = self.bytes.len() as u64;
        while self.bytes[(position.min(len) as usize)..].iter().any(|&byte| byte != 0) {
            let end_of = |header: &FrameHeader| position + header.frame_bytes() as u64;
            let claimed = FrameHeader::decode(&self.bytes[position as usize..], self.seed(), position).ok();
            let claimed = claimed.filter(|header| end_of(header) <= len);
            let header = self.frame_at(position);
            let end = claimed.as_ref().map(end_of).unwrap_or_else(|| {
                let next = (position + 8..len).step_by(8).find(|&next| self.frame_at(next).is_some());
                next.unwrap_or_else(|| len.next_multiple_of(8))
            });
            stops.push(Stop { position, end, header, claimed });
            position = end;
        }
        stops
    }
}

impl Maker<'_> {
    fn piece(&mut self, input: &mut Input<'_>) {
        let kind = input.u8();
        match kind % 8 {
            0 | 1 => self.frame(input, usize::from(kind >> 6) + 1),
            2 => {
                // What the next frames say of themselves.
                let (what, by) = (input.u8(), u32::from(input.u8()));
                match what % 6 {
                    0 => self.next = self.next.saturating_add(by),
                    1 => self.next = self.next.saturating_sub(by),
                    2 => self.epoch = self.epoch.saturating_add(by),
                    3 => self.epoch = self.epoch.saturating_sub(by),
                    4 => self.durable_distance = by,
                    _ => self.next = u32::MAX - by,
                }
            }
            3 => {
                let length = input.u8().into();
                let bytes = input.bytes(length);
                self.frames.bytes.extend_from_slice(bytes);
                self.align();
            }
            4 => {
                let length = 8 * (usize::from(input.u8()) + 1);
                self.frames.bytes.resize(self.frames.bytes.len() + length, 0);
            }
            5 => {
                // A bit of what there is already flips.
                let (back, bit) = (usize::from(input.u16()), input.u8() % 8);
                let len = self.frames.bytes.len();
                let at = len - 1 - back % (len - DATA_START as usize).max(1);
                self.frames.bytes[at] ^= 1 << bit;
            }
            6 => {
                // Somebody's bytes as a frame whose checks hold.
                let length = usize::from(input.u8());
                let at = self.frames.bytes.len();
                self.frames.bytes.extend_from_slice(input.bytes(length));
                self.align();
                if self.frames.bytes.len() - at >= frame::HEADER_BYTES {
                    self.shorten(at);
                    seal(&mut self.frames.bytes[at..], self.frames.header.frame_seed(), at as u64);
                }
            }
            _ => {
                // A frame is cut short.
                let at = self.frames.bytes.len();
                self.frame(input, 1);
                let kept = usize::from(input.u8());
                let cut = self.frames.bytes.len().min(at + kept);
                self.frames.bytes[cut..].fill(0);
            }
        }
    }

    /// Has the frame at `at` claim no more than there is: no log ends in the midst of one.
    fn shorten(&mut self, at: usize) {
        let units = (self.frames.bytes.len() - at) / 8;
        let [_, low, middle, high] = self.frames.bytes[at..].first_chunk().copied().unwrap_or_default();
        if u32::from_le_bytes([low, middle, high, 0]) as usize > units {
            self.frames.bytes[at + 1..at + 4].copy_from_slice(&(units as u32).to_le_bytes()[..3]);
        }
    }

    fn align(&mut self) {
        let len = self.frames.bytes.len().next_multiple_of(8);
        self.frames.bytes.resize(len, 0);
    }

    fn frame(&mut self, input: &mut Input<'_>, count: usize) {
        let records: Vec<_> = std::iter::from_fn(|| any_record(&mut input.0)).take(count).collect();
        let Ok(encoder) = FrameEncoder::new(&records) else { return };
        let at = self.frames.bytes.len();
        let place = FramePlace {
            seed: self.frames.header.frame_seed(),
            position: at as u64,
            relative_offset: self.next,
            relative_time_ms: at as u32,
            epoch: self.epoch,
            durable_distance: self.durable_distance,
        };
        let frame = encoder.at(place);
        self.frames.bytes.resize(at + frame.encoded_len(), 0);
        frame.encode(&mut self.frames.bytes[at..]);
        self.next = self.next.saturating_add(records.len() as u32);
    }
}
