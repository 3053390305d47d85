//! A run: all peers at all workloads, several rounds, each measurement in a process of its own.
//!
//! In a round each workload goes through all peers before the next begins, and each round begins with another peer: what
//! the machine does meanwhile hits all of them. Durable appends have all their rounds before anything else is done: a
//! disk to which gigabytes went has slow syncs for a minute, whoever asks for them (a virtual machine's is held to a rate;
//! here a sync took 3 ms instead of 0.1). What is read is appended by one process, and read by others that open
//! it: then nothing is left in the memory of who appended.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    measure::Outcome,
    peers::{Cell, Peer},
    results::{Lacking, Machine, Results, Series, now},
    table,
    workload::{Layout, Workload},
};

/// Opens of W7 in a round.
const OPENS: u32 = 3;
/// Records are a multiple of it, so that they are whole batches for all who fill logs.
const RECORDS_UNIT: u64 = 50_000;

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) runs: u32,
    pub(crate) only: Vec<Workload>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) records: u64,
    pub(crate) cap: Duration,
    pub(crate) dir: Option<PathBuf>,
    /// Whether it is about how a log grows: see [`Task::grows`](crate::workload::Task::grows).
    pub(crate) grows: bool,
}

impl Plan {
    /// Where to make files; it goes with what is returned.
    pub(crate) fn folder(&self) -> Result<TempDir> {
        let parent = self.dir.clone().unwrap_or_else(env::temp_dir);
        Ok(tempfile::Builder::new().prefix("peers-").tempdir_in(parent)?)
    }
}

/// A cell that is measured, and what came of it.
struct Row {
    series: Series,
    layout: Layout,
    threads: usize,
}

/// Runs the plan.
pub(crate) fn run(mut plan: Plan) -> Result<Results> {
    plan.records = plan.records.next_multiple_of(RECORDS_UNIT);
    let dir = plan.folder()?;
    let (start, runs) = (Instant::now(), plan.runs);
    let mut run = Run::new(plan, dir.path());
    for durable in [true, false] {
        if !run.rows.iter().any(|row| row.series.workload.is_durable() == durable) {
            continue;
        }
        for round in 0..runs {
            run.round(dir.path(), round, durable)?;
            let what = if durable { "with sync" } else { "without sync" };
            eprintln!("round {} of {runs} {what} ends after {:.0} s", round + 1, start.elapsed().as_secs_f64());
        }
    }
    dir.close()?;
    Ok(run.into_results())
}

/// A plan, and what came of it so far.
pub(crate) struct Run {
    plan: Plan,
    date: String,
    machine: Machine,
    rows: Vec<Row>,
    lacking: Vec<Lacking>,
}

impl Run {
    /// Nothing is measured yet; it will be in this folder.
    pub(crate) fn new(plan: Plan, dir: &Path) -> Self {
        let (mut rows, mut lacking) = rows(&plan);
        if plan.grows {
            rows.retain(|row| row.series.variant.is_empty());
        }
        lacking.sort_by_key(|lacking| (lacking.workload, lacking.peer));
        Self { plan, date: now(), machine: Machine::this(dir), rows, lacking }
    }

    /// One round of all that is durable, or of all else.
    pub(crate) fn round(&mut self, dir: &Path, round: u32, durable: bool) -> Result<()> {
        let mut peers = self.plan.peers.clone();
        peers.rotate_left(round as usize % self.plan.peers.len().max(1));
        let runner = Runner { plan: &self.plan, dir, round };
        runner.appends(&mut self.rows, &peers, durable)?;
        if durable { Ok(()) } else { runner.reads(&mut self.rows, &peers) }
    }

    pub(crate) fn into_results(self) -> Results {
        let Self { plan, date, machine, rows, lacking } = self;
        let series = rows.into_iter().map(|row| row.series).collect();
        let (runs, records, cap_seconds) = (plan.runs, plan.records, plan.cap.as_secs_f64());
        Results { date, machine, runs, records, cap_seconds, series, lacking }
    }
}

fn rows(plan: &Plan) -> (Vec<Row>, Vec<Lacking>) {
    let (mut rows, mut lacks) = (Vec::new(), Vec::new());
    for &peer in &plan.peers {
        for cell in peer.cells() {
            if !plan.only.is_empty() && !plan.only.contains(&cell.workload()) {
                continue;
            }
            match cell {
                Cell::Measured { workload, variant, layout, threads, guarantee } => {
                    let (variant, guarantee) = (variant.to_owned(), guarantee.into());
                    let series = Series { peer, workload, variant, guarantee, outcomes: Vec::new(), failure: None };
                    rows.push(Row { series, layout, threads });
                }
                Cell::Lacking { workload, reason } => {
                    lacks.push(Lacking { peer, workload, reason: reason.to_owned() });
                }
            }
        }
    }
    (rows, lacks)
}

/// One round.
struct Runner<'r> {
    plan: &'r Plan,
    dir: &'r Path,
    round: u32,
}

impl Runner<'_> {
    fn appends(&self, rows: &mut [Row], peers: &[Peer], durable: bool) -> Result<()> {
        let mut workloads: Vec<_> = rows.iter().map(|row| row.series.workload).collect();
        workloads.retain(|workload| !workload.reads() && workload.is_durable() == durable);
        workloads.sort();
        workloads.dedup();
        for workload in workloads {
            for peer in peers {
                let mine = |row: &&mut Row| row.series.workload == workload && row.series.peer == *peer;
                for row in rows.iter_mut().filter(mine) {
                    self.measure(row);
                    self.clear()?;
                }
            }
        }
        Ok(())
    }

    fn reads(&self, rows: &mut [Row], peers: &[Peer]) -> Result<()> {
        for peer in peers {
            for (bytes, layout) in [(100, Layout::Batched), (100, Layout::Lone), (1024, Layout::Batched)] {
                let mine = |row: &&mut Row| {
                    let workload = row.series.workload;
                    let fits = workload.reads() && workload.payload_bytes() == bytes && row.layout == layout;
                    fits && row.series.peer == *peer
                };
                let mut mine: Vec<_> = rows.iter_mut().filter(mine).collect();
                // Whom it is filled for matters to those only who set up their files for it; all of these are the same.
                let Some(first) = mine.first() else { continue };
                if let Err(error) = self.child("fill", first).map(drop) {
                    mine.iter_mut().for_each(|row| fail(row, &error));
                } else {
                    for row in mine {
                        let times = if row.series.workload == Workload::W7 { OPENS } else { 1 };
                        (0..times).for_each(|_| self.measure(row));
                    }
                }
                self.clear()?;
            }
        }
        Ok(())
    }

    fn measure(&self, row: &mut Row) {
        let told = self.child("measure", row).and_then(|told| {
            let line = told.lines().last().context("a line that tells")?;
            Ok(serde_json::from_str::<Outcome>(line)?)
        });
        match told {
            Ok(outcome) => {
                let workload = row.series.workload;
                let (value, star) =
                    (table::value(workload, outcome.value(workload)), if outcome.capped { "*" } else { "" });
                eprintln!("{:>2}  {workload:<6} {:<46} {value}{star}", self.round + 1, name(row));
                row.series.outcomes.push(outcome);
            }
            Err(error) => fail(row, &error),
        }
    }

    /// Starts this program again; answers what it prints.
    fn child(&self, what: &str, row: &Row) -> Result<String> {
        let dir = self.dir.join("log");
        fs::create_dir_all(&dir)?;
        let mut command = Command::new(env::current_exe()?);
        command.arg(what).arg(row.series.peer.name()).arg(row.series.workload.to_string());
        command.args(["--variant", &row.series.variant]).args(["--threads", &row.threads.to_string()]);
        command.args(["--layout", if row.layout == Layout::Lone { "lone" } else { "batched" }]);
        command.args(["--records", &row.series.workload.records(self.plan.records).to_string()]);
        command.args(self.plan.grows.then_some("--grows"));
        command.args(["--cap-seconds", &self.plan.cap.as_secs_f64().to_string()]).arg("--dir").arg(&dir);
        // Where walrus-rust has its files; and that it prints nothing.
        command.env("WALRUS_DATA_DIR", &dir).env("WALRUS_QUIET", "1").env("RUST_BACKTRACE", "0");
        let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("{what} ended with {}: {told}", output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(self.dir)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }
}

fn fail(row: &mut Row, error: &anyhow::Error) {
    eprintln!("    {:<6} {:<46} FAILED: {error:#}", row.series.workload, name(row));
    row.series.failure = Some(format!("{error:#}"));
}

fn name(row: &Row) -> String {
    table::name(row.series.peer, &row.series.variant)
}
