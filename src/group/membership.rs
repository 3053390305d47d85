//! The state of groups, as it is folded from the records of `__offsets`; and the records that a rebalance appends.
//!
//! # Invariants
//! - What is applied in the same order gives the same state, wherever that is done. So whoever appends applies what was
//!   appended, no more and no less, and is where a later open will be.
//! - A partition has at most one owner in a group. Its epoch grows with each new owner, and never falls.
//! - A commit with an epoch older than the partition's changes nothing: it comes from an owner that is none any more.
//! - A rebalance takes no partition from an owner that is alive: it names the next one, and the owner releases it.
//!
//! # Thread safety
//! Plain values; no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{PartitionId, assignor, subscription::Subscription};

/// What a group has committed for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset that the group wants.
    pub(crate) offset: u64,
    /// That of the partition's ownership when it was committed.
    pub(crate) epoch: u64,
}

/// What is recorded of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberInfo {
    /// The random number of the opening of the log that it belongs to.
    pub(crate) process: u64,
    pub(crate) subscription: Subscription,
}

/// Whose a partition is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// The group's generation when this was written.
    pub(crate) generation: u64,
    /// Grows with each owner. The first one's is 1.
    pub(crate) epoch: u64,
    /// A member, or 0.
    pub(crate) owner: u64,
    /// The member that gets it once the owner releases it, or 0.
    pub(crate) next: u64,
    /// Where the group began in the partition.
    pub(crate) start: u64,
}

/// A change of a group's state: what a record says. `None`: it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Commit(PartitionId, Option<Committed>),
    /// `None`: the member left.
    Member(u64, Option<MemberInfo>),
    /// `None`: the whole group is forgotten.
    Generation(Option<u64>),
    Ownership(PartitionId, Option<Ownership>),
}

/// All groups by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    groups: BTreeMap<Arc<str>, Group>,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// That of the latest rebalance; 0 if there was none.
    generation: u64,
    members: BTreeMap<u64, MemberInfo>,
    ownerships: BTreeMap<PartitionId, Ownership>,
    commits: BTreeMap<PartitionId, Committed>,
}

/// Who is alive, and what there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Situation {
    /// With the topics that each subscribes to. Other members are dead.
    pub(crate) members: BTreeMap<u64, BTreeSet<u128>>,
    /// With their number of partitions.
    pub(crate) topics: BTreeMap<u128, u32>,
}

impl Table {
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// In the order of names.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &Group)> {
        self.groups.iter()
    }

    /// Applies a record. A group of which nothing is left is gone.
    pub(crate) fn apply(&mut self, name: &str, change: Change) {
        match (self.groups.get_mut(name), change) {
            (_, Change::Generation(None)) => {
                self.groups.remove(name);
            }
            (Some(group), change) => {
                group.apply(change);
                if *group == Group::default() {
                    self.groups.remove(name);
                }
            }
            (None, change) => {
                let mut group = Group::default();
                group.apply(change);
                if group != Group::default() {
                    self.groups.insert(name.into(), group);
                }
            }
        }
    }

    /// Takes in an entry of a snapshot: the group was so, whatever would have changed it.
    pub(crate) fn restore(&mut self, name: &str, entry: Change) {
        if !self.groups.contains_key(name) {
            self.groups.insert(name.into(), Group::default());
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.restore(entry);
            if *group == Group::default() {
                self.groups.remove(name);
            }
        }
    }

    /// The entries of a snapshot.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, Change)> {
        self.groups.iter().flat_map(|(name, group)| group.entries().map(move |entry| (name, entry)))
    }
}

impl Group {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn member(&self, id: u64) -> Option<&MemberInfo> {
        self.members.get(&id)
    }

    pub(crate) fn ownership(&self, place: PartitionId) -> Option<&Ownership> {
        self.ownerships.get(&place)
    }

    pub(crate) fn ownerships(&self) -> impl Iterator<Item = (PartitionId, &Ownership)> {
        self.ownerships.iter().map(|(place, ownership)| (*place, ownership))
    }

    pub(crate) fn committed(&self, place: PartitionId) -> Option<u64> {
        self.commits.get(&place).map(|committed| committed.offset)
    }

    pub(crate) fn commits(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        self.commits.iter().map(|(place, committed)| (*place, committed.offset))
    }

    /// Whether the group has had partitions of the topic.
    pub(crate) fn knows_topic(&self, topic_id: u128) -> bool {
        let all = PartitionId { topic_id, partition: 0 }..=PartitionId { topic_id, partition: u32::MAX };
        self.ownerships.range(all).next().is_some()
    }

    /// Whether the member may commit for the partition: it owns it, and in that epoch.
    pub(crate) fn may_commit(&self, member: u64, place: PartitionId, epoch: u64) -> bool {
        self.ownership(place).is_some_and(|ownership| ownership.owner == member && ownership.epoch == epoch)
    }

    /// The epoch of whoever owns the partition now; 0 if nobody ever has.
    pub(crate) fn epoch(&self, place: PartitionId) -> u64 {
        self.ownership(place).map_or(0, |ownership| ownership.epoch)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Commit(place, Some(committed)) => {
                if committed.epoch >= self.epoch(place) {
                    self.commits.insert(place, committed);
                }
            }
            Change::Commit(place, None) => {
                self.commits.remove(&place);
            }
            Change::Member(id, Some(member)) => {
                self.members.insert(id, member);
            }
            Change::Member(id, None) => self.remove_member(id),
            Change::Generation(Some(generation)) => self.generation = self.generation.max(generation),
            Change::Generation(None) => *self = Self::default(),
            Change::Ownership(place, Some(ownership)) => {
                if ownership.epoch >= self.epoch(place) {
                    self.ownerships.insert(place, ownership);
                }
            }
            Change::Ownership(place, None) => {
                self.ownerships.remove(&place);
            }
        }
    }

    /// What it had is nobody's, and goes to nobody.
    fn remove_member(&mut self, id: u64) {
        self.members.remove(&id);
        for ownership in self.ownerships.values_mut() {
            for of in [&mut ownership.owner, &mut ownership.next] {
                if *of == id {
                    *of = 0;
                }
            }
        }
    }

    fn restore(&mut self, entry: Change) {
        match entry {
            Change::Commit(place, Some(committed)) => drop(self.commits.insert(place, committed)),
            Change::Ownership(place, Some(ownership)) => drop(self.ownerships.insert(place, ownership)),
            other => self.apply(other),
        }
    }

    fn entries(&self) -> impl Iterator<Item = Change> {
        let generation = (self.generation > 0).then_some(Change::Generation(Some(self.generation)));
        let members = self.members.iter().map(|(&id, member)| Change::Member(id, Some(member.clone())));
        let ownerships = self.ownerships.iter().map(|(&place, &value)| Change::Ownership(place, Some(value)));
        let commits = self.commits.iter().map(|(&place, &value)| Change::Commit(place, Some(value)));
        generation.into_iter().chain(members).chain(ownerships).chain(commits)
    }

    /// The records of a rebalance: members that are dead leave, `joiner` comes, a new generation begins, and partitions
    /// go where the assignor says: at once those that nobody has, others once they are released.
    ///
    /// `start` says where the group begins in a partition that gets an owner; it is given what there was.
    pub(crate) fn rebalance(
        &self,
        situation: &Situation,
        joiner: Option<(u64, MemberInfo)>,
        mut start: impl FnMut(PartitionId, Option<&Ownership>) -> u64,
    ) -> Vec<Change> {
        let is_alive = |id: &u64| situation.members.contains_key(id);
        let dead = self.members.keys().filter(|id| !is_alive(id));
        let mut changes: Vec<Change> = dead.map(|&id| Change::Member(id, None)).collect();
        changes.extend(joiner.map(|(id, member)| Change::Member(id, Some(member))));
        let generation = self.generation.saturating_add(1);
        changes.push(Change::Generation(Some(generation)));

        let target = self.target(situation);
        for (&place, &member) in &target {
            let before = self.ownership(place);
            let owner = before.map(|ownership| ownership.owner).filter(is_alive);
            let after = match (before, owner) {
                (Some(before), Some(owner)) => {
                    let next = if owner == member { 0 } else { member };
                    // Whoever was to get it and is dead is gone by the record above.
                    if before.next == next { continue } else { Ownership { generation, next, ..*before } }
                }
                (before, _) => Ownership {
                    generation,
                    epoch: before.map_or(0, |before| before.epoch).saturating_add(1),
                    owner: member,
                    next: 0,
                    start: start(place, before),
                },
            };
            changes.push(Change::Ownership(place, Some(after)));
        }
        changes.extend(self.given_up(situation, &target, generation));
        changes
    }

    /// Who should have what. A partition whose owner is gone counts as that of the member to which it was on its way.
    pub(crate) fn target(&self, situation: &Situation) -> BTreeMap<PartitionId, u64> {
        let mut owners = BTreeMap::new();
        for (&place, ownership) in &self.ownerships {
            let holders = [ownership.owner, ownership.next];
            if let Some(&holder) = holders.iter().find(|id| situation.members.contains_key(id)) {
                owners.insert(place, holder);
            }
        }
        assignor::assign(&situation.members, &situation.topics, &owners)
    }

    /// Partitions that have an owner and are wanted by nobody: those of topics that are gone.
    fn given_up(
        &self,
        situation: &Situation,
        target: &BTreeMap<PartitionId, u64>,
        generation: u64,
    ) -> impl Iterator<Item = Change> {
        let is_owned = |ownership: &Ownership| situation.members.contains_key(&ownership.owner);
        let unwanted =
            self.ownerships.iter().filter(move |(place, value)| is_owned(value) && !target.contains_key(place));
        unwanted.map(move |(&place, ownership)| {
            let epoch = ownership.epoch.saturating_add(1);
            Change::Ownership(place, Some(Ownership { generation, epoch, owner: 0, next: 0, ..*ownership }))
        })
    }

    /// The record by which a member releases a partition; `None` if it isn't asked to.
    pub(crate) fn release(&self, member: u64, place: PartitionId) -> Option<Change> {
        let ownership = self.ownership(place).filter(|value| value.owner == member && value.next != 0)?;
        let after = Ownership {
            generation: self.generation,
            epoch: ownership.epoch.saturating_add(1),
            owner: ownership.next,
            next: 0,
            start: ownership.start,
        };
        Some(Change::Ownership(place, Some(after)))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
