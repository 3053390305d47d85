use proptest::prelude::*;

use super::*;

type Members = BTreeMap<u64, BTreeSet<u128>>;
type Topics = BTreeMap<u128, u32>;
type Owners = BTreeMap<PartitionId, u64>;

fn id(topic_id: u128, partition: u32) -> PartitionId {
    PartitionId { topic_id, partition }
}

/// Members that all subscribe to all topics.
fn all(ids: impl IntoIterator<Item = u64>, topics: &Topics) -> Members {
    ids.into_iter().map(|id| (id, topics.keys().copied().collect())).collect()
}

fn sizes(target: &Owners, topic_id: u128) -> BTreeMap<u64, usize> {
    let mut sizes = BTreeMap::new();
    for owner in target.iter().filter(|(place, _)| place.topic_id == topic_id).map(|(_, owner)| *owner) {
        *sizes.entry(owner).or_default() += 1;
    }
    sizes
}

/// How many partitions aren't where they were; those that were nowhere don't count.
fn moves(before: &Owners, after: &Owners) -> usize {
    after.iter().filter(|(place, owner)| before.get(place).is_some_and(|old| old != *owner)).count()
}

/// Panics unless everything is given to somebody who wants it, and balanced.
fn check(members: &Members, topics: &Topics, target: &Owners) {
    let mut expected = 0;
    for (&topic_id, &partitions) in topics {
        let subscribers: Vec<u64> =
            members.iter().filter(|(_, topics)| topics.contains(&topic_id)).map(|(&id, _)| id).collect();
        if subscribers.is_empty() {
            continue;
        }
        expected += partitions as usize;
        let sizes = sizes(target, topic_id);
        assert!(sizes.keys().all(|owner| subscribers.contains(owner)), "an owner that doesn't subscribe");
        let sizes: Vec<usize> = subscribers.iter().map(|id| sizes.get(id).copied().unwrap_or(0)).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "topic {topic_id}: {sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), partitions as usize);
    }
    assert_eq!(target.len(), expected);
    for (id, subscribed) in members {
        for (other, others) in members {
            if subscribed == others {
                let total = |id| target.values().filter(|owner| *owner == id).count();
                assert!(total(id).abs_diff(total(other)) <= 1, "totals of {id} and {other}: {target:?}");
            }
        }
    }
}

/// The fewest moves that any balanced answer has: tries every way to give out the extras.
fn fewest_moves(members: &Members, topics: &Topics, owners: &Owners) -> usize {
    let shares = shares(members, topics, owners);
    let mut fewest = usize::MAX;
    let mut extras: Vec<Vec<usize>> = Vec::new();
    try_all(&shares, &mut extras, &mut |extras| {
        let mut totals: Vec<usize> = vec![0; members.len()];
        let mut moved = 0;
        for (share, chosen) in shares.iter().zip(extras) {
            for (at, subscriber) in share.subscribers.iter().enumerate() {
                let quota = share.base + usize::from(chosen.contains(&at));
                totals[subscriber.member] += quota;
                moved += subscriber.owned.len().saturating_sub(quota);
            }
        }
        let is_balanced = classes(members, topics).iter().all(|class| {
            let totals: Vec<usize> = class.iter().map(|&member| totals[member]).collect();
            totals.iter().max().unwrap() - totals.iter().min().unwrap() <= 1
        });
        if is_balanced {
            fewest = fewest.min(moved);
        }
    });
    fewest + orphans_moved(members, topics, owners)
}

/// Partitions whose owner is gone or doesn't subscribe any more: they move whatever is decided.
fn orphans_moved(members: &Members, topics: &Topics, owners: &Owners) -> usize {
    let wanted = |topic_id: u128| members.values().any(|topics| topics.contains(&topic_id));
    let keeps = |owner: &u64, topic_id| members.get(owner).is_some_and(|topics| topics.contains(&topic_id));
    let exists = |place: &PartitionId| topics.get(&place.topic_id).is_some_and(|count| place.partition < *count);
    owners
        .iter()
        .filter(|(place, owner)| exists(place) && wanted(place.topic_id) && !keeps(owner, place.topic_id))
        .count()
}

fn try_all(shares: &[Share], extras: &mut Vec<Vec<usize>>, look: &mut impl FnMut(&[Vec<usize>])) {
    let Some(share) = shares.get(extras.len()) else { return look(extras) };
    for subset in 0..1u32 << share.subscribers.len() {
        if subset.count_ones() as usize == share.extras {
            extras.push((0..share.subscribers.len()).filter(|at| subset & (1 << at) != 0).collect());
            try_all(shares, extras, look);
            extras.pop();
        }
    }
}

#[test]
fn one_member_gets_everything_and_nobody_gets_nothing() {
    let topics = Topics::from([(1, 3), (2, 1)]);
    let target = assign(&all([7], &topics), &topics, &Owners::new());
    assert_eq!(target.len(), 4);
    assert!(target.values().all(|owner| *owner == 7));
    assert!(assign(&Members::new(), &topics, &target).is_empty());
    assert!(assign(&all([7], &topics), &Topics::new(), &target).is_empty());
}

#[test]
fn topics_of_one_partition_are_spread_over_the_members() {
    let topics: Topics = (0..9).map(|topic| (topic, 1)).collect();
    let mut owners = Owners::new();
    for count in 1..=9 {
        let members = all(1..=count, &topics);
        let before = owners;
        owners = assign(&members, &topics, &before);
        check(&members, &topics, &owners);
        let newcomer = owners.values().filter(|owner| **owner == count).count();
        if count > 1 {
            assert_eq!(moves(&before, &owners), newcomer, "only what the newcomer gets moves");
        }
    }
}

#[test]
fn only_the_leavers_partitions_move() {
    let topics = Topics::from([(1, 64)]);
    let mut owners = assign(&all(1..=8, &topics), &topics, &Owners::new());
    for leaver in 1..=7 {
        let members = all(leaver + 1..=8, &topics);
        let left = owners.values().filter(|owner| **owner == leaver).count();
        let before = owners;
        owners = assign(&members, &topics, &before);
        check(&members, &topics, &owners);
        assert_eq!(moves(&before, &owners), left);
    }
}

#[test]
fn extras_are_passed_on_through_a_third_member() {
    // 1 has the extras of both topics and 3 none, but 3 doesn't subscribe to what 1 may give away for nothing.
    let topics = Topics::from([(1, 4), (2, 4), (3, 4)]);
    let members = all(1..=3, &topics);
    let mut owners = Owners::new();
    for topic in 1..=3 {
        for (partition, owner) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            owners.insert(id(topic, partition), owner);
        }
    }
    let target = assign(&members, &topics, &owners);
    check(&members, &topics, &target);
    assert_eq!(moves(&owners, &target), 2);
}

fn topics_of(counts: Vec<u32>) -> Topics {
    (1..).zip(counts).collect()
}

/// Members of which each subscribes to some of the topics 1 to 4.
fn mixed_members() -> impl Strategy<Value = Members> {
    prop::collection::btree_map(1..20u64, prop::collection::btree_set(1..5u128, 1..4), 1..5)
}

fn any_owners() -> impl Strategy<Value = Owners> {
    prop::collection::btree_map((1..5u128, 0..6u32).prop_map(|(topic, number)| id(topic, number)), 1..20u64, 0..24)
}

proptest! {
    #[test]
    fn everything_is_given_out_in_balance(
        members in mixed_members(), counts in prop::collection::vec(0..6u32, 1..5), owners in any_owners(),
    ) {
        let topics = topics_of(counts);
        let target = assign(&members, &topics, &owners);
        check(&members, &topics, &target);
        // Nothing moves when nothing changed.
        prop_assert_eq!(assign(&members, &topics, &target), target);
    }

    #[test]
    fn no_balanced_answer_has_fewer_moves(
        ids in prop::collection::btree_set(1..8u64, 1..5), counts in prop::collection::vec(0..6u32, 1..5),
        owners in prop::collection::btree_map(
            (1..5u128, 0..6u32).prop_map(|(topic, number)| id(topic, number)), 1..8u64, 0..24),
    ) {
        let topics = topics_of(counts);
        let members = all(ids, &topics);
        let target = assign(&members, &topics, &owners);
        check(&members, &topics, &target);
        prop_assert_eq!(moves(&owners, &target), fewest_moves(&members, &topics, &owners));
    }

    /// With different subscriptions, each topic taken alone gives a lower bound; balance over topics costs something.
    #[test]
    fn with_different_subscriptions_little_more_than_needed_moves(
        members in mixed_members(), counts in prop::collection::vec(0..6u32, 1..5), owners in any_owners(),
    ) {
        let topics = topics_of(counts);
        let target = assign(&members, &topics, &owners);
        let fewest = fewest_moves(&members, &topics, &owners);
        prop_assert!(moves(&owners, &target) <= fewest + 2, "{} for {fewest}", moves(&owners, &target));
    }

    #[test]
    fn comings_and_goings_keep_the_balance(
        counts in prop::collection::vec(0..9u32, 1..6), steps in prop::collection::vec((1..9u64, any::<bool>()), 1..30),
    ) {
        let topics = topics_of(counts);
        let (mut members, mut owners) = (Members::new(), Owners::new());
        for (id, joins) in steps {
            if joins {
                members.insert(id, topics.keys().copied().collect());
            } else {
                members.remove(&id);
            }
            owners = assign(&members, &topics, &owners);
            check(&members, &topics, &owners);
        }
    }
}

/// Maps have one order; what could depend on the order of arrival are the ids, which are random.
#[test]
fn the_answer_is_the_same_whoever_asks() {
    let topics: Topics = (1..40).map(|topic| (topic, (topic % 7) as u32)).collect();
    let members = all([3, 900, 17, 4, 55], &topics);
    let reversed: Members = members.iter().rev().map(|(id, topics)| (*id, topics.clone())).collect();
    let first = assign(&members, &topics, &Owners::new());
    for _ in 0..3 {
        assert_eq!(assign(&reversed, &topics, &Owners::new()), first);
    }
}

#[test]
fn many_topics_are_shared_in_time() {
    let topics: Topics = (0..1000).map(|topic| (topic, 3)).collect();
    let mut owners = Owners::new();
    for count in [1, 2, 3, 8] {
        let members = all(1..=count, &topics);
        owners = assign(&members, &topics, &owners);
        check(&members, &topics, &owners);
    }
}
