//! A consumer's membership in its group: what it owns, committing, releasing, leaving.
//!
//! # Invariants
//! - What is committed is what the member owns, in the epoch in which it does; else nothing of it is (kind `Fenced`).
//! - Dropping leaves the group and never panics.
//!
//! # Thread safety
//! It belongs to one consumer; what is shared lies behind the groups' lock, or is an atomic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Groups, PartitionId, State,
    live::Pulse,
    membership::{Change, Committed},
    subscription::Subscription,
};
use crate::{
    config::Durability,
    error::{Error, Repr, Result},
    figures::{GroupFigures, Operation},
    partition::PartitionLog,
    waiter::Waiter,
};

/// Says where a group that is new to a partition begins.
pub(crate) type Begin<'a> = &'a dyn Fn(&Arc<PartitionLog>) -> Result<u64>;

/// What a consumer joins with.
pub(crate) struct Joining<'a> {
    pub(crate) group: &'a str,
    pub(crate) subscription: Subscription,
    /// The longest time between two polls; who takes longer is expelled.
    pub(crate) max_poll_interval: Duration,
    /// Where the consumer sleeps.
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) begin: Begin<'a>,
}

/// A consumer's membership. The consumer leaves the group when this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    groups: Arc<Groups>,
    group: Arc<str>,
    id: u64,
    subscription: Subscription,
    pulse: Arc<Pulse>,
    figures: GroupFigures,
}

/// What a member owns at some moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) generation: u64,
    /// In the order of topic ids and numbers.
    pub(crate) owned: Vec<Owned>,
}

/// A partition that a member owns.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) log: Arc<PartitionLog>,
    pub(crate) epoch: u64,
    /// Another member is to have it: the owner releases it when it next polls.
    pub(crate) is_revoked: bool,
    /// Where the group began, for as long as it has committed nothing.
    pub(crate) start: u64,
    pub(crate) committed: Option<u64>,
}

impl Groups {
    /// Makes the caller a member of the group, until the answer is dropped: dead members leave, the new one comes, and
    /// partitions are given out anew, all in one. What is free is the member's at once.
    ///
    /// Kinds `Closed`, those of `begin`, and those of appends; nothing has changed then.
    pub(crate) fn join(self: &Arc<Self>, joining: Joining<'_>) -> Result<Member> {
        // Which looks for members that don't poll.
        self.housekeeper.begin()?;
        let Joining { group, subscription, max_poll_interval, waiter, begin } = joining;
        let (group, pulse) = (Arc::from(group), Arc::new(Pulse::new(max_poll_interval, waiter)));
        // Looking for where to begin may take long, and isn't the consumer's time.
        pulse.enter_poll();
        let id = self.enter(&group, &subscription, &pulse, begin, None)?;
        pulse.leave_poll();
        let figures = self.partition.log_figures().group(&group);
        Ok(Member { groups: self.clone(), group, id, subscription, pulse, figures })
    }
}

impl Member {
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(crate) fn figures(&self) -> &GroupFigures {
        &self.figures
    }

    /// Counts an error that the consumer is told.
    pub(crate) fn count_error(&self, operation: Operation, error: &Error) {
        self.groups.partition.log_figures().error(operation, error);
    }

    /// A random number, another one after each [`rejoin`](Member::rejoin).
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Changes with what the members of the group own: to be read before [`view`](Member::view).
    pub(crate) fn version(&self) -> u64 {
        self.pulse.version()
    }

    /// What it owns; `None` if it is no member any more: it was expelled.
    pub(crate) fn view(&self) -> Option<View> {
        let topics = self.groups.topics_by_id();
        let state = self.groups.state.lock();
        state.live.get(&self.group)?.members.get(&self.id)?;
        let group = state.offsets.table().group(&self.group)?;
        let own = group.ownerships().filter(|(_, ownership)| ownership.owner == self.id);
        let owned = own.filter_map(|(place, ownership)| {
            // A topic that was deleted is being forgotten.
            let log = topics.get(&place.topic_id)?.partitions.get(place.partition)?.clone();
            let committed = group.committed(place);
            let is_revoked = ownership.next != 0;
            Some(Owned { log, epoch: ownership.epoch, is_revoked, start: ownership.start, committed })
        });
        Some(View { generation: group.generation(), owned: owned.collect() })
    }

    /// Whether it wasn't expelled.
    pub(crate) fn is_member(&self) -> bool {
        let state = self.groups.state.lock();
        state.live.get(&self.group).is_some_and(|live| live.members.contains_key(&self.id))
    }

    /// What the group has committed for the partition.
    pub(crate) fn committed(&self, place: PartitionId) -> Option<u64> {
        let state = self.groups.state.lock();
        state.offsets.table().group(&self.group)?.committed(place)
    }

    /// Commits: partition, epoch in which it is owned, offset; the last one for a partition counts. What is unchanged
    /// isn't appended. All or nothing as far as it fits a frame. `durability` overrides the log's.
    ///
    /// Kind `Fenced`, for one of them, and nothing is committed; those of appends.
    pub(crate) fn commit(
        &self,
        offsets: impl IntoIterator<Item = (PartitionId, u64, u64)>,
        durability: Option<Durability>,
    ) -> Result<()> {
        let partition = &self.groups.partition;
        let durability = durability.unwrap_or(partition.spec().settings.durability());
        let by_place = offsets.into_iter().map(|(place, epoch, offset)| (place, Committed { offset, epoch }));
        let by_place: BTreeMap<PartitionId, Committed> = by_place.collect();
        self.groups.change(|state| -> Result<()> {
            let changes = self.changed(state, by_place)?;
            let commits = !changes.is_empty();
            state.offsets.append(&self.group, changes, durability)?;
            if commits {
                self.figures.committed();
            }
            Ok(())
        })?;
        // Not under the lock: commits that wait for the device at the same time share one sync.
        if durability == Durability::Synced { partition.flush() } else { Ok(()) }
    }

    /// The commits that change something; kind `Fenced`.
    fn changed(&self, state: &State, offsets: BTreeMap<PartitionId, Committed>) -> Result<Vec<Change>> {
        let is_member = state.live.get(&self.group).is_some_and(|live| live.members.contains_key(&self.id));
        let group = state.offsets.table().group(&self.group).filter(|_| is_member);
        let mut changes = Vec::new();
        for (place, committed) in offsets {
            let Some(group) = group.filter(|group| group.may_commit(self.id, place, committed.epoch)) else {
                return Err(self.fenced(place));
            };
            if group.committed(place) != Some(committed.offset) {
                changes.push(Change::Commit(place, Some(committed)));
            }
        }
        Ok(changes)
    }

    fn fenced(&self, place: PartitionId) -> Error {
        let name = self.groups.topics_by_id().get(&place.topic_id).map(|topic| topic.name.to_string());
        // Of a topic that was deleted, nobody knows the name any more.
        let topic = name.unwrap_or_else(|| format!("{:032x}", place.topic_id));
        Repr::Fenced { group: self.group.to_string(), topic, partition: place.partition }.into()
    }

    /// Lets other members have the partitions that they are to have. Partitions that the member doesn't own, or that it
    /// may keep after all, stay as they are.
    pub(crate) fn release(&self, places: impl IntoIterator<Item = PartitionId>) -> Result<()> {
        self.groups.change(|state| {
            let Some(group) = state.offsets.table().group(&self.group) else { return Ok(()) };
            let (mut changes, mut next) = (Vec::new(), BTreeSet::new());
            for place in places {
                next.extend(group.ownership(place).map(|ownership| ownership.next));
                changes.extend(group.release(self.id, place));
            }
            let outcome = self.groups.append(state, &self.group, changes);
            // Also of what was released before it failed.
            self.groups.notify_some(state, &self.group, |id| next.contains(&id));
            outcome
        })
    }

    /// Becomes a member again after it was expelled; does nothing if it wasn't. Kinds as for [`Groups::join`].
    pub(crate) fn rejoin(&mut self, begin: Begin<'_>) -> Result<()> {
        if !self.is_member() {
            self.id = self.groups.enter(&self.group, &self.subscription, &self.pulse, begin, Some(self.id))?;
        }
        Ok(())
    }

    /// The time for which the answer lives doesn't count as time between polls.
    pub(crate) fn polling(&self) -> Polling {
        self.pulse.enter_poll();
        Polling { pulse: self.pulse.clone() }
    }

    /// Gives out partitions anew if topics came, went, or got more partitions that the group subscribes to. Any member
    /// will do: the first one that looks does it for all.
    pub(crate) fn follow_topics(&self) {
        self.groups.follow_topics(&self.group);
    }
}

/// A consumer polls for as long as this lives.
#[derive(Debug)]
pub(crate) struct Polling {
    pulse: Arc<Pulse>,
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.pulse.leave_poll();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.groups.leave(&self.group, self.id);
    }
}
