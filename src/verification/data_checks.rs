//! Runs the checks file: freshness of data, canary rows that must exist, and the user's own assertions in SQL.
//! Each query runs in a read-only transaction with a timeout.

use std::collections::BTreeMap;

use super::drift::DriftPolicy;
use crate::config::Document;
use crate::error::{
    DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind, report,
};
use crate::postgres::{Server, Session, map_pg_error};
use crate::proof::{Check, CheckStatus};

/// A checks file: checks for every set of backups, and further ones for some sets.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct ChecksFile {
    pub freshness: Vec<Freshness>,
    pub canaries: Vec<Canary>,
    pub assertions: Vec<Assertion>,
    pub drift: DriftPolicy,
    /// Further checks of the sets with these names.
    pub sets: BTreeMap<String, Checks>,
    /// Where the file is, for messages.
    #[serde(skip)]
    pub path: String,
}

/// Checks of the data of a backup.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    pub freshness: Vec<Freshness>,
    pub canaries: Vec<Canary>,
    pub assertions: Vec<Assertion>,
    pub drift: DriftPolicy,
    /// Where their file is, for messages.
    #[serde(skip)]
    pub path: String,
}

/// The newest value of a column must not be much older than the backup.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// As SQL writes it, such as `shop.orders`.
    pub table: String,
    pub column: String,
    /// Such as `26h`.
    pub max_age: String,
}

/// A row whose value is known; only its digest is written down.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    pub name: String,
    /// A query of one row and one column.
    pub sql: String,
    /// SHA-256 of the value's text, in hexadecimal.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
}

/// A query in SQL and its expected result.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    pub name: String,
    /// One query.
    pub sql: String,
    /// The only value of the query's only row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Number of rows that the query must return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Such as `30s`; 60 s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// What to do if the assertion fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

const TIMEOUT: &str = "60s";
/// The SQLSTATE of a syntax error.
const SYNTAX_ERROR: &str = "42601";
/// Size in bytes up to which a row is parsed, whatever it contains.
const MAX_JSON: usize = 1 << 20;

fn duration(text: &str) -> Option<jiff::SignedDuration> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .filter(|d| d.is_positive())
}

impl ChecksFile {
    /// Parses YAML.
    ///
    /// # Errors
    /// `invalid_request`, with the file's path, and the name of the check or the position in the file; never a value
    /// or a query of it.
    pub fn parse(document: &Document) -> Result<Self, RestoreError> {
        Self::parse_as("VERIFY_CHECKS", document)
    }

    /// The same; `setting` is what named the file.
    ///
    /// # Errors
    /// As [`ChecksFile::parse`].
    pub fn parse_as(setting: &str, document: &Document) -> Result<Self, RestoreError> {
        let wrong = |what: String| {
            let what = format!("{setting}: {what}");
            RestoreError::from(ValidationError::new(ValidationKind::InvalidRequest, what))
        };
        let file: ChecksFile = document.parse().map_err(wrong)?;
        for checks in std::iter::once(&file.all()).chain(file.sets.values()) {
            let valid = checks.validate();
            valid.map_err(|what| wrong(format!("{}: {what}", document.path)))?;
        }
        Ok(ChecksFile {
            path: document.path.clone(),
            ..file
        })
    }

    fn all(&self) -> Checks {
        Checks {
            freshness: self.freshness.clone(),
            canaries: self.canaries.clone(),
            assertions: self.assertions.clone(),
            drift: self.drift.clone(),
            path: self.path.clone(),
        }
    }

    /// The checks of one set.
    pub fn of_set(&self, set: &str) -> Checks {
        let mut checks = self.all();
        if let Some(more) = self.sets.get(set) {
            checks.freshness.extend(more.freshness.iter().cloned());
            checks.canaries.extend(more.canaries.iter().cloned());
            checks.assertions.extend(more.assertions.iter().cloned());
            if more.drift != DriftPolicy::default() {
                checks.drift = more.drift.clone();
            }
        }
        checks
    }
}

impl Checks {
    fn validate(&self) -> Result<(), String> {
        for f in &self.freshness {
            duration(&f.max_age).ok_or(format!(
                "freshness of {}: max_age must be a time such as 26h",
                f.table
            ))?;
        }
        for c in &self.canaries {
            let hex = c.sha256.len() == 64 && c.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then_some(()).ok_or(format!(
                "canary {}: sha256 must have 64 hexadecimal digits",
                c.name
            ))?;
        }
        for a in &self.assertions {
            let asks = a.expect.is_some() || a.min.is_some() || a.max.is_some() || a.rows.is_some();
            asks.then_some(()).ok_or(format!(
                "assertion {}: needs expect, min, max or rows",
                a.name
            ))?;
            let time = a.timeout.as_deref().unwrap_or(TIMEOUT);
            duration(time).ok_or(format!(
                "assertion {}: timeout must be a time such as 30s",
                a.name
            ))?;
        }
        self.drift.validate()
    }
}

/// The database that the checks are about.
pub(crate) struct AskedDatabase<'a> {
    pub(crate) server: &'a Server,
    pub(crate) database: &'a str,
    /// When its backup was created.
    pub(crate) backup_created: jiff::Timestamp,
}

/// Runs all checks, each independent of the others.
///
/// # Errors
/// Those of the connection.
pub(crate) async fn ask_all(
    subject: &AskedDatabase<'_>,
    checks: &Checks,
) -> Result<Vec<Check>, RestoreError> {
    let mut answers = Vec::new();
    if checks.freshness.is_empty() && checks.canaries.is_empty() && checks.assertions.is_empty() {
        return Ok(answers);
    }
    let mut session = connect(subject).await?;
    let file = checks.path.as_str();
    for f in &checks.freshness {
        let answer = freshness(&session, subject, f).await;
        answers.push(answered(("freshness", &f.table), answer, file));
    }
    for c in &checks.canaries {
        let answer = canary(&session, c).await;
        answers.push(answered(("canary", &c.name), answer, file));
    }
    for a in &checks.assertions {
        if session.client().is_closed() {
            session = connect(subject).await?;
        }
        let answer = assertion(&session, a).await;
        answers.push(answered(("assertion", &a.name), answer, file));
    }
    Ok(answers)
}

async fn connect(subject: &AskedDatabase<'_>) -> Result<Session, DatabaseError> {
    let session = subject
        .server
        .connect(subject.database, "assertions")
        .await?;
    session
        .run("SET TimeZone = 'UTC'; SET row_security = off")
        .await?;
    Ok(session)
}

fn answered(
    (name, subject): (&str, &str),
    answer: Result<Check, DatabaseError>,
    file: &str,
) -> Check {
    let e = match answer {
        Ok(check) => return check.of(subject),
        Err(e) => e,
    };
    // PostgreSQL's message about a syntax error quotes the query, which may contain values.
    let said = match e.sqlstate() {
        Some(SYNTAX_ERROR) => format!("the query has a syntax error [{SYNTAX_ERROR}]"),
        _ => report(&e),
    };
    // A query that the server rejects is not checked, neither passed nor failed.
    let check = Check::new(name, CheckStatus::NotChecked, said)
        .of(subject)
        .because(e.reason());
    match e.kind() {
        DatabaseKind::StatementRejected | DatabaseKind::DataRejected => {
            check.fix(format!("correct this check in {file}"))
        }
        _ => check,
    }
}

/// The first two rows of a query as JSON; read-only, within `timeout`.
async fn ask(
    session: &Session,
    sql: &str,
    timeout: &str,
) -> Result<Vec<serde_json::Value>, DatabaseError> {
    let wrapped = format!(
        "SELECT row_to_json(q)::text FROM ({}\n) q LIMIT 2",
        plain(sql)
    );
    let rows = rows(session, &wrapped, timeout).await?;
    rows.iter().map(|row| json_of(row)).collect()
}

/// Parses a row. JSON takes up to 16 times as much memory as its text, so that of a large one only text is kept.
fn json_of(row: &str) -> Result<serde_json::Value, DatabaseError> {
    if row.len() <= MAX_JSON {
        return Ok(serde_json::from_str(row).unwrap_or(serde_json::Value::Null));
    }
    let texts: Result<BTreeMap<String, String>, _> = serde_json::from_str(row);
    let of_texts = |texts: BTreeMap<String, String>| texts.into_iter().collect();
    texts.map(of_texts).map_err(|_| {
        let what = format!(
            "the row has {} MiB, and only text may be that long",
            row.len().div_ceil(1 << 20)
        );
        DatabaseError::new(DatabaseKind::AnswerTooLarge, what)
    })
}

fn plain(sql: &str) -> &str {
    sql.trim().trim_end_matches(';')
}

/// The first column of a query's rows as text; read-only, within `timeout`.
pub(super) async fn rows(
    session: &Session,
    sql: &str,
    timeout: &str,
) -> Result<Vec<String>, DatabaseError> {
    let limit = duration(timeout).map_or(60_000, |d| d.as_millis());
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}");
    session.run(&begin).await?;
    // The extended protocol accepts only one statement, so a query cannot smuggle in a second one.
    let answer = session.client().query(sql, &[]).await;
    session.run("ROLLBACK").await?;
    let late = |e: tokio_postgres::Error| match e.code().map(|c| c.code()) {
        Some("57014") => DatabaseError::new(
            DatabaseKind::NoAnswer,
            format!("no answer within {timeout}"),
        ),
        _ => map_pg_error(&e, "running the query"),
    };
    Ok(answer
        .map_err(late)?
        .iter()
        .map(|r| r.get::<_, Option<String>>(0).unwrap_or_default())
        .collect())
}

/// The value of a result with one row and one column.
fn value_of(rows: &[serde_json::Value]) -> Result<&serde_json::Value, String> {
    let [serde_json::Value::Object(row)] = rows else {
        return Err(match rows.len() {
            0 => "the query returns no row".into(),
            _ => "the query returns more than one row".into(),
        });
    };
    match row.values().collect::<Vec<_>>().as_slice() {
        [one] => Ok(one),
        several => Err(format!(
            "the query returns {} columns instead of one",
            several.len()
        )),
    }
}

async fn freshness(
    session: &Session,
    subject: &AskedDatabase<'_>,
    f: &Freshness,
) -> Result<Check, DatabaseError> {
    let column = crate::postgres::ident(&f.column);
    let sql = format!(
        "SELECT extract(epoch FROM max({column}))::float8::text FROM {}",
        f.table
    );
    let newest = rows(session, &sql, TIMEOUT)
        .await?
        .pop()
        .unwrap_or_default();
    let fix =
        "compare with the source: it may have stopped writing, or the backup may be of an old copy";
    let failed = |what: String| Check::new("freshness", CheckStatus::Failed, what).fix(fix);
    let Some(newest) = newest
        .parse::<f64>()
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s as i64).ok())
    else {
        return Ok(failed(format!(
            "{} has no value, so the age of the data is unknown",
            f.column
        )));
    };
    let age = subject.backup_created.duration_since(newest);
    let max = duration(&f.max_age).unwrap_or_default();
    let what = format!(
        "newest {} is {newest}, {age:#} before the backup (allowed: {})",
        f.column, f.max_age
    );
    Ok(if age > max {
        failed(what)
    } else {
        Check::new("freshness", CheckStatus::Passed, what)
    })
}

async fn canary(session: &Session, c: &Canary) -> Result<Check, DatabaseError> {
    use sha2::Digest;
    let found = ask(session, &c.sql, TIMEOUT).await?;
    let failed = |what: &str| {
        let fix = "a row that should never change has changed or is missing: look for the last good backup";
        Check::new("canary", CheckStatus::Failed, what).fix(fix)
    };
    let value = match value_of(&found) {
        Ok(serde_json::Value::String(text)) => text.clone(),
        Ok(other) => other.to_string(),
        Err(what) => return Ok(failed(&what)),
    };
    let digest: String = sha2::Sha256::digest(value.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok(if digest.eq_ignore_ascii_case(&c.sha256) {
        Check::new("canary", CheckStatus::Passed, "the row is unchanged")
    } else {
        failed("the row has a different value")
    })
}

async fn assertion(session: &Session, a: &Assertion) -> Result<Check, DatabaseError> {
    let timeout = a.timeout.as_deref().unwrap_or(TIMEOUT);
    let mut wrong = Vec::new();
    if let Some(wanted) = a.rows {
        let sql = format!("SELECT count(*)::text FROM ({}\n) q", plain(&a.sql));
        let is = rows(session, &sql, timeout)
            .await?
            .pop()
            .unwrap_or_default();
        if is != wanted.to_string() {
            wrong.push(format!("{is} rows instead of {wanted}"));
        }
    }
    if a.expect.is_some() || a.min.is_some() || a.max.is_some() {
        let found = ask(session, &a.sql, timeout).await?;
        match value_of(&found) {
            Ok(value) => wrong.extend(differs(a, value)),
            Err(what) => wrong.push(what),
        }
    }
    let check = if wrong.is_empty() {
        Check::new("assertion", CheckStatus::Passed, "holds")
    } else {
        Check::new("assertion", CheckStatus::Failed, wrong.join("; "))
    };
    Ok(match &a.fix {
        Some(fix) if !wrong.is_empty() => check.fix(fix),
        _ => check,
    })
}

/// How a value differs from the assertion. Numbers are compared by value, whatever their spelling. Only numbers are
/// quoted in the message, because text may be row data.
fn differs(a: &Assertion, value: &serde_json::Value) -> Option<String> {
    let number = |v: &serde_json::Value| v.as_f64().or_else(|| v.as_str()?.parse().ok());
    if let Some(wanted) = &a.expect {
        let same = match (number(wanted), number(value)) {
            (Some(x), Some(y)) => x == y,
            _ => wanted == value,
        };
        if !same {
            return Some(match (number(wanted), number(value)) {
                (Some(x), Some(y)) => format!("is {y} instead of {x}"),
                _ => "has a different value".into(),
            });
        }
    }
    if a.min.is_none() && a.max.is_none() {
        return None;
    }
    let Some(n) = number(value) else {
        return Some("is not a number".into());
    };
    let low = a
        .min
        .filter(|m| n < *m)
        .map(|m| format!("is {n}, less than {m}"));
    low.or_else(|| {
        a.max
            .filter(|m| n > *m)
            .map(|m| format!("is {n}, more than {m}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_may_be_long_in_a_row() {
        let long = "x".repeat(2 * MAX_JSON);
        let row = serde_json::json!({ "a": long });
        assert_eq!(json_of(&row.to_string()).unwrap(), row);
        let many = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(MAX_JSON));
        let e = json_of(&many).unwrap_err();
        assert!(e.to_string().contains("3 MiB"), "{e}");
        assert_eq!(
            json_of(r#"{"a":[0]}"#).unwrap(),
            serde_json::json!({ "a": [0] })
        );
    }

    #[test]
    fn a_checks_file_is_parsed_and_its_mistakes_are_named() {
        let parse = |yaml: &str| {
            ChecksFile::parse(&Document {
                path: "/etc/checks.yaml".into(),
                text: yaml.into(),
            })
        };
        let file = parse(
            "freshness:\n  - {table: shop.orders, column: placed_at, max_age: 26h}\n\
             assertions:\n  - name: a\n    sql: SELECT 1\n    expect: 1\n\
             sets:\n  billing:\n    assertions:\n      - {name: b, sql: SELECT 2, min: 1}\n    drift: {tolerance: 0.5}\n",
        )
        .unwrap();
        assert_eq!(file.of_set("orders").assertions.len(), 1);
        let billing = file.of_set("billing");
        assert_eq!(
            (
                billing.assertions.len(),
                billing.freshness.len(),
                billing.drift.tolerance
            ),
            (2, 1, 0.5)
        );
        for (yaml, what) in [
            ("surprise: 1", "surprise"),
            (
                "freshness: [{table: t, column: c, max_age: soon}]",
                "max_age",
            ),
            (
                "canaries: [{name: c, sql: SELECT 1, sha256: abc}]",
                "sha256",
            ),
            ("assertions: [{name: a, sql: SELECT 1}]", "expect"),
            (
                "assertions: [{name: a, sql: SELECT 1, rows: 0, timeout: never}]",
                "timeout",
            ),
            ("drift: {tolerance: 7}", "tolerance"),
        ] {
            let e = report(&parse(yaml).unwrap_err());
            assert!(e.starts_with("VERIFY_CHECKS: /etc/checks.yaml: "), "{e}");
            assert!(e.contains(what), "{yaml}: {e}");
            assert!(!e.contains("SELECT 1"), "{e}");
        }
    }

    #[test]
    fn a_rejected_query_names_check_and_file_and_is_not_quoted() {
        let answer = |kind, what: &str, code: &str| {
            let e = DatabaseError::new(kind, what).with_sqlstate(code);
            answered(("assertion", "odd"), Err(e), "/etc/checks.yaml")
        };
        let syntax = "running the query: syntax error at or near \"'secret'\" [42601]";
        let check = answer(DatabaseKind::StatementRejected, syntax, "42601");
        assert_eq!(check.title(), "assertion of odd");
        assert_eq!(check.message, "the query has a syntax error [42601]");
        let fix = Some("correct this check in /etc/checks.yaml");
        assert_eq!(check.fix.as_deref(), fix);
        let missing = "running the query: relation \"nosuch\" does not exist [42P01]";
        let check = answer(DatabaseKind::StatementRejected, missing, "42P01");
        assert_eq!(
            (check.message.as_str(), check.fix.as_deref()),
            (missing, fix)
        );
        let check = answer(DatabaseKind::NoAnswer, "no answer within 60s", "57014");
        assert_eq!(check.fix, None);
    }

    #[test]
    fn results_are_compared_as_numbers_or_verbatim() {
        let a = |expect: serde_json::Value| Assertion {
            name: "a".into(),
            sql: String::new(),
            expect: Some(expect),
            min: None,
            max: None,
            rows: None,
            timeout: None,
            fix: None,
        };
        use serde_json::json;
        assert_eq!(differs(&a(json!(3)), &json!(3.0)), None);
        assert_eq!(differs(&a(json!("x")), &json!("x")), None);
        assert_eq!(
            differs(&a(json!(3)), &json!(4)).unwrap(),
            "is 4 instead of 3"
        );
        // Text may be row data, so it is not quoted.
        assert_eq!(
            differs(&a(json!("x")), &json!("secret")).unwrap(),
            "has a different value"
        );
        let range = Assertion {
            expect: None,
            min: Some(1.0),
            max: Some(2.0),
            ..a(json!(0))
        };
        assert_eq!(differs(&range, &json!(2)), None);
        assert!(differs(&range, &json!(0.5)).unwrap().contains("less than"));
        assert!(differs(&range, &json!(3)).unwrap().contains("more than"));
        assert!(
            differs(&range, &json!("x"))
                .unwrap()
                .contains("not a number")
        );
    }
}
