//! Files and markers that lie. Nothing is removed for them that isn't surely the deleted topic's.

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn content(id: &str, partitions: u32) -> String {
    format!(r#"{{"format_version": 1, "topic_id": "{id}", "config": {{"partitions": {partitions}}}}}"#)
}

impl Bench {
    /// A log that was closed with a topic `orders` of two partitions, with a record in each. Answers its id.
    fn with_orders() -> (Self, String) {
        let bench = Self::new();
        let (topics, _) = bench.open().unwrap();
        let orders = topics.create("orders", config(2), &keep).unwrap();
        for partition in orders.partitions.iter() {
            partition.append(&Record::new("tea"), None).unwrap();
        }
        topics.close().unwrap();
        topics.settle().unwrap();
        (bench, format!("{:032x}", orders.id))
    }

    /// Names in the log's folder, and in that of the topics.
    fn names(&self) -> Vec<String> {
        let names = |dir| self.storage.list(Path::new(dir)).unwrap().into_iter().map(|entry| entry.name);
        names("/log").chain(names("/log/topics")).collect()
    }

    /// Opens the log, with a marker whose content is this, and answers what is told of it. All that was there stays.
    #[track_caller]
    fn findings_with_marker(&self, name: &str, content: &str) -> Vec<Finding> {
        self.write(&format!("/log/topics/{name}.gone"), content.as_bytes());
        let before = self.names();
        let (topics, report) = self.open().unwrap();
        assert_eq!(before, self.names());
        topics.close().unwrap();
        report.findings().to_vec()
    }

    #[track_caller]
    fn check_orders(&self) {
        let (topics, report) = self.open().unwrap();
        assert!(report.partitions().iter().all(|partition| partition.is_clean()), "{report:?}");
        let orders = topics.get("orders").unwrap();
        assert!(orders.partitions.iter().all(|partition| partition.end_offset() == 1));
        topics.close().unwrap();
    }
}

#[test]
fn a_file_with_more_partitions_than_there_are_folders_has_them_made() {
    let (bench, id) = Bench::with_orders();
    bench.write("/log/topics/orders.json", content(&id, 4).as_bytes());
    let (topics, report) = bench.open().unwrap();
    let missing = |number| Finding::MissingPartition { path: format!("/log/orders-{number}").into() };
    assert_eq!(report.findings(), [missing(2), missing(3)]);
    let ends: Vec<_> =
        topics.get("orders").unwrap().partitions.iter().map(|partition| partition.end_offset()).collect();
    assert_eq!(ends, [1, 1, 0, 0]);
}

#[test]
fn a_file_with_fewer_partitions_leaves_the_others_alone_also_when_there_are_to_be_more() {
    let (bench, id) = Bench::with_orders();
    bench.write("/log/topics/orders.json", content(&id, 1).as_bytes());
    let (topics, report) = bench.open().unwrap();
    assert_eq!(report.findings(), [Finding::OrphanedFolder { path: "/log/orders-1".into() }]);
    let error = topics.increase_partitions("orders", 2).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(Path::new("/log/orders-1"))));
    assert_eq!(topics.get("orders").unwrap().partitions.len(), 1);
    assert!(bench.exists("/log/orders-1"));
    // What the deletion removes is the topic's, whatever its file says by then.
    topics.delete("orders", &keep).unwrap();
    assert_eq!(bench.names(), ["topics"]);
}

#[test]
fn a_copy_of_a_topics_file_is_refused_by_its_name() {
    for name in ["ORDERS", "zzz"] {
        let (bench, id) = Bench::with_orders();
        bench.write(&format!("/log/topics/{name}.json"), content(&id, 2).as_bytes());
        let before = bench.names();
        let error = bench.open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains("orders") && error.to_string().contains(name), "{error}");
        assert_eq!(bench.names(), before);
        bench.storage.remove_file(Path::new(&format!("/log/topics/{name}.json"))).unwrap();
        bench.check_orders();
    }
}

#[test]
fn topics_whose_names_differ_in_case_alone_are_two() {
    let (bench, _) = Bench::with_orders();
    let (topics, _) = bench.open().unwrap();
    topics.create("ORDERS", config(1), &keep).unwrap().partition(0).unwrap().append(&Record::new("x"), None).unwrap();
    topics.delete("ORDERS", &keep).unwrap();
    assert_eq!(topics.names(), ["orders"]);
    topics.close().unwrap();
    bench.check_orders();
}

#[test]
fn a_damaged_marker_is_told_and_left_alone() {
    for text in [
        String::new(),
        "garbage".into(),
        r#"{"format_version": 1, "config": {"partitions": 1}}"#.into(),
        content("../../etc", 1),
        content(ID, 0),
        content(ID, crate::config::MAX_PARTITIONS + 1),
    ] {
        let (bench, _) = Bench::with_orders();
        let findings = bench.findings_with_marker("gone", &text);
        let [Finding::DamagedDeletion { path, detail }] = &findings[..] else { panic!("{text}: {findings:?}") };
        assert_eq!(path, Path::new("/log/topics/gone.gone"));
        assert!(detail.contains("gone.gone"), "{detail}");

        // As long as it is there nobody knows what is the deleted topic's, so there is no other one.
        let (topics, _) = bench.open().unwrap();
        let error = topics.create("gone", config(1), &keep).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&**path)), "{text}");
        assert_eq!(topics.delete("gone", &keep).unwrap_err().kind(), ErrorKind::UnknownTopic);
        // Mended, it is what it says; and without it there is nothing in the way.
        bench.write("/log/topics/gone.gone", content(ID, 1).as_bytes());
        topics.create("gone", config(1), &keep).unwrap();
        assert!(!bench.exists("/log/topics/gone.gone"));
        topics.close().unwrap();
        bench.check_orders();
    }
}

#[test]
fn a_marker_of_a_newer_version_is_refused_before_anything_is_changed() {
    let (bench, _) = Bench::with_orders();
    bench.write("/log/topics/orders.gone", br#"{"format_version": 2}"#);
    bench.storage.take_trace();
    let error = bench.open().unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::UnsupportedFormat, Some(Path::new("/log/topics/orders.gone")))
    );
    assert!(bench.storage.take_trace().is_empty());
    bench.storage.remove_file(Path::new("/log/topics/orders.gone")).unwrap();
    bench.check_orders();
}

#[test]
fn a_marker_whose_name_is_no_topics_is_told_and_left_alone() {
    let (bench, _) = Bench::with_orders();
    let (topics, mut report) = bench.open().unwrap();
    let own = topics.open_internal("__offsets", config(1), &mut report).unwrap();
    let own = format!("{:032x}", own.id);
    topics.close().unwrap();
    for (name, id) in [("..", ID), (".", ID), ("", ID), ("a b", ID), ("__offsets", &own), ("__offsets", ID)] {
        let findings = bench.findings_with_marker(name, &content(id, 1));
        assert!(matches!(&findings[..], [Finding::DamagedDeletion { .. }]), "{name}: {findings:?}");
        bench.storage.remove_file(Path::new(&format!("/log/topics/{name}.gone"))).unwrap();
    }
    bench.check_orders();
}

#[test]
fn a_marker_with_the_id_of_a_topic_that_is_there_removes_nothing() {
    for name in ["orders", "other"] {
        let (bench, id) = Bench::with_orders();
        let findings = bench.findings_with_marker(name, &content(&id, 2));
        assert!(matches!(&findings[..], [Finding::DamagedDeletion { .. }]), "{findings:?}");
        bench.check_orders();
        // It stands in nobody's way: the topic's own deletion writes it anew.
        let (topics, _) = bench.open().unwrap();
        topics.delete("orders", &keep).unwrap();
        assert_eq!(bench.exists("/log/topics/other.gone"), name == "other");
    }
}

/// As if the power had brought a marker back beside a topic that was created since.
#[test]
fn a_marker_beside_a_later_topic_of_its_name_removes_nothing_of_that() {
    let (bench, _) = Bench::with_orders();
    let forgotten = Mutex::new(Vec::new());
    bench.write("/log/topics/orders.gone", content(ID, 100_000).as_bytes());
    let before = bench.names();
    let (topics, report) = bench
        .open_with(&|id| {
            forgotten.lock().push(id);
            Ok(())
        })
        .unwrap();
    assert_eq!(report.findings(), [Finding::DeletionFinished { topic: "orders".into() }]);
    assert_eq!(format!("{:032x}", forgotten.into_inner()[0]), ID);
    let left: Vec<_> = before.into_iter().filter(|name| name != "orders.gone").collect();
    assert_eq!(bench.names(), left);
    topics.close().unwrap();
    bench.check_orders();
}

#[test]
fn folders_that_are_not_surely_the_deleted_topics_stay_and_are_told() {
    let (bench, id) = Bench::with_orders();
    // Of another topic, under this one's name.
    bench.storage.rename(Path::new("/log/topics/orders.json"), Path::new("/log/topics/orders.gone")).unwrap();
    bench.write("/log/topics/orders.gone", content(ID, 5).as_bytes());
    // Nobody knows whose.
    bench.storage.create_dir_all(Path::new("/log/orders-2")).unwrap();
    bench.write("/log/orders-2/00000000000000000000.log", &[0x55; 10_000]);
    bench.storage.create_dir_all(Path::new("/log/orders-3")).unwrap();
    bench.write("/log/orders-3/beach.jpg", b"");
    // Empty, as a removal may leave it; and one that the topic never had.
    bench.storage.create_dir_all(Path::new("/log/orders-4")).unwrap();
    bench.storage.create_dir_all(Path::new("/log/orders-5")).unwrap();

    let (topics, report) = bench.open().unwrap();
    let orphan = |number| Finding::OrphanedFolder { path: format!("/log/orders-{number}").into() };
    let finished = Finding::DeletionFinished { topic: "orders".into() };
    assert_eq!(report.findings(), [finished, orphan(0), orphan(1), orphan(2), orphan(3), orphan(5)]);
    assert_eq!(bench.names(), ["orders-0", "orders-1", "orders-2", "orders-3", "orders-5", "topics"]);
    assert_eq!(topics.create("orders", config(1), &keep).unwrap_err().kind(), ErrorKind::Corruption);
    topics.close().unwrap();
    bench.write("/log/topics/orders.json", content(&id, 2).as_bytes());
    bench.check_orders();
}

#[test]
fn a_folder_with_the_files_of_two_topics_is_nobodys() {
    let (bench, id) = Bench::with_orders();
    let (topics, _) = bench.open().unwrap();
    topics.create("other", config(1), &keep).unwrap().partition(0).unwrap().append(&Record::new("x"), None).unwrap();
    topics.close().unwrap();
    let segment = bench.storage.read(Path::new("/log/other-0/00000000000000000000.log"), u64::MAX).unwrap();
    bench.write("/log/orders-0/00000000000000000777.log", &segment);
    bench.storage.rename(Path::new("/log/topics/orders.json"), Path::new("/log/topics/orders.gone")).unwrap();
    let (_, report) = bench.open().unwrap();
    let finished = Finding::DeletionFinished { topic: "orders".into() };
    assert_eq!(report.findings(), [finished, Finding::OrphanedFolder { path: "/log/orders-0".into() }], "{id}");
    assert!(!bench.exists("/log/orders-1"));
}

#[test]
fn folders_that_are_about_to_go_go_with_their_marker_alone() {
    let (bench, _) = Bench::with_orders();
    let (doomed, other) = (format!("/log/{ID}-7.gone"), format!("/log/{}-0.gone", ID.replace('0', "1")));
    for path in [&*doomed, &other, "/log/photos.gone"] {
        bench.storage.create_dir_all(Path::new(path)).unwrap();
        bench.write(&format!("{path}/beach.jpg"), b"");
    }
    let (topics, report) = bench.open().unwrap();
    let orphans = [&doomed, &other].map(|path| Finding::OrphanedFolder { path: path.into() });
    assert_eq!(report.findings(), orphans);
    topics.close().unwrap();

    bench.write("/log/topics/gone.gone", content(ID, 1).as_bytes());
    let (topics, report) = bench.open().unwrap();
    assert_eq!(report.findings(), [Finding::DeletionFinished { topic: "gone".into() }, orphans[1].clone()]);
    assert!(!bench.exists(&doomed) && bench.exists(&other) && bench.exists("/log/photos.gone/beach.jpg"));
    topics.close().unwrap();
    bench.check_orders();
}

#[test]
fn a_deletion_that_cant_be_finished_by_an_open_keeps_nobody_from_opening() {
    let (bench, _) = Bench::with_orders();
    bench.storage.rename(Path::new("/log/topics/orders.json"), Path::new("/log/topics/orders.gone")).unwrap();
    bench.storage.fail_if(|operation, _| (operation == Operation::RemoveDir).then_some(std::io::ErrorKind::Other));
    for round in 0..2 {
        let (topics, report) = bench.open().unwrap();
        let [Finding::DeletionUnfinished { topic, detail }] = report.findings() else { panic!("{report:?}") };
        assert!(topic == "orders" && detail.contains("-0.gone"), "{topic} {detail}");
        assert_eq!(topics.create("orders", config(1), &keep).unwrap_err().kind(), ErrorKind::Io);
        topics.create(&format!("other{round}"), config(1), &keep).unwrap();
        topics.close().unwrap();
    }
    bench.storage.heal();
    let (_, report) = bench.open().unwrap();
    assert_eq!(report.findings(), [Finding::DeletionFinished { topic: "orders".into() }]);
    assert_eq!(bench.names(), ["other0-0", "other1-0", "topics", "other0.json", "other1.json"]);
}

#[test]
fn what_others_keep_is_forgotten_before_the_marker_goes() {
    let (bench, _) = Bench::with_orders();
    let (topics, _) = bench.open().unwrap();
    let refuse = |_| Err(Repr::Closed.into());
    assert_eq!(topics.delete("orders", &refuse).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(bench.names(), ["topics", "orders.gone"], "what can be done is done");
    assert_eq!(topics.create("orders", config(1), &refuse).unwrap_err().kind(), ErrorKind::Closed);
    topics.create("orders", config(1), &keep).unwrap();
    assert_eq!(bench.names(), ["orders-0", "topics", "orders.json"]);
}

/// What is left of names that change without a mark that goes first: see `tests/mutations/settled_while_names_change`.
#[test]
fn nothing_changes_where_the_mark_that_names_are_settled_cant_be_removed() {
    let mark = Path::new("/locks/settled");
    let (bench, _) = Bench::with_orders();
    assert!(bench.exists("/locks/settled"), "made by a clean close");
    let (topics, _) = bench.open().unwrap();
    let names = bench.names();
    bench.storage.fail_if(move |operation, path| {
        (operation == Operation::RemoveFile && path == mark).then_some(std::io::ErrorKind::PermissionDenied)
    });
    let refused = [
        topics.create("other", config(1), &keep).map(drop),
        topics.increase_partitions("orders", 3).map(drop),
        topics.alter("orders", |config| TopicConfig { segment_bytes: Some(1 << 20), ..config }).map(drop),
        topics.delete("orders", &keep),
    ];
    for outcome in refused {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(mark)));
    }
    assert_eq!(bench.names(), names);
    bench.storage.heal();

    topics.create("other", config(1), &keep).unwrap();
    assert!(!bench.exists("/locks/settled"));
    // Folders of no topic, which are in the way of the next one, go too, and not before the mark.
    topics.settle().unwrap();
    assert!(bench.exists("/locks/settled"));
    bench.storage.create_dir_all(Path::new("/log/more-0")).unwrap();
    bench.storage.fail_if(move |operation, path| {
        (operation == Operation::RemoveFile && path == mark).then_some(std::io::ErrorKind::PermissionDenied)
    });
    assert_eq!(topics.create("more", config(1), &keep).unwrap_err().path(), Some(mark));
    assert!(bench.exists("/log/more-0"));
}

fn fail_syncs_of(bench: &Bench, folder: &'static str) {
    bench.storage.fail_if(move |operation, path| {
        (operation == Operation::SyncDir && path == Path::new(folder)).then_some(std::io::ErrorKind::Other)
    });
}

/// What a sync that failed was to write, the next one may tell nothing of.
#[test]
fn behind_a_failed_sync_names_are_not_settled_by_the_same_process() {
    for folder in ["/log", "/log/topics"] {
        let (bench, _) = Bench::with_orders();
        let (topics, _) = bench.open().unwrap();
        fail_syncs_of(&bench, folder);
        assert!(topics.create("other", config(1), &keep).is_err());
        bench.storage.heal();
        topics.close().unwrap();
        topics.settle().unwrap();
        assert!(!bench.exists("/locks/settled"), "{folder}");
        let (topics, _) = bench.open().unwrap();
        assert!(bench.exists("/locks/settled"), "by the next one, which has synced them");

        // Nor where it was to settle them.
        topics.create("more", config(1), &keep).unwrap();
        topics.close().unwrap();
        fail_syncs_of(&bench, folder);
        assert!(topics.settle().is_err());
        bench.storage.heal();
        topics.settle().unwrap();
        assert!(!bench.exists("/locks/settled"), "{folder}");
    }
}

#[test]
fn names_are_settled_behind_a_sync_of_both_folders_and_not_by_an_open_that_is_refused() {
    let mark = Path::new("/locks/settled");
    let (bench, _) = Bench::with_orders();
    bench.storage.remove_file(mark).unwrap();
    bench.write("/log/topics/orders.gone", br#"{"format_version": 2}"#);
    bench.storage.take_trace();
    assert_eq!(bench.open().unwrap_err().kind(), ErrorKind::UnsupportedFormat);
    assert!(bench.storage.take_trace().is_empty());
    bench.storage.remove_file(Path::new("/log/topics/orders.gone")).unwrap();

    bench.storage.take_trace();
    bench.open().unwrap();
    let trace = bench.storage.take_trace();
    let at = |wanted, path: &str| {
        trace.iter().position(|it| it.operation == wanted && it.path == Path::new(path) && it.succeeded).unwrap()
    };
    let made = at(Operation::Create, "/locks/settled");
    assert!(at(Operation::SyncDir, "/log") < made && at(Operation::SyncDir, "/log/topics") < made);
}

/// Nobody has synced the names of a copy.
#[test]
fn the_mark_of_another_folder_or_boot_is_not_believed() {
    let mark = Path::new("/locks/settled");
    type Change = fn(&Bench);
    let changes: [(&str, Change); 4] = [
        ("a copy", |bench| {
            let bytes = bench.storage.read(Path::new("/locks/settled"), 1 << 10).unwrap();
            bench.storage.remove_file(Path::new("/locks/settled")).unwrap();
            bench.write("/locks/settled", &bytes);
        }),
        ("an empty one", |bench| bench.write("/locks/settled", b"")),
        ("a longer one", |bench| {
            let bytes = bench.storage.read(Path::new("/locks/settled"), 1 << 10).unwrap();
            bench.write("/locks/settled", &[&bytes[..], &[0]].concat());
        }),
        ("another boot", |bench| bench.storage.reboot()),
    ];
    for (what, change) in changes {
        let (bench, _) = Bench::with_orders();
        let syncs = || {
            bench.storage.take_trace();
            bench.open().unwrap().0.close().unwrap();
            let trace = bench.storage.take_trace();
            trace.iter().filter(|it| it.operation == Operation::SyncDir && it.path.starts_with("/log")).count()
        };
        assert_eq!(syncs(), 0, "{what}");
        change(&bench);
        assert_eq!(syncs(), 2, "{what}");
        assert!(bench.storage.entry_kind(mark).unwrap().is_some());
        assert_eq!(syncs(), 0, "{what}");
    }
}
