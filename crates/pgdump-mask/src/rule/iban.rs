//! Check digits of IBANs (ISO 13616: ISO 7064, mod 97-10).

/// The IBAN of a country and an account: both digits that make its remainder 1 are put between them.
pub(crate) fn iban(country: &[u8; 2], account: &[u8]) -> Vec<u8> {
    let rest = remainder(account.iter().chain(country).chain(b"00").copied());
    let check = 98 - rest;
    let mut iban = country.to_vec();
    iban.extend_from_slice(format!("{check:02}").as_bytes());
    iban.extend_from_slice(account);
    iban
}

/// The remainder by 97 of the number that digits and letters (A is 10) form.
fn remainder(text: impl Iterator<Item = u8>) -> u32 {
    text.fold(0, |rest, b| match b {
        b'0'..=b'9' => (rest * 10 + u32::from(b - b'0')) % 97,
        b'A'..=b'Z' => (rest * 100 + u32::from(b - b'A') + 10) % 97,
        _ => rest,
    })
}

/// Whether the check digits of an IBAN without spaces are right.
#[cfg(test)]
pub(crate) fn is_valid(iban: &[u8]) -> bool {
    iban.len() > 4 && remainder(iban[4..].iter().chain(&iban[..4]).copied()) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples_are_computed() {
        assert_eq!(
            iban(b"DE", b"370400440532013000"),
            b"DE89370400440532013000"
        );
        assert_eq!(
            iban(b"GB", b"WEST12345698765432"),
            b"GB82WEST12345698765432"
        );
        assert!(is_valid(b"DE89370400440532013000"));
        assert!(!is_valid(b"DE88370400440532013000"));
    }
}
