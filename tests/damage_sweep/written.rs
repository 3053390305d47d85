//! What is written: a log of three segments with records of every kind, and how it ends.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use tidelog::{Durability, Log, LogOptions, Partition, Record, TopicConfig};

use crate::{
    common::{Random, process::kill_myself, value_of},
    ground::copy_sparse,
};

pub(crate) const TOPIC: &str = "orders";
/// The folder of the partition that is damaged.
pub(crate) const FOLDER: &str = "orders-0";
/// Another topic, of one record, which is surely durable.
pub(crate) const OTHER_TOPIC: &str = "payments";
/// The folder of its partition.
pub(crate) const OTHER_FOLDER: &str = "payments-0";
pub(crate) const GROUP: &str = "billing";
/// Committed by the group, one after the other.
pub(crate) const COMMITS: [u64; 5] = [7, 30, 90, 200, 300];
/// When that one was committed, the log is closed and opened again: it is durable, and the checkpoint says so.
pub(crate) const DURABLE_COMMIT: u64 = 200;
/// Where a segment's frames begin (`src/doc/format.md`).
pub(crate) const DATA_START: u64 = 4192;
/// Frames of the active segment, at least: those that are damaged are its last 64 KiB.
const ACTIVE_BYTES: u64 = 66 << 10;
/// A flush comes when it has so many: what lies behind may be a torn tail.
const FLUSHED_BYTES: u64 = 40 << 10;
const SEGMENTS: usize = 3;
const SEGMENT_BYTES: u64 = 160 << 10;

/// How a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By `close`.
    Clean,
    /// Its process is killed, the system runs on: the control page is there.
    Killed,
    /// As behind a power cut in which all reached the device: nobody believes the control page.
    Power,
}

pub(crate) const ENDINGS: [Ending; 3] = [Ending::Clean, Ending::Killed, Ending::Power];

impl Ending {
    pub(crate) fn task(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Killed => "killed",
            Self::Power => "power",
        }
    }
}

pub(crate) fn options() -> LogOptions {
    // Nothing is flushed but where a test says so.
    Log::options().segment_bytes(SEGMENT_BYTES).durability(Durability::Written)
}

/// The record of this number, which is its offset too.
pub(crate) fn record(number: u64) -> Record<'static> {
    let key = format!("customer-{}", number % 17);
    let small = value_of(number, 20 + (number % 50) as usize);
    match number % 23 {
        0 => Record::new(value_of(number, 3000 + (number % 3000) as usize)).key(key),
        4 | 9 => Record::tombstone(key),
        5 | 13 => {
            Record::new(small).key(key).header("source", "web").header("source", value_of(number, 12)).null_header("")
        }
        7 | 15 => Record::new(small).timestamp_ms(number as i64 - 50),
        11 => Record::null(),
        17 => Record::new("").key(""),
        _ => Record::new(small).key(key),
    }
}

/// The one record of the other topic.
fn payment() -> Record<'static> {
    Record::new("first").key("card").header("source", "web")
}

/// Numbers of records that are appended at once: one, or a batch.
fn step(number: u64) -> u64 {
    if number % 11 == 3 { 2 + number % 30 } else { 1 }
}

/// Where a log is made: `log` in it, copies of earlier moments in `moment-1` and so on, second names of its files in
/// `originals`, and what was acknowledged.
pub(crate) struct Place<'a>(pub(crate) &'a Path);

impl Place<'_> {
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The folder as it was when the partition had so many segments.
    pub(crate) fn moment(&self, segments: usize) -> PathBuf {
        self.0.join(format!("moment-{segments}"))
    }

    /// Where each file of the log has a second name.
    pub(crate) fn originals(&self) -> PathBuf {
        self.0.join("originals")
    }

    pub(crate) fn acknowledged(&self) -> PathBuf {
        self.0.join("acknowledged")
    }
}

/// Makes the log, in a process of its own.
pub(crate) fn make(ending: Ending, folder: &Path) {
    let place = Place(folder);
    let mut log = options().open(place.log()).unwrap();
    // Another topic, whose turn comes behind.
    log.create_topic(OTHER_TOPIC, TopicConfig::with_partitions(1)).unwrap().append(payment()).unwrap();
    let topic = log.create_topic(TOPIC, TopicConfig::with_partitions(1)).unwrap();
    let mut partition = topic.partition(0).unwrap();
    let mut consumer = log.consumer(GROUP).topic(TOPIC).open().unwrap();
    let (mut next, mut segments, mut durable, mut commits) = (0, 0, None, COMMITS.into_iter().peekable());
    loop {
        append(&partition, next, step(next));
        next += step(next);
        if commits.peek().is_some_and(|&offset| offset <= next) {
            let offset = commits.next().unwrap();
            consumer.commit_offsets([(TOPIC, 0, offset)]).unwrap();
            if offset == DURABLE_COMMIT {
                drop(consumer);
                log.close().unwrap();
                log = options().open(place.log()).unwrap();
                partition = log.topic(TOPIC).unwrap().partition(0).unwrap();
                consumer = log.consumer(GROUP).topic(TOPIC).open().unwrap();
            }
        }
        let names = segment_names(&place.log().join(FOLDER));
        if names.len() > segments {
            segments = names.len();
            copy_sparse(&place.log(), &place.moment(segments));
        }
        if segments == SEGMENTS {
            let frames = frames_of(&fs::read(place.log().join(FOLDER).join(names.last().unwrap())).unwrap());
            let bytes = frames.last().map_or(0, |frame| frame.range.end - DATA_START);
            if bytes >= FLUSHED_BYTES && durable.is_none() {
                log.flush().unwrap();
                durable = Some(next);
            }
            if bytes >= ACTIVE_BYTES {
                break;
            }
        }
    }
    assert!(commits.peek().is_none());
    let durable = if ending == Ending::Clean { next } else { durable.unwrap() };
    fs::write(place.acknowledged(), format!("{next} {durable}")).unwrap();
    // No one leaves the group, as nobody does who is killed.
    std::mem::forget(consumer);
    match ending {
        Ending::Clean => log.close().unwrap(),
        Ending::Killed | Ending::Power => kill_myself(),
    }
}

fn append(partition: &Partition, first: u64, count: u64) {
    if count == 1 {
        assert_eq!(partition.append(record(first)).unwrap().offset, first);
    } else {
        let ranges = partition.append_batch((first..first + count).map(record)).unwrap();
        assert_eq!((ranges[0].offsets.start, ranges.len()), (first, 1));
    }
}

/// The names of a folder's segments, in order.
pub(crate) fn segment_names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".log")).collect();
    names.sort();
    names
}

/// A frame, as `src/doc/format.md` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) range: Range<u64>,
    pub(crate) offsets: Range<u64>,
    pub(crate) time_ms: i64,
}

/// The frames of an undamaged segment.
pub(crate) fn frames_of(segment: &[u8]) -> Vec<Frame> {
    let u32_at = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(segment[at..at + 8].try_into().unwrap());
    let (base_offset, base_time) = (u64_at(48), u64_at(56) as i64);
    let mut frames = Vec::new();
    let mut at = DATA_START as usize;
    while at + 32 <= segment.len() && segment[at] == 0xd7 {
        let end = at + (u32_at(at) >> 8) as usize * 8;
        let first = base_offset + u64::from(u32_at(at + 8));
        let count = u64::from(u32_at(at + 16) & 0xffff);
        let time_ms = base_time + i64::from(u32_at(at + 12));
        frames.push(Frame { range: at as u64..end as u64, offsets: first..first + count, time_ms });
        at = end;
    }
    frames
}

/// What a record was, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) client_time_ms: Option<i64>,
    pub(crate) append_time_ms: i64,
}

/// A segment that was written.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// In the log's folder.
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Frame>,
}

/// All that was written to the partition, and to the other topic's.
pub(crate) struct Written {
    pub(crate) segments: Vec<Segment>,
    /// The other topic's only segment, and its record.
    pub(crate) payments: (Segment, Content),
    /// By offset.
    pub(crate) records: Vec<Content>,
    /// Records below this were surely on the device.
    pub(crate) durable: u64,
}

impl Written {
    /// By the files, and by what the process acknowledged that wrote them.
    pub(crate) fn read(place: &Place<'_>) -> Self {
        let text = fs::read_to_string(place.acknowledged()).unwrap();
        let (end, durable) = text.split_once(' ').unwrap();
        let (end, durable): (u64, u64) = (end.parse().unwrap(), durable.parse().unwrap());
        let segments = Segment::read_all(place, FOLDER);
        let mut records = Vec::new();
        for frame in segments.iter().flat_map(|segment| &segment.frames) {
            assert_eq!(frame.offsets.start, records.len() as u64);
            records.extend(frame.offsets.clone().map(|number| content(&record(number), frame.time_ms)));
        }
        assert_eq!((records.len() as u64, segments.len()), (end, SEGMENTS), "the files are what was acknowledged");
        let [payments] = Segment::read_all(place, OTHER_FOLDER).try_into().unwrap();
        assert_eq!(payments.frames.iter().map(|frame| frame.offsets.clone()).collect::<Vec<_>>(), [0..1]);
        let payment = content(&payment(), payments.frames[0].time_ms);
        Self { segments, payments: (payments, payment), records, durable }
    }

    pub(crate) fn end(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn active(&self) -> &Segment {
        self.segments.last().unwrap()
    }
}

impl Segment {
    /// All of a partition's folder, in order.
    fn read_all(place: &Place<'_>, folder: &str) -> Vec<Self> {
        let read = |name: String| {
            let path = Path::new(folder).join(name);
            let bytes = fs::read(place.log().join(&path)).unwrap();
            Self { path, frames: frames_of(&bytes), bytes }
        };
        segment_names(&place.log().join(folder)).into_iter().map(read).collect()
    }

    /// Behind the last frame.
    pub(crate) fn end(&self) -> u64 {
        self.frames.last().unwrap().range.end
    }
}

fn content(record: &Record<'_>, append_time_ms: i64) -> Content {
    Content {
        key: record.key_bytes().map(Vec::from),
        value: record.value_bytes().map(Vec::from),
        headers: record.header_pairs().map(|(name, value)| (name.into(), value.map(Vec::from))).collect(),
        client_time_ms: record.explicit_timestamp_ms(),
        append_time_ms,
    }
}

/// Bytes that mean nothing.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}
