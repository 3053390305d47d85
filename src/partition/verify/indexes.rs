//! The indexes of a segment against its frames.
//!
//! # What is told
//! - A file that isn't what its own checks say. (One that was never sealed, is about an earlier state of the segment, or
//!   isn't there, is none that anybody believes, and nothing is wrong with that.)
//! - An entry of the offset index that names no frame, or that doesn't ascend. Space behind the last entry isn't looked at.
//! - A block of the time index that is earlier than a record in it, so that a lookup would pass over that.
//!
//! # Invariants
//! - Each file is read once, and once more beside the frames, with a window: memory doesn't grow with it.
//! - What is told of a file may be told wrongly where somebody makes it anew just now. So a log that is open is asked
//!   again after a while ([`TRIES`]): an index is written at once.
//!
//! # Thread safety
//! Belongs to one thread.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::source::TolerantSource;
use crate::{
    frame::FrameHeader,
    partition::{
        offset_index::{self, Entry},
        scan::{Source, first_nonzero},
        segment::{index_path, time_index_path},
        time_index::{self, Block, Coverage, Summary},
    },
    storage::{EntryKind, OpenMode, Storage},
    verification::{Verification, VerifyFinding},
};

/// How often an index of a log that is open is looked at before it counts as damaged.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Where the entries of an offset index begin.
const OFFSET_ENTRIES: u64 = offset_index::HEADER_WORDS as u64 * offset_index::ENTRY_BYTES;

/// What is to be known of a segment to judge its indexes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) segment_path: &'a Path,
    pub(super) segment_id: u64,
    /// Position behind the last frame that is looked at.
    pub(super) end: u64,
    /// Whether it is the one that is appended to.
    pub(super) is_active: bool,
    /// What a time index has to be about; `None` if no index would be believed.
    pub(super) coverage: Option<Coverage>,
    /// Whether others may be making the files anew.
    pub(super) is_open: bool,
}

/// Both indexes of a segment, as far as they are to be believed. To be told of all frames, in order.
pub(super) struct IndexChecks {
    offset: Option<OffsetCheck>,
    time: Option<TimeCheck>,
}

impl IndexChecks {
    /// Reads the files, and tells what is wrong with them.
    pub(super) fn open(subject: &Subject<'_>, verification: &mut Verification<'_>) -> Self {
        Self {
            offset: settled(subject, verification, OffsetCheck::open),
            time: settled(subject, verification, TimeCheck::open),
        }
    }

    /// A frame that is what was written; `greatest_ms` is the greatest time of its records.
    pub(super) fn frame(&mut self, position: u64, frame: &FrameHeader, greatest_ms: i64, v: &mut Verification<'_>) {
        let offset = self.offset.as_mut().and_then(|check| check.frame(position, frame));
        if let Some(fault) = offset {
            self.offset = None;
            fault.tell(v);
        }
        let time = self.time.as_mut().filter(|_| !frame.is_filler());
        if let Some(fault) = time.and_then(|check| check.frame(frame, greatest_ms)) {
            self.time = None;
            fault.tell(v);
        }
    }

    /// Bytes that hold no frame; entries for those that were there are right.
    pub(super) fn damage(&mut self, range: &Range<u64>) {
        if let Some(check) = &mut self.offset {
            check.pass(range.end);
        }
    }

    /// There are no more frames.
    pub(super) fn finish(mut self, v: &mut Verification<'_>) {
        if let Some(fault) = self.offset.as_mut().and_then(OffsetCheck::finish) {
            fault.tell(v);
        }
    }
}

/// Why an index isn't what it should be.
enum Fault {
    /// What is wrong, and what couldn't be read.
    Found(Vec<VerifyFinding>),
    /// It can't be opened.
    Refused(PathBuf, io::Error),
}

impl Fault {
    fn new(path: &Path, range: Range<u64>, detail: &str, source: &TolerantSource) -> Self {
        let mut findings: Vec<_> = source
            .unreadable()
            .map(|(range, detail)| VerifyFinding::Unreadable { file: path.into(), range, detail })
            .collect();
        findings.push(VerifyFinding::Index { file: path.into(), range, detail: detail.into() });
        Self::Found(findings)
    }

    fn tell(self, verification: &mut Verification<'_>) {
        match self {
            Self::Found(findings) => findings.into_iter().for_each(|finding| verification.find(finding)),
            Self::Refused(file, error) => {
                if let Some(detail) = verification.refused(&file, 0..0, error) {
                    verification.find(VerifyFinding::Index { file, range: 0..0, detail });
                }
            }
        }
    }
}

/// Opens a check; what is wrong with it is told if it stays so.
fn settled<T>(
    subject: &Subject<'_>,
    verification: &mut Verification<'_>,
    open: impl Fn(&Subject<'_>) -> Result<Option<T>, Fault>,
) -> Option<T> {
    let tries = if subject.is_open { TRIES } else { 1 };
    for attempt in 1..=tries {
        match open(subject) {
            Ok(check) => return check,
            Err(_) if attempt < tries => thread::sleep(PAUSE),
            Err(fault) => fault.tell(verification),
        }
    }
    None
}

/// The file, if there is one that holds anything.
fn open_file(subject: &Subject<'_>, path: &Path) -> Result<Option<TolerantSource>, Fault> {
    match subject.storage.entry_kind(path) {
        Ok(None) => return Ok(None),
        Ok(Some(EntryKind::File)) => {}
        Ok(Some(_)) => {
            let (file, detail) = (path.into(), "there is something else in the place of an index".into());
            return Err(Fault::Found(vec![VerifyFinding::Index { file, range: 0..0, detail }]));
        }
        Err(error) => return Err(Fault::Refused(path.into(), error)),
    }
    let opened = subject.storage.open(path, OpenMode::Read);
    match opened.and_then(|file| TolerantSource::new(file, u64::MAX)) {
        Ok(source) => Ok(Some(source).filter(|source| source.len() > 0)),
        // Removed just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::Refused(path.into(), error)),
    }
}

fn word(source: &mut TolerantSource, position: u64) -> Option<u64> {
    let Ok(bytes) = source.at(position, size_of::<u64>());
    bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// An offset index, entry by entry.
struct OffsetCheck {
    path: PathBuf,
    source: TolerantSource,
    /// Of the next entry in the file.
    at: u64,
    last: Option<Entry>,
    /// Zeros, or an entry that lies behind this, end the index.
    end: Option<u64>,
}

impl OffsetCheck {
    fn open(subject: &Subject<'_>) -> Result<Option<Self>, Fault> {
        let path = index_path(subject.segment_path);
        let Some(mut source) = open_file(subject, &path)? else { return Ok(None) };
        let len = source.len();
        let header = [0, 1, 2].map(|at| word(&mut source, at * offset_index::ENTRY_BYTES));
        let [Some(magic), Some(segment_id), Some(seal)] = header else {
            return Err(Fault::new(&path, 0..len, "the index ends inside its header", &source));
        };
        if magic != offset_index::MAGIC || segment_id != subject.segment_id {
            return Err(Fault::new(&path, 0..OFFSET_ENTRIES, "it isn't the index of this segment", &source));
        }
        if seal == 0 && !subject.is_active {
            return Ok(None); // Nobody believes it: it wasn't completed before its process was killed.
        }
        if seal != 0 {
            match sealed_end(seal, &mut source) {
                None => {
                    return Err(Fault::new(&path, 0..len, "the checksum of the index's entries doesn't hold", &source));
                }
                // Still to be cut behind its entries, by whoever sealed it just now or was killed then: zeros.
                Some(end) if end < len && !subject.is_active => {
                    let Ok(stray) = first_nonzero(&mut source, end);
                    let Some(position) = stray else { return Ok(None) };
                    return Err(Fault::new(
                        &path,
                        position..len,
                        "there is something behind the index's entries",
                        &source,
                    ));
                }
                Some(_) => {}
            }
        }
        // Those behind the end of the active segment come later, or go with the next open.
        let end = if seal != 0 && !subject.is_active { None } else { Some(subject.end) };
        Ok(Some(Self { path, source, at: OFFSET_ENTRIES, last: None, end }))
    }

    /// The next entry, which stays the next one.
    fn peek(&mut self) -> Option<Entry> {
        let word = word(&mut self.source, self.at)?;
        let entry = Entry::from_word(word);
        let counts = self.end.is_none_or(|end| word != 0 && entry.position < end);
        counts.then_some(entry)
    }

    fn step(&mut self, entry: Entry) {
        self.at += offset_index::ENTRY_BYTES;
        self.last = Some(entry);
    }

    fn frame(&mut self, position: u64, frame: &FrameHeader) -> Option<Fault> {
        let entry = self.peek()?;
        let ascends = self
            .last
            .is_none_or(|last| entry.position > last.position && entry.relative_offset >= last.relative_offset);
        if !ascends {
            return Some(self.wrong("an entry doesn't ascend"));
        }
        if entry.position < position || (entry.position == position && entry.relative_offset != frame.relative_offset) {
            return Some(self.wrong("an entry names no frame"));
        }
        if entry.position == position {
            self.step(entry);
        }
        None
    }

    /// Passes over the entries before a position of the segment.
    fn pass(&mut self, position: u64) {
        while let Some(entry) = self.peek().filter(|entry| entry.position < position) {
            self.step(entry);
        }
    }

    fn finish(&mut self) -> Option<Fault> {
        self.peek().map(|_| self.wrong("an entry names no frame"))
    }

    fn wrong(&self, detail: &str) -> Fault {
        Fault::new(&self.path, self.at..self.at + offset_index::ENTRY_BYTES, detail, &self.source)
    }
}

/// Where the entries of a sealed index end; `None` if the seal isn't that of the entries in the file.
fn sealed_end(seal: u64, source: &mut TolerantSource) -> Option<u64> {
    let (mut hasher, len) = (crc32fast::Hasher::new(), source.len());
    let count = (seal >> 32).saturating_sub(1);
    let end = OFFSET_ENTRIES + count * offset_index::ENTRY_BYTES;
    if end > len {
        return None;
    }
    hash(source, OFFSET_ENTRIES..end, &mut hasher);
    (seal == ((count + 1) << 32) | u64::from(hasher.finalize())).then_some(end)
}

fn hash(source: &mut TolerantSource, range: Range<u64>, hasher: &mut crc32fast::Hasher) {
    const STEP: usize = 64 << 10;
    let mut position = range.start;
    while position < range.end {
        let want = usize::try_from(range.end - position).unwrap_or(STEP).min(STEP);
        let Ok(bytes) = source.at(position, want);
        if bytes.is_empty() {
            return;
        }
        hasher.update(bytes);
        position += bytes.len() as u64;
    }
}

/// A time index, block by block.
struct TimeCheck {
    path: PathBuf,
    source: TolerantSource,
    /// Of the next entry in the file.
    at: u64,
    greatest_ms: i64,
    current: Option<Block>,
}

impl TimeCheck {
    fn open(subject: &Subject<'_>) -> Result<Option<Self>, Fault> {
        let path = time_index_path(subject.segment_path);
        let Some(mut source) = open_file(subject, &path)? else { return Ok(None) };
        let len = source.len();
        let Ok(header) = source.at(0, time_index::HEADER_BYTES);
        let Some(summary) = Summary::decode(header) else {
            let range = 0..len.min(time_index::HEADER_BYTES as u64);
            return Err(Fault::new(&path, range, "the header of the time index isn't what was written", &source));
        };
        let mut hasher = crc32fast::Hasher::new();
        hash(&mut source, time_index::HEADER_BYTES as u64..len, &mut hasher);
        if summary.file_bytes() != len || hasher.finalize() != summary.entries_check {
            return Err(Fault::new(&path, 0..len, "the checksum of the time index's entries doesn't hold", &source));
        }
        // One that is about an earlier state of the segment isn't believed.
        let believed = subject.coverage.is_some_and(|coverage| summary.covers(coverage));
        let (at, greatest_ms) = (time_index::HEADER_BYTES as u64, summary.greatest_ms);
        Ok(believed.then_some(Self { path, source, at, greatest_ms, current: None }))
    }

    fn peek(&mut self) -> Option<Block> {
        let Ok(entry) = self.source.at(self.at, time_index::ENTRY_BYTES);
        Block::decode(entry)
    }

    fn frame(&mut self, frame: &FrameHeader, greatest_ms: i64) -> Option<Fault> {
        while let Some(block) = self.peek().filter(|block| block.relative_offset <= frame.relative_offset) {
            self.current = Some(block);
            self.at += time_index::ENTRY_BYTES as u64;
        }
        let bound = self.current.map(|block| block.greatest_ms.min(self.greatest_ms));
        if bound.is_some_and(|bound| bound >= greatest_ms) {
            return None;
        }
        let range = self.at.saturating_sub(time_index::ENTRY_BYTES as u64)..self.at;
        Some(Fault::new(&self.path, range, "a block is earlier than a record in it", &self.source))
    }
}
