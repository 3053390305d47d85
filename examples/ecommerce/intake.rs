//! Order intake: from lines to `order.created`, `order.refunded` and dead letters.
//!
//! Its source is no topic but files, so what its records carry in their headers is a file's name and the numbers of
//! the lines that they stand for. A line that any record stands for is never taken again, whatever came between.

use std::path::PathBuf;

use indicatif::ProgressBar;
use tidelog::{Record, RecordRef, Start, Topic};

use crate::{
    Result,
    events::{self, DEAD_LETTERS, Event, ORDERS, REFUNDS, Source},
    generate,
    input::{self, Column, Line},
    lines::{self, LineSet},
    rules::{self, Outcome},
    service::Report,
    shop::Shop,
};

/// Headers of what intake appends: the file, its lines that an event stands for or the line that is a dead letter, and
/// why it is one.
const FILE: &str = "file";
const LINES: &str = "lines";
const LINE: &str = "line";
const REASON: &str = "reason";

/// What intake is to do.
pub(crate) struct Intake {
    /// Files to read. Without any, orders are made up, unless the log holds nothing but real ones.
    pub(crate) files: Option<Vec<PathBuf>>,
    /// Abort the process once so many orders are created, in this run and all before.
    pub(crate) crash_after: Option<u64>,
    pub(crate) progress: ProgressBar,
}

/// Adds the lines that a record of intake's stands for.
pub(crate) fn add_lines(record: &RecordRef<'_>, lines: &mut LineSet) -> Result<()> {
    let ranges = record.header_str(LINES)?.or(record.header_str(LINE)?);
    let added = record.header_str(FILE)?.zip(ranges).and_then(|(file, ranges)| lines.add_ranges(file, ranges));
    added.ok_or_else(|| format!("{} doesn't name the lines it stands for", Source::of(record)).into())
}

/// Takes in all lines that weren't taken yet, then closes the topics.
pub(crate) fn run(shop: &Shop<'_>, intake: &Intake) -> Result<Report> {
    let mut desk = Desk::open(shop, intake)?;
    match &intake.files {
        Some(files) => {
            let lines = files.iter().map(|file| Ok(input::lines(file)?.count() as u64));
            intake.progress.set_length(lines.sum::<Result<_>>()?);
            files.iter().try_for_each(|file| desk.take_all(input::lines(file)?))?;
        }
        None if desk.taken.is_empty() || desk.taken.has_file(generate::NAME) => {
            intake.progress.set_length(generate::lines().count() as u64);
            desk.take_all(generate::lines())?;
        }
        None => {}
    }
    intake.progress.finish_and_clear();
    [ORDERS, REFUNDS, DEAD_LETTERS].into_iter().for_each(|topic| shop.close(topic));
    Ok(desk.report)
}

/// Where invoices come in.
struct Desk<'a> {
    shop: &'a Shop<'a>,
    intake: &'a Intake,
    orders: Topic,
    refunds: Topic,
    dead_letters: Topic,
    taken: LineSet,
    /// In this run and all before.
    orders_created: u64,
    report: Report,
}

impl<'a> Desk<'a> {
    /// Finds out from the log what was taken.
    fn open(shop: &'a Shop<'a>, intake: &'a Intake) -> Result<Self> {
        let mut desk = Self {
            shop,
            intake,
            orders: events::topic(shop.log, ORDERS)?,
            refunds: events::topic(shop.log, REFUNDS)?,
            dead_letters: events::topic(shop.log, DEAD_LETTERS)?,
            taken: LineSet::default(),
            orders_created: 0,
            report: Report { group: "intake", records_read: 0, records_appended: 0, lag: None },
        };
        desk.orders_created = add_lines_of(&desk.orders, &mut desk.taken)?;
        add_lines_of(&desk.refunds, &mut desk.taken)?;
        add_lines_of(&desk.dead_letters, &mut desk.taken)?;
        Ok(desk)
    }

    fn take_all(&mut self, lines: impl Iterator<Item = Line>) -> Result<()> {
        input::invoices(lines).try_for_each(|invoice| self.take(invoice))
    }

    /// Takes what is left of an invoice: an abort may have come between its order and its dead letters.
    fn take(&mut self, mut invoice: Vec<Line>) -> Result<()> {
        self.shop.check()?;
        self.intake.progress.inc(invoice.len() as u64);
        self.report.records_read += invoice.len() as u64;
        invoice.retain(|line| !self.taken.contains(&line.file, line.number));
        let Some(file) = invoice.first().map(|line| line.file.clone()) else {
            return Ok(());
        };
        let Outcome { event, dead } = rules::judge(invoice)?;
        if let Some((event, numbers)) = event {
            let outcome = self.append(&event, &file, &numbers);
            outcome.map_err(|error| format!("{}: {error}", event.invoice().id))?;
        }
        dead.iter().try_for_each(|(line, reason)| {
            let outcome = self.bury(line, reason);
            outcome.map_err(|error| format!("{file}:{}: {error}", line.number).into())
        })
    }

    fn append(&mut self, event: &Event, file: &str, numbers: &[u64]) -> Result<()> {
        let record = event.to_record()?.header(FILE, file).header(LINES, lines::to_ranges(numbers));
        self.report.records_appended += 1;
        if let Event::Refunded { .. } = event {
            self.refunds.append(record)?;
            return Ok(());
        }
        self.orders.append(record)?;
        self.orders_created += 1;
        if self.intake.crash_after.is_some_and(|count| self.orders_created >= count) {
            std::process::abort(); // no destructor runs, nothing is flushed
        }
        Ok(())
    }

    /// Keeps a line that doesn't count as it was read, with the reason.
    fn bury(&mut self, line: &Line, reason: &str) -> Result<()> {
        let key = rules::customer(line).unwrap_or_else(|| line.get(Column::InvoiceNo).to_owned());
        let record = Record::new(line.to_csv()?).key(key).header(REASON, reason);
        self.dead_letters.append(record.header(FILE, &*line.file).header(LINE, line.number.to_string()))?;
        self.report.records_appended += 1;
        Ok(())
    }
}

/// Adds the lines that a topic's records stand for; answers how many records there are.
fn add_lines_of(topic: &Topic, lines: &mut LineSet) -> Result<u64> {
    let mut records = 0;
    let mut reader = topic.reader(Start::Earliest)?;
    while let Some(batch) = reader.next_batch()? {
        for record in &batch {
            add_lines(&record, lines)?;
            records += 1;
        }
    }
    Ok(records)
}
