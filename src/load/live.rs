//! The live view: a block that is redrawn on a terminal, or regular lines without a terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::stats::IntervalRow;
use super::text::{bytes_per_second, count, micros};

/// The interval of lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The length of the longest bar.
const BAR: usize = 30;
/// The number of rates in the small curve.
const HISTORY: usize = 40;

/// The state of a run at one moment.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    /// The time since the start of the load.
    pub(super) elapsed: Duration,
    /// The time until its planned end.
    pub(super) left: Option<Duration>,
    /// The last interval.
    pub(super) row: &'a IntervalRow,
    /// The active faults.
    pub(super) faults: Vec<String>,
}

/// The output for progress.
#[derive(Debug)]
pub struct Live {
    view: View,
    errors: u64,
    history: Vec<f64>,
}

#[derive(Debug)]
enum View {
    Nothing,
    Lines(Option<Instant>),
    Block(ProgressBar),
}

impl Live {
    /// A view that shows nothing.
    pub fn silent() -> Self {
        Self::with(View::Nothing)
    }

    /// A view on standard error.
    pub fn on_stderr() -> Self {
        if !stderr().is_terminal() {
            return Self::with(View::Lines(None));
        }
        let block = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            block.set_style(style);
        }
        Self::with(View::Block(block))
    }

    fn with(view: View) -> Self {
        Self {
            view,
            errors: 0,
            history: Vec::new(),
        }
    }

    /// Shows the current step.
    pub(super) fn print(&mut self, text: &str) {
        match &self.view {
            View::Nothing => {}
            View::Lines(_) => eprintln_quietly(text),
            View::Block(block) => block.println(text),
        }
    }

    /// Shows the state of the load.
    pub(super) fn show(&mut self, snapshot: &Snapshot<'_>) {
        self.errors += snapshot
            .row
            .sides
            .iter()
            .map(|side| side.errors)
            .sum::<u64>();
        let rate = rate(snapshot.row);
        self.history.push(rate);
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        match &mut self.view {
            View::Nothing => {}
            View::Lines(last) => {
                let now = Instant::now();
                if last.is_none_or(|last| now - last >= LINE_EVERY) {
                    *last = Some(now);
                    eprintln_quietly(&line(snapshot, self.errors));
                }
            }
            View::Block(block) => block.set_message(frame(snapshot, self.errors, &self.history)),
        }
    }

    /// Removes the block.
    pub(super) fn finish(&mut self) {
        if let View::Block(block) = &self.view {
            block.finish_and_clear();
        }
    }
}

/// Standard error may be closed. Progress is then lost, which is no error.
fn eprintln_quietly(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(stderr(), "{text}");
}

fn rate(row: &IntervalRow) -> f64 {
    row.sides.iter().map(|side| side.count).sum::<u64>() as f64 / row.seconds().max(0.001)
}

/// The state as one line.
fn line(snapshot: &Snapshot<'_>, errors: u64) -> String {
    let row = snapshot.row;
    let mut text = format!(
        "{:>5.0} s  {:>8.0}/s  in flight {:>5}",
        snapshot.elapsed.as_secs_f64(),
        rate(row),
        row.in_flight
    );
    if let Some(side) = row.sides.first() {
        let quantile = |quantile| micros(side.latency.quantile(quantile) as f64);
        let _ = write!(
            text,
            "  p50 {:>8}  p99 {:>8}",
            quantile(0.5),
            quantile(0.99)
        );
    }
    let _ = write!(text, "  errors {}", count(errors));
    if !snapshot.faults.is_empty() {
        let _ = write!(text, "  fault: {}", snapshot.faults.join(", "));
    }
    text
}

/// The state as a block of lines.
fn frame(snapshot: &Snapshot<'_>, errors: u64, history: &[f64]) -> String {
    let row = snapshot.row;
    let left = match snapshot.left {
        Some(left) => format!(", {:.0} s left", left.as_secs_f64()),
        None => String::new(),
    };
    let moved: u64 = row
        .sides
        .iter()
        .map(|side| side.bytes_sent + side.bytes_received)
        .sum();
    let mut text = format!(
        "{:>4.0} s{}   {:.0}/s   {}   in flight {}   errors {}\n{}\n",
        snapshot.elapsed.as_secs_f64(),
        left,
        rate(row),
        bytes_per_second(moved as f64 / row.seconds().max(0.001)),
        row.in_flight,
        count(errors),
        sparkline(history)
    );
    for (index, side) in row.sides.iter().enumerate() {
        let name = if index == 0 { "" } else { "direct " };
        let longest = side.latency.quantile(0.99).max(1);
        for (label, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let latency = side.latency.quantile(quantile);
            let bar = bar(latency, longest);
            let _ = writeln!(text, "{name}{label} {:>8} {bar}", micros(latency as f64));
        }
    }
    for fault in &snapshot.faults {
        let _ = writeln!(text, "fault: {}", fault.escape_debug());
    }
    text.truncate(text.trim_end().len());
    text
}

fn bar(value: u64, longest: u64) -> String {
    let length = value * BAR as u64 / longest.max(1);
    "█".repeat(usize::try_from(length).unwrap_or(BAR).clamp(1, BAR))
}

fn sparkline(history: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = history.iter().copied().fold(1.0, f64::max);
    let level = |value: &f64| {
        let steps = LEVELS.iter().enumerate().rev();
        let mut reached = steps.filter(|(index, _)| *index as f64 <= value / highest * 7.0);
        reached.next().map_or('▁', |(_, level)| *level)
    };
    history.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    #[test]
    fn shows_rate_latency_errors_faults_and_time_left() {
        let report = report();
        let snapshot = Snapshot {
            elapsed: Duration::from_secs(5),
            left: Some(Duration::from_secs(25)),
            row: &report.series.rows[4],
            faults: vec!["slow".to_owned()],
        };
        let text = frame(&snapshot, 1234, &[1.0, 50.0, 100.0]);
        for part in [
            "25 s left",
            "100/s",
            "in flight 3",
            "errors 1,234",
            "▁▄█",
            "p99",
            "10.0 ms",
            "fault: slow",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let text = line(&snapshot, 1234);
        for part in ["100/s", "in flight     3", "errors 1,234", "fault: slow"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\n'));
    }
}
