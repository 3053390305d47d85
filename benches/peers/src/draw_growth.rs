//! The picture of how a log grows: a panel a workload, a point for each size.
//!
//! Sizes are logarithmic; ratios and times begin at zero, so that heights can be compared. A thin line goes from the least
//! to the most of the runs.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::style::{Color, RGBAColor, RGBColor, text_anchor::HPos};

use crate::{
    canvas::{COLUMN, Canvas, FAINT, GUTTER, HEADER, INK, LIMIT, MARGIN, TIDELOG},
    grow::{Point, count, percent},
    results::{Growth, Spread},
    table::{three_digits, value},
    workload::Workload,
};

const PANELS: [[Workload; 2]; 2] = [[Workload::W1, Workload::W5], [Workload::W6, Workload::W7]];
const PANEL_TITLE: i32 = 40;
const PLOT: i32 = 170;
const PANEL: i32 = PANEL_TITLE + PLOT + 52;
/// For the scale at the left.
const SCALE: i32 = 44;
/// From the left end of a plot to its first point.
const INSET: i32 = 40;
/// For what is told of the last point.
const LABEL: i32 = 110;
/// How far ratios may lie from the first, as a part of it.
const BAND: f64 = 0.15;

/// Draws how the log has grown into an SVG.
pub(crate) fn draw(growth: &Growth, out: &Path) -> Result<()> {
    let first = growth.sizes.first().context("a size")?;
    let height = PANELS.len() as i32 * PANEL;
    let legend = [
        (TIDELOG.to_rgba(), "tidelog", 92),
        (band(), "within 15 % of the ratio at the first size", 288),
        (LIMIT.to_rgba(), "limit, measured at the same size: the same checksum work on a bare file", 0),
    ];
    let canvas = Canvas::new(out, height, "tidelog as the log grows", first, &legend)?;
    for (row, workloads) in PANELS.iter().enumerate() {
        for (column, &workload) in workloads.iter().enumerate() {
            let points = growth.points(workload);
            let (left, top) = (MARGIN + column as i32 * (COLUMN + GUTTER), HEADER + row as i32 * PANEL);
            if !points.is_empty() {
                draw_panel(&canvas, workload, &points, (left, top))?;
            }
        }
    }
    let foot = format!(
        "medians of {} rounds, each measurement in a process of its own; 100-byte payloads that don't compress; W1: the next \
         million appends; in brackets how far ratio or time is from that at the first size",
        first.runs
    );
    canvas.finish(height, &foot)
}

fn band() -> RGBAColor {
    TIDELOG.mix(0.15)
}

fn draw_panel(canvas: &Canvas<'_>, workload: Workload, points: &[Point], (left, top): (i32, i32)) -> Result<()> {
    let is_time = workload == Workload::W7;
    canvas.panel_title(workload, if is_time { "milliseconds" } else { "ratio to the limit" }, left, top)?;
    let milliseconds = |spread: Spread| spread.times(1e3);
    let ours: Vec<_> =
        points.iter().map(|point| if is_time { milliseconds(point.tidelog) } else { point.ratio }).collect();
    let first = ours.first().map_or(0.0, |spread| spread.median);
    let highest = ours.iter().map(|spread| spread.max).fold(first * (1.0 + BAND), f64::max);
    let sizes: Vec<_> = points.iter().map(|point| point.records).collect();
    let plot = Plot::new(left + SCALE, top + PANEL_TITLE, highest, &sizes);
    plot.draw_scales(canvas, &sizes)?;
    if is_time {
        let limit: Vec<_> = points.iter().map(|point| milliseconds(point.limit)).collect();
        let told: Vec<_> = points.iter().map(|point| value(workload, point.limit.median)).collect();
        plot.draw_line(canvas, &limit, &told, LIMIT)?;
    } else {
        let corners = [(plot.left, plot.y(first * (1.0 + BAND))), (left + COLUMN, plot.y(first * (1.0 - BAND)))];
        canvas.bar(corners, band())?;
    }
    let main = |point: &Point| {
        if is_time { value(workload, point.tidelog.median) } else { three_digits(point.ratio.median) }
    };
    let tell = |(number, point): (usize, &Point)| match number {
        0 => main(point),
        _ => format!("{} ({})", main(point), percent(point.deviation)),
    };
    let told: Vec<_> = points.iter().enumerate().map(tell).collect();
    plot.draw_line(canvas, &ours, &told, TIDELOG)
}

/// From values to pixels.
struct Plot {
    left: i32,
    top: i32,
    /// Between two lines of the scale.
    step: f64,
    highest: f64,
    /// Of each size.
    places: Vec<i32>,
}

impl Plot {
    fn new(left: i32, top: i32, highest: f64, sizes: &[u64]) -> Self {
        let magnitude = 10_f64.powf((highest / 4.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * magnitude);
        let step = steps.into_iter().find(|step| step * 4.0 >= highest).unwrap_or(highest);
        let logarithms: Vec<_> = sizes.iter().map(|&size| (size as f64).ln()).collect();
        let least = logarithms.iter().copied().fold(f64::MAX, f64::min);
        let range = logarithms.iter().copied().fold(f64::MIN, f64::max) - least;
        let width = f64::from(COLUMN - SCALE - INSET - LABEL);
        let part = |logarithm: f64| if range > 0.0 { (logarithm - least) / range } else { 0.5 };
        let places = logarithms.into_iter().map(|logarithm| left + INSET + (part(logarithm) * width) as i32).collect();
        Self { left, top, step, highest: (highest / step).ceil() * step, places }
    }

    fn y(&self, value: f64) -> i32 {
        self.top + PLOT - (value / self.highest * f64::from(PLOT)) as i32
    }

    fn draw_scales(&self, canvas: &Canvas<'_>, sizes: &[u64]) -> Result<()> {
        let right = self.left + COLUMN - SCALE;
        for number in 0..=(self.highest / self.step).round() as i32 {
            let value = f64::from(number) * self.step;
            let y = self.y(value);
            canvas.line(&[(self.left, y), (right, y)], if number == 0 { FAINT.to_rgba() } else { LIMIT.mix(0.6) })?;
            canvas.text(&format!("{}", (value * 1e6).round() / 1e6), (self.left - 8, y), 12, FAINT, HPos::Right)?;
        }
        for (&place, &records) in self.places.iter().zip(sizes) {
            canvas.text(&count(records), (place, self.top + PLOT + 14), 12, INK, HPos::Center)?;
        }
        canvas.text("records", (right, self.top + PLOT + 14), 12, FAINT, HPos::Right)
    }

    fn draw_line(&self, canvas: &Canvas<'_>, values: &[Spread], told: &[String], color: RGBColor) -> Result<()> {
        let medians: Vec<_> = self.places.iter().zip(values).map(|(&x, spread)| (x, self.y(spread.median))).collect();
        canvas.line(&medians, color.stroke_width(2))?;
        for ((&(x, y), spread), told) in medians.iter().zip(values).zip(told) {
            let (least, most) = (self.y(spread.min), self.y(spread.max));
            canvas.line(&[(x, least), (x, most)], INK.mix(0.55))?;
            canvas.dot((x, y), color)?;
            canvas.text(told, (x + 8, y - 10), 12, INK, HPos::Left)?;
        }
        Ok(())
    }
}
