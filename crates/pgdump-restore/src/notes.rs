//! Notes that list names.

use std::fmt::Display;

/// Most names in a note.
const LISTED: usize = 50;

/// A note that lists names; `None` if there are none.
pub fn listed(what: &str, names: &[String]) -> Option<String> {
    let mut list = NameList::default();
    names.iter().for_each(|n| list.push(n));
    list.listed(what)
}

/// Names for a note. All are counted, but only as many as a note lists are kept.
#[derive(Debug, Default)]
pub struct NameList {
    first: Vec<String>,
    count: usize,
}

impl NameList {
    /// Adds one name.
    pub fn push(&mut self, name: impl Display) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(name.to_string());
        }
    }

    /// Adds names in their order.
    pub fn extend(&mut self, names: impl IntoIterator<Item = impl Display>) {
        names.into_iter().for_each(|n| self.push(n));
    }

    /// A note that lists them; `None` if there are none.
    pub fn listed(&self, what: &str) -> Option<String> {
        let more = self.count - self.first.len();
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        (self.count > 0).then(|| format!("{what}: {}{rest}", self.first.join(", ")))
    }
}
