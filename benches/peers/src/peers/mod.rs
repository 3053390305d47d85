//! Who is measured, and what each has to say of itself.
//!
//! What stands behind a figure comes from the source of the version that `Cargo.lock` names, not from a README; which
//! calls reach the disk was counted with `strace`. Each file below tells what was found.

mod commitlog;
mod fjall;
mod heed;
mod kafko;
mod okaywal;
mod raft_engine;
mod redb;
mod rusqlite;
mod tidelog;
mod wal_db;
mod walrus;
mod yaque;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    limits::Limit,
    measure::{self, Outcome, Reading, Work},
    workload::{Layout, Task, Workload},
};

/// What can be measured. Each process has one.
pub(crate) trait Subject: Sized + Sync {
    /// Records of a batch where the log is only filled, to be read later.
    const FILL_BATCH: usize = crate::common::BATCH;
    /// Whether what was read is consumed, so that a process can read it only once.
    const CONSUMES: bool = false;

    /// What it is measured at, and what it can't do.
    fn cells() -> Vec<Cell>;

    /// Opens what is in the task's folder, or makes it.
    fn open(task: &Task) -> Result<Self>;

    /// Appends all of the work, one record a call, durable if the task says so. Called by several threads at once
    /// where the cell says so; `thread` is the number of this one.
    fn append(&self, work: &mut Work<'_>, thread: usize) -> Result<()>;

    /// Appends all of the work in batches.
    fn append_batches(&self, _work: &mut Work<'_>) -> Result<()> {
        bail!("has no batches")
    }

    /// Reads all records in order.
    fn scan(&self, _reading: &mut Reading<'_>) -> Result<()> {
        bail!("can't be read in order")
    }

    /// Reads the records that are drawn.
    fn look_up(&self, _reading: &mut Reading<'_>) -> Result<()> {
        bail!("can't be read by offset")
    }

    /// Closes it cleanly.
    fn close(self) -> Result<()>;
}

/// What stands behind a figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Guarantee {
    /// Of each record or batch as it is written.
    pub(crate) checksum: Option<&'static str>,
    /// Whether reading verifies it.
    pub(crate) verified: Verified,
    /// Whether a record is on the device when the append returns.
    pub(crate) durable: bool,
    /// Whether it outlives its process, killed when the append has returned.
    pub(crate) survives_kill: bool,
    /// How it was set up, and what is peculiar to it.
    pub(crate) how: &'static str,
}

/// Whether reading verifies the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verified {
    /// Each record, or the batch that it is in, each time.
    Always,
    /// When a block is loaded into a cache of its own.
    WhenLoaded,
    /// Only after a crash.
    OnlyInRecovery,
    Never,
}

/// A workload of a peer: measured, or not.
pub(crate) enum Cell {
    Measured { workload: Workload, variant: &'static str, layout: Layout, threads: usize, guarantee: Guarantee },
    Lacking { workload: Workload, reason: &'static str },
}

impl Cell {
    pub(crate) fn new(workload: Workload, guarantee: Guarantee) -> Self {
        let threads = workload.threads();
        Self::Measured { workload, variant: "", layout: Layout::Batched, threads, guarantee }
    }

    pub(crate) fn lacking(workload: Workload, reason: &'static str) -> Self {
        Self::Lacking { workload, reason }
    }

    pub(crate) fn variant(mut self, name: &'static str) -> Self {
        if let Self::Measured { variant, .. } = &mut self {
            *variant = name;
        }
        self
    }

    /// Reads what was appended one record a call.
    pub(crate) fn lone(mut self) -> Self {
        if let Self::Measured { layout, .. } = &mut self {
            *layout = Layout::Lone;
        }
        self
    }

    pub(crate) fn threads(mut self, count: usize) -> Self {
        if let Self::Measured { threads, .. } = &mut self {
            *threads = count;
        }
        self
    }

    pub(crate) fn workload(&self) -> Workload {
        match self {
            Self::Measured { workload, .. } | Self::Lacking { workload, .. } => *workload,
        }
    }
}

/// The same for several workloads.
pub(crate) fn cells<const N: usize>(workloads: [Workload; N], guarantee: Guarantee) -> impl Iterator<Item = Cell> {
    workloads.into_iter().map(move |workload| Cell::new(workload, guarantee))
}

/// None of these, for one reason.
pub(crate) fn lacking<const N: usize>(workloads: [Workload; N], reason: &'static str) -> impl Iterator<Item = Cell> {
    workloads.into_iter().map(move |workload| Cell::lacking(workload, reason))
}

macro_rules! subjects {
    ($($(#[$doc:meta])* $peer:ident $name:literal $subject:ty,)*) => {
        /// Who is measured, in the order of the tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize)]
        pub(crate) enum Peer {
            $($(#[$doc])* #[value(name = $name)] #[serde(rename = $name)] $peer,)*
        }

        impl Peer {
            pub(crate) const ALL: &[Self] = &[$(Self::$peer),*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$peer => $name),* }
            }

            pub(crate) fn cells(self) -> Vec<Cell> {
                match self { $(Self::$peer => <$subject>::cells()),* }
            }

            /// Measures, in this process.
            pub(crate) fn measure(self, task: &Task, threads: usize) -> Result<Outcome> {
                match self { $(Self::$peer => measure::measure::<$subject>(task, threads)),* }
            }

            /// Fills a log for other processes to read.
            pub(crate) fn fill(self, task: &Task) -> Result<()> {
                match self { $(Self::$peer => measure::fill::<$subject>(task)),* }
            }
        }
    };
}

subjects! {
    /// What the machine allows.
    Limit "limit" Limit,
    Tidelog "tidelog" tidelog::Tidelog,
    Commitlog "commitlog" commitlog::Commitlog,
    Walrus "walrus-rust" walrus::Walrus,
    Okaywal "okaywal" okaywal::Okaywal,
    RaftEngine "raft-engine" raft_engine::RaftEngine,
    WalDb "wal-db" wal_db::WalDb,
    Yaque "yaque" yaque::Yaque,
    Kafko "kafko" kafko::Kafko,
    Fjall "fjall" fjall::Fjall,
    Redb "redb" redb::Redb,
    Rusqlite "rusqlite" rusqlite::Rusqlite,
    Heed "heed" heed::Heed,
}

impl Peer {
    /// Whether it is neither tidelog nor a limit.
    pub(crate) fn is_other(self) -> bool {
        !matches!(self, Self::Limit | Self::Tidelog)
    }
}
