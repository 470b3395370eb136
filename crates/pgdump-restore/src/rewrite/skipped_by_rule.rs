//! Which statements the rules of `rules.rs` skip. `choice` does `--skip`, and `left_out.rs` does `--on-error skip`.

use super::Rewriter;
use super::edits::{
    VERSION_OF_COLUMN, has_pair, is, is_contrib, is_statistics, name, without_column_option,
};
use super::rules::*;
use super::string_constants::allows_escapes;
use crate::error::RestoreError;
use crate::policy::Owners;
use pgdump_archive::Token;

/// Parameters that `pg_dump` sets, with the version that introduced them.
const SETTINGS_SINCE: [(&str, u32); 4] = [
    ("transaction_timeout", 170000),
    ("default_toast_compression", 140000),
    ("restrict_nonsystem_relation_kind", 170000),
    ("event_triggers", 170000),
];

/// Parameters that `pg_dump` sets, with the version that removed them.
const SETTINGS_UNTIL: [(&str, u32); 1] = [("escape_string_warning", 190000)];

/// Whether a statement is skipped.
pub(super) enum Skip {
    No,
    By(&'static str),
    /// By a rule whose use is already reported.
    Reported,
}

impl Skip {
    fn when(skips: bool, rule: &'static str) -> Self {
        if skips { Skip::By(rule) } else { Skip::No }
    }
}

impl Rewriter {
    /// Whether a rule skips a statement. `clean`: nothing has been created yet.
    pub(super) fn should_skip(
        &self,
        t: &[Token<'_>],
        sql: &str,
        clean: bool,
    ) -> Result<Skip, RestoreError> {
        let is_on_database = || t.iter().take(5).any(|w| w.is("database"));
        Ok(match name(t, 0).as_str() {
            "set" | "select" if self.forces_standard_strings() && allows_escapes(t) => {
                Skip::By(STANDARD_STRINGS)
            }
            "set" => self.skip_setting(&name(t, 1)),
            "drop" => Skip::when(clean, CLEAN),
            "select" if t.len() > 4 && t[3].text == "lo_unlink" => Skip::when(clean, CLEAN),
            "create" => return self.skip_create(t, clean),
            "alter" => self.skip_alter(t, sql, clean),
            "vacuum" | "checkpoint" => Skip::By(MAINTENANCE),
            "comment" | "security" if is_on_database() && name(t, 2) != "column" => {
                Skip::when(name(t, 2) == "database", DATABASE)
            }
            "comment" if name(t, 2) == "extension" => self.skip_comment_on_extension(&name(t, 3)),
            "grant" | "revoke" => self.skip_privileges(t),
            _ if is_statistics(t) => self.skip_statistics(),
            _ => Skip::No,
        })
    }

    fn skip_setting(&self, setting: &str) -> Skip {
        let known = SETTINGS_SINCE.iter().find(|(name, _)| *name == setting);
        let is_unknown = known.is_some_and(|(_, since)| self.facts.version < *since);
        let removed = SETTINGS_UNTIL.iter().find(|(name, _)| *name == setting);
        let is_gone = removed.is_some_and(|(_, until)| self.facts.version >= *until);
        Skip::when(is_unknown || is_gone, UNKNOWN_SETTING)
    }

    fn skip_create(&self, t: &[Token<'_>], clean: bool) -> Result<Skip, RestoreError> {
        Ok(match name(t, 1).as_str() {
            "database" => Skip::By(DATABASE),
            "schema" => Skip::when(name_unless_exists(t) == "public", SCHEMA_PUBLIC),
            "extension" => return self.skip_extension(&name_unless_exists(t)),
            "access" => {
                self.state().brings_methods = true;
                Skip::No
            }
            // Breaks a dependency cycle by replacing a view, so that it can be dropped.
            "or" if clean && name(t, 3) == "view" => Skip::By(CLEAN),
            _ => Skip::when(creates_plpgsql(t), PLPGSQL),
        })
    }

    fn skip_extension(&self, extension: &str) -> Result<Skip, RestoreError> {
        self.state().brings_methods |= !is_contrib(extension);
        let is_kept = self.keeps_extension(extension)?;
        Ok(if is_kept { Skip::No } else { Skip::Reported })
    }

    fn skip_alter(&self, t: &[Token<'_>], sql: &str, clean: bool) -> Skip {
        let drops = || t.iter().any(|w| w.is("drop") || w.is("detach"));
        match name(t, 1).as_str() {
            _ if clean && drops() => Skip::By(CLEAN),
            "database" => Skip::By(DATABASE),
            "role" | "user" if is(t.get(3..).unwrap_or_default(), &["in", "database"]) => {
                Skip::By(DATABASE)
            }
            "default" => Skip::when(!self.policy.privileges, PRIVILEGES_LEFT_OUT),
            "procedural" | "language" if names_plpgsql(t) => Skip::By(PLPGSQL),
            _ if self.policy.owners == Owners::None && has_pair(t, "owner", "to") => {
                Skip::By(OWNER_LEFT_OUT)
            }
            _ if without_column_option(t, sql, VERSION_OF_COLUMN) == Some(None) => {
                Skip::By(COLUMN_VERSION)
            }
            _ => Skip::when(self.lacks_compression(t), COMPRESSION),
        }
    }

    fn lacks_compression(&self, t: &[Token<'_>]) -> bool {
        let lacks_method = || !self.facts.has_lz4 && t.iter().any(|w| w.is("lz4"));
        has_pair(t, "set", "compression") && (self.facts.version < 140000 || lacks_method())
    }

    fn skip_comment_on_extension(&self, extension: &str) -> Skip {
        if self.facts.extensions.contains(extension) {
            Skip::when(!self.facts.is_superuser, COMMENT_ON_EXTENSION)
        } else {
            Skip::By(EXTENSION_SKIPPED)
        }
    }

    fn skip_privileges(&self, t: &[Token<'_>]) -> Skip {
        let is_unknown = self.facts.version < 170000 && is(&t[1..], &["maintain", "on"]);
        match () {
            () if has_pair(t, "on", "database") => Skip::By(DATABASE),
            () if !self.policy.privileges => Skip::By(PRIVILEGES_LEFT_OUT),
            () => Skip::when(is_unknown, MAINTAIN),
        }
    }

    fn skip_statistics(&self) -> Skip {
        let can_restore = self.facts.version >= 180000;
        self.state().has_statistics |= can_restore;
        Skip::when(!can_restore, STATISTICS)
    }
}

/// `CREATE SCHEMA x` or `CREATE SCHEMA IF NOT EXISTS x`
pub(super) fn name_unless_exists(t: &[Token<'_>]) -> String {
    match name(t, 2) {
        word if word == "if" => name(t, 5),
        name => name,
    }
}

fn creates_plpgsql(t: &[Token<'_>]) -> bool {
    let language = position_of_language(t);
    names_plpgsql(t) && language.is_some_and(|i| t.len() <= i + 3)
}

/// Whether a statement is about this language, which every database has.
fn names_plpgsql(t: &[Token<'_>]) -> bool {
    position_of_language(t).is_some_and(|i| name(t, i + 1) == "plpgsql")
}

fn position_of_language(t: &[Token<'_>]) -> Option<usize> {
    t.iter().take(5).position(|w| w.is("language"))
}
