//! Masks rows of one table.

use std::sync::Arc;

use memchr::{memchr, memchr_iter};

use crate::copy_text::{self, Field};
use crate::counts::MaskCounts;
use crate::error::MaskError;
use crate::row_filter::RowFilter;
use crate::sql_type::SqlType;
use crate::transform::{Fault, Masked, RowValues, Transform, character_count, first_characters};

/// The compiled rules of a table.
#[derive(Clone)]
pub struct TableMask(Arc<CompiledRules>);

/// Everything that rows need. Rules read values by slot: the columns that any of them reads, in the order of the table.
pub(crate) struct CompiledRules {
    pub(crate) table: String,
    /// The names of the changed columns.
    pub(crate) names: Vec<String>,
    pub(crate) columns: Vec<ColumnRule>,
    pub(crate) slots: Vec<InputColumn>,
    pub(crate) column_count: usize,
    pub(crate) filter: RowFilter,
    pub(crate) is_empty: bool,
}

/// A column that rules read.
pub(crate) struct InputColumn {
    pub(crate) column: usize,
    pub(crate) ty: SqlType,
}

/// A column that is changed.
pub(crate) struct ColumnRule {
    pub(crate) in_words: String,
    pub(crate) slot: usize,
    pub(crate) action: Action,
}

pub(crate) enum Action {
    Transform {
        rule: Box<dyn Transform>,
        /// The slot of `by`.
        by: Option<usize>,
    },
    Template {
        parts: Vec<TemplatePart>,
        max: Option<usize>,
        unique: bool,
    },
}

pub(crate) enum TemplatePart {
    Text(Vec<u8>),
    /// The value of a column, after the rule of this index in [`CompiledRules::columns`], if it has one.
    Value {
        slot: usize,
        rule: Option<usize>,
    },
}

/// What became of a column that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// NULL, which stays.
    Unchanged,
    Null,
    /// The place of the value in [`MaskedRow::bytes`].
    Value {
        start: usize,
        end: usize,
    },
}

/// The masked values of a row, by [`CompiledRules::columns`].
#[derive(Default)]
struct MaskedRow {
    bytes: Vec<u8>,
    results: Vec<Outcome>,
}

/// What went wrong in a row, and in which column.
struct RowFault {
    column: Option<usize>,
    why: Fault,
}

impl TableMask {
    pub(crate) fn new(rules: CompiledRules) -> Self {
        Self(Arc::new(rules))
    }

    /// Whether the table stays empty.
    #[must_use]
    pub fn leaves_out_all_rows(&self) -> bool {
        self.0.is_empty
    }

    /// Whether rows are left out: some, or all.
    #[must_use]
    pub fn leaves_out_rows(&self) -> bool {
        self.0.is_empty || !self.0.filter.0.is_empty()
    }

    /// The changed columns, in the order of [`MaskCounts::changed`].
    #[must_use]
    pub fn column_names(&self) -> &[String] {
        &self.0.names
    }

    /// The changed columns and what their rules do.
    #[must_use]
    pub fn rule_names(&self) -> Vec<(String, String)> {
        let rules = self.0.columns.iter().map(|c| c.in_words.clone());
        self.0.names.iter().cloned().zip(rules).collect()
    }

    /// Masks whole rows of COPY's text format, each of which ends in a line feed, and appends them to `out`. Fields that no rule
    /// changes are copied as they are.
    ///
    /// # Errors
    /// A row does not have a field per column, or a value is not what its column's type says. `out` then holds the rows before it.
    pub fn mask_rows(
        &self,
        rows: &[u8],
        out: &mut Vec<u8>,
        counts: &mut MaskCounts,
    ) -> Result<(), MaskError> {
        let rules = &*self.0;
        counts.reserve(rules.columns.len());
        if rules.is_empty {
            counts.rows += memchr_iter(b'\n', rows).count() as u64;
            return Ok(());
        }
        if !rules.changes_anything() {
            let count = memchr_iter(b'\n', rows).count() as u64;
            counts.rows += count;
            counts.rows_kept += count;
            out.extend_from_slice(rows);
            return Ok(());
        }
        let mut scratch = Scratch::default();
        let (mut rest, mut number) = (rows, 0);
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            number += 1;
            counts.rows += 1;
            let kept = rules.mask_line(line, &mut scratch, out, counts);
            let kept = kept.map_err(|fault| rules.error(fault, number))?;
            counts.rows_kept += u64::from(kept);
            rest = after;
        }
        Ok(())
    }

    /// Masks one row of decoded values in place; `None` is NULL. Returns false if the row is left out.
    ///
    /// # Errors
    /// There is not a value per column, or one is not what its column's type says.
    pub fn mask_values(
        &self,
        values: &mut [Option<Vec<u8>>],
        counts: &mut MaskCounts,
    ) -> Result<bool, MaskError> {
        let rules = &*self.0;
        counts.reserve(rules.columns.len());
        counts.rows += 1;
        if rules.is_empty {
            return Ok(false);
        }
        let kept = rules.mask_decoded(values, counts);
        let kept = kept.map_err(|fault| rules.error(fault, 1))?;
        counts.rows_kept += u64::from(kept);
        Ok(kept)
    }
}

/// Buffers of one call, reused from row to row.
#[derive(Default)]
struct Scratch {
    fields: Vec<Field>,
    /// Values that were escaped.
    plain: Vec<u8>,
    values: Vec<FieldValue>,
    masked: MaskedRow,
}

/// Where the value of a slot is.
#[derive(Clone, Copy)]
enum FieldValue {
    Null,
    /// In the line, as it is.
    InLine(usize, usize),
    /// In [`Scratch::plain`].
    InPlain(usize, usize),
}

struct LineValues<'a> {
    line: &'a [u8],
    plain: &'a [u8],
    values: &'a [FieldValue],
}

impl RowValues for LineValues<'_> {
    fn value(&self, slot: usize) -> Option<&[u8]> {
        match *self.values.get(slot)? {
            FieldValue::Null => None,
            FieldValue::InLine(start, end) => self.line.get(start..end),
            FieldValue::InPlain(start, end) => self.plain.get(start..end),
        }
    }
}

struct DecodedValues<'a> {
    values: &'a [Option<Vec<u8>>],
    slots: &'a [InputColumn],
}

impl RowValues for DecodedValues<'_> {
    fn value(&self, slot: usize) -> Option<&[u8]> {
        let column = self.slots.get(slot)?.column;
        self.values.get(column)?.as_deref()
    }
}

const OTHER_FIELDS: RowFault = RowFault {
    column: None,
    why: "it does not have as many fields as the table has columns",
};

impl CompiledRules {
    fn changes_anything(&self) -> bool {
        !self.columns.is_empty() || !self.filter.0.is_empty()
    }

    fn error(&self, fault: RowFault, row: u64) -> MaskError {
        let column = fault.column.and_then(|c| self.names.get(c));
        MaskError {
            table: self.table.clone(),
            column: column.cloned(),
            row,
            why: fault.why,
        }
    }

    /// How many fields of a line have to be found.
    fn fields_needed(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.column + 1)
    }

    /// Masks a line, with its end, and appends it; returns whether the row is kept.
    fn mask_line(
        &self,
        line: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
        counts: &mut MaskCounts,
    ) -> Result<bool, RowFault> {
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        // pg_dump escapes carriage returns of values: this one ends the line, as on Windows.
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let needed = self.fields_needed();
        // A row of another shape would have its values under the wrong rules.
        if copy_text::split(content, needed, &mut scratch.fields) != self.column_count {
            return Err(OTHER_FIELDS);
        }
        self.decode(content, scratch);
        let Scratch {
            fields,
            plain,
            values,
            masked,
        } = scratch;
        let row = LineValues {
            line: content,
            plain,
            values,
        };
        if !self.filter.keeps(&row) {
            return Ok(false);
        }
        self.mask(&row, masked)?;
        let mut copied = 0;
        for ((rule, result), changed) in self
            .columns
            .iter()
            .zip(&masked.results)
            .zip(&mut counts.changed)
        {
            let field = self.slots.get(rule.slot).and_then(|s| fields.get(s.column));
            let is_changed = match *result {
                Outcome::Unchanged => false,
                Outcome::Null => row.value(rule.slot).is_some(),
                Outcome::Value { start, end } => {
                    row.value(rule.slot) != Some(&masked.bytes[start..end])
                }
            };
            let (Some(field), true) = (field, is_changed) else {
                continue;
            };
            out.extend_from_slice(&content[copied..field.start]);
            match *result {
                Outcome::Value { start, end } => copy_text::escape(&masked.bytes[start..end], out),
                _ => out.extend_from_slice(copy_text::NULL),
            }
            copied = field.end;
            *changed += 1;
        }
        out.extend_from_slice(&line[copied..]);
        Ok(true)
    }

    /// Finds the values of the slots, without their escapes.
    fn decode(&self, content: &[u8], scratch: &mut Scratch) {
        scratch.plain.clear();
        scratch.values.clear();
        for slot in &self.slots {
            let Some(field) = scratch.fields.get(slot.column) else {
                continue;
            };
            let text = &content[field.start..field.end];
            let value = if !field.is_escaped {
                FieldValue::InLine(field.start, field.end)
            } else if text == copy_text::NULL {
                FieldValue::Null
            } else {
                let at = scratch.plain.len();
                copy_text::unescape(text, &mut scratch.plain);
                FieldValue::InPlain(at, scratch.plain.len())
            };
            scratch.values.push(value);
        }
    }

    fn mask_decoded(
        &self,
        values: &mut [Option<Vec<u8>>],
        counts: &mut MaskCounts,
    ) -> Result<bool, RowFault> {
        if values.len() != self.column_count {
            return Err(OTHER_FIELDS);
        }
        let mut masked = MaskedRow::default();
        let row = DecodedValues {
            values,
            slots: &self.slots,
        };
        if !self.filter.keeps(&row) {
            return Ok(false);
        }
        self.mask(&row, &mut masked)?;
        for ((rule, result), changed) in self
            .columns
            .iter()
            .zip(&masked.results)
            .zip(&mut counts.changed)
        {
            let new = match *result {
                Outcome::Unchanged => continue,
                Outcome::Null => None,
                Outcome::Value { start, end } => Some(masked.bytes[start..end].to_vec()),
            };
            let column = self.slots.get(rule.slot).map(|s| s.column);
            let value = column.and_then(|c| values.get_mut(c));
            if let Some(value) = value.filter(|value| **value != new) {
                *value = new;
                *changed += 1;
            }
        }
        Ok(true)
    }

    /// Masks the values of a row: templates last, because they refer to the other masked values.
    fn mask(&self, row: &impl RowValues, masked: &mut MaskedRow) -> Result<(), RowFault> {
        masked.bytes.clear();
        masked.results.clear();
        masked
            .results
            .resize(self.columns.len(), Outcome::Unchanged);
        for (index, column) in self.columns.iter().enumerate() {
            if let Action::Transform { rule, by } = &column.action {
                let result =
                    self.transform(row, column.slot, *by, rule.as_ref(), &mut masked.bytes);
                masked.results[index] = result.map_err(|why| RowFault {
                    column: Some(index),
                    why,
                })?;
            }
        }
        for (index, column) in self.columns.iter().enumerate() {
            if let Action::Template { parts, max, unique } = &column.action
                && row.value(column.slot).is_some()
            {
                let start = masked.bytes.len();
                fill(parts, row, masked);
                let result = fit(start, *max, *unique, &mut masked.bytes);
                masked.results[index] = result.map_err(|why| RowFault {
                    column: Some(index),
                    why,
                })?;
            }
        }
        Ok(())
    }

    fn transform(
        &self,
        row: &impl RowValues,
        slot: usize,
        by: Option<usize>,
        rule: &dyn Transform,
        bytes: &mut Vec<u8>,
    ) -> Result<Outcome, Fault> {
        let value: &[u8] = match row.value(slot) {
            Some(value) => value,
            None if rule.replaces_null() => &[],
            None => return Ok(Outcome::Unchanged),
        };
        let entity = by.and_then(|by| {
            let ty = &self.slots.get(by)?.ty;
            Some(ty.canonical(row.value(by)?))
        });
        let entity = entity.as_deref();
        let start = bytes.len();
        Ok(match rule.apply(value, entity, bytes)? {
            Masked::Null => Outcome::Null,
            Masked::Value => Outcome::Value {
                start,
                end: bytes.len(),
            },
        })
    }
}

/// Fills a template, behind the row's other masked values.
fn fill(parts: &[TemplatePart], row: &impl RowValues, masked: &mut MaskedRow) {
    for part in parts {
        match part {
            TemplatePart::Text(text) => masked.bytes.extend_from_slice(text),
            TemplatePart::Value { slot, rule } => {
                let result = rule.and_then(|rule| masked.results.get(rule).copied());
                match result {
                    Some(Outcome::Value { start, end }) => {
                        masked.bytes.extend_from_within(start..end);
                    }
                    Some(Outcome::Null | Outcome::Unchanged) => {}
                    None => masked
                        .bytes
                        .extend_from_slice(row.value(*slot).unwrap_or_default()),
                }
            }
        }
    }
}

/// Cuts a filled template off where the column ends, unless values could become equal by that.
fn fit(
    start: usize,
    max: Option<usize>,
    unique: bool,
    bytes: &mut Vec<u8>,
) -> Result<Outcome, Fault> {
    let text = &bytes[start..];
    let end = match max {
        Some(max) if character_count(text) > max => {
            if unique {
                return Err("the template is longer than the column, which is unique");
            }
            start + first_characters(text, max).len()
        }
        _ => bytes.len(),
    };
    bytes.truncate(end);
    Ok(Outcome::Value { start, end })
}
