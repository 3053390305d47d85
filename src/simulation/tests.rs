//! The runs: as many crash states as are asked for, and what was found once.

use std::io::Write;

use super::{
    fuzzing,
    runs::{run_one, run_seeds},
};
use crate::random::Sequence;

/// How many states are looked into where nothing else is asked for.
const STATES: u64 = if cfg!(debug_assertions) { 400 } else { 20_000 };

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} isn't a number: {value:?}")))
}

#[test]
fn crash_states() {
    let outcome = match number("TIDELOG_SEED") {
        Some(seed) => run_one(seed),
        None => run_seeds(0, number("TIDELOG_CRASH_STATES").unwrap_or(STATES)),
    };
    let violations = outcome.violations();
    // Not by `println!`, which is only shown of a test that fails.
    std::io::stdout().write_all(format!("{}{outcome}\n", violations.concat()).as_bytes()).unwrap();
    assert!(violations.is_empty(), "what must hold doesn't");
}

#[test]
fn whatever_bytes_stand_for_is_run() {
    for seed in 0..if cfg!(debug_assertions) { 20 } else { 200 } {
        let mut choices = Sequence::new(seed);
        let data: Vec<u8> = (0..choices.below(220)).map(|_| choices.next() as u8).collect();
        fuzzing::operations(&data);
    }
}

/// A write fails for ever, and a sync before it was told to somebody who was killed: what the open has synced itself
/// isn't on the device for all that.
#[test]
fn an_open_trusts_no_sync_of_its_own_behind_one_that_failed() {
    fuzzing::operations(&[
        0xe9, 0x00, 0x01, 0x00, 0x06, 0x40, 0xff, 0xff, 0xff, 0x05, 0xf4, 0x65, 0xb9, 0xa1, 0x6a, 0x9e, 0x78, 0xee,
        0xaf, 0xcd, 0x1d, 0xa8, 0x20, 0xe2, 0xda, 0x18, 0x00, 0xda, 0xda, 0x0b,
    ]);
}

#[test]
fn seeds_of_operations() {
    let mut choices = Sequence::new(3);
    let mut plan = |steps: usize| (0..1 + 9 * steps).map(|_| choices.next() as u8).collect::<Vec<_>>();
    let made = [("three-steps", plan(3)), ("eight-steps", plan(8)), ("twenty-steps", plan(20)), ("none", Vec::new())];
    crate::partition::fuzzing::tests::feed("operations", fuzzing::operations, &made);
}
