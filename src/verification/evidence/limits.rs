//! How much of the evidence about one backup is read and kept.

/// Bounds on what anybody who may create objects can make a search read. The defaults are those of the program; tests
/// reach smaller ones in less time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceLimits {
    /// Most documents next to one generation of a backup, under names that anybody can choose, that are read.
    pub per_generation: usize,
    /// Memory for the reports about one generation of a backup, in bytes.
    pub testimony: usize,
    /// Most documents beside one generation of a backup, if there are too many for one listing: fewer in each further
    /// attempt.
    pub most_beside: [usize; 3],
}

impl Default for EvidenceLimits {
    fn default() -> Self {
        EvidenceLimits {
            per_generation: 5_000,
            testimony: 16 << 20,
            most_beside: [5_000, 500, 50],
        }
    }
}
