//! What the fuzz targets call, and the check of the simulation by bugs that are put in (`tests/mutations`).
//!
//! # Thread safety
//! Any thread may call anything.

#![allow(unreachable_pub)] // public under `cfg(fuzzing)` alone

use std::sync::Arc;

use super::{explore::Bounds, plan::Plan, run};

/// Runs seeds from `first` on until there were so many crash states, or a violation. Answers what was violated, and a
/// line of figures.
#[cfg(fuzzing)]
pub fn crash_states(first: u64, wanted: u64) -> (Vec<String>, String) {
    let outcome = super::runs::run_seeds(first, wanted);
    (outcome.violations(), outcome.to_string())
}

/// Runs the plan that the bytes stand for, with its faults and crashes; panics where something is violated.
pub fn operations(data: &[u8]) {
    let plan = Plan::of_bytes(data, 24);
    let bounds = Bounds { cuts: 0, depth: 1, continue_one_in: 1 };
    let outcome = run(&plan, &Arc::default(), bounds, usize::MAX);
    #[cfg(fuzzing)]
    crate::storage::let_go();
    assert!(outcome.is_ok(), "{outcome:?}\n{plan:?}");
}
