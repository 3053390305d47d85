//! The sparse time index of a segment: for each block of about 32 KiB of frames, the greatest time of its records.
//!
//! A record's time is its `timestamp_ms()`: the client's, else the log's. Clients' times come in any order, so nothing
//! is searched by halves: a lookup passes over the blocks (and, by one number, over the segments) whose greatest time
//! lies before what is asked for, and reads the records of the others. Block by block, and not the greatest so far:
//! else what lies before a log start offset in the middle of the segment would hide what lies behind it.
//!
//! # Format
//! A header, then an entry for each block; see `src/doc/format.md`, section "Sparse time index".
//!
//! # Invariants
//! - A block's time is at least that of each of its records; where some of them can't be read, it is greater than any.
//!   So a lookup passes over nothing that it should have found, nor over damage that may have been it.
//! - Blocks cover the frames without a gap, in order. What the writer hasn't made a block of yet is read.
//! - The file is a cache, written at once when the segment can't change any more (or is closed), and never changed. It
//!   is believed only if it is intact, this segment's, covers the frames up to the very end in question, and if its
//!   [`Bond`] holds: a segment that was cut and appended to again may have the same end as before.
//!
//! # Thread safety
//! Any thread looks up. The partition's writer alone adds blocks, one in 32 KiB, with a lock that lookups hold for
//! moments; what is still to be read from files is read without that lock.

use std::{io, ops::Range, path::Path, sync::Arc};

use byteorder::{ByteOrder, LittleEndian};

use super::{
    offset_index::replace_file,
    scan::{Found, Scan, Source},
    segment::{Segment, time_index_path},
};
use crate::{
    codec::Reader,
    frame::{self, FrameHeader},
    segment_header::{DATA_START, SegmentHeader},
    storage::{EntryKind, File, OpenMode, Storage},
    sync::Mutex,
};

/// A block ends before the first frame that begins this many bytes or more behind the block's beginning.
pub(crate) const BLOCK_BYTES: u64 = 32 << 10;

/// The time of a block in which something can't be read: greater than what anybody looks for.
const UNKNOWN_MS: i64 = i64::MAX;

const MAGIC: [u8; 8] = *b"tidetim\x01";

// The fields of the header, each behind the one before it.
const MAGIC_AT: usize = 0;
const SEGMENT_ID_AT: usize = MAGIC_AT + size_of::<u64>();
const SUCCESSOR_AT: usize = SEGMENT_ID_AT + size_of::<u64>();
const END_AT: usize = SUCCESSOR_AT + size_of::<u64>();
const GREATEST_AT: usize = END_AT + size_of::<u64>();
const EPOCH_AT: usize = GREATEST_AT + size_of::<i64>();
const COUNT_AT: usize = EPOCH_AT + size_of::<u32>();
const ENTRIES_CHECK_AT: usize = COUNT_AT + size_of::<u32>();
const HEADER_CHECK_AT: usize = ENTRIES_CHECK_AT + size_of::<u32>();
pub(super) const HEADER_BYTES: usize = HEADER_CHECK_AT + size_of::<u32>();
/// A time and a relative offset.
pub(super) const ENTRY_BYTES: usize = size_of::<i64>() + size_of::<u32>();

/// Some frames that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// No record in here has a greater time.
    pub(crate) greatest_ms: i64,
    /// Of the first record, counted from the segment's base offset.
    pub(crate) relative_offset: u32,
}

/// What else must be as it was when a file was written, so that the segment holds what it held then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bond {
    /// The segment is followed by the one with this random id. Were it ever appended to again, it would get another
    /// successor.
    Successor(u64),
    /// The segment is the active one, and the partition's epoch is this: it is raised by each open that may cut.
    Epoch(u32),
}

impl Bond {
    fn fields(self) -> (u64, u32) {
        match self {
            Self::Successor(segment_id) => (segment_id, 0),
            Self::Epoch(epoch) => (0, epoch),
        }
    }
}

/// What a file is to be about, to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) segment_id: u64,
    /// Position behind the last frame.
    pub(crate) end: u64,
    pub(crate) bond: Bond,
}

/// Makes blocks of frames.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// Where it begins, and the block so far.
    open: Option<(u64, Block)>,
}

impl BlockBuilder {
    /// Adds a frame. Answers the block before it, if that is complete.
    #[inline]
    pub(crate) fn add(&mut self, position: u64, relative_offset: u32, greatest_ms: i64) -> Option<Block> {
        match &mut self.open {
            Some((start, block)) if position.saturating_sub(*start) < BLOCK_BYTES => {
                block.greatest_ms = block.greatest_ms.max(greatest_ms);
                None
            }
            open => open.replace((position, Block { greatest_ms, relative_offset })).map(|(_, block)| block),
        }
    }

    /// Ends the block that was begun, if there is one.
    pub(crate) fn finish(&mut self) -> Option<Block> {
        self.open.take().map(|(_, block)| block)
    }
}

/// What is known of the times in one segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentTimes {
    known: Mutex<Known>,
    /// Held by who finds out what is missing.
    completing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    missing: Option<Missing>,
    blocks: Vec<Block>,
    /// Where the frames begin that are in no block yet, as a relative offset.
    behind: u64,
    /// Whether there is more than the file says.
    unsaved: bool,
}

/// The blocks of the frames before this end aren't known: they are in a file with this bond, or have to be made.
#[derive(Debug, Clone, Copy)]
struct Missing {
    end: u64,
    bond: Option<Bond>,
}

/// Where a lookup goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// In a block that has what is looked for, or may have: relative offsets; no end if it is the last one.
    Block(Range<u64>),
    /// Behind all blocks, at this relative offset.
    Behind(u64),
}

impl SegmentTimes {
    /// Says that frames up to `end` are there and not known. The next block begins at a relative offset of `behind`. To
    /// be called before anybody else has the segment.
    pub(crate) fn begin(&self, end: u64, behind: u64, bond: Option<Bond>) {
        let missing = (end > DATA_START).then_some(Missing { end, bond });
        *self.known.lock() = Known { missing, blocks: Vec::new(), behind, unsaved: false };
    }

    /// Adds a block, behind which frames begin at a relative offset of `behind`. Called by the writer alone.
    pub(crate) fn push(&self, block: Block, behind: u64) {
        let mut known = self.known.lock();
        known.blocks.push(block);
        known.behind = behind;
        known.unsaved = true;
    }

    /// The first block that reaches beyond the relative offset `from` and isn't wholly before `time_ms`.
    pub(crate) fn lookup(&self, from: u64, time_ms: i64) -> Lookup {
        let known = self.known.lock();
        let starts = |at: usize| known.blocks.get(at).map(|block| u64::from(block.relative_offset));
        let first = known.blocks.partition_point(|block| u64::from(block.relative_offset) <= from).saturating_sub(1);
        let may_have = |block: &Block| block.greatest_ms >= time_ms;
        match known.blocks[first..].iter().position(may_have).map(|at| first + at) {
            Some(at) => Lookup::Block(starts(at).unwrap_or(0)..starts(at + 1).unwrap_or(u64::MAX)),
            None => Lookup::Behind(known.behind),
        }
    }

    /// The greatest time of all blocks; `None` while some aren't known.
    pub(crate) fn greatest_ms(&self) -> Option<i64> {
        let known = self.known.lock();
        known.missing.is_none().then(|| greatest_ms(&known.blocks))
    }
}

impl Segment {
    /// Finds out which blocks are missing, if any: from the file, else from the frames.
    pub(crate) fn complete_times(&self, storage: &dyn Storage) {
        if self.times.known.lock().missing.is_none() {
            return;
        }
        let _completing = self.times.completing.lock();
        if self.load_times(storage) {
            return;
        }
        let Some(Missing { end, bond }) = self.times.known.lock().missing else { return };
        self.splice_times(self.blocks_of_frames(end), true);
        // Of a segment that is still being written the file comes when it is sealed and durable.
        if let Some(bond @ Bond::Successor(_)) = bond {
            self.write_times(storage, end, bond);
        }
    }

    /// Writes the file, unless that would take reading frames. `end` and all before it are on the device. Errors don't
    /// matter: what isn't there is made anew by whoever needs it. For the same reason it isn't waited for somebody who
    /// reads the frames just now: those who wait for a sync would wait with us.
    pub(crate) fn save_times(&self, storage: &dyn Storage, end: u64, bond: Bond) {
        let Some(_completing) = self.times.completing.try_lock() else { return };
        if self.load_times(storage) {
            self.write_times(storage, end, bond);
        }
    }

    /// As [`save_times`](Segment::save_times), for a segment that will be appended to again by and by: only if there is
    /// something to write that is worth it.
    pub(crate) fn save_active_times(&self, storage: &dyn Storage, end: u64, epoch: u32) {
        let news = self.times.known.lock().unsaved;
        // A single block is as soon read from the frames.
        if news && end.saturating_sub(DATA_START) > BLOCK_BYTES {
            self.save_times(storage, end, Bond::Epoch(epoch));
        }
    }

    /// Gets the missing blocks from the file, if it is to be believed. False if some are still missing.
    fn load_times(&self, storage: &dyn Storage) -> bool {
        let Some(Missing { end, bond }) = self.times.known.lock().missing else { return true };
        let Some(bond) = bond else { return false };
        let coverage = Coverage { segment_id: self.header.segment_id, end, bond };
        match read_blocks(storage, &time_index_path(&self.path), coverage) {
            Some(blocks) => {
                self.splice_times(blocks, false);
                true
            }
            None => false,
        }
    }

    /// Puts what was missing before what the writer has added.
    fn splice_times(&self, mut blocks: Vec<Block>, unsaved: bool) {
        let mut known = self.times.known.lock();
        blocks.append(&mut known.blocks);
        known.blocks = blocks;
        known.missing = None;
        known.unsaved |= unsaved;
    }

    fn write_times(&self, storage: &dyn Storage, end: u64, bond: Bond) {
        let path = time_index_path(&self.path);
        let blocks = self.times.known.lock().blocks.clone();
        let bytes = encode(Coverage { segment_id: self.header.segment_id, end, bond }, &blocks);
        // Where that fails, what is there stays: who reads it sees what it covers.
        if replace_file(storage, &path, |file| file.write_all_at(&bytes, 0)).is_ok() {
            self.times.known.lock().unsaved = false;
        }
    }

    /// The blocks of the frames up to `end`, which is published.
    fn blocks_of_frames(&self, end: u64) -> Vec<Block> {
        // SAFETY: `end` is at or below the published end.
        let mut bytes = unsafe { self.published(0, end) };
        let Ok(blocks) = blocks_of_frames(&self.header, &mut bytes, end, |_, _| {});
        blocks
    }
}

/// The blocks of a segment's frames up to `end`. Each frame with records is shown to `see`, with its position, also those
/// of which only the header holds.
pub(super) fn blocks_of_frames<S: Source>(
    segment: &SegmentHeader,
    source: &mut S,
    end: u64,
    mut see: impl FnMut(u64, &FrameHeader),
) -> Result<Vec<Block>, S::Error> {
    let (mut blocks, mut builder, mut behind) = (Vec::new(), BlockBuilder::default(), 0);
    let mut scan = Scan::headers(segment.frame_seed(), DATA_START);
    loop {
        match scan.next_in(source)? {
            Found::Frame { header, .. } if header.is_filler() => {}
            Found::Frame { position, header } => {
                see(position, &header);
                let time_ms = greatest_time_in(segment, &header, source, position)?;
                blocks.extend(builder.add(position, header.relative_offset, time_ms));
                behind = header.next_relative_offset();
            }
            Found::Damage { range, .. } => blocks.extend(builder.add(range.start, clamped(behind), UNKNOWN_MS)),
            Found::End { position } => {
                if position < end {
                    // Zeros in place of frames, or a file that was cut.
                    blocks.extend(builder.add(position, clamped(behind), UNKNOWN_MS));
                }
                blocks.extend(builder.finish());
                return Ok(blocks);
            }
        }
    }
}

/// The greatest time in a frame, whose header holds.
fn greatest_time_in<S: Source>(
    segment: &SegmentHeader,
    header: &FrameHeader,
    source: &mut S,
    position: u64,
) -> Result<i64, S::Error> {
    let append_time_ms = segment.base_timestamp_ms.saturating_add(header.relative_time_ms.into());
    if !header.has_times_in_body() {
        return Ok(append_time_ms);
    }
    let frame = source.at(position, header.frame_bytes())?;
    if header.verify_body(frame, segment.frame_seed(), position).is_err() {
        return Ok(UNKNOWN_MS);
    }
    Ok(greatest_time_of(header, frame, append_time_ms))
}

/// The greatest time in a frame that is what was written.
fn greatest_time_of(header: &FrameHeader, frame: &[u8], append_time_ms: i64) -> i64 {
    if header.unknown_attributes() != 0 {
        return UNKNOWN_MS;
    }
    if !header.has_times_in_body() {
        return append_time_ms;
    }
    let times = frame::records(header, frame).map(|view| view.client_time_ms.unwrap_or(append_time_ms));
    times.max().unwrap_or(append_time_ms)
}

/// A relative offset as an entry holds it. A greater one is that of no frame.
fn clamped(relative_offset: u64) -> u32 {
    u32::try_from(relative_offset).unwrap_or(u32::MAX)
}

/// Of no blocks: less than anything.
fn greatest_ms(blocks: &[Block]) -> i64 {
    blocks.iter().map(|block| block.greatest_ms).max().unwrap_or(i64::MIN)
}

pub(super) fn encode(coverage: Coverage, blocks: &[Block]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES + blocks.len() * ENTRY_BYTES];
    let (header, entries) = bytes.split_at_mut(HEADER_BYTES);
    for (entry, block) in entries.chunks_exact_mut(ENTRY_BYTES).zip(blocks) {
        let (time, relative_offset) = entry.split_at_mut(size_of::<i64>());
        LittleEndian::write_i64(time, block.greatest_ms);
        LittleEndian::write_u32(relative_offset, block.relative_offset);
    }
    let (successor, epoch) = coverage.bond.fields();
    header[MAGIC_AT..SEGMENT_ID_AT].copy_from_slice(&MAGIC);
    LittleEndian::write_u64(&mut header[SEGMENT_ID_AT..SUCCESSOR_AT], coverage.segment_id);
    LittleEndian::write_u64(&mut header[SUCCESSOR_AT..END_AT], successor);
    LittleEndian::write_u64(&mut header[END_AT..GREATEST_AT], coverage.end);
    LittleEndian::write_i64(&mut header[GREATEST_AT..EPOCH_AT], greatest_ms(blocks));
    LittleEndian::write_u32(&mut header[EPOCH_AT..COUNT_AT], epoch);
    // A segment has fewer than 2^20 blocks.
    LittleEndian::write_u32(&mut header[COUNT_AT..ENTRIES_CHECK_AT], blocks.len() as u32);
    LittleEndian::write_u32(&mut header[ENTRIES_CHECK_AT..HEADER_CHECK_AT], crc32fast::hash(entries));
    let check = crc32fast::hash(&header[..HEADER_CHECK_AT]);
    LittleEndian::write_u32(&mut header[HEADER_CHECK_AT..], check);
    bytes
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    segment_id: u64,
    end: u64,
    bond: (u64, u32),
    pub(super) greatest_ms: i64,
    pub(super) count: u32,
    pub(super) entries_check: u32,
}

impl Summary {
    /// `None` if the header isn't what was written.
    pub(super) fn decode(header: &[u8]) -> Option<Self> {
        let (fields, check) = header.split_at_checked(HEADER_CHECK_AT)?;
        let mut reader = Reader::new(fields);
        let magic = reader.array::<{ MAGIC.len() }>()?;
        let (segment_id, successor, end) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (greatest_ms, epoch) = (reader.i64()?, reader.u32()?);
        let (bond, count, entries_check) = ((successor, epoch), reader.u32()?, reader.u32()?);
        let intact = *magic == MAGIC && Reader::new(check).u32()? == crc32fast::hash(fields);
        intact.then_some(Self { segment_id, end, bond, greatest_ms, count, entries_check })
    }

    /// Whether the file is about just this.
    pub(super) fn covers(&self, coverage: Coverage) -> bool {
        (self.segment_id, self.end, self.bond) == (coverage.segment_id, coverage.end, coverage.bond.fields())
    }

    /// How long the file is.
    pub(super) fn file_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.count) * ENTRY_BYTES as u64
    }
}

impl Block {
    /// As an entry holds it; `None` if there are too few bytes.
    pub(super) fn decode(entry: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(entry);
        Some(Self { greatest_ms: reader.i64()?, relative_offset: reader.u32()? })
    }
}

/// The greatest time that the file at `path` tells, if it is to be believed. Reads its header alone.
pub(crate) fn read_greatest_ms(storage: &dyn Storage, path: &Path, coverage: Coverage) -> Option<i64> {
    Some(open(storage, path, coverage)?.1.greatest_ms)
}

fn read_blocks(storage: &dyn Storage, path: &Path, coverage: Coverage) -> Option<Vec<Block>> {
    let (file, summary) = open(storage, path, coverage)?;
    let entries_bytes = (summary.count as usize).checked_mul(ENTRY_BYTES)?;
    // First the length, so that no more is allocated than there is.
    if file.len().ok()? != (HEADER_BYTES + entries_bytes) as u64 {
        return None;
    }
    let mut entries = vec![0; entries_bytes];
    let read = file.read_at(&mut entries, HEADER_BYTES as u64).ok()?;
    if read != entries_bytes || crc32fast::hash(&entries) != summary.entries_check {
        return None;
    }
    let mut reader = Reader::new(&entries);
    (0..summary.count).map(|_| Block::decode(reader.bytes(ENTRY_BYTES)?)).collect()
}

fn open(storage: &dyn Storage, path: &Path, coverage: Coverage) -> Option<(Arc<dyn File>, Summary)> {
    let open = || -> io::Result<Option<_>> {
        if storage.entry_kind(path)? != Some(EntryKind::File) {
            return Ok(None);
        }
        let file = storage.open(path, OpenMode::Read)?;
        let mut header = [0; HEADER_BYTES];
        let read = file.read_at(&mut header, 0)?;
        let summary = Summary::decode(&header[..read]).filter(|summary| summary.covers(coverage));
        Ok(summary.map(|summary| (file, summary)))
    };
    open().ok().flatten()
}

#[cfg(any(fuzzing, all(test, not(loom))))]
pub(crate) mod fuzzing;
