//! Control pages and checkpoints of all kinds beside sound segments.
//!
//! An input: which [`Scenario`] (1 byte); the boot, and how it ends (1 byte); which of the pages that the scenario has
//! had, and what is put right of it (1 byte); the same of the checkpoint (1 byte); then patches of 10 bytes each: what
//! is patched, how, and a number.

use std::sync::OnceLock;

use super::*;
use crate::{
    partition::{
        Opening, RecoveryEvent,
        checkpoint::{self, CheckpointState},
        control,
    },
    segment_header::SegmentHeader,
};

/// Something that happens to a partition.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append(u64),
    Flush,
    Roll,
    DeleteBefore(u64),
    CloseAndOpen,
    Close,
}

use Step::{Append, Close, CloseAndOpen, DeleteBefore, Flush, Roll};

/// The lives of partitions up to the moment at which a page and a checkpoint are put in the place of theirs.
const LIVES: [&[Step]; 6] = [
    &[Append(5), Flush, Roll, Append(5), Flush, Append(3)],
    &[Append(5), Flush, Roll, Append(4), Close],
    &[Append(6)],
    &[Append(4), Flush, Roll, Append(4), Flush, Roll, Append(3), DeleteBefore(6), Roll],
    &[Append(4), CloseAndOpen, Append(3)],
    &[Append(2), CloseAndOpen, Append(2), CloseAndOpen, Append(2), Close],
];

/// A partition's files, what they hold, and what two of them held before.
struct Scenario {
    image: Image,
    /// At each step; the last one is the true one.
    pages: Vec<Vec<u8>>,
    checkpoints: Vec<Vec<u8>>,
    /// All that the slots of the checkpoint ever said.
    states: Vec<CheckpointState>,
    /// What was appended and lies in a segment that is still there.
    records: Vec<OwnedRecord>,
    start: u64,
    end: u64,
}

fn scenarios() -> &'static [Scenario] {
    static SCENARIOS: OnceLock<Vec<Scenario>> = OnceLock::new();
    SCENARIOS.get_or_init(|| LIVES.iter().map(|steps| Scenario::of(steps)).collect())
}

/// What a checkpoint is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// It says what it said at the end.
    True,
    /// It says what it once said, or can't be read.
    Old,
    /// It says, with checks that hold, what was never written.
    Forged,
}

impl Scenario {
    fn of(steps: &[Step]) -> Self {
        let bench = Bench::default();
        let (mut partition, _) = bench.open().unwrap();
        let (mut pages, mut checkpoints, mut records, mut number) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for &step in steps {
            match step {
                Append(count) => {
                    for _ in 0..count {
                        // All of one length, so that a wrong position may well be where a frame begins.
                        append(&partition, &format!("record {number:04}")).unwrap();
                        number += 1;
                        bench.advance_ms(1);
                    }
                    records = Reading::of(&partition).records;
                }
                Flush => partition.flush().unwrap(),
                Roll => partition.roll().unwrap(),
                DeleteBefore(offset) => drop(partition.delete_records(offset).unwrap()),
                CloseAndOpen => {
                    partition.close().unwrap();
                    partition = bench.open().unwrap().0;
                }
                Close => partition.close().unwrap(),
            }
            pages.push(bench.read(control::FILE_NAME).unwrap());
            checkpoints.push(bench.read(checkpoint::FILE_NAME).unwrap());
        }
        let oldest = partition.segment_base_offsets()[0];
        records.retain(|record| record.offset() >= oldest);
        let slots = checkpoints.iter().flat_map(|bytes| checkpoint::fuzzing::SLOTS.map(|at| &bytes[at..]));
        let states = slots.filter_map(checkpoint::fuzzing::decode).map(|(_, state)| state).collect();
        let (start, end) = (partition.start_offset(), partition.end_offset());
        Self { image: bench.image(), pages, checkpoints, states, records, start, end }
    }

    /// What counts of a checkpoint, by this.
    fn worth(&self, checkpoint: &[u8]) -> Worth {
        let winner = |bytes: &[u8]| {
            let slots = checkpoint::fuzzing::SLOTS.map(|at| checkpoint::fuzzing::decode(bytes.get(at..)?));
            match slots {
                [Some(a), Some(b)] => Some(if checkpoint::is_later(b.0, a.0) { b.1 } else { a.1 }),
                [a, b] => a.or(b).map(|(_, state)| state),
            }
        };
        match winner(checkpoint) {
            state if state == self.checkpoints.last().and_then(|bytes| winner(bytes)) => Worth::True,
            None => Worth::Old,
            Some(state) if self.states.contains(&state) => Worth::Old,
            Some(_) => Worth::Forged,
        }
    }
}

/// What a patch does to a number.
fn patched(how: u8, before: u64, number: u64) -> u64 {
    match how % 3 {
        0 => number,
        1 => before ^ number,
        _ => before.wrapping_add(number),
    }
}

/// The file as it was at some moment; the last one for a choice of 0, none for 15, zeros for 14.
fn earlier(files: &[Vec<u8>], choice: u8, bytes: usize) -> Option<Vec<u8>> {
    let mut file = match usize::from(choice % 16) {
        15 => return None,
        14 => Vec::new(),
        back => files[files.len() - 1 - back % files.len()].clone(),
    };
    file.resize(file.len().max(bytes), 0);
    Some(file)
}

/// Changes words of the page and the slots of the checkpoint as the input says, up to its end.
fn patch(input: &mut Input<'_>, page: &mut Option<Vec<u8>>, checkpoint: &mut Option<Vec<u8>>) {
    while !input.is_empty() {
        let (place, how, number) = (input.u8(), input.u8(), input.u64());
        let (file, at) = if place < 128 {
            (&mut *page, usize::from(place) % control::fuzzing::WORDS * 8)
        } else {
            // Two slots, in units of 4 bytes.
            let (slot, unit) = (usize::from(place >> 6) % 2, usize::from(place) % 64 % 32);
            (&mut *checkpoint, checkpoint::fuzzing::SLOTS[slot] + unit * 4)
        };
        if let Some(bytes) = file.as_mut().and_then(|file| file.get_mut(at..at + 8)) {
            let before = u64::from_le_bytes((&*bytes).try_into().unwrap());
            bytes.copy_from_slice(&patched(how, before, number).to_le_bytes());
        }
    }
}

/// A control page and a checkpoint beside sound segments. Unless somebody has forged the checkpoint, nothing that was
/// appended is missing, nothing else is read, and no offset is used again; whatever the page says.
pub fn state_open(data: &[u8]) {
    let mut input = Input::new(data);
    let scenario = &scenarios()[usize::from(input.u8()) % LIVES.len()];
    let (how, page_choice, checkpoint_choice) = (input.u8(), input.u8(), input.u8());
    let mut page = earlier(&scenario.pages, page_choice, control::fuzzing::BYTES);
    let mut checkpoint = earlier(&scenario.checkpoints, checkpoint_choice, checkpoint::fuzzing::BYTES);
    patch(&mut input, &mut page, &mut checkpoint);
    for (at, bit) in checkpoint::fuzzing::SLOTS.into_iter().zip([0x40, 0x80]) {
        if let Some(file) = checkpoint.as_mut().filter(|_| checkpoint_choice & bit != 0) {
            checkpoint::fuzzing::seal(&mut file[at..]);
        }
    }
    let bench = Bench::of(&scenario.image);
    put(&bench, checkpoint::FILE_NAME, checkpoint.as_deref());
    put(&bench, control::FILE_NAME, page.as_deref());
    match how % 4 {
        0 | 1 => adopt(&bench, page_choice & 0x40 != 0),
        2 => bench.storage.reboot(),
        _ => {} // A copy: the page names files of another machine.
    }
    let worth = scenario.worth(checkpoint.as_deref().unwrap_or_default());
    let opened = match bench.open() {
        Ok((partition, _)) => partition,
        Err(error) => {
            assert!(worth == Worth::Forged || error.kind() == ErrorKind::UnsupportedFormat, "{error}");
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::UnsupportedFormat), "{error}");
            return;
        }
    };
    if worth == Worth::Forged {
        scenario.check_forged(&bench, opened, Ending::from_bits(how >> 2));
    } else {
        scenario.check(&bench, opened, Ending::from_bits(how >> 2));
    }
}

fn put(bench: &Bench, name: &str, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => bench.write(name, bytes),
        None => bench.remove(name),
    }
}

/// Makes the page that of the files that are there.
fn adopt(bench: &Bench, checks: bool) {
    let identity = |name: &str| bench.storage.open(&bench.path(name), OpenMode::Read).unwrap().identity().unwrap();
    let Some(bytes) = bench.read(control::FILE_NAME) else { return };
    let mut words = [0; control::fuzzing::BYTES / 8];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap());
    }
    let image = bench.image();
    let segments: Vec<_> = image
        .segments()
        .into_iter()
        .map(|name| {
            let header = SegmentHeader::decode(&bench.read(name).unwrap()).unwrap();
            (header.segment_id, identity(name).unwrap())
        })
        .collect();
    control::fuzzing::adopt(&mut words, identity(control::FILE_NAME).unwrap(), &segments, checks);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bench.write(control::FILE_NAME, &bytes);
}

impl Scenario {
    /// Nothing is read that isn't there.
    fn check_read(&self, reading: &Reading) {
        assert!(!reading.stopped);
        for record in &reading.records {
            assert!(self.records.contains(record), "{record:?} was never appended");
        }
    }

    fn check(&self, bench: &Bench, partition: Arc<PartitionLog>, ending: Ending) {
        let reading = Reading::of(&partition);
        self.check_read(&reading);
        reading.check_bounds(&partition);
        assert!(partition.start_offset() <= self.start, "{} > {}", partition.start_offset(), self.start);
        for record in self.records.iter().filter(|record| record.offset() >= self.start) {
            assert!(reading.records.contains(record), "{record:?} is lost");
        }
        reading.check_suffixes(&partition, self.start..=self.end);
        let mut expected = reading;
        for value in ["one", "two"] {
            let offset = append(&partition, value).unwrap();
            assert!(offset >= self.end, "offset {offset} is used again");
            let behind = Reading::from(&partition, offset);
            assert_eq!(behind.offsets().collect::<Vec<_>>(), [offset]);
            expected.records.extend(behind.records);
        }
        assert_eq!(Reading::of(&partition).records, expected.records);
        bench.end(partition, ending);
        let (partition, report) = bench.open().unwrap();
        let opening = [Opening::Clean, Opening::Resumed, Opening::Scanned][ending as usize];
        assert_eq!(report.opening(), opening);
        for event in report.events() {
            // What is missing at the start stays so, and is told each time.
            assert!(matches!(event, RecoveryEvent::SegmentsMissing { .. }), "{event}");
        }
        assert_eq!(Reading::of(&partition).records, expected.records);
    }

    /// Against a forged checkpoint nothing is promised but that what is read was appended, and that nothing panics.
    fn check_forged(&self, bench: &Bench, partition: Arc<PartitionLog>, ending: Ending) {
        self.check_read(&Reading::of(&partition));
        let appended = append(&partition, "one");
        assert!(appended.is_none_or(|offset| offset < 1 << 63));
        drop(Reading::of(&partition));
        if ending == Ending::Close {
            let _ = partition.close();
        }
        bench.end(partition, if ending == Ending::Reboot { ending } else { Ending::Kill });
        match bench.open() {
            Ok((partition, _)) => drop(Reading::of(&partition)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        }
    }
}
