//! What must hold for any input, for the fuzz targets and the tests to feed.
//!
//! A broken promise panics: that is how a fuzzer is told.
#![allow(unreachable_pub)] // public under `cfg(fuzzing)` alone

use super::*;

/// Decodes `data` as it is, and with magic, version and checksum put right; what decodes encodes to the same bytes.
pub fn segment_header(data: &[u8]) {
    canonical(data);
    if let Some(bytes) = data.first_chunk::<SEGMENT_HEADER_BYTES>() {
        let mut bytes = *bytes;
        bytes[MAGIC_AT..VERSION_AT].copy_from_slice(&MAGIC);
        canonical(&sealed(bytes));
        LittleEndian::write_u32(&mut bytes[VERSION_AT..PARTITION_AT], FORMAT_VERSION);
        canonical(&sealed(bytes));
    }
    let (a, b) = data.split_at(data.len().min(SEGMENT_HEADER_BYTES));
    let either = SegmentHeader::read_either(a, b);
    assert_eq!(either.is_ok(), SegmentHeader::decode(a).is_ok() || SegmentHeader::decode(b).is_ok());
}

/// Makes the checksum hold.
pub(crate) fn sealed(mut bytes: [u8; SEGMENT_HEADER_BYTES]) -> [u8; SEGMENT_HEADER_BYTES] {
    let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
    LittleEndian::write_u32(&mut bytes[CHECKSUM_AT..], checksum);
    bytes
}

fn canonical(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        let encoded = header.encode();
        assert!(bytes.starts_with(&encoded));
        assert_eq!(SegmentHeader::decode(&encoded), Ok(header));
    }
}
