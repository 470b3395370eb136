//! What `report` shows: the verifications of a period, as JSON and as a page for an auditor.

use maud::{Markup, html};

use crate::html::{
    TableCell, TableColumn, TableRow, TrendBar, bytes, count, document, seconds, stat, table, time,
    trend,
};
use crate::manager::BackupSetStatus;
use crate::proof::{Rto, Verdict, VerificationReport};
use crate::verification::{class_of, headline};

/// Most restores in the chart of a set.
const SAMPLES: usize = 60;

/// Said where a ledger is cut.
pub(super) const CUT: &str = "older verifications of this period are not listed, because they do not all fit into memory: \
    choose a shorter --since, or one --set";

/// What `report` prints as JSON.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Ledger {
    pub since: jiff::Timestamp,
    pub until: jiff::Timestamp,
    pub verified: usize,
    pub failed: usize,
    pub inconclusive: usize,
    /// How many of the verified ones restored their backup; the others only read it.
    pub restored: usize,
    /// Whether only evidence that a trusted key signed counts.
    pub is_signed: bool,
    /// Number of ignored documents: not signed by a trusted key, in the wrong location, or unreadable.
    pub left_out: usize,
    /// Whether older verifications of this time are not listed, because all of them would take more than 1 GiB of memory.
    pub is_cut: bool,
    /// Which documents were not read although they may count: there are too many, or this account may not look there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    pub sets: Vec<BackupSetStatus>,
    /// Newest first.
    pub verifications: Vec<VerificationReport>,
}

/// What the page says of a set, or of one of its databases.
struct ProvenRow<'a> {
    set: &'a str,
    database: &'a str,
    last_proof: Option<jiff::Timestamp>,
    backup: Option<&'a str>,
    rto: Option<Rto>,
    /// Newest first.
    verifications: &'a [&'a VerificationReport],
}

/// The database of a verified backup, for people.
pub(super) fn database_of(r: &VerificationReport) -> String {
    match &r.database {
        Some(database) if r.is_of_several() => format!("{database} (of a cluster)"),
        Some(database) => database.clone(),
        None => "-".to_owned(),
    }
}

impl Ledger {
    /// The period on one page.
    pub fn page(&self) -> String {
        let n = |all: usize| count(all as u64);
        let period = format!(
            "{} to {}",
            self.since.strftime("%Y-%m-%d"),
            self.until.strftime("%Y-%m-%d")
        );
        let shallow = self.verified.saturating_sub(self.restored);
        let body = html! {
            h1 { "Restore proofs, " (period) }
            p.soft { "Made by pgrestored " (env!("CARGO_PKG_VERSION")) " on " (time(self.until)) ". " (self.basis()) }
            div.facts {
                (stat("verifications", &n(self.verifications.len())))
                (stat("restored and verified", &n(self.restored)))
                (stat("verified, not restored", &n(shallow)))
                (stat("failed", &n(self.failed)))
                (stat("inconclusive", &n(self.inconclusive)))
            }
            (self.sets_table())
            @for set in &self.sets { (self.set_trend(&set.name)) }
            (self.faults())
            (self.all())
        };
        document(&format!("Restore proofs, {period}"), "", &body)
    }

    /// What the page rests on, and what it leaves out.
    fn basis(&self) -> String {
        let mut basis = if self.is_signed {
            "Only evidence that a trusted key signed counts".to_owned()
        } else {
            "The signatures of the evidence were not checked: anyone who may create objects there can forge it".to_owned()
        };
        if self.left_out > 0 {
            basis = format!("{basis}; {}", ignored(self.left_out));
        }
        if self.is_cut {
            basis = format!("{basis}; {CUT}");
        }
        for why in &self.unread {
            basis = format!("{basis}; {why}");
        }
        basis + "."
    }

    /// The verifications of a set, newest first.
    fn of_set<'a>(&'a self, set: &str) -> impl Iterator<Item = &'a VerificationReport> {
        let set = set.to_owned();
        let all = self.verifications.iter();
        all.filter(move |r| r.backup_set == set)
    }

    fn sets_table(&self) -> Markup {
        let columns = [
            TableColumn::text("Set"),
            TableColumn::text("Database"),
            TableColumn::text("Last proven"),
            TableColumn::number("Proofs"),
            TableColumn::number("Failed"),
            TableColumn::text("Longest time without a proof"),
            TableColumn::number("Restore time"),
            TableColumn::number("Forecast"),
        ];
        let rows = self.sets.iter().flat_map(|s| self.rows_of_set(s));
        table(("sets", "Backup sets"), &html! {}, &columns, rows.collect())
    }

    /// The row of a set and, of several databases, one for each.
    fn rows_of_set(&self, set: &BackupSetStatus) -> Vec<TableRow> {
        let all: Vec<&VerificationReport> = self.of_set(&set.name).collect();
        let database = match set.databases.as_slice() {
            [] => "–".to_owned(),
            [one] => one.label(),
            several => format!("{} databases: the stalest counts", several.len()),
        };
        let mut rows = vec![self.proven_row(&ProvenRow {
            set: &set.name,
            database: &database,
            last_proof: set.last_proof,
            backup: set.proven_backup.as_deref(),
            rto: set.rto,
            verifications: &all,
        })];
        if set.databases.len() > 1 {
            rows.extend(set.databases.iter().map(|d| {
                let is_its = |r: &&VerificationReport| d.may_be_about(r);
                let own: Vec<&VerificationReport> = all.iter().copied().filter(is_its).collect();
                self.proven_row(&ProvenRow {
                    set: &set.name,
                    database: &d.label(),
                    last_proof: d.last_proof,
                    backup: d.proven_backup.as_deref(),
                    rto: d.rto,
                    verifications: &own,
                })
            }));
        }
        rows
    }

    fn proven_row(&self, row: &ProvenRow<'_>) -> TableRow {
        let of = |is_it: fn(&VerificationReport) -> bool| {
            row.verifications.iter().filter(|r| is_it(r)).count() as u64
        };
        let failed = of(|r| r.verdict == Verdict::Failed);
        let proven = row.last_proof.map_or("never".into(), time);
        let proven = html! {
            (proven)
            @if let Some(backup) = row.backup { div.soft { (backup) } }
        };
        let took = |pick: fn(&Rto) -> f64| row.rto.map_or("–".into(), |r| seconds(pick(&r)));
        vec![
            TableCell::new(row.set),
            TableCell::new(row.database),
            TableCell::new(proven).styled(if row.last_proof.is_some() { "" } else { "bad" }),
            TableCell::new(count(of(VerificationReport::proves_whole))),
            TableCell::new(count(failed)).styled(if failed > 0 { "bad" } else { "" }),
            TableCell::new(seconds(self.longest_gap(row.verifications))),
            TableCell::new(took(|r| r.measured_seconds)),
            TableCell::new(took(|r| r.forecast_seconds)),
        ]
        .into()
    }

    /// The longest time of the period in which none of these verifications, newest first, was a proof, in seconds.
    fn longest_gap(&self, verifications: &[&VerificationReport]) -> f64 {
        let proofs = verifications.iter().filter(|r| r.proves_whole());
        let ends: Vec<_> = std::iter::once(self.until)
            .chain(proofs.map(|r| r.finished_at))
            .chain([self.since])
            .collect();
        let gaps = ends
            .windows(2)
            .map(|w| w[0].duration_since(w[1]).as_secs_f64());
        gaps.fold(0.0, f64::max)
    }

    /// How long the restores of a set took; nothing for fewer than two.
    fn set_trend(&self, set: &str) -> Markup {
        let samples = self.of_set(set).filter_map(VerificationReport::sample);
        let mut bars: Vec<TrendBar> = samples
            .take(SAMPLES)
            .map(|s| TrendBar {
                class: "past",
                label: format!(
                    "{}: {} for {}",
                    time(s.finished_at),
                    seconds(s.measured_seconds),
                    bytes(s.bytes)
                ),
                seconds: s.measured_seconds,
            })
            .collect();
        bars.reverse();
        let ([first, .., last], longest) = (
            &bars[..],
            bars.iter().map(|b| b.seconds).fold(0.0, f64::max),
        ) else {
            return html! {};
        };
        let summary = format!(
            "{} restores of {set}: the first took {}, the last {}, the longest {}.",
            bars.len(),
            seconds(first.seconds),
            seconds(last.seconds),
            seconds(longest)
        );
        html! {
            h2 { "Restore time of " (set) }
            p { (summary) }
            (trend(&bars, &summary))
        }
    }

    /// The verifications that did not verify, with their reasons.
    fn faults(&self) -> Markup {
        let faults: Vec<_> = self
            .verifications
            .iter()
            .filter(|r| !r.is_verified())
            .collect();
        if faults.is_empty() {
            return html! { h2 { "Faults" } p { "No verification failed or was inconclusive." } };
        }
        let columns = [
            TableColumn::text("When"),
            TableColumn::text("Verdict"),
            TableColumn::text("Database"),
            TableColumn::text("Backup"),
            TableColumn::text("Reason"),
            TableColumn::text("What to do"),
        ];
        let rows = faults.into_iter().map(|r| {
            let reason = r
                .error
                .as_ref()
                .map(|e| format!("{}: {}", e.reason.as_str(), e.message));
            vec![
                TableCell::new(time(r.finished_at)),
                TableCell::new(headline(r)).styled(class_of(r.verdict)),
                TableCell::new(database_of(r)),
                TableCell::new(r.backup.name.as_deref().unwrap_or("–")),
                TableCell::new(reason.unwrap_or_else(|| "–".into())),
                TableCell::new(r.fix.as_deref().unwrap_or("–")),
            ]
            .into()
        });
        table(("faults", "Faults"), &html! {}, &columns, rows.collect())
    }

    fn all(&self) -> Markup {
        let columns = [
            TableColumn::text("When"),
            TableColumn::text("Verdict"),
            TableColumn::text("Set"),
            TableColumn::text("Database"),
            TableColumn::text("Backup"),
            TableColumn::text("Request"),
            TableColumn::number("Tables"),
            TableColumn::number("Rows"),
            TableColumn::number("Restore time"),
        ];
        let rows = self.verifications.iter().map(|r| {
            let verdict =
                html! { (headline(r)) " " span.soft { (r.depth.map_or("", |d| d.as_str())) } };
            vec![
                TableCell::new(time(r.finished_at)),
                TableCell::new(verdict).styled(class_of(r.verdict)),
                TableCell::new(&r.backup_set),
                TableCell::new(database_of(r)),
                TableCell::new(r.backup.name.as_deref().unwrap_or("–")),
                TableCell::new(&r.request_id).styled("mono"),
                TableCell::new(count(r.tables.len() as u64)),
                TableCell::new(count(r.rows)),
                TableCell::new(r.rto.map_or("–".into(), |t| seconds(t.measured_seconds))),
            ]
            .into()
        });
        table(
            ("ledger", "Verifications"),
            &html! {},
            &columns,
            rows.collect(),
        )
    }
}

pub(super) fn ignored(documents: usize) -> String {
    let were = if documents == 1 { "was" } else { "were" };
    format!(
        "{} {were} ignored",
        super::output::count(documents as u64, "evidence document")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::DatabaseStatus;
    use crate::policy::{Depth, Trigger};

    fn at(day: i64) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(24 * day)
    }

    fn proof(day: i64, set: &str) -> VerificationReport {
        let mut r = VerificationReport::new("<r>", Trigger::Schedule, Depth::Restore, at(day));
        r.verdict = Verdict::Verified;
        r.depth = Some(Depth::Restore);
        r.backup_set = set.into();
        r.rto = Some(Rto {
            measured_seconds: day as f64,
            forecast_seconds: 1.0,
            samples: 1,
        });
        r
    }

    /// A ledger of 30 days with these verifications, newest first.
    fn ledger(verifications: Vec<VerificationReport>) -> Ledger {
        let set = BackupSetStatus {
            name: "orders".into(),
            last_proof: None,
            proven_backup: None,
            proven_created: None,
            proven_depth: None,
            last_verdict: None,
            rto: None,
            trend: vec![],
            is_signed: false,
            databases: vec![],
            is_limited: false,
        };
        Ledger {
            since: at(0),
            until: at(30),
            verified: verifications.len(),
            failed: 0,
            inconclusive: 0,
            restored: verifications.len(),
            is_signed: false,
            left_out: 1,
            is_cut: false,
            unread: vec![],
            sets: vec![set],
            verifications,
        }
    }

    #[test]
    fn the_page_shows_the_longest_time_without_a_proof() {
        let days = |l: &Ledger| l.longest_gap(&l.of_set("orders").collect::<Vec<_>>()) / 86400.0;
        assert_eq!(days(&ledger(vec![])), 30.0);
        let l = ledger(vec![
            proof(28, "orders"),
            proof(15, "other"),
            proof(10, "orders"),
        ]);
        assert_eq!(days(&l), 18.0);
        assert!(l.page().contains("18.0 days"), "{}", l.page());
    }

    /// A set is as fresh as its stalest database, which says nothing of the others.
    #[test]
    fn the_page_names_every_database_of_a_set() {
        let of = |day, database: &str| VerificationReport {
            database: Some(database.into()),
            ..proof(day, "orders")
        };
        let mut l = ledger(vec![of(28, "shop"), of(5, "app")]);
        let status = |database: &str, day| DatabaseStatus {
            database: Some(database.into()),
            last_proof: Some(at(day)),
            ..DatabaseStatus::default()
        };
        l.sets[0].databases = vec![status("shop", 28), status("app", 5)];
        l.sets[0].last_proof = Some(at(5));
        let page = l.page();
        for (database, days) in [("shop", "28.0 days"), ("app", "25.0 days")] {
            let row = page
                .split("<tr")
                .find(|row| row.contains(&format!("<div>{database}</div>")));
            assert!(
                row.is_some_and(|row| row.contains(days)),
                "{database}: {page}"
            );
        }
        assert!(page.contains("2 databases: the stalest counts"), "{page}");
    }

    #[test]
    fn the_page_says_what_it_rests_on_and_what_went_wrong() {
        let mut failed = proof(3, "orders");
        failed.verdict = Verdict::Failed;
        failed.fix = Some("take a <new> backup".into());
        let html = ledger(vec![failed, proof(2, "orders"), proof(1, "orders")]).page();
        for text in [
            "can forge it; 1 evidence document was ignored.",
            "take a &lt;new&gt; backup",
            "2 restores of orders: the first took 1.0 s, the last 2.0 s, the longest 2.0 s.",
            "&lt;r&gt;",
        ] {
            assert!(html.contains(text), "{text}: {html}");
        }
        assert!(!html.contains("<script"), "{html}");
        assert!(
            ledger(vec![])
                .page()
                .contains("No verification failed or was inconclusive.")
        );
    }
}
