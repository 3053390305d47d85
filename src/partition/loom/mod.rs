//! Models of what threads do to a partition at the same time: the real code, in every order that `loom` finds, and with
//! every value that a load may see in the memory model of C++ (see [`sync`](crate::sync)).
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir target/loom loom::
//! ```
//!
//! A model is a function that is run once for each order. Its sleepers look at the end of the log as consumers do. They
//! don't sleep, unless the model says so: that nobody wakes one is told from its ticket, or from its task.
//!
//! A model that can't fail proves nothing: most are run again with a [`Mistake`], and have to find it then.
//!
//! # Bounds
//! Threads are interrupted at most so many times in one run ([`PREEMPTIONS`], `LOOM_MAX_PREEMPTIONS`), beside where they
//! wait or end. What precedes a model (the partition is opened, something appended) is run in one order.

mod durable;
mod publish;
mod reserve;
mod roll;
mod watch;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, AtomicUsize},
    },
    task::{Wake, Waker},
};

use super::{Environment, Flusher, OpenFiles, PartitionLog, PartitionSpec, Settings, SettingsValues};
use crate::{
    background::Background,
    clock::Clock,
    config::Durability,
    housekeeper::Housekeeper,
    partition::{Batch, Cursor},
    record::Record,
    storage::sim::SimStorage,
    sync::{Ordering, model::Mistake},
};

/// See the module's documentation.
const PREEMPTIONS: usize = 4;

/// The most operations of a model's threads in one run.
const MAX_BRANCHES: usize = 20_000;

/// For the code that opens a partition: the default is enough for none.
const STACK_WORDS: usize = 64 << 10;

/// Runs a model in every order; prints how many there were, also where one of them failed.
fn check(name: &'static str, model: impl Fn() + Send + Sync + 'static) {
    let runs = Runs { name, count: Arc::default() };
    let (count, model) = (runs.count.clone(), Arc::new(model));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = MAX_BRANCHES;
    builder.expect_explicit_explore = true;
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let model = model.clone();
        spawn(move || model()).join().expect("a model that ends");
    });
}

struct Runs {
    name: &'static str,
    count: Arc<AtomicUsize>,
}

impl Drop for Runs {
    fn drop(&mut self) {
        println!("loom_model={} executions={}", self.name, self.count.load(Ordering::Relaxed));
    }
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> loom::thread::JoinHandle<T> {
    loom::thread::Builder::new().stack_size(STACK_WORDS).spawn(body).expect("a thread of the model")
}

/// From here on every order is tried.
fn explore() {
    loom::explore();
}

/// A partition of a log without threads.
struct World {
    partition: Arc<PartitionLog>,
    flusher: Arc<Flusher>,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut SettingsValues)) -> Self {
        let storage = Arc::new(SimStorage::default());
        let flusher = Flusher::new(Background::Stepped);
        let housekeeper = Housekeeper::new(Background::Stepped);
        let env = Environment {
            storage: storage.clone(),
            clock: Clock::Manual(Arc::new(AtomicI64::new(1_700_000_000_000))),
            flusher: flusher.clone(),
            prefaulter: Arc::default(),
            recent_segments: Arc::default(),
            open_files: OpenFiles::new(1000, storage, "/no such file".into(), housekeeper),
            figures: Default::default(),
            positional_appends: false,
            mapped_after: 0,
        };
        let mut values = SettingsValues {
            durability: Durability::Written,
            segment_bytes: 64 << 10,
            segment_ms: None,
            max_record_bytes: 1 << 20,
            retention_ms: None,
            retention_bytes: None,
        };
        change(&mut values);
        let settings = Arc::new(Settings::new(values));
        let spec = PartitionSpec { topic: "orders".into(), topic_id: 0x1234, number: 3, settings };
        let opened = PartitionLog::open(&env, Path::new("/data/orders-3"), spec);
        Self { partition: opened.expect("a new partition").0, flusher }
    }

    /// In a thread of its own.
    fn spawn<T: Send + 'static>(
        &self,
        body: impl FnOnce(&Arc<PartitionLog>) -> T + Send + 'static,
    ) -> loom::thread::JoinHandle<T> {
        let partition = self.partition.clone();
        spawn(move || body(&partition))
    }
}

fn append(partition: &Arc<PartitionLog>, value: &str) -> u64 {
    partition.append(&Record::new(value), None).expect("an append")
}

/// Reads on, up to the end for now.
fn read_on(cursor: &mut Cursor) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(run) = cursor.next_run(4096).expect("sound records") {
        let batch = Batch::new(vec![run]);
        found.extend(
            batch.iter().map(|record| String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()),
        );
    }
    found
}

/// A task, which counts how often it is woken. Of what wakes it the model sees the order through locks and atomics.
#[derive(Default)]
struct Task(AtomicU32);

impl Task {
    fn new() -> (Arc<Self>, Waker) {
        let task = Arc::<Self>::default();
        (task.clone(), Waker::from(task))
    }

    fn is_woken(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
