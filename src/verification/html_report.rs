//! HTML reports of verifications: one file each, without scripts or external resources.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::event::Verdict;
use crate::proof::{Check, CheckStatus, Isolation, Rto, TableProof, VerificationReport};

const CSS: &str = include_str!("page.css");
/// Most tables to show; the JSON document lists all.
const TABLES: usize = 500;

/// A complete HTML document around `body`.
fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Names and messages come from backups and must not load or run anything.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
                // An empty icon, so that browsers do not request one.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(CSS)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

fn class_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Verified => "good",
        Verdict::Failed => "bad",
        Verdict::Inconclusive => "warn",
    }
}

/// CSS class and text of a check's status.
fn status_label(status: CheckStatus) -> (&'static str, &'static str) {
    match status {
        CheckStatus::Passed => ("good", "✓ passed"),
        CheckStatus::Failed => ("bad", "✗ failed"),
        CheckStatus::Warned => ("warn", "! note"),
        CheckStatus::NotChecked => ("warn", "? not checked"),
    }
}

fn seconds(s: f64) -> String {
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

fn count(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

fn time(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A value with its label.
fn stat(label: &str, value: &str) -> Markup {
    html! { div.fact { b { (value) } span { (label) } } }
}

/// The report of one verification; `envelope` is the name of the evidence document beside it, and whether
/// that is signed.
pub fn page(r: &VerificationReport, envelope: Option<(&str, bool)>) -> String {
    let name = r.backup.name.as_deref().unwrap_or("standard input");
    let body = html! {
        div class={"badge " (class_of(r.verdict))} role="status" { (verdict(r)) }
        h1 { (name) }
        p.soft { (r.claim()) ". " (time(r.finished_at)) ", set " (r.backup_set) "." }
        @if let Some(e) = &r.error {
            div.box {
                b { (e.message) }
                br;
                span.soft { "reason " (e.reason.as_str()) ", blame " (format!("{:?}", e.blame).to_lowercase()) ", stage " (e.stage) }
                @if let Some(fix) = &r.fix { p { "What to do: " (fix) } }
            }
        }
        div.facts {
            @let depth = r.depth.map_or("nothing", |d| d.as_str());
            (stat("depth reached", depth))
            (stat("tables", &count(r.tables.len() as u64)))
            (stat("rows", &count(r.rows)))
            (stat("data", &bytes(r.bytes)))
            @if let Some(rto) = &r.rto { (restore_time(rto)) }
            (stat("this verification", &seconds(r.duration_seconds)))
        }
        (checks(&r.checks))
        (bisection(r))
        (drift(r))
        (stages(r))
        (tables(&r.tables))
        (details(r, envelope))
    };
    document(&format!("{}: {name}", verdict(r)), &body)
}

/// The verdict and, unless the backup was restored, the depth that was reached.
fn verdict(r: &VerificationReport) -> String {
    match (r.is_verified() && !r.is_proof(), r.depth) {
        (true, Some(depth)) => format!("verified: {} only", depth.as_str()),
        _ => r.verdict.as_str().to_owned(),
    }
}

fn restore_time(rto: &Rto) -> Markup {
    html! {
        (stat("restore time", &seconds(rto.measured_seconds)))
        (stat(&format!("forecast ({} {})", rto.samples, if rto.samples == 1 { "restore" } else { "restores" }), &seconds(rto.forecast_seconds)))
    }
}

fn checks(all: &[Check]) -> Markup {
    if all.is_empty() {
        return html! {};
    }
    html! {
        h2 id="checks" { "Checks" }
        div.scroll tabindex="0" role="region" aria-labelledby="checks" {
            table {
                thead { tr { th { "Result" } th { "Check" } th { "Details" } } }
                tbody {
                    @for c in all {
                        @let (class, word) = status_label(c.status);
                        tr {
                            td class=(class) style="white-space:nowrap" { (word) }
                            td { (c.title()) }
                            td {
                                (c.message)
                                @if let Some(fix) = &c.fix { @if c.status != CheckStatus::Passed { div.soft { "What to do: " (fix) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn bisection(r: &VerificationReport) -> Markup {
    let Some(b) = &r.bisection else {
        return html! {};
    };
    let name = |o: &Option<crate::event::ResultBackup>| {
        o.as_ref()
            .and_then(|b| b.name.clone())
            .unwrap_or_else(|| "none found".into())
    };
    html! {
        h2 { "First bad backup" }
        p {
            "Last good backup: " b { (name(&b.last_good)) } ". First bad backup: " b { (name(&b.first_bad)) } "."
            @if !b.exact { " Backups between them were not verified." }
            " " span.soft { @if b.probes.len() == 1 { "1 older backup was verified." } @else { (b.probes.len()) " older backups were verified." } }
        }
    }
}

fn drift(r: &VerificationReport) -> Markup {
    let Some(d) = &r.drift else { return html! {} };
    html! {
        h2 { "Compared with the last proven backup" }
        p.soft { "Generation " span.mono { (d.compared_with) } "; the expected ranges are based on " (d.samples) @if d.samples == 1 { " proven backup." } @else { " proven backups." } }
        @if d.findings.is_empty() { p { "No unusual changes." } }
        @else { ul { @for f in &d.findings { li { (f) } } } }
    }
}

fn stages(r: &VerificationReport) -> Markup {
    let all: f64 = r.stages.values().sum::<f64>().max(f64::MIN_POSITIVE);
    let mut stages: Vec<_> = r.stages.iter().collect();
    stages.sort_by(|a, b| b.1.total_cmp(a.1));
    html! {
        h2 id="time" { "Time per stage" }
        div.scroll tabindex="0" role="region" aria-labelledby="time" {
            table { tbody {
                @for (name, s) in stages {
                    tr {
                        td { (name) }
                        td.num { (seconds(*s)) }
                        td style="width:60%" { div.bar aria-hidden="true" { i style={"width:" (format!("{:.1}", s / all * 100.0)) "%"} {} } }
                    }
                }
            } }
        }
    }
}

fn tables(all: &[TableProof]) -> Markup {
    if all.is_empty() {
        return html! {};
    }
    let mut tables: Vec<&TableProof> = all.iter().collect();
    tables.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    let newest = |t: &TableProof| {
        t.columns
            .iter()
            .filter_map(|c| c.span.as_ref())
            .map(|s| s.newest.clone())
            .max()
    };
    html! {
        h2 id="tables" { "Tables" }
        div.scroll tabindex="0" role="region" aria-labelledby="tables" {
            table {
                thead { tr { th { "Table" } th.num { "Rows in the archive" } th.num { "Rows restored" } th.num { "Size" } th { "Newest timestamp" } } }
                tbody {
                    @for t in tables.iter().take(TABLES) {
                        @let same = t.restored_rows.is_none_or(|n| n == t.rows);
                        tr {
                            td { (t.name) }
                            td.num { (count(t.rows)) }
                            td class=(if same { "num" } else { "num bad" }) { (t.restored_rows.map_or("–".into(), count)) }
                            td.num { (bytes(t.bytes)) }
                            td.soft { (newest(t).unwrap_or_default()) }
                        }
                    }
                }
            }
        }
        @if all.len() > TABLES { p.soft { (all.len() - TABLES) " more are in the JSON document." } }
    }
}

fn details(r: &VerificationReport, envelope: Option<(&str, bool)>) -> Markup {
    let row = |name: &str, value: &str| html! { tr { th { (name) } td.mono { (value) } } };
    let isolation = r
        .server
        .as_ref()
        .and_then(|s| s.isolation.as_ref())
        .map(Isolation::summary);
    html! {
        h2 id="backup" { "Backup and verification" }
        div.scroll tabindex="0" role="region" aria-labelledby="backup" { table { tbody {
            @if let Some(database) = &r.database { (row("Database", database)) }
            (row("Object", r.backup.uri.as_deref().unwrap_or("standard input")))
            (row("Generation", r.backup.generation.as_deref().unwrap_or("–")))
            (row("Size", r.backup.size.as_deref().unwrap_or("–")))
            (row("CRC32C", r.backup.crc32c.as_deref().unwrap_or("–")))
            @if let Some(sha) = &r.sha256 { (row("SHA-256", sha)) }
            @if let Some(a) = &r.archive {
                (row("Archive", &format!("{}, {}, from PostgreSQL {} by pg_dump {}", a.format, a.encoding, a.server_version, a.pg_dump_version)))
            }
            @if let Some(s) = &r.server { (row("Restored into", &format!("{}, PostgreSQL {}", s.kind, s.version))) }
            @if let Some(i) = &isolation { (row("Isolation", i)) }
            (row("Request", &r.request_id))
            (row("Worker", &format!("pgrestored {}", r.worker_version)))
        } } }
        @if !r.notes.is_empty() || !r.rewrites.is_empty() {
            details {
                summary { "Notes (" (r.notes.len() + r.rewrites.len()) ")" }
                ul {
                    @for n in &r.notes { li { (n) } }
                    @for w in &r.rewrites { li { (w.count) " × " (w.rule) ": " (w.what) } }
                }
            }
        }
        @if let Some((file, signed)) = envelope {
            p {
                @if signed { "The complete report is a signed document: " }
                @else { "The complete report is a document, which is not signed: " }
                a href=(file) { (file) } "; check it with " span.mono { "pgrestored evidence verify" } "."
                @if signed { " This page itself is not signed and proves nothing." }
            }
        }
    }
}

/// A page that lists verifications in the given order.
pub fn ledger_page(reports: &[VerificationReport], title: &str) -> String {
    let of = |v| reports.iter().filter(|r| r.verdict == v).count() as u64;
    let body = html! {
        h1 { "Restore proofs" }
        p.soft { (title) }
        div.facts {
            (stat("verifications", &count(reports.len() as u64)))
            (stat("restored and verified", &count(reports.iter().filter(|r| r.is_proof()).count() as u64)))
            (stat("verified, not restored", &count(reports.iter().filter(|r| r.is_verified() && !r.is_proof()).count() as u64)))
            (stat("failed", &count(of(Verdict::Failed))))
            (stat("inconclusive", &count(of(Verdict::Inconclusive))))
        }
        h2 id="ledger" { "Verifications" }
        div.scroll tabindex="0" role="region" aria-labelledby="ledger" {
            table {
                thead { tr { th { "When" } th { "Verdict" } th { "Set" } th { "Backup" } th.num { "Tables" } th.num { "Rows" } th.num { "Restore time" } } }
                tbody {
                    @for r in reports {
                        tr {
                            td style="white-space:nowrap" { (r.finished_at.strftime("%Y-%m-%d %H:%M").to_string()) }
                            td class=(class_of(r.verdict)) { (verdict(r)) " " span.soft { (r.depth.map_or("", |d| d.as_str())) } }
                            td { (r.backup_set) }
                            td { (r.backup.name.as_deref().unwrap_or("–"))
                                @if let Some(e) = &r.error { div.soft { (e.message) } } }
                            td.num { (count(r.tables.len() as u64)) }
                            td.num { (count(r.rows)) }
                            td.num { (r.rto.map_or("–".into(), |t| seconds(t.measured_seconds))) }
                        }
                    }
                }
            }
        }
    };
    document("Restore proofs", &body)
}

#[cfg(test)]
mod tests {
    use crate::verification::evidence::tests::report;

    #[test]
    fn names_from_outside_are_escaped() {
        let mut r = report("<script>alert(1)</script>");
        r.backup.name = Some("<img src=x onerror=alert(1)>".into());
        let html = super::page(&r, None);
        assert!(
            !html.contains("<script") && !html.contains("<img"),
            "{html}"
        );
        assert!(super::ledger_page(&[r], "x").contains("&lt;img"));
    }

    #[test]
    fn a_page_claims_no_more_than_the_reached_depth() {
        use crate::policy::Depth;
        for (depth, badge, says) in [
            (
                Depth::Object,
                "verified: object only",
                "neither opened nor restored",
            ),
            (
                Depth::Archive,
                "verified: archive only",
                "it was not restored",
            ),
            (
                Depth::Restore,
                ">verified<",
                "the restored rows were not compared",
            ),
            (Depth::Data, ">verified<", "the restored data matches it"),
        ] {
            let mut r = report("r");
            (r.depth, r.depth_requested) = (Some(depth), depth);
            let html = super::page(&r, Some(("x.dsse.json", false)));
            assert!(
                html.contains(badge) && html.contains(says),
                "{depth:?}: {html}"
            );
            assert_eq!(
                html.contains("the restored data matches it"),
                depth == Depth::Data
            );
            // Less was reached than requested.
            r.depth_requested = Depth::Data;
            let less = super::page(&r, None);
            assert_eq!(
                less.contains("not all of the restored rows could be compared"),
                depth == Depth::Restore
            );
            assert!(html.contains("which is not signed"), "{html}");
            let ledger = super::ledger_page(&[r], "x");
            assert!(
                ledger.contains(badge.trim_end_matches('<')),
                "{depth:?}: {ledger}"
            );
        }
    }
}
