//! Hashes of bytes, for telling images of a machine apart. Not for anything that lasts or that somebody could attack.
//!
//! Sixteen bytes at a time are folded by a multiplication of 64 by 64 bits, as in wyhash (Wang Yi, public domain), in
//! four lanes, since each fold waits for the one before it.
//!
//! # Thread safety
//! Pure functions.

use crate::mix::mix64;

/// Two odd numbers with about as many ones as zeros: the golden ratio's and pi's fractions.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x243f_6a88_85a3_08d3];
const LANES: usize = 4;
const FOLD_BYTES: usize = 16;

/// A hash of the bytes and their number.
pub(super) fn bytes_hash(bytes: &[u8], seed: u64) -> u64 {
    let mut lanes: [u64; LANES] = std::array::from_fn(|lane| mix64(seed.wrapping_add(lane as u64)));
    let (blocks, rest) = bytes.split_at(bytes.len() / (LANES * FOLD_BYTES) * (LANES * FOLD_BYTES));
    for block in blocks.chunks_exact(LANES * FOLD_BYTES) {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(FOLD_BYTES)) {
            *lane = fold(*lane, bytes);
        }
    }
    let hash = rest.chunks(FOLD_BYTES).fold(bytes.len() as u64, |hash, bytes| {
        let mut last = [0; FOLD_BYTES];
        last[..bytes.len()].copy_from_slice(bytes);
        fold(hash, &last)
    });
    lanes.into_iter().fold(hash, |hash, lane| mix64(hash ^ lane))
}

fn fold(hash: u64, bytes: &[u8]) -> u64 {
    let (low, high) = bytes.split_at(8);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let product =
        u128::from(word(low) ^ hash ^ FACTORS[0]) * u128::from(word(high) ^ hash.rotate_left(32) ^ FACTORS[1]);
    (product >> 64) as u64 ^ product as u64
}
