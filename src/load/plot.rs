//! Plots as SVG whose colours come from the page's style sheet. Pure.

use std::fmt::Write as _;

use crate::encoding::html::escape;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;
/// The number of colours in the style sheet.
const COLOURS: usize = 8;
/// The minimum of a logarithmic axis, in its unit.
const MIN: f64 = 1.0;

/// A plot of lines.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    /// The text for a screen reader.
    pub(super) title: &'a str,
    /// The lines, each in a colour of its own.
    pub(super) lines: Vec<PlotLine>,
    /// Marked spans of the horizontal axis.
    pub(super) marks: Vec<Mark>,
    /// The horizontal axis.
    pub(super) x: Axis,
    /// The vertical axis.
    pub(super) y: Axis,
}

/// A line.
#[derive(Debug)]
pub(super) struct PlotLine {
    /// The name in the legend.
    pub(super) name: String,
    /// Whether it is dashed, as lines of the second side are.
    pub(super) is_dashed: bool,
    /// The number of its colour.
    pub(super) colour: usize,
    /// The points from left to right; a value that is not finite makes a gap.
    pub(super) points: Vec<(f64, f64)>,
}

/// A span that is marked: a fault.
#[derive(Debug)]
pub(super) struct Mark {
    /// Its start on the horizontal axis.
    pub(super) from: f64,
    /// Its end.
    pub(super) until: f64,
    /// Its label.
    pub(super) label: String,
}

/// The numbering of an axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Formats a value.
    pub(super) show: fn(f64) -> String,
    /// The values that are labelled.
    pub(super) steps: Steps,
}

/// The labelled values of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// 1, 2, 5 times a power of ten.
    Decimal,
    /// Whole numbers.
    Whole,
    /// Powers of two: bytes.
    Binary,
    /// Logarithmic: all decades have the same length.
    Logarithmic,
}

/// The range of values of an axis, and its position on the page.
struct Scale {
    axis: Axis,
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

/// The SVG of a plot, with its legend.
pub(super) fn svg(plot: &Plot<'_>) -> String {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let finite = |value: &f64| value.is_finite();
    let xs = || points().map(|(x, _)| *x).filter(finite);
    let ys = || points().map(|(_, y)| *y).filter(finite);
    let x = Scale::new(
        plot.x,
        (xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max)),
        (LEFT, WIDTH - RIGHT),
    );
    let lowest = if plot.y.is_logarithmic() {
        ys().filter(|y| *y >= MIN).fold(f64::INFINITY, f64::min)
    } else {
        0.0
    };
    let y = Scale::new(
        plot.y,
        (lowest, ys().fold(0.0, f64::max)),
        (HEIGHT - BOTTOM, TOP),
    );
    let mut out = legend(&plot.lines);
    let _ = write!(
        out,
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        escape(plot.title)
    );
    for (index, mark) in plot.marks.iter().enumerate() {
        push_mark(&mut out, (index, mark), &x);
    }
    push_ticks(&mut out, &x, &y);
    for line in &plot.lines {
        push_line(&mut out, line, (&x, &y));
    }
    out.push_str("</svg>");
    out
}

fn push_ticks(out: &mut String, x: &Scale, y: &Scale) {
    for tick in y.ticks(5) {
        let at = y.place(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 7.0,
            at + 4.0,
            escape(&(y.axis.show)(tick))
        );
    }
    for tick in x.ticks(8) {
        let at = x.place(tick);
        let _ = write!(
            out,
            r#"<line class="axis" x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{:.1}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 4.0,
            HEIGHT - BOTTOM + 18.0,
            escape(&(x.axis.show)(tick))
        );
    }
    let _ = write!(
        out,
        r#"<line class="axis" x1="{LEFT}" x2="{:.1}" y1="{1:.1}" y2="{1:.1}"/>"#,
        WIDTH - RIGHT,
        HEIGHT - BOTTOM
    );
}

impl Axis {
    fn is_logarithmic(self) -> bool {
        self.steps == Steps::Logarithmic
    }

    /// The first round step at or above `step`.
    fn step(self, step: f64) -> f64 {
        if step <= 0.0 || !step.is_finite() {
            return 1.0;
        }
        match self.steps {
            Steps::Whole => decade_above(step).max(1.0),
            Steps::Binary => 2_f64.powf(step.log2().ceil()),
            Steps::Decimal | Steps::Logarithmic => decade_above(step),
        }
    }
}

impl Scale {
    fn new(axis: Axis, (from, to): (f64, f64), (start, end): (f64, f64)) -> Self {
        let (from, to) = if axis.is_logarithmic() {
            let low = if from.is_finite() { from.max(MIN) } else { MIN };
            let (low, high) = (decade(low), decade_above(to.max(low * 1.01)));
            (low, high)
        } else {
            let from = if from.is_finite() { from.min(0.0) } else { 0.0 };
            (from, if to > from { to } else { from + 1.0 })
        };
        Self {
            axis,
            from,
            to,
            start,
            end,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = if self.axis.is_logarithmic() {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + (self.end - self.start) * part.clamp(0.0, 1.0)
    }

    /// About `count` round values.
    fn ticks(&self, count: u32) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.axis.is_logarithmic() {
            let mut tick = self.from;
            while tick <= self.to * 1.001 {
                ticks.push(tick);
                tick *= 10.0;
            }
            if ticks.len() < 3 {
                ticks = ticks
                    .iter()
                    .flat_map(|tick| [*tick, tick * 2.0, tick * 5.0])
                    .collect();
                ticks.retain(|tick| *tick <= self.to * 1.001);
            }
            return ticks;
        }
        let step = self.axis.step((self.to - self.from) / f64::from(count));
        let mut tick = self.from;
        while tick <= self.to * 1.001 && ticks.len() < 50 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// The power of ten at or below a value.
fn decade(value: f64) -> f64 {
    10_f64.powf(value.log10().floor())
}

/// The first of 1, 2, 5, 10 times a power of ten at or above a value.
fn decade_above(value: f64) -> f64 {
    let base = decade(value);
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * base);
    steps
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(base * 10.0)
}

fn push_mark(out: &mut String, (index, mark): (usize, &Mark), x: &Scale) {
    let (from, until) = (x.place(mark.from), x.place(mark.until));
    let label = escape(&mark.label);
    let _ = write!(
        out,
        r#"<rect class="mark" x="{from:.1}" y="{TOP}" width="{:.1}" height="{:.1}"><title>{label}</title></rect><text class="mark-label" x="{:.1}" y="{:.1}">{label}</text>"#,
        (until - from).max(2.0),
        HEIGHT - BOTTOM - TOP,
        from + 4.0,
        // The labels are one below the other, so that the names of short faults do not overlap.
        TOP + 12.0 + 13.0 * (index % 4) as f64
    );
}

fn push_line(out: &mut String, line: &PlotLine, (x, y): (&Scale, &Scale)) {
    let mut path = String::new();
    for run in line.points.split(|(_, value)| !value.is_finite()) {
        for (index, (at, value)) in run.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", x.place(*at), y.place(*value));
        }
        if run.len() == 1 {
            path.push_str("h0"); // a dot, by the round ends of the line
        }
    }
    let dashed = if line.is_dashed { " dashed" } else { "" };
    let colour = line.colour % COLOURS;
    let _ = write!(out, r#"<path class="line c{colour}{dashed}" d="{path}"/>"#);
}

fn legend(lines: &[PlotLine]) -> String {
    let mut out = r#"<p class="legend">"#.to_owned();
    for line in lines {
        let dashed = if line.is_dashed { " dashed" } else { "" };
        let _ = write!(
            out,
            r#"<span><i class="c{}{dashed}"></i>{}</span>"#,
            line.colour % COLOURS,
            escape(&line.name)
        );
    }
    out.push_str("</p>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: Axis = Axis {
        show: |v| format!("{v}"),
        steps: Steps::Decimal,
    };
    const LOGARITHMIC: Axis = Axis {
        show: |v| format!("{v}"),
        steps: Steps::Logarithmic,
    };

    fn plot(points: &[(f64, f64)], y: Axis) -> String {
        svg(&Plot {
            title: "a <b>",
            lines: vec![PlotLine {
                name: "x&y".into(),
                is_dashed: false,
                colour: 9,
                points: points.to_vec(),
            }],
            marks: vec![Mark {
                from: 1.0,
                until: 2.0,
                label: "<script>".into(),
            }],
            x: LINEAR,
            y,
        })
    }

    #[test]
    fn escapes_all_text() {
        let text = plot(&[(0.0, 1.0), (3.0, 2.0)], LINEAR);
        assert!(
            !text.contains("<script>") && !text.contains("<b>"),
            "{text}"
        );
        assert!(text.contains("x&amp;y"));
        assert_eq!(escape("a\u{1}'\""), "a\u{fffd}&#39;&quot;");
    }

    #[test]
    fn any_values_give_finite_positions() {
        for y in [LINEAR, LOGARITHMIC] {
            for points in [
                &[][..],
                &[(0.0, 0.0)],
                &[(0.0, f64::NAN), (1.0, 5.0)],
                &[(0.0, 1e12), (5.0, 1.0)],
            ] {
                let text = plot(points, y);
                assert!(
                    !text.contains("NaN") && !text.contains("inf"),
                    "{points:?} {text}"
                );
            }
        }
    }

    #[test]
    fn gap_breaks_the_line() {
        let text = plot(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)], LINEAR);
        assert_eq!(text.matches('M').count(), 2, "{text}");
        assert_eq!(text.matches("h0").count(), 2, "each is a dot: {text}");
    }

    #[test]
    fn ticks_are_round_numbers() {
        let scale = Scale::new(LINEAR, (0.0, 4321.0), (0.0, 1.0));
        assert_eq!(scale.ticks(5), [0.0, 1000.0, 2000.0, 3000.0, 4000.0]);
        let bytes = Axis {
            steps: Steps::Binary,
            ..LINEAR
        };
        let scale = Scale::new(bytes, (0.0, 5000.0), (0.0, 1.0));
        assert_eq!(scale.ticks(5), [0.0, 1024.0, 2048.0, 3072.0, 4096.0]);
        let nines = Axis {
            steps: Steps::Whole,
            ..LINEAR
        };
        assert_eq!(
            Scale::new(nines, (0.0, 2.2), (0.0, 1.0)).ticks(8),
            [0.0, 1.0, 2.0]
        );
        let scale = Scale::new(LOGARITHMIC, (150.0, 90_000.0), (0.0, 1.0));
        assert_eq!(scale.ticks(5), [100.0, 1000.0, 10_000.0, 100_000.0]);
    }
}
