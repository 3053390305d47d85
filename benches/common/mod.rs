//! What the benchmarks share: the payloads, and the limit that they are set beside.
//!
//! The limit is what the machine allows for the same checksum work: a mapped file whose blocks were reserved, into which
//! each record is copied behind a header of tidelog's size with a CRC-32 of the payload. No index, no clock, no
//! publication, no reader.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its part")]

use std::{fs::File, path::Path};

use memmap2::MmapRaw;
use tidelog::{Durability, Log, Topic, TopicConfig};

/// Bytes before each record of the limit: what a lone keyed record of tidelog costs.
pub const HEADER_BYTES: usize = 40;
/// Records in a measured round.
pub const RECORDS: usize = 100_000;
/// Records in a batch.
pub const BATCH: usize = 100;
/// Bytes between two entries of the limit's index.
const INDEX_BYTES: usize = 4096;
/// Frames begin at multiples of it: so the index tells a place below 32 GiB in 32 bits.
const ALIGNMENT: usize = 8;
/// Payload sizes.
pub const SIZES: [usize; 2] = [100, 1024];

/// Bytes that don't compress, always the same.
pub fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}

/// A log with one topic of one partition in an empty folder.
pub fn empty_topic(dir: &Path) -> (Log, Topic) {
    topic_of(dir, 1)
}

/// The same with more partitions.
pub fn topic_of(dir: &Path, partitions: u32) -> (Log, Topic) {
    let options = Log::options().durability(Durability::Written).segment_bytes(1 << 30);
    let log = options.open(dir).expect("a folder that can be opened");
    let topic = log.create_topic("bench", TopicConfig::with_partitions(partitions)).expect("a new topic");
    (log, topic)
}

/// Writes a frame of the limit: a header of tidelog's size with a CRC-32 of the body, and the records with as many bytes
/// before each as tidelog has. Answers its bytes, a multiple of 8.
///
/// # Safety
/// `start` is valid for writes of [`frame_bytes`] of these records, and nobody else uses those.
pub unsafe fn write_frame<'a>(start: *mut u8, records: impl Iterator<Item = &'a [u8]>) -> usize {
    // SAFETY: within the frame, whose bytes the caller vouches for.
    unsafe {
        let body = start.add(HEADER_BYTES - 8);
        let mut at = body;
        for record in records {
            at.cast::<u64>().write_unaligned(record.len() as u64);
            at.add(8).copy_from_nonoverlapping(record.as_ptr(), record.len());
            at = at.add(8 + record.len());
        }
        let bytes = at.offset_from(body) as usize;
        let checksum = crc32fast::hash(std::slice::from_raw_parts(body, bytes));
        start.cast::<u64>().write_unaligned(bytes as u64);
        start.add(8).cast::<u32>().write_unaligned(checksum);
        aligned(HEADER_BYTES - 8 + bytes)
    }
}

/// Bytes of a frame of `count` records of `bytes` each.
pub fn frame_bytes(count: usize, bytes: usize) -> usize {
    aligned(HEADER_BYTES - 8 + count * (8 + bytes))
}

/// The limit: a mapped file with its blocks reserved.
pub struct MappedFile {
    file: File,
    map: MmapRaw,
    end: usize,
    /// For each 4 KiB the number of the first record of a frame and where that is, in units of the alignment, as tidelog's
    /// sparse index has them.
    index: Vec<(u32, u32)>,
    records: u32,
}

impl MappedFile {
    /// A file for `records` of `bytes` each.
    pub fn new(dir: &Path, records: usize, bytes: usize) -> Self {
        let len = records * aligned(HEADER_BYTES + bytes);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("limit"));
        let file = file.expect("a new file");
        file.set_len(len as u64).expect("a length");
        #[cfg(target_os = "linux")]
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len as u64).expect("space");
        Self::map(file, 0)
    }

    /// The same, whose blocks were all written before: a sync then has nothing else to do than to write. Page by page, so that
    /// the page cache has no larger ones, which would be written as a whole.
    pub fn written(dir: &Path, records: usize, bytes: usize) -> Self {
        use std::io::Write;
        let mut made = Self::new(dir, records, bytes);
        for _ in 0..made.map.len() / 4096 {
            made.file.write_all(&[0; 4096]).expect("a write");
        }
        made.file.sync_all().expect("a sync");
        made
    }

    /// The file that another process has left with [`trim`](MappedFile::trim).
    pub fn open(dir: &Path) -> Self {
        let file = File::options().read(true).write(true).open(dir.join("limit")).expect("a file");
        let end = file.metadata().expect("a length").len() as usize;
        Self::map(file, end)
    }

    fn map(file: File, end: usize) -> Self {
        let map = MmapRaw::map_raw(&file).expect("a map");
        let index = Vec::with_capacity(map.len() / INDEX_BYTES + 1);
        Self { file, map, end, index, records: 0 }
    }

    /// Cuts off what nothing was appended to.
    pub fn trim(self) {
        self.file.set_len(self.end as u64).expect("a length");
    }

    /// Where the next frame goes.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Takes down where the frame is that comes next. Apart from appending, which has no index.
    pub fn note(&mut self) {
        if self.index.last().is_none_or(|&(_, at)| self.end >= at as usize * ALIGNMENT + INDEX_BYTES) {
            let at = u32::try_from(self.end / ALIGNMENT).expect("less than 32 GiB");
            self.index.push((self.records, at));
        }
        self.records += 1;
    }

    /// Takes down where the frames are that another process has appended, one record each.
    pub fn note_all(&mut self) {
        let end = std::mem::replace(&mut self.end, 0);
        while self.end < end {
            self.note();
            self.end = self.behind(self.end);
        }
    }

    /// The length of a lone record by its number, its checksum verified.
    pub fn look_up(&self, number: u32) -> usize {
        std::hint::black_box(self.record(number)).len()
    }

    /// A lone record by its number, its checksum verified: by the index, and a walk over headers.
    pub fn record(&self, number: u32) -> &[u8] {
        let entry = self.index[self.index.partition_point(|&(first, _)| first <= number) - 1];
        let at = (entry.0..number).fold(entry.1 as usize * ALIGNMENT, |at, _| self.behind(at));
        self.record_at(at)
    }

    /// Where the frame at a place ends.
    pub fn behind(&self, at: usize) -> usize {
        assert!(at + HEADER_BYTES <= self.map.len());
        // SAFETY: within the map, of which `write_frame` has written what is before the end.
        let body = unsafe { self.map.as_ptr().add(at).cast::<u64>().read_unaligned() } as usize;
        at + aligned(HEADER_BYTES - 8 + body)
    }

    /// Copies one record behind the last, with its header and checksum.
    pub fn append(&mut self, payload: &[u8]) {
        self.append_batch(payload, 1);
    }

    /// Copies the payload `count` times, behind one header and under one checksum.
    pub fn append_batch(&mut self, payload: &[u8], count: usize) {
        self.append_all(count, payload.len(), std::iter::repeat_n(payload, count));
    }

    /// Copies `count` records of `bytes` each, behind one header and under one checksum.
    pub fn append_all<'a>(&mut self, count: usize, bytes: usize, records: impl Iterator<Item = &'a [u8]>) {
        assert!(self.end + frame_bytes(count, bytes) <= self.map.len());
        let records = records.take(count).inspect(|record| assert!(record.len() <= bytes));
        // SAFETY: in bounds as just checked; nobody else uses the map.
        self.end += unsafe { write_frame(self.map.as_mut_ptr().add(self.end), records) };
    }

    /// As [`append_batch`](MappedFile::append_batch), and waits until it is on the device.
    pub fn append_durably(&mut self, payload: &[u8], count: usize) {
        self.append_batch(payload, count);
        self.file.sync_data().expect("a sync");
    }

    /// Walks all records and verifies their checksums; answers the sum of their lengths.
    pub fn scan(&self) -> usize {
        let mut sum = 0;
        self.each_record(|record| {
            sum += std::hint::black_box(record).len();
            true
        });
        sum
    }

    /// Hands out all records in order, each frame's when its checksum was verified, until `body` has enough.
    pub fn each_record(&self, mut body: impl FnMut(&[u8]) -> bool) {
        let mut at = 0;
        while at < self.end {
            let mut rest = self.frame_at(at);
            at += aligned(HEADER_BYTES - 8 + rest.len());
            while let Some((length, record)) = rest.split_first_chunk::<8>() {
                let length = u64::from_le_bytes(*length) as usize;
                if !body(&record[..length]) {
                    return;
                }
                rest = &record[length..];
            }
        }
    }

    /// The first record of the frame at a place, verified.
    pub fn record_at(&self, at: usize) -> &[u8] {
        let (length, rest) = self.frame_at(at).split_first_chunk::<8>().expect("a record");
        &rest[..u64::from_le_bytes(*length) as usize]
    }

    fn frame_at(&self, at: usize) -> &[u8] {
        assert!(at < self.end);
        // SAFETY: `write_frame` has written what lies below the end, frame by frame.
        let (checksum, bytes) = unsafe {
            let start = self.map.as_ptr().add(at);
            let body = start.cast::<u64>().read_unaligned() as usize;
            let bytes = std::slice::from_raw_parts(start.add(HEADER_BYTES - 8), body);
            (start.add(8).cast::<u32>().read_unaligned(), bytes)
        };
        assert_eq!(crc32fast::hash(bytes), checksum);
        bytes
    }
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}
