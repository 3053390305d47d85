use proptest::prelude::*;

use super::*;
use crate::{
    group::codec::{self, Decoded, Encoded},
    pattern::TopicPattern,
};

const GROUP: &str = "billing";

/// What one process does to a group, with the records that it appends.
#[derive(Default)]
struct Model {
    table: Table,
    situation: Situation,
    records: Vec<Encoded>,
    joined: u64,
}

impl Model {
    fn group(&self) -> Group {
        self.table.group(GROUP).cloned().unwrap_or_default()
    }

    fn append(&mut self, changes: Vec<Change>) {
        for change in changes {
            let before = self.group();
            self.records.push(codec::encode(GROUP, &change));
            self.table.apply(GROUP, change);
            self.check_growth(&before);
        }
    }

    /// Epochs and generations only grow, and an owner changes with its epoch alone.
    fn check_growth(&self, before: &Group) {
        let after = self.group();
        assert!(after.generation >= before.generation);
        for (place, old) in &before.ownerships {
            let Some(new) = after.ownerships.get(place) else { continue };
            assert!(new.epoch >= old.epoch, "{old:?} {new:?}");
            let stays = new.owner == old.owner || new.owner == 0;
            assert!(stays || new.epoch > old.epoch, "{old:?} {new:?}");
        }
    }

    fn rebalance(&mut self, joiner: Option<(u64, MemberInfo)>) {
        let group = self.group();
        let changes = group.rebalance(&self.situation, joiner, |place, before| {
            before.map_or(u64::from(place.partition) + 100, |before| before.start)
        });
        self.append(changes);
        let group = self.group();
        assert!(group.members.keys().eq(self.situation.members.keys()));
        for (place, ownership) in &group.ownerships {
            let is_member = |id| self.situation.members.contains_key(&id);
            assert!(ownership.owner == 0 || is_member(ownership.owner), "{place:?} {ownership:?}");
            assert!(ownership.next == 0 || is_member(ownership.next), "{place:?} {ownership:?}");
            assert!(ownership.next == 0 || ownership.next != ownership.owner);
        }
    }

    fn join(&mut self, topics: BTreeSet<u128>) -> u64 {
        self.joined += 1;
        let id = self.joined * 7919 % 1009 + 1; // in no order
        let names = topics.iter().map(|id| TopicPattern::parse(&format!("topic-{id}")).unwrap());
        let subscription = Subscription::new(names).unwrap();
        self.situation.members.insert(id, topics);
        self.rebalance(Some((id, MemberInfo { process: 1, subscription })));
        id
    }

    fn leave(&mut self, id: u64) {
        self.situation.members.remove(&id);
        self.rebalance(None);
    }

    /// Releases what is to be released, at most so many.
    fn release(&mut self, most: usize) {
        let group = self.group();
        let pending = group.ownerships().filter(|(_, ownership)| ownership.next != 0).take(most);
        let changes = pending.map(|(place, ownership)| group.release(ownership.owner, place).unwrap()).collect();
        self.append(changes);
    }

    fn commit(&mut self, place: PartitionId, offset: u64) {
        let group = self.group();
        let Some(ownership) = group.ownership(place).filter(|ownership| ownership.owner != 0) else { return };
        assert!(group.may_commit(ownership.owner, place, ownership.epoch));
        self.append(vec![Change::Commit(place, Some(Committed { offset, epoch: ownership.epoch }))]);
        assert_eq!(self.group().committed(place), Some(offset));
    }

    fn member(&self, at: usize) -> Option<u64> {
        let count = self.situation.members.len();
        self.situation.members.keys().nth(at.checked_rem(count)?).copied()
    }
}

/// Folds records as opening does, from any table on.
fn fold(mut table: Table, records: &[Encoded]) -> Table {
    for (key, value) in records {
        match codec::decode(Some(key), value.as_deref()).unwrap() {
            Decoded::Change(group, change) => table.apply(group, change),
            Decoded::Entry(group, entry) => table.restore(group, entry),
            Decoded::SnapshotEnd(_) => {}
        }
    }
    table
}

fn snapshot(table: &Table) -> Vec<Encoded> {
    table.entries().map(|(group, entry)| codec::encode_entry(group, &entry)).collect()
}

fn place(topic_id: u128, partition: u32) -> PartitionId {
    PartitionId { topic_id, partition }
}

/// A model with one topic of so many partitions.
fn with_topic(partitions: u32) -> Model {
    let mut model = Model::default();
    model.situation.topics.insert(1, partitions);
    model
}

/// How many partitions each member owns, and how many are promised to it.
fn shares(model: &Model) -> Vec<(usize, usize)> {
    let group = model.group();
    let count = |id: u64| {
        let owned = group.ownerships().filter(|(_, ownership)| ownership.owner == id).count();
        (owned, group.ownerships().filter(|(_, ownership)| ownership.next == id).count())
    };
    model.situation.members.keys().map(|id| count(*id)).collect()
}

#[test]
fn the_first_member_owns_everything_at_once_and_others_wait_for_releases() {
    let mut model = with_topic(4);
    let first = model.join([1].into());
    let group = model.group();
    assert_eq!(group.generation, 1);
    for partition in 0..4 {
        let start = u64::from(partition) + 100;
        let expected = Ownership { generation: 1, epoch: 1, owner: first, next: 0, start };
        assert_eq!(group.ownership(place(1, partition)), Some(&expected));
    }
    let second = model.join([1].into());
    let group = model.group();
    assert_eq!(group.ownerships().filter(|(_, value)| value.owner == first).count(), 4, "nothing is taken");
    let promised: Vec<_> = group.ownerships().filter(|(_, value)| value.next == second).collect();
    assert_eq!(promised.len(), 2);
    assert!(promised.iter().all(|(_, value)| value.epoch == 1 && value.generation == 2));
    model.release(1);
    let group = model.group();
    let owned: Vec<_> = group.ownerships().filter(|(_, value)| value.owner == second).collect();
    assert!(matches!(owned[..], [(_, Ownership { epoch: 2, next: 0, .. })]), "{owned:?}");
}

#[test]
fn what_is_promised_to_one_that_leaves_stays_where_it_is() {
    let mut model = with_topic(4);
    model.join([1].into());
    let before = model.group();
    let second = model.join([1].into());
    model.leave(second);
    let after = model.group();
    assert_eq!(shares(&model), [(4, 0)]);
    let owner = |group: &Group| group.ownerships().map(|(_, value)| (value.owner, value.epoch)).collect::<Vec<_>>();
    assert_eq!(owner(&before), owner(&after), "never interrupted");
}

#[test]
fn what_was_on_its_way_arrives_when_its_owner_dies() {
    let mut model = with_topic(4);
    let first = model.join([1].into());
    let second = model.join([1].into());
    model.join([1].into());
    model.leave(first);
    let group = model.group();
    assert!(group.ownerships().all(|(_, value)| value.owner != 0 && value.next == 0 && value.epoch == 2));
    assert_eq!(group.ownerships().filter(|(_, value)| value.owner == second).count(), 2);
}

#[test]
fn an_old_owners_commit_changes_nothing() {
    let mut model = with_topic(1);
    let first = model.join([1].into());
    model.commit(place(1, 0), 10);
    model.leave(first);
    let second = model.join([1].into());
    assert!(!model.group().may_commit(first, place(1, 0), 1));
    assert!(!model.group().may_commit(second, place(1, 0), 1));
    assert!(model.group().may_commit(second, place(1, 0), 2));
    // Appended all the same, by a process that couldn't know.
    let late = Change::Commit(place(1, 0), Some(Committed { offset: 99, epoch: 1 }));
    model.append(vec![late]);
    assert_eq!(model.group().committed(place(1, 0)), Some(10));
    assert_eq!(fold(Table::default(), &model.records), model.table);
}

#[test]
fn commits_from_before_there_were_owners_count() {
    let mut table = Table::default();
    table.apply(GROUP, Change::Commit(place(1, 0), Some(Committed { offset: 7, epoch: 0 })));
    let group = table.group(GROUP).unwrap();
    assert_eq!((group.committed(place(1, 0)), group.generation()), (Some(7), 0));
}

#[test]
fn a_topic_that_is_gone_is_given_up() {
    let mut model = with_topic(2);
    let first = model.join([1].into());
    model.situation.topics.remove(&1);
    model.rebalance(None);
    assert!(model.group().ownerships().all(|(_, value)| value.owner == 0 && value.epoch == 2));
    assert!(!model.group().may_commit(first, place(1, 0), 1));
}

#[test]
fn nothing_is_left_of_a_group_that_was_forgotten() {
    let mut model = with_topic(3);
    let first = model.join([1].into());
    model.commit(place(1, 0), 1);
    model.leave(first);
    model.table.apply(GROUP, Change::Generation(None));
    assert_eq!(model.table, Table::default());

    model.append(vec![Change::Commit(place(1, 0), Some(Committed { offset: 7, epoch: 0 }))]);
    model.append(vec![Change::Commit(place(1, 0), None)]);
    assert_eq!(model.table, Table::default(), "nor of one whose last commit was");
}

#[derive(Debug, Clone)]
enum Step {
    Join(BTreeSet<u128>),
    Leave(usize),
    /// Two at once.
    LeaveTwo(usize, usize),
    Release(usize),
    Commit(u128, u32, u64),
    /// By somebody who isn't the owner any more, if there was one.
    OldCommit(u128, u32, u64),
    /// A topic gets so many partitions more.
    Raise(u128, u32),
    ForgetTopic(u128),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::btree_set(1..4u128, 1..4).prop_map(Step::Join),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => any::<(usize, usize)>().prop_map(|(a, b)| Step::LeaveTwo(a, b)),
        4 => (0..5usize).prop_map(Step::Release),
        6 => (1..4u128, 0..6u32, 0..100u64).prop_map(|(topic, number, offset)| Step::Commit(topic, number, offset)),
        2 => (1..4u128, 0..6u32, 0..100u64).prop_map(|(topic, number, offset)| Step::OldCommit(topic, number, offset)),
        1 => (1..4u128, 1..3u32).prop_map(|(topic, more)| Step::Raise(topic, more)),
        1 => (1..4u128).prop_map(Step::ForgetTopic),
        1 => Just(Step::Snapshot),
    ]
}

fn perform(model: &mut Model, step: Step, snapshots: &mut Vec<(Vec<Encoded>, usize)>) {
    match step {
        Step::Join(topics) => drop(model.join(topics)),
        Step::Leave(at) => {
            if let Some(id) = model.member(at) {
                model.leave(id);
            }
        }
        Step::LeaveTwo(first, second) => {
            for at in [first, second] {
                if let Some(id) = model.member(at) {
                    model.situation.members.remove(&id);
                }
            }
            model.rebalance(None);
        }
        Step::Release(most) => model.release(most),
        Step::Commit(topic, number, offset) => model.commit(place(topic, number), offset),
        Step::OldCommit(topic, number, offset) => {
            let epoch = model.group().epoch(place(topic, number));
            if epoch > 0 {
                let before = model.table.clone();
                let committed = Committed { offset, epoch: epoch - 1 };
                model.append(vec![Change::Commit(place(topic, number), Some(committed))]);
                assert_eq!(model.table, before);
            }
        }
        Step::Raise(topic, more) => {
            *model.situation.topics.entry(topic).or_default() += more;
            model.rebalance(None);
        }
        Step::ForgetTopic(topic) => {
            model.situation.topics.remove(&topic);
            let group = model.group();
            let commits = group.commits().map(|(place, _)| Change::Commit(place, None));
            let ownerships = group.ownerships().map(|(place, _)| Change::Ownership(place, None));
            let of_topic = |change: &Change| match change {
                Change::Commit(place, _) | Change::Ownership(place, _) => place.topic_id == topic,
                _ => false,
            };
            let changes = commits.chain(ownerships).filter(of_topic).collect();
            model.append(changes);
            model.rebalance(None);
        }
        Step::Snapshot => snapshots.push((snapshot(&model.table), model.records.len())),
    }
}

proptest! {
    #[test]
    fn folding_gives_the_state_wherever_it_begins(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = with_topic(4);
        model.situation.topics.insert(2, 1);
        model.situation.topics.insert(3, 1);
        let mut snapshots = Vec::new();
        for step in steps {
            perform(&mut model, step, &mut snapshots);
            prop_assert_eq!(&fold(Table::default(), &model.records), &model.table);
        }
        snapshots.push((snapshot(&model.table), model.records.len()));
        for (snapshot, position) in snapshots {
            let begun = fold(Table::default(), &snapshot);
            prop_assert_eq!(&begun, &fold(Table::default(), &model.records[..position]));
            prop_assert_eq!(&fold(begun, &model.records[position..]), &model.table);
        }
    }

    #[test]
    fn after_all_releases_everybody_has_what_the_assignor_said(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = with_topic(5);
        model.situation.topics.insert(2, 2);
        for step in steps {
            perform(&mut model, step, &mut Vec::new());
        }
        model.rebalance(None);
        let target = model.group().target(&model.situation);
        model.release(usize::MAX);
        let group = model.group();
        let owners = group.ownerships().filter(|(_, value)| value.owner != 0);
        let owners: BTreeMap<PartitionId, u64> = owners.map(|(place, value)| (place, value.owner)).collect();
        prop_assert_eq!(&owners, &target);
        prop_assert!(group.ownerships().all(|(_, ownership)| ownership.next == 0));
        // And another rebalance moves nothing.
        model.rebalance(None);
        prop_assert_eq!(model.group().ownerships, group.ownerships);
    }
}
