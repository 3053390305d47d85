//! The example `inspect`, run as the program that it is, on sound and on damaged folders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;
use tidelog::{Log, Record, TopicConfig};

#[path = "common/example.rs"]
mod example;

use example::{Ended, Running};

fn run(args: &[&str]) -> Ended {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    Running::start(PROGRAM.get_or_init(|| example::build("inspect")), args).end()
}

/// 20 orders in partition 0, of which two are a batch, and one in partition 1.
fn log() -> TempDir {
    let dir = TempDir::new().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for number in 0..18 {
        topic.append(Record::new(format!("order {number:02}")).key("customer-1").partition(0)).unwrap();
    }
    topic
        .append_batch([Record::tombstone("a").partition(0), Record::new(&[0xff, 0][..]).partition(0).timestamp_ms(-7)])
        .unwrap();
    topic.append(Record::new("other").partition(1).header("source", "web")).unwrap();
    log.close().unwrap();
    dir
}

fn damage(dir: &Path) {
    let path = dir.join("orders-0/00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|it| it == b"order 07").unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn objects(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_sound_folder_is_dumped_and_verified() {
    let dir = log();
    let folder = dir.path().to_str().unwrap();
    let ended = run(&["verify", folder]);
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), ""));
    assert!(ended.stdout.contains("sound") && ended.stdout.contains("21"), "{}", ended.stdout);
    let ended = run(&["verify", folder, "--json"]);
    let [summary] = &objects(&ended)[..] else { panic!("{}", ended.stdout) };
    assert_eq!((&summary["type"], &summary["sound"]), (&"summary".into(), &true.into()));
    assert_eq!((&summary["records"], &summary["findings"]), (&21.into(), &0.into()));

    let ended = run(&["dump", folder, "--show", "topics", "--json"]);
    let names: Vec<_> = objects(&ended).iter().map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["__offsets", "orders"]);
    let ended = run(&["dump", folder, "--topic", "orders", "--json"]);
    let counts: Vec<_> = objects(&ended).iter().map(|it| (it["frames"].clone(), it["records"].clone())).collect();
    assert_eq!(counts, [(19.into(), 20.into()), (1.into(), 1.into())]);

    let filter = ["--topic", "orders", "--partition", "0", "--from", "17", "--show", "records"];
    let ended = run(&[&["dump", folder, "--json"][..], &filter].concat());
    assert_eq!(ended.status.code(), Some(0));
    let rows = objects(&ended);
    let column = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("offset"), [17, 18, 19]);
    assert_eq!(column("key"), ["customer-1".into(), "a".into(), Value::Null]);
    assert_eq!(column("value"), ["order 17".into(), Value::Null, "ff00".into()]);
    assert_eq!(rows[2]["time_ms"], -7);
    let ended = run(&[&["dump", folder, "--limit", "1"][..], &filter].concat());
    assert!(ended.stdout.contains("order 17") && ended.stdout.lines().count() == 2, "{}", ended.stdout);
    let ended = run(&["dump", folder, "--topic", "orders", "--partition", "1", "--show", "records", "--json"]);
    assert!(objects(&ended)[0]["header_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_damaged_folder_is_told_and_repaired() {
    let dir = log();
    let folder = dir.path().to_str().unwrap();
    damage(dir.path());
    let ended = run(&["verify", folder]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.contains("corruption: ") && ended.stdout.contains("offsets 7 to 8"), "{}", ended.stdout);
    let ended = run(&["verify", folder, "--json"]);
    let rows = objects(&ended);
    assert_eq!((&rows[0]["finding"], &rows[0]["offsets"]), (&"corruption".into(), &serde_json::json!([7, 8])));
    assert_eq!(run(&["dump", folder]).status.code(), Some(1));
    let ended = run(&["dump", folder, "--topic", "orders", "--show", "frames", "--json"]);
    let kinds = |ended: &Ended, kind: &str| objects(ended).iter().filter(|row| row["kind"] == kind).count();
    assert_eq!((kinds(&ended, "damaged"), kinds(&ended, "records")), (1, 19));

    let ended = run(&["repair", folder, "--json"]);
    assert_eq!(ended.status.code(), Some(0), "{} {}", ended.stdout, ended.stderr);
    let rows = objects(&ended);
    assert!(rows[0]["type"] == "action" && rows[0]["what"].as_str().unwrap().contains(".damaged-"), "{rows:?}");
    assert_eq!(rows.last().unwrap()["sound"], true);
    assert!(run(&["repair", folder]).output().contains("nothing to mend"));
    assert_eq!(run(&["verify", folder]).status.code(), Some(0));
    let ended = run(&["dump", folder, "--topic", "orders", "--show", "frames", "--json"]);
    assert_eq!((kinds(&ended, "set aside"), kinds(&ended, "damaged")), (1, 0));
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn errors_end_with_two() {
    let dir = log();
    let folder = dir.path().to_str().unwrap();
    let missing = dir.path().join("missing");
    for args in [
        ["verify", missing.to_str().unwrap()],
        ["repair", missing.to_str().unwrap()],
        ["dump", "nowhere"],
        ["mend", folder],
    ] {
        let ended = run(&args);
        assert_eq!(ended.status.code(), Some(2), "{args:?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stdout.is_empty(), "{args:?} {}", ended.stderr);
    }
    assert_eq!(run(&["dump", folder, "--topic", "other"]).status.code(), Some(2));
    let open = Log::open(dir.path()).unwrap();
    for command in ["verify", "repair"] {
        let ended = run(&[command, folder]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains(&std::process::id().to_string()), "{}", ended.stderr);
    }
    open.close().unwrap();
}
