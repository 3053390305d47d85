//! One process at a time: who else opens the folder is told, and a holder that dies leaves no lock behind.
//!
//! A test that needs another process starts this program again with `ROLE` set.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tidelog::{Durability, ErrorKind, Log, Record, TopicConfig};

const ROLE: &str = "TIDELOG_TEST_ROLE";
const DIR: &str = "TIDELOG_TEST_DIR";

fn main() -> ExitCode {
    if let Ok(role) = env::var(ROLE) {
        hold(&role, Path::new(&env::var(DIR).unwrap()));
    }
    let tests = vec![
        test("a_second_log_of_this_process_is_told_so", second_in_this_process),
        test("another_process_is_told_who_has_it_open", other_process),
        test("a_killed_holder_leaves_no_lock", || killed("hold")),
        test("a_killed_holder_leaves_no_lock_to_a_child_it_started", || killed("hold-with-child")),
        test("a_log_that_was_closed_or_dropped_is_free", closed_or_dropped),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn test(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok::<(), Failed>(())
    })
}

/// What the other process does: opens, appends, tells, and holds on until it is killed.
fn hold(role: &str, dir: &Path) -> ! {
    let log = Log::open(dir).unwrap();
    let topic = log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    topic.append_with(Record::new("tea"), Durability::Written).unwrap();
    if role == "hold-with-child" {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut child = child.unwrap();
        println!("child {}", child.id());
        child.wait().unwrap();
    } else {
        println!("child 0");
    }
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// Starts such a process; answers it and its child's id once it holds the log.
fn start(role: &str, dir: &Path) -> (Child, u32) {
    let mut holder = Command::new(env::current_exe().unwrap());
    let mut holder = holder.env(ROLE, role).env(DIR, dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = line.trim().strip_prefix("child ").unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    (holder, child)
}

fn second_in_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let error = Log::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.process_id(), Some(std::process::id()));
    assert_eq!(error.path(), Some(dir.path()));
    assert!(error.to_string().contains("this process"), "{error}");
    // The failed attempt has disturbed nothing.
    log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap().append(Record::new("tea")).unwrap();
    assert_eq!(Log::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    log.close().unwrap();
}

fn other_process() {
    let dir = tempfile::tempdir().unwrap();
    let (mut holder, _) = start("hold", dir.path());
    let error = Log::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.process_id(), Some(holder.id()));
    let message = error.to_string();
    let parts = [dir.path().display().to_string(), holder.id().to_string()];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn killed(role: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (mut holder, child) = start(role, dir.path());
    assert_eq!(Log::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    holder.kill().unwrap();
    holder.wait().unwrap();

    let log = Log::open(dir.path()).unwrap();
    let records = log.topic("orders").unwrap().partition(0).unwrap().read_from(0).unwrap();
    assert_eq!(records.map(Result::unwrap).count(), 1, "what was acknowledged is there");
    log.close().unwrap();
    if role == "hold-with-child" {
        let alive = Command::new("kill").args(["-0", &child.to_string()]).status().unwrap();
        assert!(alive.success(), "the child is to outlive its parent, else this shows nothing");
        assert!(Command::new("kill").arg(child.to_string()).status().unwrap().success());
    }
}

fn closed_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.close().unwrap();
    let again = Log::open(dir.path()).unwrap();
    drop(again);
    let topic = Log::open(dir.path()).unwrap().create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    assert_eq!(Log::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked, "a topic keeps it open");
    drop(topic);
    Log::open(dir.path()).unwrap();
    drop(log);
}
