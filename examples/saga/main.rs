//! A trip on tidelog, booked as a saga: a hotel, a ticket and a transfer; or, if one of them fails, none of them.
//!
//! Every decision is a record before it is acted on, and what came of it is one after. So a process may die anywhere:
//! the next one reads what was decided, asks the world again for what nobody noted, under the same key, and goes on.
//! The world does nothing twice for one key. Try it: `--data DIR --crash-at STEP`, and then without the latter.

mod coordinator;
mod trip;
mod world;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, builder::PossibleValuesParser};
use comfy_table::{Table, presets::NOTHING};
use serde::{Serialize, de::DeserializeOwned};
use tidelog::{Durability, Json, Log, Start, TopicConfig, TypedTopic};

use crate::trip::Event;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A trip, booked as a saga. Its transfer fails, so what was booked before is cancelled, the latest first.
#[derive(Parser)]
struct Args {
    /// Nothing fails, and the trip is booked
    #[arg(long)]
    all_well: bool,
    /// Abort the process at this step, if the trip comes to it in this run
    #[arg(long, value_name = "STEP", value_parser = PossibleValuesParser::new(trip::crash_points()))]
    crash_at: Option<String>,
    /// Keep the log in this folder; a later run goes on where the last one ended
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    run(&Args::parse()).inspect_err(|error| eprintln!("error: {error}")).map_or(1.into(), |()| ExitCode::SUCCESS)
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
    // On the device when it is appended: what is done next relies on it.
    let config = TopicConfig::with_partitions(1).durability(Durability::Synced);
    let trips: TypedTopic<Event> = log.ensure_topic("trips", config.clone())?.typed(Json);
    let world: TypedTopic<bool> = log.ensure_topic("world", config)?.typed(Json);
    coordinator::run(&trips, &world, args)?;

    println!("What was decided, and what came of it:\n{}\n", table(&trips, |event| event.describe())?);
    println!("What the world did:\n{}", table(&world, |done| if done { "done" } else { "failed" }.to_owned())?);
    Ok(log.close()?)
}

/// Every record of a topic.
fn table<T: DeserializeOwned + Serialize>(topic: &TypedTopic<T>, describe: fn(T) -> String) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for event in topic.reader(Start::Earliest)? {
        let (record, event) = event?;
        let key = record.key_str()?.unwrap_or_default().to_owned();
        table.add_row([record.offset().to_string(), key, event.map_or_else(String::new, describe)]);
    }
    Ok(table)
}
