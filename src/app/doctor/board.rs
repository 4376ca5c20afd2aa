//! Collects what sections find at the same time, in the order in which it is told.

use std::sync::{Mutex, PoisonError};

use super::check::Check;

/// The parts of an examination, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Kubeconfig,
    ApiServer,
    Login,
    Permissions,
    Rights,
    PortForward,
    Relay,
    Install,
    Speed,
    Containers,
    Local,
}

const SECTIONS: usize = Section::Local as usize + 1;

/// What was found so far.
#[derive(Default)]
pub(super) struct Board {
    found: Mutex<[Vec<Check>; SECTIONS]>,
}

impl Board {
    /// What a section found; each reports once.
    pub(super) fn put(&self, section: Section, checks: Vec<Check>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found[section as usize] = checks;
    }

    /// All of it, in order.
    pub(super) fn finish(self) -> Vec<Check> {
        let found = self.found.into_inner();
        found
            .unwrap_or_else(PoisonError::into_inner)
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_depend_on_what_ended_first() {
        let board = Board::default();
        let check = |id: &str| vec![Check::ok(id, "", "")];
        board.put(Section::ApiServer, check("b"));
        board.put(Section::Login, check("c"));
        board.put(Section::Kubeconfig, check("a"));
        let ids: Vec<_> = board.finish().into_iter().map(|c| c.id).collect();
        assert_eq!(ids, ["a", "b", "c"]);
    }
}
