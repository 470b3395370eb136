//! What makes a server accept what it refused. Pure.

use std::collections::HashMap;

use crate::extension_hooks::hooks_of;
use crate::hints::MISSING_ROLE;
use crate::refusal::Refusal;

/// What to change on the server, or in the command, so that refused definitions go in: one answer for each root cause.
/// `is_restricted`: they were tried by a role without powers, because the source of the backup is not trusted.
pub fn fixes_of(refusals: &[Refusal], is_restricted: bool) -> HashMap<String, String> {
    let mut fixes = HashMap::new();
    // What helps a policy helps everything else that names its role.
    let (policies, others): (Vec<&Refusal>, Vec<&Refusal>) =
        refusals.iter().partition(|r| is_policy(r));
    let (roots, left_out): (Vec<&Refusal>, Vec<&Refusal>) = policies
        .into_iter()
        .chain(others)
        .partition(|r| r.caused_by.is_none());
    for refusal in roots.into_iter().chain(left_out) {
        fixes.entry(refusal.root.clone()).or_insert_with(|| {
            let fix = fix_of(refusal);
            let needs_trust = is_restricted && fix.contains("superuser");
            if needs_trust { TRUST.to_owned() } else { fix }
        });
    }
    fixes
}

const TRUST: &str = "restore with BACKUP_TRUST=full and as a superuser if you trust the source of the backup, or with --on-error \
    skip, which leaves it out with what depends on it";

fn is_policy(refusal: &Refusal) -> bool {
    refusal.entry.starts_with("POLICY ")
}

/// What to change on the server, or in the command, so that a refused definition goes in.
pub fn fix_of(refusal: &Refusal) -> String {
    let code = refusal.sqlstate.as_deref().unwrap_or_default();
    let (kind, name) = kind_and_name(&refusal.root);
    of_policy(refusal, (kind, name))
        .or_else(|| of_new_owner(refusal))
        .or_else(|| of_root(kind, name, code))
        .or_else(|| of_message(&refusal.message))
        .or_else(|| of_code(code))
        .unwrap_or_else(|| OTHERWISE.to_owned())
}

const OTHERWISE: &str = "restore with --on-error skip, which leaves it out with what depends on it, or change it in the source";

/// The kinds of roots whose fix depends on the kind.
const KINDS: [&str; 13] = [
    "ROLE",
    "EXTENSION",
    "LIBRARY",
    "TABLESPACE",
    "PROCEDURAL LANGUAGE",
    "LANGUAGE",
    "COLLATION",
    "ACCESS METHOD",
    "PARAMETER",
    "SCHEMA",
    "FOREIGN-DATA WRAPPER",
    "FOREIGN DATA WRAPPER",
    "EVENT TRIGGER",
];

fn kind_and_name(root: &str) -> (&str, &str) {
    KINDS
        .iter()
        .find_map(|kind| Some((*kind, root.strip_prefix(*kind)?.strip_prefix(' ')?)))
        .unwrap_or(("", root))
}

/// A policy is for roles, whoever owns its table.
fn of_policy(refusal: &Refusal, (kind, name): (&str, &str)) -> Option<String> {
    let is_about_role = is_policy(refusal) && kind == "ROLE";
    is_about_role.then(|| {
        let entry = &refusal.entry;
        format!(
            "role {name}: create the role, or restore with --globals globals.sql, --create-roles, --owners map --role-map {name}=OTHER or --skip '{entry}': \
             the policy names it"
        )
    })
}

/// Who is to own an object needs the right to create it, and can be given that after the restore only.
fn of_new_owner(refusal: &Refusal) -> Option<String> {
    let is_owner = refusal.entry.starts_with("OWNER OF ");
    let place = refusal.message.strip_prefix("permission denied for ")?;
    let is_place = place.starts_with("schema ") || place == "the restored database";
    (is_owner && is_place).then(|| {
        format!(
            "restore as a superuser, or after the restore grant CREATE on {place} to the role that the backup names, and make it \
             the owner (ALTER … OWNER TO)"
        )
    })
}

/// Whether the server has what it refused, and the restoring role lacks the right to it.
fn is_denied(code: &str) -> bool {
    code == "42501"
}

fn of_root(kind: &str, name: &str, code: &str) -> Option<String> {
    Some(match kind {
        "ROLE" if is_denied(code) => format!(
            "GRANT the role {name} to the restoring role, or restore with --owners map or none"
        ),
        "ROLE" => format!("role {name}: {MISSING_ROLE}"),
        "EXTENSION" if is_denied(code) => format!(
            "restore as a role that may create the extension {name}: a superuser, unless the extension is trusted or the \
             provider allows it"
        ),
        "EXTENSION" if !is_not_installed(code) && hooks_of(name).is_some() => load_library(name)?,
        "EXTENSION" => format!(
            "install the package of the extension {name} on the server, or restore with --extensions skip-missing"
        ),
        "LIBRARY" => format!("install the package with the library {name} on the server"),
        "TABLESPACE" => format!("create the tablespace {name}"),
        "PROCEDURAL LANGUAGE" | "LANGUAGE" if is_denied(code) => format!(
            "restore as a superuser: the language {name} is not trusted, so no other role may create functions in it"
        ),
        "PROCEDURAL LANGUAGE" | "LANGUAGE" => {
            format!("install the package of the language {name} on the server")
        }
        "COLLATION" => format!(
            "install the locale of the collation {name} on the server's host, or restore into a server with its provider"
        ),
        "ACCESS METHOD" | "FOREIGN DATA WRAPPER" if is_denied(code) => format!(
            "restore as a superuser, or with --skip '{kind} {name}': no other role may create it"
        ),
        "ACCESS METHOD" => {
            format!("install the extension that provides the access method {name}")
        }
        "PARAMETER" if is_denied(code) => {
            format!(
                "GRANT SET ON PARAMETER {name} to the restoring role, or restore as a superuser"
            )
        }
        "PARAMETER" => format!(
            "load the library that has the parameter {name} (shared_preload_libraries), or restore into the version that \
             knows it"
        ),
        "SCHEMA" if is_denied(code) => {
            format!("let the restoring role create in the schema {name}, or own it")
        }
        "FOREIGN-DATA WRAPPER" if is_denied(code) => {
            format!("GRANT USAGE ON FOREIGN DATA WRAPPER {name} to the restoring role")
        }
        "FOREIGN-DATA WRAPPER" => {
            format!("install the extension of the foreign-data wrapper {name}")
        }
        "EVENT TRIGGER" if is_denied(code) => format!(
            "restore as a superuser, or with --on-error skip, which leaves out the event trigger {name}"
        ),
        _ => return None,
    })
}

/// Whether the server has no such extension: `extension "x" is not available`.
fn is_not_installed(code: &str) -> bool {
    matches!(code, "0A000" | "58P01")
}

/// The fix for an extension that is installed, and needs a library that the server loads when it starts.
fn load_library(extension: &str) -> Option<String> {
    let hooks = hooks_of(extension)?;
    let library = hooks.required_library()?.library;
    let database = if hooks.is_bound_to_database() {
        ", restore into the database that the server's configuration names for it"
    } else {
        ""
    };
    Some(format!(
        "add {library} to shared_preload_libraries and restart the server{database}, or restore with --extensions skip-missing"
    ))
}

fn of_message(message: &str) -> Option<String> {
    let has = |words: &str| message.contains(words);
    let fix = match () {
        () if has("superuser") || has("must be owner") => {
            "restore as a superuser, or with --on-error skip, which leaves it out with what depends on it"
        }
        () if has("not supported in this build") || has("not supported by this build") => {
            "restore into a server that is built with it, such as PostgreSQL's own packages"
        }
        () if has("could not create locale") || has("ICU locale") || has("invalid locale name") => {
            "install the locale on the server's host, or restore into a server built with its provider"
        }
        () if has("wal_level") => "set wal_level on the server, or restore with --on-error skip",
        () => return None,
    };
    Some(fix.to_owned())
}

fn of_code(code: &str) -> Option<String> {
    let fix = match code {
        "42501" => {
            "grant the restoring role what the message names, restore as a superuser, or with --on-error skip"
        }
        // Syntax, unknown functions and features: of a newer version.
        "42601" | "0A000" => {
            "restore into the version of PostgreSQL that the backup is from, or a newer one, or with --on-error skip"
        }
        "23505" | "23503" | "23514" | "23P01" => {
            "the rows contradict it: correct them in the source, or restore with --on-error skip and correct them here"
        }
        "42P01" | "42883" | "42704" | "3F000" => {
            "the backup needs an object that it does not have: create it in the source or take a backup of everything, or \
             restore with --on-error skip"
        }
        _ => return None,
    };
    Some(fix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix(root: &str, code: &str, message: &str) -> String {
        fix_of(&Refusal {
            entry: root.to_owned(),
            sqlstate: Some(code.to_owned()),
            message: message.to_owned(),
            root: root.to_owned(),
            caused_by: None,
        })
    }

    #[test]
    fn each_cause_has_its_fix() {
        for (root, code, message, wanted) in [
            ("ROLE app", "42704", "", "--create-roles"),
            ("ROLE app", "42501", "", "GRANT the role app"),
            ("EXTENSION postgis", "0A000", "", "install the package"),
            (
                "EXTENSION plpython3u",
                "42501",
                "",
                "may create the extension",
            ),
            (
                "EXTENSION timescaledb",
                "55000",
                "",
                "add timescaledb to shared_preload_libraries",
            ),
            ("EXTENSION timescaledb", "0A000", "", "install the package"),
            (
                "EXTENSION pg_cron",
                "XX000",
                "can only create extension in database a",
                "database that the server's configuration names",
            ),
            ("LIBRARY $libdir/x", "58P01", "", "library $libdir/x"),
            ("LANGUAGE c", "42501", "", "as a superuser"),
            ("PROCEDURAL LANGUAGE plv8", "42704", "", "language plv8"),
            ("ACCESS METHOD rum", "42704", "", "access method rum"),
            ("ACCESS METHOD a", "42501", "", "as a superuser"),
            ("FOREIGN DATA WRAPPER w", "42501", "", "as a superuser"),
            ("FOREIGN-DATA WRAPPER w", "42501", "", "GRANT USAGE"),
            ("EVENT TRIGGER e", "42501", "", "--on-error skip"),
            (
                "SUBSCRIPTION s",
                "42501",
                "must be superuser to create subscriptions",
                "as a superuser",
            ),
            (
                "COLLATION public.c",
                "22023",
                "could not create locale \"xx\"",
                "locale of the collation",
            ),
            ("TABLE t", "42601", "syntax error", "version of PostgreSQL"),
            (
                "INDEX i",
                "23505",
                "could not create unique index",
                "the rows",
            ),
            ("TABLE t", "55000", "no", "leaves it out"),
        ] {
            let fix = fix(root, code, message);
            assert!(fix.contains(wanted), "{root}: {fix}");
        }
    }

    /// It is not the restoring role that lacks the right.
    #[test]
    fn a_new_owner_needs_the_right_to_create() {
        for place in ["schema public", "the restored database"] {
            let fix = fix_of(&Refusal {
                entry: "OWNER OF PUBLICATION p".to_owned(),
                sqlstate: Some("42501".to_owned()),
                message: format!("permission denied for {place}"),
                root: "x".to_owned(),
                caused_by: None,
            });
            let wanted = format!("grant CREATE on {place} to the role that the backup names");
            assert!(fix.contains(&wanted), "{fix}");
        }
    }

    #[test]
    fn a_root_has_one_fix() {
        let refusal = |entry: &str, root: &str, caused_by: Option<&str>| Refusal {
            entry: entry.to_owned(),
            sqlstate: Some("42704".to_owned()),
            message: "no".to_owned(),
            root: root.to_owned(),
            caused_by: caused_by.map(str::to_owned),
        };
        let denied = Refusal {
            sqlstate: Some("42501".to_owned()),
            ..refusal("EVENT TRIGGER e", "EVENT TRIGGER e", None)
        };
        let all = [
            refusal("OWNER OF TABLE public.t", "ROLE app", None),
            refusal("POLICY public.t p", "ROLE app", None),
            refusal("TABLE u", "COLLATION c", Some("COLLATION c")),
            denied,
        ];
        let fixes = fixes_of(&all, false);
        assert_eq!(fixes.len(), 3);
        let of_role = &fixes["ROLE app"];
        assert!(of_role.contains("--skip 'POLICY public.t p'"), "{of_role}");
        assert!(!of_role.contains("--owners none"), "{of_role}");
        assert!(fixes["EVENT TRIGGER e"].contains("as a superuser, or"));
        let fixes = fixes_of(&all, true);
        assert!(fixes["EVENT TRIGGER e"].contains("BACKUP_TRUST=full"));
        assert!(fixes["COLLATION c"].contains("locale"));
    }
}
