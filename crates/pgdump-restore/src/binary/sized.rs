//! Fields with their lengths.

/// The length of a field without a value.
pub(super) const NULL: i32 = -1;

/// Appends the length of a field; `None` if it is too long.
#[inline]
pub(super) fn put_length(length: usize, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(&i32::try_from(length).ok()?.to_be_bytes());
    Some(())
}

/// Appends these few bytes, preceded by their length.
#[inline]
pub(super) fn put<const N: usize>(bytes: [u8; N], out: &mut Vec<u8>) {
    out.extend_from_slice(&(N as i32).to_be_bytes());
    out.extend_from_slice(&bytes);
}

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
