//! Rules to start from: columns that look personal by name, type and values.

use regex::Regex;
use secrecy::SecretString;

use crate::compile::{Target, compile};
use crate::key::MaskKey;
use crate::rule_spec::RuleSpec;
use crate::shape::{ColumnShape, TableShape};
use crate::sql_type::SqlType;

/// A rule for a column that looks personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// The column.
    pub column: String,
    /// The rule, as one line of YAML.
    pub rule: String,
    /// Why the column looks personal; contains no value.
    pub why: String,
}

/// What a column may hold, by words in its name, and rules for it: the first that fits is suggested.
struct Sign {
    what: &'static str,
    /// Matches the name in lower case, with `_` around it.
    names: &'static str,
    rules: &'static [&'static str],
}

const EMAIL: &[&str] = &["{ fake: email }", "{ hash: true }"];
const DIGITS: &[&str] = &["{ digits: true }", "{ hash: true }"];
const NAME: &[&str] = &["{ fake: name }", "{ hash: true }"];
const TEXT: &[&str] = &["{ fake: text }", "{ hash: true }"];

static SIGNS: [Sign; 16] = [
    Sign {
        what: "an e-mail address",
        names: r"e_?mail|_mail_",
        rules: EMAIL,
    },
    Sign {
        what: "an IBAN",
        names: r"iban",
        rules: &["{ fake: iban }", "{ digits: true }"],
    },
    Sign {
        what: "a phone number",
        names: r"phone|_mobile_|_cell_|_fax_|_tel_|msisdn",
        rules: &["{ fake: phone }", "{ digits: true }"],
    },
    Sign {
        what: "a first name",
        names: r"first_?name|fname|given_?name|forename|middle_?name|vorname",
        rules: &["{ fake: first_name }", "{ hash: true }"],
    },
    Sign {
        what: "a last name",
        names: r"last_?name|lname|surname|family_?name|maiden|nachname",
        rules: &["{ fake: last_name }", "{ hash: true }"],
    },
    Sign {
        what: "a user's name",
        names: r"user_?name|_login_|nick_?name|_handle_",
        rules: &["{ hash: true }"],
    },
    Sign {
        what: "a person's name",
        names: r"full_?name|display_?name|contact_?name|customer_?name|holder|_author_|_recipient_",
        rules: NAME,
    },
    Sign {
        what: "a city",
        names: r"_city_|_town_|birth_?place",
        rules: &["{ fake: city }", "{ hash: true }"],
    },
    Sign {
        what: "an address on the network",
        names: r"_ip_|ip_?addr|_mac_|user_?agent",
        rules: &[
            "{ null: true }",
            "{ fake: text }",
            "{ set: 0.0.0.0 }",
            "{ set: \"00:00:00:00:00:00\" }",
        ],
    },
    Sign {
        what: "an address",
        names: r"address|_addr_|street|_strasse_",
        rules: &["{ fake: address }", "{ hash: true }"],
    },
    Sign {
        what: "a postal code",
        names: r"_zip_|zip_?code|post_?code|postal|_plz_",
        rules: DIGITS,
    },
    Sign {
        what: "a company",
        names: r"company|employer|organi[sz]ation_?name",
        rules: &["{ fake: company }", "{ hash: true }"],
    },
    Sign {
        what: "a number that identifies a person or an account",
        names: r"_ssn_|social_?sec|tax_?(id|no|num)|vat_?(id|no)|passport|licen[cs]e|national_?id|card_?(no|num)|_pan_|account_?(no|num)|insurance_?(no|num)",
        rules: DIGITS,
    },
    Sign {
        what: "a date of birth",
        names: r"birth|_born_|_dob_",
        rules: &["{ shift: 30d }", "{ null: true }"],
    },
    Sign {
        what: "a secret",
        names: r"passw|secret|token|api_?key|private_?key|_salt_|_otp_|_pin_",
        rules: &["{ hash: true }", "{ null: true }"],
    },
    Sign {
        what: "an amount that is private",
        names: r"salary|income|_wage_|_lat_|latitude|_lng_|_lon_|longitude",
        rules: &["{ noise: 10% }", "{ digits: true }"],
    },
];

/// Tables of people: their column `name` is one of a person.
const PEOPLE: &str = r"user|customer|client|person|people|employee|member|contact|patient|student|author|lead|subscriber";
/// Columns of free text, in which anything may be.
const FREE_TEXT: &str = r"_notes?_|comment|_message_|_remarks?_|feedback|_bio_|_body_|_memo_";

/// Values that look personal, whatever the column is called.
static VALUES: [(&str, &str, &[&str]); 4] = [
    (
        "e-mail addresses",
        r"(?i)^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
        EMAIL,
    ),
    (
        "IBANs",
        r"^[A-Z]{2}\d{2} ?([A-Z0-9]{4} ?){2,7}[A-Z0-9]{1,4}$",
        &["{ fake: iban }", "{ digits: true }"],
    ),
    (
        "phone numbers",
        r"^(\+\d[\d ()/-]{6,18}|\(?0\d{1,5}\)?[ /-]\d[\d -]{4,12})$",
        &["{ fake: phone }", "{ digits: true }"],
    ),
    (
        "numbers of cards or of people",
        r"^(\d{4}[ -]){3}\d{4}$|^\d{3}-\d{2}-\d{4}$",
        DIGITS,
    ),
];

/// Suggests rules for the columns that look personal. `samples` are rows of decoded values, which are compared here and not
/// returned.
#[must_use]
pub fn suggest(shape: &TableShape, samples: &[Vec<Option<Vec<u8>>>]) -> Vec<Suggestion> {
    // Only whether a rule fits is asked; nothing is masked with this key.
    let Ok(key) = MaskKey::new(SecretString::from("suggestions need no secret")) else {
        return Vec::new();
    };
    let columns = shape.columns.iter().enumerate();
    columns
        .filter_map(|(index, column)| {
            let values = samples.iter().filter_map(|row| row.get(index)?.as_deref());
            let (why, rules) = by_name(shape, column).or_else(|| by_values(values))?;
            let rule = rules
                .iter()
                .find_map(|rule| fitting(rule, shape, column, &key))?;
            Some(Suggestion {
                column: column.name.clone(),
                rule,
                why,
            })
        })
        .collect()
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
}

/// A name in lower case, its words separated and surrounded by `_`.
fn words(name: &str) -> String {
    let mut words = String::from("_");
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && after_lower {
            words.push('_');
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
        words.extend(
            c.to_lowercase()
                .map(|c| if c.is_alphanumeric() { c } else { '_' }),
        );
    }
    words.push('_');
    words
}

fn by_name(shape: &TableShape, column: &ColumnShape) -> Option<(String, &'static [&'static str])> {
    let name = words(&column.name);
    if name.ends_with("_id_") && !matches(r"tax|national|social", &name) {
        return None;
    }
    if let Some(sign) = SIGNS.iter().find(|sign| matches(sign.names, &name)) {
        return Some((format!("its name is that of {}", sign.what), sign.rules));
    }
    if name == "_name_" && matches(PEOPLE, &words(&shape.table)) {
        let why = "it is the name in a table of people".to_owned();
        return Some((why, NAME));
    }
    matches(FREE_TEXT, &name).then(|| ("its name is that of free text".to_owned(), TEXT))
}

/// What at least half of the values look like.
fn by_values<'v>(
    values: impl Iterator<Item = &'v [u8]>,
) -> Option<(String, &'static [&'static str])> {
    let values: Vec<&str> = values
        .filter_map(|v| std::str::from_utf8(v).ok())
        .filter(|v| !v.is_empty())
        .collect();
    let looks_like = |pattern: &str| {
        let Ok(regex) = Regex::new(pattern) else {
            return false;
        };
        let count = values.iter().filter(|v| regex.is_match(v)).count();
        count > 0 && count * 2 >= values.len()
    };
    let (what, _, rules) = VALUES.iter().find(|(_, pattern, _)| looks_like(pattern))?;
    Some((format!("its values look like {what}"), *rules))
}

/// The rule in the form that fits the column: with its entity for a shift, for the elements of an array, for the strings in JSON.
fn fitting(rule: &str, shape: &TableShape, column: &ColumnShape, key: &MaskKey) -> Option<String> {
    let ty = SqlType::parse(&column.sql_type);
    let entity = shape.columns.iter().find(|c| c.unique && c.not_null);
    let written = match (&ty, entity) {
        (SqlType::Array(_), _) => format!("{{ each: {rule} }}"),
        (SqlType::Json, _) => "{ json: { $: { fake: text } } }".to_owned(),
        (_, Some(entity)) if rule.contains("shift") && is_plain_word(&entity.name) => {
            rule.replace(" }", &format!(", by: {} }}", entity.name))
        }
        _ => rule.to_owned(),
    };
    let parsed: RuleSpec = serde_saphyr::from_str(&written).ok()?;
    // A column of numbers or of a built-in type takes any constant that the server can read; only those of its form fit.
    let is_constant = matches!(parsed, RuleSpec::Set(_));
    if is_constant && !constant_fits(&written, &ty) {
        return None;
    }
    let target = Target {
        ty: &ty,
        unique: column.unique,
        not_null: column.not_null,
        one_null: column.one_null,
        key: Some(key),
    };
    compile(&parsed, target).ok().map(|_| written)
}

/// Constants are suggested for addresses on the network only.
fn constant_fits(rule: &str, ty: &SqlType) -> bool {
    match ty {
        SqlType::Other(name) if name.starts_with("mac") => rule.contains("00:00"),
        SqlType::Other(name) => {
            ["inet", "cidr"].contains(&name.as_str()) && rule.contains("0.0.0.0")
        }
        _ => false,
    }
}

/// Whether a name needs no quotes in YAML.
fn is_plain_word(name: &str) -> bool {
    let reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !reserved.contains(&name.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str)]) -> TableShape {
        let columns = columns.iter().map(|(name, ty)| ColumnShape {
            name: (*name).to_owned(),
            sql_type: (*ty).to_owned(),
            not_null: *name == "id",
            unique: *name == "id",
            ..ColumnShape::default()
        });
        TableShape {
            schema: "shop".to_owned(),
            table: "customers".to_owned(),
            columns: columns.collect(),
            parents: Vec::new(),
        }
    }

    #[test]
    fn columns_look_personal_by_name_and_type() {
        let shape = table(&[
            ("id", "integer"),
            ("email_id", "integer"),
            ("name", "text"),
            ("workEmail", "character varying(60)"),
            ("phone", "bigint"),
            ("date_of_birth", "date"),
            ("salary", "numeric(10,2)"),
            ("emails", "text[]"),
            ("last_ip", "inet"),
            ("password", "character varying(60)"),
            ("notes", "text"),
            ("country", "text"),
            ("total", "numeric"),
        ]);
        let found: Vec<(String, String)> = suggest(&shape, &[])
            .into_iter()
            .map(|s| (s.column, s.rule))
            .collect();
        let expected = [
            ("name", "{ fake: name }"),
            ("workEmail", "{ fake: email }"),
            ("phone", "{ digits: true }"),
            ("date_of_birth", "{ shift: 30d, by: id }"),
            ("salary", "{ noise: 10% }"),
            ("emails", "{ each: { fake: email } }"),
            ("last_ip", "{ null: true }"),
            ("password", "{ hash: true }"),
            ("notes", "{ fake: text }"),
        ];
        let expected = expected.map(|(c, r)| (c.to_owned(), r.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn columns_look_personal_by_their_values() {
        let shape = table(&[("a", "text"), ("b", "text"), ("c", "text"), ("d", "text")]);
        let row = |values: [&str; 4]| values.map(|v| Some(v.as_bytes().to_vec())).to_vec();
        let samples = [
            row([
                "ada@example.org",
                "DE89 3704 0044 0532 0130 00",
                "+49 170 1234567",
                "12",
            ]),
            row(["n/a", "DE89370400440532013000", "0170/1234567", "red"]),
        ];
        let found = suggest(&shape, &samples);
        let rules: Vec<(&str, &str)> = found
            .iter()
            .map(|s| (s.column.as_str(), s.rule.as_str()))
            .collect();
        assert_eq!(
            rules,
            [
                ("a", "{ fake: email }"),
                ("b", "{ fake: iban }"),
                ("c", "{ fake: phone }")
            ]
        );
        assert!(found.iter().all(|s| !s.why.contains("ada@")));
    }

    #[test]
    fn every_suggested_rule_can_be_read() {
        let named = SIGNS.iter().flat_map(|sign| sign.rules);
        for rule in named.chain(VALUES.iter().flat_map(|(_, _, rules)| *rules)) {
            assert!(serde_saphyr::from_str::<RuleSpec>(rule).is_ok(), "{rule}");
        }
        for sign in &SIGNS {
            assert!(Regex::new(sign.names).is_ok(), "{}", sign.names);
        }
        assert!(
            VALUES
                .iter()
                .all(|(_, pattern, _)| Regex::new(pattern).is_ok())
        );
    }
}
