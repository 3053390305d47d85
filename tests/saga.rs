//! The example `saga`, run as the program that it is: both outcomes, and aborts at every step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tempfile::TempDir;
use tidelog::Log;

#[path = "common/example.rs"]
mod example;

use example::{Ended, Running};

/// The arguments of a trip that fails, and of one that doesn't.
const DIRECTIONS: [&[&str]; 2] = [&[], &["--all-well"]];

const BOOKED: [(&str, &str); 3] =
    [("trip-1/book-hotel", "true"), ("trip-1/book-ticket", "true"), ("trip-1/book-transfer", "true")];

/// The transfer fails, then the latest booking is the first to be cancelled.
const CANCELLED: [(&str, &str); 5] = [
    ("trip-1/book-hotel", "true"),
    ("trip-1/book-ticket", "true"),
    ("trip-1/book-transfer", "false"),
    ("trip-1/cancel-ticket", "true"),
    ("trip-1/cancel-hotel", "true"),
];

fn run(data: &Path, args: &[&str]) -> Ended {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| example::build("saga"));
    Running::start(program, &[&["--data", data.to_str().unwrap()], args].concat()).end()
}

/// All steps, as `--help` lists them.
fn steps() -> Vec<String> {
    let help = run(Path::new("unused"), &["--help"]).output();
    let (_, list) = help.split_once("possible values: ").expect("a list of steps");
    let (list, _) = list.split_once(']').unwrap();
    list.split(", ").map(str::to_owned).collect()
}

/// Keys and values of the records of a topic.
fn records(log: &Log, topic: &str) -> Vec<(String, String)> {
    let Ok(topic) = log.topic(topic) else { return Vec::new() };
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let records = topic.partition(0).unwrap().read_from(0).unwrap().map(Result::unwrap);
    records.map(|record| (text(record.key()), text(record.value()))).collect()
}

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Left {
    trips: Vec<(String, String)>,
    world: Vec<(String, String)>,
}

/// What is in the folder. Whenever it is looked at, nothing was done that wasn't decided, and nothing noted that wasn't
/// done.
fn left(data: &Path) -> Left {
    let log = Log::open(data).unwrap();
    let left = Left { trips: records(&log, "trips"), world: records(&log, "world") };
    log.close().unwrap();
    let count = |what| left.trips.iter().filter(|(_, event)| event.contains(what)).count();
    let (decided, done, noted) = (count("Decided"), left.world.len(), count("Noted"));
    assert!(noted <= done && done <= decided && decided <= noted + 1, "{left:?}");
    left
}

/// What a run prints, but for what it was asked again; and how often that was.
fn printed(output: &str) -> (String, usize) {
    let (again, rest): (Vec<&str>, Vec<&str>) = output.lines().partition(|line| line.contains("asked again"));
    let rest: Vec<_> = rest.into_iter().map(comparable).collect();
    (rest.join("\n").trim_end().to_owned(), again.len())
}

/// A line without the offset it begins with, where offsets jump whenever a process was aborted: appends use `pwrite`, and
/// no control page outlives it.
fn comparable(line: &str) -> String {
    if !cfg!(tidelog_positional) {
        return line.to_owned();
    }
    let words = line.split_whitespace().skip_while(|word| word.parse::<u64>().is_ok());
    words.collect::<Vec<_>>().join(" ")
}

/// What an uninterrupted run prints and leaves behind.
fn uninterrupted(direction: &[&str]) -> (String, Left) {
    let data = TempDir::new().unwrap();
    let output = run(data.path(), direction).output();
    let (printed, again) = printed(&output);
    assert_eq!(again, 0);
    (printed, left(data.path()))
}

/// Calls `each` with all items, in as many threads as the machine has processors.
fn for_all<T: Sync>(items: &[T], each: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, NonZero::get) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(item);
                }
            });
        }
    });
}

#[test]
fn a_trip_is_booked_or_all_of_it_is_cancelled_in_reverse() {
    for (direction, world, end) in [(DIRECTIONS[0], &CANCELLED[..], "false"), (DIRECTIONS[1], &BOOKED[..], "true")] {
        let (output, left) = uninterrupted(direction);
        let found: Vec<_> = left.world.iter().map(|(key, done)| (&**key, &**done)).collect();
        assert_eq!(found, world);
        let ends: Vec<_> = left.trips.iter().filter(|(_, event)| event.contains("Ended")).collect();
        assert_eq!(ends, [&("trip-1".to_owned(), format!(r#"{{"Ended":{{"booked":{end}}}}}"#))]);
        assert_eq!(Some(ends[0]), left.trips.last());
        assert_eq!(left.trips.len(), 2 + 2 * world.len(), "a decision and a note for each action");
        for (key, _) in world {
            assert!(output.contains(key), "{key} in {output}");
        }
    }
}

/// Every step, in both directions: abort there, and again at the same place or a little later, then run to the end.
#[test]
fn a_trip_that_was_aborted_anywhere_ends_as_if_it_had_not_been() {
    let steps = steps();
    assert_eq!(steps.iter().collect::<BTreeSet<_>>().len(), 2 * (1 + 3 * CANCELLED.len() + 1));
    for (direction, actions) in [(DIRECTIONS[0], CANCELLED.len()), (DIRECTIONS[1], BOOKED.len())] {
        let expected = uninterrupted(direction);
        let aborted = AtomicUsize::new(0);
        let numbers: Vec<usize> = (0..steps.len()).collect();
        for_all(&numbers, |&number| {
            for second in [None, Some(0), Some(1), Some(7)] {
                let data = TempDir::new().unwrap();
                let at = |step: &str| run(data.path(), &[direction, &["--crash-at", step]].concat());
                let step = &*steps[number];
                let ended = at(step);
                if ended.status.success() {
                    // A trip that succeeds cancels nothing.
                    assert!(step.contains("cancel"), "{step}");
                    assert_eq!((printed(&ended.output()).0, left(data.path())), expected, "{step}");
                    continue;
                }
                ended.assert_aborted();
                aborted.fetch_add(usize::from(second.is_none()), Ordering::Relaxed);
                if let Some(step) = second.and_then(|later| steps.get(number + later)) {
                    let ended = at(step);
                    if !ended.status.success() {
                        ended.aborted();
                    }
                }
                let crashed = left(data.path());
                // The last run needn't be told how the trip was meant.
                let (output, again) = printed(&run(data.path(), &[]).output());
                let left = left(data.path());
                if crashed.trips.is_empty() {
                    assert_eq!(left, uninterrupted(&[]).1, "it had not begun");
                    continue;
                }
                assert_eq!((&output, &left), (&expected.0, &expected.1), "aborted at {step}, then {second:?} later");
                let noted = crashed.trips.iter().filter(|(_, event)| event.contains("Noted")).count();
                assert_eq!(again, crashed.world.len() - noted, "{step}: what nobody noted is asked for again, once");
            }
        });
        assert_eq!(aborted.into_inner(), 2 * (1 + 3 * actions + 1), "every step that such a trip comes to");
    }
}

#[test]
fn a_trip_that_has_ended_stays_as_it_is() {
    for direction in DIRECTIONS {
        let data = TempDir::new().unwrap();
        let output = run(data.path(), direction).output();
        let before = left(data.path());
        for other in DIRECTIONS {
            assert_eq!(run(data.path(), other).output(), output);
            assert_eq!(left(data.path()), before);
        }
    }
}

#[test]
fn a_step_that_is_none_is_refused() {
    let ended = run(Path::new("unused"), &["--crash-at", "before-lunch"]);
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(2), ""));
    assert!(ended.stderr.contains("before-lunch") && ended.stderr.contains("before-book-hotel"), "{}", ended.stderr);
}

#[test]
fn a_file_in_the_place_of_the_folder_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = run(file.path(), &[]).error();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
}
