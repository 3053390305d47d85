//! What must hold for any input, for the fuzz targets and the tests to feed.
//!
//! A broken promise panics: that is how a fuzzer is told.
#![allow(clippy::unwrap_used, unreachable_pub)] // public under `cfg(fuzzing)` alone

use super::*;

/// Takes the first bytes of `data` for a segment id, a position and what to do with the rest: decode it as it is or
/// under checks that hold, or make records of it, encode them and decode them again.
pub fn frame_decode(data: &[u8]) {
    let mut reader = Reader::new(data);
    let (Some(mode), Some(segment_id), Some(units)) = (reader.u8(), reader.u64(), reader.u32()) else { return };
    let (seed, position) = (FrameSeed::new(segment_id), u64::from(units) * ALIGNMENT as u64);
    let mut bytes = reader.rest().to_vec();
    match mode % 4 {
        0 => {}
        1 | 2 if bytes.len() < HEADER_BYTES => {}
        1 => seal(&mut bytes, seed, position),
        2 => {
            // The input's length, as most lengths would be refused.
            let units = (bytes.len() / ALIGNMENT).min((MAX_FRAME_BYTES / ALIGNMENT as u64) as usize);
            LittleEndian::write_u24(&mut bytes[LENGTH_AT..HEADER_CHECK_AT], units as u32);
            seal(&mut bytes, seed, position);
        }
        _ => return round_trip(&mut reader, seed, position),
    }
    canonical(&bytes, seed, position);
}

/// Makes both checks of the frame at the front of `bytes` hold.
pub(crate) fn seal(bytes: &mut [u8], seed: FrameSeed, position: u64) {
    let units = LittleEndian::read_u24(&bytes[LENGTH_AT..HEADER_CHECK_AT]) as usize;
    let length = (units * ALIGNMENT).clamp(HEADER_BYTES, bytes.len());
    let body_check = seed.body_check(&bytes[HEADER_BYTES..length], position);
    bytes[MAGIC_AT] = MAGIC;
    LittleEndian::write_u32(&mut bytes[BODY_CHECK_AT..EPOCH_AT], body_check);
    let mut words = [0; HEADER_WORDS];
    LittleEndian::read_u32_into(&bytes[..HEADER_BYTES], &mut words);
    let header_check = seed.header_check(&words, position);
    LittleEndian::write_u32(&mut bytes[HEADER_CHECK_AT..RELATIVE_OFFSET_AT], header_check);
}

/// The record that a view shows, to encode it again.
pub(crate) fn record_of<'a>(view: &RecordView<'a>) -> Record<'a> {
    let mut record = view.value.map_or_else(Record::null, Record::new);
    if let Some(key) = view.key {
        record = record.key(key);
    }
    if let Some(client_time) = view.client_time_ms {
        record = record.timestamp_ms(client_time);
    }
    view.headers.iter().fold(record, |record, (name, value)| match value {
        Some(value) => record.header(name, value),
        None => record.null_header(name),
    })
}

/// Whatever `bytes` are, nothing panics; and if a frame is in front of them, the encoder makes the same one of its
/// records.
fn canonical(bytes: &[u8], seed: FrameSeed, position: u64) {
    let Ok(header) = FrameHeader::decode(bytes, seed, position) else { return };
    let views: Vec<_> = records(&header, bytes).collect();
    for view in &views {
        for (name, value) in view.headers.iter() {
            assert!(name.len() + value.map_or(0, <[u8]>::len) < view.headers.0.len());
        }
    }
    if header.verify_body(bytes, seed, position).is_err() {
        return;
    }
    assert_eq!(views.len(), usize::from(header.record_count));
    let again: Vec<_> = views.iter().map(record_of).collect();
    let place = FramePlace {
        seed,
        position,
        relative_offset: header.relative_offset,
        relative_time_ms: header.relative_time_ms,
        epoch: header.epoch,
        durable_distance: header.durable_distance,
    };
    let encoded = match header.is_filler() {
        true => filler_of(&header, place),
        false => encode(&again, place),
    };
    // Compatible attributes aren't the records'.
    let mut expected = bytes[..header.frame_bytes()].to_vec();
    let attributes = header.attributes & attributes::INCOMPATIBLE;
    LittleEndian::write_u16(&mut expected[ATTRIBUTES_AT..BODY_CHECK_AT], attributes);
    seal(&mut expected, seed, position);
    assert_eq!(encoded, expected);
}

/// A filler of the same length, of whatever length it is.
fn filler_of(header: &FrameHeader, place: FramePlace) -> Vec<u8> {
    let mut bytes = filler::header(place, header.length.into()).to_vec();
    bytes.resize(header.frame_bytes(), 0);
    // A longer one than is ever written is read all the same.
    LittleEndian::write_u24(&mut bytes[LENGTH_AT..HEADER_CHECK_AT], header.length / ALIGNMENT as u32);
    seal(&mut bytes, place.seed, place.position);
    bytes
}

fn encode(records: &[Record<'_>], place: FramePlace) -> Vec<u8> {
    let frame = FrameEncoder::new(records).unwrap().at(place);
    let mut bytes = vec![0xaa; frame.encoded_len()];
    frame.encode(&mut bytes[..]);
    bytes
}

/// Records out of any bytes come back as they went in.
fn round_trip(reader: &mut Reader<'_>, seed: FrameSeed, position: u64) {
    let mut all = Vec::new();
    while let Some(record) = any_record(reader) {
        all.push(record);
    }
    if all.is_empty() {
        return;
    }
    let (relative_offset, relative_time_ms, epoch, durable_distance) = (all.len() as u32, 1, 2, 3);
    let place = FramePlace { seed, position, relative_offset, relative_time_ms, epoch, durable_distance };
    let bytes = encode(&all, place);
    let header = FrameHeader::decode(&bytes, seed, position).unwrap();
    header.verify_body(&bytes, seed, position).unwrap();
    let again: Vec<_> = records(&header, &bytes).map(|view| record_of(&view)).collect();
    assert_eq!(again, all);
}

/// One record of small pieces of the input; `None` at its end.
pub(crate) fn any_record<'a>(reader: &mut Reader<'a>) -> Option<Record<'a>> {
    let shape = reader.u8()?;
    let mut record = match any_payload(reader)? {
        Some(value) => Record::new(value),
        None => Record::null(),
    };
    if let Some(key) = any_payload(reader)? {
        record = record.key(key);
    }
    if shape & 1 != 0 {
        record = record.timestamp_ms(reader.i64()?);
    }
    for _ in 0..(shape >> 1) % 4 {
        let name = String::from_utf8_lossy(any_payload(reader)?.unwrap_or_default());
        record = match any_payload(reader)? {
            Some(value) => record.header(name, value),
            None => record.null_header(name),
        };
    }
    Some(record)
}

fn any_payload<'a>(reader: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    match reader.u8()? {
        u8::MAX => Some(None),
        length => reader.bytes(length.into()).map(Some),
    }
}
