//! A log that is crashed at every step: seeded sequences of all that can be done to it, on a simulated disk, beside a
//! plain model of what must hold. For this crate's tests and fuzz targets.
//!
//! # What is done
//! A seed gives a [`Plan`]: topics come, change and go; records are appended in all ways and at all levels, flushed,
//! waited for, deleted, and removed by retention; consumers join, read, commit and leave; the clock jumps; operations on
//! files fail, once or for ever, syncs among them; the disk fills up and is empty again; the log is closed and opened
//! again, killed, and cut off from power ([`plan`]).
//!
//! Behind **every** operation on files, and every piece of a frame that is stored, the machine is copied as a killed
//! process, a power cut and a forced unmount would leave it. A log is opened on each such image; what is there is held
//! against the model ([`check`]); the recovery is crashed as well, and so is what the log does then ([`explore`]).
//!
//! # What must hold
//! - Nothing that was acknowledged is missing after a kill; nothing that was synced, flushed, or told to be durable is
//!   missing after a power cut.
//! - What is there of a partition is a prefix of what was appended, byte by byte, in order; a batch is there as a whole
//!   or not at all. Nothing is there that nobody appended, and no offset is given out twice.
//! - Times of appends don't fall. What was deleted stays deleted; nothing else goes.
//! - Topics are what the last change that was acknowledged has made of them, or the one under way. One that is created
//!   again inherits nothing.
//! - What a group has committed is what it had at some moment, not before the last one that is on the device, and behind
//!   a kill at the last one.
//! - An operation that fails has changed nothing that can be read, or was about to. With space there again, or behind the
//!   next open, everything goes on.
//! - Opening succeeds, tells of no damage, and a second time finds what it found the first time.
//!
//! # How to run it
//! `TIDELOG_CRASH_STATES=1000000 cargo test --release --lib simulation::tests::crash_states` looks into as many different
//! states; `TIDELOG_SEED=17` runs that seed alone. What is violated is printed with the seed, the step and the crash, and
//! with the smallest plan that was found to fail in the same way, which can be pasted into a test that calls `run`.
//!
//! # Thread safety
//! Each thread runs plans of its own; what they count is shared.

mod check;
mod explore;
pub(crate) mod fuzzing;
mod groups;
mod model;
mod plan;
mod runs;
mod shrink;
#[cfg(test)]
mod tests;
mod work;
mod world;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use self::{
    check::Expected,
    explore::{Bounds, Explorer, Ids, States},
    model::Loss,
    plan::Plan,
    world::World,
};

/// Something that doesn't hold.
#[derive(Debug)]
pub(crate) struct Violation {
    /// In which step of the plan.
    at: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}", self.at, self.what)
    }
}

/// Runs a plan. Crashes are looked into from the step at `watched_from` on.
fn run(plan: &Plan, states: &Arc<States>, bounds: Bounds, watched_from: usize) -> Result<(), Violation> {
    let mut at = 0;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let _ids = Ids::new(0);
        let mut world = World::empty(plan.settings, Explorer::new(states.clone(), bounds));
        world.watch(0, watched_from == 0);
        world.open(Expected { loss: Loss::Nothing, clean: false, troubled: false, troubled_open: false })?;
        for (index, step) in plan.steps.iter().enumerate() {
            at = index;
            world.perform(step, index >= watched_from)?;
        }
        Ok(())
    }));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", text.unwrap_or("of another kind")))
    });
    outcome.map_err(|what: String| Violation { at, what })
}
