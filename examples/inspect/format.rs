//! The files, by what `tidelog::doc::format` says of them, and by nothing else.

use std::{fs, io, path::Path};

use byteorder::{ByteOrder, LittleEndian as Le};

const HEADER: usize = 96;
const FRAMES: usize = 4192;
const UNIT: usize = 8;

/// A segment's file, read as a whole.
pub(crate) struct Segment {
    bytes: Vec<u8>,
    header: Option<Header>,
}

pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) sequence: u64,
    pub(crate) base_offset: u64,
    pub(crate) base_time_ms: i64,
}

/// What lies in a place of a segment.
pub(crate) enum Piece<'a> {
    Frame(Frame<'a>),
    /// Bytes that are no frame, and where they end.
    Damage(usize, usize),
}

pub(crate) struct Frame<'a> {
    pub(crate) position: usize,
    pub(crate) bytes: &'a [u8],
    pub(crate) offset: u64,
    pub(crate) time_ms: i64,
    pub(crate) count: u16,
    pub(crate) attributes: u16,
    pub(crate) epoch: u32,
}

pub(crate) struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) time_ms: Option<i64>,
    pub(crate) header_bytes: usize,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Segment {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let header = [0, 4096].into_iter().find_map(|at| Header::decode(bytes.get(at..at + HEADER)?));
        Ok(Self { bytes, header })
    }

    /// `None` if neither copy is intact.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Everything from the first frame to the zeros at the end.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let end = self.bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut position = FRAMES;
        std::iter::from_fn(move || {
            let header = self.header.as_ref().filter(|_| position < end)?;
            if let Some(frame) = header.frame(&self.bytes, position) {
                position += frame.bytes.len();
                return Some(Piece::Frame(frame));
            }
            let start = position;
            let frames = (start + UNIT..end).step_by(UNIT);
            position = frames.into_iter().find(|&at| header.frame(&self.bytes, at).is_some()).unwrap_or(end);
            Some(Piece::Damage(start, position))
        })
    }
}

impl Header {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, check) = bytes.split_at(HEADER - 4);
        let intact = bytes.starts_with(b"tidelog\xd7") && Le::read_u32(check) == crc32fast::hash(checked);
        let number = |at: usize| Le::read_u64(&bytes[at..]);
        let decode =
            || Self { id: number(16), sequence: number(40), base_offset: number(48), base_time_ms: number(56) as i64 };
        (intact && Le::read_u32(&bytes[8..]) == 1).then(decode)
    }

    /// The frame at a position, if both of its checks hold.
    fn frame<'a>(&self, file: &'a [u8], position: usize) -> Option<Frame<'a>> {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        const KEYS: [(usize, u64); 7] = [
            (0, 0xe220_a839_7b1d_cdaf),
            (8, 0x6e78_9e6a_a1b9_65f5),
            (12, 0x06c4_5d18_8009_454f),
            (16, 0xf88b_b8a8_724c_81ed),
            (20, 0x1b39_896a_51a8_749b),
            (24, 0x53cb_9f0c_747e_a2eb),
            (28, 0x2c82_9abe_1f45_32e1),
        ];
        let header = file.get(position..position + 32).filter(|header| header[0] == 0xd7)?;
        let word = |at: usize| Le::read_u32(&header[at..]);
        let units = (position / UNIT) as u64;
        let seeded = mix(self.id.wrapping_add(GOLDEN)).wrapping_add(units.wrapping_mul(0xc584_133a_c916_ab3d));
        let sum = KEYS.iter().fold(seeded, |sum, &(at, key)| sum.wrapping_add(u64::from(word(at)).wrapping_mul(key)));
        if word(4) != (mix(sum) >> 32) as u32 {
            return None;
        }
        let bytes = file.get(position..position + (word(0) >> 8) as usize * UNIT).filter(|it| it.len() >= 32)?;
        let seed = (mix(self.id.wrapping_add(GOLDEN.wrapping_mul(2))) >> 32) as u32;
        let initial = seed.wrapping_add((units as u32).wrapping_mul(0x9e37_79b1));
        let mut hasher = crc32fast::Hasher::new_with_initial(initial);
        hasher.update(&bytes[32..]);
        let frame = || Frame {
            position,
            bytes,
            offset: self.base_offset.saturating_add(word(8).into()),
            time_ms: self.base_time_ms.saturating_add(word(12).into()),
            count: word(16) as u16,
            attributes: (word(16) >> 16) as u16,
            epoch: word(24),
        };
        (hasher.finalize() == word(20)).then(frame)
    }
}

impl<'a> Frame<'a> {
    /// A frame without a record: a repair has set damaged bytes aside here.
    pub(crate) fn is_filler(&self) -> bool {
        self.count == 0
    }

    /// Its records with their offsets; ends where one isn't well-formed, or is of a later version.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, Record<'a>)> + use<'a> {
        let known = self.attributes & 0x0fff & !0x00c0 == 0;
        let (mut rest, mut left) = (&self.bytes[32..], if known { self.count } else { 0 });
        let records = std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            Record::take(&mut rest)
        });
        (self.offset..).zip(records)
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(bytes)?;
    *rest = behind;
    Some(taken)
}

impl<'a> Record<'a> {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        const FLAG: u32 = 1 << 30;
        let mut word = || take(rest, 4).map(Le::read_u32);
        let (key, value) = (word()?, word()?);
        let time_ms = if value & FLAG != 0 { Some(Le::read_i64(take(rest, 8)?)) } else { None };
        let header_bytes = if key & FLAG != 0 { Le::read_u32(take(rest, 4)?) as usize } else { 0 };
        let mut payload = |word: u32| {
            let bytes = take(rest, (word & 0x0fff_ffff) as usize)?;
            Some((word >> 31 == 0).then_some(bytes))
        };
        let (key, value) = (payload(key)?, payload(value)?);
        take(rest, header_bytes)?;
        Some(Self { key, value, time_ms, header_bytes })
    }
}
