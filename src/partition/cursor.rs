//! Reading on from an offset: find the segment, find the frame, verify, hand out; no lock on the way.
//!
//! # Invariants
//! - Nothing is handed out that isn't published and verified. Each frame is verified once in a pass, also one that is handed out in parts.
//! - Nothing is skipped silently. Damage is an error with the offset to go on at, and so are segments that are missing
//!   between two others; gaps in the offsets of intact frames are legal and no error.
//! - An error leaves the cursor where it is.
//!
//! # Thread safety
//! A cursor belongs to one thread at a time; any number of them read one partition.

use std::sync::Arc;

use super::{PartitionLog, batch::Run, scan::Scan, segment::Segment};
use crate::{
    error::{Error, Repr, Result},
    frame::{FrameFault, FrameHeader},
    segment_header::DATA_START,
};

/// A place to read on from, in one partition.
#[derive(Debug)]
pub(crate) struct Cursor {
    partition: Arc<PartitionLog>,
    /// The next record to hand out.
    offset: u64,
    /// Where that is, once it was looked up: the frame that holds it, or the one behind the gap that it lies in.
    place: Option<Spot>,
    /// The offset to go on at behind the damage that was told last, and where that is. To look it up anew could lead to
    /// the same damage again, where that took no offset away.
    behind_damage: Option<(u64, Spot)>,
}

/// A frame's place.
#[derive(Debug, Clone)]
struct Spot {
    segment: Arc<Segment>,
    position: u64,
    /// Frames before this position were verified: of the first one, a part was handed out.
    verified: u64,
}

impl Spot {
    fn new(segment: Arc<Segment>, position: u64) -> Self {
        Self { segment, position, verified: position }
    }
}

/// How far a segment can be read.
pub(super) struct Readable {
    pub(super) end: u64,
    /// Nothing will be appended behind the end.
    sealed: bool,
}

/// What a look at one frame answers.
enum Look {
    Good(FrameHeader),
    Bad(FrameFault),
}

impl PartitionLog {
    /// How far the segment can be read now.
    pub(super) fn readable(&self, segment: &Segment) -> Readable {
        if let Some(end) = segment.sealed_end() {
            return Readable { end, sealed: true };
        }
        let committed = self.control.committed();
        if u64::from(committed.sequence()) == segment.header.sequence {
            return Readable { end: committed.file_position(), sealed: false };
        }
        // It was sealed before the commit word left it.
        Readable { end: segment.sealed_end().unwrap_or(DATA_START), sealed: true }
    }
}

impl Cursor {
    /// A cursor at `offset`: kind `OffsetOutOfRange` unless it lies between log start and log end.
    pub(crate) fn new(partition: &Arc<PartitionLog>, offset: u64) -> Result<Self> {
        let cursor = Self { partition: partition.clone(), offset, place: None, behind_damage: None };
        cursor.check_range(offset)?;
        Ok(cursor)
    }

    /// The next record to hand out, or the end of the log.
    pub(crate) fn position(&self) -> u64 {
        self.offset
    }

    /// Moves to another offset: kind `OffsetOutOfRange` as for [`new`](Cursor::new).
    pub(crate) fn seek(&mut self, offset: u64) -> Result<()> {
        self.check_range(offset)?;
        // The place is looked up anew also for the same offset: damage may lie before it, and be passed over so.
        let behind_damage = self.behind_damage.take().filter(|(resume, _)| *resume == offset);
        (self.offset, self.place) = (offset, behind_damage.map(|(_, spot)| spot));
        Ok(())
    }

    fn check_range(&self, offset: u64) -> Result<()> {
        self.partition.check_exists()?;
        let mut valid = self.partition.start_offset()..self.partition.end_offset();
        if offset > valid.end {
            // It may be that of a record that was just read.
            valid.end = self.partition.settled_end_offset();
        }
        if offset >= valid.start && offset <= valid.end {
            return Ok(());
        }
        let spec = self.partition.spec();
        Err(Repr::OffsetOutOfRange { topic: spec.topic.to_string(), partition: spec.number, offset, valid }.into())
    }

    /// Whether nothing is published beyond the position, nor is there an error to tell of. Sequentially consistent, for
    /// who is about to sleep.
    pub(crate) fn at_end(&self) -> bool {
        if self.partition.check_exists().is_err() {
            return false;
        }
        match &self.place {
            Some(spot) => {
                let readable = self.readable(&spot.segment);
                !readable.sealed && spot.position >= readable.end
            }
            None => self.offset >= self.partition.end_offset(),
        }
    }

    /// The next verified frames from one segment, of about `max_bytes`, one frame at least. `None` at the end for now.
    ///
    /// Kind `Corruption` at damage, with the offset to go on at; kind `OffsetOutOfRange` where deleted segments were
    /// asked for; kind `UnknownTopic` behind what is mapped of a deleted partition.
    pub(crate) fn next_run(&mut self, max_bytes: usize) -> Result<Option<Run>> {
        self.next_run_of(max_bytes, u64::MAX)
    }

    /// As [`next_run`](Cursor::next_run), of at most `max_records` (and at least one): of a frame that has more, the
    /// rest comes next time.
    pub(crate) fn next_run_of(&mut self, max_bytes: usize, max_records: u64) -> Result<Option<Run>> {
        loop {
            let spot = self.spot()?;
            // Read before the commit word: what was assigned below this is published by the time we look there.
            let end_offset = self.partition.end_offset();
            let readable = self.readable(&spot.segment);
            if spot.position < readable.end {
                let run = self.verify(spot, readable.end, max_bytes, max_records.max(1))?;
                if run.is_some() {
                    return Ok(run);
                }
                continue; // Frames that lie wholly below the offset: the place has moved on.
            }
            if !readable.sealed {
                self.partition.check_exists()?;
                // Offsets up to the end of the log are a gap, if anything.
                self.offset = self.offset.max(end_offset);
                return Ok(None);
            }
            if !self.step_to_next_segment(&spot.segment)? {
                return Ok(None);
            }
        }
    }

    fn readable(&self, segment: &Segment) -> Readable {
        self.partition.readable(segment)
    }

    /// Where the next record is: its segment, and the position of its frame or of what lies there instead.
    pub(crate) fn place(&mut self) -> Result<(Arc<Segment>, u64)> {
        let spot = self.spot()?;
        Ok((spot.segment, spot.position))
    }

    fn spot(&mut self) -> Result<Spot> {
        match &self.place {
            Some(spot) => Ok(spot.clone()),
            None => self.locate(),
        }
    }

    /// The log's time of the next record; `None` at the end for now. Of its frame only the header is looked at. Errors
    /// as for [`next_run`](Cursor::next_run).
    pub(crate) fn append_time_ms(&mut self) -> Result<Option<i64>> {
        loop {
            let (segment, position) = self.place()?;
            let readable = self.readable(&segment);
            if position < readable.end {
                // SAFETY: this is the published end of the segment.
                let bytes = unsafe { segment.published(position, readable.end) };
                match FrameHeader::decode(bytes, segment.seed, position) {
                    Ok(header) if header.is_filler() => {
                        self.place = Some(Spot::new(segment, position + header.frame_bytes() as u64));
                        continue;
                    }
                    Ok(header) => return Ok(Some(segment.append_time_ms(&header))),
                    Err(fault) => return Err(self.damage(&segment, position, readable.end, fault)),
                }
            }
            if !readable.sealed || !self.step_to_next_segment(&segment)? {
                return Ok(None);
            }
        }
    }

    /// Verifies frames from the spot on, which is the place, below `end`. `None` if they all lie below the wanted offset.
    fn verify(&mut self, spot: Spot, end: u64, max_bytes: usize, max_records: u64) -> Result<Option<Run>> {
        let (segment, position) = (&spot.segment, spot.position);
        // SAFETY: `end` is the published end of the segment.
        let bytes = unsafe { segment.published(position, end) };
        let (mut at, mut records, mut next_offset) = (0, 0, self.offset);
        let mut start = None;
        // Behind the frame of which a part is left over, if there is one.
        let mut verified = None;
        while at < max_bytes && records < max_records && position + (at as u64) < end {
            let place = position + at as u64;
            let header = match look(segment, &bytes[at..], place, place < spot.verified) {
                Look::Good(header) => header,
                Look::Bad(_) if start.is_some() => break, // First what is intact; the error comes next.
                Look::Bad(fault) => return Err(self.damage(segment, place, end, fault)),
            };
            let base = segment.header.base_offset.saturating_add(header.relative_offset.into());
            let count = u64::from(header.record_count);
            // Most frames begin where the one before ends, and are wanted whole.
            if start.is_some() && base == next_offset && count <= max_records - records {
                records += count;
                next_offset += count;
                at += header.frame_bytes();
                continue;
            }
            let behind = base.saturating_add(count);
            if start.is_some() && base < next_offset && !header.is_filler() {
                break; // No writer's offsets fall; of a run that starts here those are left out that were handed out.
            }
            if behind > next_offset && !header.is_filler() {
                start.get_or_insert(at);
                let first = next_offset.max(base);
                let taken = (behind - first).min(max_records - records);
                records += taken;
                next_offset = first + taken;
                if next_offset < behind {
                    verified = Some(place + header.frame_bytes() as u64);
                    break;
                }
            }
            at += header.frame_bytes();
        }
        let position = position + at as u64;
        let behind = verified.unwrap_or(position);
        if let Some(place) = &mut self.place {
            (place.position, place.verified) = (position, behind);
        }
        let Some(start) = start else { return Ok(None) };
        let run = Run {
            spec: self.partition.spec.clone(),
            start: spot.position + start as u64,
            segment: spot.segment,
            end: behind,
            from_offset: self.offset,
            records,
            last_offset: next_offset - 1,
        };
        self.offset = next_offset;
        Ok(Some(run))
    }

    /// Goes to the segment behind `segment`; false if there is none.
    fn step_to_next_segment(&mut self, segment: &Segment) -> Result<bool> {
        let segments = self.partition.segments.load();
        let at = segments.partition_point(|slot| slot.base_offset <= segment.header.base_offset);
        if at == segments.len() {
            self.partition.check_exists()?;
            return Ok(false);
        }
        let next = match self.partition.open_segment(&segments, at) {
            Ok(next) => next,
            Err(error) => {
                self.check_range(self.offset)?;
                let behind = segments.get(at + 1).map_or(self.partition.end_offset(), |slot| slot.base_offset);
                return Err(error.with_damaged_offsets(self.offset..behind));
            }
        };
        let follows = next.header.predecessor.is_some_and(|before| before.segment_id == segment.header.segment_id);
        // Who was told of the missing ones has moved on to where the next segment begins.
        if !follows && self.offset < next.header.base_offset {
            // Nor are deleted ones damage.
            self.check_range(self.offset)?;
            let detail = "the segment doesn't follow the one before it";
            let error = Error::corruption(&next.path, 0, detail);
            return Err(error.with_damaged_offsets(self.offset..next.header.base_offset));
        }
        self.place = Some(Spot::new(next, DATA_START));
        Ok(true)
    }

    /// Finds the place of the offset: its segment by base offset, a frame by the sparse index, then a walk.
    fn locate(&mut self) -> Result<Spot> {
        self.check_range(self.offset)?;
        let segments = self.partition.segments.load();
        let at = segments.partition_point(|slot| slot.base_offset <= self.offset);
        let Some(holder) = at.checked_sub(1) else {
            // They may have been deleted since the offset was found in range; so may the one that is opened below.
            self.check_range(self.offset)?;
            let oldest = segments.first().map_or(self.partition.end_offset(), |slot| slot.base_offset);
            let error = Error::corruption(&self.partition.dir, 0, "the segments that held these offsets are missing");
            return Err(error.with_damaged_offsets(self.offset..oldest));
        };
        let segment = match self.partition.open_segment(&segments, holder) {
            Ok(segment) => segment,
            Err(error) => {
                self.check_range(self.offset)?;
                let behind = segments.get(at).map_or(self.partition.end_offset(), |next| next.base_offset);
                return Err(error.with_damaged_offsets(self.offset..behind));
            }
        };
        let position = self.walk(&segment);
        Ok(self.place.insert(Spot::new(segment, position)).clone())
    }

    /// The position of the frame that holds the offset, or of what lies where it should be.
    fn walk(&self, segment: &Segment) -> u64 {
        // Read before the commit word, as in `next_run`.
        let end_offset = self.partition.end_offset();
        let end = self.readable(segment).end;
        let relative_offset = u32::try_from(self.offset - segment.header.base_offset).unwrap_or(u32::MAX);
        let start = segment.nearest_frame(&*self.partition.env.storage, relative_offset, end);
        // SAFETY: `end` is the published end of the segment.
        let bytes = unsafe { segment.published(0, end) };
        let behind = |header: &FrameHeader| segment.header.base_offset.saturating_add(header.next_relative_offset());
        let mut position = start;
        // Most often there are some intact frames to pass, and nothing else.
        while let Ok(header) =
            FrameHeader::decode(bytes.get(position as usize..).unwrap_or_default(), segment.seed, position)
        {
            let base = segment.header.base_offset.saturating_add(header.relative_offset.into());
            let next = position + header.frame_bytes() as u64;
            if base > self.offset || next > end {
                break;
            }
            if behind(&header) > self.offset {
                return position;
            }
            position = next;
        }
        let mut scan = Scan::headers(segment.seed, position);
        while let Some((found, header)) = scan.next_frame_in(bytes) {
            let base = segment.header.base_offset.saturating_add(header.relative_offset.into());
            if base > self.offset {
                // The offset lies in a gap, which ends at this frame, or in the damage before it.
                return position;
            }
            position = found;
            if behind(&header) > self.offset {
                return position;
            }
            position += header.frame_bytes() as u64;
        }
        // Damage up to the end holds no offset that wasn't assigned yet: whoever was told of it goes on behind.
        if self.offset >= end_offset { end } else { position }
    }

    /// The error for a frame that isn't what was written.
    fn damage(&mut self, segment: &Arc<Segment>, position: u64, end: u64, fault: FrameFault) -> Error {
        if let FrameFault::UnknownAttributes(attributes) = fault {
            return Repr::UnknownAttributes { path: segment.path.clone(), position, attributes }.into();
        }
        // SAFETY: `end` is the published end of the segment.
        let bytes = unsafe { segment.published(0, end) };
        let mut scan = Scan::verified(segment.seed, position);
        let resume = match scan.next_records_in(bytes) {
            Some((found, header)) => {
                let base = segment.header.base_offset.saturating_add(header.relative_offset.into());
                self.behind_damage = Some((base.max(self.offset), Spot::new(segment.clone(), found)));
                base
            }
            None => {
                let segments = self.partition.segments.load();
                let next = segments.iter().find(|slot| slot.base_offset > segment.header.base_offset);
                let resume = next.map_or(self.partition.end_offset(), |slot| slot.base_offset);
                self.behind_damage = Some((resume.max(self.offset), Spot::new(segment.clone(), end)));
                resume
            }
        };
        let offsets = self.offset..resume.max(self.offset);
        Repr::Corruption { path: segment.path.clone(), position, offsets: Some(offsets), detail: fault.to_string() }
            .into()
    }
}

/// Verifies the frame at the start of `bytes`; only its header, if the body was `verified` before.
#[inline]
fn look(segment: &Segment, bytes: &[u8], position: u64, verified: bool) -> Look {
    let header = match FrameHeader::decode(bytes, segment.seed, position) {
        Ok(header) => header,
        Err(fault) => return Look::Bad(fault),
    };
    if verified {
        return Look::Good(header);
    }
    match header.verify_body(bytes, segment.seed, position) {
        Ok(()) => Look::Good(header),
        Err(fault) => Look::Bad(fault),
    }
}
