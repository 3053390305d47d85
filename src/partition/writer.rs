//! Appending: encode into the map, publish, and whatever has to come first (space, a new segment, a higher ceiling).
//!
//! # Invariants
//! - Bytes behind the published end belong to whoever holds the writer lock, and to nobody else.
//! - Space is reserved before anything is stored in it. What can't be had is an error, and nothing has changed then.
//! - Nothing is stored through the map but in pages, however large, that are reserved whole; and nothing while few bytes
//!   aren't durable, which a sync is to write and no more. Otherwise it is written with `pwrite`, at the same place.
//! - Nothing is stored while the segment's handle is closed (see [`segment_file`](super::segment_file)): frames may end
//!   at [`Writer::storable`], which is the published end then, so that an append looks at one number as ever.
//! - Times of frames don't fall within a partition, whatever the clock does.
//!
//! # Thread safety
//! [`Writer`] lives behind a mutex, which is held while a frame is encoded and published, while space is reserved and
//! while a segment is begun, but never across a sync.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BATCH_FRAME_BYTES, Company, NOT_PENDING, OFFSET_CEILING_STEP, PartitionLog, RESERVE_STEP_MAX, RESERVE_STEP_MIN,
    UNSYNCED_SEGMENTS,
    control::LogPosition,
    new_segment_header,
    offset_index::{self, Entry},
    offsets_used_up,
    recovery::position,
    segment::{Segment, SegmentSlot, index_path},
    time_index::BlockBuilder,
};
use crate::{
    config::Durability,
    error::{Error, ErrorKind, Repr, Result},
    figures::Operation,
    frame::{FrameEncoder, FramePlace, MAX_FRAME_BYTES, MAX_RECORDS, NO_DURABLE_DISTANCE},
    record::Record,
    segment_header::{DATA_START, Predecessor},
    storage::{Encode, File},
    sync::Ordering,
};

/// Offsets are below this, so that they fit signed integers everywhere.
pub(super) const OFFSET_LIMIT: u64 = 1 << 63;

/// So much memory a partition keeps to encode frames in, where they are written with `pwrite`.
pub(super) const SCRATCH_BYTES: usize = 16 << 10;

/// The most zeros that are written at once: the next sync writes them too.
const ZEROS_STEP_MAX: u64 = 256 << 10;

/// From so many bytes a second on, appends to a partition are a fast stream: within the default interval of flushes they
/// fill what is made ahead of them, so that hardly any page is written twice.
const FAST_BYTES_A_SECOND: u64 = 40 << 20;

/// So far ahead of a fast stream's end pages are made, at least.
const PREFAULT_BYTES: u64 = 2 << 20;

/// At least as many bytes are between two looks at how fast a stream is.
const _: () = assert!(RESERVE_STEP_MAX >= 2 * PREFAULT_BYTES);

/// The place where the next frame goes.
#[derive(Debug)]
pub(super) struct Writer {
    segment: Arc<Segment>,
    end: LogPosition,
    next_offset: u64,
    /// Behind the last record that was appended since the partition was opened; before that, `next_offset`. Whoever took
    /// an offset from here to `next_offset` for the log's end was right: between them no record will ever be.
    appended_end: u64,
    last_time_ms: i64,
    /// Up to where the segment's file has space of its own, in bytes.
    reserved: u64,
    reserve_step: u64,
    /// Up to where frames may be stored: `reserved` while the segment's handle is open, else the end. Less in a fast stream,
    /// which asks for more space before it has used up all.
    storable: u64,
    /// Up to where they may be stored through the map: what is reserved of whole pages, however large these are.
    mappable: u64,
    /// When space was reserved last, and the end then.
    last_reserved: Option<(Instant, u64)>,
    /// A sync began since then.
    synced: bool,
    /// The system knows that much is going to be stored, and that pages aren't made ahead.
    stream_expected: bool,
    /// A store failed on the way: there may be bytes behind the end that no sync has covered yet.
    residue: bool,
    /// Whether the partition is in the queue of those whose handle is open.
    queued: bool,
    /// There is a torn tail behind the end, which goes before anything is stored. See [`uncut`](super::uncut).
    pub(super) uncut: bool,
    /// A frame at or behind this position gets an entry in the sparse index.
    next_entry: u64,
    /// The frames that are in no block of the time index yet.
    times: BlockBuilder,
    /// Frames are encoded here first where they are written with `pwrite`.
    pub(super) scratch: Vec<u8>,
}

impl Writer {
    pub(super) fn new(segment: Arc<Segment>, end: LogPosition, next_offset: u64, last_time_ms: i64) -> Self {
        let last_entry = segment.index().and_then(|index| index.last());
        Self {
            next_entry: last_entry.map_or(DATA_START, |entry| entry.position + offset_index::INTERVAL_BYTES),
            segment,
            end,
            next_offset,
            appended_end: next_offset,
            last_time_ms,
            // What an earlier process reserved isn't known; reserving it again does nothing.
            reserved: end.file_position(),
            reserve_step: RESERVE_STEP_MIN,
            storable: end.file_position(),
            mappable: 0,
            last_reserved: None,
            synced: false,
            stream_expected: false,
            residue: false,
            queued: false,
            uncut: false,
            times: BlockBuilder::default(),
            scratch: Vec::new(),
        }
    }

    /// A sync of these segments begins, in which everything that was stored up to now is covered.
    pub(super) fn begin_sync(&mut self, segments: &[Arc<Segment>]) {
        if segments.last().is_some_and(|last| Arc::ptr_eq(last, &self.segment)) {
            self.residue = false;
            self.synced = true;
        }
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn end(&self) -> LogPosition {
        self.end
    }

    pub(super) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    pub(super) fn last_time_ms(&self) -> i64 {
        self.last_time_ms
    }

    /// Puts the last frames into a block of the time index.
    pub(super) fn finish_times(&mut self) {
        if let Some(block) = self.times.finish() {
            self.segment.times.push(block, self.next_offset - self.segment.header.base_offset);
        }
    }

    fn is_empty(&self) -> bool {
        self.end.file_position() == DATA_START
    }

    /// Whether so much was appended since space was reserved last that large pages, or those made ahead, are filled soon.
    fn is_fast(&self) -> bool {
        self.last_reserved.is_some_and(|(then, end)| {
            let bytes = self.end.file_position().saturating_sub(end);
            let filled_in = Duration::from_millis(bytes.saturating_mul(1000) / FAST_BYTES_A_SECOND);
            then.elapsed() < filled_in
        })
    }
}

/// How far an append came under the writer lock.
enum Step {
    /// Published, up to here.
    Published(Range<u64>, LogPosition),
    /// Needs offsets below this to be allowed first.
    NeedsCeiling(u64),
    /// Needs another file to be closed first: as many are open as the options allow or, if set, as the system allows.
    NeedsRoom(bool),
    /// Needs a torn tail to be set aside first.
    NeedsCut,
}

impl PartitionLog {
    /// Kind `RecordTooLarge` if the record exceeds the partition's limit or the format's.
    pub(crate) fn check_record(&self, record: &Record<'_>) -> Result<()> {
        self.lone_frame(record).map(|_| ())
    }

    /// The frame of one record, checked as [`check_record`](PartitionLog::check_record) says.
    #[inline]
    fn lone_frame<'r, 'a>(&self, record: &'r Record<'a>) -> Result<FrameEncoder<'r, 'a>> {
        self.check_payload(record.payload_bytes())?;
        FrameEncoder::new(std::slice::from_ref(record))
    }

    /// The frames of a batch, whose records are all checked as [`check_record`](PartitionLog::check_record) says.
    fn frames<'r, 'a>(&self, records: &'r [Record<'a>]) -> Result<Vec<FrameEncoder<'r, 'a>>> {
        const _: () = assert!(BATCH_FRAME_BYTES < MAX_FRAME_BYTES);
        FrameEncoder::split(records, BATCH_FRAME_BYTES, |bytes| self.check_payload(bytes))
    }

    #[inline]
    fn check_payload(&self, bytes: u64) -> Result<()> {
        let limit = self.spec.settings.max_record_bytes();
        if bytes > limit {
            return Err(Repr::RecordTooLarge { what: "the record", bytes, limit }.into());
        }
        Ok(())
    }

    /// Appends one record as a frame of its own; answers its offset.
    pub(crate) fn append(self: &Arc<Self>, record: &Record<'_>, durability: Option<Durability>) -> Result<u64> {
        self.counted(Operation::Append, || {
            let (offsets, end) = self.publish_frame(&self.lone_frame(record)?, None)?;
            self.honor(durability, end)?;
            Ok(offsets.start)
        })
    }

    /// Appends records as one frame, if the log ends at `expected_end`: if nothing was appended since
    /// [`end_offset`](PartitionLog::end_offset) answered that. Kind `Conflict` if something was, kind `RecordTooLarge` if
    /// one frame doesn't hold them all; nothing is appended then.
    ///
    /// Where a segment without a record had to make way for a new one, whose name has to be another, the end has moved
    /// without an append. That is no conflict.
    pub(crate) fn append_if(
        self: &Arc<Self>,
        expected_end: u64,
        records: &[Record<'_>],
        durability: Option<Durability>,
    ) -> Result<Range<u64>> {
        self.counted(Operation::Append, || self.append_if_uncounted(expected_end, records, durability))
    }

    fn append_if_uncounted(
        self: &Arc<Self>,
        expected_end: u64,
        records: &[Record<'_>],
        durability: Option<Durability>,
    ) -> Result<Range<u64>> {
        let frames = self.frames(records)?;
        if records.is_empty() {
            let writer = self.writer()?;
            self.check_writable()?;
            self.check_end(&writer, expected_end)?;
            return Ok(writer.next_offset..writer.next_offset);
        }
        let [frame] = &frames[..] else {
            let what = match records.len() {
                0..=MAX_RECORDS => "a batch in one frame",
                _ => "a batch of more than 65,535 records in one frame",
            };
            let bytes = frames.iter().map(|frame| frame.frame_bytes() as u64).sum();
            return Err(Repr::RecordTooLarge { what, bytes, limit: BATCH_FRAME_BYTES }.into());
        };
        let (offsets, end) = self.publish_frame(frame, Some(expected_end))?;
        self.honor(durability, end)?;
        Ok(offsets)
    }

    /// Kind `Conflict` unless the log ends at `expected_end`.
    fn check_end(&self, writer: &Writer, expected_end: u64) -> Result<()> {
        if (writer.appended_end..=writer.next_offset).contains(&expected_end) {
            return Ok(());
        }
        Err(Repr::Conflict {
            topic: self.spec.topic.to_string(),
            partition: self.spec.number,
            expected: expected_end,
            end_offset: writer.next_offset,
        }
        .into())
    }

    /// Appends records as few frames as possible, each all or nothing; all are checked before the first is appended. Adds what was appended to `appended`, adjacent
    /// ranges as one, also if it fails on the way.
    pub(crate) fn append_batch(
        self: &Arc<Self>,
        records: &[Record<'_>],
        durability: Option<Durability>,
        appended: &mut Vec<Range<u64>>,
    ) -> Result<()> {
        self.counted(Operation::Append, || self.append_frames(records, durability, appended))
    }

    fn append_frames(
        self: &Arc<Self>,
        records: &[Record<'_>],
        durability: Option<Durability>,
        appended: &mut Vec<Range<u64>>,
    ) -> Result<()> {
        let mut end = None;
        for frame in self.frames(records)? {
            let (offsets, frame_end) = self.publish_frame(&frame, None)?;
            match appended.last_mut().filter(|last| last.end == offsets.start) {
                Some(last) => last.end = offsets.end,
                None => appended.push(offsets),
            }
            end = Some(frame_end);
        }
        end.map_or(Ok(()), |end| self.honor(durability, end))
    }

    /// Encodes and publishes one frame, and wakes who waits for it. Kind `Conflict` if an end is expected that isn't the
    /// log's.
    fn publish_frame(
        self: &Arc<Self>,
        encoder: &FrameEncoder<'_, '_>,
        expected_end: Option<u64>,
    ) -> Result<(Range<u64>, LogPosition)> {
        // Once room was made, whether there was any to make or not.
        let mut at_any_rate = false;
        loop {
            let step = self.try_publish(encoder, expected_end, at_any_rate)?;
            match step {
                Step::Published(offsets, end) => {
                    if self.wake_waiters() {
                        self.flush_if_awaited();
                    }
                    self.request_visit(offsets.end);
                    self.figures.appended(encoder.record_count().into(), encoder.frame_bytes() as u64);
                    return Ok((offsets, end));
                }
                Step::NeedsCeiling(needed) => self.raise_ceiling(needed)?,
                Step::NeedsCut => self.cut_tail()?,
                Step::NeedsRoom(ran_out) => {
                    self.make_room(ran_out);
                    at_any_rate = true;
                }
            }
        }
    }

    fn try_publish(
        self: &Arc<Self>,
        encoder: &FrameEncoder<'_, '_>,
        expected_end: Option<u64>,
        at_any_rate: bool,
    ) -> Result<Step> {
        let mut writer = self.writer()?;
        let writer = &mut *writer;
        self.check_writable()?;
        if let Some(expected_end) = expected_end {
            self.check_end(writer, expected_end)?;
        }
        if writer.uncut {
            return Ok(Step::NeedsCut);
        }
        let bytes = encoder.frame_bytes() as u64;
        let count = u64::from(encoder.record_count());
        let now_ms = self.env.clock.now_ms().max(writer.last_time_ms);
        if self.must_roll(writer, bytes, count, now_ms) {
            self.queue(writer)?;
            let rolled = self.with_room(at_any_rate, || self.roll_segment(writer, bytes, now_ms))?;
            if let Some(needs_room) = rolled {
                return Ok(needs_room);
            }
        }
        let next_offset = writer.next_offset.saturating_add(count);
        if next_offset >= OFFSET_LIMIT {
            return Err(offsets_used_up(&self.spec));
        }
        if next_offset > self.offset_ceiling.load(Ordering::Acquire) {
            return Ok(Step::NeedsCeiling(next_offset));
        }
        let at = writer.end.file_position();
        let place = self.place(writer, now_ms)?;
        let is_stream = self.is_stream(writer, bytes);
        if at + bytes > writer.storable {
            if let Some(needs_room) = self.make_storable(writer, at + bytes, is_stream, at_any_rate)? {
                return Ok(needs_room);
            }
        }
        let relative_offset = place.relative_offset;
        let through_map = is_stream && at + bytes <= writer.mappable;
        let end = self.store(writer, encoder, place, through_map).and_then(|()| {
            let end = position(&writer.segment, at + bytes)?;
            self.publish(writer, end)
        });
        let end = end.inspect_err(|_| writer.residue = true)?;
        // Behind the publication, so that whoever looks up the end isn't sent to a frame that isn't there yet.
        if at >= writer.next_entry {
            if let Some(index) = writer.segment.index() {
                index.append(Entry { relative_offset, position: at });
            }
            writer.next_entry = at + offset_index::INTERVAL_BYTES;
        }
        if let Some(block) = writer.times.add(at, relative_offset, encoder.greatest_time_ms(now_ms)) {
            writer.segment.times.push(block, relative_offset.into());
        }
        let offsets = writer.next_offset..next_offset;
        (writer.next_offset, writer.appended_end, writer.last_time_ms) = (next_offset, next_offset, now_ms);
        self.control.raise_next_offset(next_offset);
        Ok(Step::Published(offsets, end))
    }

    /// What the next frame's header says of its place.
    fn place(&self, writer: &Writer, now_ms: i64) -> Result<FramePlace> {
        let header = &writer.segment.header;
        let position = writer.end.file_position();
        let durable = self.control.durable();
        let same_segment = durable.sequence() == writer.end.sequence();
        let distance = position.saturating_sub(durable.file_position()) / 8;
        // `must_roll` has seen to it that both fit.
        let unfit =
            || Error::corruption(&writer.segment.path, position, "an offset or time beyond what a segment holds");
        Ok(FramePlace {
            seed: writer.segment.seed,
            position,
            relative_offset: u32::try_from(writer.next_offset - header.base_offset).map_err(|_| unfit())?,
            relative_time_ms: u32::try_from(now_ms.abs_diff(header.base_timestamp_ms)).map_err(|_| unfit())?,
            epoch: self.epoch,
            durable_distance: u32::try_from(distance).ok().filter(|_| same_segment).unwrap_or(NO_DURABLE_DISTANCE),
        })
    }

    /// Whether, with a frame of `bytes`, so much isn't durable that appends go through the map.
    fn is_stream(&self, writer: &Writer, bytes: u64) -> bool {
        let durable = self.control.durable();
        let durable_position = if durable.sequence() == writer.end.sequence() { durable.file_position() } else { 0 };
        !self.env.positional_appends
            && (writer.end.file_position() + bytes).saturating_sub(durable_position) > self.env.mapped_after
    }

    /// Puts the frame behind the published end.
    fn store(
        &self,
        writer: &mut Writer,
        encoder: &FrameEncoder<'_, '_>,
        place: FramePlace,
        through_map: bool,
    ) -> Result<()> {
        let at = place.position;
        let frame = encoder.at(place);
        if !through_map {
            writer.scratch.clear();
            writer.scratch.resize(encoder.frame_bytes(), 0);
            frame.encode(&mut writer.scratch[..]);
            let segment = &writer.segment;
            let write = |file: Arc<dyn File>| {
                file.write_all_at(&writer.scratch, at).inspect_err(|_| {
                    let written = at..at + writer.scratch.len() as u64;
                    match self.env.positional_appends {
                        true => take_back(&*file, written, segment.region.len() as u64),
                        // In space that it keeps.
                        false => drop(file.write_all_at(&vec![0; writer.scratch.len()], at)),
                    }
                })
            };
            let written = segment.open_file(&self.env).and_then(write);
            writer.scratch.clear();
            writer.scratch.shrink_to(SCRATCH_BYTES);
            return written.map_err(|source| Error::io("append to", &segment.path, source));
        }
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        // SAFETY: the bytes behind the published end are ours while we hold the writer lock, and reserved by now.
        let stored = unsafe { writer.segment.region.encode(start, &frame) };
        stored.ok_or_else(|| Error::corruption(&writer.segment.path, at, "the frame doesn't fit the segment"))
    }

    /// Moves the commit word.
    fn publish(&self, writer: &mut Writer, end: LogPosition) -> Result<LogPosition> {
        if !self.control.publish(writer.end, end) {
            self.poison("something else than its writer moved the commit word");
            self.check_poison()?;
        }
        writer.end = end;
        Ok(end)
    }

    /// Does what opens a file, unless room has to be made first: the answer is the step that says so.
    fn with_room(&self, at_any_rate: bool, open: impl FnOnce() -> Result<()>) -> Result<Option<Step>> {
        if at_any_rate {
            return open().map(|()| None);
        }
        if !self.env.open_files.has_room() {
            return Ok(Some(Step::NeedsRoom(false)));
        }
        match open() {
            Err(error) if error.kind() == ErrorKind::LimitReached => Ok(Some(Step::NeedsRoom(true))),
            outcome => outcome.map(|()| None),
        }
    }

    /// Makes the bytes up to `needed` ones that may be stored into: the segment's handle is opened if it is closed, and
    /// space reserved. The answer is a step that has to come first, if there is one.
    fn make_storable(
        self: &Arc<Self>,
        writer: &mut Writer,
        needed: u64,
        is_stream: bool,
        at_any_rate: bool,
    ) -> Result<Option<Step>> {
        self.queue(writer)?;
        let segment = &writer.segment;
        if !segment.file.is_open() {
            let open = || match segment.open_file(&self.env) {
                Ok(_) => Ok(()),
                Err(source) => Err(Error::io("open the segment", &segment.path, source)),
            };
            if let Some(needs_room) = self.with_room(at_any_rate, open)? {
                return Ok(Some(needs_room));
            }
        }
        let is_fast = is_stream && writer.is_fast();
        let prefaults = is_fast && self.prefaults(writer);
        let reserved = writer.reserved;
        if prefaults {
            writer.reserve_step = RESERVE_STEP_MAX;
        }
        if needed > reserved {
            self.reserve(writer, needed, is_stream)?;
        } else if prefaults && reserved < writer.segment.region.len() as u64 {
            // Without more space the stream goes on as far as there is some.
            let _ = self.reserve(writer, reserved + PREFAULT_BYTES, is_stream);
        }
        writer.storable = writer.reserved;
        if is_fast && !prefaults && !writer.stream_expected {
            writer.segment.region.expect_stream();
            writer.stream_expected = true;
        }
        if prefaults && writer.reserved > reserved {
            self.prefault(writer, reserved);
            // So far from the end the next space is asked for, in time for its pages to be made.
            writer.storable = writer.reserved.saturating_sub(PREFAULT_BYTES).max(needed);
        }
        Ok(None)
    }

    /// Whether the pages of a fast stream are made ahead. Not where syncs come again and again: each would write what was
    /// made, and then there is a fault for each page all the same. Large pages, of which each takes one, serve those best
    /// (`cargo bench --bench latency`).
    pub(super) fn prefaults(&self, writer: &Writer) -> bool {
        self.env.prefaulter.is_there()
            && self.spec.settings.durability() == Durability::Written
            && self.pending_interval.load(Ordering::Relaxed) == NOT_PENDING
            && !writer.synced
    }

    /// Has the pages made that were reserved from `reserved` on.
    fn prefault(&self, writer: &Writer, reserved: u64) {
        if let (Ok(start), Ok(end)) = (usize::try_from(reserved), usize::try_from(writer.reserved)) {
            self.env.prefaulter.prefault(&writer.segment, start..end);
        }
    }

    /// Takes note that the active segment's handle is open or about to be, and that the threads in the background will be
    /// needed. Kind `LimitReached` if there are none to be had.
    fn queue(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        if !writer.queued {
            self.env.flusher.begin()?;
            self.env.open_files.add(self)?;
            writer.queued = true;
        }
        Ok(())
    }

    /// Closes the handle of the active segment, unless there may be something in the file that isn't on the device. False
    /// if it stays open. The next append opens it again.
    pub(super) fn close_clean_handle(&self) -> bool {
        let Ok(mut writer) = self.writer() else { return true }; // Deleted, and its files closed.
        let clean = !writer.residue && self.control.durable() >= writer.end && self.check_poison().is_ok();
        if clean {
            // In this order, and both under the lock: nothing is stored without a handle.
            writer.storable = writer.end.file_position();
            writer.segment.file.close();
            writer.queued = false;
        }
        clean
    }

    /// Gives the segment space up to `needed` at least, in a step that grows with it; to a stream of appends in pages that
    /// can be stored into through the map.
    fn reserve(&self, writer: &mut Writer, needed: u64, is_stream: bool) -> Result<()> {
        let segment = &writer.segment;
        let (len, page) = (segment.region.len() as u64, self.env.storage.page_limit());
        // Zeros are written where appends are synced a few at a time. Not in pages that are stored into through the map,
        // which would only be made dirty once more; nor where nothing is reserved, and each write may take new space.
        let writes_zeros = !is_stream && self.env.mapped_after > 0 && !self.env.positional_appends;
        let most = if writes_zeros { ZEROS_STEP_MAX } else { RESERVE_STEP_MAX };
        let step = needed.max(writer.reserved.saturating_add(writer.reserve_step.min(most)));
        let step = if is_stream { step.next_multiple_of(page) } else { step };
        let generous = step.min(len);
        // What is there may have holes in the page that it ends in, if it was copied by somebody who leaves zeros out.
        let start = match writer.last_reserved {
            None if cfg!(target_os = "linux") => writer.reserved / page * page,
            _ => writer.reserved,
        };
        let set_aside = |end: u64| match self.env.positional_appends {
            true => Ok(()),
            false => segment.open_file(&self.env)?.reserve(start..end),
        };
        let reserved = match set_aside(generous) {
            Ok(()) => generous,
            // There may still be space for this one.
            Err(_) if generous > needed => set_aside(needed)
                .map(|()| needed)
                .map_err(|source| Error::io("reserve space in", &segment.path, source))?,
            Err(source) => return Err(Error::io("reserve space in", &segment.path, source)),
        };
        if writes_zeros {
            // If this fails, so be it: the sync that has to tell of it is the one behind an append.
            let _ = segment.open_file(&self.env).and_then(|file| write_zeros(&*file, writer.reserved..reserved));
        }
        if let Some(index) = segment.index() {
            index.reserve(&*self.env.storage, &index_path(&segment.path), reserved);
        }
        self.control.set_reserved(position(segment, reserved / 8 * 8)?.max(writer.end));
        writer.last_reserved = Some((Instant::now(), writer.end.file_position()));
        writer.synced = false;
        (writer.reserved, writer.storable) = (reserved, reserved);
        writer.mappable = mappable(reserved, len, page);
        writer.reserve_step = (writer.reserve_step * 2).min(RESERVE_STEP_MAX);
        Ok(())
    }

    /// Whether a frame has to go into a new segment: by size, by age, or by what 32 relative bits hold.
    fn must_roll(&self, writer: &Writer, bytes: u64, count: u64, now_ms: i64) -> bool {
        let header = &writer.segment.header;
        let age_ms = now_ms.abs_diff(header.base_timestamp_ms);
        let last_offset = (writer.next_offset - header.base_offset).saturating_add(count);
        let end = writer.end.file_position().saturating_add(bytes);
        end > writer.segment.region.len() as u64
            || (!writer.is_empty() && end > self.spec.settings.segment_bytes())
            || last_offset > u32::MAX.into()
            || age_ms > u32::MAX.into()
            || now_ms < header.base_timestamp_ms
            || (!writer.is_empty() && self.spec.settings.segment_ms().is_some_and(|limit| age_ms >= limit))
    }

    /// Begins a new segment with room for a frame of `bytes`, in a partition that is queued. Nothing is synced, and nothing has changed if it fails.
    fn roll_segment(self: &Arc<Self>, writer: &mut Writer, bytes: u64, now_ms: i64) -> Result<()> {
        let old = writer.segment.clone();
        let old_end = writer.end.file_position();
        let base_offset = writer.next_offset.max(old.header.base_offset + 1);
        let predecessor =
            Predecessor { segment_id: old.header.segment_id, end_position: old_end, end_offset: writer.next_offset };
        let sequence = old.header.sequence + 1;
        let header = new_segment_header(&self.spec, sequence, base_offset, now_ms, Some(predecessor))?;
        let len = self.spec.segment_file_bytes().max((DATA_START + bytes).next_multiple_of(4096));
        let reserve = if self.env.positional_appends { 0 } else { RESERVE_STEP_MIN.min(len) };
        let new = Arc::new(Segment::create(&self.env, &self.dir, header, len, reserve)?);
        let end = position(&new, DATA_START)?;

        // Before the list has a segment behind it, from which on nobody looks for frames that are in no block.
        writer.finish_times();
        old.seal(old_end);
        self.segments.rcu(|segments| {
            let mut segments = Vec::clone(segments);
            if let Some(last) = segments.last() {
                last.note_sealed(old_end, writer.last_time_ms);
            }
            segments.push(Arc::new(SegmentSlot::opened(new.clone())));
            segments
        });
        {
            let mut sync = self.sync.lock();
            sync.unsynced.push(new.clone());
            sync.folder_changed = true;
            if sync.unsynced.len() > UNSYNCED_SEGMENTS {
                self.flush_requested.store(true, Ordering::Release);
            }
        }
        self.control.set_segment(end.sequence(), header.segment_id, new.file.get().as_deref());
        self.publish(writer, end)?;
        let reserved = if self.env.positional_appends { DATA_START } else { reserve };
        self.control.set_reserved(position(&new, reserved)?);
        *writer = Writer {
            reserved,
            storable: reserved,
            mappable: mappable(reserved, len, self.env.storage.page_limit()),
            reserve_step: RESERVE_STEP_MIN * 2,
            last_reserved: Some((Instant::now(), DATA_START)),
            synced: writer.synced,
            queued: writer.queued,
            appended_end: writer.appended_end,
            scratch: std::mem::take(&mut writer.scratch),
            ..Writer::new(new, end, base_offset, writer.last_time_ms.max(now_ms))
        };
        self.control.raise_next_offset(base_offset);
        self.figures.rolled();
        Ok(())
    }

    /// Begins a new segment now; does nothing if the active one is empty.
    pub(crate) fn roll(self: &Arc<Self>) -> Result<()> {
        self.roll_if(|_, _| true)
    }

    /// As [`roll`](PartitionLog::roll), if `wanted` says so of the log end offset and the time of the last record.
    pub(super) fn roll_if(self: &Arc<Self>, wanted: impl Fn(u64, i64) -> bool) -> Result<()> {
        self.cut_tail()?;
        let mut writer = self.writer()?;
        self.check_writable()?;
        if writer.is_empty() || !wanted(writer.next_offset, writer.last_time_ms) {
            return Ok(());
        }
        let now_ms = self.env.clock.now_ms().max(writer.last_time_ms);
        self.queue(&mut writer)?;
        self.roll_segment(&mut writer, 0, now_ms)
    }

    /// Lets appends go on at `offset`, if they would at a lower one. Durable when this returns.
    pub(crate) fn pass_offsets(&self, offset: u64) -> Result<()> {
        self.check_writable()?;
        // First, so that a power cut behind it leaves no end below what is built on this one. In both slots: if one of them
        // is lost, nothing tells that it was so much higher.
        self.raise_ceiling(offset)?;
        self.raise_ceiling(offset)?;
        let mut writer = self.writer()?;
        if offset > writer.next_offset {
            writer.next_offset = offset;
            self.control.raise_next_offset(offset);
        }
        Ok(())
    }

    /// Whether [`append_batch`](PartitionLog::append_batch) of these records would begin a new segment.
    pub(crate) fn must_roll_for(&self, records: &[Record<'_>]) -> Result<bool> {
        let bytes = self.frames(records)?.iter().map(|frame| frame.frame_bytes() as u64).sum();
        let writer = self.writer()?;
        let now_ms = self.env.clock.now_ms().max(writer.last_time_ms);
        Ok(self.must_roll(&writer, bytes, records.len() as u64, now_ms))
    }

    /// Does what the level promises for everything up to `end`.
    fn honor(self: &Arc<Self>, durability: Option<Durability>, end: LogPosition) -> Result<()> {
        match durability.unwrap_or_else(|| self.spec.settings.durability()) {
            Durability::Written => Ok(()),
            Durability::Interval(interval) => {
                self.flush_within(interval);
                Ok(())
            }
            Durability::Synced => self.sync_through(end, Company::Others),
        }
    }

    /// Sees to it that a flush is due within the interval. One that is pending with a shorter one will do.
    pub(super) fn flush_within(self: &Arc<Self>, interval: Duration) {
        let nanoseconds = u64::try_from(interval.as_nanos()).unwrap_or(NOT_PENDING - 1).min(NOT_PENDING - 1);
        // Sequentially consistent with the flusher's reset, which comes before it looks at the published end: either
        // it sees our frame, or we see that nothing is pending.
        if self.pending_interval.load(Ordering::SeqCst) <= nanoseconds {
            return;
        }
        if self.pending_interval.fetch_min(nanoseconds, Ordering::SeqCst) > nanoseconds {
            let Some(due) = Instant::now().checked_add(interval) else { return };
            // What a visit takes off this list, before it resets what is pending, is flushed by it.
            let mut visits = self.flush_visits.lock();
            if visits.last().is_none_or(|&next| due < next) {
                visits.push(due);
                drop(visits);
                self.env.flusher.schedule(self, due);
            }
        }
    }

    /// Has the ceiling raised in the background once half of the step is used, and segments synced once there are many.
    fn request_visit(self: &Arc<Self>, next_offset: u64) {
        let left = self.offset_ceiling.load(Ordering::Relaxed).saturating_sub(next_offset);
        let raise = left < OFFSET_CEILING_STEP / 2 && !self.ceiling_requested.swap(true, Ordering::AcqRel);
        let flush = self.flush_requested.load(Ordering::Relaxed) && self.flush_requested.swap(false, Ordering::AcqRel);
        if raise || flush {
            self.env.flusher.schedule(self, Instant::now());
        }
    }
}

/// Up to where a segment's file of `len` bytes can be stored into through its map, of which so much is reserved: what
/// whole pages hold.
fn mappable(reserved: u64, len: u64, page: u64) -> u64 {
    if reserved >= len { len } else { reserved / page * page }
}

/// Writes zeros where there were none but the file system's own. A block that was never written has to be marked as written
/// by the sync behind the first write to it: of appends that are synced one by one that is up to half of the time.
fn write_zeros(file: &dyn File, range: Range<u64>) -> std::io::Result<()> {
    const ZEROS: &[u8] = &[0; 16 << 10];
    let mut position = range.start;
    while position < range.end {
        let zeros = &ZEROS[..ZEROS.len().min(usize::try_from(range.end - position).unwrap_or(usize::MAX))];
        file.write_all_at(zeros, position)?;
        position += zeros.len() as u64;
    }
    Ok(())
}

/// Takes away what a write that failed has written behind the end of the log: it takes space, and would look like a torn
/// tail if the process were killed. Nobody reads there. If this fails, so be it.
fn take_back(file: &dyn File, written: Range<u64>, len: u64) {
    let mut found = vec![0; usize::try_from(written.end - written.start).unwrap_or(0)];
    let read = file.read_at(&mut found, written.start).unwrap_or(0);
    if found[..read].iter().any(|&byte| byte != 0) {
        let _ = file.set_len(written.start).and_then(|()| file.set_len(len));
    }
}
