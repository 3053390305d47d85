//! The header of a segment: which partition and place in it the file is for, and what came before.
//!
//! # Format
//! 96 bytes, byte by byte in [`crate::doc::format`], stored twice: at the file's first byte and in the next 4 KiB
//! block, so that one bad block doesn't lose a segment. Frames begin directly behind the second copy.
//!
//! # Invariants
//! - Magic, format version and checksum stay where they are in every version of the format, so that damage and a newer
//!   version are told apart.
//! - What decodes encodes to the same bytes.
//!
//! # Thread safety
//! Plain values.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    codec::{Reader, align_up},
    frame::FrameSeed,
};

/// The format version that is written, and the newest that is read.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// `tidelog`, and a byte that no text contains.
const MAGIC: [u8; 8] = *b"tidelog\xd7";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + MAGIC.len();
const PARTITION_AT: usize = VERSION_AT + size_of::<u32>();
const SEGMENT_ID_AT: usize = PARTITION_AT + size_of::<u32>();
const TOPIC_ID_AT: usize = SEGMENT_ID_AT + size_of::<u64>();
const SEQUENCE_AT: usize = TOPIC_ID_AT + TOPIC_ID_BYTES;
const BASE_OFFSET_AT: usize = SEQUENCE_AT + size_of::<u64>();
const BASE_TIMESTAMP_AT: usize = BASE_OFFSET_AT + size_of::<u64>();
const PREDECESSOR_ID_AT: usize = BASE_TIMESTAMP_AT + size_of::<i64>();
const PREDECESSOR_END_AT: usize = PREDECESSOR_ID_AT + size_of::<u64>();
const PREDECESSOR_END_OFFSET_AT: usize = PREDECESSOR_END_AT + size_of::<u64>();
const RESERVED_AT: usize = PREDECESSOR_END_OFFSET_AT + size_of::<u64>();
const CHECKSUM_AT: usize = RESERVED_AT + size_of::<u32>();

const TOPIC_ID_BYTES: usize = 16;

/// Bytes of a copy.
pub(crate) const SEGMENT_HEADER_BYTES: usize = CHECKSUM_AT + size_of::<u32>();

/// Position of the first copy.
pub(crate) const COPY_A_AT: u64 = 0;

/// Position of the second copy, in a block of its own.
pub(crate) const COPY_B_AT: u64 = 4096;

/// Position of the first frame.
pub(crate) const DATA_START: u64 = align_up(COPY_B_AT + SEGMENT_HEADER_BYTES as u64);

const _: () = assert!(SEGMENT_HEADER_BYTES == 96 && DATA_START == 4192);

/// Sequence numbers lie below this: the commit word has 31 bits for them.
pub(crate) const MAX_SEQUENCE: u64 = 1 << 31;

/// Offsets lie below this.
const MAX_OFFSET: u64 = 1 << 63;

/// What the header of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random; both checks of every frame are seeded with it.
    pub(crate) segment_id: u64,
    /// Random, drawn when the topic was created.
    pub(crate) topic_id: [u8; TOPIC_ID_BYTES],
    pub(crate) partition: u32,
    /// Grows by one with each segment of the partition; below [`MAX_SEQUENCE`].
    pub(crate) sequence: u64,
    /// Offsets in frames are relative to this.
    pub(crate) base_offset: u64,
    /// Append times in frames are relative to this; ms since the Unix epoch.
    pub(crate) base_timestamp_ms: i64,
    /// The segment before this one; `None` for a partition's first. Zero in the file, so no segment has that id.
    pub(crate) predecessor: Option<Predecessor>,
}

/// How the segment before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Predecessor {
    /// Its id, never zero.
    pub(crate) segment_id: u64,
    /// The file position behind its last frame.
    pub(crate) end_position: u64,
    /// The offset behind its last record.
    pub(crate) end_offset: u64,
}

impl SegmentHeader {
    /// What the checks of this segment's frames are seeded with.
    pub(crate) fn frame_seed(&self) -> FrameSeed {
        FrameSeed::new(self.segment_id)
    }

    /// One copy's bytes; both copies are the same.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let before = self.predecessor.unwrap_or(Predecessor { segment_id: 0, end_position: 0, end_offset: 0 });
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header[MAGIC_AT..VERSION_AT].copy_from_slice(&MAGIC);
        LittleEndian::write_u32(&mut header[VERSION_AT..PARTITION_AT], FORMAT_VERSION);
        LittleEndian::write_u32(&mut header[PARTITION_AT..SEGMENT_ID_AT], self.partition);
        LittleEndian::write_u64(&mut header[SEGMENT_ID_AT..TOPIC_ID_AT], self.segment_id);
        header[TOPIC_ID_AT..SEQUENCE_AT].copy_from_slice(&self.topic_id);
        LittleEndian::write_u64(&mut header[SEQUENCE_AT..BASE_OFFSET_AT], self.sequence);
        LittleEndian::write_u64(&mut header[BASE_OFFSET_AT..BASE_TIMESTAMP_AT], self.base_offset);
        LittleEndian::write_i64(&mut header[BASE_TIMESTAMP_AT..PREDECESSOR_ID_AT], self.base_timestamp_ms);
        LittleEndian::write_u64(&mut header[PREDECESSOR_ID_AT..PREDECESSOR_END_AT], before.segment_id);
        LittleEndian::write_u64(&mut header[PREDECESSOR_END_AT..PREDECESSOR_END_OFFSET_AT], before.end_position);
        LittleEndian::write_u64(&mut header[PREDECESSOR_END_OFFSET_AT..RESERVED_AT], before.end_offset);
        let checksum = crc32fast::hash(&header[..CHECKSUM_AT]);
        LittleEndian::write_u32(&mut header[CHECKSUM_AT..], checksum);
        header
    }

    /// Reads a copy, whose first bytes are `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>().ok_or(HeaderFault::Truncated)?;
        if *header == [0; SEGMENT_HEADER_BYTES] {
            return Err(HeaderFault::Empty);
        }
        if header[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if LittleEndian::read_u32(&header[CHECKSUM_AT..]) != crc32fast::hash(&header[..CHECKSUM_AT]) {
            return Err(HeaderFault::Checksum);
        }
        let version = LittleEndian::read_u32(&header[VERSION_AT..PARTITION_AT]);
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let (decoded, reserved) = Self::fields(&header[PARTITION_AT..CHECKSUM_AT]).ok_or(HeaderFault::Truncated)?;
        decoded.check_fields(reserved)?;
        Ok(decoded)
    }

    /// The valid one of the two copies; if neither is, what is wrong with the one that tells more.
    pub(crate) fn read_either(a: &[u8], b: &[u8]) -> Result<Self, HeaderFault> {
        Self::decode(a).or_else(|fault_a| Self::decode(b).map_err(|fault_b| fault_a.max(fault_b)))
    }

    /// The fields between version and checksum, the reserved ones beside.
    fn fields(bytes: &[u8]) -> Option<(Self, u32)> {
        let mut reader = Reader::new(bytes);
        let partition = reader.u32()?;
        let segment_id = reader.u64()?;
        let topic_id = *reader.array::<TOPIC_ID_BYTES>()?;
        let sequence = reader.u64()?;
        let base_offset = reader.u64()?;
        let base_timestamp_ms = reader.i64()?;
        let before = Predecessor { segment_id: reader.u64()?, end_position: reader.u64()?, end_offset: reader.u64()? };
        let none = before == Predecessor { segment_id: 0, end_position: 0, end_offset: 0 };
        let predecessor = if none { None } else { Some(before) };
        let decoded = Self { segment_id, topic_id, partition, sequence, base_offset, base_timestamp_ms, predecessor };
        Some((decoded, reader.u32()?))
    }

    /// Refuses what no writer writes.
    fn check_fields(&self, reserved: u32) -> Result<(), HeaderFault> {
        let before = self.predecessor;
        let refused = [
            (self.segment_id == 0, "segment id"),
            (self.sequence >= MAX_SEQUENCE, "sequence number"),
            (self.base_offset >= MAX_OFFSET, "base offset"),
            (before.is_some_and(|before| before.segment_id == 0), "predecessor's id"),
            (before.is_some_and(|before| before.end_position % 8 != 0), "predecessor's end position"),
            (before.is_some_and(|before| before.end_offset > self.base_offset), "predecessor's end offset"),
            (reserved != 0, "reserved field"),
        ];
        match refused.into_iter().find(|(refused, _)| *refused) {
            None => Ok(()),
            Some((_, field)) => Err(HeaderFault::Field(field)),
        }
    }
}

/// What is wrong with a copy of a segment's header; the greater, the more it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HeaderFault {
    /// The file ends before it does.
    Truncated,
    /// Zeros: none was ever written here.
    Empty,
    /// It doesn't begin as a segment's header does.
    Magic,
    /// It isn't what was written.
    Checksum,
    /// The checksum holds, but this field is impossible.
    Field(&'static str),
    /// The checksum holds, but this isn't a version that this crate reads.
    Version(u32),
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the file ends inside the segment's header"),
            Self::Empty => f.write_str("zeros in place of the segment's header"),
            Self::Magic => f.write_str("no segment header begins here"),
            Self::Checksum => f.write_str("the checksum of the segment's header doesn't hold"),
            Self::Field(field) => write!(f, "the {field} in the segment's header is impossible"),
            Self::Version(found) => {
                write!(f, "the segment has format version {found}, this version of tidelog reads {FORMAT_VERSION}")
            }
        }
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
