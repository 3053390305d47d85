//! The child that opens a hostile folder and does with it what a program does, with little memory.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use libtest_mimic::Failed;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidelog::{Durability, Error, ErrorKind, Log, Partition, Record, TopicConfig};

use crate::{
    common::{process::run_child, value_of},
    folder::{SEGMENT_BYTES, VALUE_BYTES},
};

/// What a child may have of memory that isn't a file's. A test binary takes a few MiB, each thread's stack 2.
const MEMORY_BYTES: u64 = 96 << 20;
/// Errors that are gone on behind, of one partition.
const MAX_ERRORS: usize = 1000;
const OPEN: &str = "open";
/// As another user, who may read nothing.
pub(crate) const AS_NOBODY: &str = "as nobody";
const NOBODY: u32 = 65_534;

static VISITS: AtomicU64 = AtomicU64::new(0);
static OPENED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// What came of a visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    /// The kind of the error, if the log was refused.
    pub(crate) refused: Option<String>,
    /// Records that could be read, as they were written.
    pub(crate) read: u64,
    /// Records that are something else.
    pub(crate) others: u64,
    /// Whether anything was told: by the report, or by an error of reading.
    pub(crate) told: bool,
    /// Kinds of errors of what was done with the open log.
    pub(crate) errors: BTreeSet<String>,
}

impl Visit {
    pub(crate) fn is_refused_by(&self, kinds: &[ErrorKind]) -> bool {
        self.refused.as_ref().is_some_and(|refused| kinds.iter().any(|kind| format!("{kind:?}") == *refused))
    }
}

/// Counts of all visits.
pub(crate) fn closing_line() -> String {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (visits, opened, refused) = (get(&VISITS), get(&OPENED), get(&REFUSED));
    format!(
        "hostile_folders={visits} opened={opened} refused={refused} ended_otherwise={} memory_mib={}",
        visits - opened - refused,
        MEMORY_BYTES >> 20
    )
}

/// Has the folder visited by a child.
pub(crate) fn visit(log: &Path, what: &str) -> Result<Visit, Failed> {
    visit_as(OPEN, log, what)
}

pub(crate) fn visit_as(task: &str, log: &Path, what: &str) -> Result<Visit, Failed> {
    VISITS.fetch_add(1, Ordering::Relaxed);
    let answer = log.with_extension("answer");
    let _ = fs::remove_file(&answer);
    run_child(task, log).map_err(|error| format!("{what}: {error}"))?;
    let text = fs::read_to_string(&answer)?;
    let (refused, rest) = text.split_once('|').unwrap();
    let [read, others, told, errors] = rest.split('|').collect::<Vec<_>>().try_into().unwrap();
    let refused = (!refused.is_empty()).then(|| refused.to_owned());
    let counted = if refused.is_some() { &REFUSED } else { &OPENED };
    counted.fetch_add(1, Ordering::Relaxed);
    Ok(Visit {
        refused,
        read: read.parse()?,
        others: others.parse()?,
        told: told == "true",
        errors: errors.split_whitespace().map(str::to_owned).collect(),
    })
}

/// The child.
pub(crate) fn main(task: &str, folder: &Path) {
    let answer = fs::File::create(folder.with_extension("answer")).unwrap();
    let limit = getrlimit(Resource::Data);
    setrlimit(Resource::Data, Rlimit { current: Some(MEMORY_BYTES), ..limit }).unwrap();
    if task == AS_NOBODY {
        // SAFETY: nothing but this process's own user changes, and no other thread runs yet.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
    }
    let visit = look(folder);
    let errors: Vec<_> = visit.errors.into_iter().collect();
    let Visit { refused, read, others, told, .. } = visit;
    let text = format!("{}|{read}|{others}|{told}|{}", refused.unwrap_or_default(), errors.join(" "));
    std::os::unix::fs::FileExt::write_all_at(&answer, text.as_bytes(), 0).unwrap();
}

fn kind(error: &Error) -> String {
    assert!(!error.to_string().is_empty());
    format!("{:?}", error.kind())
}

/// Opens, reads, appends, commits, creates, deletes, closes.
fn look(folder: &Path) -> Visit {
    let mut visit = Visit { refused: None, read: 0, others: 0, told: false, errors: BTreeSet::new() };
    let options = Log::options().segment_bytes(SEGMENT_BYTES).durability(Durability::Written);
    let log = match options.open(folder) {
        Ok(log) => log,
        Err(error) => return Visit { refused: Some(kind(&error)), told: true, ..visit },
    };
    visit.told = !log.recovery().is_clean();
    // All can be put into words.
    let _ = format!("{:?} {:?}", log.recovery().partitions(), log.recovery().findings());
    if let Ok(topic) = log.topic("orders") {
        for number in 0..topic.partitions() {
            let partition = topic.partition(number).unwrap();
            read(&partition, &mut visit);
            note(&mut visit, look_up_times(&partition));
            for at in 0..600 {
                let appended = partition.append(Record::new(value_of(at, VALUE_BYTES)));
                assert!(appended.as_ref().is_ok_and(|at| at.offset < 1 << 63) || appended.is_err());
                if let Err(error) = appended {
                    visit.errors.insert(kind(&error));
                    break;
                }
            }
        }
    }
    note(&mut visit, commit(&log));
    note(&mut visit, log.create_topic("fresh", TopicConfig::with_partitions(1)).map(drop));
    note(&mut visit, log.enforce_retention().map(drop));
    note(&mut visit, log.flush());
    if folder.with_extension("delete").exists() {
        note(&mut visit, log.delete_topic("orders"));
    }
    note(&mut visit, log.close());
    visit
}

fn note(visit: &mut Visit, outcome: Result<(), Error>) {
    visit.errors.extend(outcome.err().map(|error| kind(&error)));
}

fn read(partition: &Partition, visit: &mut Visit) {
    let mut records = match partition.read_from(partition.start_offset()) {
        Ok(records) => records,
        Err(error) => {
            visit.errors.insert(kind(&error));
            return;
        }
    };
    for _ in 0..MAX_ERRORS {
        for record in records.by_ref() {
            match record {
                Ok(record) => {
                    let intact = record.value() == Some(&*value_of(record.offset(), VALUE_BYTES));
                    visit.read += u64::from(intact);
                    visit.others += u64::from(!intact);
                }
                Err(error) => {
                    visit.told = true;
                    visit.errors.insert(kind(&error));
                    let Some(resume) = error.resume_offset() else { return };
                    if records.seek(resume).is_err() {
                        return;
                    }
                    break;
                }
            }
        }
        if records.position() >= partition.end_offset() {
            return;
        }
    }
}

fn look_up_times(partition: &Partition) -> Result<(), Error> {
    for time_ms in [i64::MIN, 0, 1_700_000_000_000, i64::MAX] {
        partition.offset_for_time(time_ms)?;
    }
    Ok(())
}

fn commit(log: &Log) -> Result<(), Error> {
    let mut consumer = log.consumer("billing").topic("orders").open()?;
    let outcome = consumer.poll(std::time::Duration::ZERO).map(drop);
    consumer.commit()?;
    outcome
}
