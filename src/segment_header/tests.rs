use proptest::prelude::*;

use super::{fuzzing::sealed, *};

const GOLDEN_FIRST: &[u8] = include_bytes!("../../tests/fixtures/v1/segment-header-first.bin");
const GOLDEN: &[u8] = include_bytes!("../../tests/fixtures/v1/segment-header.bin");

fn golden_topic_id() -> [u8; 16] {
    std::array::from_fn(|index| index as u8)
}

fn golden() -> SegmentHeader {
    SegmentHeader {
        segment_id: 0x0123_4567_89ab_cdef,
        topic_id: golden_topic_id(),
        partition: 3,
        sequence: 7,
        base_offset: 5_000_000_000,
        base_timestamp_ms: 1_700_000_000_000,
        predecessor: Some(Predecessor {
            segment_id: 0xfedc_ba98_7654_3210,
            end_position: 65_536,
            end_offset: 4_999_999_999,
        }),
    }
}

#[test]
fn golden_files_are_read_and_written_as_they_are() {
    let first = SegmentHeader {
        partition: 0,
        sequence: 0,
        base_offset: 0,
        base_timestamp_ms: -1,
        predecessor: None,
        ..golden()
    };
    for (bytes, expected) in [(GOLDEN_FIRST, first), (GOLDEN, golden())] {
        assert_eq!(SegmentHeader::decode(bytes), Ok(expected));
        assert_eq!(expected.encode(), bytes);
    }
}

#[test]
fn frames_begin_behind_the_second_copy() {
    assert_eq!(SEGMENT_HEADER_BYTES, 96);
    assert_eq!((COPY_A_AT, COPY_B_AT, DATA_START), (0, 4096, 4192));
}

#[test]
fn every_truncation_is_refused() {
    for length in 0..SEGMENT_HEADER_BYTES {
        assert_eq!(SegmentHeader::decode(&GOLDEN[..length]), Err(HeaderFault::Truncated));
    }
}

#[test]
fn every_flipped_bit_is_refused_and_the_other_copy_taken() {
    for bit in 0..SEGMENT_HEADER_BYTES * 8 {
        let mut damaged = golden().encode();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let fault = if bit < 64 { HeaderFault::Magic } else { HeaderFault::Checksum };
        assert_eq!(SegmentHeader::decode(&damaged), Err(fault), "bit {bit}");
        assert_eq!(SegmentHeader::read_either(&damaged, GOLDEN), Ok(golden()));
        assert_eq!(SegmentHeader::read_either(GOLDEN, &damaged), Ok(golden()));
    }
}

#[test]
fn of_two_faults_the_more_telling_is_told() {
    let zeros = [0; SEGMENT_HEADER_BYTES];
    let mut newer = golden().encode();
    newer[VERSION_AT] = 2;
    let damaged = newer;
    let newer = sealed(newer);
    assert_eq!(SegmentHeader::decode(&newer), Err(HeaderFault::Version(2)));
    assert_eq!(SegmentHeader::decode(&damaged), Err(HeaderFault::Checksum));
    let either = |a: &[u8], b: &[u8]| SegmentHeader::read_either(a, b).unwrap_err();
    assert_eq!(either(&zeros, &zeros), HeaderFault::Empty);
    assert_eq!(either(&zeros, &damaged), HeaderFault::Checksum);
    assert_eq!(either(&damaged, &newer), HeaderFault::Version(2));
    assert_eq!(either(&newer, &zeros), HeaderFault::Version(2));
    assert_eq!(either(&zeros, &[]), HeaderFault::Empty);
}

#[test]
fn impossible_fields_are_refused_by_name() {
    let before = golden().predecessor.unwrap();
    let headers = [
        ("segment id", SegmentHeader { segment_id: 0, ..golden() }),
        ("sequence number", SegmentHeader { sequence: 1 << 31, ..golden() }),
        ("base offset", SegmentHeader { base_offset: 1 << 63, ..golden() }),
        ("predecessor's id", SegmentHeader { predecessor: Some(Predecessor { segment_id: 0, ..before }), ..golden() }),
        (
            "predecessor's end position",
            SegmentHeader { predecessor: Some(Predecessor { end_position: 9, ..before }), ..golden() },
        ),
        (
            "predecessor's end offset",
            SegmentHeader { predecessor: Some(Predecessor { end_offset: u64::MAX, ..before }), ..golden() },
        ),
    ];
    for (field, header) in headers {
        assert_eq!(SegmentHeader::decode(&header.encode()), Err(HeaderFault::Field(field)));
    }
    let mut bytes = golden().encode();
    bytes[RESERVED_AT] = 1;
    assert_eq!(SegmentHeader::decode(&sealed(bytes)), Err(HeaderFault::Field("reserved field")));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        segment_id in 1u64..,
        topic_id: [u8; 16],
        partition: u32,
        sequence in 0..MAX_SEQUENCE,
        base_offset in 0..MAX_OFFSET,
        base_timestamp_ms: i64,
        before in proptest::option::of((1u64.., 0u64..1 << 40, any::<u64>())),
    ) {
        let predecessor = before.map(|(segment_id, units, end_offset)| Predecessor {
            segment_id,
            end_position: units * 8,
            end_offset: end_offset.min(base_offset),
        });
        let header =
            SegmentHeader { segment_id, topic_id, partition, sequence, base_offset, base_timestamp_ms, predecessor };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn what_is_read_is_written_the_same(bytes: [[u8; 32]; 3], patch_magic: bool, seal: bool) {
        let mut bytes: [u8; SEGMENT_HEADER_BYTES] = bytes.concat().try_into().unwrap();
        if patch_magic {
            bytes[..PARTITION_AT].copy_from_slice(&GOLDEN[..PARTITION_AT]);
        }
        let bytes = if seal { sealed(bytes) } else { bytes };
        if let Ok(header) = SegmentHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn what_is_fuzzed_holds(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzzing::segment_header(&data);
    }
}
