//! What all formats of this crate share: a bounds-checked reader, length words and alignment.
//!
//! # Format
//! Integers are little-endian. A *length word* is a `u32` before (not necessarily next to) a byte string: bit 31 means
//! null, bits 0 to 27 are the length, bits 28 to 30 are zero unless the format that holds the word gives them a
//! meaning. Null has length zero, so that every byte string, null and empty ones included, has one encoding.
//!
//! # Invariants
//! Nothing here allocates, and nothing panics on any bytes: a read that doesn't fit answers `None`.
//!
//! # Thread safety
//! Plain values and functions.

use byteorder::{ByteOrder, LittleEndian};

/// Frames begin at multiples of this, and so do positions in indexes and in the commit word.
pub(crate) const ALIGNMENT: usize = 8;

/// The word of a null byte string.
pub(crate) const NULL_WORD: u32 = 1 << 31;

/// The bit of a length word that the holding format may use.
pub(crate) const WORD_FLAG: u32 = 1 << 30;

/// The bits of a length word that hold the length; also the greatest length.
pub(crate) const WORD_LENGTH_MASK: u32 = (1 << 28) - 1;

/// `bytes` rounded up to a multiple of [`ALIGNMENT`]; the greatest such multiple if there is none above.
#[inline]
pub(crate) const fn align_up(bytes: u64) -> u64 {
    let mask = ALIGNMENT as u64 - 1;
    bytes.saturating_add(mask) & !mask
}

/// The length word of a byte string, whose length the caller has checked against [`WORD_LENGTH_MASK`].
#[inline]
pub(crate) fn length_word(bytes: Option<&[u8]>) -> u32 {
    match bytes {
        None => NULL_WORD,
        Some(bytes) => bytes.len() as u32 & WORD_LENGTH_MASK,
    }
}

/// Reads from the front of a byte string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What wasn't read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(bytes)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|&[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array::<2>().map(|bytes| LittleEndian::read_u16(bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array::<4>().map(|bytes| LittleEndian::read_u32(bytes))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array::<8>().map(|bytes| LittleEndian::read_u64(bytes))
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array::<8>().map(|bytes| LittleEndian::read_i64(bytes))
    }

    /// The byte string of a length word, whose flag (where the format has one) the caller has cleared: `Some(None)`
    /// for null. `None` if it doesn't fit, or if the word has bits that mean nothing.
    #[inline]
    pub(crate) fn nullable(&mut self, word: u32) -> Option<Option<&'a [u8]>> {
        if word <= WORD_LENGTH_MASK {
            self.bytes(word as usize).map(Some)
        } else if word == NULL_WORD {
            Some(None)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_rounds_up_and_never_wraps() {
        assert_eq!([0, 1, 7, 8, 9].map(align_up), [0, 8, 8, 8, 16]);
        assert_eq!(align_up(u64::MAX), u64::MAX - 7);
    }

    #[test]
    fn a_reader_never_reads_beyond_the_end() {
        let mut reader = Reader::new(&[1, 2, 0, 3, 0, 0, 0]);
        assert_eq!(reader.u64(), None);
        assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Some(1), Some(2), Some(3)));
        assert!(reader.is_empty());
        assert_eq!((reader.u8(), reader.bytes(1), reader.bytes(0)), (None, None, Some(&[][..])));
    }

    #[test]
    fn null_and_empty_differ_and_meaningless_words_are_refused() {
        let mut reader = Reader::new(b"abc");
        assert_eq!(reader.nullable(NULL_WORD), Some(None));
        assert_eq!(reader.nullable(0), Some(Some(&[][..])));
        assert_eq!(reader.nullable(2), Some(Some(&b"ab"[..])));
        assert_eq!(reader.nullable(2), None);
        for word in [NULL_WORD | 1, 1 << 28, 1 << 29, WORD_FLAG, u32::MAX] {
            assert_eq!(reader.nullable(word), None);
        }
        assert_eq!(length_word(None), NULL_WORD);
        assert_eq!(length_word(Some(b"abc")), 3);
    }
}
