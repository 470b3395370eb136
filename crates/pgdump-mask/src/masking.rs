//! The mask file with its key, and the rules that it has for a table.

use std::sync::Arc;

use crate::compile::{Target, compile};
use crate::error::{MaskFileError, Misfit};
use crate::file::{LargeObjects, MaskFile};
use crate::key::MaskKey;
use crate::label::rule_of;
use crate::row_filter::{Predicate, RowFilter, RowTest, Share};
use crate::rows_spec::{Condition, RowConditions, RowsSpec};
use crate::rule_book::{RuleBook, TableRuleset};
use crate::rule_spec::RuleSpec;
use crate::shape::{ColumnShape, TableShape};
use crate::sql_type::SqlType;
use crate::table_mask::{Action, ColumnRule, CompiledRules, InputColumn, TableMask, TemplatePart};
use crate::template::{self, TemplateToken};
use crate::transform::Transform;

/// A mask file and its key.
#[derive(Clone)]
pub struct Masking(Arc<Inner>);

struct Inner {
    book: RuleBook,
    refuses_unlisted: bool,
    large_objects: Option<LargeObjects>,
    digest: String,
    key: Option<MaskKey>,
}

impl Masking {
    /// Takes the file and the key.
    ///
    /// # Errors
    /// A rule needs a key, and there is none.
    pub fn new(file: MaskFile, key: Option<MaskKey>) -> Result<Self, MaskFileError> {
        file.check()?;
        if let (None, Some(place)) = (&key, file.needs_key()) {
            return Err(MaskFileError(format!(
                "{place} needs a key: set MASK_KEY, or MASK_KEY_FILE to the file that holds it"
            )));
        }
        Ok(Self(Arc::new(Inner {
            book: RuleBook::new(&file),
            refuses_unlisted: file.refuses_unlisted(),
            large_objects: file.large_objects(),
            digest: file.digest(),
            key,
        })))
    }

    /// Compiles the rules for a table; `None` if nothing of it changes.
    ///
    /// # Errors
    /// Every rule that does not fit the table, and with `unlisted: refuse` every column without a rule.
    pub fn table(&self, shape: &TableShape) -> Result<Option<TableMask>, Vec<Misfit>> {
        let rules = self.0.book.of_table(shape);
        if rules.rows() == Some(&RowsSpec::None) {
            return Ok(Some(TableMask::new(CompiledRules {
                table: shape.full_name(),
                names: Vec::new(),
                columns: Vec::new(),
                slots: Vec::new(),
                column_count: shape.columns.len(),
                filter: RowFilter::default(),
                is_empty: true,
            })));
        }
        let mut builder = Builder::new(shape, &self.0);
        builder.add_columns(&rules);
        builder.add_rows(rules.rows());
        builder.finish()
    }

    /// Whether rows of `other` that come as rows of `one` are masked and kept as if they came by themselves: its columns have the
    /// same rules and labels, and its rows the same conditions.
    #[must_use]
    pub fn agree(&self, one: &TableShape, other: &TableShape) -> bool {
        let (rules, wanted) = (self.0.book.of_table(one), self.0.book.of_table(other));
        let label = |name: &str| {
            let column = one.columns.iter().find(|c| c.name == name);
            column.and_then(|c| c.label.as_ref())
        };
        let mut columns = other.columns.iter();
        rules.rows() == wanted.rows()
            && columns.all(|column| {
                let rule = rules.rule(&column.name);
                let same_label = rule.is_some() || label(&column.name) == column.label.as_ref();
                rule == wanted.rule(&column.name) && same_label
            })
    }

    /// The patterns of the file that match none of these tables (schema, name).
    #[must_use]
    pub fn unmatched(&self, tables: &[(String, String)]) -> Vec<String> {
        self.0.book.unmatched(tables)
    }

    /// SHA-256 of the file's meaning, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        self.0.digest.clone()
    }

    /// [`MaskKey::id`] of the key.
    #[must_use]
    pub fn key_id(&self) -> Option<String> {
        self.0.key.as_ref().map(MaskKey::id)
    }

    /// What happens to the contents of large objects; `None` if the file does not say.
    #[must_use]
    pub fn large_objects(&self) -> Option<LargeObjects> {
        self.0.large_objects
    }

    /// Whether a column without a rule stops the job.
    #[must_use]
    pub fn refuses_unlisted(&self) -> bool {
        self.0.refuses_unlisted
    }
}

/// Compiles the rules of a table and collects what does not fit.
struct Builder<'a> {
    shape: &'a TableShape,
    types: Vec<SqlType>,
    key: Option<&'a MaskKey>,
    refuses_unlisted: bool,
    /// The columns that rules read; their slots are numbered at the end.
    read: Vec<usize>,
    pending: Vec<Pending>,
    tests: Vec<(usize, Predicate)>,
    misfits: Vec<Misfit>,
}

/// A changed column with the columns that its rule reads, by their index.
struct Pending {
    column: usize,
    in_words: String,
    what: PendingAction,
}

enum PendingAction {
    Transform {
        rule: Box<dyn Transform>,
        by: Option<usize>,
    },
    Template(Vec<TemplateToken>),
}

impl<'a> Builder<'a> {
    fn new(shape: &'a TableShape, masking: &'a Inner) -> Self {
        Self {
            shape,
            types: shape
                .columns
                .iter()
                .map(|c| SqlType::parse(&c.sql_type))
                .collect(),
            key: masking.key.as_ref(),
            refuses_unlisted: masking.refuses_unlisted,
            read: Vec::new(),
            pending: Vec::new(),
            tests: Vec::new(),
            misfits: Vec::new(),
        }
    }

    fn refuse(&mut self, column: Option<&str>, why: impl Into<String>) {
        self.misfits.push(Misfit {
            table: self.shape.full_name(),
            column: column.map(str::to_owned),
            why: why.into(),
        });
    }

    /// The index of a column that a rule reads.
    fn column(&self, name: &str) -> Result<usize, String> {
        let found = self.shape.columns.iter().position(|c| c.name == name);
        found.ok_or_else(|| format!("the rows have no column {name}"))
    }

    fn add_columns(&mut self, rules: &TableRuleset<'_>) {
        for missing in rules.missing_columns(self.shape) {
            self.refuse(
                Some(missing),
                "the rows have no such column: it does not exist, or it is generated; remove the rule",
            );
        }
        let shape = self.shape;
        for (index, column) in shape.columns.iter().enumerate() {
            let rule = match (rules.rule(&column.name), &column.label) {
                (Some(rule), _) => Ok(rule.clone()),
                (None, Some(label)) => rule_of(label),
                (None, None) if self.refuses_unlisted => Err(
                    "no rule names the column (unlisted: refuse); write a rule, or keep".to_owned(),
                ),
                (None, None) => continue,
            };
            if let Err(why) = rule.and_then(|rule| self.add_column(index, column, &rule)) {
                self.refuse(Some(&column.name), why);
            }
        }
    }

    fn add_column(
        &mut self,
        index: usize,
        column: &ColumnShape,
        rule: &RuleSpec,
    ) -> Result<(), String> {
        let what = match rule {
            RuleSpec::Template(text) => self.template(column, index, text)?,
            _ => {
                let target = Target {
                    ty: &self.types[index],
                    unique: column.unique,
                    not_null: column.not_null,
                    one_null: column.one_null,
                    key: self.key,
                };
                let Some(compiled) = compile(rule, target)? else {
                    return Ok(());
                };
                let by = rule.entity()?.map(|by| self.column(by)).transpose()?;
                PendingAction::Transform { rule: compiled, by }
            }
        };
        self.read.push(index);
        if let PendingAction::Transform { by: Some(by), .. } = &what {
            self.read.push(*by);
        }
        self.pending.push(Pending {
            column: index,
            in_words: rule.in_words(),
            what,
        });
        Ok(())
    }

    fn template(
        &mut self,
        column: &ColumnShape,
        index: usize,
        text: &str,
    ) -> Result<PendingAction, String> {
        if !self.types[index].is_text() {
            return Err(format!(
                "template is for text, and the column is {}",
                self.types[index].in_words()
            ));
        }
        let tokens = template::parse(text)?;
        let max = self.types[index].max_characters();
        let fixed = template::fixed_length(&tokens);
        if max.is_some_and(|max| fixed > max) {
            return Err(format!(
                "template writes at least {fixed} characters, and the column holds {}",
                max.unwrap_or_default()
            ));
        }
        let mut read = Vec::new();
        for token in &tokens {
            if let TemplateToken::Column(name) = token {
                let referred = self.column(name)?;
                if referred == index {
                    return Err("template refers to its own column, which it is to mask".to_owned());
                }
                read.push(referred);
            }
        }
        if column.unique && !self.keeps_rows_apart(&tokens) {
            return Err(
                "template cannot keep a unique column unique; refer in it to a column that is unique in all rows and NOT NULL, \
                 and beside it to others only if that one is an integer or uuid, such as {id} in {name}.{id}"
                    .to_owned(),
            );
        }
        self.read.extend(read);
        Ok(PendingAction::Template(tokens))
    }

    /// Whether no two rows fill a template with the same text: it has the values of a key, and shows which part of it they are.
    fn keeps_rows_apart(&self, tokens: &[TemplateToken]) -> bool {
        tokens.iter().enumerate().any(|(at, token)| {
            let TemplateToken::Column(name) = token else {
                return false;
            };
            // Values that are unique in some rows only, or NULL, would make equal texts.
            let is_key = |c: &ColumnShape| c.name == *name && c.is_key && c.not_null;
            let Some(key) = self.shape.columns.iter().position(is_key) else {
                return false;
            };
            let is_only = tokens
                .iter()
                .all(|p| matches!(p, TemplateToken::Text(_)) || p == token);
            is_only
                || match &self.types[key] {
                    SqlType::Integer(_) => template::shows_integer(tokens, at),
                    SqlType::Uuid => template::is_at_an_end(tokens, at),
                    _ => false,
                }
        })
    }

    fn add_rows(&mut self, rows: Option<&RowsSpec>) {
        let Some(RowsSpec::Some(conditions)) = rows else {
            return;
        };
        if let Err(why) = self.add_share(conditions) {
            self.refuse(None, format!("rows: {why}; give the table rows of its own"));
        }
        for (name, condition) in &conditions.conditions.0 {
            if let Err(why) = self.add_condition(name, condition) {
                self.refuse(None, format!("rows: where: {name}: {why}"));
            }
        }
    }

    fn add_share(&mut self, conditions: &RowConditions) -> Result<(), String> {
        let (Some(share), Some(by)) = (conditions.share, &conditions.by) else {
            return Ok(());
        };
        let column = self.column(by)?;
        let key = self
            .key
            .ok_or("share needs a key: set MASK_KEY or MASK_KEY_FILE")?;
        let share = Share::new(key.keyed().clone(), share);
        self.test(column, Predicate::Share(share));
        Ok(())
    }

    fn add_condition(&mut self, name: &str, condition: &Condition) -> Result<(), String> {
        let column = self.column(name)?;
        let ty = &self.types[column];
        let spelled = |text: &str| {
            RowTest::spelled(ty, text).ok_or_else(|| format!("{text} is not {}", ty.in_words()))
        };
        let bound = |text: &Option<String>| text.as_deref().map(spelled).transpose();
        let predicate = match condition {
            Condition::OneOf(values) => {
                let values: Result<Vec<_>, String> = values.iter().map(bound).collect();
                Predicate::OneOf(values?)
            }
            Condition::Range { from, to } => Predicate::Range {
                from: bound(from)?,
                to: bound(to)?,
            },
        };
        self.test(column, predicate);
        Ok(())
    }

    fn test(&mut self, column: usize, predicate: Predicate) {
        self.read.push(column);
        self.tests.push((column, predicate));
    }

    /// Numbers the slots, in the order of the table, and puts the rules together.
    fn finish(mut self) -> Result<Option<TableMask>, Vec<Misfit>> {
        self.refuse_templates_of_templates();
        if !self.misfits.is_empty() {
            return Err(self.misfits);
        }
        if self.pending.is_empty() && self.tests.is_empty() {
            return Ok(None);
        }
        self.read.sort_unstable();
        self.read.dedup();
        let read = self.read;
        let slot_of = |column: usize| read.binary_search(&column).unwrap_or(usize::MAX);
        let changed: Vec<usize> = self.pending.iter().map(|p| p.column).collect();
        let columns = self.pending.into_iter().map(|pending| {
            let shape = &self.shape.columns[pending.column];
            let action = match pending.what {
                PendingAction::Transform { rule, by } => Action::Transform {
                    rule,
                    by: by.map(slot_of),
                },
                PendingAction::Template(tokens) => Action::Template {
                    parts: tokens
                        .into_iter()
                        .filter_map(|token| match token {
                            TemplateToken::Text(text) => {
                                Some(TemplatePart::Text(text.into_bytes()))
                            }
                            TemplateToken::Column(name) => {
                                let column =
                                    self.shape.columns.iter().position(|c| c.name == name)?;
                                Some(TemplatePart::Value {
                                    slot: slot_of(column),
                                    rule: changed.iter().position(|c| *c == column),
                                })
                            }
                        })
                        .collect(),
                    max: self.types[pending.column].max_characters(),
                    unique: shape.unique,
                },
            };
            ColumnRule {
                in_words: pending.in_words,
                slot: slot_of(pending.column),
                action,
            }
        });
        let columns = columns.collect();
        let tests = self.tests.into_iter().map(|(column, predicate)| RowTest {
            slot: slot_of(column),
            ty: self.types[column].clone(),
            predicate,
        });
        let filter = RowFilter(tests.collect());
        let slots = read.iter().map(|column| InputColumn {
            column: *column,
            ty: self.types[*column].clone(),
        });
        let names = changed.iter().map(|c| self.shape.columns[*c].name.clone());
        Ok(Some(TableMask::new(CompiledRules {
            table: self.shape.full_name(),
            names: names.collect(),
            columns,
            slots: slots.collect(),
            column_count: self.shape.columns.len(),
            filter,
            is_empty: false,
        })))
    }

    fn refuse_templates_of_templates(&mut self) {
        let is_template = |name: &str| {
            self.pending.iter().any(|p| {
                matches!(p.what, PendingAction::Template(_))
                    && self.shape.columns[p.column].name == name
            })
        };
        let mut wrong = Vec::new();
        for pending in &self.pending {
            if let PendingAction::Template(tokens) = &pending.what {
                let refers = tokens.iter().find_map(|token| match token {
                    TemplateToken::Column(name) if is_template(name) => Some(name.clone()),
                    _ => None,
                });
                wrong.extend(refers.map(|name| (pending.column, name)));
            }
        }
        let shape = self.shape;
        for (column, name) in wrong {
            self.refuse(
                Some(&shape.columns[column].name),
                format!(
                    "template refers to {name}, which is itself a template; refer to other columns"
                ),
            );
        }
    }
}
