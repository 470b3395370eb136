//! Fields with their lengths.

/// The length of a field without a value.
pub(super) const NULL: i32 = -1;

/// Appends what `write` produces, preceded by its length.
pub(super) fn sized(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    let start = out.len() + 4;
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = i32::try_from(out.len() - start).ok()?;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// Takes the first field off `rest`: `None` for one without a value, and nothing at all if it is incomplete.
pub(super) fn next_sized<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk()?;
    let length = i32::from_be_bytes(*length);
    if length == NULL {
        *rest = after;
        return Some(None);
    }
    let (field, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(field))
}
