//! Starts children, kills them, and looks at what they leave.

use std::{path::Path, sync::Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

use crate::{
    common::{
        Random, is_believable,
        mount::{Mount, skip},
        process,
    },
    workload::{
        child::{self, End},
        ledger::Counts,
        parent::{Folder, Running, add, describe, number, random_of, seed, take_turns},
    },
};

/// Kills before a new folder is begun, so that checks stay fast.
const KILLS_A_FOLDER: u64 = 50;
/// A memory file system.
const MEMORY: &str = "/dev/shm";

/// What all that ran came to.
static FIGURES: Mutex<String> = Mutex::new(String::new());

pub(crate) fn main() {
    if let Some((task, folder)) = process::child_task() {
        return child::main(&task, &folder);
    }
    let arguments = Arguments::from_args();
    let trial = Trial::test("killed_processes_lose_nothing_that_they_acknowledged", kill_children);
    let conclusion = libtest_mimic::run(&arguments, vec![trial]);
    println!("{}", FIGURES.lock().unwrap());
    conclusion.exit();
}

fn kill_children() -> Result<(), Failed> {
    let kills = number("TIDELOG_KILLS")?.unwrap_or(200);
    let (seed, total) = (seed("kill")?, Mutex::new((0, Counts::default())));
    let outcome = take_turns(kills.div_ceil(KILLS_A_FOLDER), |turn| {
        let ground = Ground::choose(turn)?;
        let mode = Mode::choose(turn, &ground);
        let rounds = KILLS_A_FOLDER.min(kills - turn * KILLS_A_FOLDER);
        let end = mode.end(ground.path());
        let mut folder = Folder::new(ground.path().join("data"), random_of(seed, turn), end);
        run(&mut folder, mode, rounds)?;
        {
            let mut total = total.lock().unwrap();
            total.0 += rounds;
            add(&mut total.1, &folder.ledger.counts);
        }
        match folder.ledger.faults.is_empty() {
            true => Ok(()),
            false => Err(describe(&folder.ledger.faults, &format!("{} ({mode:?})", ground.keep())).into()),
        }
    });
    let (killed, counts) = total.into_inner()?;
    *FIGURES.lock().unwrap() = closing_line(killed, &counts);
    outcome?;
    if counts.acknowledged == 0 || counts.resumed == 0 {
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
    /// A memory file system (where slow syncs don't hide fast races), the disk, a disk that gets full.
    fn choose(turn: u64) -> Result<Self, Failed> {
        match turn % 4 {
            0 | 2 if Path::new(MEMORY).is_dir() => Ok(Self::Folder(tempfile::tempdir_in(MEMORY)?)),
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

/// How a folder's processes append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Mapped,
    Positional,
    /// Now so, now so.
    Both,
}

impl Mode {
    /// Each on every ground, but for a disk that gets full: there is no room to copy aside what a scan cuts there, so
    /// opening is an error until there is.
    fn choose(turn: u64, ground: &Ground) -> Self {
        match ground {
            Ground::SmallDisk(_) => Self::Mapped,
            Ground::Folder(_) => [Self::Mapped, Self::Positional, Self::Both][turn as usize % 3],
        }
    }

    fn end(self, folder: &Path) -> End {
        if self == Self::Mapped && is_believable(folder) { End::Kill } else { End::KillWithoutPage }
    }

    fn is_positional(self, random: &mut Random) -> bool {
        match self {
            Self::Mapped => false,
            Self::Positional => true,
            Self::Both => random.below(2) == 0,
        }
    }
}

fn closing_line(kills: u64, counts: &Counts) -> String {
    let Counts { acknowledged, unacknowledged, deleted, commits, resumed, scanned, .. } = counts;
    let Counts { lost_durable: lost, invented, reused, .. } = counts;
    format!(
        "kills={kills} acknowledged={acknowledged} unacknowledged={unacknowledged} deleted={deleted} \
         commits={commits} resumed={resumed} scanned={scanned} lost={lost} invented={invented} reused={reused}"
    )
}

fn run(folder: &mut Folder, mode: Mode, rounds: u64) -> Result<(), Failed> {
    for round in 0..rounds {
        let positional = mode.is_positional(&mut folder.random);
        let (task, moment) = folder.draw(round, positional);
        let child = Running::start(task, &folder.path)?;
        let time_to_ready = child.wait(moment)?;
        let ended = child.end()?;
        folder.took(time_to_ready);
        if !ended.by(libc::SIGKILL) {
            return Err(format!("round {round}, {moment:?}: the child ended by itself: {}", ended.status).into());
        }
        folder.hear(task, &ended);
        let last = round + 1 == rounds;
        if last || folder.random.below(2) == 0 {
            let positional = mode.is_positional(&mut folder.random);
            folder.look(round, positional, last)?;
        }
        if !folder.ledger.faults.is_empty() {
            break;
        }
    }
    Ok(())
}
