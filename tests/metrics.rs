//! Figures: what is documented is emitted and drawn, and what is emitted is true.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/example.rs"]
mod example;
#[path = "common/prometheus.rs"]
mod prometheus;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidelog::{Consumer, Durability, Log, LogOptions, Record, TopicConfig};

use crate::prometheus::{Family, parse};

type Families = BTreeMap<String, Family>;

/// The process has one recorder. Tests are told apart by the label `log`.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let syncs = Matcher::Full("tidelog_sync_duration_seconds".into());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(syncs, &[0.001, 0.01, 0.1]).unwrap();
        builder.install_recorder().unwrap()
    })
}

fn options(log: &str) -> LogOptions {
    recorder();
    Log::options().metrics_label(log).metrics_interval(Duration::from_millis(5)).durability(Durability::Written)
}

/// What is told of the log with this label.
fn figures(log: &str) -> Families {
    let mut families = parse(&recorder().render());
    for family in families.values_mut() {
        family.samples.retain(|sample| sample.has(&[("log", log)]));
    }
    families.retain(|_, family| !family.samples.is_empty());
    families
}

/// Waits until the gauges say so.
#[track_caller]
fn wait_until(log: &str, holds: impl Fn(&Families) -> bool) -> Families {
    let start = Instant::now();
    loop {
        let found = figures(log);
        if holds(&found) {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "never: {found:#?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Name, type, labels and help, by the documentation.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doc/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `tidelog_"));
    let row = |row: &str| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned);
        (cells[0].clone(), (cells[1].clone(), labels.collect(), cells[4].clone()))
    };
    rows.map(row).collect()
}

/// Reads what there is, and commits it.
fn drain(consumer: &mut Consumer) -> usize {
    let mut records = 0;
    loop {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            consumer.commit().unwrap();
            return records;
        }
        records += batch.len();
    }
}

/// Does a bit of everything.
fn work(log: &Log) {
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2).segment_bytes(64 << 10)).unwrap();
    for number in 0..200 {
        topic.append(Record::new(vec![b'x'; 1000]).partition(number % 2)).unwrap();
    }
    topic.flush().unwrap();
    topic.append(Record::new(vec![0; 2 << 20])).unwrap_err();
    let mut one = log.consumer("billing").topic("orders").open().unwrap();
    drain(&mut one);
    let mut two = log.consumer("billing").topic("orders").open().unwrap();
    two.poll(Duration::ZERO).unwrap();
    one.close().unwrap();
    two.close().unwrap();
}

#[test]
fn what_is_documented_is_emitted_and_nothing_else() {
    let log = options("everything").in_memory().open("data").unwrap();
    work(&log);
    let documented = documented();
    let found = wait_until("everything", |found| found.len() >= documented.len());
    let names: BTreeSet<_> = found.keys().collect();
    assert_eq!(names, documented.keys().collect());
    for (name, (kind, labels, help)) in &documented {
        let family = &found[name];
        assert_eq!((&family.kind, &family.help), (kind, help), "{name}");
        for sample in &family.samples {
            let own = sample.labels.keys().filter(|label| !["log", "le"].contains(&&***label)).cloned();
            assert_eq!(own.collect::<BTreeSet<_>>(), *labels, "{sample:?}");
        }
    }
    log.close().unwrap();
}

#[test]
fn counters_count_what_was_done() {
    let log = options("counters").in_memory().open("data").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for number in 0..5 {
        topic.append(Record::new("order").partition(number % 2)).unwrap();
    }
    topic.append_batch((0..10).map(|_| Record::new("order").partition(0))).unwrap();
    topic.append_with(Record::new("order").partition(1), Durability::Synced).unwrap();
    for _ in 0..3 {
        topic.append(Record::new(vec![0; 2 << 20])).unwrap_err();
    }
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(drain(&mut consumer), 16);
    consumer.commit().unwrap(); // nothing new
    let orders = [("topic", "orders")];
    let found = figures("counters");
    assert_eq!(found["tidelog_appends_total"].value(&orders), 7.0);
    assert_eq!(found["tidelog_append_records_total"].value(&orders), 16.0);
    let bytes = found["tidelog_append_bytes_total"].value(&orders);
    assert!(bytes > 16.0 * 5.0 && bytes < 16.0 * 100.0, "{bytes}");
    let syncs = &found["tidelog_sync_duration_seconds"];
    assert_eq!(syncs.samples.iter().filter(|it| it.name.ends_with("_count") && it.has(&orders)).count(), 1);
    assert_eq!(found["tidelog_errors_total"].value(&[("operation", "append"), ("kind", "record_too_large")]), 3.0);
    let read = [("group", "billing"), ("topic", "orders")];
    assert_eq!(found["tidelog_polled_records_total"].value(&read), 16.0);
    assert_eq!(found["tidelog_polled_bytes_total"].value(&read), bytes);
    assert_eq!(found["tidelog_polls_total"].value(&[("group", "billing")]), 2.0);
    assert_eq!(found["tidelog_commits_total"].value(&[("group", "billing")]), 1.0);
    assert_eq!(found["tidelog_rebalances_total"].value(&[("group", "billing")]), 1.0);
    drop(consumer);
    log.close().unwrap();
}

#[test]
fn gauges_follow_what_is() {
    let log = options("gauges").in_memory().open("data").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2).segment_bytes(64 << 10)).unwrap();
    let orders = [("topic", "orders")];
    // No number as long as there is none.
    let find = |found: &Families, name: &str, labels: &[(&str, &str)]| {
        found.get(name).and_then(|family| family.find(labels)).unwrap_or(f64::NAN)
    };
    let value = |found: &Families, name: &str| find(found, name, &orders);
    for number in 0..300 {
        topic.append(Record::new(vec![b'x'; 1000]).partition(number % 2)).unwrap();
    }
    let described = log.describe_topic("orders").unwrap();
    let segments: usize = described.partitions.iter().map(|partition| partition.segments).sum();
    // They are set, and read, one after the other: so all at once in a condition.
    wait_until("gauges", |found| {
        value(found, "tidelog_stored_bytes") == described.bytes() as f64
            && value(found, "tidelog_segments") == segments as f64
            && value(found, "tidelog_partitions") == 2.0
            && value(found, "tidelog_poisoned_partitions") == 0.0
    });
    // `Written`: nobody has asked for a flush, but each eight segments.
    wait_until("gauges", |found| {
        value(found, "tidelog_flush_lag_seconds") > 0.0
            && value(found, "tidelog_flush_lag_bytes") >= 1000.0
            && find(found, "tidelog_open_files", &[]) >= 2.0
    });
    topic.flush().unwrap();
    wait_until("gauges", |found| {
        value(found, "tidelog_flush_lag_seconds") == 0.0 && value(found, "tidelog_flush_lag_bytes") == 0.0
    });

    let lag = |found: &Families, name: &str| find(found, name, &[("group", "billing"), ("topic", "orders")]);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    wait_until("gauges", |found| {
        lag(found, "tidelog_group_lag_records") == 300.0
            && lag(found, "tidelog_group_lag_bytes") > 300_000.0
            && lag(found, "tidelog_group_lag_seconds") > 0.0
            && find(found, "tidelog_group_members", &[("group", "billing")]) == 1.0
    });
    drain(&mut consumer);
    wait_until("gauges", |found| {
        let lags = ["records", "bytes", "seconds"].map(|of| lag(found, &format!("tidelog_group_lag_{of}")));
        lags == [0.0; 3]
    });
    drop(consumer);
    wait_until("gauges", |found| find(found, "tidelog_group_members", &[("group", "billing")]) == 0.0);

    // What goes is zero from then on.
    topic.append(Record::new("last")).unwrap();
    wait_until("gauges", |found| lag(found, "tidelog_group_lag_records") == 1.0);
    log.delete_topic("orders").unwrap();
    wait_until("gauges", |found| {
        value(found, "tidelog_segments") == 0.0 && lag(found, "tidelog_group_lag_records") == 0.0
    });
    log.close().unwrap();
    assert_eq!(figures("gauges")["tidelog_open_files"].value(&[]), 0.0);
}

#[test]
fn partitions_have_series_of_their_own_if_the_options_say_so() {
    let log = options("partitions").metrics_by_partition(true).in_memory().open("data").unwrap();
    work(&log);
    let of = |partition| [("topic", "orders"), ("partition", partition)];
    let found = wait_until("partitions", |found| {
        let caught_up = |partition| {
            let find = |name| found.get(name).and_then(|family: &Family| family.find(&of(partition)));
            find("tidelog_group_lag_records") == Some(0.0) && find("tidelog_partitions") == Some(1.0)
        };
        found.len() >= documented().len() && caught_up("0") && caught_up("1")
    });
    for (name, (_, labels, _)) in documented() {
        let has = found[&name].samples.iter().all(|sample| sample.labels.contains_key("partition"));
        assert_eq!(has, labels.contains("topic"), "{name}");
    }
    for partition in ["0", "1"] {
        assert_eq!(found["tidelog_append_records_total"].value(&of(partition)), 100.0);
    }
    log.close().unwrap();
}

/// Every name in the queries of the dashboard, without what histograms add.
fn names_of_dashboard(dashboard: &serde_json::Value) -> BTreeSet<String> {
    fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    match (&**name, value.as_str()) {
                        ("expr" | "definition", Some(query)) => queries.push(query.to_owned()),
                        _ => collect(value, queries),
                    }
                }
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let mut queries = Vec::new();
    collect(dashboard, &mut queries);
    assert!(queries.len() > 20);
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = queries.iter().flat_map(|query| query.split(|character| !is_part(character)));
    let names = words.filter(|word| word.starts_with("tidelog_"));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

#[test]
fn the_dashboard_draws_every_figure_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/metrics/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(names_of_dashboard(&dashboard), documented().into_keys().collect());

    // What Grafana wants of it.
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(x < 24 && taken.insert((x, y)), "panels overlap: {}", panel["title"]);
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        }
    }
}

/// One request to the example.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn the_example_serves_every_figure_and_ends_by_itself() {
    let program = example::build_with("metrics", &["metrics"]);
    let mut child = std::process::Command::new(program)
        .args(["--for", "4", "--port", "0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("http://").and_then(|rest| rest.split_once('/')).unwrap().0;
    let start = Instant::now();
    let found = loop {
        let (head, body) = get(address, "/metrics");
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
        let found = parse(&body);
        // What it takes a moment for.
        if found.len() == documented().len() || start.elapsed() > Duration::from_millis(3500) {
            break found;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let (head, _) = get(address, "/elsewhere");
    assert!(head.starts_with("HTTP/1.0 404 "), "{head}");
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    assert!(rest.iter().any(|line| line.contains("tidelog_append_records_total{topic=\"orders\"}")), "{rest:?}");
    let names: BTreeSet<_> = found.into_keys().collect();
    let expected: BTreeSet<_> = documented().into_keys().collect();
    assert_eq!(names, expected);
}
