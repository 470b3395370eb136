//! The masking of restores: the rules of RESTORE_MASK and their key.

use std::fmt;

use pgdump_mask::{MaskFile, MaskKey, Masking};
use secrecy::SecretString;

use super::document::Document;
use super::raw::RawConfig;
use super::values::{ConfigErrors, secret, secret_line};

/// The masking rules of a file, with their key.
#[derive(Clone)]
pub struct MaskingRules(pub Masking);

impl fmt::Debug for MaskingRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MaskingRules")
            .field(&self.0.digest())
            .finish()
    }
}

/// The key of masking rules.
pub(super) fn mask_key(raw: &RawConfig, errors: &mut ConfigErrors) -> Option<SecretString> {
    secret("MASK_KEY", &raw.mask_key_file, &raw.mask_key, errors).map(secret_line)
}

/// The rules of RESTORE_MASK.
pub(super) fn masking(
    raw: &RawConfig,
    key: Option<&SecretString>,
    errors: &mut ConfigErrors,
) -> Option<MaskingRules> {
    let document = Document::read("RESTORE_MASK", &raw.restore_mask, errors)?;
    match rules_of(&document, key) {
        Ok(rules) => Some(rules),
        Err(what) => {
            errors.add("RESTORE_MASK", what);
            None
        }
    }
}

/// Reads masking rules.
///
/// # Errors
/// What is wrong with the file or the key, and what to write.
pub fn rules_of(document: &Document, key: Option<&SecretString>) -> Result<MaskingRules, String> {
    let file = MaskFile::parse(&document.text).map_err(|e| format!("{}: {e}", document.path))?;
    let key = key.cloned().map(MaskKey::new).transpose();
    let key = key.map_err(|e| e.to_string())?;
    let masking = Masking::new(file, key).map_err(|e| format!("{}: {e}", document.path))?;
    Ok(MaskingRules(masking))
}
