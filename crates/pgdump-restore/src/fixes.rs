//! What makes a server accept what it refused. Pure.

use std::collections::HashMap;

use crate::extension_hooks::hooks_of;
use crate::hints::MISSING_ROLE;
use crate::refusal::Refusal;
use crate::refusals::is_duplicate;

/// Most entries that a fix names.
const NAMED: usize = 3;

/// What to change on the server, or in the command, so that refused definitions go in: one answer for each root cause.
/// `is_restricted`: they were tried by a role without powers, because the source of the backup is not trusted.
pub fn fixes_of(refusals: &[Refusal], is_restricted: bool) -> HashMap<String, String> {
    let mut fixes = HashMap::new();
    for refusal in refusals {
        fixes.entry(refusal.root.clone()).or_insert_with(|| {
            let fix = Cause::of(&refusal.root, refusals).fix();
            let needs_trust = is_restricted && fix.contains("superuser");
            if needs_trust { TRUST.to_owned() } else { fix }
        });
    }
    fixes
}

const TRUST: &str = "restore with BACKUP_TRUST=full and as a superuser if you trust the source of the backup, or with --on-error \
    skip, which leaves it out with what depends on it";

const OTHERWISE: &str = "restore with --on-error skip, which leaves it out with what depends on it, or change it in the source";

/// The kinds of roots whose fix depends on the kind.
const KINDS: [&str; 18] = [
    "ROLE",
    "EXTENSION",
    "LIBRARY",
    "FILE",
    "TABLESPACE",
    "PROCEDURAL LANGUAGE",
    "LANGUAGE",
    "COLLATION",
    "ACCESS METHOD",
    "PARAMETER",
    "SECURITY LABEL PROVIDER",
    "SCHEMA",
    "RESTORED DATABASE",
    "TYPE",
    "FOREIGN-DATA WRAPPER",
    "FOREIGN DATA WRAPPER",
    "EVENT TRIGGER",
    "SUBSCRIPTION",
];

fn kind_and_name(root: &str) -> (&str, &str) {
    KINDS
        .iter()
        .find_map(|kind| {
            let rest = root.strip_prefix(*kind)?;
            let is_whole = rest.is_empty() || rest.starts_with(' ');
            is_whole.then(|| (*kind, rest.trim_start()))
        })
        .unwrap_or(("", root))
}

/// A root cause, and what it makes the server refuse.
struct Cause<'a> {
    kind: &'a str,
    name: &'a str,
    code: &'a str,
    message: &'a str,
    /// The first refused entries, each once, without those that are left out with one of them.
    entries: Vec<&'a str>,
    /// Whether policies or user mappings are among all of them, and whether anything else is.
    has_named: bool,
    has_others: bool,
}

impl<'a> Cause<'a> {
    fn of(root: &'a str, refusals: &'a [Refusal]) -> Self {
        let of_root = || refusals.iter().filter(move |r| r.root == root);
        let is_refused = |r: &&Refusal| r.caused_by.is_none();
        let first = of_root().find(is_refused).or_else(|| of_root().next());
        let refused = of_root().filter(is_refused).map(|r| r.entry.as_str());
        let names_role = |entry: &str| {
            let kinds = ["POLICY ", "USER MAPPING "];
            kinds.iter().any(|kind| entry.starts_with(kind))
        };
        let mut entries = vec![];
        for entry in refused.clone() {
            if entries.len() <= NAMED && !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        let (kind, name) = kind_and_name(root);
        Cause {
            kind,
            name,
            code: first
                .and_then(|r| r.sqlstate.as_deref())
                .unwrap_or_default(),
            message: first.map_or("", |r| r.message.as_str()),
            entries,
            has_named: refused.clone().any(names_role),
            has_others: !refused.clone().all(names_role),
        }
    }

    fn fix(&self) -> String {
        let of_denial = || self.of_denial().filter(|_| self.is_denied());
        self.of_duplicate()
            .or_else(|| self.of_named_role())
            .or_else(of_denial)
            .or_else(|| self.of_absence().filter(|_| !self.is_denied()))
            .or_else(|| of_message(self.message))
            .or_else(|| of_code(self.code))
            .unwrap_or_else(|| OTHERWISE.to_owned())
    }

    /// What to do if there is such an object already.
    fn of_duplicate(&self) -> Option<String> {
        is_duplicate(self.code).then(|| {
            "what the message names already exists, from an extension or from earlier in the backup: restore with --on-error \
             skip, which keeps it, or remove one of the two from the source"
                .to_owned()
        })
    }

    /// Whether the server has what it refused, and a role lacks the right to it.
    fn is_denied(&self) -> bool {
        self.code == "42501"
    }

    /// Policies and user mappings are for roles, whoever owns what they are about.
    fn of_named_role(&self) -> Option<String> {
        let name = self.name;
        let skip = if self.has_others {
            String::new()
        } else {
            format!(" or {}", self.leave_out())
        };
        (self.kind == "ROLE" && self.has_named).then(|| {
            let map = shell_quoted(&format!("{name}=OTHER"));
            format!(
                "role {name}: create the role, or restore with --globals globals.sql, --create-roles, --owners map --role-map {map}{skip}: \
                 a policy or a user mapping names it"
            )
        })
    }

    /// The options that leave out what is refused, and nothing else that could be restored.
    fn leave_out(&self) -> String {
        // An owner or a privilege is no entry that can be left out alone, and a quote would end the argument.
        let has_name = |e: &&str| {
            let is_part = ["OWNER OF ", "ACL ", "GRANT ", "REVOKE "];
            !is_part.iter().any(|part| e.starts_with(part)) && !e.contains('\'')
        };
        let all = &self.entries;
        if all.is_empty() || all.len() > NAMED || !all.iter().all(has_name) {
            return "--on-error skip".to_owned();
        }
        let options: Vec<String> = all.iter().map(|e| format!("--skip '{e}'")).collect();
        options.join(" ")
    }

    /// What to do if the server has it, and the restoring role, or an owner, may not use it.
    fn of_denial(&self) -> Option<String> {
        let (kind, name) = (self.kind, self.name);
        Some(match kind {
            "ROLE" => format!(
                "GRANT the role {name} to the restoring role, or restore with --owners map or none"
            ),
            "EXTENSION" => format!(
                "restore as a role that may create the extension {name}: a superuser, unless the extension is trusted or the \
                 provider allows it"
            ),
            "TABLESPACE" => format!(
                "GRANT CREATE ON TABLESPACE {name} to the restoring role and to the owners of what is in it"
            ),
            "PROCEDURAL LANGUAGE" | "LANGUAGE" => format!(
                "restore as a superuser: the language {name} is not trusted, so no other role may create functions in it"
            ),
            "ACCESS METHOD" => format!(
                "restore as a superuser, or with --on-error skip, which makes tables with the access method {name} heaps: no \
                 other role may create it"
            ),
            "FOREIGN DATA WRAPPER" => format!(
                "restore as a superuser, or with {}: no other role may create it",
                self.leave_out()
            ),
            "PARAMETER" => format!(
                "GRANT SET ON PARAMETER {name} to the restoring role (from PostgreSQL 15 on), or restore as a superuser"
            ),
            "SCHEMA" => format!(
                "restore as a superuser, or with --owners none: the owner that the backup names, or the restoring role, may \
                 not create in the schema {name}"
            ),
            "RESTORED DATABASE" => {
                "restore as a superuser, or with --owners none: the owner that the backup names may not create in the database"
                    .to_owned()
            }
            "FOREIGN-DATA WRAPPER" => format!(
                "restore as a superuser, or with {}: the restoring role may not use the foreign-data wrapper {name}",
                self.leave_out()
            ),
            "EVENT TRIGGER" => format!(
                "restore as a superuser, or with --on-error skip, which leaves out the event trigger {name}"
            ),
            "SUBSCRIPTION" => format!(
                "restore as a superuser, or as a member of pg_create_subscription (from PostgreSQL 16 on), or with {}",
                self.leave_out()
            ),
            _ => return None,
        })
    }

    /// What to do if the server does not have it.
    fn of_absence(&self) -> Option<String> {
        let (kind, name) = (self.kind, self.name);
        Some(match kind {
            "ROLE" => format!("role {name}: {MISSING_ROLE}"),
            "EXTENSION" if !self.is_not_installed() && hooks_of(name).is_some() => {
                load_library(name)?
            }
            "EXTENSION" => format!(
                "install the package of the extension {name} on the server, or restore with --extensions skip-missing"
            ),
            "LIBRARY" => format!("install the package with the library {name} on the server"),
            "FILE" => format!(
                "put the file {name} on the server's host, or restore with {}",
                self.leave_out()
            ),
            "TABLESPACE" => format!("create the tablespace {name}"),
            "PROCEDURAL LANGUAGE" => {
                format!("install the package of the language {name} on the server")
            }
            "LANGUAGE" | "ACCESS METHOD" | "FOREIGN-DATA WRAPPER" => format!(
                "take a backup of the whole database, which creates the {} {name} or its extension, and install its package \
                 on the server",
                kind.to_lowercase()
            ),
            "COLLATION" if name.starts_with("pg_catalog.") => format!(
                "install the locale of the collation {name} on the server's host, then run SELECT \
                 pg_import_system_collations('pg_catalog') in template0 (ALTER DATABASE template0 ALLOW_CONNECTIONS true)"
            ),
            "COLLATION" => format!(
                "install the locale of the collation {name} on the server's host, or restore into a server with its provider"
            ),
            "PARAMETER" => format!(
                "restore into the version that knows the parameter {name}, or with {}",
                self.leave_out()
            ),
            "SECURITY LABEL PROVIDER" => format!(
                "load the library of the security label provider {name} (shared_preload_libraries), or restore with {}",
                self.leave_out()
            ),
            // Only types of the server itself are without a schema.
            "TYPE" if !name.contains('.') => format!(
                "restore into the version of PostgreSQL that has the type {name}: the one that the backup is from, or a newer \
                 one; or with {}",
                self.leave_out()
            ),
            _ => return None,
        })
    }

    /// Whether the server has no such extension: `extension "x" is not available`.
    fn is_not_installed(&self) -> bool {
        matches!(self.code, "0A000" | "58P01")
    }
}

/// An argument as a shell reads it: a name of the backup may have any characters.
pub(crate) fn shell_quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
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
        () if has("permission denied to change owner of") => {
            "make its owner a superuser on this server (ALTER ROLE … SUPERUSER), or restore with --owners map or none"
        }
        () if has("to set session authorization") => {
            "restore as a superuser, or with --no-privileges: another role than the owner has granted it"
        }
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

    /// What a cause outside of the backup makes fail, or the cause itself.
    fn entry_of(root: &str) -> &str {
        match kind_and_name(root).0 {
            "PARAMETER" => "FUNCTION public.f(integer)",
            "FILE" => "TEXT SEARCH DICTIONARY public.d",
            "SECURITY LABEL PROVIDER" => "SECURITY LABEL public.TABLE t",
            "FOREIGN-DATA WRAPPER" => "SERVER s",
            _ => root,
        }
    }

    fn fix(root: &str, code: &str, message: &str) -> String {
        let entry = entry_of(root);
        let refusal = Refusal {
            entry: entry.to_owned(),
            sqlstate: Some(code.to_owned()),
            message: message.to_owned(),
            root: root.to_owned(),
            caused_by: None,
        };
        fixes_of(&[refusal], false)[root].clone()
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
            ("TABLE public.t", "42P07", "", "which keeps it"),
            ("TYPE public.t", "42710", "", "which keeps it"),
            ("LIBRARY $libdir/x", "58P01", "", "library $libdir/x"),
            ("LANGUAGE c", "42501", "", "as a superuser"),
            ("PROCEDURAL LANGUAGE plv8", "42704", "", "language plv8"),
            ("ACCESS METHOD rum", "42704", "", "access method rum"),
            ("ACCESS METHOD a", "42501", "", "or with --on-error skip"),
            (
                "FOREIGN DATA WRAPPER w",
                "42501",
                "",
                "as a superuser, or with --skip 'FOREIGN DATA WRAPPER w'",
            ),
            (
                "FOREIGN DATA WRAPPER w'; rm x",
                "42501",
                "",
                "or with --on-error skip:",
            ),
            (
                "SUBSCRIPTION s'; rm x",
                "42501",
                "",
                "or with --on-error skip",
            ),
            ("FOREIGN-DATA WRAPPER w", "42501", "", "--skip 'SERVER s'"),
            ("FOREIGN-DATA WRAPPER w", "42704", "", "whole database"),
            ("LANGUAGE plv8", "42704", "", "whole database"),
            ("TABLESPACE t", "42501", "", "GRANT CREATE ON TABLESPACE t"),
            ("TABLESPACE t", "42704", "", "create the tablespace t"),
            ("PARAMETER p", "42501", "", "GRANT SET ON PARAMETER p"),
            (
                "PARAMETER p",
                "42704",
                "",
                "--skip 'FUNCTION public.f(integer)'",
            ),
            ("SCHEMA public", "42501", "", "--owners none"),
            ("RESTORED DATABASE", "42501", "", "in the database"),
            (
                "FILE /usr/share/d.dict",
                "F0000",
                "",
                "--skip 'TEXT SEARCH DICTIONARY public.d'",
            ),
            (
                "SECURITY LABEL PROVIDER selinux",
                "22023",
                "",
                "shared_preload_libraries",
            ),
            ("TYPE newer", "42704", "", "the type newer"),
            (
                "TYPE public.mood",
                "42704",
                "",
                "take a backup of everything",
            ),
            (
                "COLLATION pg_catalog.de_DE",
                "42704",
                "",
                "pg_import_system_collations",
            ),
            (
                "OWNER OF EVENT TRIGGER e",
                "42501",
                "permission denied to change owner of event trigger \"e\"",
                "ALTER ROLE … SUPERUSER",
            ),
            (
                "ACL public.TABLE t",
                "42501",
                "permission denied to set session authorization",
                "--no-privileges",
            ),
            ("EVENT TRIGGER e", "42501", "", "--on-error skip"),
            (
                "SUBSCRIPTION s",
                "42501",
                "permission denied to create subscription",
                "pg_create_subscription",
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
            refusal("POLICY public.t q", "ROLE reader", None),
            refusal("POLICY public.u q", "ROLE reader", None),
            refusal("USER MAPPING USER MAPPING far SERVER s", "ROLE far", None),
            refusal("TABLE u", "COLLATION c", Some("COLLATION c")),
            denied,
        ];
        let fixes = fixes_of(&all, false);
        assert_eq!(fixes.len(), 5);
        let of_far = &fixes["ROLE far"];
        assert!(of_far.contains("--skip 'USER MAPPING USER MAPPING far SERVER s'"));
        let of_role = &fixes["ROLE app"];
        assert!(of_role.contains("--create-roles"), "{of_role}");
        // The owner would still be missing.
        assert!(!of_role.contains("--skip"), "{of_role}");
        assert!(!of_role.contains("--owners none"), "{of_role}");
        let of_policies = "--skip 'POLICY public.t q' --skip 'POLICY public.u q'";
        let of_reader = &fixes["ROLE reader"];
        assert!(of_reader.contains(of_policies), "{of_reader}");
        assert!(fixes["EVENT TRIGGER e"].contains("as a superuser, or"));
        let fixes = fixes_of(&all, true);
        assert!(fixes["EVENT TRIGGER e"].contains("BACKUP_TRUST=full"));
        assert!(fixes["COLLATION c"].contains("locale"));
    }

    /// A command with the name is pasted into a shell.
    #[test]
    fn names_of_the_backup_are_quoted_for_a_shell() {
        for (argument, wanted) in [
            ("app=OTHER", "app=OTHER"),
            ("my app=OTHER", "'my app=OTHER'"),
            ("a$(rm x)=OTHER", "'a$(rm x)=OTHER'"),
            ("a'; rm x", "'a'\\''; rm x'"),
            ("", "''"),
        ] {
            assert_eq!(shell_quoted(argument), wanted);
        }
        let refusal = Refusal {
            entry: "POLICY public.t p".to_owned(),
            sqlstate: Some("42704".to_owned()),
            message: String::new(),
            root: "ROLE $(rm x)".to_owned(),
            caused_by: None,
        };
        let fixes = fixes_of(&[refusal], false);
        let fix = &fixes["ROLE $(rm x)"];
        assert!(fix.contains("--role-map '$(rm x)=OTHER' or"), "{fix}");
    }

    /// Only the server's own message says what it lacks.
    #[test]
    fn a_fix_is_for_the_root_and_not_for_what_was_left_out_with_it() {
        let root = "TABLE public.t";
        let table = Refusal {
            entry: root.to_owned(),
            sqlstate: Some("0A000".to_owned()),
            message: "ICU is not supported in this build".to_owned(),
            root: root.to_owned(),
            caused_by: None,
        };
        let policy = Refusal {
            entry: "POLICY public.t p".to_owned(),
            message: "depends on TABLE public.t, which was refused".to_owned(),
            caused_by: Some(root.to_owned()),
            ..table.clone()
        };
        for all in [[table.clone(), policy.clone()], [policy, table]] {
            let fixes = fixes_of(&all, false);
            let fix = &fixes[root];
            assert!(fix.contains("a server that is built with it"), "{fix}");
        }
    }
}
