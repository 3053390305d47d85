use std::{sync::atomic::Ordering, thread, time::Duration};

use super::*;
use crate::{storage::sim::faults::Operation, waiter::Waiter};

#[test]
fn a_deleted_partition_says_so_and_what_is_mapped_stays() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..3000);
    let at = |offset| Cursor::new(&partition, offset).unwrap();
    let (mut first, mut last, mut new) = (at(0), at(2999), at(0));
    let run = first.next_run(4096).unwrap().unwrap();
    assert!(last.next_run(4096).unwrap().is_some() && last.at_end());
    let waiter = Arc::new(Waiter::default());
    partition.watch(&waiter);
    let ticket = waiter.ticket();
    machine.storage.take_trace();
    partition.delete();
    partition.delete();
    assert_ne!(waiter.ticket(), ticket, "who sleeps is woken");
    assert_eq!(machine.storage.take_trace(), [], "no file is touched");
    machine.storage.remove_dir_all(&machine.dir).unwrap();

    let record = Record::new("no");
    let mut ranges = Vec::new();
    for (what, outcome) in [
        ("append", partition.append(&record, None).map(drop)),
        ("synced append", partition.append(&record, Some(Durability::Synced)).map(drop)),
        ("append_batch", partition.append_batch(&[record], None, &mut ranges)),
        ("flush", partition.flush()),
        ("roll", partition.roll()),
        ("delete_segments_before", partition.delete_segments_before(1000)),
        ("stats", partition.stats().map(drop)),
        ("raise_ceiling", partition.raise_ceiling(1 << 40)),
        ("cursor", Cursor::new(&partition, 0).map(drop)),
        ("seek", new.seek(1)),
        ("a cursor without a place", new.next_run(4096).map(drop)),
        ("a cursor at the end", last.next_run(4096).map(drop)),
    ] {
        let error = outcome.expect_err(what);
        assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("orders")), "{what}");
    }
    assert!(!last.at_end(), "there is an error to tell");
    partition.close().unwrap();
    partition.poison("of no consequence");
    assert_eq!(machine.storage.entry_kind(&machine.dir).unwrap(), None);

    assert_eq!(Batch::new(vec![run.clone()]).iter().count() as u64, run.records());
    let mut read = run.records();
    let error = loop {
        match first.next_run(4096) {
            Ok(run) => read += run.unwrap().records(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    assert!(read > 500 && read < expected.len() as u64, "the rest of its segment: {read}");
}

#[test]
fn deleting_waits_for_a_sync_and_ends_who_waits_for_the_next() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    let (began, may_end) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    machine.storage.fail_if({
        let (began, may_end) = (began.clone(), may_end.clone());
        move |operation, _| {
            if operation == Operation::SyncData {
                began.fetch_add(1, Ordering::SeqCst);
                wait_until("the test goes on", || may_end.load(Ordering::SeqCst) != 0);
            }
            None
        }
    });
    thread::scope(|scope| {
        let first = scope.spawn(|| partition.flush());
        wait_until("a sync begins", || began.load(Ordering::SeqCst) == 1);
        let second = scope.spawn(|| partition.append(&Record::new("second"), Some(Durability::Synced)));
        wait_until("it is appended", || partition.end_offset() == 11);
        let deletion = scope.spawn(|| partition.delete());
        wait_until("the deletion begins", || partition.check_exists().is_err());
        // Nothing but the sync holds the deletion up; and the second one waits for no sync of its own.
        assert_eq!(second.join().unwrap().unwrap_err().kind(), ErrorKind::UnknownTopic);
        assert!(!deletion.is_finished());
        may_end.store(1, Ordering::SeqCst);
        deletion.join().unwrap();
        first.join().unwrap().unwrap();
    });
    assert_eq!(began.load(Ordering::SeqCst), 1);
}

#[test]
fn deleting_waits_for_a_sync_also_of_a_poisoned_partition() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    partition.roll().unwrap();
    let (began, may_end) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    machine.storage.fail_if({
        let (began, may_end) = (began.clone(), may_end.clone());
        move |operation, path| {
            if operation == Operation::SyncData && path.extension().is_some_and(|it| it == "log") {
                began.fetch_add(1, Ordering::SeqCst);
                wait_until("the test goes on", || may_end.load(Ordering::SeqCst) != 0);
            }
            None
        }
    });
    thread::scope(|scope| {
        let sync = scope.spawn(|| partition.flush());
        wait_until("a sync begins", || began.load(Ordering::SeqCst) == 1);
        partition.mark_poisoned("another sync has failed");
        let deletion = scope.spawn(|| {
            partition.delete();
            began.load(Ordering::SeqCst)
        });
        wait_until("the deletion begins", || partition.check_exists().is_err());
        // Long enough for one that doesn't wait.
        thread::sleep(Duration::from_millis(50));
        let waits = !deletion.is_finished();
        may_end.store(1, Ordering::SeqCst);
        deletion.join().unwrap();
        machine.storage.take_trace();
        let _ = sync.join().unwrap();
        assert!(waits && machine.storage.take_trace().is_empty(), "somebody writes in a folder that is gone");
    });
}

#[test]
fn deleting_amid_appends_ends_them_all() {
    for _ in 0..20 {
        let machine = Machine::new();
        machine.change(|settings| settings.durability = Durability::Interval(Duration::from_millis(1)));
        let (partition, _) = machine.open();
        thread::scope(|scope| {
            let appends: Vec<_> = (0..3)
                .map(|number| {
                    let level = [Durability::Synced, Durability::Written, Durability::default()][number];
                    let partition = &partition;
                    let append = move || partition.append(&Record::new("x".repeat(999)), Some(level));
                    scope.spawn(move || std::iter::repeat_with(append).find_map(Result::err).unwrap())
                })
                .collect();
            wait_until("some are appended", || partition.end_offset() > 300);
            partition.delete();
            machine.storage.take_trace();
            machine.storage.remove_dir_all(&machine.dir).unwrap();
            for append in appends {
                assert_eq!(append.join().unwrap().kind(), ErrorKind::UnknownTopic);
            }
        });
        // A hint to the device may come late.
        let trace = machine.storage.take_trace();
        let changes: Vec<_> = trace.iter().filter(|it| it.operation != Operation::StartWriteback).collect();
        assert_eq!(changes.len(), 1, "nothing but the folder's removal: {changes:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_handle_of_a_deleted_partition_holds_no_segment() {
    use crate::storage::fs::FsStorage;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("orders-3");
    let machine = Machine::new();
    let env = Environment {
        storage: Arc::new(FsStorage),
        clock: Clock::System,
        flusher: Flusher::new(Default::default()),
        prefaulter: Arc::default(),
        recent_segments: Arc::default(),
        open_files: OpenFiles::bounded(1000, FsStorage),
        figures: Default::default(),
        positional_appends: false,
        mapped_after: 0,
    };
    let (partition, _) = PartitionLog::open(&env, &dir, machine.spec.clone()).unwrap();
    append_numbers(&partition, 0..3000);
    partition.flush().unwrap();
    assert!(super::append::held_files(&dir).1 > 5);
    partition.delete();
    FsStorage.remove_dir_all(&dir).unwrap();
    let (open, mapped) = super::append::held_files(&dir);
    assert!(open <= 1 && mapped <= 1, "the checkpoint and the control page: {open} {mapped}");
    assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::UnknownTopic);
}

#[test]
fn stats_count_segments_and_their_bytes_and_cost_nothing_the_second_time() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..5000);
    let stats = partition.stats().unwrap();
    assert_eq!(stats.segments, machine.segments().len());
    partition.flush().unwrap();
    assert_eq!(partition.stats().unwrap(), stats);
    partition.close().unwrap();
    let bytes: usize = machine.segments().iter().map(|path| machine.read_file(path).len()).sum();
    assert_eq!(stats.bytes, bytes as u64, "all are trimmed");
    drop(partition);

    let (partition, _) = machine.open();
    assert_eq!(partition.stats().unwrap(), stats);
    // By what is known: of a file that is gone nothing could be read any more.
    for path in machine.segments() {
        machine.storage.remove_file(&path).unwrap();
    }
    assert_eq!(partition.stats().unwrap(), stats);
}

#[test]
fn stats_are_exact_also_where_a_killed_process_left_files_untrimmed() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..100);
    partition.roll().unwrap();
    append_numbers(&partition, 100..110);
    let (stats, bytes) = (partition.stats().unwrap(), bytes_of(&partition, 0));
    drop(partition);
    assert_eq!(machine.open().0.stats().unwrap(), stats);
    // A header that can't be read tells nothing of the segment before it.
    for position in [0, 4096] {
        machine.write_file(&machine.segments()[1], &[0xff; 64], position);
    }
    let (partition, _) = machine.open();
    assert_eq!(bytes_of(&partition, 0), bytes);
}
