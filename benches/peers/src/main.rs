//! tidelog beside what the machine allows and the crates that one would pick instead.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- run --out results.json
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- draw results.json peers.svg
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- grow --out growth.json
//! ```
//!
//! `run` starts this program again for each measurement; see [`run`](mod@run) for how, [`measure`] for what is watched
//! out for, [`peers`] and [`limits`] for who is measured, [`grow`](mod@grow) for logs that become large.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark ends where it can't go on")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

mod canvas;
#[path = "../../common/mod.rs"]
mod common;
mod draw;
mod draw_growth;
mod grow;
mod limits;
mod measure;
mod peers;
mod results;
mod run;
mod table;
mod workload;

use peers::Peer;
use results::Kept;
use run::Plan;
use workload::{Layout, Task, Workload};

/// tidelog beside what the machine allows and the crates that one would pick instead.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print the tables.
    Run(RunArguments),
    /// Measure tidelog and its limit as the log grows, and print a table.
    Grow(GrowArguments),
    /// Print the tables of an earlier run.
    Table {
        /// What `run --out` or `grow --out` has written.
        results: PathBuf,
    },
    /// Draw an earlier run.
    Draw {
        /// What `run --out` or `grow --out` has written.
        results: PathBuf,
        /// The SVG.
        out: PathBuf,
    },
    /// Measure one thing in this process, and print it as JSON.
    #[command(hide = true)]
    Measure(TaskArguments),
    /// Fill a log that others read.
    #[command(hide = true)]
    Fill(TaskArguments),
}

#[derive(Args)]
struct RunArguments {
    /// How often each is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Only these peers; "limit" and "tidelog" are two of them.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Records of 100 bytes in a log; those of 1 KiB are a fifth, durable ones fewer.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// A measurement is ended after so long.
    #[arg(long, default_value_t = 2.0)]
    cap_seconds: f64,
    /// Where to make files: on the disk that is to be measured. By default the system's folder for temporary ones.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where to keep the results.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct GrowArguments {
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Records of the log.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000,100000000")]
    sizes: Vec<u64>,
    /// Only these workloads, of W1, W5, W6 and W7.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// A measurement is ended after so long; what comes before it isn't.
    #[arg(long, default_value_t = 60.0)]
    cap_seconds: f64,
    /// Where to make files: on the disk that is to be measured. By default the system's folder for temporary ones.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where to keep the results.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct TaskArguments {
    peer: Peer,
    workload: Workload,
    #[arg(long, default_value = "")]
    variant: String,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value = "batched")]
    layout: Layout,
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    #[arg(long, default_value_t = 2.0)]
    cap_seconds: f64,
    #[arg(long)]
    grows: bool,
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::Grow(arguments) => grow(arguments),
        Command::Table { results } => print(&load(&results)?),
        Command::Draw { results, out } => match load(&results)? {
            Kept::Run(results) => draw::draw(&results, &out),
            Kept::Growth(growth) => draw_growth::draw(&growth, &out),
        },
        Command::Measure(arguments) => {
            let outcome = arguments.peer.measure(&arguments.task(false), arguments.threads)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Command::Fill(arguments) => arguments.peer.fill(&arguments.task(true)),
    }
}

fn run(arguments: RunArguments) -> Result<()> {
    ensure!(arguments.runs > 0, "at least one run");
    let peers = if arguments.peers.is_empty() { Peer::ALL.to_vec() } else { arguments.peers };
    let RunArguments { runs, only, records, cap_seconds, dir, out, .. } = arguments;
    let cap = Duration::try_from_secs_f64(cap_seconds)?;
    let results = run::run(Plan { runs, only, peers, records, cap, dir, grows: false })?;
    keep_and_print(&Kept::Run(results), out.as_deref())
}

fn grow(arguments: GrowArguments) -> Result<()> {
    let GrowArguments { runs, sizes, mut only, cap_seconds, dir, out } = arguments;
    ensure!(runs > 0, "at least one run");
    ensure!(sizes.iter().all(|&size| size > 0 && size.is_multiple_of(common::BATCH as u64)), "sizes in whole batches");
    ensure!(only.iter().all(|workload| grow::WORKLOADS.contains(workload)), "only W1, W5, W6 and W7");
    if only.is_empty() {
        only = grow::WORKLOADS.to_vec();
    }
    let cap = Duration::try_from_secs_f64(cap_seconds)?;
    let plan = |&records| {
        let (only, peers, dir) = (only.clone(), grow::PEERS.to_vec(), dir.clone());
        Plan { runs, only, peers, records, cap, dir, grows: true }
    };
    let growth = grow::grow(sizes.iter().map(plan).collect())?;
    keep_and_print(&Kept::Growth(growth), out.as_deref())
}

fn keep_and_print(kept: &Kept, out: Option<&Path>) -> Result<()> {
    if let Some(out) = out {
        serde_json::to_writer_pretty(File::create(out)?, kept)?;
    }
    print(kept)
}

fn print(kept: &Kept) -> Result<()> {
    match kept {
        Kept::Run(results) => {
            table::print(results);
            Ok(())
        }
        Kept::Growth(growth) => grow::print(growth),
    }
}

fn load(path: &Path) -> Result<Kept> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

impl TaskArguments {
    fn task(&self, fills: bool) -> Task {
        Task {
            workload: self.workload,
            variant: self.variant.clone(),
            dir: self.dir.clone(),
            records: self.records,
            cap: Duration::from_secs_f64(self.cap_seconds),
            layout: self.layout,
            fills,
            batch: common::BATCH,
            grows: self.grows,
        }
    }
}
