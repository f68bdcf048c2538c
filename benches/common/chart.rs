//! Charts as SVG: lines in panels beside each other with the same axes, both logarithmic, and bars.

use std::fmt::Write;

/// Panels beside each other, with one legend.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) panels: Vec<Panel>,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    /// Values of both axes, which are above 0.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Bars below each other, from 0.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// Names and values.
    pub(crate) bars: Vec<(String, f64)>,
}

/// Width and height of the lines' area of a panel, in pixels.
const AREA: (f64, f64) = (240.0, 220.0);
const LEFT: f64 = 56.0;
const TOP: f64 = 66.0;
const GAP: f64 = 24.0;
const BOTTOM: f64 = 78.0;
/// Width of a line's name in the legend.
const NAME: f64 = 150.0;
/// Colours that are distinct for colour-blind readers, too, with the dashes of their lines.
const STYLES: [(&str, &str); 4] =
    [("#0072b2", "none"), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "8 3 2 3")];

/// Axis from one power of ten to another.
struct Axis {
    first: f64,
    last: f64,
    length: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, length: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let most = values.fold(1.0, f64::max).log10().ceil();
        Self { first: least, last: most.max(least + 1.0), length }
    }

    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.first) / (self.last - self.first) * self.length
    }

    /// Returns the powers of ten on the axis.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.first as i32..=self.last as i32).map(|power| 10f64.powi(power))
    }
}

impl Chart<'_> {
    /// Returns the chart as the text of an SVG file.
    pub(crate) fn svg(&self) -> String {
        let points =
            self.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
        let x = Axis::of(points.clone().map(|point| point.0), AREA.0);
        let y = Axis::of(points.map(|point| point.1), AREA.1);
        let names = self.panels.first().map_or(&[][..], |panel| &panel.lines);
        let panels_end = LEFT + self.panels.len() as f64 * (AREA.0 + GAP);
        let width = panels_end.max(LEFT + names.len() as f64 * NAME);
        let height = TOP + AREA.1 + BOTTOM;
        let mut svg = begin(width, height, self.title, LEFT);
        for (number, panel) in self.panels.iter().enumerate() {
            let left = LEFT + number as f64 * (AREA.0 + GAP);
            panel.draw(&mut svg, left, &x, &y, number == 0);
        }
        let middle = (panels_end - GAP + LEFT) / 2.0;
        text(&mut svg, (middle, TOP + AREA.1 + 36.0), "middle", &escaped(self.x_label));
        for (number, (line, style)) in names.iter().zip(STYLES).enumerate() {
            let (left, top) = (LEFT + NAME * number as f64, TOP + AREA.1 + 58.0);
            path(&mut svg, &[(left, top), (left + 28.0, top)], style);
            text(&mut svg, (left + 34.0, top + 4.0), "start", &escaped(&line.name));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Bars<'_> {
    /// Returns the chart as the text of an SVG file.
    pub(crate) fn svg(&self) -> String {
        const NAMES: f64 = 120.0;
        const LENGTH: f64 = 400.0;
        const STEP: f64 = 24.0;
        const TOP: f64 = 40.0;
        let most = self.bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
        let height = TOP + STEP * self.bars.len() as f64 + 8.0;
        let mut svg = begin(NAMES + LENGTH + 80.0, height, self.title, 8.0);
        for (number, (name, value)) in self.bars.iter().enumerate() {
            let (top, width) = (TOP + STEP * number as f64, value / most * LENGTH);
            text(&mut svg, (NAMES - 8.0, top + 13.0), "end", &escaped(name));
            writeln!(
                svg,
                "<rect x=\"{NAMES}\" y=\"{top}\" width=\"{width:.1}\" height=\"18\" fill=\"{}\"/>",
                STYLES[0].0
            )
            .ok();
            text(&mut svg, (NAMES + width + 6.0, top + 13.0), "start", &value.to_string());
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, left: f64, x: &Axis, y: &Axis, has_labels: bool) {
        let bottom = TOP + AREA.1;
        text(svg, (left + AREA.0 / 2.0, TOP - 12.0), "middle", &escaped(&self.title));
        for tick in x.ticks() {
            let at = left + x.place(tick);
            grid(svg, (at, TOP), (at, bottom));
            text(svg, (at, bottom + 16.0), "middle", &tick.to_string());
        }
        for tick in y.ticks() {
            let at = bottom - y.place(tick);
            grid(svg, (left, at), (left + AREA.0, at));
            if has_labels {
                text(svg, (left - 6.0, at + 4.0), "end", &tick.to_string());
            }
        }
        for (line, style) in self.lines.iter().zip(STYLES) {
            let place = |&(of_x, of_y): &(f64, f64)| (left + x.place(of_x), bottom - y.place(of_y));
            path(svg, &line.points.iter().map(place).collect::<Vec<_>>(), style);
        }
    }
}

/// Returns the beginning of an SVG file.
fn begin(width: f64, height: f64, title: &str, left: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = format!("<tspan font-size=\"15\">{}</tspan>", escaped(title));
    text(&mut svg, (left, 22.0), "start", &title);
    svg
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>").ok();
}

fn grid(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    )
    .ok();
}

fn path(svg: &mut String, points: &[(f64, f64)], (colour, dashes): (&str, &str)) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dashes}\"/>",
        points.join(" ")
    )
    .ok();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
