//! Who makes room for whom: each address that calls has an equal share of what all callers hold.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

use super::memory::SILENT;
use super::seat::{Seat, Why};

/// An address that calls, while it does.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Its callers.
    pub(super) seats: AtomicUsize,
    /// Bytes that they hold, and those of them that requests to a kdev do.
    all: AtomicUsize,
    matched: AtomicUsize,
}

impl Host {
    pub(super) fn add(&self, bytes: usize, matched: bool) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        if matched {
            self.matched.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn free(&self, bytes: usize, matched: bool) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        if matched {
            self.matched.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn holds(&self, matched: bool) -> usize {
        let bytes = if matched { &self.matched } else { &self.all };
        bytes.load(Ordering::Relaxed)
    }
}

/// Whom a search for room is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Search {
    /// Room is wanted of what requests to a kdev may hold.
    pub(super) matched: bool,
    /// The address of whoever wants it holds its share already, or it is for nobody new.
    pub(super) over: bool,
}

/// A search, and what addresses hold while it lasts.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) search: Search,
    /// Bytes that an address may hold before it makes room for others. Of what they hold, not of what
    /// they may: streams, and the ways to pods, are of no address.
    share: usize,
    /// Bytes that an address holds at most whose callers are not cut off while they are served. Where
    /// two hold about the same, neither cuts off what the other one is served.
    enough: usize,
}

impl Shares {
    /// Among `hosts`, for `bytes` of a caller of `host` if for any.
    pub(super) fn of<'a>(
        hosts: impl ExactSizeIterator<Item = &'a Host>,
        matched: bool,
        host: Option<&Host>,
        bytes: usize,
    ) -> Self {
        let count = hosts.len().max(1);
        let held: usize = hosts.map(|host| host.holds(matched)).sum();
        let share = held / count;
        Self {
            search: Search {
                matched,
                over: host.is_none_or(|host| host.holds(matched) >= share),
            },
            share,
            enough: host.map_or(usize::MAX, |host| 2 * (host.holds(matched) + bytes)),
        }
    }

    /// Whether a caller may be closed, and why; whoever has the least goes first.
    pub(super) fn rank(&self, seat: &Seat, now: Instant) -> Option<Rank> {
        let Search { matched, over } = self.search;
        if matched && !seat.is_matched() {
            return None;
        }
        let (why, since) = seat.may_go(now)?;
        let holds = seat.host().holds(matched);
        // Who holds too much costs others only what they have not used for long.
        let is_unused = why == Why::Idle && now.duration_since(since) >= SILENT;
        let turn = match (holds >= self.share, why) {
            (true, Why::Share) if !over && holds > self.enough => 1,
            (_, Why::Share) => return None,
            (true, _) => 0,
            (false, _) if over && !is_unused => return None,
            (false, _) => 2,
        };
        Some((turn, why, since))
    }
}

/// Whose turn it is: by what its address holds, then by why it goes, then by how long it has moved
/// nothing.
pub(super) type Rank = (u8, Why, Instant);
