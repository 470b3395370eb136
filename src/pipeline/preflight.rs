//! Compares a backup with the target server before anything is restored.

use indicatif::HumanBytes;
use tokio_util::sync::CancellationToken;

use super::job_context::Services;
use super::placement::facts_for_database;
use super::states::policy_under;
use crate::backup::PinnedBackup;
use crate::catalog::Restriction;
use crate::config::RestrictedRoles;
use crate::database::{ServerDisk, check_restricted, facts_for_loader};
use crate::error::{DatabaseKind, RestoreError, report};
use crate::event::Advice;
use crate::job::BackupRef;
use crate::postgres::{ServerFacts, ident};
use crate::tuning::{self, AdviceSubject};
use pgdump_archive::Archive;
use pgdump_restore::{Finding, Requirements, Rewriter};

/// What would keep the backup from being restored under the configured policy and trust, and what is worth knowing;
/// what blocks comes first.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub(crate) async fn preflight(
    services: &Services,
    archive: &Archive,
    wanted: &BackupRef,
    pinned: Option<&PinnedBackup>,
) -> Result<Vec<Finding>, RestoreError> {
    let (config, catalog) = (&services.config, &services.catalog);
    let session = services.server.maintenance("preflight").await?;
    let policy = policy_under(catalog.trust_of(wanted), config.policy.clone());
    let globals = catalog
        .globals(&policy, pinned, &CancellationToken::new())
        .await?;
    let facts = session.facts().await?;
    // The target database is not known here.
    let any = facts.cron_database.clone().unwrap_or_default();
    let facts = facts_for_database(facts, &any, &any);
    let mut found: Vec<Finding> = lacks_createdb(&facts).into_iter().collect();
    let facts = match catalog.restriction_of(wanted) {
        None => facts,
        Some(restriction) => {
            found.extend(lacks_restricted_roles(services).await?);
            found.push(is_restricted(&restriction, &config.restricted));
            let loader = config.restricted.users.first();
            let trusted = session.trusted_extensions().await?;
            facts_for_loader(loader.map_or("", String::as_str), facts, &trusted)
        }
    };
    let rewriter = Rewriter::new(facts, policy, globals);
    let mut entries = archive.entries().to_vec();
    let of_profile = rewriter.use_profile(&mut entries, archive.is_script());
    found.extend(of_profile.into_iter().map(left_to_platform));
    let needs = Requirements::of(archive, &entries, pinned.map(|b| b.object.size));
    if let Some(disk) = ServerDisk::of(&session).await {
        found.extend(lacks_space(&disk, &needs, config.min_free));
    }
    found.extend(pgdump_restore::preflight(
        archive, &entries, &needs, &rewriter,
    ));
    found.sort_by_key(|f| f.level);
    Ok(found)
}

/// Settings of the target server that will make a restore of the backup slower; `None` if the server does not tell.
pub(crate) async fn advice(
    services: &Services,
    archive: &Archive,
    pinned: Option<&PinnedBackup>,
) -> Option<Vec<Advice>> {
    let session = services.server.maintenance("preflight").await.ok()?;
    let reading = tuning::read(&session).await?;
    let stored = pinned.map(|b| b.object.size);
    let needs = Requirements::of(archive, archive.entries(), stored);
    let outlook = AdviceSubject::Ahead(needs.estimated_bytes);
    Some(tuning::advise(&reading.settings, &outlook))
}

/// A note of the profile of a managed service.
fn left_to_platform(note: String) -> Finding {
    Finding::notes(
        note,
        "the result of the restore names everything that is left out",
        "none needed; RESTORE_PROFILE=none restores everything as the backup has it",
    )
}

fn lacks_createdb(facts: &ServerFacts) -> Option<Finding> {
    (!facts.may_create_databases).then(|| {
        Finding::blocks(
            DatabaseKind::InsufficientPrivilege,
            format!("role {} may not create databases", facts.user),
            "a backup is restored into a new database, which then takes the target's place, unless it fills an empty one (--into-empty)",
            &format!("ALTER ROLE {} CREATEDB", ident(&facts.user)),
        )
    })
}

/// What the disk of the target server is too small for. What a backup needs is an estimate, so it only warns.
fn lacks_space(disk: &ServerDisk, needs: &Requirements, reserve: u64) -> Option<Finding> {
    let consequence = "a restore ends before the disk is full, and leaves the target as it was";
    if let Some(shortage) = disk.shortage(reserve) {
        return Some(Finding::blocks(
            shortage.kind(),
            shortage.to_string(),
            consequence,
            "free disk space on the target server",
        ));
    }
    let (free, needed) = (disk.free()?, needs.estimated_bytes?);
    (free.saturating_sub(reserve) < needed).then(|| {
        Finding::warns(
            format!(
                "by an estimate, the backup needs {} of disk space, and the target server has {}",
                HumanBytes(needed),
                HumanBytes(free)
            ),
            consequence,
            "free disk space on the target server, or restore only a part of the backup",
        )
    })
}

/// What keeps every restricted restore from being done on this server.
async fn lacks_restricted_roles(services: &Services) -> Result<Option<Finding>, RestoreError> {
    use DatabaseKind as D;
    match check_restricted(&services.server, &services.config.restricted).await {
        Ok(_) => Ok(None),
        Err(RestoreError::Database(e))
            if matches!(e.kind(), D::InsufficientPrivilege | D::AccessDenied) =>
        {
            Ok(Some(Finding::blocks(
                e.kind(),
                report(&e),
                "a restricted restore needs a role that loads and a role that owns the result",
                "run psql -f deploy/postgres/roles.sql, and set DB_RESTRICTED_USER to the roles",
            )))
        }
        Err(e) => Err(e),
    }
}

fn is_restricted(restriction: &Restriction, roles: &RestrictedRoles) -> Finding {
    Finding::notes(
        format!("the restore is restricted: {}", restriction.why),
        &format!(
            "owners and privileges of the backup are left out, and everything belongs to role {} or to the owner of \
             the database that it replaces",
            roles.owner
        ),
        &format!("to restore them, {}", restriction.change),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_restore::Level;

    #[test]
    fn a_role_that_cannot_create_databases_blocks() {
        let facts = |may_create_databases| ServerFacts {
            user: "app".into(),
            may_create_databases,
            ..ServerFacts::default()
        };
        let found = lacks_createdb(&facts(false)).unwrap();
        assert_eq!(found.level, Level::Blocks);
        assert_eq!(found.fix, "ALTER ROLE \"app\" CREATEDB");
        assert_eq!(lacks_createdb(&facts(true)), None);
    }
}
