//! A bank's ledger on tidelog: the events are the truth, and every balance is a fold of them. Without arguments it
//! tells a small story: some postings, the balance that they come to, what it was at a given moment, and a fold that
//! was wrong: mended, the same events give the right result, and not one of them has changed. With `--events N` it
//! appends and replays N of them, to show how long that takes.

mod ledger;
mod load;
mod story;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tidelog::Log;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A bank's ledger, replayed: balances now and then, an audit, and a mended mistake.
#[derive(Parser)]
struct Args {
    /// The moment at which to tell the balance, on the day of the story
    #[arg(long, value_name = "HH:MM", default_value = "14:35", value_parser = story::parse_time)]
    at: i64,
    /// The account to audit, 1 or 2
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    account: u32,
    /// Instead of the story, append N events and replay all that are there
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Keep the log in this folder; a later run finds the events there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = run(&Args::parse());
    outcome.inspect_err(|error| eprintln!("error: {error}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn run(args: &Args) -> Result<()> {
    let (folder, _temporary) = match &args.data {
        Some(folder) => (folder.clone(), None),
        None => {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let log = Log::open(&folder)?;
    match args.events {
        Some(count) => load::run(&log, count)?,
        None => story::run(&log, args.at, args.account)?,
    }
    Ok(log.close()?)
}
