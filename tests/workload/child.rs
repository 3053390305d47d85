//! The process that is ended: it opens the log, and threads of it append.

use std::{
    fmt,
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tidelog::{ErrorKind, Log, RecoveryEvent, Topic, TopicConfig};

use super::{
    consume,
    delete::{change_scratch, delete},
    message::{How, Message, PIPE_BYTES},
    plan::{Call, Place, RecordId, TOPICS, made_topic, open},
};
use crate::common::Random;

/// Threads that append; each has a number of its own, among four.
const WRITERS: u64 = 3;
/// Far longer than a flush takes.
const LONG: Duration = Duration::from_secs(60);

/// What a child is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// Opens and closes all the time, else it opens once and works.
    pub(crate) cycles: bool,
    pub(crate) round: u64,
    pub(crate) seed: u64,
    /// Appends with `pwrite`.
    pub(crate) positional: bool,
    pub(crate) end: End,
}

/// How lives end here, and so what the next one may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a kill that leaves a control page to believe.
    Kill,
    /// By a kill of which the pages that were written are left.
    KillWithoutPage,
    /// Of the machine. The last moments of a life are full of errors.
    PowerCut,
}

impl End {
    /// Whether opening may report this.
    pub(crate) fn leaves(self, event: &RecoveryEvent) -> bool {
        match event {
            // What a scan cuts is a record that was being written, so it is fine where only a scan is possible.
            RecoveryEvent::TornTail(_) => self != Self::Kill,
            RecoveryEvent::ReorderedTail(_) => self == Self::PowerCut,
            _ => false,
        }
    }
}

impl Task {
    pub(crate) fn to_text(self) -> String {
        let Self { cycles, round, seed, positional, end } = self;
        format!("{} {round} {seed} {} {}", u8::from(cycles), u8::from(positional), end as u8)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let words: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
        let end = [End::Kill, End::KillWithoutPage, End::PowerCut][words[4] as usize];
        Self { cycles: words[0] == 1, round: words[1], seed: words[2], positional: words[3] == 1, end }
    }
}

/// The pipe to the parent. Each write goes through in one piece, whoever else writes.
pub(super) struct Pipe(File);

impl Pipe {
    pub(super) fn say(&self, messages: &[Message]) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.encode()).collect();
        assert!(bytes.len() <= PIPE_BYTES, "longer than what a pipe takes in one piece");
        (&self.0).write_all(&bytes).unwrap();
    }
}

/// What all threads of a life share.
pub(super) struct Life<'a> {
    pub(super) log: &'a Log,
    pub(super) pipe: &'a Pipe,
    pub(super) task: Task,
    /// Its number in this process.
    number: u64,
    /// The log was closed.
    pub(super) stop: AtomicBool,
}

impl Life<'_> {
    /// A number that no other life's have: the first one of 2^16.
    pub(super) fn numbers(&self) -> u64 {
        (self.task.round << 12 | self.number) << 16
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Whether a call was made; `false` where the log is closed, or the disk full.
    pub(super) fn is_done(&self, outcome: tidelog::Result<()>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::StorageFull) => false,
            Err(error) => end_with(self.pipe, self.task, &format!("{:?}", error.kind()), &error),
        }
    }
}

/// An error that shouldn't be; but where the power is cut every call fails in the end. The parent knows when that was.
fn end_with(pipe: &Pipe, task: Task, kind: &str, error: &dyn fmt::Display) -> ! {
    assert!(task.end == End::PowerCut, "{error}");
    pipe.say(&[Message::failed(kind)]);
    loop {
        thread::park();
    }
}

/// Does the task until somebody ends the process.
pub(crate) fn main(task: &str, folder: &Path) {
    let task = Task::parse(task);
    let pipe = Pipe(File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap()));
    for number in 0.. {
        let lived = open(folder, task.positional).and_then(|log| {
            report_opening(&log, &pipe, task)?;
            let consumer = consume::open(&log, &pipe)?;
            pipe.say(&[Message::Ready]);
            let life = Life { log: &log, pipe: &pipe, task, number, stop: AtomicBool::new(false) };
            work(&life, consumer)
        });
        match lived {
            Ok(()) => pipe.say(&[Message::DidClose]),
            Err(error) => end_with(&pipe, task, &format!("{:?}", error.kind()), &error),
        }
    }
}

/// Tells how the log was found.
fn report_opening(log: &Log, pipe: &Pipe, task: Task) -> tidelog::Result<()> {
    for found in log.recovery().partitions() {
        let (topic, number) = (found.topic(), found.partition());
        for event in found.events() {
            if !task.end.leaves(event) {
                // Where the power goes while the log is opened, a sync that fails is told as one of these.
                let told = format!("{topic}-{number}: {event}");
                eprintln!("{told}");
                end_with(pipe, task, "RecoveryEvent", &told);
            }
        }
        if let Some(place) = Place::of(topic, number) {
            let end = log.topic(topic)?.partition(number)?.end_offset();
            pipe.say(&[Message::Opened(place, How::of(found.opening()), end)]);
        }
    }
    Ok(())
}

/// Appends, deletes and commits: for ever, or for a moment that ends with a close.
fn work(life: &Life<'_>, consumer: Option<tidelog::Consumer>) -> tidelog::Result<()> {
    let mut random = Random(life.task.seed ^ life.number);
    let topics: Vec<Topic> = TOPICS.iter().map(|plan| life.log.topic(plan.name)).collect::<tidelog::Result<_>>()?;
    let topics = topics.as_slice();
    let mut seeds: Vec<u64> = (0..WRITERS + 3).map(|_| random.next()).collect();
    let mut seed = || seeds.pop().unwrap();
    thread::scope(|scope| {
        for thread in 0..WRITERS {
            let (writer, seed) = (life.task.round << 12 | life.number << 2 | thread, seed());
            scope.spawn(move || append(life, topics, writer, seed));
        }
        let (consuming, deleting, drawn) = (seed(), seed(), seed());
        if let Some(consumer) = consumer {
            scope.spawn(move || consume::consume(life, consumer, consuming));
        }
        scope.spawn(move || delete(life, topics, deleting));
        scope.spawn(move || change_scratch(life, deleting));
        if life.task.cycles {
            thread::sleep(Duration::from_micros(drawn % 8_000));
            // The others are in the middle of it, and are told.
            let closed = life.log.close();
            life.stop.store(true, Ordering::Relaxed);
            return closed;
        }
        if drawn % 8 == 0 {
            match life.log.ensure_topic(&made_topic(life.task.round), TopicConfig::with_partitions(1)) {
                Ok(_) => life.pipe.say(&[Message::MadeTopic(life.task.round)]),
                Err(error) => drop(life.is_done(Err(error))),
            }
        }
        loop {
            thread::sleep(Duration::from_millis(4));
            for place in Place::all() {
                let durable = topics[place.topic].partition(place.partition)?.durable_offset();
                life.pipe.say(&[Message::Durable(place, durable)]);
            }
            life.pipe.say(&[Message::WillFlush]);
            life.log.flush()?;
            life.pipe.say(&[Message::DidFlush]);
        }
    })
}

/// Appends until the log is closed.
fn append(life: &Life<'_>, topics: &[Topic], writer: u64, seed: u64) {
    let mut random = Random(seed);
    let mut number = 0;
    while life.goes_on() {
        let call = Call::new(RecordId { writer, number });
        let outcome = append_call(&topics[call.topic], &call).and_then(|mut acknowledged| {
            if random.below(32) == 0 {
                acknowledged.extend(wait(&topics[call.topic], &acknowledged)?);
            }
            life.pipe.say(&acknowledged);
            Ok(())
        });
        // A full disk ends this thread's work; what the others, and later processes, do is worth as much.
        if !life.is_done(outcome) {
            return;
        }
        number += call.records;
        if random.below(4) == 0 {
            thread::sleep(Duration::from_micros(random.below(500)));
        }
    }
}

/// Waits until the last of these records is on the device.
fn wait(topic: &Topic, acknowledged: &[Message]) -> tidelog::Result<Option<Message>> {
    let Some(&Message::Appended(place, offset, _)) = acknowledged.last() else { return Ok(None) };
    assert!(topic.partition(place.partition)?.wait_durable(offset, LONG)?, "{place:?}: {offset} isn't durable");
    Ok(Some(Message::Durable(place, offset + 1)))
}

/// Makes the call; answers the acknowledgements, and what is on the device by them.
fn append_call(topic: &Topic, call: &Call) -> tidelog::Result<Vec<Message>> {
    let durable = |place: Place, below: u64| call.is_synced().then_some(Message::Durable(place, below));
    if call.records == 1 {
        let record = call.record(call.first);
        let at = match (call.durability, call.partition) {
            (None, Some(partition)) => topic.partition(partition)?.append(record)?,
            (None, None) => topic.append(record)?,
            (Some(durability), _) => topic.append_with(record, durability)?,
        };
        let place = Place { topic: call.topic, partition: at.partition };
        let appended = Message::Appended(place, at.offset, call.first);
        return Ok([appended].into_iter().chain(durable(place, at.offset + 1)).collect());
    }
    let records: Vec<_> = call.ids().map(|id| call.record(id)).collect();
    let ranges = match call.durability {
        Some(durability) => topic.append_batch_with(records, durability)?,
        None => topic.append_batch(records)?,
    };
    assert_eq!(ranges.iter().map(|range| range.offsets.end - range.offsets.start).sum::<u64>(), call.records);
    let (mut messages, mut ids) = (Vec::new(), call.ids());
    for range in ranges {
        let place = Place { topic: call.topic, partition: range.partition };
        messages.extend(range.offsets.clone().map(|offset| {
            // Which record went where the keys decide; what the parent finds there it knows by the values.
            let id = if call.is_atomic() { ids.next().unwrap() } else { call.first };
            Message::Appended(place, offset, id)
        }));
        messages.extend(durable(place, range.offsets.end));
    }
    Ok(messages)
}
