//! What a consumer is made of: its partitions, and what is done with them.
//!
//! # Invariants
//! - Partitions are sorted by topic and number; they come and go at any time, whole topics or single ones. Each is the
//!   member's, or was until a moment ago.
//! - Positions move only by reading, by who asks for it, and by a policy that says so; then it is told.
//! - Nothing is committed that wasn't returned by a `poll` before the one that runs, but by who asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{
    auto_commit::AutoCommit, rebalance::Callback, subscription::Subscription, waker::Signal, watching::Watching,
};
use crate::{
    config::{Durability, Start},
    error::{ErrorKind, Repr, Result},
    figures::Operation,
    group::{Member, PartitionId},
    housekeeper::{Chore, Housekeeper},
    partition::{Batch, PartitionLog},
    reader::{Bounds, Place, Policies, Turns},
    record::RecordRef,
    topics::Topics,
    waiter::remaining,
};

/// A consumer without its handles: what is to be had while the consumer itself is in use.
pub(crate) struct Core {
    // Declared, and so dropped, first: whoever leaves watches nothing any more.
    pub(super) watching: Option<Watching>,
    pub(super) member: Member,
    pub(super) topics: Arc<Topics>,
    pub(super) housekeeper: Arc<Housekeeper>,
    pub(super) subscription: Subscription,
    /// The versions of the topics, and of what members own, that `assigned` goes by.
    pub(super) seen_topics: u64,
    pub(super) seen_group: u64,
    pub(super) generation: u64,
    pub(super) assigned: Vec<Assigned>,
    /// By topic: numbers of partitions that were assigned once and aren't any more.
    pub(super) lost: BTreeMap<Box<str>, BTreeSet<u32>>,
    /// The names of topics that were ever assigned, by their place in memory: that tells a topic from one of the same
    /// name that was there before.
    pub(super) topics_had: BTreeMap<usize, Arc<str>>,
    pub(super) on_rebalance: Option<Callback>,
    pub(super) turns: Turns,
    pub(super) signal: Arc<Signal>,
    pub(super) bounds: Bounds,
    pub(super) policies: Policies,
    pub(super) start_if_new: Start,
    pub(super) auto_commit: Option<AutoCommit>,
}

/// A partition that the consumer reads.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(super) place: Place,
    /// In which the member owns it.
    pub(super) epoch: u64,
    /// Where the group begins in it, as long as nothing was committed.
    pub(super) start: u64,
    /// Whether the callback was told of it.
    pub(super) is_announced: bool,
}

impl Assigned {
    pub(super) fn id(&self) -> PartitionId {
        PartitionId::of(self.partition())
    }

    /// What orders them.
    fn key(&self) -> (&str, u32) {
        (self.topic(), self.number())
    }

    pub(super) fn topic(&self) -> &str {
        &self.partition().spec().topic
    }

    pub(super) fn number(&self) -> u32 {
        self.partition().spec().number
    }

    pub(super) fn partition(&self) -> &Arc<PartitionLog> {
        self.place.partition()
    }
}

impl AsMut<Place> for Assigned {
    fn as_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

/// What came of one look.
pub(super) struct Polled {
    pub(super) batch: Batch,
    /// By [`ConsumerWaker`](super::ConsumerWaker).
    pub(super) woken: bool,
}

impl Polled {
    /// Whether there is something to return for.
    pub(super) fn is_something(&self) -> bool {
        self.woken || !self.batch.is_empty() || !self.batch.skipped().is_empty()
    }
}

impl Core {
    /// Does what is due, and reads what is there.
    pub(super) fn poll_now(&mut self) -> Result<Polled> {
        self.watching = None; // left over by a future that was forgotten
        self.check_open()?;
        self.follow()?;
        self.auto_commit_if_due()?;
        if self.signal.take_wake() {
            return Ok(Polled { batch: Batch::default(), woken: true });
        }
        let batch = match self.turns.read(&mut self.assigned, self.bounds, self.policies) {
            // Deleted just now: the next look at the topics finds it gone, and tells.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Batch::default(),
            read => read?,
        };
        if !batch.is_empty() || !batch.skipped().is_empty() {
            self.positions_moved();
        }
        Ok(Polled { batch, woken: false })
    }

    /// Counts what a poll has returned.
    pub(super) fn count_poll(&self, batch: &Result<Batch>) {
        self.member.figures().polled();
        if let Err(error) = batch {
            self.member.count_error(Operation::Poll, error);
        }
    }

    /// Counts what a commit was told, if it is an error.
    fn count_commit(&self, outcome: Result<()>) -> Result<()> {
        outcome.inspect_err(|error| self.member.count_error(Operation::Commit, error))
    }

    /// Whether [`poll_now`](Core::poll_now) would find something. Looked at by who is about to sleep.
    pub(super) fn has_work(&self) -> bool {
        self.topics.changes().is_closed()
            || self.signal.is_woken()
            || self.has_moved()
            || self.turns.has_error()
            || self.auto_commit_due().is_some_and(|due| due <= Instant::now())
            || self.assigned.iter().any(|assigned| !assigned.place.is_paused() && !assigned.place.at_end())
    }

    /// Sleeps until there is work, or the time is over.
    pub(super) fn sleep(&mut self, deadline: Option<Instant>) {
        let waiter = self.signal.waiter.clone();
        // Before looking, so that what is published in between isn't missed (see `waiter`).
        let mut ticket = waiter.ticket();
        let _watching = Watching::new(self);
        while !self.has_work() {
            let time = remaining(deadline);
            if time.is_zero() {
                return;
            }
            let due = self.auto_commit_due().map(|due| due.saturating_duration_since(Instant::now()));
            waiter.wait(ticket, due.map_or(time, |due| due.min(time)));
            ticket = waiter.ticket();
        }
    }

    /// Has a sleeping task woken when a commit is due: there is no thread that sleeps here.
    pub(super) fn set_alarm(&mut self) {
        let Some(due) = self.auto_commit_due() else { return };
        if let Some(auto_commit) = self.auto_commit.as_mut().filter(|auto_commit| auto_commit.needs_alarm(due)) {
            auto_commit.alarm = Some(due);
            let signal: Arc<dyn Chore> = self.signal.clone();
            self.housekeeper.schedule(Arc::downgrade(&signal), due);
        }
    }

    /// Adds partitions, which aren't among the others.
    pub(super) fn assign(&mut self, partitions: Vec<Assigned>) {
        if !partitions.is_empty() {
            // Nobody else has a record any more of a topic whose name is held here alone.
            self.topics_had.retain(|_, name| Arc::strong_count(name) > 1);
            let names = partitions.iter().map(|assigned| &assigned.partition().spec().topic);
            self.topics_had.extend(names.map(|name| (place_of(name), name.clone())));
            self.assigned.extend(partitions);
            self.assigned.sort_by(|one, other| one.key().cmp(&other.key()));
        }
    }

    /// Takes partitions out, and answers them.
    pub(super) fn unassign(&mut self, mut gone: impl FnMut(&Assigned) -> bool) -> Vec<Assigned> {
        let (gone, kept) = std::mem::take(&mut self.assigned).into_iter().partition(|assigned| gone(assigned));
        self.assigned = kept;
        if !Vec::is_empty(&gone) {
            // It may be one of theirs.
            self.turns.forget_error();
        }
        gone
    }

    pub(super) fn is_assigned(&self, partition: &Arc<PartitionLog>) -> bool {
        let spec = partition.spec();
        self.find(&spec.topic, spec.number).is_some_and(|at| Arc::ptr_eq(self.assigned[at].partition(), partition))
    }

    /// Where a partition stands in the list.
    fn find(&self, topic: &str, partition: u32) -> Option<usize> {
        self.assigned.binary_search_by(|assigned| assigned.key().cmp(&(topic, partition))).ok()
    }

    /// Where a partition stands in the list; kind `NotAssigned`.
    pub(super) fn index(&self, topic: &str, partition: u32) -> Result<usize> {
        self.find(topic, partition).ok_or_else(|| Repr::NotAssigned { topic: topic.into(), partition }.into())
    }

    /// As [`index`](Core::index), for a commit; kind `Fenced` if it was in the list once.
    fn index_to_commit(&self, topic: &str, partition: u32) -> Result<usize> {
        self.index(topic, partition).map_err(|error| match self.lost.get(topic) {
            Some(numbers) if numbers.contains(&partition) => {
                Repr::Fenced { group: self.member.group().to_string(), topic: topic.into(), partition }.into()
            }
            _ => error,
        })
    }

    /// Where a restart would resume.
    pub(super) fn restart_offset(&self, assigned: &Assigned) -> u64 {
        self.restart_offset_of(assigned.partition(), self.committed(assigned), assigned.start)
    }

    /// The same, of a partition of which that is known.
    pub(super) fn restart_offset_of(&self, partition: &PartitionLog, committed: Option<u64>, start: u64) -> u64 {
        match (committed, self.start_if_new) {
            (Some(committed), _) => committed,
            // What is the earliest may have changed; but another consumer may have let the group begin later.
            (None, Start::Earliest) => start.max(partition.start_offset()),
            (None, _) => start,
        }
    }

    /// What the group has committed.
    pub(super) fn committed(&self, assigned: &Assigned) -> Option<u64> {
        self.member.committed(assigned.id())
    }

    /// Commits all positions.
    pub(super) fn commit_positions(&mut self, durability: Option<Durability>) -> Result<()> {
        self.commit_positions_of(|_| true, durability)?;
        self.positions_committed();
        Ok(())
    }

    /// Commits positions, all or none.
    pub(super) fn commit_positions_of(
        &self,
        which: impl Fn(&Assigned) -> bool,
        durability: Option<Durability>,
    ) -> Result<()> {
        self.count_commit(self.try_commit_positions(which, durability))
    }

    fn try_commit_positions(&self, which: impl Fn(&Assigned) -> bool, durability: Option<Durability>) -> Result<()> {
        self.check_open()?;
        // One that lies outside the log is what was committed before; it isn't worth committing again. Nor is one in a
        // topic that was deleted, which the next poll finds.
        let is_worth = |assigned: &&Assigned| {
            assigned.place.is_inside() && assigned.partition().check_exists().is_ok() && which(assigned)
        };
        let positions = self.assigned.iter().filter(is_worth);
        let offsets = positions.map(|assigned| (assigned.id(), assigned.epoch, assigned.place.position()));
        self.member.commit(offsets, durability)
    }

    /// Commits given offsets, all or none.
    pub(super) fn commit_offsets<T: AsRef<str>>(
        &mut self,
        offsets: impl IntoIterator<Item = (T, u32, u64)>,
    ) -> Result<()> {
        self.count_commit(self.try_commit_offsets(offsets))
    }

    /// Kind `UnknownTopic` for a record of a topic that was deleted: one of that name may be another.
    pub(super) fn check_topic(&self, record: &RecordRef<'_>) -> Result<()> {
        let name = record.topic_name();
        let assigned = self.find(record.topic(), record.partition()).map(|at| self.assigned[at].partition());
        if assigned.is_some_and(|assigned| Arc::ptr_eq(&assigned.spec().topic, name)) {
            return Ok(());
        }
        let is_of_now = || self.topics.get(name).is_ok_and(|topic| Arc::ptr_eq(&topic.name, name));
        if self.topics_had.contains_key(&place_of(name)) && !is_of_now() {
            return Err(Repr::UnknownTopic { topic: record.topic().into() }.into());
        }
        Ok(())
    }

    fn try_commit_offsets<T: AsRef<str>>(&self, offsets: impl IntoIterator<Item = (T, u32, u64)>) -> Result<()> {
        self.check_open()?;
        let mut checked = Vec::new();
        for (topic, partition, offset) in offsets {
            let assigned = &self.assigned[self.index_to_commit(topic.as_ref(), partition)?];
            let log = assigned.partition();
            log.check_exists()?;
            let end = log.settled_end_offset();
            // One before the log start offset is fine: retention may have been faster than the group.
            if offset > end {
                let valid = log.start_offset()..end;
                return Err(Repr::OffsetOutOfRange { topic: topic.as_ref().into(), partition, offset, valid }.into());
            }
            checked.push((assigned.id(), assigned.epoch, offset));
        }
        self.member.commit(checked, None)
    }

    /// Kind `Closed`.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.topics.changes().is_closed() { Err(Repr::Closed.into()) } else { Ok(()) }
    }
}

/// What tells a name from another one with the same text, as long as somebody holds it.
fn place_of(name: &Arc<str>) -> usize {
    Arc::as_ptr(name).cast::<u8>().addr()
}
