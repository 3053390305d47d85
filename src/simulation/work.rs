//! Operations on topics and their records, each with what the model makes of it.
//!
//! # Thread safety
//! As [`World`].

use std::{
    ops::Range,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    model::{Alternative, PartitionModel, Possible},
    plan::{Content, Level, Operation, Size},
    world::{INTERVAL, World, durability, topic_name},
};
use crate::{
    config::{Durability, TopicConfig},
    error::{Error, ErrorKind},
    log::Log,
    partitioner::murmur2,
    place::AppendedRange,
    random::Sequence,
    record::Record,
    segment_header::DATA_START,
    topic::{Partition, Topic},
};

/// The most partitions of a topic.
const PARTITIONS: u32 = 3;

/// Options as they are drawn.
fn draw_config(partitions: u32, choices: &mut Sequence) -> TopicConfig {
    let durability = [None, Some(Durability::Written), Some(INTERVAL), Some(Durability::Synced)];
    let ages = [None, None, Some(Duration::from_secs(60)), Some(Duration::from_secs(24 * 60 * 60))];
    let sizes = [None, None, Some(0), Some(100 << 10)];
    let mut pick = |count: usize| choices.below(count as u64) as usize;
    TopicConfig::with_partitions(partitions)
        .durability(durability[pick(durability.len())])
        .segment_age([None, Some(Duration::from_secs(60 * 60))][pick(2)])
        .retention_age(ages[pick(ages.len())])
        .retention_bytes(sizes[pick(sizes.len())])
}

fn record(content: &Content) -> Record<'_> {
    let mut record = content.value.as_deref().map_or_else(Record::null, Record::new);
    if let Some(key) = &content.key {
        record = record.key(&key[..]);
    }
    for (name, value) in &content.headers {
        record = match value {
            Some(value) => record.header(&**name, &value[..]),
            None => record.null_header(&**name),
        };
    }
    content.client_ms.map_or(record.clone(), |time_ms| record.timestamp_ms(time_ms))
}

impl World {
    /// Creates, changes, or deletes a topic.
    pub(super) fn administer(&mut self, operation: Operation, choices: &mut Sequence) -> Result<(), String> {
        let outcome = match operation {
            Operation::CreateTopic { topic, partitions } => self.create(topic, partitions, false, choices),
            Operation::EnsureTopic { topic, partitions } => self.create(topic, partitions, true, choices),
            Operation::DeleteTopic { topic } => self.delete(topic),
            Operation::AlterTopic { topic } => self.alter(topic, choices),
            Operation::IncreasePartitions { topic } => self.increase(topic),
            _ => Ok(()),
        };
        self.note_logs();
        outcome
    }

    fn create(&mut self, topic: u8, partitions: u32, ensure: bool, choices: &mut Sequence) -> Result<(), String> {
        let (log, name) = (self.log()?, topic_name(topic));
        let config = draw_config(partitions, choices);
        let existing = self.model(|model| model.topic(name).map(|topic| topic.partitions.len()));
        if existing.is_none() {
            self.model(|model| {
                let created = model.new_topic(config.clone());
                let alternative = Alternative { topic: Some(created), after_kill: true };
                model.name_mut(name).alternatives.push(alternative);
            });
        }
        let outcome = if ensure { log.ensure_topic(name, config) } else { log.create_topic(name, config) };
        let what = if ensure { "ensuring a topic" } else { "creating a topic" };
        match (outcome, existing) {
            (Ok(_), None) => self.model(|model| {
                let name = model.name_mut(name);
                name.topic = name.alternatives.pop().and_then(|alternative| alternative.topic);
                name.alternatives.clear();
                Ok(())
            }),
            (Ok(_), Some(count)) if ensure && count == partitions as usize => Ok(()),
            (Ok(_), Some(_)) => Err(format!("{what}: it was there")),
            (Err(error), Some(_)) if !ensure && error.kind() == ErrorKind::TopicExists => Ok(()),
            (Err(error), Some(count)) if ensure && count != partitions as usize => match error.kind() {
                ErrorKind::PartitionCountMismatch => Ok(()),
                _ => Err(format!("{what}: {error}")),
            },
            (Err(error), _) => self.tolerate(what, &error),
        }
    }

    fn delete(&mut self, topic: u8) -> Result<(), String> {
        let (log, name) = (self.log()?, topic_name(topic));
        let existed = self.model(|model| {
            let name = model.name_mut(name);
            let existed = name.topic.is_some();
            if existed {
                name.alternatives.push(Alternative { topic: None, after_kill: true });
            }
            existed
        });
        let outcome = log.delete_topic(name);
        let is_there = log.topic(name).is_ok();
        self.model(|model| {
            if outcome.is_ok() {
                model.groups.flushed();
            }
            let name = model.name_mut(name);
            match (&outcome, is_there) {
                (Ok(()), false) => *name = Default::default(),
                (Ok(()), true) => return Err(String::from("it was deleted and is there")),
                // Nothing has changed.
                (Err(_), true) => drop(name.alternatives.pop()),
                // It is gone, but after a power cut it may be there again.
                (Err(_), false) => {
                    let topic = name.topic.take();
                    name.alternatives.extend(topic.map(|topic| Alternative { topic: Some(topic), after_kill: false }));
                }
            }
            Ok(())
        })?;
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if !existed && error.kind() == ErrorKind::UnknownTopic => Ok(()),
            Err(error) => self.tolerate("deleting a topic", &error),
        }
    }

    fn alter(&mut self, topic: u8, choices: &mut Sequence) -> Result<(), String> {
        let Some(handle) = self.topic(topic) else { return Ok(()) };
        let (log, name) = (self.log()?, topic_name(topic));
        let config = draw_config(handle.partitions(), choices);
        self.model(|model| model.topic_mut(name).map(|topic| topic.configs.push(config.clone())));
        match log.alter_topic(name, |_| config.clone()) {
            Ok(_) => {
                self.model(|model| model.topic_mut(name).map(|topic| topic.configs = vec![config]));
                Ok(())
            }
            Err(error) => self.tolerate("altering a topic", &error),
        }
    }

    fn increase(&mut self, topic: u8) -> Result<(), String> {
        let Some(handle) = self.topic(topic) else { return Ok(()) };
        let (log, name, count) = (self.log()?, topic_name(topic), handle.partitions() + 1);
        if count > PARTITIONS {
            return Ok(());
        }
        self.model(|model| model.topic_mut(name).map(|topic| topic.partition_limit = count as usize));
        match log.increase_partitions(name, count) {
            Ok(_) => {
                self.model(|model| model.topic_mut(name).map(|it| it.partitions.push(PartitionModel::default())));
                Ok(())
            }
            Err(error) => self.tolerate("adding a partition", &error),
        }
    }

    /// Appends to, flushes or deletes from partitions.
    pub(super) fn work(&mut self, operation: Operation, choices: &mut Sequence) -> Result<(), String> {
        match operation {
            Operation::Append { topic, partition, level, size } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                self.append(&topic, partition % topic.partitions(), level, size, choices)
            }
            Operation::AppendBatch { topic, level, size, records, spread } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                self.append_batch(&topic, level, size, records, spread, choices)
            }
            Operation::AppendIf { topic, partition, stale, records } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                let partition = topic.partition(partition % topic.partitions()).map_err(|error| error.to_string())?;
                self.append_if(&partition, stale, records, choices)
            }
            Operation::Flush { topic: None } => {
                let outcome = self.log()?.flush();
                self.settle_flush(outcome, None)
            }
            Operation::Flush { topic: Some(topic) } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                let outcome = topic.flush();
                self.settle_flush(outcome, Some(&topic))
            }
            Operation::WaitDurable { topic, partition } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                let partition = topic.partition(partition % topic.partitions()).map_err(|error| error.to_string())?;
                self.wait_durable(&partition, choices)
            }
            Operation::DeleteRecords { topic, partition } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                let partition = topic.partition(partition % topic.partitions()).map_err(|error| error.to_string())?;
                self.delete_records(&partition, choices)
            }
            Operation::AppendKeyed { topic, level } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                self.append_keyed(&topic, level, choices)
            }
            Operation::AppendAtEnd { topic, partition, level, stale } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                let partition = topic.partition(partition % topic.partitions()).map_err(|error| error.to_string())?;
                self.append_at_end(&partition, level, stale, choices)
            }
            Operation::FlushPartition { topic, partition } => {
                let Some(topic) = self.topic(topic) else { return Ok(()) };
                let partition = topic.partition(partition % topic.partitions()).map_err(|error| error.to_string())?;
                self.flush_partition(&partition)
            }
            _ => Ok(()),
        }
    }

    /// Notes a frame that is about to be appended.
    fn expect(&self, partition: &Partition, contents: Vec<Arc<Content>>) {
        let (from, epoch) = (partition.end_offset(), partition.log().epoch());
        let earliest_ms = self.origin.now_ms.load(Ordering::Relaxed);
        self.model(|model| {
            if let Some(partition) = model.partition_mut(partition.topic(), partition.number()) {
                partition.is_published = false;
                partition.is_possible_required = false;
                partition.epoch = epoch;
                partition.possible.push(Possible { contents, earliest_ms, from });
            }
        });
    }

    /// Notes what became of a frame. `appended` are its offsets if that was told; `synced`, if it is to be on the device
    /// then, or may have been appended all the same.
    fn settle(&self, partition: &Partition, appended: Option<Range<u64>>, synced: bool) -> Result<(), String> {
        let place = format!("{}-{}", partition.topic(), partition.number());
        self.model(|model| {
            let Some(model) = model.partition_mut(partition.topic(), partition.number()) else { return Ok(()) };
            model.note(partition.log());
            let told = appended.is_some();
            let published = model.published(partition.log());
            let frame = model.possible.last().map_or(0, |possible| possible.contents.len() as u64);
            let offsets = match (appended, published) {
                (Some(offsets), _) => offsets,
                (None, Some(end)) if synced => end - frame..end,
                (None, Some(_)) => return Err(format!("{place}: an append that failed can be read")),
                (None, None) => return Ok(()),
            };
            let end = offsets.end;
            model.accept(offsets).map_err(|what| format!("{place}: {what}"))?;
            if told && partition.end_offset() < end {
                return Err(format!("{place}: it ends at {}, before {end}", partition.end_offset()));
            }
            if told && synced {
                if partition.durable_offset() < end {
                    return Err(format!("{place}: {end} was synced and isn't durable"));
                }
                model.flushed();
            }
            Ok(())
        })
    }

    fn append(
        &mut self,
        topic: &Topic,
        number: u32,
        level: Level,
        size: Size,
        choices: &mut Sequence,
    ) -> Result<(), String> {
        let content = Arc::new(Content::draw(choices, size));
        let partition = topic.partition(number).map_err(|error| error.to_string())?;
        self.expect(&partition, vec![content.clone()]);
        let outcome = match choices.below(2) {
            0 => topic.append_with(record(&content).partition(number), durability(level)),
            _ => partition.append_with(record(&content), durability(level)),
        };
        let offsets = outcome.as_ref().ok().map(|appended| appended.offset..appended.offset + 1);
        self.settle(&partition, offsets, level == Level::Synced)?;
        outcome.map_or_else(|error| self.tolerate("appending", &error), |_| Ok(()))
    }

    /// Keys go where Kafka puts them.
    fn append_keyed(&mut self, topic: &Topic, level: Level, choices: &mut Sequence) -> Result<(), String> {
        let drawn = Content::draw(choices, Size::Small);
        let key = drawn.key.unwrap_or_else(|| b"tea".to_vec());
        let number = (murmur2(&key) & 0x7fff_ffff) % topic.partitions();
        let content = Arc::new(Content { key: Some(key), ..drawn });
        let partition = topic.partition(number).map_err(|error| error.to_string())?;
        self.expect(&partition, vec![content.clone()]);
        let outcome = topic.append_with(record(&content), durability(level));
        if let Some(appended) = outcome.as_ref().ok().filter(|appended| appended.partition != number) {
            return Err(format!("a key of partition {number} went to {}", appended.partition));
        }
        let offsets = outcome.as_ref().ok().map(|appended| appended.offset..appended.offset + 1);
        self.settle(&partition, offsets, level == Level::Synced)?;
        outcome.map_or_else(|error| self.tolerate("appending by key", &error), |_| Ok(()))
    }

    fn append_at_end(
        &mut self,
        partition: &Partition,
        level: Level,
        stale: bool,
        choices: &mut Sequence,
    ) -> Result<(), String> {
        let content = Arc::new(Content::draw(choices, Size::Small));
        let end = partition.end_offset();
        if stale {
            let outcome = partition.append_if_with(end + 1, record(&content), durability(level));
            return match outcome {
                Ok(_) => Err(format!("an append at {} found the end {end}", end + 1)),
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
                Err(error) => self.tolerate("appending behind the end", &error),
            };
        }
        self.expect(partition, vec![content.clone()]);
        let outcome = partition.append_if_with(end, record(&content), durability(level));
        let offsets = outcome.as_ref().ok().map(|appended| appended.offset..appended.offset + 1);
        self.settle(partition, offsets, level == Level::Synced)?;
        outcome.map_or_else(|error| self.tolerate("appending at the end", &error), |_| Ok(()))
    }

    fn flush_partition(&mut self, partition: &Partition) -> Result<(), String> {
        if let Err(error) = partition.flush() {
            return self.tolerate("flushing a partition", &error);
        }
        let (topic, number) = (partition.topic(), partition.number());
        self.model(|model| model.partition_mut(topic, number).map(PartitionModel::flushed));
        Ok(())
    }

    fn append_batch(
        &mut self,
        topic: &Topic,
        level: Level,
        size: Size,
        records: u8,
        spread: bool,
        choices: &mut Sequence,
    ) -> Result<(), String> {
        let count = topic.partitions();
        let first = choices.below(count.into()) as u32;
        let drawn: Vec<(u32, Arc<Content>)> = (0..u32::from(records))
            .map(|at| (if spread { (first + at) % count } else { first }, Arc::new(Content::draw(choices, size))))
            .collect();
        let of = |number: u32| drawn.iter().filter(move |(to, _)| *to == number).map(|(_, content)| content.clone());
        let partitions = (0..count).filter(|number| of(*number).next().is_some());
        let partitions: Result<Vec<_>, _> = partitions.map(|number| topic.partition(number)).collect();
        let partitions = partitions.map_err(|error| error.to_string())?;
        partitions.iter().for_each(|partition| self.expect(partition, of(partition.number()).collect()));
        let batch = drawn.iter().map(|(number, content)| record(content).partition(*number));
        let outcome = topic.append_batch_with(batch, durability(level));
        let ranges: &[AppendedRange] = match &outcome {
            Ok(ranges) => ranges,
            Err(error) => error.appended(),
        };
        for partition in &partitions {
            let range = ranges.iter().find(|range| range.partition == partition.number());
            // Where it failed, what was told to have been appended needn't be on the device.
            let told = range.map(|range| range.offsets.clone()).filter(|_| outcome.is_ok());
            let synced = level == Level::Synced || outcome.is_err() && range.is_some();
            self.settle(partition, told, synced)?;
        }
        outcome.map_or_else(|error| self.tolerate("appending a batch", &error), |_| Ok(()))
    }

    fn append_if(
        &mut self,
        partition: &Partition,
        stale: bool,
        records: u8,
        choices: &mut Sequence,
    ) -> Result<(), String> {
        let drawn = (0..records).map(|_| Arc::new(Content::draw(choices, Size::Small)));
        let contents: Vec<_> = drawn.collect();
        let end = partition.end_offset();
        let expected = if stale { end + 1 + choices.below(3) } else { end };
        if !stale {
            self.expect(partition, contents.clone());
        }
        let outcome = partition.append_batch_if(expected, contents.iter().map(|content| record(content)));
        match &outcome {
            Ok(_) if stale => return Err(format!("an append at {expected} found the end {end}")),
            Err(error) if stale && error.kind() == ErrorKind::Conflict => return Ok(()),
            _ => {}
        }
        let offsets = outcome.as_ref().ok().map(|appended| appended.offsets.clone());
        if !stale {
            // By the options of the topic or the log it may be synced, and then a failure leaves it where it is.
            let failed = outcome.is_err();
            self.settle(partition, offsets, failed)?;
        }
        outcome.map_or_else(|error| self.tolerate("appending at the end", &error), |_| Ok(()))
    }

    fn settle_flush(&mut self, outcome: Result<(), Error>, topic: Option<&Topic>) -> Result<(), String> {
        if let Err(error) = outcome {
            return self.tolerate("flushing", &error);
        }
        self.model(|model| match topic {
            None => model.flushed(),
            Some(topic) => {
                let topic = model.topic_mut(topic.name()).into_iter();
                topic.flat_map(|topic| &mut topic.partitions).for_each(PartitionModel::flushed);
            }
        });
        Ok(())
    }

    fn wait_durable(&mut self, partition: &Partition, choices: &mut Sequence) -> Result<(), String> {
        let (topic, number) = (partition.topic().to_owned(), partition.number());
        let last = self.model(|model| model.partition(&topic, number)?.entries.last().map(|entry| entry.offset));
        let Some(last) = last else { return Ok(()) };
        let outcome = match choices.below(2) {
            0 => {
                let mut future = partition.durable(last);
                let mut context = Context::from_waker(Waker::noop());
                let _ = Pin::new(&mut future).poll(&mut context);
                self.log()?.step_flusher();
                match Pin::new(&mut future).poll(&mut context) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => return Err(format!("{topic}-{number}: a flush leaves {last} to be waited for")),
                }
            }
            _ => {
                let asked = partition.wait_durable(last, Duration::ZERO);
                self.log()?.step_flusher();
                let waited = asked.and_then(|_| partition.wait_durable(last, Duration::ZERO));
                match waited {
                    Ok(false) => return Err(format!("{topic}-{number}: a flush leaves {last} to be waited for")),
                    waited => waited.map(drop),
                }
            }
        };
        if let Err(error) = outcome {
            return self.tolerate("waiting for the device", &error);
        }
        self.model(|model| model.partition_mut(&topic, number).map(PartitionModel::flushed));
        Ok(())
    }

    fn delete_records(&mut self, partition: &Partition, choices: &mut Sequence) -> Result<(), String> {
        let (start, end) = (partition.start_offset(), partition.end_offset());
        let offset_of = |model: &PartitionModel, at: usize| model.entries.get(at).map_or(end, |entry| entry.offset);
        let (topic, number) = (partition.topic().to_owned(), partition.number());
        let before = self.model(|model| {
            let Some(model) = model.partition_mut(&topic, number) else { return end };
            let before = match choices.below(8) {
                0 => end + 1 + choices.below(100),
                1 => end,
                _ => offset_of(model, choices.below(model.entries.len() as u64 + 1) as usize),
            };
            if before <= end {
                model.start_limit = model.start_limit.max(before);
            }
            before
        });
        let outcome = partition.delete_records(before);
        let now = partition.start_offset();
        self.model(|model| match model.partition_mut(&topic, number) {
            Some(model) if outcome.is_ok() => model.started(now),
            _ => Ok(()),
        })?;
        match outcome {
            Ok(told) if told != now || now < before.max(start) => {
                Err(format!("{topic}-{number}: deleting up to {before} told {told}, and the log starts at {now}"))
            }
            Ok(_) => Ok(()),
            Err(error) if before > end && error.kind() == ErrorKind::OffsetOutOfRange => Ok(()),
            Err(error) => self.tolerate("deleting records", &error),
        }
    }

    /// Lets retention remove segments.
    pub(super) fn retain(&mut self, body: impl Fn(&Log) -> Result<(), Error>) -> Result<(), String> {
        let log = self.log()?;
        let now_ms = self.origin.now_ms.load(Ordering::Relaxed);
        let mut partitions = Vec::new();
        for topic in (0..super::plan::TOPICS).filter_map(|number| self.topic(number)) {
            let handles = (0..topic.partitions()).filter_map(|number| topic.partition(number).ok());
            partitions.extend(handles.map(|partition| (topic.config(), partition)));
        }
        self.model(|model| {
            for (config, partition) in &partitions {
                if let Some(model) = model.partition_mut(partition.topic(), partition.number()) {
                    let limit = retention_limit(model, config, partition, now_ms);
                    model.start_limit = model.start_limit.max(limit);
                }
            }
        });
        let outcome = body(&log);
        for (_, partition) in &partitions {
            let (start, failed) = (partition.start_offset(), outcome.is_err() || self.trouble.is_near());
            let place = (partition.topic().to_owned(), partition.number());
            self.model(|model| {
                let Some(model) = model.partition_mut(&place.0, place.1) else { return Ok(()) };
                let limit = model.start_limit;
                model.started(start).map_err(|what| format!("{}-{}: {what}", place.0, place.1))?;
                if failed {
                    model.start_limit = limit;
                }
                Ok::<(), String>(())
            })?;
        }
        outcome.map_or_else(|error| self.tolerate("retention", &error), |_| Ok(()))
    }
}

/// How far retention may raise the log start offset.
fn retention_limit(model: &PartitionModel, config: &TopicConfig, partition: &Partition, now_ms: i64) -> u64 {
    let (mut limit, end) = (model.start, partition.end_offset());
    if let Some(age_ms) = config.retention_ms {
        let fresh = |time_ms: i64| i128::from(now_ms) - i128::from(time_ms) <= i128::from(age_ms);
        let kept = model.entries.iter().find(|entry| entry.offset >= model.start && fresh(entry.earliest_ms));
        // Behind the last one a new segment begins, whose name has to be another.
        limit = limit.max(kept.map_or(end + 1, |entry| entry.offset));
    }
    if let Some(bytes) = config.retention_bytes {
        let bases = partition.log().segment_base_offsets();
        for (at, &base) in bases.iter().enumerate() {
            let kept = model.entries.iter().filter(|entry| entry.offset >= base);
            // More than a frame takes for itself.
            let sizes = kept.map(|entry| 256 + content_bytes(&entry.content));
            let left = (bases.len() - at) as u64 * DATA_START + sizes.sum::<u64>();
            if left >= bytes {
                limit = limit.max(base);
            }
        }
    }
    limit
}

fn content_bytes(content: &Content) -> u64 {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
    let headers = content.headers.iter().map(|(name, value)| 16 + name.len() as u64 + length(value));
    length(&content.key) + length(&content.value) + headers.sum::<u64>()
}
