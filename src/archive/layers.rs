//! What a backup is wrapped in, recognised by its first bytes: compression, encryption, several of
//! them. And what is no backup at all, by name.

use std::io::{BufRead, BufReader, Read};

use super::Limits;
use super::inflate::Gzip;
use super::toc::{beyond_us, corrupt, unsupported};
use crate::error::RestoreError;

/// Wrappings inside each other that are taken off.
const MAX_LAYERS: usize = 4;
/// Bytes that a format is recognised by.
pub(super) const HEAD: usize = 8 << 10;

/// One wrapping of the whole backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Gzip,
    Zstd,
    Lz4,
    Bzip2,
    Xz,
    Age,
}

impl Layer {
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Gzip => "gzip",
            Layer::Zstd => "zstd",
            Layer::Lz4 => "lz4",
            Layer::Bzip2 => "bzip2",
            Layer::Xz => "xz",
            Layer::Age => "age",
        }
    }

    /// The wrapping that begins with these bytes.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Layer); 7] = [
            (b"\x1f\x8b\x08", Layer::Gzip),
            (b"\x28\xb5\x2f\xfd", Layer::Zstd),
            (b"\x04\x22\x4d\x18", Layer::Lz4),
            (b"BZh", Layer::Bzip2),
            (b"\xfd7zXZ\0", Layer::Xz),
            (b"age-encryption.org/v1\n", Layer::Age),
            (b"-----BEGIN AGE ENCRYPTED FILE-----", Layer::Age),
        ];
        MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, layer)| *layer)
    }

    fn unwrap<'a>(self, input: Head<'a>, limits: &Limits, keys: &Keys) -> Result<Lent<'a>, RestoreError> {
        Ok(match self {
            Layer::Gzip => Box::new(Gzip::new(input)),
            Layer::Zstd => {
                let failed = |e| RestoreError::from_archive_io(e, "zstd");
                let mut d = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
                d.window_log_max(limits.zstd_window_log).map_err(failed)?;
                Box::new(d)
            }
            Layer::Lz4 => Box::new(Frames::new(input)),
            Layer::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Layer::Xz => {
                let memory = 1 << (limits.zstd_window_log.saturating_sub(10) + 1);
                Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, memory))
            }
            Layer::Age => keys.decrypt(input)?,
        })
    }
}

/// `lz4_flex` takes a cut between blocks for the end, and stops after one frame.
struct Frames<'a> {
    decoder: lz4_flex::frame::FrameDecoder<Watched<'a>>,
    between: bool,
}

impl<'a> Frames<'a> {
    fn new(input: Head<'a>) -> Self {
        let decoder = lz4_flex::frame::FrameDecoder::new(Watched { input, ended: false });
        Frames { decoder, between: true }
    }
}

/// Remembers whether the end was met.
struct Watched<'a> {
    input: Head<'a>,
    ended: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.input.read(buf)?;
        self.ended |= n == 0 && !buf.is_empty();
        Ok(n)
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.between && self.decoder.get_mut().input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.between = false;
            let n = self.decoder.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            // A frame's own end mark comes before the decoder asks for more.
            if self.decoder.get_ref().ended {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.between = true;
        }
    }
}

/// Opens what is encrypted. Shown never.
#[derive(Clone, Default)]
pub struct Keys {
    identities: Vec<std::sync::Arc<age::x25519::Identity>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.identities.len())
    }
}

impl Keys {
    /// From the text of an age identity file: one `AGE-SECRET-KEY-1…` a line, `#` for comments.
    ///
    /// # Errors
    /// What is wrong, without the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let identities = lines.map(|l| l.parse().map(std::sync::Arc::new)).collect::<Result<Vec<_>, _>>();
        match identities {
            Ok(identities) if !identities.is_empty() => Ok(Keys { identities }),
            _ => Err("must be age identities, one AGE-SECRET-KEY-1… a line".into()),
        }
    }

    fn decrypt<'a>(&self, input: Head<'a>) -> Result<Lent<'a>, RestoreError> {
        let no = |e: &dyn std::fmt::Display| match self.identities.is_empty() {
            true => beyond_us(
                "the backup is encrypted with age and there is no key for it: set BACKUP_AGE_IDENTITY_FILE",
            ),
            false => beyond_us(format!(
                "the backup is encrypted with age and BACKUP_AGE_IDENTITY does not open it: {e}"
            )),
        };
        let decryptor = match age::Decryptor::new_buffered(age::armor::ArmoredReader::new(input)) {
            Ok(d) => d,
            Err(age::DecryptError::Io(e)) => return Err(RestoreError::from_archive_io(e, "age header")),
            Err(e) => return Err(no(&e)),
        };
        let keys = self.identities.iter().map(|i| i.as_ref() as &dyn age::Identity);
        Ok(Box::new(decryptor.decrypt(keys).map_err(|e| no(&e))?))
    }
}

/// Bytes, perhaps of a part of something larger.
pub(super) type Lent<'a> = Box<dyn Read + Send + 'a>;
/// Bytes whose beginning can be looked at before it is read.
pub(super) type Head<'a> = BufReader<Lent<'a>>;

pub(super) fn buffered(input: Lent<'_>) -> Head<'_> {
    BufReader::with_capacity(256 << 10, input)
}

/// The first bytes, as many as there are up to `HEAD`, left in place.
pub(super) fn peek(mut input: Head<'_>) -> Result<(Vec<u8>, Head<'_>), RestoreError> {
    let mut head = Vec::with_capacity(HEAD);
    let failed = |e| RestoreError::from_archive_io(e, "first bytes");
    // One filled buffer is enough wherever the store gives that much at once.
    let filled = input.fill_buf().map_err(failed)?;
    if filled.len() >= HEAD {
        head.extend_from_slice(&filled[..HEAD]);
        return Ok((head, input));
    }
    (&mut input).take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    let again: Lent<'_> = Box::new(std::io::Cursor::new(head.clone()).chain(input));
    Ok((head, buffered(again)))
}

/// Takes off every wrapping; gives the first bytes of what is inside.
pub(super) fn unwrap<'a>(
    input: Lent<'a>,
    limits: &Limits,
    keys: &Keys,
) -> Result<(Vec<Layer>, Vec<u8>, Head<'a>), RestoreError> {
    let (mut layers, mut input) = (Vec::new(), buffered(input));
    loop {
        let (head, whole) = peek(input)?;
        let Some(layer) = Layer::of(&head) else { return Ok((layers, head, whole)) };
        if layers.len() == MAX_LAYERS {
            return Err(unsupported(format!("the backup is wrapped more than {MAX_LAYERS} times")));
        }
        layers.push(layer);
        input = buffered(layer.unwrap(whole, limits, keys)?);
    }
}

/// Takes off `count` wrappings.
pub(super) fn unwrap_some<'a>(
    input: Lent<'a>,
    count: usize,
    limits: &Limits,
) -> Result<Head<'a>, RestoreError> {
    let mut input = buffered(input);
    for _ in 0..count {
        let (head, whole) = peek(input)?;
        let Some(layer) = Layer::of(&head) else { return Ok(whole) };
        input = buffered(layer.unwrap(whole, limits, &Keys::default())?);
    }
    Ok(input)
}

/// What the bytes are, if they are something that people mistake for a dump.
pub(super) fn name_wrong_input(head: &[u8]) -> RestoreError {
    if head.is_empty() {
        return corrupt("the backup is empty");
    }
    if b"PGDMP".starts_with(head) {
        return corrupt("the archive ends early: first bytes");
    }
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lower = text.get(..text.len().min(400)).unwrap_or(text).to_lowercase();
    let starts = |magic: &[u8]| head.starts_with(magic);
    let what = if starts(b"PK\x03\x04") {
        match head.get(6).is_some_and(|flags| flags & 1 == 1) {
            true => "it is a ZIP file with a password: unpack it and compress it with zstd or gzip instead",
            false => "it is a ZIP file: unpack it and compress it with zstd or gzip instead",
        }
    } else if starts(b"\xff\xfe") || starts(b"\xfe\xff") {
        "it is UTF-16 text, as PowerShell's > writes it: use pg_dump --file"
    } else if starts(b"7z\xbc\xaf\x27\x1c") || starts(b"Rar!") {
        "it is a 7-Zip or RAR archive: unpack it first"
    } else if starts(b"Salted__") {
        "it is encrypted by openssl: decrypt it first, or encrypt with age"
    } else if starts(b"-----BEGIN PGP") || starts(b"\x85\x01") || starts(b"\x85\x02") || starts(b"\x8c\x0d") {
        "it is encrypted by GnuPG: decrypt it first, or encrypt with age"
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        "it is an HTML page, perhaps a login or error page that was saved under the dump's name"
    } else if lower.starts_with("<?xml") {
        "it is an XML document, perhaps the storage service's error message"
    } else if lower.starts_with("{\"error") || lower.starts_with("{\n  \"error") {
        "it is a JSON error message, perhaps the storage service's"
    } else if lower.contains("mysql dump") || lower.contains("mariadb dump") || lower.starts_with("/*!4") {
        "it is a dump of MySQL or MariaDB"
    } else if starts(b"SQLite format 3") || lower.starts_with("pragma foreign_keys") {
        "it is an SQLite database"
    } else if lower.contains("postgresql database cluster dump") {
        "it is a dump of a whole cluster by pg_dumpall: dump each database with pg_dump, and keep the roles in a globals file beside it"
    } else if starts(b"TAPE") {
        "it is a backup of SQL Server"
    } else if starts(b"\x6d\xe2\x99\x81") {
        "it is a dump of MongoDB"
    } else {
        "it is neither an archive of pg_dump (-Fc, -Ft, -Fd) nor SQL text that pg_dump wrote"
    };
    unsupported(format!("this is no PostgreSQL dump: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_inputs_have_their_names() {
        for (head, word) in [
            (&b"PK\x03\x04\x14\x00\x01\x00"[..], "password"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b"-- MySQL dump 10.13", "MySQL"),
            (b"\xff\xfe-\0-\0", "UTF-16"),
            (b"Salted__12345678", "openssl"),
            (b"--\n-- PostgreSQL database cluster dump\n--\n", "pg_dumpall"),
            (b"hello", "neither"),
            (b"", "empty"),
        ] {
            let e = name_wrong_input(head).to_string();
            assert!(e.contains(word), "{e}");
        }
    }

    #[test]
    fn keys_are_never_shown() {
        assert!(Keys::parse("x").is_err());
        assert!(Keys::parse("# only a comment\n").is_err());
        assert_eq!(format!("{:?}", Keys::default()), "0 keys");
    }
}
