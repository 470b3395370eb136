//! Compares the rows of a database with the record of them: which transactions have brought them, and how many each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::Row;

use pgdump_archive::{EntryKind, TocEntry, TocSection, copy_target};

use super::body::{EntryPart, Mark, UnitId};
use super::resumed::{Resumed, in_tables};
use crate::ddl;
use crate::error::{DatabaseError, DatabaseKind, RestoreError};
use crate::postgres::{Server, Session, ident, map_pg_error};

/// A table that somebody else has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Its name, as SQL writes it.
    pub table: String,
    /// Rows that the record has.
    pub expected: u64,
    /// Rows of these that are there as they were loaded.
    pub found: u64,
    /// Rows that the restore has not loaded.
    pub others: u64,
}

/// What a comparison has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowCheck {
    /// The first table that has other rows than the record says.
    pub touched: Option<Touched>,
    /// Tables whose rows were not counted, because the role may not read them, or because they are no tables of this server.
    pub uncounted: Vec<String>,
    /// Units of tables that are unlogged and that the server has emptied after a crash. What was read of the record knows
    /// them already; write them down ([`Body::void`](super::Body::void)).
    pub void: Vec<UnitId>,
    /// A table that the server has emptied after a crash, and that loading it again would not make what the backup has,
    /// because what follows its rows is done.
    pub emptied: Option<String>,
}

/// Rows of a unit, and where they should be.
struct ExpectedRows {
    unit: UnitId,
    table: String,
    /// The statement that sets the search path of the name, or nothing.
    path: String,
}

/// A table, and what the record says of its rows.
#[derive(Debug, Default)]
struct Recorded {
    /// Its name, as SQL writes it.
    name: String,
    is_partitioned: bool,
    is_unlogged: bool,
    /// An extension may have rows of its own in it.
    is_of_extension: bool,
    units: Vec<UnitId>,
    /// Rows by their transaction, as the table's rows name it.
    rows: BTreeMap<u32, u64>,
}

impl Recorded {
    fn add(&mut self, unit: UnitId, xids: &[(u64, u64)]) {
        self.units.push(unit);
        for (xid, rows) in xids {
            *self.rows.entry(in_tables(*xid)).or_default() += rows;
        }
    }

    /// Rows of all units.
    fn expected(&self) -> u64 {
        self.rows.values().sum()
    }

    fn touched(&self, (found, others): (u64, u64)) -> Touched {
        Touched {
            table: self.name.clone(),
            expected: self.expected(),
            found,
            others,
        }
    }

    /// Whether only its rows say that the server has not emptied it after a crash. Once everything is loaded, finishing SQL
    /// may have emptied it, and its size then says that.
    fn may_be_lost(&self, resumed: &Resumed) -> bool {
        self.is_unlogged && !resumed.is_of_tallies()
    }

    /// Compares with the rows that the table has, by their transaction.
    fn compare(&self, found: &HashMap<u32, u64>, resumed: &Resumed) -> Compared {
        let is_empty = found.values().all(|rows| *rows == 0);
        if self.may_be_lost(resumed) && is_empty && self.expected() > 0 {
            return Compared::Lost;
        }
        // Finishing SQL may have changed and deleted any row.
        let may_be_fewer = resumed.has_finishing();
        let is_same = self.rows.iter().all(|(xid, rows)| {
            let found = found.get(xid).copied().unwrap_or_default();
            found == *rows || may_be_fewer && found < *rows
        });
        // Other recorded transactions may have brought rows, such as one that created an extension, or one that copied into
        // another partition.
        let is_known = |xid: &u32| {
            self.rows.contains_key(xid) || resumed.is_recorded(*xid) || self.is_of_extension
        };
        if is_same && found.keys().all(is_known) {
            Compared::Same
        } else {
            let of_load = |(xid, rows): (&u32, &u64)| found.get(xid).map_or(0, |n| (*n).min(*rows));
            let as_loaded = self.rows.iter().map(of_load).sum();
            let of_others = |(xid, n): (&u32, &u64)| match self.rows.get(xid) {
                Some(rows) => n.saturating_sub(*rows),
                None if is_known(xid) => 0,
                None => *n,
            };
            let others = found.iter().map(of_others).sum();
            Compared::Touched(self.touched((as_loaded, others)))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Compared {
    Same,
    /// The server has emptied the table.
    Lost,
    Touched(Touched),
}

/// Compares the rows of a database with the record of them, with up to `sessions` connections. `server`: of the role that
/// loads; `entries`: what is restored, if there is a table of contents.
///
/// # Errors
/// `target_unavailable`, or what else keeps the server from answering.
pub async fn check_recorded(
    server: &Server,
    database: &str,
    entries: &[TocEntry],
    resumed: &Resumed,
    sessions: usize,
) -> Result<RowCheck, RestoreError> {
    let server = server.streaming_rows();
    let session = server.connect(database, "check").await?;
    let mut check = RowCheck::default();
    let wanted = wanted(entries, resumed, &mut check.uncounted);
    let mut tables = HashMap::new();
    for same_path in wanted.chunk_by(|a, b| a.path == b.path) {
        let place = (same_path, &mut tables);
        if let Some(touched) = find(&session, place, resumed, &mut check).await? {
            check.touched = Some(touched);
            return Ok(check);
        }
    }
    drop(session);
    let mut tables: Vec<Recorded> = tables.into_values().collect();
    // The largest are taken first.
    tables.sort_unstable_by_key(Recorded::expected);
    let work = Arc::new(Comparison {
        tables: Mutex::new(tables),
        resumed: resumed.clone(),
        is_over: is_over(entries, resumed),
        check: Mutex::new(check),
    });
    compare_all(&server, database, &work, sessions).await?;
    let mut check = std::mem::take(&mut *work.check.lock());
    check.void.iter().for_each(|unit| resumed.lose(*unit));
    check.uncounted.sort_unstable();
    check.uncounted.dedup();
    Ok(check)
}

/// Whether something was done that no row may be loaded after.
fn is_over(entries: &[TocEntry], resumed: &Resumed) -> bool {
    let is_done = |e: &&TocEntry| resumed.is_done(UnitId::of(e), EntryPart::Whole);
    let mut done = entries.iter().filter(is_done);
    resumed.has_finishing()
        || resumed.has(Mark::Loaded)
        || resumed.has(Mark::Renamed)
        || resumed.has(Mark::Transferred)
        || !done.all(permits_rows)
}

/// Whether rows may be loaded when this entry exists: no trigger fires for them, no foreign key looks for rows that follow,
/// and no privilege that they need is revoked.
fn permits_rows(entry: &TocEntry) -> bool {
    let is_early = matches!(entry.section, TocSection::PreData | TocSection::Data);
    match entry.kind {
        EntryKind::Acl | EntryKind::AclLanguage | EntryKind::DefaultAcl => false,
        EntryKind::Comment
        | EntryKind::Constraint
        | EntryKind::Index
        | EntryKind::IndexAttach
        | EntryKind::SecurityLabel
        | EntryKind::Statistics
        | EntryKind::StatisticsData => true,
        _ => is_early,
    }
}

/// All rows that should be there, those with the same search path together; also tables that should have none yet.
fn wanted(
    entries: &[TocEntry],
    resumed: &Resumed,
    uncounted: &mut Vec<String>,
) -> Vec<ExpectedRows> {
    let mut wanted = vec![];
    let data = entries.iter().filter(|e| e.kind == EntryKind::TableData);
    for entry in data.filter(|e| e.has_data) {
        let unit = UnitId::of(entry);
        match target(entry, resumed) {
            Some((table, path)) => wanted.push(ExpectedRows { unit, table, path }),
            None if resumed.has_rows(unit) => uncounted.push(ddl::qualified(entry)),
            None => {}
        }
    }
    let of_text = resumed.tables();
    wanted.extend(of_text.map(|(unit, table, path)| ExpectedRows {
        unit,
        table: table.to_owned(),
        path: path.to_owned(),
    }));
    wanted.sort_by(|a, b| a.path.cmp(&b.path));
    wanted
}

/// The table that an entry's rows go to, and the statement that sets the search path of its name, or nothing; `None` if it
/// is not known.
fn target(entry: &TocEntry, resumed: &Resumed) -> Option<(String, String)> {
    let schema = entry.namespace.as_deref();
    let now = schema.map(|schema| resumed.schema_now(schema));
    let elsewhere = copy_target(&entry.copy_stmt)
        .map(|(relation, _)| relation)
        .filter(|_| !ddl::copies_into_own_table(entry));
    match (elsewhere, now) {
        // The root of a partition, whose schema is part of its name.
        (Some(_), _) if schema != now => None,
        (Some(root), Some(schema)) => {
            let path = format!("SET search_path = {}, pg_catalog", ident(schema));
            Some((root, path))
        }
        (Some(root), None) => Some((root, String::new())),
        (None, Some(schema)) => {
            let table = format!("{}.{}", ident(schema), ident(&entry.tag));
            Some((table, String::new()))
        }
        (None, None) => Some((ident(&entry.tag), String::new())),
    }
}

/// No operator is in it: a search path of the backup may have others of the name.
const FIND: &str = "SELECT pg_catalog.to_regclass(w.name)::pg_catalog.oid
    FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS w(name, n) ORDER BY w.n";
const DESCRIBE: &str =
    "SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind IN ('r', 'p'), c.relkind = 'p',
        c.relpersistence = 'u', EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1)";

/// Finds tables whose names have the same search path, and adds them; returns one that is gone.
async fn find(
    session: &Session,
    (wanted, tables): (&[ExpectedRows], &mut HashMap<u32, Recorded>),
    resumed: &Resumed,
    check: &mut RowCheck,
) -> Result<Option<Touched>, RestoreError> {
    let gone = |wanted: &ExpectedRows| Touched {
        table: wanted.table.clone(),
        expected: resumed.rows_of(wanted.unit),
        found: 0,
        others: 0,
    };
    let described = match describe(session, wanted).await {
        Ok(described) => described,
        Err(e) if is_passing(&e, session) => return Err(e.into()),
        // Names that were good for loading are not good for finding the tables.
        Err(_) => return Ok(wanted.first().map(gone)),
    };
    for (wanted, found) in wanted.iter().zip(described) {
        let Some((oid, row)) = found else {
            // A table without rows may be one that is not created yet, and finishing SQL may have dropped one.
            if resumed.rows_of(wanted.unit) > 0 && !resumed.has_finishing() {
                return Ok(Some(gone(wanted)));
            }
            continue;
        };
        let has_xmin: bool = row.get(2);
        if !has_xmin {
            check.uncounted.push(row.get(1));
            continue;
        }
        let table = tables.entry(oid).or_insert_with(|| Recorded {
            name: row.get(1),
            is_partitioned: row.get(3),
            is_unlogged: row.get(4),
            is_of_extension: row.get(5),
            ..Recorded::default()
        });
        table.add(wanted.unit, resumed.xids(wanted.unit));
    }
    Ok(None)
}

/// The OID and the row of [`DESCRIBE`] of each of these tables; `None` if there is no such table.
async fn describe(
    session: &Session,
    wanted: &[ExpectedRows],
) -> Result<Vec<Option<(u32, Row)>>, DatabaseError> {
    let failed = |e: tokio_postgres::Error| map_pg_error(&e, "finding the tables that were loaded");
    if let Some(first) = wanted.first().filter(|w| !w.path.is_empty()) {
        session.run(&first.path).await?;
    }
    let names: Vec<&str> = wanted.iter().map(|w| w.table.as_str()).collect();
    let oids = session.client().query(FIND, &[&names]).await;
    let oids = oids.map_err(failed)?;
    let oids: Vec<Option<u32>> = oids.iter().map(|row| row.get(0)).collect();
    session.run("SET search_path = pg_catalog").await?;
    let known: Vec<u32> = oids.iter().flatten().copied().collect();
    let rows = session.client().query(DESCRIBE, &[&known]).await;
    let rows = rows.map_err(failed)?.into_iter();
    let by_oid: HashMap<u32, Row> = rows.map(|row| (row.get(0), row)).collect();
    let described = oids.into_iter().map(|oid| {
        let row = by_oid.get(&oid?)?;
        Some((oid?, row.clone()))
    });
    Ok(described.collect())
}

/// What the sessions of a comparison share.
struct Comparison {
    tables: Mutex<Vec<Recorded>>,
    resumed: Resumed,
    /// No row may be loaded again.
    is_over: bool,
    check: Mutex<RowCheck>,
}

impl Comparison {
    /// The next table, unless one that was touched is known.
    fn next(&self) -> Option<Recorded> {
        let is_decided = {
            let check = self.check.lock();
            check.touched.is_some() || check.emptied.is_some()
        };
        let next = self.tables.lock().pop();
        next.filter(|_| !is_decided)
    }

    /// Whether a table that the server has emptied cannot be loaded again.
    fn is_final(&self, table: &Recorded) -> bool {
        let is_behind = |unit: &UnitId| self.resumed.has_statement_behind(*unit);
        self.is_over || table.units.iter().any(is_behind)
    }

    async fn run(&self, server: &Server, database: &str) -> Result<(), RestoreError> {
        let session = server.connect(database, "check").await?;
        // The names are complete, and the role may be one that functions of the backup are not to be called by.
        session
            .run("SET row_security = off; SET search_path = pg_catalog")
            .await?;
        while let Some(table) = self.next() {
            let compared = match rows_by_xid(&session, &table).await {
                Ok(found) => table.compare(&found, &self.resumed),
                Err(e) if is_passing(&e, &session) => return Err(e.into()),
                Err(e) if e.sqlstate() == Some(DENIED) && !table.may_be_lost(&self.resumed) => {
                    self.check.lock().uncounted.push(table.name);
                    continue;
                }
                // Whoever has made it unreadable has touched it.
                Err(_) => Compared::Touched(table.touched((0, 0))),
            };
            let mut check = self.check.lock();
            match compared {
                Compared::Same => {}
                Compared::Lost if self.is_final(&table) => {
                    check.emptied.get_or_insert(table.name);
                }
                Compared::Lost => check.void.extend(table.units),
                Compared::Touched(touched) => {
                    check.touched.get_or_insert(touched);
                }
            }
        }
        Ok(())
    }
}

/// The role may not read the table.
const DENIED: &str = "42501";

/// Whether the server may answer another time.
fn is_passing(e: &DatabaseError, session: &Session) -> bool {
    session.client().is_closed()
        || matches!(
            e.kind(),
            DatabaseKind::Unavailable
                | DatabaseKind::LocksExhausted
                | DatabaseKind::InsufficientSpace
        )
}

async fn compare_all(
    server: &Server,
    database: &str,
    work: &Arc<Comparison>,
    sessions: usize,
) -> Result<(), RestoreError> {
    let count = work.tables.lock().len().min(sessions.max(1));
    let mut running = JoinSet::new();
    for _ in 0..count {
        let (server, database, work) = (server.clone(), database.to_owned(), work.clone());
        running.spawn(async move { work.run(&server, &database).await });
    }
    while let Some(ended) = running.join_next().await {
        let panicked = |e| RestoreError::internal(format!("a task that counts rows panicked: {e}"));
        ended.map_err(panicked)??;
    }
    Ok(())
}

/// The rows of a table by their transaction. Freezing does not change it.
async fn rows_by_xid(
    session: &Session,
    table: &Recorded,
) -> Result<HashMap<u32, u64>, DatabaseError> {
    let failed = |e: tokio_postgres::Error| map_pg_error(&e, "counting rows");
    let only = if table.is_partitioned { "" } else { "ONLY " };
    let sql = format!(
        "SELECT xmin::text::bigint, count(*) FROM {only}{} GROUP BY xmin",
        table.name
    );
    let mut rows = session.rows(&sql, &[]).await.map_err(failed)?;
    let mut found = HashMap::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let (xid, count): (i64, i64) = (row.get(0), row.get(1));
        found.insert(in_tables(xid.unsigned_abs()), count.unsigned_abs());
        // Somebody else has written to it, row by row.
        if found.len() > MAX_UNKNOWN && found.len() > 2 * table.rows.len() {
            break;
        }
    }
    Ok(found)
}

/// Transactions beyond those of the record that are told apart.
const MAX_UNKNOWN: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::super::tallies::Tallies;
    use super::*;

    fn table(rows: &[(u32, u64)]) -> Recorded {
        Recorded {
            name: "s.t".into(),
            rows: rows.iter().copied().collect(),
            ..Recorded::default()
        }
    }

    fn compared(table: &Recorded, found: &[(u32, u64)]) -> Compared {
        let found = found.iter().copied().collect();
        table.compare(&found, &Resumed::default())
    }

    #[test]
    fn every_row_is_of_a_recorded_transaction() {
        let touched = |expected, (found, others)| {
            Compared::Touched(Touched {
                table: "s.t".into(),
                expected,
                found,
                others,
            })
        };
        let two = table(&[(10, 5), (11, 7)]);
        assert_eq!(compared(&two, &[(11, 7), (10, 5)]), Compared::Same);
        for (what, found, counts) in [
            ("a row deleted", vec![(10, 4), (11, 7)], (11, 0)),
            ("a row added", vec![(10, 5), (11, 7), (12, 1)], (12, 1)),
            ("a row updated", vec![(10, 4), (11, 7), (12, 1)], (11, 1)),
            (
                "a row added under a recorded number",
                vec![(10, 6), (11, 7)],
                (12, 1),
            ),
            ("the rows of a transaction gone", vec![(10, 5)], (5, 0)),
            ("emptied", vec![], (0, 0)),
        ] {
            assert_eq!(compared(&two, &found), touched(12, counts), "{what}");
        }
        let none = table(&[]);
        assert_eq!(compared(&none, &[]), Compared::Same);
        assert_eq!(compared(&none, &[(3, 1)]), touched(0, (0, 1)));
        let masked_away = table(&[(10, 0)]);
        assert_eq!(compared(&masked_away, &[]), Compared::Same);
    }

    #[test]
    fn an_unlogged_table_is_whole_or_lost() {
        let unlogged = |rows: &[(u32, u64)]| Recorded {
            is_unlogged: true,
            ..table(rows)
        };
        assert_eq!(compared(&unlogged(&[(10, 5)]), &[]), Compared::Lost);
        assert_eq!(compared(&unlogged(&[(10, 5)]), &[(10, 5)]), Compared::Same);
        assert_eq!(compared(&unlogged(&[]), &[]), Compared::Same);
        let part = compared(&unlogged(&[(10, 5)]), &[(10, 4)]);
        assert!(matches!(part, Compared::Touched(_)), "{part:?}");
    }

    /// A restore that lacks only its swap would begin again each time.
    #[test]
    fn finishing_sql_may_have_emptied_an_unlogged_table() {
        let unlogged = Recorded {
            is_unlogged: true,
            ..table(&[(10, 5)])
        };
        let tallies = Tallies::default();
        let empty = HashMap::new();
        let finished = Resumed::of_tallies(tallies.clone().with_unrecorded(11, 12));
        assert_eq!(unlogged.compare(&empty, &finished), Compared::Same);
        let not_finished = unlogged.compare(&empty, &Resumed::of_tallies(tallies));
        assert!(matches!(not_finished, Compared::Touched(_)));
    }

    /// Triggers would fire for the rows once more, and keys may refer to rows that come later.
    #[test]
    fn what_the_server_has_emptied_is_loaded_again_only_before_what_follows_rows() {
        use super::super::body::{Body, DataSpan, Spans};
        let entry = |id: i32, desc: &str, section| {
            let mut e = TocEntry::bare(id, desc, "x");
            e.section = section;
            e
        };
        let entries = [
            entry(1, "TABLE", TocSection::PreData),
            entry(2, "SEQUENCE SET", TocSection::Data),
            entry(3, "CONSTRAINT", TocSection::PostData),
            entry(4, "INDEX", TocSection::PostData),
            entry(5, "TRIGGER", TocSection::PostData),
            entry(6, "FK CONSTRAINT", TocSection::PostData),
            entry(7, "ACL", TocSection::None),
            entry(8, "RULE", TocSection::PostData),
        ];
        let after = |ids: &[i64]| {
            let done = ids.iter().map(|id| (UnitId(*id), EntryPart::Whole));
            is_over(&entries, &Resumed::of(Body::of_entries(done.collect())))
        };
        assert!(!after(&[]) && !after(&[1, 2, 3, 4]));
        for id in 5..=8 {
            assert!(after(&[1, id]), "{id}");
        }
        let marks = [
            Mark::Loaded,
            Mark::Renamed,
            Mark::Transferred,
            Mark::Finished(1),
        ];
        for mark in marks {
            assert!(is_over(&[], &Resumed::of(Body::of_mark(mark))), "{mark:?}");
        }
        assert!(!is_over(&[], &Resumed::default()));

        let mut statements = Spans::default();
        for n in [1, 5] {
            statements.push(DataSpan::of_statement(n, b"x"));
        }
        let of_text = Comparison {
            tables: Mutex::default(),
            resumed: Resumed::of(Body {
                statements,
                ..Body::default()
            }),
            is_over: false,
            check: Mutex::default(),
        };
        let rows = |unit| Recorded {
            units: vec![UnitId(unit)],
            ..Recorded::default()
        };
        assert!(of_text.is_final(&rows(4)) && !of_text.is_final(&rows(6)));
    }

    #[test]
    fn rows_of_an_extension_are_its_own_affair() {
        let with_own = Recorded {
            is_of_extension: true,
            ..table(&[(10, 5)])
        };
        assert_eq!(compared(&with_own, &[(10, 5), (3, 9)]), Compared::Same);
        let fewer = compared(&with_own, &[(10, 4), (3, 9)]);
        assert!(matches!(fewer, Compared::Touched(_)), "{fewer:?}");
    }

    #[test]
    fn units_of_one_table_add_up() {
        let mut one = table(&[]);
        let epoch: u64 = 3 << 32;
        one.add(UnitId(1), &[(epoch + 10, 5), (epoch + 11, 1)]);
        one.add(UnitId(2), &[(epoch + 10, 2)]);
        assert_eq!((one.expected(), one.units.len()), (8, 2));
        assert_eq!(compared(&one, &[(10, 7), (11, 1)]), Compared::Same);
    }

    #[test]
    fn rows_are_looked_for_where_they_were_copied_to() {
        let entry = |copy: &str| {
            let mut e = TocEntry::bare(1, "TABLE DATA", "t");
            (e.namespace, e.copy_stmt) = (Some("S".into()), copy.into());
            e
        };
        let target = |copy: &str| target(&entry(copy), &Resumed::default()).unwrap();
        let own = ("\"S\".\"t\"".to_owned(), String::new());
        assert_eq!(target("COPY \"S\".t (a) FROM stdin;\n"), own);
        assert_eq!(target(""), own, "INSERT statements");
        let (root, path) = target("COPY \"S\".root (a) FROM stdin;\n");
        assert_eq!(root, "\"S\".root");
        assert_eq!(path, "SET search_path = \"S\", pg_catalog");
    }
}
