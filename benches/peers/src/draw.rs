//! The picture of a run: a panel a workload, a bar for each that has done it.
//!
//! Bars of rates are linear and begin at zero, so that their lengths can be compared; times of opening lie so far apart
//! that theirs are logarithmic, which their panel says. A thin line goes from the least to the most of the runs.

use std::path::Path;

use anyhow::Result;
use plotters::style::{Color, RGBColor, text_anchor::HPos};

use crate::{
    canvas::{COLUMN, Canvas, FAINT, GUTTER, HEADER, INK, LIMIT, MARGIN, TIDELOG},
    peers::{Peer, Verified},
    results::{Lacking, Results},
    table::{Line, lines, value},
    workload::Workload,
};

const PANEL_TITLE: i32 = 34;
const PANEL_GAP: i32 = 24;
const ROW: i32 = 21;
const BAR: i32 = 13;
/// For names, and for values behind the longest bar.
const LABELS: i32 = 96;
const VALUES: i32 = 128;
const COLUMNS: [&[Workload]; 2] = [
    &[Workload::W1, Workload::W2, Workload::W5, Workload::W6],
    &[Workload::W3, Workload::W4, Workload::W2S, Workload::W7],
];

const CHECKED: RGBColor = RGBColor(116, 143, 252);
const UNCHECKED: RGBColor = RGBColor(250, 176, 5);

/// Draws a run into an SVG.
pub(crate) fn draw(results: &Results, out: &Path) -> Result<()> {
    let columns = COLUMNS.map(|workloads| panels(results, workloads));
    let height = |panels: &Vec<Panel<'_>>| panels.iter().map(Panel::height).sum::<i32>();
    let tallest = columns.iter().map(height).max().unwrap_or(0);
    let legend = [
        (LIMIT.to_rgba(), "limit: the same checksum work on a bare file", 316),
        (TIDELOG.to_rgba(), "tidelog", 92),
        (CHECKED.to_rgba(), "peer whose checksum is verified when it reads", 312),
        (UNCHECKED.to_rgba(), "peer without a checksum, or that verifies none when it reads", 0),
    ];
    let title = "tidelog beside the machine's limits and other crates";
    let canvas = Canvas::new(out, tallest, title, results, &legend)?;
    for (number, panels) in columns.iter().enumerate() {
        let (left, mut top) = (MARGIN + number as i32 * (COLUMN + GUTTER), HEADER);
        for panel in panels {
            panel.draw(&canvas, left, top)?;
            top += panel.height();
        }
    }
    let foot = format!(
        "medians of {} runs, each in a process of its own; 100-byte payloads that don't compress; in brackets the part of the \
         limit; * a run was ended by its cap of {} s; † lost if the process is killed",
        results.runs, results.cap_seconds
    );
    canvas.finish(tallest, &foot)
}

/// A workload's part of the picture.
struct Panel<'r> {
    workload: Workload,
    lines: Vec<Line<'r>>,
    lacking: Vec<&'r Lacking>,
}

fn panels<'r>(results: &'r Results, workloads: &[Workload]) -> Vec<Panel<'r>> {
    let panel = |&workload: &Workload| {
        let mut lines = lines(results, workload);
        // Variants are in the tables; of the limit's, that of eight threads is its only one there.
        lines.retain(|line| line.name == line.peer.name() || workload == Workload::W4 && line.peer == Peer::Limit);
        let is_time = workload == Workload::W7;
        let rank = |line: &Line<'_>| if is_time { line.spread.median } else { -line.spread.median };
        lines.sort_by(|one, other| rank(one).total_cmp(&rank(other)));
        let lacking = results.lacking.iter().filter(|lacking| lacking.workload == workload).collect();
        Panel { workload, lines, lacking }
    };
    workloads.iter().map(panel).filter(|panel| !panel.lines.is_empty()).collect()
}

impl Panel<'_> {
    fn height(&self) -> i32 {
        PANEL_TITLE + (self.lines.len() + self.lacking.len()) as i32 * ROW + PANEL_GAP
    }

    fn draw(&self, canvas: &Canvas<'_>, left: i32, top: i32) -> Result<()> {
        let unit = if self.workload == Workload::W7 { "time, logarithmic" } else { "records a second" };
        canvas.panel_title(self.workload, unit, left, top)?;
        let bars = left + LABELS;
        let scale = Scale::new(self, COLUMN - LABELS - VALUES);
        let mut middle = top + PANEL_TITLE + ROW / 2;
        for line in &self.lines {
            self.draw_line(canvas, line, bars, middle, &scale)?;
            middle += ROW;
        }
        for lacking in &self.lacking {
            canvas.text(lacking.peer.name(), (bars - 8, middle), 13, FAINT, HPos::Right)?;
            canvas.text(&format!("– {}", lacking.reason), (bars, middle), 12, FAINT, HPos::Left)?;
            middle += ROW;
        }
        let axis = [(bars, top + PANEL_TITLE), (bars, top + PANEL_TITLE + self.lines.len() as i32 * ROW)];
        canvas.line(&axis, FAINT)
    }

    fn draw_line(&self, canvas: &Canvas<'_>, line: &Line<'_>, bars: i32, middle: i32, scale: &Scale) -> Result<()> {
        let stated = line.guarantee;
        let dagger = if stated.is_some_and(|stated| !stated.survives_kill) { " †" } else { "" };
        let label = (format!("{}{dagger}", line.name.replace("limit, ", "")), (bars - 8, middle));
        match line.peer {
            Peer::Tidelog => canvas.bold(&label.0, label.1, 13, TIDELOG, HPos::Right)?,
            _ => canvas.text(&label.0, label.1, 13, INK, HPos::Right)?,
        }
        let unchecked = |verified| matches!(verified, Verified::Never | Verified::OnlyInRecovery);
        let color = match line.peer {
            Peer::Limit => LIMIT,
            Peer::Tidelog => TIDELOG,
            _ if stated.is_none_or(|stated| stated.checksum.is_none() || unchecked(stated.verified)) => UNCHECKED,
            _ => CHECKED,
        };
        let end = bars + scale.pixels(line.spread.median).max(1);
        canvas.bar([(bars, middle - BAR / 2), (end, middle + BAR / 2)], color.to_rgba())?;
        let (least, most) = (bars + scale.pixels(line.spread.min), bars + scale.pixels(line.spread.max));
        canvas.line(&[(least, middle), (most, middle)], INK.mix(0.55))?;
        let star = if line.spread.capped { "*" } else { "" };
        let ratio = match line.of_limit {
            Some(ratio) if line.peer != Peer::Limit => format!("  ({})", of_limit(self.workload, ratio)),
            _ => String::new(),
        };
        let value = format!("{}{star}{ratio}", value(self.workload, line.spread.median));
        canvas.text(&value, (end.max(most) + 6, middle), 12, INK, HPos::Left)
    }
}

fn of_limit(workload: Workload, ratio: f64) -> String {
    match ratio {
        _ if workload == Workload::W7 => format!("{ratio:.0} ×"),
        ..0.001 => format!("{:.2} %", ratio * 100.0),
        0.001..0.01 => format!("{:.1} %", ratio * 100.0),
        _ => format!("{:.0} %", ratio * 100.0),
    }
}

/// From values to pixels.
struct Scale {
    /// Of a logarithmic one, where the bars begin.
    least: Option<f64>,
    most: f64,
    width: i32,
}

impl Scale {
    fn new(panel: &Panel<'_>, width: i32) -> Self {
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        for line in &panel.lines {
            (least, most) = (least.min(line.spread.min), most.max(line.spread.max));
        }
        let least = (panel.workload == Workload::W7).then_some(least / 2.0);
        Self { least, most, width }
    }

    fn pixels(&self, value: f64) -> i32 {
        let part = match self.least {
            Some(least) => (value / least).ln() / (self.most / least).ln(),
            None => value / self.most,
        };
        (part * f64::from(self.width)) as i32
    }
}
