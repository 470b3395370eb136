//! A small bar chart of durations, as SVG within the page.

use maud::{Markup, html};

/// Size of the drawing, in units of its own.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;
/// Share of a bar's place that it fills.
const FILL: f64 = 0.8;

/// One bar of a chart.
pub(crate) struct TrendBar {
    /// CSS class: `past`, `now` or `next`.
    pub class: &'static str,
    /// What a pointer on the bar shows.
    pub label: String,
    pub seconds: f64,
}

/// A bar chart, which screen readers read as `summary`.
pub(crate) fn trend(bars: &[TrendBar], summary: &str) -> Markup {
    let longest = bars.iter().map(|b| b.seconds).fold(0.0, f64::max);
    let scale = (HEIGHT - 2.0) / longest.max(f64::MIN_POSITIVE);
    let place = WIDTH / bars.len().max(1) as f64;
    let drawn = bars.iter().enumerate().map(|(i, bar)| {
        let height = (bar.seconds * scale).max(1.0);
        let x = place * (i as f64 + (1.0 - FILL) / 2.0);
        (bar, x, HEIGHT - 1.0 - height, height)
    });
    html! {
        svg.chart viewBox={"0 0 " (WIDTH) " " (HEIGHT)} preserveAspectRatio="none" role="img" aria-label=(summary) {
            @for (bar, x, y, height) in drawn {
                rect class=(bar.class) x=(number(x)) y=(number(y)) width=(number(place * FILL)) height=(number(height)) {
                    title { (bar.label) }
                }
            }
        }
    }
}

fn number(n: f64) -> String {
    format!("{n:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_times_are_long() {
        let bar = |seconds| TrendBar {
            class: "past",
            label: "<a>".into(),
            seconds,
        };
        let html = trend(&[bar(5.0), bar(10.0)], "2 restores").into_string();
        assert!(
            html.contains(r#"height="49.0""#) && html.contains(r#"height="98.0""#),
            "{html}"
        );
        assert!(html.contains("&lt;a&gt;") && html.contains(r#"aria-label="2 restores""#));
        // No bars, or bars of no length, are no division by zero.
        for bars in [vec![], vec![bar(0.0)]] {
            let html = trend(&bars, "").into_string();
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }
}
