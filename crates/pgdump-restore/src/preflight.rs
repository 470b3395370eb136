//! Checks before a byte of data moves what a backup needs and whether the server has it. Pure.

mod builds;

use std::collections::BTreeSet;

use super::rewrite::Rewriter;
use super::roles::mentions;
use crate::error::FailureReason as R;
use crate::policy::{Extensions, Owners};
use crate::postgres::plain_locale;
use pgdump_archive::{Archive, Codec, Format, TocEntry, statements};

/// What a finding means for the restore.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The restore cannot succeed.
    Blocks,
    /// The restore may fail, or its result may differ from the source.
    Warns,
    Notes,
}

/// One difference between what a backup needs and what a server has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Finding {
    pub level: Level,
    /// Failure reason that the restore would end with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<R>,
    pub what: String,
    pub consequence: String,
    pub fix: String,
}

/// What the entries of a backup require of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "cli", schemars(rename = "Needs"))]
pub struct Requirements {
    pub extensions: BTreeSet<String>,
    /// Owners, and roles in privileges and policies.
    pub roles: BTreeSet<String>,
    /// Those of them that own something.
    pub owners: BTreeSet<String>,
    /// Those of them that appear in GRANT or REVOKE.
    pub grantees: BTreeSet<String>,
    /// Those of them in policies and user mappings.
    pub named: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
    /// Table access methods.
    pub access_methods: BTreeSet<String>,
    pub encoding: String,
    /// Options of `CREATE DATABASE`, if the dump has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    pub large_objects: u64,
    /// Estimated size of the restored database in bytes, if the archive allows an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_bytes: Option<u64>,
    /// SQL text: only its beginning has been examined.
    pub only_the_beginning: bool,
}

impl Requirements {
    /// Collects the requirements of these entries; `stored` is the object's size in bytes, if known.
    pub fn of(archive: &Archive, entries: &[TocEntry], stored: Option<u64>) -> Self {
        let mut needs = Requirements {
            encoding: archive.encoding().name().to_owned(),
            only_the_beginning: archive.is_script(),
            estimated_bytes: stored.map(|n| estimate(archive, n)),
            ..Requirements::default()
        };
        for e in entries {
            needs.add(e);
        }
        let create = entries
            .iter()
            .find(|e| e.desc == "DATABASE")
            .map(|e| e.defn.as_str());
        let options = create
            .and_then(|sql| sql.rsplit_once("ENCODING = "))
            .and_then(|(_, rest)| rest.split_once(' '));
        needs.locale = options.map(|(_, locale)| locale.trim_end_matches(['\n', ';']).to_owned());
        needs
    }

    fn add(&mut self, e: &TocEntry) {
        let is_database = e.desc.starts_with("DATABASE") || e.tag.starts_with("DATABASE ");
        if is_database {
            return;
        }
        if !e.owner.is_empty() && (!e.drop_stmt.is_empty() || e.defn.contains("OWNER TO")) {
            self.roles.insert(e.owner.clone());
            self.owners.insert(e.owner.clone());
        }
        match e.desc.as_str() {
            "EXTENSION" => drop(self.extensions.insert(e.tag.clone())),
            "BLOB" => self.large_objects += 1,
            "BLOB METADATA" => {
                self.large_objects += e.defn.lines().filter(|l| !l.trim().is_empty()).count() as u64
            }
            "ACL" | "DEFAULT ACL" | "POLICY" | "USER MAPPING" => {
                let all = statements(&e.defn, pgdump_archive::Dialect::default());
                let roles: BTreeSet<String> =
                    all.into_iter().flat_map(mentions).map(|m| m.role).collect();
                let kind = if e.desc.contains("ACL") {
                    &mut self.grantees
                } else {
                    &mut self.named
                };
                kind.extend(roles.iter().cloned());
                self.roles.extend(roles);
            }
            _ => {}
        }
        self.tablespaces
            .extend(e.tablespace.clone().filter(|t| !t.is_empty()));
        self.access_methods.extend(e.table_am.clone());
    }
}

impl Requirements {
    /// The roles that the server must have under a policy, by their names on the server.
    pub(super) fn roles_under<'a>(&'a self, rewriter: &'a Rewriter) -> BTreeSet<&'a str> {
        let owners = self
            .owners
            .iter()
            .filter(|_| rewriter.policy.owners != Owners::None);
        let grantees = self.grantees.iter().filter(|_| rewriter.policy.privileges);
        owners
            .chain(grantees)
            .chain(&self.named)
            .map(|r| rewriter.role(r))
            .collect()
    }
}

/// Uncompressed table data, plus a third for indexes and page headers.
fn estimate(archive: &Archive, stored: u64) -> u64 {
    let header = archive.header();
    let packed = header.codec != Codec::None || !header.filters.is_empty();
    let unpacked = if packed {
        stored.saturating_mul(4)
    } else {
        stored
    };
    match header.format {
        Format::Plain | Format::Tar | Format::Custom | Format::Directory | Format::DirectoryTar => {
            unpacked.saturating_add(unpacked / 3)
        }
    }
}

fn names(set: &[&str]) -> String {
    let shown: Vec<_> = set.iter().take(10).copied().collect();
    let more = set.len().saturating_sub(shown.len());
    format!(
        "{}{}",
        shown.join(", "),
        if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        }
    )
}

fn finding(level: Level, reason: Option<R>, what: String, consequence: &str, fix: &str) -> Finding {
    Finding {
        level,
        reason,
        what,
        consequence: consequence.into(),
        fix: fix.into(),
    }
}

/// Compares a backup with a server under a policy; blocking findings come first.
pub fn preflight(
    archive: &Archive,
    entries: &[TocEntry],
    needs: &Requirements,
    rewriter: &Rewriter,
) -> Vec<Finding> {
    let mut found = Vec::new();
    versions(archive, rewriter, &mut found);
    extensions(needs, rewriter, &mut found);
    roles(needs, rewriter, &mut found);
    storage(needs, rewriter, &mut found);
    locale(needs, rewriter, &mut found);
    definitions(entries, rewriter, &mut found);
    builds::missing(entries, needs, rewriter, &mut found);
    found.sort_by_key(|f| f.level);
    found
}

fn versions(archive: &Archive, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let target = rewriter.facts.version / 10000;
    if target < 13 {
        found.push(finding(
            Level::Blocks,
            Some(R::VersionIncompatible),
            format!("the server is PostgreSQL {target}"),
            "the oldest supported target is PostgreSQL 13",
            "restore into PostgreSQL 13 or later",
        ));
    }
    if let Some(source) = archive.header().server_major().filter(|s| *s > target) {
        found.push(finding(
            Level::Warns,
            None,
            format!(
                "the backup was taken from PostgreSQL {source}, the server is PostgreSQL {target}"
            ),
            "the server rejects definitions that need the newer version, before any data moves",
            "restore into the same or a newer version",
        ));
    }
}

fn extensions(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let gone =
        |e: &str| rewriter.facts.version >= 170000 && matches!(e, "adminpack" | "old_snapshot");
    let lacking = needs.extensions.iter().map(String::as_str);
    let lacking = lacking.filter(|e| !rewriter.facts.extensions.contains(*e) && !gone(e));
    let (unusable, lacking): (Vec<&str>, Vec<&str>) =
        lacking.partition(|e| rewriter.facts.unusable_extensions.contains_key(*e));
    for extension in unusable {
        let why = rewriter.facts.unusable_extensions[extension].as_str();
        let what = format!("extension {extension} cannot be created: {why}");
        found.push(match rewriter.policy.extensions {
            Extensions::Require => finding(
                Level::Blocks,
                Some(R::ExtensionMissing),
                what,
                "CREATE EXTENSION would fail",
                "or restore with --extensions skip-missing",
            ),
            Extensions::SkipMissing => finding(
                Level::Warns,
                None,
                what,
                "it is skipped with everything that depends on it",
                "see there",
            ),
        });
    }
    let (untrusted, missing): (Vec<&str>, Vec<&str>) = lacking
        .into_iter()
        .partition(|e| rewriter.facts.untrusted_extensions.contains(*e));
    if !untrusted.is_empty() && rewriter.policy.extensions == Extensions::Require {
        found.push(finding(
            Level::Blocks,
            Some(R::InsufficientPrivilege),
            format!("only a superuser may create: extension {}", names(&untrusted)),
            "a restricted restore runs as a role that is not a superuser",
            "restore with BACKUP_TRUST=full if you trust the backup, or with --extensions skip-missing",
        ));
    }
    let bound = rewriter
        .facts
        .cron_database
        .as_ref()
        .filter(|_| needs.extensions.contains("pg_cron"));
    if let Some(database) = bound.filter(|d| !d.is_empty()) {
        found.push(finding(
            Level::Notes,
            None,
            format!("the server allows the extension pg_cron only in the database {database} (cron.database_name)"),
            "the backup can only be restored in place, as a new database of that name",
            "restore under that name, or set cron.database_name, or use --extensions skip-missing",
        ));
    }
    if !missing.is_empty() {
        let what = format!("the server does not have: extension {}", names(&missing));
        found.push(match rewriter.policy.extensions {
            Extensions::Require => finding(
                Level::Blocks,
                Some(R::ExtensionMissing),
                what,
                "CREATE EXTENSION would fail",
                "install the extension's package on the server, or restore with --extensions skip-missing",
            ),
            Extensions::SkipMissing => finding(
                Level::Warns,
                None,
                what,
                "it is skipped with everything that depends on it",
                "install the extension's package on the server",
            ),
        });
    }
}

fn roles(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let mut missing = needs.roles_under(rewriter);
    missing.retain(|r| !rewriter.has_role(r));
    let (made, missing): (Vec<&str>, Vec<&str>) =
        missing.into_iter().partition(|r| rewriter.makes_role(r));
    for (roles, makes) in [(made, true), (missing, false)]
        .into_iter()
        .filter(|(roles, _)| !roles.is_empty())
    {
        let what = format!("the server does not have: role {}", names(&roles));
        found.push(match makes {
            true if rewriter.facts.may_create_roles => finding(
                Level::Notes,
                None,
                what,
                "it is created, without login or as the globals file defines it",
                "none needed",
            ),
            true => finding(
                Level::Blocks,
                Some(R::InsufficientPrivilege),
                what,
                "it cannot be created: the restoring role lacks CREATEROLE",
                "create the role, or grant CREATEROLE to the restoring role",
            ),
            false => finding(
                Level::Blocks,
                Some(R::RoleMissing),
                what,
                "ownership and privileges cannot be assigned to it",
                "create the role, or restore with --create-roles, --owners map or --owners none --no-privileges",
            ),
        });
    }
    let foreign =
        |r: &&str| rewriter.facts.roles.contains(*r) && !rewriter.facts.may_become.contains(*r);
    let foreign: Vec<&str> = needs
        .owners
        .iter()
        .map(|r| rewriter.role(r))
        .filter(foreign)
        .collect();
    let owners_kept = rewriter.policy.owners != Owners::None;
    if owners_kept && !rewriter.facts.is_superuser && !foreign.is_empty() {
        found.push(finding(
            Level::Blocks,
            Some(R::InsufficientPrivilege),
            format!(
                "role {} is not a member of: {}",
                rewriter.facts.user,
                names(&foreign)
            ),
            "objects cannot be assigned to these owners",
            "GRANT these roles to the restoring role, or restore with --owners map or none",
        ));
    }
}

fn storage(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let spaces: Vec<&str> = needs
        .tablespaces
        .iter()
        .map(String::as_str)
        .filter(|t| !rewriter.facts.tablespaces.contains(*t))
        .collect();
    if !spaces.is_empty() {
        found.push(finding(
            Level::Notes,
            None,
            format!("the server does not have: tablespace {}", names(&spaces)),
            "its objects are created in the default tablespace",
            "create the tablespace if the location matters",
        ));
    }
}

fn locale(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let Some(options) = &needs.locale else { return };
    let value = |key: &str| {
        Some(
            options
                .split_once(&format!("{key} = '"))?
                .1
                .split('\'')
                .next()
                .unwrap_or_default(),
        )
    };
    let libc = !options.contains("LOCALE_PROVIDER") || options.contains("LOCALE_PROVIDER = libc");
    let Some(name) = value("LC_COLLATE")
        .or_else(|| value("LOCALE"))
        .filter(|_| libc)
    else {
        return;
    };
    let plain = plain_locale(name);
    let everywhere = matches!(plain.as_str(), "c" | "posix" | "c.utf8");
    if !everywhere && !rewriter.facts.locales.contains(&plain) {
        found.push(finding(
            Level::Warns,
            None,
            format!("the server does not list the locale {name}"),
            "if the server cannot use it, it uses its default, and text may sort differently",
            "install the locale on the server's host",
        ));
    }
}

/// Kinds of objects that only a superuser can create, and definitions that newer versions reject.
fn definitions(entries: &[TocEntry], rewriter: &Rewriter, found: &mut Vec<Finding>) {
    const SUPERUSERS: [&str; 6] = [
        "EVENT TRIGGER",
        "FOREIGN DATA WRAPPER",
        "ACCESS METHOD",
        "SUBSCRIPTION",
        "TRANSFORM",
        "OPERATOR CLASS",
    ];
    let of = |kind: &str| {
        entries
            .iter()
            .filter(|e| e.desc == kind)
            .map(TocEntry::name)
            .collect::<Vec<_>>()
    };
    let special: Vec<String> = SUPERUSERS.iter().flat_map(|k| of(k)).collect();
    if !rewriter.facts.is_superuser && !special.is_empty() {
        let listed: Vec<&str> = special.iter().map(String::as_str).collect();
        found.push(finding(
            Level::Warns,
            None,
            format!("only a superuser may create: {}", names(&listed)),
            "the restore fails unless the server allows it to this role",
            "restore as a superuser, or exclude these objects from the dump",
        ));
    }
    let types = ["abstime", "reltime", "tinterval"];
    let has_type = |e: &&TocEntry| {
        let words = || e.defn.split(|c: char| !c.is_alphanumeric() && c != '_');
        matches!(e.desc.as_str(), "TABLE" | "TYPE" | "DOMAIN")
            && words().any(|w| types.contains(&w))
    };
    let old: Vec<String> = entries
        .iter()
        .filter(has_type)
        .map(TocEntry::name)
        .collect();
    let postfix = |e: &&TocEntry| {
        let defn = e.defn.to_ascii_uppercase();
        e.desc == "OPERATOR"
            && rewriter.facts.version >= 140000
            && defn.contains("LEFTARG")
            && !defn.contains("RIGHTARG")
    };
    let operators: Vec<String> = entries.iter().filter(postfix).map(TocEntry::name).collect();
    for (all, what, fix) in [
        (
            old,
            "types that PostgreSQL 12 removed (abstime, reltime, tinterval)",
            "change the columns to timestamptz or interval in the source",
        ),
        (
            operators,
            "postfix operators, which PostgreSQL 14 removed",
            "replace them with functions in the source",
        ),
    ] {
        if !all.is_empty() {
            let listed: Vec<&str> = all.iter().map(String::as_str).collect();
            let what = format!("{what}: {}", names(&listed));
            let reason = Some(R::VersionIncompatible);
            found.push(finding(
                Level::Blocks,
                reason,
                what,
                "the server rejects the definition",
                fix,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::ServerFacts;

    #[test]
    fn unknown_locale_is_a_warning() {
        let facts = ServerFacts {
            locales: ["en_us.utf8".to_owned()].into(),
            ..ServerFacts::default()
        };
        let rewriter = Rewriter::new(facts, Default::default(), Default::default());
        for (options, warns) in [
            ("LOCALE_PROVIDER = libc LOCALE = 'en_US.UTF-8'", false),
            ("LC_COLLATE = 'de_DE.UTF-8' LC_CTYPE = 'de_DE.UTF-8'", true),
            (
                "LOCALE_PROVIDER = icu LOCALE = 'xx' ICU_LOCALE = 'de'",
                false,
            ),
            ("LOCALE = 'C.UTF-8'", false),
        ] {
            let needs = Requirements {
                locale: Some(options.into()),
                ..Requirements::default()
            };
            let mut found = vec![];
            locale(&needs, &rewriter, &mut found);
            assert_eq!(!found.is_empty(), warns, "{options}");
        }
    }
}
