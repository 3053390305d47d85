//! A folder that is damaged, opened, and put back as it was: in place, so that files stay the very files that a control
//! page names.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    common::process::{run_child, run_killed_child},
    written::{Ending, Place, Written},
};

/// A memory file system.
const MEMORY: &str = "/dev/shm";

/// A file's content, without the zeros at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) len: u64,
}

impl Content {
    fn read(path: &Path) -> Self {
        let mut bytes = fs::read(path).unwrap();
        let len = bytes.len() as u64;
        bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        bytes.shrink_to_fit();
        Self { bytes, len }
    }

    /// All of it, zeros too.
    pub(crate) fn whole(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.len as usize, 0);
        bytes
    }

    /// Makes the file at `path` this one, in place if it is there.
    pub(crate) fn write(&self, path: &Path) {
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            remove(path);
        }
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(self.bytes.len() as u64).unwrap();
        file.write_all_at(&self.bytes, 0).unwrap();
        file.set_len(self.len).unwrap();
    }
}

/// Removes whatever is there.
pub(crate) fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// A folder's files by their paths in it; folders have no content.
pub(crate) type Image = BTreeMap<PathBuf, Option<Content>>;

pub(crate) fn image_of(root: &Path) -> Image {
    let mut image = Image::new();
    for path in paths(root) {
        let content = (!path.is_dir()).then(|| Content::read(&path));
        image.insert(path.strip_prefix(root).unwrap().into(), content);
    }
    image
}

/// All that is in a folder, parents first.
fn paths(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// Copies a folder; what is zeros at the end of a file is a hole in the copy.
pub(crate) fn copy_sparse(from: &Path, to: &Path) {
    put(&image_of(from), to);
}

/// Makes a folder hold just what the image does.
pub(crate) fn put(image: &Image, root: &Path) {
    fs::create_dir_all(root).unwrap();
    for path in paths(root) {
        if !image.contains_key(path.strip_prefix(root).unwrap()) {
            remove(&path);
        }
    }
    for (path, content) in image {
        let path = root.join(path);
        match content {
            Some(content) => content.write(&path),
            None if path.is_dir() => {}
            None => {
                remove(&path);
                fs::create_dir(&path).unwrap();
            }
        }
    }
}

/// A log that has ended, and what it was.
///
/// A second name of each file lies beside it. So a file that is replaced or removed comes back as the very one that the
/// control page names, and the page is believed in the next case too.
pub(crate) struct Ground {
    root: TempDir,
    pub(crate) ending: Ending,
    pub(crate) image: Image,
    pub(crate) written: Written,
}

impl Ground {
    /// Written by a process of its own, on a memory file system if there is one.
    pub(crate) fn new(ending: Ending) -> Self {
        let memory = Path::new(MEMORY);
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        match ending {
            Ending::Clean => run_child(ending.task(), root.path()),
            Ending::Killed | Ending::Power => run_killed_child(ending.task(), root.path()),
        }
        .unwrap();
        let place = Place(root.path());
        let log = place.log();
        if ending == Ending::Power {
            // Another boot's pages aren't believed; none at all is the same.
            paths(&log).iter().filter(|path| path.ends_with("partition.state")).for_each(|path| remove(path));
        }
        let written = Written::read(&place);
        let image = image_of(&log);
        for (path, content) in &image {
            let original = place.originals().join(path);
            fs::create_dir_all(original.parent().unwrap()).unwrap();
            if content.is_some() {
                fs::hard_link(log.join(path), original).unwrap();
            }
        }
        Self { ending, image, written, root }
    }

    pub(crate) fn log(&self) -> PathBuf {
        Place(self.root.path()).log()
    }

    /// The log as it was when it had so many segments.
    pub(crate) fn moment(&self, segments: usize) -> Image {
        image_of(&Place(self.root.path()).moment(segments))
    }

    /// Puts everything back.
    pub(crate) fn restore(&self) {
        for (path, content) in &self.image {
            let (own, original) = (self.log().join(path), Place(self.root.path()).originals().join(path));
            if content.is_none() {
                fs::create_dir_all(&own).unwrap();
            } else if !is_same_file(&own, &original) {
                remove(&own);
                fs::hard_link(original, own).unwrap();
            }
        }
        put(&self.image, &self.log());
    }
}

fn is_same_file(path: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
    identity(path).is_some_and(|found| identity(other) == Some(found))
}

/// Writes a whole file anew, in place if it is there.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}
