mod hostile;

use super::*;
use crate::{
    clock::Clock,
    config::Durability,
    error::ErrorKind,
    partition::{Flusher, OpenFiles},
    random::Sequence,
    record::Record,
    storage::{
        OpenMode, Storage,
        sim::{Crash, Repeat, SimStorage, Step, faults::Operation},
    },
};

/// A disk, and the log's background thread.
struct Bench {
    storage: SimStorage,
    flusher: Arc<Flusher>,
}

impl Bench {
    fn new() -> Self {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/log")).unwrap();
        Self::on(storage)
    }

    fn on(storage: SimStorage) -> Self {
        Self { storage, flusher: Flusher::new(Default::default()) }
    }

    fn open(&self) -> Result<(Topics, RecoveryReport)> {
        self.open_with(&keep)
    }

    fn open_with(&self, forget: Forget<'_>) -> Result<(Topics, RecoveryReport)> {
        let env = Environment {
            storage: Arc::new(self.storage.clone()),
            clock: Clock::System,
            flusher: self.flusher.clone(),
            prefaulter: Arc::default(),
            recent_segments: Arc::default(),
            open_files: OpenFiles::bounded(1000, self.storage.clone()),
            figures: Default::default(),
            positional_appends: false,
            mapped_after: 0,
        };
        let mut report = RecoveryReport::default();
        let locks = Path::new("/locks");
        self.storage.create_own_dir(locks).unwrap();
        let settled = Settled::look(Arc::new(self.storage.clone()), locks)?;
        let topics = Topics::open(env, Path::new("/log"), settled, &LogOptions::default(), &mut report)?;
        topics.finish_opening(forget, &mut report)?;
        Ok((topics, report))
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let file = self.storage.open(Path::new(path), OpenMode::Truncate).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    fn exists(&self, path: &str) -> bool {
        self.storage.entry_kind(Path::new(path)).unwrap().is_some()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.flusher.stop();
    }
}

/// Nobody keeps anything of a deleted topic.
fn keep(_topic_id: u128) -> Result<()> {
    Ok(())
}

fn config(partitions: u32) -> TopicConfig {
    TopicConfig::with_partitions(partitions)
}

#[test]
fn a_topic_is_there_again_with_its_id_and_options() {
    let bench = Bench::new();
    let (topics, _) = bench.open().unwrap();
    let options = config(3).segment_bytes(1 << 20).max_record_bytes(500).segment_age(std::time::Duration::from_secs(9));
    let created = topics.create("orders", options.clone(), &keep).unwrap();
    topics.close().unwrap();

    let (topics, report) = bench.open().unwrap();
    let found = topics.get("orders").unwrap();
    assert_eq!((found.id, found.config.lock().clone()), (created.id, options));
    assert_eq!(found.partitions.len(), 3);
    let spec = found.partitions.get(2).unwrap().spec();
    assert_eq!(
        (spec.number, spec.settings.segment_bytes(), spec.settings.segment_ms(), spec.settings.max_record_bytes()),
        (2, 1 << 20, Some(9000), 500)
    );
    assert!(report.is_clean(), "{report:?}");
    assert_ne!(topics.create("other", config(1), &keep).unwrap().id, created.id);
}

#[test]
fn damage_of_a_topics_file_is_told_with_its_name() {
    let id = "0123456789abcdef0123456789abcdef";
    for text in [
        String::new(),
        "garbage".into(),
        format!(r#"{{"topic_id": "{id}", "config": {{"partitions": 1}}}}"#),
        r#"{"format_version": 1, "config": {"partitions": 1}}"#.into(),
        format!(r#"{{"format_version": 1, "topic_id": "{id}"}}"#),
        format!(r#"{{"format_version": 1, "topic_id": "{id}", "config": {{}}}}"#),
        format!(r#"{{"format_version": 1, "topic_id": "{id}", "config": {{"partitions": 0}}}}"#),
        format!(r#"{{"format_version": 1, "topic_id": "{}", "config": {{"partitions": 1}}}}"#, &id[1..]),
        format!(r#"{{"format_version": 1, "topic_id": "+{}", "config": {{"partitions": 1}}}}"#, &id[1..]),
    ] {
        let bench = Bench::new();
        bench.storage.create_dir_all(Path::new("/log/topics")).unwrap();
        bench.write("/log/topics/orders.json", text.as_bytes());
        let error = bench.open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{text}");
        assert_eq!(error.path(), Some(Path::new("/log/topics/orders.json")));
    }
}

#[test]
fn a_newer_version_of_a_topics_file_is_refused() {
    let bench = Bench::new();
    bench.storage.create_dir_all(Path::new("/log/topics")).unwrap();
    bench.write("/log/topics/orders.json", br#"{"format_version": 2, "shape": "unknown"}"#);
    let error = bench.open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
    assert_eq!(error.path(), Some(Path::new("/log/topics/orders.json")));
}

#[test]
fn a_missing_or_emptied_folder_is_filled_anew_and_told() {
    for emptied in [false, true] {
        let bench = Bench::new();
        let (topics, _) = bench.open().unwrap();
        topics.create("orders", config(2), &keep).unwrap();
        topics.close().unwrap();
        drop(topics);
        let folder = Path::new("/log/orders-1");
        bench.storage.remove_dir_all(folder).unwrap();
        if emptied {
            bench.storage.create_dir_all(folder).unwrap();
        }

        let (topics, report) = bench.open().unwrap();
        assert_eq!(report.findings(), [Finding::MissingPartition { path: folder.into() }]);
        let partition = topics.get("orders").unwrap().partition(1).unwrap().clone();
        partition.append(&Record::new("tea"), None).unwrap();
        topics.close().unwrap();
        drop((topics, partition));
        assert!(bench.open().unwrap().1.findings().is_empty());
    }
}

#[test]
fn leftovers_of_a_creation_are_removed_by_the_next_one() {
    let bench = Bench::new();
    let (topics, _) = bench.open().unwrap();
    let first = topics.create("orders", config(3), &keep).unwrap();
    topics.close().unwrap();
    drop(topics);
    // As if it had been killed before the file was renamed into place.
    bench.storage.remove_file(Path::new("/log/topics/orders.json")).unwrap();
    bench.write("/log/topics/topic-0123.tmp", b"{");

    let (topics, report) = bench.open().unwrap();
    assert!(!bench.exists("/log/topics/topic-0123.tmp"));
    let orphans = (0..3).map(|n| Finding::OrphanedFolder { path: format!("/log/orders-{n}").into() });
    assert_eq!(report.findings(), orphans.collect::<Vec<_>>());
    let second = topics.create("orders", config(2), &keep).unwrap();
    assert_ne!(first.id, second.id);
    assert!(!bench.exists("/log/orders-2"));
    second.partitions.get(1).unwrap().append(&Record::new("tea"), None).unwrap();
}

#[test]
fn folders_with_records_are_refused_and_stay() {
    let bench = Bench::new();
    let (topics, _) = bench.open().unwrap();
    let topic = topics.create("orders", config(2), &keep).unwrap();
    topic.partitions.get(1).unwrap().append(&Record::new("tea"), None).unwrap();
    topics.close().unwrap();
    drop((topic, topics));
    bench.storage.remove_file(Path::new("/log/topics/orders.json")).unwrap();

    let (topics, report) = bench.open().unwrap();
    assert_eq!(report.findings().len(), 2);
    for config in [config(2), config(1)] {
        let error = topics.create("orders", config, &keep).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.path(), Some(Path::new("/log/orders-1")));
    }
    assert!(bench.exists("/log/orders-0") && bench.exists("/log/orders-1"));
    assert!(!bench.exists("/log/topics/orders.json"));
}

#[test]
fn a_folder_that_holds_something_else_is_refused_and_stays() {
    let bench = Bench::new();
    bench.storage.create_dir_all(Path::new("/log/photos-2024")).unwrap();
    bench.write("/log/photos-2024/beach.jpg", b"");
    let (topics, _) = bench.open().unwrap();
    assert_eq!(topics.create("photos", config(1), &keep).unwrap_err().kind(), ErrorKind::Corruption);
    assert!(bench.exists("/log/photos-2024/beach.jpg"));
}

#[test]
fn a_folder_with_somebody_elses_log_file_is_refused_and_stays() {
    for name in ["today.log", "app.index", "0.log", "notes.tmp"] {
        let bench = Bench::new();
        bench.storage.create_dir_all(Path::new("/log/app-0")).unwrap();
        let path = format!("/log/app-0/{name}");
        bench.write(&path, b"what happened today");
        let (topics, _) = bench.open().unwrap();
        assert_eq!(topics.create("app", config(1), &keep).unwrap_err().kind(), ErrorKind::Corruption, "{name}");
        assert!(bench.exists(&path), "{name}");
    }
}

/// A file system that takes names that differ in case for the same shows the file of another topic.
#[test]
fn a_file_that_is_there_already_is_never_written_over_nor_removed() {
    let bench = Bench::new();
    let (topics, _) = bench.open().unwrap();
    bench.write("/log/topics/orders.json", b"of the topic ORDERS");
    for result in [topics.create("orders", config(1), &keep), topics.ensure("orders", config(1), &keep)] {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicExists, Some("orders")));
    }
    let file = bench.storage.read(Path::new("/log/topics/orders.json"), 100).unwrap();
    assert_eq!(file, b"of the topic ORDERS");
    assert!(!bench.exists("/log/orders-0"), "nothing was begun");
}

#[test]
fn a_creation_that_fails_anywhere_leaves_nothing_and_can_be_repeated() {
    for n in 1.. {
        let bench = Bench::new();
        let (topics, _) = bench.open().unwrap();
        bench.storage.fail_nth(n, std::io::ErrorKind::Other, Repeat::Once);
        let outcome = topics.create("orders", config(2), &keep);
        bench.storage.heal();
        let Err(error) = outcome else {
            assert!(n > 5, "nothing failed");
            return;
        };
        assert_eq!(error.kind(), ErrorKind::Io, "{n}: {error}");
        assert_eq!(topics.names(), [""; 0]);
        assert_eq!(topics.get("orders").unwrap_err().kind(), ErrorKind::UnknownTopic);
        let topic = topics.create("orders", config(2), &keep).unwrap_or_else(|error| panic!("{n}: {error}"));
        topic.partitions.get(1).unwrap().append(&Record::new("tea"), None).unwrap();
        topics.close().unwrap();
        drop((topic, topics));
        let (topics, report) = bench.open().unwrap();
        assert!(report.findings().is_empty(), "{n}: {report:?}");
        assert_eq!(topics.get("orders").unwrap().partitions.get(1).unwrap().end_offset(), 1);
    }
}

/// With thousands of partitions each sync would count; so would whatever looks at all of them for each of them.
#[test]
fn to_open_and_close_what_nobody_appended_to_costs_little_for_each_partition_and_no_sync() {
    let operations = |partitions: u32| {
        let bench = Bench::new();
        let (topics, _) = bench.open().unwrap();
        topics.create("orders", config(partitions), &keep).unwrap();
        topics.close().unwrap();
        topics.settle().unwrap();
        drop(topics);
        bench.storage.take_trace();
        let (topics, report) = bench.open().unwrap();
        topics.close().unwrap();
        topics.settle().unwrap();
        assert!(report.is_clean(), "{report:?}");
        let trace = bench.storage.take_trace();
        let is_sync = |operation| matches!(operation, Operation::SyncData | Operation::SyncAll | Operation::SyncDir);
        let syncs = trace.iter().filter(|performed| is_sync(performed.operation));
        let synced: Vec<_> = syncs.map(|performed| performed.path.to_str().unwrap()).collect();
        assert!(synced.is_empty(), "{trace:?}");
        trace.len()
    };
    let (few, many) = (operations(10), operations(40));
    assert!(many - few <= 30 * 15, "{few} {many}");
    assert!((many - few) % 30 == 0, "as many for each: {few} {many}");
}

/// A process that is killed between renaming a topic's file into place and syncing the folder leaves a topic that the
/// next one finds, in the page cache. What is appended there, and synced, mustn't go with the file's name.
#[test]
fn a_topic_that_a_killed_process_was_creating_is_durable_once_it_was_opened() {
    let storage = SimStorage::tracked();
    storage.create_dir_all(Path::new("/log")).unwrap();
    let bench = Bench::on(storage);
    let (topics, _) = bench.open().unwrap();
    let left = Arc::new(Mutex::new(None));
    let noted = left.clone();
    bench.storage.on_step(Some(Arc::new(move |storage: &SimStorage, step: &Step<'_>| {
        if step.operation == Operation::Rename && step.path == Path::new("/log/topics/orders.json") {
            *noted.lock() = Some(storage.crash(Crash::Kill, &mut Sequence::new(1)));
        }
    })));
    topics.create("orders", config(1), &keep).unwrap();
    bench.storage.on_step(None);
    let killed = left.lock().take().unwrap();
    let bench = Bench::on(killed);
    let (topics, _) = bench.open().unwrap();
    let partition = topics.get("orders").unwrap().partition(0).unwrap().clone();
    partition.append(&Record::new("tea"), Some(Durability::Synced)).unwrap();
    for seed in 0..32 {
        let bench = Bench::on(bench.storage.crash(Crash::Power, &mut Sequence::new(seed)));
        let (topics, _) = bench.open().unwrap();
        let partition = topics.get("orders").unwrap().partition(0).unwrap().clone();
        assert!(partition.end_offset() > 0, "choices of {seed}");
    }
}

#[test]
fn the_logs_own_topics_are_not_for_users() {
    let bench = Bench::new();
    let (topics, _) = bench.open().unwrap();
    let mut report = RecoveryReport::default();
    let first = topics.open_internal("__offsets", config(1), &mut report).unwrap();
    assert_eq!(topics.names(), [""; 0]);
    assert_eq!(topics.get("__offsets").unwrap_err().kind(), ErrorKind::InvalidName);
    assert_eq!(topics.ensure("__offsets", config(1), &keep).unwrap_err().kind(), ErrorKind::InvalidName);
    topics.close().unwrap();

    let (topics, mut report) = bench.open().unwrap();
    assert!(report.is_clean(), "{report:?}");
    let second = topics.open_internal("__offsets", config(1), &mut report).unwrap();
    assert_eq!(first.id, second.id);
}
