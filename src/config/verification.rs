//! The configuration of verifications.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use secrecy::SecretString;

use super::document::Document;
use super::libpq::SettingOrigins;
use super::location::Location;
use super::login::DbAuth;
use super::raw::RawConfig;
use super::server::{ServerVariables, server_config};
use super::trust::Trust;
use super::values::{ConfigErrors, list, non_empty, secret};
use crate::policy::Depth;
use pgdump_restore::HOOKS;
use pgdump_restore::postgres::{DbConfig, TlsFiles};

/// Backups that belong together, such as those of one database, and are compared with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSet {
    /// The label `backup_set` of metrics.
    pub name: String,
    pub prefix: String,
}

/// Where evidence is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidencePlace {
    BesideBackup,
    At(Location),
    Nowhere,
}

#[derive(Debug, Clone)]
pub struct VerifyConfig {
    pub depth: Depth,
    /// The checks file.
    pub checks: Option<Document>,
    pub prefix: String,
    pub suffixes: Vec<String>,
    pub manifest: String,
    pub settle: Duration,
    /// Backups older than the newest proven one are not verified when they arrive.
    pub skip_older: bool,
    pub schedule: Option<Duration>,
    /// How often a worker tests its own verification.
    pub selftest: Option<Duration>,
    pub sample: usize,
    /// Number of older backups that a bisection verifies.
    pub bisect: usize,
    pub evidence: EvidencePlace,
    pub signing_key: Option<SecretString>,
    /// Public keys in PEM whose evidence counts, in addition to the signing key's own.
    pub trusted_keys: Option<String>,
    pub sets: Vec<BackupSet>,
    pub retention_min: usize,
    pub sandbox_dir: Option<PathBuf>,
    pub require_isolation: bool,
    /// Libraries that a sandbox may load when it starts.
    pub preload_libraries: Vec<String>,
    pub scratch: Option<DbConfig>,
    /// How much backups are trusted on the scratch server.
    pub scratch_trust: Trust,
}

impl VerifyConfig {
    /// The set that a backup belongs to: the one with the longest matching prefix.
    pub fn set_of<'a>(&'a self, name: &str) -> &'a str {
        let of = self.sets.iter().filter(|s| name.starts_with(&s.prefix));
        of.max_by_key(|s| s.prefix.len())
            .map_or(UNNAMED_SET, |s| s.name.as_str())
    }

    /// The prefix of the names of a set's backups.
    pub fn prefix_of(&self, set: &str) -> &str {
        self.sets
            .iter()
            .find(|s| s.name == set)
            .map_or("", |s| s.prefix.as_str())
    }

    /// Whether an object of this name is a backup to verify. A directory dump's name ends in `/`.
    pub fn watches(&self, name: &str) -> bool {
        let fits = |s: &String| name.ends_with(s.as_str());
        name.starts_with(&self.prefix)
            && (self.suffixes.is_empty() || name.ends_with('/') || self.suffixes.iter().any(fits))
    }
}

/// Name of the set for backups that belong to no other.
const UNNAMED_SET: &str = "default";
/// Limit of sets, because each is a value of a metric label.
const MAX_SETS: usize = 200;

pub(super) fn read(
    raw: &RawConfig,
    connect_budget: Duration,
    errors: &mut ConfigErrors,
) -> VerifyConfig {
    let depth = non_empty(&raw.verify_depth)
        .map(|t| Depth::from_str(t, true))
        .transpose()
        .unwrap_or_else(|_| {
            errors.add("VERIFY_DEPTH", "must be object, archive, restore or data");
            None
        });
    let evidence = match non_empty(&raw.evidence_location) {
        None => EvidencePlace::BesideBackup,
        Some("none") => EvidencePlace::Nowhere,
        Some(place) => EvidencePlace::At(errors.location("EVIDENCE_LOCATION", place)),
    };
    let one_of =
        |errors: &mut ConfigErrors, variable: &str, given: &Option<String>, words: [&str; 2]| {
            let word = non_empty(given).unwrap_or(words[0]).to_owned();
            if !words.contains(&word.as_str()) {
                errors.add(variable, format!("must be {} or {}", words[0], words[1]));
            }
            word
        };
    let every = |errors: &mut ConfigErrors, variable: &str, given: &Option<String>| {
        non_empty(given).map(|_| errors.duration(variable, given, Duration::from_secs(24 * 3600)))
    };
    VerifyConfig {
        depth: depth.unwrap_or_default(),
        checks: Document::read("VERIFY_CHECKS", &raw.verify_checks, errors),
        prefix: non_empty(&raw.verify_prefix).unwrap_or_default().to_owned(),
        suffixes: list(&raw.verify_suffix),
        manifest: non_empty(&raw.verify_manifest)
            .unwrap_or("toc.dat")
            .to_owned(),
        settle: errors.duration(
            "VERIFY_SETTLE",
            &raw.verify_settle,
            Duration::from_secs(600),
        ),
        skip_older: one_of(
            errors,
            "VERIFY_OLDER",
            &raw.verify_older,
            ["skip", "verify"],
        ) == "skip",
        schedule: every(errors, "VERIFY_SCHEDULE", &raw.verify_schedule),
        selftest: every(errors, "VERIFY_SELFTEST", &raw.verify_selftest),
        sample: errors.parse(
            "VERIFY_SAMPLE",
            &raw.verify_sample,
            0,
            "must be a non-negative integer",
        ),
        bisect: errors.parse(
            "VERIFY_BISECT",
            &raw.verify_bisect,
            6,
            "must be a non-negative integer",
        ),
        evidence,
        signing_key: secret(
            "EVIDENCE_SIGNING_KEY",
            &raw.evidence_signing_key_file,
            &raw.evidence_signing_key,
            errors,
        )
        .map(SecretString::from),
        trusted_keys: secret(
            "EVIDENCE_TRUSTED_KEYS",
            &raw.evidence_trusted_keys_file,
            &raw.evidence_trusted_keys,
            errors,
        ),
        sets: sets(&list(&raw.backup_sets), errors),
        retention_min: errors.parse(
            "BACKUP_RETENTION_MIN",
            &raw.backup_retention_min,
            3,
            "must be a non-negative integer",
        ),
        sandbox_dir: non_empty(&raw.sandbox_dir).map(PathBuf::from),
        require_isolation: one_of(
            errors,
            "SANDBOX_ISOLATION",
            &raw.sandbox_isolation,
            ["prefer", "require"],
        ) == "require",
        preload_libraries: preload_libraries(raw, errors),
        scratch: scratch(raw, connect_budget, errors),
        scratch_trust: match one_of(
            errors,
            "SCRATCH_DB_TRUST",
            &raw.scratch_db_trust,
            ["restricted", "full"],
        )
        .as_str()
        {
            "full" => Trust::Full,
            _ => Trust::Restricted,
        },
    }
}

fn preload_libraries(raw: &RawConfig, errors: &mut ConfigErrors) -> Vec<String> {
    let given = &raw.sandbox_preload_libraries;
    match non_empty(given) {
        None => {
            let known = HOOKS.iter().filter_map(|h| h.preload);
            known.map(|p| p.library.to_owned()).collect()
        }
        Some("none") => vec![],
        Some(_) => {
            let names = list(given);
            let is_name = |n: &String| {
                let mut chars = n.chars();
                chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            };
            if !names.iter().all(is_name) {
                let what =
                    "must be names of libraries without a folder, separated by commas, or none";
                errors.add("SANDBOX_PRELOAD_LIBRARIES", what);
            }
            names
        }
    }
}

fn sets(given: &[String], errors: &mut ConfigErrors) -> Vec<BackupSet> {
    let mut sets = Vec::new();
    for text in given {
        match crate::policy::pair(text) {
            Ok((name, prefix)) => sets.push(BackupSet { name, prefix }),
            Err(_) => errors.add("BACKUP_SETS", "must be NAME=PREFIX, separated by commas"),
        }
    }
    if sets.len() > MAX_SETS {
        errors.add("BACKUP_SETS", format!("must have at most {MAX_SETS} sets"));
    }
    if sets.is_empty() {
        sets.push(BackupSet {
            name: UNNAMED_SET.into(),
            prefix: String::new(),
        });
    }
    sets
}

fn scratch(
    raw: &RawConfig,
    connect_budget: Duration,
    errors: &mut ConfigErrors,
) -> Option<DbConfig> {
    let host = non_empty(&raw.scratch_db_host)?;
    let none = None;
    let variables = ServerVariables {
        prefix: "SCRATCH_DB",
        origins: &SettingOrigins::default(),
        host: &raw.scratch_db_host,
        port: &raw.scratch_db_port,
        user: &raw.scratch_db_user,
        auth: DbAuth::Password,
        password: &raw.scratch_db_password,
        password_file: &raw.scratch_db_password_file,
        ssl_mode: &raw.scratch_db_sslmode,
        maintenance: &none,
        root: &none,
        tls: TlsFiles::default(),
        allow_plaintext: non_empty(&raw.db_allow_plaintext) == Some("true"),
    };
    let port = |given: &Option<String>| non_empty(given).unwrap_or("5432").to_owned();
    let target = non_empty(&raw.db_host).unwrap_or("localhost");
    if host == target && port(&raw.scratch_db_port) == port(&raw.db_port) {
        errors.add("SCRATCH_DB_HOST", "must not be the target server");
    }
    let first_contact = raw.first_contact();
    Some(server_config(
        &variables,
        connect_budget,
        first_contact,
        errors,
    ))
}
