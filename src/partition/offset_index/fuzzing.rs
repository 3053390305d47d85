//! Offset indexes for the fuzz targets, with a header that holds.

use super::*;

/// Makes the bytes those of a sealed index of this segment, whatever its entries are.
pub(crate) fn seal(bytes: &mut Vec<u8>, segment_id: u64) {
    let len = bytes.len().max(HEADER_WORDS * ENTRY_BYTES as usize).next_multiple_of(ENTRY_BYTES as usize);
    bytes.resize(len, 0);
    let entry = |entry: &[u8]| AtomicU64::new(u64::from_le_bytes(entry.try_into().unwrap_or_default()));
    let words: Vec<AtomicU64> = bytes.chunks_exact(ENTRY_BYTES as usize).map(entry).collect();
    let header = [MAGIC, segment_id, super::seal(&words[HEADER_WORDS..])];
    for (word, value) in bytes.chunks_exact_mut(ENTRY_BYTES as usize).zip(header) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}
