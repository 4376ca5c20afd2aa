//! Collects what checks of several sections find at the same time, and shows it in order, as soon
//! as that can be.

use std::sync::{Mutex, PoisonError};

use super::check::Check;

/// The parts of an examination, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Kubeconfig,
    ApiServer,
    Login,
    Permissions,
    PortForward,
    Relay,
    Speed,
    Containers,
    Local,
}

const SECTIONS: usize = Section::Local as usize + 1;

/// Called with each check when its turn has come.
pub type Say<'a> = &'a mut (dyn FnMut(&Check) + Send);

pub(super) struct Board<'a> {
    inner: Mutex<Inner<'a>>,
}

struct Inner<'a> {
    waiting: [Option<Vec<Check>>; SECTIONS],
    shown: Vec<Check>,
    next: usize,
    say: Say<'a>,
}

impl<'a> Board<'a> {
    pub(super) fn new(say: Say<'a>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: Default::default(),
                shown: Vec::new(),
                next: 0,
                say,
            }),
        }
    }

    /// What a section found; each reports once.
    pub(super) fn put(&self, section: Section, checks: Vec<Check>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        inner.waiting[section as usize] = Some(checks);
        while let Some(checks) = inner.waiting.get_mut(inner.next).and_then(Option::take) {
            for check in checks {
                (inner.say)(&check);
                inner.shown.push(check);
            }
            inner.next += 1;
        }
    }

    /// All of it, in order.
    pub(super) fn finish(self) -> Vec<Check> {
        let inner = self
            .inner
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        inner.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_first_waits_for_its_turn() {
        let mut said = Vec::new();
        let mut say = |check: &Check| said.push(check.id.clone());
        let board = Board::new(&mut say);
        let check = |id: &str| vec![Check::ok(id, "", "")];
        board.put(Section::ApiServer, check("b"));
        board.put(Section::Login, check("c"));
        assert!(board.inner.lock().unwrap().shown.is_empty());
        board.put(Section::Kubeconfig, check("a"));
        let ids: Vec<_> = board.finish().into_iter().map(|c| c.id).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(said, ids);
    }
}
