//! What the device may have of a file: every content that a sector, and every length that the file, has had since it
//! was last made durable.
//!
//! # Invariants
//! - A sector of 512 bytes is written whole or not at all. One that isn't listed is on the device as it stands.
//! - Of a listed one, the first version is what was made durable last, and the last one how it stands. Each store adds
//!   one; of more than [`MAX_VERSIONS`] every second one is forgotten, but never those two.
//! - A successful sync makes durable the pages of 4 KiB that were stored into since the last sync, whether that
//!   succeeded or not, and nothing else: pages that a failed sync was to write count as clean.
//! - A page that was made durable lies within every length that the file may have.
//!
//! # Thread safety
//! Plain data; the file keeps it under the lock of its contents.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use super::{
    blocks::{BLOCK_BYTES, Blocks},
    memory::Memory,
};

/// What a device writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;
/// What the kernel takes for clean or dirty: as much as a block.
const SECTORS_A_PAGE: u64 = BLOCK_BYTES / SECTOR_BYTES;
/// So many versions of a sector or length are told apart.
const MAX_VERSIONS: usize = 64;

/// A sector's content.
pub(super) type Sector = [u8; SECTOR_BYTES as usize];

/// The history of one file since it was last made durable.
#[derive(Debug, Clone)]
pub(super) struct History {
    sectors: BTreeMap<u64, Vec<Arc<Sector>>>,
    lengths: Vec<u64>,
    /// Pages that the next sync writes.
    dirty_pages: BTreeSet<u64>,
    length_is_dirty: bool,
    /// The contents when they were last looked at, of a file into which words may be stored without a call.
    seen: Option<Vec<u8>>,
}

impl History {
    /// Of a file of which everything is durable.
    pub(super) fn new(len: u64) -> Self {
        Self {
            sectors: BTreeMap::new(),
            lengths: vec![len],
            dirty_pages: BTreeSet::new(),
            length_is_dirty: false,
            seen: None,
        }
    }

    /// Bytes of that range are going to be stored.
    pub(super) fn begin(&mut self, memory: &Memory, range: Range<u64>) {
        for sector in sectors(range) {
            self.sectors.entry(sector).or_insert_with(|| vec![sector_of(memory, sector)]);
        }
    }

    /// They have been. A page is dirty also if they were the same before.
    pub(super) fn end(&mut self, memory: &Memory, range: Range<u64>) {
        for sector in sectors(range.clone()) {
            self.add(sector, sector_of(memory, sector));
        }
        if let Some(seen) = &mut self.seen {
            let at = range.start.min(seen.len() as u64) as usize..range.end.min(seen.len() as u64) as usize;
            memory.read_at(&mut seen[at], range.start);
        }
    }

    /// The file's length has been set.
    pub(super) fn set_len(&mut self, len: u64) {
        add_version(&mut self.lengths, len);
        self.length_is_dirty = true;
        if let Some(seen) = &mut self.seen {
            seen.resize(len as usize, 0);
        }
    }

    /// A sync succeeded.
    pub(super) fn synced(&mut self) {
        let mut end = 0;
        for page in std::mem::take(&mut self.dirty_pages) {
            end = (page + 1) * BLOCK_BYTES;
            (page * SECTORS_A_PAGE..(page + 1) * SECTORS_A_PAGE).for_each(|sector| drop(self.sectors.remove(&sector)));
        }
        let len = self.len();
        let is_dirty = std::mem::take(&mut self.length_is_dirty);
        self.lengths.retain(|&old| old == len || (!is_dirty && old >= end.min(len)));
    }

    /// A sync failed. Answers the sectors that it was to write, as the device may have had them before.
    pub(super) fn sync_failed(&mut self) -> Vec<(u64, Arc<Sector>)> {
        self.length_is_dirty = false;
        let pages = std::mem::take(&mut self.dirty_pages);
        let sectors =
            pages.iter().flat_map(|page| self.sectors.range(page * SECTORS_A_PAGE..(page + 1) * SECTORS_A_PAGE));
        sectors.map(|(&sector, versions)| (sector, versions[0].clone())).collect()
    }

    /// The cache has dropped what it had of a range and reads it anew; the page stays clean.
    pub(super) fn reread(&mut self, memory: &Memory, range: Range<u64>) {
        let dirty = self.dirty_pages.clone();
        self.end(memory, range);
        self.dirty_pages = dirty;
    }

    /// From now on [`look`](History::look) finds words that are stored.
    pub(super) fn watch(&mut self, memory: &Memory) {
        let mut seen = vec![0; memory.len() as usize];
        memory.read_at(&mut seen, 0);
        self.seen = Some(seen);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.seen.is_some()
    }

    /// Nobody has the file open any more.
    pub(super) fn unwatch(&mut self) {
        self.seen = None;
    }

    /// Takes down the words that were stored since the last look; whether there were any.
    pub(super) fn look(&mut self, memory: &Memory, blocks: &Blocks) -> bool {
        let Some(mut seen) = self.seen.take() else { return false };
        let (mut found, len) = (false, seen.len() as u64);
        for block in blocks.from(0).flatten().take_while(|block| (block * BLOCK_BYTES) < len) {
            let seen = &mut seen[(block * BLOCK_BYTES) as usize..];
            let len = seen.len().min(BLOCK_BYTES as usize);
            let now = memory.piece::<{ BLOCK_BYTES as usize }>(block * BLOCK_BYTES);
            if seen[..len] != now[..len] {
                self.compare(block * SECTORS_A_PAGE, &mut seen[..len], &now);
                found = true;
            }
        }
        self.seen = Some(seen);
        found
    }

    /// Adds the sectors of a block that differ.
    fn compare(&mut self, first: u64, seen: &mut [u8], now: &[u8; BLOCK_BYTES as usize]) {
        for ((sector, seen), now) in
            (first..).zip(seen.chunks_mut(SECTOR_BYTES as usize)).zip(now.chunks(SECTOR_BYTES as usize))
        {
            if *seen != now[..seen.len()] {
                let mut before = [0; SECTOR_BYTES as usize];
                before[..seen.len()].copy_from_slice(seen);
                self.sectors.entry(sector).or_insert_with(|| vec![Arc::new(before)]);
                before.copy_from_slice(now);
                self.add(sector, Arc::new(before));
                seen.copy_from_slice(&now[..seen.len()]);
            }
        }
    }

    /// The sectors of which the device has one of several versions.
    pub(super) fn undecided_sectors(&self) -> impl Iterator<Item = (u64, &[Arc<Sector>])> {
        self.sectors
            .iter()
            .filter(|(_, versions)| versions.len() > 1)
            .map(|(&sector, versions)| (sector, &versions[..]))
    }

    /// Whether the device has but one version of all of a range.
    pub(super) fn is_decided(&self, range: Range<u64>) -> bool {
        let touched = sectors(range.clone());
        self.lengths.iter().all(|&len| len >= range.end.min(self.len()))
            && self.sectors.range(touched).all(|(_, versions)| versions.len() < 2)
    }

    /// The lengths that the file may have on the device, the durable one first and the present one last.
    pub(super) fn lengths(&self) -> &[u64] {
        &self.lengths
    }

    fn len(&self) -> u64 {
        self.lengths.last().copied().unwrap_or_default()
    }

    fn add(&mut self, sector: u64, version: Arc<Sector>) {
        self.dirty_pages.insert(sector / SECTORS_A_PAGE);
        add_version(self.sectors.entry(sector).or_default(), version);
    }
}

/// Adds a version unless it is as the last one.
fn add_version<T: PartialEq>(versions: &mut Vec<T>, version: T) {
    if versions.last() == Some(&version) {
        return;
    }
    if versions.len() >= MAX_VERSIONS {
        let mut number = 0;
        let last = versions.len() - 1;
        versions.retain(|_| {
            number += 1;
            number == 1 || number - 1 == last || number % 2 == 0
        });
    }
    versions.push(version);
}

fn sector_of(memory: &Memory, sector: u64) -> Arc<Sector> {
    Arc::new(memory.piece(sector * SECTOR_BYTES))
}

/// The sectors that a range touches.
fn sectors(range: Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) }
}
