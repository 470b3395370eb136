//! The oldest and newest values of masked columns, which a report does not have: they are values of rows.

use std::collections::HashSet;

use pgdump_archive::{Dialect, TocEntry, Token, tokens};
use pgdump_mask::{ColumnShape, Masking, TableShape};
use pgdump_restore::table_shapes;

use crate::proof::{ColumnProof, TableProof};

/// Removes the spans of the columns that these rules mask, and all of a table that the rules do not fit or leave out. So it does
/// of a table that the entries do not define, as those of SQL text: what it is a partition of, and its labels, are not known.
pub(super) fn remove(tables: &mut [TableProof], entries: &[TocEntry], masking: &Masking) {
    let shapes = table_shapes(entries);
    for table in tables {
        let known = schema_and_name(&table.name).and_then(|name| shapes.get(&name));
        let masked = known.and_then(|known| masked_columns(table, known, masking));
        for column in &mut table.columns {
            if masked.as_ref().is_none_or(|m| m.contains(&column.name)) {
                column.span = None;
            }
        }
    }
}

/// The names in a table's name as SQL has it; `None` if it does not say the schema.
fn schema_and_name(table: &str) -> Option<(String, String)> {
    let words = tokens(table, Dialect::default());
    let mut names = words.iter().filter_map(Token::name);
    match (names.next(), names.next(), names.next()) {
        (Some(schema), Some(name), None) => Some((schema, name)),
        _ => None,
    }
}

/// The columns whose values the rules change; `None` if nothing of the table is to be told.
fn masked_columns(
    table: &TableProof,
    known: &TableShape,
    masking: &Masking,
) -> Option<HashSet<String>> {
    let of_table = |column: &ColumnProof| {
        let known = known.columns.iter().find(|c| c.name == column.name);
        known.cloned().unwrap_or_else(|| ColumnShape {
            name: column.name.clone(),
            sql_type: column.kind.clone(),
            not_null: false,
            unique: false,
            is_key: false,
            one_null: false,
            label: None,
        })
    };
    let shape = TableShape {
        columns: table.columns.iter().map(of_table).collect(),
        ..known.clone()
    };
    match masking.table(&shape) {
        Ok(None) => Some(HashSet::new()),
        Ok(Some(mask)) if mask.leaves_out_all_rows() => None,
        Ok(Some(mask)) => Some(mask.column_names().iter().cloned().collect()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::Span;
    use pgdump_mask::{MaskFile, MaskKey};

    /// The columns of a table, named as a proof does, whose span is told under these rules.
    fn spans_left(table: &str, definitions: &[&str], rules: &str) -> Vec<String> {
        let column = |name: &str| ColumnProof {
            name: name.into(),
            kind: "date".into(),
            nulls: 0.0,
            span: Some(Span {
                oldest: "1900-01-01".into(),
                newest: "2020-01-01".into(),
            }),
        };
        let mut tables = [TableProof {
            name: table.into(),
            rows: 2,
            bytes: 9,
            digest: String::new(),
            restored_rows: Some(2),
            columns: vec![column("born"), column("seen")],
        }];
        let entry = |sql: &&str| {
            let kind = if sql.starts_with("SECURITY") {
                "SECURITY LABEL"
            } else {
                "TABLE"
            };
            let mut entry = TocEntry::bare(1, kind, "t");
            entry.defn = format!("{sql};");
            entry
        };
        let entries: Vec<TocEntry> = definitions.iter().map(entry).collect();
        let file = MaskFile::parse(&format!("version: 1\n{rules}")).unwrap();
        let key = MaskKey::new("sixteen bytes or more".to_owned().into()).unwrap();
        remove(
            &mut tables,
            &entries,
            &Masking::new(file, Some(key)).unwrap(),
        );
        let columns = tables[0].columns.iter().filter(|c| c.span.is_some());
        columns.map(|c| c.name.clone()).collect()
    }

    const PEOPLE: &str = "CREATE TABLE public.people (born date, seen date)";
    const OTHERS: &str = "tables: { public.others: { columns: { a: { null: true } } } }";

    #[test]
    fn masked_columns_have_no_span() {
        let left = |rules: &str| spans_left("public.people", &[PEOPLE], rules);
        let of_columns = |columns: &str| {
            left(&format!(
                "tables: {{ public.people: {{ columns: {{ {columns} }} }} }}"
            ))
        };
        assert_eq!(of_columns("born: { shift: 30d }, seen: keep"), ["seen"]);
        assert_eq!(of_columns("born: { null: true }"), ["seen"]);
        // The rules do not fit: nothing is told.
        assert!(of_columns("born: { fake: email }").is_empty());
        assert_eq!(left(OTHERS), ["born", "seen"]);
        assert!(left(&format!("unlisted: refuse\n{OTHERS}")).is_empty());
        assert!(left("tables: { public.people: { rows: none } }").is_empty());
    }

    #[test]
    fn rules_of_a_partitioned_table_and_labels_count() {
        let parts = [
            PEOPLE,
            "CREATE TABLE public.\"Part\" (born date, seen date)",
            "ALTER TABLE ONLY public.people ATTACH PARTITION public.\"Part\" DEFAULT",
        ];
        let rules = "tables: { public.people: { columns: { born: { shift: 30d } } } }";
        assert_eq!(spans_left("public.\"Part\"", &parts, rules), ["seen"]);
        let label =
            "SECURITY LABEL FOR anon ON COLUMN public.people.seen IS 'MASKED WITH VALUE NULL'";
        let labelled = [PEOPLE, label];
        assert_eq!(spans_left("public.people", &labelled, OTHERS), ["born"]);
    }

    /// SQL text has no table of contents.
    #[test]
    fn nothing_is_told_of_a_table_that_is_not_known() {
        assert!(spans_left("public.people", &[], OTHERS).is_empty());
        assert!(spans_left("people", &[PEOPLE], OTHERS).is_empty());
    }
}
