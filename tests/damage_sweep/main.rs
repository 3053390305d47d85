//! The damage sweep: a log is damaged in every way that we know, once at a time, opened, read, gone on with, and held
//! against the list of what was written.
//!
//! What has to hold for each damage: the log is opened, or refused by the right kind of error. Exactly the damaged
//! records are missing, and said to be; all others are byte for byte what they were, at their offsets. Nothing inside a
//! log is cut for damage. Reading goes on behind it when asked. Appends go on at offsets that nobody had. A second open
//! says the same. Nothing panics, and memory stays in proportion.
//!
//! `TIDELOG_DAMAGE=all` runs every case; else it is every so many, drawn from `TIDELOG_SEED`.

#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges of offsets, some with one range")]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod ground;
#[cfg(target_os = "linux")]
mod harm;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod others;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(target_os = "linux")]
mod swapped;
#[cfg(target_os = "linux")]
mod sweep;
#[cfg(target_os = "linux")]
mod written;

fn main() {
    #[cfg(target_os = "linux")]
    sweep::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: a killed process's control page is believed on Linux only");
}
