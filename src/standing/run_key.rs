//! Which run of an order is meant.

/// Hexadecimal digits of the rules' digest in a tag.
const SHOWN: usize = 16;

/// A run of an order: of this backup, by these masking rules. With other rules, it is another run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKey {
    pub order: String,
    /// Name of the backup.
    pub backup: String,
    /// An int64 as a string.
    pub generation: String,
    /// Digest of the masking rules.
    pub rules: Option<String>,
}

impl RunKey {
    /// What tells it from other runs of its order, in its id and in the names of its state.
    pub fn tag(&self) -> String {
        tag_of(&self.generation, self.rules.as_deref())
    }
}

/// The generation, and with masking rules the beginning of their digest behind `m`, with which no id of a person's run
/// begins.
pub(super) fn tag_of(generation: &str, rules: Option<&str>) -> String {
    match rules {
        None => generation.to_owned(),
        Some(digest) => {
            let shown: String = digest.chars().take(SHOWN).collect();
            format!("{generation}-m{shown}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rules_make_another_run() {
        let key = |rules: Option<&str>| RunKey {
            order: "a".into(),
            backup: "x.dump".into(),
            generation: "17".into(),
            rules: rules.map(str::to_owned),
        };
        assert_eq!(key(None).tag(), "17");
        let digest = "0123456789abcdef0123456789abcdef";
        assert_eq!(key(Some(digest)).tag(), "17-m0123456789abcdef");
    }
}
