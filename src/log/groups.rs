//! Administration of groups: which there are, how far they are, and setting them back or forward.

use std::{collections::BTreeMap, sync::Arc};

use super::Log;
use crate::{
    config::Start,
    consumer::{Lag, PartitionLag},
    error::Result,
    group::{GroupDescription as Described, PartitionId},
    name::check_name,
    partition::PartitionLog,
    reader::resolve,
    topic::TopicState,
};

/// What there is to know of a group: from [`Log::describe_group`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Grows with each rebalance.
    pub generation: u64,
    /// The consumers that are alive.
    pub members: Vec<MemberDescription>,
    /// What was committed, by topic and partition.
    pub committed: Vec<CommittedOffset>,
}

/// A consumer in its group: in [`GroupDescription::members`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// A random number.
    pub id: u64,
    /// The names and patterns of topics that it reads.
    pub subscription: Vec<String>,
    /// The partitions that it has: topic and number, in order.
    pub assignment: Vec<(String, u32)>,
}

/// What a group has committed for a partition.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The next offset that the group wants.
    pub offset: u64,
}

/// Where [`Log::reset_offsets`] sets a group. Whatever it says, the offset lies between the log start offset and the log
/// end offset then.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reset {
    /// To the log start offset: everything that is there comes again.
    Earliest,
    /// To the log end offset: nothing comes but what is appended from now on.
    Latest,
    /// To this offset, in each partition.
    Offset(u64),
    /// To the first record whose [`timestamp_ms`](crate::RecordRef::timestamp_ms) is at or behind this time, in
    /// milliseconds since the Unix epoch; to the log end offset where there is none.
    Time(i64),
    /// By so many offsets back from what was committed; from where the group began, if nothing was.
    Back(u64),
}

impl Log {
    /// The names of all groups, in order: those that have consumers, ever had any, or have committed, and weren't deleted
    /// since.
    pub fn groups(&self) -> Vec<String> {
        self.shared.groups.names()
    }

    /// Describes a group, as it is now: its members, and what it has committed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # log.create_topic("orders", TopicConfig::with_partitions(4))?.append(Record::new("tea"))?;
    /// # let mut consumer = log.consumer("billing").topic("orders").open()?;
    /// # consumer.poll(Duration::ZERO)?;
    /// # consumer.commit()?;
    /// for name in log.groups() {
    ///     let group = log.describe_group(&name)?;
    ///     println!("{name}: {} members, {} records behind", group.members.len(), log.lag(&name)?.total);
    ///     for commit in &group.committed {
    ///         println!("  {}-{}: {}", commit.topic, commit.partition, commit.offset);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UnknownGroup`](crate::ErrorKind::UnknownGroup), [`InvalidName`](crate::ErrorKind::InvalidName),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn describe_group(&self, name: &str) -> Result<GroupDescription> {
        self.check_open()?;
        check_name("group", name)?;
        let found = self.shared.groups.describe(name)?;
        let topics = self.topics_by_id();
        let place_of = |place: &PartitionId| Some((topics.get(&place.topic_id)?.name.to_string(), place.partition));
        let members = found.members.iter().map(|member| {
            let mut assignment: Vec<_> = member.assignment.iter().filter_map(place_of).collect();
            assignment.sort_unstable();
            MemberDescription { id: member.id, subscription: member.subscription.clone(), assignment }
        });
        let committed = found.committed.iter().filter_map(|&(place, offset)| {
            // A topic that is gone is about to be forgotten.
            let (topic, partition) = place_of(&place)?;
            Some(CommittedOffset { topic, partition, offset })
        });
        let mut committed: Vec<_> = committed.collect();
        committed.sort_unstable_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        Ok(GroupDescription { name: name.into(), generation: found.generation, members: members.collect(), committed })
    }

    /// How far a group is behind, by what it has committed, whether it has consumers or not: in all partitions of the
    /// topics that it reads or has ever committed to, by topic and partition.
    ///
    /// Where it has committed nothing, it is the records from where it began; in partitions that it hasn't seen yet, all.
    ///
    /// # Errors
    /// [`UnknownGroup`](crate::ErrorKind::UnknownGroup), [`InvalidName`](crate::ErrorKind::InvalidName),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn lag(&self, group: &str) -> Result<Lag> {
        self.check_open()?;
        check_name("group", group)?;
        let described = self.shared.groups.describe(group)?;
        Ok(Lag::of(lag_of(described, &self.shared.topics.select(|_| true))))
    }

    /// Sets what a group has committed for all partitions of a topic, and answers it. Its consumers go on there when
    /// they are opened again; there must be none now. Either all partitions are set or, on an error, none.
    ///
    /// What lies outside the log is set to its nearer end, as Kafka's tool does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidelog::{Log, Record, Reset, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// # orders.append_batch((0..100).map(|i| Record::new(format!("order {i}"))))?;
    /// let mut billing = log.consumer("billing").topic("orders").open()?;
    /// assert_eq!(billing.poll(Duration::ZERO)?.len(), 100);
    /// billing.commit()?;
    /// billing.close()?;
    /// // The last ten have to be billed again.
    /// assert_eq!(log.reset_offsets("billing", "orders", Reset::Back(10))?[0].offset, 90);
    /// let mut billing = log.consumer("billing").topic("orders").open()?;
    /// assert_eq!(billing.poll(Duration::ZERO)?.len(), 10);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`GroupInUse`](crate::ErrorKind::GroupInUse): it has consumers.
    /// - [`UnknownGroup`](crate::ErrorKind::UnknownGroup), [`UnknownTopic`](crate::ErrorKind::UnknownTopic),
    ///   [`InvalidName`](crate::ErrorKind::InvalidName), [`Closed`](crate::ErrorKind::Closed).
    /// - With [`Reset::Time`], what finding the records by their time may answer.
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`Poisoned`](crate::ErrorKind::Poisoned).
    pub fn reset_offsets(&self, group: &str, topic: &str, to: Reset) -> Result<Vec<CommittedOffset>> {
        self.check_open()?;
        check_name("group", group)?;
        let topic = self.shared.topics.get(topic)?;
        self.reset(group, topic.partitions.iter(), to)
    }

    /// As [`reset_offsets`](Log::reset_offsets), for some of the partitions. The others stay as they are.
    ///
    /// # Errors
    /// Those of `reset_offsets`, and [`UnknownPartition`](crate::ErrorKind::UnknownPartition).
    pub fn reset_partition_offsets(
        &self,
        group: &str,
        topic: &str,
        partitions: impl IntoIterator<Item = u32>,
        to: Reset,
    ) -> Result<Vec<CommittedOffset>> {
        self.check_open()?;
        check_name("group", group)?;
        let topic = self.shared.topics.get(topic)?;
        let partitions = partitions.into_iter().map(|number| topic.partition(number)).collect::<Result<Vec<_>>>()?;
        self.reset(group, partitions, to)
    }

    fn reset<'a>(
        &self,
        group: &str,
        partitions: impl IntoIterator<Item = &'a Arc<PartitionLog>>,
        to: Reset,
    ) -> Result<Vec<CommittedOffset>> {
        let known = Known::of(self.shared.groups.describe(group)?);
        let mut offsets = BTreeMap::new();
        for partition in partitions {
            let place = PartitionId::of(partition);
            offsets.insert(place, (partition, known.reset(partition, to)?));
        }
        let places: Vec<_> = offsets.iter().map(|(&place, &(_, offset))| (place, offset)).collect();
        self.shared.groups.reset(group, &places)?;
        for (partition, _) in offsets.values() {
            // Deleted in between: nobody would forget it any more.
            if let Err(deleted) = partition.check_exists() {
                self.shared.forget_topic(partition.spec().topic_id)?;
                return Err(deleted);
            }
        }
        let told = offsets.into_values().map(|(partition, offset)| {
            let spec = partition.spec();
            CommittedOffset { topic: spec.topic.to_string(), partition: spec.number, offset }
        });
        Ok(told.collect())
    }

    /// Forgets a group, with all that it has committed. A consumer of its name that is opened later begins as one of a
    /// new group.
    ///
    /// # Errors
    /// - [`GroupInUse`](crate::ErrorKind::GroupInUse): it has consumers.
    /// - [`UnknownGroup`](crate::ErrorKind::UnknownGroup), [`InvalidName`](crate::ErrorKind::InvalidName),
    ///   [`Closed`](crate::ErrorKind::Closed).
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`Poisoned`](crate::ErrorKind::Poisoned).
    pub fn delete_group(&self, name: &str) -> Result<()> {
        self.check_open()?;
        check_name("group", name)?;
        self.shared.groups.delete(name)
    }

    fn topics_by_id(&self) -> BTreeMap<u128, Arc<TopicState>> {
        self.shared.topics.select(|_| true).into_iter().map(|topic| (topic.id, topic)).collect()
    }
}

/// How far a group is behind, by topic and partition. `topics` are all of them, in order of their names.
pub(super) fn lag_of(group: Described, topics: &[Arc<TopicState>]) -> Vec<PartitionLag> {
    let known = Known::of(group);
    let topics = topics.iter().filter(|topic| known.has_topic(topic.id));
    let partitions = topics.flat_map(|topic| topic.partitions.iter());
    let lags = partitions.map(|partition| {
        let place = PartitionId::of(partition);
        let start = known.starts.get(&place).copied().unwrap_or_else(|| partition.start_offset());
        PartitionLag::of(partition, known.committed.get(&place).copied(), start)
    });
    lags.collect()
}

/// What a group has said of partitions.
struct Known {
    committed: BTreeMap<PartitionId, u64>,
    /// Where it began.
    starts: BTreeMap<PartitionId, u64>,
}

impl Known {
    fn of(group: Described) -> Self {
        Self { committed: group.committed.into_iter().collect(), starts: group.starts.into_iter().collect() }
    }

    fn has_topic(&self, topic_id: u128) -> bool {
        self.committed.keys().chain(self.starts.keys()).any(|place| place.topic_id == topic_id)
    }

    /// Where `to` is in a partition, within what that holds.
    fn reset(&self, partition: &Arc<PartitionLog>, to: Reset) -> Result<u64> {
        let place = PartitionId::of(partition);
        let offset = match to {
            Reset::Earliest => 0,
            Reset::Latest => u64::MAX,
            Reset::Offset(offset) => offset,
            Reset::Time(time_ms) => resolve(partition, Start::Time(time_ms))?,
            Reset::Back(count) => {
                let current = self.committed.get(&place).or(self.starts.get(&place));
                current.map_or(0, |current| current.saturating_sub(count))
            }
        };
        Ok(offset.min(partition.settled_end_offset()).max(partition.start_offset()))
    }
}
