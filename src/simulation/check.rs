//! What a log that was opened is held against: everything that the crate promises, by the model of what was done.
//!
//! The answer is the model of what was found. It is what must hold from then on: what a crash may have taken or left is
//! decided now.
//!
//! # Thread safety
//! Plain functions.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    model::{Entry, GroupModel, GroupsModel, Loss, Model, NameModel, PartitionModel, Table, TopicModel},
    plan::Content,
};
use crate::{
    config::{Start, TopicConfig},
    error::ErrorKind,
    log::Log,
    partition::{Opening, RecoveryEvent},
    record::RecordRef,
    report::Finding,
    topic::{Partition, Topic},
    verification::VerifyFinding,
};

/// What is expected of an open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) loss: Loss,
    /// The log was closed without an error.
    pub(crate) clean: bool,
    /// A file operation failed since the log was opened the time before.
    pub(crate) troubled: bool,
    /// One failed, or may have, while it was opened: some of it may be poisoned.
    pub(crate) troubled_open: bool,
}

/// A record as it was found.
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) append_ms: i64,
    pub(crate) content: Content,
}

impl Found {
    fn of(record: &RecordRef<'_>) -> Self {
        let headers = record.headers();
        let content = Content {
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            headers: headers.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
            client_ms: record.client_timestamp_ms(),
        };
        Self { offset: record.offset(), append_ms: record.append_time_ms(), content }
    }
}

/// Whether a record is what was appended.
pub(crate) fn is_same(record: &RecordRef<'_>, content: &Content) -> bool {
    record.key() == content.key.as_deref()
        && record.value() == content.value.as_deref()
        && record.client_timestamp_ms() == content.client_ms
        && record.headers().eq(content.headers.iter().map(|(name, value)| (&**name, value.as_deref())))
}

/// Holds an open log against the model; answers the model of what was found.
pub(crate) fn check(log: &Log, model: &Model, expected: Expected) -> Result<Model, String> {
    check_report(log, expected)?;
    let mut found = Model { incarnations: model.incarnations, ..Model::default() };
    for name in log.topics() {
        let topic = log.topic(&name).map_err(|error| format!("topic {name:?} is listed but {error}"))?;
        let (was, default) = (model.names.get(&name), NameModel::default());
        let checked = check_topic(&topic, was.unwrap_or(&default), expected).map_err(|why| format!("{name}: {why}"))?;
        found.names.insert(name, NameModel { topic: Some(checked), alternatives: Vec::new() });
    }
    for (name, was) in model.names.iter().filter(|(name, _)| !found.names.contains_key(*name)) {
        let may_be_gone = was.topic.is_none() || alternatives(was, expected.loss).any(|topic| topic.is_none());
        if !may_be_gone {
            return Err(format!("topic {name:?} is gone"));
        }
    }
    found.groups = check_groups(log, model, &found, expected.loss)?;
    found.was_cut = model.was_cut || expected.loss == Loss::Unflushed;
    check_files(log, &found, expected)?;
    if !expected.troubled && !expected.troubled_open {
        check_verified(log, &found)?;
    }
    Ok(found)
}

/// What opening tells of. Nothing was damaged, so no damage may be told.
fn check_report(log: &Log, expected: Expected) -> Result<(), String> {
    for partition in log.recovery().partitions() {
        let (topic, number) = (partition.topic(), partition.partition());
        for event in partition.events() {
            let fits = match event {
                RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_) => !expected.clean,
                // Whether a sync that a killed process had begun would have failed isn't known.
                RecoveryEvent::Rewritten { .. } => !expected.clean || expected.troubled_open,
                RecoveryEvent::StillPoisoned { .. } | RecoveryEvent::UncutTail { .. } => expected.troubled_open,
                // Written by half, and the process ended before it wrote the other one.
                RecoveryEvent::CheckpointSlotLost { .. } => expected.troubled || expected.troubled_open,
                _ => false,
            };
            if !fits {
                return Err(format!("{topic}-{number}: recovery tells: {event}"));
            }
        }
        if expected.clean && !expected.troubled_open && partition.opening() != Opening::Clean {
            return Err(format!("{topic}-{number}: it was closed, and is {:?} now", partition.opening()));
        }
    }
    for finding in log.recovery().findings() {
        let fits = match finding {
            Finding::DeletionFinished { .. } => !expected.clean || expected.troubled,
            // What is left of a creation stays until the next one.
            Finding::OrphanedFolder { .. } => true,
            Finding::DeletionUnfinished { .. } => expected.troubled_open,
            _ => false,
        };
        if !fits {
            return Err(format!("recovery tells: {finding}"));
        }
    }
    Ok(())
}

/// Nothing was damaged, so verifying finds nothing. But what is left of a creation stays until the next one, and what a
/// power cut leaves of an index, until that is made anew.
pub(super) fn check_verified(log: &Log, model: &Model) -> Result<(), String> {
    let report = log.verify().map_err(|error| format!("verifying: {error}"))?;
    let is_fine = |finding: &VerifyFinding| match finding {
        VerifyFinding::OrphanedFolder { .. } => true,
        VerifyFinding::Index { .. } => model.was_cut,
        _ => false,
    };
    match report.findings().iter().find(|finding| !is_fine(finding)) {
        Some(finding) => Err(format!("verifying finds: {finding}")),
        None if !report.is_complete() => Err("verifying didn't look at everything".into()),
        None => Ok(()),
    }
}

/// What may be there of a name in place of what is.
fn alternatives(name: &NameModel, loss: Loss) -> impl Iterator<Item = Option<&TopicModel>> {
    let fitting = name.alternatives.iter().filter(move |it| it.after_kill || loss == Loss::Unflushed);
    fitting.map(|alternative| alternative.topic.as_ref())
}

/// Holds a topic against what may be there of its name. The one that is expected first is the one that is told of.
fn check_topic(topic: &Topic, name: &NameModel, expected: Expected) -> Result<TopicModel, String> {
    let mut first = None;
    for candidate in name.topic.iter().chain(alternatives(name, expected.loss).flatten()) {
        match check_candidate(topic, candidate, expected) {
            Ok(found) => return Ok(found),
            Err(why) => drop(first.get_or_insert(why)),
        }
    }
    Err(first.unwrap_or_else(|| "the topic wasn't there".into()))
}

fn check_candidate(topic: &Topic, model: &TopicModel, expected: Expected) -> Result<TopicModel, String> {
    let count = topic.partitions() as usize;
    if count < model.partitions.len() || count > model.partition_limit {
        return Err(format!("{count} partitions of {}", model.partitions.len()));
    }
    let config = topic.config();
    if !model.configs.iter().any(|possible| is_same_config(possible, &config)) {
        return Err(format!("its options are {config:?}, not one of {:?}", model.configs));
    }
    let new = PartitionModel::default();
    let mut partitions = Vec::with_capacity(count);
    for number in 0..count {
        let partition = topic.partition(number as u32).map_err(|error| error.to_string())?;
        let was = model.partitions.get(number).unwrap_or(&new);
        let checked = check_partition(&partition, was, expected).map_err(|why| format!("partition {number}: {why}"))?;
        partitions.push(checked);
    }
    Ok(TopicModel { incarnation: model.incarnation, configs: vec![config], partitions, partition_limit: count })
}

/// Whether options are the same, the number of partitions apart.
fn is_same_config(one: &TopicConfig, other: &TopicConfig) -> bool {
    let same = TopicConfig { partitions: one.partitions(), ..other.clone() };
    *one == same
}

/// All records of a partition, from its start on.
pub(super) fn read_all(partition: &Partition) -> Result<Vec<Found>, String> {
    let failed = |error: crate::error::Error| format!("reading: {error}");
    let mut reader = partition.reader(Start::Earliest).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().map_err(failed)? {
        found.extend(batch.iter().map(|record| Found::of(&record)));
    }
    Ok(found)
}

fn check_partition(
    partition: &Partition,
    model: &PartitionModel,
    expected: Expected,
) -> Result<PartitionModel, String> {
    let (start, end) = (partition.start_offset(), partition.end_offset());
    if start < model.start || start > model.start_limit.max(model.start) {
        return Err(format!("the log starts at {start}, where {} to {} is possible", model.start, model.start_limit));
    }
    let found = read_all(partition)?;
    let visible = model.entries.partition_point(|entry| entry.offset < start);
    let there = found.iter().zip(&model.entries[visible..]);
    let same = there.take_while(|(found, entry)| found.offset == entry.offset && found.content == *entry.content);
    let kept = same.count();
    let (rest, lost) = (&found[kept..], model.entries.len() - visible - kept);
    let mut entries: Vec<Entry> = model.entries[visible..visible + kept].to_vec();
    if lost > 0 {
        check_lost(model, visible + kept, rest, expected)?;
    }
    let appended = if lost == 0 { check_possible(model, rest, expected)? } else { None };
    let frame = entries.last().map_or(0, |last| last.frame + 1);
    entries.extend(rest.iter().zip(appended.into_iter().flatten()).map(|(found, content)| Entry {
        offset: found.offset,
        frame,
        content: content.clone(),
        earliest_ms: found.append_ms,
    }));
    check_times(&mut entries, &found)?;
    let given = entries.last().map_or(0, |last| last.offset + 1).max(model.given);
    if end < given {
        return Err(format!("the log ends at {end}, and offsets below {given} were given out"));
    }
    let durable = partition.durable_offset();
    let required = entries.partition_point(|entry| entry.offset < durable);
    if required < entries.len() && !expected.troubled_open {
        return Err(format!("what was recovered isn't durable: up to {durable} of {end}"));
    }
    check_lookups(partition, &entries, start)?;
    check_time_lookups(partition, &found)?;
    let epoch = model.epoch;
    Ok(PartitionModel { entries, required, start, start_limit: start, given, epoch, ..PartitionModel::default() })
}

/// Whether a suffix may be lost, from the entry at `lost` on.
fn check_lost(model: &PartitionModel, lost: usize, rest: &[Found], expected: Expected) -> Result<(), String> {
    let entry = &model.entries[lost];
    let offset = entry.offset;
    if let Some(other) = rest.first() {
        return Err(match other.offset == offset {
            true => format!("another record is at offset {offset}"),
            false => format!("in place of the record at offset {offset} there is one at {}", other.offset),
        });
    }
    if expected.loss == Loss::Nothing {
        return Err(format!("records from offset {offset} on are lost"));
    }
    if lost < model.required {
        let durable = model.entries[model.required - 1].offset;
        return Err(format!("records from offset {offset} on are lost, those up to {durable} were on the device"));
    }
    if lost > 0 && model.entries[lost - 1].frame == entry.frame && model.entries[lost - 1].offset >= model.start {
        return Err(format!("a batch is torn at offset {offset}"));
    }
    Ok(())
}

/// What lies behind all that is known must be one of the frames that are possible, whole.
fn check_possible<'a>(
    model: &'a PartitionModel,
    rest: &[Found],
    expected: Expected,
) -> Result<Option<&'a [Arc<Content>]>, String> {
    let Some(first) = rest.first() else {
        let last = model.possible.last();
        let required = expected.loss == Loss::Nothing && model.is_published || model.is_possible_required;
        return match last.filter(|_| required) {
            Some(last) => Err(format!("what was appended behind offset {} could be read, and is lost", last.from)),
            None => Ok(None),
        };
    };
    let fits = |contents: &[Arc<Content>]| {
        contents.len() == rest.len() && rest.iter().zip(contents).all(|(found, content)| found.content == **content)
    };
    let adjacent = rest.windows(2).all(|pair| pair[0].offset + 1 == pair[1].offset);
    let possible = model.possible.iter().find(|it| fits(&it.contents) && adjacent && first.offset >= it.from);
    match possible {
        Some(possible) => Ok(Some(&possible.contents)),
        None => Err(format!("{} records from offset {} on are nobody's", rest.len(), first.offset)),
    }
}

/// The log's own times don't fall, and don't lie before the appends. From now on they are known.
fn check_times(entries: &mut [Entry], found: &[Found]) -> Result<(), String> {
    let mut last = i64::MIN;
    for (entry, found) in entries.iter_mut().zip(found) {
        if found.append_ms < entry.earliest_ms.max(last) {
            let (offset, time) = (found.offset, found.append_ms);
            return Err(format!("the time of offset {offset} is {time}, behind {}", entry.earliest_ms.max(last)));
        }
        last = found.append_ms;
        entry.earliest_ms = last;
    }
    Ok(())
}

/// Records are found by offset, and nothing before the start is.
fn check_lookups(partition: &Partition, entries: &[Entry], start: u64) -> Result<(), String> {
    if let Some(entry) = entries.get(entries.len() / 2) {
        let mut records = partition.read_from(entry.offset).map_err(|error| error.to_string())?;
        let first = records.next().transpose().map_err(|error| error.to_string())?;
        if first.as_ref().map(|record| record.offset()) != Some(entry.offset) {
            let found = first.map(|record| record.offset());
            return Err(format!("looking up offset {} finds {found:?}", entry.offset));
        }
    }
    match start.checked_sub(1).map(|before| partition.read_from(before)) {
        Some(Ok(_)) => Err(format!("reading before the log start offset {start} is no error")),
        Some(Err(error)) if error.kind() != ErrorKind::OffsetOutOfRange => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// By a time the same record is found as in a plain walk.
fn check_time_lookups(partition: &Partition, found: &[Found]) -> Result<(), String> {
    let time_of = |found: &Found| found.content.client_ms.unwrap_or(found.append_ms);
    let greatest = found.iter().map(time_of).max().unwrap_or(0);
    let asked = found.get(found.len() / 2).map(time_of).into_iter();
    for time_ms in asked.chain([greatest, greatest.saturating_add(1)]) {
        let expected = found.iter().find(|found| time_of(found) >= time_ms).map(|found| found.offset);
        let told = partition.offset_for_time(time_ms).map_err(|error| error.to_string())?;
        let mut records = partition.read_from_time(time_ms).map_err(|error| error.to_string())?;
        let read = records.next().transpose().map_err(|error| error.to_string())?.map(|record| record.offset());
        if told != expected || read != expected {
            return Err(format!("for time {time_ms}, {told:?} is told and {read:?} read, not {expected:?}"));
        }
    }
    Ok(())
}

/// What an open has to leave in the files, so that nothing of an earlier process comes back behind a later crash: zeros
/// behind the end, and an epoch above that of all frames that such a process may have stored.
fn check_files(log: &Log, model: &Model, expected: Expected) -> Result<(), String> {
    for recovered in log.recovery().partitions() {
        let (topic, number) = (recovered.topic(), recovered.partition());
        let Some(was) = model.partition(topic, number) else { continue };
        let partition = log.topic(topic).and_then(|topic| topic.partition(number));
        let partition = partition.map_err(|error| error.to_string())?;
        // One that was closed was cut by nobody since.
        let least = was.epoch + u32::from(recovered.opening() != Opening::Clean);
        let epoch = partition.log().epoch();
        // Where that couldn't be written, nothing is appended either.
        if epoch < least && !expected.troubled_open {
            return Err(format!("{topic}-{number}: frames get epoch {epoch}, and earlier ones may have {}", was.epoch));
        }
        let dirt = partition.log().dirt_behind_end().map_err(|error| error.to_string())?;
        if let Some(position) = dirt.filter(|_| !expected.troubled_open) {
            return Err(format!("{topic}-{number}: behind the end, at {position}, lies something else than zeros"));
        }
    }
    Ok(())
}

/// What a log says of its groups, in the terms of the topics that `model` has.
pub(crate) fn groups_of(log: &Log, model: &Model) -> Result<Table, String> {
    let mut table = Table::new();
    for name in log.groups() {
        let described = log.describe_group(&name).map_err(|error| error.to_string())?;
        let mut group = GroupModel { generation: described.generation, commits: BTreeMap::new() };
        for commit in described.committed {
            let place = model.place(&commit.topic, commit.partition);
            let place = place.ok_or_else(|| format!("group {name:?} has committed for {:?}", commit.topic))?;
            group.commits.insert(place, commit.offset);
        }
        table.insert(name, group);
    }
    Ok(table)
}

/// The first of the tables that is what was found.
pub(crate) fn matching<'a>(found: &Table, tables: &'a [Table], model: &Model) -> Option<&'a Table> {
    let is_there = |(topic, incarnation, _): &(String, u64, u32)| {
        model.topic(topic).is_some_and(|topic| topic.incarnation == *incarnation)
    };
    tables.iter().find(|table| {
        table.len() == found.len()
            && table.iter().zip(found).all(|((name, group), (found_name, found))| {
                let commits = group.commits.iter().filter(|(place, _)| is_there(place));
                name == found_name && group.generation <= found.generation && commits.eq(&found.commits)
            })
    })
}

fn check_groups(log: &Log, model: &Model, found_model: &Model, loss: Loss) -> Result<GroupsModel, String> {
    let found = groups_of(log, found_model)?;
    let tables = model.groups.possible_tables(loss);
    if matching(&found, &tables, found_model).is_none() {
        return Err(format!("groups are {found:?}, none of {tables:?}"));
    }
    for name in found.keys() {
        let members = log.describe_group(name).map_err(|error| error.to_string())?.members;
        if !members.is_empty() {
            return Err(format!("group {name:?} has members of a process that is dead"));
        }
    }
    Ok(GroupsModel::found(found))
}
