//! The example `ecommerce`, run as the program that it is: its numbers, its aborts, and bad input.
//!
//! Crash tests abort it at a dozen seeded points. `TIDELOG_CRASH_POINTS` chooses others: numbers with commas between
//! them, or `all` for every point there is:
//!
//! ```text
//! TIDELOG_CRASH_POINTS=all cargo test --release --test ecommerce december_aborted
//! ```
//!
//! Tests on real orders need `../shared/data` and are skipped with a printed reason where it is missing, except if
//! `TIDELOG_REQUIRE` names `data`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidelog::{Log, Start};

#[path = "common/example.rs"]
mod example;
#[path = "common/require.rs"]
mod require;

use example::{Ended, Running};

/// How many orders there are to abort behind.
const DECEMBER_ORDERS: u64 = 1_559;
const GENERATED_ORDERS: u64 = 19_969;

// ---- The program ----

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example::build("ecommerce"))
}

fn start(args: &[&str]) -> Running {
    Running::start(program(), args)
}

fn run(args: &[&str]) -> Ended {
    start(args).end()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

// ---- Real orders ----

/// The folder of December's orders; nothing, with the reason printed, where it is missing.
fn december() -> Option<&'static str> {
    static FOLDER: OnceLock<Option<String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/online-retail");
        if folder.is_dir() {
            return Some(text(&folder).to_owned());
        }
        assert!(!require::is_required("data"), "TIDELOG_REQUIRE names data, and {} is missing", folder.display());
        eprintln!("skipped: {} is missing", folder.display());
        None
    });
    folder.as_deref()
}

/// What an uninterrupted run says of December.
fn december_json(folder: &str) -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| run(&["--orders", folder, "--json"]).json())
}

#[test]
fn december_has_the_numbers_that_everyone_computes() {
    let Some(folder) = december() else { return };
    let numbers: Value = serde_json::from_str(december_json(folder)).unwrap();
    let expected = json!({
        "lines_read": 42481, "lines_dead_lettered": 273, "orders_created": 1559, "orders_completed": 1532,
        "orders_rejected": 27, "refunds": 326, "revenue": "595533.39", "refunded": "74789.12",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&numbers[name], value, "{name}");
    }
    let countries = numbers["revenue_by_country"].as_object().unwrap();
    assert_eq!((&countries["Germany"], &countries["EIRE"]), (&json!("15241.14"), &json!("10033.26")));
    assert_eq!(numbers.as_object().unwrap().len(), 9);
    let pennies = |amount: &Value| amount.as_str().unwrap().replace('.', "").parse::<u64>().unwrap();
    assert_eq!(countries.values().map(pennies).sum::<u64>(), 59_553_339);
}

#[test]
fn half_of_the_files_then_all_of_them_are_all_of_them() {
    let Some(folder) = december() else { return };
    let (half, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = text(data.path());
    let mut days: Vec<_> = fs::read_dir(folder).unwrap().map(|day| day.unwrap().path()).collect();
    days.sort();
    for day in &days[..days.len() / 2] {
        fs::copy(day, half.path().join(day.file_name().unwrap())).unwrap();
    }
    let first = run(&["--orders", text(half.path()), "--data", data, "--json"]).json();
    assert_ne!(first, december_json(folder));
    assert_eq!(run(&["--orders", text(&days[0]), "--data", data, "--json"]).json(), first);
    for _ in 0..2 {
        assert_eq!(run(&["--orders", folder, "--data", data, "--json"]).json(), december_json(folder));
    }
    assert_eq!(run(&["--data", data, "--json"]).json(), december_json(folder), "no order is made up beside real ones");
    assert_nothing_is_twice(data);
}

// ---- Aborts ----

/// Where to abort: what the environment says, or a seeded dozen that has both ends.
fn crash_points(orders: u64, count: u64) -> Vec<u64> {
    match env::var("TIDELOG_CRASH_POINTS").as_deref() {
        Ok("all") => (1..=orders).collect(),
        Ok(list) => list.split(',').map(|point| point.parse().expect("numbers, or `all`")).collect(),
        Err(_) => {
            let inside = (2..count).map(|seed| 1 + scrambled(seed) % orders);
            inside.chain([1, orders]).collect()
        }
    }
}

/// A number that looks random.
fn scrambled(seed: u64) -> u64 {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
}

/// Tests all points, as many at a time as there are processors.
fn at_each(points: &[u64], test: impl Fn(u64) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(&point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    test(point);
                }
            });
        }
    });
}

/// Aborts at `point`, for every other point once more further on, then runs to the end.
fn abort_and_go_on(args: &[&str], point: u64, orders: u64) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let args = [args, &["--data", text(folder.path()), "--json"]].concat();
    run(&[&args[..], &["--crash-after", &point.to_string()]].concat()).assert_aborted();
    let later = point + scrambled(point) % orders / 4;
    if point % 2 == 0 && later <= orders && later > point {
        run(&[&args[..], &["--crash-after", &later.to_string()]].concat()).assert_aborted();
    }
    let json = run(&args).json();
    (folder, json)
}

#[test]
fn december_aborted_anywhere_ends_like_an_uninterrupted_run() {
    let Some(folder) = december() else { return };
    at_each(&crash_points(DECEMBER_ORDERS, 12), |point| {
        let (data, json) = abort_and_go_on(&["--orders", folder], point, DECEMBER_ORDERS);
        assert_eq!(json, december_json(folder), "aborted behind order {point}");
        assert_nothing_is_twice(text(data.path()));
    });
}

#[test]
fn generated_orders_aborted_anywhere_end_like_an_uninterrupted_run() {
    let uninterrupted = run(&["--json"]).json();
    let numbers: Value = serde_json::from_str(&uninterrupted).unwrap();
    assert_eq!(numbers["orders_created"], GENERATED_ORDERS);
    at_each(&crash_points(GENERATED_ORDERS, 4), |point| {
        let (data, json) = abort_and_go_on(&[], point, GENERATED_ORDERS);
        assert_eq!(json, uninterrupted, "aborted behind order {point}");
        assert_nothing_is_twice(text(data.path()));
        assert_eq!(run(&["--data", text(data.path()), "--json"]).json(), uninterrupted, "a further run adds nothing");
    });
}

/// Intake is not the only one to be interrupted: a kill finds the services wherever they are.
#[test]
fn killed_at_any_time_it_ends_like_an_uninterrupted_run() {
    let Some(folder) = december() else { return };
    let data = TempDir::new().unwrap();
    let args = ["--orders", folder, "--data", text(data.path()), "--json"];
    let started = Instant::now();
    december_json(folder);
    let most = (started.elapsed().as_millis() as u64).clamp(40, 4_000);
    for seed in 1..=8 {
        let mut running = start(&args);
        thread::sleep(Duration::from_millis(scrambled(seed) % most));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }
    assert_eq!(run(&args).json(), december_json(folder));
    assert_nothing_is_twice(text(data.path()));
}

/// Without its caches a partition is read through from what is known to be on the device, as after a power cut.
#[test]
fn aborted_and_without_its_caches_it_ends_like_an_uninterrupted_run() {
    let Some(folder) = december() else { return };
    let data = TempDir::new().unwrap();
    let args = ["--orders", folder, "--data", text(data.path()), "--json"];
    run(&[&args[..], &["--crash-after", "1000"]].concat()).assert_aborted();
    let mut caches = 0;
    for partition in fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        for file in fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap();
            if name == "partition.state" || file.extension().is_some_and(|kind| kind == "index" || kind == "timeindex")
            {
                fs::remove_file(&file).unwrap();
                caches += 1;
            }
        }
    }
    // Where appends use `pwrite`, those of segments that aren't sealed live in memory.
    assert!(caches > 0 || cfg!(tidelog_positional));
    assert_eq!(run(&args).json(), december_json(folder));
    assert_nothing_is_twice(text(data.path()));
}

/// Committed offsets say where to resume, not what was done.
#[test]
fn without_committed_offsets_nothing_is_done_twice() {
    let Some(folder) = december() else { return };
    let data = TempDir::new().unwrap();
    let args = ["--orders", folder, "--data", text(data.path()), "--json"];
    run(&[&args[..], &["--crash-after", "500"]].concat()).assert_aborted();
    for _ in 0..2 {
        fs::remove_dir_all(data.path().join("__offsets-0")).unwrap();
        assert_eq!(run(&args).json(), december_json(folder));
        assert_nothing_is_twice(text(data.path()));
    }
}

/// The totals count by identity and would hide it: so look at the records themselves.
fn assert_nothing_is_twice(data: &str) {
    let log = Log::open(data).unwrap();
    let mut lines = BTreeSet::new();
    for topic in ["orders", "refunds", "dead-letters"] {
        for (headers, _) in records(&log, topic) {
            let ranges = headers.get("lines").or(headers.get("line")).unwrap().clone();
            assert!(lines.insert((headers["file"].clone(), ranges.clone())), "{topic}: lines {ranges} twice");
        }
    }
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for topic in ["reservations", "payments", "shipments", "notifications"] {
        for (_, event) in records(&log, topic) {
            let event: Value = serde_json::from_slice(&event).unwrap();
            let invoice = [&event["order"], &event["about"]].into_iter().find_map(|of| of["id"].as_str()).unwrap();
            let what = format!("{} {}", event["type"].as_str().unwrap(), event["text"].as_str().unwrap_or_default());
            assert!(ids.entry(what.clone()).or_default().insert(invoice.to_owned()), "{what} {invoice} twice");
        }
    }
    assert_eq!(ids.get("order.rejected "), ids.get("stock.released "), "what is rejected is released");
    assert_eq!(ids.get("order.paid "), ids.get("order.shipped "));
    assert_eq!(ids.get("order.shipped "), ids.get("order.delivered "));
    log.close().unwrap();
}

/// Headers and values of a topic's records.
fn records(log: &Log, topic: &str) -> Vec<(BTreeMap<String, String>, Vec<u8>)> {
    let mut records = Vec::new();
    let mut reader = log.topic(topic).unwrap().reader(Start::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in &batch {
            let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
            let headers = record.headers().map(|(name, value)| (name.to_owned(), text(value)));
            records.push((headers.collect(), record.value().unwrap().to_vec()));
        }
    }
    records
}

// ---- Rules ----

const COLUMNS: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

/// One of everything, with what each line is.
const RULES: [&str; 26] = [
    "100,A,\"a \"\"quoted\"\", comma\",2,d,1.501,17850.0,France", // an order of France
    "100,B,,0,d,1,17850.0,France",                                // no quantity
    "100,C,b,1,d,-11062.06,17850.0,France",                       // a price below zero
    "100,D,\"two\nlines\",1,d,0.004,,Spain",                      // of order 100, so of France: 3.006 in all
    "101,A,a,6.5,d,1,1,Norway",                                   // no integer
    "101,A,a,1,d,0.002,1,Norway",                                 // order 101: 0.002
    "",                                                           // no line at all
    "102,A,a,10,d,500.00,,Malta",                                 // 5000 isn't above 5000
    "103,A,a,10,d,500.00,1,Malta",                                // order 103: 5000.01, rejected
    "103,B,a,1,d,0.01,1,Malta",
    "104,A,a,-1,d,1,1,Malta", // an order that gives back
    "105,A,a,,d,1,1,Malta",
    "105,A,a,1,d,,1,Malta",
    "105,A,a,1,d,1_0,1,Malta",
    "105,A,a,1,d,1e3,1,Malta",
    "106,A", // a line that ends early
    "C200,A,a,-2,d,1.10,1,Malta",
    "C200,B,a,-1,d,0.05,1,Malta", // refund C200: 2.25
    "C200,B,a,1,d,0.05,1,Malta",  // a refund that takes
    "C201,A,a,-1,d,0,1,Malta",
    "C,A,a,-1,d,1,1,Malta",
    "A563185,B,Adjust bad debt,1,d,11062.06,,United Kingdom",
    "12a,A,a,1,d,1,1,Malta",
    ",A,a,1,d,1,1,Malta",
    "107,A,a,1,d,1,1,Malta,and more", // order 107: 1.00
    "C202,A,a,-1,d,2,,Malta",         // refund C202: 2.00
];

fn rules_json() -> Value {
    json!({
        "lines_read": 25, "lines_dead_lettered": 15, "orders_created": 5, "orders_completed": 4,
        "orders_rejected": 1, "refunds": 2, "revenue": "5004.01", "refunded": "4.25",
        "revenue_by_country": { "France": "3.01", "Malta": "5001.00", "Norway": "0.00" },
    })
}

/// A folder with one file of these lines.
fn orders(name: &str, lines: &[&str], line_end: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let content: String = lines.iter().map(|line| format!("{line}{line_end}")).collect();
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

#[test]
fn every_rule_holds_however_lines_end() {
    for line_end in ["\n", "\r\n", "\r"] {
        let (folder, data) =
            (orders("rules.csv", &[&[COLUMNS], &RULES[..]].concat(), line_end), TempDir::new().unwrap());
        let json = run(&["--orders", text(folder.path()), "--data", text(data.path()), "--json"]).json();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), rules_json());

        let log = Log::open(data.path()).unwrap();
        let mut dead: Vec<_> = records(&log, "dead-letters").into_iter().map(|(headers, _)| headers).collect();
        dead.sort_by_key(|headers| headers["line"].parse::<u64>().unwrap());
        let lines: Vec<u64> = dead.iter().map(|headers| headers["line"].parse().unwrap()).collect();
        assert_eq!(lines, [3, 4, 7, 13, 14, 15, 16, 17, 18, 21, 22, 23, 24, 25, 26]);
        assert!(dead.iter().all(|headers| headers["file"] == "rules.csv"));
        let reasons: BTreeSet<&str> = dead.iter().map(|headers| &*headers["reason"]).collect();
        assert_eq!(reasons.len(), 6, "{reasons:?}");
        log.close().unwrap();
        assert_nothing_is_twice(text(data.path()));
    }
}

#[test]
fn a_line_is_known_by_file_name_and_number() {
    let lines = [COLUMNS, "1,A,a,1,d,2,7,Peru", "1,B,a,1,d,1,7,Peru"];
    let (first, same, grown) = (
        orders("a.csv", &lines, "\n"),
        orders("a.csv", &lines, "\n"),
        orders("a.csv", &[&lines[..], &lines[1..2]].concat(), "\n"),
    );
    let other = orders("b.CSV", &lines, "\n");
    let data = TempDir::new().unwrap();
    let revenue = |orders: &Path| {
        let json = run(&["--orders", text(orders), "--data", text(data.path()), "--json"]).json();
        let json: Value = serde_json::from_str(&json).unwrap();
        (json["lines_read"].as_u64().unwrap(), json["revenue"].as_str().unwrap().to_owned())
    };
    assert_eq!(revenue(first.path()), (2, "3.00".into()));
    assert_eq!(revenue(same.path()), (2, "3.00".into()), "the same file in another folder");
    assert_eq!(revenue(&same.path().join("a.csv")), (2, "3.00".into()), "the same file by its path");
    assert_eq!(revenue(other.path()), (4, "6.00".into()), "another file with the same lines");
    assert_eq!(revenue(grown.path()), (5, "8.00".into()), "a line that was added");
}

#[test]
fn column_names_alone_are_no_orders() {
    let folder = orders("empty.csv", &[COLUMNS], "\n");
    let json = run(&["--orders", text(folder.path()), "--json"]).json();
    assert_eq!(
        json,
        r#"{"lines_read":0,"lines_dead_lettered":0,"orders_created":0,"orders_completed":0,"orders_rejected":0,"#
            .to_owned()
            + r#""refunds":0,"revenue":"0.00","refunded":"0.00","revenue_by_country":{}}"#
    );
}

#[test]
fn amounts_at_the_edges_are_exact_or_refused() {
    let lines = [
        COLUMNS,
        "1,A,a,1,d,2.50000000000000,,Peru", // zeros behind the last digit change nothing
        "2,A,a,+2,d,.25,,Peru",             // 0.50
        "3,A,a,1000000000000000,d,1,,Peru", // rejected
        "4,A,a,1000000000000001,d,1,,Peru", // more than a line can come to
        "5,A,a,9223372036854775807,d,7e9,,Peru", // no decimal
        "6,A,a,9223372036854775808,d,1,,Peru", // no integer that anyone orders
        "7,A,a,9,d,79228162514264337593543950335,,Pe", // the greatest decimal there is
        "8,A,a,1,d,79228162514264337593543950336,,Pe",
        "C9,A,a,-9223372036854775808,d,0.0001,,Peru", // a refund
    ];
    let folder = orders("a.csv", &lines, "\n");
    let json = run(&["--orders", text(folder.path()), "--json"]).json();
    let expected = json!({
        "lines_read": 9, "lines_dead_lettered": 5, "orders_created": 3, "orders_completed": 2,
        "orders_rejected": 1, "refunds": 1, "revenue": "3.00", "refunded": "922337203685477.58",
        "revenue_by_country": { "Peru": "3.00" },
    });
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
}

/// An abort amid generated orders isn't forgotten because real ones came in between.
#[test]
fn generated_orders_that_were_begun_are_ended_beside_real_ones_too() {
    let folder = orders("a.csv", &[COLUMNS, "1,A,a,1,d,2,7,Peru"], "\n");
    let with_real = |aborted: bool| {
        let data = TempDir::new().unwrap();
        let args = ["--data", text(data.path()), "--json"];
        match aborted {
            true => run(&[&args[..], &["--crash-after", "5000"]].concat()).assert_aborted(),
            false => drop(run(&args).json()),
        }
        run(&[&args[..], &["--orders", text(folder.path())]].concat()).json();
        run(&args).json()
    };
    assert_eq!(with_real(true), with_real(false));
}

#[test]
fn a_person_is_shown_tables() {
    let folder = orders("rules.csv", &[&[COLUMNS], &RULES[..]].concat(), "\n");
    let ended = run(&["--orders", text(folder.path())]);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    for part in ["completed", "rejected", "Malta", "5,001.00", "notifications", "Lag", "a second", "MB on disk"] {
        assert!(ended.stdout.contains(part), "{part} in {}", ended.stdout);
    }
}

// ---- Bad input ----

#[test]
fn a_file_without_the_columns_is_refused_by_name() {
    let folder = orders("a.csv", &[COLUMNS, "1,A,a,1,d,2,7,Peru"], "\n");
    fs::write(folder.path().join("b.csv"), "InvoiceNo,StockCode,UnitPrice,CustomerID,Country\n").unwrap();
    let data = folder.path().join("data");
    let error = run(&["--orders", text(folder.path()), "--data", text(&data)]).error();
    assert!(error.contains("b.csv") && error.contains("\"Quantity\""), "{error}");
    assert!(!data.exists(), "nothing is created");
    fs::write(folder.path().join("b.csv"), "").unwrap();
    let error = run(&["--orders", text(folder.path()), "--data", text(&data)]).error();
    assert!(error.contains("b.csv") && error.contains("\"InvoiceNo\""), "{error}");
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let (orders, data) = (folder.path().join("nowhere.csv"), folder.path().join("data"));
    let error = run(&["--orders", text(&orders), "--data", text(&data), "--json"]).error();
    assert!(error.contains(text(&orders)), "{error}");
    let error = run(&["--orders", text(folder.path()), "--data", text(&data), "--json"]).error();
    assert!(error.contains(text(folder.path())) && error.contains("no CSV"), "{error}");
    assert!(!data.exists(), "nothing is created");
}

/// A file that is listed and can't be opened isn't passed over.
#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_refused_by_name() {
    let folder = orders("a.csv", &[COLUMNS, "1,A,a,1,d,2,7,Peru"], "\n");
    std::os::unix::fs::symlink("nowhere", folder.path().join("b.csv")).unwrap();
    fs::create_dir(folder.path().join("c.csv")).unwrap(); // a folder is no file, whatever its name
    let error = run(&["--orders", text(folder.path()), "--json"]).error();
    assert!(error.contains("b.csv"), "{error}");
}

#[test]
fn a_line_that_is_too_long_is_refused_by_name() {
    let long = "x".repeat(2 << 20);
    for line in [format!("2,{long},a,1,d,2,7,Peru"), format!("2,{long},a,none,d,2,7,Peru")] {
        let folder = orders("a.csv", &[COLUMNS, "1,A,a,1,d,2,7,Peru", &line], "\n");
        let error = run(&["--orders", text(folder.path()), "--json"]).error();
        assert!(error.contains("a.csv:3") && error.contains("the limit is"), "{error:.300}");
    }
}

/// Two runs on one folder: the later one is told who has it.
#[test]
fn a_folder_that_another_process_has_open_is_refused_by_name() {
    let data = TempDir::new().unwrap();
    let log = Log::open(data.path()).unwrap();
    let error = run(&["--data", text(data.path()), "--json"]).error();
    assert!(error.contains(text(data.path())) && error.contains(&std::process::id().to_string()), "{error}");
    log.close().unwrap();
}

#[test]
fn a_file_in_the_place_of_the_folder_is_refused_by_name() {
    let folder = orders("a.csv", &[COLUMNS], "\n");
    let file = folder.path().join("a.csv");
    let error = run(&["--orders", text(&file), "--data", text(&file), "--json"]).error();
    assert!(error.contains(text(&file)), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{COLUMNS}\n"), "it is left as it is");
}

/// A folder is damaged in the middle of each topic in turn, and each time the place is told.
#[test]
fn damage_is_told_with_its_place() {
    let lines: Vec<String> =
        (1..400).map(|number| format!("{number},A,a,1,d,{number}00.0{},,Peru", number % 10)).collect();
    let lines: Vec<&str> = [COLUMNS].into_iter().chain(lines.iter().map(String::as_str)).collect();
    let folder = orders("a.csv", &lines, "\n");
    let data = TempDir::new().unwrap();
    let args = ["--orders", text(folder.path()), "--data", text(data.path()), "--json"];
    let json = run(&args).json();
    for topic in ["orders", "reservations", "payments", "shipments", "notifications"] {
        let partition = data.path().join(format!("{topic}-0"));
        let segment = fs::read_dir(partition).unwrap().map(|file| file.unwrap().path());
        let segment = segment.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap();
        let healthy = fs::read(&segment).unwrap();
        let middle = healthy.iter().rposition(|byte| *byte != 0).unwrap() / 2;
        let mut damaged = healthy.clone();
        damaged[middle..middle + 600].fill(0xa5);
        fs::write(&segment, damaged).unwrap();
        let error = run(&args).error();
        assert!(error.contains(text(&segment)) && error.contains("damaged at position"), "{error}");
        fs::write(&segment, healthy).unwrap();
    }
    assert_eq!(run(&args).json(), json, "once the damage is gone, so is the error");
}
