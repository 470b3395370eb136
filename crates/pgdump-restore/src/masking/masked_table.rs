//! How the rules are applied to one table.

use pgdump_archive::{Dialect, TextEncoding, Token, copy_target, tokens};
use pgdump_mask::{Masking, Misfit, TableShape};

use super::row_mask::{Name, RowMask};
use crate::table_shapes::{TableDefinitions, in_order_of};

/// What the rules have to fit, of one table.
pub(super) struct MaskedTarget<'a> {
    pub(super) definitions: &'a TableDefinitions,
    pub(super) name: &'a Name,
    /// The columns of a COPY.
    pub(super) copied: Option<Vec<String>>,
    pub(super) encoding: &'a TextEncoding,
}

impl MaskedTarget<'_> {
    /// How the rows are masked; `None` if nothing is to be changed.
    pub(super) fn mask(self, masking: &Masking) -> Result<Option<RowMask>, Vec<String>> {
        let full_name = format!("{}.{}", self.name.0, self.name.1);
        let known = self.definitions.shape(self.name);
        let mut shape = known.unwrap_or_else(|| TableShape {
            schema: self.name.0.clone(),
            table: self.name.1.clone(),
            ..TableShape::default()
        });
        let row_columns = self.definitions.row_columns(self.name);
        match self.copied.clone() {
            Some(columns) => {
                self.check_columns(&shape, &columns)?;
                shape.columns = in_order_of(&shape.columns, &columns);
            }
            None if self.definitions.is_complete(self.name) => {
                let of_rows = row_columns.iter().filter(|c| !c.is_generated);
                let names: Vec<String> = of_rows.map(|c| c.name.clone()).collect();
                shape.columns = in_order_of(&shape.columns, &names);
            }
            None if !self.may_concern(masking, &shape) => return Ok(None),
            None => {
                let what = "the backup does not say which columns its rows have, so rules cannot be applied: dump it again \
                     with the definitions of its tables, or with COPY";
                return Err(vec![format!("{full_name}: {what}")]);
            }
        }
        // A column that no statement has declared may have a label.
        for column in &mut shape.columns {
            let label = || self.definitions.label(self.name, &column.name);
            column.label = column.label.take().or_else(label);
        }
        let found = masking.table(&shape);
        let found = found.map_err(|all| all.iter().map(Misfit::to_string).collect::<Vec<_>>())?;
        let Some(table) = found else {
            return Ok(None);
        };
        if !self.encoding.is_utf8() {
            return Err(vec![format!(
                "{full_name}: the backup is in {}, and only rows in UTF8 can be masked: dump it again with pg_dump \
                 --encoding=UTF8",
                self.encoding.name()
            )]);
        }
        let columns = shape.columns.into_iter().map(|c| c.name).collect();
        let mut names = vec![self.name.clone()];
        names.extend(shape.parents);
        Ok(Some(RowMask::new(table, names, columns, row_columns)))
    }

    /// Refuses columns that the table does not have: the server may know them by other names, for which there are rules.
    fn check_columns(&self, shape: &TableShape, copied: &[String]) -> Result<(), Vec<String>> {
        let is_unknown = |name: &&String| shape.columns.iter().all(|c| c.name != **name);
        match copied.iter().find(is_unknown) {
            Some(name) if self.definitions.is_complete(self.name) => Err(vec![format!(
                "{}.{}: its rows have the column {name}, which its definition does not have",
                self.name.0, self.name.1
            )]),
            _ => Ok(()),
        }
    }

    /// Whether a rule, a label or `unlisted: refuse` may be about a table whose columns are not known.
    fn may_concern(&self, masking: &Masking, shape: &TableShape) -> bool {
        let mut names = vec![self.name.clone()];
        names.extend(shape.parents.iter().cloned());
        let is_named = masking.unmatched(&names).len() < masking.unmatched(&[]).len();
        masking.refuses_unlisted() || is_named || self.definitions.has_labels(self.name)
    }
}

/// The names of the columns of a COPY; `None` if it lists none.
pub(super) fn copied_columns(copy: &str) -> Option<Vec<String>> {
    let (_, columns) = copy_target(copy)?;
    let columns = columns?;
    let t = tokens(&columns, Dialect::default());
    Some(t.iter().filter_map(Token::name).collect())
}

/// Whether the planner statistics of this relation hold no value of a masked row. Those of a table with partitions or
/// children hold values of theirs.
pub(super) fn keeps_statistics(
    definitions: &TableDefinitions,
    name: &Name,
    masking: &Masking,
) -> bool {
    let shape = definitions.shape(name);
    let is_unmasked = |shape: TableShape| matches!(masking.table(&shape), Ok(None));
    definitions.is_complete(name)
        && !definitions.has_children(name)
        && shape.is_some_and(is_unmasked)
}

#[cfg(test)]
mod tests {
    use pgdump_mask::MaskFile;

    use super::*;

    const RULES: &str =
        "version: 1\ntables:\n  s.t: { columns: { a: { set: x } } }\n  s.part1: { rows: none }\n";

    fn masking(yaml: &str) -> Masking {
        Masking::new(MaskFile::parse(yaml).unwrap(), None).unwrap()
    }

    fn defined(sql: &[&str]) -> TableDefinitions {
        let mut definitions = TableDefinitions::default();
        for sql in sql {
            definitions.learn(sql, "s");
        }
        definitions
    }

    fn name(table: &str) -> Name {
        ("s".to_owned(), table.to_owned())
    }

    /// Whether rows are masked, or what does not fit.
    fn is_masked(
        definitions: &TableDefinitions,
        (table, copied): (&str, Option<&[&str]>),
        encoding: &str,
        rules: &Masking,
    ) -> Result<bool, String> {
        let copied = copied.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        let target = MaskedTarget {
            definitions,
            name: &name(table),
            copied,
            encoding: &TextEncoding::new(encoding),
        };
        let mask = target.mask(rules);
        mask.map(|m| m.is_some()).map_err(|all| all.join("; "))
    }

    #[test]
    fn rows_with_unknown_columns_are_refused_if_a_rule_may_be_about_them() {
        let nothing = TableDefinitions::default();
        let of = |table: &str, rules: &Masking| is_masked(&nothing, (table, None), "UTF8", rules);
        let keep = masking(RULES);
        assert!(
            of("t", &keep)
                .unwrap_err()
                .starts_with("s.t: the backup does not say")
        );
        assert_eq!(of("other", &keep), Ok(false));
        let refuse = masking(&RULES.replace("tables:", "unlisted: refuse\ntables:"));
        assert!(of("other", &refuse).is_err());
        // A COPY lists them.
        let copied: &[&str] = &["b", "a"];
        let masked = is_masked(&nothing, ("t", Some(copied)), "UTF8", &keep);
        assert_eq!(masked, Ok(true));
        let known = defined(&["CREATE TABLE s.t (a text, g text GENERATED ALWAYS AS (a) STORED);"]);
        assert_eq!(is_masked(&known, ("t", None), "UTF8", &keep), Ok(true));
    }

    #[test]
    fn labels_of_columns_without_a_definition_are_used() {
        let label = "SECURITY LABEL FOR anon ON COLUMN s.u.a IS 'MASKED WITH VALUE NULL';";
        let rules = masking(RULES);
        let unknown = defined(&[label]);
        let masked = |columns| is_masked(&unknown, ("u", columns), "UTF8", &rules);
        assert_eq!(masked(Some(&["b", "a"])), Ok(true));
        assert_eq!(masked(Some(&["b"])), Ok(false));
        assert!(masked(None).is_err());
        let known = defined(&["CREATE TABLE s.u (b text);", label]);
        let refused = is_masked(&known, ("u", Some(&["a"])), "UTF8", &rules).unwrap_err();
        assert!(refused.contains("the column a"), "{refused}");
    }

    #[test]
    fn only_rows_in_utf8_are_masked() {
        let known = defined(&["CREATE TABLE s.t (a text);", "CREATE TABLE s.u (a text);"]);
        let rules = masking(RULES);
        let refused = is_masked(&known, ("t", Some(&["a"])), "LATIN1", &rules);
        let refused = refused.unwrap_err();
        assert!(
            refused.contains("LATIN1") && refused.contains("--encoding=UTF8"),
            "{refused}"
        );
        assert_eq!(
            is_masked(&known, ("u", Some(&["a"])), "LATIN1", &rules),
            Ok(false)
        );
    }

    #[test]
    fn statistics_that_may_hold_masked_values_are_left_out() {
        let definitions = defined(&[
            "CREATE TABLE s.t (a text);",
            "CREATE TABLE s.u (a text);",
            "CREATE TABLE s.root (a text) PARTITION BY LIST (a);",
            "CREATE TABLE s.part1 (a text);",
            "ALTER TABLE ONLY s.root ATTACH PARTITION s.part1 DEFAULT;",
        ]);
        let rules = masking(RULES);
        let relations = ["t", "u", "root", "part1", "t_pkey"];
        let kept = relations.map(|table| keeps_statistics(&definitions, &name(table), &rules));
        assert_eq!(kept, [false, true, false, false, false]);
    }
}
