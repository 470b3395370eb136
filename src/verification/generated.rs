//! Checks generated columns. A dump has no values for them; a restore computes them. The values that were
//! stored while rows were loaded are compared with the expression's result now that everything is loaded. A
//! function that reads other rows or settings may yield something else: that is a warning, and not the
//! backup's fault.

use std::time::Duration;

use super::{RestoredDatabase, counted, data_checks};
use crate::error::{DatabaseError, FailureReason as R, RestoreError, report};
use crate::postgres::{Session, map_pg_error};
use crate::proof::{Check, CheckStatus};
use pgdump_restore::listed;

const NAME: &str = "generated columns";
/// Time limit for all tables together. The smallest come first, so that one large table does not use up the
/// time of the others.
const LIMIT: Duration = Duration::from_secs(600);
/// `attgenerated` exists since this version.
const SINCE: u32 = 120000;

/// With an empty `search_path`, the server qualifies names of types and in expressions. The other settings stay
/// as they were during the load.
const SETTINGS: &str = "SET search_path = ''; SET row_security = off";

/// Stored generated columns, separately for each partition and child.
const COLUMNS: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), \
    pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod), \
    pg_catalog.pg_get_expr(d.adbin, d.adrelid) \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
    WHERE a.attgenerated = 's' AND NOT a.attisdropped AND c.relkind = 'r' AND c.relpersistence <> 't' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass \
        AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e') \
    ORDER BY pg_catalog.pg_relation_size(c.oid), c.oid, a.attnum";

/// All fields are quoted as in SQL.
#[derive(Debug, Default, PartialEq)]
struct GeneratedColumn {
    name: String,
    kind: String,
    expression: String,
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
    let mut session = connect(subject).await?;
    if session.version() < SINCE {
        return Ok(vec![]);
    }
    let end = tokio::time::Instant::now() + LIMIT;
    let mut answers = Vec::new();
    for table in tables(&session).await? {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let answer = match left.as_secs() {
            0 => Err(DatabaseError::new(
                R::Timeout,
                format!("no answer within {} s", LIMIT.as_secs()),
            )),
            seconds => {
                ask(
                    subject,
                    &mut session,
                    &question(&table),
                    &format!("{seconds}s"),
                )
                .await
            }
        };
        answers.push((table, answer));
    }
    Ok(checks_of(&answers))
}

async fn connect(subject: &RestoredDatabase<'_>) -> Result<Session, DatabaseError> {
    let session = subject.server.connect(subject.database, NAME).await?;
    session.run(SETTINGS).await?;
    Ok(session)
}

/// Runs a query, reconnecting first if a function of an earlier table has ended the session.
async fn ask(
    subject: &RestoredDatabase<'_>,
    session: &mut Session,
    sql: &str,
    timeout: &str,
) -> ColumnAnswer {
    if session.client().is_closed() {
        *session = connect(subject).await?;
    }
    data_checks::rows(session, sql, timeout).await
}

async fn tables(session: &Session) -> Result<Vec<GeneratedTable>, DatabaseError> {
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "looking up generated columns");
    let mut tables: Vec<GeneratedTable> = Vec::new();
    for row in session.client().query(COLUMNS, &[]).await.map_err(e)? {
        let text = |i| row.try_get::<_, String>(i).map_err(e);
        let (name, column) = (
            text(0)?,
            GeneratedColumn {
                name: text(1)?,
                kind: text(2)?,
                expression: text(3)?,
            },
        );
        match tables.last_mut().filter(|t| t.name == name) {
            Some(table) => table.columns.push(column),
            None => tables.push(GeneratedTable {
                name,
                columns: vec![column],
            }),
        }
    }
    Ok(tables)
}

/// A query with a row for each column: in how many rows of the table the stored value differs. Values are compared
/// as text, byte for byte, because not every type has an equality operator, and some treat different values as
/// equal.
fn question(table: &GeneratedTable) -> String {
    let count = |c: &GeneratedColumn| {
        let GeneratedColumn {
            name,
            kind,
            expression,
        } = c;
        // The cast of an expression to its column's type is not always part of the stored expression.
        format!(
            "pg_catalog.count(*) FILTER (WHERE {name}::text COLLATE \"C\" \
             IS DISTINCT FROM ({expression})::{kind}::text COLLATE \"C\")"
        )
    };
    let counts = table
        .columns
        .iter()
        .map(count)
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "SELECT pg_catalog.unnest(ARRAY[{counts}])::text FROM ONLY {}",
        table.name
    )
}

fn checks_of(answers: &[(GeneratedTable, ColumnAnswer)]) -> Vec<Check> {
    let (mut count, mut differ, mut open, mut reason) = (0, Vec::new(), Vec::new(), None);
    for (table, answer) in answers {
        count += table.columns.len();
        match answer {
            Ok(rows) => {
                let rows = table.columns.iter().zip(rows).filter(|(_, n)| *n != "0");
                differ.extend(rows.map(|(c, n)| {
                    let rows = if n == "1" { "row" } else { "rows" };
                    format!("{}.{} ({n} {rows})", table.name, c.name)
                }));
            }
            Err(e) => {
                let columns: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
                open.push(format!(
                    "{}.{} ({})",
                    table.name,
                    columns.join(", "),
                    report(e)
                ));
                reason = reason.or(Some(e.reason()));
            }
        }
    }
    let mut checks = Vec::new();
    if let Some(what) = listed(
        "stored values differ from the expression's result after the restore",
        &differ,
    ) {
        let fix = "the expression calls a function that reads other rows or settings, so the stored value depends \
            on when it is computed, and the backup is not at fault: make the function depend only on its \
            arguments, or recompute the column after a restore (UPDATE … SET column = DEFAULT)";
        checks.push(Check::new(NAME, CheckStatus::Warned, what).fix(fix));
    }
    if let Some(what) = listed("could not be recomputed", &open) {
        let check = Check::new(NAME, CheckStatus::NotChecked, what).optional();
        checks.push(reason.into_iter().fold(check, Check::because));
    }
    if checks.is_empty() && count > 0 {
        let what = format!(
            "the values of {} match their expressions",
            counted(count, "generated column")
        );
        checks.push(Check::new(NAME, CheckStatus::Passed, what));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str, expression: &str) -> GeneratedColumn {
        GeneratedColumn {
            name: name.into(),
            kind: kind.into(),
            expression: expression.into(),
        }
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
            question(&table),
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
        let late = Err(DatabaseError::new(R::Timeout, "no answer within 5s"));
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
