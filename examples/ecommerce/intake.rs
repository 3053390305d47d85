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
    /// Files to read. Without any, orders are made up, unless the log holds real ones.
    pub(crate) files: Option<Vec<PathBuf>>,
    /// Abort the process once so many orders are created, in this run and all before.
    pub(crate) crash_after: Option<u64>,
    pub(crate) progress: ProgressBar,
}

/// Adds the lines that a record of intake's stands for.
pub(crate) fn add_lines(record: &RecordRef<'_>, lines: &mut LineSet) -> Result<()> {
    let ranges = events::header(record, LINES).or_else(|| events::header(record, LINE));
    let added = events::header(record, FILE).zip(ranges).and_then(|(file, ranges)| lines.add_ranges(file, ranges));
    added.ok_or_else(|| format!("{} doesn't name the lines it stands for", Source::of(record)).into())
}

/// Takes in all lines that weren't taken yet, then closes the topics.
pub(crate) fn run(shop: &Shop<'_>, intake: Intake) -> Result<Report> {
    let mut desk = Desk::open(shop, &intake)?;
    let progress = &intake.progress;
    match intake.files {
        Some(files) => {
            progress.set_length(files.iter().map(|file| Ok(input::lines(file)?.count() as u64)).sum::<Result<_>>()?);
            for file in files {
                desk.take_all(input::lines(&file)?)?;
            }
        }
        None if desk.taken.files().all(|file| file == generate::NAME) => {
            progress.set_length(generate::lines().count() as u64);
            desk.take_all(generate::lines())?;
        }
        None => {}
    }
    progress.finish_and_clear();
    [ORDERS, REFUNDS, DEAD_LETTERS].into_iter().for_each(|topic| shop.close(topic));
    Ok(Report { group: "intake", records_read: desk.lines_read, records_appended: desk.records_appended, lag: None })
}

/// Where invoices come in.
struct Desk<'a> {
    shop: &'a Shop<'a>,
    orders: Topic,
    refunds: Topic,
    dead_letters: Topic,
    taken: LineSet,
    orders_created: u64,
    crash_after: Option<u64>,
    progress: ProgressBar,
    lines_read: u64,
    records_appended: u64,
}

impl<'a> Desk<'a> {
    /// Finds out from the log what was taken.
    fn open(shop: &'a Shop<'a>, intake: &Intake) -> Result<Self> {
        let [orders, refunds, dead_letters] = [ORDERS, REFUNDS, DEAD_LETTERS].map(|name| events::topic(shop.log, name));
        let (orders, refunds, dead_letters) = (orders?, refunds?, dead_letters?);
        let mut taken = LineSet::default();
        let orders_created = add_lines_of(&orders, &mut taken)?;
        add_lines_of(&refunds, &mut taken)?;
        add_lines_of(&dead_letters, &mut taken)?;
        let (crash_after, progress) = (intake.crash_after, intake.progress.clone());
        let (lines_read, records_appended) = (0, 0);
        Ok(Self {
            shop,
            orders,
            refunds,
            dead_letters,
            taken,
            orders_created,
            crash_after,
            progress,
            lines_read,
            records_appended,
        })
    }

    fn take_all(&mut self, lines: impl Iterator<Item = Line>) -> Result<()> {
        input::invoices(lines).try_for_each(|invoice| self.take(invoice))
    }

    /// Takes what is left of an invoice: an abort may have come between its order and its dead letters.
    fn take(&mut self, mut invoice: Vec<Line>) -> Result<()> {
        self.shop.check()?;
        self.progress.inc(invoice.len() as u64);
        self.lines_read += invoice.len() as u64;
        invoice.retain(|line| !self.taken.contains(&line.file, line.number));
        let Some(file) = invoice.first().map(|line| line.file.clone()) else {
            return Ok(());
        };
        let Outcome { event, dead } = rules::judge(invoice)?;
        if let Some((event, numbers)) = event {
            let record = event.to_record()?.header(FILE, &*file).header(LINES, lines::to_ranges(&numbers));
            match event {
                Event::Refunded { .. } => self.refunds.append(record)?,
                _ => self.orders.append(record)?,
            };
            self.records_appended += 1;
            self.orders_created += u64::from(matches!(event, Event::Created { .. }));
            self.crash_if_asked(&event);
        }
        for (line, reason) in dead {
            self.bury(&line, reason)?;
        }
        Ok(())
    }

    fn bury(&mut self, line: &Line, reason: &str) -> Result<()> {
        let key = rules::customer(line).unwrap_or_else(|| line.get(Column::InvoiceNo).to_owned());
        let record = Record::new(line.to_csv()?).key(key).header(REASON, reason);
        self.dead_letters.append(record.header(FILE, &*line.file).header(LINE, line.number.to_string()))?;
        self.records_appended += 1;
        Ok(())
    }

    /// For `--crash-after`: no destructor runs, nothing is flushed.
    fn crash_if_asked(&self, event: &Event) {
        let due = self.crash_after.is_some_and(|count| self.orders_created >= count);
        if due && matches!(event, Event::Created { .. }) {
            std::process::abort();
        }
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
