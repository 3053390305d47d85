//! Fillers: frames without a record, in place of bytes that were damaged.
//!
//! A repair that a user asks for copies damaged bytes aside and writes fillers over just that range. So every other frame
//! stays where it is, and with it what indexes, links between segments and commits say; readers step over a filler and
//! tell nobody, for that was told when it was written.
//!
//! # Format
//! A header whose record count is 0 and whose only incompatible attribute is *control*; a body of zeros, which may be
//! empty. Byte by byte in `src/doc/format.md`, section "Filler".
//!
//! # Invariants
//! - A filler takes no offset: the frames before and behind it go on where they went on before.
//! - Its relative offset, time and epoch are those at which the frame before it ends, so that none of them falls.
//! - A version that doesn't know fillers takes them for damage, and can go on behind.
//!
//! # Thread safety
//! Plain values and functions.

use super::{FrameFault, FrameHeader, FramePlace, HEADER_BYTES, attributes};
use crate::codec::ALIGNMENT;

/// The longest filler that is written: a longer range takes several, so that nobody needs more memory for one than for
/// an ordinary frame.
pub(crate) const MAX_FILLER_BYTES: u64 = 1 << 20;

/// The shortest range that a filler can take: its header.
pub(crate) const MIN_FILLER_BYTES: u64 = HEADER_BYTES as u64;

const _: () = assert!(MAX_FILLER_BYTES % ALIGNMENT as u64 == 0 && MAX_FILLER_BYTES >= 2 * MIN_FILLER_BYTES);

impl FrameHeader {
    /// Whether this is a filler: there is no record in it.
    #[inline]
    pub(crate) fn is_filler(&self) -> bool {
        self.record_count == 0 // Nothing else without a record is decoded.
    }

    /// Whether the header is that of a filler, if it is of no other frame.
    pub(super) fn has_filler_shape(&self) -> bool {
        self.record_count == 0
            && self.attributes & attributes::INCOMPATIBLE == attributes::CONTROL
            && self.frame_bytes() >= HEADER_BYTES
    }
}

/// What a filler's body may be.
pub(super) fn verify_body(body: &[u8]) -> Result<(), FrameFault> {
    if body.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(FrameFault::Structure) }
}

/// The lengths of the fillers that take a range of `bytes`; `None` if none fit: bytes must be whole units, a header's at
/// least.
pub(crate) fn lengths(bytes: u64) -> Option<impl Iterator<Item = u64>> {
    if bytes < MIN_FILLER_BYTES || bytes % ALIGNMENT as u64 != 0 {
        return None;
    }
    let mut rest = bytes;
    Some(std::iter::from_fn(move || {
        let length = match rest {
            0 => return None,
            1..=MAX_FILLER_BYTES => rest,
            // What is left over has to hold a header too.
            _ => MAX_FILLER_BYTES.min(rest - MIN_FILLER_BYTES),
        };
        rest -= length;
        Some(length)
    }))
}

/// The header of a filler of `bytes` at its place; zeros are to follow it.
pub(crate) fn header(place: FramePlace, bytes: u64) -> [u8; HEADER_BYTES] {
    static ZEROS: [u8; MAX_FILLER_BYTES as usize] = [0; MAX_FILLER_BYTES as usize];
    // No longer than a filler gets.
    let bytes = bytes.clamp(MIN_FILLER_BYTES, MAX_FILLER_BYTES) as usize;
    let header = FrameHeader {
        relative_offset: place.relative_offset,
        relative_time_ms: place.relative_time_ms,
        record_count: 0,
        attributes: attributes::CONTROL,
        epoch: place.epoch,
        durable_distance: place.durable_distance,
        length: bytes as u32,
        body_check: place.seed.body_check(&ZEROS[HEADER_BYTES..bytes], place.position),
    };
    header.encode(place.seed, place.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameSeed, NO_DURABLE_DISTANCE, fuzzing::seal};

    fn place() -> FramePlace {
        FramePlace {
            seed: FrameSeed::new(0x0123_4567_89ab_cdef),
            position: 4192,
            relative_offset: 7,
            relative_time_ms: 1000,
            epoch: 3,
            durable_distance: NO_DURABLE_DISTANCE,
        }
    }

    fn filler(bytes: u64) -> Vec<u8> {
        let mut filler = header(place(), bytes).to_vec();
        filler.resize(bytes as usize, 0);
        filler
    }

    /// Computed from the document alone, by another program.
    #[test]
    fn a_filler_is_what_the_document_says() {
        let golden: [u8; 40] = [
            0xd7, 0x05, 0x00, 0x00, 0x09, 0x96, 0x3b, 0x59, 0x07, 0x00, 0x00, 0x00, 0xe8, 0x03, 0x00, 0x00, 0x00, 0x00,
            0x10, 0x00, 0xd4, 0xf9, 0x19, 0xa6, 0x03, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00,
        ];
        assert_eq!(filler(40), golden);
    }

    #[test]
    fn a_filler_is_read_and_has_no_record() {
        for bytes in [32, 40, 4096, MAX_FILLER_BYTES] {
            let filler = filler(bytes);
            let header = FrameHeader::decode(&filler, place().seed, 4192).unwrap();
            assert!(header.is_filler() && !header.has_times_in_body());
            assert_eq!((header.frame_bytes() as u64, header.next_relative_offset()), (bytes, 7));
            header.verify_body(&filler, place().seed, 4192).unwrap();
            assert_eq!(crate::frame::records(&header, &filler).count(), 0);
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let filler = filler(48);
        for bit in 0..filler.len() * 8 {
            let mut damaged = filler.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = FrameHeader::decode(&damaged, place().seed, 4192);
            assert!(decoded.and_then(|header| header.verify_body(&damaged, place().seed, 4192)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn nothing_else_without_a_record_is_a_frame() {
        let decode = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut filler = filler(48);
            change(&mut filler);
            seal(&mut filler, place().seed, 4192);
            let header = FrameHeader::decode(&filler, place().seed, 4192)?;
            header.verify_body(&filler, place().seed, 4192)
        };
        assert_eq!(decode(&|_| {}), Ok(()));
        assert_eq!(decode(&|bytes| bytes[19] |= 0x80), Ok(()), "compatible bits are ignored");
        assert_eq!(decode(&|bytes| bytes[47] = 1), Err(FrameFault::Structure), "the body is zeros");
        for attributes in [0, attributes::HEADERS, attributes::CONTROL | attributes::HEADERS, attributes::CONTROL | 1] {
            let [low, high] = attributes.to_le_bytes();
            let outcome = decode(&|bytes| (bytes[18], bytes[19]) = (low, high));
            assert_eq!(outcome, Err(FrameFault::Length), "{attributes:#x}");
        }
        assert_eq!(decode(&|bytes| bytes[1] = 3), Err(FrameFault::Length), "shorter than a header");
        let one = decode(&|bytes| bytes[16] = 1);
        assert_eq!(one, Err(FrameFault::UnknownAttributes(attributes::CONTROL)), "a control frame of a later version");
    }

    #[test]
    fn lengths_fill_the_range() {
        for bytes in
            [32, 40, 4096, MAX_FILLER_BYTES, MAX_FILLER_BYTES + 8, MAX_FILLER_BYTES + 32, 5 * MAX_FILLER_BYTES + 16]
        {
            let lengths: Vec<u64> = lengths(bytes).unwrap().collect();
            assert_eq!(lengths.iter().sum::<u64>(), bytes);
            let fits = |length: &u64| (MIN_FILLER_BYTES..=MAX_FILLER_BYTES).contains(length) && length % 8 == 0;
            assert!(lengths.iter().all(fits), "{lengths:?}");
        }
        for bytes in [0, 8, 24, 33, 36] {
            assert!(lengths(bytes).is_none());
        }
    }
}
