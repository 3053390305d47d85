//! raft-engine 0.4: entries of one Raft group, here of a message with an index and bytes as Raft's own has; one pwrite(2) a
//! call. Its index is in memory, so opening reads everything.
//!
//! Compression is off (payloads don't compress); files aren't recycled, as nothing is purged, and files that were filled
//! ahead (`prefill_for_recycle`) made no difference. In W4 each thread has a
//! group of its own, as the entries of one have to come in order; they share the file and its syncs. What a group reads
//! last it keeps decoded, and a whole batch is read for one of its entries: so W6 reads entries that were appended one by
//! one.

use std::any::Any;

use ::raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use anyhow::{Context, Result};
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields, reflect, wire_format,
};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

/// Entries that are fetched at once.
const FETCH: u64 = 1000;
/// The group that is read.
const GROUP: u64 = 1;

pub(super) struct RaftEngine {
    engine: Engine,
    durable: bool,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("CRC-32 of a batch"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "Engine::write without sync: one pwrite(2) a call, an index in memory",
};
const SYNCED: Guarantee = Guarantee {
    durable: true,
    how: "Engine::write with sync: an fdatasync, shared by all who wait; space reserved 2 MiB ahead",
    ..WRITTEN
};

impl Subject for RaftEngine {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let read = Guarantee { how: "fetch_entries_to, 1000 at once, batches of 100, each entry copied", ..WRITTEN };
        let one = Guarantee { how: "get_entry, batches of one", ..WRITTEN };
        let open = Guarantee { how: "reads and verifies everything into an index in memory", ..WRITTEN };
        cells([W1, W1K, W2, W2K], WRITTEN)
            .chain(cells([W2S, W3], SYNCED))
            .chain([Cell::new(W4, Guarantee { how: "a Raft group a thread; one file, shared syncs", ..SYNCED })])
            .chain(cells([W5, W5K], read))
            .chain([Cell::new(W6, one).lone(), Cell::new(W7, open)])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let config = Config {
            dir: task.dir.to_str().context("a name")?.to_owned(),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        Ok(Self { engine: Engine::open(config)?, durable: task.is_durable() })
    }

    fn append(&self, work: &mut Work<'_>, thread: usize) -> Result<()> {
        let group = GROUP + thread as u64;
        let mut index = self.engine.last_index(group).unwrap_or(0);
        let (mut batch, mut entries) = (LogBatch::default(), [Entry::default()]);
        while let Some(record) = work.record() {
            index += 1;
            entries[0].set(index, record);
            batch.add_entries::<Entries>(group, &entries)?;
            self.engine.write(&mut batch, self.durable)?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let mut index = self.engine.last_index(GROUP).unwrap_or(0);
        let (mut batch, mut entries) = (LogBatch::default(), Vec::new());
        while let Some(records) = work.batch() {
            entries.resize(records.len(), Entry::default());
            for (entry, record) in entries.iter_mut().zip(records) {
                index += 1;
                entry.set(index, record);
            }
            batch.add_entries::<Entries>(GROUP, &entries)?;
            self.engine.write(&mut batch, self.durable)?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        let (mut begin, mut entries) = (1, Vec::new());
        let end = self.engine.last_index(GROUP).context("entries")? + 1;
        while begin < end {
            let until = end.min(begin + FETCH);
            entries.clear();
            self.engine.fetch_entries_to::<Entries>(GROUP, begin, until, None, &mut entries)?;
            if !entries.iter().all(|entry| reading.see(&entry.data)) {
                break;
            }
            begin = until;
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        while let Some(number) = reading.draw() {
            let entry = self.engine.get_entry::<Entries>(GROUP, number + 1)?.context("an entry")?;
            reading.found(&entry.data);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.engine.sync()?)
    }
}

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// What a Raft entry is made of, as far as it is needed here, under the same field numbers: written by hand, as its crate
/// wants a compiler of protocol buffers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    index: u64,
    data: Vec<u8>,
    unknown: UnknownFields,
}

const INDEX_FIELD: u32 = 3;
const DATA_FIELD: u32 = 4;

impl Entry {
    fn set(&mut self, index: u64, data: &[u8]) {
        self.index = index;
        self.data.clear();
        self.data.extend_from_slice(data);
    }
}

impl Clear for Entry {
    fn clear(&mut self) {
        self.index = 0;
        self.data.clear();
    }
}

impl Message for Entry {
    fn descriptor(&self) -> &'static reflect::MessageDescriptor {
        unimplemented_descriptor()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !input.eof()? {
            let (field, wire_type) = input.read_tag_unpack()?;
            match field {
                INDEX_FIELD => self.index = input.read_uint64()?,
                DATA_FIELD => self.data = input.read_bytes()?,
                _ => input.skip_field(wire_type)?,
            }
        }
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_uint64(INDEX_FIELD, self.index)?;
        output.write_bytes(DATA_FIELD, &self.data)
    }

    fn compute_size(&self) -> u32 {
        protobuf::rt::value_size(INDEX_FIELD, self.index, wire_format::WireTypeVarint)
            + protobuf::rt::bytes_size(DATA_FIELD, &self.data)
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static INSTANCE: std::sync::LazyLock<Entry> = std::sync::LazyLock::new(Entry::default);
        &INSTANCE
    }
}

/// Only for names in errors of uninitialised messages, which these never are.
fn unimplemented_descriptor() -> &'static reflect::MessageDescriptor {
    unreachable!("an entry is always initialised")
}
