//! Every stage with every amount of space, in steps of a block: so each write that a stage consists of is once the first
//! that finds none. On each file system that can be mounted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use libtest_mimic::Failed;
use tidelog::{
    Consumer, Durability, Error, ErrorKind, Log, LogOptions, Partition, Record, RecoveryEvent, Start, TopicConfig,
};

use crate::common::{
    POSITIONAL, append,
    mount::{Ballast, Mount, skip},
    process::{child, kill_myself, run_killed_child},
    value_of,
};
use crate::linux::{LEVELS, check_full};

/// Bytes of a record's value.
const VALUE_BYTES: usize = 1000;
const BLOCK: u64 = 4096;
/// The most points of a stage.
const MOST_POINTS: u64 = 160;
/// Points at which everything fitted, after which there is no more to find.
const FITTING: u64 = 3;
/// What is left of a disk for all points: more than any takes.
const ROOM: u64 = 6 << 20;

/// Stages, points, and what was acknowledged and is lost, by all children.
static FIGURES: Mutex<(u64, u64, u64)> = Mutex::new((0, 0, 0));

/// Indexes are made by a roll, and anew where caches are missing; the checkpoint is written by all but the first two.
pub(crate) const STAGES: [&str; 13] = [
    "append",
    "batch",
    "roll",
    "commit",
    "topic",
    "partitions",
    "flush",
    "delete records",
    "close",
    "open",
    "open without caches",
    "open killed",
    "open torn",
];

/// Stages that can't be done without new space.
const TAKE_SPACE: [&str; 6] = ["append", "batch", "roll", "commit", "topic", "partitions"];

/// A file system, how it is made, the bytes that it takes at least, and the blocks from one point to the next.
pub(crate) type Kind = (&'static str, &'static [&'static str], u64, u64);

pub(crate) const FILE_SYSTEMS: [Kind; 4] = [
    ("tmpfs", &[], 16 << 20, 1),
    ("ext4", &["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"], 24 << 20, 1),
    ("xfs", &["mkfs.xfs", "-q", "-f"], 300 << 20, 1),
    // Which sets whole stretches aside before it writes a block; and which may find, as late as in a sync, that it has
    // no space for what it took. That is a failed sync, after which the log is opened again.
    ("btrfs", &["mkfs.btrfs", "-q", "--mixed"], 112 << 20, 64),
];

/// One line over all that ran.
pub(crate) fn figures() -> String {
    let (stages, points, lost) = *FIGURES.lock().unwrap();
    format!("full_disk_stages={stages} points={points} lost={lost}")
}

/// Sweeps all stages on one file system.
pub(crate) fn on((kind, make, bytes, step): Kind) -> Result<(), Failed> {
    let mounted = match make.split_first() {
        None => Mount::new(kind, &format!("size={bytes}")),
        Some((program, arguments)) => Mount::in_memory(Command::new(program).args(arguments), kind, bytes),
    };
    let disk = match mounted {
        Ok(disk) => disk,
        Err(reason) => return skip("mount", &reason),
    };
    leave_room(disk.path())?;
    for stage in STAGES {
        let task = format!("sweep {step} {stage}");
        let output = child(&task, disk.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{kind}: {task}: {}\n{said}", output.status).into());
        }
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        println!("{kind}: {stage}: {said}");
        let figure = |name: &str| said.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
        let (points, lost) = figure("points=").zip(figure("lost=")).ok_or("no figures")?;
        let mut figures = FIGURES.lock().unwrap();
        *figures = (figures.0 + 1, figures.1 + points, figures.2 + lost);
        if lost > 0 {
            return Err(format!("{kind}: {stage}: {said}").into());
        }
    }
    Ok(())
}

/// Takes most of the disk's space for good, so that the rest is soon taken.
fn leave_room(folder: &Path) -> Result<(), Failed> {
    let found = rustix::fs::statvfs(folder)?;
    let padding = (found.f_bavail * found.f_frsize).saturating_sub(ROOM);
    let file = fs::File::create(folder.join("padding"))?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, padding)?;
    Ok(file.sync_all()?)
}

/// Small segments.
fn options() -> LogOptions {
    Log::options().segment_bytes(64 << 10)
}

fn partition(log: &Log) -> Partition {
    log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap()
}

fn consumer(log: &Log) -> tidelog::Result<Consumer> {
    log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()
}

/// The child: one stage, with more and more space.
pub(crate) fn sweep(task: &str, folder: &Path) {
    let (step, stage) = task.split_once(' ').unwrap();
    let (mut points, mut refused, mut served, mut lost) = (0, 0, 0, 0);
    for blocks in (0..MOST_POINTS).map(|point| point * step.parse::<u64>().unwrap()) {
        let mut point = Point::prepare(stage, folder);
        let whole = point.run(stage, blocks);
        point.look_again(stage, blocks);
        points += 1;
        lost += point.lost;
        if whole {
            served += 1
        } else {
            refused += 1
        }
        if served == FITTING {
            break;
        }
    }
    assert!(served > 0, "{stage}: no space was enough in {points} points");
    assert!(refused > 0 || !TAKE_SPACE.contains(&stage), "{stage}: the disk wasn't full at any of {points} points");
    println!("points={points} refused={refused} lost={lost}");
}

/// The process that is killed with a log open.
pub(crate) fn die(data: &Path) {
    let log = options().open(data).unwrap();
    append(&partition(&log), 30..50, VALUE_BYTES);
    kill_myself();
}

/// A log, and what is to be found in it.
struct Point {
    folder: PathBuf,
    data: PathBuf,
    /// Numbers that were acknowledged, in order.
    acknowledged: Vec<u64>,
    committed: u64,
    topics: usize,
    /// The end of the log may be torn.
    torn: bool,
    /// A sync has failed: on a file system that copies on write.
    poisoned: bool,
    /// Acknowledged records and commits that weren't found.
    lost: u64,
}

impl Point {
    /// With all the space there is.
    fn prepare(stage: &str, folder: &Path) -> Self {
        let data = folder.join("data");
        let _ = fs::remove_dir_all(&data);
        // Some file systems give space back when all is written.
        rustix::fs::syncfs(fs::File::open(folder).unwrap()).unwrap();
        let log = options().open(&data).unwrap();
        append(&partition(&log), 0..30, VALUE_BYTES);
        consumer(&log).unwrap().commit_offsets([("orders", 0, 7)]).unwrap();
        log.close().unwrap();
        let mut acknowledged: Vec<u64> = (0..30).collect();
        if matches!(stage, "open killed" | "open torn") {
            run_killed_child("sweep-die", &data).unwrap();
            acknowledged.extend(30..50);
        }
        if stage == "open torn" {
            tear(&data.join("orders-0"));
            acknowledged.pop();
        }
        if stage == "open without caches" {
            let folders = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
            let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
            let is_cache =
                |path: &PathBuf| path.extension().is_some_and(|it| it == "index" || it == "timeindex" || it == "state");
            files.filter(is_cache).for_each(|path| fs::remove_file(path).unwrap());
        }
        let torn = stage == "open torn";
        Self { folder: folder.into(), data, acknowledged, committed: 7, topics: 1, torn, poisoned: false, lost: 0 }
    }

    /// The stage, with so many blocks; false if there weren't enough. Afterwards there is space, and all goes on.
    fn run(&mut self, stage: &str, blocks: u64) -> bool {
        let opens = stage.starts_with("open");
        let mut log = (!opens).then(|| options().open(&self.data).unwrap());
        let mut group = (stage == "commit").then(|| consumer(log.as_ref().unwrap()).unwrap());
        if let ("close" | "flush", Some(log)) = (stage, &log) {
            append(&partition(log), 30..50, VALUE_BYTES);
            self.acknowledged.extend(30..50);
        }
        let ballast = Ballast::all_but(&self.folder, blocks * BLOCK);
        let whole = match (stage, &log) {
            ("append" | "roll", Some(log)) => self.append(&partition(log), if stage == "roll" { 120 } else { 20 }),
            ("batch", Some(log)) => self.append_batch(&partition(log)),
            ("commit", _) => self.commit(group.as_mut().unwrap()),
            ("topic", Some(log)) => self.fits(log.create_topic("more", TopicConfig::with_partitions(2)).map(drop), 1),
            ("partitions", Some(log)) => self.fits(log.increase_partitions("orders", 3).map(drop), 0),
            ("flush", Some(log)) => self.fits(log.flush(), 0),
            ("delete records", Some(log)) => self.delete_records(&partition(log)),
            ("close", Some(log)) => self.fits(log.close(), 0),
            _ => {
                log = Some(options().open(&self.data).unwrap());
                let uncut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::UncutTail { .. });
                let recovery = log.as_ref().unwrap().recovery();
                let waits = recovery.partitions().iter().flat_map(|found| found.events()).any(uncut);
                let poisons = |event: &RecoveryEvent| matches!(event, RecoveryEvent::StillPoisoned { .. });
                let poisoned = recovery.partitions().iter().flat_map(|found| found.events()).any(poisons);
                assert!(!poisoned || is_copy_on_write(&self.folder), "{recovery:?}");
                self.poisoned |= poisoned;
                let told = self.torn || self.poisoned || recovery.is_clean();
                assert!(told, "{recovery:?}");
                let whole = self.append(&partition(log.as_ref().unwrap()), 20);
                assert!(!(waits && whole) || POSITIONAL || blocks > 0, "what couldn't be copied aside was cut");
                whole
            }
        };
        let log = log.unwrap();
        if stage != "close" {
            self.check(&partition_of(&log));
        }
        ballast.remove();
        drop(group);
        if stage == "close" || self.poisoned {
            // What a failed sync has left open stays so.
            let _ = log.close();
            return whole;
        }
        if let Err(error) = self.go_on(stage, &log, whole) {
            // What was taken before may be found wanting as late as now.
            let late = matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned) && is_copy_on_write(&self.folder);
            assert!(late, "{stage}, {blocks} blocks, with space again: {error}");
            self.poisoned = true;
            let _ = log.close();
            return whole;
        }
        log.close().unwrap();
        whole
    }

    /// There is space again.
    fn go_on(&mut self, stage: &str, log: &Log, whole: bool) -> tidelog::Result<()> {
        let partition = partition_of(log);
        partition.append_with(Record::new(value_of(9_999, VALUE_BYTES)), Durability::Synced)?;
        self.acknowledged.push(9_999);
        self.check(&partition);
        let mut group = consumer(log)?;
        let offset = if self.committed == 8 { 9 } else { 8 };
        group.commit_offsets([("orders", 0, offset)])?;
        self.committed = offset;
        if stage == "topic" && !whole {
            log.create_topic("more", TopicConfig::with_partitions(2))?;
            self.topics += 1;
        }
        Ok(())
    }

    fn append(&mut self, partition: &Partition, records: u64) -> bool {
        for number in 100..100 + records {
            let level = LEVELS[number as usize % LEVELS.len()];
            match partition.append_with(Record::new(value_of(number, VALUE_BYTES)), level) {
                Ok(_) => self.acknowledged.push(number),
                Err(error) => return self.refused(&error),
            }
        }
        true
    }

    /// Takes note of an error. On a full disk there is one kind.
    fn refused(&mut self, error: &Error) -> bool {
        let late = matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned);
        if late && is_copy_on_write(&self.folder) {
            self.poisoned = true;
        } else {
            check_full(error);
        }
        false
    }

    /// One frame: all or nothing.
    fn append_batch(&mut self, partition: &Partition) -> bool {
        let records = || (100..140).map(|number| Record::new(value_of(number, VALUE_BYTES)));
        let outcome = partition.append_batch(records());
        if outcome.is_ok() {
            self.acknowledged.extend(100..140);
        }
        self.fits(outcome.map(drop), 0)
    }

    /// The start is where it was, or where it was to be.
    fn delete_records(&mut self, partition: &Partition) -> bool {
        let outcome = partition.delete_records(20);
        let start = partition.start_offset();
        assert!(start == 20 || (start == 0 && outcome.is_err()), "{start}: {outcome:?}");
        // Nothing went before, so the first number has the first offset.
        self.acknowledged.drain(..start as usize);
        self.fits(outcome.map(drop), 0)
    }

    fn commit(&mut self, group: &mut Consumer) -> bool {
        // To and fro, so that there is always something to commit; enough to leave a block, and a reserved step.
        for round in 0..1200 {
            let offset = 10 + round % 2;
            match group.commit_offsets([("orders", 0, offset)]) {
                Ok(()) => self.committed = offset,
                Err(error) => {
                    assert_eq!(group.committed("orders", 0).unwrap(), Some(self.committed));
                    return self.refused(&error);
                }
            }
        }
        true
    }

    /// Whether it came about; if not, for lack of space.
    fn fits(&mut self, outcome: tidelog::Result<()>, topics: usize) -> bool {
        match outcome {
            Ok(()) => {
                self.topics += topics;
                true
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Everything is readable, and nothing else.
    fn check(&mut self, partition: &Partition) {
        let found = partition.read_from(partition.start_offset()).unwrap().map(|record| {
            let record = record.unwrap();
            let number = u64::from_le_bytes(record.value().unwrap()[..8].try_into().unwrap());
            assert_eq!(record.value(), Some(&*value_of(number, VALUE_BYTES)));
            number
        });
        let mut found = found.collect::<Vec<_>>();
        if self.poisoned {
            // What a sync had failed for is there, and wasn't acknowledged.
            found.retain(|number| self.acknowledged.contains(number));
        }
        let missing = self.acknowledged.iter().filter(|number| !found.contains(number)).count();
        self.lost += missing as u64;
        assert!(missing > 0 || found == self.acknowledged, "{found:?} in place of {:?}", self.acknowledged);
    }

    /// After a clean close, or one that had no space.
    fn look_again(&mut self, stage: &str, blocks: u64) {
        let log = options().open(&self.data).unwrap();
        let events = log.recovery().partitions().iter().flat_map(|found| found.events());
        let others = events.filter(|event| !(self.poisoned && matches!(event, RecoveryEvent::Rewritten { .. })));
        assert_eq!(others.count(), 0, "{stage}, {blocks} blocks: {:?}", log.recovery());
        self.check(&partition_of(&log));
        let committed = consumer(&log).unwrap().committed("orders", 0).unwrap();
        self.lost += u64::from(committed != Some(self.committed));
        assert_eq!(log.topics().len(), self.topics, "{stage}, {blocks}");
        log.close().unwrap();
    }
}

/// The topic may have more partitions by now.
fn partition_of(log: &Log) -> Partition {
    log.topic("orders").unwrap().partition(0).unwrap()
}

/// Whether it is btrfs.
fn is_copy_on_write(folder: &Path) -> bool {
    rustix::fs::statfs(folder).unwrap().f_type as u32 == 0x9123_683e
}

/// As if the power had gone: without the control page, and with the last frame torn.
fn tear(folder: &Path) {
    let _ = fs::remove_file(folder.join("partition.state"));
    let segments = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    // In place: where the blocks are is what this is about.
    bytes[end - 500] ^= 0xff;
    let file = fs::OpenOptions::new().write(true).open(&last).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[end - 500..end - 499], end as u64 - 500).unwrap();
    file.sync_all().unwrap();
}
