//! What of the rules does not fit the backup.

use pgdump_mask::Masking;

use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::notes::listed;

/// Large objects may hold anything.
pub(super) fn misfit_of_large_objects(masking: &Masking) -> Option<String> {
    let is_open = masking.refuses_unlisted() && masking.large_objects().is_none();
    is_open.then(|| {
        "large objects: no rule masks their contents; write large_objects: keep, or large_objects: none to leave the \
         contents out"
            .to_owned()
    })
}

/// Names in the file that are no table of the backup: a misspelt name would leave its table unmasked. Patterns may match
/// nothing, which is a note.
pub(super) fn unmatched(
    masking: &Masking,
    names: &[(String, String)],
) -> (Vec<String>, Option<String>) {
    let unmatched = masking.unmatched(names);
    let (patterns, exact): (Vec<String>, Vec<String>) = unmatched
        .into_iter()
        .partition(|pattern| has_wildcards(pattern));
    let misfits = exact.iter().map(|name| {
        format!(
            "{name}: the backup has no such table; correct the name in the mask file, or remove it"
        )
    });
    let note = listed("mask file: no table of the backup matches", &patterns);
    (misfits.collect(), note)
}

/// Whether a pattern has wildcards outside of quotes.
fn has_wildcards(pattern: &str) -> bool {
    let mut is_quoted = false;
    pattern.chars().any(|c| {
        is_quoted ^= c == '"';
        !is_quoted && ['*', '?'].contains(&c)
    })
}

/// The error for rules that do not fit the backup.
pub(crate) fn do_not_fit(misfits: Vec<String>) -> RestoreError {
    let what = format!(
        "the masking rules do not fit the backup: {}",
        misfits.join("; ")
    );
    let error = ValidationError::new(ValidationKind::MaskMisfit, what);
    error.with_misfits(misfits).into()
}

#[cfg(test)]
mod tests {
    use pgdump_mask::MaskFile;

    use super::*;

    #[test]
    fn names_in_quotes_have_no_wildcards() {
        let file = "version: 1\ntables: { 's.\"a*\"': {}, 's.b*': {}, s.c: {} }\n";
        let masking = Masking::new(MaskFile::parse(file).unwrap(), None).unwrap();
        let (misfits, note) = unmatched(&masking, &[]);
        assert_eq!(misfits.len(), 2, "{misfits:?}");
        assert!(misfits[0].starts_with("s.\"a*\": "));
        assert!(note.unwrap().ends_with("s.b*"));
    }
}
