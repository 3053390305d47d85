//! Which appends are stored through the map, and which are written: files are cached in pages of up to megabytes, and a
//! store makes a whole one dirty.

use parking_lot::Mutex;

use super::*;
use crate::storage::sim::{Fault, Performed, Repeat, faults::Operation};

/// The positions in segments at which something is stored through a map from now on.
fn stores(machine: &Machine) -> Arc<Mutex<Vec<u64>>> {
    let stores = Arc::<Mutex<Vec<u64>>>::default();
    let seen = stores.clone();
    machine.storage.observe(Some(Arc::new(move |path: &Path, position, _: &[u8]| {
        if path.extension().is_some_and(|it| it == "log") {
            seen.lock().push(position);
        }
    })));
    stores
}

#[test]
fn few_unsynced_bytes_are_written_and_many_are_stored() {
    let machine = Machine { mapped_after: 1000, ..Machine::new() };
    let stores = stores(&machine);
    let (partition, _) = machine.open();
    let value = [b'x'; 100];
    for round in 0..3 {
        for number in 0..20 {
            let before = partition.writer().unwrap().end().file_position();
            partition.append(&Record::new(&value[..]), None).unwrap();
            let after = partition.writer().unwrap().end().file_position();
            let durable = partition.control.durable().file_position();
            let stored = std::mem::take(&mut *stores.lock());
            assert_eq!(!stored.is_empty(), after - durable > 1000, "round {round}, record {number}: {stored:?}");
            assert!(stored.iter().all(|position| (before..after).contains(position)), "{stored:?}");
        }
        partition.flush().unwrap();
        for _ in 0..20 {
            partition.append(&Record::new(&value[..]), Some(Durability::Synced)).unwrap();
        }
        assert!(stores.lock().is_empty(), "what is synced one by one");
        // What is too large for the difference to matter.
        partition.append(&Record::new(vec![b'y'; 2000]), Some(Durability::Synced)).unwrap();
        assert!(!std::mem::take(&mut *stores.lock()).is_empty());
    }
    assert_eq!(read_all(&partition, 0).unwrap().len(), 3 * 41);
}

/// The simulated machine ends a process whose store takes space that isn't there.
#[test]
fn what_is_stored_lies_in_pages_that_are_reserved_whole() {
    for page in [4096, 32 << 10, 128 << 10] {
        for blocks in 0..80 {
            let machine = Machine { storage: SimStorage::tracked(), mapped_after: 500, ..Machine::new() };
            machine.change(|settings| settings.segment_bytes = 256 << 10);
            machine.storage.set_page_limit(page);
            let stores = stores(&machine);
            let (partition, _) = machine.open();
            let mut expected = append_numbers(&partition, 0..50);
            stores.lock().clear();
            machine.storage.limit_space(Some(machine.storage.used_space() + blocks * 4096));
            let value = "x".repeat(700);
            let error = loop {
                match partition.append(&Record::new(&*value), None) {
                    Ok(offset) => expected.push((offset, value.clone())),
                    Err(error) => break error,
                }
                assert!(expected.len() < 10_000, "the disk doesn't get full");
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            // With little space nothing is stored, and all that fits is there all the same.
            let (stored, held) = (!stores.lock().is_empty(), expected.len() - 50);
            assert!(stored || blocks * 4096 < 2 * page, "{page}, {blocks}");
            assert!(held as u64 >= (blocks * 4096).saturating_sub(48 << 10) / 750, "{page}, {blocks}: {held}");
            machine.storage.limit_space(None);
            expected.push((partition.append(&Record::new(&*value), None).unwrap(), value.clone()));
            assert_eq!(read_all(&partition, 0).unwrap(), expected);
            drop(partition);
            assert_eq!(read_all(&machine.open().0, 0).unwrap(), expected);
        }
    }
}

#[test]
fn a_write_that_fails_leaves_nothing_behind_the_end() {
    let machine = Machine { mapped_after: 1 << 20, ..Machine::new() };
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..5);
    let segment = machine.segments().pop().unwrap();
    let before = (machine.read_file(&segment), machine.storage.used_space());
    machine.storage.fail_nth(0, Fault::Short(std::io::ErrorKind::Other), Repeat::Once);
    let error = partition.append(&Record::new("lost"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!((machine.read_file(&segment), machine.storage.used_space()) == before);
    expected.push((partition.append(&Record::new("kept"), None).unwrap(), "kept".into()));
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

/// A block that is written for the first time costs the sync behind it more than one that is written again.
#[test]
fn zeros_are_written_ahead_of_what_is_synced_one_by_one_and_not_of_a_stream() {
    let writes = |machine: &Machine| {
        let trace = machine.storage.take_trace();
        let is_write =
            |it: &&Performed| it.operation == Operation::Write && it.path.extension().is_some_and(|it| it == "log");
        trace.iter().filter(is_write).count()
    };
    let machine = Machine { mapped_after: 16 << 10, ..Machine::new() };
    machine.change(|settings| settings.segment_bytes = 4 << 20);
    let (partition, _) = machine.open();
    let value = [b'x'; 1000];
    writes(&machine);
    // Each append is one write; all others are of zeros.
    const APPENDS: usize = 500;
    for _ in 0..APPENDS {
        partition.append(&Record::new(&value[..]), Some(Durability::Synced)).unwrap();
    }
    let zeros = writes(&machine) - APPENDS;
    assert!((APPENDS * 1000 / (16 << 10)..100).contains(&zeros), "{zeros}");
    // Up to where nothing was written yet they are stored, and then no zeros come before them.
    for _ in 0..APPENDS {
        partition.append(&Record::new(&value[..]), None).unwrap();
    }
    assert!(writes(&machine) <= 16);
    assert_eq!(read_all(&partition, 0).unwrap().len(), 2 * APPENDS);

    // Where each write may take new space there are no others.
    let machine = Machine { positional_appends: true, mapped_after: 16 << 10, ..Machine::new() };
    let (partition, _) = machine.open();
    writes(&machine);
    for _ in 0..10 {
        partition.append(&Record::new(&value[..]), Some(Durability::Synced)).unwrap();
    }
    assert_eq!(writes(&machine), 10);
}
