//! What must hold for a partition whatever its files hold, for the fuzz targets and the tests to feed.
//!
//! Each target has a file of its own; this one has what they share: a partition in the simulated storage
//! ([`Bench`]), its files as values ([`Image`]), and what is read of it ([`Reading`]).
//!
//! A broken promise panics: that is how a fuzzer is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken promise panics")]
#![allow(unreachable_pub, reason = "public under `cfg(fuzzing)` alone")]

mod frames;
mod index_open;
mod segment_open;
mod state_open;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

pub(crate) use self::frames::Frames;
pub use self::{index_open::index_open, segment_open::segment_open, state_open::state_open};
use super::{
    Batch, Cursor, Environment, Flusher, OpenFiles, PartitionLog, PartitionRecovery, PartitionSpec, Settings,
    SettingsValues, scan::Scan, segment::segment_path,
};
use crate::{
    background::Background,
    clock::Clock,
    codec::Reader,
    config::Durability,
    error::{ErrorKind, Result},
    housekeeper::Housekeeper,
    random::{self, Sequence},
    record::{OwnedRecord, Record, RecordRef},
    segment_header::DATA_START,
    storage::{OpenMode, Storage, sim::SimStorage},
};

/// The partition's folder.
const DIR: &str = "/data/orders-3";
/// The unit in which contents are copied.
const BLOCK_BYTES: u64 = 4096;
/// More errors than files of this size can be the reason of mean that there is no end.
const MOST_DAMAGE: usize = 20_000;

/// A machine with one partition.
pub(crate) struct Bench {
    pub(crate) storage: SimStorage,
    pub(crate) spec: PartitionSpec,
    pub(crate) now_ms: Arc<AtomicI64>,
    /// See [`Environment::positional_appends`].
    pub(crate) positional_appends: bool,
}

/// Files of a folder, holes left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    files: Vec<FileImage>,
}

#[derive(Debug, Clone)]
struct FileImage {
    name: String,
    len: u64,
    /// What isn't zero, by position.
    blocks: Vec<(u64, Vec<u8>)>,
}

/// How a partition's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Close,
    Kill,
    /// The machine goes down, everything on its disk.
    Reboot,
}

impl Ending {
    pub(crate) fn from_bits(bits: u8) -> Self {
        [Self::Close, Self::Kill, Self::Reboot][usize::from(bits % 3)]
    }
}

impl Default for Bench {
    /// An empty machine. From here on this thread's ids are the same in each run.
    fn default() -> Self {
        random::seed(Some(Sequence::new(0x7469_6465)));
        let settings = SettingsValues {
            durability: Durability::Written,
            segment_bytes: 64 << 10,
            segment_ms: None,
            max_record_bytes: 16 << 10,
            retention_ms: None,
            retention_bytes: None,
        };
        let settings = Arc::new(Settings::new(settings));
        let bench = Self {
            storage: SimStorage::default(),
            spec: PartitionSpec { topic: "orders".into(), topic_id: 0x1234, number: 3, settings },
            now_ms: Arc::new(AtomicI64::new(1_700_000_000_000)),
            positional_appends: false,
        };
        bench.storage.create_dir_all(Path::new(DIR)).unwrap();
        bench
    }
}

impl Bench {
    /// A machine with these files.
    pub(crate) fn of(image: &Image) -> Self {
        let bench = Self::default();
        image.install(&bench.storage);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    pub(crate) fn open(&self) -> Result<(Arc<PartitionLog>, PartitionRecovery)> {
        let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
        let housekeeper = Housekeeper::new(Background::Stepped);
        let env = Environment {
            storage: storage.clone(),
            clock: Clock::Manual(self.now_ms.clone()),
            flusher: Flusher::new(Background::Stepped),
            prefaulter: Arc::default(),
            recent_segments: Arc::default(),
            open_files: OpenFiles::new(1000, storage, "/no such file".into(), housekeeper),
            figures: Default::default(),
            positional_appends: self.positional_appends,
            mapped_after: 0,
        };
        PartitionLog::open(&env, Path::new(DIR), self.spec.clone())
    }

    pub(crate) fn advance_ms(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// The bytes of a file; `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.storage.read(&self.path(name), u64::MAX).ok()
    }

    /// Puts a file of these bytes in the place of what is there; the file stays the same one if there is one.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let file = self.storage.open(&self.path(name), OpenMode::Truncate).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    /// Puts a segment where its header says.
    pub(crate) fn write_segment(&self, frames: &Frames) {
        self.write_at(frames.header.base_offset, &frames.bytes);
    }

    /// Puts a segment under the name of this base offset.
    fn write_at(&self, base_offset: u64, bytes: &[u8]) {
        self.write(segment_path(Path::new(""), base_offset).to_str().unwrap(), bytes);
    }

    /// Removes a file if it is there.
    pub(crate) fn remove(&self, name: &str) {
        let _ = self.storage.remove_file(&self.path(name));
    }

    pub(crate) fn image(&self) -> Image {
        Image::of(&self.storage)
    }

    /// Ends the process.
    pub(crate) fn end(&self, partition: Arc<PartitionLog>, ending: Ending) {
        if ending == Ending::Close {
            partition.close().unwrap();
        }
        drop(partition);
        if ending == Ending::Reboot {
            self.storage.reboot();
        }
    }
}

impl Image {
    fn of(storage: &SimStorage) -> Self {
        let mut files = Vec::new();
        for entry in storage.list(Path::new(DIR)).unwrap() {
            let file = storage.open(&Path::new(DIR).join(&entry.name), OpenMode::Read).unwrap();
            let (len, mut blocks, mut position) = (file.len().unwrap(), Vec::new(), 0);
            while let Some(data) = file.next_data(position).unwrap() {
                position = data / BLOCK_BYTES * BLOCK_BYTES;
                let mut block = vec![0; BLOCK_BYTES.min(len - position) as usize];
                file.read_at(&mut block, position).unwrap();
                if block.iter().any(|&byte| byte != 0) {
                    blocks.push((position, block));
                }
                position += BLOCK_BYTES;
            }
            files.push(FileImage { name: entry.name, len, blocks });
        }
        Self { files }
    }

    fn install(&self, storage: &SimStorage) {
        for FileImage { name, len, blocks } in &self.files {
            let file = storage.open(&Path::new(DIR).join(name), OpenMode::Truncate).unwrap();
            file.set_len(*len).unwrap();
            for (position, block) in blocks {
                file.write_all_at(block, *position).unwrap();
            }
        }
    }

    /// Names of the segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.files.iter().map(|file| &*file.name).filter(|name| name.ends_with(".log")).collect()
    }
}

/// What is read of a partition by somebody who goes on behind damage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) records: Vec<OwnedRecord>,
    pub(crate) damage: Vec<Range<u64>>,
    /// At a frame of a later version nobody goes on.
    pub(crate) stopped: bool,
    /// Behind damage it goes on where the log has ended: by a checkpoint that nobody wrote.
    leads_out: bool,
}

impl Reading {
    /// Of all that is there. Offsets grow, and no record lies in what is told as damaged.
    pub(crate) fn of(partition: &Arc<PartitionLog>) -> Self {
        let (start, end) = (partition.start_offset(), partition.end_offset());
        if start > end {
            // Only a checkpoint can say so, and only one that nobody wrote.
            return Self::default();
        }
        Self::from(partition, start)
    }

    /// Of all from `offset` on, which lies in the log.
    pub(crate) fn from(partition: &Arc<PartitionLog>, offset: u64) -> Self {
        let mut cursor = Cursor::new(partition, offset).unwrap();
        let mut reading = Self::default();
        let mut reached = offset;
        loop {
            match cursor.next_run(4096) {
                Ok(None) => return reading,
                Ok(Some(run)) => {
                    for record in &Batch::new(vec![run]) {
                        assert!(record.offset() >= reached, "offset {} again or out of order", record.offset());
                        reached = record.offset() + 1;
                        reading.records.push(record.to_owned());
                    }
                    assert_eq!(cursor.position(), reached);
                }
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    let damaged = error.damaged_offsets().unwrap();
                    assert!(damaged.start <= damaged.end && damaged.end >= reached, "{damaged:?} at {reached}");
                    assert!(reading.damage.len() < MOST_DAMAGE, "there is no end of it: {error}");
                    reached = damaged.end;
                    let moved = cursor.seek(damaged.end);
                    reading.damage.push(damaged);
                    if let Err(error) = moved {
                        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
                        reading.leads_out = true;
                        return reading;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
                    reading.stopped = true;
                    return reading;
                }
            }
        }
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> {
        self.records.iter().map(OwnedRecord::offset)
    }

    /// Everything lies in the log.
    pub(crate) fn check_bounds(&self, partition: &PartitionLog) {
        let valid = partition.start_offset()..partition.end_offset();
        assert!(self.offsets().all(|offset| valid.contains(&offset)), "a record lies outside {valid:?}");
        assert!(!self.leads_out, "damage leads outside {valid:?}");
    }

    /// Whoever begins at one of these offsets reads what whoever came along reads. Where offsets fall, which nobody wrote,
    /// two frames have the same one, and it may be the other.
    pub(crate) fn check_suffixes(&self, partition: &Arc<PartitionLog>, offsets: impl IntoIterator<Item = u64>) {
        if self.stopped {
            return; // Who begins behind the frame that nobody can read reads more.
        }
        let valid = partition.start_offset()..=partition.end_offset();
        for offset in offsets.into_iter().filter(|offset| valid.contains(offset)) {
            let mut cursor = Cursor::new(partition, offset).unwrap();
            let expected = self.records.iter().find(|record| record.offset() >= offset);
            let Ok(run) = cursor.next_run_of(1, 1) else {
                // Damage, of which whoever came along was told too.
                assert!(!self.damage.is_empty() || offsets_fall(partition), "from {offset} on nothing can be read");
                continue;
            };
            let found = run.map(|run| Batch::new(vec![run]).iter().next().unwrap().to_owned());
            match (&found, expected) {
                // Damage that lies between may be passed over by who begins behind it.
                (found, expected) if found.as_ref() == expected => {}
                _ if offsets_fall(partition) => {}
                _ => panic!("from {offset} on {found:?} is read, and not {expected:?}"),
            }
        }
    }

    /// The offset that a seek to a time has to answer.
    pub(crate) fn first_at(&self, time_ms: i64) -> Option<u64> {
        self.records.iter().find(|record| record.timestamp_ms() >= time_ms).map(OwnedRecord::offset)
    }
}

/// Whether a frame of some segment begins below where one before it ends.
fn offsets_fall(partition: &Arc<PartitionLog>) -> bool {
    let segments = partition.segments.load();
    (0..segments.len()).any(|at| {
        let Ok(segment) = partition.open_segment(&segments, at) else { return false };
        // SAFETY: up to where it is published.
        let bytes = unsafe { segment.published(0, partition.readable(&segment).end) };
        let (mut scan, mut next) = (Scan::headers(segment.seed, DATA_START), 0);
        while let Some((_, header)) = scan.next_frame_in(bytes) {
            if u64::from(header.relative_offset) < next {
                return true;
            }
            next = header.next_relative_offset();
        }
        false
    })
}

/// Appends a record; `None` if the partition takes none any more, which nothing but used up offsets or a poison that
/// the files tell of is a reason for.
pub(crate) fn append(partition: &Arc<PartitionLog>, value: &str) -> Option<u64> {
    match partition.append(&Record::new(value).key("appended"), None) {
        Ok(offset) => Some(offset),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
            None
        }
    }
}

/// The next bytes of the input, zeros behind its end.
pub(crate) struct Input<'a>(Reader<'a>);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(Reader::new(data))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.0.u8().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.0.u16().unwrap_or(0)
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.u64().unwrap_or(0)
    }

    /// So many bytes, or those that are left.
    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let length = length.min(self.0.rest().len());
        self.0.bytes(length).unwrap_or_default()
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }
}
