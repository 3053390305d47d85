//! What must hold: plain lists and tables of what was done to a log, and of what may have been done.
//!
//! # Invariants
//! - What an operation may do is noted before it begins, as a *possibility*; once it has ended, the possibility is what
//!   is, or is not, or stays one where the operation failed. So at every moment the model tells what a crash may leave.
//! - A partition is a list of records. What a crash takes is a suffix of it; never more than what isn't known to be on
//!   the device, and of a process that is killed nothing.
//! - What groups are and have committed is a list of changes: a crash takes a suffix of that list too.
//!
//! # Thread safety
//! Plain values.

use std::{collections::BTreeMap, sync::Arc};

use super::plan::Content;
use crate::{config::TopicConfig, partition::PartitionLog};

/// How much a crash takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// The process was killed, or closed its log: nothing.
    Nothing,
    /// The power was cut: what isn't on the device.
    Unflushed,
}

/// A record that is there.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// Records with the same number were appended as one frame: all of them survive, or none.
    pub(crate) frame: u64,
    pub(crate) content: Arc<Content>,
    /// It was appended then, or later by the log's own time.
    pub(crate) earliest_ms: i64,
}

/// Records of one frame that may be there, behind all others.
#[derive(Debug, Clone)]
pub(crate) struct Possible {
    pub(crate) contents: Vec<Arc<Content>>,
    pub(crate) earliest_ms: i64,
    /// The log end offset before.
    pub(crate) from: u64,
}

/// One partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionModel {
    pub(crate) entries: Vec<Entry>,
    /// So many of them are on the device.
    pub(crate) required: usize,
    /// The log start offset; and how far it may have come.
    pub(crate) start: u64,
    pub(crate) start_limit: u64,
    pub(crate) possible: Vec<Possible>,
    /// Offsets below were given out: no other record ever gets them.
    pub(crate) given: u64,
    /// The frame that was attempted last can be read already: a process that is killed has it.
    pub(crate) is_published: bool,
    /// And it is on the device already.
    pub(crate) is_possible_required: bool,
    /// The epoch of the process that attempted it.
    pub(crate) epoch: u32,
}

impl PartitionModel {
    /// Takes in what a partition that is open says of itself.
    pub(crate) fn note(&mut self, log: &PartitionLog) {
        let durable = log.durable_offset();
        let on_device = self.entries.partition_point(|entry| entry.offset < durable);
        self.required = self.required.max(on_device);
        if let Some(published) = self.published(log) {
            self.is_published = true;
            self.is_possible_required |= durable >= published;
            self.given = self.given.max(published);
        }
    }

    /// Where the log ends behind the frame that was attempted last, if that can be read.
    pub(crate) fn published(&self, log: &PartitionLog) -> Option<u64> {
        let possible = self.possible.last()?;
        // A new segment that follows an empty one moves the end without a record.
        let base = log.segment_base_offsets().last().copied().unwrap_or(0).max(possible.from);
        let end = log.end_offset();
        (end >= base + possible.contents.len() as u64).then_some(end)
    }

    /// The frame that was attempted last is there.
    pub(crate) fn accept(&mut self, offsets: std::ops::Range<u64>) -> Result<(), String> {
        let Some(possible) = self.possible.pop() else { return Err("nothing was appended".into()) };
        // What is published already was given to this very frame.
        let given =
            self.entries.last().map_or(0, |last| last.offset + 1).max(if self.is_published { 0 } else { self.given });
        if offsets.start < possible.from.max(given) || offsets.end - offsets.start != possible.contents.len() as u64 {
            return Err(format!("offsets {offsets:?} were given out behind {given} (end {})", possible.from));
        }
        let frame = self.entries.last().map_or(0, |last| last.frame + 1);
        let Possible { contents, earliest_ms, .. } = possible;
        let earliest_ms = self.entries.last().map_or(earliest_ms, |last| last.earliest_ms.max(earliest_ms));
        let numbered = offsets.clone().zip(contents);
        self.entries.extend(numbered.map(|(offset, content)| Entry { offset, frame, content, earliest_ms }));
        self.given = self.given.max(offsets.end);
        (self.is_published, self.is_possible_required) = (false, false);
        // What may have been left behind the end by an append that failed is overwritten by now.
        self.possible.clear();
        Ok(())
    }

    /// Everything is on the device.
    pub(crate) fn flushed(&mut self) {
        self.required = self.entries.len();
    }

    /// The log start offset is this now.
    pub(crate) fn started(&mut self, start: u64) -> Result<(), String> {
        if start < self.start || start > self.start_limit.max(self.start) {
            let (least, most) = (self.start, self.start_limit);
            return Err(format!("the log start offset is {start}, where {least} to {most} was possible"));
        }
        (self.start, self.start_limit) = (start, start);
        Ok(())
    }
}

/// One topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicModel {
    /// Topics of one name are told apart by it.
    pub(crate) incarnation: u64,
    /// The options that it may have; those it has first. The number of partitions is told elsewhere.
    pub(crate) configs: Vec<TopicConfig>,
    pub(crate) partitions: Vec<PartitionModel>,
    /// There may be so many.
    pub(crate) partition_limit: usize,
}

/// What may be there of a name in place of what is.
#[derive(Debug, Clone)]
pub(crate) struct Alternative {
    pub(crate) topic: Option<TopicModel>,
    /// Not only after a power cut.
    pub(crate) after_kill: bool,
}

/// What is there of a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameModel {
    pub(crate) topic: Option<TopicModel>,
    pub(crate) alternatives: Vec<Alternative>,
}

/// A partition, as groups know it: topic, its incarnation, number.
pub(crate) type Place = (String, u64, u32);

/// What is known of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupModel {
    pub(crate) generation: u64,
    pub(crate) commits: BTreeMap<Place, u64>,
}

/// Groups by name.
pub(crate) type Table = BTreeMap<String, GroupModel>;

/// Something that happened to a group.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// It is there, in this generation at least.
    Seen {
        group: String,
        generation: u64,
    },
    Commit {
        group: String,
        offsets: Vec<(Place, u64)>,
    },
    Delete {
        group: String,
    },
}

impl Change {
    pub(crate) fn apply(&self, table: &mut Table) {
        match self {
            Self::Seen { group, generation } => {
                let group = table.entry(group.clone()).or_default();
                group.generation = group.generation.max(*generation);
            }
            Self::Commit { group, offsets } => {
                table.entry(group.clone()).or_default().commits.extend(offsets.iter().cloned());
            }
            Self::Delete { group } => drop(table.remove(group)),
        }
    }
}

/// All groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupsModel {
    /// What is on the device.
    durable: Table,
    /// What came since, oldest first.
    changes: Vec<Change>,
    /// What may have come behind all that.
    pub(crate) possible: Option<Change>,
}

impl GroupsModel {
    /// What is there.
    pub(crate) fn table(&self) -> Table {
        let mut table = self.durable.clone();
        self.changes.iter().for_each(|change| change.apply(&mut table));
        table
    }

    /// What may be there after a crash, the latest first.
    pub(crate) fn possible_tables(&self, loss: Loss) -> Vec<Table> {
        let mut tables = vec![self.durable.clone()];
        for change in self.changes.iter().chain(&self.possible) {
            let mut next = tables.last().cloned().unwrap_or_default();
            change.apply(&mut next);
            tables.push(next);
        }
        if loss == Loss::Nothing {
            tables.drain(..self.changes.len());
        }
        tables.reverse();
        tables
    }

    /// A change was made.
    pub(crate) fn add(&mut self, change: Change) {
        self.changes.push(change);
        self.possible = None;
    }

    /// Everything is on the device.
    pub(crate) fn flushed(&mut self) {
        self.durable = self.table();
        self.changes.clear();
    }

    /// This is what was found, and what is on the device.
    pub(crate) fn found(table: Table) -> Self {
        Self { durable: table, changes: Vec::new(), possible: None }
    }
}

/// A whole log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) names: BTreeMap<String, NameModel>,
    pub(crate) groups: GroupsModel,
    pub(crate) incarnations: u64,
    /// The power was cut once: what is no promise of anybody's, such as an index, needn't be whole.
    pub(crate) was_cut: bool,
}

impl Model {
    pub(crate) fn topic(&self, name: &str) -> Option<&TopicModel> {
        self.names.get(name)?.topic.as_ref()
    }

    pub(crate) fn topic_mut(&mut self, name: &str) -> Option<&mut TopicModel> {
        self.names.get_mut(name)?.topic.as_mut()
    }

    pub(crate) fn partition(&self, name: &str, number: u32) -> Option<&PartitionModel> {
        self.topic(name)?.partitions.get(number as usize)
    }

    pub(crate) fn partition_mut(&mut self, name: &str, number: u32) -> Option<&mut PartitionModel> {
        self.topic_mut(name)?.partitions.get_mut(number as usize)
    }

    pub(crate) fn partitions_mut(&mut self) -> impl Iterator<Item = &mut PartitionModel> {
        self.names.values_mut().filter_map(|name| name.topic.as_mut()).flat_map(|topic| &mut topic.partitions)
    }

    pub(crate) fn name_mut(&mut self, name: &str) -> &mut NameModel {
        self.names.entry(name.to_owned()).or_default()
    }

    /// A topic that nobody has had before.
    pub(crate) fn new_topic(&mut self, config: TopicConfig) -> TopicModel {
        self.incarnations += 1;
        let count = config.partitions() as usize;
        TopicModel {
            incarnation: self.incarnations,
            configs: vec![config],
            partitions: vec![PartitionModel::default(); count],
            partition_limit: count,
        }
    }

    /// The place, if there is such a partition.
    pub(crate) fn place(&self, topic: &str, number: u32) -> Option<Place> {
        Some((topic.to_owned(), self.topic(topic)?.incarnation, number))
    }

    /// Everything is on the device.
    pub(crate) fn flushed(&mut self) {
        self.partitions_mut().for_each(PartitionModel::flushed);
        self.groups.flushed();
    }
}
