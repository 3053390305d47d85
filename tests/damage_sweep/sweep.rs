//! Runs cases on two threads, each with a log of its own, and counts.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tidelog::Opening;

use crate::{
    common::process,
    ground::Ground,
    harm::Harm,
    judge::{Fault, Outcome, judge},
    memory, others, segments, swapped,
    written::{ENDINGS, Ending, make},
};

const THREADS: usize = 2;
/// Bits that are flipped before the next list of them is made.
const SHARE: u64 = 1 << 14;
/// A second open is judged once in so many cases.
const THOROUGHLY: usize = 8;
/// Faults that are printed at most.
const FAULTS_SHOWN: usize = 20;
/// More than that a case must not allocate, beside what the test itself holds.
const MEMORY_BYTES: usize = 32 << 20;

/// How much of all there is.
pub(crate) struct Extent {
    /// What is drawn is drawn from this.
    pub(crate) seed: u64,
    all: bool,
    /// Which share of a long list.
    share: u64,
}

impl Extent {
    pub(crate) fn all(&self) -> bool {
        self.all
    }

    /// Every which is taken.
    pub(crate) fn one_in(&self, sampled: usize) -> usize {
        if self.all { 1 } else { sampled }
    }

    /// The share of a list of `len`, if all of it is wanted.
    pub(crate) fn share(&self, len: u64) -> Option<(u64, u64)> {
        let from = (self.share * SHARE).min(len);
        self.all.then(|| (from, (from + SHARE).min(len)))
    }
}

type Cases = fn(&Ground, &Extent) -> Vec<Harm>;

const GROUPS: [(&str, Cases, bool); 5] = [
    ("bits_of_the_last_frames", segments::active_bits, true),
    ("bits_here_and_there", segments::spread_bits, false),
    ("ends", segments::ends, false),
    ("other_files", others::files, false),
    ("files_of_another_time_or_place", swapped::swaps, false),
];

#[derive(Default)]
struct Counts {
    damages: AtomicU64,
    opened: AtomicU64,
    clean: AtomicU64,
    resumed: AtomicU64,
    scanned: AtomicU64,
    orphaned: AtomicU64,
    refused: AtomicU64,
    unsaid: AtomicU64,
    changed: AtomicU64,
    other: AtomicU64,
    panics: AtomicU64,
    memory: AtomicUsize,
}

static COUNTS: Counts = Counts {
    damages: AtomicU64::new(0),
    opened: AtomicU64::new(0),
    clean: AtomicU64::new(0),
    resumed: AtomicU64::new(0),
    scanned: AtomicU64::new(0),
    orphaned: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    unsaid: AtomicU64::new(0),
    changed: AtomicU64::new(0),
    other: AtomicU64::new(0),
    panics: AtomicU64::new(0),
    memory: AtomicUsize::new(0),
};

pub(crate) fn main() {
    if let Some((task, folder)) = process::child_task() {
        let ending = ENDINGS.into_iter().find(|ending| ending.task() == task).unwrap();
        return make(ending, &folder);
    }
    let all = env::var("TIDELOG_DAMAGE").is_ok_and(|extent| extent == "all");
    let seed = env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_120);
    println!("damage: TIDELOG_SEED={seed}");
    // Also those of the log's own threads.
    std::panic::set_hook(Box::new(|panic| {
        COUNTS.panics.fetch_add(1, Ordering::Relaxed);
        eprintln!("{panic}");
    }));
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (name, cases, is_long) in GROUPS {
        for ending in ENDINGS {
            let trial = move || sweep(ending, cases, &Extent { seed, all, share: 0 }, is_long && all);
            trials.push(Trial::test(format!("{name}_{}", ending.task()), trial));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!("{}", closing_line());
    }
    conclusion.exit();
}

fn closing_line() -> String {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    format!(
        "damages={} opened={} clean={} resumed={} scanned={} orphaned={} refused={} records_missing_unsaid={} changed={} \
         other_faults={} panics={} peak_memory_kib={}",
        get(&COUNTS.damages),
        get(&COUNTS.opened),
        get(&COUNTS.clean),
        get(&COUNTS.resumed),
        get(&COUNTS.scanned),
        get(&COUNTS.orphaned),
        get(&COUNTS.refused),
        get(&COUNTS.unsaid),
        get(&COUNTS.changed),
        get(&COUNTS.other),
        get(&COUNTS.panics),
        COUNTS.memory.load(Ordering::Relaxed) >> 10
    )
}

/// All cases of a list, which may be long and so come in shares.
fn sweep(ending: Ending, cases: Cases, extent: &Extent, is_long: bool) -> Result<(), Failed> {
    let faults = Mutex::new(Vec::new());
    let (next, share) = (AtomicU64::new(0), |share| Extent { share, ..*extent });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (next, faults) = (&next, &faults);
            scope.spawn(move || {
                let ground = Ground::new(ending);
                if is_long {
                    loop {
                        let harms = cases(&ground, &share(next.fetch_add(1, Ordering::Relaxed)));
                        if harms.is_empty() {
                            break;
                        }
                        harms.iter().enumerate().for_each(|(at, harm)| run(&ground, harm, at, faults));
                        eprintln!("{}", closing_line());
                    }
                } else {
                    let harms = cases(&ground, &share(0));
                    let own = harms.iter().enumerate().skip(thread).step_by(THREADS);
                    own.for_each(|(at, harm)| run(&ground, harm, at / THREADS, faults));
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    if faults.is_empty() {
        return Ok(());
    }
    let shown = faults.iter().take(FAULTS_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    Err(format!("{} faults:\n  {shown}", faults.len()).into())
}

/// One case.
fn run(ground: &Ground, harm: &Harm, at: usize, faults: &Mutex<Vec<String>>) {
    ground.restore();
    harm.apply(&ground.log());
    let before = memory::reset();
    let judged = catch_unwind(AssertUnwindSafe(|| judge(ground, harm, at % THOROUGHLY == 0)));
    let used = memory::peak().saturating_sub(before);
    COUNTS.memory.fetch_max(used, Ordering::Relaxed);
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    add(&COUNTS.damages);
    let mut fault = match judged {
        Ok(Ok(outcome)) => {
            add(match outcome {
                Outcome::Opened(_) => &COUNTS.opened,
                Outcome::Orphaned => &COUNTS.orphaned,
                Outcome::Refused => &COUNTS.refused,
            });
            match outcome {
                Outcome::Opened(Opening::Clean) => drop(add(&COUNTS.clean)),
                Outcome::Opened(Opening::Resumed) => drop(add(&COUNTS.resumed)),
                Outcome::Opened(_) => drop(add(&COUNTS.scanned)),
                Outcome::Orphaned | Outcome::Refused => {}
            }
            None
        }
        Ok(Err(fault)) => {
            add(match fault {
                Fault::Unsaid(_) => &COUNTS.unsaid,
                Fault::Changed(_) => &COUNTS.changed,
                Fault::Other(_) => &COUNTS.other,
            });
            let (Fault::Unsaid(detail) | Fault::Changed(detail) | Fault::Other(detail)) = fault;
            Some(detail)
        }
        Err(_) => Some("a panic".to_owned()),
    };
    if fault.is_none() && used > MEMORY_BYTES {
        fault = Some(format!("{used} bytes of memory"));
    }
    if let Some(fault) = fault {
        let change = format!("{:?}", harm.change);
        let change: String = change.chars().take(200).collect();
        let fault = format!("{} {change}: {fault}", harm.path.display());
        // A long run tells at once.
        eprintln!("{fault}");
        faults.lock().unwrap().push(fault);
    }
}
