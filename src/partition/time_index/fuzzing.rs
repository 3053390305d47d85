//! Time indexes for the fuzz targets, with checks that hold.

use super::*;

/// Makes the bytes a file that is as believable as `sound`, which is one of the same segment, whatever its times are.
pub(crate) fn seal(bytes: &mut Vec<u8>, sound: &[u8]) {
    let entries = bytes.len().saturating_sub(HEADER_BYTES) / ENTRY_BYTES;
    bytes.resize(HEADER_BYTES + entries * ENTRY_BYTES, 0);
    let (header, entries_bytes) = bytes.split_at_mut(HEADER_BYTES);
    header[..GREATEST_AT].copy_from_slice(&sound[..GREATEST_AT]);
    header[EPOCH_AT..COUNT_AT].copy_from_slice(&sound[EPOCH_AT..COUNT_AT]);
    LittleEndian::write_u32(&mut header[COUNT_AT..ENTRIES_CHECK_AT], entries as u32);
    LittleEndian::write_u32(&mut header[ENTRIES_CHECK_AT..HEADER_CHECK_AT], crc32fast::hash(entries_bytes));
    let check = crc32fast::hash(&header[..HEADER_CHECK_AT]);
    LittleEndian::write_u32(&mut header[HEADER_CHECK_AT..], check);
}

/// Whether both checks hold: nothing tells that it isn't what was written.
pub(crate) fn is_intact(bytes: &[u8]) -> bool {
    let Some((header, entries)) = bytes.split_at_checked(HEADER_BYTES) else { return false };
    let word = |at: usize| LittleEndian::read_u32(&header[at..]);
    word(HEADER_CHECK_AT) == crc32fast::hash(&header[..HEADER_CHECK_AT])
        && word(ENTRIES_CHECK_AT) == crc32fast::hash(entries)
}
