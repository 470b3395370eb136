//! Roles that a backup needs and the server lacks, or that the restoring role may not act for. Pure.

use super::finding::{Finding, names};
use super::requirements::Requirements;
use crate::error::DatabaseKind as D;
use crate::hints::{MISSING_NAMED_ROLE, MISSING_ROLE};
use crate::policy::Owners;
use crate::rewrite::Rewriter;

pub(super) fn missing(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let roles = needs.roles_under(rewriter).into_iter();
    let missing = roles.filter(|role| !rewriter.has_role(role));
    let (created, missing): (Vec<&str>, Vec<&str>) =
        missing.partition(|role| rewriter.makes_role(role));
    found.extend((!created.is_empty()).then(|| to_create(&created, rewriter)));
    let named: Vec<&str> = needs.named.iter().map(|r| rewriter.role(r)).collect();
    let (named, others): (Vec<&str>, Vec<&str>) =
        missing.into_iter().partition(|role| named.contains(role));
    found.extend((!others.is_empty()).then(|| not_there(&others, MISSING_ROLE)));
    found.extend((!named.is_empty()).then(|| not_there(&named, MISSING_NAMED_ROLE)));
    found.extend(foreign_owners(needs, rewriter));
}

fn lacks(roles: &[&str]) -> String {
    format!("the server does not have: role {}", names(roles))
}

fn to_create(roles: &[&str], rewriter: &Rewriter) -> Finding {
    if rewriter.facts.may_create_roles {
        return Finding::notes(
            lacks(roles),
            "it is created, without login or as the globals file defines it",
            "none needed",
        );
    }
    Finding::blocks(
        D::InsufficientPrivilege,
        lacks(roles),
        "it cannot be created: the restoring role lacks CREATEROLE",
        "create the role, or grant CREATEROLE to the restoring role",
    )
}

fn not_there(roles: &[&str], fix: &str) -> Finding {
    Finding::blocks(
        D::RoleMissing,
        lacks(roles),
        "ownership and privileges cannot be assigned to it",
        fix,
    )
}

/// Owners that the restoring role cannot assign objects to.
fn foreign_owners(needs: &Requirements, rewriter: &Rewriter) -> Option<Finding> {
    let facts = &rewriter.facts;
    if facts.is_superuser || rewriter.policy.owners == Owners::None {
        return None;
    }
    let owners = needs.owners.iter().map(|role| rewriter.role(role));
    let may_become = |r: &str| facts.may_become.contains(r) || facts.may_grant_itself.contains(r);
    let is_foreign = |r: &&str| facts.roles.contains(*r) && !may_become(r);
    let foreign: Vec<&str> = owners.filter(is_foreign).collect();
    let what = || {
        format!(
            "role {} is not a member of: {}",
            facts.user,
            names(&foreign)
        )
    };
    (!foreign.is_empty()).then(|| {
        Finding::blocks(
            D::InsufficientPrivilege,
            what(),
            "objects cannot be assigned to these owners",
            "GRANT these roles to the restoring role, or restore with --owners map or none",
        )
    })
}
