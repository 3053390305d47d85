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

/// The limit: a mapped file with its blocks reserved.
pub struct MappedFile {
    file: File,
    map: MmapRaw,
    end: usize,
    /// For each 4 KiB the number of the first record of a frame and where that is, as tidelog's sparse index has them.
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
        let map = MmapRaw::map_raw(&file).expect("a map");
        Self { file, map, end: 0, index: Vec::with_capacity(len / INDEX_BYTES + 1), records: 0 }
    }

    /// Takes down where the frame is that comes next. Apart from appending, which has no index.
    pub fn note(&mut self) {
        if self.index.last().is_none_or(|&(_, at)| self.end >= at as usize + INDEX_BYTES) {
            self.index.push((self.records, self.end as u32));
        }
        self.records += 1;
    }

    /// The length of a lone record by its number, its checksum verified: by the index, and a walk over headers.
    pub fn look_up(&self, number: u32) -> usize {
        let entry = self.index[self.index.partition_point(|&(first, _)| first <= number) - 1];
        let mut at = entry.1 as usize;
        // SAFETY: `append` has written what lies below the end, and the number is that of a record.
        unsafe {
            let body_at = |at: usize| self.map.as_ptr().add(at).cast::<u64>().read_unaligned() as usize;
            for _ in entry.0..number {
                at += aligned(HEADER_BYTES - 8 + body_at(at));
            }
            let start = self.map.as_ptr().add(at);
            let bytes = std::slice::from_raw_parts(start.add(HEADER_BYTES - 8), body_at(at));
            assert_eq!(crc32fast::hash(bytes), start.add(8).cast::<u32>().read_unaligned());
            std::hint::black_box(&bytes[8..]).len()
        }
    }

    /// Copies one record behind the last, with its header and checksum.
    pub fn append(&mut self, payload: &[u8]) {
        self.append_batch(payload, 1);
    }

    /// Copies the payload `count` times, behind one header and under one checksum.
    pub fn append_batch(&mut self, payload: &[u8], count: usize) {
        let body = count * (8 + payload.len());
        assert!(self.end + HEADER_BYTES - 8 + body <= self.map.len());
        // SAFETY: in bounds as just checked; nobody else uses the map.
        unsafe {
            let start = self.map.as_mut_ptr().add(self.end);
            let mut at = start.add(HEADER_BYTES - 8);
            for _ in 0..count {
                at.cast::<u64>().write_unaligned(payload.len() as u64);
                at.add(8).copy_from_nonoverlapping(payload.as_ptr(), payload.len());
                at = at.add(8 + payload.len());
            }
            let checksum = crc32fast::hash(std::slice::from_raw_parts(start.add(HEADER_BYTES - 8), body));
            start.cast::<u64>().write_unaligned(body as u64);
            start.add(8).cast::<u32>().write_unaligned(checksum);
        }
        self.end += aligned(HEADER_BYTES - 8 + body);
    }

    /// As [`append_batch`](MappedFile::append_batch), and waits until it is on the device.
    pub fn append_durably(&mut self, payload: &[u8], count: usize) {
        self.append_batch(payload, count);
        self.file.sync_data().expect("a sync");
    }

    /// Walks all records and verifies their checksums; answers the sum of their lengths.
    pub fn scan(&self) -> usize {
        let (mut at, mut sum) = (0, 0);
        while at < self.end {
            // SAFETY: `append_batch` has written what lies below the end.
            let (body, checksum, bytes) = unsafe {
                let start = self.map.as_ptr().add(at);
                let body = start.cast::<u64>().read_unaligned() as usize;
                let bytes = std::slice::from_raw_parts(start.add(HEADER_BYTES - 8), body);
                (body, start.add(8).cast::<u32>().read_unaligned(), bytes)
            };
            assert_eq!(crc32fast::hash(bytes), checksum);
            let mut rest = bytes;
            while let Some((length, record)) = rest.split_first_chunk::<8>() {
                let length = u64::from_le_bytes(*length) as usize;
                sum += std::hint::black_box(&record[..length]).len();
                rest = &record[length..];
            }
            at += aligned(HEADER_BYTES - 8 + body);
        }
        sum
    }
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}
