//! The process that is killed.

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tidelog::{Consumer, Durability, ErrorKind, Log, RecoveryEvent, Start, Topic, TopicConfig};

use crate::{
    common::{Random, is_believable},
    plan::{Call, GROUP, How, Message, Place, RecordId, TOPICS, made_topic, open},
};

/// What a child is told: `<what> <round> <seed>`.
pub(crate) struct Task {
    /// Opens and closes all the time, else it opens once and works.
    pub(crate) cycles: bool,
    pub(crate) round: u64,
    pub(crate) seed: u64,
}

impl Task {
    pub(crate) fn to_text(&self) -> String {
        format!("{} {} {}", if self.cycles { "cycle" } else { "work" }, self.round, self.seed)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        Self { cycles: words[0] == "cycle", round: words[1].parse().unwrap(), seed: words[2].parse().unwrap() }
    }
}

/// The pipe to the parent. Each write goes through in one piece, whoever else writes.
struct Pipe(File);

impl Pipe {
    fn say(&self, messages: &[Message]) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.encode()).collect();
        assert!(bytes.len() <= 4096, "longer than what a pipe takes in one piece");
        (&self.0).write_all(&bytes).unwrap();
    }
}

/// Does the task until somebody ends the process.
pub(crate) fn main(task: &str, folder: &Path) {
    let task = Task::parse(task);
    let pipe = Pipe(File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap()));
    for life in 0.. {
        let log = open(folder).unwrap();
        report_opening(&log, &pipe, is_believable(folder));
        let consumer = open_consumer(&log, &pipe);
        pipe.say(&[Message::Ready]);
        work(&log, &pipe, consumer, &task, life);
        pipe.say(&[Message::DidClose]);
    }
}

/// Tells how the log was found.
fn report_opening(log: &Log, pipe: &Pipe, strict: bool) {
    for found in log.recovery().partitions() {
        let (topic, number) = (found.topic(), found.partition());
        for event in found.events() {
            // What a scan cuts is a record that was being written, so it is fine where only a scan is possible.
            assert!(!strict && matches!(event, RecoveryEvent::TornTail(_)), "{topic}-{number}: {event}");
        }
        if let Some(place) = Place::of(topic, number) {
            let end = log.topic(topic).unwrap().partition(number).unwrap().end_offset();
            pipe.say(&[Message::Opened(place, How::of(found.opening()), end)]);
        }
    }
}

/// `None` where the disk is too full to record that there is one.
fn open_consumer(log: &Log, pipe: &Pipe) -> Option<Consumer> {
    let builder = TOPICS.iter().fold(log.consumer(GROUP), |builder, (name, _)| builder.topic(*name));
    let consumer = match builder.start_if_new(Start::Earliest).max_poll_bytes(64 << 10).open() {
        Err(error) if error.kind() == ErrorKind::StorageFull => return None,
        opened => opened.unwrap(),
    };
    for place in Place::all() {
        let committed = consumer.committed(place.topic_name(), place.partition).unwrap();
        assert_eq!(consumer.position(place.topic_name(), place.partition).unwrap(), committed.unwrap_or(0));
        pipe.say(&[Message::Committed(place, committed)]);
    }
    Some(consumer)
}

/// Appends and commits: for ever, or for a moment that ends with a close.
fn work(log: &Log, pipe: &Pipe, consumer: Option<Consumer>, task: &Task, life: u64) {
    let mut random = Random(task.seed ^ life);
    let topics: Vec<Topic> = TOPICS.iter().map(|(name, _)| log.topic(name).unwrap()).collect();
    let (topics, stop) = (topics.as_slice(), &AtomicBool::new(false));
    let seeds: Vec<u64> = (0..5).map(|_| random.next()).collect();
    thread::scope(|scope| {
        for thread in 0..3 {
            let writer = task.round << 12 | life << 2 | thread;
            let seed = seeds[thread as usize];
            scope.spawn(move || append(topics, pipe, writer, seed, stop));
        }
        let seed = seeds[3];
        if let Some(consumer) = consumer {
            scope.spawn(move || consume(consumer, pipe, seed, stop));
        }
        if task.cycles {
            thread::sleep(Duration::from_micros(seeds[4] % 8_000));
            // The others are in the middle of it, and are told.
            log.close().unwrap();
            stop.store(true, Ordering::Relaxed);
            return;
        }
        if seeds[4] % 8 == 0 {
            match log.ensure_topic(&made_topic(task.round), TopicConfig::with_partitions(1)) {
                Ok(_) => pipe.say(&[Message::MadeTopic(task.round)]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}"),
            }
        }
        loop {
            thread::sleep(Duration::from_millis(4));
            log.flush().unwrap();
        }
    });
}

/// Appends until the log is closed.
fn append(topics: &[Topic], pipe: &Pipe, writer: u64, seed: u64, stop: &AtomicBool) {
    let mut random = Random(seed);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let call = Call::new(RecordId { writer, number });
        match append_call(&topics[call.topic], &call) {
            Ok(acknowledged) => pipe.say(&acknowledged),
            // A full disk ends this thread's work; what the others, and later processes, do is worth as much.
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::StorageFull) => return,
            Err(error) => panic!("{error}"),
        }
        number += call.records;
        if random.below(4) == 0 {
            thread::sleep(Duration::from_micros(random.below(500)));
        }
    }
}

/// Makes the call; answers the acknowledgements.
fn append_call(topic: &Topic, call: &Call) -> tidelog::Result<Vec<Message>> {
    if call.records == 1 {
        let record = call.record(call.first);
        let at = match (call.durability, call.partition) {
            (None, Some(partition)) => topic.partition(partition)?.append(record)?,
            (None, None) => topic.append(record)?,
            (Some(durability), _) => topic.append_with(record, durability)?,
        };
        let place = Place { topic: call.topic, partition: at.partition };
        return Ok(vec![Message::Appended(place, at.offset, call.first)]);
    }
    let records: Vec<_> = call.ids().map(|id| call.record(id)).collect();
    let ranges = match call.durability {
        Some(durability) => topic.append_batch_with(records, durability)?,
        None => topic.append_batch(records)?,
    };
    assert_eq!(ranges.iter().map(|range| range.offsets.end - range.offsets.start).sum::<u64>(), call.records);
    if !call.is_atomic() {
        // Which record went where the keys decide; what the parent finds there it knows by the values.
        return Ok(ranges.iter().flat_map(|range| unnamed(call, range)).collect());
    }
    let offsets = ranges.into_iter().flat_map(|range| range.offsets.map(move |offset| (range.partition, offset)));
    let appended = |(id, (partition, offset))| Message::Appended(Place { topic: call.topic, partition }, offset, id);
    Ok(call.ids().zip(offsets).map(appended).collect())
}

/// Acknowledgements of records that were sorted by key: which of the call's they are isn't told.
fn unnamed(call: &Call, range: &tidelog::AppendedRange) -> Vec<Message> {
    let place = Place { topic: call.topic, partition: range.partition };
    range.offsets.clone().map(|offset| Message::Appended(place, offset, call.first)).collect()
}

/// Polls and commits until the log is closed.
fn consume(mut consumer: Consumer, pipe: &Pipe, seed: u64, stop: &AtomicBool) {
    let mut random = Random(seed);
    while !stop.load(Ordering::Relaxed) {
        match consume_once(&mut consumer, pipe, &mut random) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => thread::sleep(Duration::from_millis(1)),
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn consume_once(consumer: &mut Consumer, pipe: &Pipe, random: &mut Random) -> tidelog::Result<()> {
    let position = |consumer: &Consumer, place: Place| consumer.position(place.topic_name(), place.partition);
    let mut expected: Vec<(Place, u64)> = Vec::new();
    for place in Place::all() {
        expected.push((place, position(consumer, place)?));
    }
    let batch = consumer.poll(Duration::from_millis(2))?;
    for record in &batch {
        let at = expected.iter_mut().find(|(place, _)| Place::of(record.topic(), record.partition()) == Some(*place));
        let (place, next) = at.unwrap();
        assert!(record.offset() >= *next, "{place:?}: {} came where {next} was due", record.offset());
        *next = record.offset() + 1;
    }
    match random.below(8) {
        0 => return consumer.rewind(),
        1 => return Ok(()),
        2 => {
            let Some(record) = batch.iter().nth(random.below(batch.len().max(1) as u64) as usize) else {
                return Ok(());
            };
            let (place, offset) = (Place::of(record.topic(), record.partition()).unwrap(), record.offset() + 1);
            pipe.say(&[Message::WillCommit(place, offset)]);
            consumer.commit_through(&record)?;
            pipe.say(&[Message::DidCommit(place, offset)]);
            return Ok(());
        }
        _ => {}
    }
    let places: Vec<(Place, u64)> =
        Place::all().map(|place| Ok((place, position(consumer, place)?))).collect::<tidelog::Result<_>>()?;
    for ((place, next), (_, position)) in expected.iter().zip(&places) {
        assert!(position >= next, "{place:?}: the position fell behind what was polled");
    }
    let say = |message: fn(Place, u64) -> Message| {
        pipe.say(&places.iter().map(|&(place, offset)| message(place, offset)).collect::<Vec<_>>());
    };
    say(Message::WillCommit);
    match random.below(12) {
        0 => consumer.commit_with(Durability::Synced)?,
        1..=3 => {
            consumer.commit_offsets(places.iter().map(|&(place, at)| (place.topic_name(), place.partition, at)))?
        }
        _ => consumer.commit()?,
    }
    say(Message::DidCommit);
    Ok(())
}
