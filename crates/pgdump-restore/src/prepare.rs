//! Prepares a restore before the dump's first statement: selection, preflight, rewriting.

use pgdump_archive::{Archive, TocEntry};

use crate::choice::has_arguments;
use crate::error::{DatabaseError, RestoreError, ValidationError, ValidationKind};
use crate::policy::Selection;
use crate::preflight::{Finding, Level, OLDEST_SERVER, Requirements, preflight};
use crate::refusal::Refusal;
use crate::rewrite::Rewriter;
use crate::{select, unsupported};

/// What a restore needs before the dump's first statement runs.
#[derive(Debug, Default)]
pub struct PreparedArchive {
    /// The selected part of the table of contents, rewritten for the server.
    pub entries: Vec<TocEntry>,
    /// What the selection included or skipped, and the preflight's warnings.
    pub notes: Vec<String>,
    /// Statements that create missing roles, and make the restoring role a member of owners.
    pub roles: Vec<String>,
}

/// Applies `selection` to the table of contents, compares the result with the server and rewrites it.
/// `stored`: size of the whole backup in bytes.
///
/// # Errors
/// `invalid_request` for a selection that cannot be restored by itself; if the preflight finds that
/// the restore cannot succeed, its reason: `version_incompatible`, `extension_missing`,
/// `role_missing`, `insufficient_privilege`. With [`OnError::Skip`](crate::policy::OnError::Skip), the server refuses what
/// it lacks, definition by definition, and only a server that is too old is an error.
pub fn prepare(
    archive: &Archive,
    selection: &Selection,
    stored: Option<u64>,
    rewriter: &Rewriter,
) -> Result<PreparedArchive, RestoreError> {
    let mut prepared = selected(archive, selection)?;
    if archive.is_script() {
        rewriter.select_statements(selection);
    }
    let entries = &mut prepared.entries;
    let of_profile = rewriter.use_profile(entries, archive.is_script());
    prepared.notes.extend(of_profile);
    unsupported::refuse_prepared(&prepared.entries)?;
    let needs = Requirements::of(archive, &prepared.entries, stored);
    let findings = preflight(archive, &prepared.entries, &needs, rewriter);
    let is_left = |f: &Finding| rewriter.leaves_refusals_to_server() && !is_of_server(f, rewriter);
    let (left, findings): (Vec<Finding>, Vec<Finding>) = findings.into_iter().partition(is_left);
    refuse_blocked(&findings)?;
    let warned = left.iter().chain(&findings);
    let warned = warned.filter(|f| f.level != Level::Notes);
    let notes = warned.map(|f| format!("{}: {}", f.what, f.consequence));
    prepared.notes.extend(notes);
    // Statements of SQL text are rewritten one by one, as they arrive.
    if !archive.is_script() {
        // Roles are created before the first statement: an owner may precede a privilege that names the same role.
        prepared.roles = missing_roles(&needs, rewriter)?;
        prepared.roles.extend(memberships(&needs, rewriter));
        rewriter.entries(&mut prepared.entries)?;
    }
    Ok(prepared)
}

/// The selected entries; nothing is rewritten yet.
fn selected(archive: &Archive, selection: &Selection) -> Result<PreparedArchive, RestoreError> {
    let mut prepared = PreparedArchive {
        entries: archive.entries().to_vec(),
        ..PreparedArchive::default()
    };
    if archive.is_script() {
        unsupported::check_part_of_text(archive, selection)?;
        selection.check().map_err(invalid)?;
        check_arguments(selection)?;
        select::drop_skipped(&mut prepared.entries, selection);
    } else {
        prepared.notes = select::select(&mut prepared.entries, selection)?;
    }
    Ok(prepared)
}

/// Refuses at once what would match nothing at the end of SQL text.
fn check_arguments(selection: &Selection) -> Result<(), RestoreError> {
    let Some(pattern) = selection.skip.iter().find(|p| has_arguments(p)) else {
        return Ok(());
    };
    let name = pattern.split('(').next().unwrap_or_default();
    Err(invalid(format!(
        "--skip '{pattern}': of SQL text, functions are chosen without their arguments: write '{name}', which means all of this name"
    )))
}

fn invalid(what: String) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

/// Whether a finding is about the server, so that no definition needs to be tried.
fn is_of_server(finding: &Finding, rewriter: &Rewriter) -> bool {
    finding.level == Level::Blocks && rewriter.facts.version < OLDEST_SERVER
}

fn refuse_blocked(findings: &[Finding]) -> Result<(), RestoreError> {
    let blocking = findings.iter().filter(|f| f.level == Level::Blocks);
    let Some(kind) = blocking.clone().find_map(|f| f.kind) else {
        return Ok(());
    };
    let refusals = blocking.clone().map(as_refusal).collect();
    let all = blocking.map(|f| format!("{}: {} ({})", f.what, f.consequence, f.fix));
    let all: Vec<String> = all.collect();
    let error = DatabaseError::new(kind, all.join("; "));
    Err(error.with_refusals(refusals).into())
}

/// What the server would refuse, in the form of what it did refuse.
fn as_refusal(finding: &Finding) -> Refusal {
    Refusal {
        entry: finding.what.clone(),
        sqlstate: None,
        message: format!("{}: {}", finding.consequence, finding.fix),
        root: finding.what.clone(),
        caused_by: None,
    }
}

/// Statements that create the roles that the server lacks.
fn missing_roles(needs: &Requirements, rewriter: &Rewriter) -> Result<Vec<String>, RestoreError> {
    let roles = needs.roles_under(rewriter).into_iter();
    let missing =
        roles.filter(|role| !rewriter.has_role(role) && !rewriter.does_without_role(role));
    missing.map(|role| rewriter.make_role(role)).collect()
}

/// Statements that let the restoring role give objects to owners of which it is no member yet.
fn memberships(needs: &Requirements, rewriter: &Rewriter) -> Vec<String> {
    let owners = needs.owners.iter().map(|role| rewriter.role(role));
    owners
        .filter_map(|owner| rewriter.join_role(owner))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DatabaseKind as D;

    #[test]
    fn arguments_of_functions_are_refused_for_text() {
        let selection = |pattern: &str| Selection {
            skip: vec![pattern.to_owned()],
            ..Selection::default()
        };
        let e = check_arguments(&selection("FUNCTION public.f(integer)")).unwrap_err();
        assert!(e.to_string().contains("write 'FUNCTION public.f'"), "{e}");
        assert!(check_arguments(&selection("FUNCTION public.f")).is_ok());
    }

    #[test]
    fn all_that_blocks_is_in_the_error() {
        let found = [
            Finding::blocks(D::RoleMissing, "role a".into(), "no owner", "create it"),
            Finding::blocks(
                D::ExtensionMissing,
                "extension b".into(),
                "no type",
                "install it",
            ),
            Finding::warns("locale c".into(), "sorts differently", "install it"),
        ];
        let e = refuse_blocked(&found).unwrap_err();
        let told: Vec<(&str, &str)> = e
            .refusals()
            .iter()
            .map(|r| (r.entry.as_str(), r.message.as_str()))
            .collect();
        let wanted = [
            ("role a", "no owner: create it"),
            ("extension b", "no type: install it"),
        ];
        assert_eq!(told, wanted);
    }
}
