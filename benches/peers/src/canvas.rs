//! What the pictures share: an SVG of one width, its head, its colours, and text.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Circle, PathElement, Rectangle, Text},
    style::{
        Color, FontStyle, IntoFont, RGBAColor, RGBColor, ShapeStyle, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{results::Results, table::describe, workload::Workload};

pub(crate) const WIDTH: i32 = 1200;
pub(crate) const MARGIN: i32 = 28;
pub(crate) const GUTTER: i32 = 36;
/// Of each of two columns.
pub(crate) const COLUMN: i32 = (WIDTH - 2 * MARGIN - GUTTER) / 2;
/// Where panels begin.
pub(crate) const HEADER: i32 = 118;
/// For a line below the panels.
pub(crate) const FOOTER: i32 = 44;

pub(crate) const INK: RGBColor = RGBColor(33, 37, 41);
pub(crate) const FAINT: RGBColor = RGBColor(134, 142, 150);
pub(crate) const LIMIT: RGBColor = RGBColor(206, 212, 218);
pub(crate) const TIDELOG: RGBColor = RGBColor(12, 133, 153);

/// A picture that is being drawn.
pub(crate) struct Canvas<'a>(pub(crate) DrawingArea<SVGBackend<'a>, Shift>);

impl<'a> Canvas<'a> {
    /// An empty one, with title, date, machine and a legend of colours, names and the widths that those take.
    pub(crate) fn new(
        out: &'a Path,
        panels: i32,
        title: &str,
        results: &Results,
        legend: &[(RGBAColor, &str, i32)],
    ) -> Result<Self> {
        let size = (WIDTH as u32, (HEADER + panels + FOOTER) as u32);
        let canvas = Self(SVGBackend::new(out, size).into_drawing_area());
        canvas.0.fill(&WHITE).map_err(failed)?;
        canvas.bold(title, (MARGIN, 32), 22, INK, HPos::Left)?;
        let machine = format!("{}; {}; tidelog at {}", results.date, describe(results), results.machine.commit);
        canvas.text(&machine, (MARGIN, 58), 13, FAINT, HPos::Left)?;
        let mut left = MARGIN;
        for &(color, what, width) in legend {
            canvas.bar([(left, 80), (left + 13, 93)], color)?;
            canvas.text(what, (left + 20, 87), 13, INK, HPos::Left)?;
            left += width;
        }
        Ok(canvas)
    }

    /// A last line below panels of this height; the picture is written.
    pub(crate) fn finish(self, panels: i32, foot: &str) -> Result<()> {
        self.text(foot, (MARGIN, HEADER + panels + 12), 12, FAINT, HPos::Left)?;
        self.0.present().map_err(failed)
    }

    /// A workload and what its panel shows, in a column that begins at `left`.
    pub(crate) fn panel_title(&self, workload: Workload, unit: &str, left: i32, top: i32) -> Result<()> {
        self.bold(&format!("{workload}  {}", workload.title()), (left, top + 12), 15, INK, HPos::Left)?;
        self.text(unit, (left + COLUMN, top + 12), 12, FAINT, HPos::Right)
    }

    pub(crate) fn bar(&self, corners: [(i32, i32); 2], color: RGBAColor) -> Result<()> {
        self.0.draw(&Rectangle::new(corners, color.filled())).map_err(failed)
    }

    pub(crate) fn line(&self, points: &[(i32, i32)], style: impl Into<ShapeStyle>) -> Result<()> {
        self.0.draw(&PathElement::new(points.to_vec(), style)).map_err(failed)
    }

    pub(crate) fn dot(&self, at: (i32, i32), color: RGBColor) -> Result<()> {
        self.0.draw(&Circle::new(at, 4, color.filled())).map_err(failed)
    }

    pub(crate) fn text(&self, what: &str, at: (i32, i32), size: i32, color: RGBColor, align: HPos) -> Result<()> {
        self.write(what, at, (size, FontStyle::Normal), color, align)
    }

    pub(crate) fn bold(&self, what: &str, at: (i32, i32), size: i32, color: RGBColor, align: HPos) -> Result<()> {
        self.write(what, at, (size, FontStyle::Bold), color, align)
    }

    fn write(&self, what: &str, at: (i32, i32), font: (i32, FontStyle), color: RGBColor, align: HPos) -> Result<()> {
        let font = ("sans-serif", font.0).into_font().style(font.1);
        let style = TextStyle::from(font).color(&color).pos(Pos::new(align, VPos::Center));
        self.0.draw(&Text::new(what.to_owned(), at, style)).map_err(failed)
    }
}

fn failed(error: impl std::error::Error) -> anyhow::Error {
    anyhow!("drawing failed: {error}")
}
