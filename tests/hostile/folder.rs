//! A log to do harm to, and what lies beside it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Failed;
use tempfile::TempDir;
use tidelog::{Durability, Log, Record, TopicConfig};

use crate::{
    common::{
        process::{kill_myself, run_killed_child},
        snapshot, value_of,
    },
    visitor::{Visit, visit},
};

/// A memory file system.
const MEMORY: &str = "/dev/shm";
pub(crate) const MAKE: &str = "make";
/// Records of each partition, numbered from 0, which are their offsets.
pub(crate) const RECORDS: u64 = 1000;
pub(crate) const VALUE_BYTES: usize = 150;
pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;

/// A temporary folder: `log`, and `outside`, which nobody may touch.
pub(crate) struct Folder {
    root: TempDir,
}

impl Folder {
    /// The log was closed; or its process was killed, and its pages are believed by nobody.
    pub(crate) fn new(is_closed: bool) -> Self {
        let memory = Path::new(MEMORY);
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self::in_folder(root.unwrap(), is_closed)
    }

    /// Where devices may be opened, as they mayn't on a memory file system.
    pub(crate) fn on_disk(is_closed: bool) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), is_closed)
    }

    fn in_folder(root: TempDir, is_closed: bool) -> Self {
        let folder = Self { root };
        if is_closed {
            make_log(&folder.log()).close().unwrap();
        } else {
            run_killed_child(MAKE, &folder.log()).unwrap();
            for path in folder.paths() {
                if path.ends_with("partition.state") {
                    fs::remove_file(folder.log().join(path)).unwrap();
                }
            }
        }
        fs::create_dir(folder.outside()).unwrap();
        fs::write(folder.outside().join("diary"), "Nobody's business.").unwrap();
        folder
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    /// All files and folders of the log, by their paths in it.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        snapshot(&self.log()).into_keys().map(|path| path.strip_prefix(self.log()).unwrap().into()).collect()
    }

    /// The segments of a partition's folder, oldest first.
    pub(crate) fn segments(&self, partition: &str) -> Vec<PathBuf> {
        let of_it = |path: &PathBuf| path.starts_with(partition) && path.extension().is_some_and(|it| it == "log");
        self.paths().into_iter().filter(of_it).map(|path| self.log().join(path)).collect()
    }

    /// What lies outside.
    pub(crate) fn surroundings(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        snapshot(&self.outside())
    }

    /// Has the folder visited; nothing outside may change.
    pub(crate) fn visit(&self, what: &str) -> Result<Visit, Failed> {
        let visit = self.visit_liar(what)?;
        if visit.others > 0 {
            return Err(format!("{what}: records that nobody wrote: {visit:?}").into());
        }
        Ok(visit)
    }

    /// As [`visit`](Folder::visit), of a log that was written by somebody who lies: nothing in it needs to be true.
    pub(crate) fn visit_liar(&self, what: &str) -> Result<Visit, Failed> {
        let before = self.surroundings();
        let visit = visit(&self.log(), what)?;
        if self.surroundings() != before {
            return Err(format!("{what}: something outside has changed").into());
        }
        Ok(visit)
    }
}

/// Fills a log; it is open.
fn make_log(path: &Path) -> Log {
    let log = Log::options().segment_bytes(SEGMENT_BYTES).durability(Durability::Written).open(path).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for number in 0..RECORDS {
        for partition in 0..2 {
            topic.append(Record::new(value_of(number, VALUE_BYTES)).partition(partition)).unwrap();
        }
    }
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    consumer.commit_offsets([("orders", 0, 500), ("orders", 1, 700)]).unwrap();
    drop(consumer);
    log.flush().unwrap();
    log
}

pub(crate) fn make(path: &Path) {
    let _log = make_log(path);
    kill_myself();
}
