//! Folders of partitions that no topic has: leftovers of a creation that didn't get to its end, or the remains of a
//! topic whose file is gone.
//!
//! # Invariants
//! Only what surely holds no record is removed: no file but those that a new partition consists of, and nothing but
//! zeros behind the headers of its segments. Whatever is in doubt counts as a record.
//!
//! # Thread safety
//! Plain functions; the caller sees to it that nobody opens the folders meanwhile.

use std::{io, path::Path};

use crate::{
    error::{Error, Result},
    segment_header::DATA_START,
    storage::{EntryKind, File, OpenMode, Storage},
};

/// Removes those of the folders in `dir`, or refuses (kind `Corruption`) if any of them holds a record.
pub(crate) fn remove_if_empty(storage: &dyn Storage, dir: &Path, folders: &[String]) -> Result<()> {
    for folder in folders {
        let path = dir.join(folder);
        if !is_empty(storage, &path)? {
            let detail =
                "an orphaned partition folder that may hold records: put its topic's file back, or move it away";
            return Err(Error::corruption(path, 0, detail));
        }
    }
    for folder in folders {
        let path = dir.join(folder);
        storage.remove_dir_all(&path).map_err(|source| Error::io("remove", &path, source))?;
    }
    if !folders.is_empty() {
        storage.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
    }
    Ok(())
}

/// Whether the folder of a partition surely holds no record.
pub(crate) fn is_empty(storage: &dyn Storage, folder: &Path) -> Result<bool> {
    let found = holds_records(storage, folder).map_err(|source| Error::io("look through", folder, source))?;
    Ok(!found)
}

/// Whether a record, or something that isn't ours, may be in the folder of a partition.
fn holds_records(storage: &dyn Storage, folder: &Path) -> io::Result<bool> {
    for entry in storage.list(folder)? {
        if entry.kind != EntryKind::File || !is_ours(&entry.name) {
            return Ok(true);
        }
        if entry.name.ends_with(".log") {
            let file = storage.open(&folder.join(&entry.name), OpenMode::Read)?;
            if !is_zero_from(&*file, DATA_START)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a new partition may have a file of that name. Somebody else's `app.log` isn't to be taken for a segment.
fn is_ours(name: &str) -> bool {
    let Some((stem, extension)) = name.split_once('.') else { return false };
    let is_base_offset = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    let extensions = ["log", "index", "timeindex", "tmp", "index.tmp", "timeindex.tmp"];
    stem == "partition" || (is_base_offset && extensions.contains(&extension))
}

/// Whether the file holds nothing but zeros from `position` on. Holes aren't read.
fn is_zero_from(file: &dyn File, mut position: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    while let Some(data) = file.next_data(position)? {
        let read = file.read_at(&mut buffer, data)?;
        if buffer[..read].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        if read < buffer.len() {
            break; // the end of the file
        }
        position = data + read as u64;
    }
    Ok(true)
}
