//! The mask file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::MaskFileError;
use crate::ordered::Ordered;
use crate::pattern::TablePattern;
use crate::prf::push_hex;
use crate::rows_spec::RowsSpec;
use crate::rule_spec::RuleSpec;

/// Rules by table and column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskFile {
    /// 1
    version: u32,
    /// What happens to columns without a rule
    #[serde(default)]
    unlisted: Unlisted,
    /// What happens to the contents of large objects; without it, they stay, and `unlisted: refuse` stops a backup that has
    /// some
    #[serde(default, skip_serializing_if = "Option::is_none")]
    large_objects: Option<LargeObjects>,
    /// Rules by pattern of `schema.table`; `*` and `?` are wildcards, and the most specific pattern wins
    #[serde(default)]
    pub(crate) tables: Ordered<TableRules>,
}

/// What happens to columns without a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unlisted {
    /// They stay as they are.
    #[default]
    Keep,
    /// They stop the job.
    Refuse,
}

/// What happens to the contents of large objects, which no rule can mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LargeObjects {
    /// They stay as they are.
    Keep,
    /// They are left out.
    None,
}

/// Rules of the tables that match a pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableRules {
    /// Rules by pattern of the column's name
    #[serde(default)]
    pub(crate) columns: Ordered<RuleSpec>,
    /// Rows that are kept; without it, all
    #[serde(default)]
    pub(crate) rows: Option<RowsSpec>,
}

impl MaskFile {
    /// Reads a mask file.
    ///
    /// # Errors
    /// What is wrong: the table, the column, and what to write.
    pub fn parse(yaml: &str) -> Result<Self, MaskFileError> {
        let parsed: Result<Self, serde_saphyr::Error> = serde_saphyr::from_str(yaml);
        let file = parsed.map_err(|e| MaskFileError(e.without_snippet().to_string()))?;
        file.check()?;
        Ok(file)
    }

    /// Checks what the types do not say; for files that are parsed as a part of another document.
    pub(crate) fn check(&self) -> Result<(), MaskFileError> {
        if self.version != 1 {
            let why = format!(
                "version {} of mask files is not known: write 1",
                self.version
            );
            return Err(MaskFileError(why));
        }
        let wrong = self
            .tables
            .0
            .iter()
            .find(|(pattern, _)| TablePattern::parse(pattern).is_none());
        match wrong {
            Some((pattern, _)) => Err(MaskFileError(format!(
                "tables: {pattern}: write schema.table, such as public.{pattern}"
            ))),
            None => Ok(()),
        }
    }

    pub(crate) fn refuses_unlisted(&self) -> bool {
        self.unlisted == Unlisted::Refuse
    }

    pub(crate) fn large_objects(&self) -> Option<LargeObjects> {
        self.large_objects
    }

    /// Where the file first needs a key.
    pub(crate) fn needs_key(&self) -> Option<String> {
        let needs = |(table, rules): &(String, TableRules)| {
            let column = rules.columns.0.iter().find(|(_, rule)| rule.needs_key());
            let column =
                column.map(|(c, rule)| format!("{table}, column {c}: {}", rule.in_words()));
            let rows = rules.rows.as_ref().filter(|rows| rows.needs_key());
            column.or_else(|| rows.map(|_| format!("{table}, rows: share")))
        };
        self.tables.0.iter().find_map(needs)
    }

    /// SHA-256 of the file's meaning: comments and layout do not change it.
    pub(crate) fn digest(&self) -> String {
        // Serialization of these types cannot fail; an empty text would be seen at once as the digest of nothing.
        let canonical = serde_json::to_vec(self).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(&canonical).into();
        let mut hex = Vec::new();
        push_hex(&digest, &mut hex);
        String::from_utf8_lossy(&hex).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the contract.
    const EXAMPLE: &str = r#"
version: 1
unlisted: keep
tables:
  shop.customer:
    columns:
      email: { fake: email }
      name:  { fake: name }
      ssn:   { digits: true }
      token: { hash: true }
      born:  { shift: 30d, by: id }
      note:  { set: "x" }
      extra: { null: true }
      meta:  { json: { "$.address.street": { null: true } } }
      plain: keep
    rows: { share: 5, by: id }
  shop.orders:
    rows: { share: 5, by: customer_id }
  shop.log:   { rows: none }
  audit.*:    { rows: { where: { region: [eu, uk] } } }
"#;

    #[test]
    fn the_example_is_read() {
        let file = MaskFile::parse(EXAMPLE).unwrap();
        assert!(!file.refuses_unlisted());
        assert_eq!(file.tables.0.len(), 4);
        assert_eq!(file.tables.0[0].1.columns.0.len(), 9);
        assert_eq!(file.tables.0[2].1.rows, Some(RowsSpec::None));
        assert_eq!(
            file.needs_key().unwrap(),
            "shop.customer, column email: fake email"
        );
    }

    #[test]
    fn large_objects_are_kept_left_out_or_not_mentioned() {
        let of = |yaml: &str| MaskFile::parse(yaml).map(|file| file.large_objects());
        assert_eq!(of("version: 1\n"), Ok(None));
        let (keep, none) = (LargeObjects::Keep, LargeObjects::None);
        assert_eq!(of("version: 1\nlarge_objects: keep\n"), Ok(Some(keep)));
        assert_eq!(of("version: 1\nlarge_objects: none\n"), Ok(Some(none)));
        assert!(of("version: 1\nlarge_objects: mask\n").is_err());
    }

    #[test]
    fn errors_name_table_and_column_and_say_what_to_write() {
        let error = |yaml: &str| MaskFile::parse(yaml).unwrap_err().to_string();
        let fakes = error(
            "version: 1\ntables:\n  shop.customer:\n    columns:\n      email: { fakes: email }\n",
        );
        for part in ["shop.customer", "email", "fakes is not a rule", "digits"] {
            assert!(fakes.contains(part), "{fakes}");
        }
        assert!(error("version: 2\n").contains("write 1"));
        assert!(
            error("version: 1\ntables:\n  customer: { rows: none }\n").contains("public.customer")
        );
        assert!(error("version: 1\ntable: {}\n").contains("table"));
    }

    #[test]
    fn the_digest_follows_the_meaning() {
        let digest = |yaml: &str| MaskFile::parse(yaml).unwrap().digest();
        let one = digest("version: 1\ntables: { a.b: { columns: { c: { hash: true } } } }\n");
        let same = digest(
            "# a comment\nversion: 1\nunlisted: keep\ntables:\n  a.b:\n    columns:\n      c: { hash: true }\n",
        );
        let other = digest("version: 1\ntables: { a.b: { columns: { c: { digits: true } } } }\n");
        assert_eq!(one.len(), 64);
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
}
