//! The example `replay`, run as the program that it is: its story, its moments, many events, and bad input.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;
use tidelog::{Log, OwnedRecord, Record, Start};

#[path = "common/example.rs"]
mod example;

use example::{Ended, Running};

fn run(args: &[&str]) -> Ended {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    Running::start(PROGRAM.get_or_init(|| example::build("replay")), args).end()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn records(data: &Path, topic: &str) -> Vec<OwnedRecord> {
    let log = Log::open(data).unwrap();
    let mut records = Vec::new();
    let mut reader = log.topic(topic).unwrap().reader(Start::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        records.extend(batch.iter().map(|record| record.to_owned()));
    }
    log.close().unwrap();
    records
}

/// The columns of an audit's rows.
fn audit(output: &str) -> Vec<Vec<&str>> {
    let rows = output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == 5 && row[0].parse::<u64>().is_ok()).collect()
}

#[test]
fn the_story_adds_up() {
    let output = run(&[]).output();
    assert_eq!(
        audit(&output),
        [
            ["0", "14:10", "Deposit", "1000", "1000"],
            ["2", "14:30", "Withdrawal", "200", "800"],
            ["3", "14:40", "Deposit", "500", "1300"],
        ]
    );
    for part in [
        "Its balance is 1300. What was it at 14:35? 800.",
        "A fold that adds what was withdrawn gives 1700. Mended and replayed, it gives 1300.",
        "not one of them has changed",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
    let output = run(&["--account", "2"]).output();
    assert_eq!(audit(&output), [["1", "14:20", "Deposit", "70", "70"]]);
    assert!(audit(&run(&["--account", "3"]).output()).is_empty());
}

#[test]
fn a_moment_has_the_balance_of_all_that_was_before_it() {
    let data = TempDir::new().unwrap();
    for (at, balance) in [
        ("00:00", "0"),
        ("14:09", "0"),
        ("14:10", "1000"),
        ("14:29", "1000"),
        ("14:30", "800"),
        ("14:39", "800"),
        ("14:40", "1300"),
        ("23:59", "1300"),
    ] {
        let output = run(&["--at", at, "--data", text(data.path())]).output();
        assert!(output.contains(&format!("What was it at {at}? {balance}.")), "{output}");
    }
}

#[test]
fn no_event_changes_whatever_is_asked_of_them() {
    let data = TempDir::new().unwrap();
    let args = ["--data", text(data.path())];
    let output = run(&args).output();
    let before = records(data.path(), "ledger");
    assert_eq!(before.len(), 4);
    assert!(before.iter().all(|record| record.client_timestamp_ms().is_some()));
    let keys: Vec<_> = before.iter().map(|record| record.key().unwrap()).collect();
    assert_eq!(keys, [b"1", b"2", b"1", b"1"]);
    assert_eq!(run(&args).output(), output);
    run(&[&args[..], &["--at", "14:11", "--account", "2"]].concat()).output();
    assert_eq!(records(data.path(), "ledger"), before);
}

/// An event that can't be read is told with its place, and not passed over.
#[test]
fn what_is_no_posting_is_an_error() {
    let data = TempDir::new().unwrap();
    run(&["--data", text(data.path())]).output();
    let log = Log::open(data.path()).unwrap();
    log.topic("ledger").unwrap().append(Record::new("a thousand dollars, please")).unwrap();
    log.close().unwrap();
    let ended = run(&["--data", text(data.path())]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("offset 4 of ledger-0"), "{}", ended.stderr);
}

#[test]
fn many_events_are_appended_and_replayed() {
    let data = TempDir::new().unwrap();
    let args = ["--events", "100003", "--data", text(data.path())];
    let output = run(&args).output();
    // 25,000 times three deposits of 100 and a withdrawal of 50; then three deposits.
    for part in ["100003 events appended in ", "100003 events replayed in ", " a second\n", "hold 6250300 in all"] {
        assert!(output.contains(part), "{part} in {output}");
    }
    let events = records(data.path(), "large-ledger");
    assert_eq!(events.len(), 100_003);
    assert!(events.iter().all(|record| record.value().unwrap().len() == 9));

    let output = run(&args).output();
    for part in ["100003 events appended in ", "200006 events replayed in ", "hold 12500600 in all"] {
        assert!(output.contains(part), "{part} in {output}");
    }
    let output = run(&["--events", "0"]).output();
    assert!(output.contains("0 events replayed") && output.contains("hold 0 in all"), "{output}");
}

#[test]
fn bad_arguments_are_refused() {
    for time in ["24:00", "14:60", "14", "", "2:-1", "now"] {
        let ended = run(&[&format!("--at={time}")]);
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(2), ""), "{time}");
        assert!(ended.stderr.contains("a time is like 14:35"), "{}", ended.stderr);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = run(&["--data", text(file.path())]).error();
    assert!(error.contains(text(file.path())), "{error}");
}
