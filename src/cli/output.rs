//! What commands print: text or one JSON document, and the texts that they share.

use clap::ValueEnum;

use super::exit::{CommandError, CommandResult, Exit};
use super::terminal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    Text,
    Json,
}

/// Prints one JSON document.
pub(super) fn print_json(value: &impl serde::Serialize) -> CommandResult {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| CommandError::Other(e.to_string()))?;
    terminal::print_document(&text);
    Ok(Exit::Ok)
}

/// The singular or the plural of a noun, for a count of `n`.
pub(super) fn noun(n: u64, singular: &str) -> String {
    if n == 1 {
        singular.to_owned()
    } else {
        format!("{singular}s")
    }
}

/// A number of things, with separators of thousands: `1 row`, `1,234 rows`.
pub(super) fn count(n: u64, singular: &str) -> String {
    format!("{} {}", indicatif::HumanCount(n), noun(n, singular))
}

/// A human-readable duration of at most two units: `0.4 s`, `2 min 5 s`, `3 h 20 min`, `4 d 6 h`.
pub(super) fn duration(seconds: f64) -> String {
    // As many tenths as are shown, so that nothing is rounded up to 60.0 s.
    let tenths = (seconds.max(0.0) * 10.0).round();
    if tenths < 600.0 {
        return format!("{:.1} s", tenths / 10.0);
    }
    let seconds = seconds.round() as u64;
    match (seconds / 60, seconds / 3600) {
        (minutes, 0) => format!("{minutes} min {} s", seconds % 60),
        (minutes, hours) if hours < 24 => format!("{hours} h {} min", minutes % 60),
        (_, hours) => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// A human-readable number of bytes.
pub(super) fn human_bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        let rows = [0, 1, 2, 1_234_567].map(|n| count(n, "row"));
        assert_eq!(rows, ["0 rows", "1 row", "2 rows", "1,234,567 rows"]);
        for (seconds, text) in [
            (-1.0, "0.0 s"),
            (0.04, "0.0 s"),
            (59.94, "59.9 s"),
            (59.96, "1 min 0 s"),
            (125.4, "2 min 5 s"),
            (3_599.7, "1 h 0 min"),
            (12_000.0, "3 h 20 min"),
            (90_000.0, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
