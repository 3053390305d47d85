//! Hostile folders: links, pipes and devices in the place of files and folders, names that differ by case, files without
//! end, numbers at their limits, lengths and counts that lie under checks that hold, thousands of strange names.
//!
//! Each folder is opened, read, written to and closed by a child process with little memory. It has to end in good time,
//! by itself, with an open log or a typed error; and nothing outside the folder may have changed.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod lies;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod visitor;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: links, pipes, devices and limits of memory are made as on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use libtest_mimic::{Arguments, Failed, Trial};

    use crate::{common::process::child_task, folder, lies, names, places, visitor};

    type Test = (&'static str, fn() -> Result<(), Failed>);

    const TESTS: [Test; 14] = [
        ("links_to_copies", places::links_to_copies),
        ("links_to_other_files", places::links_to_other_files),
        ("links_that_lead_nowhere", places::links_that_lead_nowhere),
        ("links_where_files_are_to_be_made", places::links_where_files_are_to_be_made),
        ("links_that_may_be", places::links_that_may_be),
        ("a_deletion_ends_at_links", places::a_deletion_ends_at_links),
        ("folders_pipes_sockets_and_devices", places::folders_pipes_sockets_and_devices),
        ("nothing_may_be_read", places::nothing_may_be_read),
        ("files_without_end", names::files_without_end),
        ("strange_names", names::strange_names),
        ("names_that_differ_by_case", names::names_that_differ_by_case),
        ("offsets_at_their_limit", lies::offsets_at_their_limit),
        ("fields_that_lie", lies::fields_that_lie),
        ("frames_that_lie", lies::frames_that_lie),
    ];

    pub(crate) fn main() {
        if let Some((task, folder)) = child_task() {
            return match &*task {
                folder::MAKE => folder::make(&folder),
                _ => visitor::main(&task, &folder),
            };
        }
        let trials = TESTS.map(|(name, test)| Trial::test(name, test));
        let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.into());
        println!("{}", visitor::closing_line());
        conclusion.exit();
    }
}
