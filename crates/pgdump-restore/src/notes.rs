//! Notes that list names.

/// Most names in a note.
const LISTED: usize = 50;

/// A note that lists names; `None` if there are none.
pub fn listed(what: &str, names: &[String]) -> Option<String> {
    let more = names.len().saturating_sub(LISTED);
    let first = names
        .iter()
        .take(LISTED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!names.is_empty()).then(|| format!("{what}: {first}{rest}"))
}
