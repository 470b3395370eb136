//! Whether, how long and from when a restore that stopped is continued.

use std::time::Duration;

use clap::ValueEnum;

use super::raw::RawConfig;
use super::values::{ConfigErrors, non_empty};

/// Whether a restore that stopped goes on where it stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Resume {
    /// If all that it depends on is unchanged.
    #[default]
    Auto,
    /// Every attempt begins from the start.
    Never,
}

/// How restores that stopped are continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeConfig {
    pub mode: Resume,
    /// How long the work of a stopped restore is kept for its next attempt, from its last sign of life.
    pub within: Duration,
    /// A restore that has loaded for less than this is not worth keeping.
    pub from: Duration,
}

impl ResumeConfig {
    pub(super) fn read(raw: &RawConfig, errors: &mut ConfigErrors) -> Self {
        ResumeConfig {
            mode: mode(raw, errors),
            within: errors.duration(
                "RESTORE_RESUME_FOR",
                &raw.restore_resume_for,
                Duration::from_secs(24 * 3600),
            ),
            from: errors.duration_or_none(
                "RESTORE_RESUME_FROM",
                &raw.restore_resume_from,
                Duration::from_secs(60),
            ),
        }
    }
}

fn mode(raw: &RawConfig, errors: &mut ConfigErrors) -> Resume {
    let chosen = non_empty(&raw.restore_resume)
        .map(|t| Resume::from_str(t, true))
        .transpose();
    chosen
        .unwrap_or_else(|_| {
            errors.add("RESTORE_RESUME", "must be auto or never");
            None
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[(&str, &str)]) -> (ResumeConfig, Vec<String>) {
        let mut errors = ConfigErrors::default();
        let config = ResumeConfig::read(&RawConfig::from_flags(flags).unwrap(), &mut errors);
        (config, errors.0)
    }

    #[test]
    fn restores_are_continued_by_default() {
        let (config, errors) = read(&[]);
        assert_eq!((config.mode, errors.len()), (Resume::Auto, 0));
        let seconds = (config.within.as_secs(), config.from.as_secs());
        assert_eq!(seconds, (24 * 3600, 60));
        let (config, errors) = read(&[
            ("restore-resume", "never"),
            ("restore-resume-for", "2d"),
            ("restore-resume-from", "0s"),
        ]);
        assert_eq!((config.mode, errors.len()), (Resume::Never, 0));
        let seconds = (config.within.as_secs(), config.from.as_secs());
        assert_eq!(seconds, (48 * 3600, 0));
    }

    #[test]
    fn all_mistakes_are_reported() {
        let (_, errors) = read(&[
            ("restore-resume", "always"),
            ("restore-resume-for", "0s"),
            ("restore-resume-from", "some"),
        ]);
        let variables: Vec<_> = errors.iter().filter_map(|e| e.split(':').next()).collect();
        assert_eq!(
            variables,
            [
                "RESTORE_RESUME",
                "RESTORE_RESUME_FOR",
                "RESTORE_RESUME_FROM"
            ]
        );
    }
}
