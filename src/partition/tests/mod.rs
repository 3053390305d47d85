//! Tests of a partition on the simulated storage, where machines reboot, disks fill and syncs fail at will.

#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges of offsets, some with one range")]

mod append;
mod durable;
mod faults;
mod full_disk;
mod life;
mod lookup;
mod model;
mod open_files;
mod paging;
mod recovery;
mod removal;
mod retention;
mod salvage;
mod settings;
mod time;
mod verify;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{
    Cursor, Environment, Flusher, OpenFiles, PartitionLog, PartitionRecovery, PartitionSpec, Settings, SettingsValues,
    batch::Batch,
};
use crate::{
    clock::Clock,
    config::Durability,
    error::{ErrorKind, Result},
    record::Record,
    storage::{OpenMode, Storage, sim::SimStorage},
};

/// A folder for one partition, and what happens around it.
pub(super) struct Machine {
    pub(super) storage: SimStorage,
    pub(super) now_ms: Arc<AtomicI64>,
    pub(super) clock: Clock,
    pub(super) dir: PathBuf,
    pub(super) spec: PartitionSpec,
    pub(super) positional_appends: bool,
    pub(super) mapped_after: u64,
}

impl Machine {
    pub(super) fn new() -> Self {
        let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
        Self {
            storage: SimStorage::default(),
            clock: Clock::Manual(now_ms.clone()),
            now_ms,
            dir: "/data/orders-3".into(),
            spec: PartitionSpec {
                topic: "orders".into(),
                topic_id: 0x1234,
                number: 3,
                settings: Arc::new(Settings::new(SettingsValues {
                    durability: Durability::Written,
                    segment_bytes: 64 << 10,
                    segment_ms: None,
                    max_record_bytes: 1 << 20,
                    retention_ms: None,
                    retention_bytes: None,
                })),
            },
            positional_appends: false,
            mapped_after: 0,
        }
    }

    /// Changes the options that the partition is opened with.
    pub(super) fn change(&self, change: impl FnOnce(&mut SettingsValues)) {
        let mut values = self.spec.settings.values();
        change(&mut values);
        self.spec.settings.set(values);
    }

    pub(super) fn try_open(&self) -> Result<(Arc<PartitionLog>, PartitionRecovery)> {
        PartitionLog::open(&self.environment()?, &self.dir, self.spec.clone())
    }

    pub(super) fn environment(&self) -> Result<Environment> {
        Ok(Environment {
            storage: Arc::new(self.storage.clone()),
            clock: self.clock.clone(),
            flusher: Flusher::new(Default::default()),
            prefaulter: Arc::default(),
            recent_segments: Arc::default(),
            open_files: OpenFiles::bounded(1000, self.storage.clone()),
            figures: Default::default(),
            positional_appends: self.positional_appends,
            mapped_after: self.mapped_after,
        })
    }

    pub(super) fn open(&self) -> (Arc<PartitionLog>, PartitionRecovery) {
        self.try_open().unwrap()
    }

    /// Another boot; everything that was written is there.
    pub(super) fn reboot(&self) {
        self.storage.reboot();
    }

    pub(super) fn advance_ms(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn read_file(&self, path: &Path) -> Vec<u8> {
        self.storage.read(path, u64::MAX).unwrap()
    }

    pub(super) fn write_file(&self, path: &Path, bytes: &[u8], position: u64) {
        self.storage.open(path, OpenMode::ReadWrite).unwrap().write_all_at(bytes, position).unwrap();
    }

    pub(super) fn cut_file(&self, path: &Path, len: u64) {
        self.storage.open(path, OpenMode::ReadWrite).unwrap().set_len(len).unwrap();
    }

    pub(super) fn files(&self) -> Vec<String> {
        self.storage.list(&self.dir).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// The segments' paths, oldest first.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |name: &String| super::segment::base_offset_of(name).is_some();
        self.files().into_iter().filter(is_segment).map(|name| self.dir.join(name)).collect()
    }
}

/// Offset and value of every record from `offset` on.
pub(super) fn read_all(partition: &Arc<PartitionLog>, offset: u64) -> Result<Vec<(u64, String)>> {
    let mut cursor = Cursor::new(partition, offset)?;
    let mut found = Vec::new();
    while let Some(run) = cursor.next_run(4096)? {
        found.extend(
            Batch::new(vec![run]).iter().map(|record| {
                (record.offset(), String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned())
            }),
        );
    }
    Ok(found)
}

/// As [`read_all`], going on behind damage: the records, and the errors' damaged offsets.
pub(super) fn read_around_damage(partition: &Arc<PartitionLog>) -> (Vec<(u64, String)>, Vec<std::ops::Range<u64>>) {
    let mut cursor = Cursor::new(partition, partition.start_offset()).unwrap();
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match cursor.next_run(4096) {
            Ok(Some(run)) => found.extend(
                Batch::new(vec![run])
                    .iter()
                    .map(|record| (record.offset(), String::from_utf8_lossy(record.value().unwrap()).into_owned())),
            ),
            Ok(None) => return (found, damaged),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert!(damaged.len() < 100, "no end of damage: {error}");
                damaged.push(error.damaged_offsets().unwrap());
                cursor.seek(error.resume_offset().unwrap()).unwrap();
            }
        }
    }
}

/// Bytes of a sealed segment.
pub(super) fn bytes_of(partition: &PartitionLog, at: usize) -> u64 {
    let segments = partition.segments.load();
    segments[at].bytes(&partition.env, &partition.spec, &segments[at + 1]).unwrap()
}

/// Waits until `holds`, or fails.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 30, "{what}");
        std::thread::yield_now();
    }
}

/// Appends records `record <n>` for the numbers, one frame each, and answers what should be read.
pub(super) fn append_numbers(partition: &Arc<PartitionLog>, numbers: std::ops::Range<u64>) -> Vec<(u64, String)> {
    numbers
        .map(|number| {
            let value = format!("record {number}");
            (partition.append(&Record::new(&*value).key("key"), None).unwrap(), value)
        })
        .collect()
}
