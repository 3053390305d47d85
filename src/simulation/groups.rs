//! Operations of consumers and on groups, each with what the model makes of it.
//!
//! # Thread safety
//! As [`World`].

use std::{collections::BTreeMap, time::Duration};

use super::{
    check::{groups_of, is_same, matching},
    model::{Change, Model, Place},
    plan::{Level, Operation, To},
    world::{World, durability, topic_name},
};
use crate::{
    config::Start,
    consumer::Consumer,
    error::{Error, ErrorKind},
    group::OFFSETS_TOPIC,
    log::Reset,
    partition::Batch,
    random::Sequence,
    reader::OutOfRangePolicy,
    record::RecordRef,
};

/// A consumer, and the number of its group.
pub(crate) struct Member {
    group: u8,
    consumer: Consumer,
    /// The incarnations of the topics that were there when it looked last.
    seen: BTreeMap<String, u64>,
}

fn group_name(number: u8) -> &'static str {
    ["billing", "shipping"][usize::from(number) % 2]
}

impl World {
    /// Lets consumers come, read, commit and go; sets groups back; deletes them.
    pub(super) fn consume(&mut self, operation: Operation, choices: &mut Sequence) -> Result<(), String> {
        match operation {
            Operation::Join { consumer, group, topic } => self.join(consumer, group, topic),
            Operation::Poll { consumer, records } => self.poll(consumer, records),
            Operation::Commit { consumer, level } => self.commit(consumer, level),
            Operation::CommitOffsets { consumer } => self.commit_offsets(consumer, choices),
            Operation::Seek { consumer } => self.seek(consumer, choices),
            Operation::Leave { consumer } => self.leave(consumer, choices),
            Operation::ResetOffsets { group, topic, to } => self.reset(group, topic, to),
            Operation::DeleteGroup { group } => self.delete_group(group),
            Operation::Move { consumer } => self.move_consumer(consumer, choices),
            Operation::CommitThrough { consumer } => self.commit_through(consumer, choices),
            _ => Ok(()),
        }
    }

    fn slot(&mut self, consumer: u8) -> Option<&mut Member> {
        self.consumers.get_mut(usize::from(consumer))?.as_mut()
    }

    fn has_members(&self, group: u8) -> bool {
        self.consumers.iter().flatten().any(|member| member.group == group)
    }

    fn is_known(&self, group: u8) -> bool {
        self.model(|model| model.groups.table().contains_key(group_name(group)))
    }

    /// Notes what may happen to a group.
    fn expect_change(&self, change: Change) {
        self.model(|model| model.groups.possible = Some(change));
    }

    /// Holds the groups against the model. `done`: what was expected has happened; else it may have.
    fn settle_groups(&self, done: bool) -> Result<(), String> {
        let log = self.log()?;
        let model = self.model(|model| model.clone());
        let found = groups_of(&log, &model)?;
        let (before, mut after) = (model.groups.table(), model.groups.table());
        if let Some(change) = &model.groups.possible {
            change.apply(&mut after);
        }
        let happened = matching(&found, std::slice::from_ref(&after), &model).is_some();
        if !happened && (done || matching(&found, std::slice::from_ref(&before), &model).is_none()) {
            return Err(format!("groups are {found:?}, not {after:?}"));
        }
        self.model(|model: &mut Model| {
            if happened {
                let change = model.groups.possible.take();
                change.into_iter().for_each(|change| model.groups.add(change));
            }
            let possible = model.groups.possible.take();
            let known = model.groups.table();
            for (group, found) in found {
                if known.get(&group).is_none_or(|known| known.generation < found.generation) {
                    model.groups.add(Change::Seen { group, generation: found.generation });
                }
            }
            model.groups.possible = possible;
        });
        Ok(())
    }

    fn join(&mut self, slot: u8, group: u8, topic: u8) -> Result<(), String> {
        if self.slot(slot).is_some() {
            return Ok(());
        }
        let is_there = self.topic(topic).is_some();
        self.expect_change(Change::Seen { group: group_name(group).into(), generation: 0 });
        let builder = self.log()?.consumer(group_name(group)).topic(topic_name(topic));
        let builder = builder.start_if_new(Start::Earliest).on_out_of_range(OutOfRangePolicy::Earliest);
        let outcome = builder.max_poll_records(4).open();
        self.settle_groups(outcome.is_ok())?;
        match outcome {
            Ok(consumer) => {
                self.check_positions(&consumer)?;
                self.consumers[usize::from(slot)] = Some(Member { group, consumer, seen: self.incarnations() });
                Ok(())
            }
            Err(error) if !is_there && error.kind() == ErrorKind::UnknownTopic => Ok(()),
            Err(error) => self.tolerate("joining", &error),
        }
    }

    /// A consumer goes on where its group is, else at the beginning: it skips nothing.
    fn check_positions(&self, consumer: &Consumer) -> Result<(), String> {
        let table = self.model(|model| model.groups.table());
        for (topic, number) in consumer.assignment() {
            let position = consumer.position(&topic, number).map_err(|error| error.to_string())?;
            let place = self.model(|model| model.place(&topic, number));
            let group = table.get(consumer.group());
            let committed = place.and_then(|place| group?.commits.get(&place).copied());
            let start = self.model(|model| model.partition(&topic, number).map_or(0, |partition| partition.start));
            let expected = committed.unwrap_or(start);
            if position != expected && !(position < expected && committed.is_none()) {
                return Err(format!("{topic}-{number}: the group is at {expected}, its consumer at {position}"));
            }
        }
        Ok(())
    }

    fn poll(&mut self, slot: u8, records: u8) -> Result<(), String> {
        for _ in 0..records.div_ceil(4) {
            if self.poll_once(slot)?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next records; `None` if there is no such consumer, or a failure that was asked for.
    fn poll_once(&mut self, slot: u8) -> Result<Option<Batch>, String> {
        let Some(before) = self.positions(slot) else { return Ok(None) };
        let seen = self.incarnations();
        let Some(member) = self.slot(slot) else { return Ok(None) };
        member.seen = seen;
        let paused = member.consumer.paused();
        let outcome = member.consumer.poll(Duration::ZERO);
        self.settle_groups(false)?;
        match outcome {
            Ok(batch) => {
                let of_paused = |record: &RecordRef<'_>| paused.contains(&(record.topic().into(), record.partition()));
                if batch.iter().any(|record| of_paused(&record)) {
                    return Err(format!("something is read of {paused:?}, which are paused"));
                }
                self.check_batch(&batch, before)?;
                Ok(Some(batch))
            }
            // Its only topic was deleted, and that is told once.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(None),
            // It reads, and writes down who has which partitions.
            Err(error) if error.to_string().contains(OFFSETS_TOPIC) => self.tolerate("polling", &error).map(|()| None),
            Err(error) => self.tolerate_reading("polling", &error).map(|()| None),
        }
    }

    /// What was read is what was appended, in order, and nothing was left out.
    fn check_batch(&self, batch: &Batch, before: BTreeMap<(String, u32), u64>) -> Result<(), String> {
        let mut next = before;
        self.model(|model| {
            for record in batch {
                let (topic, number, offset) = (record.topic(), record.partition(), record.offset());
                let place = format!("{topic}-{number}");
                let partition = model.partition(topic, number).ok_or_else(|| format!("{place} isn't there"))?;
                let at = partition.entries.partition_point(|entry| entry.offset < offset);
                let entry = partition.entries.get(at).filter(|entry| entry.offset == offset);
                let entry = entry.ok_or_else(|| format!("{place}: nothing was appended at offset {offset}"))?;
                if !is_same(&record, &entry.content) {
                    return Err(format!("{place}: what is read at offset {offset} isn't what was appended"));
                }
                let key = (topic.to_owned(), number);
                if let Some(&from) = next.get(&key) {
                    let from = from.max(partition.start);
                    let skipped = partition.entries[..at].iter().find(|entry| entry.offset >= from);
                    if let Some(skipped) = skipped {
                        return Err(format!("{place}: {offset} is read, and {} was left out", skipped.offset));
                    }
                }
                next.insert(key, offset + 1);
            }
            Ok(())
        })
    }

    fn commit(&mut self, slot: u8, level: Option<Level>) -> Result<(), String> {
        let Some(offsets) = self.positions(slot) else { return Ok(()) };
        let Some(group) = self.slot(slot).map(|member| member.group) else { return Ok(()) };
        self.expect_commit(group, offsets);
        let Some(member) = self.slot(slot) else { return Ok(()) };
        let outcome = match level {
            Some(level) => member.consumer.commit_with(durability(level)),
            None => member.consumer.commit(),
        };
        let level = level.unwrap_or(self.origin.settings.level);
        self.settle_commit("committing", outcome, level)
    }

    fn expect_commit(&self, group: u8, offsets: BTreeMap<(String, u32), u64>) {
        let placed = |((topic, number), offset): ((String, u32), u64)| -> Option<(Place, u64)> {
            Some((self.model(|model| model.place(&topic, number))?, offset))
        };
        let offsets = offsets.into_iter().filter_map(placed).collect();
        self.expect_change(Change::Commit { group: group_name(group).into(), offsets });
    }

    fn settle_commit(&mut self, what: &str, outcome: Result<(), Error>, level: Level) -> Result<(), String> {
        self.settle_groups(outcome.is_ok())?;
        if let Err(error) = outcome {
            return self.tolerate(what, &error);
        }
        if level == Level::Synced {
            self.model(|model| model.groups.flushed());
        }
        Ok(())
    }

    fn commit_offsets(&mut self, slot: u8, choices: &mut Sequence) -> Result<(), String> {
        let Some(offsets) = self.positions(slot) else { return Ok(()) };
        let Some(group) = self.slot(slot).map(|member| member.group) else { return Ok(()) };
        let count = offsets.len() as u64;
        let Some(((topic, number), position)) = offsets.into_iter().nth(choices.below(count.max(1)) as usize) else {
            return Ok(());
        };
        let offset = choices.below(position + 1);
        self.expect_commit(group, BTreeMap::from([((topic.clone(), number), offset)]));
        let Some(member) = self.slot(slot) else { return Ok(()) };
        let outcome = member.consumer.commit_offsets([(&topic, number, offset)]);
        if matches!(&outcome, Err(error) if matches!(error.kind(), ErrorKind::OffsetOutOfRange | ErrorKind::UnknownTopic))
        {
            return self.settle_groups(false);
        }
        let level = self.origin.settings.level;
        self.settle_commit("committing an offset", outcome, level)
    }

    fn seek(&mut self, slot: u8, choices: &mut Sequence) -> Result<(), String> {
        let Some(member) = self.slot(slot) else { return Ok(()) };
        let assignment = member.consumer.assignment();
        let Some((topic, number)) = assignment.get(choices.below(assignment.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        let outcome = match choices.below(2) {
            0 => member.consumer.seek_to_start(topic, *number),
            _ => member.consumer.seek_to_end(topic, *number),
        };
        match outcome {
            // Deleted, and the consumer hasn't looked yet.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(()),
            outcome => outcome.or_else(|error| self.tolerate_reading("seeking", &error)),
        }
    }

    fn commit_through(&mut self, slot: u8, choices: &mut Sequence) -> Result<(), String> {
        let Some(batch) = self.poll_once(slot)? else { return Ok(()) };
        let Some(record) = batch.iter().nth(choices.below(batch.len().max(1) as u64) as usize) else { return Ok(()) };
        let Some(group) = self.slot(slot).map(|member| member.group) else { return Ok(()) };
        let place = (record.topic().to_owned(), record.partition());
        self.expect_commit(group, BTreeMap::from([(place, record.offset() + 1)]));
        let Some(member) = self.slot(slot) else { return Ok(()) };
        let outcome = member.consumer.commit_through(&record);
        let level = self.origin.settings.level;
        self.settle_commit("committing through a record", outcome, level)
    }

    /// Moves a consumer in one of its partitions, or looks how far it is behind.
    fn move_consumer(&mut self, slot: u8, choices: &mut Sequence) -> Result<(), String> {
        let Some(known) = self.positions(slot) else { return Ok(()) };
        let Some(((topic, number), _)) = known.iter().nth(choices.below(known.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        let Some(partition) = self.log()?.topic(topic).and_then(|topic| topic.partition(*number)).ok() else {
            return Ok(());
        };
        let (start, end) = (partition.start_offset(), partition.end_offset());
        let Some(member) = self.slot(slot) else { return Ok(()) };
        let consumer = &mut member.consumer;
        let outcome = match choices.below(6) {
            0 | 1 => {
                let offset = start + choices.below(end - start + 1);
                let outcome = consumer.seek(topic, *number, offset);
                let position = consumer.position(topic, *number).map_err(|error| error.to_string())?;
                if outcome.is_ok() && position != offset {
                    return Err(format!("{topic}-{number}: sought {offset}, and the position is {position}"));
                }
                outcome
            }
            2 => consumer.seek_to_time(choices.next() as i64),
            3 => consumer.rewind(),
            4 => consumer.pause([(topic, *number)]),
            _ => consumer.resume(consumer.paused()),
        };
        match outcome {
            // Of another topic that it has, deleted since it looked.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => return Ok(()),
            Err(error) => self.tolerate_reading("moving a consumer", &error)?,
            Ok(()) => {}
        }
        self.check_lag(slot, topic, *number, end)
    }

    /// The lag is what isn't committed, here and for those who look from elsewhere.
    fn check_lag(&mut self, slot: u8, topic: &str, number: u32, end: u64) -> Result<(), String> {
        let log = self.log()?;
        let Some(member) = self.slot(slot) else { return Ok(()) };
        let name = group_name(member.group);
        let told = log.lag(name).map_err(|error| format!("the lag of {name}: {error}"))?;
        let table = self.model(|model| model.groups.table());
        let committed = self.model(|model| model.place(topic, number));
        let committed = committed.and_then(|place| table.get(name)?.commits.get(&place).copied());
        let Some(member) = self.slot(slot) else { return Ok(()) };
        for lag in [told, member.consumer.lag()] {
            let lag = lag.partitions.iter().find(|lag| lag.topic == topic && lag.partition == number);
            let lag = lag.ok_or_else(|| format!("{topic}-{number}: {name} has no lag there"))?;
            let is_right = committed.is_none_or(|committed| lag.lag == end.saturating_sub(committed));
            if lag.committed != committed || lag.end_offset != end || !is_right {
                return Err(format!("{topic}-{number}: {name} has committed {committed:?} of {end}, not {lag:?}"));
            }
        }
        Ok(())
    }

    fn leave(&mut self, slot: u8, choices: &mut Sequence) -> Result<(), String> {
        let Some(member) = self.consumers.get_mut(usize::from(slot)).and_then(Option::take) else { return Ok(()) };
        let outcome = match choices.below(2) {
            0 => member.consumer.close(),
            _ => Ok(()),
        };
        self.settle_groups(false)?;
        outcome.or_else(|error| self.tolerate("leaving", &error))
    }

    fn reset(&mut self, group: u8, topic: u8, to: To) -> Result<(), String> {
        let Some(handle) = self.topic(topic) else { return Ok(()) };
        let (log, name) = (self.log()?, group_name(group));
        let (is_used, is_known) = (self.has_members(group), self.is_known(group));
        let table = self.model(|model| model.groups.table());
        let mut offsets = BTreeMap::new();
        for number in 0..handle.partitions() {
            let partition = handle.partition(number).map_err(|error| error.to_string())?;
            let (start, end) = (partition.start_offset(), partition.end_offset());
            let place = self.model(|model| model.place(handle.name(), number));
            let committed = place.and_then(|place| table.get(name)?.commits.get(&place).copied());
            let offset = match to {
                To::Earliest => 0,
                To::Latest => u64::MAX,
                To::Back(count) => committed.map_or(0, |committed| committed.saturating_sub(count)),
                To::Offset(offset) => offset,
                To::Time(time_ms) => match partition.offset_for_time(time_ms) {
                    Ok(found) => found.unwrap_or(u64::MAX),
                    Err(error) => return self.tolerate_reading("looking up a time", &error),
                },
            };
            offsets.insert((handle.name().to_owned(), number), offset.min(end).max(start));
        }
        if is_known && !is_used {
            self.expect_commit(group, offsets);
        }
        let to = match to {
            To::Earliest => Reset::Earliest,
            To::Latest => Reset::Latest,
            To::Back(count) => Reset::Back(count),
            To::Offset(offset) => Reset::Offset(offset),
            To::Time(time_ms) => Reset::Time(time_ms),
        };
        match log.reset_offsets(name, handle.name(), to).map(drop) {
            Err(error) if is_used && error.kind() == ErrorKind::GroupInUse => Ok(()),
            Err(error) if !is_known && error.kind() == ErrorKind::UnknownGroup => Ok(()),
            outcome => {
                let level = self.origin.settings.level;
                self.settle_commit("setting a group back", outcome, level)
            }
        }
    }

    fn delete_group(&mut self, group: u8) -> Result<(), String> {
        let (log, name) = (self.log()?, group_name(group));
        let (is_used, is_known) = (self.has_members(group), self.is_known(group));
        if is_known && !is_used {
            self.expect_change(Change::Delete { group: name.into() });
        }
        match log.delete_group(name) {
            Err(error) if is_used && error.kind() == ErrorKind::GroupInUse => Ok(()),
            Err(error) if !is_known && error.kind() == ErrorKind::UnknownGroup => Ok(()),
            outcome => {
                let level = self.origin.settings.level;
                self.settle_commit("deleting a group", outcome, level)
            }
        }
    }

    fn incarnations(&self) -> BTreeMap<String, u64> {
        self.model(|model| {
            let topics =
                model.names.iter().filter_map(|(name, it)| Some((name.clone(), it.topic.as_ref()?.incarnation)));
            topics.collect()
        })
    }

    /// Where a consumer is, in the topics that are still the ones that it knows.
    fn positions(&mut self, slot: u8) -> Option<BTreeMap<(String, u32), u64>> {
        let now = self.incarnations();
        let Member { consumer, seen, .. } = self.slot(slot)?;
        let assignment = consumer.assignment().into_iter();
        let known = assignment.filter(|(topic, _)| now.contains_key(topic) && now.get(topic) == seen.get(topic));
        let placed = known.filter_map(|(topic, number)| {
            let position = consumer.position(&topic, number).ok()?;
            Some(((topic, number), position))
        });
        Some(placed.collect())
    }
}
