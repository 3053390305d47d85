//! What a measurement hands to who is measured: records to append, or how far to read.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rand::{RngCore, SeedableRng, rngs::SmallRng};

use crate::workload::Task;

/// Bytes that payloads are taken from: more than a compressor looks back, less than the second-level cache.
const POOL_BYTES: usize = 256 << 10;
/// Lookups between two looks at the clock, and appends.
const STRIDE: u64 = 256;

/// Random bytes, of which each record has others than those around it.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    payload: usize,
}

impl Pool {
    pub(crate) fn new(payload: usize) -> Self {
        let mut bytes = vec![0; POOL_BYTES];
        SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self { bytes, payload }
    }

    /// The payload of the record with this number.
    #[inline]
    fn payload(&self, number: u64) -> &[u8] {
        let slots = (POOL_BYTES / self.payload) as u64;
        let start = (number % slots) as usize * self.payload;
        &self.bytes[start..start + self.payload]
    }
}

/// Records to append.
pub(crate) struct Work<'p> {
    pool: &'p Pool,
    batch: Vec<&'p [u8]>,
    batch_records: usize,
    /// In the pool.
    at: usize,
    pub(super) done: u64,
    wanted: u64,
    stride: u64,
    deadline: Instant,
    pub(super) capped: bool,
}

impl<'p> Work<'p> {
    pub(super) fn new(pool: &'p Pool, wanted: u64, cap: Duration, task: &Task) -> Self {
        let stride = if task.is_durable() && !task.fills { 1 } else { STRIDE };
        let batch_records = task.batch;
        let batch = Vec::with_capacity(batch_records);
        let deadline = Instant::now() + cap;
        Self { pool, batch, batch_records, at: 0, done: 0, wanted, stride, deadline, capped: false }
    }

    /// Goes on with so many more.
    pub(super) fn go_on(&mut self, records: u64, cap: Duration) {
        self.wanted = self.done + records;
        self.deadline = Instant::now() + cap;
    }

    /// Whether all that was wanted is appended.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.wanted
    }

    /// The next record, or `None` when enough was appended.
    #[inline]
    pub(crate) fn record(&mut self) -> Option<&'p [u8]> {
        if self.is_over(1) {
            return None;
        }
        self.done += 1;
        Some(self.payload())
    }

    /// The next batch, or `None` when enough was appended.
    #[inline]
    pub(crate) fn batch(&mut self) -> Option<&[&'p [u8]]> {
        if self.is_over(self.batch_records as u64) {
            return None;
        }
        self.batch.clear();
        for _ in 0..self.batch_records {
            let payload = self.payload();
            self.batch.push(payload);
        }
        self.done += self.batch_records as u64;
        Some(&self.batch)
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.pool.payload
    }

    #[inline]
    fn is_over(&mut self, records: u64) -> bool {
        if self.done + records > self.wanted {
            return true;
        }
        let looks = self.stride == 1 || self.done % self.stride < records;
        self.capped = looks && Instant::now() > self.deadline;
        self.capped
    }

    /// The same as `Pool::payload` of records in order, without a division.
    #[inline]
    fn payload(&mut self) -> &'p [u8] {
        let bytes = self.pool.payload;
        if self.at + bytes > POOL_BYTES {
            self.at = 0;
        }
        let payload = &self.pool.bytes[self.at..self.at + bytes];
        self.at += bytes;
        payload
    }
}

/// Out of the way of what is measured, which doesn't compare.
#[cold]
#[inline(never)]
fn compare(pool: &Pool, number: u64, record: &[u8]) {
    assert_eq!(record, pool.payload(number), "record {number} isn't what was appended");
}

/// Records that are read.
pub(crate) struct Reading<'p> {
    /// Of the log.
    records: u64,
    pub(super) seen: u64,
    wanted: u64,
    random: SmallRng,
    drawn: u64,
    /// What the records are to be: only while warming up.
    expected: Option<&'p Pool>,
    deadline: Instant,
    pub(super) capped: bool,
}

impl<'p> Reading<'p> {
    pub(super) fn new(records: u64, wanted: u64, cap: Duration, expected: Option<&'p Pool>) -> Self {
        let random = SmallRng::seed_from_u64(if expected.is_some() { 2 } else { 3 });
        let deadline = Instant::now() + cap;
        Self { records, seen: 0, wanted, random, drawn: 0, expected, deadline, capped: false }
    }

    /// Whether all of this pass was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.seen >= self.wanted
    }

    /// The number of the next record to look up, or `None` when it was enough.
    #[inline]
    pub(crate) fn draw(&mut self) -> Option<u64> {
        if self.seen == self.wanted || self.is_late() {
            return None;
        }
        self.drawn = ((u128::from(self.random.next_u64()) * u128::from(self.records)) >> 64) as u64;
        Some(self.drawn)
    }

    /// Takes note of a record that was drawn.
    #[inline]
    pub(crate) fn found(&mut self, record: &[u8]) {
        self.check(self.drawn, record);
        black_box(record);
        self.seen += 1;
    }

    /// Takes note of the next record in order; whether to go on.
    #[inline(always)]
    pub(crate) fn see(&mut self, record: &[u8]) -> bool {
        self.check(self.seen, record);
        black_box(record);
        self.seen += 1;
        !self.is_late()
    }

    #[inline(always)]
    fn check(&self, number: u64, record: &[u8]) {
        if let Some(pool) = self.expected {
            compare(pool, number, record);
        }
    }

    #[inline(always)]
    fn is_late(&mut self) -> bool {
        self.capped = self.seen.is_multiple_of(STRIDE) && Instant::now() > self.deadline;
        self.capped
    }

    /// For what reads slowly: looks at the clock now.
    pub(crate) fn see_slowly(&mut self, record: &[u8]) -> bool {
        let goes_on = self.see(record);
        self.capped |= Instant::now() > self.deadline;
        goes_on && !self.capped
    }
}
