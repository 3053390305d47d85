//! Starts children, cuts their power, and looks at what is left.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    common::{mount::skip, process},
    disk::{Cut, Disk, FileSystem},
    judge,
    workload::{
        child::{self, End, Task},
        ledger::Counts,
        message::Message,
        parent::{Ended, Folder, Moment, Running, add, describe, number, random_of, seed, take_turns},
    },
};

/// Cuts before a new file system is made, so that checks stay fast.
const CUTS_A_DISK: u64 = 25;
/// Where it is not ext4: one in so many cuts, and at least so many if there are.
const OTHERS_SHARE: u64 = 5;
const OTHERS_LEAST: u64 = 20;

pub(crate) fn main() {
    if let Some((task, folder)) = process::child_task() {
        return child::main(&task, &folder);
    }
    let arguments = Arguments::from_args();
    let trial = |name: &str, kind| Trial::test(name, move || cut_power(kind));
    let trials = vec![
        trial("ext4_keeps_what_was_synced", FileSystem::Ext4),
        trial("xfs_keeps_what_was_synced", FileSystem::Xfs),
        trial("btrfs_keeps_what_was_synced", FileSystem::Btrfs),
        Trial::test("the_judge_sees_what_is_lost_and_forgives_what_may_be", judge::judge),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    println!("{}", FIGURES.lock().unwrap().join("\n"));
    conclusion.exit();
}

/// A line for each file system that was mounted.
static FIGURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a file system has gone through.
struct Total {
    kind: FileSystem,
    /// Of the file system, and of the device.
    cuts: [u64; 2],
    counts: Counts,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, [shutdowns, devices]) = (self.kind.name(), self.cuts);
        let Counts { acknowledged, durable, deleted, commits, scanned, .. } = self.counts;
        let Counts { lost_unsynced, lost_durable, invented, reused, holes, .. } = self.counts;
        write!(
            f,
            "file_system={name} cuts={} shutdowns={shutdowns} devices={devices} acknowledged={acknowledged} \
             durable={durable} deleted={deleted} commits={commits} scanned={scanned} lost_unsynced={lost_unsynced} \
             lost_durable={lost_durable} invented={invented} reused={reused} holes={holes}",
            shutdowns + devices
        )
    }
}

fn cut_power(kind: FileSystem) -> Result<(), Failed> {
    let all = number("TIDELOG_CUTS")?.unwrap_or(20);
    let cuts = if kind == FileSystem::Ext4 { all } else { all.min(OTHERS_LEAST.max(all / OTHERS_SHARE)) };
    let seed = seed(&format!("power_cut on {}", kind.name()))?;
    // So that there are turns of both ways.
    let cuts_a_disk = CUTS_A_DISK.min(cuts.div_ceil(2)).max(1);
    if let Err(reason) = Disk::new(kind, way_of(kind, 0)) {
        return skip(kind.requirement(), &reason);
    }
    let total = Mutex::new(Total { kind, cuts: [0; 2], counts: Counts::default() });
    let outcome = take_turns(cuts.div_ceil(cuts_a_disk), |turn| {
        let way = way_of(kind, turn);
        let mut disk = Disk::new(kind, way)?;
        let rounds = cuts_a_disk.min(cuts - turn * cuts_a_disk);
        let mut folder = Folder::new(disk.path().join("data"), random_of(seed, turn), End::PowerCut);
        run(&mut folder, &mut disk, rounds)?;
        {
            let mut total = total.lock().unwrap();
            total.cuts[usize::from(way == Cut::Device)] += rounds;
            add(&mut total.counts, &folder.ledger.counts);
        }
        match folder.ledger.faults.is_empty() {
            true => Ok(()),
            false => Err(describe(&folder.ledger.faults, &format!("an image of {} ({way:?})", kind.name())).into()),
        }
    });
    let total = total.into_inner()?;
    FIGURES.lock().unwrap().push(total.to_string());
    outcome?;
    let Counts { durable, lost_unsynced, .. } = total.counts;
    if cuts >= OTHERS_LEAST && (durable == 0 || lost_unsynced == 0) {
        return Err("nothing was durable, or nothing was lost: the test tests nothing".into());
    }
    Ok(())
}

/// Both ways where there are both: Linux shuts btrfs down since 6.19 only.
fn way_of(kind: FileSystem, turn: u64) -> Cut {
    if kind != FileSystem::Btrfs && turn % 2 == 0 { Cut::FileSystem } else { Cut::Device }
}

fn run(folder: &mut Folder, disk: &mut Disk, rounds: u64) -> Result<(), Failed> {
    for round in 0..rounds {
        let positional = folder.random.below(3) == 0;
        let (task, moment) = folder.draw(round, positional);
        let ended = live(folder, disk, task, moment)
            .map_err(|error| format!("round {round}, {moment:?}: {}", error.message().unwrap_or_default()))?;
        folder.hear(task, &ended);
        folder.ledger.cut();
        disk.restart()?;
        let last = round + 1 == rounds;
        if last || folder.random.below(3) > 0 {
            let positional = folder.random.below(3) == 0;
            folder.look(round, positional, last)?;
        }
        if !folder.ledger.faults.is_empty() {
            break;
        }
    }
    Ok(())
}

/// One child's life, and the end of its power.
fn live(folder: &mut Folder, disk: &Disk, task: Task, moment: Moment) -> Result<Ended, Failed> {
    // Either way no call is known to have returned after the cut. A call that is under way when a file system is shut
    // down may say that it is done: fsync races with the end of the journal, and answers 0.
    let killed_first = folder.random.below(2) == 0;
    let lingers = Duration::from_micros(folder.random.below(10_000));
    let (seed, stop, path) = (folder.random.next(), AtomicBool::new(false), folder.path.clone());
    let (ended, time_to_ready) = thread::scope(|scope| {
        let _stirring = Stirring(&stop);
        scope.spawn(|| disk.stir(&path, seed, &stop));
        let mut child = Running::start(task, &path)?;
        let time_to_ready = child.wait(moment)?;
        if !child.lives()? {
            return Err(format!("the child ended by itself: {}", child.end()?.status).into());
        }
        if killed_first {
            let ended = child.end()?;
            disk.cut()?;
            return Ok::<_, Failed>((ended, time_to_ready));
        }
        child.expect_cut();
        disk.cut()?;
        thread::sleep(lingers);
        Ok((child.end()?, time_to_ready))
    })?;
    folder.took(time_to_ready);
    // A store into a page that isn't there any more is answered with that signal.
    if !ended.by(libc::SIGKILL) && (killed_first || !ended.by(libc::SIGBUS)) {
        return Err(format!("the child ended by itself: {}", ended.status).into());
    }
    if let Some(failure) = ended.messages.iter().find(|message| matches!(message, Message::Failed(_))) {
        return Err(format!("the child failed before the cut: {failure:?}").into());
    }
    Ok(ended)
}

/// Ends the stirring when it goes, whatever happens.
struct Stirring<'a>(&'a AtomicBool);

impl Drop for Stirring<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
