//! Whose the files in a partition's folder are, without opening it.
//!
//! # Thread safety
//! Plain functions that change nothing.

use std::path::Path;

use crate::{
    error::{Error, Result},
    partition::{
        checkpoint::Checkpoint,
        segment::{base_offset_of, segment_path},
    },
    segment_header::{COPY_A_AT, COPY_B_AT, HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader},
    storage::{OpenMode, Storage},
};

/// The id of the topic that the files in `dir` belong to. `None` if none of them can be read, or they are of several.
/// Kind `UnsupportedFormat` if one is of a newer version.
pub(crate) fn topic_id_of(storage: &dyn Storage, dir: &Path) -> Result<Option<u128>> {
    let mut ids = Vec::new();
    ids.extend(Checkpoint::open(storage, dir)?.map(|checkpoint| checkpoint.state().topic_id));
    let entries = storage.list(dir).map_err(|source| Error::io("list", dir, source))?;
    for base in entries.iter().filter_map(|entry| base_offset_of(&entry.name)) {
        ids.extend(segment_topic_id(storage, &segment_path(dir, base))?);
    }
    ids.dedup();
    Ok(if ids.len() == 1 { ids.pop() } else { None })
}

fn segment_topic_id(storage: &dyn Storage, path: &Path) -> Result<Option<u128>> {
    let read = || {
        let file = storage.open(path, OpenMode::Read)?;
        let mut copies = [[0; SEGMENT_HEADER_BYTES]; 2];
        file.read_at(&mut copies[0], COPY_A_AT)?;
        file.read_at(&mut copies[1], COPY_B_AT)?;
        Ok(copies)
    };
    let [a, b] = read().map_err(|source| Error::io("read the header of", path, source))?;
    match SegmentHeader::read_either(&a, &b) {
        Ok(header) => Ok(Some(u128::from_le_bytes(header.topic_id))),
        Err(HeaderFault::Version(found)) => {
            let supported = crate::segment_header::FORMAT_VERSION;
            Err(crate::error::Repr::UnsupportedFormat { path: path.into(), found, supported }.into())
        }
        Err(_) => Ok(None),
    }
}
