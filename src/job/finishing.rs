//! What finishes a restore: the requester's own SQL, and then checks, before anybody else sees the database.

use std::sync::Arc;

use pgdump_restore::FinishingSql;

use crate::config::Document;
use crate::error::{RestoreError, ValidationError, ValidationKind};

/// Most files of one restore.
pub const MAX_FINISHING_FILES: usize = 20;
/// Longest name of a file that a request names, in bytes.
const MAX_NAME: usize = 200;

/// What finishes a restore; by default nothing.
#[derive(Debug, Clone, Default)]
pub struct Finishing {
    /// Files that are read already. They come before `names`.
    pub files: Vec<Arc<FinishingFile>>,
    /// Names of files in RESTORE_FINISH_FROM, which are read when the restore begins.
    pub names: Vec<String>,
    /// A checks file that is read already, all of whose checks must pass afterwards.
    pub checks: Option<Document>,
    /// The name of a checks file in RESTORE_FINISH_FROM, for the same, which is read when the restore begins.
    pub checks_name: Option<String>,
}

/// A file of SQL that was read and can be run.
#[derive(Debug)]
pub struct FinishingFile {
    pub sql: FinishingSql,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A file of SQL that ran in the restored database.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct FinishedSql {
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// How long it ran.
    pub seconds: f64,
}

impl FinishingFile {
    /// Checks a file that was read; `name` is what results and messages call it.
    ///
    /// # Errors
    /// `invalid_request`, as [`FinishingSql::parse`].
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, RestoreError> {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(bytes);
        Ok(FinishingFile {
            sql: FinishingSql::parse(name, bytes)?,
            sha256: digest.iter().map(|b| format!("{b:02x}")).collect(),
        })
    }
}

/// Checks the names of files that a request or an order names: relative to RESTORE_FINISH_FROM, and inside it.
///
/// # Errors
/// `invalid_request`.
pub fn check_finish_names(names: &[String]) -> Result<(), RestoreError> {
    let invalid = |what: String| {
        RestoreError::from(ValidationError::new(ValidationKind::InvalidRequest, what))
    };
    if names.len() > MAX_FINISHING_FILES {
        return Err(invalid(format!(
            "finish: must have at most {MAX_FINISHING_FILES} files"
        )));
    }
    match names.iter().find(|name| !is_name(name, &[".sql"])) {
        None => Ok(()),
        Some(name) => Err(invalid(format!(
            "finish: {name} must be the name of a file in RESTORE_FINISH_FROM that ends in .sql, such as staging.sql, with at most \
             {MAX_NAME} bytes and without .."
        ))),
    }
}

/// Checks the name of the checks file that a request or an order names: relative to RESTORE_FINISH_FROM, and inside it.
///
/// # Errors
/// `invalid_request`.
pub fn check_finish_checks(name: Option<&str>) -> Result<(), RestoreError> {
    let Some(name) = name.filter(|name| !is_name(name, &[".yaml", ".yml"])) else {
        return Ok(());
    };
    let what = format!(
        "finish_checks: {name} must be the name of a file in RESTORE_FINISH_FROM that ends in .yaml, such as staging.yaml, with at most \
         {MAX_NAME} bytes and without .."
    );
    Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
}

fn is_name(name: &str, ends: &[&str]) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    name.len() <= MAX_NAME
        && ends.iter().any(|end| name.ends_with(*end))
        && name.split('/').all(is_part)
        && !name.chars().any(|c| c == '\\' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason;

    #[test]
    fn names_lead_nowhere_else() {
        let check = |name: &str| check_finish_names(&[name.to_owned()]);
        for name in ["a.sql", "team/a b.sql", "..a.sql", "é.sql"] {
            assert!(check(name).is_ok(), "{name}");
        }
        let long = format!("{}.sql", "x".repeat(197));
        for name in [
            "",
            ".sql/",
            "a",
            "a.sql.gz",
            "/a.sql",
            "../a.sql",
            "a/../b.sql",
            "./a.sql",
            "a//b.sql",
            "..\\a.sql",
            "a\n.sql",
            "gs://b/a.sql",
            &long,
        ] {
            let e = check(name).unwrap_err();
            assert_eq!(e.reason(), FailureReason::InvalidRequest, "{name}");
        }
        let many = vec!["a.sql".to_owned(); MAX_FINISHING_FILES + 1];
        assert!(check_finish_names(&many).is_err());
        assert!(check_finish_names(&many[1..]).is_ok());
        for (name, is_right) in [
            ("staging.yaml", true),
            ("team/staging.yml", true),
            ("staging.sql", false),
            ("../staging.yaml", false),
            ("/staging.yaml", false),
            ("", false),
        ] {
            let checked = check_finish_checks(Some(name));
            assert_eq!(checked.is_ok(), is_right, "{name}");
        }
        assert!(check_finish_checks(None).is_ok());
    }

    #[test]
    fn a_file_is_known_by_the_digest_of_its_bytes() {
        let file = FinishingFile::parse("a.sql", b"SELECT 1;\n").unwrap();
        let wanted = "b4e0497804e46e0a0b0b8c31975b062152d551bac49c3c2e80932567b4085dcd";
        assert_eq!((file.sql.name(), file.sha256.as_str()), ("a.sql", wanted));
        assert!(FinishingFile::parse("a.sql", b"COMMIT").is_err());
    }
}
