//! What must hold for any input, for the fuzz targets and the tests to feed.
//!
//! A broken promise panics: that is how a fuzzer is told.
#![allow(clippy::unwrap_used, unreachable_pub)] // public under `cfg(fuzzing)` alone

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    error::ErrorKind,
    record::{HeaderBlock, Record, RecordView},
};

/// A bit of everything that types are made of. No floats: they needn't equal themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    numbers: (u8, i16, u32, i64, u128),
    letter: char,
    text: String,
    bytes: Vec<u8>,
    maybe: Option<Box<Everything>>,
    list: Vec<Variant>,
    map: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Variant {
    Unit,
    One(u64),
    Many { texts: Vec<String>, lengths: [u16; 3] },
}

/// Takes the first two bytes of `data` for the length of a headers block, the block, and the rest for a value.
pub fn typed_decode(data: &[u8]) {
    let (length, data) = data.split_at(data.len().min(size_of::<u16>()));
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (headers, value) = data.split_at(length.min(data.len()));
    let topic = Arc::from("orders");
    let view = RecordView { key: None, value: Some(value), client_time_ms: None, headers: HeaderBlock(headers) };
    let record = RecordRef::new(&topic, 3, 17, 1_700_000_000_000, view);

    canonical::<Everything>(&record, &Json);
    canonical::<Variant>(&record, &Json);
    canonical::<serde_json::Value>(&record, &Json);
    #[cfg(feature = "bincode")]
    {
        canonical::<Everything>(&record, &Bincode);
        canonical::<Variant>(&record, &Bincode);
    }
    dead_letters(&record);
}

/// A record is an event, the same one when it was encoded and decoded again; or an error that tells its place.
fn canonical<T: PartialEq + Debug>(record: &RecordRef<'_>, encoding: &impl Encoding<T>) {
    match record.decode(encoding) {
        Ok(event) => {
            let event = event.unwrap();
            let mut bytes = Vec::new();
            encoding.encode(&event, &mut bytes).unwrap();
            assert_eq!(encoding.decode(&bytes).unwrap(), event);
        }
        Err(error) => {
            assert_eq!(
                (error.kind(), error.offset(), error.resume_offset()),
                (ErrorKind::Undecodable, Some(17), Some(18))
            );
        }
    }
}

/// The dead letter of a dead letter differs in nothing but the reason.
fn dead_letters(record: &RecordRef<'_>) {
    let first = record.dead_letter("first");
    let block = block_of(&first);
    let view = RecordView {
        key: first.key_bytes(),
        value: first.value_bytes(),
        client_time_ms: None,
        headers: HeaderBlock(&block),
    };
    let topic = Arc::from("orders.dead-letters");
    let letter = RecordRef::new(&topic, 0, 1, 1_800_000_000_000, view);
    assert!(letter.headers().count() <= record.headers().count() + 5);
    assert_eq!(letter.header(dead_letter::REASON), Some(Some(&b"first"[..])));
    assert_eq!(block_of(&letter.dead_letter("first")), block);
}

/// A headers block as the encoder writes it.
fn block_of(record: &Record<'_>) -> Vec<u8> {
    let mut block = vec![0; record.header_block_bytes() as usize];
    record.put_header_block(&mut &mut block[..], 0);
    block
}
