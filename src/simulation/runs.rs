//! Many seeds, on all cores, until as many crash states were looked into as are wanted, or something was violated.
//!
//! # Thread safety
//! Any thread may call anything.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    Violation,
    explore::{Bounds, States},
    plan::Plan,
    run, shrink,
};

/// Operations of a seed's plan.
const LENGTH: usize = 48;

/// What is looked into of it.
pub(super) const BOUNDS: Bounds = Bounds { cuts: 1, depth: 3, continue_one_in: 4 };

/// What a seed violates: the plan made as small as it goes.
fn describe(seed: u64, plan: &Plan, violation: &Violation) -> String {
    let steps = plan.steps[..=violation.at].to_vec();
    let failing = Plan { settings: plan.settings, steps };
    let fails = |plan: &Plan| {
        let outcome = run(plan, &Arc::default(), BOUNDS, plan.steps.len() - 1);
        outcome.is_err_and(|violation| violation.at + 1 == plan.steps.len())
    };
    let small = shrink::shrink(&failing, 300, fails);
    let again = run(&small, &Arc::default(), BOUNDS, small.steps.len() - 1);
    let again = again.map_or_else(|violation| violation.to_string(), |()| "it doesn't fail again".into());
    format!("TIDELOG_SEED={seed}: {violation}\nsmaller: {again}\n{small:#?}\n")
}

/// What many seeds came to.
#[derive(Default)]
pub(crate) struct Outcome {
    states: Arc<States>,
    seeds: AtomicU64,
    violations: Mutex<Vec<String>>,
}

impl Outcome {
    /// What was violated, each with the seed and the smallest plan that was found.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "crash_states={} seeds={} operations={} recoveries={} violations={}",
            self.states.count(),
            self.seeds.load(Ordering::Relaxed),
            self.states.operations.load(Ordering::Relaxed),
            self.states.recoveries.load(Ordering::Relaxed),
            self.violations.lock().len()
        )
    }
}

/// Runs seeds from `first` on, until there were so many crash states, or a violation.
pub(crate) fn run_seeds(first: u64, wanted: u64) -> Outcome {
    let outcome = Outcome::default();
    let next = AtomicU64::new(first);
    let work = || {
        while outcome.states.count() < wanted && outcome.violations.lock().is_empty() {
            run_seed(next.fetch_add(1, Ordering::Relaxed), &outcome);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    outcome
}

/// Runs one seed.
#[cfg(test)]
pub(crate) fn run_one(seed: u64) -> Outcome {
    let outcome = Outcome::default();
    run_seed(seed, &outcome);
    outcome
}

fn run_seed(seed: u64, outcome: &Outcome) {
    let plan = Plan::of_seed(seed, LENGTH);
    if let Err(violation) = run(&plan, &outcome.states, BOUNDS, 0) {
        let told = describe(seed, &plan, &violation);
        outcome.violations.lock().push(told);
    }
    outcome.seeds.fetch_add(1, Ordering::Relaxed);
}
