//! Tests of frames; the format's golden files among them.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    iter::repeat_n,
};

use proptest::{collection::vec, option, prelude::*};

use super::{
    fuzzing::{record_of, seal},
    *,
};
use crate::{error::ErrorKind, segment_header::DATA_START};

const SEGMENT_ID: u64 = 0x0123_4567_89ab_cdef;

const GOLDEN: &[u8] = include_bytes!("../../tests/fixtures/v1/frames.bin");

/// A place for tests that don't care.
fn place_at(position: u64) -> FramePlace {
    FramePlace {
        seed: FrameSeed::new(SEGMENT_ID),
        position,
        relative_offset: 7,
        relative_time_ms: 1_000,
        epoch: 3,
        durable_distance: 5,
    }
}

fn encode_at(records: &[Record<'_>], place: FramePlace) -> Vec<u8> {
    let encoder = FrameEncoder::new(records).unwrap();
    assert_eq!(encoder.frame_bytes() % ALIGNMENT, 0);
    let frame = encoder.at(place);
    let mut bytes = vec![0xaa; frame.encoded_len()];
    frame.encode(&mut bytes[..]);
    bytes
}

fn encode(records: &[Record<'_>]) -> Vec<u8> {
    encode_at(records, place_at(DATA_START))
}

/// Decodes and verifies the frame at the front of `bytes`.
fn decode(bytes: &[u8], seed: FrameSeed, position: u64) -> Result<FrameHeader, FrameFault> {
    let header = FrameHeader::decode(bytes, seed, position)?;
    header.verify_body(bytes, seed, position)?;
    Ok(header)
}

fn decode_here(bytes: &[u8]) -> Result<FrameHeader, FrameFault> {
    decode(bytes, FrameSeed::new(SEGMENT_ID), DATA_START)
}

fn seal_here(bytes: &mut [u8]) {
    seal(bytes, FrameSeed::new(SEGMENT_ID), DATA_START);
}

fn assert_same(record: &Record<'_>, view: &RecordView<'_>) {
    assert_eq!(record.key_bytes(), view.key);
    assert_eq!(record.value_bytes(), view.value);
    assert_eq!(record.explicit_timestamp_ms(), view.client_time_ms);
    assert!(record.header_pairs().eq(view.headers.iter()), "{record:?} {view:?}");
}

fn assert_round_trip(records: &[Record<'_>], place: FramePlace) {
    let bytes = encode_at(records, place);
    let header = decode(&bytes, place.seed, place.position).unwrap();
    assert_eq!(header.frame_bytes(), bytes.len());
    assert_eq!(usize::from(header.record_count), records.len());
    assert_eq!(header.relative_offset, place.relative_offset);
    assert_eq!(header.relative_time_ms, place.relative_time_ms);
    assert_eq!(header.epoch, place.epoch);
    assert_eq!(header.durable_distance, place.durable_distance);
    assert_eq!(super::records(&header, &bytes).count(), records.len());
    for (record, view) in records.iter().zip(super::records(&header, &bytes)) {
        assert_same(record, &view);
    }
}

/// Small frames with every feature.
fn examples() -> Vec<Vec<Record<'static>>> {
    vec![
        vec![Record::null()],
        vec![Record::new("one iPhone").key("customer-42")],
        vec![Record::new("").key(""), Record::tombstone("k"), Record::new("v")],
        vec![Record::new("v").key("k").timestamp_ms(i64::MIN), Record::new("w")],
        vec![
            Record::new("paid").key("k").header("source", "web").null_header("trace").header("source", ""),
            Record::null().header("", "no name").timestamp_ms(-1),
        ],
    ]
}

/// What the golden file holds, literally.
fn golden() -> Vec<(FramePlace, u16, Vec<Record<'static>>)> {
    let place = |relative_offset, relative_time_ms, epoch, durable_distance| FramePlace {
        seed: FrameSeed::new(0x0123_4567_89ab_cdef),
        position: 0,
        relative_offset,
        relative_time_ms,
        epoch,
        durable_distance,
    };
    let with_headers = Record::new("paid")
        .key("customer-42")
        .header("source", "web")
        .null_header("trace")
        .header("source", "")
        .header("", "no name")
        .header("größe", "überall");
    let record = |key, value| Record::new(value).key(key);
    const MAX: u32 = u32::MAX;
    let frames = vec![
        (place(0, 0, 1, MAX), 0, vec![record("customer-42", "one iPhone")]),
        (place(1, 0, 1, 0), 0, vec![Record::null()]),
        (place(2, 5, 1, 6), 0, vec![record("", ""), Record::tombstone("customer-7"), Record::new("no key")]),
        (
            place(10, 5, 2, 6),
            0x80,
            vec![
                record("k", "v").timestamp_ms(-9_223_372_036_854_775_808),
                record("k", "v"),
                record("k", "v").timestamp_ms(9_223_372_036_854_775_807),
            ],
        ),
        (place(13, 1_000, 2, 6), 0x40, vec![with_headers, record("customer-43", "paid")]),
        (place(15, 1_000, MAX, 1), 0xc0, vec![Record::null().null_header("h").timestamp_ms(1)]),
        (place(MAX, MAX, MAX, 2), 0x8000, vec![record("later", "a compatible attribute")]),
        (place(MAX, MAX, MAX, 3), 0x0100, vec![record("later", "an incompatible attribute")]),
    ];
    let mut position = 4_192;
    let placed = frames.into_iter().map(|(place, attributes, records)| {
        let place = FramePlace { position, ..place };
        position += FrameEncoder::new(&records).unwrap().frame_bytes() as u64;
        (place, attributes, records)
    });
    placed.collect()
}

#[test]
fn the_golden_file_is_read() {
    let mut rest = GOLDEN;
    for (place, attributes, expected) in golden() {
        let header = FrameHeader::decode(rest, place.seed, place.position).unwrap();
        let (frame, behind) = rest.split_at(header.frame_bytes());
        assert_eq!(header.attributes, attributes);
        assert_eq!(header.relative_offset, place.relative_offset);
        assert_eq!(header.relative_time_ms, place.relative_time_ms);
        assert_eq!(header.epoch, place.epoch);
        assert_eq!(header.durable_distance, place.durable_distance);
        let verified = header.verify_body(frame, place.seed, place.position);
        match attributes & attributes::INCOMPATIBLE & !attributes::KNOWN {
            0 => assert_eq!(verified, Ok(())),
            unknown => assert_eq!(verified, Err(FrameFault::UnknownAttributes(unknown))),
        }
        assert_eq!(records(&header, frame).count(), expected.len());
        for (record, view) in expected.iter().zip(records(&header, frame)) {
            assert_same(record, &view);
        }
        rest = behind;
    }
    assert!(rest.is_empty());
}

#[test]
fn the_golden_file_is_written_the_same() {
    let mut written = Vec::new();
    for (place, attributes, records) in golden() {
        let mut frame = encode_at(&records, place);
        // What a later version would set.
        LittleEndian::write_u16(&mut frame[ATTRIBUTES_AT..], attributes);
        seal(&mut frame, place.seed, place.position);
        written.extend(frame);
    }
    assert_eq!(written, GOLDEN);
}

#[test]
fn constants_are_those_of_the_document() {
    let document = include_str!("../doc/format.md");
    for key in KEYS {
        assert!(document.contains(&format!("{key:#018x}")), "{key:#018x}");
    }
    assert!(document.contains(&format!("{BODY_SEED_KEY:#x}")));
    assert_eq!(MAX_FRAME_BYTES, 134_217_720);
    assert_eq!((HEADER_BYTES, ALIGNMENT, MAX_RECORDS), (32, 8, 65_535));
}

#[test]
fn a_lone_keyed_record_costs_40_bytes() {
    let record = [Record::new([0; 100].as_slice()).key("12345678901234567890")]; // 120 bytes
    assert_eq!(encode(&record).len(), 120 + 40);
    let record = [Record::new("1").key("")];
    assert_eq!(encode(&record).len(), 1 + 40 + 7);
    assert_eq!(encode(&[Record::null()]).len(), 40);
}

#[test]
fn examples_round_trip() {
    for records in examples() {
        assert_round_trip(&records, place_at(DATA_START));
    }
}

#[test]
fn huge_and_many_records_round_trip() {
    let huge = vec![7; 1 << 20];
    assert_round_trip(&[Record::new(&huge).key(&huge).header("h", &huge)], place_at(DATA_START));
    let many: Vec<_> = (0..MAX_RECORDS).map(|index| Record::new(index.to_string())).collect();
    assert_round_trip(&many, place_at(DATA_START));
    let longest_name = "n".repeat(MAX_HEADER_NAME_BYTES);
    assert_round_trip(&[Record::null().header(&longest_name, "v")], place_at(DATA_START));
}

#[test]
fn what_no_frame_holds_is_refused() {
    let kind = |records: &[Record<'_>]| FrameEncoder::new(records).map(|_| ()).map_err(|error| error.kind());
    let too_large = Err(ErrorKind::RecordTooLarge);
    assert_eq!(kind(&[]), too_large);
    assert_eq!(kind(&vec![Record::null(); MAX_RECORDS + 1]), too_large);
    let name = "n".repeat(MAX_HEADER_NAME_BYTES + 1);
    assert_eq!(kind(&[Record::new("v").header(&name, "v")]), too_large);
    let most = vec![0; MAX_FRAME_BYTES as usize - 40];
    assert_eq!(kind(&[Record::new(&most)]), Ok(()));
    assert_eq!(kind(&[Record::new(&most).key("k")]), too_large);
    assert_eq!(kind(&[Record::new(&most), Record::null()]), too_large);
    assert_eq!(kind(&[Record::new(&most).header("h", "")]), too_large);
}

#[test]
fn the_longest_frame_round_trips() {
    let most = vec![0; MAX_FRAME_BYTES as usize - 40];
    assert_round_trip(&[Record::new(&most)], place_at(DATA_START));
}

#[test]
fn every_truncation_is_refused() {
    for records in examples() {
        let bytes = encode(&records);
        for length in 0..bytes.len() {
            assert_eq!(decode_here(&bytes[..length]), Err(FrameFault::Truncated));
            let header = decode_here(&bytes).unwrap();
            assert!(super::records(&header, &bytes[..length]).next().is_none());
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for records in examples() {
        let bytes = encode(&records);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let fault = match bit / 8 {
                MAGIC_AT => FrameFault::Magic,
                LENGTH_AT..HEADER_BYTES => FrameFault::HeaderCheck,
                _ => FrameFault::BodyCheck,
            };
            assert_eq!(decode_here(&damaged), Err(fault), "bit {bit}");
        }
    }
}

#[test]
fn every_pair_of_flipped_bits_in_a_header_is_refused() {
    for records in examples() {
        let mut header: [u8; HEADER_BYTES] = *encode(&records).first_chunk().unwrap();
        let seed = FrameSeed::new(SEGMENT_ID);
        for first in 0..HEADER_BYTES * 8 {
            header[first / 8] ^= 1 << (first % 8);
            for second in 0..first {
                header[second / 8] ^= 1 << (second % 8);
                assert!(FrameHeader::decode(&header, seed, DATA_START).is_err(), "bits {first} and {second}");
                header[second / 8] ^= 1 << (second % 8);
            }
            header[first / 8] ^= 1 << (first % 8);
        }
    }
}

#[test]
fn bytes_behind_the_frame_change_nothing() {
    let mut bytes = encode(&examples()[4]);
    let header = decode_here(&bytes).unwrap();
    bytes.extend([0xff; 64]);
    assert_eq!(decode_here(&bytes), Ok(header));
    assert_eq!(records(&header, &bytes).count(), 2);
}

#[test]
fn a_frame_is_valid_at_its_place_alone() {
    let bytes = encode(&examples()[1]);
    let seed = FrameSeed::new(SEGMENT_ID);
    for position in (0..1 << 20).step_by(ALIGNMENT) {
        assert_eq!(FrameHeader::decode(&bytes, seed, position).is_ok(), position == DATA_START);
        // Each check refuses on its own.
        let header = decode_here(&bytes).unwrap();
        assert_eq!(header.verify_body(&bytes, seed, position).is_ok(), position == DATA_START);
    }
    for bit in 0..64 {
        let other = FrameSeed::new(SEGMENT_ID ^ (1 << bit));
        assert_eq!(FrameHeader::decode(&bytes, other, DATA_START), Err(FrameFault::HeaderCheck));
        let header = decode_here(&bytes).unwrap();
        assert_eq!(header.verify_body(&bytes, other, DATA_START), Err(FrameFault::BodyCheck));
    }
}

#[test]
fn zeros_are_no_frame() {
    assert_eq!(decode_here(&[0; 64]), Err(FrameFault::Empty));
    assert_eq!(decode_here(&[0; HEADER_BYTES - 1]), Err(FrameFault::Truncated));
    // A header that lost its beginning was one: that isn't the same as nothing.
    let mut bytes = encode(&examples()[1]);
    bytes[..8].fill(0);
    assert_eq!(decode_here(&bytes), Err(FrameFault::Magic));
    // All zeros under checks that hold aren't one either.
    let mut bytes = [0; 64];
    seal_here(&mut bytes);
    assert_eq!(decode_here(&bytes), Err(FrameFault::Length));
}

#[test]
fn a_payload_that_holds_frames_stays_payload() {
    // A whole piece of this very segment as a value, at every alignment.
    let image: Vec<u8> = examples().iter().flat_map(|records| encode(records)).collect();
    for shift in 0..ALIGNMENT {
        let mut value = vec![0xff; shift];
        value.extend(&image);
        let bytes = encode(&[Record::new(&value)]);
        let header = decode_here(&bytes).unwrap();
        assert_eq!(records(&header, &bytes).next().and_then(|view| view.value), Some(&value[..]));
        // Nor does a search for the next frame, as recovery does it, find any of them.
        for at in (ALIGNMENT..bytes.len()).step_by(ALIGNMENT) {
            assert!(decode(&bytes[at..], FrameSeed::new(SEGMENT_ID), DATA_START + at as u64).is_err());
        }
    }
}

#[test]
fn unknown_attributes_are_refused_if_incompatible_and_read_if_not() {
    let original = encode(&examples()[1]);
    for bit in 0..16 {
        let mut bytes = original.clone();
        bytes[ATTRIBUTES_AT + bit / 8] |= 1 << (bit % 8);
        seal_here(&mut bytes);
        let outcome = decode_here(&bytes).map(|header| records(&header, &bytes).count());
        let expected = match bit {
            6 | 7 => Err(FrameFault::Structure), // no record has any
            12.. => Ok(1),
            _ => Err(FrameFault::UnknownAttributes(1 << bit)),
        };
        assert_eq!(outcome, expected, "bit {bit}");
    }
    // An attribute that is missing is as wrong as one too many.
    let mut bytes = encode(&examples()[4]);
    bytes[ATTRIBUTES_AT] = 0;
    seal_here(&mut bytes);
    assert_eq!(decode_here(&bytes), Err(FrameFault::Structure));
}

#[test]
fn damage_under_valid_checks_is_told_as_structure() {
    let whole = encode(&[Record::new("value").key("key").header("name", "v").timestamp_ms(1)]);
    assert!(decode_here(&whole).is_ok());
    // The records' place: key word 32, value word 36, time 40, headers length 48, key 52, value 55, headers 60, end 71.
    let cases: [(usize, u8); 10] = [
        (32, 0x04), // key too long
        (35, 0xc0), // null of three bytes
        (35, 0x60), // a meaningless bit
        (36, 0x04), // leaves a byte more to the padding than is zero
        (48, 0x00), // an empty headers block
        (60, 0x05), // a longer header name
        (60, 0xff), // one beyond the end
        (65, 0x80), // a null value with a byte
        (66, 0xff), // not UTF-8
        (71, 0x01), // padding
    ];
    for (at, byte) in cases {
        let mut bytes = whole.clone();
        assert_ne!(bytes[at], byte);
        bytes[at] = byte;
        seal_here(&mut bytes);
        assert_eq!(decode_here(&bytes), Err(FrameFault::Structure), "{byte:#x} at {at}");
    }
    for (count, fault) in [(0, FrameFault::Length), (2, FrameFault::Structure), (u16::MAX, FrameFault::Structure)] {
        let mut bytes = whole.clone();
        LittleEndian::write_u16(&mut bytes[RECORD_COUNT_AT..], count);
        seal_here(&mut bytes);
        assert_eq!(decode_here(&bytes), Err(fault));
    }
    // Eight zeros more are not padding.
    let mut bytes = whole.clone();
    bytes.extend([0; ALIGNMENT]);
    bytes[LENGTH_AT] += 1;
    seal_here(&mut bytes);
    assert_eq!(decode_here(&bytes), Err(FrameFault::Structure));
}

#[test]
fn helpers_compute_without_overflow() {
    let bytes = encode_at(
        &[Record::null(), Record::null()],
        FramePlace { relative_offset: u32::MAX, durable_distance: 4, ..place_at(DATA_START) },
    );
    let header = decode_here(&bytes).unwrap();
    assert_eq!(header.next_relative_offset(), (1 << 32) + 1);
    assert_eq!(header.durable_position(DATA_START), Some(DATA_START - 32));
    assert_eq!(header.durable_position(31), None);
    let silent = FrameHeader { durable_distance: NO_DURABLE_DISTANCE, ..header };
    assert_eq!(silent.durable_position(u64::MAX), None);
}

#[test]
fn faults_say_what_is_wrong() {
    assert_eq!(
        FrameFault::UnknownAttributes(0x100).to_string(),
        "the frame has attributes of a later version (0x0100)"
    );
    assert_eq!(FrameFault::BodyCheck.to_string(), "the check of the frame's body doesn't hold");
}

/// A store that tells in which order it was written.
struct Recorded<'a>(&'a mut Vec<usize>, &'a mut [u8]);

impl Store for Recorded<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0.push(at);
        self.1[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn bytes(&self) -> &[u8] {
        self.1
    }
}

#[test]
fn the_header_is_stored_last_and_at_once() {
    let records = &examples()[4];
    let frame = FrameEncoder::new(records).unwrap().at(place_at(DATA_START));
    let (mut stores, mut bytes) = (Vec::new(), vec![0; frame.encoded_len()]);
    frame.encode(Recorded(&mut stores, &mut bytes));
    assert_eq!(stores.pop(), Some(0));
    assert!(stores.iter().all(|&at| at >= HEADER_BYTES));
    assert_eq!(bytes, encode(records));
}

fn payload() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::weighted(0.8, vec(any::<u8>(), 0..40))
}

fn any_record() -> impl Strategy<Value = Record<'static>> {
    let header = ("[a-cé]{0,3}", payload());
    (payload(), payload(), vec(header, 0..4), option::of(any::<i64>())).prop_map(|(key, value, headers, time)| {
        let mut record = value.map_or_else(Record::null, Record::new);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(time) = time {
            record = record.timestamp_ms(time);
        }
        headers.into_iter().fold(record, |record, (name, value)| match value {
            Some(value) => record.header(name, value),
            None => record.null_header(name),
        })
    })
}

fn any_place() -> impl Strategy<Value = FramePlace> {
    let fields = (any::<u64>(), 0..1u64 << 32, any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    fields.prop_map(|(id, units, relative_offset, relative_time_ms, epoch, durable_distance)| FramePlace {
        seed: FrameSeed::new(id),
        position: units * 8,
        relative_offset,
        relative_time_ms,
        epoch,
        durable_distance,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in vec(any_record(), 1..20), place in any_place()) {
        assert_round_trip(&records, place);
    }

    #[test]
    fn any_damage_is_refused(
        records in vec(any_record(), 1..5),
        place in any_place(),
        damage in vec((any::<prop::sample::Index>(), 1u8..), 1..6),
    ) {
        let bytes = encode_at(&records, place);
        let mut damaged = bytes.clone();
        for (index, mask) in damage {
            damaged[index.index(bytes.len())] ^= mask;
        }
        prop_assume!(damaged != bytes);
        prop_assert!(decode(&damaged, place.seed, place.position).is_err());
    }

    #[test]
    fn any_bytes_decode_without_panic(bytes in vec(any::<u8>(), 0..200), fields: (u16, u16, u32), units in 0u32..30) {
        let _ = decode_here(&bytes);
        // Unverified, with a header from elsewhere.
        let (record_count, attributes, body_check) = fields;
        let here = decode_here(&encode(&[Record::null()])).unwrap();
        let header = FrameHeader { record_count, attributes, body_check, length: units * 8, ..here };
        for view in records(&header, &bytes) {
            for (name, value) in view.headers.iter() {
                prop_assert!(name.len() + value.map_or(0, <[u8]>::len) < bytes.len());
            }
        }
    }

    /// Words of little variety, under checks that hold: whatever is accepted is what the encoder writes.
    #[test]
    fn what_is_read_is_written_the_same(
        words in vec(prop_oneof![0u32..9, (0u32..9).prop_map(|low| low | WORD_FLAG), Just(codec::NULL_WORD)], 2..12),
        count in 1u16..4,
        attributes in prop_oneof![Just(0u16), Just(1 << 6), Just(1 << 7), Just(3 << 6)],
    ) {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes[LENGTH_AT] = (bytes.len() / ALIGNMENT) as u8;
        LittleEndian::write_u16(&mut bytes[RECORD_COUNT_AT..], count);
        LittleEndian::write_u16(&mut bytes[ATTRIBUTES_AT..], attributes);
        seal_here(&mut bytes);
        if let Ok(header) = decode_here(&bytes) {
            let views: Vec<_> = records(&header, &bytes).map(|view| record_of(&view)).collect();
            let place = FramePlace { relative_offset: 0, relative_time_ms: 0, epoch: 0, durable_distance: 0, ..place_at(DATA_START) };
            prop_assert_eq!(encode_at(&views, place), bytes);
        }
    }

    /// Records like the first one, which are read in another way, and from some place on others.
    #[test]
    fn records_that_are_alike_are_read_as_they_were_written(
        first in (option::of(vec(any::<u8>(), 0..5)), option::of(vec(any::<u8>(), 0..5))),
        alike in 0usize..6,
        others in vec((option::of(vec(any::<u8>(), 0..3)), option::of(vec(any::<u8>(), 0..3))), 0..4),
        again in 0usize..3,
    ) {
        let all = repeat_n(&first, alike + 1).chain(&others).chain(repeat_n(&first, again));
        let all: Vec<_> = all.map(|(key, value)| {
            let record = value.as_ref().map_or_else(Record::null, Record::new);
            key.iter().fold(record, |record, key| record.key(key))
        }).collect();
        let bytes = encode(&all);
        let header = decode_here(&bytes).unwrap();
        prop_assert_eq!(records(&header, &bytes).count(), all.len());
        for (record, view) in all.iter().zip(records(&header, &bytes)) {
            assert_same(record, &view);
        }
        // One record less or more doesn't fill the frame.
        let body = &bytes[HEADER_BYTES..];
        prop_assert!(are_plain_records(body, header.record_count));
        prop_assert!(!are_plain_records(body, header.record_count - 1));
        prop_assert!(!are_plain_records(body, header.record_count + 1));
    }

    /// The short cuts for plain records accept what the walk accepts.
    #[test]
    fn plain_records_are_known_without_a_walk(
        words in vec(prop_oneof![4 => 0u32..12, 2 => Just(codec::NULL_WORD), 1 => any::<u32>()], 2..8),
        payload in vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 0..40),
        record_count in 1u16..4,
    ) {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(payload);
        bytes.resize(bytes.len() / ALIGNMENT * ALIGNMENT, 0);
        let here = decode_here(&encode(&[Record::null()])).unwrap();
        let header = FrameHeader { length: bytes.len() as u32, record_count, ..here };
        prop_assert!(header.has_plain_records());
        let walked = header.verify_records(&bytes).is_some();
        prop_assert_eq!(are_plain_records(&bytes[HEADER_BYTES..], record_count), walked);
        prop_assert!(record_count > 1 || is_plain_record(&bytes[HEADER_BYTES..]) == walked);
    }

    #[test]
    fn what_is_fuzzed_holds(data in vec(any::<u8>(), 0..300)) {
        fuzzing::frame_decode(&data);
    }

    #[test]
    fn decoding_allocates_nothing(bytes in vec(any::<u8>(), 40..300), count: u16, flags in 0u8..4, put_right: bool) {
        let mut bytes = bytes;
        if put_right {
            LittleEndian::write_u24(&mut bytes[LENGTH_AT..], (40 + u32::from(flags)) / 8);
            LittleEndian::write_u16(&mut bytes[RECORD_COUNT_AT..], count);
            LittleEndian::write_u16(&mut bytes[ATTRIBUTES_AT..], u16::from(flags) << 6);
            seal_here(&mut bytes);
        }
        let before = ALLOCATED.get();
        let header = decode_here(&bytes);
        if let Ok(header) = FrameHeader::decode(&bytes, FrameSeed::new(SEGMENT_ID), DATA_START) {
            for view in records(&header, &bytes) {
                view.headers.iter().for_each(drop);
            }
        }
        prop_assert_eq!(ALLOCATED.get(), before, "{:?}", header);
    }
}

proptest! {
    #[test]
    fn a_batch_is_split_into_as_few_frames_as_hold_it(sizes in vec(0..300_usize, 0..60), frame_bytes in 0..1200_u64) {
        let values: Vec<Vec<u8>> = sizes.iter().map(|&bytes| vec![7; bytes]).collect();
        let records: Vec<Record<'_>> = values.iter().map(|value| Record::new(&**value)).collect();
        let frames = FrameEncoder::split(&records, frame_bytes, |_| Ok(())).unwrap();
        let bytes = |records: &[Record<'_>]| records.iter().map(record_bytes).sum::<u64>();
        let mut at = 0;
        for frame in &frames {
            let count = frame.records.len();
            prop_assert_eq!(frame.records, &records[at..at + count]);
            prop_assert!(count == 1 || bytes(frame.records) <= frame_bytes);
            at += count;
            prop_assert!(at == records.len() || bytes(&records[at - count..=at]) > frame_bytes);
            let alone = FrameEncoder::new(frame.records).unwrap();
            prop_assert_eq!((frame.frame_bytes, frame.attributes), (alone.frame_bytes, alone.attributes));
        }
        prop_assert_eq!(at, records.len());
    }
}

#[test]
fn a_batch_is_checked_whole_before_there_is_a_frame() {
    let records = vec![Record::new("x"); MAX_RECORDS * 2 + 1];
    let frames = FrameEncoder::split(&records, u64::MAX, |_| Ok(())).unwrap();
    assert_eq!(frames.iter().map(FrameEncoder::record_count).collect::<Vec<_>>(), [u16::MAX, u16::MAX, 1]);
    let name = "n".repeat(MAX_HEADER_NAME_BYTES + 1);
    let records = [Record::new("sound"), Record::new("not").header(name, "x")];
    assert_eq!(FrameEncoder::split(&records, 0, |_| Ok(())).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    let check =
        |bytes| if bytes > 3 { Err(Repr::RecordTooLarge { what: "it", bytes, limit: 3 }.into()) } else { Ok(()) };
    let records = [Record::new("abc"), Record::new("abcd")];
    assert_eq!(FrameEncoder::split(&records, 0, check).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    assert_eq!(FrameEncoder::split(&records[..1], 0, check).unwrap().len(), 1);
}

thread_local! {
    /// Bytes that this thread has asked for.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all calls go on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get().wrapping_add(layout.size())));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}
