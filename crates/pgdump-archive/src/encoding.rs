//! The text encoding of a dump. Only PostgreSQL converts text: non-ASCII text in a dump that is not in UTF-8 is
//! kept as its bytes, each as one private-use character ([`placeholder`]), until a server has converted it
//! (`pgdump-restore/src/conversion.rs`). Table data is never decoded: the server converts it
//! (`COPY … WITH (ENCODING …)`).

use super::lexer::Multibyte;
use crate::error::ArchiveError;

/// The first of the 256 characters that stand for bytes, at the end of Unicode's last private-use plane.
const PLACEHOLDERS: u32 = 0x10_FF00;

/// PostgreSQL's name of an encoding (`UTF8`, `LATIN1`, …) and how to decode it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextEncoding {
    name: String,
}

/// The character that stands for a byte.
fn placeholder(byte: u8) -> char {
    char::from_u32(PLACEHOLDERS + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for.
pub fn undecoded_byte(c: char) -> Option<u8> {
    u32::from(c)
        .checked_sub(PLACEHOLDERS)
        .and_then(|b| u8::try_from(b).ok())
}

/// Whether the text contains bytes of the dump that have not been converted.
pub fn has_undecoded(text: &str) -> bool {
    // The first UTF-8 byte of every character that stands for a byte.
    memchr::memchr(0xf4, text.as_bytes()).is_some()
        && text.chars().any(|c| undecoded_byte(c).is_some())
}

impl TextEncoding {
    /// The encoding of this name, in any spelling that PostgreSQL accepts (`pg_encname_tbl` in `encnames.c`).
    pub fn new(name: &str) -> Self {
        TextEncoding {
            name: name.to_owned(),
        }
    }

    /// The name as in the dump, for `COPY … ENCODING`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name in the form in which PostgreSQL compares names of encodings.
    fn normalized_name(&self) -> String {
        self.name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect()
    }

    /// Whether bytes in this encoding can be sent to a UTF-8 session unchanged.
    pub fn is_utf8(&self) -> bool {
        matches!(self.normalized_name().as_str(), "utf8" | "unicode")
    }

    /// Whether the server never converted the text (SQL_ASCII): its bytes may be in any encoding.
    pub fn is_sql_ascii(&self) -> bool {
        self.normalized_name() == "sqlascii"
    }

    /// Whether PostgreSQL converts it only via other encodings, and never to UTF-8.
    pub fn is_mule(&self) -> bool {
        self.normalized_name() == "muleinternal"
    }

    /// Whether `other` is a spelling of the same name: case, hyphens and underscores are ignored.
    pub fn is_same(&self, other: &str) -> bool {
        self.normalized_name() == TextEncoding::new(other).normalized_name()
    }

    /// How to find the length of characters, if some of their bytes may look like ASCII.
    pub fn multibyte(&self) -> Multibyte {
        match self.normalized_name().as_str() {
            "sjis" | "shiftjis" | "shiftjis2004" | "mskanji" | "win932" | "windows932" => {
                Multibyte::Sjis
            }
            "gb18030" => Multibyte::Gb18030,
            "johab" => Multibyte::Johab,
            "big5" | "win950" | "windows950" | "gbk" | "win936" | "windows936" | "uhc"
            | "win949" | "windows949" => Multibyte::Double,
            _ => Multibyte::AsciiSafe,
        }
    }

    /// Decodes text; in encodings other than UTF-8, everything that is not ASCII is kept as its bytes.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` if a dump in UTF-8 has invalid text.
    pub fn decode(&self, bytes: Vec<u8>) -> Result<String, ArchiveError> {
        if self.is_utf8() || bytes.is_ascii() {
            return String::from_utf8(bytes)
                .map_err(|_| ArchiveError::corrupt("text in the archive is not valid UTF-8"));
        }
        Ok(self.view(&bytes))
    }

    /// The same for text that may be split anywhere.
    pub fn view(&self, bytes: &[u8]) -> String {
        if self.is_utf8() || bytes.is_ascii() {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        let (multibyte, mut text, mut at) =
            (self.multibyte(), String::with_capacity(bytes.len() * 2), 0);
        while let Some(&b) = bytes.get(at) {
            if b < 0x80 {
                text.push(char::from(b));
                at += 1;
                continue;
            }
            let end = bytes
                .len()
                .min(at + multibyte.length(&bytes[at..]).unwrap_or(1));
            text.extend(bytes[at..end].iter().map(|b| placeholder(*b)));
            at = end;
        }
        text
    }

    /// Whether the text contains bytes of the dump. In UTF-8, every character stands for itself.
    pub fn has_undecoded(&self, text: &str) -> bool {
        !self.is_utf8() && has_undecoded(text)
    }

    /// Encodes text that [`TextEncoding::decode`] returned back to the dump's encoding.
    pub fn bytes_of(&self, text: &str) -> Vec<u8> {
        if !self.has_undecoded(text) {
            return text.as_bytes().to_vec();
        }
        let mut bytes = Vec::with_capacity(text.len());
        for c in text.chars() {
            match undecoded_byte(c) {
                Some(b) => bytes.push(b),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes
    }

    /// Human-readable text if no server was asked: bytes are decoded with the usual table of the encoding, or shown
    /// as `\xNN`.
    pub fn for_display(&self, text: &str) -> String {
        if !self.has_undecoded(text) {
            return text.to_owned();
        }
        let (mut shown, mut run) = (String::with_capacity(text.len()), Vec::new());
        for c in text.chars() {
            match undecoded_byte(c) {
                Some(b) => run.push(b),
                None => {
                    shown.push_str(&self.decode_for_display(&std::mem::take(&mut run)));
                    shown.push(c);
                }
            }
        }
        shown.push_str(&self.decode_for_display(&run));
        shown
    }

    fn decode_for_display(&self, bytes: &[u8]) -> String {
        let name = self.normalized_name();
        if matches!(name.as_str(), "latin1" | "iso88591") {
            return bytes.iter().map(|b| char::from(*b)).collect();
        }
        let label = if self.is_sql_ascii() {
            Some("utf-8")
        } else {
            whatwg_label(&name)
        };
        let found = label
            .and_then(|l| encoding_rs::Encoding::for_label(l.as_bytes()))
            .and_then(|e| e.decode_without_bom_handling_and_without_replacement(bytes));
        match found {
            Some(text) => text.into_owned(),
            None => bytes.iter().map(|b| format!("\\x{b:02x}")).collect(),
        }
    }
}

/// PostgreSQL's encoding name, normalized, as a WHATWG label.
fn whatwg_label(name: &str) -> Option<&'static str> {
    Some(match name {
        "latin2" | "iso88592" => "iso-8859-2",
        "latin3" | "iso88593" => "iso-8859-3",
        "latin4" | "iso88594" => "iso-8859-4",
        "latin5" | "iso88599" | "win1254" => "windows-1254",
        "latin6" | "iso885910" => "iso-8859-10",
        "latin7" | "iso885913" => "iso-8859-13",
        "latin8" | "iso885914" => "iso-8859-14",
        "latin9" | "iso885915" => "iso-8859-15",
        "latin10" | "iso885916" => "iso-8859-16",
        "iso88595" => "iso-8859-5",
        "iso88596" => "iso-8859-6",
        "iso88597" => "iso-8859-7",
        "iso88598" => "iso-8859-8",
        "koi8r" | "koi8" => "koi8-r",
        "koi8u" => "koi8-u",
        "win866" => "ibm866",
        "win874" => "windows-874",
        "win1250" => "windows-1250",
        "win1251" | "win" => "windows-1251",
        "win1252" => "windows-1252",
        "win1253" => "windows-1253",
        "win1255" => "windows-1255",
        "win1256" => "windows-1256",
        "win1257" => "windows-1257",
        "win1258" => "windows-1258",
        "eucjp" => "euc-jp",
        "sjis" | "shiftjis" => "shift_jis",
        "euckr" | "uhc" => "euc-kr",
        "euccn" | "gbk" => "gbk",
        "gb18030" => "gb18030",
        "big5" => "big5",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_encodings_are_kept_byte_by_byte() {
        let utf8 = TextEncoding::new("UTF8");
        for text in ["é", "\u{10ff27}"] {
            assert_eq!(utf8.decode(text.as_bytes().to_vec()).unwrap(), text);
            assert_eq!(utf8.bytes_of(text), text.as_bytes());
            assert_eq!(utf8.for_display(text), text);
        }
        let bad = utf8.decode(vec![0xff]).unwrap_err();
        assert!(matches!(bad, ArchiveError::Corrupt(_)));
        for name in [
            "LATIN1",
            "SQL_ASCII",
            "MULE_INTERNAL",
            "sjis",
            "BIG5",
            "GB18030",
            "JOHAB",
            "EUC_TW",
        ] {
            let encoding = TextEncoding::new(name);
            assert_eq!(
                encoding.decode(b"SELECT 'a';".to_vec()).unwrap(),
                "SELECT 'a';"
            );
            // Also bytes that are invalid in the encoding.
            for end in 0..=u8::MAX {
                let bytes = [b"'x", &[0x81, 0x30, 0x81, 0x30, 0xb1, b'\'', end][..]].concat();
                let text = encoding.decode(bytes.clone()).unwrap();
                assert!(has_undecoded(&text), "{name}");
                assert_eq!(encoding.bytes_of(&text), bytes, "{name}");
            }
        }
    }

    #[test]
    fn no_byte_of_a_character_is_taken_for_ascii() {
        for (name, bytes, ascii) in [
            ("SJIS", &b"'\x95\x5c\xb1'"[..], "''"),
            ("Shift_JIS", b"\x83\x5c\\", "\\"),
            ("GBK", b"\"\x81\x5c\"", "\"\""),
            ("BIG5", b"\xa5\x5c;", ";"),
            ("UHC", b"\x81\x41'", "'"),
            ("JOHAB", b"\x88\x3b;", ";"),
            ("GB18030", b"\x81\x30\x89\x38'\x81\x5c'", "''"),
            ("EUC_JP", b"'\x8f\xb0\xa1\x8e\xb1'", "''"),
            ("EUC_TW", b"'\x8e\xa2\xa1\xa1'", "''"),
        ] {
            let text = TextEncoding::new(name).decode(bytes.to_vec()).unwrap();
            assert_eq!(
                text.chars().filter(char::is_ascii).collect::<String>(),
                ascii,
                "{name}"
            );
        }
    }

    #[test]
    fn display_text_has_readable_characters() {
        let shown = |name: &str, bytes: &[u8]| {
            let encoding = TextEncoding::new(name);
            encoding.for_display(&encoding.view(bytes))
        };
        assert_eq!(shown("LATIN1", b"caf\xe9 1"), "café 1");
        assert_eq!(shown("SJIS", b"public.\x95\x5c"), "public.表");
        assert_eq!(shown("SQL_ASCII", b"caf\xe9"), "caf\\xe9");
        assert_eq!(shown("SQL_ASCII", "café".as_bytes()), "café");
        assert_eq!(shown("MULE_INTERNAL", b"\x81\xe9"), "\\x81\\xe9");
    }
}
