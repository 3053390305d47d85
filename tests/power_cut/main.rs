//! Cuts the power under processes that append, delete, commit, open and close, and checks what is there afterwards.
//!
//! A child works in a file system that is mounted from an image, and reports every acknowledgement over a pipe once the
//! call has returned. At a random moment the power is cut, in one of two ways ([`disk`](linux)): the file system is shut
//! down without another write, or the device below it goes away with all that is in its volatile cache. The child is
//! killed, everything is unmounted and mounted again; then this process, or the next child, opens the folder. What has
//! to be there, and what mustn't, the `workload` says: what was synced, flushed or waited for is kept, what is lost of
//! the rest is the end of its partition, and no offset is used twice.
//!
//! The system keeps running, so the boot id stays the same: what only a page cache knew must not be believed.
//!
//! One trial more judges the judge, with stories of what came before a loss.
//!
//! `TIDELOG_CUTS` is the number of cuts on ext4 (default 20); on xfs and btrfs there are a fifth of that, and 20 at least
//! if there are so many. `TIDELOG_SEED` is what the moments are drawn from.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
#[path = "../workload/mod.rs"]
mod workload;

fn main() {
    #[cfg(target_os = "linux")]
    parent::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: the power is cut on Linux only");
}
