//! What every rule is once it is compiled for a column.

/// What a rule made of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masked {
    /// The value was appended to the output.
    Value,
    /// NULL; nothing was appended.
    Null,
}

/// Why a value cannot be masked. Never contains the value.
pub(crate) type Fault = &'static str;

/// A compiled rule.
pub(crate) trait Transform: Send + Sync {
    /// Appends the masked form of `value`, which is not NULL, to `out`. `entity` is the value of the rule's `by` column, unless
    /// that is NULL or there is none.
    fn apply(
        &self,
        value: &[u8],
        entity: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Masked, Fault>;

    /// Whether the rule also replaces NULL; it is then applied to an empty value.
    fn replaces_null(&self) -> bool {
        false
    }
}

/// The first characters of a text. Bytes that are not UTF-8 count as a character each, as in single-byte encodings.
pub(crate) fn first_characters(text: &[u8], count: usize) -> &[u8] {
    if text.len() <= count {
        return text;
    }
    match std::str::from_utf8(text) {
        Ok(text) => match text.char_indices().nth(count) {
            Some((end, _)) => &text.as_bytes()[..end],
            None => text.as_bytes(),
        },
        Err(_) => &text[..count],
    }
}

/// The number of characters of a text.
pub(crate) fn character_count(text: &[u8]) -> usize {
    match std::str::from_utf8(text) {
        Ok(text) => text.chars().count(),
        Err(_) => text.len(),
    }
}

/// The values of a row that rules read, by their slot.
pub(crate) trait RowValues {
    /// The value; `None` is NULL.
    fn value(&self, slot: usize) -> Option<&[u8]>;
}
