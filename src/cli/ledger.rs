//! What `report` shows: the verifications of a period, as JSON and as a page for an auditor.

use maud::{Markup, html};

use crate::html::{
    TableCell, TableColumn, TrendBar, bytes, count, document, seconds, stat, table, time, trend,
};
use crate::manager::BackupSetStatus;
use crate::proof::{Verdict, VerificationReport};
use crate::verification::{class_of, headline};

/// Most restores in the chart of a set.
const SAMPLES: usize = 60;

/// Said where a ledger is cut.
pub(super) const CUT: &str = "older verifications of this time are not listed, because all of them do not fit into memory: \
    choose a shorter --since, or one --set";

/// What `report` prints as JSON.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Ledger {
    pub since: jiff::Timestamp,
    pub until: jiff::Timestamp,
    pub verified: usize,
    pub failed: usize,
    pub inconclusive: usize,
    /// Number of verified backups that were restored; the others were only read.
    pub restored: usize,
    /// Whether only evidence that a trusted key signed counts.
    pub is_signed: bool,
    /// Number of ignored documents: not signed by a trusted key, in the wrong location, or unreadable.
    pub left_out: usize,
    /// Whether older verifications of this time are not listed, because all of them would take more than 1 GiB of memory.
    pub is_cut: bool,
    pub sets: Vec<BackupSetStatus>,
    /// Newest first.
    pub verifications: Vec<VerificationReport>,
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
            TableColumn::text("Last proven"),
            TableColumn::number("Proofs"),
            TableColumn::number("Failed"),
            TableColumn::text("Longest time without a proof"),
            TableColumn::number("Restore time"),
            TableColumn::number("Forecast"),
        ];
        let rows = self.sets.iter().map(|s| {
            let proofs = self.of_set(&s.name).filter(|r| r.is_proof()).count();
            let failed = self
                .of_set(&s.name)
                .filter(|r| r.verdict == Verdict::Failed)
                .count();
            let failed_cell = TableCell::new(count(failed as u64));
            let proven = s.last_proof.map_or("never".into(), time);
            let proven = html! {
                (proven)
                @if let Some(backup) = &s.proven_backup { div.soft { (backup) } }
            };
            let took = |pick: fn(&crate::proof::Rto) -> f64| {
                s.rto.as_ref().map_or("–".into(), |r| seconds(pick(r)))
            };
            let cells = vec![
                TableCell::new(&s.name),
                TableCell::new(proven).styled(if s.last_proof.is_some() { "" } else { "bad" }),
                TableCell::new(count(proofs as u64)),
                if failed > 0 {
                    failed_cell.styled("bad")
                } else {
                    failed_cell
                },
                TableCell::new(seconds(self.longest_gap(&s.name))),
                TableCell::new(took(|r| r.measured_seconds)),
                TableCell::new(took(|r| r.forecast_seconds)),
            ];
            cells.into()
        });
        table(("sets", "Backup sets"), &html! {}, &columns, rows.collect())
    }

    /// The longest time of the period in which no backup of the set was proven, in seconds.
    fn longest_gap(&self, set: &str) -> f64 {
        let proofs = self
            .of_set(set)
            .filter(|r| r.is_proof())
            .map(|r| r.finished_at);
        // Newest first, as the verifications are.
        let ends: Vec<_> = std::iter::once(self.until)
            .chain(proofs)
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
    use crate::policy::{Depth, Trigger};
    use crate::proof::Rto;

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
            sets: vec![set],
            verifications,
        }
    }

    #[test]
    fn the_page_shows_the_longest_time_without_a_proof() {
        let days = |l: &Ledger| l.longest_gap("orders") / 86400.0;
        assert_eq!(days(&ledger(vec![])), 30.0);
        let l = ledger(vec![
            proof(28, "orders"),
            proof(15, "other"),
            proof(10, "orders"),
        ]);
        assert_eq!(days(&l), 18.0);
        assert!(l.page().contains("18.0 days"), "{}", l.page());
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
