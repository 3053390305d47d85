//! Walking the frames of a segment, with what to do where there is none: the one place that tells damage from the end.
//!
//! Used by recovery over files (with `pread`, so that a media error is an error and not a signal), and by lookups and
//! index rebuilds over mapped bytes.
//!
//! # Invariants
//! - Every call moves on or answers [`Found::End`]; what lies between two answers is covered by them, without a gap.
//! - Zeros up to the end of the source are the end, not damage. Behind damage the next answer begins at a frame whose
//!   checks both hold, at the end of a frame whose header holds, or at zeros that go on to the end.
//! - Memory: a file's window is as long as the longest frame that lies wholly in the file, whatever a length claims.

use std::{convert::Infallible, io, ops::Range, sync::Arc};

use crate::{
    codec::ALIGNMENT,
    frame::{FrameFault, FrameHeader, FrameSeed, HEADER_BYTES},
    storage::File,
};

const STEP: u64 = ALIGNMENT as u64;
/// Bytes that are read from a file at once.
const WINDOW_BYTES: usize = 256 << 10;

/// Bytes that are compared with zeros at once.
const LINE_BYTES: usize = 64;

/// Bytes to walk, by file position.
pub(crate) trait Source {
    type Error;

    /// Where they end.
    fn len(&self) -> u64;

    /// The bytes from `position` on: `want` of them, or up to the end if that is nearer.
    fn at(&mut self, position: u64, want: usize) -> Result<&[u8], Self::Error>;

    /// The bytes from `position` on, as many as there are without reading, a header's at least unless the end is nearer.
    fn held(&mut self, position: u64) -> Result<&[u8], Self::Error> {
        self.at(position, HEADER_BYTES)
    }

    /// The first position at or behind `position` that may hold something but zeros.
    fn next_data(&mut self, position: u64) -> Result<Option<u64>, Self::Error>;
}

/// Mapped bytes, from the file's first on.
impl Source for &[u8] {
    type Error = Infallible;

    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn at(&mut self, position: u64, want: usize) -> Result<&[u8], Infallible> {
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(<[u8]>::len(self));
        Ok(&self[start..start.saturating_add(want).min(<[u8]>::len(self))])
    }

    fn held(&mut self, position: u64) -> Result<&[u8], Infallible> {
        self.at(position, usize::MAX)
    }

    fn next_data(&mut self, position: u64) -> Result<Option<u64>, Infallible> {
        Ok((position < Source::len(self)).then_some(position))
    }
}

/// A file read through a window.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: Arc<dyn File>,
    len: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl FileSource {
    pub(crate) fn new(file: Arc<dyn File>) -> io::Result<Self> {
        Ok(Self { len: file.len()?, file, window: Vec::new(), window_start: 0 })
    }

    /// The same, but ending at `end` where the file goes on behind it.
    pub(crate) fn until(mut self, end: u64) -> Self {
        self.len = self.len.min(end);
        self
    }
}

impl Source for FileSource {
    type Error = io::Error;

    fn len(&self) -> u64 {
        self.len
    }

    fn at(&mut self, position: u64, want: usize) -> io::Result<&[u8]> {
        let want = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX).min(want);
        let held = self.window_start..self.window_start + self.window.len() as u64;
        if !(held.start <= position && position + want as u64 <= held.end) {
            let rest = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
            self.window.resize(want.max(WINDOW_BYTES.min(rest)), 0);
            self.window_start = position;
            let read = self.file.read_at(&mut self.window, position);
            // What couldn't be read isn't held.
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        // The window covers what was wanted, unless the file was cut meanwhile.
        let start = usize::try_from(position - self.window_start).unwrap_or(usize::MAX).min(self.window.len());
        Ok(&self.window[start..self.window.len().min(start + want)])
    }

    fn held(&mut self, position: u64) -> io::Result<&[u8]> {
        self.at(position, HEADER_BYTES)?;
        // The window begins at the position or before it, and never reaches beyond the end.
        let start = usize::try_from(position - self.window_start).unwrap_or(usize::MAX).min(self.window.len());
        Ok(&self.window[start..])
    }

    fn next_data(&mut self, position: u64) -> io::Result<Option<u64>> {
        // Small holes aren't worth a system call.
        if position + WINDOW_BYTES as u64 >= self.len {
            return Ok((position < self.len).then_some(position));
        }
        self.file.next_data(position)
    }
}

/// What lies at the scan's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame. Its body was verified if the scan was asked to.
    Frame { position: u64, header: FrameHeader },
    /// Bytes that aren't what was written, up to where it can be gone on.
    Damage { range: Range<u64>, fault: FrameFault },
    /// Nothing but zeros from here on.
    End { position: u64 },
}

/// A walk through one segment.
#[derive(Debug)]
pub(crate) struct Scan {
    seed: FrameSeed,
    position: u64,
    verify_bodies: bool,
}

impl Scan {
    /// Verifies headers and bodies.
    pub(crate) fn verified(seed: FrameSeed, position: u64) -> Self {
        Self { seed, position, verify_bodies: true }
    }

    /// Verifies headers alone (and bodies behind damage, where a frame must be found again).
    pub(crate) fn headers(seed: FrameSeed, position: u64) -> Self {
        Self { seed, position, verify_bodies: false }
    }

    /// What comes next in mapped bytes. See [`next_in`](Scan::next_in).
    pub(crate) fn next(&mut self, mut bytes: &[u8]) -> Found {
        let Ok(found) = self.next_in(&mut bytes);
        found
    }

    /// The next frame in mapped bytes, damage passed over; `None` at the end.
    pub(crate) fn next_frame_in(&mut self, bytes: &[u8]) -> Option<(u64, FrameHeader)> {
        loop {
            match self.next(bytes) {
                Found::Frame { position, header } => return Some((position, header)),
                Found::Damage { .. } => {}
                Found::End { .. } => return None,
            }
        }
    }

    /// Has the frames that lie in the source's window passed to `pass`, and answers what comes behind them. As
    /// [`next_in`](Scan::next_in) in a loop, but without looking for the window at each frame: of a log of small records
    /// that is half of the time (`benches/recovery.rs`).
    #[inline]
    pub(crate) fn pass_frames<S: Source>(
        &mut self,
        source: &mut S,
        mut pass: impl FnMut(u64, &FrameHeader),
    ) -> Result<Found, S::Error> {
        if self.position < source.len() {
            let mut window = source.held(self.position)?;
            while let Ok(header) = FrameHeader::decode(window, self.seed, self.position) {
                let Some((frame, rest)) = window.split_at_checked(header.frame_bytes()) else { break };
                if self.verify_bodies && header.verify_body(frame, self.seed, self.position).is_err() {
                    break;
                }
                pass(self.position, &header);
                self.position += frame.len() as u64;
                window = rest;
            }
        }
        // A frame that isn't wholly in the window, or whatever else there is.
        self.next_in(source)
    }

    /// As [`next_frame_in`](Scan::next_frame_in), fillers passed over too: the next frame with records.
    pub(crate) fn next_records_in(&mut self, bytes: &[u8]) -> Option<(u64, FrameHeader)> {
        loop {
            match self.next_frame_in(bytes) {
                Some((_, header)) if header.is_filler() => {}
                found => return found,
            }
        }
    }

    /// What comes next. The scan then stands behind it, except at the end.
    pub(crate) fn next_in<S: Source>(&mut self, source: &mut S) -> Result<Found, S::Error> {
        let position = self.position;
        if position >= source.len() {
            return Ok(Found::End { position });
        }
        let fault = match self.frame_at(source, position, self.verify_bodies)? {
            Ok(header) => {
                self.position += header.frame_bytes() as u64;
                return Ok(Found::Frame { position, header });
            }
            Err((fault, Some(header))) => {
                // The header holds, so it tells where the next frame begins.
                self.position = position + header.frame_bytes() as u64;
                return Ok(Found::Damage { range: position..self.position, fault });
            }
            Err((fault, None)) => fault,
        };
        let Some(data) = first_nonzero(source, position)? else {
            return Ok(Found::End { position });
        };
        let end = match self.next_frame(source, (data / STEP * STEP).max(position + STEP))? {
            Some(next) => next,
            None => end_of_data(source, data)?,
        };
        self.position = end;
        Ok(Found::Damage { range: position..end, fault })
    }

    /// The frame at `position`; where there is none, why, and its header if that holds and the frame lies within the
    /// source.
    #[allow(clippy::type_complexity, reason = "named by the doc comment")]
    fn frame_at<S: Source>(
        &self,
        source: &mut S,
        position: u64,
        verify_body: bool,
    ) -> Result<Result<FrameHeader, (FrameFault, Option<FrameHeader>)>, S::Error> {
        let header = match FrameHeader::decode(source.at(position, HEADER_BYTES)?, self.seed, position) {
            Ok(header) => header,
            Err(fault) => return Ok(Err((fault, None))),
        };
        if header.frame_bytes() as u64 > source.len() - position {
            return Ok(Err((FrameFault::Truncated, None)));
        }
        if verify_body {
            let frame = source.at(position, header.frame_bytes())?;
            match header.verify_body(frame, self.seed, position) {
                // A later version's frame is not damage; whether it can be read is the reader's concern.
                Ok(()) | Err(FrameFault::UnknownAttributes(_)) => {}
                Err(fault) => return Ok(Err((fault, Some(header)))),
            }
        }
        Ok(Ok(header))
    }

    /// The first position from `start` on where a whole valid frame begins.
    fn next_frame<S: Source>(&self, source: &mut S, start: u64) -> Result<Option<u64>, S::Error> {
        let mut position = start;
        // Holes are skipped without reading them; the first byte of a frame never is zero.
        while let Some(data) = source.next_data(position)? {
            position = position.max(data / STEP * STEP);
            let window = source.at(position, WINDOW_BYTES)?;
            if window.len() < HEADER_BYTES {
                return Ok(None);
            }
            let whole_headers = (window.len() - HEADER_BYTES) / ALIGNMENT + 1;
            let header_at = |at: &usize| {
                let at = at * ALIGNMENT;
                window[at] != 0 && FrameHeader::decode(&window[at..], self.seed, position + at as u64).is_ok()
            };
            match (0..whole_headers).find(header_at) {
                None => position += whole_headers as u64 * STEP,
                Some(at) => {
                    position += at as u64 * STEP;
                    if self.frame_at(source, position, true)?.is_ok() {
                        return Ok(Some(position));
                    }
                    position += STEP;
                }
            }
        }
        Ok(None)
    }
}

/// The position of the first byte that isn't zero, from `start` on.
pub(crate) fn first_nonzero<S: Source>(source: &mut S, start: u64) -> Result<Option<u64>, S::Error> {
    let mut position = start;
    while let Some(data) = source.next_data(position)? {
        let window = source.at(data, WINDOW_BYTES)?;
        // Whole lines at once, which is many times as fast: a reserved file ends in many zeros.
        let lines = window.chunks_exact(LINE_BYTES);
        let zeros = LINE_BYTES * lines.take_while(|line| **line == [0; LINE_BYTES]).count();
        if let Some(at) = window[zeros..].iter().position(|&byte| byte != 0) {
            return Ok(Some(data + (zeros + at) as u64));
        }
        if window.is_empty() {
            break;
        }
        position = data + window.len() as u64;
    }
    Ok(None)
}

/// The position behind the last byte that isn't zero, rounded up to where a frame can begin; `start` if there is none.
pub(crate) fn end_of_data<S: Source>(source: &mut S, start: u64) -> Result<u64, S::Error> {
    let mut position = start;
    let mut end = start;
    while let Some(data) = source.next_data(position)? {
        let window = source.at(data, WINDOW_BYTES)?;
        if let Some(at) = window.iter().rposition(|&byte| byte != 0) {
            end = data + at as u64 + 1;
        }
        if window.is_empty() {
            break;
        }
        position = data + window.len() as u64;
    }
    Ok(end.next_multiple_of(STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the bytes that are asked for.
    struct Counted<'a> {
        bytes: &'a [u8],
        asked: usize,
    }

    impl Source for Counted<'_> {
        type Error = Infallible;

        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn at(&mut self, position: u64, want: usize) -> Result<&[u8], Infallible> {
            let found = self.bytes.at(position, want)?.len();
            self.asked += found;
            Ok(&self.bytes[position as usize..][..found])
        }

        fn next_data(&mut self, position: u64) -> Result<Option<u64>, Infallible> {
            self.bytes.next_data(position)
        }
    }

    #[test]
    fn frames_pass_as_they_come_one_by_one() {
        use crate::{
            frame::{FrameEncoder, FramePlace, NO_DURABLE_DISTANCE},
            record::Record,
            storage::Encode,
        };
        let seed = FrameSeed::new(7);
        let mut bytes = Vec::new();
        // Many windows of small frames and of one that is longer than a window; damage in between.
        for number in 0..20_000 {
            let value = vec![1; if number == 5000 { 2 * WINDOW_BYTES } else { 10 + number % 40 }];
            let records = [Record::new(&*value)];
            let encoder = FrameEncoder::new(&records).unwrap();
            let position = bytes.len();
            let place = FramePlace {
                seed,
                position: position as u64,
                relative_offset: number as u32,
                relative_time_ms: 0,
                epoch: 1,
                durable_distance: NO_DURABLE_DISTANCE,
            };
            bytes.resize(position + encoder.frame_bytes(), 0);
            encoder.at(place).encode(&mut bytes[position..]);
            if number % 7000 == 6999 {
                bytes[position + 35] ^= 1;
            }
        }
        bytes.resize(bytes.len() + 4096, 0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        std::fs::write(&path, &bytes).unwrap();
        let storage = crate::storage::fs::FsStorage;
        let file = crate::storage::Storage::open(&storage, &path, crate::storage::OpenMode::Read).unwrap();
        let source = || FileSource::new(file.clone()).unwrap().until(bytes.len() as u64 - 8);

        let (mut one_by_one, mut scan, mut read) = (Vec::new(), Scan::verified(seed, 0), source());
        while !matches!(one_by_one.last(), Some(Found::End { .. })) {
            one_by_one.push(scan.next_in(&mut read).unwrap());
        }
        let (mut passed, mut scan, mut read) = (Vec::new(), Scan::verified(seed, 0), source());
        while !matches!(passed.last(), Some(Found::End { .. })) {
            let found = scan.pass_frames(&mut read, |position, header| {
                passed.push(Found::Frame { position, header: *header });
            });
            passed.push(found.unwrap());
        }
        assert_eq!(passed.len(), 20_001);
        assert!(passed == one_by_one);
    }

    #[test]
    fn the_first_byte_that_is_not_zero_is_found_in_and_behind_whole_lines() {
        for len in [0, 1, LINE_BYTES - 1, LINE_BYTES, 3 * LINE_BYTES + 5] {
            let mut bytes = vec![0; len];
            assert_eq!(first_nonzero(&mut &*bytes, 0), Ok(None));
            for at in (0..len).rev() {
                bytes[at] = 1;
                assert_eq!(first_nonzero(&mut &*bytes, 0), Ok(Some(at as u64)));
            }
        }
    }

    #[test]
    fn damage_is_looked_through_once() {
        // A frame could begin at each place, by its first byte.
        let bytes = vec![0xd7; 2 << 20];
        let mut source = Counted { bytes: &bytes, asked: 0 };
        let Ok(found) = Scan::verified(FrameSeed::new(7), 0).next_in(&mut source);
        assert!(matches!(found, Found::Damage { range, .. } if range == (0..2 << 20)));
        assert!(source.asked < 4 * bytes.len(), "{} bytes", source.asked);
    }
}
