//! Numbers that lie, under checks that hold (`src/doc/format.md`).

use std::{fs, ops::Range, path::Path};

use libtest_mimic::Failed;
use tidelog::{ErrorKind, Log};

use crate::folder::{Folder, RECORDS};

/// For a field of 8 bytes.
const LIES: [u64; 12] = [
    0,
    1,
    8,
    RECORDS - 1,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    (1 << 63) - 8,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Writes the CRC-32 of what stands before it.
fn seal(bytes: &mut [u8], range: Range<usize>) {
    let checksum = crc32fast::hash(&bytes[range.clone()]);
    put(bytes, range.end, 4, checksum.into());
}

/// Both copies of a segment's header say so.
fn header_says(segment: &mut [u8], at: usize, width: usize, value: u64) {
    for copy in [0, 4096] {
        put(segment, copy + at, width, value);
        seal(segment, copy..copy + 92);
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The cases of one test, of which not all are run: always the same ones, whatever runs beside it.
struct Turns {
    all: bool,
    met: usize,
}

impl Turns {
    fn new() -> Self {
        Self { all: std::env::var("TIDELOG_DAMAGE").is_ok_and(|extent| extent == "all"), met: 0 }
    }

    /// Whether it is the next one's turn: all have it where `TIDELOG_DAMAGE` says `all`, else one in so many.
    fn is_next(&mut self, every: usize) -> bool {
        self.met += 1;
        self.all || self.met % every == 1
    }
}

/// Opened, or refused by a kind that says why. Whoever knows how to make checks hold can write any log; but not make us
/// fall over, take memory, or leave the folder.
fn check(folder: &Folder, what: &str) -> Result<(), Failed> {
    const KINDS: [ErrorKind; 2] = [ErrorKind::Corruption, ErrorKind::UnsupportedFormat];
    let visit = folder.visit_liar(what)?;
    let untouched = visit.read >= RECORDS;
    if visit.is_refused_by(&KINDS) || (visit.refused.is_none() && untouched) {
        return Ok(());
    }
    Err(format!("{what}: {visit:?}").into())
}

/// A segment that begins just below 2^63, behind the others: appends end with an error, and not with a number that isn't
/// an offset.
pub(crate) fn offsets_at_their_limit() -> Result<(), Failed> {
    for base in [(1_u64 << 63) - 1, (1 << 63) - 2, (1 << 63) - 100, 1 << 63, u64::MAX] {
        for sequence in [None, Some((1_u64 << 31) - 1), Some(1 << 31), Some(u64::MAX)] {
            let folder = Folder::new(false);
            let last = folder.segments("orders-0").pop().unwrap();
            let mut bytes = fs::read(&last)?;
            let (id, own) = (u64_at(&bytes, 16), u64_at(&bytes, 40));
            let end = frames(&bytes).last().unwrap().end as u64;
            bytes[4192..].fill(0);
            header_says(&mut bytes, 16, 8, id ^ 0x5555);
            header_says(&mut bytes, 40, 8, sequence.unwrap_or(own + 1));
            header_says(&mut bytes, 48, 8, base);
            header_says(&mut bytes, 64, 8, id);
            header_says(&mut bytes, 72, 8, end);
            header_says(&mut bytes, 80, 8, RECORDS);
            fs::write(last.with_file_name(format!("{base:020}.log")), bytes)?;
            check(&folder, &format!("base offset {base}, sequence number {sequence:?}"))?;
        }
    }
    Ok(())
}

/// Each field of segment headers and checkpoints, entries of indexes.
pub(crate) fn fields_that_lie() -> Result<(), Failed> {
    let mut turns = Turns::new();
    for is_closed in [true, false] {
        for lie in LIES {
            for at in [12, 16, 24, 40, 48, 56, 64, 72, 80, 88] {
                let width = if at == 12 || at == 88 { 4 } else { 8 };
                for segment in [0, 1, usize::MAX] {
                    if !turns.is_next(13) {
                        continue;
                    }
                    let folder = Folder::new(is_closed);
                    let segments = folder.segments("orders-0");
                    let path = &segments[segment.min(segments.len() - 1)];
                    change(path, |bytes| header_says(bytes, at, width, lie));
                    check(&folder, &format!("{lie} at {at} of the header of {}", path.display()))?;
                }
            }
            for at in (12..120).step_by(4) {
                if !turns.is_next(13) {
                    continue;
                }
                let folder = Folder::new(is_closed);
                change(&folder.log().join("orders-0/partition.checkpoint"), |bytes| {
                    for slot in [0, 4096] {
                        put(bytes, slot + at, if at % 8 == 0 && at != 80 { 8 } else { 4 }, lie);
                        seal(bytes, slot..slot + 120);
                    }
                });
                check(&folder, &format!("{lie} at {at} of the checkpoint"))?;
            }
            for extension in ["index", "timeindex"] {
                if !turns.is_next(3) {
                    continue;
                }
                let folder = Folder::new(is_closed);
                for path in folder.segments("orders-0") {
                    let path = path.with_extension(extension);
                    if path.exists() {
                        change(&path, |bytes| {
                            let len = bytes.len();
                            bytes[16.min(len)..].chunks_exact_mut(8).for_each(|word| put(word, 0, 8, lie));
                        });
                    }
                }
                check(&folder, &format!("{lie} all over the {extension}"))?;
            }
        }
    }
    Ok(())
}

/// Places of the frames of a segment.
fn frames(segment: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 4192);
    while at + 32 <= segment.len() && segment[at] == 0xd7 {
        let end = at + (u32_at(segment, at) >> 8) as usize * 8;
        found.push(at..end);
        at = end;
    }
    found
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Gives a frame checks that hold. The body ends where the frame says, or where the file does.
fn check_frame(segment: &mut [u8], at: usize) {
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
    let id = u64_at(segment, 16);
    let body_seed = (mix(id.wrapping_add(GOLDEN.wrapping_mul(2))) >> 32) as u32;
    let initial = body_seed.wrapping_add(((at / 8) as u32).wrapping_mul(0x9e37_79b1));
    let end = (at + (u32_at(segment, at) >> 8) as usize * 8).clamp(at + 32, segment.len());
    let mut hasher = crc32fast::Hasher::new_with_initial(initial);
    hasher.update(&segment[at + 32..end]);
    put(segment, at + 20, 4, hasher.finalize().into());
    let sum = KEYS.iter().fold(mix(id.wrapping_add(GOLDEN)), |sum, &(word, key)| {
        sum.wrapping_add(u64::from(u32_at(segment, at + word)).wrapping_mul(key))
    });
    let sum = sum.wrapping_add((at as u64 / 8).wrapping_mul(0xc584_133a_c916_ab3d));
    put(segment, at + 4, 4, mix(sum) >> 32);
}

/// Every field of a frame and of its record.
pub(crate) fn frames_that_lie() -> Result<(), Failed> {
    // What is put together here is what is written there.
    {
        let folder = Folder::new(true);
        let path = folder.segments("orders-0").remove(0);
        let before = fs::read(&path)?;
        let mut again = before.clone();
        frames(&before).into_iter().for_each(|frame| check_frame(&mut again, frame.start));
        assert!(again == before, "the checks are those of the format");
        drop(Log::open(folder.log())?);
    }
    // Length, relative offset, relative time, count, attributes, epoch, durable distance; key word, value word.
    let fields = [(1, 3), (8, 4), (12, 4), (16, 2), (18, 2), (24, 4), (28, 4), (32, 4), (36, 4)];
    let mut turns = Turns::new();
    for is_closed in [true, false] {
        for (at, width) in fields {
            for lie in [
                0,
                1,
                2,
                4,
                5,
                6,
                255,
                0x7fff,
                0xffff,
                0x7f_ffff,
                0xff_ffff,
                1 << 28,
                1 << 30,
                u64::MAX >> 33,
                u64::MAX,
            ] {
                for which in [0, 100, usize::MAX] {
                    if !turns.is_next(11) {
                        continue;
                    }
                    let folder = Folder::new(is_closed);
                    let path = folder.segments("orders-0").pop().unwrap();
                    change(&path, |bytes| {
                        let frames = frames(bytes);
                        let frame = frames[which.min(frames.len() - 1)].start;
                        put(bytes, frame + at, width, lie);
                        check_frame(bytes, frame);
                    });
                    check(&folder, &format!("{lie:#x} at {at} of frame {which}"))?;
                }
            }
        }
    }
    Ok(())
}
