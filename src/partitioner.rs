//! Which partition a record goes to: by key as Kafka does it, so that keys land where Kafka would put them.
//!
//! # Thread safety
//! Partitioners are shared by all threads that append. The default one keeps a single atomic counter and no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{random, record::Record};

/// Payload in bytes after which keyless records move on to the next partition: Kafka's default `batch.size`.
///
/// Kafka sends one batch to one partition, then turns to another. Here nothing is batched; the effect that matters is
/// the same, that neighbouring records are read together and the load is spread in the long run.
const STICKY_BYTES: u64 = 16 << 10;

/// Chooses the partition of records that don't name one themselves. For
/// [`Topic::with_partitioner`](crate::Topic::with_partitioner).
///
/// Any `Fn(&Record<'_>, u32) -> u32` that is `Send + Sync` is one:
///
/// ```
/// use tidelog::{Log, Record, TopicConfig};
///
/// # fn main() -> tidelog::Result<()> {
/// let log = Log::options().in_memory().open("shop")?;
/// let orders = log.create_topic("orders", TopicConfig::with_partitions(2))?;
/// // Orders of the house go to partition 0, all others to 1.
/// let orders = orders.with_partitioner(|record: &Record<'_>, _partitions: u32| match record.key_bytes() {
///     Some(key) if key.starts_with(b"house-") => 0,
///     _ => 1,
/// });
/// assert_eq!(orders.append(Record::new("tea").key("house-7"))?.partition, 0);
/// # Ok(())
/// # }
/// ```
pub trait Partitioner: Send + Sync {
    /// The partition for `record`, below `partitions`. A greater answer makes the append fail with kind
    /// [`UnknownPartition`](crate::ErrorKind::UnknownPartition). Called once for each record without an explicit
    /// partition, from whatever thread appends it.
    fn partition(&self, record: &Record<'_>, partitions: u32) -> u32;
}

impl<F: Fn(&Record<'_>, u32) -> u32 + Send + Sync> Partitioner for F {
    fn partition(&self, record: &Record<'_>, partitions: u32) -> u32 {
        self(record, partitions)
    }
}

/// The partitioner of topics that weren't given another one: keyed records by [`murmur2`] of the key, keyless ones
/// stay on one partition for 16 KiB of payload, then move on to the next.
#[derive(Debug)]
pub struct DefaultPartitioner {
    /// Payload of keyless records so far, in bytes.
    keyless_bytes: AtomicU64,
}

impl DefaultPartitioner {
    /// One whose keyless records begin at some partition: programs that append a single record a run don't all hit
    /// the same one.
    pub fn new() -> Self {
        // Where no random number is to be had, the first partition is as good as any.
        Self::starting_at(random::u64().unwrap_or(0) >> 32)
    }

    fn starting_at(turn: u64) -> Self {
        Self { keyless_bytes: AtomicU64::new(turn * STICKY_BYTES) }
    }
}

impl Default for DefaultPartitioner {
    fn default() -> Self {
        Self::new()
    }
}

impl Partitioner for DefaultPartitioner {
    fn partition(&self, record: &Record<'_>, partitions: u32) -> u32 {
        let number = match record.key_bytes() {
            Some(key) => u64::from(murmur2(key) & 0x7fff_ffff),
            None => {
                // At least one byte each, else empty records would never move on.
                let bytes = record.payload_bytes().max(1);
                self.keyless_bytes.fetch_add(bytes, Ordering::Relaxed) / STICKY_BYTES
            }
        };
        // Below `partitions`, so it fits; a topic has at least one.
        (number % u64::from(partitions.max(1))) as u32
    }
}

/// Kafka's variant of Austin Appleby's MurmurHash2 (32 bits, seed `0x9747b28c`), as its default partitioner uses it:
/// the partition is `(murmur2(key) & 0x7fff_ffff) % partitions`.
///
/// ```
/// assert_eq!(tidelog::murmur2(b"foobar") as i32, -790332482);
/// ```
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Kafka's lengths are Java's `int`; longer keys can't be there to agree with.
    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = word.iter().rev().fold(0, |k, &byte| k << 8 | u32::from(byte)).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let k = rest.iter().rev().fold(0, |k, &byte| k << 8 | u32::from(byte));
        hash = (hash ^ k).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        for (text, hash) in [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_and_not_its_bits() {
        let partitioner = DefaultPartitioner::starting_at(0);
        let partition = partitioner.partition(&Record::new("").key("21"), 7);
        assert_eq!(partition, (-973932308i32 as u32 & 0x7fff_ffff) % 7);
        assert_eq!(partitioner.partition(&Record::new("").key("21"), 1), 0);
    }

    #[test]
    fn keyless_records_stay_for_16_kib_of_payload_then_move_on() {
        let partitioner = DefaultPartitioner::starting_at(5);
        let value = [7; 1024];
        let partitions: Vec<u32> = (0..64).map(|_| partitioner.partition(&Record::new(&value), 3)).collect();
        for (i, partition) in partitions.into_iter().enumerate() {
            assert_eq!(partition, (5 + i as u32 / 16) % 3);
        }
    }

    #[test]
    fn empty_keyless_records_move_on_too() {
        let partitioner = DefaultPartitioner::starting_at(0);
        let partitions: Vec<u32> = (0..2 * STICKY_BYTES).map(|_| partitioner.partition(&Record::null(), 2)).collect();
        assert_eq!(partitions.iter().filter(|&&partition| partition == 1).count() as u64, STICKY_BYTES);
    }

    #[test]
    fn an_empty_key_is_a_key() {
        let partitioner = DefaultPartitioner::starting_at(0);
        let expected = (murmur2(b"") & 0x7fff_ffff) % 1000;
        for _ in 0..3 {
            assert_eq!(partitioner.partition(&Record::new(vec![0; 20_000]).key(""), 1000), expected);
        }
    }
}
