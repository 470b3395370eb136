//! Files that lie beside a backup and are about it: checksums, signatures, markers. Pure.

use std::collections::HashSet;

use crate::store::StoredObject;

/// The names of files.
pub(super) fn names_of<'a>(
    objects: impl IntoIterator<Item = &'a StoredObject>,
) -> HashSet<&'a str> {
    objects.into_iter().map(|o| o.name.as_str()).collect()
}

/// Whether a file is called like one of these with an ending more: `x.dump.sha256` beside `x.dump`.
pub(super) fn is_beside(object: &StoredObject, names: &HashSet<&str>) -> bool {
    let name = object.name.as_str();
    let mut dots = name.match_indices('.');
    dots.any(|(dot, _)| names.contains(&name[..dot]))
}

/// Whether it only says that one of these was written: `x.dump.ok`, without a byte.
pub(super) fn is_marker(object: &StoredObject, names: &HashSet<&str>) -> bool {
    object.size == 0 && is_beside(object, names)
}
