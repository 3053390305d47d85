//! Reading a file whose device may not give all of it.
//!
//! # Invariants
//! - A block that can't be read counts as bytes that no frame has, and is noted; the bytes around it are read.
//! - Memory: a window, as long as the longest frame that lies wholly in the file, and the ranges that can't be read.
//!
//! # Thread safety
//! Belongs to one thread.

use std::{convert::Infallible, io, ops::Range, sync::Arc};

use crate::{partition::scan::Source, storage::File};

/// Bytes that are read at once.
const WINDOW_BYTES: usize = 256 << 10;
/// What is tried alone where they can't be: the size of a page, which is what a device fails to give.
const BLOCK_BYTES: u64 = 4096;
/// In the place of what can't be read. No frame begins so, and it isn't zero, so it is no end either.
const UNREADABLE: u8 = 0xff;

/// A file read through a window, whatever can't be read.
#[derive(Debug)]
pub(super) struct TolerantSource {
    file: Arc<dyn File>,
    len: u64,
    window: Vec<u8>,
    window_start: u64,
    /// Ascending, none adjacent.
    unreadable: Vec<Range<u64>>,
    /// Why the first of them can't be read.
    error: Option<io::Error>,
}

impl TolerantSource {
    /// Up to `end`, or to the end of the file if that is nearer.
    pub(super) fn new(file: Arc<dyn File>, end: u64) -> io::Result<Self> {
        let len = file.len()?.min(end);
        Ok(Self { file, len, window: Vec::new(), window_start: 0, unreadable: Vec::new(), error: None })
    }

    /// What couldn't be read, and why.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (Range<u64>, String)> {
        let detail = self.error.as_ref().map_or_else(String::new, io::Error::to_string);
        self.unreadable.iter().map(move |range| (range.clone(), detail.clone()))
    }

    fn fill(&mut self, start: u64, len: usize) {
        self.window.clear();
        self.window.resize(len, 0);
        self.window_start = start;
        match self.file.read_at(&mut self.window, start) {
            Ok(read) => self.window.truncate(read),
            Err(_) => self.fill_by_blocks(),
        }
    }

    fn fill_by_blocks(&mut self) {
        let end = self.window_start + self.window.len() as u64;
        let mut position = self.window_start;
        let mut read_to = 0;
        while position < end {
            let block_end = ((position / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
            let at = (position - self.window_start) as usize..(block_end - self.window_start) as usize;
            let block = &mut self.window[at.clone()];
            match self.file.read_at(block, position) {
                Ok(read) => {
                    read_to = at.start + read;
                    if read < at.len() {
                        break; // The end of the file.
                    }
                }
                Err(error) => {
                    block.fill(UNREADABLE);
                    read_to = at.end;
                    self.note(position..block_end, error);
                }
            }
            position = block_end;
        }
        self.window.truncate(read_to);
    }

    /// Notes a range; windows may overlap.
    fn note(&mut self, range: Range<u64>, error: io::Error) {
        self.error.get_or_insert(error);
        let first = self.unreadable.partition_point(|known| known.end < range.start);
        let behind = self.unreadable.partition_point(|known| known.start <= range.end);
        let merged = self.unreadable[first..behind]
            .iter()
            .fold(range, |merged, known| merged.start.min(known.start)..merged.end.max(known.end));
        self.unreadable.splice(first..behind, [merged]);
    }
}

impl Source for TolerantSource {
    type Error = Infallible;

    fn len(&self) -> u64 {
        self.len
    }

    fn at(&mut self, position: u64, want: usize) -> Result<&[u8], Infallible> {
        let rest = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let want = want.min(rest);
        let held = self.window_start..self.window_start + self.window.len() as u64;
        if !(held.start <= position && position + want as u64 <= held.end) {
            self.fill(position, want.max(WINDOW_BYTES.min(rest)));
        }
        // The window covers what was wanted, unless the file was cut meanwhile.
        let start = usize::try_from(position - self.window_start).unwrap_or(usize::MAX).min(self.window.len());
        Ok(&self.window[start..self.window.len().min(start.saturating_add(want))])
    }

    fn next_data(&mut self, position: u64) -> Result<Option<u64>, Infallible> {
        let here = (position < self.len).then_some(position);
        // Small holes aren't worth a system call; where the holes can't be told, everything may be data.
        if position + WINDOW_BYTES as u64 >= self.len {
            return Ok(here);
        }
        Ok(self.file.next_data(position).unwrap_or(here).filter(|&data| data < self.len))
    }
}
