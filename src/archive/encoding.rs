//! The text encoding of a dump. Statements are sent to the server as UTF-8, so the names and
//! definitions of a dump in another encoding are converted here; table data is not touched: the
//! server converts it (`COPY … WITH (ENCODING …)`).

use crate::error::{FailureReason, RestoreError, ValidationError};

/// PostgreSQL's name of an encoding (`UTF8`, `LATIN1`, …) and how to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextEncoding {
    name: String,
}

impl TextEncoding {
    pub fn new(name: &str) -> Self {
        TextEncoding { name: name.to_owned() }
    }

    /// PostgreSQL's name, for `CREATE DATABASE … ENCODING` and `COPY … ENCODING`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether bytes in this encoding can be sent to a UTF-8 session as they are.
    pub fn is_utf8(&self) -> bool {
        matches!(self.name.to_ascii_uppercase().as_str(), "UTF8" | "UNICODE" | "UTF-8")
    }

    /// Whether second bytes of a character may look like ASCII, a quote or a backslash among them.
    pub fn is_wide(&self) -> bool {
        matches!(
            self.name.to_ascii_uppercase().as_str(),
            "SJIS" | "SHIFT_JIS" | "SHIFT_JIS_2004" | "BIG5" | "GBK" | "UHC" | "GB18030" | "JOHAB"
        )
    }

    /// Text as UTF-8.
    ///
    /// # Errors
    /// `archive_corrupt` where the bytes are not in this encoding, `archive_unsupported` where the
    /// encoding is one that cannot be converted here and the text is not plain ASCII.
    pub fn decode(&self, bytes: Vec<u8>) -> Result<String, RestoreError> {
        let name = self.name.to_ascii_uppercase();
        let bytes = match String::from_utf8(bytes) {
            Ok(text) if self.is_utf8() || text.is_ascii() => return Ok(text),
            Ok(text) if name == "SQL_ASCII" => return Ok(text),
            Ok(text) => text.into_bytes(),
            Err(e) => e.into_bytes(),
        };
        if name == "LATIN1" {
            return Ok(bytes.iter().map(|b| char::from(*b)).collect());
        }
        let Some(encoding) = label(&name).and_then(|l| encoding_rs::Encoding::for_label(l.as_bytes())) else {
            return Err(match self.is_utf8() {
                true => fault(FailureReason::ArchiveCorrupt, "text in the archive is not valid UTF-8".into()),
                false => fault(
                    FailureReason::ArchiveUnsupported,
                    format!("names or definitions of the dump are in {name}, which cannot be converted"),
                ),
            });
        };
        match encoding.decode_without_bom_handling_and_without_replacement(&bytes) {
            Some(text) => Ok(text.into_owned()),
            None => {
                Err(fault(FailureReason::ArchiveCorrupt, format!("text in the archive is not valid {name}")))
            }
        }
    }
}

fn fault(reason: FailureReason, message: String) -> RestoreError {
    ValidationError::new(reason, message).into()
}

/// PostgreSQL's encoding name as a WHATWG label.
fn label(name: &str) -> Option<&'static str> {
    Some(match name {
        "LATIN2" => "iso-8859-2",
        "LATIN3" => "iso-8859-3",
        "LATIN4" => "iso-8859-4",
        "LATIN5" | "WIN1254" => "windows-1254",
        "LATIN6" => "iso-8859-10",
        "LATIN7" => "iso-8859-13",
        "LATIN8" => "iso-8859-14",
        "LATIN9" => "iso-8859-15",
        "LATIN10" => "iso-8859-16",
        "ISO_8859_5" => "iso-8859-5",
        "ISO_8859_6" => "iso-8859-6",
        "ISO_8859_7" => "iso-8859-7",
        "ISO_8859_8" => "iso-8859-8",
        "KOI8R" | "KOI8" => "koi8-r",
        "KOI8U" => "koi8-u",
        "WIN866" => "ibm866",
        "WIN874" => "windows-874",
        "WIN1250" => "windows-1250",
        "WIN1251" | "WIN" => "windows-1251",
        "WIN1252" => "windows-1252",
        "WIN1253" => "windows-1253",
        "WIN1255" => "windows-1255",
        "WIN1256" => "windows-1256",
        "WIN1257" => "windows-1257",
        "WIN1258" => "windows-1258",
        "EUC_JP" => "euc-jp",
        "SJIS" | "SHIFT_JIS" => "shift_jis",
        "EUC_KR" => "euc-kr",
        "UHC" => "euc-kr",
        "EUC_CN" | "GBK" => "gbk",
        "GB18030" => "gb18030",
        "BIG5" => "big5",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_dumps_own_encoding() {
        assert_eq!(TextEncoding::new("LATIN1").decode(b"caf\xe9".to_vec()).unwrap(), "café");
        assert_eq!(TextEncoding::new("LATIN9").decode(b"\xa4".to_vec()).unwrap(), "€");
        assert_eq!(TextEncoding::new("LATIN2").decode("é".as_bytes().to_vec()).unwrap(), "ĂŠ");
        assert_eq!(TextEncoding::new("UTF8").decode("é".as_bytes().to_vec()).unwrap(), "é");
        let bad = TextEncoding::new("UTF8").decode(vec![0xff]).unwrap_err();
        assert_eq!(bad.reason(), FailureReason::ArchiveCorrupt);
        let unknown = TextEncoding::new("MULE_INTERNAL").decode(vec![0xff]).unwrap_err();
        assert_eq!(unknown.reason(), FailureReason::ArchiveUnsupported);
    }
}
