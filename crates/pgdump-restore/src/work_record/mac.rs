//! The key of a record, and what is made with it: the code of each row, and the secret of each attempt.

use std::fmt;

use bytes::BytesMut;
use hmac::digest::Key;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};
use uuid::Uuid;

/// The key of one record. Whoever has it can write a record that is believed.
#[derive(Clone)]
pub struct RecordKey([u8; 32]);

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordKey")
    }
}

impl RecordKey {
    /// A new key.
    pub fn random() -> Self {
        // Each has 122 bits of the operating system's generator.
        let mut hash = Sha256::new();
        for _ in 0..4 {
            hash.update(Uuid::new_v4().as_bytes());
        }
        RecordKey(hash.finalize().into())
    }

    /// A key that was stored; `None` if these bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(RecordKey(bytes.try_into().ok()?))
    }

    /// The key's bytes, to be stored where only the restoring role reads.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret with which an attempt shows the server that it may write.
    pub fn writer(&self, attempt: Uuid) -> Secret {
        Secret(code(self, &[b"writer ", attempt.to_string().as_bytes()]))
    }
}

/// What an attempt may write with. It is sent as the value of a parameter only, never in the text of a statement.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// What the server knows of it.
    pub(crate) fn digest(&self) -> Vec<u8> {
        Sha256::digest(self.0).to_vec()
    }
}

/// The client logs the values of parameters.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl ToSql for Secret {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.as_slice().to_sql(ty, out)
    }

    accepts!(BYTEA);
    to_sql_checked!();
}

/// The code of a row of the record. `place`: its attempt, lane and number.
pub(crate) fn mac(key: &RecordKey, id: Uuid, place: (i32, i32, i32), body: &str) -> [u8; 32] {
    let (attempt, lane, n) = place;
    code(
        key,
        &[
            b"row ",
            id.as_bytes(),
            &attempt.to_be_bytes(),
            &lane.to_be_bytes(),
            &n.to_be_bytes(),
            body.as_bytes(),
        ],
    )
}

/// The code of what a record belongs to.
pub(crate) fn pins_mac(key: &RecordKey, id: Uuid, pins: &str) -> [u8; 32] {
    code(key, &[b"pins ", id.as_bytes(), pins.as_bytes()])
}

/// The parts but the last one have fixed lengths, and the first one says which they are.
fn code(key: &RecordKey, parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = keyed(key);
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}

fn keyed(key: &RecordKey) -> Hmac<Sha256> {
    // A key is padded with zeros to a block of the hash function; one of that size cannot be refused.
    let mut block = Key::<Hmac<Sha256>>::default();
    block[..32].copy_from_slice(&key.0);
    <Hmac<Sha256> as Mac>::new(&block)
}

/// Whether two codes are equal, in a time that does not depend on where they differ.
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_depends_on_everything() {
        let (key, id) = (RecordKey([7; 32]), Uuid::from_u128(1));
        let one = mac(&key, id, (1, 2, 3), "{}");
        assert_eq!(one, mac(&key, id, (1, 2, 3), "{}"));
        for other in [
            mac(&RecordKey([8; 32]), id, (1, 2, 3), "{}"),
            mac(&key, Uuid::from_u128(2), (1, 2, 3), "{}"),
            mac(&key, id, (2, 2, 3), "{}"),
            mac(&key, id, (1, -1, 3), "{}"),
            mac(&key, id, (1, 2, 4), "{}"),
            mac(&key, id, (1, 2, 3), "{ }"),
            pins_mac(&key, id, "{}"),
        ] {
            assert!(!is_same(&one, &other));
        }
        assert!(is_same(&one, &one) && !is_same(&one, &one[..31]) && !is_same(&[], &one));
    }

    /// Test case 2 of RFC 4231, whose key is shorter than a block.
    #[test]
    fn the_code_is_hmac_sha256() {
        let mut hmac = <Hmac<Sha256> as Mac>::new_from_slice(b"Jefe").unwrap();
        let mut block = Key::<Hmac<Sha256>>::default();
        block[..4].copy_from_slice(b"Jefe");
        let mut padded = <Hmac<Sha256> as Mac>::new(&block);
        for mac in [&mut hmac, &mut padded] {
            mac.update(b"what do ya want for nothing?");
        }
        let hex = |h: Hmac<Sha256>| -> String {
            let bytes = h.finalize().into_bytes();
            bytes.iter().map(|b| format!("{b:02x}")).collect()
        };
        let known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!((hex(hmac), hex(padded)), (known.into(), known.into()));
    }

    #[test]
    fn keys_differ_and_are_not_shown() {
        let (a, b) = (RecordKey::random(), RecordKey::random());
        assert_ne!(a.bytes(), b.bytes());
        let again = RecordKey::from_bytes(a.bytes()).unwrap();
        assert_eq!(again.bytes(), a.bytes());
        assert!(RecordKey::from_bytes(&[0; 31]).is_none());
        let attempt = Uuid::from_u128(5);
        assert_eq!(a.writer(attempt).digest(), again.writer(attempt).digest());
        assert_ne!(a.writer(attempt).digest(), b.writer(attempt).digest());
        let other = Uuid::from_u128(6);
        assert_ne!(a.writer(attempt).digest(), a.writer(other).digest());
        assert_eq!(format!("{a:?} {:?}", a.writer(attempt)), "RecordKey Secret");
    }
}
