//! What was masked, as results write it.

use pgdump_mask::{MaskCounts, TableMask};

/// Most tables in a report; their number is beside them.
const LISTED_TABLES: usize = 200;
/// Most columns of a table in a report.
const LISTED_COLUMNS: usize = 100;

/// What a restore masked. Never a value of a row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct MaskingReport {
    /// SHA-256 of the rules in canonical form, in hexadecimal.
    pub digest: String,
    /// The same for the same key: says nothing of the key itself. Missing if no rule needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The masked tables, by name: the first 200.
    pub tables: Vec<MaskedTable>,
    /// Number of all of them.
    pub tables_total: u64,
}

/// What was masked in one table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct MaskedTable {
    /// Schema and name.
    pub table: String,
    /// The columns with a rule: the first 100.
    pub columns: Vec<MaskedColumn>,
    /// Rows of the backup.
    pub rows: u64,
    /// Rows of them that the copy has.
    pub rows_kept: u64,
}

/// What was masked in one column.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct MaskedColumn {
    /// Its name.
    pub name: String,
    /// Its rule, in words.
    pub rule: String,
    /// Number of its values that the rule changed.
    pub changed: u64,
}

impl MaskingReport {
    pub(super) fn new(digest: String, key_id: Option<String>, tables: Vec<MaskedTable>) -> Self {
        let mut report = MaskingReport {
            digest,
            key_id,
            tables_total: tables.len() as u64,
            tables,
        };
        report.tables.truncate(LISTED_TABLES);
        report
    }

    /// The report without its list of tables.
    pub fn reduced(&self) -> Self {
        MaskingReport {
            tables: vec![],
            ..self.clone()
        }
    }
}

impl MaskedTable {
    pub(super) fn of(table: &str, mask: &TableMask, counts: &MaskCounts) -> Self {
        let rules = mask.rule_names();
        let rule_of = |column: &String| {
            let rule = rules.iter().find(|(name, _)| name == column);
            rule.map(|(_, rule)| rule.clone()).unwrap_or_default()
        };
        let names = mask.column_names();
        let columns = names.iter().enumerate().map(|(i, name)| MaskedColumn {
            name: name.clone(),
            rule: rule_of(name),
            changed: counts.changed.get(i).copied().unwrap_or_default(),
        });
        MaskedTable {
            table: table.to_owned(),
            columns: columns.take(LISTED_COLUMNS).collect(),
            rows: counts.rows,
            rows_kept: counts.rows_kept,
        }
    }
}
