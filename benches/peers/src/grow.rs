//! How much slower a log becomes as it grows: the limit and tidelog, at one size after the other.
//!
//! The limit is measured at each size again: what is left beside it is what tidelog adds as the log grows. Rounds go
//! through all sizes, and every other one begins with the other of the two. Only one log is there at a time, and nothing
//! of it is left to write when something is measured: a log that is read has to lie in the page cache as a whole.
//!
//! W1 is the rate of a million appends behind a log that has so many records, by the process that has appended those. The
//! rate of all of them would tell of small logs mostly, and of how fast the device takes what is written.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    common::{SIZES, frame_bytes},
    peers::Peer,
    results::{Growth, Results, Series, Spread, memory_kibibytes},
    run::{Plan, Run},
    table::{describe, median_and_range, new_table, ratio, three_digits},
    workload::Workload,
};

pub(crate) const PEERS: [Peer; 2] = [Peer::Limit, Peer::Tidelog];
pub(crate) const WORKLOADS: [Workload; 4] = [Workload::W1, Workload::W5, Workload::W6, Workload::W7];
/// Those whose ratio to the limit is to stay what it is.
const RATIOS: [Workload; 3] = [Workload::W1, Workload::W5, Workload::W6];
/// The part of the free memory that the largest log may take.
const MEMORY_PART: f64 = 0.8;

/// Runs one plan for each size.
pub(crate) fn grow(plans: Vec<Plan>) -> Result<Growth> {
    let first = plans.first().context("a size")?;
    let largest = plans.iter().map(|plan| plan.records).max().unwrap_or(0);
    ensure_memory(largest)?;
    let (dir, runs, start) = (first.folder()?, first.runs, Instant::now());
    let mut sizes: Vec<_> = plans.into_iter().map(|plan| (plan.records, Run::new(plan, dir.path()))).collect();
    for round in 0..runs {
        for (records, run) in &mut sizes {
            run.round(dir.path(), round, false)?;
            let (round, seconds) = (round + 1, start.elapsed().as_secs_f64());
            eprintln!("round {round} of {runs} with {} records ends after {seconds:.0} s", count(*records));
        }
    }
    dir.close()?;
    Ok(Growth { sizes: sizes.into_iter().map(|(_, run)| run.into_results()).collect() })
}

fn ensure_memory(records: u64) -> Result<()> {
    let wanted = records as f64 * frame_bytes(1, SIZES[0]) as f64;
    let free = memory_kibibytes("MemAvailable").context("what memory is free")? as f64 * 1024.0;
    let gib = |bytes| bytes / f64::from(1 << 30);
    ensure!(
        wanted <= free * MEMORY_PART,
        "{} records take {:.1} GiB, too much for {:.1} GiB of free memory: they are to lie in the page cache",
        count(records),
        gib(wanted),
        gib(free)
    );
    Ok(())
}

/// tidelog beside the limit, at one size.
pub(crate) struct Point {
    pub(crate) records: u64,
    pub(crate) limit: Spread,
    pub(crate) tidelog: Spread,
    /// Of the limit: for rates the part of it, for times how many times as long. The middle is that of the medians, the
    /// ends are those of single runs.
    pub(crate) ratio: Spread,
    /// How far the ratio, of W7 tidelog's time, is from that at the first size, in percent of that.
    pub(crate) deviation: f64,
}

impl Growth {
    pub(crate) fn points(&self, workload: Workload) -> Vec<Point> {
        let mut points: Vec<_> = self.sizes.iter().filter_map(|results| point(results, workload)).collect();
        let value = |point: &Point| if workload == Workload::W7 { point.tidelog.median } else { point.ratio.median };
        let first = points.first().map_or(1.0, value);
        for point in &mut points {
            point.deviation = (value(point) / first - 1.0) * 100.0;
        }
        points
    }

    fn series(&self) -> impl Iterator<Item = &Series> {
        self.sizes.iter().flat_map(|results| &results.series)
    }
}

fn point(results: &Results, workload: Workload) -> Option<Point> {
    let of = |peer| results.series.iter().find(|series| series.workload == workload && series.peer == peer);
    let [limit, tidelog] = [of(Peer::Limit)?, of(Peer::Tidelog)?];
    let values = |series: &Series| series.outcomes.iter().map(|outcome| outcome.value(workload)).collect::<Vec<_>>();
    let ratios = values(tidelog).into_iter().zip(values(limit)).map(|(tidelog, limit)| tidelog / limit);
    let (min, max) = ratios.fold((f64::MAX, f64::MIN), |(min, max), ratio| (min.min(ratio), max.max(ratio)));
    let [limit, tidelog] = [limit.spread()?, tidelog.spread()?];
    let (median, capped) = (tidelog.median / limit.median, tidelog.capped || limit.capped);
    let ratio = Spread { min, median, max, capped };
    Some(Point { records: results.records, limit, tidelog, ratio, deviation: 0.0 })
}

/// Prints the table, and a line that sums up unless measurements failed: then why.
pub(crate) fn print(growth: &Growth) -> Result<()> {
    let first = growth.sizes.first().context("a size")?;
    println!("{}; {}", first.date, describe(first));
    println!(
        "{} rounds, medians (least … most); tidelog at {}; * a run was ended by the cap of {} s\n\
         W1, W5, W6: records a second, ratios against the first; W7: time, how many times as long, time against the \
         first\n",
        first.runs, first.machine.commit, first.cap_seconds
    );
    let header =
        ["workload", "records", "limit", "least … most", "tidelog", "least … most", "of limit", "against the first"];
    let mut table = new_table(&header, header.len() - 1);
    for workload in WORKLOADS {
        for point in growth.points(workload) {
            let mut cells = vec![workload.to_string(), count(point.records)];
            cells.extend(median_and_range(workload, point.limit));
            cells.extend(median_and_range(workload, point.tidelog));
            cells.extend([ratio(Some(point.ratio.median)), percent(point.deviation)]);
            table.add_row(cells);
        }
    }
    println!("{table}\n");
    let failures: Vec<_> = growth.series().filter_map(|series| Some((series, series.failure.as_ref()?))).collect();
    for (series, failure) in &failures {
        println!("{} {} failed: {failure}", series.workload, series.peer.name());
    }
    ensure!(failures.is_empty(), "{} of the measurements failed", failures.len());
    println!("{}", summary(growth));
    Ok(())
}

fn summary(growth: &Growth) -> String {
    let list = |tell: &dyn Fn(&Point) -> f64, points: &[Point]| {
        points.iter().map(|point| three_digits(tell(point))).collect::<Vec<_>>().join(",")
    };
    let (mut words, mut deviations) = (Vec::new(), Vec::new());
    for workload in RATIOS {
        let points = growth.points(workload);
        let name = workload.to_string().to_lowercase();
        words.push(format!("growth_{name}={}", list(&|point| point.ratio.median, &points)));
        deviations.extend(points.iter().map(|point| point.deviation.abs()));
    }
    words.push(format!("w7_ms={}", list(&|point| point.tidelog.median * 1e3, &growth.points(Workload::W7))));
    words.retain(|word| !word.ends_with('='));
    if let Some(greatest) = deviations.into_iter().reduce(f64::max) {
        words.push(format!("greatest_deviation_percent={greatest:.1}"));
    }
    words.join(" ")
}

/// With its sign.
pub(crate) fn percent(value: f64) -> String {
    format!("{value:+.0} %")
}

/// A size, as short as it can be told.
pub(crate) fn count(records: u64) -> String {
    match records {
        _ if records.is_multiple_of(1_000_000) => format!("{} M", records / 1_000_000),
        _ if records.is_multiple_of(1_000) => format!("{} k", records / 1_000),
        _ => records.to_string(),
    }
}
