//! Invented values that follow from the key and the value: the same value gives the same fake, in every table.
//!
//! Names and words are those of the crate `fake`. Which one is taken is decided here, so that a fake depends on the key and the
//! value alone.

use std::sync::Arc;

use fake::locales::{Data, EN};

use super::calendar::push_number;
use super::iban;
use crate::key::Keyed;
use crate::prf::{Draws, push_hex};
use crate::rule_spec::FakeKind;
use crate::sql_type::SqlType;
use crate::transform::{Fault, Masked, Transform, character_count};

/// Reserved by RFC 2606: no message reaches anyone.
const DOMAIN: &[u8] = b"@example.com";
/// Hexadecimal digits that keep e-mail addresses apart: 64 bits.
const SUFFIX_DIGITS: usize = 16;
/// An address of the suffix alone.
const SHORT_EMAIL: usize = 1 + SUFFIX_DIGITS + DOMAIN.len();
/// The shortest address: five digits are left of the suffix.
const LEAST_EMAIL: usize = 1 + 5 + DOMAIN.len();
const IBAN_LENGTH: usize = 22;
const PHONE_LENGTH: usize = 12;
const LEAST_PHONE: usize = 7;
/// The longest e-mail address that mail systems accept.
const LONGEST_EMAIL: usize = 254;

/// The fewest characters that a column needs for this fake, and for fakes that stay unique; `None`: they do not.
pub(crate) fn least_length(kind: FakeKind) -> (usize, Option<usize>) {
    match kind {
        FakeKind::Email => (LEAST_EMAIL, Some(SHORT_EMAIL)),
        FakeKind::Iban => (IBAN_LENGTH, Some(IBAN_LENGTH)),
        FakeKind::Phone => (LEAST_PHONE, None),
        FakeKind::Name => (5, None),
        FakeKind::FirstName
        | FakeKind::LastName
        | FakeKind::Address
        | FakeKind::City
        | FakeKind::Company => (3, None),
        FakeKind::Text => (1, None),
    }
}

pub(crate) struct Fake {
    pub(crate) key: Arc<Keyed>,
    pub(crate) kind: FakeKind,
    pub(crate) ty: SqlType,
}

impl Transform for Fake {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let value = &*self.ty.canonical(value);
        let mut draws = self.key.prf.draws(self.purpose(), value);
        let max = self.ty.max_characters().unwrap_or(usize::MAX);
        let start = out.len();
        match self.kind {
            FakeKind::Email => email(&mut draws, max.min(LONGEST_EMAIL), out),
            FakeKind::Iban => {
                let account: [u8; 18] = draws.digits();
                out.extend_from_slice(&iban::iban(b"DE", &account));
            }
            FakeKind::Phone => phone(&mut draws, max, out),
            FakeKind::Text => words(&mut draws, character_count(value).min(max), out),
            kind => named(kind, &mut draws, out),
        }
        // The tables are ASCII: a byte is a character.
        out.truncate(start.saturating_add(max));
        while out.len() > start && out.last() == Some(&b' ') {
            out.pop();
        }
        Ok(Masked::Value)
    }
}

impl Fake {
    fn purpose(&self) -> &'static [u8] {
        match self.kind {
            FakeKind::Email => b"fake email",
            FakeKind::Name => b"fake name",
            FakeKind::FirstName => b"fake first name",
            FakeKind::LastName => b"fake last name",
            FakeKind::Phone => b"fake phone",
            FakeKind::Address => b"fake address",
            FakeKind::City => b"fake city",
            FakeKind::Company => b"fake company",
            FakeKind::Iban => b"fake iban",
            FakeKind::Text => b"fake text",
        }
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn first_name(draws: &mut Draws<'_>) -> &'static str {
    draws.pick(EN::NAME_FIRST_NAME)
}

fn last_name(draws: &mut Draws<'_>) -> &'static str {
    draws.pick(EN::NAME_LAST_NAME)
}

fn named(kind: FakeKind, draws: &mut Draws<'_>, out: &mut Vec<u8>) {
    match kind {
        FakeKind::FirstName => push(out, &[first_name(draws)]),
        FakeKind::LastName => push(out, &[last_name(draws)]),
        FakeKind::City => {
            let suffix = draws.pick(EN::ADDRESS_CITY_SUFFIX);
            push(out, &[first_name(draws), suffix]);
        }
        FakeKind::Company => {
            let suffix = draws.pick(EN::COMPANY_SUFFIX);
            push(out, &[last_name(draws), " ", suffix]);
        }
        FakeKind::Address => {
            let number = 1 + draws.below(999);
            push_number(i64::try_from(number).unwrap_or(1), 1, out);
            let suffix = draws.pick(EN::ADDRESS_STREET_SUFFIX);
            push(out, &[" ", last_name(draws), " ", suffix]);
        }
        _ => push(out, &[first_name(draws), " ", last_name(draws)]),
    }
}

/// `anna.meyer.3f9a1c0b12345678@example.com`, or without the name if that does not fit.
fn email(draws: &mut Draws<'_>, max: usize, out: &mut Vec<u8>) {
    let number = draws.number();
    let start = out.len();
    for part in [first_name(draws), last_name(draws)] {
        push_letters(part, out);
        out.push(b'.');
    }
    if out.len() - start + SUFFIX_DIGITS + DOMAIN.len() > max {
        out.truncate(start);
        out.push(b'u');
    }
    let suffix = out.len();
    let digits = max.saturating_sub(suffix - start + DOMAIN.len());
    push_hex(&number.to_be_bytes(), out);
    out.truncate(suffix + digits.min(SUFFIX_DIGITS));
    out.extend_from_slice(DOMAIN);
}

/// Appends the ASCII letters of a word in lower case.
fn push_letters(word: &str, out: &mut Vec<u8>) {
    let start = out.len();
    let letters = word.bytes().filter(u8::is_ascii_alphabetic);
    if letters.clone().count() == word.len() {
        // Most names have nothing else; one copy is faster than a filter.
        out.extend_from_slice(word.as_bytes());
    } else {
        out.extend(letters);
    }
    out[start..].make_ascii_lowercase();
}

/// `+1555` and seven digits: no number plan assigns the area code 555.
fn phone(draws: &mut Draws<'_>, max: usize, out: &mut Vec<u8>) {
    if max >= PHONE_LENGTH {
        push(out, &["+1555"]);
    }
    let digits: [u8; LEAST_PHONE] = draws.digits();
    out.extend_from_slice(&digits);
}

/// Words of `length` characters altogether.
fn words(draws: &mut Draws<'_>, length: usize, out: &mut Vec<u8>) {
    let end = out.len() + length;
    while out.len() < end {
        push(out, &[draws.pick(EN::LOREM_WORD), " "]);
    }
    out.truncate(end);
    if length > 0 && out.last() == Some(&b' ') {
        out.pop();
        out.push(b'.');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::key::test_key;

    fn fake(kind: FakeKind, ty: &str, key: &str, value: &str) -> String {
        let rule = Fake {
            key: test_key(key).keyed().clone(),
            kind,
            ty: SqlType::parse(ty),
        };
        let mut out = Vec::new();
        rule.apply(value.as_bytes(), None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_tables_are_ascii() {
        for table in [
            EN::NAME_FIRST_NAME,
            EN::NAME_LAST_NAME,
            EN::ADDRESS_CITY_SUFFIX,
            EN::ADDRESS_STREET_SUFFIX,
            EN::COMPANY_SUFFIX,
        ] {
            assert!(!table.is_empty());
            assert!(table.iter().all(|word| word.is_ascii() && word.len() >= 2));
        }
        let words = EN::LOREM_WORD;
        assert!(words.iter().all(|word| word.is_ascii() && !word.is_empty()));
    }

    #[test]
    fn a_fake_follows_from_key_and_value() {
        for kind in [
            FakeKind::Name,
            FakeKind::Email,
            FakeKind::Phone,
            FakeKind::Iban,
        ] {
            let one = fake(kind, "text", "a", "Ada Lovelace");
            assert_eq!(one, fake(kind, "text", "a", "Ada Lovelace"));
            assert_ne!(one, fake(kind, "text", "b", "Ada Lovelace"));
            assert_ne!(one, fake(kind, "text", "a", "Alan Turing"));
        }
    }

    #[test]
    fn emails_fit_and_stay_unique() {
        for (ty, max) in [
            ("text", 254),
            ("character varying(40)", 40),
            ("character varying(29)", 29),
        ] {
            let mut seen = HashSet::new();
            for i in 0..10_000 {
                let email = fake(FakeKind::Email, ty, "a", &format!("{i}@corp.de"));
                assert!(
                    email.len() <= max && email.ends_with("@example.com"),
                    "{email}"
                );
                assert!(seen.insert(email));
            }
        }
        let short = fake(FakeKind::Email, "character varying(18)", "a", "x");
        assert_eq!((short.len(), &short[..1]), (18, "u"));
    }

    #[test]
    fn ibans_are_valid() {
        for i in 0..100 {
            let iban = fake(FakeKind::Iban, "character varying(22)", "a", &i.to_string());
            assert_eq!(iban.len(), 22);
            assert!(iban::is_valid(iban.as_bytes()), "{iban}");
        }
    }

    #[test]
    fn texts_keep_their_length() {
        for length in [0, 1, 2, 17, 300] {
            let text = "ü".repeat(length);
            let masked = fake(FakeKind::Text, "text", "a", &text);
            assert_eq!(masked.len(), length);
            assert!(!masked.ends_with(' '));
        }
    }

    #[test]
    fn every_fake_fits_its_column() {
        for kind in [
            FakeKind::Email,
            FakeKind::Name,
            FakeKind::FirstName,
            FakeKind::LastName,
            FakeKind::Phone,
            FakeKind::Address,
            FakeKind::City,
            FakeKind::Company,
            FakeKind::Iban,
            FakeKind::Text,
        ] {
            let least = least_length(kind).0;
            for max in least..least + 30 {
                for value in 0..20 {
                    let masked = fake(kind, &format!("varchar({max})"), "a", &value.to_string());
                    assert!(
                        !masked.is_empty() && masked.len() <= max,
                        "{kind:?}({max}): {masked}"
                    );
                }
            }
        }
    }

    #[test]
    fn phone_numbers_have_a_shape() {
        let phone = fake(FakeKind::Phone, "text", "a", "0170 1234567");
        assert!(phone.starts_with("+1555") && phone.len() == 12, "{phone}");
        assert_eq!(fake(FakeKind::Phone, "varchar(8)", "a", "1").len(), 7);
    }
}
