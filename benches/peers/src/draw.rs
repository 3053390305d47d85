//! The picture of a run: a panel a workload, a bar for each that has done it.
//!
//! Bars of rates are linear and begin at zero, so that their lengths can be compared; times of opening lie so far apart
//! that theirs are logarithmic, which their panel says. A thin line goes from the least to the most of the runs.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{PathElement, Rectangle, Text},
    style::{
        Color, FontStyle, IntoFont, RGBColor, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{
    peers::{Peer, Verified},
    results::{Lacking, Results},
    table::{Line, describe, lines, value},
    workload::Workload,
};

const WIDTH: i32 = 1200;
const MARGIN: i32 = 28;
const GUTTER: i32 = 36;
const HEADER: i32 = 118;
const FOOTER: i32 = 44;
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

const INK: RGBColor = RGBColor(33, 37, 41);
const FAINT: RGBColor = RGBColor(134, 142, 150);
const LIMIT: RGBColor = RGBColor(206, 212, 218);
const TIDELOG: RGBColor = RGBColor(12, 133, 153);
const CHECKED: RGBColor = RGBColor(116, 143, 252);
const UNCHECKED: RGBColor = RGBColor(250, 176, 5);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a run into an SVG.
pub(crate) fn draw(results: &Results, out: &Path) -> Result<()> {
    let columns = COLUMNS.map(|workloads| panels(results, workloads));
    let height = |panels: &Vec<Panel<'_>>| panels.iter().map(Panel::height).sum::<i32>();
    let tallest = columns.iter().map(height).max().unwrap_or(0);
    let size = (WIDTH as u32, (HEADER + tallest + FOOTER) as u32);
    let root = SVGBackend::new(out, size).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    draw_header(&root, results)?;
    let width = (WIDTH - 2 * MARGIN - GUTTER) / 2;
    for (number, panels) in columns.iter().enumerate() {
        let (left, mut top) = (MARGIN + number as i32 * (width + GUTTER), HEADER);
        for panel in panels {
            panel.draw(&root, left, top, width)?;
            top += panel.height();
        }
    }
    let foot = format!(
        "medians of {} runs, each in a process of its own; 100-byte payloads that don't compress; in brackets the part of the \
         limit; * a run was ended by its cap of {} s; † lost if the process is killed",
        results.runs, results.cap_seconds
    );
    text(&root, &foot, (MARGIN, HEADER + tallest + 12), 12, FAINT, HPos::Left)?;
    root.present().map_err(failed)
}

fn draw_header(root: &Area<'_>, results: &Results) -> Result<()> {
    bold(root, "tidelog beside the machine's limits and other crates", (MARGIN, 32), 22)?;
    let machine = format!("{}; {}; tidelog at {}", results.date, describe(results), results.machine.commit);
    text(root, &machine, (MARGIN, 58), 13, FAINT, HPos::Left)?;
    let legend = [
        (LIMIT, "limit: the same checksum work on a bare file", 316),
        (TIDELOG, "tidelog", 92),
        (CHECKED, "peer whose checksum is verified when it reads", 312),
        (UNCHECKED, "peer without a checksum, or that verifies none when it reads", 0),
    ];
    let mut left = MARGIN;
    for (color, what, width) in legend {
        root.draw(&Rectangle::new([(left, 80), (left + 13, 93)], color.filled())).map_err(failed)?;
        text(root, what, (left + 20, 87), 13, INK, HPos::Left)?;
        left += width;
    }
    Ok(())
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

    fn draw(&self, root: &Area<'_>, left: i32, top: i32, width: i32) -> Result<()> {
        let unit = if self.workload == Workload::W7 { "time, logarithmic" } else { "records a second" };
        bold(root, &format!("{}  {}", self.workload, self.workload.title()), (left, top + 12), 15)?;
        text(root, unit, (left + width, top + 12), 12, FAINT, HPos::Right)?;
        let bars = left + LABELS;
        let scale = Scale::new(self, width - LABELS - VALUES);
        let mut middle = top + PANEL_TITLE + ROW / 2;
        for line in &self.lines {
            self.draw_line(root, line, bars, middle, &scale)?;
            middle += ROW;
        }
        for lacking in &self.lacking {
            text(root, lacking.peer.name(), (bars - 8, middle), 13, FAINT, HPos::Right)?;
            text(root, &format!("– {}", lacking.reason), (bars, middle), 12, FAINT, HPos::Left)?;
            middle += ROW;
        }
        let axis = [(bars, top + PANEL_TITLE), (bars, top + PANEL_TITLE + self.lines.len() as i32 * ROW)];
        root.draw(&PathElement::new(axis.to_vec(), FAINT)).map_err(failed)
    }

    fn draw_line(&self, root: &Area<'_>, line: &Line<'_>, bars: i32, middle: i32, scale: &Scale) -> Result<()> {
        let stated = line.guarantee;
        let dagger = if stated.is_some_and(|stated| !stated.survives_kill) { " †" } else { "" };
        let label = (format!("{}{dagger}", line.name.replace("limit, ", "")), (bars - 8, middle));
        match line.peer {
            Peer::Tidelog => bold_right(root, &label.0, label.1, 13)?,
            _ => text(root, &label.0, label.1, 13, INK, HPos::Right)?,
        }
        let unchecked = |verified| matches!(verified, Verified::Never | Verified::OnlyInRecovery);
        let color = match line.peer {
            Peer::Limit => LIMIT,
            Peer::Tidelog => TIDELOG,
            _ if stated.is_none_or(|stated| stated.checksum.is_none() || unchecked(stated.verified)) => UNCHECKED,
            _ => CHECKED,
        };
        let end = bars + scale.pixels(line.spread.median).max(1);
        let bar = [(bars, middle - BAR / 2), (end, middle + BAR / 2)];
        root.draw(&Rectangle::new(bar, color.filled())).map_err(failed)?;
        let (least, most) = (bars + scale.pixels(line.spread.min), bars + scale.pixels(line.spread.max));
        root.draw(&PathElement::new(vec![(least, middle), (most, middle)], INK.mix(0.55))).map_err(failed)?;
        let star = if line.spread.capped { "*" } else { "" };
        let ratio = match line.of_limit {
            Some(ratio) if line.peer != Peer::Limit => format!("  ({})", of_limit(self.workload, ratio)),
            _ => String::new(),
        };
        let value = format!("{}{star}{ratio}", value(self.workload, line.spread.median));
        text(root, &value, (end.max(most) + 6, middle), 12, INK, HPos::Left)
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

fn text(root: &Area<'_>, what: &str, at: (i32, i32), size: i32, color: RGBColor, align: HPos) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&color).pos(Pos::new(align, VPos::Center));
    root.draw(&Text::new(what.to_owned(), at, style)).map_err(failed)
}

fn bold(root: &Area<'_>, what: &str, at: (i32, i32), size: i32) -> Result<()> {
    draw_bold(root, what, at, size, INK, HPos::Left)
}

fn bold_right(root: &Area<'_>, what: &str, at: (i32, i32), size: i32) -> Result<()> {
    draw_bold(root, what, at, size, TIDELOG, HPos::Right)
}

fn draw_bold(root: &Area<'_>, what: &str, at: (i32, i32), size: i32, color: RGBColor, align: HPos) -> Result<()> {
    let font = ("sans-serif", size).into_font().style(FontStyle::Bold);
    let style = TextStyle::from(font).color(&color).pos(Pos::new(align, VPos::Center));
    root.draw(&Text::new(what.to_owned(), at, style)).map_err(failed)
}

fn failed(error: impl std::error::Error) -> anyhow::Error {
    anyhow!("drawing failed: {error}")
}
