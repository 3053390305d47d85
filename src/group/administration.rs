//! Looking at groups from outside, and changing what they have committed.
//!
//! # Thread safety
//! Any thread may call anything.

use std::sync::Arc;

use super::{
    Groups, PartitionId, State,
    live::LiveGroup,
    membership::{Change, Committed, Group},
};
use crate::{
    config::Durability,
    error::{Repr, Result},
};

/// A group at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupDescription {
    pub(crate) generation: u64,
    /// Those that are alive, in the order of their ids.
    pub(crate) members: Vec<MemberDescription>,
    /// What the group has committed, in the order of partitions.
    pub(crate) committed: Vec<(PartitionId, u64)>,
    /// Where it began, in partitions that its members have had.
    pub(crate) starts: Vec<(PartitionId, u64)>,
}

/// A member at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberDescription {
    pub(crate) id: u64,
    /// Names and patterns.
    pub(crate) subscription: Vec<String>,
    /// What it owns.
    pub(crate) assignment: Vec<PartitionId>,
}

impl Groups {
    /// Names of all groups that have members or have ever had, or have committed, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state.lock().offsets.table().groups().map(|(name, _)| name.to_string()).collect()
    }

    /// Kind `UnknownGroup`.
    pub(crate) fn describe(&self, name: &str) -> Result<GroupDescription> {
        let state = self.state.lock();
        let group = known(&state, name)?;
        let members = state.live.get(name).into_iter().flat_map(|live| &live.members);
        let members = members.map(|(&id, member)| {
            let own = group.ownerships().filter(|(_, ownership)| ownership.owner == id);
            MemberDescription {
                id,
                subscription: member.subscription.names().iter().map(|name| name.to_string()).collect(),
                assignment: own.map(|(place, _)| place).collect(),
            }
        });
        let starts = group.ownerships().map(|(place, ownership)| (place, ownership.start));
        Ok(GroupDescription {
            generation: group.generation(),
            members: members.collect(),
            committed: group.commits().collect(),
            starts: starts.collect(),
        })
    }

    /// Sets what a group has committed; other partitions stay as they are. Kinds `UnknownGroup`, `GroupInUse`, those of
    /// appends.
    pub(crate) fn reset(&self, name: &str, offsets: &[(PartitionId, u64)]) -> Result<()> {
        self.administer(|state| {
            let group = unused(state, name)?;
            let changed = offsets.iter().filter(|(place, offset)| group.committed(*place) != Some(*offset));
            // In the epoch of the last owner: so it counts, and none of an owner before does.
            let commit = |&(place, offset): &(PartitionId, u64)| {
                Change::Commit(place, Some(Committed { offset, epoch: group.epoch(place) }))
            };
            let changes = changed.map(commit).collect();
            self.append(state, name, changes)
        })
    }

    /// Forgets a group. Kinds `UnknownGroup`, `GroupInUse`, those of appends.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.administer(|state| {
            unused(state, name)?;
            self.append(state, name, vec![Change::Generation(None)])?;
            if let Some(live) = state.live.get_mut(name) {
                // Generations begin anew, for consumers that were expelled and come back; and what couldn't be recorded
                // of the group needn't be any more.
                live.since = 0;
                live.expelled.clear();
                live.is_unsettled = false;
                if live.is_over() {
                    state.live.remove(name);
                }
            }
            Ok(())
        })
    }

    /// Forgets what groups have committed and owned of a topic that was deleted. Wakes nobody: who sleeps was woken by the
    /// deletion, and whoever deletes holds a lock. Durable when this returns: nobody would do it again.
    pub(crate) fn forget_topic(&self, topic_id: u128) -> Result<()> {
        self.change(|state| -> Result<()> {
            let names: Vec<Arc<str>> = state.offsets.table().groups().map(|(name, _)| name.clone()).collect();
            for name in names {
                let Some(group) = state.offsets.table().group(&name) else { continue };
                let changes: Vec<Change> = of_topic(group, topic_id).collect();
                self.append(state, &name, changes)?;
                for member in state.live.get(&name).into_iter().flat_map(|live| live.members.values()) {
                    member.pulse.renew();
                }
            }
            Ok(())
        })?;
        self.partition.flush()
    }

    /// Makes a change with the log's durability.
    fn administer(&self, change: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        self.change(change)?;
        // Not under the lock.
        match self.partition.spec().settings.durability() {
            Durability::Synced => self.partition.flush(),
            _ => Ok(()),
        }
    }
}

/// Kind `UnknownGroup`.
fn known<'a>(state: &'a State, name: &str) -> Result<&'a Group> {
    state.offsets.table().group(name).ok_or_else(|| Repr::UnknownGroup { group: name.into() }.into())
}

/// A group without members; kinds `UnknownGroup`, `GroupInUse`.
fn unused<'a>(state: &'a State, name: &str) -> Result<&'a Group> {
    let has_members = |live: &LiveGroup| !live.members.is_empty();
    if state.live.get(name).is_some_and(has_members) {
        return Err(Repr::GroupInUse { group: name.into() }.into());
    }
    known(state, name)
}

/// The records that forget a topic.
fn of_topic(group: &Group, topic_id: u128) -> impl Iterator<Item = Change> {
    let commits = group.commits().map(|(place, _)| (place, Change::Commit(place, None)));
    let ownerships = group.ownerships().map(|(place, _)| (place, Change::Ownership(place, None)));
    commits.chain(ownerships).filter(move |(place, _)| place.topic_id == topic_id).map(|(_, change)| change)
}
