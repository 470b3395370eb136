//! Which rows are kept, as the mask file writes it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ordered::Ordered;

/// The rows of a table that are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum RowsSpec {
    None,
    Some(RowConditions),
}

/// All of them apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowConditions {
    /// Per cent of the values of `by` whose rows are kept, chosen by keyed hash
    pub(crate) share: Option<f64>,
    /// The column of the share: a key here, the foreign key in tables that refer to it
    pub(crate) by: Option<String>,
    /// Values or a range per column
    #[serde(default, rename = "where")]
    pub(crate) conditions: Ordered<Condition>,
}

/// What the value of a column must be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Condition {
    /// One of these; `None` is NULL.
    OneOf(Vec<Option<String>>),
    /// Between these, inclusive.
    Range {
        from: Option<String>,
        to: Option<String>,
    },
}

impl RowsSpec {
    /// Whether the choice follows from the key.
    pub(crate) fn needs_key(&self) -> bool {
        matches!(self, Self::Some(conditions) if conditions.share.is_some())
    }

    fn check(&self) -> Result<(), &'static str> {
        let Self::Some(conditions) = self else {
            return Ok(());
        };
        match (conditions.share, &conditions.by) {
            (Some(share), Some(_)) if (0.0..=100.0).contains(&share) => Ok(()),
            (Some(_), Some(_)) => Err("share is a percentage: write a number from 0 to 100"),
            (Some(_), None) => Err("share needs by: the column whose values are chosen"),
            (None, Some(_)) => Err("by needs share: the percentage of its values to keep"),
            (None, None) if conditions.conditions.0.is_empty() => {
                Err("write none, a share with by, or where")
            }
            (None, None) => Ok(()),
        }
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = RowsSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none, a share with by, or where")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<RowsSpec, E> {
        match word {
            "none" => Ok(RowsSpec::None),
            _ => Err(E::custom(format!(
                "rows: {word} is not known: write none, {{ share: 5, by: COLUMN }} or {{ where: … }}"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RowsSpec, A::Error> {
        let conditions = RowConditions::deserialize(MapAccessDeserializer::new(map))?;
        let rows = RowsSpec::Some(conditions);
        rows.check()
            .map_err(|why| A::Error::custom(format!("rows: {why}")))?;
        Ok(rows)
    }
}

impl<'de> Deserialize<'de> for RowsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowsVisitor)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RangeKeys {
    from: Option<String>,
    to: Option<String>,
}

struct ConditionVisitor;

impl<'de> Visitor<'de> for ConditionVisitor {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values, or { from:, to: }")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Condition, E> {
        Ok(Condition::OneOf(vec![Some(value.to_owned())]))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<Condition, E> {
        Ok(Condition::OneOf(vec![None]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Condition, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Condition::OneOf(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
        let RangeKeys { from, to } = RangeKeys::deserialize(MapAccessDeserializer::new(map))?;
        if from.is_none() && to.is_none() {
            return Err(A::Error::custom("write from, to or both"));
        }
        Ok(Condition::Range { from, to })
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConditionVisitor)
    }
}

/// The form of `rows`, for the JSON Schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the form only")]
enum RowsForm {
    /// The table stays empty.
    None(NoneWord),
    /// Rows for which all of it holds are kept.
    Conditions(RowConditions),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes the form only")]
enum NoneWord {
    None,
}

impl JsonSchema for RowsSpec {
    fn schema_name() -> Cow<'static, str> {
        "MaskRows".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RowsForm::json_schema(generator)
    }
}

/// The form of a condition, for the JSON Schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the form only")]
enum ConditionForm {
    /// One of these values.
    List(Vec<Option<Value>>),
    /// Between these values, inclusive.
    Range(RangeKeys),
    /// This value.
    Value(Option<Value>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the form only")]
enum Value {
    Text(String),
    Number(f64),
    Boolean(bool),
}

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "MaskCondition".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ConditionForm::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<RowsSpec, String> {
        serde_saphyr::from_str(yaml).map_err(|e: serde_saphyr::Error| e.to_string())
    }

    #[test]
    fn conditions_are_read() {
        assert_eq!(parse("none"), Ok(RowsSpec::None));
        let RowsSpec::Some(rows) = parse(
            "{ share: 2.5, by: id, where: { region: [eu, no], year: 2024, at: { from: 2024-01-01 }, gone: ~ } }",
        )
        .unwrap() else {
            panic!("not conditions");
        };
        assert_eq!((rows.share, rows.by.as_deref()), (Some(2.5), Some("id")));
        let values =
            |v: &[&str]| Condition::OneOf(v.iter().map(|v| Some((*v).to_owned())).collect());
        let expected = [
            ("region".to_owned(), values(&["eu", "no"])),
            ("year".to_owned(), values(&["2024"])),
            (
                "at".to_owned(),
                Condition::Range {
                    from: Some("2024-01-01".into()),
                    to: None,
                },
            ),
            ("gone".to_owned(), Condition::OneOf(vec![None])),
        ];
        assert_eq!(rows.conditions.0, expected);
    }

    #[test]
    fn incomplete_conditions_say_what_is_missing() {
        for (yaml, expected) in [
            ("all", "all is not known"),
            ("{ share: 5 }", "share needs by"),
            ("{ by: id }", "by needs share"),
            ("{ share: 500, by: id }", "0 to 100"),
            ("{ share: 5, of: id }", "of"),
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
