//! What must not be skipped: `TIDELOG_REQUIRE` names it, with commas between.

// Each test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::env;

/// What a test may need that not every machine has.
const NAMES: [&str; 8] = [
    // File systems can be mounted: tmpfs, ext4, overlayfs. Those whose tools are often missing have names of their own.
    "mount",
    "mount-xfs",
    "mount-btrfs",
    // An ext4 that ignores case, which few kernels have.
    "casefold",
    // A library can be built and loaded before all others.
    "preload",
    // Device files can be made, and opened.
    "devices",
    // The test's process may become another user.
    "root",
    // The real orders lie beside the project.
    "data",
];

/// Whether what needs `what` must not be skipped. Panics at a name that nobody knows.
pub(crate) fn is_required(what: &str) -> bool {
    requires(&env::var("TIDELOG_REQUIRE").unwrap_or_default(), what).unwrap()
}

/// Whether `what` is in the list. A name that nobody knows is an error: it would require nothing.
pub(crate) fn requires(list: &str, what: &str) -> Result<bool, String> {
    let mut names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let unknown = names.clone().chain([what]).find(|name| !NAMES.contains(name));
    match unknown {
        Some(name) => Err(format!("TIDELOG_REQUIRE knows no {name:?}, but {NAMES:?}")),
        None => Ok(names.any(|name| name == what)),
    }
}
