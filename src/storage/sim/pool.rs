//! Maps of zeros that are used again: a crash image lives for a moment, and to have the system clear its pages would
//! cost most of it.
//!
//! # Invariant
//! A map in the pool holds zeros only.
//!
//! # Thread safety
//! Any thread may call anything.

use std::{collections::BTreeMap, io};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

/// Longer maps aren't kept.
const MAX_BYTES: usize = 4 << 20;
/// So many of a length are kept.
const MAX_MAPS: usize = 64;

static POOL: Mutex<BTreeMap<usize, Vec<MmapRaw>>> = Mutex::new(BTreeMap::new());

/// A map of zeros of at least that many bytes; by powers of two, so that few lengths are asked for.
pub(super) fn zeros(bytes: usize) -> io::Result<MmapRaw> {
    let bytes = if bytes <= MAX_BYTES { bytes.next_power_of_two() } else { bytes };
    if let Some(map) = POOL.lock().get_mut(&bytes).and_then(Vec::pop) {
        return Ok(map);
    }
    // Most of it may never be touched, so the system isn't asked to stand for it.
    Ok(MmapRaw::from(MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?))
}

/// Whether a map of that length may be given back.
pub(super) fn wants(bytes: usize) -> bool {
    bytes <= MAX_BYTES && bytes.is_power_of_two()
}

/// Gives back a map that was zeroed.
pub(super) fn give_back(map: MmapRaw) {
    let mut pool = POOL.lock();
    let maps = pool.entry(map.len()).or_default();
    if maps.len() < MAX_MAPS {
        maps.push(map);
    }
}
