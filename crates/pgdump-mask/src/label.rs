//! Rules of PostgreSQL Anonymizer (`SECURITY LABEL FOR anon`), as far as they name what there is here.

use crate::rule_spec::{DAY, FakeKind, Noise, RuleSpec, ShiftSpan};

/// The rule that a column's label stands for.
///
/// # Errors
/// What the label says that is not understood.
pub(crate) fn rule_of(label: &str) -> Result<RuleSpec, String> {
    let words = label.trim();
    if words.eq_ignore_ascii_case("not masked") {
        return Ok(RuleSpec::Keep);
    }
    if let Some(value) = after(words, "masked with value") {
        return constant(value).ok_or_else(|| unknown(label));
    }
    let call = after(words, "masked with function").ok_or_else(|| unknown(label))?;
    let (name, arguments) = call
        .strip_suffix(')')
        .and_then(|c| c.split_once('('))
        .ok_or_else(|| unknown(label))?;
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("anon.").unwrap_or(&name);
    let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
    function(name, &arguments).ok_or_else(|| unknown(label))
}

fn unknown(label: &str) -> String {
    format!("the label \"{label}\" of anon has no rule here: write a rule for the column")
}

/// What follows these words, in any case.
fn after<'t>(text: &'t str, words: &str) -> Option<&'t str> {
    let head = text.get(..words.len())?;
    head.eq_ignore_ascii_case(words)
        .then(|| text[words.len()..].trim())
}

fn constant(value: &str) -> Option<RuleSpec> {
    if value.eq_ignore_ascii_case("null") {
        return Some(RuleSpec::Null);
    }
    if let Some(text) = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        return Some(RuleSpec::Set(text.replace("''", "'")));
    }
    let is_plain = !value.is_empty()
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c));
    is_plain.then(|| RuleSpec::Set(value.to_owned()))
}

fn function(name: &str, arguments: &[&str]) -> Option<RuleSpec> {
    let kind = match name {
        "hash" | "digest" => return Some(RuleSpec::Hash),
        "noise" => return noise(arguments.get(1)?),
        "dnoise" => return date_noise(arguments.get(1)?),
        "lorem_ipsum" => return Some(RuleSpec::Fake(FakeKind::Text)),
        "random_phone" => return Some(RuleSpec::Fake(FakeKind::Phone)),
        _ => name
            .strip_prefix("fake_")
            .or_else(|| name.strip_prefix("pseudo_"))
            .or_else(|| name.strip_prefix("dummy_"))?,
    };
    let kind = match kind {
        "email" | "free_email" | "safe_email" => FakeKind::Email,
        "name" => FakeKind::Name,
        "first_name" => FakeKind::FirstName,
        "last_name" => FakeKind::LastName,
        "phone_number" | "cell_number" => FakeKind::Phone,
        "address" | "street_name" => FakeKind::Address,
        "city" | "city_name" => FakeKind::City,
        "company" | "company_name" => FakeKind::Company,
        "iban" => FakeKind::Iban,
        _ => return None,
    };
    Some(RuleSpec::Fake(kind))
}

/// `anon.noise(column, 0.1)`: a share of the value.
fn noise(ratio: &str) -> Option<RuleSpec> {
    let ratio: f64 = ratio.parse().ok()?;
    let noise = Noise::parse(&format!("{:.6}%", ratio * 100.0))?;
    Some(RuleSpec::Noise(noise))
}

/// `anon.dnoise(column, '30 days')`.
fn date_noise(interval: &str) -> Option<RuleSpec> {
    let interval = interval.split("::").next()?.trim().trim_matches('\'');
    let (count, unit) = interval.split_once(' ')?;
    let count: u32 = count.parse().ok()?;
    let (factor, unit_seconds) = match unit.trim_end_matches('s') {
        "day" => (1, DAY),
        "week" => (7, DAY),
        "month" => (30, DAY),
        "year" => (365, DAY),
        "hour" => (1, 3600),
        "minute" => (1, 60),
        _ => return None,
    };
    let count = count.checked_mul(factor).filter(|c| *c > 0)?;
    let most = ShiftSpan {
        count,
        unit_seconds,
    };
    Some(RuleSpec::Shift { by: None, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_name_a_rule_are_understood() {
        let fake = RuleSpec::Fake;
        for (label, expected) in [
            (
                "MASKED WITH FUNCTION anon.fake_email()",
                fake(FakeKind::Email),
            ),
            (
                "MASKED WITH FUNCTION anon.dummy_first_name()",
                fake(FakeKind::FirstName),
            ),
            (
                "masked with function anon.pseudo_company(id)",
                fake(FakeKind::Company),
            ),
            ("MASKED WITH FUNCTION anon.hash(token)", RuleSpec::Hash),
            ("MASKED WITH VALUE NULL", RuleSpec::Null),
            ("MASKED WITH VALUE 'it''s'", RuleSpec::Set("it's".into())),
            ("MASKED WITH VALUE 0", RuleSpec::Set("0".into())),
            ("NOT MASKED", RuleSpec::Keep),
            (
                "MASKED WITH FUNCTION anon.noise(salary, 0.25)",
                RuleSpec::Noise(Noise::parse("25.000000%").unwrap()),
            ),
            (
                "MASKED WITH FUNCTION anon.dnoise(born, '2 years'::interval)",
                RuleSpec::Shift {
                    by: None,
                    most: ShiftSpan::parse("730d").unwrap(),
                },
            ),
        ] {
            assert_eq!(rule_of(label), Ok(expected), "{label}");
        }
    }

    #[test]
    fn other_labels_are_refused_by_name() {
        for label in [
            "MASKED WITH FUNCTION anon.partial(phone, 2, '*', 2)",
            "MASKED WITH FUNCTION public.mine(x)",
            "MASKED WITH VALUE now()",
            "MASKED",
            "",
        ] {
            let error = rule_of(label).unwrap_err();
            assert!(
                error.contains(label) && error.contains("write a rule"),
                "{error}"
            );
        }
    }
}
