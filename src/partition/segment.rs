//! A segment: one mapped file of frames, and the indexes beside it.
//!
//! # Format
//! Header copies, then frames from [`DATA_START`] on; see `src/doc/format.md`. The name is the base offset.
//!
//! # Invariants
//! - The file has its full length before it is mapped, and is never cut below the published end.
//! - A segment appears under its own name only with a complete header: it is made under a temporary one.
//! - An index that turns out to be wrong is rebuilt once; a lookup never answers with it.
//! - A sealed segment that is only read takes two maps (its own and its index's) and no descriptor.
//!
//! # Thread safety
//! Readers share a segment freely. The partition's writer alone stores into it, behind the published end.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arc_swap::{ArcSwapOption, ArcSwapWeak};

use crate::{
    error::{Error, ErrorKind, Repr, Result},
    frame::{ALIGNMENT, FrameHeader, FrameSeed},
    partition::{
        Environment, PartitionSpec,
        offset_index::{self, Entry, OffsetIndex},
        scan::{Found, Scan, Source},
        segment_file::SegmentFile,
        time_index::{Bond, SegmentTimes},
    },
    segment_header::{COPY_A_AT, COPY_B_AT, DATA_START, HeaderFault, Predecessor, SEGMENT_HEADER_BYTES, SegmentHeader},
    storage::{File, OpenMode, Region, Storage},
    sync::{AtomicU64, Mutex, Ordering},
};

/// What a segment's file name ends with.
const LOG_EXTENSION: &str = "log";
/// What its index's name ends with.
const INDEX_EXTENSION: &str = "index";
/// What its time index's name ends with.
const TIME_INDEX_EXTENSION: &str = "timeindex";
/// What the name of a file ends with that isn't a part of the partition yet, or no longer.
pub(crate) const TEMPORARY_EXTENSION: &str = "tmp";
/// How far before the likely place of a frame one is looked for, and how far behind it. Those of small frames that differ
/// in size lie within that; of larger ones there are few to walk over.
const LOOK_BEFORE: u64 = 192;
const LOOK_BEHIND: u64 = 64;
/// Digits of a base offset in a file name: as many as 2^64 has.
const NAME_DIGITS: usize = 20;
/// No end yet: the segment is the active one.
const ACTIVE: u64 = u64::MAX;

/// The path of the segment with this base offset.
pub(crate) fn segment_path(dir: &Path, base_offset: u64) -> PathBuf {
    dir.join(format!("{base_offset:0NAME_DIGITS$}.{LOG_EXTENSION}"))
}

/// The path of the index beside a segment's.
pub(crate) fn index_path(segment_path: &Path) -> PathBuf {
    segment_path.with_extension(INDEX_EXTENSION)
}

/// The path of the time index beside a segment's.
pub(crate) fn time_index_path(segment_path: &Path) -> PathBuf {
    segment_path.with_extension(TIME_INDEX_EXTENSION)
}

/// Removes the indexes beside a segment. They are caches, and may never have been there.
pub(crate) fn remove_indexes(storage: &dyn Storage, segment_path: &Path) {
    for path in [index_path(segment_path), time_index_path(segment_path)] {
        let _ = storage.remove_file(&path);
    }
}

/// The base offset that a file name stands for, if it is a segment's.
pub(crate) fn base_offset_of(name: &str) -> Option<u64> {
    base_offset_before(name, LOG_EXTENSION)
}

/// The base offset of the segment that a file is an index of, by its name.
pub(crate) fn base_offset_of_index(name: &str) -> Option<u64> {
    base_offset_before(name, INDEX_EXTENSION).or_else(|| base_offset_before(name, TIME_INDEX_EXTENSION))
}

fn base_offset_before(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let canonical = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    canonical.then(|| digits.parse().ok()).flatten()
}

/// A segment whose file is mapped.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) seed: FrameSeed,
    pub(crate) path: PathBuf,
    pub(crate) file: SegmentFile,
    pub(crate) region: Region,
    /// End of the frames once sealed, else [`ACTIVE`].
    pub(super) sealed_end: AtomicU64,
    /// Loaded when first needed.
    index: ArcSwapOption<OffsetIndex>,
    /// Held while the index is loaded or rebuilt.
    index_loading: Mutex<()>,
    pub(crate) times: SegmentTimes,
}

impl Segment {
    /// Makes a new segment file of `len` bytes, with its header and `reserve` bytes of space, under its own name.
    /// Nothing is synced.
    pub(crate) fn create(env: &Environment, dir: &Path, header: SegmentHeader, len: u64, reserve: u64) -> Result<Self> {
        let storage = &*env.storage;
        let path = segment_path(dir, header.base_offset);
        let temporary = path.with_extension(TEMPORARY_EXTENSION);
        let persistent = !env.positional_appends;
        let index = OffsetIndex::create(storage, &index_path(&path), header.segment_id, len, 0, persistent)?;
        let make = || {
            let file = storage.open(&temporary, OpenMode::Truncate)?;
            file.set_len(len)?;
            if persistent {
                file.reserve(0..reserve)?;
            }
            let encoded = header.encode();
            file.write_all_at(&encoded, COPY_A_AT)?;
            file.write_all_at(&encoded, COPY_B_AT)?;
            let region = map_for_appends(env, &temporary, &*file, len)?;
            storage.rename(&temporary, &path)?;
            Ok((file, region))
        };
        let (file, region) = make().map_err(|source: io::Error| {
            // The error that stopped us is the one to tell; a leftover is removed at the next open.
            let _ = storage.remove_file(&temporary);
            let _ = storage.remove_file(&index_path(&path));
            Error::io("create the segment", &path, source)
        })?;
        let file = SegmentFile::opened(file, &env.open_files);
        Ok(Self::new(header, path, file, region, ACTIVE, Some(index)))
    }

    /// Maps the file of the active segment again, in its full length of at least `file_bytes`. Where there isn't even space
    /// for a length (a copy-on-write file system), as long as it is: the next append then begins a new segment.
    pub(crate) fn open_active(
        header: SegmentHeader,
        path: PathBuf,
        file: Arc<dyn File>,
        file_bytes: u64,
        env: &Environment,
    ) -> Result<Self> {
        let map = || {
            let (held, wanted) = (file.len()?, file.len()?.max(file_bytes));
            let len = match file.set_len(wanted) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => held,
                outcome => outcome.map(|()| wanted)?,
            };
            map_for_appends(env, &path, &*file, len)
        };
        let region = map().map_err(|source| Error::io("map the segment", &path, source))?;
        Ok(Self::new(header, path, SegmentFile::opened(file, &env.open_files), region, ACTIVE, None))
    }

    fn new(
        header: SegmentHeader,
        path: PathBuf,
        file: SegmentFile,
        region: Region,
        sealed_end: u64,
        index: Option<OffsetIndex>,
    ) -> Self {
        Self {
            seed: header.frame_seed(),
            header,
            path,
            file,
            region,
            sealed_end: AtomicU64::new(sealed_end),
            index: ArcSwapOption::new(index.map(Arc::new)),
            index_loading: Mutex::new(()),
            times: SegmentTimes::default(),
        }
    }

    /// The handle of the file, opened again if it was closed.
    pub(crate) fn open_file(&self, env: &Environment) -> io::Result<Arc<dyn File>> {
        self.file.get_or_open(&*env.storage, &self.path, &self.region, &env.open_files)
    }

    /// Gives back the space behind `end`, that of a sealed segment that is durable, and lets go of its handle. None of this
    /// needs to be durable; what fails takes space until the segment goes.
    pub(crate) fn trim(&self, storage: &dyn Storage, end: u64) {
        let file = self.file.get().map_or_else(|| storage.reopen(&self.path, &self.region), Ok);
        let _ = file.and_then(|file| file.set_len(end));
        self.seal_index(storage);
        self.file.close();
    }

    /// Completes the index's file. Called once nothing is added to it any more.
    pub(crate) fn seal_index(&self, storage: &dyn Storage) {
        if let Some(index) = self.index() {
            index.seal(storage, &index_path(&self.path));
        }
    }

    /// The end of the frames, once there is one.
    #[inline]
    pub(crate) fn sealed_end(&self) -> Option<u64> {
        let end = self.sealed_end.load(Ordering::Acquire);
        (end != ACTIVE).then_some(end)
    }

    /// Says that nothing will be appended behind `end`. To be called before the commit word names the next segment.
    pub(crate) fn seal(&self, end: u64) {
        self.sealed_end.store(end, Ordering::Release);
    }

    /// The bytes from `position` to `end`, or up to where the file ends if that is nearer.
    ///
    /// # Safety
    /// `end` is at or below the published end of the segment.
    pub(crate) unsafe fn published(&self, position: u64, end: u64) -> &[u8] {
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(self.region.len());
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(end);
        // SAFETY: nobody stores below the published end, and no file is cut below it.
        unsafe { self.region.bytes(start..end) }.unwrap_or_default()
    }

    /// The log's time of a frame.
    #[inline]
    pub(crate) fn append_time_ms(&self, frame: &FrameHeader) -> i64 {
        self.header.base_timestamp_ms.saturating_add(frame.relative_time_ms.into())
    }

    /// The index in use; the writer's is always loaded.
    pub(crate) fn index(&self) -> Option<Arc<OffsetIndex>> {
        self.index.load_full()
    }

    pub(crate) fn set_index(&self, index: OffsetIndex) {
        self.index.store(Some(Arc::new(index)));
    }

    /// Where to begin the walk to `relative_offset`: the position of a valid frame at or below it, or the first.
    ///
    /// `end` is the published end. An index that is missing, damaged or wrong is rebuilt from the frames.
    pub(crate) fn nearest_frame(&self, storage: &dyn Storage, relative_offset: u32, end: u64) -> u64 {
        let checked = |index: &OffsetIndex| {
            let (below, above) = index.lookup(relative_offset);
            let between = above.and_then(|above| self.frame_between(below, above, relative_offset, end));
            between.or_else(|| match below {
                None => Some(DATA_START),
                Some(entry) => self.names_a_frame(entry, end).then_some(entry.position),
            })
        };
        let loaded = self.index.load();
        if let Some(position) = loaded.as_deref().and_then(checked) {
            return position;
        }
        if loaded.is_some() && self.sealed_end().is_none() {
            // The writer adds to this one: it stays in use, and lookups walk from the start until the next open.
            return DATA_START;
        }
        let _loading = self.index_loading.lock();
        let mut index = self.index.load_full().filter(|index| checked(index).is_some());
        if index.is_none() && loaded.is_none() {
            match OffsetIndex::open_sealed(storage, &index_path(&self.path), self.header.segment_id) {
                Ok(found) => index = found.map(Arc::new),
                // That it can't be opened right now is no reason to make it anew.
                Err(_) => return DATA_START,
            }
        }
        let intact = index.as_deref().and_then(checked);
        let (index, position) = match (index, intact) {
            (Some(index), Some(position)) => (index, position),
            _ => match self.rebuild_index(storage, end) {
                Ok(index) => {
                    let position = checked(&index).unwrap_or(DATA_START);
                    (Arc::new(index), position)
                }
                Err(_) => return DATA_START,
            },
        };
        self.index.store(Some(index));
        position
    }

    /// When the last frame of a sealed segment was appended; `None` if that one is damaged.
    fn last_time_ms(&self, storage: &dyn Storage) -> Option<i64> {
        let end = self.sealed_end()?;
        let start = self.nearest_frame(storage, u32::MAX, end);
        // SAFETY: a sealed segment is published up to its end.
        let bytes = unsafe { self.published(0, end) };
        let mut scan = Scan::headers(self.seed, start);
        let mut last = (DATA_START, 0);
        while let Some((position, header)) = scan.next_frame_in(bytes) {
            last = (position + header.frame_bytes() as u64, header.relative_time_ms);
        }
        (last.0 == end).then(|| self.header.base_timestamp_ms.saturating_add(last.1.into()))
    }

    /// The position of the frame that has the record at `relative_offset`, or of one that lies close before it: looked for
    /// as far between two entries as the offset is, where it is if frames are of one size, and around. `None` if there is
    /// none. A frame is one only by a check that its own position and the segment's random id have a part in, and if it lies
    /// between the entries by place and by offset.
    ///
    /// That spares the walk to it from the entry, most of which is waiting for one frame's length after the other to come
    /// from memory. Where offsets fall, in a file that nobody wrote, it may be another one than a walk comes to.
    fn frame_between(&self, below: Option<Entry>, above: Entry, relative_offset: u32, end: u64) -> Option<u64> {
        let below = below.unwrap_or(Entry { relative_offset: 0, position: DATA_START });
        let bytes = above.position.checked_sub(below.position)?;
        if bytes > 2 * offset_index::INTERVAL_BYTES {
            // Too far apart for a guess: by a large frame, or a gap in the index.
            return None;
        }
        let offsets = above.relative_offset.checked_sub(below.relative_offset)?;
        let passed = relative_offset.checked_sub(below.relative_offset)?;
        let ahead = (bytes * u64::from(passed)).checked_div(offsets.into())?;
        let likely = below.position + ahead / ALIGNMENT as u64 * ALIGNMENT as u64;
        let between = u64::from(below.relative_offset)..=u64::from(above.relative_offset);
        let header_at = |position: u64| {
            // SAFETY: `end` is the published end.
            let frame = unsafe { self.published(position, end) };
            FrameHeader::decode(frame, self.seed, position).ok().filter(|header| {
                between.contains(&header.relative_offset.into())
                    && between.contains(&header.next_relative_offset())
                    && position + header.frame_bytes() as u64 <= above.position
            })
        };
        let is_it = |header: FrameHeader| {
            let offsets = u64::from(header.relative_offset)..header.next_relative_offset();
            offsets.contains(&relative_offset.into())
        };
        if header_at(likely).is_some_and(is_it) {
            return Some(likely);
        }
        if bytes > LOOK_BEFORE * u64::from(offsets) {
            return None;
        }
        let first = likely.saturating_sub(LOOK_BEFORE).max(below.position);
        let mut around = (first..likely + LOOK_BEHIND).step_by(ALIGNMENT);
        let (found, header) = around.find_map(|position| Some((position, header_at(position)?)))?;
        (header.relative_offset <= relative_offset).then_some(found)
    }

    /// Whether a frame with the entry's offset begins at its position.
    fn names_a_frame(&self, entry: Entry, end: u64) -> bool {
        // SAFETY: `end` is the published end.
        let mut bytes = unsafe { self.published(0, end) };
        let Ok(found) = self.names_a_frame_in(entry, &mut bytes);
        found
    }

    /// The same, of a source that ends where the frames do.
    pub(crate) fn names_a_frame_in<S: Source>(&self, entry: Entry, source: &mut S) -> Result<bool, S::Error> {
        if entry.position < DATA_START || entry.position >= source.len() {
            return Ok(false);
        }
        let header = FrameHeader::decode(source.held(entry.position)?, self.seed, entry.position);
        Ok(header.is_ok_and(|header| header.relative_offset == entry.relative_offset))
    }

    /// Makes the index of a sealed segment anew, and its file.
    ///
    /// In memory, and written from there: a store into a mapped file may need space that isn't there.
    fn rebuild_index(&self, storage: &dyn Storage, end: u64) -> Result<OffsetIndex> {
        let path = index_path(&self.path);
        let index = OffsetIndex::create(storage, &path, self.header.segment_id, end, end, false)?;
        // SAFETY: `end` is the published end.
        let mut bytes = unsafe { self.published(0, end) };
        let Ok(()) = self.fill_index(&index, &mut bytes);
        // Where the file can't be written (no space, say), the one in memory serves as well.
        let _ = index.save(storage, &path);
        Ok(index)
    }

    /// Adds entries for the frames in `source`, behind the last one that has an entry, to an index with space for them.
    /// None for a frame whose offset falls, which nobody wrote: who looks that offset up finds the one that was. An error
    /// leaves the rest without.
    pub(crate) fn fill_index<S: Source>(&self, index: &OffsetIndex, source: &mut S) -> Result<(), S::Error> {
        let last = index.last().map(|entry| entry.position);
        let mut next_entry = last.map_or(DATA_START, |position| position + offset_index::INTERVAL_BYTES);
        let mut scan = Scan::headers(self.seed, last.unwrap_or(DATA_START));
        let mut next_offset = 0;
        loop {
            match scan.next_in(source)? {
                Found::Frame { position, header } if u64::from(header.relative_offset) >= next_offset => {
                    next_offset = header.next_relative_offset();
                    if position >= next_entry && !header.is_filler() {
                        index.append(Entry { relative_offset: header.relative_offset, position });
                        next_entry = position + offset_index::INTERVAL_BYTES;
                    }
                }
                Found::Frame { .. } | Found::Damage { .. } => {}
                Found::End { .. } => return Ok(()),
            }
        }
    }
}

/// Maps the file of a segment that is appended to. Where appends don't go through the map, nothing can be stored through
/// it: a store that somebody forgot would end the process here, and not only on the disk that is full.
fn map_for_appends(env: &Environment, path: &Path, file: &dyn File, len: u64) -> io::Result<Region> {
    if env.positional_appends { env.storage.open(path, OpenMode::Read)?.map(len) } else { file.map(len) }
}

/// The sealed segments that were opened last, over all partitions of a log: kept mapped for who comes next.
///
/// A log has any number of segments, a process only so many maps. First in, first out: a reader that
/// finds its segment open takes no lock.
#[derive(Debug)]
pub(crate) struct RecentSegments {
    segments: Mutex<VecDeque<Arc<Segment>>>,
    capacity: usize,
}

impl Default for RecentSegments {
    /// 256 of them.
    fn default() -> Self {
        Self::with_capacity(256)
    }
}

impl RecentSegments {
    /// So many at most, beside those that somebody reads in.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { segments: Mutex::default(), capacity }
    }

    pub(crate) fn keep(&self, segment: Arc<Segment>) {
        let mut segments = self.segments.lock();
        segments.push_back(segment);
        let oldest = if segments.len() > self.capacity { segments.pop_front() } else { None };
        drop(segments);
        drop(oldest); // Which may unmap and close, so not under the lock.
    }

    /// Lets go of segments that are deleted, or whose partition is closed.
    pub(crate) fn forget(&self, goes: impl Fn(&Segment) -> bool) {
        let mut segments = self.segments.lock();
        let (gone, kept) = segments.drain(..).partition::<VecDeque<_>, _>(|segment| goes(segment));
        *segments = kept;
        drop(segments);
        drop(gone);
    }
}

/// A segment of the list: known by its name, opened when it is first read.
///
/// Only those that may have to be synced are held here; the others belong to their readers, who share them, and to
/// [`RecentSegments`].
#[derive(Debug)]
pub(crate) struct SegmentSlot {
    pub(crate) base_offset: u64,
    pub(crate) path: PathBuf,
    pub(super) held: Option<Arc<Segment>>,
    shared: ArcSwapWeak<Segment>,
    /// Taken by who opens it.
    opening: Mutex<()>,
    /// Read when it is first asked for.
    header: OnceLock<SegmentHeader>,
    /// Of a sealed segment, up to the end of its frames. Set when it is sealed, else when it is first asked for.
    bytes: OnceLock<u64>,
    /// When the last frame of a sealed segment was appended, by the log's own time. Likewise.
    newest_ms: OnceLock<i64>,
    /// The greatest time of its records, once it is sealed and was asked for. See [`time_index`](super::time_index).
    pub(crate) greatest_time_ms: OnceLock<i64>,
}

impl SegmentSlot {
    pub(crate) fn unopened(base_offset: u64, path: PathBuf) -> Self {
        Self {
            base_offset,
            path,
            held: None,
            shared: ArcSwapWeak::default(),
            opening: Mutex::new(()),
            header: OnceLock::new(),
            bytes: OnceLock::new(),
            newest_ms: OnceLock::new(),
            greatest_time_ms: OnceLock::new(),
        }
    }

    pub(crate) fn opened(segment: Arc<Segment>) -> Self {
        let slot = Self::unopened(segment.header.base_offset, segment.path.clone());
        Self { held: Some(segment), ..slot }
    }

    /// The same, once the segment is sealed and durable.
    pub(crate) fn released(&self, segment: &Arc<Segment>) -> Self {
        let slot = Self::unopened(self.base_offset, self.path.clone());
        slot.shared.store(Arc::downgrade(segment));
        let (bytes, newest_ms) = (self.bytes.clone(), self.newest_ms.clone());
        let greatest_time_ms = segment.times.greatest_ms().map_or_else(OnceLock::new, OnceLock::from);
        Self { header: segment.header.into(), bytes, newest_ms, greatest_time_ms, ..slot }
    }

    /// Whether the segment is open, so that [`get`](SegmentSlot::get) costs nothing.
    pub(crate) fn is_open(&self) -> bool {
        self.held.is_some() || self.shared.load().strong_count() > 0
    }

    /// Notes what is known of the segment when it is sealed.
    pub(crate) fn note_sealed(&self, bytes: u64, newest_ms: i64) {
        let _ = (self.bytes.set(bytes), self.newest_ms.set(newest_ms));
    }

    /// Bytes of a sealed segment, by what was known when it was sealed, or by what the one behind it says. A damaged one
    /// counts for nothing.
    pub(crate) fn bytes(&self, env: &Environment, spec: &PartitionSpec, next: &SegmentSlot) -> Result<u64> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(*bytes);
        }
        let own = self.header_if_intact(&*env.storage, spec)?;
        let predecessor = next.header_if_intact(&*env.storage, spec)?.and_then(|next| next.predecessor);
        let bytes = match (own, predecessor) {
            (Some(own), Some(before)) if before.segment_id == own.segment_id => before.end_position,
            // Nobody has written down where it ends: it has to be looked for.
            (Some(_), _) => self.get_unshared(&*env.storage, spec, Some(next))?.sealed_end().unwrap_or(0),
            (None, _) => 0,
        };
        Ok(*self.bytes.get_or_init(|| bytes))
    }

    /// When the last frame of a sealed segment was appended, if that is known without a look into the segment.
    pub(crate) fn known_newest_ms(&self) -> Option<i64> {
        self.newest_ms.get().copied()
    }

    /// When the last frame of a sealed segment was appended; `bound`, which is no earlier, if that can't be told.
    pub(crate) fn newest_ms(
        &self,
        env: &Environment,
        spec: &PartitionSpec,
        next: &SegmentSlot,
        bound: i64,
    ) -> Result<i64> {
        if let Some(newest_ms) = self.known_newest_ms() {
            return Ok(newest_ms);
        }
        let newest_ms = match self.header_if_intact(&*env.storage, spec)? {
            None => None,
            Some(_) => self.get_unshared(&*env.storage, spec, Some(next))?.last_time_ms(&*env.storage),
        };
        Ok(*self.newest_ms.get_or_init(|| newest_ms.map_or(bound, |newest_ms| newest_ms.min(bound))))
    }

    /// As [`get`](SegmentSlot::get), but one that has to be opened is kept for nobody.
    fn get_unshared(
        &self,
        storage: &dyn Storage,
        spec: &PartitionSpec,
        next: Option<&SegmentSlot>,
    ) -> Result<Arc<Segment>> {
        match self.held.clone().or_else(|| self.shared.load().upgrade()) {
            Some(segment) => Ok(segment),
            None => self.open_sealed(storage, spec, next).map(Arc::new),
        }
    }

    /// The segment's header; `None` if it is damaged, or the file isn't there.
    pub(crate) fn header_if_intact(
        &self,
        storage: &dyn Storage,
        spec: &PartitionSpec,
    ) -> Result<Option<SegmentHeader>> {
        match self.header(storage, spec) {
            Ok(header) => Ok(Some(header)),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(None),
            Err(error) => match storage.entry_kind(&self.path) {
                Ok(None) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The handle of a segment that may have to be synced.
    pub(crate) fn held_file(&self) -> Option<Arc<dyn File>> {
        self.held.as_ref()?.file.get()
    }

    /// The segment, opened now if it isn't. `next` is the one behind it, whose header knows where this one ends.
    pub(crate) fn get(
        &self,
        env: &Environment,
        spec: &PartitionSpec,
        next: Option<&SegmentSlot>,
    ) -> Result<Arc<Segment>> {
        let open = || self.held.clone().or_else(|| self.shared.load().upgrade());
        if let Some(segment) = open() {
            return Ok(segment);
        }
        let _opening = self.opening.lock();
        if let Some(segment) = open() {
            return Ok(segment);
        }
        let segment = Arc::new(self.open_sealed(&*env.storage, spec, next)?);
        self.shared.store(Arc::downgrade(&segment));
        env.recent_segments.keep(segment.clone());
        Ok(segment)
    }

    fn open_sealed(&self, storage: &dyn Storage, spec: &PartitionSpec, next: Option<&SegmentSlot>) -> Result<Segment> {
        let (file, header) = open_file(storage, &self.path, OpenMode::Read, spec, self.base_offset)?;
        let len = file.len().map_err(|source| Error::io("read the length of", &self.path, source))?;
        let region = file.map(len).map_err(|source| Error::io("map the segment", &self.path, source))?;
        // Nothing was stored through the handle, and the map needs none. The next file is opened without this one.
        drop(file);
        let segment = Segment::new(header, self.path.clone(), SegmentFile::default(), region, len, None);
        let successor = match next.map(|next| (next, next.header(storage, spec))) {
            // Not to be able to tell right now is no reason to take what is left for all there was.
            Some((_, Err(error))) if error.kind() == ErrorKind::LimitReached => return Err(error),
            Some((next, Err(error))) if error.kind() == ErrorKind::Io => match storage.entry_kind(&next.path) {
                Ok(None) => None,
                _ => return Err(error),
            },
            Some((_, Ok(next))) => next.predecessor.map(|before| (next, before)),
            _ => None,
        };
        match successor {
            Some((next, Predecessor { segment_id, end_position, .. })) if segment_id == header.segment_id => {
                segment.seal(end_position);
                segment.times.begin(end_position, 0, Some(Bond::Successor(next.segment_id)));
            }
            // The next header doesn't tell (it is damaged, or a cut lies in between): the last valid frame's end.
            _ => {
                // SAFETY: nobody appends to a sealed segment, so all of it is published.
                let bytes = unsafe { segment.published(0, len) };
                let mut end = DATA_START;
                let mut scan = Scan::headers(segment.seed, DATA_START);
                while let Some((position, header)) = scan.next_frame_in(bytes) {
                    end = position + header.frame_bytes() as u64;
                }
                segment.seal(end);
                segment.times.begin(end, 0, None);
            }
        }
        Ok(segment)
    }

    /// The segment's header, read from the file unless it is known.
    pub(crate) fn header(&self, storage: &dyn Storage, spec: &PartitionSpec) -> Result<SegmentHeader> {
        let known = self.held.as_ref().map(|segment| &segment.header).or_else(|| self.header.get());
        if let Some(header) = known {
            return Ok(*header);
        }
        let header = open_file(storage, &self.path, OpenMode::Read, spec, self.base_offset)?.1;
        Ok(*self.header.get_or_init(|| header))
    }
}

/// Opens a segment's file and reads its header, with `pread`. The header must be that of this very segment: kind
/// `Corruption` if neither copy is intact or it is another partition's, `UnsupportedFormat` if it is a newer one.
pub(crate) fn open_file(
    storage: &dyn Storage,
    path: &Path,
    mode: OpenMode,
    spec: &PartitionSpec,
    base_offset: u64,
) -> Result<(Arc<dyn File>, SegmentHeader)> {
    let file = storage.open(path, mode).map_err(|source| Error::io("open the segment", path, source))?;
    let mut copies = [[0; SEGMENT_HEADER_BYTES]; 2];
    let mut read = [0; 2];
    for (at, position) in [COPY_A_AT, COPY_B_AT].into_iter().enumerate() {
        read[at] =
            file.read_at(&mut copies[at], position).map_err(|source| Error::io("read the header of", path, source))?;
    }
    let header =
        SegmentHeader::read_either(&copies[0][..read[0]], &copies[1][..read[1]]).map_err(|fault| match fault {
            HeaderFault::Version(found) => {
                Repr::UnsupportedFormat { path: path.into(), found, supported: crate::segment_header::FORMAT_VERSION }
                    .into()
            }
            fault => Error::corruption(path, 0, format!("neither copy of the segment header is intact: {fault}")),
        })?;
    if header.topic_id != spec.topic_id.to_le_bytes() || header.partition != spec.number {
        return Err(Error::corruption(path, 0, "the segment belongs to another partition"));
    }
    if header.base_offset != base_offset {
        let detail = format!("the header says base offset {}, which is not the file's name", header.base_offset);
        return Err(Error::corruption(path, 0, detail));
    }
    Ok((file, header))
}
