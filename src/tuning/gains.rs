//! The gains that `benches/tuning.rs` has measured.

use std::sync::LazyLock;

use crate::event::MeasuredGain;

/// Written by `benches/tuning.rs`.
const FILE: &str = include_str!("gains.json");
/// A smaller share cannot be distinguished from noise.
const LEAST_SHARE: f64 = 0.02;

/// A setting with a bad and a good value, measured in pairs.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub(super) struct Measurement {
    pub(super) setting: String,
    pub(super) dataset: String,
    pub(super) bad: String,
    pub(super) good: String,
    /// Of the time with the bad value, what the good one saved: the median of the pairs. Negative if it took longer.
    pub(super) share: f64,
    /// Cores and version of the server.
    pub(super) machine: String,
}

#[derive(Debug, serde::Deserialize)]
struct Measured {
    measured: Vec<Measurement>,
}

static MEASURED: LazyLock<Vec<Measurement>> = LazyLock::new(|| {
    let read = serde_json::from_str::<Measured>(FILE);
    read.map(|file| file.measured).unwrap_or_default()
});

/// All measurements of this program.
pub(super) fn measured() -> &'static [Measurement] {
    &MEASURED
}

/// What is known of the gain of another value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Gain {
    NotMeasured,
    /// It was measured, and does not help.
    None,
    Measured(MeasuredGain),
}

/// The gain of a setting whose value `is_as_bad` as a measured bad value; the largest one if there are several.
pub(super) fn gain_of(
    measured: &[Measurement],
    setting: &str,
    is_as_bad: impl Fn(&str) -> bool,
) -> Gain {
    let fitting = measured
        .iter()
        .filter(|m| m.setting == setting && is_as_bad(&m.bad));
    let Some(best) = fitting.max_by(|a, b| a.share.total_cmp(&b.share)) else {
        return Gain::NotMeasured;
    };
    if best.share < LEAST_SHARE {
        return Gain::None;
    }
    Gain::Measured(MeasuredGain {
        share: (best.share * 100.0).round() / 100.0,
        source: format!(
            "make bench, {}: {} instead of {}; {}",
            best.dataset, best.good, best.bad, best.machine
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_bench_is_understood() {
        serde_json::from_str::<Measured>(FILE).unwrap();
        assert!(
            measured()
                .iter()
                .all(|m| m.share.is_finite() && m.share < 1.0)
        );
    }
}
