//! Results as a worker's status lists them, a hundred at once.

use super::{REDUCED_TEXT, RestoreResult};
use crate::error::{bound_list, line_of};

/// A result up to this size is listed as it is, in bytes.
const WHOLE: usize = 16 << 10;
/// Most lines of each list of a longer one.
const LISTED: usize = 10;
const SHORTENED: &str = "shortened here: the result event lists more";

impl RestoreResult {
    /// The result, or, if what it lists grew with the backup, the first lines of each list. Their totals stay.
    pub(crate) fn shortened(self) -> Self {
        let size = serde_json::to_vec(&self).map_or(usize::MAX, |json| json.len());
        if size <= WHOLE {
            return self;
        }
        let mut short = self;
        short.shorten_lists();
        short
            .notes
            .iter_mut()
            .for_each(|note| *note = line_of(note, REDUCED_TEXT));
        if short.notes.last().is_none_or(|note| note != SHORTENED) {
            short.notes.push(SHORTENED.to_owned());
        }
        short
    }

    fn shorten_lists(&mut self) {
        bound_list(&mut self.notes, LISTED);
        self.rewrites.truncate(LISTED);
        self.rewrites
            .iter_mut()
            .for_each(|r| r.examples.truncate(1));
        self.skipped.truncate(LISTED);
        if let Some(masking) = &mut self.masking {
            masking.tables.truncate(LISTED);
            masking
                .tables
                .iter_mut()
                .for_each(|t| t.columns.truncate(LISTED));
        }
        if let Some(verification) = &mut self.verification {
            verification.findings.truncate(LISTED);
            let texts = verification.findings.iter_mut().map(|f| &mut f.message);
            texts.for_each(|text| *text = line_of(text, REDUCED_TEXT));
            if let Some(bisection) = &mut verification.bisection {
                bisection.probes.truncate(LISTED);
                bisection.left_out.truncate(LISTED);
            }
        }
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.refusals.truncate(LISTED);
        }
        if let Some(error) = &mut self.error {
            error.message = line_of(&error.message, 2 * REDUCED_TEXT);
            error.refusals.truncate(LISTED);
            error.misfits.truncate(LISTED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rewrite;

    #[test]
    fn what_grows_with_a_backup_is_shortened() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut result = RestoreResult::new("r", (now, now));
        result.notes = vec!["a note".to_owned()];
        assert_eq!(result.clone().shortened(), result);
        let long = "x".repeat(REDUCED_TEXT);
        result.notes = vec![long.clone(); 100];
        let rewrite = Rewrite {
            rule: "r".into(),
            what: long.clone(),
            count: 100_000,
            examples: vec![long; 10],
        };
        result.rewrites = vec![rewrite; 100];
        let short = result.clone().shortened();
        let size = serde_json::to_vec(&short).unwrap().len();
        assert!(size < 2 * WHOLE, "{size}");
        assert_eq!(short.notes.last().map(String::as_str), Some(SHORTENED));
        assert!(short.notes.contains(&"and 91 more".to_owned()));
        assert_eq!(short.rewrites[0].count, 100_000);
        assert_eq!(short.clone().shortened(), short);
    }
}
