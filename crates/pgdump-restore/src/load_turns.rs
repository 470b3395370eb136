//! Load turns: data of a turn waits until all data of lower turns is done.

use std::collections::BTreeMap;

/// Unfinished items by turn.
#[derive(Debug, Default)]
pub(super) struct LoadTurns(BTreeMap<usize, usize>);

impl LoadTurns {
    pub(crate) fn add(&mut self, turn: usize) {
        *self.0.entry(turn).or_default() += 1;
    }

    /// One item of this turn is done.
    pub(crate) fn done(&mut self, turn: usize) {
        if let Some(left) = self.0.get_mut(&turn) {
            *left -= 1;
            if *left == 0 {
                self.0.remove(&turn);
            }
        }
    }

    /// Whether every lower turn is finished.
    pub(crate) fn is_due(&self, turn: usize) -> bool {
        self.0
            .first_key_value()
            .is_none_or(|(lowest, _)| *lowest >= turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_starts_when_lower_turns_are_done() {
        let mut turns = LoadTurns::default();
        [0, 0, 1, 4].into_iter().for_each(|turn| turns.add(turn));
        let come = |turns: &LoadTurns| (0..6).filter(|t| turns.is_due(*t)).count();
        assert_eq!(come(&turns), 1);
        turns.done(0);
        assert_eq!(come(&turns), 1, "one item of the first turn is left");
        turns.done(0);
        assert_eq!(come(&turns), 2);
        turns.done(4);
        turns.done(1);
        assert_eq!(come(&turns), 6);
        turns.done(1);
        assert!(turns.is_due(9));
    }
}
