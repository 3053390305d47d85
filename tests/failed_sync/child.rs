//! The process whose syncs fail. It says on its standard output what was acknowledged, a line each, and checks in itself
//! what has to hold while it runs.

use std::{
    env,
    io::Write,
    path::Path,
    process,
    time::{Duration, Instant},
};

use tidelog::{Consumer, Durability, Error, ErrorKind, Log, LogOptions, Partition, Record, Start, Topic, TopicConfig};

use crate::common::{process::kill_myself, value_of};

/// Appends of one run, over all partitions.
const RECORDS: u64 = 240;
/// Bytes of a record's value.
pub(crate) const VALUE_BYTES: usize = 700;
pub(crate) const PARTITIONS: u32 = 2;
/// Set where all that is synced lies on a device that has no space: there the other partitions fail as well.
pub(crate) const ONE_DEVICE: &str = "TIDELOG_TEST_ONE_DEVICE";
const LEVELS: [Durability; 3] =
    [Durability::Written, Durability::Interval(Duration::from_millis(1)), Durability::Synced];

/// What a child says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The partition, the number in the value, the offset.
    Appended(u32, u64, u64),
    /// Flushed, up to this offset.
    Flushed(u32, u64),
    Committed(u32, u64),
    Made(String),
    /// A folder's name.
    Poisoned(String),
}

impl Said {
    fn say(&self) {
        let line = match self {
            Self::Appended(partition, number, offset) => format!("appended {partition} {number} {offset}"),
            Self::Flushed(partition, offset) => format!("flushed {partition} {offset}"),
            Self::Committed(partition, offset) => format!("committed {partition} {offset}"),
            Self::Made(topic) => format!("made {topic}"),
            Self::Poisoned(folder) => format!("poisoned {folder}"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        Some(match *words.first()? {
            "appended" => Self::Appended(number(1)? as u32, number(2)?, number(3)?),
            "flushed" => Self::Flushed(number(1)? as u32, number(2)?),
            "committed" => Self::Committed(number(1)? as u32, number(2)?),
            "made" => Self::Made((*words.get(1)?).to_owned()),
            "poisoned" => Self::Poisoned((*words.get(1)?).to_owned()),
            _ => return None,
        })
    }
}

/// Small segments, so that there are rolls.
pub(crate) fn options() -> LogOptions {
    Log::options().segment_bytes(64 << 10)
}

pub(crate) fn topic(log: &Log) -> tidelog::Result<Topic> {
    log.ensure_topic("orders", TopicConfig::with_partitions(PARTITIONS))
}

pub(crate) fn consumer(log: &Log) -> tidelog::Result<Consumer> {
    log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()
}

/// `<what> <first number>`.
pub(crate) fn main(task: &str, folder: &Path) {
    let (what, first) = task.split_once(' ').unwrap();
    let first = first.parse().unwrap();
    match what {
        "close" => drop(work(folder, first).map(|log| log.close())),
        "die" => {
            let _log = work(folder, first);
            kill_myself();
        }
        "open" => drop(Log::open(folder).map(|log| log.close())),
        "stay" => stay(folder),
        "slot" => crate::preload::open_with_one_slot(folder),
        other => panic!("no task {other:?}"),
    }
}

/// Appends, commits, creates topics. Errors end what they are about and nothing else. `None` if the log can't be opened.
fn work(folder: &Path, first: u64) -> Option<Log> {
    let log = refused(options().open(folder))?;
    let topic = refused(topic(&log))?;
    let mut consumer = refused(consumer(&log));
    let mut partitions: Vec<_> = (0..PARTITIONS).map(|number| Work::new(topic.partition(number).unwrap())).collect();
    for number in first..first + RECORDS {
        let at = (number % u64::from(PARTITIONS)) as usize;
        let other = partitions[1 - at].partition.clone();
        let level = LEVELS[(number / 2) as usize % LEVELS.len()];
        partitions[at].append(number, level, &other);
        if number % 16 == 0 {
            commit(&mut consumer);
        }
        if number % 60 == 30 {
            let name = format!("made-{number}");
            match log.create_topic(&name, TopicConfig::with_partitions(1)) {
                Ok(_) => Said::Made(name).say(),
                // Of kind `StorageFull` where the device has none.
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull), "{error}"),
            }
        }
    }
    // What came last in the background is seen now, if not before.
    for work in &mut partitions {
        work.flush();
    }
    commit(&mut consumer);
    Some(log)
}

/// The error, if there is one, is that of the sync that failed.
fn refused<T>(outcome: tidelog::Result<T>) -> Option<T> {
    let check = |error: &Error| assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
    outcome.inspect_err(check).ok()
}

/// Commits what the group was given; lets go of the consumer once that can't be recorded any more.
fn commit(consumer: &mut Option<Consumer>) {
    let Some(group) = consumer else { return };
    let outcome = group.poll(Duration::ZERO).and_then(|_| group.commit_with(Durability::Synced));
    match outcome {
        Ok(()) => {
            for partition in 0..PARTITIONS {
                let committed = group.committed("orders", partition).unwrap().unwrap_or(0);
                Said::Committed(partition, committed).say();
            }
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
            // What was committed is still told, and nothing more can be.
            assert!(group.committed("orders", 0).is_ok());
            let error = group.commit_offsets([("orders", 0, 1)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
            Said::Poisoned("__offsets-0".into()).say();
            *consumer = None;
        }
    }
}

/// One partition, and what it has acknowledged.
struct Work {
    partition: Partition,
    acknowledged: Vec<(u64, u64)>,
    poisoned: bool,
}

impl Work {
    fn new(partition: Partition) -> Self {
        Self { partition, acknowledged: Vec::new(), poisoned: false }
    }

    fn append(&mut self, number: u64, level: Durability, other: &Partition) {
        if self.poisoned {
            return;
        }
        match self.partition.append_with(Record::new(value_of(number, VALUE_BYTES)), level) {
            Ok(at) => {
                self.acknowledged.push((number, at.offset));
                Said::Appended(self.partition.number(), number, at.offset).say();
                if level == Durability::Synced {
                    Said::Flushed(self.partition.number(), at.offset + 1).say();
                }
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
                self.check_poisoned();
                // The others go on.
                let appended = other.append_with(Record::new(value_of(u64::MAX, VALUE_BYTES)), Durability::Synced);
                assert!(appended.is_ok() || env::var_os(ONE_DEVICE).is_some(), "{appended:?}");
            }
        }
    }

    fn flush(&mut self) {
        if !self.poisoned && self.partition.flush().is_err() {
            self.check_poisoned();
        }
        if !self.poisoned {
            Said::Flushed(self.partition.number(), self.partition.end_offset()).say();
        }
    }

    /// Nothing is appended any more, whatever the level; everything is read.
    fn check_poisoned(&mut self) {
        let partition = &self.partition;
        let poisoned = |outcome: Option<Error>| assert_eq!(outcome.unwrap().kind(), ErrorKind::Poisoned);
        for level in LEVELS {
            poisoned(partition.append_with(Record::new("no"), level).err());
            poisoned(partition.append_batch_with([Record::new("no"), Record::new("no")], level).err());
        }
        poisoned(partition.flush().err());
        let end = partition.end_offset();
        if partition.durable_offset() < end {
            let start = Instant::now();
            poisoned(partition.wait_durable(end - 1, Duration::from_secs(60)).err());
            assert!(start.elapsed() < Duration::from_secs(30), "it waited for what won't come");
        }
        let found: Vec<_> = partition.read_from(0).unwrap().map(Result::unwrap).collect();
        for (number, offset) in &self.acknowledged {
            let value = value_of(*number, VALUE_BYTES);
            assert!(found.iter().any(|it| it.offset() == *offset && it.value() == Some(&*value)), "{number} is gone");
        }
        self.poisoned = true;
        Said::Poisoned(format!("orders-{}", partition.number())).say();
    }
}

/// A partition that can't be mended yet: readable, and nothing more.
fn stay(folder: &Path) {
    let log = options().open(folder).unwrap();
    let topic = log.topic("orders").unwrap();
    for number in 0..PARTITIONS {
        let mut work = Work::new(topic.partition(number).unwrap());
        for record in work.partition.read_from(0).unwrap() {
            let record = record.unwrap();
            let number = u64::from_le_bytes(record.value().unwrap()[..8].try_into().unwrap());
            assert_eq!(record.value(), Some(&*value_of(number, VALUE_BYTES)));
            Said::Appended(work.partition.number(), number, record.offset()).say();
        }
        let record = Record::new(value_of(u64::MAX, VALUE_BYTES));
        match work.partition.append_with(record, Durability::Synced) {
            // It goes on where it has space.
            Ok(_) => {}
            // A torn tail can't be copied aside.
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            Err(_) => work.check_poisoned(),
        }
    }
    let _ = log.close();
    process::exit(0);
}
