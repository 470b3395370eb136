//! Fields of COPY's text format.

use memchr::{memchr, memchr_iter, memchr2_iter};

use crate::words::{bytes_below, bytes_equal, word};

pub(crate) const NULL: &[u8] = b"\\N";

/// Appends the value of a field that contains a backslash, and is not NULL, as COPY FROM reads it.
pub(crate) fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut rest = field;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, used) = escaped(&rest[at + 1..]);
        out.extend(byte);
        rest = &rest[at + 1 + used..];
    }
    out.extend_from_slice(rest);
}

/// The byte after a backslash stands for, and how much of the text spells it.
fn escaped(text: &[u8]) -> (Option<u8>, usize) {
    match text.first() {
        None => (Some(b'\\'), 0),
        Some(b'b') => (Some(0x08), 1),
        Some(b'f') => (Some(0x0c), 1),
        Some(b'n') => (Some(b'\n'), 1),
        Some(b'r') => (Some(b'\r'), 1),
        Some(b't') => (Some(b'\t'), 1),
        Some(b'v') => (Some(0x0b), 1),
        Some(b'0'..=b'7') => number(text, 3, 8),
        Some(b'x') if text.get(1).is_some_and(u8::is_ascii_hexdigit) => {
            let (byte, used) = number(&text[1..], 2, 16);
            (byte, used + 1)
        }
        Some(other) => (Some(*other), 1),
    }
}

/// A number of at most `most` digits.
fn number(text: &[u8], most: usize, radix: u32) -> (Option<u8>, usize) {
    let digits = text.iter().take(most);
    let (mut value, mut used) = (0_u32, 0);
    for digit in digits.map_while(|b| char::from(*b).to_digit(radix)) {
        value = value * radix + digit;
        used += 1;
    }
    (u8::try_from(value & 0xff).ok(), used)
}

/// Appends a value as a field.
pub(crate) fn escape(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        out.extend_from_slice(value);
        return;
    }
    let mut copied = 0;
    for (at, b) in value.iter().enumerate() {
        let letter = match b {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\t' => b't',
            b'\r' => b'r',
            0x08 => b'b',
            0x0c => b'f',
            0x0b => b'v',
            _ => continue,
        };
        out.extend_from_slice(&value[copied..at]);
        out.extend_from_slice(&[b'\\', letter]);
        copied = at + 1;
    }
    out.extend_from_slice(&value[copied..]);
}

/// Whether a value can be written as it is, like most. False for any control character up to `\r`, escaped or not, which costs only
/// time.
fn is_plain(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk() else {
        return value.iter().all(|b| *b > b'\r' && *b != b'\\');
    };
    let escaped = |bytes: &[u8; 8]| {
        let word = word(*bytes);
        bytes_below(word, b'\r' + 1) | bytes_equal(word, b'\\')
    };
    // The last word may overlap the one before it.
    let words = value.as_chunks().0.iter().chain([last]);
    words.fold(0, |found, bytes| found | escaped(bytes)) == 0
}

/// A field of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it has a backslash.
    pub(crate) is_escaped: bool,
}

/// Finds the first `count` fields of a line; returns how many it has.
pub(crate) fn split(line: &[u8], count: usize, fields: &mut Vec<Field>) -> usize {
    fields.clear();
    let (mut start, mut is_escaped) = (0, false);
    let mut found = memchr2_iter(b'\t', b'\\', line);
    while fields.len() < count {
        let end = found.next().unwrap_or(line.len());
        if line.get(end) == Some(&b'\\') {
            is_escaped = true;
            continue;
        }
        fields.push(Field {
            start,
            end,
            is_escaped,
        });
        if end == line.len() {
            return fields.len();
        }
        (start, is_escaped) = (end + 1, false);
    }
    fields.len() + 1 + memchr_iter(b'\t', &line[start..]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(field: &str) -> Vec<u8> {
        let mut out = Vec::new();
        unescape(field.as_bytes(), &mut out);
        out
    }

    #[test]
    fn escapes_are_read_as_copy_reads_them() {
        for (field, expected) in [
            ("a\\tb\\nc", &b"a\tb\nc"[..]),
            ("\\\\N", b"\\N"),
            ("\\b\\f\\v\\r", b"\x08\x0c\x0b\r"),
            ("\\101\\x41\\q\\.", b"AAq."),
            ("\\1018", b"A8"),
            ("\\xzz", b"xzz"),
            ("a\\", b"a\\"),
        ] {
            assert_eq!(read(field), expected, "{field}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for length in 0..=25 {
            for (at, byte) in (0..length).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut value = vec![b'a'; length];
                value[at] = byte;
                let mut field = Vec::new();
                escape(&value, &mut field);
                assert!(!field.contains(&b'\t') && !field.contains(&b'\n'));
                let mut again = Vec::new();
                unescape(&field, &mut again);
                assert_eq!(again, value);
            }
        }
    }

    #[test]
    fn fields_end_at_tabs() {
        let split = |line: &[u8], count| {
            let mut fields = Vec::new();
            let all = split(line, count, &mut fields);
            let fields = fields.iter().map(|f| (f.start, f.end, f.is_escaped));
            (all, fields.collect::<Vec<_>>())
        };
        let fields = vec![(0, 1, false), (2, 2, false), (3, 5, false)];
        assert_eq!(split(b"a\t\tbc", 3), (3, fields));
        let fields = vec![(0, 1, false), (2, 3, false)];
        assert_eq!(split(b"a\tb\tc", 2), (3, fields));
        assert_eq!(split(b"a", 2), (1, vec![(0, 1, false)]));
        assert_eq!(split(b"", 1), (1, vec![(0, 0, false)]));
        assert_eq!(split(b"a\tb", 0), (2, vec![]));
        let fields = vec![(0, 2, true), (3, 4, false), (5, 9, true)];
        assert_eq!(split(b"\\N\ta\t\\tb\\\t\\", 3), (4, fields));
    }
}
