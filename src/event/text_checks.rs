//! Checks the texts of a request before anything is done with them.

use std::collections::HashMap;

use crate::error::{RestoreError, ValidationError, ValidationKind};

fn invalid(what: String) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

/// Longest string in a request, in bytes.
pub(super) const MAX_STRING: usize = 1024;
/// Most strings in a request.
pub(super) const MAX_STRINGS: usize = 2000;

/// Checks that every string of a request, including keys, can be stored in the journal, a message and a
/// record, so that recording the outcome cannot fail after the work.
///
/// # Errors
/// `invalid_request`, with the position in the document.
pub fn check_texts(document: &serde_json::Value) -> Result<(), RestoreError> {
    let mut strings = 0;
    // Values still to check, with their paths.
    let mut rest = vec![(String::new(), document)];
    while let Some((place, value)) = rest.pop() {
        let below = |name: &str| {
            if place.is_empty() {
                name.to_owned()
            } else {
                format!("{place}.{name}")
            }
        };
        match value {
            serde_json::Value::String(text) => {
                check_text(&place, text)?;
                strings += 1;
            }
            serde_json::Value::Array(all) => rest.extend(all.iter().map(|v| (place.clone(), v))),
            serde_json::Value::Object(fields) => {
                for (name, v) in fields {
                    check_text(&format!("a name in {place}"), name)?;
                    strings += 1;
                    rest.push((below(name), v));
                }
            }
            _ => {}
        }
        if strings > MAX_STRINGS {
            return Err(invalid(format!(
                "the request has more than {MAX_STRINGS} strings"
            )));
        }
    }
    Ok(())
}

fn check_text(place: &str, text: &str) -> Result<(), RestoreError> {
    if text.len() > MAX_STRING {
        return Err(invalid(format!(
            "{place}: must not be longer than {MAX_STRING} bytes"
        )));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(invalid(format!(
            "{place}: must not contain control characters ({})",
            c.escape_unicode()
        ))),
        None => Ok(()),
    }
}

/// Checks the attributes that this program reads in the same way.
pub(super) fn check_attributes(attributes: &HashMap<String, String>) -> Result<(), RestoreError> {
    let is_read =
        |key: &str| key.starts_with("ce-") || matches!(key, "request_id" | "content-type");
    attributes
        .iter()
        .filter(|(key, _)| is_read(key))
        .try_for_each(|(key, value)| check_text(&format!("attribute {key}"), value))
}
