//! What is done to a log: operations, drawn from a seed or decoded from bytes.
//!
//! # Invariants
//! - An operation carries a seed of its own, from which it draws all it needs: records, choices, and the choices of the
//!   crashes in it. So leaving one out doesn't change what the others do.
//! - An operation that has nothing to work on (no such topic, no such consumer) does nothing.
//! - What is printed of a plan by `{:?}` is Rust, to be pasted into a test.
//!
//! # Thread safety
//! Plain values.

use crate::{mix::mix64, random::Sequence};

/// How the log is opened, each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Appends use `pwrite`.
    pub(crate) positional: bool,
    /// The log's own level.
    pub(crate) level: Level,
    /// The fewest files are open that are possible.
    pub(crate) few_files: bool,
}

/// A durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Written,
    Interval,
    Synced,
}

/// How large the records of an append are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Up to a few hundred bytes.
    Small,
    /// Over a few sectors.
    Medium,
    /// So that two or three fill a segment.
    Large,
}

/// Where to set a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Earliest,
    Latest,
    Back(u64),
    Offset(u64),
    Time(i64),
}

/// How a process ends that doesn't close its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Kill,
    Power,
    Remount,
}

/// What fails, how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No space left.
    Full,
    /// The device reports an error.
    Device,
    /// The call was interrupted.
    Interrupted,
    /// A part is done, then the device reports an error.
    Short,
}

/// One thing that is done. Topics, groups and consumers are numbered; `partition` counts modulo those that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateTopic {
        topic: u8,
        partitions: u32,
    },
    EnsureTopic {
        topic: u8,
        partitions: u32,
    },
    DeleteTopic {
        topic: u8,
    },
    AlterTopic {
        topic: u8,
    },
    IncreasePartitions {
        topic: u8,
    },
    Append {
        topic: u8,
        partition: u32,
        level: Level,
        size: Size,
    },
    AppendBatch {
        topic: u8,
        level: Level,
        size: Size,
        records: u8,
        spread: bool,
    },
    AppendIf {
        topic: u8,
        partition: u32,
        stale: bool,
        records: u8,
    },
    Flush {
        topic: Option<u8>,
    },
    WaitDurable {
        topic: u8,
        partition: u32,
    },
    DeleteRecords {
        topic: u8,
        partition: u32,
    },
    EnforceRetention,
    Join {
        consumer: u8,
        group: u8,
        topic: u8,
    },
    Poll {
        consumer: u8,
        records: u8,
    },
    Commit {
        consumer: u8,
        level: Option<Level>,
    },
    CommitOffsets {
        consumer: u8,
    },
    Seek {
        consumer: u8,
    },
    Leave {
        consumer: u8,
    },
    ResetOffsets {
        group: u8,
        topic: u8,
        to: To,
    },
    DeleteGroup {
        group: u8,
    },
    StepFlusher,
    StepHousekeeper,
    /// Moves the clock, also back.
    Clock {
        milliseconds: i64,
    },
    Reopen,
    Crash {
        end: End,
    },
    /// The `nth` operation on files that changes something, or that reads, fails.
    Fail {
        nth: u64,
        failure: Failure,
        forever: bool,
        reads: bool,
    },
    FailSyncs {
        count: u64,
    },
    /// So many bytes are left.
    Fill {
        bytes: u64,
    },
    /// Nothing fails any more, and there is space.
    Heal,
    /// To the partition that the key says.
    AppendKeyed {
        topic: u8,
        level: Level,
    },
    AppendAtEnd {
        topic: u8,
        partition: u32,
        level: Level,
        stale: bool,
    },
    FlushPartition {
        topic: u8,
        partition: u32,
    },
    /// Seeks an offset or a time, rewinds, pauses or resumes; looks at the lag.
    Move {
        consumer: u8,
    },
    CommitThrough {
        consumer: u8,
    },
    Verify,
}

/// An operation, and what it draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) seed: u64,
    pub(crate) operation: Operation,
}

/// What is done to one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) steps: Vec<Step>,
}

/// How many topics, groups and consumers there are at most.
pub(crate) const TOPICS: u8 = 3;
pub(crate) const GROUPS: u8 = 2;
pub(crate) const CONSUMERS: u8 = 3;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of_seed(seed: u64, length: usize) -> Self {
        let mut choices = Sequence::new(mix64(seed ^ 0x7469_6465_6c6f_6721));
        let settings = Settings {
            positional: choices.below(2) == 0,
            level: level(&mut choices),
            few_files: choices.below(4) == 0,
        };
        let first = [
            Operation::CreateTopic { topic: 0, partitions: 1 + choices.below(2) as u32 },
            Operation::Append { topic: 0, partition: 0, level: level(&mut choices), size: Size::Small },
        ];
        let mut steps = Vec::with_capacity(length);
        let mut trouble = 0;
        // From a sequence of their own: what else a seed stands for is as it was without them.
        let mut further = Sequence::new(mix64(seed ^ 0x6675_7274_6865_7221));
        for index in 0..length {
            let mut operation = first.get(index).copied().unwrap_or_else(|| draw(&mut choices));
            // Trouble doesn't last: else nothing much would happen any more.
            if trouble > 0 {
                trouble -= 1;
                if trouble == 0 {
                    operation = Operation::Heal;
                }
            }
            if matches!(operation, Operation::Fail { .. } | Operation::FailSyncs { .. } | Operation::Fill { .. }) {
                trouble = 2 + choices.below(4);
            }
            steps.push(Step { seed: choices.next(), operation });
            draw_further(&mut further, &mut steps);
        }
        Self { settings, steps }
    }

    /// The plan in the bytes that a fuzzer made: one for the settings, then up to nine for each operation. Of settings
    /// that say so, every other one is of the kinds that came later.
    pub(crate) fn of_bytes(data: &[u8], longest: usize) -> Self {
        let (&first, rest) = data.split_first().unwrap_or((&0, &[]));
        let level = [Level::Written, Level::Interval, Level::Synced][usize::from(first >> 1) % 3];
        let settings = Settings { positional: first & 1 != 0, level, few_files: first & 0x80 != 0 };
        let created = Operation::CreateTopic { topic: 0, partitions: 1 };
        let mut steps = vec![Step { seed: 0, operation: created }];
        for chunk in rest.chunks(9).take(longest) {
            let mut seed = [0; 8];
            seed[..chunk.len() - 1].copy_from_slice(&chunk[1..]);
            let seed = u64::from_le_bytes(seed);
            let kind = match first & FURTHER == FURTHER && seed & 1 != 0 {
                true => KINDS + u64::from(chunk[0]) % FURTHER_KINDS,
                false => chunk[0].into(),
            };
            steps.push(Step { seed, operation: draw_kind(kind, &mut Sequence::new(mix64(seed))) });
        }
        Self { settings, steps }
    }

    /// A few operations that go on behind a recovery.
    pub(crate) fn continuation(choices: &mut Sequence) -> Vec<Step> {
        let count = 1 + choices.below(4);
        let steps = (0..count).map(|_| {
            let operation = match choices.below(8) {
                0 => Operation::Flush { topic: None },
                1 => Operation::Commit { consumer: 0, level: Some(Level::Synced) },
                2 => Operation::Join { consumer: 0, group: choices.below(2) as u8, topic: topic(choices) },
                _ => draw_kind(choices.below(APPENDING), choices),
            };
            Step { seed: choices.next(), operation }
        });
        steps.collect()
    }
}

fn level(choices: &mut Sequence) -> Level {
    [Level::Written, Level::Interval, Level::Synced][choices.below(3) as usize]
}

fn topic(choices: &mut Sequence) -> u8 {
    // The first one most often, so that something piles up in it.
    (choices.below(u64::from(TOPICS) + 3) as u8).saturating_sub(3)
}

fn size(choices: &mut Sequence) -> Size {
    match choices.below(8) {
        0..=3 => Size::Small,
        4..=5 => Size::Medium,
        _ => Size::Large,
    }
}

fn draw(choices: &mut Sequence) -> Operation {
    let kind = choices.below(KINDS);
    draw_kind(kind, choices)
}

/// What is done now and then besides: an operation of the kinds that came later, or a few that are known to be dangerous
/// in that order.
fn draw_further(choices: &mut Sequence, steps: &mut Vec<Step>) {
    let operations = match choices.below(48) {
        0..=6 => {
            let kind = KINDS + choices.below(FURTHER_KINDS);
            vec![draw_kind(kind, choices)]
        }
        7 => failed_and_forgotten(choices),
        _ => return,
    };
    steps.extend(operations.into_iter().map(|operation| Step { seed: choices.next(), operation }));
}

/// A sync fails, and the process that was told goes on as if nothing had been, or is killed; then the power goes.
fn failed_and_forgotten(choices: &mut Sequence) -> Vec<Operation> {
    let append =
        |choices: &mut Sequence, level| Operation::Append { topic: 0, partition: 0, level, size: size(choices) };
    let reached = match choices.below(2) {
        0 => Operation::Flush { topic: None },
        _ => append(choices, Level::Synced),
    };
    let forgotten = match choices.below(2) {
        0 => Operation::Flush { topic: None },
        _ => Operation::Crash { end: End::Kill },
    };
    vec![
        append(choices, Level::Written),
        Operation::FailSyncs { count: 1 },
        reached,
        forgotten,
        append(choices, Level::Written),
        Operation::Crash { end: [End::Power, End::Remount][choices.below(2) as usize] },
    ]
}

/// Kinds of operations, and those that came later.
const KINDS: u64 = 256;
const FURTHER_KINDS: u64 = 40;

/// Settings that have these bits set ask for the later ones too.
const FURTHER: u8 = 0x7e;

/// Below this, kinds append.
const APPENDING: u64 = 94;

/// The operation of a kind: each stands for one as often as it is wanted.
fn draw_kind(kind: u64, choices: &mut Sequence) -> Operation {
    let (topic, partition) = (topic(choices), choices.below(3) as u32);
    let (consumer, group) = (choices.below(CONSUMERS.into()) as u8, choices.below(GROUPS.into()) as u8);
    match kind {
        0..=59 => Operation::Append { topic, partition, level: level(choices), size: size(choices) },
        60..=83 => {
            let (records, spread) = (1 + choices.below(6) as u8, choices.below(2) == 0);
            Operation::AppendBatch { topic, level: level(choices), size: size(choices), records, spread }
        }
        84..=93 => {
            let (stale, records) = (choices.below(3) == 0, 1 + choices.below(2) as u8);
            Operation::AppendIf { topic, partition, stale, records }
        }
        94..=103 => Operation::Flush { topic: (choices.below(2) == 0).then_some(topic) },
        104..=109 => Operation::WaitDurable { topic, partition },
        110..=121 => Operation::DeleteRecords { topic, partition },
        122..=131 => Operation::EnforceRetention,
        132..=151 => draw_group_kind(kind, choices, consumer, group, topic),
        152..=161 => Operation::Poll { consumer, records: 1 + choices.below(8) as u8 },
        162..=173 => Operation::Commit { consumer, level: (choices.below(2) == 0).then(|| level(choices)) },
        174..=183 => Operation::StepFlusher,
        184..=191 => Operation::StepHousekeeper,
        192..=201 => {
            let jumps = [1, 10, 10, 1000, -1000, 60 * 60 * 1000, DAY_MS, 31 * DAY_MS, -DAY_MS, 3653 * DAY_MS];
            Operation::Clock { milliseconds: jumps[choices.below(jumps.len() as u64) as usize] }
        }
        202..=211 => Operation::Reopen,
        212..=223 => Operation::Crash { end: [End::Kill, End::Power, End::Remount][choices.below(3) as usize] },
        224..=239 => draw_topic_kind(kind, choices, topic),
        240..=255 => draw_trouble(kind, choices),
        256..=265 => Operation::AppendKeyed { topic, level: level(choices) },
        266..=271 => {
            let stale = choices.below(4) == 0;
            Operation::AppendAtEnd { topic, partition, level: level(choices), stale }
        }
        272..=275 => Operation::FlushPartition { topic, partition },
        276..=285 => Operation::Move { consumer },
        286..=291 => Operation::CommitThrough { consumer },
        292..=293 => {
            let to = [To::Offset(choices.below(40)), To::Time(choices.next() as i64)][choices.below(2) as usize];
            Operation::ResetOffsets { group, topic, to }
        }
        _ => Operation::Verify,
    }
}

fn draw_group_kind(kind: u64, choices: &mut Sequence, consumer: u8, group: u8, topic: u8) -> Operation {
    match kind {
        132..=141 => Operation::Join { consumer, group, topic },
        142..=143 => Operation::CommitOffsets { consumer },
        144..=145 => Operation::Seek { consumer },
        146..=148 => Operation::Leave { consumer },
        149..=150 => {
            let to = [To::Earliest, To::Latest, To::Back(2)][choices.below(3) as usize];
            Operation::ResetOffsets { group, topic, to }
        }
        _ => Operation::DeleteGroup { group },
    }
}

fn draw_topic_kind(kind: u64, choices: &mut Sequence, topic: u8) -> Operation {
    let partitions = 1 + choices.below(2) as u32;
    match kind {
        224..=228 => Operation::CreateTopic { topic, partitions },
        229..=230 => Operation::EnsureTopic { topic, partitions },
        231..=233 => Operation::DeleteTopic { topic },
        234..=237 => Operation::AlterTopic { topic },
        _ => Operation::IncreasePartitions { topic },
    }
}

fn draw_trouble(kind: u64, choices: &mut Sequence) -> Operation {
    match kind {
        240..=245 => {
            let failures = [Failure::Full, Failure::Device, Failure::Interrupted, Failure::Short];
            let failure = failures[choices.below(4) as usize];
            let (forever, reads) = (choices.below(3) == 0, choices.below(4) == 0);
            Operation::Fail { nth: 1 + choices.below(12), failure, forever, reads }
        }
        246..=251 => Operation::FailSyncs { count: 1 + choices.below(2) },
        _ => Operation::Fill { bytes: choices.below(12) * 4096 },
    }
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) client_ms: Option<i64>,
}

impl Content {
    /// One of all that there can be: keys and values that are null, empty or filled, headers with repeated names.
    pub(crate) fn draw(choices: &mut Sequence, size: Size) -> Self {
        let (least, most) = match size {
            Size::Small => (1, 300),
            Size::Medium => (400, 1800),
            Size::Large => (14_000, 34_000),
        };
        let value = match choices.below(if size == Size::Small { 8 } else { 64 }) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(bytes(choices, least, most)),
        };
        let key = match choices.below(6) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(bytes(choices, 1, 20)),
        };
        let headers = match choices.below(4) {
            0 => (0..choices.below(3)).map(|_| header(choices)).collect(),
            _ => Vec::new(),
        };
        let client_ms = (choices.below(4) == 0).then(|| choices.next() as i64);
        Self { key, value, headers, client_ms }
    }
}

fn header(choices: &mut Sequence) -> (String, Option<Vec<u8>>) {
    let name = ["source", "trace", ""][choices.below(3) as usize].to_owned();
    (name, (choices.below(3) > 0).then(|| bytes(choices, 0, 12)))
}

fn bytes(choices: &mut Sequence, least: u64, most: u64) -> Vec<u8> {
    let length = (least + choices.below(most - least + 1)) as usize;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&choices.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
