//! tidelog beside what the machine allows and the crates that one would pick instead.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- run --out results.json
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- draw results.json peers.svg
//! ```
//!
//! `run` starts this program again for each measurement; see [`run`](mod@run) for how, [`measure`] for what is watched
//! out for, [`peers`] and [`limits`] for who is measured.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark ends where it can't go on")]

use std::{fs, fs::File, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

mod canvas;
#[path = "../../common/mod.rs"]
mod common;
mod draw;
mod limits;
mod measure;
mod peers;
mod results;
mod run;
mod table;
mod workload;

use peers::Peer;
use results::Results;
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
    /// Print the tables of an earlier run.
    Table {
        /// What `run --out` has written.
        results: PathBuf,
    },
    /// Draw an earlier run.
    Draw {
        /// What `run --out` has written.
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
    dir: PathBuf,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::Table { results } => {
            table::print(&load(&results)?);
            Ok(())
        }
        Command::Draw { results, out } => draw::draw(&load(&results)?, &out),
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
    let results = run::run(&Plan { runs, only, peers, records, cap, dir })?;
    if let Some(out) = &out {
        serde_json::to_writer_pretty(File::create(out)?, &results)?;
    }
    table::print(&results);
    Ok(())
}

fn load(path: &PathBuf) -> Result<Results> {
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
        }
    }
}
