//! Finds the bytes of COPY text that end a field or a row, or begin an escape.

/// Bytes that are compared together.
const BLOCK: usize = 64;

/// The places of all tabs, newlines, carriage returns and backslashes, in order, and of vertical tabs and form feeds, which
/// mean nothing. Fields are short: one pass over all of a chunk costs less than a search for the end of each one.
pub(super) struct Marks<'a> {
    text: &'a [u8],
    /// Where the block begins whose marks are in `found`.
    block: usize,
    /// A bit for each of its bytes, without those that were returned.
    found: u64,
    /// Where the next block begins.
    next: usize,
}

impl<'a> Marks<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Marks {
            text,
            block: 0,
            found: 0,
            next: 0,
        }
    }

    /// The marks of the next block; `None` at the end of the text. Not inlined, so that the way from one mark to the next is short.
    #[inline(never)]
    fn read_block(&mut self) -> Option<u64> {
        let rest = self.text.get(self.next..)?;
        self.block = self.next;
        self.next += BLOCK;
        match rest.first_chunk() {
            Some(block) => Some(marks_in(block)),
            None if rest.is_empty() => None,
            None => {
                let mut last = [0; BLOCK];
                last[..rest.len()].copy_from_slice(rest);
                Some(marks_in(&last))
            }
        }
    }
}

impl Iterator for Marks<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            self.found = self.read_block()?;
        }
        let at = self.block + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(at)
    }
}

/// A bit for each mark, the lowest for the first byte. The compiler makes vector instructions of the loop.
fn marks_in(block: &[u8; BLOCK]) -> u64 {
    let mut flags = [0; BLOCK];
    for (flag, byte) in flags.iter_mut().zip(block) {
        // Tab, newline, vertical tab, form feed and carriage return follow each other.
        *flag = u8::from(byte.wrapping_sub(b'\t') < 5) | u8::from(*byte == b'\\');
    }
    let (eights, _) = flags.as_chunks();
    let mut bits = 0;
    for eight in eights.iter().rev() {
        // Moves the lowest bit of each byte into the highest byte.
        let gathered = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits = bits << 8 | gathered;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_found() {
        let mut random = fastrand::Rng::with_seed(3);
        let bytes = b"\t\n\x0b\x0c\r\\\x08\x0e[]\x89\xdca";
        for length in (0..200).chain([4096, 4097]) {
            let text: Vec<u8> = (0..length)
                .map(|_| bytes[random.usize(..bytes.len())])
                .collect();
            let found: Vec<usize> = Marks::of(&text).collect();
            let is_mark = |at: &usize| b"\t\n\x0b\x0c\r\\".contains(&text[*at]);
            let wanted: Vec<usize> = (0..length).filter(is_mark).collect();
            assert_eq!(found, wanted, "{}", text.escape_ascii());
        }
    }
}
