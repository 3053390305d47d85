//! Starts children, kills them, and looks at what they leave.

use std::{
    env,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;
use tidelog::{Consumer, ErrorKind, Log, RecoveryEvent, TopicConfig};

use crate::{
    child::{self, Task},
    common::{
        Random, is_believable,
        mount::{Mount, skip},
        process,
    },
    ledger::{Counts, Ledger},
    plan::{GROUP, How, MESSAGE_BYTES, Message, Place, TOPICS, made_topic, open},
};

/// Kills before a new folder is begun, so that checks stay fast.
const KILLS_A_FOLDER: u64 = 50;
/// A memory file system.
const MEMORY: &str = "/dev/shm";
/// Faults that are printed of one folder at most.
const FAULTS_SHOWN: usize = 20;

pub(crate) fn main() {
    if let Some((task, folder)) = process::child_task() {
        return child::main(&task, &folder);
    }
    let arguments = Arguments::from_args();
    let trial = Trial::test("killed_processes_lose_nothing_that_they_acknowledged", kill_children);
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

fn kill_children() -> Result<(), Failed> {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let kills = number("TIDELOG_KILLS").map_err(|error| format!("TIDELOG_KILLS: {error}"))?.unwrap_or(200);
    let seed = match number("TIDELOG_SEED").map_err(|error| format!("TIDELOG_SEED: {error}"))? {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
    };
    println!("kill: TIDELOG_SEED={seed}");
    let mut random = Random(seed);
    let mut total = Counts::default();
    let mut killed = 0;
    while killed < kills {
        let folder = Ground::choose(killed / KILLS_A_FOLDER)?;
        let rounds = KILLS_A_FOLDER.min(kills - killed);
        let ledger = Folder::new(folder.path(), &mut random).run(rounds)?;
        killed += rounds;
        add(&mut total, &ledger.counts);
        if !ledger.faults.is_empty() {
            let shown = ledger.faults.iter().take(FAULTS_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n  ");
            println!("{}", closing_line(killed, &total));
            return Err(format!("{} faults in {}:\n  {shown}", ledger.faults.len(), folder.keep()).into());
        }
    }
    println!("{}", closing_line(killed, &total));
    if total.acknowledged == 0 || total.resumed == 0 {
        return Err("nothing was acknowledged, or nothing resumed: the test tests nothing".into());
    }
    Ok(())
}

/// Where a folder is.
enum Ground {
    Folder(TempDir),
    SmallDisk(Mount),
}

impl Ground {
    /// The disk, a memory file system (where the disk's slow syncs don't hide fast races), a disk that gets full.
    fn choose(turn: u64) -> Result<Self, Failed> {
        match turn % 4 {
            1 if Path::new(MEMORY).is_dir() => Ok(Self::Folder(tempfile::tempdir_in(MEMORY)?)),
            3 => match Mount::new("tmpfs", "size=8m") {
                Ok(mount) => Ok(Self::SmallDisk(mount)),
                Err(reason) => {
                    skip("mount", &format!("no kills on a full disk: {reason}"))?;
                    Ok(Self::Folder(tempfile::tempdir()?))
                }
            },
            _ => Ok(Self::Folder(tempfile::tempdir()?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder.path(),
            Self::SmallDisk(mount) => mount.path(),
        }
    }

    /// Leaves what is there to be looked at, where that is possible; says where.
    fn keep(self) -> String {
        match self {
            Self::Folder(folder) => folder.keep().display().to_string(),
            Self::SmallDisk(_) => "a small disk".into(),
        }
    }
}

fn closing_line(kills: u64, counts: &Counts) -> String {
    let Counts { acknowledged, unacknowledged, commits, resumed, scanned, lost, invented, reused } = counts;
    format!(
        "kills={kills} acknowledged={acknowledged} unacknowledged={unacknowledged} commits={commits} \
         resumed={resumed} scanned={scanned} lost={lost} invented={invented} reused={reused}"
    )
}

fn add(total: &mut Counts, counts: &Counts) {
    total.acknowledged += counts.acknowledged;
    total.unacknowledged += counts.unacknowledged;
    total.commits += counts.commits;
    total.resumed += counts.resumed;
    total.scanned += counts.scanned;
    total.lost += counts.lost;
    total.invented += counts.invented;
    total.reused += counts.reused;
}

/// One folder, and the rounds in it.
struct Folder<'a> {
    path: PathBuf,
    random: &'a mut Random,
    ledger: Ledger,
    /// How long it took lately until a child was ready.
    time_to_ready: Duration,
    /// The last process was killed while it had the log open, not while it opened or closed it.
    killed_at_work: bool,
}

/// When a child is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    AfterStart(Duration),
    AfterReady(Duration),
}

impl<'a> Folder<'a> {
    fn new(path: &Path, random: &'a mut Random) -> Self {
        Self {
            path: path.join("data"),
            random,
            ledger: Ledger::new(is_believable(path)),
            time_to_ready: Duration::from_millis(50),
            killed_at_work: false,
        }
    }

    fn run(mut self, rounds: u64) -> Result<Ledger, Failed> {
        for round in 0..rounds {
            self.round(round)?;
            let last = round + 1 == rounds;
            if last || self.random.below(2) == 0 {
                self.look(round, last)?;
            }
            if !self.ledger.faults.is_empty() {
                break;
            }
        }
        Ok(self.ledger)
    }

    /// One child's life.
    fn round(&mut self, round: u64) -> Result<(), Failed> {
        let drawn = self.random.below(100);
        let (micros, wide) = (self.random.next(), self.time_to_ready.as_micros() as u64 * 5 / 4 + 1);
        let moment = match drawn {
            0..30 => Moment::AfterStart(Duration::from_micros(micros % wide)),
            30..50 => Moment::AfterReady(Duration::from_micros(micros % 100_000)),
            _ => Moment::AfterReady(Duration::from_micros(5_000 + micros % 55_000)),
        };
        let task = Task { cycles: (30..50).contains(&drawn), round, seed: self.random.next() };
        let messages = self.live(&task, moment).map_err(|error| format!("round {round}, {moment:?}: {error:?}"))?;
        self.ledger.hear(&messages, self.killed_at_work);
        // Whether it was ready, and what it has done since.
        self.killed_at_work = !task.cycles && messages.contains(&Message::Ready);
        Ok(())
    }

    /// Runs a child and kills it; answers what it said.
    fn live(&mut self, task: &Task, moment: Moment) -> Result<Vec<Message>, Failed> {
        let started = Instant::now();
        let mut child = process::child(&task.to_text(), &self.path).stdout(Stdio::piped()).spawn()?;
        let (ready, is_ready) = mpsc::channel();
        let listener = listen(&mut child, ready);
        match moment {
            Moment::AfterStart(delay) => thread::sleep(delay),
            Moment::AfterReady(delay) => {
                if is_ready.recv_timeout(Duration::from_secs(60)).is_ok() {
                    self.time_to_ready = (self.time_to_ready * 3 + started.elapsed()) / 4;
                    thread::sleep(delay);
                }
            }
        }
        // If it ended by itself, this is an error, or changes nothing.
        let _ = child.kill();
        let status = child.wait()?;
        let messages = listener.join().map_err(|_| "the child's messages can't be read")?;
        match std::os::unix::process::ExitStatusExt::signal(&status) {
            Some(libc::SIGKILL) => Ok(messages),
            _ => Err(format!("the child ended by itself: {status}").into()),
        }
    }

    /// Opens the log here and judges what is there. Closing it makes the next opening a clean one.
    fn look(&mut self, round: u64, everything: bool) -> Result<(), Failed> {
        let log = open(&self.path).map_err(|error| format!("after round {round}: {error}"))?;
        for found in log.recovery().partitions() {
            let (topic, number) = (found.topic(), found.partition());
            let cut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::TornTail(_));
            // What a scan cuts is a record that was being written, so it is fine where only a scan is possible.
            if let Some(event) = found.events().iter().find(|event| !cut(event) || self.ledger.strict) {
                self.ledger.faults.push(format!("{topic}-{number}: {event}"));
            }
            if let Some(place) = Place::of(topic, number) {
                let end = log.topic(topic)?.partition(number)?.end_offset();
                self.ledger.opened(place, How::of(found.opening()), end, self.killed_at_work);
            }
        }
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
}

fn consumer(log: &Log) -> tidelog::Result<Consumer> {
    TOPICS.iter().fold(log.consumer(GROUP), |builder, (name, _)| builder.topic(*name)).open()
}

/// Reads what the child says until its end of the pipe is gone; tells when it is ready.
fn listen(child: &mut Child, ready: mpsc::Sender<()>) -> JoinHandle<Vec<Message>> {
    let mut pipe = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut messages = Vec::new();
        let mut bytes = [0; MESSAGE_BYTES];
        while pipe.read_exact(&mut bytes).is_ok() {
            let message = Message::decode(&bytes);
            if message == Message::Ready {
                let _ = ready.send(());
            }
            messages.push(message);
        }
        messages
    })
}
