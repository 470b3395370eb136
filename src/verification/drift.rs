//! Compares a backup with the last proven ones of its set: what differs, and whether the difference exceeds
//! what has been usual. Pure.

use std::collections::BTreeMap;

use crate::error::FailureReason;
use crate::proof::{
    Check, CheckStatus, ColumnProof, Drift, RestoreSample, TableProof, VerificationReport,
    name_parts, plain_name,
};

/// How drift affects the verdict.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DriftMode {
    /// A backup outside the allowed range fails the verification.
    #[default]
    Fail,
    Warn,
    Off,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DriftPolicy {
    pub mode: DriftMode,
    /// Share of a table's rows (0 to 1) that may disappear from one backup to the next, in addition to the largest
    /// drop among the proven backups; and by how much the share of nulls in a column may exceed the largest one among
    /// them. A table may become empty only if this is 1, or if it has been empty before.
    pub tolerance: f64,
    /// Tables with fewer rows are not compared.
    pub min_rows: u64,
    /// Tables that are not compared. Names as in the report; `*` at the end matches any rest.
    pub ignore: Vec<String>,
}

impl Default for DriftPolicy {
    fn default() -> Self {
        DriftPolicy {
            mode: DriftMode::Fail,
            tolerance: 0.3,
            min_rows: 100,
            ignore: vec![],
        }
    }
}

impl DriftPolicy {
    pub(super) fn validate(&self) -> Result<(), String> {
        let fits = (0.0..=1.0).contains(&self.tolerance);
        fits.then_some(())
            .ok_or_else(|| "drift: tolerance must be from 0 to 1".into())
    }

    /// Whether a table is ignored, by its name without quotes. A name that has none in the file is meant as it stands, as lists
    /// of names have it, or in lower case, as SQL has it.
    pub fn ignores(&self, plain: &str) -> bool {
        self.ignore.iter().any(|i| match i.strip_suffix('*') {
            Some(start) => readings(start).iter().any(|s| plain.starts_with(s)),
            None => plain_name(i) == plain || readings(i).iter().any(|name| name == plain),
        })
    }
}

/// A name without its quotes: as it stands, and with what is not quoted in lower case.
fn readings(written: &str) -> [String; 2] {
    let mut folded = String::new();
    for (place, part) in written.split('"').enumerate() {
        match place % 2 {
            0 => folded.push_str(&part.to_lowercase()),
            _ => folded.push_str(part),
        }
    }
    [written.replace('"', ""), folded]
}

/// `drift.ignore` would also let later backups leave the table out unnoticed, and `prune` delete the last one with its rows.
const FIX_OF_LOSS: &str = "if this change is expected, raise `drift.tolerance` in the checks file until a backup is proven: later ones are compared with that one";
const FIX_OF_CHANGE: &str =
    "if this change is expected, there is nothing to do: later backups are compared with this one";

/// What to do where tables are meant to be missing from now on, as the end of a sentence.
pub(crate) const IGNORE_TABLES: &str = "add the tables to `drift.ignore` in the checks file: `prune` then deletes the older backups with their rows";

/// How many findings are listed one by one.
const MAX_NAMED: usize = 20;

/// Reports of the proven backups of the same database in a set.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Newest first.
    pub reports: Vec<VerificationReport>,
    /// None was found among what was read, and not all evidence was: there were too many documents, or a folder of evidence
    /// could not be listed.
    pub is_hidden: bool,
    /// What was not read, and could have added to this.
    pub notes: Vec<String>,
}

impl History {
    /// How long the restores of the proven backups took, oldest first.
    pub fn trend(&self) -> Vec<RestoreSample> {
        let samples = self.reports.iter().filter_map(VerificationReport::sample);
        samples.rev().collect()
    }
}

/// The values of a number in the proven backups, newest first.
struct PastValues(Vec<f64>);

impl PastValues {
    /// The largest drop from one backup to the next, as a share.
    fn usual_drop(&self) -> f64 {
        self.0
            .windows(2)
            .map(|w| if w[1] > 0.0 { 1.0 - w[0] / w[1] } else { 0.0 })
            .fold(0.0, f64::max)
    }
}

/// Tables by their names: `pg_dump --quote-all-identifiers` quotes those that other dumps do not.
fn by_name(tables: &[TableProof]) -> BTreeMap<Vec<String>, &TableProof> {
    tables.iter().map(|t| (name_parts(&t.name), t)).collect()
}

/// The name of a column, which a dump may quote.
fn column_name(name: &str) -> &str {
    let unquoted = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
    unquoted.unwrap_or(name)
}

/// Compares with the last proven backup. Returns all findings, and checks made of them.
pub(super) fn compare(
    tables: &[TableProof],
    history: &History,
    policy: &DriftPolicy,
) -> (Option<Drift>, Vec<Check>) {
    if policy.mode == DriftMode::Off {
        return (None, vec![]);
    }
    if history.is_hidden {
        let what = "the last proven backups could not be found: there are too many documents of evidence, or this account may not list a folder of evidence";
        let fix = "delete the documents that do not count, or let the account read the folder (the worker's log names them), and check who may create objects there";
        let check =
            Check::new("drift", CheckStatus::NotChecked, what).because(FailureReason::AccessDenied);
        return (None, vec![check.fix(fix)]);
    }
    let Some(last) = history.reports.first() else {
        return (None, vec![]);
    };
    let now = by_name(tables);
    let reports = history.reports.iter().map(|r| by_name(&r.tables));
    let reports: Vec<BTreeMap<Vec<String>, &TableProof>> = reports.collect();
    let before = by_name(&last.tables);
    let (mut schema, mut outside, mut unusual) = (vec![], vec![], vec![]);
    for (_, old) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
        schema.push(format!("table {} no longer exists", old.name));
    }
    for (key, table) in &now {
        let name = table.name.as_str();
        let Some(old) = before.get(key) else {
            schema.push(format!("table {name} is new"));
            continue;
        };
        columns(name, old, table, &mut schema);
        if policy.ignores(&plain_name(name)) {
            continue;
        }
        let past = reports.iter().filter_map(|r| r.get(key).copied());
        let past: Vec<&TableProof> = past.collect();
        if old.rows < policy.min_rows {
            continue;
        }
        rows(name, table, &past, policy, &mut outside, &mut unusual);
        if table.rows >= policy.min_rows {
            content(name, table, &past, policy, &mut outside, &mut unusual);
        }
    }
    let samples = u32::try_from(history.reports.len()).unwrap_or(u32::MAX);
    let generation = last.backup.generation.clone().unwrap_or_default();
    let mut findings: Vec<String> = outside
        .iter()
        .chain(&unusual)
        .chain(&schema)
        .cloned()
        .collect();
    findings.truncate(200);
    let drift = Drift {
        compared_with: generation,
        samples,
        findings,
    };
    let status_outside = if policy.mode == DriftMode::Fail {
        CheckStatus::Failed
    } else {
        CheckStatus::Warned
    };
    let mut checks = Vec::new();
    let mut add_check = |status, kind: &str, found: &[String], fix: &str| {
        if !found.is_empty() {
            let named = found
                .iter()
                .take(MAX_NAMED)
                .cloned()
                .collect::<Vec<_>>()
                .join("; ");
            checks.push(Check::new("drift", status, named).of(kind).fix(fix));
        }
    };
    add_check(status_outside, "data", &outside, FIX_OF_LOSS);
    add_check(CheckStatus::Warned, "content", &unusual, FIX_OF_CHANGE);
    add_check(CheckStatus::Warned, "schema", &schema, FIX_OF_CHANGE);
    if checks.iter().all(|c| c.status == CheckStatus::Warned) {
        let what = match samples {
            1 => "within the range expected from the last proven backup".to_owned(),
            n => format!("within the range expected from the last {n} proven backups"),
        };
        checks.insert(0, Check::new("drift", CheckStatus::Passed, what));
    }
    (Some(drift), checks)
}

fn columns(name: &str, old: &TableProof, new: &TableProof, schema: &mut Vec<String>) {
    if old.columns.is_empty() || new.columns.is_empty() {
        return;
    }
    let of = |t: &TableProof| -> BTreeMap<String, String> {
        t.columns
            .iter()
            .map(|c| (column_name(&c.name).to_owned(), c.kind.clone()))
            .collect()
    };
    let (old, new) = (of(old), of(new));
    for (column, kind) in &old {
        match new.get(column) {
            None => schema.push(format!("column {column} of {name} no longer exists")),
            Some(other) if other != kind => {
                schema.push(format!("column {column} of {name} is {other}, was {kind}"))
            }
            Some(_) => {}
        }
    }
    let added = new.keys().filter(|c| !old.contains_key(*c));
    schema.extend(added.map(|c| format!("column {c} of {name} is new")));
}

fn rows(
    name: &str,
    table: &TableProof,
    past: &[&TableProof],
    policy: &DriftPolicy,
    outside: &mut Vec<String>,
    unusual: &mut Vec<String>,
) {
    let history = PastValues(past.iter().map(|t| t.rows as f64).collect());
    let (now, last) = (table.rows as f64, history.0[0]);
    let usual = history.usual_drop();
    let allowed = (usual + policy.tolerance).min(1.0);
    let floor = last * (1.0 - allowed);
    let may_be_empty = usual.max(policy.tolerance) >= 1.0;
    if now < floor || (now == 0.0 && last > 0.0 && !may_be_empty) {
        outside.push(format!(
            "{name}: {now} rows, {last} in the last proven backup (expected at least {:.0})",
            floor.max(1.0)
        ));
    } else if now > last * 10.0 {
        unusual.push(format!(
            "{name}: {now} rows, {last} in the last proven backup"
        ));
    }
}

fn content(
    name: &str,
    table: &TableProof,
    past: &[&TableProof],
    policy: &DriftPolicy,
    outside: &mut Vec<String>,
    unusual: &mut Vec<String>,
) {
    for c in &table.columns {
        let is_same = |other: &ColumnProof| column_name(&other.name) == column_name(&c.name);
        let before: Vec<_> = past
            .iter()
            .filter_map(|t| t.columns.iter().find(|o| is_same(o)))
            .collect();
        let Some(last) = before.first() else { continue };
        let most = before.iter().map(|o| o.nulls).fold(0.0, f64::max);
        if c.nulls > most + policy.tolerance {
            let (now, was) = (c.nulls * 100.0, most * 100.0);
            outside.push(format!(
                "{name}.{}: {now:.0} % null, at most {was:.0} % before",
                c.name
            ));
        }
        if let (Some(now), Some(was)) = (&c.span, &last.span)
            && now.newest < was.newest
        {
            let (now, was) = (&now.newest, &was.newest);
            unusual.push(format!(
                "{name}.{}: newest value is {now}, was {was} in the last proven backup",
                c.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RestoreError;
    use crate::proof::Span;

    fn table(name: &str, rows: u64, nulls: f64, newest: &str) -> TableProof {
        TableProof {
            name: name.into(),
            rows,
            bytes: 0,
            digest: String::new(),
            restored_rows: Some(rows),
            columns: vec![ColumnProof {
                name: "at".into(),
                kind: "date".into(),
                nulls,
                span: Some(Span {
                    oldest: "2020-01-01".into(),
                    newest: newest.into(),
                }),
            }],
        }
    }

    fn history(rows: &[u64]) -> History {
        let report = |n: &u64| {
            let mut r = crate::verification::evidence::tests::report("x");
            r.tables = vec![table("t", *n, 0.1, "2026-01-01")];
            r
        };
        History {
            reports: rows.iter().map(report).collect(),
            ..History::default()
        }
    }

    fn status(now: TableProof, past: &[u64]) -> Vec<(Option<String>, CheckStatus)> {
        let (_, checks) = compare(&[now], &history(past), &DriftPolicy::default());
        checks.into_iter().map(|c| (c.subject, c.status)).collect()
    }

    #[test]
    fn shrinkage_beyond_the_tolerance_fails_and_growth_does_not() -> Result<(), RestoreError> {
        let t = |rows| table("t", rows, 0.1, "2026-01-02");
        let ok = vec![(None, CheckStatus::Passed)];
        let bad = vec![(Some("data".into()), CheckStatus::Failed)];
        assert_eq!(status(t(1000), &[1000]), ok);
        assert_eq!(status(t(710), &[1000]), ok);
        assert_eq!(status(t(690), &[1000]), bad);
        assert_eq!(status(t(5000), &[1000]), ok);
        // A usual drop widens the allowed range.
        assert_eq!(status(t(400), &[1000, 2000]), ok);
        assert_eq!(status(t(100), &[1000, 2000]), bad);
        // Small tables may shrink and become empty; large ones may not.
        assert_eq!(status(t(2), &[50]), ok);
        assert_eq!(status(t(0), &[1, 0, 1]), ok);
        assert_eq!(status(t(0), &[99]), ok);
        assert_eq!(status(t(0), &[100]), bad);
        // Even where three quarters of the rows have disappeared before.
        assert_eq!(status(t(1), &[1000, 4000]), ok);
        assert_eq!(status(t(0), &[1000, 4000]), bad);
        // A queue that has been empty in a proven backup may be empty again.
        assert_eq!(status(t(0), &[1000, 0, 1000]), ok);
        Ok(())
    }

    /// Nobody is advised to ignore a table for good because its rows were deleted once.
    #[test]
    fn the_fix_of_a_loss_is_no_rule_for_later_backups() {
        let shrunk = table("t", 1, 0.1, "2026-01-02");
        let new = table("u", 1, 0.1, "2026-01-02");
        let (_, checks) = compare(&[shrunk, new], &history(&[1000]), &DriftPolicy::default());
        let fixes = checks
            .iter()
            .map(|c| (c.subject.as_deref(), c.fix.as_deref()));
        let fixes: Vec<(Option<&str>, &str)> = fixes.map(|(of, fix)| (of, fix.unwrap())).collect();
        let [(Some("data"), loss), (Some("schema"), change)] = &fixes[..] else {
            panic!("{fixes:?}");
        };
        assert!(loss.contains("raise `drift.tolerance`"), "{loss}");
        assert!(!loss.contains("drift.ignore"), "{loss}");
        assert!(change.contains("nothing to do"), "{change}");
    }

    #[test]
    fn tolerance_and_minimum_apply_to_every_rule() {
        let t = |rows, nulls| table("t", rows, nulls, "2025-12-31");
        let of = |now: TableProof, past: u64, policy: &DriftPolicy| {
            let (_, checks) = compare(&[now], &history(&[past]), policy);
            checks.into_iter().map(|c| c.status).collect::<Vec<_>>()
        };
        use CheckStatus::{Failed, Passed, Warned};
        let usual = DriftPolicy::default();
        // One row says nothing of a share, nor do 99.
        for few in [1, 99] {
            assert_eq!(of(t(few, 1.0), few, &usual), [Passed], "{few}");
        }
        assert_eq!(of(t(100, 1.0), 100, &usual), [Failed, Warned]);
        // Before or after.
        assert_eq!(of(t(1000, 1.0), 1, &usual), [Passed]);
        assert_eq!(of(t(80, 1.0), 100, &usual), [Passed]);
        assert_eq!(of(t(100, 0.39), 100, &usual), [Passed, Warned]);
        let with = |tolerance, min_rows| DriftPolicy {
            tolerance,
            min_rows,
            ..DriftPolicy::default()
        };
        assert_eq!(of(t(1000, 0.5), 1000, &with(0.5, 100)), [Passed, Warned]);
        assert_eq!(of(t(1000, 0.5), 1000, &with(0.3, 1001)), [Passed]);
        assert_eq!(of(t(0, 0.0), 1000, &with(0.99, 100)), [Failed]);
        assert_eq!(of(t(0, 0.0), 1000, &with(1.0, 100)), [Passed]);
        assert_eq!(of(t(0, 0.0), 1, &with(0.3, 1)), [Failed]);
    }

    #[test]
    fn quotes_of_a_dump_hide_nothing() {
        let failed = [(Some("data".into()), CheckStatus::Failed)];
        let fewer = table("\"t\"", 600, 0.1, "2026-01-02");
        assert_eq!(status(fewer, &[1000]), failed);
        let mut nulls = table("\"t\"", 1000, 0.5, "2026-01-02");
        nulls.columns[0].name = "\"at\"".into();
        assert_eq!(status(nulls, &[1000]), failed);
        let policy = DriftPolicy {
            ignore: vec![
                "public.t".into(),
                "\"Audit\".*".into(),
                "shop.Orders".into(),
                "Log.*".into(),
                "shop.\"a\"\"b\"".into(),
            ],
            ..DriftPolicy::default()
        };
        for (name, is_ignored) in [
            ("\"public\".\"t\"", true),
            ("public.t", true),
            ("\"Audit\".\"x\"", true),
            ("\"Audit\".x", true),
            ("audit.x", false),
            ("\"public\".\"T\"", false),
            // As SQL means it, and as it is in lists of names.
            ("shop.orders", true),
            ("shop.\"Orders\"", true),
            ("shop.\"ORDERS\"", false),
            ("log.x", true),
            ("\"Log\".x", true),
            ("shop.\"a\"\"b\"", true),
        ] {
            assert_eq!(policy.ignores(&plain_name(name)), is_ignored, "{name}");
        }
    }

    #[test]
    fn nulls_time_and_schema_are_compared() {
        let nulls = status(table("t", 1000, 0.5, "2026-01-02"), &[1000]);
        assert_eq!(nulls, [(Some("data".into()), CheckStatus::Failed)]);
        let back = status(table("t", 1000, 0.1, "2025-12-31"), &[1000]);
        assert_eq!(back[1], (Some("content".into()), CheckStatus::Warned));
        let other = status(table("u", 1000, 0.1, "2026-01-02"), &[1000]);
        assert_eq!(other[1], (Some("schema".into()), CheckStatus::Warned));
        assert_eq!(
            compare(&[], &History::default(), &DriftPolicy::default()).1,
            vec![]
        );
        // What cannot be compared does not pass.
        let hidden = History {
            is_hidden: true,
            ..history(&[1000])
        };
        let checks = compare(&[table("t", 10, 0.1, "")], &hidden, &DriftPolicy::default()).1;
        assert_eq!(
            (checks[0].status, checks[0].required),
            (CheckStatus::NotChecked, true)
        );
    }
}
