//! A rule as the mask file writes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::decimal::Decimal;
use crate::ordered::{Ordered, Word};

/// What is done with the values of a column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum RuleSpec {
    Keep,
    Null,
    Set(String),
    Template(String),
    Hash,
    Fake(FakeKind),
    Digits,
    Shift { by: Option<String>, most: ShiftSpan },
    Noise(Noise),
    Truncate(usize),
    Replace { regex: String, with: String },
    Json(Ordered<RuleSpec>),
    Each(Box<RuleSpec>),
}

/// What a fake looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FakeKind {
    Email,
    Name,
    FirstName,
    LastName,
    Phone,
    Address,
    City,
    Company,
    Iban,
    /// Words of the same length.
    Text,
}

impl FakeKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Name => "name",
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Phone => "phone",
            Self::Address => "address",
            Self::City => "city",
            Self::Company => "company",
            Self::Iban => "iban",
            Self::Text => "text",
        }
    }
}

/// The longest shift: a whole number of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ShiftSpan {
    pub(crate) count: u32,
    pub(crate) unit_seconds: u32,
}

pub(crate) const DAY: u32 = 86_400;

impl ShiftSpan {
    /// Reads `30d`; units are w, d, h, m (minutes) and s.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let count = text[..digits].parse().ok()?;
        let (count, unit_seconds) = match text[digits..].trim() {
            "w" => (7_u32.checked_mul(count)?, DAY),
            "d" => (count, DAY),
            "h" => (count, 3600),
            "m" => (count, 60),
            "s" => (count, 1),
            _ => return None,
        };
        (count > 0).then_some(Self {
            count,
            unit_seconds,
        })
    }

    pub(crate) fn is_whole_days(self) -> bool {
        self.unit_seconds == DAY
    }
}

/// How far a number may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Noise {
    Percent(Decimal),
    Absolute(Decimal),
}

impl Noise {
    /// Reads `10%` or `2.5`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let positive = |text: &str| {
            Decimal::parse(text.trim().as_bytes()).filter(|d| d.mantissa > 0 && d.scale <= 12)
        };
        match text.strip_suffix('%') {
            Some(number) => positive(number).map(Self::Percent),
            None => positive(text).map(Self::Absolute),
        }
    }
}

impl RuleSpec {
    /// Whether the rule follows from the key.
    pub(crate) fn needs_key(&self) -> bool {
        match self {
            Self::Keep
            | Self::Null
            | Self::Set(_)
            | Self::Template(_)
            | Self::Truncate(_)
            | Self::Replace { .. } => false,
            Self::Hash | Self::Fake(_) | Self::Digits | Self::Shift { .. } | Self::Noise(_) => true,
            Self::Json(rules) => rules.0.iter().any(|(_, rule)| rule.needs_key()),
            Self::Each(rule) => rule.needs_key(),
        }
    }

    /// The column that names the entity whose dates move together, also of dates in arrays and in JSON.
    ///
    /// # Errors
    /// Rules for one column name more than one.
    pub(crate) fn entity(&self) -> Result<Option<&str>, String> {
        match self {
            Self::Shift { by, .. } => Ok(by.as_deref()),
            Self::Each(rule) => rule.entity(),
            Self::Json(rules) => {
                let mut entity: Option<&str> = None;
                for (path, rule) in &rules.0 {
                    match (entity, rule.entity()?) {
                        (Some(one), Some(other)) if one != other => {
                            return Err(format!(
                                "json: {path}: shift is by {other}, and by {one} at another path; write the same column"
                            ));
                        }
                        (_, Some(by)) => entity = Some(by),
                        (_, None) => {}
                    }
                }
                Ok(entity)
            }
            _ => Ok(None),
        }
    }

    /// The rule, for results and evidence.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Keep => "keep".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Set(_) => "constant".to_owned(),
            Self::Template(_) => "template".to_owned(),
            Self::Hash => "keyed hash".to_owned(),
            Self::Fake(kind) => format!("fake {}", kind.as_str()),
            Self::Digits => "format-preserving digits".to_owned(),
            Self::Shift { by: Some(by), .. } => format!("date shift by {by}"),
            Self::Shift { by: None, .. } => "date shift".to_owned(),
            Self::Noise(_) => "noise".to_owned(),
            Self::Truncate(_) => "truncation".to_owned(),
            Self::Replace { .. } => "regular expression".to_owned(),
            Self::Json(rules) => {
                let rules = rules.0.iter();
                let paths: Vec<_> = rules
                    .map(|(p, r)| format!("{p} {}", r.in_words()))
                    .collect();
                format!("json: {}", paths.join(", "))
            }
            Self::Each(rule) => format!("each element: {}", rule.in_words()),
        }
    }
}

/// Every key of a rule.
const KEYS: &str = "null, set, template, hash, fake, digits, shift (with by), noise, truncate, replace, json or each";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Replacement {
    regex: String,
    with: String,
}

/// Reads the keys of one rule.
#[derive(Default)]
struct RuleReader {
    rules: Vec<RuleSpec>,
    by: Option<String>,
}

impl RuleReader {
    fn key<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let wrong = |what: &str| A::Error::custom(format!("{key}: {what}"));
        let rule = match key {
            "null" | "hash" | "digits" => {
                let flag: bool = map.next_value()?;
                if !flag {
                    return Err(wrong("write true, or keep instead of the rule"));
                }
                match key {
                    "null" => RuleSpec::Null,
                    "hash" => RuleSpec::Hash,
                    _ => RuleSpec::Digits,
                }
            }
            // A constant NULL is the rule that writes NULL.
            "set" => map
                .next_value::<Option<String>>()?
                .map_or(RuleSpec::Null, RuleSpec::Set),
            "template" => RuleSpec::Template(map.next_value()?),
            "fake" => RuleSpec::Fake(map.next_value()?),
            "shift" => {
                let text: String = map.next_value()?;
                let most = ShiftSpan::parse(&text);
                let most =
                    most.ok_or_else(|| wrong("write a time such as 30d, 12h, 90m or 10s"))?;
                RuleSpec::Shift { by: None, most }
            }
            "by" => {
                self.by = Some(map.next_value()?);
                return Ok(());
            }
            "noise" => {
                let text: String = map.next_value()?;
                let noise = Noise::parse(&text);
                RuleSpec::Noise(noise.ok_or_else(|| wrong("write 10% or a positive number"))?)
            }
            "truncate" => RuleSpec::Truncate(map.next_value()?),
            "replace" => {
                let Replacement { regex, with } = map.next_value()?;
                regex::Regex::new(&regex).map_err(|e| wrong(&e.to_string()))?;
                RuleSpec::Replace { regex, with }
            }
            "json" => RuleSpec::Json(map.next_value()?),
            "each" => RuleSpec::Each(Box::new(map.next_value()?)),
            _ => {
                return Err(A::Error::custom(format!(
                    "{key} is not a rule: write {KEYS}"
                )));
            }
        };
        self.rules.push(rule);
        Ok(())
    }

    fn finish(mut self) -> Result<RuleSpec, String> {
        let (Some(mut rule), None) = (self.rules.pop(), self.rules.pop()) else {
            return Err(format!("write one rule: keep, or one of {KEYS}"));
        };
        match (&mut rule, self.by) {
            (RuleSpec::Shift { by, .. }, given) => *by = given,
            (_, Some(_)) => return Err("by is for shift only".to_owned()),
            (_, None) => {}
        }
        Ok(rule)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = RuleSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keep, or one of {KEYS}")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<RuleSpec, E> {
        match word {
            "keep" => Ok(RuleSpec::Keep),
            _ => Err(E::custom(format!(
                "{word} is not a rule: write keep, or one of {KEYS} in braces"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RuleSpec, A::Error> {
        let mut reader = RuleReader::default();
        while let Some(Word(key)) = map.next_key()? {
            reader.key(&key, &mut map)?;
        }
        reader.finish().map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RuleSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

/// The form of a rule, for the JSON Schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the form only")]
enum RuleForm {
    /// The values stay as they are.
    Keep(KeepWord),
    /// One rule.
    Rule(Box<RuleKeys>),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes the form only")]
enum KeepWord {
    Keep,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes the form only")]
struct RuleKeys {
    /// NULL instead of every value
    null: Option<bool>,
    /// This constant instead of every value
    set: Option<Constant>,
    /// A text with references to other columns' masked values, such as user-{id}@example.org
    template: Option<String>,
    /// Keyed hash: equal values stay equal, in every table
    hash: Option<bool>,
    /// An invented value that follows from the key
    fake: Option<FakeKind>,
    /// Other digits in the same places, by format-preserving encryption
    digits: Option<bool>,
    /// Move a date by at most this time, such as 30d
    shift: Option<String>,
    /// The column that names the entity whose dates move together
    by: Option<String>,
    /// Move a number by at most this, such as 10% or 2.5
    noise: Option<Constant>,
    /// The first characters only
    truncate: Option<usize>,
    /// Replace what a regular expression matches
    replace: Option<Replacement>,
    /// Rules by path inside json and jsonb, such as $.address.street or $.lines[*].name
    json: Option<BTreeMap<String, RuleSpec>>,
    /// A rule for each element of an array
    each: Option<Box<RuleSpec>>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the form only")]
enum Constant {
    Text(String),
    Number(f64),
    Boolean(bool),
}

impl JsonSchema for RuleSpec {
    fn schema_name() -> Cow<'static, str> {
        "MaskRule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RuleForm::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<RuleSpec, String> {
        serde_saphyr::from_str(yaml).map_err(|e: serde_saphyr::Error| e.to_string())
    }

    #[test]
    fn rules_are_read() {
        for (yaml, expected) in [
            ("keep", RuleSpec::Keep),
            ("{ null: true }", RuleSpec::Null),
            ("{ set: ~ }", RuleSpec::Null),
            ("{ set: 1.10 }", RuleSpec::Set("1.10".into())),
            ("{ set: \"x\" }", RuleSpec::Set("x".into())),
            ("{ hash: true }", RuleSpec::Hash),
            ("{ fake: first_name }", RuleSpec::Fake(FakeKind::FirstName)),
            ("{ digits: true }", RuleSpec::Digits),
            ("{ truncate: 3 }", RuleSpec::Truncate(3)),
            (
                "{ shift: 30d, by: id }",
                RuleSpec::Shift {
                    by: Some("id".into()),
                    most: ShiftSpan {
                        count: 30,
                        unit_seconds: DAY,
                    },
                },
            ),
            (
                "{ noise: 10% }",
                RuleSpec::Noise(Noise::Percent(Decimal {
                    mantissa: 10,
                    scale: 0,
                })),
            ),
            (
                "{ noise: 2.5 }",
                RuleSpec::Noise(Noise::Absolute(Decimal {
                    mantissa: 25,
                    scale: 1,
                })),
            ),
            (
                "{ each: { hash: true } }",
                RuleSpec::Each(Box::new(RuleSpec::Hash)),
            ),
            (
                "{ json: { \"$.a\": { null: true } } }",
                RuleSpec::Json(Ordered(vec![("$.a".into(), RuleSpec::Null)])),
            ),
        ] {
            assert_eq!(parse(yaml), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_is_no_rule_says_what_to_write() {
        for (yaml, expected) in [
            ("kept", "kept is not a rule"),
            ("{ fakes: email }", "fakes is not a rule"),
            ("{ fake: e-mail }", "first_name"),
            ("{ hash: false }", "write true"),
            ("{ hash: true, digits: true }", "write one rule"),
            ("{ hash: true, by: id }", "by is for shift only"),
            ("{ shift: soon }", "30d"),
            ("{ noise: -1 }", "10%"),
            ("{ replace: { regex: \"(\", with: x } }", "unclosed group"),
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
