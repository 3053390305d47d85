//! A sync that fails once: the partition takes no more appends, in any process; reading goes on, and so do the others; the
//! next open writes anew what isn't known to be on the device; and nothing that was acknowledged before is lost.
//!
//! Two ways to have a sync fail. A [library](preload) that is preloaded fails any one call: of a segment, a checkpoint, a
//! folder, a topic's file, committed offsets; the process under test closes its log, is killed, or is killed inside the
//! call. And an ext4 file system in a [file](device) on a memory file system that has no room for all of it: there the
//! kernel itself says once that a write failed, counts the pages as clean, and loses them.
//!
//! `TIDELOG_SYNC_FAILURES` is the number of failures by the library (default 120), `TIDELOG_SEED` what they are drawn from.
//! The last line says what came of them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod preload;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: syncs are made to fail on Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use libtest_mimic::{Arguments, Trial};

    use crate::{child, common::process::child_task, device, judge::FIGURES, preload};

    pub(crate) fn main() {
        if let Some((task, folder)) = child_task() {
            return child::main(&task, &folder);
        }
        let trials = vec![
            Trial::test("any_sync_that_fails_once_costs_nothing_acknowledged", preload::any_sync),
            Trial::test("a_slot_of_the_checkpoint_that_cant_be_read_is_told", preload::unreadable_slot),
            Trial::test("what_a_device_without_space_loses_is_written_anew", device::all_ends),
        ];
        // One after the other: the last one's figures are those of all.
        let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
        let conclusion = libtest_mimic::run(&arguments, trials);
        println!("{}", FIGURES.lock().unwrap());
        conclusion.exit();
    }
}
