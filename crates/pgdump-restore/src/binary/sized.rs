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
