//! The tables: for each workload who did how much, beside the limit and the best peer.

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    peers::{Peer, Verified},
    results::{Results, Series, Spread, Stated},
    workload::Workload,
};

/// A line of a workload's table.
pub(crate) struct Line<'r> {
    pub(crate) peer: Peer,
    pub(crate) name: String,
    pub(crate) spread: Spread,
    /// Of the limit: for rates the part of it, for times how many times as long.
    pub(crate) of_limit: Option<f64>,
    of_best: Option<f64>,
    of_best_checked: Option<f64>,
    pub(crate) guarantee: Option<&'r Stated>,
}

/// Prints all tables.
pub(crate) fn print(results: &Results) {
    let machine = &results.machine;
    println!("{}; {}", results.date, describe(results));
    println!(
        "{} runs, medians (least … most); {} records; tidelog at {}; * a run was ended by the cap of {} s",
        results.runs, results.records, machine.commit, results.cap_seconds
    );
    for workload in workloads(results) {
        print_workload(results, workload);
    }
    print_sizes(results);
}

/// The machine in one line.
pub(crate) fn describe(results: &Results) -> String {
    let machine = &results.machine;
    let (cores, gib) = (machine.cores, machine.memory_gib);
    format!("{}, {cores} cores, {gib} GiB, {}, {}", machine.processor, machine.kernel, machine.file_system)
}

/// Those that have results, in order.
pub(crate) fn workloads(results: &Results) -> Vec<Workload> {
    let mut workloads: Vec<_> = results.series.iter().map(|series| series.workload).collect();
    workloads.sort();
    workloads.dedup();
    workloads
}

pub(crate) fn name(peer: Peer, variant: &str) -> String {
    if variant.is_empty() { peer.name().to_owned() } else { format!("{}, {variant}", peer.name()) }
}

/// The lines of a workload, with their ratios.
pub(crate) fn lines(results: &Results, workload: Workload) -> Vec<Line<'_>> {
    let of = |workload| results.series.iter().filter(move |series| series.workload == workload);
    let main = |series: &&Series| series.peer == Peer::Limit && series.variant.is_empty();
    let many = workload.threads() as f64;
    // Eight threads can't be better than eight devices.
    let derived = of(Workload::W3).find(main).and_then(Series::spread).filter(|_| workload == Workload::W4);
    let derived = derived.map(|spread| spread.times(many));
    let limit = of(workload).find(main).and_then(Series::spread).or(derived);
    let best = best(of(workload));
    let checked = self::best(of(workload).filter(|series| series.guarantee.checksum.is_some()));
    let mut lines = Vec::new();
    if let Some(spread) = derived {
        let (name, of_best) = (format!("limit, {many} × W3"), best.map(|best| spread.median / best));
        let of_best_checked = checked.map(|best| spread.median / best);
        let peer = Peer::Limit;
        lines.push(Line { peer, name, spread, of_limit: Some(1.0), of_best, of_best_checked, guarantee: None });
    }
    for series in of(workload) {
        let Some(spread) = series.spread() else { continue };
        // The limit of the same layout, where there is one.
        let same = |other: &&Series| other.peer == Peer::Limit && other.variant == series.variant;
        let limit =
            if series.peer == Peer::Limit { None } else { of(workload).find(same).and_then(Series::spread) }.or(limit);
        lines.push(Line {
            peer: series.peer,
            name: name(series.peer, &series.variant),
            spread,
            of_limit: limit.map(|limit| spread.median / limit.median),
            of_best: best.map(|best| spread.median / best),
            of_best_checked: checked.map(|best| spread.median / best),
            guarantee: Some(&series.guarantee),
        });
    }
    lines
}

/// The best of the other peers.
fn best<'r>(series: impl Iterator<Item = &'r Series>) -> Option<f64> {
    let others = series.filter(|series| series.peer.is_other());
    let spreads = others.filter_map(|series| Some((series.workload, series.spread()?.median)));
    let better = |one: (Workload, f64), other: (Workload, f64)| {
        let is_better = if other.0 == Workload::W7 { other.1 < one.1 } else { other.1 > one.1 };
        if is_better { other } else { one }
    };
    spreads.reduce(better).map(|(_, median)| median)
}

fn print_workload(results: &Results, workload: Workload) {
    let unit = if workload == Workload::W7 { "time; ratios: how many times as long" } else { "records a second" };
    println!("\n### {workload}: {} ({unit})\n", workload.title());
    let mut header = vec!["who", "median", "least … most", "of limit", "of best peer", "of best with checksum"];
    header.extend(["checksum", "verified when read"]);
    // What was read was appended before.
    header.extend(["durable", "survives a kill"].into_iter().filter(|_| !workload.reads()));
    header.push("how");
    let mut table = new_table(&header, 5);
    for line in lines(results, workload) {
        let mut cells = vec![line.name];
        cells.extend(median_and_range(workload, line.spread));
        cells.extend([line.of_limit, line.of_best, line.of_best_checked].map(ratio));
        cells.extend(guarantee(line.guarantee, workload));
        table.add_row(cells);
    }
    let mut without = |who: &str, instead: &str, why: &str| {
        let mut cells = vec![who.to_owned()];
        cells.resize(header.len() - 1, instead.to_owned());
        cells.push(why.to_owned());
        table.add_row(cells);
    };
    for lacking in results.lacking.iter().filter(|lacking| lacking.workload == workload) {
        without(lacking.peer.name(), "–", &lacking.reason);
    }
    for series in results.series.iter().filter(|series| series.workload == workload) {
        if let Some(failure) = &series.failure {
            let why = format!("a run failed: {}", failure.lines().next().unwrap_or_default());
            without(&name(series.peer, &series.variant), "failed", &why);
        }
    }
    println!("{table}");
}

fn guarantee(stated: Option<&Stated>, workload: Workload) -> Vec<String> {
    let Some(stated) = stated else { return Vec::new() };
    let yes = |is| if is { "yes" } else { "no" }.to_owned();
    let verified = match stated.verified {
        Verified::Always => "yes",
        Verified::WhenLoaded => "when a block is loaded",
        Verified::OnlyInRecovery => "only in recovery",
        Verified::Never => "no",
    };
    let mut cells = vec![stated.checksum.clone().unwrap_or_else(|| "none".into()), verified.into()];
    if !workload.reads() {
        cells.extend([yes(stated.durable), yes(stated.survives_kill)]);
    }
    cells.push(stated.how.clone());
    cells
}

fn print_sizes(results: &Results) {
    println!("\n### Size: bytes on the disk after a clean close / bytes of payload\n");
    let columns = [
        ("one record a call", [Workload::W1, Workload::W3]),
        ("batches of 100", [Workload::W2, Workload::W2S]),
        ("1 KiB, one a call", [Workload::W1K, Workload::W1K]),
        ("1 KiB, batches", [Workload::W2K, Workload::W2K]),
    ];
    let mut header = vec!["who"];
    header.extend(columns.map(|(title, _)| title));
    let mut table = new_table(&header, 5);
    for &peer in Peer::ALL {
        let size = |workload| {
            let mut mine = results.series.iter().filter(|series| series.peer == peer && series.variant.is_empty());
            mine.find(|series| series.workload == workload)?.size()
        };
        let sizes = columns.map(|(_, workloads)| workloads.into_iter().find_map(size));
        if sizes.iter().any(Option::is_some) {
            let mut cells = vec![peer.name().to_owned()];
            cells.extend(sizes.map(ratio));
            table.add_row(cells);
        }
    }
    println!("{table}");
}

/// So many columns behind the first have figures.
pub(crate) fn new_table(header: &[&str], figures: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1).take(figures) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The middle, with a star if a run was capped, and from where to where the runs go.
pub(crate) fn median_and_range(workload: Workload, spread: Spread) -> [String; 2] {
    let star = if spread.capped { "*" } else { "" };
    let range = format!("{} … {}", value(workload, spread.min), value(workload, spread.max));
    [value(workload, spread.median) + star, range]
}

/// With three digits.
pub(crate) fn value(workload: Workload, value: f64) -> String {
    if workload == Workload::W7 {
        let (value, unit) = match value {
            ..1e-3 => (value * 1e6, "µs"),
            1e-3..1.0 => (value * 1e3, "ms"),
            _ => (value, "s"),
        };
        return format!("{} {unit}", three_digits(value));
    }
    let (value, unit) = match value {
        ..1e3 => (value, ""),
        1e3..1e6 => (value / 1e3, " k"),
        _ => (value / 1e6, " M"),
    };
    format!("{}{unit}", three_digits(value))
}

pub(crate) fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), three_digits)
}

pub(crate) fn three_digits(value: f64) -> String {
    match value {
        ..0.01 => format!("{value:.4}"),
        0.01..0.1 => format!("{value:.3}"),
        0.1..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
