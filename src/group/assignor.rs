//! Which member of a group gets which partitions: a pure function of who subscribes to what, and of who has what.
//!
//! # Invariants
//! - Every partition of a topic with a subscriber goes to exactly one member, who subscribes to it.
//! - *Balance within a topic*: the numbers of partitions that its subscribers get differ by at most one.
//! - *Balance over topics*: so do the total numbers of members that subscribe to the same topics.
//! - *Stickiness*: among members that all subscribe to the same topics, no other answer with the same balance lets more
//!   partitions stay where they are. Where subscriptions differ this holds for each topic alone; what balance over topics
//!   then costs is kept small, but isn't proven to be the least.
//! - The answer depends on nothing but the arguments.
//!
//! # How
//! A topic of `n` partitions gives each of its `k` subscribers `n / k` of them, and an *extra* one to `n % k`. So the
//! one thing to decide is who gets the extras. Taken topic by topic they go to members that have more than `n / k`
//! partitions already, which lets the most partitions stay. Then extras are passed on along the cheapest chains of members
//! ("I give you mine of this topic, you give her yours of that one") until the totals are balanced: the successive shortest
//! paths of minimum-cost flow (Ahuja, Magnanti and Orlin, "Network Flows", 1993, chapter 9), where passing an extra on
//! costs one if a partition has to move for it, and pays one if that lets another stay.
//!
//! # Thread safety
//! A plain function.

use std::collections::{BTreeMap, BTreeSet};

use super::PartitionId;

/// Gives partitions to members.
///
/// `members` are those that are alive, with the ids of the topics that they subscribe to; `topics` have their number of
/// partitions; `owners` say where partitions are now. Topics that aren't there, and owners that aren't alive or don't
/// subscribe, count for nothing.
pub(crate) fn assign(
    members: &BTreeMap<u64, BTreeSet<u128>>,
    topics: &BTreeMap<u128, u32>,
    owners: &BTreeMap<PartitionId, u64>,
) -> BTreeMap<PartitionId, u64> {
    let ids: Vec<u64> = members.keys().copied().collect();
    let mut shares = shares(members, topics, owners);
    let mut extras = vec![0; ids.len()];
    for share in &mut shares {
        share.give_extras(&mut extras);
    }
    for class in classes(members, topics) {
        balance(&mut shares, &mut extras, &class);
    }
    let mut target = BTreeMap::new();
    for share in &shares {
        share.deal(|partition, member| {
            target.insert(PartitionId { topic_id: share.topic_id, partition }, ids[member]);
        });
    }
    target
}

/// Members, by their place in the order of ids, that subscribe to the same topics.
fn classes(members: &BTreeMap<u64, BTreeSet<u128>>, topics: &BTreeMap<u128, u32>) -> Vec<Vec<usize>> {
    let mut by_topics: BTreeMap<Vec<u128>, Vec<usize>> = BTreeMap::new();
    for (member, subscribed) in members.values().enumerate() {
        let existing = subscribed.iter().copied().filter(|id| topics.contains_key(id)).collect();
        by_topics.entry(existing).or_default().push(member);
    }
    by_topics.into_values().collect()
}

/// A topic to be shared.
struct Share {
    topic_id: u128,
    partitions: u32,
    /// What each subscriber gets at least.
    base: usize,
    /// How many get one more.
    extras: usize,
    /// In the order of members.
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    member: usize,
    /// The partitions that it has now, in order.
    owned: Vec<u32>,
    /// Whether it gets an extra partition.
    has_extra: bool,
}

impl Share {
    /// 1 if with an extra the subscriber keeps a partition more.
    fn keeps(&self, subscriber: &Subscriber) -> i64 {
        i64::from(subscriber.owned.len() > self.base)
    }

    /// Gives the extras to those that keep a partition by it, then to those that have the fewest; counts them.
    fn give_extras(&mut self, counts: &mut [usize]) {
        let mut order: Vec<usize> = (0..self.subscribers.len()).collect();
        order.sort_by_key(|&at| {
            let subscriber = &self.subscribers[at];
            (-self.keeps(subscriber), counts[subscriber.member], subscriber.member)
        });
        for &at in &order[..self.extras] {
            let subscriber = &mut self.subscribers[at];
            subscriber.has_extra = true;
            counts[subscriber.member] += 1;
        }
    }

    fn subscriber(&mut self, member: usize) -> Option<&mut Subscriber> {
        let at = self.subscribers.binary_search_by_key(&member, |subscriber| subscriber.member).ok()?;
        self.subscribers.get_mut(at)
    }

    /// Says of every partition whose it is: each keeps its first ones, the others go to those that lack some.
    fn deal(&self, mut give: impl FnMut(u32, usize)) {
        let mut is_free = vec![true; self.partitions as usize];
        let mut lacking = Vec::new();
        for subscriber in &self.subscribers {
            let quota = self.base + usize::from(subscriber.has_extra);
            for &partition in subscriber.owned.iter().take(quota) {
                is_free[partition as usize] = false;
                give(partition, subscriber.member);
            }
            let missing = quota.saturating_sub(subscriber.owned.len());
            lacking.extend(std::iter::repeat_n(subscriber.member, missing));
        }
        let free = (0..self.partitions).filter(|&partition| is_free[partition as usize]);
        for (partition, member) in free.zip(lacking) {
            give(partition, member);
        }
    }
}

/// The topics that have subscribers.
fn shares(
    members: &BTreeMap<u64, BTreeSet<u128>>,
    topics: &BTreeMap<u128, u32>,
    owners: &BTreeMap<PartitionId, u64>,
) -> Vec<Share> {
    let mut shares: BTreeMap<u128, Share> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (member, (&id, subscribed)) in members.iter().enumerate() {
        places.insert(id, member);
        for &topic_id in subscribed {
            let Some(&partitions) = topics.get(&topic_id) else { continue };
            let new = || Share { topic_id, partitions, base: 0, extras: 0, subscribers: Vec::new() };
            let subscriber = Subscriber { member, owned: Vec::new(), has_extra: false };
            shares.entry(topic_id).or_insert_with(new).subscribers.push(subscriber);
        }
    }
    for (place, owner) in owners {
        let share = shares.get_mut(&place.topic_id).filter(|share| place.partition < share.partitions);
        let owner = share.zip(places.get(owner)).and_then(|(share, &member)| share.subscriber(member));
        if let Some(owner) = owner {
            owner.owned.push(place.partition); // in order, since `owners` is
        }
    }
    let mut shares: Vec<Share> = shares.into_values().collect();
    for share in &mut shares {
        let (partitions, subscribers) = (share.partitions as usize, share.subscribers.len());
        (share.base, share.extras) = (partitions / subscribers, partitions % subscribers);
    }
    shares
}

/// Passes extras on until the counts of these members differ by at most one, and no other choice of who has the one more
/// lets more partitions stay.
fn balance(shares: &mut [Share], counts: &mut [usize], class: &[usize]) {
    loop {
        let most = class.iter().map(|&member| counts[member]).max().unwrap_or(0);
        let is_unbalanced = class.iter().any(|&member| counts[member] + 1 < most);
        let (with_most, others): (Vec<usize>, Vec<usize>) = class.iter().partition(|&&member| counts[member] == most);
        let chains = Chains::from(&with_most, shares, counts.len());
        let end = others
            .into_iter()
            .filter(|&member| counts[member] + 1 < most || !is_unbalanced)
            .filter_map(|member| Some((chains.cost[member]?, counts[member], member)))
            .min()
            // With balance reached, only what lets more partitions stay is worth passing on.
            .filter(|&(cost, ..)| is_unbalanced || cost < 0);
        let Some((.., end)) = end else { return };
        let start = chains.pass_on(shares, end);
        counts[start] -= 1;
        counts[end] += 1;
    }
}

/// The cheapest chains from given members to each member, along which extras can be passed on.
struct Chains {
    /// `None`: there is no chain.
    cost: Vec<Option<i64>>,
    /// The topic whose extra is passed on to the member, and by whom.
    from: Vec<Option<(usize, usize)>>,
}

impl Chains {
    /// Bellman and Ford's algorithm. It ends since no cycle has a negative cost: extras were given out at the least cost,
    /// and were passed on along cheapest chains only.
    fn from(starts: &[usize], shares: &[Share], members: usize) -> Self {
        let mut chains = Self { cost: vec![None; members], from: vec![None; members] };
        for &start in starts {
            chains.cost[start] = Some(0);
        }
        for _ in 0..members {
            let mut changed = false;
            for (topic, share) in shares.iter().enumerate() {
                changed |= chains.extend(topic, share);
            }
            if !changed {
                break;
            }
        }
        chains
    }

    /// Looks at what passing on extras of one topic adds.
    fn extend(&mut self, topic: usize, share: &Share) -> bool {
        let givers = share.subscribers.iter().filter(|subscriber| subscriber.has_extra);
        let cheapest =
            givers.filter_map(|giver| Some((self.cost[giver.member]? + share.keeps(giver), giver.member))).min();
        let Some((cost, giver)) = cheapest else { return false };
        let mut changed = false;
        for taker in share.subscribers.iter().filter(|subscriber| !subscriber.has_extra) {
            let cost = cost - share.keeps(taker);
            if self.cost[taker.member].is_none_or(|known| cost < known) {
                (self.cost[taker.member], self.from[taker.member]) = (Some(cost), Some((topic, giver)));
                changed = true;
            }
        }
        changed
    }

    /// Passes extras on along the chain that ends at `member`; answers where it starts.
    fn pass_on(&self, shares: &mut [Share], end: usize) -> usize {
        let mut member = end;
        while let Some((topic, giver)) = self.from[member] {
            for (member, has_extra) in [(giver, false), (member, true)] {
                if let Some(subscriber) = shares[topic].subscriber(member) {
                    subscriber.has_extra = has_extra;
                }
            }
            member = giver;
        }
        member
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
