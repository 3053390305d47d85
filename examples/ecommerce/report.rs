//! What a run ends with: a table for a person, or JSON for a program.

use std::{cmp::Reverse, collections::BTreeMap, fs, io, path::Path, time::Duration};

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use rust_decimal::Decimal;
use serde::Serialize;

use crate::{
    Result,
    analytics::{Sum, Totals},
    service::Report,
};

/// Countries that get a line of their own in the table.
const MOST_COUNTRIES: usize = 10;

/// Lines above, below, and under the names of the columns.
const STYLE: TableStyle = TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);
const RULE: LineStyle = LineStyle::new('─', '─', '─', '─');

/// What is in the log, as `--json` prints it. Amounts are text, so that nobody makes binary fractions of them.
#[derive(Serialize)]
struct Json<'a> {
    lines_read: usize,
    lines_dead_lettered: usize,
    orders_created: usize,
    orders_completed: usize,
    orders_rejected: usize,
    refunds: usize,
    revenue: String,
    refunded: String,
    revenue_by_country: BTreeMap<&'a str, String>,
}

/// The totals as one JSON object.
pub(crate) fn json(totals: &Totals) -> Result<String> {
    let by_country = totals.completed_by_country.iter();
    Ok(serde_json::to_string(&Json {
        lines_read: totals.lines.len(),
        lines_dead_lettered: totals.dead_letters.len(),
        orders_created: totals.created.count(),
        orders_completed: totals.completed.count(),
        orders_rejected: totals.rejected.count(),
        refunds: totals.refunded.count(),
        revenue: amount(totals.completed.amount),
        refunded: amount(totals.refunded.amount),
        revenue_by_country: by_country.map(|(country, sum)| (country.as_str(), amount(sum.amount))).collect(),
    })?)
}

/// An amount with two decimals, always.
pub(crate) fn amount(amount: Decimal) -> String {
    format!("{:.2}", amount.round_dp(2))
}

/// The tables that a person reads.
pub(crate) fn tables(totals: &Totals, reports: &[Report], elapsed: Duration, disk_bytes: u64) -> String {
    let appended: u64 = reports.iter().map(|report| report.records_appended).sum();
    let rate = appended as f64 / elapsed.as_secs_f64();
    format!(
        "{}\n\n{}\n\n{}\n\n{} lines read, {} of them dead letters\n{} records appended in {:.2} s, {} a second\n{:.1} \
         MB on disk",
        orders(totals),
        countries(totals),
        services(reports),
        grouped(totals.lines.len()),
        grouped(totals.dead_letters.len()),
        grouped(appended),
        elapsed.as_secs_f64(),
        grouped(rate as u64),
        disk_bytes as f64 / 1e6,
    )
}

fn orders(totals: &Totals) -> Table {
    let mut table = table(["Orders", "", "%", "Amount"]);
    let created = totals.created.count();
    let mut row = |name: &str, sum: &Sum, share: String| {
        table.add_row(cells([name.to_owned(), grouped(sum.count()), share, grouped_amount(sum.amount)]));
    };
    let share = |sum: &Sum| percent(sum.count() as f64, created as f64);
    row("created", &totals.created, share(&totals.created));
    row("completed", &totals.completed, share(&totals.completed));
    row("rejected", &totals.rejected, share(&totals.rejected));
    row("refunds", &totals.refunded, String::new());
    table
}

fn countries(totals: &Totals) -> Table {
    let mut table = table(["Revenue by country", "Orders", "%", "Amount"]);
    let mut countries: Vec<_> = totals.completed_by_country.iter().collect();
    countries.sort_by_key(|(_, sum)| Reverse(sum.amount));
    let revenue = totals.completed.amount;
    let mut row = |name: String, count: usize, amount: Decimal| {
        table.add_row(cells([name, grouped(count), percent(float(amount), float(revenue)), grouped_amount(amount)]));
    };
    let (shown, others) = countries.split_at(countries.len().min(MOST_COUNTRIES));
    for (country, sum) in shown {
        row((*country).clone(), sum.count(), sum.amount);
    }
    if !others.is_empty() {
        let (count, amount) = (others.iter().map(|(_, sum)| sum.count()), others.iter().map(|(_, sum)| sum.amount));
        row(format!("{} others", others.len()), count.sum(), amount.sum());
    }
    table
}

fn services(reports: &[Report]) -> Table {
    let mut table = table(["Services", "Read", "Appended", "Lag"]);
    for report in reports {
        let lag = report.lag.map_or_else(String::new, grouped);
        table.add_row(cells([
            report.group.to_owned(),
            grouped(report.records_read),
            grouped(report.records_appended),
            lag,
        ]));
    }
    table
}

fn table(header: [&str; 4]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(cells(header.map(str::to_owned)));
    table
}

/// A name to the left, numbers to the right.
fn cells([name, numbers @ ..]: [String; 4]) -> Vec<Cell> {
    let mut cells = vec![Cell::new(format!("{name:<20}"))];
    let aligned = |number: String| Cell::new(format!("{number:>12}")).set_alignment(CellAlignment::Right);
    cells.extend(numbers.map(aligned));
    cells
}

fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.1}", 100.0 * part / whole) } else { String::new() }
}

/// For a share in percent, where binary fractions do no harm.
fn float(amount: Decimal) -> f64 {
    amount.to_string().parse().unwrap_or_default()
}

fn grouped_amount(sum: Decimal) -> String {
    let text = amount(sum);
    let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
    format!("{}.{cents}", grouped(whole))
}

/// A whole number with commas between thousands.
fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What the files of a folder take on the disk, which is less than their length where they have holes.
pub(crate) fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { allocated_bytes(&metadata) };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}
