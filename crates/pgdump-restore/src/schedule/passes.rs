//! The pass that a restore is in, and how many nodes each pass still has.

use crate::plan::RestorePass;

#[derive(Debug)]
pub(super) struct Passes {
    current: RestorePass,
    /// Unfinished nodes, by pass.
    left: [usize; RestorePass::COUNT],
    /// Nodes may be added, so no pass is known to be complete.
    growing: bool,
}

impl Passes {
    pub(super) fn new(nodes: impl Iterator<Item = RestorePass>, growing: bool) -> Self {
        let mut passes = Passes {
            current: RestorePass::Main,
            left: [0; RestorePass::COUNT],
            growing,
        };
        nodes.for_each(|pass| passes.add(pass));
        passes.advance();
        passes
    }

    pub(super) fn add(&mut self, pass: RestorePass) {
        self.left[pass as usize] += 1;
    }

    /// A node of this pass is complete.
    pub(super) fn done(&mut self, pass: RestorePass) {
        self.left[pass as usize] -= 1;
        self.advance();
    }

    /// No more nodes will be added.
    pub(super) fn stop_growing(&mut self) {
        self.growing = false;
        self.advance();
    }

    pub(super) fn current(&self) -> RestorePass {
        self.current
    }

    pub(super) fn is_growing(&self) -> bool {
        self.growing
    }

    /// Whether no node is left.
    pub(super) fn are_done(&self) -> bool {
        self.left.iter().all(|left| *left == 0)
    }

    fn advance(&mut self) {
        while !self.growing && self.left[self.current as usize] == 0 {
            match self.current.next() {
                Some(next) => self.current = next,
                None => return,
            }
        }
    }
}
