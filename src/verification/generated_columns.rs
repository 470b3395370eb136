//! Checks generated columns. A dump has no values for them; a restore computes them. The values that were
//! stored while rows were loaded are compared with the expression's result now that everything is loaded. A
//! function that reads other rows or settings may yield something else: that is a warning, and not the
//! backup's fault.

use std::time::Duration;

use super::data_checks;
use super::restored_database::{RestoredDatabase, counted};
use crate::error::{DatabaseError, DatabaseKind, FailureReason as R, RestoreError, report};
use crate::postgres::{Session, map_pg_error};
use crate::proof::{Check, CheckStatus};
use pgdump_restore::NameList;
use tokio_postgres::Row;

const NAME: &str = "generated columns";
/// Time limit for all tables together. The smallest come first, so that one large table does not use up the
/// time of the others.
const LIMIT: Duration = Duration::from_secs(600);
/// `attgenerated` exists since this version.
const SINCE: u32 = 120000;

/// With an empty `search_path`, the server qualifies names of types and in expressions. The other settings stay
/// as they were during the load.
const SETTINGS: &str = "SET search_path = ''; SET row_security = off";

/// Most bytes of all expressions of one table.
const MAX_EXPRESSIONS: i64 = 4 << 20;

/// Tables with stored generated columns; partitions and children are listed separately.
const TABLES: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' \
    AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's' \
        AND NOT a.attisdropped) \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass \
        AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e') \
    ORDER BY pg_catalog.pg_relation_size(c.oid), c.oid";

/// The stored generated columns of one table, without expressions if these are too long together: the dump decides
/// how long they are.
const COLUMNS: &str = "SELECT name, kind, \
    CASE WHEN pg_catalog.sum(pg_catalog.octet_length(expression)) OVER () <= $2 THEN expression END FROM ( \
        SELECT a.attnum, pg_catalog.quote_ident(a.attname) AS name, \
        pg_catalog.format_type(a.atttypid, a.atttypmod) AS kind, \
        pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS expression \
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
        WHERE a.attrelid = $1 AND a.attgenerated = 's' AND NOT a.attisdropped \
    ) c ORDER BY attnum";

/// All fields are quoted as in SQL.
#[derive(Debug, Default, PartialEq)]
struct GeneratedColumn {
    name: String,
    kind: String,
    /// `None` if those of the table are too long.
    expression: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
struct GeneratedTable {
    name: String,
    columns: Vec<GeneratedColumn>,
}

/// For each column, the number of rows that differ.
type ColumnAnswer = Result<Vec<String>, DatabaseError>;

/// Recomputes every generated column.
pub(super) async fn check(subject: &RestoredDatabase<'_>) -> Result<Vec<Check>, RestoreError> {
    let _step = subject.progress.long_step();
    let mut session = connect(subject).await?;
    if session.version() < SINCE {
        return Ok(vec![]);
    }
    let end = tokio::time::Instant::now() + LIMIT;
    let mut findings = Findings::default();
    for (oid, name) in tables(&session).await? {
        let columns = match columns(&session, oid).await {
            // A function of an earlier table may have ended the session.
            Err(_) if session.client().is_closed() => {
                session = connect(subject).await?;
                columns(&session, oid).await?
            }
            other => other?,
        };
        let table = GeneratedTable { name, columns };
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let answer = match (left.as_secs(), question(&table)) {
            (0, _) => Err(DatabaseError::new(
                DatabaseKind::NoAnswer,
                format!("no answer within {} s", LIMIT.as_secs()),
            )),
            (_, None) => Err(DatabaseError::new(
                DatabaseKind::AnswerTooLarge,
                format!(
                    "the expressions have more than {} MiB",
                    MAX_EXPRESSIONS >> 20
                ),
            )),
            // A function may end the session; that affects only its own table.
            (seconds, Some(sql)) => data_checks::rows(&session, &sql, &format!("{seconds}s")).await,
        };
        findings.add(&table, &answer);
    }
    Ok(findings.into_checks())
}

async fn connect(subject: &RestoredDatabase<'_>) -> Result<Session, DatabaseError> {
    let session = subject.server.connect(subject.database, NAME).await?;
    session.run(SETTINGS).await?;
    Ok(session)
}

/// OIDs and names, smallest table first.
async fn tables(session: &Session) -> Result<Vec<(u32, String)>, DatabaseError> {
    let rows = session.client().query(TABLES, &[]).await.map_err(looking)?;
    let table = |r: &Row| Ok((r.try_get(0)?, r.try_get(1)?));
    rows.iter()
        .map(table)
        .collect::<Result<_, _>>()
        .map_err(looking)
}

async fn columns(session: &Session, oid: u32) -> Result<Vec<GeneratedColumn>, DatabaseError> {
    let rows = session
        .client()
        .query(COLUMNS, &[&oid, &MAX_EXPRESSIONS])
        .await;
    let column = |r: &Row| {
        Ok(GeneratedColumn {
            name: r.try_get(0)?,
            kind: r.try_get(1)?,
            expression: r.try_get(2)?,
        })
    };
    let columns = rows.map_err(looking)?;
    columns
        .iter()
        .map(column)
        .collect::<Result<_, _>>()
        .map_err(looking)
}

fn looking(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "looking up generated columns")
}

/// A query with a row for each column: in how many rows of the table the stored value differs. Values are compared
/// as text, byte for byte, because not every type has an equality operator, and some treat different values as
/// equal. `None` if the expressions are too long.
fn question(table: &GeneratedTable) -> Option<String> {
    let mut counts = String::new();
    for GeneratedColumn {
        name,
        kind,
        expression,
    } in &table.columns
    {
        let (comma, expression) = (
            if counts.is_empty() { "" } else { ", " },
            expression.as_ref()?,
        );
        // The cast of an expression to its column's type is not always part of the stored expression.
        counts += &format!(
            "{comma}pg_catalog.count(*) FILTER (WHERE {name}::text COLLATE \"C\" \
             IS DISTINCT FROM ({expression})::{kind}::text COLLATE \"C\")"
        );
    }
    Some(format!(
        "SELECT pg_catalog.unnest(ARRAY[{counts}])::text FROM ONLY {}",
        table.name
    ))
}

/// A summary of all answers.
#[derive(Default)]
struct Findings {
    columns: usize,
    differ: NameList,
    open: NameList,
    /// Why the first of the open ones could not be checked.
    reason: Option<R>,
}

impl Findings {
    fn add(&mut self, table: &GeneratedTable, answer: &ColumnAnswer) {
        self.columns += table.columns.len();
        match answer {
            Ok(rows) => {
                let rows = table.columns.iter().zip(rows).filter(|(_, n)| *n != "0");
                self.differ.extend(rows.map(|(c, n)| {
                    let rows = if n == "1" { "row" } else { "rows" };
                    format!("{}.{} ({n} {rows})", table.name, c.name)
                }));
            }
            Err(e) => {
                let columns: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
                let columns = columns.join(", ");
                self.open
                    .push(format_args!("{}.{columns} ({})", table.name, report(e)));
                self.reason = self.reason.or(Some(e.reason()));
            }
        }
    }

    fn into_checks(self) -> Vec<Check> {
        let mut checks = Vec::new();
        let differ = "stored values differ from the expression's result after the restore";
        if let Some(what) = self.differ.listed(differ) {
            let fix = "the expression calls a function that reads other rows or settings, so the stored value depends \
                on when it is computed, and the backup is not at fault: make the function depend only on its \
                arguments, or recompute the column after a restore (UPDATE … SET column = DEFAULT)";
            checks.push(Check::new(NAME, CheckStatus::Warned, what).fix(fix));
        }
        if let Some(what) = self.open.listed("could not be recomputed") {
            let check = Check::new(NAME, CheckStatus::NotChecked, what).optional();
            checks.push(self.reason.into_iter().fold(check, Check::because));
        }
        if checks.is_empty() && self.columns > 0 {
            let what = format!(
                "the values of {} match their expressions",
                counted(self.columns, "generated column")
            );
            checks.push(Check::new(NAME, CheckStatus::Passed, what));
        }
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str, expression: &str) -> GeneratedColumn {
        GeneratedColumn {
            name: name.into(),
            kind: kind.into(),
            expression: Some(expression.into()),
        }
    }

    fn checks_of(answers: &[(GeneratedTable, ColumnAnswer)]) -> Vec<Check> {
        let mut findings = Findings::default();
        answers
            .iter()
            .for_each(|(table, answer)| findings.add(table, answer));
        findings.into_checks()
    }

    #[test]
    fn one_query_checks_all_columns_of_a_table() {
        let columns = vec![
            column("sum", "numeric(8,2)", "(a + b)"),
            column("\"La\"\"bel\"", "\"S\".words", "\"S\".label(a)"),
        ];
        let table = GeneratedTable {
            name: "\"S\".t".into(),
            columns,
        };
        assert_eq!(
            question(&table).unwrap(),
            "SELECT pg_catalog.unnest(ARRAY[\
             pg_catalog.count(*) FILTER (WHERE sum::text COLLATE \"C\" \
             IS DISTINCT FROM ((a + b))::numeric(8,2)::text COLLATE \"C\"), \
             pg_catalog.count(*) FILTER (WHERE \"La\"\"bel\"::text COLLATE \"C\" \
             IS DISTINCT FROM (\"S\".label(a))::\"S\".words::text COLLATE \"C\")\
             ])::text FROM ONLY \"S\".t"
        );
    }

    #[test]
    fn a_difference_warns_and_a_missing_answer_does_not_pass() {
        let table = |name: &str| GeneratedTable {
            name: name.into(),
            columns: vec![column("x", "int", "1"), column("y", "int", "2")],
        };
        let same = || Ok(vec!["0".to_owned(), "0".to_owned()]);
        assert_eq!(checks_of(&[]), []);
        let passed = checks_of(&[(table("s.a"), same()), (table("s.b"), same())]);
        assert_eq!((passed.len(), passed[0].status), (1, CheckStatus::Passed));
        assert!(
            passed[0].message.contains("4 generated columns"),
            "{passed:?}"
        );
        let late = Err(DatabaseError::new(
            DatabaseKind::NoAnswer,
            "no answer within 5s",
        ));
        let differs = Ok(vec!["0".to_owned(), "7".to_owned()]);
        let found = checks_of(&[
            (table("s.a"), same()),
            (table("s.b"), differs),
            (table("s.c"), late),
        ]);
        let [warned, open] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(
            (warned.status, open.status),
            (CheckStatus::Warned, CheckStatus::NotChecked)
        );
        assert!(
            warned.message.ends_with(": s.b.y (7 rows)") && warned.fix.is_some(),
            "{warned:?}"
        );
        assert!(
            open.message.contains("s.c.x, y (no answer within 5s"),
            "{open:?}"
        );
        assert_eq!((open.required, open.reason), (false, Some(R::Timeout)));
    }
}
