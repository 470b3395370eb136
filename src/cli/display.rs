//! The progress of a job on standard error: a bar on a terminal, otherwise a line every 10 s.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

use super::output::{count, human_bytes};
use super::terminal;
use crate::progress::{Progress, Snapshot};

/// Pause between lines if there is no bar.
pub(super) const LINE: Duration = Duration::from_secs(10);
/// Pause between looks at the progress if there is a bar.
const FRAME: Duration = Duration::from_millis(200);
/// Width of a terminal that does not tell its width.
const USUAL_WIDTH: usize = 80;

/// Shows the progress until the task is aborted.
pub(super) async fn show(progress: Arc<Progress>) {
    let bar = Bar::new();
    let began = tokio::time::Instant::now();
    let mut every = tokio::time::interval(if bar.is_some() { FRAME } else { LINE });
    every.tick().await;
    loop {
        every.tick().await;
        let snapshot = progress.snapshot();
        match &bar {
            Some(bar) => bar.show(&snapshot, began.elapsed()),
            None => err!("{}", parts(&snapshot).join(", ")),
        }
    }
}

/// A bar on the terminal. It is cleared on drop, and while other lines are written.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// `None` if standard error is not a terminal.
    pub(super) fn new() -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let style = ProgressStyle::with_template("{wide_msg}").ok()?;
        let bar = ProgressBar::new_spinner().with_style(style);
        terminal::set_bar(Some(bar.clone()));
        Some(Bar(bar))
    }

    /// Draws the bar of a job that has run for `elapsed`.
    pub(super) fn show(&self, snapshot: &Snapshot, elapsed: Duration) {
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        let width = size.map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { USUAL_WIDTH } else { width };
        let line = bar_line(width, snapshot, elapsed);
        self.0.set_message(terminal::escaped(&line).into_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        terminal::set_bar(None);
    }
}

/// The whole line of a bar, at most `width` columns from 60 on. What does not fit is left out, the least important
/// first. A job of unknown size has no bar.
fn bar_line(width: usize, s: &Snapshot, elapsed: Duration) -> String {
    let mut line = FormattedDuration(elapsed).to_string();
    if let Some(fraction) = s.fraction {
        let cells = (width / 5).clamp(8, 30);
        let fraction = fraction.clamp(0.0, 1.0);
        // Rounded down: only what is complete is at 100 %.
        let (full, percent) = (cells as f64 * fraction, (fraction * 100.0) as u64);
        let full = "=".repeat(full as usize);
        line += &format!(" [{full:<cells$}] {percent:>3} %");
    }
    if let Some(seconds) = s.eta_seconds {
        let left = Duration::from_secs_f64(seconds.max(0.0).round());
        line += &format!(" ETA {}", FormattedDuration(left));
    }
    for (place, part) in parts(s).iter().enumerate() {
        let separator = if place == 0 { "  " } else { ", " };
        if line.chars().count() + separator.len() + part.chars().count() > width {
            break;
        }
        line = line + separator + part;
    }
    line
}

/// What is known of the progress, the most important first.
fn parts(s: &Snapshot) -> Vec<String> {
    let read = human_bytes(s.object_bytes);
    let read = match s.object_size {
        0 => format!("{read} read"),
        size => format!("{read} of {} read", human_bytes(size)),
    };
    let mut parts = vec![s.stage.clone(), read];
    if s.rows > 0 {
        parts.push(count(s.rows, "row"));
    }
    if s.tables > 0 {
        parts.push(format!("tables {}/{}", s.tables_done, s.tables));
    }
    if s.tasks > 0 {
        parts.push(format!("indexes and keys {}/{}", s.tasks_done, s.tasks));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(fraction: Option<f64>, eta_seconds: Option<f64>) -> Snapshot {
        Snapshot {
            stage: "indexes".into(),
            fraction,
            eta_seconds,
            object_bytes: 123_456_789_012,
            object_size: 987_654_321_098,
            data_bytes: 1,
            rows: 12_345_678_901,
            tables_done: 1_234,
            tables: 5_678,
            tasks_done: 9_012,
            tasks: 13_456,
            latest_tables: vec![],
        }
    }

    #[test]
    fn the_bar_fits_every_width() {
        let elapsed = Duration::from_secs(36_000);
        for width in 60..=200 {
            for s in [
                at(Some(0.0), None),
                at(Some(0.5), Some(359_999.0)),
                at(Some(1.0), None),
                at(None, None),
            ] {
                let line = bar_line(width, &s, elapsed);
                assert!(line.chars().count() <= width, "{width}: {line}");
                assert!(line.contains("  indexes"), "{width}: {line}");
            }
        }
        let wide = bar_line(200, &at(Some(0.5), Some(60.0)), elapsed);
        assert!(wide.ends_with(", indexes and keys 9012/13456"), "{wide}");
    }

    #[test]
    fn a_bar_says_only_what_is_known() {
        let line = |fraction, eta| bar_line(80, &at(fraction, eta), Duration::from_secs(65));
        let start = line(Some(0.0), None);
        assert!(start.starts_with("00:01:05 [                ]   0 %  indexes, "));
        assert!(!start.contains("ETA"), "{start}");
        let middle = line(Some(0.5), Some(125.4));
        assert!(
            middle.starts_with("00:01:05 [========        ]  50 % ETA 00:02:05  indexes"),
            "{middle}"
        );
        let end = line(Some(0.999), None);
        assert!(end.contains("[=============== ]  99 %"), "{end}");
        let unknown = line(None, None);
        assert!(unknown.starts_with("00:01:05  indexes, "), "{unknown}");
    }
}
