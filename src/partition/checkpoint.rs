//! What can't be rebuilt from the segments: log start offset, durable mark, offset ceiling, writer epoch, the clean mark.
//!
//! # Format
//! Two slots of [`SLOT_BYTES`] in different 4 KiB blocks, at positions 0 and 4096; the valid one with the higher
//! number counts. See `src/doc/format.md`, section "Checkpoint".
//!
//! # Invariants
//! - A slot is written with `pwrite` and made durable with `fdatasync` before anybody acts on what it says.
//! - The slot that counts is never overwritten with something else: the next state goes into the other one. At open
//!   the one that counts is rewritten *in place* and synced first, because a slot that was read from the page cache
//!   may never have reached the device.
//! - The file is open only while it is written, but for a write or sync that failed: that handle stays open, and with it
//!   the kernel's memory of the failure.
//!
//! # Thread safety
//! One owner at a time; a partition keeps it behind a mutex, which is held across the sync. Appends don't take it.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    error::{Error, ErrorKind, Repr, Result},
    partition::{OFFSET_CEILING_STEP, control::LogPosition},
    storage::{File, OpenMode, Storage},
};

/// The file's name in a partition's folder.
pub(crate) const FILE_NAME: &str = "partition.checkpoint";
/// The name that it is created under.
const TEMPORARY_NAME: &str = "partition.checkpoint.tmp";

const MAGIC: [u8; 8] = *b"tidechk\0";
const VERSION: u32 = 1;
/// Distance between the slots.
const SLOT_DISTANCE: u64 = 4096;

// The fields of a slot, each behind the one before it.
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = AT_MAGIC + 8;
const AT_PARTITION: usize = AT_VERSION + 4;
const AT_NUMBER: usize = AT_PARTITION + 4;
const AT_TOPIC_ID: usize = AT_NUMBER + 8;
const AT_LOG_START: usize = AT_TOPIC_ID + 16;
const AT_DURABLE_SEQUENCE: usize = AT_LOG_START + 8;
const AT_DURABLE_POSITION: usize = AT_DURABLE_SEQUENCE + 8;
const AT_DURABLE_OFFSET: usize = AT_DURABLE_POSITION + 8;
const AT_CEILING: usize = AT_DURABLE_OFFSET + 8;
const AT_EPOCH: usize = AT_CEILING + 8;
const AT_FLAGS: usize = AT_EPOCH + 4;
const AT_CLEAN_SEGMENT: usize = AT_FLAGS + 4;
const AT_CLEAN_POSITION: usize = AT_CLEAN_SEGMENT + 8;
const AT_CLEAN_OFFSET: usize = AT_CLEAN_POSITION + 8;
const AT_CLEAN_TIME: usize = AT_CLEAN_OFFSET + 8;
const AT_CHECKSUM: usize = AT_CLEAN_TIME + 8;
/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = AT_CHECKSUM + 4;

const FLAG_CLEAN: u32 = 1;
const FLAG_POISONED: u32 = 1 << 1;

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckpointState {
    pub(crate) topic_id: u128,
    pub(crate) partition: u32,
    /// The earliest readable offset.
    pub(crate) log_start_offset: u64,
    /// Everything before this place is on the device.
    pub(crate) durable: LogPosition,
    /// Everything below this offset is on the device.
    pub(crate) durable_offset: u64,
    /// Offsets are assigned only below this one.
    pub(crate) offset_ceiling: u64,
    /// Grows with every unclean open.
    pub(crate) epoch: u32,
    /// A sync failed, and what wasn't synced then has not been rewritten yet.
    pub(crate) poisoned: bool,
    /// Set by a clean close alone, as its last act.
    pub(crate) clean: Option<CleanMark>,
}

/// How a clean close left the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CleanMark {
    pub(crate) segment_id: u64,
    /// End of the active segment, and its file's length.
    pub(crate) end_position: u64,
    pub(crate) next_offset: u64,
    /// Time of the last frame: later ones don't fall below it.
    pub(crate) last_time_ms: i64,
}

impl CheckpointState {
    fn encode(&self, number: u64) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[AT_MAGIC..AT_VERSION].copy_from_slice(&MAGIC);
        LittleEndian::write_u32(&mut slot[AT_VERSION..], VERSION);
        LittleEndian::write_u32(&mut slot[AT_PARTITION..], self.partition);
        LittleEndian::write_u64(&mut slot[AT_NUMBER..], number);
        LittleEndian::write_u128(&mut slot[AT_TOPIC_ID..], self.topic_id);
        LittleEndian::write_u64(&mut slot[AT_LOG_START..], self.log_start_offset);
        LittleEndian::write_u64(&mut slot[AT_DURABLE_SEQUENCE..], self.durable.sequence().into());
        LittleEndian::write_u64(&mut slot[AT_DURABLE_POSITION..], self.durable.file_position());
        LittleEndian::write_u64(&mut slot[AT_DURABLE_OFFSET..], self.durable_offset);
        LittleEndian::write_u64(&mut slot[AT_CEILING..], self.offset_ceiling);
        LittleEndian::write_u32(&mut slot[AT_EPOCH..], self.epoch);
        let flags = if self.clean.is_some() { FLAG_CLEAN } else { 0 } | if self.poisoned { FLAG_POISONED } else { 0 };
        LittleEndian::write_u32(&mut slot[AT_FLAGS..], flags);
        if let Some(clean) = self.clean {
            LittleEndian::write_u64(&mut slot[AT_CLEAN_SEGMENT..], clean.segment_id);
            LittleEndian::write_u64(&mut slot[AT_CLEAN_POSITION..], clean.end_position);
            LittleEndian::write_u64(&mut slot[AT_CLEAN_OFFSET..], clean.next_offset);
            LittleEndian::write_i64(&mut slot[AT_CLEAN_TIME..], clean.last_time_ms);
        }
        let checksum = crc32fast::hash(&slot[..AT_CHECKSUM]);
        LittleEndian::write_u32(&mut slot[AT_CHECKSUM..], checksum);
        slot
    }

    /// The version of a slot that is neither damaged nor torn. Magic, version and checksum are in the same places in
    /// every version.
    fn intact_version(slot: &[u8]) -> Option<u32> {
        let slot: &[u8; SLOT_BYTES] = slot.get(..SLOT_BYTES)?.try_into().ok()?;
        let intact = slot[AT_MAGIC..AT_VERSION] == MAGIC
            && LittleEndian::read_u32(&slot[AT_CHECKSUM..]) == crc32fast::hash(&slot[..AT_CHECKSUM]);
        intact.then(|| LittleEndian::read_u32(&slot[AT_VERSION..]))
    }

    /// The slot's number and state, unless it is damaged, torn, or of another version.
    fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        if Self::intact_version(slot) != Some(VERSION) {
            return None;
        }
        let flags = LittleEndian::read_u32(&slot[AT_FLAGS..]);
        let clean = CleanMark {
            segment_id: LittleEndian::read_u64(&slot[AT_CLEAN_SEGMENT..]),
            end_position: LittleEndian::read_u64(&slot[AT_CLEAN_POSITION..]),
            next_offset: LittleEndian::read_u64(&slot[AT_CLEAN_OFFSET..]),
            last_time_ms: LittleEndian::read_i64(&slot[AT_CLEAN_TIME..]),
        };
        let state = Self {
            topic_id: LittleEndian::read_u128(&slot[AT_TOPIC_ID..]),
            partition: LittleEndian::read_u32(&slot[AT_PARTITION..]),
            log_start_offset: LittleEndian::read_u64(&slot[AT_LOG_START..]),
            durable: LogPosition::new(
                LittleEndian::read_u64(&slot[AT_DURABLE_SEQUENCE..]),
                LittleEndian::read_u64(&slot[AT_DURABLE_POSITION..]),
            )?,
            durable_offset: LittleEndian::read_u64(&slot[AT_DURABLE_OFFSET..]),
            offset_ceiling: LittleEndian::read_u64(&slot[AT_CEILING..]),
            epoch: LittleEndian::read_u32(&slot[AT_EPOCH..]),
            poisoned: flags & FLAG_POISONED != 0,
            clean: (flags & FLAG_CLEAN != 0).then_some(clean),
        };
        Some((LittleEndian::read_u64(&slot[AT_NUMBER..]), state))
    }
}

/// Whether a slot of this number was written behind one of the other. Numbers go round, so that each has a next one, also
/// the greatest, which only somebody who forges checksums ever writes.
pub(crate) fn is_later(number: u64, other: u64) -> bool {
    number.wrapping_sub(other).wrapping_sub(1) < u64::MAX / 2
}

/// What is wrong with a slot.
#[derive(Debug)]
pub(crate) enum SlotFault {
    /// It isn't what was written.
    Damaged,
    /// A newer version wrote it.
    Newer(u32),
    /// The device doesn't give it.
    Unreadable(io::Error),
}

/// Why a state could not be made durable.
#[derive(Debug)]
pub(crate) enum CheckpointFault {
    /// The write was refused; the state on the device is the one before.
    Write(Error),
    /// The sync failed; which of the two states is on the device isn't known.
    Sync(Error),
}

impl CheckpointFault {
    /// Whether nothing was tried, for lack of a descriptor.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == ErrorKind::LimitReached)
    }
}

impl From<CheckpointFault> for Error {
    fn from(fault: CheckpointFault) -> Self {
        match fault {
            CheckpointFault::Write(error) | CheckpointFault::Sync(error) => error,
        }
    }
}

/// The checkpoint file of one partition.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    /// The handle of a write that failed, to go on with.
    failed: Option<Arc<dyn File>>,
    /// The slot that counts, and its number.
    slot: u64,
    number: u64,
    state: CheckpointState,
    /// Whether the slot that counts is known to be on the device.
    settled: bool,
    /// What is to be written before anything is appended.
    deferred: Option<CheckpointState>,
    /// What was wrong with the other slot when the file was opened, if it hasn't been written since.
    lost_slot: Option<String>,
}

impl Checkpoint {
    /// Writes a new file with `state`, durable when this returns. The folder is synced too.
    pub(crate) fn create(storage: &dyn Storage, dir: &Path, state: CheckpointState) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        // Both slots, so that one of zeros is a damaged one.
        let mut bytes = vec![0; 2 * SLOT_DISTANCE as usize];
        bytes[..SLOT_BYTES].copy_from_slice(&state.encode(1));
        bytes[SLOT_DISTANCE as usize..][..SLOT_BYTES].copy_from_slice(&state.encode(2));
        storage
            .replace(dir, TEMPORARY_NAME, FILE_NAME, &bytes)
            .map_err(|source| Error::io("create the checkpoint", &path, source))?;
        Ok(Self { path, failed: None, slot: 0, number: 1, state, settled: true, deferred: None, lost_slot: None })
    }

    /// Reads the file; `None` if there is none or neither slot is intact, kind `UnsupportedFormat` if one is of a newer
    /// version. A slot that the device can't read is lost as a damaged one is, but an error where the other one is lost
    /// too: it may be sound, and be read another time. Nothing is written yet: the first [`write`](Checkpoint::write)
    /// makes sure of the slot that was read.
    pub(crate) fn open(storage: &dyn Storage, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        let file = match storage.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open the checkpoint", &path, error)),
        };
        let mut best: Option<(u64, u64, CheckpointState)> = None;
        let (mut lost, mut unreadable) = (None, None);
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            let read = match file.read_at(&mut bytes, slot * SLOT_DISTANCE) {
                Ok(read) => read,
                Err(source) => {
                    lost = Some(format!("slot {slot} can't be read: {source}"));
                    unreadable = Some(source);
                    continue;
                }
            };
            if let Some(found) = CheckpointState::intact_version(&bytes[..read]).filter(|&found| found > VERSION) {
                return Err(Repr::UnsupportedFormat { path, found, supported: VERSION }.into());
            }
            match CheckpointState::decode(&bytes[..read]) {
                Some((number, state)) if best.is_none_or(|(_, latest, _)| is_later(number, latest)) => {
                    best = Some((slot, number, state));
                }
                Some(_) => {}
                None => lost = Some(format!("slot {slot} is damaged")),
            }
        }
        if let Some(source) = unreadable.filter(|_| best.is_none()) {
            return Err(Error::io("read the checkpoint", &path, source));
        }
        Ok(best.map(|(slot, number, state)| Self {
            path,
            failed: None,
            slot,
            number,
            state,
            settled: false,
            deferred: None,
            lost_slot: lost,
        }))
    }

    /// What is wrong with each of the slots, if something is: where it lies, and what it is.
    pub(crate) fn slot_faults(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<(Range<u64>, SlotFault)>> {
        let file = storage.open(&dir.join(FILE_NAME), OpenMode::Read)?;
        let mut faults = Vec::new();
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            let start = slot * SLOT_DISTANCE;
            let fault = match file.read_at(&mut bytes, start) {
                Err(error) => SlotFault::Unreadable(error),
                Ok(read) => match CheckpointState::intact_version(&bytes[..read]) {
                    Some(version) if version > VERSION => SlotFault::Newer(version),
                    _ if CheckpointState::decode(&bytes[..read]).is_some() => continue,
                    _ => SlotFault::Damaged,
                },
            };
            faults.push((start..start + SLOT_BYTES as u64, fault));
        }
        Ok(faults)
    }

    /// What counts now.
    pub(crate) fn state(&self) -> &CheckpointState {
        self.deferred.as_ref().unwrap_or(&self.state)
    }

    /// What has to be taken for granted where the log's end is looked for: where a slot is lost, it may have been the newer
    /// one, with a higher ceiling: a step above the end of the frame that needed it.
    pub(crate) fn presumed_state(&self) -> CheckpointState {
        let mut state = *self.state();
        if self.lost_slot.is_some() {
            state.offset_ceiling = state.offset_ceiling.saturating_add(2 * OFFSET_CEILING_STEP);
        }
        state
    }

    /// Makes `state` the one that counts, durable when this returns.
    ///
    /// The first time after [`open`](Checkpoint::open) the slot that was read is made durable where it stands, before
    /// the other one is touched: it may have come from a page that never reached the device.
    pub(crate) fn write(&mut self, storage: &dyn Storage, state: CheckpointState) -> Result<(), CheckpointFault> {
        self.settle(storage)?;
        self.write_other_slot(storage, state)?;
        if self.lost_slot.is_some() {
            // The ceiling may have gone up by more than what the loss of one slot allows for: into both, then.
            self.write_other_slot(storage, state)?;
            self.lost_slot = None;
        }
        self.deferred = None;
        Ok(())
    }

    fn write_other_slot(&mut self, storage: &dyn Storage, state: CheckpointState) -> Result<(), CheckpointFault> {
        let (slot, number) = (1 - self.slot, self.number.wrapping_add(1));
        self.write_slot(storage, slot, number, &state)?;
        (self.slot, self.number, self.state) = (slot, number, state);
        Ok(())
    }

    /// Leaves it to the next [`write`](Checkpoint::write) to make `state` durable.
    pub(crate) fn defer(&mut self, state: CheckpointState) {
        self.deferred = Some(state);
    }

    /// Whether the device has a state in which offsets may be assigned. Behind a clean mark, or a deferred state, it
    /// takes a write first.
    pub(crate) fn allows_appends(&self) -> bool {
        self.state.clean.is_none() && self.deferred.is_none()
    }

    /// Whether the device has a state that is poisoned.
    pub(crate) fn says_poisoned(&self) -> bool {
        self.settled && self.deferred.is_none() && self.state.poisoned
    }

    /// What is wrong with the other slot, if it can't be read: it may have been the newer one.
    pub(crate) fn lost_slot(&self) -> Option<&str> {
        self.lost_slot.as_deref()
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what counts durable where it stands, unless it is known to be.
    pub(crate) fn settle(&mut self, storage: &dyn Storage) -> Result<(), CheckpointFault> {
        if !self.settled {
            let state = self.state;
            self.write_slot(storage, self.slot, self.number, &state)?;
            self.settled = true;
        }
        Ok(())
    }

    fn write_slot(
        &mut self,
        storage: &dyn Storage,
        slot: u64,
        number: u64,
        state: &CheckpointState,
    ) -> Result<(), CheckpointFault> {
        let file = match self.failed.take() {
            Some(file) => file,
            None => storage
                .open(&self.path, OpenMode::ReadWrite)
                .map_err(|source| CheckpointFault::Write(Error::io("open the checkpoint", &self.path, source)))?,
        };
        let written = file
            .write_all_at(&state.encode(number), slot * SLOT_DISTANCE)
            .map_err(|source| CheckpointFault::Write(Error::io("write the checkpoint", &self.path, source)));
        let outcome = written.and_then(|()| {
            // Of kind `Io` whatever it is: see [`PartitionLog::sync_failed`](super::PartitionLog::sync_failed).
            let failed = |source| Repr::Io { operation: "sync the checkpoint", path: self.path.clone(), source };
            file.sync_data().map_err(|source| CheckpointFault::Sync(failed(source).into()))
        });
        if outcome.is_err() {
            self.failed = Some(file);
        }
        outcome
    }
}

#[cfg(any(fuzzing, all(test, not(loom))))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::SimStorage;

    fn state() -> CheckpointState {
        CheckpointState {
            topic_id: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
            partition: 3,
            log_start_offset: 5,
            durable: LogPosition::new(7, 4192).unwrap(),
            durable_offset: 11,
            offset_ceiling: 13,
            epoch: 17,
            poisoned: true,
            clean: Some(CleanMark { segment_id: 19, end_position: 4192, next_offset: 23, last_time_ms: -1 }),
        }
    }

    #[test]
    fn a_slot_lies_in_the_file_as_documented() {
        let slot = state().encode(29);
        let mut expected = Vec::new();
        expected.extend(b"tidechk\0");
        expected.extend(1_u32.to_le_bytes());
        expected.extend(3_u32.to_le_bytes());
        expected.extend(29_u64.to_le_bytes());
        expected.extend(0..16);
        for number in [5_u64, 7, 4192, 11, 13] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend(17_u32.to_le_bytes());
        expected.extend(3_u32.to_le_bytes());
        for number in [19_u64, 4192, 23, u64::MAX] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(slot[..], expected);
        assert_eq!(CheckpointState::decode(&slot), Some((29, state())));
    }

    #[test]
    fn a_newer_version_is_refused_by_number() {
        let storage = SimStorage::default();
        let dir = Path::new("/data");
        storage.create_dir_all(dir).unwrap();
        Checkpoint::create(&storage, dir, state()).unwrap();
        let mut slot = state().encode(2);
        LittleEndian::write_u32(&mut slot[AT_VERSION..], 2);
        let checksum = crc32fast::hash(&slot[..AT_CHECKSUM]);
        LittleEndian::write_u32(&mut slot[AT_CHECKSUM..], checksum);
        let file = storage.open(&dir.join(FILE_NAME), OpenMode::ReadWrite).unwrap();
        file.write_all_at(&slot, SLOT_DISTANCE).unwrap();
        let error = Checkpoint::open(&storage, dir).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::UnsupportedFormat);
        assert!(error.to_string().contains("partition.checkpoint has format version 2"), "{error}");
    }

    #[test]
    fn each_number_has_a_later_one() {
        for number in [0, 1, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX] {
            assert_eq!(CheckpointState::decode(&state().encode(number)), Some((number, state())));
            let next = number.wrapping_add(1);
            assert!(is_later(next, number) && !is_later(number, next) && !is_later(number, number));
        }
        assert!(is_later(7, 2) && !is_later(2, 7));
    }

    /// Whatever number a slot has, what is written next counts.
    #[test]
    fn what_is_written_behind_any_number_is_read() {
        for number in [1, (1 << 63) - 1, 1 << 63, u64::MAX] {
            let (storage, dir) = (SimStorage::default(), Path::new("/data"));
            storage.create_dir_all(dir).unwrap();
            let mut bytes = vec![0; 2 * SLOT_DISTANCE as usize];
            bytes[..SLOT_BYTES].copy_from_slice(&state().encode(number));
            storage.open(&dir.join(FILE_NAME), OpenMode::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
            for offset in 1..4 {
                let mut checkpoint = Checkpoint::open(&storage, dir).unwrap().unwrap();
                let next = CheckpointState { offset_ceiling: offset, ..state() };
                checkpoint.write_other_slot(&storage, next).unwrap();
                assert_eq!(Checkpoint::open(&storage, dir).unwrap().unwrap().state, next, "behind {number}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let slot = state().encode(1);
        for bit in 0..slot.len() * 8 {
            let mut damaged = slot;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CheckpointState::decode(&damaged), None, "bit {bit}");
        }
        for len in 0..slot.len() {
            assert_eq!(CheckpointState::decode(&slot[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn the_next_state_goes_into_the_other_slot_and_the_newest_counts() {
        let storage = SimStorage::default();
        let dir = Path::new("/data");
        storage.create_dir_all(dir).unwrap();
        let mut checkpoint = Checkpoint::create(&storage, dir, state()).unwrap();
        for epoch in 18..25 {
            let before = storage.read(&dir.join(FILE_NAME), 8192).unwrap();
            let old = checkpoint.slot;
            checkpoint.write(&storage, CheckpointState { epoch, ..state() }).unwrap();
            let after = storage.read(&dir.join(FILE_NAME), 8192).unwrap();
            let slot = |bytes: &[u8]| bytes[old as usize * 4096..][..SLOT_BYTES].to_vec();
            assert_eq!(slot(&before), slot(&after), "the slot that counted is untouched");
            checkpoint = Checkpoint::open(&storage, dir).unwrap().unwrap();
            assert_eq!(checkpoint.state().epoch, epoch);
        }
    }

    #[test]
    fn the_first_write_after_an_open_makes_sure_of_the_slot_that_was_read() {
        use crate::storage::sim::faults::Operation::{Open, SyncData, Write};
        let storage = SimStorage::default();
        let dir = Path::new("/data");
        storage.create_dir_all(dir).unwrap();
        Checkpoint::create(&storage, dir, state()).unwrap();
        let mut checkpoint = Checkpoint::open(&storage, dir).unwrap().unwrap();
        storage.take_trace();
        checkpoint.write(&storage, state()).unwrap();
        let operations: Vec<_> = storage.take_trace().into_iter().map(|it| it.operation).collect();
        assert_eq!(operations, [Open, Write, SyncData, Open, Write, SyncData]);
        checkpoint.write(&storage, state()).unwrap();
        assert_eq!(storage.take_trace().len(), 3);
    }
}
