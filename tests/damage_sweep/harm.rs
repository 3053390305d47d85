//! Damage, and what of the log it takes.

use std::{
    fs,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tidelog::ErrorKind;

use crate::{
    ground::{Content, Ground, Image, overwrite, put, remove},
    written::{DATA_START, Ending, Segment, noise},
};

/// What is done to a file.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// One bit, of the byte at this position.
    Flip(u64, u8),
    /// The file ends here.
    Cut(u64),
    Zero(Range<u64>),
    /// Bytes drawn from this seed.
    Noise(Range<u64>, u64),
    Delete,
    /// Another file, with other content.
    Replace(Content),
    /// Other content in the very file that is there.
    Overwrite(Content),
    /// The whole folder is another one.
    Folder(Image),
}

/// What has to come of the other topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payments {
    /// Nobody looks, so that long lists of damage to the one partition go fast.
    Unseen,
    /// It is what was written.
    Intact,
    /// Its record can't be read, and that is told.
    Lost,
    /// Its folder is told to belong to no topic.
    Orphaned,
}

/// What has to come of the group's committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// It is the last one.
    Stay,
    /// It may be an earlier one, or none, if that is told.
    MayGo,
    /// It is that of another time.
    Are(Option<u64>),
}

/// What has to come of it.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Offsets that can't be read any more.
    pub(crate) lost: Vec<Range<u64>>,
    /// Whether what isn't surely durable may be cut as a torn tail, from the first of the lost ones on.
    pub(crate) may_cut: bool,
    /// The log may be refused so, instead of opened.
    pub(crate) refused: Option<ErrorKind>,
    pub(crate) commits: Commits,
    /// The partition is that of another time, when it ended at this offset: what came later is known to nobody.
    pub(crate) ended_at: Option<u64>,
    /// Just zeros were cut off: what is lost may be there all the same, where the file gets them back.
    pub(crate) may_stay: bool,
    /// Nothing is left of what is lost, and it wasn't known to be durable: so a power cut leaves it. None but the control
    /// page can tell of it.
    pub(crate) vanished: bool,
    /// The folder that is harmed is told to belong to no topic.
    pub(crate) orphaned: bool,
    pub(crate) payments: Payments,
}

impl Expected {
    /// Nothing is lost.
    pub(crate) fn nothing() -> Self {
        Self {
            lost: Vec::new(),
            may_cut: false,
            refused: None,
            commits: Commits::Stay,
            ended_at: None,
            may_stay: false,
            vanished: false,
            orphaned: false,
            payments: Payments::Intact,
        }
    }
}

/// Damage to one file or folder of the log.
#[derive(Debug, Clone)]
pub(crate) struct Harm {
    /// In the log's folder.
    pub(crate) path: PathBuf,
    pub(crate) change: Change,
    pub(crate) expected: Expected,
}

impl Harm {
    /// Damage to a segment's bytes: lost are the frames that it touches.
    pub(crate) fn to_segment(ground: &Ground, segment: usize, change: Change) -> Self {
        let written = &ground.written.segments[segment];
        let lost = lost_of(written, &change, segment + 1 == ground.written.segments.len());
        // A clean mark says where the log ends; else what isn't known to be durable can be a torn tail.
        let may_cut = ground.ending != Ending::Clean && segment + 1 == ground.written.segments.len();
        let vanished = may_cut && ends_sooner(written, &change, ground.written.durable);
        let may_stay = matches!(change, Change::Cut(at) if written.bytes[at as usize..].iter().all(|&byte| byte == 0));
        let expected =
            Expected { lost, may_cut, may_stay, vanished, payments: Payments::Unseen, ..Expected::nothing() };
        Self { path: written.path.clone(), change, expected }
    }

    pub(crate) fn new(path: impl Into<PathBuf>, change: Change, expected: Expected) -> Self {
        Self { path: path.into(), change, expected }
    }

    /// Does it.
    pub(crate) fn apply(&self, log: &Path) {
        let path = log.join(&self.path);
        let write = |at: u64, bytes: &[u8]| {
            fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
        };
        match &self.change {
            Change::Flip(at, bit) => {
                let mut byte = [0];
                fs::File::open(&path).unwrap().read_exact_at(&mut byte, *at).unwrap();
                write(*at, &[byte[0] ^ (1 << bit)]);
            }
            Change::Cut(at) => fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(*at).unwrap(),
            Change::Zero(range) => write(range.start, &vec![0; (range.end - range.start) as usize]),
            Change::Noise(range, seed) => write(range.start, &noise(*seed, (range.end - range.start) as usize)),
            Change::Delete => remove(&path),
            Change::Replace(content) => {
                remove(&path);
                overwrite(&path, &content.bytes);
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(content.len).unwrap();
            }
            Change::Overwrite(content) => content.write(&path),
            Change::Folder(image) => {
                // New files, as a restored backup has.
                remove(&path);
                put(image, &path);
            }
        }
    }
}

/// Whether just the last frames are gone, whole, and none of them was surely durable.
fn ends_sooner(segment: &Segment, change: &Change, durable: u64) -> bool {
    let end = match *change {
        Change::Cut(at) => at,
        Change::Zero(Range { start, end }) if end >= segment.end() => start,
        _ => return false,
    };
    segment.frames.iter().any(|frame| frame.range.start == end && frame.offsets.start >= durable)
}

/// The offsets of frames whose bytes are changed; of all frames if neither copy of the header stays.
pub(crate) fn lost_of(segment: &Segment, change: &Change, is_active: bool) -> Vec<Range<u64>> {
    let mut bytes = segment.bytes.clone();
    match change {
        Change::Flip(at, bit) => bytes[*at as usize] ^= 1 << bit,
        Change::Cut(at) => bytes.truncate(*at as usize),
        Change::Zero(range) => bytes[range.start as usize..range.end as usize].fill(0),
        Change::Noise(range, seed) => {
            bytes[range.start as usize..range.end as usize]
                .copy_from_slice(&noise(*seed, (range.end - range.start) as usize));
        }
        Change::Delete => bytes.clear(),
        Change::Replace(content) | Change::Overwrite(content) => bytes = content.whole(),
        Change::Folder(_) => unreachable!("judged by who replaces"),
    }
    let same = |range: Range<u64>| {
        let range = range.start as usize..range.end as usize;
        bytes.get(range.clone()) == segment.bytes.get(range)
    };
    let first = segment.frames[0].offsets.start;
    let last = segment.frames.last().unwrap().offsets.end;
    let header = 0..96;
    if !same(header) && !same(4096..4096 + 96) {
        return vec![first..last];
    }
    // A cut in front of the first frame leaves nothing.
    if bytes.len() < DATA_START as usize && is_active {
        return vec![first..last];
    }
    let damaged = segment.frames.iter().filter(|frame| !same(frame.range.clone()));
    damaged.map(|frame| frame.offsets.clone()).collect()
}
