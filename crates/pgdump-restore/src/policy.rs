//! Options of a restore: owners, roles, extensions, and which part to restore.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::use_list::UseList;

/// Who owns restored objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Owners {
    /// The roles that the dump names.
    #[default]
    Keep,
    /// Other roles, by the map; roles that are not in it are kept.
    Map,
    /// The restoring role.
    None,
}

/// What to do about extensions that the server lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Extensions {
    /// Fail before any data moves.
    #[default]
    Require,
    /// Skip them and everything that depends on them; the result names both.
    SkipMissing,
}

/// What a restore does about a definition that the server refuses. Rows that it refuses always fail the restore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Fail, and name everything that is refused in that stage.
    #[default]
    Stop,
    /// Leave it out with everything that depends on it; the result names both.
    Skip,
}

/// The managed service that a backup comes from. What belongs to its platform alone is left out, or belongs to the
/// restoring role, where the server lacks it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Profile {
    /// Recognized from the backup.
    #[default]
    Auto,
    /// None: everything is restored as the backup has it.
    None,
    /// Cloud SQL for PostgreSQL.
    Cloudsql,
    /// AlloyDB for PostgreSQL.
    Alloydb,
    /// Amazon RDS for PostgreSQL.
    Rds,
    /// Amazon Aurora PostgreSQL.
    Aurora,
    /// Azure Database for PostgreSQL.
    Azure,
    /// Heroku Postgres.
    Heroku,
    /// Supabase.
    Supabase,
    /// Neon.
    Neon,
}

/// Whether a restore tries all definitions without rows before the first row moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Rehearse {
    /// If the backup is large.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether a database that does not exist yet is created under its own name, closed to others until it is
/// proven, or under a temporary name and renamed at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum InPlace {
    /// In place if the dump depends on the name of its database, as far as that is known before it is read.
    #[default]
    Auto,
    /// Under its own name.
    Always,
    /// Under a temporary name, renamed at the end.
    Never,
}

/// How a dump is adapted to a server other than the one it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who owns restored objects.
    pub owners: Owners,
    /// From the dump's role to the server's, with [`Owners::Map`].
    pub role_map: BTreeMap<String, String>,
    /// Whether GRANT and REVOKE are restored.
    pub privileges: bool,
    /// Whether roles that the server lacks are created, without login.
    pub create_roles: bool,
    /// What to do about extensions that the server lacks.
    pub extensions: Extensions,
    /// What to do about definitions that the server refuses.
    pub on_error: OnError,
    /// The managed service that the dump comes from.
    pub profile: Profile,
    /// Whether rows of the service's own tables may be left out with them.
    pub leave_out_platform_rows: bool,
    /// Whether tables are analyzed after the load, unless the dump has statistics.
    pub analyze: bool,
    /// Name of the object with the roles (`pg_dumpall --globals-only`), relative to the backup's.
    pub globals: Option<String>,
    /// Whether passwords are taken from there, too.
    pub role_passwords: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            owners: Owners::Keep,
            role_map: BTreeMap::new(),
            privileges: true,
            create_roles: false,
            extensions: Extensions::Require,
            on_error: OnError::Stop,
            profile: Profile::Auto,
            leave_out_platform_rows: true,
            analyze: true,
            globals: None,
            role_passwords: false,
        }
    }
}

/// A section of a dump.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Definitions that the rows need.
    PreData,
    /// Rows, large objects, sequence values, statistics.
    Data,
    /// Indexes, constraints, triggers, rules.
    PostData,
}

/// Which part of a backup to restore; by default, all of it. Patterns support `*` and `?`; a table's pattern
/// may begin with its schema and a dot.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::Args))]
#[cfg_attr(feature = "cli", command(next_help_heading = "Selection"))]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Only these schemas (pattern)
    #[cfg_attr(feature = "cli", arg(long = "schema", value_name = "PATTERN"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// All but these schemas (pattern)
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "exclude-schema",
            value_name = "PATTERN",
            hide_short_help = true
        )
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_schemas: Vec<String>,
    /// Only these tables and what they need (pattern)
    #[cfg_attr(feature = "cli", arg(long = "table", value_name = "PATTERN"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// All but these tables (pattern)
    #[cfg_attr(feature = "cli", arg(long = "exclude-table", value_name = "PATTERN"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Restore these tables without their rows (pattern)
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "exclude-table-data",
            value_name = "PATTERN",
            hide_short_help = true
        )
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_table_data: Vec<String>,
    /// All but the objects of this kind and name (pattern), such as 'POLICY public.*', and what depends on them
    ///
    /// Kinds are those of inspect --list, such as 'EVENT TRIGGER *' or 'TABLE DATA shop.log'. A name without a dot is
    /// that of objects of every schema.
    #[cfg_attr(
        feature = "cli",
        arg(long = "skip", value_name = "KIND NAME", hide_short_help = true)
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Only objects of these kinds, such as TABLE,INDEX, and what they need (pattern)
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "only-kinds",
            value_name = "KIND",
            value_delimiter = ',',
            hide_short_help = true
        )
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_kinds: Vec<String>,
    /// Only the entries of a list; it belongs to one archive, so requests have none.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub use_list: Option<Arc<UseList>>,
    /// Only these sections
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "section",
            value_enum,
            value_name = "SECTION",
            hide_short_help = true
        )
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
    /// Only definitions, no rows
    #[cfg_attr(feature = "cli", arg(long))]
    pub schema_only: bool,
    /// Only rows: add them to a copy of the existing target, which then replaces it
    #[cfg_attr(feature = "cli", arg(long))]
    pub data_only: bool,
    /// Restore the schema OLD under the name NEW
    #[cfg_attr(feature = "cli", arg(long = "rename-schema", value_name = "OLD=NEW", value_parser = pair))]
    #[serde(skip_serializing_if = "Vec::is_empty", with = "pairs")]
    #[cfg_attr(feature = "cli", schemars(with = "BTreeMap<String, String>"))]
    pub rename_schemas: Vec<(String, String)>,
}

/// Pairs on the command line, an object in JSON.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        all: &[(String, String)],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_map(all.iter().map(|(old, new)| (old, new)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<(String, String)>, D::Error> {
        Ok(BTreeMap::deserialize(d)?.into_iter().collect())
    }
}

/// Whether `text` matches a pattern with `*` and `?`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || *c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    i = at + 1;
                    j = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

/// Parses `OLD=NEW`, without the spaces around both names.
///
/// # Errors
/// A message for the user if a name or the `=` is missing.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').map(|(a, b)| (a.trim(), b.trim())) {
        Some((a, b)) if !a.is_empty() && !b.is_empty() => Ok((a.to_owned(), b.to_owned())),
        _ => Err("must be OLD=NEW".into()),
    }
}

/// Kinds that no table and no row depends on.
const EXTRAS: [&str; 15] = [
    "ACL",
    "COMMENT",
    "DEFAULT ACL",
    "EVENT TRIGGER",
    "FK CONSTRAINT",
    "INDEX",
    "POLICY",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SECURITY LABEL",
    "STATISTICS DATA",
    "SUBSCRIPTION",
    "TRIGGER",
    "USER MAPPING",
];

impl Selection {
    /// Whether everything is restored, apart from renamed schemas.
    pub fn is_everything(&self) -> bool {
        let names = Selection {
            rename_schemas: self.rename_schemas.clone(),
            ..Selection::default()
        };
        *self == names
    }

    /// Whether the restore takes every table and every row, whatever the backup contains: what is left out has a kind
    /// that no table needs.
    pub fn takes_all_tables(&self) -> bool {
        let others = Selection {
            skip: vec![],
            ..self.clone()
        };
        let is_extra = |pattern: &String| {
            let pattern = pattern.trim().to_uppercase();
            EXTRAS
                .iter()
                .filter_map(|kind| pattern.strip_prefix(kind))
                .any(|name| name.starts_with(char::is_whitespace))
        };
        others.is_everything() && self.skip.iter().all(is_extra)
    }

    /// Checks that each option can be understood and that no two contradict each other.
    ///
    /// # Errors
    /// Which ones, and what to do, for the user.
    pub fn check(&self) -> Result<(), String> {
        let has_name = |pattern: &String| pattern.trim().contains(char::is_whitespace);
        if let Some(pattern) = self.skip.iter().find(|p| !has_name(p)) {
            return Err(format!(
                "--skip {pattern}: must be a kind and a name, such as 'EVENT TRIGGER *' or 'POLICY public.*'"
            ));
        }
        if self.only_kinds.iter().any(|kind| kind.trim().is_empty()) {
            return Err("--only-kinds: a kind is empty".to_owned());
        }
        let excluded = |section| self.sections.iter().any(|s| *s != section);
        if self.schema_only && self.data_only {
            return Err(exclusive(
                "--schema-only",
                "--data-only",
                "leave both out to restore definitions and rows",
            ));
        }
        if self.schema_only && self.sections.contains(&Section::Data) {
            return Err(exclusive(
                "--schema-only",
                "--section data",
                "leave out the one that you do not mean",
            ));
        }
        if self.data_only && excluded(Section::Data) {
            return Err(exclusive(
                "--data-only",
                "--section pre-data and post-data",
                "rows alone are the section data",
            ));
        }
        if self.data_only && !self.rename_schemas.is_empty() {
            return Err(exclusive(
                "--data-only",
                "--rename-schema",
                "rows alone go into the schemas that the target has",
            ));
        }
        Ok(())
    }
}

fn exclusive(one: &str, other: &str, way_out: &str) -> String {
    format!("{one} and {other} exclude each other: {way_out}")
}

/// A rule by which the restore differs from the dump.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Rewrite {
    /// Name of the rule.
    pub rule: String,
    /// What the rule does, and when.
    pub what: String,
    /// Number of uses.
    pub count: u64,
    /// Some of the rewritten statements or objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// How far a verification goes; each depth includes those before it.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Size, checksum and generation of the object.
    Object,
    /// Every block decompresses, and every entry of the table of contents has its data.
    Archive,
    /// The backup can be loaded into a server.
    Restore,
    /// The server has the archive's data, and the checks pass.
    #[default]
    Data,
}

impl Depth {
    /// Every depth, the shallowest first.
    pub const ALL: [Depth; 4] = [Depth::Object, Depth::Archive, Depth::Restore, Depth::Data];

    /// The name in requests, events and reports, the same as serde's.
    pub fn as_str(self) -> &'static str {
        match self {
            Depth::Object => "object",
            Depth::Archive => "archive",
            Depth::Restore => "restore",
            Depth::Data => "data",
        }
    }
}

/// What requested a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A new object in the bucket.
    Notification,
    /// A message on the request topic.
    Request,
    /// The command `verify`.
    Command,
    /// The last proof of the backup set is older than its schedule allows.
    Schedule,
    /// An older backup, chosen at random.
    Sample,
    /// The search for the first bad backup after a failed verification.
    Bisection,
    /// The command `selftest`.
    SelfTest,
}

impl Trigger {
    /// Every trigger, in the order of declaration.
    pub const ALL: [Trigger; 7] = [
        Trigger::Notification,
        Trigger::Request,
        Trigger::Command,
        Trigger::Schedule,
        Trigger::Sample,
        Trigger::Bisection,
        Trigger::SelfTest,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipping(patterns: &[&str]) -> Selection {
        Selection {
            skip: patterns.iter().map(|p| (*p).to_owned()).collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn a_pattern_has_a_kind_and_a_name() {
        assert_eq!(
            skipping(&["EVENT TRIGGER *", "policy public.*"]).check(),
            Ok(())
        );
        for bad in ["POLICY", " TABLE ", ""] {
            assert!(
                skipping(&[bad])
                    .check()
                    .unwrap_err()
                    .contains("a kind and a name")
            );
        }
        let kinds = Selection {
            only_kinds: vec!["TABLE".into(), " ".into()],
            ..Selection::default()
        };
        assert!(kinds.check().is_err());
    }

    /// Only then may the rest of the backup replace a whole database.
    #[test]
    fn what_no_table_needs_is_told_from_its_kind() {
        assert!(skipping(&[]).takes_all_tables());
        assert!(skipping(&["EVENT TRIGGER *", "policy public.*", "ACL *"]).takes_all_tables());
        for kind in [
            "TABLE",
            "TABLE DATA",
            "*",
            "EXTENSION",
            "TRIGGER*",
            "RULE",
            "TYPE",
        ] {
            let some = skipping(&["POLICY *", &format!("{kind} x")]);
            assert!(!some.takes_all_tables(), "{kind}");
        }
        let part = Selection {
            tables: vec!["t".into()],
            ..skipping(&["POLICY *"])
        };
        assert!(!part.takes_all_tables());
    }
}
