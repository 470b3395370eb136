//! Building blocks of HTML pages. A page is one file without scripts and without resources from elsewhere; on a phone,
//! each row of a table is a card.

mod trend;

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use crate::error::is_unsafe;

pub(crate) use trend::{TrendBar, trend};

const CSS: &str = include_str!("html/page.css");

/// A complete HTML document around `body`, with further `rules` of CSS.
pub(crate) fn document(title: &str, rules: &str, body: &Markup) -> String {
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
                style { (PreEscaped(CSS)) (PreEscaped(rules)) }
            }
            body { main { (body) } }
        }
    };
    without_controls(page.into_string())
}

/// The page with the control and direction characters of names and messages escaped, as on a terminal.
fn without_controls(page: String) -> String {
    let is_foreign = |c| is_unsafe(c) && c != '\n';
    if !page.contains(is_foreign) {
        return page;
    }
    let mut escaped = String::with_capacity(page.len());
    for c in page.chars() {
        if is_foreign(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A value with its label.
pub(crate) fn stat(label: &str, value: &str) -> Markup {
    html! { div.fact { b { (value) } span { (label) } } }
}

/// A column of a table.
pub(crate) struct TableColumn {
    heading: &'static str,
    class: &'static str,
}

impl TableColumn {
    pub const fn text(heading: &'static str) -> Self {
        TableColumn { heading, class: "" }
    }

    pub const fn number(heading: &'static str) -> Self {
        TableColumn {
            heading,
            class: "num",
        }
    }
}

/// A cell of a table.
pub(crate) struct TableCell {
    class: &'static str,
    content: Markup,
}

impl TableCell {
    pub fn new(content: impl Render) -> Self {
        TableCell {
            class: "",
            content: content.render(),
        }
    }

    /// The same in the style of this CSS class, in addition to that of its column.
    pub fn styled(self, class: &'static str) -> Self {
        TableCell { class, ..self }
    }
}

/// A row of a table, with CSS classes by which a filter may hide it.
pub(crate) struct TableRow {
    pub classes: String,
    pub cells: Vec<TableCell>,
}

impl From<Vec<TableCell>> for TableRow {
    fn from(cells: Vec<TableCell>) -> Self {
        TableRow {
            classes: String::new(),
            cells,
        }
    }
}

/// A table with a heading, before which `above` stands. The heading has the id `id`, which names the table for screen
/// readers; roles are given because cards are not displayed as a table.
pub(crate) fn table(
    (id, heading): (&str, &str),
    above: &Markup,
    columns: &[TableColumn],
    rows: Vec<TableRow>,
) -> Markup {
    let class = |column: &TableColumn, cell: &TableCell| format!("{} {}", column.class, cell.class);
    html! {
        h2 id=(id) { (heading) }
        (above)
        div.scroll tabindex="0" role="region" aria-labelledby=(id) {
            table.cards role="table" aria-labelledby=(id) {
                thead role="rowgroup" {
                    tr role="row" {
                        @for c in columns { th class=(c.class) role="columnheader" scope="col" { (c.heading) } }
                    }
                }
                tbody role="rowgroup" {
                    @for row in &rows {
                        tr class=(row.classes) role="row" {
                            @for (cell, c) in row.cells.iter().zip(columns) {
                                td class=(class(c, cell).trim()) role="cell" data-label=(c.heading) { div { (cell.content) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A table of names and values with a heading.
pub(crate) fn pairs((id, heading): (&str, &str), rows: &[(&str, String)]) -> Markup {
    html! {
        h2 id=(id) { (heading) }
        div.scroll tabindex="0" role="region" aria-labelledby=(id) {
            table.pairs role="table" aria-labelledby=(id) {
                tbody role="rowgroup" {
                    @for (name, value) in rows {
                        tr role="row" { th role="rowheader" scope="row" { (name) } td.mono role="cell" { (value) } }
                    }
                }
            }
        }
    }
}

pub(crate) fn seconds(s: f64) -> String {
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

pub(crate) fn count(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// A size in a unit and in bytes.
pub(crate) fn exact_size(n: u64) -> String {
    match n {
        1 => "1 byte".to_owned(),
        n if n < 1024 => format!("{n} bytes"),
        n => format!("{} ({} bytes)", bytes(n), count(n)),
    }
}

pub(crate) fn time(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_says_its_column() {
        let columns = [TableColumn::text("Table"), TableColumn::number("Rows")];
        let cells = vec![TableCell::new("<b>"), TableCell::new("1").styled("bad")];
        let html = table(("t", "Tables"), &html! {}, &columns, vec![cells.into()]).into_string();
        assert!(
            html.contains(r#"data-label="Table"><div>&lt;b&gt;"#),
            "{html}"
        );
        assert!(
            html.contains(r#"class="num bad" role="cell" data-label="Rows""#),
            "{html}"
        );
    }

    #[test]
    fn names_bring_no_control_characters() {
        let name = "a\u{1b}]0;x\u{7}\r\u{9b}2J\u{202e}<\u{0}é";
        let page = document(name, "", &html! { p title=(name) { (name) } });
        assert!(!page.contains(|c| is_unsafe(c) && c != '\n'), "{page}");
        let shown = r"a\u{1b}]0;x\u{7}\r\u{9b}2J\u{202e}&lt;\u{0}é";
        assert_eq!(page.matches(shown).count(), 3, "{page}");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(exact_size(1), "1 byte");
        assert_eq!(exact_size(9), "9 bytes");
        assert_eq!(exact_size(3 << 20), "3.00 MiB (3,145,728 bytes)");
    }
}
