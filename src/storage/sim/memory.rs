//! A simulated file's bytes: an anonymous map, so that regions, reads and writes all see the same ones.
//!
//! # Invariants
//! - The map is at least as long as the file; bytes behind the file's end are zero.
//! - Bytes are only ever reached through raw pointers, never through references, since regions alias them.
//!
//! # Thread safety
//! Plain data; the file keeps it under a lock, which doesn't hold off those who store through regions.

use std::{io, ops::Range, ptr, sync::Arc};

#[cfg(not(any(test, fuzzing)))]
use memmap2::MmapOptions;
use memmap2::MmapRaw;

use super::blocks::BLOCK_BYTES;
#[cfg(any(test, fuzzing))]
use super::pool::zeros;

/// A file's bytes.
#[derive(Default)]
pub(super) struct Memory {
    /// A whole number of blocks; `None` while there never was a byte.
    map: Option<Arc<MmapRaw>>,
    len: u64,
}

impl Memory {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The map that regions lead into.
    pub(super) fn map(&self) -> Option<&Arc<MmapRaw>> {
        self.map.as_ref()
    }

    pub(super) fn capacity(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| map.len() as u64)
    }

    /// Sets the length; if that takes a new map, one for `capacity` bytes. What is cut off has been zeroed.
    pub(super) fn set_len(&mut self, len: u64, capacity: u64) -> io::Result<()> {
        if len > self.capacity() {
            self.move_to(capacity)?;
        }
        self.len = len;
        Ok(())
    }

    /// Moves to a greater map.
    fn move_to(&mut self, capacity: u64) -> io::Result<()> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let capacity = capacity.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(too_large)?;
        let capacity = usize::try_from(capacity).map_err(|_| too_large())?;
        let map = zeros(capacity)?;
        for block in 0..self.len.div_ceil(BLOCK_BYTES) {
            if let (Some(old), false) = (&self.map, self.block_is_zero(block)) {
                let at = (block * BLOCK_BYTES) as usize;
                // SAFETY: the block lies in both maps, which are whole numbers of blocks, and are two.
                unsafe {
                    ptr::copy_nonoverlapping(old.as_ptr().add(at), map.as_mut_ptr().add(at), BLOCK_BYTES as usize);
                }
            }
        }
        self.map = Some(Arc::new(map));
        Ok(())
    }

    /// Zeroes a range within the length, block by block, those that aren't zeros already: a store would give memory
    /// to a block that has none.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        let (Some(map), false) = (&self.map, range.is_empty()) else { return };
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            if self.block_is_zero(block) {
                continue;
            }
            let start = range.start.max(block * BLOCK_BYTES);
            let end = range.end.min((block + 1) * BLOCK_BYTES);
            // SAFETY: within the length, and so within the map.
            unsafe { ptr::write_bytes(map.as_mut_ptr().add(start as usize), 0, (end - start) as usize) };
        }
    }

    /// Whether a block within the length holds zeros only.
    pub(super) fn block_is_zero(&self, block: u64) -> bool {
        let Some(map) = &self.map else { return true };
        let mut copy = [0; BLOCK_BYTES as usize];
        // SAFETY: the block lies in the map, which is a whole number of blocks. It is copied and not borrowed because
        // somebody may be storing there.
        unsafe {
            ptr::copy_nonoverlapping(map.as_ptr().add((block * BLOCK_BYTES) as usize), copy.as_mut_ptr(), copy.len());
        }
        copy == [0; BLOCK_BYTES as usize]
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> usize {
        let (Some(map), Some(left)) = (&self.map, self.len.checked_sub(position)) else { return 0 };
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        // SAFETY: from `position` on there are at least `len` bytes in the file, and so in the map; the buffer is as
        // long, and elsewhere.
        unsafe { ptr::copy_nonoverlapping(map.as_ptr().add(position as usize), buffer.as_mut_ptr(), len) };
        len
    }

    /// Writes within the length.
    pub(super) fn write_at(&mut self, bytes: &[u8], position: u64) {
        debug_assert!(position + bytes.len() as u64 <= self.len);
        let Some(map) = &self.map else { return };
        // SAFETY: within the length, which the caller has set, and so within the map. `bytes` may be borrowed from a
        // region of this very file, so the two may overlap.
        unsafe { ptr::copy(bytes.as_ptr(), map.as_mut_ptr().add(position as usize), bytes.len()) };
    }
}

/// A map of zeros. Most of it may never be touched, so the system isn't asked to stand for it.
#[cfg(not(any(test, fuzzing)))]
fn zeros(capacity: usize) -> io::Result<MmapRaw> {
    Ok(MmapRaw::from(MmapOptions::new().len(capacity).no_reserve_swap().map_anon()?))
}

/// What the history of a file needs.
#[cfg(any(test, fuzzing))]
impl Memory {
    /// The bytes at a position; zeros behind the end of the file.
    pub(super) fn piece<const N: usize>(&self, position: u64) -> [u8; N] {
        let mut piece = [0; N];
        self.read_at(&mut piece, position);
        piece
    }

    /// Gives the map away.
    pub(super) fn take_map(&mut self) -> Option<Arc<MmapRaw>> {
        self.len = 0;
        self.map.take()
    }
}
