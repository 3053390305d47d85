//! Looks into a log's folder that nobody has open: what is in it, whether all of it is as it was written, and, if it
//! isn't, mends it.
//!
//! ```text
//! inspect dump data --show records --topic orders --partition 0 --from 1000 --limit 20
//! inspect verify data
//! inspect repair data --json
//! ```
//!
//! With `--json` each line is one JSON object, with its `type`; the last one of `verify` and `repair` is the summary.
//! It ends with 0 if all is sound, 1 if there were findings (of `repair`: if some are left), 2 on an error.

mod dump;
mod format;

use std::{io::Write, ops::ControlFlow, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use comfy_table::{Table, presets::NOTHING};
use serde_json::{Value, json};
use tidelog::{Log, VerifyFinding, VerifyReport};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Looks into the folder of a log that nobody has open.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Print what is in the files, changing nothing
    Dump(dump::Filter),
    /// Read everything and tell what isn't as it was written, changing nothing
    Verify { folder: PathBuf },
    /// Set damaged records aside, after a copy, and mend what can be mended
    Repair { folder: PathBuf },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let out = Output { json: args.json };
    let outcome = match &args.command {
        Command::Dump(filter) => dump::run(filter, &out),
        Command::Verify { folder } => verify(folder, &out),
        Command::Repair { folder } => repair(folder, &out),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints rows, as a table or as lines of JSON.
struct Output {
    json: bool,
}

impl Output {
    /// Rows of the same columns; each is one JSON object of the given type.
    fn rows(&self, kind: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<Value>>) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(columns.iter().map(|column| column.replace('_', " ")));
        for row in rows {
            if self.json {
                let mut object = serde_json::Map::from_iter([("type".to_owned(), kind.into())]);
                object.extend(columns.iter().map(|&column| column.to_owned()).zip(row));
                writeln!(stdout, "{}", Value::Object(object))?;
            } else {
                table.add_row(row.iter().map(text));
            }
        }
        if !self.json && !table.is_empty() {
            writeln!(stdout, "{}", table.trim_fmt())?;
        }
        Ok(())
    }

    fn line(&self, line: &str) {
        if !self.json {
            println!("{line}");
        }
    }
}

/// A value as a cell of a table.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Answers whether the log is sound.
fn verify(folder: &PathBuf, out: &Output) -> Result<bool> {
    let mut told = 0;
    let report = Log::options().verify_with(folder, |progress| {
        if progress.bytes >= told + (256 << 20) {
            told = progress.bytes;
            eprintln!("{} of {} MiB", progress.bytes >> 20, progress.total_bytes >> 20);
        }
        ControlFlow::Continue(())
    })?;
    print_report(&report, out)?;
    Ok(report.is_sound())
}

/// Answers whether the log is sound now.
fn repair(folder: &PathBuf, out: &Output) -> Result<bool> {
    let report = Log::options().repair(folder)?;
    let recovery = report.recovery();
    let found = recovery.findings().iter().map(|finding| vec![Value::Null, finding.to_string().into()]);
    let events = recovery.partitions().iter().flat_map(|partition| {
        let name = format!("{}-{}", partition.topic(), partition.partition());
        partition.events().iter().map(move |event| vec![name.clone().into(), event.to_string().into()])
    });
    out.rows("recovery", &["partition", "what"], found.chain(events))?;
    out.rows("action", &["what"], report.actions().iter().map(|action| vec![action.to_string().into()]))?;
    if report.is_idle() {
        out.line("nothing to mend");
    }
    print_report(report.after(), out)?;
    Ok(report.after().is_sound())
}

fn print_report(report: &VerifyReport, out: &Output) -> Result<()> {
    let range =
        |range: Option<std::ops::Range<u64>>| range.map_or(Value::Null, |range| json!([range.start, range.end]));
    let row = |finding: &VerifyFinding| {
        let path = finding.path().map_or(Value::Null, |path| path.display().to_string().into());
        vec![finding.name().into(), path, range(finding.range()), range(finding.offsets()), finding.to_string().into()]
    };
    if out.json {
        let columns = ["finding", "path", "bytes", "offsets", "what"];
        out.rows("finding", &columns, report.findings().iter().map(row))?;
    } else {
        report.findings().iter().for_each(|finding| println!("{}: {finding}", finding.name()));
    }
    let columns = ["sound", "findings", "partitions", "segments", "frames", "records", "bytes"];
    let findings = report.findings().len() as u64 + report.unlisted();
    let counts = [findings, report.partitions(), report.segments(), report.frames(), report.records(), report.bytes()];
    let summary = std::iter::once(report.is_sound().into()).chain(counts.into_iter().map(Value::from)).collect();
    out.rows("summary", &columns, [summary])
}
