//! Opening a partition: who may be believed, and what to do when nobody can.
//!
//! In this order:
//! 1. A *clean mark* in the checkpoint, if the last segment's length is what it says. Costs no scan.
//! 2. The *control page*, if it is this boot's, this mount's and these very files', the last frames verify, and no frames
//!    follow but one that the writer was killed at: a process was killed, and the page cache has everything. Costs a
//!    walk of about 4 KiB.
//! 3. The frames behind the durable mark ([`salvage`](super::salvage)).
//!
//! # Invariants
//! - Opening twice, or being killed while opening, changes nothing that the first time didn't.
//! - After 2 and 3 the space behind the end is zeros, on the device, and the epoch is raised, before the first append:
//!   or else an unpublished frame of the killed writer could come back after a power cut at an offset that somebody
//!   has used since.
//! - After 2 and 3 all that is readable is durable.
//!
//! # Thread safety
//! Runs before anybody else has the partition.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, ErrorKind, Result},
    frame::{self, FrameHeader},
    partition::{
        Environment, OFFSET_CEILING_STEP, PartitionSpec, RESERVE_STEP_MIN,
        checkpoint::{Checkpoint, CheckpointFault, CheckpointState, CleanMark},
        control::{ControlPage, LogPosition, Previous, PreviousPage},
        offset_index::OffsetIndex,
        report::{Opening, PartitionRecovery, RecoveryEvent},
        salvage,
        scan::{FileSource, Found, Scan, Source},
        segment::{
            self, Segment, SegmentSlot, TEMPORARY_EXTENSION, index_path, open_file, remove_indexes, segment_path,
        },
        set_aside::TornTail,
    },
    segment_header::{DATA_START, Predecessor, SegmentHeader},
    storage::{EntryKind, File, OpenMode, Storage},
};

/// A partition as it was found: everything that [`PartitionLog`](super::PartitionLog) begins with.
pub(crate) struct Recovered {
    /// All segments, the active one last.
    pub(crate) slots: Vec<Arc<SegmentSlot>>,
    pub(crate) active: Arc<Segment>,
    /// The end of the active segment's frames.
    pub(crate) end: LogPosition,
    pub(crate) next_offset: u64,
    pub(crate) last_time_ms: i64,
    pub(crate) checkpoint: Checkpoint,
    /// Why the partition takes no appends, if so.
    pub(crate) poison: Option<String>,
    /// What has to be set aside before the first append.
    pub(crate) torn: Option<TornTail>,
    pub(crate) report: PartitionRecovery,
}

/// The end of a log: what the next append goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) next_offset: u64,
    pub(crate) last_time_ms: i64,
    pub(crate) epoch: u32,
}

/// The folder of a partition that is being opened.
pub(crate) struct Opener<'a> {
    pub(crate) env: &'a Environment,
    pub(crate) dir: &'a Path,
    pub(crate) spec: &'a PartitionSpec,
    /// Base offsets of the segments there are, ascending.
    pub(crate) bases: Vec<u64>,
    /// How segments are opened: for reading alone by who only wants to know.
    pub(crate) mode: OpenMode,
}

/// The active segment, and where its frames end.
pub(crate) struct Ending {
    base: u64,
    file: Arc<dyn File>,
    pub(crate) header: SegmentHeader,
    pub(crate) end: LogPosition,
}

/// Opens or creates the partition in `dir`.
pub(crate) fn open(env: &Environment, dir: &Path, spec: &PartitionSpec) -> Result<Recovered> {
    let storage = &*env.storage;
    storage.create_own_dir(dir).map_err(|source| Error::io("create the folder", dir, source))?;
    let mut opener = Opener { env, dir, spec, bases: Vec::new(), mode: OpenMode::ReadWrite };
    opener.list()?;
    let mut checkpoint = Checkpoint::open(storage, dir)?;
    if let Some(checkpoint) = &mut checkpoint {
        let state = checkpoint.state();
        if state.topic_id != spec.topic_id || state.partition != spec.number {
            let path = dir.join(super::checkpoint::FILE_NAME);
            return Err(Error::corruption(path, 0, "the checkpoint belongs to another partition"));
        }
        opener.remove_deleted(checkpoint)?;
    }
    let lost_slot = checkpoint.as_ref().and_then(lost_slot_event);
    let page = ControlPage::read_previous(storage, dir)?;
    let mut recovered = recover(opener, checkpoint, &page)?;
    recovered.report.events.extend(lost_slot);
    Ok(recovered)
}

/// What there is to tell of a checkpoint of which only one slot is left.
fn lost_slot_event(checkpoint: &Checkpoint) -> Option<RecoveryEvent> {
    let detail = checkpoint.lost_slot()?.to_owned();
    Some(RecoveryEvent::CheckpointSlotLost { file: checkpoint.path().to_owned(), detail })
}

/// Finds the end of the log in one of the three ways.
fn recover(opener: Opener<'_>, checkpoint: Option<Checkpoint>, page: &PreviousPage) -> Result<Recovered> {
    let checkpoint = match checkpoint {
        None if opener.bases.is_empty() => return opener.create(),
        Some(checkpoint) if !checkpoint.state().poisoned && !page.poisoned => {
            if let Some(recovered) = opener.open_clean(&checkpoint)? {
                return Ok(recovered.with_checkpoint(checkpoint));
            }
            let state = checkpoint.state();
            let resumed = page.believed.map(|previous| opener.resume(&previous, page.syncing, state));
            if let Some(mut found) = resumed.unwrap_or(Ok(None))? {
                let log_start_offset = state.log_start_offset;
                opener.note_missing_start(log_start_offset, &mut found.events);
                return opener.settle(found, Some(checkpoint), log_start_offset);
            }
            Some(checkpoint)
        }
        other => other,
    };
    // What a sync was at when its process was killed doesn't verify, or isn't on the device.
    let failed = page.believed.is_some() && page.syncing;
    salvage::open(opener, checkpoint, PreviousPage { poisoned: page.poisoned || failed, ..*page })
}

/// A partition that was found by its clean mark; wants only its checkpoint.
struct CleanlyClosed {
    slots: Vec<Arc<SegmentSlot>>,
    active: Arc<Segment>,
    end: LogPosition,
    next_offset: u64,
    last_time_ms: i64,
    report: PartitionRecovery,
}

impl CleanlyClosed {
    fn with_checkpoint(self, checkpoint: Checkpoint) -> Recovered {
        Recovered {
            slots: self.slots,
            active: self.active,
            end: self.end,
            next_offset: self.next_offset,
            last_time_ms: self.last_time_ms,
            checkpoint,
            poison: None,
            torn: None,
            report: self.report,
        }
    }
}

/// A partition whose end is known, but not yet safe to append at.
pub(crate) struct Unsettled {
    pub(crate) slots: Vec<Arc<SegmentSlot>>,
    pub(crate) active: Arc<Segment>,
    pub(crate) end: LogPosition,
    pub(crate) tail: Tail,
    pub(crate) opening: Opening,
    pub(crate) events: Vec<RecoveryEvent>,
    pub(crate) poison: Option<String>,
    pub(crate) torn: Option<TornTail>,
}

impl Opener<'_> {
    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.env.storage
    }

    pub(crate) fn path(&self, base_offset: u64) -> PathBuf {
        segment_path(self.dir, base_offset)
    }

    pub(crate) fn report(&self, opening: Opening, events: Vec<RecoveryEvent>) -> PartitionRecovery {
        PartitionRecovery { topic: self.spec.topic.to_string(), partition: self.spec.number, opening, events }
    }

    /// Reads the folder; removes what an interrupted create or replace left under a temporary name, and indexes without
    /// a segment.
    fn list(&mut self) -> Result<()> {
        let storage = self.storage();
        let entries = storage.list(self.dir).map_err(|source| Error::io("list", self.dir, source))?;
        let (mut bases, mut indexes) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = self.dir.join(&entry.name);
            if let Some(base) = segment::base_offset_of(&entry.name) {
                if entry.kind != EntryKind::File {
                    return Err(Error::corruption(path, 0, "there is something else in the place of a segment"));
                }
                bases.push(base);
            } else if entry.kind == EntryKind::File && path.extension().is_some_and(|it| it == TEMPORARY_EXTENSION) {
                // A look-up of a handle that was just closed may be finishing an index, and rename it or remove it itself.
                storage.remove_if_there(&path).map_err(|source| Error::io("remove", &path, source))?;
            } else if entry.kind == EntryKind::File {
                indexes.extend(segment::base_offset_of_index(&entry.name).map(|base| (base, path)));
            }
        }
        bases.sort_unstable();
        for (_, path) in indexes.iter().filter(|(base, _)| bases.binary_search(base).is_err()) {
            // Of a segment that was deleted while somebody looked something up in it. Nobody minds if it stays.
            let _ = storage.remove_file(path);
        }
        self.bases = bases;
        Ok(())
    }

    /// How many of the oldest segments were deleted before this log start, and are still there.
    ///
    /// A segment that begins at the log start may be newer than that, and lost in a power cut: where the one before it is
    /// empty, the start can be raised to the end without a roll. Then that one holds the durable mark, and goes later.
    pub(crate) fn deleted_segments(&self, log_start_offset: u64) -> Result<usize> {
        let mut deleted = self.bases.windows(2).take_while(|pair| pair[1] <= log_start_offset).count();
        while deleted > 0 && self.intact_file(self.bases[deleted])?.is_none() {
            deleted -= 1;
        }
        Ok(deleted)
    }

    /// Finishes a deletion that was interrupted behind its checkpoint.
    fn remove_deleted(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        let deleted = self.deleted_segments(checkpoint.state().log_start_offset)?;
        if deleted == 0 {
            return Ok(());
        }
        // The log start that was read may not be on the device yet.
        match checkpoint.settle(self.storage()) {
            // No space: the segments may as well go another time.
            Err(CheckpointFault::Write(_)) => return Ok(()),
            outcome => outcome?,
        }
        for base in self.bases.drain(..deleted).collect::<Vec<_>>() {
            remove_segment(self.storage(), &self.path(base))?;
        }
        Ok(())
    }

    /// The segments before the last one, not opened yet.
    pub(crate) fn sealed_slots(&self) -> Vec<Arc<SegmentSlot>> {
        let sealed = self.bases.len().saturating_sub(1);
        self.bases[..sealed].iter().map(|&base| Arc::new(SegmentSlot::unopened(base, self.path(base)))).collect()
    }

    /// A partition with one empty segment.
    fn create(&self) -> Result<Recovered> {
        let header = self.new_header(0, 0, i64::MIN, None)?;
        let active = Arc::new(self.create_segment(header)?);
        let end = position(&active, DATA_START)?;
        let state = CheckpointState {
            topic_id: self.spec.topic_id,
            partition: self.spec.number,
            log_start_offset: 0,
            durable: end,
            durable_offset: 0,
            offset_ceiling: OFFSET_CEILING_STEP,
            epoch: 0,
            poisoned: false,
            clean: None,
        };
        let sync = active.open_file(self.env).and_then(|file| file.sync_all());
        sync.map_err(|source| Error::io("sync the new segment", &active.path, source))?;
        // Creating the checkpoint syncs the folder, and with it the segment's name.
        let checkpoint = Checkpoint::create(self.storage(), self.dir, state)?;
        Ok(Recovered {
            slots: vec![Arc::new(SegmentSlot::opened(active.clone()))],
            last_time_ms: active.header.base_timestamp_ms,
            active,
            end,
            next_offset: 0,
            checkpoint,
            poison: None,
            torn: None,
            report: self.report(Opening::Created, Vec::new()),
        })
    }

    /// The header of a new segment, which begins now or at `last_time_ms` if that is later.
    pub(crate) fn new_header(
        &self,
        sequence: u64,
        base_offset: u64,
        last_time_ms: i64,
        predecessor: Option<Predecessor>,
    ) -> Result<SegmentHeader> {
        if base_offset >= super::writer::OFFSET_LIMIT {
            let path = self.dir.join(super::checkpoint::FILE_NAME);
            return Err(Error::corruption(path, 0, "the log's offsets are used up, or the checkpoint is forged"));
        }
        let base_timestamp_ms = self.env.clock.now_ms().max(last_time_ms);
        super::new_segment_header(self.spec, sequence, base_offset, base_timestamp_ms, predecessor)
    }

    pub(crate) fn create_segment(&self, header: SegmentHeader) -> Result<Segment> {
        Segment::create(self.env, self.dir, header, self.spec.segment_file_bytes(), RESERVE_STEP_MIN)
    }

    /// Where the clean mark says that the log ends, if it may be believed.
    pub(crate) fn clean_end(&self, checkpoint: &Checkpoint) -> Result<Option<(CleanMark, Ending)>> {
        if checkpoint.lost_slot().is_some() {
            // It may have been the newer one: of a process that appended, and lost that with the power.
            return Ok(None);
        }
        let (Some(mark), Some(&base)) = (checkpoint.state().clean, self.bases.last()) else { return Ok(None) };
        let path = self.path(base);
        let Some((file, header)) = self.intact_file(base)? else { return Ok(None) };
        let len = file.len().map_err(|source| Error::io("read the length of", &path, source))?;
        let end = LogPosition::new(header.sequence, mark.end_position);
        let (true, Some(end)) = (header.segment_id == mark.segment_id && len == mark.end_position, end) else {
            return Ok(None);
        };
        if mark.end_position < DATA_START || mark.next_offset < header.base_offset {
            return Ok(None);
        }
        Ok(Some((mark, Ending { base, file, header, end })))
    }

    /// The partition as its clean mark describes it, if that may be believed.
    fn open_clean(&self, checkpoint: &Checkpoint) -> Result<Option<CleanlyClosed>> {
        let Some((mark, Ending { base, file, header, end })) = self.clean_end(checkpoint)? else { return Ok(None) };
        let active = self.map_active(header, self.path(base), file, mark.end_position)?;
        let mut slots = self.sealed_slots();
        slots.push(Arc::new(SegmentSlot::opened(active.clone())));
        let mut events = Vec::new();
        self.note_missing_start(checkpoint.state().log_start_offset, &mut events);
        Ok(Some(CleanlyClosed {
            slots,
            active,
            end,
            next_offset: mark.next_offset,
            last_time_ms: mark.last_time_ms,
            report: self.report(Opening::Clean, events),
        }))
    }

    /// Where the control page says that the log ends, if its files are the page's. Whether the last frames verify is for
    /// the caller to see.
    pub(crate) fn page_end(&self, previous: &Previous, known: &CheckpointState) -> Result<Option<Ending>> {
        // No check covers the words that move with each append. What can't be is not believed; for what has to be
        // synced nobody but the checkpoint is asked.
        if previous.next_offset > known.offset_ceiling || previous.reserved_in_vain() {
            return Ok(None);
        }
        let Some(&base) = self.bases.last() else { return Ok(None) };
        let Some((file, header)) = self.intact_file(base)? else { return Ok(None) };
        let end = if previous.is_segment(header.segment_id, &*file) {
            previous.committed
        } else if self.rolled_unpublished(previous, &header)? {
            // Killed between the roll's rename and its publication: the new segment is empty.
            match LogPosition::new(header.sequence, DATA_START) {
                Some(end) => end,
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        let path = self.path(base);
        let len = file.len().map_err(|source| Error::io("read the length of", &path, source))?;
        if u64::from(end.sequence()) != header.sequence || !(DATA_START..=len).contains(&end.file_position()) {
            return Ok(None);
        }
        let behind = |end| frame_behind(&file, &header, end).map_err(|source| Error::io("read", &path, source));
        let mut end = end;
        if let Some(stored) = behind(end.file_position())? {
            // The writer was killed between storing a frame and publishing it. More than one tell of a page that is older
            // than the segment, or damaged: to believe it would take away what was appended since.
            let stored_end = LogPosition::new(header.sequence, stored);
            let (Some(stored_end), None) = (stored_end, behind(stored)?) else { return Ok(None) };
            end = stored_end;
        }
        if end < known.durable {
            return Ok(None);
        }
        Ok(Some(Ending { base, file, header, end }))
    }

    /// The partition as the control page describes it, if its files are the page's and the last frames verify.
    fn resume(&self, previous: &Previous, was_syncing: bool, known: &CheckpointState) -> Result<Option<Unsettled>> {
        let Some(Ending { base, file, header, end }) = self.page_end(previous, known)? else { return Ok(None) };
        let len = file.len().map_err(|source| Error::io("read the length of", self.path(base), source))?;
        let active = self.map_active(header, self.path(base), file.clone(), end.file_position())?;
        let Some(tail) = verify_tail(&active, end.file_position()) else { return Ok(None) };
        let mut slots = self.sealed_slots();
        slots.push(Arc::new(SegmentSlot::opened(active.clone())));
        let in_doubt = match was_syncing {
            true => self.in_doubt(known.durable, &slots, &active, end.file_position())?,
            false => Some(Vec::new()),
        };
        let Some(in_doubt) = in_doubt.filter(|doubts| doubts.iter().all(Doubt::verifies)) else { return Ok(None) };
        let bound =
            if previous.reserved.sequence() == end.sequence() { previous.reserved.file_position() } else { len };
        zero_behind(&file, end.file_position(), bound)
            .map_err(|source| Error::io("zero the space behind the end of", &active.path, source))?;
        let tail = Tail { next_offset: tail.next_offset.max(previous.next_offset), ..tail };
        // Where there is no space for the mark there is no page, and nobody believes one.
        let _ = ControlPage::leave_syncing(self.storage(), self.dir);
        let poison = self.sync_from(known.durable, &slots).err().map(|error| error.to_string());
        if poison.is_some() {
            let _ = ControlPage::leave_poisoned(self.storage(), self.dir);
        } else if !in_doubt.iter().all(Doubt::is_on_device) {
            return Ok(None);
        }
        Ok(Some(Unsettled {
            slots,
            active,
            end,
            tail,
            opening: Opening::Resumed,
            events: Vec::new(),
            poison,
            torn: None,
        }))
    }

    /// What a sync was at that its process didn't see the end of. If it has failed, all of that counts as clean, no later
    /// sync would write it, and none would tell. `None` if a segment's header is damaged, which the scan looks into.
    fn in_doubt(
        &self,
        durable: LogPosition,
        slots: &[Arc<SegmentSlot>],
        active: &Segment,
        end: u64,
    ) -> Result<Option<Vec<Doubt>>> {
        // What the last frames say was durable when they were written saves reading all behind the checkpoint's mark.
        let claimed = claimed_durable(active, end);
        let (mut doubts, mut next) = (Vec::new(), None::<SegmentHeader>);
        for slot in slots.iter().rev() {
            let open = slot.held_file().map_or_else(|| self.storage().open(&slot.path, OpenMode::Read), Ok);
            let file = open.map_err(|source| Error::io("open the segment", &slot.path, source))?;
            let Some(header) = slot.header_if_intact(self.storage(), self.spec)? else { return Ok(None) };
            let end = next.map_or(Some(end), |next| {
                let before = next.predecessor.filter(|before| before.segment_id == header.segment_id)?;
                Some(before.end_position)
            });
            let reached = header.sequence <= durable.sequence().into();
            let mark = if header.sequence == u64::from(durable.sequence()) { durable.file_position() } else { 0 };
            let claimed = claimed.filter(|_| next.is_none());
            let start = mark.max(claimed.unwrap_or(0)).max(DATA_START);
            doubts.push(Doubt { file, header, start, end: end.unwrap_or(u64::MAX) });
            if reached || claimed.is_some() {
                break;
            }
            next = Some(header);
        }
        Ok(Some(doubts))
    }

    /// Whether the last segment is the empty successor of the one that the page names as active.
    fn rolled_unpublished(&self, previous: &Previous, last: &SegmentHeader) -> Result<bool> {
        let Some(&base) = self.bases.iter().nth_back(1) else { return Ok(false) };
        let Some((file, header)) = self.intact_file(base)? else { return Ok(false) };
        let follows = last.predecessor.is_some_and(|predecessor| {
            predecessor.segment_id == header.segment_id
                && predecessor.end_position == previous.committed.file_position()
        });
        Ok(follows && previous.is_segment(header.segment_id, &*file))
    }

    /// Opens a segment's file. `None` if its header is damaged, which the scan looks into.
    pub(crate) fn intact_file(&self, base: u64) -> Result<Option<(Arc<dyn File>, SegmentHeader)>> {
        match open_file(self.storage(), &self.path(base), self.mode, self.spec, base) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Maps the active segment and its index; the latter is made anew if it isn't what it should be. Frames are read
    /// with `pread`: what the device doesn't give has no entries in the index then, and the process goes on.
    pub(crate) fn map_active(
        &self,
        header: SegmentHeader,
        path: PathBuf,
        file: Arc<dyn File>,
        end: u64,
    ) -> Result<Arc<Segment>> {
        let segment = Segment::open_active(header, path, file.clone(), self.spec.segment_file_bytes(), self.env)?;
        let failed = |source| Error::io("read the length of", &segment.path, source);
        let mut frames = FileSource::new(file).map_err(failed)?.until(end);
        let index = self.active_index(&segment, &mut frames)?;
        // Whoever reads there is told; lookups walk further.
        let _ = segment.fill_index(&index, &mut frames);
        segment.set_index(index);
        Ok(Arc::new(segment))
    }

    /// The index of the active segment: the one that is there, a new one, or, where the disk is too full for either, one
    /// that lives in memory.
    fn active_index(&self, segment: &Segment, frames: &mut FileSource) -> Result<OffsetIndex> {
        let path = index_path(&segment.path);
        let (id, len, end) = (segment.header.segment_id, segment.region.len() as u64, frames.len());
        let make = |persistent| OffsetIndex::create(self.storage(), &path, id, len, end, persistent);
        // What can't be read speaks against none.
        let mut names_a_frame = |entry| segment.names_a_frame_in(entry, frames).unwrap_or(true);
        let mut ours = |index: &OffsetIndex| index.last().is_none_or(&mut names_a_frame);
        if self.env.positional_appends {
            // In memory, so no larger than a segment gets, whatever length its file has.
            let len = len.min(end.max(self.spec.segment_file_bytes()));
            let loaded = OffsetIndex::load_active(self.storage(), &path, id, len, end)?;
            let make = || OffsetIndex::create(self.storage(), &path, id, len, end, false);
            return if ours(&loaded) { Ok(loaded) } else { make() };
        }
        let found = OffsetIndex::open_active(self.storage(), &path, id, len, end).filter(ours);
        match found.map_or_else(|| make(true), Ok) {
            Err(error) if error.kind() == ErrorKind::StorageFull => make(false),
            outcome => outcome,
        }
    }

    /// Syncs the segments that `durable` doesn't cover, and the folder.
    pub(crate) fn sync_from(&self, durable: LogPosition, slots: &[Arc<SegmentSlot>]) -> Result<()> {
        for slot in slots.iter().rev() {
            // Through the handle that something may have been zeroed through.
            let held = slot.held_file().map(Ok);
            let open = held.unwrap_or_else(|| self.storage().open(&slot.path, OpenMode::Read));
            let file = open.map_err(|source| Error::io("open the segment", &slot.path, source))?;
            file.sync_data().map_err(|source| Error::io("sync", &slot.path, source))?;
            let header = open_file(self.storage(), &slot.path, OpenMode::Read, self.spec, slot.base_offset);
            if header.is_ok_and(|(_, header)| header.sequence <= durable.sequence().into()) {
                break;
            }
        }
        self.storage().sync_dir(self.dir).map_err(|source| Error::io("sync the folder", self.dir, source))
    }

    /// Tells if the oldest segments are gone.
    pub(crate) fn note_missing_start(&self, log_start_offset: u64, events: &mut Vec<RecoveryEvent>) {
        if let Some(&oldest) = self.bases.first().filter(|&&oldest| oldest > log_start_offset) {
            events.push(RecoveryEvent::SegmentsMissing { offsets: log_start_offset..oldest });
        }
    }

    /// Writes down a found end, so that appends may go on there; in a new checkpoint if there is none.
    ///
    /// Where there is no space to write it (a copy-on-write file system) the first append does.
    pub(crate) fn settle(
        &self,
        mut found: Unsettled,
        checkpoint: Option<Checkpoint>,
        log_start_offset: u64,
    ) -> Result<Recovered> {
        let before = checkpoint.as_ref().map(|checkpoint| *checkpoint.state());
        let ceiling = found.tail.next_offset.saturating_add(OFFSET_CEILING_STEP);
        let mut state = CheckpointState {
            topic_id: self.spec.topic_id,
            partition: self.spec.number,
            log_start_offset,
            durable: found.end,
            durable_offset: found.tail.next_offset,
            offset_ceiling: before.map_or(ceiling, |before| before.offset_ceiling.max(ceiling)),
            epoch: before.map_or(0, |before| before.epoch).max(found.tail.epoch).saturating_add(1),
            poisoned: found.poison.is_some(),
            clean: None,
        };
        if found.poison.is_some() {
            // What is to be written anew by the next open begins where it did for this one.
            let nothing = (LogPosition::START, log_start_offset);
            let durable = before.map_or(nothing, |before| (before.durable, before.durable_offset));
            (state.durable, state.durable_offset) = durable;
        }
        let checkpoint = match checkpoint {
            None => Checkpoint::create(self.storage(), self.dir, state)?,
            Some(mut checkpoint) => {
                match checkpoint.write(self.storage(), state) {
                    Ok(()) => {}
                    Err(CheckpointFault::Write(_)) => checkpoint.defer(state),
                    Err(CheckpointFault::Sync(error)) => {
                        found.poison.get_or_insert(error.to_string());
                    }
                }
                checkpoint
            }
        };
        Ok(found.with_checkpoint(self, checkpoint))
    }
}

impl Unsettled {
    fn with_checkpoint(mut self, opener: &Opener<'_>, checkpoint: Checkpoint) -> Recovered {
        if let Some(detail) = &self.poison {
            self.events.push(RecoveryEvent::StillPoisoned { detail: detail.clone() });
        }
        Recovered {
            slots: self.slots,
            active: self.active,
            end: self.end,
            next_offset: self.tail.next_offset,
            last_time_ms: self.tail.last_time_ms,
            checkpoint,
            poison: self.poison,
            torn: self.torn,
            report: opener.report(self.opening, self.events),
        }
    }
}

/// Where the valid frame ends that begins at `end`, if there is one.
fn frame_behind(file: &Arc<dyn File>, header: &SegmentHeader, end: u64) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; frame::HEADER_BYTES];
    file.read_at(&mut bytes, end)?;
    let Ok(frame) = FrameHeader::decode(&bytes, header.frame_seed(), end) else { return Ok(None) };
    let frame_end = end.saturating_add(frame.frame_bytes() as u64);
    let mut source = FileSource::new(file.clone())?.until(frame_end);
    let found = Scan::verified(header.frame_seed(), end).next_in(&mut source)?;
    Ok(matches!(found, Found::Frame { .. }).then_some(frame_end))
}

/// Verifies the frames from the last index entry to `end`, where the last one has to end. `None` if they don't.
pub(crate) fn verify_tail(segment: &Segment, end: u64) -> Option<Tail> {
    let start = segment.index().and_then(|index| index.last()).map_or(DATA_START, |entry| entry.position);
    let mut source = FileSource::new(segment.file.get()?).ok()?.until(end);
    tail_of(&segment.header, &mut source, start, end).ok()?
}

/// The tail behind the frames from `start` to `end`, where the last one has to end, as has the source. `None` if they
/// aren't what was written.
pub(crate) fn tail_of(
    header: &SegmentHeader,
    source: &mut FileSource,
    start: u64,
    end: u64,
) -> std::io::Result<Option<Tail>> {
    let mut tail = Tail { next_offset: header.base_offset, last_time_ms: header.base_timestamp_ms, epoch: 0 };
    let mut scan = Scan::verified(header.frame_seed(), start);
    loop {
        match scan.next_in(source)? {
            Found::Frame { header: frame, .. } => match tail.then(header, &frame) {
                Some(behind) => tail = behind,
                None => return Ok(None),
            },
            Found::End { position } => return Ok((position == end && source.len() == end).then_some(tail)),
            Found::Damage { .. } => return Ok(None),
        }
    }
}

/// What the last frames say was durable when they were written, if that lies in the same segment.
fn claimed_durable(segment: &Segment, end: u64) -> Option<u64> {
    let start = segment.index().and_then(|index| index.last()).map_or(DATA_START, |entry| entry.position);
    let mut source = FileSource::new(segment.file.get()?).ok()?.until(end);
    let mut scan = Scan::verified(segment.seed, start);
    let mut claimed = None;
    while let Ok(Found::Frame { position, header }) = scan.next_in(&mut source) {
        claimed = claimed.max(header.durable_position(position).filter(|&durable| durable >= DATA_START));
    }
    claimed
}

/// Frames of which it isn't known whether they are on the device.
struct Doubt {
    file: Arc<dyn File>,
    header: SegmentHeader,
    start: u64,
    end: u64,
}

impl Doubt {
    /// Whether they are what was written, as far as the page cache goes.
    fn verifies(&self) -> bool {
        let Ok(source) = FileSource::new(self.file.clone()) else { return false };
        let mut source = source.until(self.end);
        let mut scan = Scan::verified(self.header.frame_seed(), self.start);
        loop {
            match scan.next_in(&mut source) {
                Ok(Found::Frame { .. }) => {}
                Ok(Found::End { position }) => return position == self.end,
                Ok(Found::Damage { .. }) | Err(_) => return false,
            }
        }
    }

    /// Whether the device has the same; and the header, if it may not have had that before.
    fn is_on_device(&self) -> bool {
        let start = if self.start == DATA_START { 0 } else { self.start };
        self.file.is_on_device(start..self.end).unwrap_or(false)
    }
}

impl Tail {
    /// The tail behind one more frame; `None` if its offset or epoch falls.
    fn then(&self, segment: &SegmentHeader, frame: &FrameHeader) -> Option<Self> {
        let base = segment.base_offset.checked_add(frame.relative_offset.into())?;
        if base < self.next_offset || frame.epoch < self.epoch { None } else { Self::behind(segment, frame) }
    }

    /// The tail of a log whose last frame is `frame`. `None` if its numbers overflow.
    pub(crate) fn behind(segment: &SegmentHeader, frame: &FrameHeader) -> Option<Self> {
        Some(Self {
            next_offset: segment.base_offset.checked_add(frame.next_relative_offset())?,
            last_time_ms: segment.base_timestamp_ms.checked_add(frame.relative_time_ms.into())?,
            epoch: frame.epoch,
        })
    }
}

/// A position in a segment as one in its log.
pub(crate) fn position(segment: &Segment, file_position: u64) -> Result<LogPosition> {
    LogPosition::new(segment.header.sequence, file_position)
        .ok_or_else(|| Error::corruption(&segment.path, file_position, "a position that no frame can have"))
}

/// Makes the bytes from `end` to `bound` zeros where they aren't. Nothing is written where zeros are already: holes stay
/// holes, however long the file is.
pub(crate) fn zero_behind(file: &Arc<dyn File>, end: u64, bound: u64) -> std::io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut source = FileSource::new(file.clone())?.until(bound);
    let mut position = end;
    while let Some(dirty) = super::scan::first_nonzero(&mut source, position)? {
        let window = source.at(dirty, ZEROS.len())?;
        let Some(last) = window.iter().rposition(|&byte| byte != 0) else { break };
        file.write_all_at(&ZEROS[..=last], dirty)?;
        position = dirty + window.len() as u64;
    }
    Ok(())
}

/// Removes a segment and its indexes, by a rename first: a half-removed segment is never seen under its name. What an
/// earlier attempt has done already is fine.
pub(crate) fn remove_segment(storage: &dyn Storage, path: &Path) -> Result<()> {
    let gone = path.with_extension(TEMPORARY_EXTENSION);
    remove_indexes(storage, path);
    let renamed = match storage.rename(path, &gone) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    renamed
        .and_then(|()| storage.remove_if_there(&gone))
        .map_err(|source| Error::io("remove the segment", path, source))
}
