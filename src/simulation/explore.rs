//! Crashes: behind every step of a log, what the next process may find, and whether it finds what it has to.
//!
//! # How
//! A hook of the simulated disk is called behind each operation on files, and behind each piece of a frame that is
//! stored. It makes images of what a killed process, a power cut, or a forced unmount would leave, and opens a log on
//! each that isn't known: with other contents, or with other promises to keep. While that log recovers, and while it
//! goes on, it is crashed again, some levels deep; but there only at some of the steps.
//!
//! # Invariants
//! - What is chosen is drawn from the seed of the operation and the number of the step in it.
//! - A log that is opened on an image draws its ids from another sequence than the one that goes on.
//!
//! # Thread safety
//! One thread has an [`Explorer`] and all that belongs to it; [`States`] are shared by all threads.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    check::Expected,
    model::{Loss, Model},
    plan::{End, Operation, Plan, Settings, Step},
    world::World,
};
use crate::{
    mix::mix64,
    partition::PartitionLog,
    random::{self, Sequence},
    storage::sim::{Crash, SimStorage, Step as StorageStep, StepHook},
};

/// Parts of the set, so that threads seldom wait for each other.
const SHARDS: usize = 64;

/// The crash states that there were: which operation had just been done on which kind of file, and what was left.
pub(crate) struct States {
    shards: Vec<Mutex<HashSet<u64>>>,
    count: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) operations: AtomicU64,
}

impl Default for States {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, count: AtomicU64::new(0), recoveries: AtomicU64::new(0), operations: AtomicU64::new(0) }
    }
}

impl States {
    /// Counts a state, once.
    fn add(&self, state: u64) {
        if self.shards[(state >> 58) as usize].lock().insert(state) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// How much is looked into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Power cuts behind each step.
    pub(crate) cuts: u64,
    /// How often a recovery, or what follows it, is crashed again.
    pub(crate) depth: u32,
    /// In one of so many images the log goes on.
    pub(crate) continue_one_in: u64,
}

/// What looks into the crashes of one plan.
pub(crate) struct Explorer {
    states: Arc<States>,
    bounds: Bounds,
    /// Images that were looked into, with what they were held against.
    checked: Mutex<HashSet<u64>>,
    versions: AtomicU64,
}

impl Explorer {
    pub(crate) fn new(states: Arc<States>, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { states, bounds, checked: Mutex::default(), versions: AtomicU64::new(0) })
    }

    pub(crate) fn states(&self) -> &States {
        &self.states
    }
}

/// What a hook knows of the log that it watches.
#[derive(Default)]
pub(crate) struct Live {
    state: Mutex<State>,
    /// Somebody looks at the partitions, which is a step too: their words lie in a file.
    is_busy: AtomicBool,
}

/// No step is looked into until this is dropped.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    /// `None` if that is so already.
    fn new(live: &'a Live) -> Option<Self> {
        (!live.is_busy.swap(true, Ordering::Relaxed)).then_some(Self(&live.is_busy))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    model: Model,
    /// Changes with the model.
    version: u64,
    logs: Vec<(String, u32, Arc<PartitionLog>)>,
    /// Whether crashes are looked into.
    is_watched: bool,
    /// The seed of the operation that is done, and how many steps it has had.
    seed: u64,
    steps: u64,
    /// Being opened, behind a crash that took so much.
    opening: Option<Loss>,
    /// A file operation failed since the log was opened.
    is_troubled: bool,
    violation: Option<String>,
    /// Taken amid a recovery from a power cut, which has to find what that will have found.
    images: Vec<(SimStorage, Crash, u64)>,
}

impl Live {
    pub(crate) fn new(model: Model) -> Self {
        Self { state: Mutex::new(State { model, ..State::default() }), ..Self::default() }
    }

    /// Looks at the model, or changes it.
    pub(crate) fn model<T>(&self, explorer: &Explorer, body: impl FnOnce(&mut Model) -> T) -> T {
        let _busy = Busy::new(self);
        let mut state = self.state.lock();
        state.version = explorer.versions.fetch_add(1, Ordering::Relaxed);
        body(&mut state.model)
    }

    /// An operation begins. From here on crashes are looked into, or not.
    pub(crate) fn begin(&self, seed: u64, is_watched: bool, is_troubled: bool) {
        let mut state = self.state.lock();
        (state.seed, state.steps, state.is_watched, state.is_troubled) = (seed, 0, is_watched, is_troubled);
    }

    pub(crate) fn set_opening(&self, opening: Option<Loss>) {
        self.state.lock().opening = opening;
    }

    /// The partitions that are open now.
    pub(crate) fn set_logs(&self, logs: Vec<(String, u32, Arc<PartitionLog>)>) {
        let before = std::mem::replace(&mut self.state.lock().logs, logs);
        drop(before);
    }

    /// What was found wrong in a crash.
    pub(crate) fn violation(&self) -> Option<String> {
        self.state.lock().violation.clone()
    }

    fn take_images(&self) -> Vec<(SimStorage, Crash, u64)> {
        std::mem::take(&mut self.state.lock().images)
    }
}

impl State {
    /// Takes in what the open partitions say; answers a hash of that.
    fn note(&mut self) -> u64 {
        let Self { model, logs, .. } = self;
        let mut hash = 0;
        for (topic, number, log) in logs {
            if let Some(partition) = model.partition_mut(topic, *number) {
                partition.note(log);
                hash = mix64(hash ^ log.durable_offset() ^ u64::from(partition.is_published) << 63);
            }
        }
        hash
    }
}

/// Where a world stands among those that were made of each other's crashes.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) settings: Settings,
    pub(crate) now_ms: Arc<std::sync::atomic::AtomicI64>,
    pub(crate) depth: u32,
}

/// The hook of a world.
pub(crate) fn hook(explorer: &Arc<Explorer>, live: &Arc<Live>, origin: &Origin) -> StepHook {
    let (explorer, live, origin) = (explorer.clone(), live.clone(), origin.clone());
    Arc::new(move |storage, step| explorer.look(&live, &origin, storage, step))
}

impl Explorer {
    /// Makes images of a step and looks into them.
    fn look(self: &Arc<Self>, live: &Live, origin: &Origin, storage: &SimStorage, step: &StorageStep<'_>) {
        let Some(_busy) = Busy::new(live) else { return };
        let (mut choices, promises, opening) = {
            let mut state = live.state.lock();
            if !state.is_watched || state.violation.is_some() {
                return;
            }
            state.steps += 1;
            let promises = mix64(state.note() ^ mix64(state.version));
            (Sequence::new(mix64(state.seed ^ mix64(state.steps))), promises, state.opening)
        };
        if origin.depth > 0 && choices.below(96) != 0 {
            return;
        }
        let kind = mix64((step.operation as u64) << 8 | role(step.path));
        let cuts = if origin.depth == 0 { self.bounds.cuts } else { 1 };
        let remounts = choices.below(4) == 0;
        for copy in 0..=cuts {
            let crash = match copy {
                0 if origin.depth > 0 && choices.below(2) == 0 => continue,
                0 => Crash::Kill,
                1 if remounts => Crash::Remount,
                _ => Crash::Power,
            };
            let image = storage.crash(crash, &mut choices);
            let hash = image.image_hash();
            self.states.add(mix64(hash ^ kind));
            let lost = loss(crash).max(opening.unwrap_or(Loss::Nothing));
            let known = hash ^ mix64(promises ^ (crash as u64) << 1 ^ lost as u64);
            if !self.checked.lock().insert(known) {
                continue;
            }
            let seed = choices.next();
            let mut state = live.state.lock();
            if opening == Some(Loss::Unflushed) && state.images.len() < 3 && choices.below(8) == 0 {
                state.images.push((image, crash, seed));
                continue;
            }
            let (model, troubled) = (state.model.clone(), state.is_troubled);
            drop(state);
            if let Err(what) = self.explore(image, model, (crash, lost), troubled, origin, seed) {
                let number = step.number;
                let place = format!("{:?} of {} (step {number})", step.operation, step.path.display());
                live.state.lock().violation = Some(format!("{crash:?} behind {place}: {what}"));
                return;
            }
        }
    }

    /// Opens a log on an image, holds it against the model, and goes on with it.
    fn explore(
        self: &Arc<Self>,
        image: SimStorage,
        model: Model,
        (crash, loss): (Crash, Loss),
        troubled: bool,
        origin: &Origin,
        seed: u64,
    ) -> Result<(), String> {
        let depth = origin.depth + 1;
        let _ids = Ids::new(u64::from(depth));
        let mut choices = Sequence::new(seed);
        let now_ms = origin.now_ms.load(Ordering::Relaxed) + choices.below(3) as i64 * 50 - 50;
        let settings = Settings { positional: origin.settings.positional, ..origin.settings };
        let origin = Origin { settings, now_ms: Arc::new(now_ms.into()), depth };
        let mut world = World::new(image, model, origin, self.clone());
        world.was_troubled = troubled;
        world.watch(seed, depth < self.bounds.depth);
        let expected = Expected { loss, clean: false, troubled, troubled_open: false };
        world.open(expected)?;
        self.states.recoveries.fetch_add(1, Ordering::Relaxed);
        if choices.below(self.bounds.continue_one_in) != 0 {
            return Ok(());
        }
        let mut steps = Plan::continuation(&mut choices);
        // What a process that was killed had not on the device is lost by a power cut behind the next one, if that
        // didn't see to it.
        let last = match crash != Crash::Kill || choices.below(2) == 0 {
            true => Operation::Reopen,
            false => Operation::Crash { end: End::Power },
        };
        steps.push(Step { seed: choices.next(), operation: last });
        for step in &steps {
            world.perform(step, depth < self.bounds.depth).map_err(|what| format!("then {step:?}: {what}"))?;
        }
        Ok(())
    }

    /// Looks into the images that were taken amid a recovery, now that it is known what that has found.
    pub(crate) fn look_again(self: &Arc<Self>, live: &Live, origin: &Origin) -> Result<(), String> {
        for (image, crash, seed) in live.take_images() {
            let state = live.state.lock();
            let (model, troubled) = (state.model.clone(), state.is_troubled);
            drop(state);
            self.explore(image, model, (crash, Loss::Nothing), troubled, origin, seed)
                .map_err(|what| format!("{crash:?} amid the recovery: {what}"))?;
        }
        Ok(())
    }
}

fn loss(crash: Crash) -> Loss {
    match crash {
        Crash::Kill => Loss::Nothing,
        Crash::Power | Crash::Remount => Loss::Unflushed,
    }
}

/// What kind of file it is.
fn role(path: &Path) -> u64 {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let roles = [
        ".log",
        ".index",
        ".timeindex",
        ".state",
        ".checkpoint",
        ".checkpoint.tmp",
        ".tmp",
        ".json",
        ".gone",
        ".meta",
        "exclusive",
        "topics",
        "processes",
    ];
    let role = roles.iter().rposition(|suffix| name.ends_with(suffix)).map_or(0, |at| at as u64 + 1);
    let is_internal = path.iter().any(|part| part.to_str().is_some_and(|part| part.starts_with("__")));
    role << 1 | u64::from(is_internal)
}

/// This thread's ids come from another sequence, until this is dropped.
pub(crate) struct Ids(Option<Sequence>);

impl Ids {
    pub(crate) fn new(number: u64) -> Self {
        Self(random::seed(Some(Sequence::new(number))))
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        random::seed(self.0.take());
    }
}
