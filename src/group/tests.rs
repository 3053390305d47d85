use std::{io, path::Path, thread};

use proptest::prelude::*;

use super::{administration::GroupDescription, membership::Table, *};
use crate::{
    clock::Clock,
    config::{Durability, LogOptions},
    error::ErrorKind,
    housekeeper::Chore,
    partition::{Environment, Flusher, OpenFiles},
    pattern::TopicPattern,
    record::Record,
    storage::{
        Storage,
        sim::{Repeat, SimStorage},
    },
    topic::TopicState,
    topics::Settled,
    waiter::Waiter,
};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(3600);

/// The least that a segment can have.
const SEGMENT_BYTES: u64 = 64 << 10;

/// A log's topics and groups, on a disk of their own.
struct Bench {
    storage: SimStorage,
    flusher: Arc<Flusher>,
    housekeeper: Arc<Housekeeper>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
}

impl Bench {
    fn new() -> Self {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/log")).unwrap();
        let (flusher, housekeeper) = (Flusher::new(Default::default()), Housekeeper::new(Default::default()));
        let (topics, groups) = open(&storage, &flusher, &housekeeper);
        Self { storage, flusher, housekeeper, topics, groups }
    }

    /// What a process finds that comes after one that was killed, or that closed.
    fn reopen(&mut self, close: bool) {
        self.groups.close();
        if close {
            self.topics.close().unwrap();
        }
        (self.topics, self.groups) = open(&self.storage, &self.flusher, &self.housekeeper);
    }

    fn topic(&self, name: &str, partitions: u32) -> Arc<TopicState> {
        let topic = self.topics.create(name, TopicConfig::with_partitions(partitions), &|_| Ok(())).unwrap();
        self.follow_topics();
        topic
    }

    /// What the groups' members do when they poll.
    fn follow_topics(&self) {
        let groups: Vec<Arc<str>> = self.groups.state.lock().live.keys().cloned().collect();
        groups.iter().for_each(|group| self.groups.follow_topics(group));
    }

    /// What is folded from the records, as by an open.
    fn folded(&self) -> Table {
        let (offsets, damage) = Offsets::open(self.groups.partition.clone()).unwrap();
        assert!(damage.is_empty(), "{damage:?}");
        offsets.table().clone()
    }

    /// What is in memory is what the records say. Looked at in one moment: chores run in between.
    #[track_caller]
    fn assert_folded(&self, what: &str) {
        let state = self.groups.state.lock();
        assert_eq!(&self.folded(), state.offsets.table(), "{what}");
    }

    fn table(&self) -> Table {
        self.groups.state.lock().offsets.table().clone()
    }

    fn join(&self, group: &str, names: &[&str]) -> Member {
        self.try_join(group, names, LONG, &|log| Ok(log.start_offset())).unwrap()
    }

    fn try_join(
        &self,
        group: &str,
        names: &[&str],
        max_poll_interval: Duration,
        begin: &dyn Fn(&Arc<PartitionLog>) -> Result<u64>,
    ) -> Result<Member> {
        let subscription = subscription(names);
        self.groups.join(Joining { group, subscription, max_poll_interval, waiter: Arc::default(), begin })
    }

    fn describe(&self, group: &str) -> GroupDescription {
        self.groups.describe(group).unwrap()
    }

    fn end_offset(&self) -> u64 {
        self.groups.partition.settled_end_offset()
    }

    /// Commits of another group, until a new segment is due.
    fn fill_segment(&self) {
        self.topics.ensure("filler", TopicConfig::with_partitions(100), &|_| Ok(())).unwrap();
        let member = self.join("filler", &["filler"]);
        let bases = || self.groups.partition.segment_base_offsets().last().copied();
        let before = bases();
        for offset in 1.. {
            for owned in owned(&member) {
                commit(&member, &owned, offset).unwrap();
                if before != bases() {
                    return;
                }
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.housekeeper.stop();
        self.flusher.stop();
    }
}

fn open_environment(storage: &SimStorage, flusher: &Arc<Flusher>) -> Environment {
    Environment {
        storage: Arc::new(storage.clone()),
        clock: Clock::System,
        flusher: flusher.clone(),
        prefaulter: Arc::default(),
        recent_segments: Arc::default(),
        open_files: OpenFiles::bounded(1000, storage.clone()),
        figures: Default::default(),
        positional_appends: false,
        mapped_after: 0,
    }
}

fn settled(storage: &SimStorage) -> Settled {
    let locks = Path::new("/locks");
    storage.create_own_dir(locks).unwrap();
    Settled::look(Arc::new(storage.clone()), locks).unwrap()
}

fn open(storage: &SimStorage, flusher: &Arc<Flusher>, housekeeper: &Arc<Housekeeper>) -> (Arc<Topics>, Arc<Groups>) {
    let env = open_environment(storage, flusher);
    let options = LogOptions::default().durability(Durability::Written);
    let mut report = RecoveryReport::default();
    let topics = Arc::new(Topics::open(env, Path::new("/log"), settled(storage), &options, &mut report).unwrap());
    let groups = Groups::open_with(&topics, housekeeper, SEGMENT_BYTES, &mut report).unwrap();
    assert!(report.findings().is_empty(), "{report:?}");
    (topics, Arc::new(groups))
}

fn subscription(names: &[&str]) -> Subscription {
    Subscription::new(names.iter().map(|name| TopicPattern::parse(name).unwrap())).unwrap()
}

fn owned(member: &Member) -> Vec<Owned> {
    member.view().unwrap().owned
}

/// Numbers of the partitions that the member has for good.
fn kept(member: &Member) -> Vec<u32> {
    let kept = owned(member).into_iter().filter(|owned| !owned.is_revoked);
    kept.map(|owned| owned.log.spec().number).collect()
}

fn revoked(member: &Member) -> Vec<PartitionId> {
    let revoked = owned(member).into_iter().filter(|owned| owned.is_revoked);
    revoked.map(|owned| PartitionId::of(&owned.log)).collect()
}

fn release(member: &Member) {
    member.release(revoked(member)).unwrap();
}

fn commit(member: &Member, owned: &Owned, offset: u64) -> Result<()> {
    member.commit([(PartitionId::of(&owned.log), owned.epoch, offset)], None)
}

fn append(topic: &TopicState, number: u32, count: u64) {
    for _ in 0..count {
        topic.partition(number).unwrap().append(&Record::new("x"), None).unwrap();
    }
}

#[test]
fn members_share_what_there_is_and_only_what_moves_is_revoked() {
    let bench = Bench::new();
    bench.topic("orders", 6);
    let first = bench.join("billing", &["orders"]);
    assert_eq!(kept(&first), [0, 1, 2, 3, 4, 5]);
    let version = first.version();
    let second = bench.join("billing", &["orders"]);
    assert_ne!(first.version(), version);
    assert_eq!((kept(&first), revoked(&first).len()), (vec![0, 1, 2], 3));
    assert!(owned(&second).is_empty(), "nothing is taken from who is alive");
    let version = second.version();
    let moving = revoked(&first);
    first.release(moving[..1].iter().copied()).unwrap();
    assert_ne!(second.version(), version);
    assert_eq!((kept(&second), kept(&first).len()), (vec![moving[0].partition], 3));
    release(&first);
    assert_eq!(kept(&second), [3, 4, 5]);
    assert!(owned(&first).iter().all(|owned| owned.epoch == 1), "what stays isn't interrupted");
    assert!(owned(&second).iter().all(|owned| owned.epoch == 2));
    let generation = second.view().unwrap().generation;
    let version = second.version();
    drop(first);
    assert_ne!(second.version(), version);
    assert_eq!((kept(&second).len(), second.view().unwrap().generation), (6, generation + 1));
    bench.assert_folded("");
}

#[test]
fn a_change_wakes_the_members() {
    let bench = Bench::new();
    bench.topic("orders", 2);
    let waiter: Arc<Waiter> = Arc::default();
    let first = bench
        .groups
        .join(Joining {
            group: "billing",
            subscription: subscription(&["orders"]),
            max_poll_interval: LONG,
            waiter: waiter.clone(),
            begin: &|_| Ok(0),
        })
        .unwrap();
    let ticket = waiter.ticket();
    let second = bench.join("billing", &["orders"]);
    assert_ne!(waiter.ticket(), ticket);
    release(&first);
    let ticket = waiter.ticket();
    drop(second);
    assert_ne!(waiter.ticket(), ticket);
    let ticket = waiter.ticket();
    bench.groups.close();
    assert_ne!(waiter.ticket(), ticket);
}

#[test]
fn a_release_wakes_nobody_but_the_next_owner() {
    let bench = Bench::new();
    bench.topic("orders", 4);
    bench.topic("payments", 1);
    let other = bench.join("billing", &["payments"]);
    let (first, second) = (bench.join("billing", &["orders"]), bench.join("billing", &["orders"]));
    let versions = || [&other, &first, &second].map(Member::version);
    let before = versions();
    release(&first);
    let after = versions();
    assert_eq!((before[0], before[1]), (after[0], after[1]), "with many members, all would look at all they own");
    assert_ne!(before[2], after[2]);
}

#[test]
fn the_time_to_poll_in_begins_when_the_consumer_has_joined() {
    let bench = Bench::new();
    bench.topic("orders", 1);
    let looked = std::cell::Cell::new(None);
    let begin = |_: &Arc<PartitionLog>| {
        thread::sleep(Duration::from_millis(2)); // as looking for a time may take long
        looked.set(Some(Instant::now()));
        Ok(0)
    };
    let _member = bench.try_join("billing", &["orders"], LONG, &begin).unwrap();
    let state = bench.groups.state.lock();
    let pulse = &state.live["billing"].members.values().next().unwrap().pulse;
    assert!(pulse.due(Instant::now()).unwrap() >= looked.get().unwrap() + LONG);
}

#[test]
fn only_the_owner_commits_and_only_in_its_epoch() {
    let bench = Bench::new();
    bench.topic("orders", 2);
    let first = bench.join("billing", &["orders"]);
    let before = owned(&first);
    commit(&first, &before[0], 5).unwrap();
    let second = bench.join("billing", &["orders"]);
    commit(&first, &before[1], 7).unwrap();
    release(&first);
    let error = commit(&first, &before[1], 8).unwrap_err();
    assert_eq!((error.kind(), error.topic(), error.partition()), (ErrorKind::Fenced, Some("orders"), Some(1)));
    let places = before.iter().map(|owned| (PartitionId::of(&owned.log), owned.epoch, 9));
    assert_eq!(first.commit(places, None).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(first.committed(PartitionId::of(&before[0].log)), Some(5), "all or nothing");
    assert_eq!(commit(&second, &before[1], 8).unwrap_err().kind(), ErrorKind::Fenced, "not in the old epoch");
    let after = owned(&second);
    assert_eq!((after[0].committed, after[0].epoch), (Some(7), 2));
    commit(&second, &after[0], 8).unwrap();
    bench.assert_folded("");
}

#[test]
fn what_is_unchanged_is_not_appended_and_the_last_of_several_counts() {
    let bench = Bench::new();
    bench.topic("orders", 2);
    let member = bench.join("billing", &["orders"]);
    let owned = owned(&member);
    let place = |at: usize, offset: u64| (PartitionId::of(&owned[at].log), owned[at].epoch, offset);
    member.commit([place(0, 10)], None).unwrap();
    let end = bench.end_offset();
    member.commit([place(0, 10)], None).unwrap();
    member.commit([], None).unwrap();
    assert_eq!(bench.end_offset(), end);
    member.commit([place(0, 10), place(1, 7)], Some(Durability::Synced)).unwrap();
    assert_eq!(bench.end_offset(), end + 1);
    assert_eq!(bench.groups.partition.durable_offset(), end + 1);
    for offsets in [[5, 3], [4, 3], [3, 5], [7, 6]] {
        member.commit(offsets.map(|offset| place(0, offset)), None).unwrap();
        assert_eq!(member.committed(place(0, 0).0), Some(offsets[1]), "{offsets:?}");
    }
    bench.assert_folded("");
}

#[test]
fn who_does_not_poll_is_expelled_and_may_come_back() {
    let bench = Bench::new();
    let orders = bench.topic("orders", 4);
    append(&orders, 0, 3);
    let latest = |log: &Arc<PartitionLog>| Ok(log.end_offset());
    let polls = bench.join("billing", &["orders"]);
    let mut lazy = bench.try_join("billing", &["orders"], Duration::from_millis(1), &latest).unwrap();
    release(&polls);
    let before = owned(&lazy);
    assert_eq!(before.len(), 2);
    let polling = lazy.polling();
    bench.groups.run();
    let version = lazy.version();
    drop(polling);
    // The housekeeper's own visit.
    let start = Instant::now();
    while lazy.view().is_some() {
        assert!(start.elapsed() < LONG, "never expelled");
        thread::yield_now();
    }
    assert_ne!(lazy.version(), version);
    assert_eq!(kept(&polls).len(), 4);
    assert_eq!(commit(&lazy, &before[0], 1).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(bench.describe("billing").members.len(), 1);

    let id = lazy.id();
    let _polling = lazy.polling();
    lazy.rejoin(&latest).unwrap();
    assert_ne!(lazy.id(), id);
    release(&polls);
    assert_eq!(owned(&lazy).len(), 2);
    let id = lazy.id();
    lazy.rejoin(&latest).unwrap();
    assert_eq!(lazy.id(), id, "it is a member");
    bench.assert_folded("");
}

#[test]
fn a_group_begins_where_its_first_consumer_says_and_goes_on_there_as_long_as_it_lives() {
    let mut bench = Bench::new();
    let orders = bench.topic("orders", 2);
    append(&orders, 0, 3);
    append(&orders, 1, 3);
    let latest = |log: &Arc<PartitionLog>| Ok(log.end_offset());
    let starts = |member: &Member| owned(member).iter().map(|owned| owned.start).collect::<Vec<_>>();
    let first = bench.try_join("billing", &["orders"], LONG, &latest).unwrap();
    assert_eq!(starts(&first), [3, 3]);
    append(&orders, 1, 3);
    let second = bench.try_join("billing", &["orders"], LONG, &|_| panic!("the group has begun")).unwrap();
    release(&first);
    assert_eq!(starts(&second), [3], "not at what is the latest now");
    drop(first);
    assert_eq!(starts(&second), [3, 3]);
    commit(&second, &owned(&second)[0], 2).unwrap();
    drop(second);

    // Another life: where nothing was committed, it begins anew.
    let third = bench.try_join("billing", &["orders"], LONG, &latest).unwrap();
    assert_eq!(starts(&third), [2, 6]);
    bench.reopen(false);
    append(&bench.topics.get("orders").unwrap(), 1, 1);
    let fourth = bench.try_join("billing", &["orders"], LONG, &latest).unwrap();
    assert_eq!(starts(&fourth), [2, 7]);
    drop(third);
    assert_eq!(owned(&fourth).len(), 2, "a member of an earlier opening is nobody here");
}

#[test]
fn an_expelled_lone_consumer_comes_back_to_where_it_began() {
    let bench = Bench::new();
    let orders = bench.topic("orders", 1);
    let latest = |log: &Arc<PartitionLog>| Ok(log.end_offset());
    let mut member = bench.try_join("billing", &["orders"], Duration::from_millis(1), &latest).unwrap();
    append(&orders, 0, 5);
    let start = Instant::now();
    while member.view().is_some() {
        assert!(start.elapsed() < LONG, "never expelled");
        thread::yield_now();
    }
    let _polling = member.polling();
    member.rejoin(&latest).unwrap();
    assert_eq!(owned(&member)[0].start, 0);
}

#[test]
fn where_a_group_can_not_begin_nobody_joins() {
    let bench = Bench::new();
    bench.topic("orders", 2);
    let end = bench.end_offset();
    let fails = |_: &Arc<PartitionLog>| Err(crate::error::Repr::Closed.into());
    assert_eq!(bench.try_join("billing", &["orders"], LONG, &fails).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(bench.end_offset(), end, "nothing was appended");
    assert!(bench.groups.names().is_empty());
    assert!(bench.groups.state.lock().live.is_empty());
}

#[test]
fn topics_that_come_later_are_given_out_and_begin_at_their_start() {
    let bench = Bench::new();
    bench.topic("orders.eu", 2);
    let latest = |log: &Arc<PartitionLog>| Ok(log.end_offset());
    let first = bench.try_join("billing", &["orders.*"], LONG, &latest).unwrap();
    let other = bench.try_join("billing", &["other"], LONG, &latest).unwrap();
    let (version, generation) = (other.version(), other.view().unwrap().generation);
    bench.topic("unrelated", 1);
    assert_eq!((other.version(), other.view().unwrap().generation), (version, generation), "nobody wants it");
    let created = bench.topics.create("orders.us", TopicConfig::with_partitions(1), &|_| Ok(())).unwrap();
    append(&created, 0, 5);
    // One who joins in this very moment doesn't make the group skip what it would have had.
    let second = bench.try_join("billing", &["orders.us"], LONG, &latest).unwrap();
    bench.follow_topics();
    let mut all: Vec<Owned> = [&first, &second].into_iter().flat_map(owned).collect();
    all.retain(|owned| &*owned.log.spec().topic == "orders.us");
    assert_eq!(all.iter().map(|owned| owned.start).collect::<Vec<_>>(), [0]);
    // What was there before its first member came is that member's to say.
    append(&bench.topic("more", 1), 0, 5);
    let third = bench.try_join("billing", &["more"], LONG, &latest).unwrap();
    assert_eq!(owned(&third)[0].start, 5);
}

#[test]
fn partitions_that_were_added_while_nobody_was_there_begin_at_their_start() {
    let bench = Bench::new();
    let orders = bench.topic("orders", 1);
    let latest = |log: &Arc<PartitionLog>| Ok(log.end_offset());
    drop(bench.try_join("billing", &["orders"], LONG, &latest).unwrap());
    let more = bench.topic("more", 1).partition(0).unwrap().clone();
    append(&orders, 0, 2);
    more.append(&Record::new("x"), None).unwrap();
    // Stands for a partition 1.
    orders.partitions.add(vec![more]);
    let again = bench.try_join("billing", &["orders"], LONG, &latest).unwrap();
    assert_eq!(owned(&again).iter().map(|owned| owned.start).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn groups_are_listed_described_reset_and_deleted() {
    let mut bench = Bench::new();
    let orders = bench.topic("orders", 2);
    assert_eq!(bench.groups.describe("billing").unwrap_err().kind(), ErrorKind::UnknownGroup);
    assert_eq!(bench.groups.reset("billing", &[]).unwrap_err().kind(), ErrorKind::UnknownGroup);
    assert_eq!(bench.groups.delete("billing").unwrap_err().kind(), ErrorKind::UnknownGroup);
    let member = bench.join("billing", &["orders", "more.*"]);
    bench.join("shipping", &["orders"]);
    commit(&member, &owned(&member)[1], 4).unwrap();
    assert_eq!(bench.groups.names(), ["billing", "shipping"]);
    let place = |partition| PartitionId { topic_id: orders.id, partition };
    let described = bench.describe("billing");
    assert_eq!((described.generation, &described.committed[..]), (1, &[(place(1), 4)][..]));
    assert_eq!(described.members[0].id, member.id());
    assert_eq!(described.members[0].subscription, ["orders", "more.*"]);
    assert_eq!(described.members[0].assignment, [place(0), place(1)]);

    assert_eq!(bench.groups.reset("billing", &[(place(0), 1)]).unwrap_err().kind(), ErrorKind::GroupInUse);
    assert_eq!(bench.groups.delete("billing").unwrap_err().kind(), ErrorKind::GroupInUse);
    drop(member);
    bench.groups.reset("billing", &[(place(0), 1), (place(1), 2)]).unwrap();
    assert_eq!(bench.describe("billing").committed, [(place(0), 1), (place(1), 2)]);
    bench.reopen(true);
    assert_eq!(bench.describe("billing").committed, [(place(0), 1), (place(1), 2)]);
    assert_eq!(owned(&bench.join("billing", &["orders"]))[0].committed, Some(1));
    bench.groups.delete("billing").unwrap();
    assert_eq!(bench.groups.names(), ["shipping"]);
    bench.reopen(true);
    assert_eq!(bench.groups.names(), ["shipping"]);
    assert_eq!(owned(&bench.join("billing", &["orders"]))[0].committed, None);
}

#[test]
fn a_deleted_topic_is_forgotten() {
    let bench = Bench::new();
    let orders = bench.topic("orders", 2);
    bench.topic("other", 1);
    let member = bench.join("billing", &["orders", "other"]);
    for owned in owned(&member) {
        commit(&member, &owned, 4).unwrap();
    }
    let version = member.version();
    bench.groups.forget_topic(orders.id).unwrap();
    assert_ne!(member.version(), version);
    assert_eq!(owned(&member).len(), 1);
    assert_eq!(bench.describe("billing").committed.len(), 1);
    bench.assert_folded("");
}

#[test]
fn members_of_a_killed_process_are_dead() {
    let mut bench = Bench::new();
    bench.topic("orders", 4);
    let killed = bench.join("billing", &["orders"]);
    let old = owned(&killed);
    commit(&killed, &old[0], 3).unwrap();
    bench.reopen(false);
    assert!(bench.describe("billing").members.is_empty());
    bench.groups.reset("billing", &[(PartitionId::of(&old[0].log), 2)]).unwrap();
    let member = bench.join("billing", &["orders"]);
    let new = owned(&member);
    assert_eq!(new.len(), 4);
    assert!(new.iter().all(|owned| owned.epoch == 2));
    assert_eq!(new[0].committed, Some(2));
    assert_eq!(member.view().unwrap().generation, 2);
    assert_eq!(bench.describe("billing").members.len(), 1);
}

#[test]
fn nobody_joins_a_closed_log_and_leaving_it_is_fine() {
    let bench = Bench::new();
    bench.topic("orders", 1);
    let mut member = bench.join("billing", &["orders"]);
    let begin = |_: &Arc<PartitionLog>| Ok(0);
    bench.topics.close().unwrap();
    bench.groups.close();
    assert_eq!(bench.try_join("billing", &["orders"], LONG, &begin).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(commit(&member, &owned(&member)[0], 1).unwrap_err().kind(), ErrorKind::Closed);
    member.rejoin(&begin).unwrap();
    drop(member);
}

#[test]
fn a_leave_that_can_not_be_recorded_is_made_up_for() {
    let bench = Bench::new();
    bench.topic("orders", 2);
    let (stays, leaves) = (bench.join("billing", &["orders"]), bench.join("billing", &["orders"]));
    release(&stays);
    let places = owned(&leaves);
    bench.storage.fail_if(|_, _| Some(io::ErrorKind::StorageFull));
    bench.groups.partition.roll().unwrap_err();
    // Whatever is appended next begins a segment, which can't be done.
    bench.groups.state.lock().offsets.forget_order();
    drop(leaves);
    assert_eq!(bench.describe("billing").members.len(), 1);
    assert_eq!(kept(&stays).len(), 1, "who owns what is decided by what is recorded");
    bench.assert_folded("");
    bench.storage.heal();
    let start = Instant::now();
    while kept(&stays).len() < 2 {
        assert!(start.elapsed() < LONG, "never made up for");
        thread::yield_now();
    }
    assert!(owned(&stays).iter().any(|owned| owned.epoch > places[0].epoch));
    bench.assert_folded("");
}

#[test]
fn a_group_nobody_is_left_of_is_settled_all_the_same() {
    let bench = Bench::new();
    bench.topic("orders", 2);
    let member = bench.join("billing", &["orders"]);
    bench.storage.fail_if(|_, _| Some(io::ErrorKind::StorageFull));
    bench.groups.state.lock().offsets.forget_order();
    drop(member);
    bench.storage.heal();
    bench.groups.delete("billing").unwrap();
    let start = Instant::now();
    while !bench.groups.state.lock().live.is_empty() {
        assert!(start.elapsed() < LONG, "never settled");
        thread::yield_now();
    }
    assert!(bench.groups.names().is_empty(), "it stays deleted");
    bench.assert_folded("");
}

#[test]
fn the_largest_subscription_fits_also_where_an_older_version_made_the_topic() {
    let mut bench = Bench::new();
    let old = TopicConfig::with_partitions(1).segment_bytes(SEGMENT_BYTES).max_record_bytes(4 << 10);
    bench.topics.close().unwrap();
    bench.storage = SimStorage::default();
    bench.storage.create_dir_all(Path::new("/log")).unwrap();
    let env = open_environment(&bench.storage, &bench.flusher);
    let (options, mut report) = (LogOptions::default(), RecoveryReport::default());
    let topics = Topics::open(env, Path::new("/log"), settled(&bench.storage), &options, &mut report).unwrap();
    topics.open_internal(OFFSETS_TOPIC, old, &mut report).unwrap();
    topics.close().unwrap();
    (bench.topics, bench.groups) = open(&bench.storage, &bench.flusher, &bench.housekeeper);

    let group = "g".repeat(249);
    let names: Vec<String> = (0..subscription::MAX_NAMES).map(|i| format!("{i:x>249}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let member = bench.join(&group, &names);
    assert_eq!(bench.describe(&group).members[0].subscription.len(), names.len());
    drop(member);
    bench.assert_folded("");
}

#[test]
fn many_threads_commit_and_none_is_lost() {
    let bench = Bench::new();
    bench.topic("orders", 7);
    let members: Vec<Member> = (0..4).map(|i| bench.join(&format!("group-{i}"), &["orders"])).collect();
    thread::scope(|scope| {
        for member in &members {
            scope.spawn(move || {
                let owned = owned(member);
                for offset in 1..=500 {
                    commit(member, &owned[offset % 7], offset as u64).unwrap();
                }
            });
        }
    });
    for member in &members {
        let committed: Vec<_> = owned(member).iter().map(|owned| owned.committed.unwrap()).collect();
        assert!(committed.iter().all(|offset| *offset > 493), "{committed:?}");
    }
    bench.assert_folded("");
}

/// Every storage operation of a rebalance that begins a segment fails once: what is in memory is what a reopen folds,
/// and once all is well again, everything is given out.
#[test]
fn whatever_fails_in_a_rebalance_memory_and_records_agree() {
    for step in ["join", "leave", "release"] {
        for n in 1.. {
            let mut bench = Bench::new();
            bench.topic("orders", 16);
            let (first, second) = (bench.join("billing", &["orders"]), bench.join("billing", &["orders"]));
            bench.fill_segment();
            bench.groups.state.lock().offsets.forget_order();
            let before = bench.storage.operations();
            bench.storage.fail_nth(n, io::ErrorKind::StorageFull, Repeat::Once);
            let mut third = None;
            match step {
                "join" => {
                    third = bench.try_join("billing", &["orders"], LONG, &|log| Ok(log.start_offset())).ok();
                }
                "leave" => drop(second),
                _ => drop(first.release(revoked(&first))),
            }
            let nothing_failed = bench.storage.operations() - before < n;
            bench.storage.heal();
            bench.assert_folded(&format!("{step}, operation {n}"));
            drop(third);
            if let Err(error) = first.release(revoked(&first)) {
                // A failed sync: the next open mends it.
                assert_eq!(error.kind(), ErrorKind::Poisoned, "{step}, operation {n}");
                let table = bench.table();
                bench.reopen(false);
                assert_eq!(bench.table(), table, "{step}, operation {n}");
                assert_eq!(kept(&bench.join("billing", &["orders"])).len(), 16);
                continue;
            }
            let start = Instant::now();
            while bench.groups.state.lock().live.values().any(|live| live.is_unsettled) {
                assert!(start.elapsed() < LONG, "never settled");
                thread::yield_now();
            }
            release(&first);
            let group = bench.describe("billing");
            assert_eq!(group.members.iter().map(|member| member.assignment.len()).sum::<usize>(), 16);
            assert!(revoked(&first).is_empty());
            bench.assert_folded(&format!("{step}, operation {n}, afterwards"));
            if nothing_failed {
                assert!(n > 5, "{step} does nothing that can fail");
                break;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Which of the subscriptions.
    Join(usize),
    Leave(usize),
    Release(usize),
    Commit(usize, u64),
    CreateTopic,
    Reset(u64),
    Kill,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3usize).prop_map(Step::Join),
        2 => any::<usize>().prop_map(Step::Leave),
        6 => any::<usize>().prop_map(Step::Release),
        6 => (any::<usize>(), 0..9u64).prop_map(|(member, offset)| Step::Commit(member, offset)),
        1 => Just(Step::CreateTopic),
        1 => (0..9u64).prop_map(Step::Reset),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

/// What the members know of is what there is: everything is owned once, by one who subscribes.
fn check(bench: &Bench, members: &[Member]) {
    bench.assert_folded("");
    let mut owners = BTreeMap::new();
    for member in members {
        for owned in owned(member) {
            assert!(owners.insert(PartitionId::of(&owned.log), member.id()).is_none(), "two owners");
        }
    }
    if let Ok(group) = bench.groups.describe("billing") {
        assert_eq!(group.members.len(), members.len());
        let described = group.members.iter();
        let described = described.flat_map(|member| member.assignment.iter().map(|place| (*place, member.id)));
        assert_eq!(described.collect::<BTreeMap<_, _>>(), owners);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_partition_has_one_owner_and_a_reopen_finds_it(
        steps in prop::collection::vec(step(), 1..50),
    ) {
        const SUBSCRIPTIONS: [&[&str]; 3] = [&["orders.#"], &["orders.0", "other"], &["#"]];
        let mut bench = Bench::new();
        bench.topic("orders.0", 5);
        bench.topic("other", 2);
        let mut members: Vec<Member> = Vec::new();
        let mut created = 0;
        for step in steps {
            let count = members.len().max(1);
            match step {
                Step::Join(which) => members.push(bench.join("billing", SUBSCRIPTIONS[which])),
                Step::Leave(at) => drop((!members.is_empty()).then(|| members.remove(at % count))),
                Step::Release(at) => members.get(at % count).into_iter().for_each(release),
                Step::Commit(at, offset) => {
                    for owned in members.get(at % count).into_iter().flat_map(owned) {
                        commit(&members[at % count], &owned, offset).unwrap();
                    }
                }
                Step::CreateTopic => {
                    created += 1;
                    bench.topic(&format!("orders.{created}"), 2);
                }
                Step::Reset(offset) => {
                    let place = PartitionId { topic_id: bench.topics.get("other").unwrap().id, partition: 1 };
                    let known = bench.groups.names().contains(&"billing".to_owned());
                    let outcome = bench.groups.reset("billing", &[(place, offset)]).map_err(|error| error.kind());
                    let expected = match (members.is_empty(), known) {
                        (false, _) => Err(ErrorKind::GroupInUse),
                        (true, false) => Err(ErrorKind::UnknownGroup),
                        (true, true) => Ok(()),
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::Kill => {
                    bench.reopen(false);
                    members.clear();
                }
                Step::Close => {
                    bench.reopen(true);
                    members.clear();
                }
            }
            check(&bench, &members);
        }
        // Once all have released, everybody has what the assignor says.
        for _ in 0..2 {
            members.iter().for_each(release);
        }
        prop_assert!(members.iter().all(|member| revoked(member).is_empty()));
    }
}
