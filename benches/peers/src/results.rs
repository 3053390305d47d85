//! What a run has found: kept as JSON, with when and where.

use std::{fs, path::Path, process::Command, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    measure::{Outcome, Size},
    peers::{Guarantee, Peer, Verified},
    workload::Workload,
};

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When it began, in UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) runs: u32,
    /// Of 100 bytes, in logs that are read.
    pub(crate) records: u64,
    pub(crate) cap_seconds: f64,
    pub(crate) series: Vec<Series>,
    pub(crate) lacking: Vec<Lacking>,
}

/// What was found at each size of a log that grows, in the order that was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) sizes: Vec<Results>,
}

/// What is in a file of results.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Kept {
    Run(Results),
    Growth(Growth),
}

/// Where it ran.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Of the folder that was measured in.
    pub(crate) file_system: String,
    /// Of tidelog, with a + where files were changed since.
    pub(crate) commit: String,
}

/// The runs of one peer at one workload in one way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) peer: Peer,
    pub(crate) workload: Workload,
    pub(crate) variant: String,
    pub(crate) guarantee: Stated,
    pub(crate) outcomes: Vec<Outcome>,
    /// Why a run of it failed.
    pub(crate) failure: Option<String>,
}

/// A guarantee, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stated {
    pub(crate) checksum: Option<String>,
    pub(crate) verified: Verified,
    pub(crate) durable: bool,
    pub(crate) survives_kill: bool,
    pub(crate) how: String,
}

impl From<Guarantee> for Stated {
    fn from(guarantee: Guarantee) -> Self {
        Self {
            checksum: guarantee.checksum.map(str::to_owned),
            verified: guarantee.verified,
            durable: guarantee.durable,
            survives_kill: guarantee.survives_kill,
            how: guarantee.how.to_owned(),
        }
    }
}

/// What a peer can't do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lacking {
    pub(crate) peer: Peer,
    pub(crate) workload: Workload,
    pub(crate) reason: String,
}

/// The middle of several runs, and how far they lie apart: records a second, or seconds where opening is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    pub(crate) capped: bool,
}

impl Spread {
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { min: self.min * factor, median: self.median * factor, max: self.max * factor, ..self }
    }
}

impl Series {
    pub(crate) fn spread(&self) -> Option<Spread> {
        let mut values: Vec<_> = self.outcomes.iter().map(|outcome| outcome.value(self.workload)).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let capped = self.outcomes.iter().any(|outcome| outcome.capped);
        Some(Spread { min, median: median(&values), max, capped })
    }

    /// Bytes on the disk for each of payload: the middle of the runs.
    pub(crate) fn size(&self) -> Option<f64> {
        let ratio = |size: Size| size.disk_bytes as f64 / size.payload_bytes as f64;
        let mut ratios: Vec<_> = self.outcomes.iter().filter_map(|outcome| outcome.size.map(ratio)).collect();
        ratios.sort_by(f64::total_cmp);
        (!ratios.is_empty()).then(|| median(&ratios))
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

impl Machine {
    /// This one, whose disk is that of a folder.
    pub(crate) fn this(dir: &Path) -> Self {
        let uname = rustix::system::uname();
        let field = |path, name| field_of(path, name).unwrap_or_else(|| "unknown".into());
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (memory_kibibytes("MemTotal").unwrap_or(0) + (1 << 19)) >> 20,
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            file_system: file_system(dir).unwrap_or_else(|| "unknown".into()),
            commit: commit().unwrap_or_else(|| "unknown".into()),
        }
    }
}

/// What the kernel says of memory by this name.
pub(crate) fn memory_kibibytes(name: &str) -> Option<u64> {
    field_of("/proc/meminfo", name)?.split(' ').next()?.parse().ok()
}

/// Now, in UTC, to the minute.
pub(crate) fn now() -> String {
    let text = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("{} UTC", text[..16].replace('T', " "))
}

fn field_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system that is mounted closest above a folder.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut closest = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        let depth = Path::new(place).components().count();
        if dir.starts_with(place) && closest.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            closest = Some((depth, kind.to_owned()));
        }
    }
    closest.map(|(_, kind)| kind)
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}
