//! Coming, going, and giving out partitions anew.
//!
//! # Invariants
//! - A rebalance is one batch of records: all of it is appended, or none as far as it fits a frame. Where only a part
//!   was, the group is *unsettled*, and the housekeeper tries again.
//! - Where a group begins in a partition is asked of who joins, and only where the group hasn't been in its life: the
//!   time in which there is always a consumer.
//!
//! # Thread safety
//! Decisions are made under the groups' lock; looking for where a group begins, which may read files, isn't.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    Groups, PartitionId, State,
    live::{LiveGroup, LiveMember, Pulse},
    member::Begin,
    membership::{Change, Group, MemberInfo, Ownership, Situation},
    random_id,
    subscription::Subscription,
};
use crate::{
    error::{Error, Repr, Result},
    housekeeper::{Chore, Housekeeper},
    partition::PartitionLog,
    topic::TopicState,
};

/// After what time a rebalance that couldn't be appended is tried again.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });

/// Who joins.
struct Joiner<'a> {
    id: u64,
    subscription: &'a Subscription,
    /// Where the group begins, as far as that was looked for.
    starts: &'a BTreeMap<PartitionId, u64>,
}

/// Why there was no rebalance.
enum Halt {
    /// It isn't known where the group is to begin in these.
    UnknownStarts(Vec<Arc<PartitionLog>>),
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Groups {
    /// Adds a member to a group; answers its id. `before`: the id that its consumer had when it was expelled; `None` if
    /// the consumer is new.
    pub(super) fn enter(
        self: &Arc<Self>,
        group: &Arc<str>,
        subscription: &Subscription,
        pulse: &Arc<Pulse>,
        begin: Begin<'_>,
        before: Option<u64>,
    ) -> Result<u64> {
        let mut starts = BTreeMap::new();
        loop {
            let joiner = Joiner { id: random_id()?, subscription, starts: &starts };
            match self.change(|state| self.try_enter(state, group, &joiner, pulse, before)) {
                Ok(()) => return Ok(joiner.id),
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::UnknownStarts(partitions)) => {
                    for partition in partitions {
                        starts.insert(PartitionId::of(&partition), begin(&partition)?);
                    }
                }
            }
        }
    }

    fn try_enter(
        self: &Arc<Self>,
        state: &mut State,
        group: &Arc<str>,
        joiner: &Joiner<'_>,
        pulse: &Arc<Pulse>,
        before: Option<u64>,
    ) -> Result<(), Halt> {
        if state.closed {
            return Err(Halt::Failed(Repr::Closed.into()));
        }
        let generation = state.offsets.table().group(group).map_or(0, |group| group.generation());
        let live = state.live.entry(group.clone()).or_default();
        if live.consumers == 0 {
            live.since = generation + 1;
        }
        let outcome = self.rebalance(state, group, Some(joiner));
        let is_recorded = state.offsets.table().group(group).is_some_and(|group| group.member(joiner.id).is_some());
        if let Some(live) = state.live.get_mut(group) {
            if outcome.is_ok() {
                match before {
                    Some(id) => drop(live.expelled.remove(&id)),
                    None => live.consumers += 1,
                }
                let subscription = joiner.subscription.clone();
                live.members.insert(joiner.id, LiveMember { subscription, pulse: pulse.clone() });
            }
            // A part of the batch was appended: the joiner is dead, and what it was given goes to others.
            live.is_unsettled |= outcome.is_err() && is_recorded;
        }
        if is_recorded {
            self.notify(state, group);
        }
        self.tidy(state, group);
        outcome
    }

    /// Takes a member, if it still is one, and its consumer out of a group.
    pub(super) fn leave(self: &Arc<Self>, group: &Arc<str>, id: u64) {
        self.change(|state| {
            let Some(live) = state.live.get_mut(group) else { return };
            live.consumers = live.consumers.saturating_sub(1);
            live.expelled.remove(&id);
            let was_member = live.members.remove(&id).is_some();
            if was_member {
                self.settle(state, group);
                self.notify(state, group);
            }
            self.tidy(state, group);
        });
    }

    /// Gives out partitions anew after a member is gone; what fails is tried again later.
    fn settle(&self, state: &mut State, group: &Arc<str>) {
        let failed = !state.closed && self.rebalance(state, group, None).is_err();
        if let Some(live) = state.live.get_mut(group) {
            live.is_unsettled = failed;
        }
    }

    /// Forgets a group without consumers, and has the housekeeper look when it is due.
    fn tidy(self: &Arc<Self>, state: &mut State, group: &Arc<str>) {
        if state.live.get(group).is_some_and(LiveGroup::is_over) {
            state.live.remove(group);
        }
        self.schedule_check(state);
    }

    /// Has all members look at what they own.
    pub(super) fn notify(&self, state: &mut State, group: &Arc<str>) {
        self.notify_some(state, group, |_| true);
    }

    /// Has some members look at what they own.
    pub(super) fn notify_some(&self, state: &mut State, group: &Arc<str>, which: impl Fn(u64) -> bool) {
        let members = state.live.get(group).into_iter().flat_map(|live| &live.members);
        for (_, member) in members.filter(|(id, _)| which(**id)) {
            member.pulse.renew();
            state.to_wake.push(member.pulse.clone());
        }
    }

    /// Appends records of a group with the log's durability.
    pub(super) fn append(&self, state: &mut State, group: &str, changes: Vec<Change>) -> Result<()> {
        state.offsets.append(group, changes, self.partition.spec().settings.durability())
    }

    /// Appends a rebalance of a group that is in the table of those that are alive.
    fn rebalance(&self, state: &mut State, name: &Arc<str>, joiner: Option<&Joiner<'_>>) -> Result<(), Halt> {
        let Some(live) = state.live.get(name) else { return Ok(()) };
        let topics = self.topics_by_id();
        let situation = situation(live, &topics, joiner);
        let expelled = of_expelled(live, &topics);
        let new = Group::default();
        let group = state.offsets.table().group(name).unwrap_or(&new);
        let mut unknown = Vec::new();
        let begin = |place: PartitionId, before: Option<&Ownership>| {
            let log = topics.get(&place.topic_id).and_then(|topic| topic.partitions.get(place.partition));
            let in_this_life = before.filter(|before| before.generation >= live.since).map(|before| before.start);
            if let Some(start) = in_this_life.or_else(|| group.committed(place)) {
                return start;
            }
            let is_others = |(id, topics): (&u64, &BTreeSet<u128>)| {
                joiner.is_none_or(|joiner| joiner.id != *id) && topics.contains(&place.topic_id)
            };
            // What came later than the group, and would have been its all the same, isn't for the joiner to skip.
            let came_later = situation.members.iter().any(is_others)
                || expelled.contains(&place.topic_id)
                || before.is_none() && group.knows_topic(place.topic_id);
            let joiner = joiner.filter(|_| !came_later);
            match (joiner.map(|joiner| joiner.starts.get(&place)), log) {
                (Some(Some(start)), _) => *start,
                (Some(None), Some(log)) => {
                    unknown.push(log.clone());
                    0
                }
                (_, log) => log.map_or(0, |log| log.start_offset()),
            }
        };
        let member = joiner
            .map(|joiner| (joiner.id, MemberInfo { process: self.process, subscription: joiner.subscription.clone() }));
        let changes = group.rebalance(&situation, member, begin);
        if !unknown.is_empty() {
            return Err(Halt::UnknownStarts(unknown));
        }
        self.append(state, name, changes)?;
        self.partition.log_figures().group(name).rebalanced();
        if let Some(live) = state.live.get_mut(name) {
            live.situation = situation;
            live.is_unsettled = false;
        }
        Ok(())
    }

    /// All topics of users.
    pub(super) fn topics_by_id(&self) -> BTreeMap<u128, Arc<TopicState>> {
        self.topics.select(|_| true).into_iter().map(|topic| (topic.id, topic)).collect()
    }

    /// Gives out partitions anew if what the group's members subscribe to isn't what it was.
    pub(super) fn follow_topics(self: &Arc<Self>, group: &Arc<str>) {
        self.change(|state| {
            let topics = self.topics_by_id();
            let has_changed = |live: &LiveGroup| !is_same(&situation(live, &topics, None), &live.situation);
            if state.live.get(group).is_some_and(has_changed) {
                self.settle(state, group);
                self.notify(state, group);
                self.tidy(state, group);
            }
        });
    }

    /// Has the housekeeper look when the first member can be overdue, or when something is to be tried again.
    fn schedule_check(self: &Arc<Self>, state: &mut State) {
        let due = next_check(state);
        if let Some(due) = due.filter(|&due| !state.closed && state.check_at.is_none_or(|scheduled| due < scheduled)) {
            state.check_at = Some(due);
            let weak: Weak<Self> = Arc::downgrade(self);
            Housekeeper::schedule(&self.housekeeper, weak, due);
        }
    }

    /// Expels members that don't poll, and tries again what failed.
    fn check(&self, state: &mut State, now: Instant) {
        let groups: Vec<Arc<str>> = state.live.keys().cloned().collect();
        for group in groups {
            let Some(live) = state.live.get_mut(&group) else { continue };
            let is_overdue = |member: &LiveMember| member.pulse.is_overdue(now);
            let overdue: Vec<u64> =
                live.members.iter().filter(|(_, member)| is_overdue(member)).map(|(id, _)| *id).collect();
            let expelled: Vec<_> = overdue.iter().filter_map(|id| live.members.remove_entry(id)).collect();
            live.expelled.extend(expelled.iter().map(|(id, member)| (*id, member.subscription.clone())));
            if !expelled.is_empty() || live.is_unsettled {
                self.settle(state, &group);
                self.notify(state, &group);
                for (_, member) in expelled {
                    member.pulse.renew();
                    state.to_wake.push(member.pulse);
                }
            }
            if state.live.get(&group).is_some_and(LiveGroup::is_over) {
                state.live.remove(&group);
            }
        }
    }
}

impl Chore for Groups {
    fn run(&self) -> Option<Instant> {
        self.change(|state| {
            let now = Instant::now();
            // Else it is one that was scheduled, and then another one sooner.
            if state.closed || state.check_at.is_none_or(|at| at > now) {
                return None;
            }
            self.check(state, now);
            state.check_at = next_check(state);
            state.check_at
        })
    }
}

/// Who is alive in the group, the joiner included, and what there is for them.
fn situation(live: &LiveGroup, topics: &BTreeMap<u128, Arc<TopicState>>, joiner: Option<&Joiner<'_>>) -> Situation {
    let by_name = ids_by_name(topics);
    let members = live.members.iter().map(|(&id, member)| (id, &member.subscription));
    let joiner = joiner.map(|joiner| (joiner.id, joiner.subscription));
    let members = members.chain(joiner).map(|(id, subscription)| (id, subscription.resolve(&by_name)));
    let topics = topics.iter().map(|(id, topic)| (*id, topic.partitions.len()));
    Situation { members: members.collect(), topics: topics.collect() }
}

/// The topics of consumers that were expelled and may come back: the group is theirs as well.
fn of_expelled(live: &LiveGroup, topics: &BTreeMap<u128, Arc<TopicState>>) -> BTreeSet<u128> {
    if live.expelled.is_empty() {
        return BTreeSet::new();
    }
    let by_name = ids_by_name(topics);
    live.expelled.values().flat_map(|subscription| subscription.resolve(&by_name)).collect()
}

fn ids_by_name(topics: &BTreeMap<u128, Arc<TopicState>>) -> BTreeMap<&str, u128> {
    topics.iter().map(|(id, topic)| (&*topic.name, *id)).collect()
}

/// Whether a rebalance would be given the same, as far as members subscribe to it.
fn is_same(new: &Situation, old: &Situation) -> bool {
    let mut wanted = new.members.values().flatten();
    new.members == old.members && wanted.all(|topic| new.topics.get(topic) == old.topics.get(topic))
}

fn next_check(state: &State) -> Option<Instant> {
    let now = Instant::now();
    let retries = state.live.values().filter(|live| live.is_unsettled).filter_map(|_| now.checked_add(RETRY));
    let members = state.live.values().flat_map(|live| live.members.values());
    retries.chain(members.filter_map(|member| member.pulse.due(now))).min()
}
