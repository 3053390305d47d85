//! Checkpoints for the fuzz targets: slots as an input wants them, with checksums that hold.

use super::*;

/// Where the slots stand.
pub(crate) const SLOTS: [usize; 2] = [0, SLOT_DISTANCE as usize];
/// The least that a file has.
pub(crate) const BYTES: usize = SLOTS[1] + SLOT_BYTES;

/// Makes magic and checksum of a slot hold.
pub(crate) fn seal(slot: &mut [u8]) {
    slot[AT_MAGIC..AT_VERSION].copy_from_slice(&MAGIC);
    let checksum = crc32fast::hash(&slot[..AT_CHECKSUM]);
    LittleEndian::write_u32(&mut slot[AT_CHECKSUM..SLOT_BYTES], checksum);
}

/// What an intact slot says, its number and whether nobody is to believe it.
pub(crate) fn decode(slot: &[u8]) -> Option<(u64, CheckpointState)> {
    CheckpointState::decode(slot)
}

/// A file whose slots both say this.
pub(crate) fn file(state: &CheckpointState) -> Vec<u8> {
    let mut bytes = vec![0; 2 * SLOT_DISTANCE as usize];
    for (number, at) in (1..).zip(SLOTS) {
        bytes[at..at + SLOT_BYTES].copy_from_slice(&state.encode(number));
    }
    bytes
}
