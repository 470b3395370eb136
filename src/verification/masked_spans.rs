//! The oldest and newest values of masked columns, which a report does not have: they are values of rows.

use std::collections::HashSet;

use pgdump_archive::{Dialect, TocEntry, Token, tokens};
use pgdump_mask::{ColumnShape, Masking, TableShape};
use pgdump_restore::{shape_for_copy, table_shapes};

use crate::proof::{ColumnProof, TableProof};

/// Removes the spans of the columns that these rules mask, and all of a table that the rules do not fit.
pub(super) fn remove(tables: &mut [TableProof], entries: &[TocEntry], masking: &Masking) {
    let shapes = table_shapes(entries);
    for table in tables {
        let words = tokens(&table.name, Dialect::default());
        let names: Vec<String> = words.iter().filter_map(Token::name).collect();
        let (schema, name) = match names.as_slice() {
            [schema, name] => (schema.as_str(), name.as_str()),
            _ => ("public", table.name.as_str()),
        };
        let known = shape_for_copy(&shapes, schema, name, None);
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
        let masked: HashSet<String> = match masking.table(&shape) {
            Ok(None) => continue,
            Ok(Some(mask)) => mask.column_names().iter().cloned().collect(),
            Err(_) => shape.columns.iter().map(|c| c.name.clone()).collect(),
        };
        for column in &mut table.columns {
            if masked.contains(&column.name) {
                column.span = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::Span;
    use pgdump_mask::{MaskFile, MaskKey};

    fn spans_left(rules: &str) -> Vec<String> {
        let column = |name: &str, kind: &str| ColumnProof {
            name: name.into(),
            kind: kind.into(),
            nulls: 0.0,
            span: Some(Span {
                oldest: "1900-01-01".into(),
                newest: "2020-01-01".into(),
            }),
        };
        let mut tables = [TableProof {
            name: "public.people".into(),
            rows: 2,
            bytes: 9,
            digest: String::new(),
            restored_rows: Some(2),
            columns: vec![column("born", "date"), column("seen", "date")],
        }];
        let file = MaskFile::parse(rules).unwrap();
        let key = MaskKey::new("sixteen bytes or more".to_owned().into()).unwrap();
        remove(&mut tables, &[], &Masking::new(file, Some(key)).unwrap());
        let columns = tables[0].columns.iter().filter(|c| c.span.is_some());
        columns.map(|c| c.name.clone()).collect()
    }

    #[test]
    fn masked_columns_have_no_span() {
        let rules = |columns: &str| {
            spans_left(&format!(
                "version: 1\ntables: {{ public.people: {{ columns: {{ {columns} }} }} }}"
            ))
        };
        assert_eq!(rules("born: { shift: 30d }, seen: keep"), ["seen"]);
        assert_eq!(rules("born: { null: true }"), ["seen"]);
        // The rules do not fit: nothing is told.
        assert!(rules("born: { fake: email }").is_empty());
        let other = "version: 1\ntables: { public.others: { columns: { a: { null: true } } } }";
        assert_eq!(spans_left(other), ["born", "seen"]);
        let refuse = "version: 1\nunlisted: refuse\ntables: { public.others: { columns: { a: { null: true } } } }";
        assert!(spans_left(refuse).is_empty());
    }
}
