//! Lookups by time, and how far a reader is behind, beside a plain list.

use std::{io, sync::atomic::AtomicBool, thread};

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::{salvage::frame_positions, *};
use crate::{
    frame::FrameEncoder,
    partition::{RecoveryEvent, segment::time_index_path, time_index::BLOCK_BYTES},
    segment_header::{DATA_START, SEGMENT_HEADER_BYTES},
    storage::sim::faults::Operation,
};

const NOW_MS: i64 = 1_700_000_000_000;

/// A frame that was appended.
#[derive(Debug, Clone)]
struct Appended {
    offset: u64,
    /// The records' timestamps.
    times: Vec<i64>,
    append_time_ms: i64,
    bytes: u64,
}

/// What the partition holds, as a plain list.
#[derive(Debug, Default)]
struct List {
    frames: Vec<Appended>,
}

impl List {
    /// Appends records of `bytes` each as one frame.
    fn append(&mut self, machine: &Machine, partition: &Arc<PartitionLog>, times: &[Option<i64>], bytes: usize) {
        let value = vec![b'x'; bytes];
        let record = |time: &Option<i64>| {
            let record = Record::new(&*value);
            time.map_or(record.clone(), |time| record.timestamp_ms(time))
        };
        let records: Vec<_> = times.iter().map(record).collect();
        let mut appended = Vec::new();
        partition.append_batch(&records, None, &mut appended).unwrap();
        let now_ms = machine.now_ms.load(Ordering::Relaxed);
        self.frames.push(Appended {
            offset: appended[0].start,
            times: times.iter().map(|time| time.unwrap_or(now_ms)).collect(),
            append_time_ms: now_ms,
            bytes: FrameEncoder::new(&records).unwrap().frame_bytes() as u64,
        });
    }

    /// Offset and timestamp of all records that weren't deleted.
    fn records(&self, start: u64) -> impl Iterator<Item = (u64, i64)> + '_ {
        let all = self.frames.iter().flat_map(|frame| (frame.offset..).zip(frame.times.iter().copied()));
        all.filter(move |&(offset, _)| offset >= start)
    }

    fn offset_for_time(&self, start: u64, time_ms: i64) -> Option<u64> {
        self.records(start).find(|&(_, time)| time >= time_ms).map(|(offset, _)| offset)
    }

    /// Frames that a reader at `offset` reads.
    fn behind(&self, start: u64, offset: u64) -> &[Appended] {
        let wanted = offset.max(start);
        let ends_before = |frame: &Appended| frame.offset + frame.times.len() as u64 <= wanted;
        &self.frames[self.frames.partition_point(ends_before)..]
    }

    #[track_caller]
    fn check_time(&self, partition: &Arc<PartitionLog>, time_ms: i64) {
        let expected = self.offset_for_time(partition.start_offset(), time_ms);
        let found = partition.offset_for_time(time_ms).unwrap();
        assert_eq!(found, expected, "time {time_ms}, start {}", partition.start_offset());
    }

    #[track_caller]
    fn check_lag(&self, partition: &Arc<PartitionLog>, offset: u64) {
        let behind = self.behind(partition.start_offset(), offset);
        let bytes = partition.bytes_between(offset).unwrap();
        assert_eq!(bytes, behind.iter().map(|frame| frame.bytes).sum::<u64>(), "offset {offset}");
        let time = partition.append_time_at(offset).unwrap();
        assert_eq!(time, behind.first().map(|frame| frame.append_time_ms), "offset {offset}");
    }

    /// Checks at the edges, and around some of the times and offsets there are.
    #[track_caller]
    fn check(&self, partition: &Arc<PartitionLog>, picks: &[Index]) {
        for time_ms in [i64::MIN, 0, NOW_MS, i64::MAX] {
            self.check_time(partition, time_ms);
        }
        for offset in [0, partition.start_offset(), partition.end_offset(), u64::MAX] {
            self.check_lag(partition, offset);
        }
        let records: Vec<_> = self.records(0).collect();
        for pick in picks.iter().filter(|_| !records.is_empty()) {
            let &(offset, time) = pick.get(&records);
            for time_ms in [time.saturating_sub(1), time, time.saturating_add(1)] {
                self.check_time(partition, time_ms);
            }
            for offset in [offset, offset + 1] {
                self.check_lag(partition, offset);
            }
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Frames of these records' times, all values of so many bytes.
    Append(Vec<Vec<Option<i64>>>, usize),
    Advance(i64),
    Roll,
    Flush,
    Close,
    Kill,
    Reboot,
    DeleteSegments(Index),
    /// Into the middle of a segment, or of a frame.
    DeleteRecords(Index),
    Harm(Index, Harm),
    Check,
}

/// What becomes of a file of a time index.
#[derive(Debug, Clone)]
enum Harm {
    Gone,
    Cut(Index),
    Flipped(Index, u8),
    Another(Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        Just(Harm::Gone),
        any::<Index>().prop_map(Harm::Cut),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Harm::Flipped(at, bit)),
        any::<Index>().prop_map(Harm::Another),
    ]
}

/// In order or not, equal, missing, far off.
fn times() -> impl Strategy<Value = Vec<Option<i64>>> {
    let near = NOW_MS..NOW_MS + 100_000;
    prop_oneof![
        3 => vec(option::of(near.clone()), 1..20),
        2 => Just(vec![None]),
        2 => (near, 1..50_usize).prop_map(|(time, count)| (0..count as i64).map(|i| Some(time + i)).collect()),
        1 => vec(prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), Just(i64::MAX - 1)].prop_map(Some), 1..3),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (vec(times(), 1..12), 0..6000_usize).prop_map(|(frames, bytes)| Step::Append(frames, bytes)),
        3 => (1..50_000_i64).prop_map(Step::Advance),
        2 => Just(Step::Roll),
        2 => Just(Step::Flush),
        2 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::Reboot),
        1 => any::<Index>().prop_map(Step::DeleteSegments),
        1 => any::<Index>().prop_map(Step::DeleteRecords),
        2 => (any::<Index>(), harm()).prop_map(|(file, harm)| Step::Harm(file, harm)),
        3 => Just(Step::Check),
    ]
}

fn time_indexes(machine: &Machine) -> Vec<PathBuf> {
    let files = machine.files().into_iter().filter(|name| name.ends_with(".timeindex"));
    files.map(|name| machine.dir.join(name)).collect()
}

fn replace(machine: &Machine, path: &Path, bytes: &[u8]) {
    machine.storage.open(path, OpenMode::Truncate).unwrap().write_all_at(bytes, 0).unwrap();
}

fn do_harm(machine: &Machine, file: &Index, harm: &Harm) {
    let files = time_indexes(machine);
    if files.is_empty() {
        return;
    }
    let path = file.get(&files);
    let mut bytes = machine.read_file(path);
    match harm {
        Harm::Gone => return machine.storage.remove_file(path).unwrap(),
        Harm::Cut(len) => bytes.truncate(len.index(bytes.len() + 1)),
        Harm::Flipped(at, bit) => {
            let at = at.index(bytes.len() + 1);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
        }
        Harm::Another(other) => bytes = machine.read_file(&files[other.index(files.len())]),
    }
    replace(machine, path, &bytes);
}

/// Does the steps one by one, and looks the times up between them.
fn run(steps: &[Step], picks: &[Index], positional_appends: bool) {
    let machine = Machine { positional_appends, ..Machine::new() };
    machine.change(|settings| settings.segment_bytes = 256 << 10);
    let mut list = List::default();
    let (mut partition, _) = machine.open();
    for step in steps {
        match step {
            Step::Append(frames, bytes) => {
                frames.iter().for_each(|times| list.append(&machine, &partition, times, *bytes));
            }
            Step::Advance(ms) => machine.advance_ms(*ms),
            Step::Roll => partition.roll().unwrap(),
            Step::Flush => partition.flush().unwrap(),
            Step::Close | Step::Kill | Step::Reboot => {
                if matches!(step, Step::Close) {
                    partition.close().unwrap();
                }
                drop(partition);
                if matches!(step, Step::Reboot) {
                    machine.reboot();
                }
                partition = machine.open().0;
            }
            Step::DeleteSegments(at) => {
                partition.delete_segments_before(*at.get(&partition.segment_base_offsets())).unwrap();
                let oldest = partition.segment_base_offsets()[0];
                list.frames.retain(|frame| frame.offset >= oldest);
            }
            Step::DeleteRecords(at) => {
                let offsets: Vec<_> = list.records(partition.start_offset()).map(|(offset, _)| offset).collect();
                if !offsets.is_empty() {
                    partition.delete_records(*at.get(&offsets)).unwrap();
                }
                let oldest = partition.segment_base_offsets()[0];
                list.frames.retain(|frame| frame.offset >= oldest);
            }
            Step::Harm(file, harm) => do_harm(&machine, file, harm),
            Step::Check => list.check(&partition, picks),
        }
    }
    list.check(&partition, picks);
    // Nor is anything wrong in what was written down meanwhile.
    partition.close().unwrap();
    list.check(&machine.open().0, picks);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn lookups_answer_as_a_walk_over_a_plain_list(
        steps in vec(step(), 1..30),
        picks in vec(any::<Index>(), 4),
        positional_appends in any::<bool>(),
    ) {
        run(&steps, &picks, positional_appends);
    }
}

/// Three sealed segments of some blocks and an active one, all times in order, one a frame.
fn in_order() -> (Machine, List) {
    let machine = Machine::new();
    machine.change(|settings| settings.segment_bytes = 256 << 10);
    let mut list = List::default();
    let (partition, _) = machine.open();
    for number in 0..220 {
        list.append(&machine, &partition, &[Some(number)], 4000);
    }
    partition.close().unwrap();
    assert_eq!(machine.segments().len(), 4);
    (machine, list)
}

#[test]
fn an_index_damaged_at_any_byte_is_not_believed_and_made_anew() {
    let (machine, list) = in_order();
    let path = time_index_path(&machine.segments()[1]);
    let whole = machine.read_file(&path);
    let segments = machine.segments();
    let foreign = machine.read_file(&time_index_path(&segments[2]));
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    });
    let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
    let others = [foreign, vec![0; whole.len()], [&whole[..], &[0; 12]].concat(), [&whole[..], &whole[..]].concat()];
    let base = super::super::segment::base_offset_of(segments[1].file_name().unwrap().to_str().unwrap()).unwrap();
    for bytes in flipped.chain(cut).chain(others) {
        replace(&machine, &path, &bytes);
        let (partition, _) = machine.open();
        // In the segment before, in this one, in the one behind; then from a log that begins within it.
        for time_ms in [base as i64 - 1, base as i64, base as i64 + 30, base as i64 + 60, 1000] {
            list.check_time(&partition, time_ms);
        }
        partition.close().unwrap();
        assert_eq!(machine.read_file(&path), whole);
    }
    machine.storage.remove_file(&path).unwrap();
    machine.storage.create_dir_all(&path).unwrap();
    let (partition, _) = machine.open();
    (0..221).for_each(|time_ms| list.check_time(&partition, time_ms));
}

#[test]
fn the_file_of_a_sealed_segment_comes_with_its_flush_and_goes_with_it() {
    for positional_appends in [false, true] {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..2);
        partition.roll().unwrap();
        append_numbers(&partition, 2..4);
        assert_eq!(time_indexes(&machine), [] as [PathBuf; 0], "not durable yet");
        partition.flush().unwrap();
        let of = |segment: usize| time_index_path(&machine.segments()[segment]);
        assert_eq!(time_indexes(&machine), [of(0)]);
        let gone = of(0);
        partition.delete_segments_before(2).unwrap();
        assert_eq!(time_indexes(&machine), [] as [PathBuf; 0]);
        partition.close().unwrap();
        assert_eq!(time_indexes(&machine), [] as [PathBuf; 0], "the active one isn't worth a file");

        // A lookup that was in the deleted segment may leave one.
        replace(&machine, &gone, b"leftover");
        let stranger = machine.dir.join("00000000000000000000.timeindex.old");
        replace(&machine, &stranger, b"somebody's");
        machine.open();
        let left = machine.files();
        assert!(!left.contains(&"00000000000000000000.timeindex".to_owned()), "{left:?}");
        assert!(left.contains(&"00000000000000000000.timeindex.old".to_owned()), "{left:?}");
    }
}

#[test]
fn a_segment_that_is_gone_on_with_keeps_its_blocks() {
    let (machine, mut list) = in_order();
    let active = machine.segments().pop().unwrap();
    let (partition, _) = machine.open();
    list.append(&machine, &partition, &[Some(500)], 4000);
    partition.close().unwrap();
    // What lies behind the damage was known before it came.
    let at = frame_positions(&machine, &active)[1] + 40;
    machine.write_file(&active, &[0xff; 4], at);
    let (partition, _) = machine.open();
    list.append(&machine, &partition, &[Some(501)], 4000);
    [219, 500, 501, 502].iter().for_each(|time_ms| list.check_time(&partition, *time_ms));
    partition.roll().unwrap();
    partition.close().unwrap();
    let (partition, _) = machine.open();
    [219, 500, 501, 502].iter().for_each(|time_ms| list.check_time(&partition, *time_ms));
}

/// Turns a byte in the body of each of these frames.
fn damage(machine: &Machine, segment: &Path, frames: impl IntoIterator<Item = usize>) {
    let positions = frame_positions(machine, segment);
    for frame in frames {
        machine.write_file(segment, &[0xff; 4], positions[frame] + 50);
    }
}

#[test]
fn neither_segments_nor_blocks_that_cant_have_it_are_read() {
    let (machine, list) = in_order();
    let segments = machine.segments();
    let frames = frame_positions(&machine, &segments[0]).len() - 1;
    damage(&machine, &segments[0], 0..frames);
    // All of the next one but its last block.
    let block_frames = (BLOCK_BYTES / 4040) as usize;
    damage(&machine, &segments[1], 0..frames - 2 * block_frames);
    let (partition, _) = machine.open();
    let bases = partition.segment_base_offsets();
    for time_ms in bases[2] as i64 - 3..221 {
        list.check_time(&partition, time_ms);
    }
    // In the last segment's first blocks, behind the close and behind the open.
    drop(partition);
    damage(&machine, &segments[3], 0..1);
    machine.reboot();
    let (partition, _) = machine.open();
    list.check_time(&partition, bases[3] as i64 - 1);
}

#[test]
fn what_may_be_the_one_and_cant_be_read_is_an_error() {
    let (machine, list) = in_order();
    let segment = machine.segments()[1].clone();
    damage(&machine, &segment, [10]);
    let (partition, _) = machine.open();
    let damaged = partition.segment_base_offsets()[1] + 10;
    let check = |partition: &Arc<PartitionLog>| {
        list.check_time(partition, damaged as i64 - 1);
        let error = partition.offset_for_time(damaged as i64).unwrap_err();
        assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::Corruption, Some(damaged + 1)));
        assert_eq!(error.path(), Some(&*segment));
    };
    check(&partition);
    // The index knows that it isn't what lies behind, though in the same block.
    let error = partition.offset_for_time(damaged as i64 + 1).unwrap_err();
    assert_eq!(error.resume_offset(), Some(damaged + 1), "a frame in the block that decides can't be read");
    let far = damaged as i64 + 3 * (BLOCK_BYTES / 4040) as i64;
    list.check_time(&partition, far);
    drop(partition);

    // Made anew, it doesn't know what the damaged frame held: any time, that is.
    machine.reboot();
    machine.storage.remove_file(&time_index_path(&segment)).unwrap();
    for _ in 0..2 {
        let (partition, _) = machine.open();
        check(&partition);
        for time_ms in [far, 1000, i64::MAX] {
            let error = partition.offset_for_time(time_ms).unwrap_err();
            assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::Corruption, Some(damaged + 1)));
        }
        list.check_time(&partition, damaged as i64 - 1);
        // A log that begins behind the damage has none.
        partition.start_offset.store(damaged + 1, Ordering::Release);
        list.check_time(&partition, far);
        list.check_time(&partition, i64::MIN);
        partition.start_offset.store(0, Ordering::Release);
        partition.close().unwrap();
    }
}

#[test]
fn damage_without_a_clients_time_has_the_logs() {
    let machine = Machine::new();
    let mut list = List::default();
    let (partition, _) = machine.open();
    for _ in 0..30 {
        list.append(&machine, &partition, &[None], 4000);
        machine.advance_ms(1);
    }
    partition.close().unwrap();
    time_indexes(&machine).iter().for_each(|path| machine.storage.remove_file(path).unwrap());
    damage(&machine, &machine.segments()[0], [3]);
    let (partition, _) = machine.open();
    // Its header tells, so the block before isn't in doubt for what lies further on.
    list.check_time(&partition, NOW_MS + 20);
    list.check_time(&partition, NOW_MS + 2);
    assert_eq!(partition.offset_for_time(NOW_MS + 3).unwrap_err().resume_offset(), Some(4));
}

#[test]
fn segments_that_are_missing_or_headless_are_an_error_for_what_they_may_have_held() {
    for kept in [false, true] {
        let (machine, list) = in_order();
        let segments = machine.segments();
        if kept {
            machine.write_file(&segments[1], &[0; SEGMENT_HEADER_BYTES], 0);
            machine.write_file(&segments[1], &[0; SEGMENT_HEADER_BYTES], 4096);
        } else {
            machine.storage.remove_file(&segments[1]).unwrap();
        }
        let base_of = |path: &Path| super::super::segment::base_offset_of(path.file_name()?.to_str()?);
        let (lost, found) = (base_of(&segments[1]).unwrap(), base_of(&segments[2]).unwrap());
        let (partition, _) = machine.open();
        for _ in 0..2 {
            list.check_time(&partition, lost as i64 - 1);
            for time_ms in [lost as i64, found as i64, 1000] {
                let error = partition.offset_for_time(time_ms).unwrap_err();
                assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::Corruption, Some(found)));
                assert_eq!(error.damaged_offsets(), Some(lost..found));
            }
        }
        // What is gone is gone, also of what there is to read.
        if !kept {
            let expected = list.frames[found as usize..].iter().map(|frame| frame.bytes).sum::<u64>();
            assert_eq!(partition.bytes_between(found).unwrap(), expected);
            assert_eq!(partition.bytes_between(lost).unwrap(), expected);
            let first = list.frames[..lost as usize].iter().map(|frame| frame.bytes).sum::<u64>();
            assert_eq!(partition.bytes_between(0).unwrap(), first + expected);
        }
    }
}

#[test]
fn zeros_in_place_of_frames_are_an_error_too() {
    let (machine, list) = in_order();
    let segment = machine.segments()[1].clone();
    let positions = frame_positions(&machine, &segment);
    let (at, end) = (positions[positions.len() - 4], positions[positions.len() - 1]);
    machine.write_file(&segment, &vec![0; (end - at) as usize], at);
    machine.storage.remove_file(&time_index_path(&segment)).unwrap();
    let (partition, _) = machine.open();
    let next = partition.segment_base_offsets()[2];
    list.check_time(&partition, next as i64 - 4);
    for time_ms in [next as i64 - 3, next as i64, 1000] {
        let error = partition.offset_for_time(time_ms).unwrap_err();
        assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::Corruption, Some(next)));
    }
}

/// Whether it was asked of the segments' files themselves to be mapped.
fn mapped_segments(machine: &Machine) -> usize {
    let trace = machine.storage.take_trace();
    let mapped = |it: &&crate::storage::sim::Performed| {
        it.operation == Operation::Map && it.path.extension().is_some_and(|extension| extension == "log")
    };
    trace.iter().filter(mapped).count()
}

#[test]
fn cold_segments_cost_headers_once_and_then_a_number_each() {
    let machine = Machine::new();
    let mut list = List::default();
    let (partition, _) = machine.open();
    for number in 0..300 {
        list.append(&machine, &partition, &[Some(number)], 10);
        partition.roll().unwrap();
    }
    partition.close().unwrap();
    let (partition, _) = machine.open();
    mapped_segments(&machine);
    list.check_time(&partition, 1000);
    assert_eq!(mapped_segments(&machine), 0);
    list.check_time(&partition, 299);
    assert_eq!(mapped_segments(&machine), 1);
    // With nothing left to read but that one.
    let segments = machine.segments();
    for path in &segments[..299] {
        machine.storage.remove_file(path).unwrap();
        machine.storage.remove_file(&time_index_path(path)).unwrap();
    }
    list.check_time(&partition, 1000);
    list.check_time(&partition, 299);
    assert_eq!(partition.offset_for_time(298).unwrap_err().kind(), ErrorKind::Io);
    // Nor does it take more to know how far behind somebody is.
    list.check_lag(&partition, 299);
    assert_eq!(mapped_segments(&machine), 0);
}

#[test]
fn a_lag_counts_sealed_segments_by_their_headers() {
    let (machine, list) = in_order();
    let (partition, _) = machine.open();
    mapped_segments(&machine);
    list.check_lag(&partition, 3);
    assert_eq!(mapped_segments(&machine), 1, "the one that the offset lies in");
    // Files that weren't trimmed count for no more than their frames, damaged frames for what they take.
    let segments = machine.segments();
    let trimmed = machine.read_file(&segments[2]).len() as u64;
    machine.cut_file(&segments[2], trimmed + 100_000);
    damage(&machine, &segments[1], [0, 5]);
    drop(partition);
    let (partition, _) = machine.open();
    for offset in [0, 3, 60, 70, 150, 219] {
        list.check_lag(&partition, offset);
    }
}

#[test]
fn the_time_behind_is_that_of_the_first_record_that_can_be_read() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    for number in 0..4 {
        append_numbers(&partition, number..number + 1);
        machine.advance_ms(100);
    }
    let behind_ms = |partition: &Arc<PartitionLog>, offset| partition.time_behind(offset).unwrap().as_millis();
    assert_eq!([0, 1, 3, 4, 9].map(|offset| behind_ms(&partition, offset)), [400, 300, 100, 0, 0]);
    partition.close().unwrap();
    let segment = machine.segments().remove(0);
    let positions = frame_positions(&machine, &segment);
    machine.write_file(&segment, &[0xff; 8], positions[1] + 4);
    let (partition, _) = machine.open();
    assert_eq!(partition.append_time_at(1).unwrap_err().resume_offset(), Some(2));
    assert_eq!([0, 1, 2].map(|offset| behind_ms(&partition, offset)), [400, 200, 200]);
    // A clock that was set back.
    machine.advance_ms(-1000);
    assert_eq!(behind_ms(&partition, 0), 0);
}

#[test]
fn a_full_disk_costs_nothing_but_time() {
    let machine = Machine::new();
    machine.change(|settings| settings.segment_bytes = 256 << 10);
    refuse_time_indexes(&machine);
    let mut list = List::default();
    let (partition, _) = machine.open();
    for number in 0..150 {
        list.append(&machine, &partition, &[Some(number)], 4000);
    }
    partition.close().unwrap();
    assert_eq!(time_indexes(&machine), [] as [PathBuf; 0]);
    for _ in 0..2 {
        let (partition, _) = machine.open();
        (0..151).for_each(|time_ms| list.check_time(&partition, time_ms));
        partition.close().unwrap();
        assert_eq!(time_indexes(&machine), [] as [PathBuf; 0]);
    }
    machine.storage.heal();
    let (partition, _) = machine.open();
    (0..151).for_each(|time_ms| list.check_time(&partition, time_ms));
    partition.close().unwrap();
    assert_eq!(time_indexes(&machine).len(), machine.segments().len());
}

/// The files of a folder, and their contents.
fn image(machine: &Machine) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = machine.files().into_iter().map(|name| machine.dir.join(name));
    paths.map(|path| (path.clone(), machine.read_file(&path))).collect()
}

fn restore(machine: &Machine, image: &[(PathBuf, Vec<u8>)]) {
    machine.files().iter().for_each(|name| machine.storage.remove_file(&machine.dir.join(name)).unwrap());
    image.iter().for_each(|(path, bytes)| replace(machine, path, bytes));
    machine.reboot();
}

fn refuse_time_indexes(machine: &Machine) {
    machine.storage.fail_if(|operation, path| {
        let is_index = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".timeindex.tmp"));
        (is_index && operation == Operation::Write).then_some(io::ErrorKind::StorageFull)
    });
}

#[test]
fn a_time_index_that_cant_be_made_anew_for_lack_of_descriptors_or_space_stays() {
    for lack in ["descriptors", "space"] {
        let machine = Machine::new();
        machine.change(|settings| settings.segment_bytes = 256 << 10);
        let mut list = List::default();
        let (partition, _) = machine.open();
        for number in 0..150 {
            list.append(&machine, &partition, &[Some(number)], 4000);
        }
        partition.close().unwrap();
        drop(partition);
        let before = image(&machine);
        let (partition, _) = machine.open();
        list.append(&machine, &partition, &[Some(150)], 4000);
        partition.flush().unwrap();
        let segment = partition.segments.load().last().unwrap().get(&partition.env, &partition.spec, None).unwrap();
        partition.writer.lock().as_mut().unwrap().finish_times();
        segment.complete_times(&machine.storage);
        match lack {
            "descriptors" => machine.storage.run_out_of_files(true),
            _ => refuse_time_indexes(&machine),
        }
        let end = partition.control.committed().file_position();
        segment.save_active_times(&machine.storage, end, partition.epoch);
        machine.storage.run_out_of_files(false);
        machine.storage.heal();
        let path = time_index_path(&segment.path);
        let held = before.iter().find(|(known, _)| *known == path).map(|(_, bytes)| bytes.clone());
        assert_eq!(held.unwrap(), machine.read_file(&path), "{lack}");
        segment.save_active_times(&machine.storage, end, partition.epoch);
        assert!(machine.read_file(&path).len() > 100);
        assert!(!machine.files().iter().any(|name| name.ends_with(".tmp")), "{lack}: {:?}", machine.files());
    }
}

/// It would tell of the records that were cut.
#[test]
fn the_old_file_of_a_segment_that_was_cut_and_grew_to_the_same_end_is_not_believed() {
    for sealed in [false, true] {
        let machine = Machine::new();
        machine.change(|settings| settings.segment_bytes = 256 << 10);
        let mut list = List::default();
        let (partition, _) = machine.open();
        for number in 0..40 {
            list.append(&machine, &partition, &[Some(number)], 4000);
        }
        let before = image(&machine);
        let settle = |partition: &Arc<PartitionLog>| {
            if sealed {
                partition.roll().unwrap();
            }
            partition.close().unwrap();
        };
        settle(&partition);
        drop(partition);
        let segment = machine.segments().remove(0);
        let (index, positions) = (time_index_path(&segment), frame_positions(&machine, &segment));
        let (old, whole) = (machine.read_file(&index), machine.read_file(&segment));

        // Ten frames never came to the device, and others take their places.
        restore(&machine, &before);
        let zeros = vec![0; (positions[40] - positions[30]) as usize];
        machine.write_file(&segment, &zeros, positions[30]);
        list.frames.truncate(30);
        let (partition, _) = machine.open();
        for number in 0..10 {
            list.append(&machine, &partition, &[Some(100 + number)], 4000);
        }
        refuse_time_indexes(&machine);
        settle(&partition);
        drop(partition);
        machine.storage.heal();
        let grown = machine.read_file(&segment);
        assert!(grown.len() == whole.len() && grown[..200] == whole[..200] && grown != whole);
        replace(&machine, &index, &old);
        let (partition, _) = machine.open();
        for time_ms in [0, 29, 30, 39, 40, 100, 105, 109, 110] {
            list.check_time(&partition, time_ms);
        }
    }
}

#[test]
fn the_file_of_an_earlier_close_is_not_believed() {
    let (machine, mut list) = in_order();
    let (partition, _) = machine.open();
    list.append(&machine, &partition, &[Some(1000)], 4000);
    machine.storage.fail_if(|_, path| {
        let is_index = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".timeindex.tmp"));
        is_index.then_some(io::ErrorKind::Other)
    });
    partition.close().unwrap();
    machine.storage.heal();
    let (partition, _) = machine.open();
    [219, 220, 1000, 1001].iter().for_each(|time_ms| list.check_time(&partition, *time_ms));
}

#[test]
fn a_cut_takes_the_file_away() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3000);
    partition.close().unwrap();
    let index = time_index_path(machine.segments().last().unwrap());
    replace(&machine, &index, b"of the records to be cut");
    let (partition, _) = machine.open();
    append_numbers(&partition, 3000..3010);
    drop(partition);
    let segment = machine.segments().pop().unwrap();
    let positions = frame_positions(&machine, &segment);
    machine.write_file(&segment, &[0xa5; 20], positions[positions.len() - 3]);
    machine.reboot();
    let (partition, report) = machine.open();
    let cut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::ReorderedTail(_) | RecoveryEvent::TornTail(_));
    assert!(report.events().iter().any(cut), "{report:?}");
    assert!(!time_indexes(&machine).contains(&index));
    drop(partition);
}

#[test]
fn lookups_beside_a_writer_miss_nothing_that_was_there_before() {
    let machine = Machine::new();
    // A new partition, and then one whose first blocks have to be made anew.
    for round in [0..1500, 1500..3000] {
        let (partition, _) = machine.open();
        let (done, end) = (AtomicBool::new(false), round.end);
        thread::scope(|scope| {
            scope.spawn(|| {
                let value = "x".repeat(1000);
                for number in round {
                    partition.append(&Record::new(&*value).timestamp_ms(number), None).unwrap();
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                let end = partition.end_offset();
                for offset in [end.saturating_sub(1), end / 2, 0].into_iter().filter(|&offset| offset < end) {
                    assert_eq!(partition.offset_for_time(offset as i64).unwrap(), Some(offset));
                }
            }
        });
        assert_eq!(partition.offset_for_time(end).unwrap(), None);
    }
}

#[test]
fn the_file_is_as_the_format_says() {
    let (machine, _) = in_order();
    let segments = machine.segments();
    let bytes = machine.read_file(&time_index_path(&segments[0]));
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let header = |segment: &Path| machine.read_file(segment)[..SEGMENT_HEADER_BYTES].to_vec();
    assert_eq!(&bytes[..8], b"tidetim\x01");
    assert_eq!(bytes[8..16], header(&segments[0])[16..24], "segment id");
    assert_eq!(bytes[16..24], header(&segments[1])[16..24], "the successor's");
    let positions = frame_positions(&machine, &segments[0]);
    assert_eq!(word(24), positions[positions.len() - 1], "end");
    assert_eq!(word(32), positions.len() as u64 - 2, "greatest time");
    let entries = &bytes[56..];
    assert_eq!((half(40), half(44) as usize), (0, entries.len() / 12), "epoch, number of entries");
    assert_eq!((half(48), half(52)), (crc32fast::hash(entries), crc32fast::hash(&bytes[..52])));
    let mut starts = vec![DATA_START];
    for &position in &positions[..positions.len() - 1] {
        if position - starts[starts.len() - 1] >= BLOCK_BYTES {
            starts.push(position);
        }
    }
    let first_of = |start: &u64| positions.iter().position(|position| position == start).unwrap() as u64;
    let firsts: Vec<_> = starts.iter().map(first_of).collect();
    for (at, entry) in entries.chunks(12).enumerate() {
        let last = firsts.get(at + 1).map_or(positions.len() as u64 - 1, |next| *next) - 1;
        assert_eq!(entry[..8], last.to_le_bytes(), "greatest time of block {at}");
        assert_eq!(entry[8..], (firsts[at] as u32).to_le_bytes(), "first offset of block {at}");
    }
    // That of the active one, which is closed.
    let active = machine.read_file(&time_index_path(&segments[3]));
    assert_eq!(active[16..24], [0; 8]);
}
