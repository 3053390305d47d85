//! The child's deletions: of records by offset and by retention, and of a topic.

use std::{thread, time::Duration};

use tidelog::{Durability, ErrorKind, Record, Topic, TopicConfig};

use super::{
    child::Life,
    message::Message,
    plan::{Keeps, Place, SCRATCH},
};
use crate::common::{Random, value_of};

/// Deletes records, in some topics those below an offset and in others what retention says, until the log is closed.
pub(super) fn delete(life: &Life<'_>, topics: &[Topic], seed: u64) {
    let mut random = Random(seed);
    let mut go_on = true;
    while go_on && life.goes_on() {
        thread::sleep(Duration::from_micros(random.below(8_000)));
        for place in Place::all().filter(|place| place.keeps() != Keeps::Everything) {
            go_on &= life.is_done(delete_from(life, &topics[place.topic], place, &mut random));
        }
    }
}

fn delete_from(life: &Life<'_>, topic: &Topic, place: Place, random: &mut Random) -> tidelog::Result<()> {
    let partition = topic.partition(place.partition)?;
    match place.keeps() {
        Keeps::Rest if random.below(3) == 0 => {
            let (start, end) = (partition.start_offset(), partition.end_offset());
            let before = start + random.below(end - start + 1);
            life.pipe.say(&[Message::WillDelete(place, before)]);
            let start = partition.delete_records(before)?;
            assert!(start >= before, "{place:?}: starts at {start}, though {before} was deleted");
        }
        Keeps::Bytes(_) => drop(life.log.enforce_retention()?),
        Keeps::Rest | Keeps::Everything => {}
    }
    life.pipe.say(&[Message::Starts(place, partition.start_offset())]);
    Ok(())
}

/// Deletes and creates a topic, and appends to it, until the log is closed.
pub(super) fn change_scratch(life: &Life<'_>, seed: u64) {
    let mut random = Random(!seed);
    let mut incarnation = life.numbers();
    while life.goes_on() && life.is_done(change_scratch_once(life, incarnation, &mut random)) {
        incarnation += 1;
    }
}

fn change_scratch_once(life: &Life<'_>, incarnation: u64, random: &mut Random) -> tidelog::Result<()> {
    match life.log.topic(SCRATCH) {
        Err(error) if error.kind() == ErrorKind::UnknownTopic => {}
        found => {
            found?;
            life.pipe.say(&[Message::WillDeleteScratch]);
            life.log.delete_topic(SCRATCH)?;
            life.pipe.say(&[Message::DidDeleteScratch]);
            thread::sleep(Duration::from_micros(random.below(1_000)));
        }
    }
    life.pipe.say(&[Message::WillCreateScratch(incarnation)]);
    let topic = life.log.create_topic(SCRATCH, TopicConfig::with_partitions(1))?;
    life.pipe.say(&[Message::DidCreateScratch(incarnation)]);
    for number in 0..random.below(60) {
        let durable = random.below(12) == 0;
        let level = if durable { Durability::Synced } else { Durability::Written };
        let record = Record::new(scratch_value(incarnation, number));
        let offset = topic.append_with(record, level)?.offset;
        life.pipe.say(&[Message::AppendedScratch { incarnation, number, offset, durable }]);
        thread::sleep(Duration::from_micros(random.below(400)));
    }
    Ok(())
}

/// Bytes that say which incarnation of the topic the record is in, and which record of it it is.
pub(crate) fn scratch_value(incarnation: u64, number: u64) -> Vec<u8> {
    let mut value = incarnation.to_le_bytes().to_vec();
    value.extend_from_slice(&number.to_le_bytes());
    value.extend(value_of(incarnation ^ number << 40, (number % 300) as usize));
    value
}

/// What a value says; `None` if no child makes such a one.
pub(super) fn read_scratch_value(value: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
    let (incarnation, number) = (word(0)?, word(8)?);
    (scratch_value(incarnation, number) == value).then_some((incarnation, number))
}
