//! Files whose names are counted: the pieces of one archive, or archives of their own. Their first bytes tell, and the
//! last ones of the file before.

use super::end_marks::{CLUSTER_HEAD, END, HEAD as DUMP_HEAD};
use super::filters::HEAD;
use super::members::{TOC, is_data_file, plain_name};
use super::recognize::program_of_message;
use super::{Filter, Format, frames};

/// Bytes at a file's beginning that are enough to tell what it is.
pub const HEAD_BYTES: usize = HEAD;
/// Bytes at a file's end that are enough to tell whether a text or a tar is complete with it.
pub const TAIL_BYTES: usize = 1 << 10;

/// The mark of a custom archive's format in its header; `toc.dat` of a tar or a directory has another one.
const CUSTOM: u8 = 1;
const BLOCK: usize = 512;
/// The last member of a dump in the format tar.
const SCRIPT: &str = "restore.sql";

/// What a file is to the files before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// It goes on where the file before it ended.
    Piece,
    /// A file of its own.
    Whole,
    /// It may be either, and so may those before it.
    Unclear,
}

/// What begins a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Custom,
    Tar,
    Filter(Filter),
    /// Frames that are to be skipped, before those of zstd or lz4.
    Skippable,
    Dump,
    Cluster,
    /// SQL text without the comment that `pg_dump` begins with.
    OtherText,
}

impl Beginning {
    fn of(head: &[u8]) -> Option<Self> {
        if let Some(filter) = Filter::of(head) {
            return Some(Beginning::Filter(filter));
        }
        if frames::begins_with_skippable(head) {
            return Some(Beginning::Skippable);
        }
        match text_mark(head) {
            Some(DUMP_HEAD) => return Some(Beginning::Dump),
            Some(_) => return Some(Beginning::Cluster),
            None => {}
        }
        match Format::of(head)? {
            Format::Custom => Some(Beginning::Custom),
            Format::Tar => Some(Beginning::Tar),
            _ => Some(Beginning::OtherText),
        }
    }

    fn is_text(self) -> bool {
        matches!(
            self,
            Beginning::Dump | Beginning::Cluster | Beginning::OtherText
        )
    }

    /// Whether the last bytes of a file can show that an archive that began so is complete.
    fn shows_its_end(self) -> bool {
        matches!(self, Beginning::Dump | Beginning::Cluster | Beginning::Tar)
    }
}

/// Whether the end of a file can show whether an archive is complete that began with `first`.
pub fn shows_its_end(first: &[u8]) -> bool {
    Beginning::of(first).is_some_and(Beginning::shows_its_end)
}

/// What a file that begins with `next` is, by its name the one after a file that ends with `before`, where the first
/// one of them begins with `first`. `before` may be empty where [`shows_its_end`] says that it does not matter.
pub fn continuation(first: &[u8], before: &[u8], next: &[u8]) -> Continuation {
    let Some(beginning) = Beginning::of(first) else {
        return Continuation::Unclear;
    };
    if next.is_empty() || has_ended(beginning, before, next) {
        return Continuation::Whole;
    }
    if is_custom(next) {
        return Continuation::Whole;
    }
    let is_whole = match (beginning, Beginning::of(next)) {
        // A member of a tar may begin with anything, and on a boundary of blocks.
        (Beginning::Tar, _) => return continuation_of_tar(first, before, next),
        (Beginning::Filter(first), Some(Beginning::Filter(next_one))) => {
            first == next_one && is_sound(next_one, next)
        }
        (Beginning::Skippable, Some(Beginning::Skippable)) => true,
        (Beginning::Filter(_) | Beginning::Skippable, _) => false,
        (_, Some(Beginning::Filter(filter))) => is_sound(filter, next),
        (Beginning::Cluster, Some(next)) => next == Beginning::Cluster,
        (Beginning::Custom, Some(next)) => next.is_text() && next != Beginning::OtherText,
        (Beginning::Dump, Some(Beginning::OtherText)) => false,
        (Beginning::OtherText, Some(Beginning::OtherText)) => return Continuation::Unclear,
        (Beginning::Dump | Beginning::OtherText, Some(_)) => true,
        (_, None) => false,
    };
    if is_whole {
        Continuation::Whole
    } else {
        Continuation::Piece
    }
}

/// Whether a file is a backup of its own whatever lies before it: its name says that it is none of several.
pub fn is_own_backup(first: &[u8], head: &[u8]) -> bool {
    let is_text = |head| Beginning::of(head).is_some_and(Beginning::is_text);
    Beginning::of(head).is_some_and(|b| b != Beginning::OtherText || !is_text(first))
}

/// The comment that `pg_dump` or `pg_dumpall` begins with, where nothing but settings, commands of `psql` and messages
/// of programs stand before it.
fn text_mark(head: &[u8]) -> Option<&'static str> {
    const BEFORE: [&str; 6] = [
        "set ",
        "reset ",
        "begin",
        "start transaction",
        "select pg_catalog.set_config",
        "/*",
    ];
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    for line in head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
        if line == DUMP_HEAD.as_bytes() {
            return Some(DUMP_HEAD);
        }
        if line == CLUSTER_HEAD.as_bytes() {
            return Some(CLUSTER_HEAD);
        }
        let may_be_before = line.is_empty()
            || line.starts_with(b"--")
            || line.starts_with(b"\\")
            || program_of_message(line).is_some()
            || BEFORE.iter().any(|word| {
                line.get(..word.len())
                    .is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()))
            });
        if !may_be_before {
            return None;
        }
    }
    None
}

/// Whether an archive that began so is complete with the file that ends with `before`, and `next` is none of its end.
fn has_ended(first: Beginning, before: &[u8], next: &[u8]) -> bool {
    let ended_with = |mark: &str| {
        let mut lines = before
            .split(|b| *b == b'\n')
            .map(<[u8]>::trim_ascii)
            .rev()
            .skip_while(|l| l.is_empty() || l.starts_with(b"\\unrestrict "));
        lines.next() == Some(b"--") && lines.next() == Some(mark.as_bytes())
    };
    let is_end =
        next.trim_ascii().is_empty() || next.trim_ascii_start().starts_with(b"\\unrestrict");
    match first {
        Beginning::Dump => ended_with(END) && !is_end,
        Beginning::Cluster => ended_with(super::end_marks::CLUSTER_END) && !is_end,
        _ => false,
    }
}

/// A header that only a custom archive has, whole or as far as it is there.
fn is_custom(head: &[u8]) -> bool {
    head.starts_with(b"PGDMP") && head.get(10).is_none_or(|format| *format == CUSTOM)
}

/// Whether what begins like compressed data can be its header: three bytes alone may stand anywhere.
fn is_sound(filter: Filter, head: &[u8]) -> bool {
    let any = |range: &[u8], at: usize| head.get(at).is_none_or(|b| range.contains(b));
    match filter {
        // RFC 1952: three reserved flags, and few values for what the compressor and its system were.
        Filter::Gzip => {
            head.get(3).is_none_or(|flags| flags & 0b1110_0000 == 0)
                && any(&[0, 2, 4], 8)
                && head.get(9).is_none_or(|os| *os <= 19 || *os == 255)
        }
        Filter::Bzip2 => {
            const BLOCK: &[u8] = &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
            const EMPTY: &[u8] = &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
            let rest = &head[4..head.len().min(10)];
            BLOCK.starts_with(rest) || EMPTY.starts_with(rest)
        }
        _ => true,
    }
}

/// Whether a tar's header begins here.
fn begins_tar(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<BLOCK>() else {
        return false;
    };
    let header = tar::Header::from_byte_slice(block);
    let stored: u32 = block[148..156].iter().map(|b| u32::from(*b)).sum();
    let sum = block.iter().map(|b| u32::from(*b)).sum::<u32>() - stored + 8 * u32::from(b' ');
    block[257..].starts_with(b"ustar") && header.cksum().ok() == Some(sum)
}

/// What a file is behind those of a tar that began with `first`. A tar ends with zeros, and so may its large objects.
fn continuation_of_tar(first: &[u8], before: &[u8], next: &[u8]) -> Continuation {
    let Some(member) = TarMember::of(next) else {
        return Continuation::Piece;
    };
    if member.is_first {
        return Continuation::Whole;
    }
    if !is_blank(before) {
        return Continuation::Piece;
    }
    match TarMember::of(first) {
        Some(first) if first.folder == member.folder && member.is_of_dump && first != member => {
            // A tar of the same kind would begin as the first one does.
            if first.is_first {
                Continuation::Piece
            } else {
                Continuation::Unclear
            }
        }
        _ => Continuation::Whole,
    }
}

/// The member of a tar whose header begins a file.
#[derive(PartialEq, Eq)]
struct TarMember {
    folder: String,
    file: String,
    /// It begins a dump: its table of contents, or the folder.
    is_first: bool,
    /// `pg_dump` gives such names to what follows the table of contents.
    is_of_dump: bool,
}

impl TarMember {
    fn of(head: &[u8]) -> Option<Self> {
        if !begins_tar(head) {
            return None;
        }
        let header = tar::Header::from_byte_slice(&head[..BLOCK]);
        let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let (folder, file) = path.split_at(path.rfind('/').map_or(0, |n| n + 1));
        let name = plain_name(file).0;
        Some(TarMember {
            folder: folder.to_owned(),
            file: file.to_owned(),
            is_first: header.entry_type().is_dir() || name == TOC,
            is_of_dump: is_data_file(name) || file == SCRIPT,
        })
    }
}

/// Whether a tar ends with these bytes: two blocks of zeros.
fn is_blank(tail: &[u8]) -> bool {
    tail.len() >= 2 * BLOCK && tail.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(members: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for path in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            if path.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
            }
            builder
                .append_data(&mut header, path, std::io::empty())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// A large object may end with as many zeros as a tar, right before the next member.
    #[test]
    fn a_further_member_behind_zeros_continues_a_tar() {
        use Continuation::{Piece, Unclear, Whole};
        for (of_first, of_next, behind_zeros) in [
            ("toc.dat", "3001.dat", Piece),
            ("toc.dat", "blob_16385.dat", Piece),
            ("toc.dat", "blobs.toc", Piece),
            ("toc.dat", "restore.sql", Piece),
            ("n/", "n/3001.dat.gz", Piece),
            ("n/toc.dat", "n/3001.dat", Piece),
            ("n/3001.dat", "n/3002.dat", Unclear),
            // A dump begins, or what is none of this one.
            ("toc.dat", "toc.dat", Whole),
            ("n/", "n/", Whole),
            ("n/3001.dat", "n/3001.dat", Whole),
            ("n/3001.dat", "m/3002.dat", Whole),
            ("toc.dat", "notes.txt", Whole),
        ] {
            let (first, next) = (tar_of(&[of_first]), tar_of(&[of_next]));
            let found = continuation(&first, &[0; TAIL_BYTES], &next);
            assert_eq!(found, behind_zeros, "{of_first} {of_next}");
        }
        let rows = [b'x'; TAIL_BYTES];
        let (first, next) = (tar_of(&["n/3001.dat"]), tar_of(&["n/3002.dat"]));
        assert_eq!(continuation(&first, &rows, &next), Piece);
    }
}
