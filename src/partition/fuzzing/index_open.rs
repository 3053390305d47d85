//! Offset and time indexes of all kinds beside sound segments.
//!
//! An input: which segment, of which partition (1 byte); what is put in the place of its indexes, and what is put right
//! of it (1 byte); the length of the offset index (2 bytes); the offset index; the time index.

use std::sync::OnceLock;

use super::*;
use crate::{
    partition::{
        Opening, offset_index,
        segment::{index_path, time_index_path},
        time_index,
    },
    segment_header::SegmentHeader,
};

/// Two sealed segments and an active one.
const SEGMENTS: usize = 3;
const RECORDS_EACH: u64 = 100;
/// Looked up are so many offsets and times, spread over all.
const LOOKUPS: u64 = 12;

/// A partition, and what it holds.
struct Sound {
    image: Image,
    reading: Reading,
    times: Vec<i64>,
}

/// One that was killed and one that was closed.
fn sound() -> &'static [Sound; 2] {
    static SOUND: OnceLock<[Sound; 2]> = OnceLock::new();
    SOUND.get_or_init(|| [Ending::Kill, Ending::Close].map(Sound::of))
}

impl Sound {
    fn of(ending: Ending) -> Self {
        let bench = Bench::default();
        let (partition, _) = bench.open().unwrap();
        let mut random = Sequence::new(1);
        for segment in 0..SEGMENTS {
            for _ in 0..RECORDS_EACH {
                bench.advance_ms(1);
                let value = "x".repeat(random.below(800) as usize);
                // Clients' times come in any order.
                let time_ms = 1_000_000 * segment as i64 + random.below(1_000_000) as i64;
                partition.append(&Record::new(value).timestamp_ms(time_ms), None).unwrap();
            }
            if segment + 1 < SEGMENTS {
                partition.roll().unwrap();
            }
        }
        partition.flush().unwrap();
        let reading = Reading::of(&partition);
        assert_eq!(reading.records.len() as u64, RECORDS_EACH * SEGMENTS as u64);
        bench.end(partition, ending);
        let times = reading.records.iter().map(OwnedRecord::timestamp_ms).collect();
        Self { image: bench.image(), reading, times }
    }
}

/// Indexes of any bytes: every lookup gives what a walk over all gives. Of a time index whose checks hold, and which
/// nobody wrote, less: what is found is as late as was asked for, and not before what a walk finds.
pub fn index_open(data: &[u8]) {
    let mut input = Input::new(data);
    let (which, how, length) = (input.u8(), input.u8(), input.u16());
    let sound = &sound()[usize::from(which >> 2) % 2];
    let bench = Bench::of(&sound.image);
    let segments = sound.image.segments();
    let segment = segments[usize::from(which) % SEGMENTS];
    let header = SegmentHeader::decode(&bench.read(segment).unwrap()).unwrap();
    let name = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (index, times) = (name(index_path(Path::new(segment))), name(time_index_path(Path::new(segment))));

    let mut index_bytes = input.bytes(length.into()).to_vec();
    let mut time_bytes = input.rest().to_vec();
    let sound_times = bench.read(&times);
    if how & 4 != 0 {
        offset_index::fuzzing::seal(&mut index_bytes, header.segment_id);
    }
    if let Some(sound) = sound_times.as_ref().filter(|_| how & 8 != 0) {
        time_index::fuzzing::seal(&mut time_bytes, sound);
    }
    if how & 1 != 0 {
        bench.write(&index, &index_bytes);
    }
    if how & 2 != 0 {
        bench.write(&times, &time_bytes);
    }
    let lies = how & 2 != 0 && time_index::fuzzing::is_intact(&time_bytes) && Some(time_bytes) != sound_times;
    if which & 8 != 0 {
        bench.storage.reboot();
    }
    check(&bench, sound, lies, data.len() as u64, Ending::from_bits(which >> 4));
}

fn check(bench: &Bench, sound: &Sound, lies: bool, salt: u64, ending: Ending) {
    let (partition, report) = bench.open().unwrap();
    assert!(report.is_clean(), "{report:?}");
    lookups(&partition, &sound.reading, &sound.times, lies, salt);
    let mut all = Reading::of(&partition);
    assert_eq!(all, sound.reading);
    all.check_bounds(&partition);
    let offset = append(&partition, "one").unwrap();
    all.records.extend(Reading::from(&partition, offset).records);
    lookups(&partition, &all, &sound.times, lies, salt + 1);
    bench.end(partition, ending);
    let (partition, report) = bench.open().unwrap();
    assert_eq!(report.opening(), [Opening::Clean, Opening::Resumed, Opening::Scanned][ending as usize]);
    assert_eq!(Reading::of(&partition), all);
    lookups(&partition, &all, &sound.times, lies, salt + 2);
}

fn lookups(partition: &Arc<PartitionLog>, all: &Reading, times: &[i64], lies: bool, salt: u64) {
    let mut random = Sequence::new(salt);
    let end = partition.end_offset();
    all.check_suffixes(partition, (0..LOOKUPS).map(|_| random.below(end + 1)));
    let mut asked: Vec<i64> = (0..LOOKUPS).map(|_| times[random.below(times.len() as u64) as usize]).collect();
    asked.extend([i64::MIN, i64::MAX, times[0] + 1]);
    for time_ms in asked {
        let (found, expected) = (partition.offset_for_time(time_ms).unwrap(), all.first_at(time_ms));
        if !lies {
            assert_eq!(found, expected, "for {time_ms}");
        } else if let Some(found) = found {
            let record = all.records.iter().find(|record| record.offset() == found).unwrap();
            assert!(record.timestamp_ms() >= time_ms && Some(found) >= expected);
        }
    }
}

/// The indexes that there are, as inputs: they change nothing.
#[cfg(test)]
pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (at, sound) in (0..).zip(sound()) {
        let bench = Bench::of(&sound.image);
        for (number, segment) in (0..).zip(sound.image.segments()) {
            let [index, times] = [index_path(Path::new(segment)), time_index_path(Path::new(segment))];
            let [mut index, times] = [index, times].map(|path| bench.read(path.to_str().unwrap()).unwrap_or_default());
            // The active one's is as long as the segment may make it.
            index.truncate(200);
            let which = (at * 4..).find(|which| which / 4 % 2 == at && which % SEGMENTS as u8 == number).unwrap();
            let head = [which, if times.is_empty() { 1 } else { 3 }];
            let bytes = [&head[..], &(index.len() as u16).to_le_bytes(), &index, &times].concat();
            seeds.push((format!("segment-{number}-of-{}", ["killed", "closed"][usize::from(at)]), bytes));
        }
    }
    seeds
}
