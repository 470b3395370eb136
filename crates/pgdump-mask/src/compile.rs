//! Compiles a rule for a column, or says why it does not fit.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::decimal::Decimal;
use crate::key::{Keyed, MaskKey};
use crate::ordered::Ordered;
use crate::rule::{
    ConstantRule, Digits, DigitsOf, EachElement, Fake, FloatNoise, HashInteger, HashNumeric,
    HashText, HashUuid, JsonLeaf, JsonPath, JsonRules, Null, NumberNoise, Replace, Shift,
    TEXT_DIGITS, Truncate, integer, is_date, is_timestamp, least_length,
};
use crate::rule_spec::{FakeKind, Noise, RuleSpec, ShiftSpan};
use crate::sql_type::{NumericLimits, SqlType};
use crate::transform::{Transform, character_count};

/// Fewer hexadecimal digits of a hash are too easily equal by chance.
const LEAST_HASH: usize = 8;
const LEAST_UNIQUE_HASH: usize = 16;
/// Digits of numbers that stand for a value: what an 8-byte integer holds, and what every JSON reader holds.
const NUMERIC_DIGITS: u32 = 18;
const JSON_DIGITS: u32 = 15;

/// What a rule is compiled for.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) ty: &'a SqlType,
    pub(crate) unique: bool,
    pub(crate) not_null: bool,
    /// Only one row may be NULL.
    pub(crate) one_null: bool,
    pub(crate) key: Option<&'a MaskKey>,
}

/// A rule for the column; `None` keeps its values. Templates are compiled with their table.
type Compiled = Result<Option<Box<dyn Transform>>, String>;

/// Compiles a rule.
///
/// # Errors
/// Why it does not fit the column, and what to write instead.
pub(crate) fn compile(rule: &RuleSpec, target: Target<'_>) -> Compiled {
    check_uniqueness(rule, target)?;
    let compiled: Box<dyn Transform> = match rule {
        RuleSpec::Keep => return Ok(None),
        RuleSpec::Null if target.not_null => {
            return Err("null: the column is NOT NULL; use set or a fake".to_owned());
        }
        RuleSpec::Null if target.one_null => {
            return Err(
                "null: a unique index of the column is NULLS NOT DISTINCT; use hash or digits"
                    .to_owned(),
            );
        }
        RuleSpec::Null => Box::new(Null),
        RuleSpec::Set(text) => {
            if !accepts(target.ty, text) {
                return Err(format!("set: the constant is not {}", target.ty.in_words()));
            }
            Box::new(ConstantRule(text.clone().into_bytes()))
        }
        RuleSpec::Template(_) => {
            return Err("template: is for whole columns, not for values inside them".to_owned());
        }
        RuleSpec::Hash => return hash(target).map(Some),
        RuleSpec::Fake(kind) => return fake(*kind, target).map(Some),
        RuleSpec::Digits => return digits(target).map(Some),
        RuleSpec::Shift { most, .. } => return shift(*most, target).map(Some),
        RuleSpec::Noise(noise) => return number_noise(*noise, target).map(Some),
        RuleSpec::Truncate(characters) => {
            need_text("truncate", target.ty)?;
            Box::new(Truncate {
                characters: *characters,
            })
        }
        RuleSpec::Replace { regex, with } => {
            if *target.ty != SqlType::Enum {
                need_text("replace", target.ty)?;
            }
            let regex = regex::bytes::Regex::new(regex).map_err(|e| format!("replace: {e}"))?;
            Box::new(Replace {
                regex,
                with: with.clone().into_bytes(),
                max: target.ty.max_characters(),
            })
        }
        RuleSpec::Json(rules) => return json(rules, target).map(Some),
        RuleSpec::Each(rule) => return each(rule, target),
    };
    Ok(Some(compiled))
}

/// Refuses the rules that map different values to one.
fn check_uniqueness(rule: &RuleSpec, target: Target<'_>) -> Result<(), String> {
    if !target.unique {
        return Ok(());
    }
    let keeps_unique = match rule {
        RuleSpec::Keep | RuleSpec::Null | RuleSpec::Hash | RuleSpec::Digits => true,
        // Checked with the columns that it refers to.
        RuleSpec::Template(_) => true,
        RuleSpec::Fake(kind) => least_length(*kind).1.is_some(),
        _ => false,
    };
    if keeps_unique {
        return Ok(());
    }
    Err(format!(
        "{} cannot keep a unique column unique; use hash, digits, {{ fake: email }} or {{ fake: iban }}",
        rule.in_words()
    ))
}

fn need_text(rule: &str, ty: &SqlType) -> Result<(), String> {
    if ty.is_text() {
        return Ok(());
    }
    Err(misfit(rule, ty, "text"))
}

fn misfit(rule: &str, ty: &SqlType, wanted: &str) -> String {
    let instead = match ty {
        SqlType::Array(_) => "; write { each: RULE } for its elements",
        SqlType::Json => "; write { json: { PATH: RULE } } for values in it",
        _ => "; use null, set or a rule for its type",
    };
    format!(
        "{rule} is for {wanted}, and the column is {}{instead}",
        ty.in_words()
    )
}

fn keyed(target: Target<'_>) -> Result<Arc<Keyed>, String> {
    let key = target.key.map(|key| key.keyed().clone());
    key.ok_or_else(|| "the rule needs a key: set MASK_KEY or MASK_KEY_FILE".to_owned())
}

fn hash(target: Target<'_>) -> Result<Box<dyn Transform>, String> {
    let key = keyed(target)?;
    match target.ty {
        SqlType::Text { .. } | SqlType::CaseInsensitive | SqlType::UserDefined => {
            let length = target.ty.max_characters().unwrap_or(TEXT_DIGITS);
            let least = if target.unique {
                LEAST_UNIQUE_HASH
            } else {
                LEAST_HASH
            };
            if length < least {
                return Err(format!(
                    "hash needs {least} characters, and the column holds {length}; use digits or null"
                ));
            }
            let ty = target.ty.clone();
            Ok(Box::new(HashText { key, ty }))
        }
        SqlType::Uuid => Ok(Box::new(HashUuid { key })),
        SqlType::Integer(width) => Ok(Box::new(HashInteger { key, width: *width })),
        SqlType::Numeric(limits) => {
            let digits = whole_digits(*limits).min(NUMERIC_DIGITS);
            let least = if target.unique { NUMERIC_DIGITS } else { 1 };
            if digits < least {
                return Err(format!(
                    "hash needs {least} digits before the point, and the column holds {digits}; use digits"
                ));
            }
            Ok(Box::new(HashNumeric { key, digits }))
        }
        other => Err(misfit("hash", other, "text, uuid, integers and numeric")),
    }
}

/// Digits before the decimal point.
fn whole_digits(limits: Option<NumericLimits>) -> u32 {
    let Some(limits) = limits else {
        return NUMERIC_DIGITS;
    };
    let digits = i64::from(limits.precision) - i64::from(limits.scale.max(0));
    u32::try_from(digits).unwrap_or(0)
}

fn fake(kind: FakeKind, target: Target<'_>) -> Result<Box<dyn Transform>, String> {
    let rule = format!("fake {}", kind.as_str());
    need_text(&rule, target.ty)?;
    let (least, least_unique) = least_length(kind);
    let least = least_unique.filter(|_| target.unique).unwrap_or(least);
    match target.ty.max_characters() {
        Some(length) if length < least => Err(format!(
            "{rule} needs {least} characters, and the column holds {length}; use digits, truncate or null"
        )),
        _ => Ok(Box::new(Fake {
            key: keyed(target)?,
            kind,
            ty: target.ty.clone(),
        })),
    }
}

fn digits(target: Target<'_>) -> Result<Box<dyn Transform>, String> {
    let of = match target.ty {
        SqlType::Text { .. } | SqlType::CaseInsensitive | SqlType::UserDefined => DigitsOf::Text,
        SqlType::Integer(width) => DigitsOf::Integer(*width),
        SqlType::Numeric(None) if target.unique => {
            return Err(
                "digits cannot keep a unique numeric without a scale unique, in which 1.5 and 1.50 are equal; use hash"
                    .to_owned(),
            );
        }
        SqlType::Numeric(limits) => DigitsOf::Numeric {
            zeros: leading_zeros("digits", *limits)?,
        },
        other => return Err(misfit("digits", other, "text, integers and numeric")),
    };
    let key = keyed(target)?;
    Ok(Box::new(Digits { key, of }))
}

/// How many digits after the point are always 0, if the whole part is, too: those of `numeric(3,5)`.
fn leading_zeros(rule: &str, limits: Option<NumericLimits>) -> Result<Option<usize>, String> {
    let Some(NumericLimits { precision, scale }) = limits else {
        return Ok(None);
    };
    let Ok(scale) = u32::try_from(scale) else {
        return Err(format!(
            "{rule} cannot keep the zeros before the point of numeric({precision},{scale}); use hash, set or null"
        ));
    };
    let zeros = scale.checked_sub(precision);
    Ok(zeros.and_then(|zeros| usize::try_from(zeros).ok()))
}

fn shift(most: ShiftSpan, target: Target<'_>) -> Result<Box<dyn Transform>, String> {
    match target.ty {
        SqlType::Date if !most.is_whole_days() => {
            return Err("shift: a date moves by whole days; write 30d or 4w".to_owned());
        }
        SqlType::Date | SqlType::Timestamp => {}
        other => return Err(misfit("shift", other, "date and timestamp")),
    }
    let key = keyed(target)?;
    Ok(Box::new(Shift { key, most }))
}

fn number_noise(noise: Noise, target: Target<'_>) -> Result<Box<dyn Transform>, String> {
    let key = keyed(target)?;
    let (width, limits) = match target.ty {
        SqlType::Integer(width) => (Some(*width), None),
        SqlType::Numeric(limits) => {
            leading_zeros("noise", *limits)?;
            (None, *limits)
        }
        SqlType::Float { double } => {
            let is_double = *double;
            return Ok(Box::new(FloatNoise {
                key,
                noise,
                is_double,
            }));
        }
        other => return Err(misfit("noise", other, "numbers")),
    };
    Ok(Box::new(NumberNoise {
        key,
        noise,
        width,
        limits,
    }))
}

fn each(rule: &RuleSpec, target: Target<'_>) -> Compiled {
    let SqlType::Array(element) = target.ty else {
        return Err(misfit("each", target.ty, "arrays"));
    };
    if matches!(rule, RuleSpec::Each(_)) {
        return Err("each: elements of every dimension are masked; write it once".to_owned());
    }
    if matches!(&**element, SqlType::Other(name) if name == "box") {
        return Err("each: a box has commas in it; use null or set for the whole array".to_owned());
    }
    let target = Target {
        ty: element,
        unique: false,
        not_null: false,
        one_null: false,
        key: target.key,
    };
    let compiled = compile(rule, target)?;
    Ok(compiled.map(|rule| Box::new(EachElement(rule)) as Box<dyn Transform>))
}

fn json(rules: &Ordered<RuleSpec>, target: Target<'_>) -> Result<Box<dyn Transform>, String> {
    if *target.ty != SqlType::Json {
        return Err(misfit("json", target.ty, "json and jsonb"));
    }
    let mut compiled: Vec<(JsonPath, JsonLeaf)> = Vec::new();
    for (path, rule) in &rules.0 {
        let leads = JsonPath::parse(path).ok_or_else(|| {
            format!("json: {path} is not a path; write one such as $.a.b, $[\"a b\"] (without escapes), $.a[*].b or $[*].x")
        })?;
        let earlier = compiled.iter().zip(&rules.0);
        let mut conflicting = earlier.filter(|((other, _), _)| other.conflicts_with(&leads));
        if let Some((_, (other, _))) = conflicting.next() {
            return Err(format!(
                "json: {path} and {other} lead to the same values, and neither is more specific; write a path without \
                 wildcards for them"
            ));
        }
        let leaf = json_leaf(rule, target).map_err(|why| format!("json: {path}: {why}"))?;
        compiled.push((leads, leaf));
    }
    Ok(Box::new(JsonRules(compiled)))
}

fn json_leaf(rule: &RuleSpec, target: Target<'_>) -> Result<JsonLeaf, String> {
    let inside = |ty| Target {
        ty,
        unique: false,
        not_null: false,
        one_null: false,
        key: target.key,
    };
    let text = SqlType::Text {
        max: None,
        padded: false,
    };
    match rule {
        RuleSpec::Keep => return Ok(JsonLeaf::Keep),
        RuleSpec::Null => return Ok(JsonLeaf::Null),
        RuleSpec::Set(constant) => {
            let is_number = Decimal::parse(constant.as_bytes()).is_some() && is_json(constant);
            return Ok(JsonLeaf::Set {
                string: serde_json::to_vec(constant).map_err(|e| e.to_string())?,
                number: is_number.then(|| constant.clone().into_bytes()),
            });
        }
        RuleSpec::Json(_) | RuleSpec::Each(_) => {
            return Err("write the whole path instead, such as $.a[*].b".to_owned());
        }
        _ => {}
    }
    let numeric = SqlType::Numeric(Some(NumericLimits {
        precision: JSON_DIGITS,
        scale: 0,
    }));
    let (string, number) = match rule {
        // Dates are strings in JSON, and numbers are numbers.
        RuleSpec::Shift { .. } => (compile(rule, inside(&SqlType::Timestamp))?, None),
        RuleSpec::Noise(_) => {
            let noise = || compile(rule, inside(&SqlType::Numeric(None)));
            (noise()?, noise()?)
        }
        RuleSpec::Hash | RuleSpec::Digits => (
            compile(rule, inside(&text))?,
            compile(rule, inside(&numeric))?,
        ),
        _ => (compile(rule, inside(&text))?, None),
    };
    match string {
        Some(string) => Ok(JsonLeaf::Rule { string, number }),
        None => Ok(JsonLeaf::Keep),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Whether a constant is a value of the type, in the spelling that PostgreSQL writes.
fn accepts(ty: &SqlType, text: &str) -> bool {
    let bytes = text.as_bytes();
    match ty {
        SqlType::Text { max, .. } => max.is_none_or(|max| character_count(bytes) <= max),
        SqlType::Integer(width) => integer(bytes, *width).is_some(),
        SqlType::Numeric(limits) => {
            let number = Decimal::parse(bytes);
            text == "NaN" || number.is_some_and(|number| limits.is_none_or(|l| fits(number, l)))
        }
        SqlType::Float { double } => is_float(text, *double),
        SqlType::Boolean => ["t", "f", "true", "false"].contains(&text),
        SqlType::Uuid => is_uuid(bytes),
        SqlType::Date => is_date(bytes),
        SqlType::Timestamp => is_timestamp(bytes),
        SqlType::Json => is_json(text),
        SqlType::Array(_) => text.starts_with(['{', '[']),
        // The server checks it.
        SqlType::Enum | SqlType::Other(_) | SqlType::CaseInsensitive | SqlType::UserDefined => true,
    }
}

/// Whether the number fits once the server has rounded it to the scale.
fn fits(number: Decimal, limits: NumericLimits) -> bool {
    let scale = u32::try_from(limits.scale).unwrap_or(0);
    let digits = match limits.scale {
        0.. => limits.precision,
        _ => whole_digits(Some(limits)),
    };
    let most = 10_u128.checked_pow(digits);
    let rounded = number.rounded(scale).map(i128::unsigned_abs);
    rounded.is_some_and(|rounded| most.is_none_or(|most| rounded < most))
}

/// Whether the type holds the number: what is too large for it, or so small that it would be 0, is refused by the server.
fn is_float(text: &str, is_double: bool) -> bool {
    let is_number = text.bytes().any(|b| b.is_ascii_digit());
    let mut mantissa = text.bytes().take_while(|b| !b"eE".contains(b));
    let is_zero = mantissa.all(|b| !(b'1'..=b'9').contains(&b));
    text.parse::<f64>().is_ok_and(|value| {
        let held = if is_double {
            value
        } else {
            f64::from(value as f32)
        };
        !is_number || held.is_finite() && (held != 0.0 || is_zero)
    })
}

/// 32 hexadecimal digits, with a hyphen after any four of them.
fn is_uuid(text: &[u8]) -> bool {
    let (mut digits, mut after_hyphen) = (0, true);
    for b in text {
        match b {
            b'-' if !after_hyphen && digits % 4 == 0 && digits < 32 => after_hyphen = true,
            _ if b.is_ascii_hexdigit() => {
                digits += 1;
                after_hyphen = false;
            }
            _ => return false,
        }
    }
    digits == 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::test_key;

    fn fits(rule: &str, ty: &str, unique: bool, not_null: bool) -> Result<(), String> {
        let yaml = format!("version: 1\ntables: {{ s.t: {{ columns: {{ c: {rule} }} }} }}\n");
        let file = crate::file::MaskFile::parse(&yaml).unwrap();
        let (ty, key) = (SqlType::parse(ty), test_key("a"));
        let target = Target {
            ty: &ty,
            unique,
            not_null,
            one_null: false,
            key: Some(&key),
        };
        compile(&file.tables.0[0].1.columns.0[0].1, target).map(|_| ())
    }

    #[test]
    fn rules_fit_the_types_that_they_are_for() {
        for (rule, ty) in [
            ("keep", "point"),
            ("{ null: true }", "point"),
            ("{ set: \"(0,0)\" }", "point"),
            ("{ set: 5 }", "smallint"),
            ("{ set: 2024-01-31 }", "date"),
            ("{ set: 999.994 }", "numeric(5,2)"),
            ("{ set: 0.00999 }", "numeric(3,5)"),
            ("{ set: 1e300 }", "double precision"),
            ("{ set: 0e-400 }", "real"),
            ("{ set: NaN }", "real"),
            ("{ set: 0123-4567-89abcdef-0123-456789abcdef }", "uuid"),
            ("{ set: happy }", "enum"),
            ("{ replace: { regex: sad, with: ok } }", "enum"),
            ("{ set: \"{}\" }", "text[]"),
            ("{ hash: true }", "uuid"),
            ("{ hash: true }", "numeric(12,2)"),
            ("{ hash: true }", "public.email"),
            ("{ fake: email }", "character varying(18)"),
            ("{ digits: true }", "bigint"),
            ("{ shift: 12h }", "timestamp with time zone"),
            ("{ noise: 5% }", "real"),
            ("{ truncate: 3 }", "citext"),
            ("{ each: { fake: name } }", "text[]"),
            ("{ json: { \"$.a[*].b\": { hash: true } } }", "jsonb"),
        ] {
            assert_eq!(fits(rule, ty, false, false), Ok(()), "{rule} {ty}");
        }
    }

    #[test]
    fn rules_that_do_not_fit_are_refused() {
        for (rule, ty, why) in [
            ("{ shift: 30d }", "text", "shift is for date"),
            ("{ shift: 12h }", "date", "whole days"),
            ("{ noise: 5% }", "text", "noise is for numbers"),
            ("{ digits: true }", "double precision", "digits is for"),
            ("{ fake: name }", "integer", "fake name is for text"),
            (
                "{ fake: email }",
                "character varying(5)",
                "needs 18 characters",
            ),
            ("{ fake: iban }", "character(20)", "needs 22 characters"),
            (
                "{ hash: true }",
                "character varying(7)",
                "needs 8 characters",
            ),
            ("{ hash: true }", "timestamp with time zone", "hash is for"),
            ("{ hash: true }", "text[]", "each"),
            ("{ truncate: 3 }", "jsonb", "json: { PATH"),
            ("{ set: abc }", "integer", "not an integer"),
            ("{ set: 40000 }", "smallint", "not an integer"),
            ("{ set: abcdef }", "character(5)", "at most 5"),
            ("{ set: 1000 }", "numeric(5,2)", "not numeric"),
            ("{ set: 999.995 }", "numeric(5,2)", "not numeric"),
            ("{ set: 0.1 }", "numeric(3,5)", "not numeric"),
            ("{ set: 1e400 }", "double precision", "not a floating-point"),
            ("{ set: 1e39 }", "real", "not a floating-point"),
            ("{ set: 1e-60 }", "real", "not a floating-point"),
            (
                "{ set: -00000000000000000000000000000000 }",
                "uuid",
                "not uuid",
            ),
            ("{ set: 0000-01-01 }", "date", "not date"),
            (
                "{ set: 2024-01-31 12:00:00 x }",
                "timestamp",
                "not timestamp",
            ),
            ("{ hash: true }", "enum", "column is an enum"),
            ("{ fake: text }", "composite type", "is composite type"),
            ("{ hash: true }", "tsmultirange", "hash is for"),
            ("{ digits: true }", "numeric(5,-2)", "numeric(5,-2)"),
            ("{ noise: 5% }", "numeric(5,-2)", "numeric(5,-2)"),
            ("{ each: { null: true } }", "box[]", "commas"),
            ("{ each: { hash: true } }", "text", "each is for arrays"),
            ("{ json: { a: { hash: true } } }", "json", "is not a path"),
            (
                "{ json: { \"$.a\": { each: { hash: true } } } }",
                "json",
                "whole path",
            ),
            (
                "{ json: { \"$.a\": { hash: true } } }",
                "text",
                "json is for",
            ),
            (
                "{ json: { \"$.a.*\": keep, \"$.*.b\": { null: true } } }",
                "jsonb",
                "neither is more specific",
            ),
        ] {
            let error = fits(rule, ty, false, false).unwrap_err();
            assert!(error.contains(why), "{rule} {ty}: {error}");
        }
        assert!(
            fits("{ null: true }", "text", false, true)
                .unwrap_err()
                .contains("NOT NULL")
        );
    }

    #[test]
    fn unique_columns_take_only_rules_that_keep_them_unique() {
        for (rule, ty) in [
            ("{ hash: true }", "integer"),
            ("{ hash: true }", "uuid"),
            ("{ hash: true }", "character varying(16)"),
            ("{ digits: true }", "text"),
            ("{ fake: email }", "text"),
            ("{ fake: iban }", "text"),
            ("{ null: true }", "text"),
            ("keep", "text"),
        ] {
            assert_eq!(fits(rule, ty, true, false), Ok(()), "{rule} {ty}");
        }
        for (rule, ty) in [
            ("{ set: x }", "text"),
            ("{ truncate: 3 }", "text"),
            ("{ fake: name }", "text"),
            ("{ fake: phone }", "text"),
            ("{ fake: text }", "text"),
            ("{ noise: 5% }", "integer"),
            ("{ shift: 30d }", "date"),
            ("{ replace: { regex: a, with: b } }", "text"),
            ("{ each: { hash: true } }", "text[]"),
            ("{ json: { \"$.a\": { hash: true } } }", "jsonb"),
        ] {
            let error = fits(rule, ty, true, false).unwrap_err();
            assert!(error.contains("unique"), "{rule}: {error}");
        }
        let error = fits("{ digits: true }", "numeric", true, false).unwrap_err();
        assert!(error.contains("without a scale"), "{error}");
        assert_eq!(
            fits("{ digits: true }", "numeric(9,2)", true, false),
            Ok(())
        );
        assert_eq!(fits("{ digits: true }", "numeric", false, false), Ok(()));
        for (rule, ty) in [
            ("{ hash: true }", "character varying(15)"),
            ("{ hash: true }", "numeric(10,2)"),
            ("{ fake: email }", "character varying(28)"),
        ] {
            assert!(
                fits(rule, ty, true, false).unwrap_err().contains("needs"),
                "{rule} {ty}"
            );
        }
    }

    #[test]
    fn a_column_that_may_have_one_null_is_not_nulled() {
        let target = Target {
            ty: &SqlType::Uuid,
            unique: true,
            not_null: false,
            one_null: true,
            key: None,
        };
        let error = compile(&RuleSpec::Null, target).err().unwrap();
        assert!(error.contains("NULLS NOT DISTINCT"), "{error}");
    }

    #[test]
    fn a_rule_without_its_key_names_the_variables() {
        let target = Target {
            ty: &SqlType::Uuid,
            unique: false,
            not_null: false,
            one_null: false,
            key: None,
        };
        let error = compile(&RuleSpec::Hash, target).err().unwrap();
        assert!(error.contains("MASK_KEY_FILE"), "{error}");
    }
}
