//! Taking bytes out of a log without losing them: a torn tail is copied into a file of its own, a whole segment gets
//! another name.
//!
//! # Invariants
//! - A copy is complete and durable before a byte of what it was taken from changes.
//! - Doing it again after a crash makes no second copy, and never overwrites an older one.
//! - Where there is no space for the copy, nothing changes: the tail stays, behind an end that nobody reads beyond, until
//!   the first append that finds some (see [`uncut`](super::uncut)).
//! - Memory doesn't grow with what is copied, and holes stay holes.
//!
//! # Thread safety
//! Runs before anybody else has the partition.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Result, is_out_of_files},
    partition::{
        recovery::zero_behind,
        scan::{FileSource, Source, end_of_data, first_nonzero},
        segment::{remove_indexes, time_index_path},
        survey::Candidate,
    },
    storage::{EntryKind, File, OpenMode, Storage},
};

/// The name that a file is made under.
pub(super) const REWRITE_NAME: &str = "rewrite.tmp";
/// Bytes that are copied at once.
pub(super) const COPY_BYTES: usize = 256 << 10;

/// Why a tail couldn't be set aside.
#[derive(Debug)]
pub(super) enum SetAsideFault {
    /// It stays as it was: doing it again comes to the same.
    Undone(Error),
    /// The folder couldn't be synced. Which names are on the device isn't known, and no later sync would tell.
    Sync { path: PathBuf, source: std::io::Error },
}

impl From<Error> for SetAsideFault {
    fn from(error: Error) -> Self {
        Self::Undone(error)
    }
}

fn sync_folder(storage: &dyn Storage, dir: &Path) -> Result<(), SetAsideFault> {
    storage.sync_dir(dir).map_err(|source| match is_out_of_files(&source) {
        true => SetAsideFault::Undone(Error::io("sync the folder", dir, source)),
        false => SetAsideFault::Sync { path: dir.to_owned(), source },
    })
}

/// What is cut from the end of a log.
#[derive(Debug, Default)]
pub(crate) struct TornTail {
    /// The segment that is cut, and where; `None` if whole segments are all that goes.
    pub(super) cut: Option<(Candidate, u64)>,
    /// The segments behind it.
    pub(super) later: Vec<PathBuf>,
}

impl TornTail {
    /// Takes it out of the log. What was written isn't synced, but through `cut`'s handle. Answers where it is kept.
    ///
    /// What wasn't set aside is left as it was: doing it again, in this process or in the next, comes to the same.
    pub(super) fn set_aside(&mut self, storage: &dyn Storage, dir: &Path) -> Result<Vec<PathBuf>, SetAsideFault> {
        let mut kept_in = Vec::new();
        if let Some((candidate, position)) = &mut self.cut {
            kept_in.extend(set_tail_aside(storage, dir, candidate, *position)?);
        }
        for path in &self.later {
            kept_in.extend(set_segment_aside(storage, path)?);
        }
        sync_folder(storage, dir)?;
        Ok(kept_in)
    }
}

/// Copies what lies behind `position` into a file of its own, and makes it zeros. `None` if it was zeros.
fn set_tail_aside(
    storage: &dyn Storage,
    dir: &Path,
    candidate: &mut Candidate,
    position: u64,
) -> Result<Option<PathBuf>, SetAsideFault> {
    let file = candidate.open(storage, OpenMode::ReadWrite)?;
    let path = &candidate.path;
    let failed = |source| Error::io("set the torn tail aside of", path, source);
    let mut source = FileSource::new(file.clone()).map_err(failed)?;
    if first_nonzero(&mut source, position).map_err(failed)?.is_none() {
        return Ok(None);
    }
    // It tells of what is cut. Nobody would believe it any more, so it doesn't matter if it stays.
    let times = time_index_path(path);
    if matches!(storage.entry_kind(&times), Ok(Some(_))) {
        let _ = storage.remove_file(&times);
    }
    let end = end_of_data(&mut source, position).map_err(failed)?.min(source.len());
    let name = format!("{:020}.torn-{position}", candidate.base);
    let copy = copy_aside(storage, dir, &file, position..end, &name)
        .map_err(|source| Error::io("copy the torn tail aside of", path, source))?;
    sync_folder(storage, dir)?;
    // Synced with all that is kept: were it synced here, and failed, nobody would know any more what else was lost.
    candidate.written = Some(file.clone());
    zero_behind(&file, position, end).map_err(failed)?;
    Ok(Some(copy))
}

/// Copies a range of a file to a new file in the same folder. A copy with the same bytes, left by somebody who was
/// interrupted, serves as well. The bytes are durable; the name of either is once the caller has synced the folder.
///
/// A piece at a time, and holes stay holes: what lies behind the end of a log may be a few bytes at the end of a file of
/// any length.
pub(super) fn copy_aside(
    storage: &dyn Storage,
    dir: &Path,
    file: &Arc<dyn File>,
    range: Range<u64>,
    name: &str,
) -> std::io::Result<PathBuf> {
    let mut attempt = 0;
    let path = loop {
        let path = dir.join(if attempt == 0 { name.to_owned() } else { format!("{name}.{attempt}") });
        match storage.entry_kind(&path)? {
            None => break path,
            Some(EntryKind::File) if is_copy(storage, &path, file, &range)? => return Ok(path),
            Some(_) => attempt += 1,
        }
    };
    let temporary = dir.join(REWRITE_NAME);
    let make = || {
        let copy = storage.open(&temporary, OpenMode::Truncate)?;
        copy.set_len(range.end - range.start)?;
        let mut source = FileSource::new(file.clone())?.until(range.end);
        let mut position = range.start;
        while let Some(data) = first_nonzero(&mut source, position)? {
            let bytes = source.at(data, COPY_BYTES)?;
            copy.write_all_at(bytes, data - range.start)?;
            position = data + bytes.len() as u64;
        }
        copy.sync_all()?;
        storage.rename(&temporary, &path)
    };
    give_up_temporary(storage, &temporary, make())?;
    Ok(path)
}

/// Removes a temporary file that couldn't be completed: what was written of it takes space for nothing.
pub(super) fn give_up_temporary<T>(
    storage: &dyn Storage,
    temporary: &Path,
    outcome: std::io::Result<T>,
) -> std::io::Result<T> {
    if outcome.is_err() {
        // The first error is the one to tell. What stays is removed by the next open.
        let _ = storage.remove_file(temporary);
    }
    outcome
}

/// Whether the file at `path` holds just what the range does.
pub(super) fn is_copy(
    storage: &dyn Storage,
    path: &Path,
    file: &Arc<dyn File>,
    range: &Range<u64>,
) -> std::io::Result<bool> {
    let mut held = FileSource::new(storage.open(path, OpenMode::Read)?)?;
    let mut source = FileSource::new(file.clone())?.until(range.end);
    if held.len() != range.end - range.start {
        return Ok(false);
    }
    let mut position = 0;
    loop {
        let data = first_nonzero(&mut source, range.start + position)?.map(|data| data - range.start);
        if first_nonzero(&mut held, position)? != data {
            return Ok(false);
        }
        let Some(data) = data else { return Ok(true) };
        let bytes = source.at(range.start + data, COPY_BYTES)?;
        if held.at(data, COPY_BYTES)? != bytes {
            return Ok(false);
        }
        position = data + bytes.len() as u64;
    }
}

/// Takes a whole segment out of the log by giving it another name. `None` if that was done before.
fn set_segment_aside(storage: &dyn Storage, path: &Path) -> Result<Option<PathBuf>> {
    let failed = |source| Error::io("set the segment aside", path, source);
    if storage.entry_kind(path).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let mut aside = path.with_extension("log.torn");
    let mut attempt = 0;
    while storage.entry_kind(&aside).map_err(failed)?.is_some() {
        attempt += 1;
        aside = path.with_extension(format!("log.torn.{attempt}"));
    }
    storage.rename(path, &aside).map_err(failed)?;
    remove_indexes(storage, path);
    Ok(Some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{partition::segment::base_offset_of, storage::fs::FsStorage};

    /// On the real storage, which knows holes: the tail is a few bytes, far apart.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_tail_with_a_hole_is_set_aside_and_zeroed_as_one() {
        const LEN: u64 = 1 << 38;
        let root = tempfile::tempdir().unwrap();
        let file = FsStorage.open(&root.path().join("a"), OpenMode::CreateNew).unwrap();
        file.set_len(LEN).unwrap();
        file.write_all_at(b"kept", 5000).unwrap();
        for position in [6000, 1 << 30, LEN - 20] {
            file.write_all_at(b"cut", position).unwrap();
        }
        let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap());
        let copy = || copy_aside(&FsStorage, root.path(), &file, 5008..LEN, "torn").unwrap();
        let path = copy();
        assert_eq!(path, root.path().join("torn"));
        assert!(std::fs::metadata(&path).unwrap().len() == LEN - 5008 && blocks(&path) * 512 < 16 << 20);
        assert_eq!(copy(), path, "the same bytes are there already");
        file.write_all_at(b"else", 1 << 31).unwrap();
        assert_eq!(copy(), root.path().join("torn.1"));

        zero_behind(&file, 5008, LEN).unwrap();
        assert!(blocks(&root.path().join("a")) * 512 < 16 << 20);
        let mut source = FileSource::new(file.clone()).unwrap();
        assert_eq!(first_nonzero(&mut source, 5004).unwrap(), None);
        assert_eq!(first_nonzero(&mut source, 0).unwrap(), Some(5000));
    }

    #[test]
    fn what_was_set_aside_is_not_a_segment() {
        assert_eq!(base_offset_of("00000000000000000007.log"), Some(7));
        for name in ["00000000000000000007.torn-4096", "00000000000000000007.log.torn", "7.log", "rewrite.tmp"] {
            assert_eq!(base_offset_of(name), None, "{name}");
        }
    }
}
