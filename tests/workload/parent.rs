//! What parents of both kinds do: start a child, listen to it, end it, look at what it left.

use std::{
    io::Read,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use tidelog::{Consumer, ErrorKind, Finding, Log, TopicConfig};

use super::{
    child::{End, Task},
    ledger::{Counts, Ledger},
    message::{How, MESSAGE_BYTES, Message},
    plan::{GROUP, Place, TOPICS, made_topic, open},
};
use crate::common::{Random, process};

/// Longer than a child takes until it is ready.
const LONG: Duration = Duration::from_secs(120);
/// Folders that are worked in at a time.
const WORKERS: usize = 8;
/// Faults that are printed of one folder at most.
const FAULTS_SHOWN: usize = 20;

/// When a child's work is cut short.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    AfterStart(Duration),
    AfterReady(Duration),
}

/// A child at work. Ended when this goes, whatever happens.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    cut: Arc<AtomicBool>,
    ready: Receiver<()>,
    listener: Option<JoinHandle<Heard>>,
}

/// What a child said before and after the power was cut.
type Heard = (Vec<Message>, Vec<Message>);

/// A child that has ended.
pub(crate) struct Ended {
    pub(crate) messages: Vec<Message>,
    /// What was heard after the power was cut.
    pub(crate) late: Vec<Message>,
    pub(crate) status: ExitStatus,
}

impl Running {
    pub(crate) fn start(task: Task, folder: &Path) -> Result<Self, Failed> {
        let started = Instant::now();
        let mut child = process::child(&task.to_text(), folder).stdout(Stdio::piped()).spawn()?;
        let (ready, is_ready) = mpsc::channel();
        let mut pipe = child.stdout.take().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        let listener = thread::spawn(move || {
            let (mut messages, mut late) = (Vec::new(), Vec::new());
            let mut bytes = [0; MESSAGE_BYTES];
            while pipe.read_exact(&mut bytes).is_ok() {
                let message = Message::decode(&bytes);
                if message == Message::Ready {
                    let _ = ready.send(());
                }
                // What was read before the cut was surely said before it.
                let heard = if is_cut.load(Ordering::SeqCst) { &mut late } else { &mut messages };
                heard.push(message);
            }
            (messages, late)
        });
        Ok(Self { child, started, cut, ready: is_ready, listener: Some(listener) })
    }

    /// Waits for the moment. Answers how long it took until the child was ready, if it waited for that.
    pub(crate) fn wait(&self, moment: Moment) -> Result<Option<Duration>, Failed> {
        match moment {
            Moment::AfterStart(delay) => {
                thread::sleep(delay);
                Ok(None)
            }
            Moment::AfterReady(delay) => {
                match self.ready.recv_timeout(LONG) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => return Err("the child hangs".into()),
                    // It ended by itself, which is told by its status.
                    Err(RecvTimeoutError::Disconnected) => return Ok(None),
                }
                let taken = self.started.elapsed();
                thread::sleep(delay);
                Ok(Some(taken))
            }
        }
    }

    /// Whether it still does what it should.
    pub(crate) fn lives(&mut self) -> Result<bool, Failed> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The power is about to be cut: what is heard from now on is late.
    pub(crate) fn expect_cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Kills it; answers what it said and how it ended.
    pub(crate) fn end(mut self) -> Result<Ended, Failed> {
        // If it ended by itself, its status tells.
        let _ = self.child.kill();
        let status = self.child.wait()?;
        let listener = self.listener.take().unwrap();
        let (messages, late) = listener.join().map_err(|_| "the child's messages can't be read")?;
        Ok(Ended { messages, late, status })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Whether it was this signal that ended it.
    pub(crate) fn by(&self, signal: i32) -> bool {
        self.status.signal() == Some(signal)
    }
}

/// One folder, and the lives in it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) random: Random,
    pub(crate) ledger: Ledger,
    /// How long it took lately until a child was ready.
    pub(crate) time_to_ready: Duration,
    /// The last process was killed while it had the log open, not while it opened or closed it.
    pub(crate) killed_at_work: bool,
    pub(crate) end: End,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, random: Random, end: End) -> Self {
        let ledger = match end {
            End::Kill => Ledger::of_kills(true),
            End::KillWithoutPage => Ledger::of_kills(false),
            End::PowerCut => Ledger::of_power_cuts(),
        };
        Self { path, random, ledger, time_to_ready: Duration::from_millis(50), killed_at_work: false, end }
    }

    /// Draws a task and the moment at which it is cut short.
    pub(crate) fn draw(&mut self, round: u64, positional: bool) -> (Task, Moment) {
        let drawn = self.random.below(100);
        let (micros, wide) = (self.random.next(), self.time_to_ready.as_micros() as u64 * 5 / 4 + 1);
        let moment = match drawn {
            0..30 => Moment::AfterStart(Duration::from_micros(micros % wide)),
            30..50 => Moment::AfterReady(Duration::from_micros(micros % 100_000)),
            _ => Moment::AfterReady(Duration::from_micros(5_000 + micros % 55_000)),
        };
        let cycles = (30..50).contains(&drawn);
        (Task { cycles, round, seed: self.random.next(), positional, end: self.end }, moment)
    }

    /// Takes in what a child said that was ended at its work.
    pub(crate) fn hear(&mut self, task: Task, ended: &Ended) {
        self.ledger.hear(&ended.messages, self.killed_at_work);
        self.ledger.hear_late(&ended.late);
        // Whether it was ready, and what it has done since.
        self.killed_at_work = !task.cycles && ended.messages.contains(&Message::Ready);
    }

    pub(crate) fn took(&mut self, time_to_ready: Option<Duration>) {
        if let Some(taken) = time_to_ready {
            self.time_to_ready = (self.time_to_ready * 3 + taken) / 4;
        }
    }

    /// Opens the log here and judges what is there. Closing it makes the next opening a clean one.
    pub(crate) fn look(&mut self, round: u64, positional: bool, everything: bool) -> Result<(), Failed> {
        let log = open(&self.path, positional).map_err(|error| format!("after round {round}: {error}"))?;
        self.judge_recovery(&log)?;
        match consumer(&log) {
            Ok(consumer) => {
                for place in Place::all() {
                    let committed = consumer.committed(place.topic_name(), place.partition)?;
                    self.ledger.found_commit(place, committed);
                }
            }
            // That there is a consumer can't be recorded: what was committed is looked at another time.
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            Err(error) => return Err(error.into()),
        }
        self.ledger.check(&log, everything);
        let made = made_topic(round);
        if self.path.join(format!("{made}-0")).exists() {
            // The child had begun to create it: it is there, or it can be created.
            match log.ensure_topic(&made, TopicConfig::with_partitions(1)) {
                Err(error) if error.kind() != ErrorKind::StorageFull => return Err(error.into()),
                _ => {}
            }
        }
        if self.random.below(2) == 0 {
            log.close()?;
        }
        self.killed_at_work = false;
        Ok(())
    }

    fn judge_recovery(&mut self, log: &Log) -> Result<(), Failed> {
        for found in log.recovery().partitions() {
            let (topic, number) = (found.topic(), found.partition());
            for event in found.events().iter().filter(|event| !self.end.leaves(event)) {
                self.ledger.faults.push(format!("{topic}-{number}: {event}"));
            }
            if let Some(place) = Place::of(topic, number) {
                let end = log.topic(topic)?.partition(number)?.end_offset();
                self.ledger.opened(place, How::of(found.opening()), end, self.killed_at_work);
            }
        }
        for finding in log.recovery().findings() {
            // A creation or a deletion that was cut short.
            let expected = matches!(finding, Finding::OrphanedFolder { .. } | Finding::DeletionFinished { .. });
            if !expected {
                self.ledger.faults.push(finding.to_string());
            }
        }
        Ok(())
    }
}

fn consumer(log: &Log) -> tidelog::Result<Consumer> {
    TOPICS.iter().fold(log.consumer(GROUP), |builder, plan| builder.topic(plan.name)).open()
}

/// The faults of a folder, for a reader.
pub(crate) fn describe(faults: &[String], whereabouts: &str) -> String {
    let shown = faults.iter().take(FAULTS_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    format!("{} faults in {whereabouts}:\n  {shown}", faults.len())
}

/// Does all turns, several at a time: a folder's process sleeps most of the time, or waits for a disk. No more are begun
/// after the first error.
pub(crate) fn take_turns(turns: u64, take: impl Fn(u64) -> Result<(), Failed> + Sync) -> Result<(), Failed> {
    let (next, outcome) = (AtomicU64::new(0), Mutex::new(Ok(())));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while outcome.lock().unwrap().is_ok() {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= turns {
                        return;
                    }
                    if let Err(failed) = take(turn) {
                        *outcome.lock().unwrap() = Err(failed);
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

/// What a turn draws from, whoever takes it.
pub(crate) fn random_of(seed: u64, turn: u64) -> Random {
    let mut random = Random(seed);
    Random(random.next() ^ turn.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A number that an environment variable sets.
pub(crate) fn number(name: &str) -> Result<Option<u64>, String> {
    let parse = |text: String| text.parse().map_err(|error| format!("{name}: {error}"));
    std::env::var(name).ok().map(parse).transpose()
}

/// What everything is drawn from; printed, so that it can be drawn again.
pub(crate) fn seed(test: &str) -> Result<u64, Failed> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = number("TIDELOG_SEED")?.unwrap_or(now.as_nanos() as u64);
    println!("{test}: TIDELOG_SEED={seed}");
    Ok(seed)
}

pub(crate) fn add(total: &mut Counts, counts: &Counts) {
    total.acknowledged += counts.acknowledged;
    total.unacknowledged += counts.unacknowledged;
    total.durable += counts.durable;
    total.deleted += counts.deleted;
    total.commits += counts.commits;
    total.resumed += counts.resumed;
    total.scanned += counts.scanned;
    total.lost_unsynced += counts.lost_unsynced;
    total.lost_durable += counts.lost_durable;
    total.invented += counts.invented;
    total.reused += counts.reused;
    total.holes += counts.holes;
}
