//! Regions over memory that no file is behind, also under miri: their unsafe code is what every append and read goes
//! through.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::*;
use crate::{
    frame::{FrameEncoder, FrameHeader, FramePlace, FrameSeed, NO_DURABLE_DISTANCE, records},
    record::Record,
};

const SEED: u64 = 7;

fn place(position: usize) -> FramePlace {
    let (seed, position, durable_distance) = (FrameSeed::new(SEED), position as u64, NO_DURABLE_DISTANCE);
    FramePlace { seed, position, relative_offset: 0, relative_time_ms: 0, epoch: 1, durable_distance }
}

/// Encodes a frame of one record; answers where it ends.
fn append(region: &Region, position: usize, value: &str) -> Option<usize> {
    let records = [Record::new(value).key("key").header("name", "value")];
    let frame = FrameEncoder::new(&records).unwrap().at(place(position));
    // SAFETY: the test stores with one thread, behind what it has published.
    unsafe { region.encode(position, &frame) }.map(|()| position + frame.encoded_len())
}

/// The value of the frame, and where it ends.
fn read(region: &Region, position: usize, end: usize) -> (Vec<u8>, usize) {
    // SAFETY: the end was published, and nobody stores below it.
    let bytes = unsafe { region.bytes(position..end) }.unwrap();
    let header = FrameHeader::decode(bytes, FrameSeed::new(SEED), position as u64).unwrap();
    header.verify_body(bytes, FrameSeed::new(SEED), position as u64).unwrap();
    let value = records(&header, bytes).next().unwrap().value.unwrap().to_vec();
    (value, position + header.frame_bytes())
}

#[test]
fn nothing_is_stored_or_shown_beyond_the_end() {
    let region = anonymous_region(4096).unwrap();
    assert_eq!((region.len(), region.words().len()), (4096, 512));
    let end = append(&region, 4096 - 96, "a").unwrap();
    assert_eq!(read(&region, 4096 - 96, end).0, b"a");
    for position in [4096 - 8, 4096, 4097, usize::MAX] {
        assert_eq!(append(&region, position & !7, "a"), None, "{position}");
    }
    for range in [4096..4097, 5000..5001, Range { start: 9, end: 8 }, 0..usize::MAX] {
        // SAFETY: nobody stores meanwhile.
        assert!(unsafe { region.bytes(range.clone()) }.is_none(), "{range:?}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { region.bytes(4096..4096) }, Some(&[][..]));
}

#[test]
fn what_is_published_is_read_while_more_is_stored() {
    let (region, published) = (anonymous_region(16 << 10).unwrap(), AtomicUsize::new(64));
    let frames = if cfg!(miri) { 20 } else { 100 };
    let read_all = || {
        let (mut position, mut read_so_far) = (64, 0);
        while read_so_far < frames {
            let end = published.load(Ordering::SeqCst);
            while position < end {
                let (value, behind) = read(&region, position, end);
                assert_eq!(value, format!("record {read_so_far}").into_bytes());
                (position, read_so_far) = (behind, read_so_far + 1);
            }
            // Words that don't overlap the frames are free for all.
            region.words()[0].fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(read_all);
        scope.spawn(read_all);
        let mut position = 64;
        for number in 0..frames {
            position = append(&region, position, &format!("record {number}")).unwrap();
            published.store(position, Ordering::SeqCst);
        }
    });
    assert!(region.words()[0].load(Ordering::SeqCst) >= 2);
}

#[test]
fn a_region_outlives_the_handle_and_shows_each_store_to_its_observer() {
    struct Notes(Mutex<Vec<(u64, Vec<u8>)>>);
    impl Observer for Notes {
        fn store(&self, position: u64, bytes: &[u8]) {
            self.0.lock().unwrap().push((position, bytes.to_vec()));
        }

        fn stored(&self, _position: u64, _len: usize) {}

        fn words(&self) {}
    }
    let notes = Arc::new(Notes(Mutex::default()));
    let memory = anonymous_region(4096).unwrap();
    // SAFETY: the memory lives as long as the map that is given along, and is used through this region alone.
    let region = unsafe { Region::new(memory.start, memory.len, memory.map.clone(), Some(notes.clone())) };
    drop(memory);
    let end = append(&region, 8, "watched").unwrap();
    assert_eq!(read(&region, 8, end).0, b"watched");
    let mut image = vec![0; end];
    for (position, bytes) in notes.0.lock().unwrap().iter() {
        image[*position as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    // SAFETY: nobody stores any more.
    assert_eq!(unsafe { region.bytes(0..end) }, Some(&*image));
}
