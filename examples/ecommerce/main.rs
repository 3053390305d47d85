//! A shop on tidelog: orders flow through topics, services take them further, and nothing is done twice.
//!
//! ```text
//!                           ┌──────────────── payments ◄──── payment ◄──┐
//!                           ▼                                           │
//! CSV ──► intake ─► orders ─► warehouse ─► reservations ────────────────┘
//!           │                  └─────────► shipments ──► notifications ─► notifications
//!           ├─► refunds
//!           └─► dead-letters               (analytics reads everything)
//! ```
//!
//! Run it without arguments for orders that it makes itself, in a temporary folder. Abort it anywhere (`--crash-after`,
//! or kill it) and run it again on the same `--data`: it goes on, and ends with the same numbers as if nothing had
//! happened. How is told in [`service`] and [`intake`].

mod analytics;
mod events;
mod generate;
mod input;
mod intake;
mod lines;
mod notifications;
mod payment;
mod report;
mod rules;
mod service;
mod shop;
mod warehouse;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tidelog::Log;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// A shop's orders, from intake to delivery, on tidelog.
#[derive(Parser)]
struct Args {
    /// A CSV file of orders, or a folder of them. Without it, orders are made up
    #[arg(long, value_name = "PATH")]
    orders: Option<PathBuf>,
    /// Keep the log in this folder; a later run goes on where the last one ended
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Abort the process once N orders are created, in this run and all before on the same data: as a test
    #[arg(long, value_name = "N")]
    crash_after: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // Bad input is told before anything is created.
    let files = args.orders.as_deref().map(input::find_files).transpose()?;
    let (folder, _temporary) = match &args.data {
        Some(folder) => (folder.clone(), None),
        None => {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let log = Log::open(&folder)?;
    let start = Instant::now();
    let intake = intake::Intake { files, crash_after: args.crash_after, progress: progress_bar()? };
    let (totals, reports) = shop::run(&log, intake)?;
    let elapsed = start.elapsed();
    log.close()?;
    let text = match args.json {
        true => report::json(&totals)?,
        false => report::tables(&totals, &reports, elapsed, report::disk_bytes(&folder)?),
    };
    writeln!(io::stdout(), "{text}").map_err(|error| format!("can't print the result: {error}").into())
}

/// A bar on a terminal, and nothing at all elsewhere.
fn progress_bar() -> Result<ProgressBar> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} lines, {elapsed}")?;
    Ok(ProgressBar::new(0).with_style(style))
}

/// An error with its causes, each told once: some say theirs themselves.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let detail = error.to_string();
        if !text.contains(&detail) {
            text = format!("{text}: {detail}");
        }
        cause = error.source();
    }
    text
}
