//! Every record is delivered once, whatever comes and goes: books are kept of what each consumer got.

use super::*;

/// Each partition as one sees it who keeps the books of the whole group.
#[derive(Default)]
struct Books {
    /// Which consumer has it.
    owner: Option<usize>,
    /// The next offset that has to come.
    next: u64,
}

/// The group's books, by topic and partition.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<(String, u32), Books>>);

impl Ledger {
    fn rebalanced(&self, consumer: usize, rebalance: &mut Rebalance<'_>) -> tidelog::Result<()> {
        let mut books = self.0.lock().unwrap();
        for place in rebalance.partitions() {
            let books = books.entry(place.clone()).or_default();
            match rebalance.kind() {
                RebalanceKind::Assigned => {
                    assert_eq!(books.owner, None, "{place:?} has an owner");
                    assert_eq!(rebalance.position(&place.0, place.1)?, books.next, "{place:?}");
                    books.owner = Some(consumer);
                }
                _ => assert_eq!(books.owner.take(), Some(consumer), "{place:?}"),
            }
        }
        if rebalance.kind() == RebalanceKind::Revoked { rebalance.commit() } else { Ok(()) }
    }

    fn delivered(&self, consumer: usize, batch: &Batch) {
        let mut books = self.0.lock().unwrap();
        for record in batch {
            let place = (record.topic().to_owned(), record.partition());
            let books = books.get_mut(&place).expect("nothing comes of a partition that wasn't assigned");
            assert_eq!(books.owner, Some(consumer), "{place:?}");
            assert_eq!(record.offset(), books.next, "{place:?}");
            books.next += 1;
        }
    }

    fn total(&self) -> u64 {
        self.0.lock().unwrap().values().map(|books| books.next).sum()
    }
}

/// A consumer of all `orders`, old and new, that keeps the group's books.
fn open_with_books(log: &Log, ledger: &Arc<Ledger>, number: usize) -> Consumer {
    let ledger = ledger.clone();
    let builder = log.consumer("billing").topic_pattern("orders.#").max_poll_records(50);
    builder.on_rebalance(move |rebalance| ledger.rebalanced(number, rebalance)).open().unwrap()
}

/// Threads append, and consumers come and go; each record is delivered once, in order, to the owner of its partition.
#[test]
fn every_record_is_delivered_once_while_consumers_come_and_go() {
    const PARTITIONS: u32 = 16;
    const RECORDS: u64 = 4_000;
    let log = log();
    topic(&log, "orders", PARTITIONS);
    let (ledger, stop, opened) = (Arc::<Ledger>::default(), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for writer in 0..2 {
            let log = log.clone();
            scope.spawn(move || {
                let orders = log.topic("orders").unwrap();
                for i in 0..RECORDS {
                    orders.append(Record::new("x").partition((i * 7 + writer) as u32 % PARTITIONS)).unwrap();
                    if i % 16 == 0 {
                        thread::sleep(Duration::from_micros(300));
                    }
                }
            });
        }
        for lane in 0..3 {
            let (log, ledger, stop, opened) = (log.clone(), ledger.clone(), &stop, &opened);
            scope.spawn(move || {
                for life in 0.. {
                    let number = opened.fetch_add(1, Ordering::SeqCst);
                    let mut consumer = open_with_books(&log, &ledger, number);
                    for _ in 0..20 + 17 * lane + 5 * life {
                        let batch = consumer.poll(Duration::from_millis(2)).unwrap();
                        ledger.delivered(number, &batch);
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                    // Tells the callback, which commits.
                    consumer.close().unwrap();
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        let start = Instant::now();
        while ledger.total() < 2 * RECORDS && start.elapsed() < LONG {
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(ledger.total(), 2 * RECORDS);
    assert!(opened.load(Ordering::SeqCst) > 6, "hardly anybody came and went");
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Close(usize),
    Poll(usize),
    Append(u32, u64),
    /// A topic or partitions that come later.
    CreateTopic,
    RaisePartitions,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Open),
        2 => any::<usize>().prop_map(Step::Close),
        12 => any::<usize>().prop_map(Step::Poll),
        6 => (any::<u32>(), 1..70u64).prop_map(|(partition, count)| Step::Append(partition, count)),
        1 => Just(Step::CreateTopic),
        1 => Just(Step::RaisePartitions),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The same, step by step, with topics and partitions that come later.
    #[test]
    fn whatever_happens_every_record_is_delivered_once(steps in prop::collection::vec(step(), 1..80)) {
        let log = log();
        let mut topics = vec![topic(&log, "orders", 5)];
        let ledger = Arc::<Ledger>::default();
        let (mut consumers, mut opened, mut appended) = (Vec::<(usize, Consumer)>::new(), 0, 0);
        let poll = |(number, consumer): &mut (usize, Consumer)| {
            let batch = consumer.poll(Duration::ZERO).unwrap();
            ledger.delivered(*number, &batch);
        };
        for step in steps {
            match step {
                Step::Open => {
                    opened += 1;
                    consumers.push((opened, open_with_books(&log, &ledger, opened)));
                }
                Step::Close(at) if !consumers.is_empty() => {
                    let (_, consumer) = consumers.remove(at % consumers.len());
                    consumer.close().unwrap();
                }
                Step::Poll(at) if !consumers.is_empty() => {
                    let count = consumers.len();
                    poll(&mut consumers[at % count]);
                }
                Step::Append(at, count) => {
                    let topic = &topics[at as usize % topics.len()];
                    append(topic, at % topic.partitions(), count);
                    appended += count;
                }
                Step::CreateTopic => topics.push(topic(&log, &format!("orders.{}", topics.len()), 3)),
                Step::RaisePartitions => {
                    topics[0] = log.increase_partitions("orders", topics[0].partitions() + 2).unwrap();
                }
                _ => {}
            }
        }
        consumers.push((0, open_with_books(&log, &ledger, 0)));
        let all: usize = topics.iter().map(|topic| topic.partitions() as usize).sum();
        for _ in 0..1_000 {
            consumers.iter_mut().for_each(poll);
            if ledger.total() == appended && consumers.iter().map(|(_, it)| it.assignment().len()).sum::<usize>() == all {
                break;
            }
        }
        prop_assert_eq!(ledger.total(), appended);
        let consumers: Vec<Consumer> = consumers.into_iter().map(|(_, consumer)| consumer).collect();
        for name in topics.iter().map(Topic::name) {
            let of_topic = |consumer: &Consumer| consumer.assignment().iter().filter(|it| it.0 == name).count();
            let sizes: Vec<usize> = consumers.iter().map(of_topic).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{}: {:?}", name, sizes);
        }
        assert_shared(&consumers, all);
    }
}
