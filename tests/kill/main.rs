//! Kills processes that append, delete, commit, open and close, and checks what is there afterwards.
//!
//! A child works in a folder and reports every acknowledgement over a pipe once the call has returned. It is killed
//! (`SIGKILL`) at a random moment; then this process, or the next child, opens the folder. What has to be there, and
//! what mustn't, the `workload` says. Some folders are appended to through maps, some with `pwrite`, some with both.
//!
//! `TIDELOG_KILLS` is the number of kills (default 200), `TIDELOG_SEED` what the moments are drawn from.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
#[path = "../workload/mod.rs"]
mod workload;

fn main() {
    #[cfg(target_os = "linux")]
    parent::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: whether a killed process's pages survive is tested on Linux only");
}
