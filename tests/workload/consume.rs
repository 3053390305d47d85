//! The child's consumer.

use std::{thread, time::Duration};

use tidelog::{Consumer, Durability, ErrorKind, Log, OutOfRangePolicy, Start};

use super::{
    child::{Life, Pipe},
    message::Message,
    plan::{GROUP, Keeps, Place, TOPICS},
};
use crate::common::Random;

/// `None` where the disk is too full to record that there is one.
pub(super) fn open(log: &Log, pipe: &Pipe) -> tidelog::Result<Option<Consumer>> {
    let builder = TOPICS.iter().fold(log.consumer(GROUP), |builder, plan| builder.topic(plan.name));
    // What is deleted before it was polled is passed over.
    let builder = builder.on_out_of_range(OutOfRangePolicy::Earliest).start_if_new(Start::Earliest);
    let consumer = match builder.max_poll_bytes(64 << 10).open() {
        Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(None),
        opened => opened?,
    };
    for place in Place::all() {
        let committed = consumer.committed(place.topic_name(), place.partition)?;
        let position = consumer.position(place.topic_name(), place.partition)?;
        let moved = place.keeps() != Keeps::Everything && position >= committed.unwrap_or(0);
        assert!(position == committed.unwrap_or(0) || moved, "{place:?}: at {position}, committed {committed:?}");
        pipe.say(&[Message::Committed(place, committed)]);
    }
    Ok(Some(consumer))
}

/// Polls and commits until the log is closed.
pub(super) fn consume(life: &Life<'_>, mut consumer: Consumer, seed: u64) {
    let mut random = Random(seed);
    while life.goes_on() {
        let outcome = consume_once(&mut consumer, life.pipe, &mut random);
        if matches!(&outcome, Err(error) if error.kind() == ErrorKind::StorageFull) {
            thread::sleep(Duration::from_millis(1));
        } else if !life.is_done(outcome) {
            return;
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
            pipe.say(&[Message::DidCommit(place, offset, false)]);
            return Ok(());
        }
        _ => {}
    }
    let places: Vec<(Place, u64)> =
        Place::all().map(|place| Ok((place, position(consumer, place)?))).collect::<tidelog::Result<_>>()?;
    for ((place, next), (_, position)) in expected.iter().zip(&places) {
        assert!(position >= next, "{place:?}: the position fell behind what was polled");
    }
    let say = |message: &dyn Fn(Place, u64) -> Message| {
        pipe.say(&places.iter().map(|&(place, offset)| message(place, offset)).collect::<Vec<_>>());
    };
    say(&Message::WillCommit);
    let drawn = random.below(12);
    match drawn {
        0 => consumer.commit_with(Durability::Synced)?,
        1..=3 => {
            consumer.commit_offsets(places.iter().map(|&(place, at)| (place.topic_name(), place.partition, at)))?
        }
        _ => consumer.commit()?,
    }
    say(&|place, offset| Message::DidCommit(place, offset, drawn == 0));
    Ok(())
}
