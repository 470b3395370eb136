//! What of a database a backup holds: by what it defines and has data of, and beside the last proven backup. What counts as
//! a part replaces nothing that is whole. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use indicatif::HumanCount;

use super::drift::{self, DriftMode, DriftPolicy, History};
use super::restored_database::counted;
use crate::proof::{
    BackupContents, Check, CheckStatus, Drift, TableProof, VerificationReport, plain_name,
    without_digits,
};
use pgdump_archive::{BareRelation, DataCoverage};

/// So many large objects, or tables with few rows, do not vanish by chance.
const FEW: u64 = 10;
/// Proven backups with all their data after which a gap of older ones is no habit any more, in a row or not. One may have been
/// made by hand, such as before a migration.
const FULL_BETWEEN: usize = 2;
/// Most tables that a sentence names.
const MAX_NAMED: usize = 20;

/// What was found in a backup whose rows were counted.
pub struct SeenData<'a> {
    /// Tables with data.
    pub tables: &'a [TableProof],
    pub large_objects: u64,
    /// What the backup defines and has data of, if that is known.
    pub coverage: Option<&'a DataCoverage>,
}

/// What of a database an archive holds. Tables in `drift.ignore` need no data, as long as others have some.
pub fn contents_of(coverage: &DataCoverage, policy: &DriftPolicy) -> BackupContents {
    let c = coverage;
    if c.definitions == 0 && c.undefined > 0 {
        return BackupContents::DataOnly;
    }
    if c.filled == 0 && (c.tables > 0 || (c.lacking > 0 && c.data == 0)) {
        return BackupContents::SchemaOnly;
    }
    if c.undefined > 0 || lacks_names(c) || lacking(c, policy).next().is_some() {
        return BackupContents::Partial;
    }
    BackupContents::Whole
}

/// The same beside the last proven backup: one that lacks most of what that had is a part, even if it has the data of all
/// that it defines.
pub fn contents_beside(
    contents: Option<BackupContents>,
    seen: &SeenData<'_>,
    history: &History,
    policy: &DriftPolicy,
) -> Option<BackupContents> {
    if contents == Some(BackupContents::Partial) && is_usual(seen, history, policy) {
        return Some(BackupContents::UsualPart);
    }
    let is_part = contents.is_some_and(BackupContents::is_part);
    let last = history.reports.first();
    let last = last.filter(|_| !is_part && policy.mode != DriftMode::Off);
    let lacks = last.is_some_and(|last| !missing(seen, last, policy).is_empty());
    if lacks {
        return Some(BackupContents::Partial);
    }
    contents
}

/// Whether what has no data had no rows in a proven backup before it either, or none is known that could have had them.
fn is_usual(seen: &SeenData<'_>, history: &History, policy: &DriftPolicy) -> bool {
    let Some(coverage) = seen.coverage.filter(|c| c.undefined == 0) else {
        return false;
    };
    let Some(last) = history.reports.first() else {
        return !history.is_hidden;
    };
    if !missing(seen, last, policy).is_empty() {
        return false;
    }
    if lacks_names(coverage) {
        return last.contents == Some(BackupContents::UsualPart);
    }
    let bare: HashSet<String> = lacking(coverage, policy).map(plain).collect();
    let had_rows = |t: &TableProof| t.rows > 0 && bare.contains(&plain_name(&t.name));
    let had_none = !last.tables.is_empty() && !last.tables.iter().any(had_rows);
    had_none || bare.is_subset(&usual_gaps(&bare, history))
}

/// Those of `bare` that the backups before this one lacked as well, while that was the habit: what they had no data of, and
/// what was created since and is called like it, but for numbers.
fn usual_gaps(bare: &HashSet<String>, history: &History) -> HashSet<String> {
    let (mut full, mut gaps): (usize, HashSet<&str>) = (0, HashSet::new());
    let mut newest = None;
    for report in &history.reports {
        if report.contents == Some(BackupContents::UsualPart) {
            newest = newest.or(Some(report));
            gaps.extend(report.without_data.iter().map(String::as_str));
        } else {
            full += 1;
        }
        if full == FULL_BETWEEN {
            break;
        }
    }
    let known = newest.and_then(VerificationReport::listed_tables);
    let known = known.unwrap_or_default();
    let patterns: HashSet<String> = gaps.iter().map(|name| without_digits(name)).collect();
    let is_usual = |name: &&String| {
        gaps.contains(name.as_str())
            || (!known.defines(name) && patterns.contains(&without_digits(name)))
    };
    bare.iter().filter(is_usual).cloned().collect()
}

/// The history without the tables that this backup lacks as usual.
fn without_usual<'a>(seen: &SeenData<'_>, history: &'a History) -> Cow<'a, History> {
    let bare = seen.coverage.map_or(&[][..], |c| c.bare.as_slice());
    let usual = usual_gaps(&bare.iter().map(plain).collect(), history);
    if usual.is_empty() {
        return Cow::Borrowed(history);
    }
    let mut own = history.clone();
    for report in &mut own.reports {
        report
            .tables
            .retain(|t| !usual.contains(&plain_name(&t.name)));
    }
    Cow::Owned(own)
}

/// Names of what the backup defines without data, if it lacks that of some, and how many more there are.
pub fn without_data(coverage: &DataCoverage, policy: &DriftPolicy) -> (Vec<String>, u64) {
    let names = lacking(coverage, policy).map(plain).collect();
    (names, unnamed(coverage))
}

/// What a backup lacks, as a sentence; `None` if it is whole, as far as that is known.
pub fn note_of(
    contents: Option<BackupContents>,
    coverage: Option<&DataCoverage>,
    policy: &DriftPolicy,
) -> Option<String> {
    let contents = contents.filter(|c| *c != BackupContents::Whole)?;
    let bare = coverage.map_or(vec![], |c| {
        let lacking = lacking(c, policy);
        lacking.map(BareRelation::written).collect::<Vec<_>>()
    });
    Some(match (contents, bare.as_slice()) {
        (BackupContents::Partial | BackupContents::UsualPart, [one]) => {
            format!("the backup has no data of {one}")
        }
        (BackupContents::Partial | BackupContents::UsualPart, [_, ..]) => format!(
            "the backup has no data of {} tables and sequences: {}",
            HumanCount(bare.len() as u64),
            listed(&bare)
        ),
        (other, _) => format!("the backup {}", other.phrase()),
    })
}

/// The proven backups that a backup with these contents can be compared with: whole ones or, without any, others that
/// hold as much. Beside a part, nothing would be missing.
pub fn comparable(history: &History, contents: Option<BackupContents>) -> Cow<'_, History> {
    let part = contents.filter(|c| c.is_part());
    let has_whole = history.reports.iter().any(|r| r.part().is_none());
    let wanted = if has_whole { None } else { part };
    let is_comparable = |r: &VerificationReport| r.part() == wanted;
    if history.reports.iter().all(is_comparable) {
        return Cow::Borrowed(history);
    }
    let mut own = history.clone();
    own.reports.retain(is_comparable);
    Cow::Owned(own)
}

/// Compares with the last proven backup, as [`drift::compare`] does. A table without data in the backup has no rows, and
/// much that is missing is no change of the schema.
pub(super) fn compare(
    seen: &SeenData<'_>,
    history: &History,
    policy: &DriftPolicy,
) -> (Option<Drift>, Vec<Check>) {
    let history = &*without_usual(seen, history);
    let Some(last) = history.reports.first() else {
        return drift::compare(seen.tables, history, policy);
    };
    let contents = seen.coverage.map(|c| contents_of(c, policy));
    let has_data = seen.coverage.is_some_and(|c| c.data > 0);
    if contents == Some(BackupContents::SchemaOnly) && !has_data && policy.mode != DriftMode::Off {
        // Many make one beside each whole backup. It replaces none.
        let what =
            "the backup has definitions and no rows: it was not compared with those before it";
        return (
            None,
            vec![Check::new("drift", CheckStatus::Warned, what).of("contents")],
        );
    }
    let mut tables = seen.tables.to_vec();
    tables.extend(emptied(seen, last));
    let (mut drift, mut checks) = drift::compare(&tables, history, policy);
    let mut missing = missing(seen, last, policy);
    if drift.is_none() || missing.is_empty() {
        return (drift, checks);
    }
    let status = if policy.mode == DriftMode::Fail {
        CheckStatus::Failed
    } else {
        CheckStatus::Warned
    };
    let fix = format!(
        "see which options the backup job gives pg_dump; if this change is expected, {}",
        drift::IGNORE_TABLES
    );
    let check = Check::new("drift", status, missing.join("; "));
    checks.retain(|c| c.status != CheckStatus::Passed);
    checks.insert(0, check.of("contents").fix(fix));
    if let Some(drift) = &mut drift {
        missing.append(&mut drift.findings);
        drift.findings = missing;
    }
    (drift, checks)
}

/// Tables of the last proven backup that this one defines without data.
fn emptied(seen: &SeenData<'_>, last: &VerificationReport) -> Vec<TableProof> {
    let Some(coverage) = seen.coverage else {
        return vec![];
    };
    let there: HashSet<String> = seen.tables.iter().map(|t| plain_name(&t.name)).collect();
    let bare: HashSet<String> = coverage.bare.iter().map(plain).collect();
    let is_emptied = |t: &&TableProof| {
        let name = plain_name(&t.name);
        !there.contains(&name) && (lacks_names(coverage) || bare.contains(&name))
    };
    let without_rows = |t: &TableProof| TableProof {
        name: t.name.clone(),
        rows: 0,
        bytes: 0,
        digest: String::new(),
        restored_rows: None,
        columns: vec![],
    };
    let emptied = last.tables.iter().filter(is_emptied);
    emptied.map(without_rows).collect()
}

/// What is missing of the last proven backup, if it is most of it.
fn missing(seen: &SeenData<'_>, last: &VerificationReport, policy: &DriftPolicy) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(missing_tables(seen, last, policy));
    let had = last.large_objects;
    if seen.large_objects == 0 && had >= FEW {
        found.push(format!(
            "large objects: none, {} in the last proven backup",
            HumanCount(had)
        ));
    }
    found
}

/// The same of tables with rows. A new table may be one that was renamed, so it makes up for one that is missing; one that
/// is still there is compared by itself. A database with next to nothing in it may lose it.
fn missing_tables(
    seen: &SeenData<'_>,
    last: &VerificationReport,
    policy: &DriftPolicy,
) -> Option<String> {
    let filled = |tables: &[TableProof]| -> BTreeMap<String, u64> {
        let filled = tables.iter().filter(|t| t.rows > 0);
        let named = filled.map(|t| (plain_name(&t.name), t.rows));
        named.filter(|(name, _)| !policy.ignores(name)).collect()
    };
    let names = |tables: &[TableProof]| -> HashSet<String> {
        tables.iter().map(|t| plain_name(&t.name)).collect()
    };
    let (before, now) = (filled(&last.tables), filled(seen.tables));
    let (known, mut there) = (names(&last.tables), names(seen.tables));
    there.extend(names(&emptied(seen, last)));
    let gone: Vec<&String> = before
        .keys()
        .filter(|name| !there.contains(*name))
        .collect();
    let new: Vec<&String> = now.keys().filter(|name| !known.contains(*name)).collect();
    let had_rows = sum(before.values().copied());
    let gone_rows = sum(gone.iter().filter_map(|name| before.get(*name).copied()));
    let rotated = rotated(&gone, &new);
    let rotated_rows = sum(rotated.iter().filter_map(|name| before.get(*name).copied()));
    let new_rows = sum(new.iter().filter_map(|name| now.get(*name).copied()));
    let tables = gone.len().saturating_sub(new.len());
    let rows = gone_rows.saturating_sub(new_rows.max(rotated_rows));
    let is_small = (before.len() as u64) < FEW;
    if before.is_empty() || (is_small && had_rows < policy.min_rows) {
        return None;
    }
    // Most tables, or nearly all rows: a large partition may be dropped.
    let most = if is_small {
        tables * 2 > before.len()
    } else {
        tables * 2 >= before.len()
    };
    if !most && rows < had_rows - had_rows / 10 {
        return None;
    }
    let gone: Vec<String> = gone.into_iter().cloned().collect();
    Some(format!(
        "{} of {} of the last proven backup are missing, and {} of its {}: {}",
        HumanCount(gone.len() as u64),
        counted(before.len() as u64, "table"),
        HumanCount(gone_rows),
        counted(had_rows, "row"),
        listed(&gone)
    ))
}

/// Those of the missing tables for which there is a new one with the same name but for numbers, such as the next partition.
fn rotated<'a>(gone: &[&'a String], new: &[&String]) -> Vec<&'a String> {
    let mut of_pattern: HashMap<String, usize> = HashMap::new();
    for name in new {
        *of_pattern.entry(without_digits(name)).or_default() += 1;
    }
    let mut is_rotated = |name: &&String| {
        let left = of_pattern.get_mut(&without_digits(name));
        left.filter(|left| **left > 0)
            .map(|left| *left -= 1)
            .is_some()
    };
    gone.iter()
        .copied()
        .filter(|name| is_rotated(name))
        .collect()
}

fn sum(rows: impl Iterator<Item = u64>) -> u64 {
    rows.fold(0, u64::saturating_add)
}

/// What is defined without data, and should have some.
fn lacking<'a>(
    coverage: &'a DataCoverage,
    policy: &'a DriftPolicy,
) -> impl Iterator<Item = &'a BareRelation> {
    let bare = coverage.bare.iter();
    bare.filter(|b| !b.is_unlogged && !policy.ignores(&plain(b)))
}

/// How many such tables and sequences have no name here.
fn unnamed(coverage: &DataCoverage) -> u64 {
    let named = coverage.bare.iter().filter(|b| !b.is_unlogged).count();
    coverage.lacking.saturating_sub(named as u64)
}

fn lacks_names(coverage: &DataCoverage) -> bool {
    unnamed(coverage) > 0
}

fn plain(relation: &BareRelation) -> String {
    match relation.namespace.as_str() {
        "" => relation.name.clone(),
        namespace => format!("{namespace}.{}", relation.name),
    }
}

/// The first names.
fn listed(names: &[String]) -> String {
    let more = if names.len() > MAX_NAMED { ", …" } else { "" };
    let shown = &names[..names.len().min(MAX_NAMED)];
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Depth, Trigger};
    use crate::proof::Verdict;

    fn table(name: &str, rows: u64) -> TableProof {
        TableProof {
            name: name.to_owned(),
            rows,
            bytes: 0,
            digest: String::new(),
            restored_rows: None,
            columns: vec![],
        }
    }

    fn proof(tables: &[(&str, u64)], contents: Option<BackupContents>) -> VerificationReport {
        let now = jiff::Timestamp::UNIX_EPOCH;
        VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            tables: tables
                .iter()
                .map(|(name, rows)| table(name, *rows))
                .collect(),
            contents,
            ..VerificationReport::new("r", Trigger::Command, Depth::Data, now)
        }
    }

    fn history(reports: &[VerificationReport]) -> History {
        History {
            reports: reports.to_vec(),
            ..History::default()
        }
    }

    /// An archive with these tables, of which the first ones have data.
    fn coverage(names: &[&str], filled: usize) -> DataCoverage {
        let bare = names[filled..].iter().map(|name| BareRelation {
            namespace: "public".into(),
            name: (*name).to_owned(),
            is_unlogged: false,
        });
        DataCoverage {
            definitions: names.len() as u64,
            tables: names.len() as u64,
            filled: filled as u64,
            data: filled as u64,
            lacking: (names.len() - filled) as u64,
            bare: bare.collect(),
            ..DataCoverage::default()
        }
    }

    fn ignoring(names: &[&str]) -> DriftPolicy {
        DriftPolicy {
            ignore: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DriftPolicy::default()
        }
    }

    #[test]
    fn an_archive_is_whole_if_it_has_the_data_of_all_that_it_defines() {
        use BackupContents as B;
        let usual = DriftPolicy::default();
        for (found, wanted) in [
            (coverage(&["a", "b"], 2), B::Whole),
            (coverage(&["a", "b"], 1), B::Partial),
            (coverage(&["a", "b"], 0), B::SchemaOnly),
            (coverage(&[], 0), B::Whole),
            (
                DataCoverage {
                    data: 2,
                    undefined: 2,
                    ..DataCoverage::default()
                },
                B::DataOnly,
            ),
            (
                DataCoverage {
                    undefined: 1,
                    ..coverage(&["a"], 1)
                },
                B::Partial,
            ),
            // Nothing but large objects.
            (
                DataCoverage {
                    data: 1,
                    ..DataCoverage::default()
                },
                B::Whole,
            ),
            // More tables without data than there are names of.
            (
                DataCoverage {
                    lacking: 5,
                    ..coverage(&["a", "b"], 2)
                },
                B::Partial,
            ),
        ] {
            assert_eq!(contents_of(&found, &usual), wanted, "{found:?}");
        }
        // Unlogged ones among the names say nothing of the others.
        let mut more = coverage(&["a", "b"], 1);
        (more.lacking, more.bare[0].is_unlogged) = (1, true);
        assert_eq!(contents_of(&more, &usual), B::Partial);
        assert_eq!(without_data(&more, &usual), (vec![], 1));
        let named = (vec!["public.b".to_owned()], 0);
        assert_eq!(without_data(&coverage(&["a", "b"], 1), &usual), named);
        // What is known to be left out makes no part, unless everything is.
        let log = ignoring(&["public.\"log\"", "tmp.*"]);
        assert_eq!(contents_of(&coverage(&["a", "log"], 1), &log), B::Whole);
        assert_eq!(contents_of(&coverage(&["log"], 0), &log), B::SchemaOnly);
        let unlogged = BareRelation {
            namespace: "public".into(),
            name: "u".into(),
            is_unlogged: true,
        };
        let found = DataCoverage {
            bare: vec![unlogged],
            ..coverage(&["a"], 1)
        };
        assert_eq!(contents_of(&found, &usual), B::Whole);
        let note = |found: &DataCoverage| {
            note_of(Some(contents_of(found, &usual)), Some(found), &usual).unwrap_or_default()
        };
        assert_eq!(note(&coverage(&["a"], 1)), "");
        assert_eq!(
            note(&coverage(&["a", "b"], 1)),
            "the backup has no data of public.b"
        );
        assert_eq!(
            note(&coverage(&["a", "b", "C"], 1)),
            "the backup has no data of 2 tables and sequences: public.b, public.\"C\""
        );
        assert_eq!(
            note(&coverage(&["a"], 0)),
            "the backup has definitions and no rows"
        );
    }

    /// Status and subject of each check, after a proof of these tables.
    fn compared(
        before: &[(&str, u64)],
        (now, coverage): (&[(&str, u64)], Option<&DataCoverage>),
        policy: &DriftPolicy,
    ) -> (Vec<(CheckStatus, Option<String>)>, Option<BackupContents>) {
        let tables: Vec<TableProof> = now.iter().map(|(name, rows)| table(name, *rows)).collect();
        let seen = SeenData {
            tables: &tables,
            large_objects: 0,
            coverage,
        };
        let history = history(&[proof(before, None)]);
        let (_, checks) = compare(&seen, &history, policy);
        let contents = coverage.map(|c| contents_of(c, policy));
        let checks = checks.into_iter().map(|c| (c.status, c.subject));
        let contents = contents_beside(contents, &seen, &history, policy);
        (checks.collect(), contents)
    }

    #[test]
    fn what_had_rows_and_has_no_data_is_empty_and_not_dropped() {
        let (usual, before) = (
            DriftPolicy::default(),
            [("public.orders", 50_000), ("public.log", 60_000)],
        );
        let schema = coverage(&["orders", "log"], 0);
        let (checks, contents) = compared(&before, (&[], Some(&schema)), &usual);
        let failed = (CheckStatus::Failed, Some("data".to_owned()));
        let not_compared = (CheckStatus::Warned, Some("contents".to_owned()));
        assert_eq!(checks, [not_compared]);
        assert_eq!(contents, Some(BackupContents::SchemaOnly));
        let without_orders = coverage(&["log", "orders"], 1);
        let now = [("public.log", 60_000)];
        let (checks, contents) = compared(&before, (&now, Some(&without_orders)), &usual);
        assert_eq!(checks, [failed]);
        assert_eq!(contents, Some(BackupContents::Partial));
        // A small table does not fail, and is missed.
        let small = [("public.orders", 5), ("public.log", 60_000)];
        let (checks, contents) = compared(&small, (&now, Some(&without_orders)), &usual);
        assert_eq!(checks, [(CheckStatus::Passed, None)]);
        assert_eq!(contents, Some(BackupContents::Partial));
        // As before it, or with none before it.
        for before in [&now[..], &[("public.log", 60_000), ("public.orders", 0)]] {
            let (checks, contents) = compared(before, (&now, Some(&without_orders)), &usual);
            assert_eq!(checks, [(CheckStatus::Passed, None)]);
            assert_eq!(contents, Some(BackupContents::UsualPart));
        }
        let tables = [table("public.log", 60_000)];
        let seen = SeenData {
            tables: &tables,
            large_objects: 0,
            coverage: Some(&without_orders),
        };
        let partial = Some(BackupContents::Partial);
        let mut none = history(&[]);
        let first = contents_beside(partial, &seen, &none, &usual);
        assert_eq!(first, Some(BackupContents::UsualPart));
        // Evidence that could not be read might say otherwise.
        none.is_hidden = true;
        assert_eq!(contents_beside(partial, &seen, &none, &usual), partial);
        // It is meant.
        let (checks, contents) = compared(
            &before,
            (&now, Some(&without_orders)),
            &ignoring(&["public.orders"]),
        );
        assert_eq!(checks, [(CheckStatus::Passed, None)]);
        assert_eq!(contents, Some(BackupContents::Whole));
    }

    /// Names of tables with data, and of others without.
    type Names<'a> = (&'a [&'a str], &'a [&'a str]);

    /// What is said of a backup with these tables, of which the rest has no data, after these proofs (newest first): each of
    /// tables with rows, and of others without data.
    fn habit(
        before: &[Names<'_>],
        (filled, bare): Names<'_>,
    ) -> (CheckStatus, Option<BackupContents>) {
        let rows = |names: &[&str]| -> Vec<TableProof> {
            let named = names.iter().map(|n| table(&format!("public.{n}"), 2_000));
            named.collect()
        };
        let report = |(filled, bare): &Names<'_>| VerificationReport {
            tables: rows(filled),
            without_data: bare.iter().map(|n| format!("public.{n}")).collect(),
            ..proof(
                &[],
                Some(if bare.is_empty() {
                    BackupContents::Whole
                } else {
                    BackupContents::UsualPart
                }),
            )
        };
        let reports: Vec<VerificationReport> = before.iter().map(report).collect();
        let (history, policy) = (history(&reports), DriftPolicy::default());
        let coverage = coverage(&[filled, bare].concat(), filled.len());
        let tables = rows(filled);
        let seen = SeenData {
            tables: &tables,
            large_objects: 0,
            coverage: Some(&coverage),
        };
        let (_, checks) = compare(&seen, &history, &policy);
        let contents = Some(contents_of(&coverage, &policy));
        let contents = contents_beside(contents, &seen, &history, &policy);
        (checks[0].status, contents)
    }

    #[test]
    fn what_is_left_out_as_usual_may_grow_and_a_habit_may_end() {
        use BackupContents::{Partial, UsualPart};
        use CheckStatus::{Failed, Passed};
        let usual: Names<'_> = (&["t"], &["log_1", "log_2"]);
        let full: Names<'_> = (&["log_1", "log_2", "log_3", "t"], &[]);
        let grown: Names<'_> = (&["t"], &["log_1", "log_2", "log_3"]);
        // A full backup in between has rows of a table that was created since.
        assert_eq!(habit(&[full, usual], grown), (Passed, Some(UsualPart)));
        // Nobody left out another table before, or one that was there.
        let other: Names<'_> = (&["t"], &["log_1", "log_2", "orders"]);
        let with_orders: Names<'_> = (&["log_1", "log_2", "orders", "t"], &[]);
        let partial = (Failed, Some(Partial));
        assert_eq!(habit(&[with_orders, usual], other), partial);
        let had_three: Names<'_> = (&["log_3", "t"], &["log_1", "log_2"]);
        assert_eq!(habit(&[full, had_three], grown), partial);
        // Two full backups end the habit.
        let of_two: Names<'_> = (&["log_1", "log_2", "t"], &[]);
        assert_eq!(habit(&[of_two, usual], usual), (Passed, Some(UsualPart)));
        assert_eq!(habit(&[of_two, of_two, usual], usual), partial);
        // Also with others between them, which had the data of what is left out now.
        let one: Names<'_> = (&["log_2", "t"], &["log_1"]);
        assert_eq!(habit(&[of_two, one, of_two, usual], usual), partial);
        // What was left out separately may be left out together.
        let (a, b): (Names<'_>, Names<'_>) = ((&["b", "t"], &["a"]), (&["a", "t"], &["b"]));
        let both: Names<'_> = (&["t"], &["a", "b"]);
        assert_eq!(habit(&[a, b], both), (Passed, Some(UsualPart)));
    }

    #[test]
    fn most_tables_or_rows_cannot_be_dropped_unnoticed() {
        let usual = DriftPolicy::default();
        let before = [("public.t", 50_000), ("public.u", 200), ("public.w", 300)];
        let contents = Some("contents".to_owned());
        let schema = Some("schema".to_owned());
        for (now, wanted) in [
            // Most rows, and most tables.
            (
                &[("public.u", 200), ("public.w", 300)][..],
                CheckStatus::Failed,
            ),
            (&[("public.t", 50_000)], CheckStatus::Failed),
            (&[], CheckStatus::Failed),
            (
                &[("public.t", 50_000), ("public.w", 300)],
                CheckStatus::Passed,
            ),
            // Renamed, and written otherwise.
            (
                &[("shop.t", 50_000), ("shop.u", 200), ("shop.w", 300)],
                CheckStatus::Passed,
            ),
            (
                &[
                    ("\"public\".\"t\"", 50_000),
                    ("\"public\".\"u\"", 200),
                    ("\"public\".\"w\"", 300),
                ],
                CheckStatus::Passed,
            ),
        ] {
            let names: Vec<&str> = now
                .iter()
                .map(|(name, _)| name.trim_start_matches("public."))
                .collect();
            let whole = coverage(&names, names.len());
            let (checks, found) = compared(&before, (now, Some(&whole)), &usual);
            let first = match wanted {
                CheckStatus::Failed => (wanted, contents.clone()),
                _ => (wanted, None),
            };
            assert_eq!(checks[0], first, "{now:?}");
            let is_same = now.first().is_some_and(|(name, _)| name.starts_with('"'));
            let changed = (!is_same).then(|| (CheckStatus::Warned, schema.clone()));
            assert_eq!(checks.get(1), changed.as_ref(), "{now:?}");
            let is_part = found.is_some_and(BackupContents::is_part);
            assert_eq!(is_part, wanted == CheckStatus::Failed, "{now:?}");
        }
        // A few small tables come and go, and so does a large partition; many small ones do not.
        let small = [("public.a", 5), ("public.b", 90)];
        let none = coverage(&[], 0);
        let partitions = [
            ("public.u", 500),
            ("public.w45", 10_000),
            ("public.w46", 8_000),
        ];
        let rotated = [("public.u", 510), ("public.w46", 8_000), ("public.w47", 50)];
        let whole = coverage(&["u", "w46", "w47"], 3);
        let (checks, found) = compared(&partitions, (&rotated, Some(&whole)), &usual);
        assert_eq!(checks[0], (CheckStatus::Passed, None));
        assert_eq!(found, Some(BackupContents::Whole));
        // Even if it had nearly all rows, and the next one has few.
        let partitions = [("public.u", 500), ("public.w45", 10_000)];
        for (next, wanted) in [
            ("public.w46", CheckStatus::Passed),
            ("public.x", CheckStatus::Failed),
        ] {
            let rotated = [("public.u", 510), (next, 50)];
            let (checks, _) = compared(
                &partitions,
                (&rotated, Some(&coverage(&["u", "w"], 2))),
                &usual,
            );
            assert_eq!(checks[0].0, wanted, "{next}");
        }
        let names: Vec<String> = (0..40).map(|n| format!("public.t{n}")).collect();
        let many: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 90)).collect();
        for left in [1, 20] {
            let (checks, found) =
                compared(&many, (&many[..left], Some(&coverage(&["t0"], 1))), &usual);
            assert_eq!(checks[0].0, CheckStatus::Failed, "{left}");
            assert_eq!(found, Some(BackupContents::Partial), "{left}");
        }
        let (checks, found) = compared(&small, (&[], Some(&none)), &usual);
        assert_eq!(checks[0], (CheckStatus::Passed, None));
        assert_eq!(found, Some(BackupContents::Whole));
        // It is only noted, and still no replacement for the whole.
        let warning = DriftPolicy {
            mode: DriftMode::Warn,
            ..DriftPolicy::default()
        };
        let (checks, found) = compared(&before, (&[], Some(&none)), &warning);
        assert_eq!(checks[0], (CheckStatus::Warned, contents));
        assert_eq!(found, Some(BackupContents::Partial));
        let off = DriftPolicy {
            mode: DriftMode::Off,
            ..DriftPolicy::default()
        };
        let (checks, found) = compared(&before, (&[], Some(&none)), &off);
        assert_eq!((checks, found), (vec![], Some(BackupContents::Whole)));
    }

    /// Nothing else is left to do; so it says what that costs.
    #[test]
    fn the_fix_of_missing_tables_says_that_older_backups_go() {
        let tables = [table("public.a", 200)];
        let seen = SeenData {
            tables: &tables,
            large_objects: 0,
            coverage: None,
        };
        let before = [("public.a", 200), ("public.b", 200), ("public.c", 200)];
        let history = history(&[proof(&before, None)]);
        let (_, checks) = compare(&seen, &history, &DriftPolicy::default());
        assert_eq!(checks[0].subject.as_deref(), Some("contents"));
        let fix = checks[0].fix.as_deref().unwrap();
        assert!(fix.contains("`drift.ignore`"), "{fix}");
        assert!(
            fix.contains("`prune` then deletes the older backups"),
            "{fix}"
        );
    }

    #[test]
    fn large_objects_cannot_disappear_unnoticed() {
        let mut last = proof(&[("public.t", 5)], None);
        last.large_objects = 1_000;
        let (tables, usual) = ([table("public.t", 5)], DriftPolicy::default());
        let whole = coverage(&["t"], 1);
        for (large_objects, wanted) in [(0, CheckStatus::Failed), (1, CheckStatus::Passed)] {
            let seen = SeenData {
                tables: &tables,
                large_objects,
                coverage: Some(&whole),
            };
            let (_, checks) = compare(&seen, &history(std::slice::from_ref(&last)), &usual);
            assert_eq!((checks.len(), checks[0].status), (1, wanted));
        }
    }

    #[test]
    fn a_part_is_no_measure_for_a_whole_backup() {
        use BackupContents as B;
        let (whole, part) = (
            proof(&[("public.t", 9)], None),
            proof(&[], Some(B::SchemaOnly)),
        );
        let contents = [None, Some(B::Whole), Some(B::SchemaOnly), Some(B::Partial)];
        let mixed = history(&[part.clone(), whole.clone(), part.clone()]);
        for contents in contents {
            let compared = comparable(&mixed, contents).into_owned();
            assert_eq!(
                compared.reports,
                std::slice::from_ref(&whole),
                "{contents:?}"
            );
        }
        let parts = history(&[part.clone(), part.clone()]);
        let left = contents.map(|c| comparable(&parts, c).reports.len());
        assert_eq!(left, [0, 0, 2, 0]);
        assert!(comparable(&History::default(), None).reports.is_empty());
    }
}
