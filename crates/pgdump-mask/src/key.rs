//! The key of a mask.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::error::MaskFileError;
use crate::permutation::Permutations;
use crate::prf::{Prf, push_hex};

/// The shortest secret that is accepted.
const MIN_BYTES: usize = 16;

/// The secret that hashes, fakes, shifts and shares follow from.
#[derive(Clone)]
pub struct MaskKey(Arc<Keyed>);

impl MaskKey {
    /// Takes the secret: what `MASK_KEY` or `MASK_KEY_FILE` holds, without white space around it.
    ///
    /// # Errors
    /// The secret is shorter than 16 bytes.
    pub fn new(secret: SecretString) -> Result<Self, MaskFileError> {
        let secret = secret.expose_secret().trim().as_bytes();
        if secret.len() < MIN_BYTES {
            return Err(MaskFileError(format!(
                "the masking key (MASK_KEY, or the file that MASK_KEY_FILE names) has {} bytes, and needs at least {MIN_BYTES}: \
                 make one with `openssl rand -hex 32`",
                secret.len()
            )));
        }
        let prf = Prf::new(secret)?;
        let permutations = Permutations::new(&prf)?;
        Ok(Self(Arc::new(Keyed { prf, permutations })))
    }

    /// Eight hexadecimal digits that tell keys apart and reveal nothing of them.
    #[must_use]
    pub fn id(&self) -> String {
        let mac = self.0.prf.mac(b"key id", &[]);
        let mut id = Vec::new();
        push_hex(&mac[..4], &mut id);
        String::from_utf8_lossy(&id).into_owned()
    }

    pub(crate) fn keyed(&self) -> &Arc<Keyed> {
        &self.0
    }
}

impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaskKey({})", self.id())
    }
}

/// What is derived from the key.
pub(crate) struct Keyed {
    pub(crate) prf: Prf,
    pub(crate) permutations: Permutations,
}

#[cfg(test)]
pub(crate) fn test_key(secret: &str) -> MaskKey {
    MaskKey::new(format!("{secret} long enough to be a key").into()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_an_id_and_shows_nothing_else() {
        let key = test_key("a");
        assert_eq!(key.id().len(), 8);
        assert_eq!(key.id(), test_key("a").id());
        assert_ne!(key.id(), test_key("b").id());
        assert_eq!(format!("{key:?}"), format!("MaskKey({})", key.id()));
    }

    #[test]
    fn a_short_key_is_refused_without_being_shown() {
        let error = MaskKey::new("hunter2".to_owned().into()).unwrap_err();
        assert!(error.to_string().contains("has 7 bytes"), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}
