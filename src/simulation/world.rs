//! A log that runs on a simulated machine, beside the model of what was done to it.
//!
//! # Invariants
//! - What an operation may do is a possibility in the model before it begins; see [`model`](super::model).
//! - An error is a violation, unless a fault was asked for that may cause it. So is a panic.
//! - Every operation that ends holds what the log says against the model.
//!
//! # Thread safety
//! One thread has a world.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    check::{Expected, check, check_verified, read_all},
    explore::{Explorer, Live, Origin, hook},
    groups::Member,
    model::{Loss, Model},
    plan::{CONSUMERS, End, Failure, Level, Operation, Settings, Step, TOPICS},
};
use crate::{
    background::Background,
    clock::Clock,
    config::{Durability, LogOptions, SEGMENT_BYTES_MIN},
    error::{Error, ErrorKind},
    log::Log,
    random::Sequence,
    storage::{
        EntryKind, Storage,
        sim::{Crash, Fault, Repeat, SimStorage, WillFail},
    },
    topic::Topic,
};

/// Where the log lies.
const DIR: &str = "/log";

/// Flushes are due whenever a step is taken, never by themselves.
pub(super) const INTERVAL: Durability = Durability::Interval(Duration::from_secs(60 * 60));

/// More than the first step in which space is reserved.
const LARGE_PAGE_BYTES: u64 = 128 << 10;

/// A machine, the log on it, and what must hold.
pub(crate) struct World {
    pub(super) storage: SimStorage,
    pub(super) log: Option<Log>,
    pub(super) consumers: Vec<Option<Member>>,
    pub(super) live: Arc<Live>,
    pub(super) explorer: Arc<Explorer>,
    pub(super) origin: Origin,
    pub(super) trouble: Trouble,
    /// Something had failed before the crash that left what is being opened.
    pub(super) was_troubled: bool,
}

/// What was asked for that makes operations fail.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trouble {
    /// Operations on files failed, or may have, since the log was opened: partitions may be poisoned.
    failed: bool,
    /// Operations on files may fail now.
    armed: bool,
    /// The disk is full, or soon.
    full: bool,
    /// What might fail when the operation that is done began.
    fails: WillFail,
}

impl Trouble {
    /// Whether anything may have failed.
    pub(super) fn is_near(self) -> bool {
        self.failed || self.armed || self.full
    }
}

impl World {
    /// A machine without a log, or with what a crash has left of one.
    pub(crate) fn new(storage: SimStorage, model: Model, origin: Origin, explorer: Arc<Explorer>) -> Self {
        let consumers = (0..CONSUMERS).map(|_| None).collect();
        let live = Arc::new(Live::new(model));
        Self { storage, log: None, consumers, live, explorer, origin, trouble: Trouble::default(), was_troubled: false }
    }

    /// A machine where nothing was done yet.
    pub(crate) fn empty(settings: Settings, explorer: Arc<Explorer>) -> Self {
        let origin = Origin { settings, now_ms: Arc::new(AtomicI64::new(1_700_000_000_000)), depth: 0 };
        Self::new(SimStorage::tracked(), Model::default(), origin, explorer)
    }

    /// An operation with this seed begins. Crashes in it are looked into, or not.
    pub(crate) fn watch(&mut self, seed: u64, is_watched: bool) {
        self.live.begin(seed, is_watched, self.trouble.is_near() || self.was_troubled);
        self.trouble.fails = self.storage.will_fail();
        self.storage.on_step(is_watched.then(|| hook(&self.explorer, &self.live, &self.origin)));
    }

    /// Opens the log, and holds what is there against the model.
    pub(crate) fn open(&mut self, expected: Expected) -> Result<(), String> {
        let trouble = self.trouble;
        self.live.set_opening(Some(expected.loss));
        (self.trouble.fails, self.trouble.failed) = (self.storage.will_fail(), false);
        let mut outcome = self.try_open();
        if let Err(error) = &outcome {
            // Nothing was damaged: however the open fails, it says that an operation did, or that there is no space.
            self.tolerate("opening", error)?;
            self.storage.heal();
            outcome = self.try_open();
        }
        let log = outcome.map_err(|error| format!("opening: {error}"))?;
        self.storage.heal();
        let troubled_open = trouble.armed || trouble.full;
        let troubled = expected.troubled || trouble.failed;
        self.trouble = Trouble { failed: troubled_open, ..Trouble::default() };
        let model = self.model(|model| model.clone());
        let found = check(&log, &model, Expected { troubled, troubled_open, ..expected })?;
        self.model(|model| *model = found);
        self.live.set_opening(None);
        self.log = Some(log);
        self.was_troubled = false;
        self.note_logs();
        self.violation()?;
        if expected.loss == Loss::Unflushed {
            self.explorer.look_again(&self.live, &self.origin)?;
        }
        Ok(())
    }

    /// Removes what the log could make anew: behind a kill, it then has to look for its end. (Where a sync may have failed,
    /// the control page is more than a cache.)
    pub(crate) fn lose_caches(&self) -> io::Result<()> {
        for folder in self.storage.list(Path::new(DIR))? {
            let folder = Path::new(DIR).join(folder.name);
            if self.storage.entry_kind(&folder)? != Some(EntryKind::Dir) {
                continue;
            }
            for entry in self.storage.list(&folder)? {
                let path = folder.join(entry.name);
                if path.extension().is_some_and(|it| it == "state" || it == "index" || it == "timeindex") {
                    self.storage.remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn try_open(&self) -> Result<Log, Error> {
        let settings = self.origin.settings;
        let options = LogOptions { background: Background::Stepped, ..LogOptions::default() };
        let options = options.segment_bytes(SEGMENT_BYTES_MIN).durability(durability(settings.level));
        let mut options = options.positional_appends(settings.positional);
        // Some logs are stored into only behind what a flush leaves behind, in pages larger than what is reserved at first.
        self.storage.set_page_limit(if settings.few_files { LARGE_PAGE_BYTES } else { 1 });
        if settings.few_files {
            options.mapped_after = 300;
            options = options.max_open_files(1).max_open_segments(1);
        }
        let clock = Clock::Manual(self.origin.now_ms.clone());
        options.open_on(Path::new(DIR), Arc::new(self.storage.clone()), clock)
    }

    /// Does one operation; what is wrong, if something is.
    pub(crate) fn perform(&mut self, step: &Step, is_watched: bool) -> Result<(), String> {
        self.watch(step.seed, is_watched);
        self.explorer.states().operations.fetch_add(1, Ordering::Relaxed);
        self.origin.now_ms.fetch_add((step.seed % 3) as i64, Ordering::Relaxed);
        let choices = &mut Sequence::new(step.seed);
        let outcome = match step.operation {
            Operation::StepFlusher => self.step_flusher(),
            Operation::StepHousekeeper => self.retain(|log| {
                // It stops in between where it takes long.
                (0..4).for_each(|_| log.step_housekeeper());
                Ok(())
            }),
            Operation::EnforceRetention => self.retain(|log| log.enforce_retention().map(drop)),
            Operation::Clock { milliseconds } => {
                self.origin.now_ms.fetch_add(milliseconds, Ordering::Relaxed);
                Ok(())
            }
            Operation::Verify => self.verify(),
            Operation::Reopen => self.reopen(),
            Operation::Crash { end } => self.crash(end, choices),
            Operation::Fail { .. } | Operation::FailSyncs { .. } | Operation::Fill { .. } | Operation::Heal => {
                self.make_trouble(step.operation);
                Ok(())
            }
            Operation::CreateTopic { .. }
            | Operation::EnsureTopic { .. }
            | Operation::DeleteTopic { .. }
            | Operation::AlterTopic { .. }
            | Operation::IncreasePartitions { .. } => self.administer(step.operation, choices),
            Operation::Append { .. }
            | Operation::AppendBatch { .. }
            | Operation::AppendIf { .. }
            | Operation::Flush { .. }
            | Operation::WaitDurable { .. }
            | Operation::DeleteRecords { .. } => self.work(step.operation, choices).and_then(|()| self.read_back()),
            _ => self.consume(step.operation, choices),
        };
        outcome.and_then(|()| self.violation())
    }

    /// What was found wrong in a crash of this world.
    fn violation(&self) -> Result<(), String> {
        self.live.violation().map_or(Ok(()), Err)
    }

    /// Looks at the model, or changes it.
    pub(super) fn model<T>(&self, body: impl FnOnce(&mut Model) -> T) -> T {
        self.live.model(&self.explorer, body)
    }

    pub(super) fn log(&self) -> Result<Log, String> {
        self.log.clone().ok_or_else(|| "the log isn't open".into())
    }

    /// The topic of that number, if it is there.
    pub(super) fn topic(&self, number: u8) -> Option<Topic> {
        let topic = self.log.as_ref()?.topic(topic_name(number)).ok()?;
        self.model(|model| model.topic(topic_name(number)).is_some()).then_some(topic)
    }

    /// An error that was asked for is fine: of an operation on files that may have failed just now, or of a partition
    /// that takes nothing since one did.
    pub(super) fn tolerate(&self, what: &str, error: &Error) -> Result<(), String> {
        let Trouble { failed, full, fails, .. } = self.trouble;
        let is_fine = match error.kind() {
            ErrorKind::Io => fails.anything(),
            ErrorKind::StorageFull => fails.anything() || full,
            ErrorKind::Poisoned => failed,
            _ => false,
        };
        if is_fine { Ok(()) } else { Err(format!("{what}: {error} ({:?})", error.kind())) }
    }

    /// The same, of what only reads. It goes on where no sync succeeds, no space is left, or nothing more is appended.
    pub(super) fn tolerate_reading(&self, what: &str, error: &Error) -> Result<(), String> {
        let kind = error.kind();
        if matches!(kind, ErrorKind::Io | ErrorKind::StorageFull) && self.trouble.fails.reads() {
            return Ok(());
        }
        Err(format!("{what}: {error} ({kind:?})"))
    }

    /// Where something failed, what was acknowledged can be read all the same, and nothing else.
    fn read_back(&self) -> Result<(), String> {
        if !self.trouble.is_near() || self.storage.will_fail().reads() {
            return Ok(());
        }
        for topic in (0..TOPICS).filter_map(|number| self.topic(number)) {
            for number in 0..topic.partitions() {
                let partition = topic.partition(number).map_err(|error| error.to_string())?;
                let (found, start) = (read_all(&partition), partition.start_offset());
                let (name, found) = (topic.name(), found.map_err(|what| format!("{}-{number}: {what}", topic.name()))?);
                let model = self.model(|model| model.partition(name, number).cloned()).unwrap_or_default();
                let known = model.entries.iter().filter(|entry| entry.offset >= start);
                let known = known.map(|entry| (entry.offset, &*entry.content));
                if !known.eq(found.iter().map(|found| (found.offset, &found.content))) {
                    return Err(format!("{name}-{number}: behind a failure, what is read isn't what was appended"));
                }
            }
        }
        Ok(())
    }

    /// Tells the hook which partitions are open.
    pub(super) fn note_logs(&self) {
        let mut logs = Vec::new();
        for number in 0..TOPICS {
            let Some(topic) = self.topic(number) else { continue };
            let partitions = (0..topic.partitions()).filter_map(|number| topic.partition(number).ok());
            logs.extend(partitions.map(|it| (topic_name(number).to_owned(), it.number(), it.log().clone())));
        }
        self.live.set_logs(logs);
    }

    fn verify(&self) -> Result<(), String> {
        let log = self.log()?;
        if self.trouble.is_near() {
            return log.verify().map_or_else(|error| self.tolerate_reading("verifying", &error), |_| Ok(()));
        }
        check_verified(&log, &self.model(|model| model.clone()))
    }

    fn step_flusher(&mut self) -> Result<(), String> {
        self.log()?.step_flusher();
        Ok(())
    }

    /// Closes the log and opens it again.
    fn reopen(&mut self) -> Result<(), String> {
        self.consumers.iter_mut().for_each(|consumer| drop(consumer.take()));
        let log = self.log()?;
        let outcome = log.close();
        self.log = None;
        drop(log);
        self.live.set_logs(Vec::new());
        let clean = outcome.is_ok();
        if let Err(error) = outcome {
            self.tolerate("closing", &error)?;
        } else {
            self.model(Model::flushed);
        }
        self.open(Expected { loss: Loss::Nothing, clean, troubled: false, troubled_open: false })
    }

    /// Ends the process, and goes on with what it leaves.
    fn crash(&mut self, end: End, choices: &mut Sequence) -> Result<(), String> {
        let (crash, loss) = match end {
            End::Kill => (Crash::Kill, Loss::Nothing),
            End::Power => (Crash::Power, Loss::Unflushed),
            End::Remount => (Crash::Remount, Loss::Unflushed),
        };
        let image = self.storage.crash(crash, choices);
        self.live.set_logs(Vec::new());
        self.storage.on_step(None);
        self.consumers.iter_mut().for_each(|consumer| drop(consumer.take()));
        self.log = None;
        self.storage = image;
        let troubled = self.trouble.is_near();
        self.trouble = Trouble::default();
        self.storage.on_step(Some(hook(&self.explorer, &self.live, &self.origin)));
        self.open(Expected { loss, clean: false, troubled, troubled_open: false })
    }

    fn make_trouble(&mut self, operation: Operation) {
        match operation {
            Operation::Fail { nth, failure, forever, reads } => {
                let repeat = if forever { Repeat::Forever } else { Repeat::Once };
                match (reads, failure) {
                    (true, Failure::Interrupted) => {
                        self.storage.fail_nth_reading(nth, io::ErrorKind::Interrupted, repeat)
                    }
                    (true, _) => self.storage.fail_nth_reading(nth, io::ErrorKind::Other, repeat),
                    (false, Failure::Full) => self.storage.fail_nth(nth, io::ErrorKind::StorageFull, repeat),
                    (false, Failure::Interrupted) => self.storage.fail_nth(nth, io::ErrorKind::Interrupted, repeat),
                    (false, Failure::Device) => self.storage.fail_nth(nth, io::ErrorKind::Other, repeat),
                    (false, Failure::Short) => self.storage.fail_nth(nth, Fault::Short(io::ErrorKind::Other), repeat),
                }
                (self.trouble.armed, self.trouble.failed) = (true, true);
            }
            Operation::FailSyncs { count } => {
                self.storage.fail_syncs(count);
                (self.trouble.armed, self.trouble.failed) = (true, true);
            }
            Operation::Fill { bytes } => {
                self.storage.limit_space(Some(self.storage.used_space() + bytes));
                self.trouble.full = true;
            }
            _ => {
                self.storage.heal();
                (self.trouble.armed, self.trouble.full) = (false, false);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The machine keeps the hook, the hook what it watches, and that the machine.
        self.storage.on_step(None);
        self.live.set_logs(Vec::new());
    }
}

/// The name of a topic. Two of them differ by a hyphen and a number, as partitions do.
pub(super) fn topic_name(number: u8) -> &'static str {
    ["orders", "orders-1", "payments"][usize::from(number) % 3]
}

pub(super) fn durability(level: Level) -> Durability {
    match level {
        Level::Written => Durability::Written,
        Level::Interval => INTERVAL,
        Level::Synced => Durability::Synced,
    }
}
