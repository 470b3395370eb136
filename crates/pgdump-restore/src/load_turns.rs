//! Data that comes in turns: what has a higher turn waits until all of a lower one is done.

use std::collections::BTreeMap;

/// How much is not done yet, by turn.
#[derive(Debug, Default)]
pub(super) struct LoadTurns(BTreeMap<usize, usize>);

impl LoadTurns {
    pub(crate) fn add(&mut self, turn: usize) {
        *self.0.entry(turn).or_default() += 1;
    }

    /// One of this turn is done.
    pub(crate) fn done(&mut self, turn: usize) {
        if let Some(left) = self.0.get_mut(&turn) {
            *left -= 1;
            if *left == 0 {
                self.0.remove(&turn);
            }
        }
    }

    /// Whether nothing of a lower turn is left.
    pub(crate) fn has_come(&self, turn: usize) -> bool {
        self.0
            .first_key_value()
            .is_none_or(|(lowest, _)| *lowest >= turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_comes_when_nothing_lower_is_left() {
        let mut turns = LoadTurns::default();
        [0, 0, 1, 4].into_iter().for_each(|turn| turns.add(turn));
        let come = |turns: &LoadTurns| (0..6).filter(|t| turns.has_come(*t)).count();
        assert_eq!(come(&turns), 1);
        turns.done(0);
        assert_eq!(come(&turns), 1, "one of the first turn is left");
        turns.done(0);
        assert_eq!(come(&turns), 2);
        turns.done(4);
        turns.done(1);
        assert_eq!(come(&turns), 6);
        turns.done(1);
        assert!(turns.has_come(9));
    }
}
