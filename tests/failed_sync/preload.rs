//! Any one sync fails: that of each file and folder that is synced, by a preloaded [library](../library.rs).

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use libtest_mimic::Failed;
use tidelog::RecoveryEvent;

use crate::{
    child::options,
    common::{
        Random,
        mount::{run, skip},
    },
    judge::{FIGURES, Judge, Undue},
};

/// What is done, and with what the syncs fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Plan {
    /// Works, and closes its log.
    Close,
    /// Works, and is killed.
    Die,
    /// Works, and is killed inside the call.
    DieInside,
    /// Opens what a killed process left.
    Open,
    /// Opens what a process left whose sync failed.
    OpenPoisoned,
    /// As `Open`, and is killed inside the call.
    OpenAndDieInside,
}

const PLANS: [Plan; 6] =
    [Plan::Close, Plan::Die, Plan::DieInside, Plan::Open, Plan::OpenPoisoned, Plan::OpenAndDieInside];

impl Plan {
    /// What the child does.
    fn task(self) -> &'static str {
        match self {
            Self::Close => "close 1000",
            Self::Die | Self::DieInside => "die 1000",
            Self::Open | Self::OpenPoisoned | Self::OpenAndDieInside => "open 0",
        }
    }

    fn how(self) -> &'static str {
        if matches!(self, Self::DieInside | Self::OpenAndDieInside) { "kill" } else { "error" }
    }
}

/// The library, built.
pub(crate) struct Library {
    folder: tempfile::TempDir,
}

impl Library {
    /// Compiles it, with the compiler that this was compiled with.
    pub(crate) fn build() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let source = folder.path().join("library.rs");
        fs::write(&source, include_str!("library.rs")).map_err(|error| error.to_string())?;
        let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(compiler);
        command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"]);
        run(command.arg(folder.path().join("library.so")).arg(source))?;
        Ok(Self { folder })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What a process needs in its environment for the `n`-th of these calls to fail.
    pub(crate) fn environment(&self, calls: &str, part: &str, n: u64, how: &str) -> Vec<(&'static str, String)> {
        let _ = fs::remove_file(self.log());
        vec![
            ("LD_PRELOAD", self.folder.path().join("library.so").display().to_string()),
            ("TIDELOG_FAULT", format!("{calls}\t{part}\t{n}\t{how}")),
            ("TIDELOG_FAULT_LOG", self.log().display().to_string()),
        ]
    }

    /// The calls that the library has told of, with their files.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }
}

/// Call and part of a path by which the library finds it, with how many there are.
type Places = BTreeMap<(String, String), u64>;

/// Runs each plan once without a failure, to see which syncs there are.
fn places(library: &Library) -> Result<BTreeMap<Plan, Places>, Failed> {
    let mut all = BTreeMap::new();
    for plan in PLANS {
        let root = scratch()?;
        let folder = prepared(plan, root.path(), library)?;
        Judge::default().run(plan.task(), &folder, &library.environment("any", &text(&folder), 0, "tell"))?;
        let mut places = Places::new();
        for (calls, path) in library.told() {
            *places.entry((calls, part_of(&path, &text(&folder)))).or_default() += 1;
        }
        assert!(places.len() > 3, "{plan:?}: the library saw {places:?}");
        all.insert(plan, places);
    }
    Ok(all)
}

/// A folder in memory, where there is such: what is durable doesn't matter here, and the syncs that succeed take no time.
fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The part of a path that is the same in each run: the temporary name of a topic's file has a random number in it.
fn part_of(path: &str, folder: &str) -> String {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    inside.find("topics/topic-").map_or(inside, |at| &inside[..at + "topics/topic-".len()]).to_owned()
}

/// A folder as the plan's process finds it. What was said of it so far isn't of interest, but for being there.
fn prepared(plan: Plan, root: &Path, library: &Library) -> Result<PathBuf, Failed> {
    Ok(prepare(plan, root, library)?.0)
}

fn prepare(plan: Plan, root: &Path, library: &Library) -> Result<(PathBuf, Judge), Failed> {
    let folder = root.join("data");
    let mut judge = Judge::default();
    judge.run("close 0", &folder, &[])?;
    match plan {
        Plan::Close | Plan::Die | Plan::DieInside => {}
        Plan::Open | Plan::OpenAndDieInside => drop(judge.run("die 500", &folder, &[])?),
        Plan::OpenPoisoned => {
            let segment = library.environment("sync", "/orders-0/0", 5, "error");
            judge.run("die 500", &folder, &segment)?;
            if !judge.poisoned.contains("orders-0") {
                return Err("a sync of a segment failed, and its partition isn't poisoned".into());
            }
        }
    }
    Ok((folder, judge))
}

/// Has one sync fail, and judges what is left. False if the process had fewer of them this time.
fn fail_one(library: &Library, plan: Plan, (calls, part): &(String, String), n: u64) -> Result<bool, Failed> {
    let root = scratch()?;
    let (folder, mut judge) = prepare(plan, root.path(), library)?;
    let full = if part.is_empty() { text(&folder) } else { part.clone() };
    let status = judge.run(plan.task(), &folder, &library.environment(calls, &full, n, plan.how()))?;
    let told = library.told();
    let Some((_, path)) = told.first() else { return Ok(false) };
    let killed = status.signal() == Some(libc::SIGKILL);
    let expected = matches!(plan, Plan::Die | Plan::DieInside | Plan::OpenAndDieInside);
    if killed != expected {
        return Err(format!("it ended with {status}").into());
    }
    {
        let mut figures = FIGURES.lock().unwrap();
        figures.failures += 1;
        figures.killed += u64::from(plan.how() == "kill");
    }
    // Where the process ends before it appends again, nobody was told; the mark is there all the same.
    let partition = Path::new(path).strip_prefix(&folder).ok().and_then(|inside| inside.iter().next());
    let mut undue = partition.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if plan == Plan::OpenPoisoned && !undue.contains('-') {
        // The log's folder, or that of topics: before a partition is opened, or behind all of them.
        judge.poisoned.clear();
        undue = "orders-0".to_owned();
    } else if plan == Plan::OpenPoisoned {
        // Opening has mended what was poisoned, unless the failure came in between.
        judge.poisoned.retain(|folder| *folder == undue);
        let mended_first = judge.poisoned.is_empty() || path.ends_with("/partition.checkpoint");
        if mended_first {
            judge.poisoned.clear();
        }
    }
    judge.judge(&folder, Undue::Rewritten(&undue)).map(|()| true).map_err(Failed::from)
}

pub(crate) fn any_sync() -> Result<(), Failed> {
    let library = match Library::build() {
        Ok(library) => library,
        Err(reason) => return skip("preload", &reason),
    };
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let wanted = number("TIDELOG_SYNC_FAILURES")?.unwrap_or(120);
    let seed = number("TIDELOG_SEED")?.unwrap_or(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64);
    println!("failed_sync: TIDELOG_SEED={seed}");
    let mut random = Random(seed);
    let all: Vec<_> = places(&library)?
        .into_iter()
        .flat_map(|(plan, places)| places.into_iter().map(move |(place, count)| (plan, place, count)))
        .collect();
    let (mut failed, mut tried) = (0, 0);
    let first = random.below(all.len() as u64) as usize;
    while failed < wanted {
        let (plan, place, count) = &all[(first + tried) % all.len()];
        // The first of its kind, then any.
        let n = if tried < all.len() { 1 } else { 1 + random.below(*count) };
        tried += 1;
        let outcome = fail_one(&library, *plan, place, n);
        let named =
            |error: Failed| format!("{plan:?}, {place:?}, {n} of {count}: {}", error.message().unwrap_or_default());
        failed += u64::from(outcome.map_err(named)?);
        if tried as u64 > 10 * wanted + 100 {
            return Err(format!("of {tried} failures only {failed} came about").into());
        }
    }
    let figures = *FIGURES.lock().unwrap();
    if wanted >= all.len() as u64 && (figures.poisoned == 0 || figures.rewritten == 0) {
        return Err(format!("the test tests nothing: {figures}").into());
    }
    Ok(())
}

/// An error in reading one of its two slots, while the other one is sound.
pub(crate) fn unreadable_slot() -> Result<(), Failed> {
    let library = match Library::build() {
        Ok(library) => library,
        Err(reason) => return skip("preload", &reason),
    };
    for position in [0, 4096] {
        let root = scratch()?;
        let (folder, mut judge) = prepare(Plan::Open, root.path(), &library)?;
        let calls = format!("read@{position}");
        let environment = library.environment(&calls, "/orders-0/partition.checkpoint", 1, "error");
        judge.run("slot 0", &folder, &environment)?;
        if library.told().len() != 1 {
            return Err(format!("{calls}: {:?}", library.told()).into());
        }
        judge.judge(&folder, Undue::None)?;
    }
    Ok(())
}

/// What the child of [`unreadable_slot`] does.
pub(crate) fn open_with_one_slot(folder: &Path) {
    let log = options().open(folder).unwrap();
    let events: Vec<_> = log.recovery().partitions().iter().flat_map(|found| found.events()).collect();
    match events[..] {
        [RecoveryEvent::CheckpointSlotLost { file, detail }] => {
            assert!(file.ends_with("orders-0/partition.checkpoint") && detail.contains("can't be read"), "{detail}");
        }
        ref events => panic!("{events:?}"),
    }
    log.close().unwrap();
}
