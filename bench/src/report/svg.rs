//! Charts as SVG: bars and lines, and nothing that the two do not need. The
//! text is of a grey that is readable on a light page and on a dark one: an
//! image cannot ask which of its themes the book shows.

use std::fmt::Write as _;

/// Colours that are told apart by people who see few, on white and on black.
const COLOURS: [&str; 8] = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#e08a3c", "#8f8f8f",
];
const STYLE: &str = "<style>\
    text{font:13px system-ui,sans-serif;fill:#767676}\
    .head{font-weight:600;font-size:15px}\
    .axis{stroke:#999;stroke-width:1}\
    .grid{stroke:#999;stroke-opacity:.25;stroke-width:1}\
    </style>";
const WIDTH: f64 = 860.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 90.0;

/// Bars that lie, in groups: one group a row, one bar a series.
pub struct Bars {
    /// What the chart shows.
    pub title: String,
    /// Each colour's name.
    pub series: Vec<String>,
    /// A row's name, and a value for each series, where there is one.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
    /// One bar a row, its parts end to end, instead of one a series.
    pub stacked: bool,
}

/// Lines over two axes, both logarithmic.
pub struct Lines {
    /// What the chart shows.
    pub title: String,
    /// What the x axis is.
    pub x: String,
    /// Each line's name and points.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Bars {
    /// The chart; none of nothing.
    pub fn svg(&self) -> Option<String> {
        let sum = |values: &[Option<f64>]| values.iter().flatten().sum::<f64>();
        let longest = |values: &[Option<f64>]| match self.stacked {
            true => sum(values),
            false => values.iter().flatten().copied().fold(0.0, f64::max),
        };
        let most = self
            .rows
            .iter()
            .map(|(_, v)| longest(v))
            .fold(0.0, f64::max);
        if most <= 0.0 {
            return None;
        }
        let scale = (WIDTH - LEFT - RIGHT) / most;
        let bar = if self.stacked { 20.0 } else { 13.0 };
        let of_row = |values: &[Option<f64>]| match self.stacked {
            true => 1,
            false => values.iter().flatten().count().max(1),
        };
        let mut out = String::new();
        let mut y = 66.0;
        for (label, values) in &self.rows {
            let height = of_row(values) as f64 * bar;
            text(&mut out, LEFT - 8.0, y + height / 2.0 + 4.5, "end", label);
            let mut x = LEFT;
            let mut at = y;
            for (i, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let long = value * scale;
                let colour = COLOURS[i % COLOURS.len()];
                let _ = write!(
                    out,
                    r#"<rect x="{x:.1}" y="{at:.1}" width="{long:.1}" height="{:.1}" fill="{colour}"/>"#,
                    bar - 2.0
                );
                if self.stacked {
                    x += long;
                } else {
                    text(
                        &mut out,
                        x + long + 5.0,
                        at + bar - 3.0,
                        "start",
                        &number(*value),
                    );
                    at += bar;
                }
            }
            if self.stacked {
                text(
                    &mut out,
                    x + 5.0,
                    y + bar - 6.0,
                    "start",
                    &number(sum(values)),
                );
            }
            y += height + 9.0;
        }
        Some(page(&self.title, &self.series, &out, y + 4.0))
    }
}

impl Lines {
    /// The chart; none of nothing.
    pub fn svg(&self) -> Option<String> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (x_low, x_high) = range(points().map(|p| p.0))?;
        let (y_low, y_high) = range(points().map(|p| p.1))?;
        let (top, height) = (70.0, 300.0);
        let x = |value: f64| {
            LEFT + (value / x_low).ln() / (x_high / x_low).ln() * (WIDTH - LEFT - RIGHT)
        };
        let y = |value: f64| top + height - (value / y_low).ln() / (y_high / y_low).ln() * height;
        let mut out = String::new();
        for value in ticks(y_low, y_high) {
            line(
                &mut out,
                "grid",
                (LEFT, y(value)),
                (WIDTH - RIGHT, y(value)),
            );
            text(
                &mut out,
                LEFT - 8.0,
                y(value) + 4.5,
                "end",
                &format!("{} ms", number(value)),
            );
        }
        for value in ticks(x_low, x_high) {
            line(&mut out, "grid", (x(value), top), (x(value), top + height));
            text(
                &mut out,
                x(value),
                top + height + 18.0,
                "middle",
                &number(value),
            );
        }
        text(
            &mut out,
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            top + height + 38.0,
            "middle",
            &self.x,
        );
        for (i, (_, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let way: Vec<_> = points
                .iter()
                .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
                .collect();
            let way = way.join(" ");
            let _ = write!(
                out,
                r#"<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2.5"/>"#
            );
            // Of a way that held a single step, this is all there is to see.
            for point in points {
                let (x, y) = (x(point.0), y(point.1));
                let _ = write!(
                    out,
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#
                );
            }
        }
        let names: Vec<_> = self.lines.iter().map(|(name, _)| name.clone()).collect();
        Some(page(&self.title, &names, &out, top + height + 50.0))
    }
}

/// The whole image: title, legend, content.
fn page(title: &str, series: &[String], content: &str, height: f64) -> String {
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">{STYLE}"#
    );
    let _ = write!(out, r#"<title>{}</title>"#, escape(title));
    let _ = write!(
        out,
        r#"<text class="head" x="10" y="22">{}</text>"#,
        escape(title)
    );
    let mut x = 10.0;
    for (i, name) in series.iter().enumerate().filter(|_| series.len() > 1) {
        let colour = COLOURS[i % COLOURS.len()];
        let _ = write!(
            out,
            r#"<rect x="{x:.1}" y="36" width="12" height="12" fill="{colour}"/>"#
        );
        text(&mut out, x + 17.0, 47.0, "start", name);
        // No font is known here: 7.6 px is a wide letter's mean at this size.
        x += 17.0 + 7.6 * name.chars().count() as f64 + 16.0;
    }
    let content = content.trim_end();
    let _ = writeln!(out, "{content}</svg>");
    out
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escape(text);
    let _ = write!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = write!(
        out,
        r#"<line class="{class}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A little wider than the values, so that none lies on the edge.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), v| {
        (low.min(v), high.max(v))
    });
    (low > 0.0 && high > low).then_some((low / 1.1, high * 1.1))
}

/// 1, 2 and 5 of each decade within.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let all = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(d)));
    all.filter(|v| (low..=high).contains(v)).collect()
}

/// With three figures that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => {
            let thousands = (value / 1000.0).floor();
            format!("{thousands:.0},{:03.0}", value - thousands * 1000.0)
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.095 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_figures() {
        let shown = [12_345.6, 999.6, 45.67, 4.567, 0.0456].map(number);
        assert_eq!(shown, ["12,346", "1000", "45.7", "4.57", "0.046"]);
    }

    #[test]
    fn a_chart_of_nothing_is_none() {
        let bars = Bars {
            title: "none".into(),
            series: vec!["a".into()],
            rows: vec![("row".into(), vec![None])],
            stacked: false,
        };
        assert!(bars.svg().is_none());
    }
}
