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
        .partition(|pattern| pattern.contains(['*', '?']));
    let misfits = exact.iter().map(|name| {
        format!("{name}: the backup has no such table; correct the name in the mask file, or take it out")
    });
    let note = listed("mask file: no table of the backup matches", &patterns);
    (misfits.collect(), note)
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
