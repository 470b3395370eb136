//! Extensions that a backup needs and the server lacks. Pure.

use super::finding::{Finding, names};
use super::requirements::Requirements;
use crate::error::DatabaseKind as D;
use crate::policy::Extensions;
use crate::rewrite::Rewriter;

pub(super) fn missing(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let facts = &rewriter.facts;
    let all = needs.extensions.iter().map(String::as_str);
    let lacking = all.filter(|e| !facts.extensions.contains(*e) && !is_gone(e, facts.version));
    let (unusable, lacking): (Vec<&str>, Vec<&str>) =
        lacking.partition(|e| facts.unusable_extensions.contains_key(*e));
    let (untrusted, missing): (Vec<&str>, Vec<&str>) = lacking
        .into_iter()
        .partition(|e| facts.untrusted_extensions.contains(*e));
    found.extend(unusable.into_iter().map(|e| cannot_be_created(e, rewriter)));
    found.extend(not_allowed(&untrusted, rewriter));
    found.extend(bound_to_a_database(needs, rewriter));
    found.extend(not_available(&missing, rewriter));
}

/// Whether newer versions have no such extension, so that it is skipped.
fn is_gone(extension: &str, version: u32) -> bool {
    version >= 170000 && matches!(extension, "adminpack" | "old_snapshot")
}

fn cannot_be_created(extension: &str, rewriter: &Rewriter) -> Finding {
    let why = rewriter.facts.unusable_extensions[extension].as_str();
    let what = format!("extension {extension} cannot be created: {why}");
    let fixes = ("or restore with --extensions skip-missing", "see there");
    required(what, fixes, rewriter)
}

fn not_available(missing: &[&str], rewriter: &Rewriter) -> Option<Finding> {
    let fixes = (
        "install the extension's package on the server, or restore with --extensions skip-missing",
        "install the extension's package on the server",
    );
    let what = || format!("the server does not have: extension {}", names(missing));
    (!missing.is_empty()).then(|| required(what(), fixes, rewriter))
}

/// What to do if an extension is required, and if it may be missing.
type Fixes = (&'static str, &'static str);

fn required(what: String, fixes: Fixes, rewriter: &Rewriter) -> Finding {
    match rewriter.policy.extensions {
        Extensions::Require => {
            let consequence = "CREATE EXTENSION would fail";
            Finding::blocks(D::ExtensionMissing, what, consequence, fixes.0)
        }
        Extensions::SkipMissing => {
            let consequence = "it is skipped with everything that depends on it";
            Finding::warns(what, consequence, fixes.1)
        }
    }
}

fn not_allowed(untrusted: &[&str], rewriter: &Rewriter) -> Option<Finding> {
    if untrusted.is_empty() || rewriter.policy.extensions != Extensions::Require {
        return None;
    }
    Some(Finding::blocks(
        D::InsufficientPrivilege,
        format!(
            "only a superuser may create: extension {}",
            names(untrusted)
        ),
        "a restricted restore runs as a role that is not a superuser",
        "restore with BACKUP_TRUST=full if you trust the backup, or with --extensions skip-missing",
    ))
}

fn bound_to_a_database(needs: &Requirements, rewriter: &Rewriter) -> Option<Finding> {
    let database = rewriter.facts.cron_database.as_ref()?;
    if database.is_empty() || !needs.extensions.contains("pg_cron") {
        return None;
    }
    Some(Finding::notes(
        format!(
            "the server allows the extension pg_cron only in the database {database} (cron.database_name)"
        ),
        "the backup can only be restored in place, as a new database of that name",
        "restore under that name, or set cron.database_name, or use --extensions skip-missing",
    ))
}
