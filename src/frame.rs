//! Frames: one to 65,535 records, written and read all or nothing. All that is ever appended to a segment are frames.
//! What takes the place of damaged ones is a frame without a record, a [`filler`].
//!
//! # Format
//! A header of 32 bytes, the records, zeros up to a multiple of 8; byte by byte in [`crate::doc::format`].
//!
//! # Invariants
//! - Both checks are seeded with the segment's random id and the frame's file position, so that what is valid at one
//!   place is valid nowhere else: stale bytes, zeros, and payloads that contain a frame never decode.
//! - A header whose check holds tells the frame's length, so that a damaged body doesn't lose what follows it.
//! - One sequence of records has one encoding: what [`FrameHeader::verify_body`] accepts is, byte for byte, what the
//!   encoder makes of those records (but for compatible attributes, which a later version may set).
//! - Nothing in here allocates. Decoding borrows, whatever the bytes are, and panics on none.
//!
//! # Thread safety
//! Plain values and functions.

pub(crate) mod filler;

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

pub(crate) use crate::codec::ALIGNMENT;
use crate::{
    codec::{self, Reader, WORD_FLAG, align_up},
    error::{Error, Repr, Result},
    mix::{mix64, split_mix64},
    record::{HeaderBlock, MAX_HEADER_NAME_BYTES, Record, RecordView},
    storage::{Encode, Store},
};

const MAGIC_AT: usize = 0;
const LENGTH_AT: usize = MAGIC_AT + size_of::<u8>();
const LENGTH_BYTES: usize = 3;
const HEADER_CHECK_AT: usize = LENGTH_AT + LENGTH_BYTES;
const RELATIVE_OFFSET_AT: usize = HEADER_CHECK_AT + size_of::<u32>();
const RELATIVE_TIME_AT: usize = RELATIVE_OFFSET_AT + size_of::<u32>();
const RECORD_COUNT_AT: usize = RELATIVE_TIME_AT + size_of::<u32>();
const ATTRIBUTES_AT: usize = RECORD_COUNT_AT + size_of::<u16>();
const BODY_CHECK_AT: usize = ATTRIBUTES_AT + size_of::<u16>();
const EPOCH_AT: usize = BODY_CHECK_AT + size_of::<u32>();
const DURABLE_DISTANCE_AT: usize = EPOCH_AT + size_of::<u32>();

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = DURABLE_DISTANCE_AT + size_of::<u32>();

/// The header as 32-bit words: magic and length share one, record count and attributes another.
const HEADER_WORDS: usize = HEADER_BYTES / size_of::<u32>();

/// The word that holds the field at `at`.
const fn word_of(at: usize) -> usize {
    at / size_of::<u32>()
}

/// The first byte of every frame; never zero, so that zeros are no frame.
const MAGIC: u8 = 0xd7;

/// The longest frame: what 24 bits hold, in units of 8.
pub(crate) const MAX_FRAME_BYTES: u64 = ((1 << (8 * LENGTH_BYTES)) - 1) * ALIGNMENT as u64;

/// The most records of a frame.
pub(crate) const MAX_RECORDS: usize = u16::MAX as usize;

/// The durable distance that claims nothing: what was durable doesn't lie in this segment.
pub(crate) const NO_DURABLE_DISTANCE: u32 = u32::MAX;

/// Bytes of a record before its payload: length words of key and value.
const RECORD_WORDS_BYTES: usize = 2 * size_of::<u32>();

/// The shortest frame: one record, null or empty.
const MIN_FRAME_BYTES: usize = HEADER_BYTES + RECORD_WORDS_BYTES;

/// Attributes, low 12 bits: a reader that doesn't know one of these can't read the body.
pub(crate) mod attributes {
    /// Bits that a reader must know.
    pub(crate) const INCOMPATIBLE: u16 = 0x0fff;
    /// Some record has headers.
    pub(crate) const HEADERS: u16 = 1 << 6;
    /// Some record has a client's time.
    pub(crate) const CLIENT_TIME: u16 = 1 << 7;
    /// A control frame: nothing in it is a user's. So far there is one kind, the [filler](super::filler), which has no
    /// record; one with records is of a later version.
    pub(crate) const CONTROL: u16 = 1 << 4;
    /// Incompatible bits that this version knows in a frame with records. Compression (bits 0 to 2), transactional (3) and
    /// the producer extension (5) have their places but no meaning yet.
    pub(crate) const KNOWN: u16 = HEADERS | CLIENT_TIME;
}

const _: () = assert!(HEADER_BYTES == 32 && HEADER_BYTES % ALIGNMENT == 0);
const _: () = assert!(word_of(LENGTH_AT) == word_of(MAGIC_AT) && word_of(ATTRIBUTES_AT) == word_of(RECORD_COUNT_AT));
const _: () = assert!(MAX_FRAME_BYTES < codec::WORD_LENGTH_MASK as u64);

/// Multipliers of the header check, the last one for the position: the first numbers that SplitMix64 draws from 0,
/// made odd.
const KEYS: [u64; 8] = {
    let mut keys = [0; 8];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = split_mix64(0, index as u64) | 1;
        index += 1;
    }
    keys
};

/// Multiplier of the position in the seed of the body check: 2^32 divided by the golden ratio, a prime. It is odd, so
/// two positions of a segment never share a seed.
const BODY_SEED_KEY: u32 = 0x9e37_79b1;

/// A segment's part of what both checks are seeded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameSeed {
    header: u64,
    body: u32,
}

impl FrameSeed {
    /// From the segment's random id.
    pub(crate) fn new(segment_id: u64) -> Self {
        Self { header: split_mix64(segment_id, 0), body: (split_mix64(segment_id, 1) >> 32) as u32 }
    }

    /// The check of a header at `position`: its seven other 32-bit words multiplied by odd constants (multilinear
    /// hashing: Lemire and Kaser, "Strongly universal string hashing is fast", 2014), summed with the seed, mixed.
    ///
    /// The words are 32 bits, not 64, so that no bit is shifted out of the products: two flipped bits can't cancel.
    #[inline]
    fn header_check(self, words: &[u32; HEADER_WORDS], position: u64) -> u32 {
        let product = |at: usize, key: usize| u64::from(words[word_of(at)]).wrapping_mul(KEYS[key]);
        let sum = (position / ALIGNMENT as u64)
            .wrapping_mul(KEYS[7])
            .wrapping_add(self.header)
            .wrapping_add(product(MAGIC_AT, 0))
            .wrapping_add(product(RELATIVE_OFFSET_AT, 1))
            .wrapping_add(product(RELATIVE_TIME_AT, 2))
            .wrapping_add(product(RECORD_COUNT_AT, 3))
            .wrapping_add(product(BODY_CHECK_AT, 4))
            .wrapping_add(product(EPOCH_AT, 5))
            .wrapping_add(product(DURABLE_DISTANCE_AT, 6));
        (mix64(sum) >> 32) as u32
    }

    /// The CRC-32 of a body at `position`.
    #[inline]
    fn body_check(self, body: &[u8], position: u64) -> u32 {
        let units = (position / ALIGNMENT as u64) as u32;
        let seed = self.body.wrapping_add(units.wrapping_mul(BODY_SEED_KEY));
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(body);
        hasher.finalize()
    }
}

/// Where a frame goes and what its header says beyond its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FramePlace {
    /// The segment's.
    pub(crate) seed: FrameSeed,
    /// The frame's first byte in the file; a multiple of 8.
    pub(crate) position: u64,
    /// The first record's offset minus the segment's base offset.
    pub(crate) relative_offset: u32,
    /// The log's time of the append minus the segment's base timestamp, in ms.
    pub(crate) relative_time_ms: u32,
    /// The writer's epoch.
    pub(crate) epoch: u32,
    /// From the end of what was known to be durable to `position`, in units of 8; [`NO_DURABLE_DISTANCE`] if that
    /// isn't in this segment.
    pub(crate) durable_distance: u32,
}

/// Records with their sizes, ready to be encoded anywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameEncoder<'r, 'a> {
    records: &'r [Record<'a>],
    frame_bytes: usize,
    attributes: u16,
}

impl<'r, 'a> FrameEncoder<'r, 'a> {
    /// Sizes a frame of one to 65,535 records.
    ///
    /// # Errors
    /// Kind `RecordTooLarge` if there are none or more, if they don't fit into a frame, or if a header's name is too
    /// long.
    #[inline]
    pub(crate) fn new(records: &'r [Record<'a>]) -> Result<Self> {
        let (mut bytes, mut attributes) = (0_u64, 0);
        for record in records {
            bytes = bytes.saturating_add(record_bytes(record));
            attributes |= attributes_of(record)?;
        }
        Self::sized(records, bytes, attributes)
    }

    /// Puts records into as few frames of about `frame_bytes` as possible, one record in each at least. All are checked
    /// before the first frame is answered: by `check`, which is told a record's payload in bytes, too.
    ///
    /// # Errors
    /// Those of `check`, and those of [`new`](FrameEncoder::new).
    pub(crate) fn split(
        records: &'r [Record<'a>],
        frame_bytes: u64,
        check: impl Fn(u64) -> Result<()>,
    ) -> Result<Vec<Self>> {
        let mut frames = Vec::with_capacity(1);
        let (mut start, mut bytes, mut attributes) = (0, 0_u64, 0);
        for (at, record) in records.iter().enumerate() {
            check(record.payload_bytes())?;
            let added = record_bytes(record);
            let is_full = bytes.saturating_add(added) > frame_bytes || at - start == MAX_RECORDS;
            if is_full && at > start {
                frames.push(Self::sized(&records[start..at], bytes, attributes)?);
                (start, bytes, attributes) = (at, 0, 0);
            }
            bytes = bytes.saturating_add(added);
            attributes |= attributes_of(record)?;
        }
        if start < records.len() {
            frames.push(Self::sized(&records[start..], bytes, attributes)?);
        }
        Ok(frames)
    }

    /// A frame of records that take so many bytes.
    #[inline]
    fn sized(records: &'r [Record<'a>], bytes: u64, attributes: u16) -> Result<Self> {
        let bytes = bytes.saturating_add(HEADER_BYTES as u64);
        let too_large = |what| Error::from(Repr::RecordTooLarge { what, bytes, limit: MAX_FRAME_BYTES });
        match records.len() {
            0 => return Err(too_large("a frame without records")),
            1 if bytes > MAX_FRAME_BYTES => return Err(too_large("a record")),
            2..=MAX_RECORDS if bytes > MAX_FRAME_BYTES => return Err(too_large("a batch in one frame")),
            1..=MAX_RECORDS => {}
            _ => return Err(too_large("a batch of more than 65,535 records in one frame")),
        }
        // The limit is a multiple of the alignment and far below what a `usize` of 32 bits holds.
        Ok(Self { records, frame_bytes: align_up(bytes) as usize, attributes })
    }

    /// Bytes of the whole frame, padding included.
    #[inline]
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Number of records.
    #[inline]
    pub(crate) fn record_count(&self) -> u16 {
        self.records.len() as u16
    }

    /// The greatest time of the records: the client's, where there is one, else the log's.
    #[inline]
    pub(crate) fn greatest_time_ms(&self, append_time_ms: i64) -> i64 {
        if self.attributes & attributes::CLIENT_TIME == 0 {
            return append_time_ms;
        }
        let times = self.records.iter().map(|record| record.explicit_timestamp_ms().unwrap_or(append_time_ms));
        times.max().unwrap_or(append_time_ms)
    }

    /// The frame at its place.
    #[inline]
    pub(crate) fn at(&self, place: FramePlace) -> PlacedFrame<'r, 'a> {
        PlacedFrame { encoder: *self, place }
    }
}

/// What the record adds to a frame's attributes; refuses names of headers that don't fit.
#[inline]
fn attributes_of(record: &Record<'_>) -> Result<u16> {
    let mut attributes = 0;
    if record.header_count() > 0 {
        attributes |= attributes::HEADERS;
        check_header_names(record)?;
    }
    if record.explicit_timestamp_ms().is_some() {
        attributes |= attributes::CLIENT_TIME;
    }
    Ok(attributes)
}

/// Bytes of a record in a body. Alone in a frame, a record costs its payload, [`HEADER_BYTES`], and 8 more (with the
/// padding at most 15); headers and a client's time cost theirs.
#[inline]
pub(crate) fn record_bytes(record: &Record<'_>) -> u64 {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
    let mut bytes = (RECORD_WORDS_BYTES as u64)
        .saturating_add(length(record.key_bytes()))
        .saturating_add(length(record.value_bytes()));
    if record.explicit_timestamp_ms().is_some() {
        bytes = bytes.saturating_add(size_of::<i64>() as u64);
    }
    if record.header_count() > 0 {
        bytes = bytes.saturating_add(size_of::<u32>() as u64).saturating_add(record.header_block_bytes());
    }
    bytes
}

/// Refuses names whose length 16 bits don't hold.
#[inline(never)]
fn check_header_names(record: &Record<'_>) -> Result<()> {
    match record.header_pairs().map(|(name, _)| name.len()).find(|&bytes| bytes > MAX_HEADER_NAME_BYTES) {
        None => Ok(()),
        Some(bytes) => {
            let (bytes, limit) = (bytes as u64, MAX_HEADER_NAME_BYTES as u64);
            Err(Repr::RecordTooLarge { what: "a header's name", bytes, limit }.into())
        }
    }
}

/// A frame that knows where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedFrame<'r, 'a> {
    encoder: FrameEncoder<'r, 'a>,
    place: FramePlace,
}

impl Encode for PlacedFrame<'_, '_> {
    #[inline]
    fn encoded_len(&self) -> usize {
        self.encoder.frame_bytes
    }

    /// The header goes last, in one store: a frame whose encoding was cut short has none.
    #[inline]
    fn encode<S: Store>(&self, mut store: S) {
        let FrameEncoder { records, frame_bytes, attributes } = self.encoder;
        // The padding, in a store of fixed width that the last record then overlaps.
        store.put(frame_bytes - ALIGNMENT, &[0; ALIGNMENT]);
        let mut at = HEADER_BYTES;
        for record in records {
            at = put_record(&mut store, at, record);
        }
        let place = &self.place;
        let header = FrameHeader {
            relative_offset: place.relative_offset,
            relative_time_ms: place.relative_time_ms,
            record_count: self.encoder.record_count(),
            attributes,
            epoch: place.epoch,
            durable_distance: place.durable_distance,
            length: frame_bytes as u32,
            body_check: place.seed.body_check(&store.bytes()[HEADER_BYTES..frame_bytes], place.position),
        };
        store.put(0, &header.encode(place.seed, place.position));
    }
}

/// Writes a record at `at`; answers where it ends.
#[inline]
fn put_record<S: Store>(store: &mut S, mut at: usize, record: &Record<'_>) -> usize {
    let (key, value) = (record.key_bytes(), record.value_bytes());
    let (client_time, has_headers) = (record.explicit_timestamp_ms(), record.header_count() > 0);
    let flag = |set: bool| if set { WORD_FLAG } else { 0 };
    let mut words = [0; RECORD_WORDS_BYTES];
    let (key_word, value_word) = words.split_at_mut(size_of::<u32>());
    LittleEndian::write_u32(key_word, codec::length_word(key) | flag(has_headers));
    LittleEndian::write_u32(value_word, codec::length_word(value) | flag(client_time.is_some()));
    store.put(at, &words);
    at += RECORD_WORDS_BYTES;
    if let Some(client_time) = client_time {
        store.put(at, &client_time.to_le_bytes());
        at += size_of::<i64>();
    }
    if has_headers {
        store.put(at, &(record.header_block_bytes() as u32).to_le_bytes());
        at += size_of::<u32>();
    }
    for payload in [key, value].into_iter().flatten() {
        store.put(at, payload);
        at += payload.len();
    }
    if has_headers { record.put_header_block(store, at) } else { at }
}

/// A frame's header, its check verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// The first record's offset minus the segment's base offset.
    pub(crate) relative_offset: u32,
    /// The log's time of the append minus the segment's base timestamp, in ms.
    pub(crate) relative_time_ms: u32,
    /// Number of records: at least 1, but in a [filler](FrameHeader::is_filler).
    pub(crate) record_count: u16,
    /// See [`attributes`].
    pub(crate) attributes: u16,
    /// The writer's epoch.
    pub(crate) epoch: u32,
    /// In units of 8; see [`durable_position`](FrameHeader::durable_position).
    pub(crate) durable_distance: u32,
    /// Bytes of the whole frame, header and padding included: a multiple of 8.
    pub(crate) length: u32,
    /// CRC-32 of what follows the header.
    pub(crate) body_check: u32,
}

impl FrameHeader {
    /// Reads the header of the frame at `position`, of which `bytes` are the first ones, at least 32.
    #[inline]
    pub(crate) fn decode(bytes: &[u8], seed: FrameSeed, position: u64) -> Result<Self, FrameFault> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(FrameFault::Truncated) };
        if header[MAGIC_AT] != MAGIC {
            return Err(if *header == [0; HEADER_BYTES] { FrameFault::Empty } else { FrameFault::Magic });
        }
        let mut words = [0; HEADER_WORDS];
        LittleEndian::read_u32_into(header, &mut words);
        if words[word_of(HEADER_CHECK_AT)] != seed.header_check(&words, position) {
            return Err(FrameFault::HeaderCheck);
        }
        let frame = Self::from_words(&words);
        if (frame.record_count == 0 || frame.frame_bytes() < MIN_FRAME_BYTES) && !frame.has_filler_shape() {
            return Err(FrameFault::Length);
        }
        Ok(frame)
    }

    /// Reads the header of a frame that was verified before, at the start of `bytes`, and checks nothing again.
    #[inline]
    pub(crate) fn of_verified(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; HEADER_WORDS];
        LittleEndian::read_u32_into(bytes.first_chunk::<HEADER_BYTES>()?, &mut words);
        Some(Self::from_words(&words))
    }

    #[inline]
    fn from_words(words: &[u32; HEADER_WORDS]) -> Self {
        let count_and_attributes = words[word_of(RECORD_COUNT_AT)];
        Self {
            relative_offset: words[word_of(RELATIVE_OFFSET_AT)],
            relative_time_ms: words[word_of(RELATIVE_TIME_AT)],
            record_count: count_and_attributes as u16,
            attributes: (count_and_attributes >> 16) as u16,
            epoch: words[word_of(EPOCH_AT)],
            durable_distance: words[word_of(DURABLE_DISTANCE_AT)],
            // 24 bits times 8 can't overflow.
            length: (words[word_of(MAGIC_AT)] >> 8) * ALIGNMENT as u32,
            body_check: words[word_of(BODY_CHECK_AT)],
        }
    }

    /// The header's bytes at `position`. Put together from the words that the check is computed of.
    #[inline]
    fn encode(&self, seed: FrameSeed, position: u64) -> [u8; HEADER_BYTES] {
        let mut words = [0; HEADER_WORDS];
        words[word_of(MAGIC_AT)] = u32::from(MAGIC) | (self.length / ALIGNMENT as u32) << 8;
        words[word_of(RELATIVE_OFFSET_AT)] = self.relative_offset;
        words[word_of(RELATIVE_TIME_AT)] = self.relative_time_ms;
        words[word_of(RECORD_COUNT_AT)] = u32::from(self.record_count) | u32::from(self.attributes) << 16;
        words[word_of(BODY_CHECK_AT)] = self.body_check;
        words[word_of(EPOCH_AT)] = self.epoch;
        words[word_of(DURABLE_DISTANCE_AT)] = self.durable_distance;
        words[word_of(HEADER_CHECK_AT)] = seed.header_check(&words, position);
        let mut header = [0; HEADER_BYTES];
        LittleEndian::write_u32_into(&words, &mut header);
        header
    }

    /// Bytes of the whole frame: the next one begins that much further on.
    #[inline]
    pub(crate) fn frame_bytes(&self) -> usize {
        self.length as usize
    }

    /// The offset behind the frame's last record, relative to the segment's base offset. May need 33 bits.
    #[inline]
    pub(crate) fn next_relative_offset(&self) -> u64 {
        u64::from(self.relative_offset) + u64::from(self.record_count)
    }

    /// Up to where the segment was durable when the frame was written at `position`; `None` if the frame doesn't
    /// claim anything (or something before the file's first byte).
    #[inline]
    pub(crate) fn durable_position(&self, position: u64) -> Option<u64> {
        if self.durable_distance == NO_DURABLE_DISTANCE {
            return None;
        }
        position.checked_sub(u64::from(self.durable_distance) * ALIGNMENT as u64)
    }

    /// Whether it takes the body to tell the times of the records: some have a client's, or may, for all this version
    /// knows. Otherwise the log's time, which the header has, is that of all.
    #[inline]
    pub(crate) fn has_times_in_body(&self) -> bool {
        self.attributes & attributes::CLIENT_TIME != 0 || self.unknown_attributes() != 0
    }

    /// Verifies the rest of the frame: its check, that its attributes are known, and that records fill it.
    #[inline(always)]
    pub(crate) fn verify_body(&self, frame: &[u8], seed: FrameSeed, position: u64) -> Result<(), FrameFault> {
        let body = self.body(frame).ok_or(FrameFault::Truncated)?;
        if self.body_check != seed.body_check(body, position) {
            return Err(FrameFault::BodyCheck);
        }
        if self.has_plain_records() {
            let are_plain = match self.record_count {
                1 => is_plain_record(body),
                count => are_plain_records(body, count),
            };
            if are_plain {
                return Ok(());
            }
        }
        Self::verify_contents(frame)
    }

    /// What a body must be whose check holds. Reads the header anew, so that who has no need of this has no use for all of
    /// it either.
    #[inline(never)]
    fn verify_contents(frame: &[u8]) -> Result<(), FrameFault> {
        let header = Self::of_verified(frame).ok_or(FrameFault::Truncated)?;
        if header.is_filler() {
            return filler::verify_body(header.body(frame).ok_or(FrameFault::Truncated)?);
        }
        let unknown = header.unknown_attributes();
        if unknown != 0 {
            return Err(FrameFault::UnknownAttributes(unknown));
        }
        header.verify_records(frame).ok_or(FrameFault::Structure)
    }

    /// Attributes that a later version may know and this one doesn't, and without which the body can't be read.
    #[inline]
    pub(crate) fn unknown_attributes(&self) -> u16 {
        if self.is_filler() { 0 } else { self.attributes & attributes::INCOMPATIBLE & !attributes::KNOWN }
    }

    /// Whether there are records, of which none has headers or a client's time.
    #[inline]
    fn has_plain_records(&self) -> bool {
        self.record_count > 0 && self.attributes & attributes::INCOMPATIBLE == 0
    }

    /// What follows the header, if `frame` is all there.
    #[inline]
    fn body<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        frame.get(HEADER_BYTES..self.frame_bytes())
    }

    /// `None` unless the records are as many as the header says, have what the attributes say, and leave only padding.
    fn verify_records(&self, frame: &[u8]) -> Option<()> {
        let mut views = records(self, frame);
        let mut seen = 0;
        for _ in 0..self.record_count {
            let view = views.next()?;
            if view.client_time_ms.is_some() {
                seen |= attributes::CLIENT_TIME;
            }
            if !view.headers.is_empty() {
                seen |= attributes::HEADERS;
                if !view.headers.is_well_formed() {
                    return None;
                }
            }
        }
        let padding = views.reader.rest();
        let padded = padding.len() < ALIGNMENT && padding.iter().all(|&byte| byte == 0);
        (padded && seen == self.attributes & attributes::KNOWN).then_some(())
    }
}

/// Whether one record without headers and a client's time fills the body: what [`FrameHeader::verify_records`] would say,
/// without walking. Most frames of a log that is appended to record by record are of this kind, and recovery reads them all.
#[inline(always)]
fn is_plain_record(body: &[u8]) -> bool {
    let (Some(words), Some(end)) = (body.first_chunk::<RECORD_WORDS_BYTES>(), body.last_chunk::<ALIGNMENT>()) else {
        return false;
    };
    let key = LittleEndian::read_u32(&words[..size_of::<u32>()]);
    let value = LittleEndian::read_u32(&words[size_of::<u32>()..]);
    // Branches would cost more than what they save. Two lengths of 28 bits don't overflow; what is longer than the body
    // wraps to far more than any padding.
    let padding = body.len().wrapping_sub(RECORD_WORDS_BYTES + plain_length(key) + plain_length(value));
    if !(is_plain_word(key) & is_plain_word(value) & (padding < ALIGNMENT)) {
        return false;
    }
    // The padding is the last bytes of a word, so the highest bits.
    u64::from_le_bytes(*end).leading_zeros() as usize >= 8 * padding
}

/// The same for so many records.
///
/// As long as they are like the first one, nothing is added up that has to be loaded first: see [`RecordViews::read`].
#[inline(never)]
fn are_plain_records(body: &[u8], count: u16) -> bool {
    let Some(first) = body.first_chunk::<RECORD_WORDS_BYTES>() else { return false };
    let Some(bytes) = plain_bytes(first) else { return false };
    let record_bytes = RECORD_WORDS_BYTES + bytes;
    let records = body.chunks_exact(record_bytes).take(count.into());
    let alike = records.take_while(|record| record.first_chunk() == Some(first)).count();
    let Some(mut rest) = body.get(alike * record_bytes..) else { return false };
    for _ in alike..count.into() {
        let Some((words, behind)) = rest.split_first_chunk() else { return false };
        let Some(behind) = plain_bytes(words).and_then(|bytes| behind.get(bytes..)) else { return false };
        rest = behind;
    }
    rest.len() < ALIGNMENT && rest.iter().all(|&byte| byte == 0)
}

/// Bytes of the key and value of these words, if neither headers nor a time are with them.
#[inline]
fn plain_bytes(words: &[u8; RECORD_WORDS_BYTES]) -> Option<usize> {
    let key = LittleEndian::read_u32(&words[..size_of::<u32>()]);
    let value = LittleEndian::read_u32(&words[size_of::<u32>()..]);
    (is_plain_word(key) & is_plain_word(value)).then_some(plain_length(key) + plain_length(value))
}

/// Whether that can be the length word of a record's key or value, where neither headers nor a time follow.
#[inline]
fn is_plain_word(word: u32) -> bool {
    (word <= codec::WORD_LENGTH_MASK) | (word == codec::NULL_WORD)
}

/// Its length: null has none.
#[inline]
fn plain_length(word: u32) -> usize {
    (word & codec::WORD_LENGTH_MASK) as usize
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// The bytes end before it does.
    Truncated,
    /// Zeros where its header would be: no frame was ever written here.
    Empty,
    /// It doesn't begin as a frame does.
    Magic,
    /// The header isn't what was written here.
    HeaderCheck,
    /// The header's check holds, but no frame is that short.
    Length,
    /// The body isn't what was written here.
    BodyCheck,
    /// Both checks hold, but records don't fill the body.
    Structure,
    /// Both checks hold, but these attributes come from a later version of the format.
    UnknownAttributes(u16),
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the file ends inside the frame",
            Self::Empty => "zeros in place of a frame",
            Self::Magic => "no frame begins here",
            Self::HeaderCheck => "the check of the frame's header doesn't hold",
            Self::Length => "the frame's length or record count is impossible",
            Self::BodyCheck => "the check of the frame's body doesn't hold",
            Self::Structure => "the frame's records don't fill it",
            Self::UnknownAttributes(bits) => {
                return write!(f, "the frame has attributes of a later version ({bits:#06x})");
            }
        })
    }
}

/// Walks the records of a frame. One that wasn't verified may end early.
#[inline(always)]
pub(crate) fn records<'a>(header: &FrameHeader, frame: &'a [u8]) -> RecordViews<'a> {
    let flag_if = |bit: u16| if header.attributes & bit != 0 { WORD_FLAG } else { 0 };
    let body = header.body(frame).unwrap_or_default();
    let same = if header.record_count > 1 && header.has_plain_records() {
        body.first_chunk().and_then(|words| Some((*words, plain_bytes(words)? as u32)))
    } else {
        None
    };
    RecordViews {
        reader: Reader::new(body),
        remaining: header.record_count,
        headers_flag: flag_if(attributes::HEADERS),
        client_time_flag: flag_if(attributes::CLIENT_TIME),
        same,
    }
}

/// The records of a frame, borrowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordViews<'a> {
    reader: Reader<'a>,
    remaining: u16,
    /// The flag in a key's word that says that headers follow; zero where the frame has none, so that the bit is
    /// then meaningless and refused.
    headers_flag: u32,
    /// The same for a value's word and the client's time.
    client_time_flag: u32,
    /// The length words that all records had so far, and bytes of their payload: as long as there is one pair for all, in
    /// a frame whose records are plain.
    same: Option<([u8; RECORD_WORDS_BYTES], u32)>,
}

impl<'a> RecordViews<'a> {
    /// How many records come.
    #[inline]
    pub(crate) fn remaining(&self) -> u16 {
        self.remaining
    }

    /// Leaves out what comes behind so many records.
    #[inline]
    pub(crate) fn truncate(&mut self, records: u16) {
        self.remaining = self.remaining.min(records);
    }

    /// Reads one record; `None` if there isn't a well-formed one.
    ///
    /// Records of a batch often have the same lengths. Where one has those of the first, the branch is what tells where
    /// the next one begins, and the processor, which foresees it, doesn't wait for the lengths to be loaded (`cargo bench
    /// --bench read`: a fifth). The first that differs ends that for its frame, so that it costs others nothing.
    #[inline(always)]
    fn read(&mut self) -> Option<RecordView<'a>> {
        if let Some((same, bytes)) = self.same {
            let (words, behind) = self.reader.rest().split_first_chunk::<RECORD_WORDS_BYTES>()?;
            if *words == same {
                let (payload, rest) = behind.split_at_checked(bytes as usize)?;
                self.reader = Reader::new(rest);
                let key_word = LittleEndian::read_u32(&words[..size_of::<u32>()]);
                let value_word = LittleEndian::read_u32(&words[size_of::<u32>()..]);
                let (key, value) = payload.split_at_checked(plain_length(key_word))?;
                let key = (key_word != codec::NULL_WORD).then_some(key);
                let value = (value_word != codec::NULL_WORD).then_some(value);
                return Some(RecordView { key, value, client_time_ms: None, headers: HeaderBlock::default() });
            }
            self.same = None;
        }
        self.read_other()
    }

    /// Reads one that isn't known to be like those before.
    #[inline]
    fn read_other(&mut self) -> Option<RecordView<'a>> {
        let words = self.reader.array::<RECORD_WORDS_BYTES>()?;
        let key_word = LittleEndian::read_u32(&words[..size_of::<u32>()]);
        let value_word = LittleEndian::read_u32(&words[size_of::<u32>()..]);
        let client_time_ms = match value_word & self.client_time_flag {
            0 => None,
            _ => Some(self.reader.i64()?),
        };
        let header_bytes = match key_word & self.headers_flag {
            0 => 0,
            // A block that is announced isn't empty: one record has one encoding.
            _ => Some(self.reader.u32()?).filter(|&bytes| bytes > 0)? as usize,
        };
        let key = self.reader.nullable(key_word & !self.headers_flag)?;
        let value = self.reader.nullable(value_word & !self.client_time_flag)?;
        let headers = HeaderBlock(self.reader.bytes(header_bytes)?);
        Some(RecordView { key, value, client_time_ms, headers })
    }
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = RecordView<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<RecordView<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        let view = self.read();
        if view.is_none() {
            self.remaining = 0; // a frame that wasn't verified: don't go on in the middle of a record
        }
        view
    }
}

impl std::iter::FusedIterator for RecordViews<'_> {}

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
