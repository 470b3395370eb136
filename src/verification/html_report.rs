//! The page of a proof: the HTML report of one verification.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::verdict_label::{class_of, headline};
use crate::html::{
    TableCell, TableColumn, TableRow, TrendBar, bytes, count, document, exact_size, pairs, seconds,
    stat, table, time, trend,
};
use crate::proof::{
    Check, CheckStatus, Isolation, RestoreSample, Rto, TableProof, VerificationReport,
};

/// Most tables to show; the JSON document lists all.
const TABLES: usize = 500;
/// Most schemas to choose from in the list of tables, the ones with the most tables first.
const SCHEMAS: usize = 20;
/// Most earlier restores in the chart.
const SAMPLES: usize = 30;

/// CSS class and text of a check's status.
fn status_label(status: CheckStatus) -> (&'static str, &'static str) {
    match status {
        CheckStatus::Passed => ("good", "✓ passed"),
        CheckStatus::Failed => ("bad", "✗ failed"),
        CheckStatus::Warned => ("warn", "! note"),
        CheckStatus::NotChecked => ("warn", "? not checked"),
    }
}

/// The evidence of a report, as its page names it.
#[derive(Debug, Clone, Copy)]
pub struct DocumentLink<'a> {
    /// Its URI, or its name beside the page.
    pub name: &'a str,
    /// Whether a browser can open it under this name.
    pub is_link: bool,
    /// Id of the key that signed it; `None` if it is not signed.
    pub signed_by: Option<&'a str>,
}

/// The report of one verification, and its evidence, if there is any.
pub fn page(r: &VerificationReport, evidence: Option<DocumentLink<'_>>) -> String {
    let name = r.backup.name.as_deref().unwrap_or(r.about());
    let groups = TableGroups::of(r);
    let body = html! {
        div class={"badge " (class_of(r.verdict))} role="status" { (headline(r)) }
        h1 { (name) }
        p.soft { (r.verdict_sentence()) ". " (time(r.finished_at)) ", set " (r.backup_set) "." }
        @if let Some(e) = &r.error {
            div.box {
                b { (e.message) }
                br;
                span.soft { "reason " (e.reason.as_str()) ", blame " (e.blame.as_str()) ", stage " (e.stage) }
                @if let Some(fix) = &r.fix { p { "What to do: " (fix) } }
            }
        }
        div.facts {
            @let depth = r.depth.map_or("nothing", |d| d.as_str());
            (stat("depth reached", depth))
            (stat("tables", &count(r.tables.len() as u64)))
            (stat("rows", &count(r.rows)))
            (stat("data", &bytes(r.bytes)))
            @if let Some(rto) = &r.rto { (restore_facts(rto)) }
            (stat("this verification", &seconds(r.duration_seconds)))
        }
        (signature(evidence))
        (checks(&r.checks))
        (bisection(r))
        (drift(r))
        (restore_time(r))
        (stages(r))
        (tables(&r.tables, &groups))
        (details(r))
    };
    document(&format!("{}: {name}", headline(r)), &groups.rules(), &body)
}

/// Whether the evidence is signed, by which key, and where it is.
fn signature(evidence: Option<DocumentLink<'_>>) -> Markup {
    let Some(document) = evidence else {
        return html! {
            p id="signature" { "No evidence of this verification was written: this page proves nothing." }
        };
    };
    let name = html! {
        @if document.is_link { a href=(document.name) { (document.name) } }
        @else { span.mono { (document.name) } }
    };
    html! {
        p id="signature" {
            @match document.signed_by {
                Some(key) => { b.good { "Signed evidence: " } (name) ", by the key " span.mono { (key) } "." }
                None => { b.warn { "Evidence that is not signed: " } (name) ". Anyone who may create objects there can forge it." }
            }
            " Check it with " span.mono { "pgrestored evidence verify" } "; this page itself proves nothing."
        }
    }
}

fn restores(n: u64) -> String {
    format!(
        "{} {}",
        count(n),
        if n == 1 { "restore" } else { "restores" }
    )
}

fn restore_facts(rto: &Rto) -> Markup {
    let forecast = format!("forecast, from {}", restores(rto.samples.into()));
    html! {
        (stat("restore time", &seconds(rto.measured_seconds)))
        (stat(&forecast, &seconds(rto.forecast_seconds)))
    }
}

/// How long the restore took, beside those of earlier proven backups.
fn restore_time(r: &VerificationReport) -> Markup {
    let Some(rto) = &r.rto else {
        return html! {
            h2 { "Restore time" }
            p.soft { "Not measured, because the backup was not restored to the end." }
        };
    };
    let earlier = &r.trend[r.trend.len().saturating_sub(SAMPLES)..];
    let this = RestoreSample {
        finished_at: r.finished_at,
        measured_seconds: rto.measured_seconds,
        bytes: r.bytes,
    };
    let label = |s: &RestoreSample| {
        let size = bytes(s.bytes);
        format!(
            "{}: {} for {size}",
            time(s.finished_at),
            seconds(s.measured_seconds)
        )
    };
    let mut bars: Vec<TrendBar> = earlier
        .iter()
        .map(|s| TrendBar {
            class: "past",
            label: label(s),
            seconds: s.measured_seconds,
        })
        .collect();
    bars.push(TrendBar {
        class: "now",
        label: label(&this),
        seconds: this.measured_seconds,
    });
    let next = seconds(rto.forecast_seconds);
    bars.push(TrendBar {
        class: "next",
        label: format!("forecast: {next}"),
        seconds: rto.forecast_seconds,
    });
    let summary = format!(
        "This restore took {}; the next one is expected to take {next}, going by {}.",
        seconds(rto.measured_seconds),
        restores(rto.samples.into())
    );
    html! {
        h2 { "Restore time" }
        p { (summary) }
        @if earlier.is_empty() { p.soft { "There is no earlier proof of this set and database to compare with." } }
        @else {
            (trend(&bars, &summary))
            p.soft { "Grey: earlier proven backups, oldest first. Solid: this one. Dashed: the forecast." }
            details {
                summary { "Restore times (" (count(bars.len() as u64 - 1)) ")" }
                ul { @for s in earlier.iter().chain([&this]) { li { (label(s)) } } }
            }
        }
    }
}

fn checks(all: &[Check]) -> Markup {
    if all.is_empty() {
        return html! {};
    }
    let columns = [
        TableColumn::text("Result"),
        TableColumn::text("Check"),
        TableColumn::text("Details"),
    ];
    let rows = all.iter().map(|c| {
        let (class, word) = status_label(c.status);
        let details = html! {
            (c.message)
            @if let Some(fix) = &c.fix { @if c.status != CheckStatus::Passed { div.soft { "What to do: " (fix) } } }
        };
        let word = html! { span.one-line { (word) } };
        vec![TableCell::new(word).styled(class), TableCell::new(c.title()), TableCell::new(details)].into()
    });
    table(("checks", "Checks"), &html! {}, &columns, rows.collect())
}

fn bisection(r: &VerificationReport) -> Markup {
    let Some(b) = &r.bisection else {
        return html! {};
    };
    let (last_good, first_bad) = b.names();
    html! {
        h2 { "First bad backup" }
        p {
            "Last good backup: " b { (last_good) } ". First bad backup: " b { (first_bad) } "."
            @if !b.exact && b.left_out.is_empty() { " Backups between them were not verified." }
            " " span.soft { @if b.probes.len() == 1 { "1 older backup was verified." } @else { (b.probes.len()) " older backups were verified." } }
        }
        @if let Some(left_out) = b.left_out_note() { p { (left_out) } }
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
        p.soft { "A stage ends when the next one begins. Rows that were read by then are loaded while indexes are built." }
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

/// The groups of tables that a reader can choose: those that differ, and each schema.
struct TableGroups<'a> {
    /// Names of the tables that differ from the archive.
    differing: Vec<&'a str>,
    /// Schemas with their number of tables, the largest first.
    schemas: Vec<(&'a str, usize)>,
}

fn schema_of(table: &str) -> &str {
    table.split_once('.').map_or("", |(schema, _)| schema)
}

impl<'a> TableGroups<'a> {
    fn of(r: &'a VerificationReport) -> Self {
        let has_failed = |name: &str| {
            let of_table = |c: &&Check| c.subject.as_deref() == Some(name);
            let mut checks = r.checks.iter().filter(of_table);
            checks.any(|c| c.status == CheckStatus::Failed)
        };
        let differs =
            |t: &&TableProof| t.restored_rows.is_some_and(|n| n != t.rows) || has_failed(&t.name);
        let mut schemas: BTreeMap<&str, usize> = BTreeMap::new();
        for t in shown(&r.tables) {
            *schemas.entry(schema_of(&t.name)).or_default() += 1;
        }
        let mut schemas: Vec<_> = schemas.into_iter().collect();
        schemas.sort_by_key(|(_, tables)| std::cmp::Reverse(*tables));
        schemas.truncate(SCHEMAS);
        let differing = shown(&r.tables).into_iter().filter(differs);
        TableGroups {
            differing: differing.map(|t| t.name.as_str()).collect(),
            schemas,
        }
    }

    /// CSS classes of a table's row, by which [`TableGroups::rules`] finds it.
    fn classes(&self, table: &TableProof) -> String {
        let differs = self.differing.contains(&table.name.as_str());
        let schema = self
            .schemas
            .iter()
            .position(|(name, _)| *name == schema_of(&table.name));
        let schema = schema.map(|i| format!(" s{i}")).unwrap_or_default();
        format!("t{schema}{}", if differs { " differs" } else { "" })
    }

    /// What can be chosen: the id of the choice, the class of its rows and its label.
    fn choices(&self) -> Vec<(String, String, String)> {
        let differing = match self.differing.len() {
            0 => None,
            n => Some((
                "show-differs".to_owned(),
                "differs".to_owned(),
                format!("different ({n})"),
            )),
        };
        let schemas = self
            .schemas
            .iter()
            .enumerate()
            .filter(|_| self.schemas.len() > 1);
        let schemas = schemas.map(|(i, (name, n))| {
            let name = if name.is_empty() { "no schema" } else { name };
            (
                format!("show-s{i}"),
                format!("s{i}"),
                format!("{name} ({n})"),
            )
        });
        differing.into_iter().chain(schemas).collect()
    }

    /// The rules that hide the other rows. They work without a script.
    fn rules(&self) -> String {
        let rule = |(id, class, _): (String, String, String)| {
            format!("main:has(#{id}:checked) tr.t:not(.{class}){{display:none}}")
        };
        self.choices().into_iter().map(rule).collect()
    }

    fn filter(&self, all: usize) -> Markup {
        let choices = self.choices();
        if choices.is_empty() {
            return html! {};
        }
        html! {
            fieldset.filter {
                legend { "Show tables" }
                label { input type="radio" name="show" id="show-all" checked; " all (" (all) ")" }
                @for (id, _, text) in &choices {
                    label { input type="radio" name="show" id=(id); " " (text) }
                }
            }
        }
    }
}

/// The tables that the page shows, largest first.
fn shown(all: &[TableProof]) -> Vec<&TableProof> {
    let mut tables: Vec<&TableProof> = all.iter().collect();
    tables.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    tables.truncate(TABLES);
    tables
}

fn tables(all: &[TableProof], groups: &TableGroups<'_>) -> Markup {
    if all.is_empty() {
        return html! {};
    }
    let columns = [
        TableColumn::text("Table"),
        TableColumn::number("Rows in the archive"),
        TableColumn::number("Rows restored"),
        TableColumn::number("Size"),
        TableColumn::text("Newest timestamp"),
    ];
    let newest = |t: &TableProof| {
        let spans = t.columns.iter().filter_map(|c| c.span.as_ref());
        spans.map(|s| s.newest.clone()).max()
    };
    let shown = shown(all);
    let rows = shown.iter().map(|t| {
        let same = t.restored_rows.is_none_or(|n| n == t.rows);
        let restored = TableCell::new(t.restored_rows.map_or("–".into(), count));
        TableRow {
            classes: groups.classes(t),
            cells: vec![
                TableCell::new(&t.name),
                TableCell::new(count(t.rows)),
                if same {
                    restored
                } else {
                    restored.styled("bad")
                },
                TableCell::new(bytes(t.bytes)),
                TableCell::new(newest(t).unwrap_or_default()).styled("soft"),
            ],
        }
    });
    let filter = groups.filter(shown.len());
    html! {
        (table(("tables", "Tables"), &filter, &columns, rows.collect()))
        @if all.len() > TABLES { p.soft { (count((all.len() - TABLES) as u64)) " more are in the JSON document." } }
    }
}

/// A size that is given as text, as Google's JSON APIs do.
fn size_of(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), exact_size)
}

fn details(r: &VerificationReport) -> Markup {
    let dash = |text: Option<&String>| text.cloned().unwrap_or_else(|| "–".into());
    let uri = r.about().to_owned();
    let archive = r.archive.as_ref().map(|a| {
        format!(
            "{}, {}, from PostgreSQL {} by pg_dump {}",
            a.format, a.encoding, a.server_version, a.pg_dump_version
        )
    });
    let server = r.server.as_ref();
    let isolation = server.and_then(|s| s.isolation.as_ref());
    let rows = [
        ("Database", r.database.clone()),
        ("Object", Some(uri)),
        ("Generation", Some(dash(r.backup.generation.as_ref()))),
        ("Created", r.backup_created.map(time)),
        (
            "Size",
            Some(r.backup.size.as_deref().map_or("–".into(), size_of)),
        ),
        ("CRC32C", Some(dash(r.backup.crc32c.as_ref()))),
        ("SHA-256", r.sha256.clone()),
        ("Archive", archive),
        (
            "Restored into",
            server.map(|s| format!("{}, PostgreSQL {}", s.kind, s.version)),
        ),
        ("Isolation", isolation.map(Isolation::summary)),
        ("Request", Some(r.request_id.clone())),
        ("Worker", Some(format!("pgrestored {}", r.worker_version))),
    ];
    let rows: Vec<(&str, String)> = rows
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    html! {
        (pairs(("backup", "Backup and verification"), &rows))
        @if !r.notes.is_empty() || !r.rewrites.is_empty() {
            details {
                summary { "Notes (" (r.notes.len() + r.rewrites.len()) ")" }
                ul {
                    @for n in &r.notes { li { (n) } }
                    @for w in &r.rewrites { li { (w.count) " × " (w.rule) ": " (w.what) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verification::evidence::tests::report;

    const EVIDENCE: DocumentLink<'_> = DocumentLink {
        name: "x.dsse.json",
        is_link: true,
        signed_by: None,
    };

    fn table(name: &str, rows: u64, restored_rows: Option<u64>) -> TableProof {
        TableProof {
            name: name.into(),
            rows,
            bytes: rows << 10,
            digest: String::new(),
            restored_rows,
            columns: vec![],
        }
    }

    #[test]
    fn names_from_outside_are_escaped() {
        let mut r = report("<script>alert(1)</script>");
        r.backup.name = Some("<img src=x onerror=alert(1)>".into());
        r.tables = vec![table("</style><b>.t", 1, None), table("b.t", 1, None)];
        let html = page(&r, None);
        for tag in ["<script", "<img", "<b>.t"] {
            assert!(!html.contains(tag), "{html}");
        }
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
            let html = page(&r, Some(EVIDENCE));
            assert!(
                html.contains(badge) && html.contains(says),
                "{depth:?}: {html}"
            );
            assert_eq!(
                html.contains("the restored data matches it"),
                depth == Depth::Data
            );
            assert!(html.contains("not signed"), "{html}");
            // Less was reached than requested.
            r.depth_requested = Depth::Data;
            let less = page(&r, None);
            assert_eq!(
                less.contains("not all of the restored rows could be compared"),
                depth == Depth::Restore
            );
        }
    }

    #[test]
    fn the_signature_is_that_of_the_document() {
        let r = report("r");
        let signed = DocumentLink {
            signed_by: Some("c0ffee"),
            ..EVIDENCE
        };
        let html = page(&r, Some(signed));
        assert!(html.contains("Signed evidence") && html.contains("c0ffee"));
        assert!(html.contains(r#"<a href="x.dsse.json">"#), "{html}");
        // A browser cannot open what is in a bucket.
        let remote = DocumentLink {
            name: "gs://b/x.dsse.json",
            is_link: false,
            ..EVIDENCE
        };
        let html = page(&r, Some(remote));
        assert!(
            html.contains("gs://b/x.dsse.json") && !html.contains("<a "),
            "{html}"
        );
        assert!(page(&r, None).contains("No evidence of this verification was written"));
    }

    #[test]
    fn the_restore_time_is_shown_with_its_forecast_and_its_trend() {
        let mut r = report("r");
        assert!(page(&r, None).contains("Not measured"));
        r.rto = Some(Rto {
            measured_seconds: 12.0,
            forecast_seconds: 13.0,
            samples: 1,
        });
        let html = page(&r, None);
        assert!(html.contains("took 12 s") && html.contains("to take 13 s, going by 1 restore."));
        assert!(
            html.contains("no earlier proof") && !html.contains("<svg"),
            "{html}"
        );
        let sample = RestoreSample {
            finished_at: r.finished_at,
            measured_seconds: 10.0,
            bytes: 5,
        };
        r.trend = vec![sample; SAMPLES + 5];
        let html = page(&r, None);
        assert_eq!(html.matches(r#"<rect class="past""#).count(), SAMPLES);
        assert_eq!(html.matches(r#"<rect class="now""#).count(), 1);
    }

    #[test]
    fn tables_can_be_chosen_by_schema_and_by_difference() {
        let mut r = report("r");
        r.tables = vec![table("a.t", 5, Some(5)), table("a.u", 5, Some(4))];
        // One schema and no difference leave nothing to choose.
        let html = page(&r, None);
        assert!(
            html.contains("different (1)") && !html.contains("show-s0"),
            "{html}"
        );
        r.tables.push(table("b.t", 9, Some(9)));
        let html = page(&r, None);
        assert!(html.contains("a (2)") && html.contains("b (1)"), "{html}");
        assert!(html.contains("main:has(#show-s0:checked) tr.t:not(.s0){display:none}"));
        assert!(
            html.contains(r#"class="t s0 differs""#) && html.contains(r#"class="t s1""#),
            "{html}"
        );
        r.tables = vec![table("a.t", 5, Some(5))];
        assert!(!page(&r, None).contains("<fieldset"));
    }

    #[test]
    fn the_size_of_the_object_has_a_unit() {
        let mut r = report("r");
        r.backup.size = Some("3145728".into());
        assert!(page(&r, None).contains("3.00 MiB (3,145,728 bytes)"));
    }
}
