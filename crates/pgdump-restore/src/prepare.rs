//! What is done before the first statement of the dump: selection, preflight, rewriting.

use pgdump_archive::{Archive, TocEntry};

use crate::error::{DatabaseError, RestoreError};
use crate::policy::Selection;
use crate::preflight::{Finding, Level, Requirements, preflight};
use crate::rewrite::Rewriter;
use crate::{select, unsupported};

/// What is done before the first statement of the dump.
#[derive(Debug, Default)]
pub struct Prepared {
    /// What is restored of the table of contents, fitted to the server.
    pub entries: Vec<TocEntry>,
    /// What the selection brought along or left out, and what the preflight warns of.
    pub notes: Vec<String>,
    /// Statements that make missing roles.
    pub roles: Vec<String>,
}

/// Takes what `selection` leaves out of the table of contents, compares the rest with the server and
/// fits it. `stored`: bytes of the whole backup.
///
/// # Errors
/// `invalid_request` for a selection that cannot be restored by itself; where the preflight finds
/// that the restore cannot succeed, its reason: `version_incompatible`, `extension_missing`,
/// `role_missing`, `insufficient_privilege`.
pub fn prepare(
    archive: &Archive,
    selection: &Selection,
    stored: Option<u64>,
    rewriter: &Rewriter,
) -> Result<Prepared, RestoreError> {
    let mut prepared = Prepared {
        entries: archive.entries().to_vec(),
        ..Prepared::default()
    };
    if !archive.is_script() {
        prepared.notes = select::select(&mut prepared.entries, selection)?;
    } else {
        unsupported::check_part_of_text(archive, selection)?;
    }
    unsupported::refuse_prepared(&prepared.entries)?;
    let needs = Requirements::of(archive, &prepared.entries, stored);
    let findings = preflight(archive, &prepared.entries, &needs, rewriter);
    let blocking: Vec<&Finding> = findings
        .iter()
        .filter(|f| f.level == Level::Blocks)
        .collect();
    if let Some(reason) = blocking.iter().find_map(|f| f.reason) {
        let all: Vec<String> = blocking
            .iter()
            .map(|f| format!("{}: {} ({})", f.what, f.consequence, f.fix))
            .collect();
        return Err(DatabaseError::new(reason, all.join("; ")).into());
    }
    let warned = findings.iter().filter(|f| f.level == Level::Warns);
    prepared
        .notes
        .extend(warned.map(|f| format!("{}: {}", f.what, f.consequence)));
    if archive.is_script() {
        // Its statements are fitted one by one, as they come.
        return Ok(prepared);
    }
    // Made before the first statement: an owner may come before a privilege that names the same role.
    let roles = needs
        .roles_under(rewriter)
        .into_iter()
        .filter(|r| !rewriter.has_role(r));
    prepared.roles = roles
        .map(|r| rewriter.make_role(r))
        .collect::<Result<_, _>>()?;
    rewriter.entries(&mut prepared.entries)?;
    Ok(prepared)
}
