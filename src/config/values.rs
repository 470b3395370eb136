//! Reads single values. Mistakes are collected, so that all of them are reported at once.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::location::Location;

/// All errors of a configuration, each as `VARIABLE: what is wrong`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid configuration")?;
        self.0.iter().try_for_each(|e| write!(f, "\n  {e}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Parses a duration that is not negative.
fn parse_duration(text: &str) -> Option<Duration> {
    let span = text.parse::<jiff::Span>().ok()?;
    let exact = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    Duration::try_from(exact.ok()?).ok()
}

/// A duration as a variable has it: `90s`, `30m`, `12h` or `7d`; fractions of a second as `1.5s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400, 2 * 86_400), ("h", 3600, 3600), ("m", 60, 60)];
    let fits =
        |(_, unit, least): &(&str, u64, u64)| seconds >= *least && seconds.is_multiple_of(*unit);
    match units.into_iter().find(fits) {
        Some((name, unit, _)) if duration.subsec_nanos() == 0 => {
            format!("{}{name}", seconds / unit)
        }
        _ => format!("{duration:?}"),
    }
}

impl ConfigErrors {
    pub(super) fn add(&mut self, variable: &str, what: impl fmt::Display) {
        self.0.push(format!("{variable}: {what}"));
    }

    pub(super) fn parse<T: std::str::FromStr>(
        &mut self,
        variable: &str,
        given: &Option<String>,
        default: T,
        what: &str,
    ) -> T {
        match non_empty(given).map(str::parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.add(variable, what);
                default
            }
        }
    }

    pub(super) fn at_least_one(
        &mut self,
        variable: &str,
        given: &Option<String>,
        default: usize,
    ) -> usize {
        let n = self.parse(variable, given, default, "must be a positive integer");
        if n == 0 {
            self.add(variable, "must be a positive integer");
        }
        n.max(1)
    }

    pub(super) fn duration(
        &mut self,
        variable: &str,
        given: &Option<String>,
        default: Duration,
    ) -> Duration {
        let Some(text) = non_empty(given) else {
            return default;
        };
        let parsed = parse_duration(text).filter(|d| !d.is_zero());
        self.or_not_a_duration(variable, parsed, default)
    }

    /// A duration; `0` and `0s` are allowed and mean none.
    pub(super) fn duration_or_none(
        &mut self,
        variable: &str,
        given: &Option<String>,
        default: Duration,
    ) -> Duration {
        match non_empty(given) {
            None => default,
            Some("0") => Duration::ZERO,
            Some(text) => self.or_not_a_duration(variable, parse_duration(text), default),
        }
    }

    fn or_not_a_duration(
        &mut self,
        variable: &str,
        parsed: Option<Duration>,
        default: Duration,
    ) -> Duration {
        parsed.unwrap_or_else(|| {
            self.add(variable, "must be a duration such as 30s, 15m, 12h or 7d");
            default
        })
    }

    pub(super) fn locations(&mut self, variable: &str, given: &Option<String>) -> Vec<Location> {
        list(given)
            .iter()
            .map(|text| self.location(variable, text))
            .collect()
    }

    pub(super) fn location(&mut self, variable: &str, text: &str) -> Location {
        Location::parse(text).unwrap_or_else(|what| {
            self.add(variable, what);
            Location::Folder(PathBuf::new())
        })
    }
}

/// The items of a comma-separated list.
pub(super) fn list(given: &Option<String>) -> Vec<String> {
    let parts = non_empty(given)
        .unwrap_or_default()
        .split(',')
        .map(str::trim);
    parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

/// A secret without its trailing newline.
pub(super) fn secret_line(text: String) -> SecretString {
    SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The trimmed value; an empty variable counts as unset.
pub(super) fn non_empty(given: &Option<String>) -> Option<&str> {
    given.as_deref().map(str::trim).filter(|t| !t.is_empty())
}

pub(super) fn or_default(given: &Option<String>, default: &str) -> String {
    non_empty(given).unwrap_or(default).to_owned()
}

/// Reads a file that contains no secret.
pub(super) fn text_of(
    variable: &str,
    file: &Option<String>,
    errors: &mut ConfigErrors,
) -> Option<String> {
    let file = non_empty(file)?;
    let unreadable =
        |e: std::io::Error| errors.add(variable, format!("cannot be read: {}", e.kind()));
    std::fs::read_to_string(file).map_err(unreadable).ok()
}

/// Reads a secret from its file if one is given, otherwise takes the value itself.
pub(super) fn secret(
    variable: &str,
    file: &Option<String>,
    text: &Option<String>,
    errors: &mut ConfigErrors,
) -> Option<String> {
    let from_file = non_empty(file).and_then(|file| {
        std::fs::read_to_string(file)
            .map_err(|e| {
                errors.add(
                    &format!("{variable}_FILE"),
                    format!("cannot be read: {}", e.kind()),
                )
            })
            .ok()
    });
    from_file.or(non_empty(text).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_configured() {
        for text in ["90s", "30m", "12h", "24h", "36h", "7d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        let limit = Duration::from_millis(1500);
        assert_eq!(format_duration(limit), "1.5s");
    }

    #[test]
    fn only_some_durations_may_be_none() {
        const DEFAULT: Duration = Duration::from_secs(7);
        for (text, seconds, may_be_none) in [
            ("", Some(7), Some(7)),
            ("90s", Some(90), Some(90)),
            ("1d", Some(86_400), Some(86_400)),
            ("0", None, Some(0)),
            ("0s", None, Some(0)),
            ("-1s", None, None),
            ("soon", None, None),
        ] {
            let given = Some(text.to_owned());
            let mut errors = ConfigErrors::default();
            let found = errors.duration("A", &given, DEFAULT);
            assert_eq!(errors.0.len(), usize::from(seconds.is_none()), "{text}");
            assert_eq!(found.as_secs(), seconds.unwrap_or(7), "{text}");
            let mut errors = ConfigErrors::default();
            let found = errors.duration_or_none("A", &given, DEFAULT);
            assert_eq!(errors.0.len(), usize::from(may_be_none.is_none()), "{text}");
            assert_eq!(found.as_secs(), may_be_none.unwrap_or(7), "{text}");
        }
    }
}
