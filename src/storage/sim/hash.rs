//! Hashes of bytes, for telling images of a machine apart. Not for anything that lasts or that somebody could attack.
//!
//! Sixteen bytes at a time are folded by a multiplication of 64 by 64 bits, as in wyhash (Wang Yi, public domain).
//!
//! # Thread safety
//! Pure functions.

use crate::mix::mix64;

/// Two odd numbers with as many ones as zeros, of SplitMix64 and of the fraction of pi.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x243f_6a88_85a3_08d3];

/// A hash of the bytes and their number.
pub(super) fn bytes_hash(bytes: &[u8], seed: u64) -> u64 {
    let (blocks, rest) = bytes.split_at(bytes.len() / 16 * 16);
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let hash = blocks.chunks_exact(16).fold(seed, fold);
    mix64(fold(hash, &last) ^ bytes.len() as u64)
}

fn fold(hash: u64, block: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| block[at + byte]));
    let product = u128::from(word(0) ^ hash ^ FACTORS[0]) * u128::from(word(8) ^ hash.rotate_left(32) ^ FACTORS[1]);
    (product >> 64) as u64 ^ product as u64
}
