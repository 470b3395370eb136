//! Whether an archive is cut off, as far as its last bytes show that before all of it is read.

use super::end_marks::{CLUSTER_END, END};
use super::{DataOffset, TocEntry};

/// What `pg_dump` and `tar` end a tar with: two blocks of zeros.
const TAR_END: [u8; 1024] = [0; 1024];

/// Why an archive seems to be cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// Human-readable sentence.
    pub what: String,
    /// Whether no restore of it can succeed; otherwise something else may explain it.
    pub is_certain: bool,
}

/// Of a custom archive of `size` bytes, `tail` being the last ones. One that has the offsets of all data was written
/// into a file, and ends with the end of a block: a chunk of length 0.
pub(super) fn of_custom(
    entries: &[TocEntry],
    int_size: u8,
    size: u64,
    tail: &[u8],
) -> Option<CutOff> {
    let certain = |what: String| {
        Some(CutOff {
            what,
            is_certain: true,
        })
    };
    let with_data = || entries.iter().filter(|e| e.has_data);
    let starts = with_data().filter_map(|e| match e.offset {
        DataOffset::At(at) => Some((at, e)),
        _ => None,
    });
    let are_known = starts.clone().count() == with_data().count();
    let (last, entry) = starts.max_by_key(|(at, _)| *at)?;
    if last >= size {
        return certain(format!(
            "the archive is cut off: the data of {} would begin at byte {last}, and there are only {size} bytes",
            entry.name()
        ));
    }
    let zero = vec![0; 1 + usize::from(int_size)];
    if are_known && !tail.ends_with(&zero) {
        return certain(format!(
            "the archive is cut off, or other bytes follow it: its {size} bytes do not end like the data of {}",
            entry.name()
        ));
    }
    None
}

pub(super) fn of_tar(tail: &[u8]) -> Option<CutOff> {
    (!tail.ends_with(&TAR_END)).then(|| CutOff {
        what: "the archive may be cut off: it does not end with the two empty blocks of a tar"
            .into(),
        is_certain: false,
    })
}

/// Of SQL text that begins like `pg_dump`'s. Other statements may follow it.
pub(super) fn of_text(tail: &[u8]) -> Option<CutOff> {
    let mut lines = tail.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let has_mark = lines.any(|l| l == END.as_bytes() || l == CLUSTER_END.as_bytes());
    (!has_mark).then(|| CutOff {
        what: format!(
            "the text may be cut off: the last line of a dump, {END:?}, is not at its end"
        ),
        is_certain: false,
    })
}
