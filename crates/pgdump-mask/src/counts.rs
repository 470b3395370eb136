//! What masking changed.

/// Counts of a table's rows and of the values that its rules changed.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MaskCounts {
    /// Rows read.
    pub rows: u64,
    /// Rows that were not left out.
    #[serde(rename = "kept")]
    pub rows_kept: u64,
    /// Values that a rule changed, per column of [`crate::TableMask::column_names`]. What stays as it was does not count.
    pub changed: Vec<u64>,
}

impl MaskCounts {
    /// Adds the counts of other rows of the same table.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.rows_kept += other.rows_kept;
        self.reserve(other.changed.len());
        for (mine, theirs) in self.changed.iter_mut().zip(&other.changed) {
            *mine += theirs;
        }
    }

    /// Makes room for the counts of this many columns.
    pub(crate) fn reserve(&mut self, columns: usize) {
        if self.changed.len() < columns {
            self.changed.resize(columns, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_chunks_add_up() {
        let mut sum = MaskCounts::default();
        let chunk = MaskCounts {
            rows: 3,
            rows_kept: 2,
            changed: vec![2, 0],
        };
        sum.add(&chunk);
        sum.add(&chunk);
        assert_eq!((sum.rows, sum.rows_kept, sum.changed), (6, 4, vec![4, 0]));
    }
}
