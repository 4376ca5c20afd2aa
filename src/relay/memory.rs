//! One budget for all that peers can pin in the relay's memory.
//!
//! Whatever a caller, a stream or a tunnel makes the relay hold is charged here, sockets' buffers in
//! the kernel included: control groups of version 2 count them against the pod. What cannot be known
//! exactly is charged as the most that it can be. When the budget runs low, callers who move nothing
//! are closed: first those that are idle, the longest idle first, then those who do not take what they
//! asked for, then whoever is between two requests. Only where that is not enough is something new
//! refused.
//!
//! Nobody loses a connection to somebody who holds more. Each address that calls has an equal share of
//! what all callers hold. Addresses that hold more than theirs make room first, and for those that hold
//! less than half as much, even with callers who are served.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::metrics::Metrics;
use super::part::{Charge, Part};
use super::seat::Seat;
use super::share::{Host, Search, Shares};

/// What a container may use unless its control group says otherwise: what `kdev install` asks for.
pub const LIMIT: usize = 128 << 20;
/// Fewest bytes that a relay is of any use with.
const LEAST: usize = 32 << 20;
/// Where a container sees its own limit: version 2 of the control groups, and version 1.
const GROUPS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];
/// From so many bytes on a limit is none: version 1 says nearly 2^63.
const UNLIMITED: usize = 1 << 40;

/// A caller between two requests counts as idle after so long: those who call many times a second keep
/// their connections longest.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// A caller who has not taken a byte of what is written to it for so long may be closed for others:
/// within a cluster one that reads at all takes some many times a second.
pub(super) const STUCK: Duration = Duration::from_millis(300);
/// The same of one that waits for an answer, or whose request has not come to its end.
pub(super) const SILENT: Duration = Duration::from_secs(10);
/// What is closed in one go, as a part of the budget: looking for whom costs a look at all.
const BATCH: usize = 32;
/// How much more than the budget may be charged while those who were closed leave, as a part of it.
const LEAVING: usize = 16;
/// The same for a caller whose address holds less than its share: on a busy machine those who were
/// closed need longer to leave, and it is not the one to wait for them.
const LEAVING_FOR_OTHERS: usize = 8;
/// How soon after a search that found nobody the next one may begin.
const PAUSE: Duration = Duration::from_millis(100);
/// The same after any search, for what is there already and needs no answer.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// The limit of this process's control group.
pub(super) fn limit() -> usize {
    let read = |path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let known = GROUPS.into_iter().find_map(read);
    known
        .filter(|limit| *limit < UNLIMITED)
        .unwrap_or(LIMIT)
        .max(LEAST)
}

/// The parts of a limit. A quarter stays free: for the program itself and its supervisor, for what an
/// allocator cannot give back, and for claims and copies, which have bounds of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Windows that all tunnels begin with; with half as much again for those that grow.
    pub(super) tunnels: usize,
    /// All connections: callers, and streams of forward tunnels.
    pub(super) connections: usize,
    /// Of these, the streams of forward tunnels: callers have the rest to themselves.
    pub(super) forward: usize,
    /// Of these, the streams of one session: one alone leaves as much to others.
    pub(super) session: usize,
    /// Of all connections, the requests that go to a kdev: the rest is for those to the pods.
    pub(super) matched: usize,
}

impl Plan {
    /// For a container that may use `limit` bytes.
    pub(super) fn of(limit: usize) -> Self {
        let usable = limit / 4 * 3;
        let tunnels = limit / 4;
        // A window that is not used is given up within seconds, and so is a tunnel that takes nothing:
        // what those that grow have beyond is in the free quarter for that long.
        let connections = usable - tunnels;
        Self {
            tunnels,
            connections,
            forward: connections / 2,
            session: connections / 4,
            matched: connections / 2,
        }
    }
}

/// Where a caller stands among others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    address: IpAddr,
    number: u64,
}

/// The budget. Cloning is shallow.
#[derive(Clone, Debug)]
pub(super) struct Memory(Arc<State>);

#[derive(Debug)]
struct State {
    all: Part,
    matched: Part,
    forward: Part,
    session: usize,
    metrics: Metrics,
    callers: Mutex<Callers>,
}

#[derive(Debug, Default)]
struct Callers {
    next: u64,
    seats: HashMap<u64, Weak<Seat>>,
    hosts: HashMap<IpAddr, Arc<Host>>,
    /// When the last search was.
    searched: Option<Instant>,
    /// When a search found nobody, for whom it was.
    fruitless: HashMap<Search, Instant>,
}

impl Memory {
    pub(super) fn new(plan: Plan, metrics: Metrics) -> Self {
        let all = Part::new(plan.connections, None);
        metrics.budget(all.clone());
        Self(Arc::new(State {
            matched: all.within(plan.matched),
            forward: all.within(plan.forward),
            session: plan.session,
            all,
            metrics,
            callers: Mutex::default(),
        }))
    }

    /// What is charged to all connections.
    pub(super) fn all(&self) -> &Part {
        &self.0.all
    }

    /// What is charged to requests that go to a kdev.
    pub(super) fn matched(&self) -> &Part {
        &self.0.matched
    }

    /// A part for the streams of one more session.
    pub(super) fn session(&self) -> Part {
        self.0.forward.within(self.0.session)
    }

    /// The part of all streams of forward tunnels.
    pub(super) fn forward(&self) -> &Part {
        &self.0.forward
    }

    /// A place for one more caller, of `bytes`, who calls from `address`. `None` where there is no
    /// room, not even when others are closed.
    pub(super) fn seat(&self, address: IpAddr, bytes: usize) -> Option<Arc<Seat>> {
        let address = address.to_canonical();
        let host = {
            let mut callers = self.lock();
            let host = callers.hosts.entry(address).or_default();
            host.seats.fetch_add(1, Ordering::Relaxed);
            host.clone()
        };
        let Some(charge) = self.take(self.all(), bytes, Some(&host)) else {
            self.lock().leaves(address);
            return None;
        };
        let mut callers = self.lock();
        callers.next += 1;
        let number = callers.next;
        let place = Place { address, number };
        let seat = Arc::new(Seat::new(self.clone(), place, host, charge));
        callers.seats.insert(number, Arc::downgrade(&seat));
        Some(seat)
    }

    /// The caller at a place has left.
    pub(super) fn left(&self, place: Place) {
        let mut callers = self.lock();
        callers.seats.remove(&place.number);
        callers.leaves(place.address);
    }

    /// Charges `bytes` to `part`, for a caller of `host` if it is one; others are closed for it where
    /// that helps.
    pub(super) fn take(&self, part: &Part, bytes: usize, host: Option<&Host>) -> Option<Charge> {
        if let Some(charge) = part.take(bytes, 0) {
            return Some(charge);
        }
        let (all, matched) = (self.all(), self.matched());
        // A share of streams is nobody else's.
        let of_streams = |part: &Part| !part.is(all) && !part.is(matched);
        if part.any(|part| of_streams(part) && part.is_full(bytes)) {
            return None;
        }
        let matched = part.is(matched) && part.is_full(bytes);
        let (leaving, over) = self.relieve(bytes, matched, host);
        let most = if over { LEAVING } else { LEAVING_FOR_OTHERS };
        part.take(bytes, leaving.min(all.most() / most))
    }

    /// Charges what is there already, and closes others if that is too much.
    pub(super) fn pin(&self, part: &Part, bytes: usize) -> Charge {
        let charge = part.pin(bytes);
        if self.all().used() > self.all().most() && !self.has_just_searched() {
            self.relieve(bytes, false, None);
        }
        charge
    }

    fn has_just_searched(&self) -> bool {
        let searched = self.lock().searched;
        searched.is_some_and(|at| at.elapsed() < SHORT_PAUSE)
    }

    /// Closes callers for `bytes` at least, which are for a caller of `host` if for any. Returns what
    /// leaves with all who were closed and are still there, and whether that host has its share.
    fn relieve(&self, bytes: usize, matched: bool, host: Option<&Host>) -> (usize, bool) {
        let now = Instant::now();
        let mut callers = self.lock();
        let hosts = callers.hosts.values().map(Arc::as_ref);
        let shares = Shares::of(hosts, matched, host, bytes);
        let search = shares.search;
        let fruitless = callers.fruitless.get(&search);
        if fruitless.is_some_and(|at| now.duration_since(*at) < PAUSE) {
            return (0, search.over);
        }
        callers.searched = Some(now);
        // Not dropped before the lock is free again: the last handle of one asks for it.
        let seats: Vec<Arc<Seat>> = callers.seats.values().filter_map(Weak::upgrade).collect();
        let beyond = self.all().used().saturating_sub(self.all().most());
        let wanted = (bytes + beyond).max(self.all().most() / BATCH);
        let mut leaving: usize = seats.iter().map(|seat| seat.leaving()).sum();
        if leaving < wanted {
            let mut going: Vec<_> = seats
                .iter()
                .filter_map(|seat| Some((shares.rank(seat, now)?, seat)))
                .collect();
            going.sort_by_key(|(rank, _)| *rank);
            for ((_, why, _), seat) in going {
                leaving += seat.close(why);
                self.0.metrics.closed(why);
                if leaving >= wanted {
                    break;
                }
            }
        }
        match leaving {
            0 => callers.fruitless.insert(search, now),
            _ => callers.fruitless.remove(&search),
        };
        drop(callers);
        (leaving, search.over)
    }

    fn lock(&self) -> MutexGuard<'_, Callers> {
        let callers = self.0.callers.lock();
        callers.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callers {
    /// A caller of an address is gone, or was not let in.
    fn leaves(&mut self, address: IpAddr) {
        let last = |host: &Arc<Host>| host.seats.fetch_sub(1, Ordering::Relaxed) == 1;
        if self.hosts.get(&address).is_some_and(last) {
            self.hosts.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn memory(connections: usize, forward: usize, session: usize) -> Memory {
        let plan = Plan {
            tunnels: 0,
            connections,
            forward,
            session,
            matched: connections / 2,
        };
        Memory::new(plan, Metrics::default())
    }

    #[test]
    fn the_parts_fit_into_the_limit() {
        for limit in [LEAST, LIMIT, 1 << 30] {
            let plan = Plan::of(limit);
            assert!(plan.tunnels + plan.connections <= limit / 4 * 3);
            assert!(plan.session < plan.forward && plan.forward < plan.connections);
            assert!(plan.matched < plan.connections);
        }
        assert!(limit() >= LEAST);
    }

    #[test]
    fn a_share_is_charged_to_all_that_it_is_of_and_given_back() {
        let memory = memory(1000, 500, 300);
        let (one, other) = (memory.session(), memory.session());
        let first = memory.take(&one, 300, None).unwrap();
        assert!(memory.take(&one, 1, None).is_none(), "the session's share");
        let second = memory.take(&other, 200, None).unwrap();
        assert!(
            memory.take(&other, 1, None).is_none(),
            "the share of all sessions"
        );
        let matched = memory.take(memory.matched(), 500, None).unwrap();
        assert_eq!(memory.all().used(), 1000);
        assert!(
            memory.take(memory.all(), 1, None).is_none(),
            "all that there is"
        );
        drop(first);
        assert_eq!((one.used(), memory.all().used()), (0, 700));
        // What is there is charged in any case.
        let more = memory.pin(memory.all(), 400);
        assert_eq!(memory.all().used(), 1100);
        drop((second, matched, more));
        assert_eq!(memory.all().used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_first_and_whoever_is_served_last() {
        let memory = memory(4000, 1000, 1000);
        let mut seats = Vec::new();
        for _ in 0..4 {
            seats.push(memory.seat(ONE, 1000).unwrap());
            tokio::time::advance(2 * IDLE).await;
        }
        let goes = |seat: &Seat| seat.leaving() > 0;
        // The first one is served, so the second one goes.
        let served = seats[0].request(false, 0).unwrap();
        let fifth = memory.seat(ONE, 200);
        assert!(fifth.is_some(), "what leaves is as good as free");
        assert_eq!(
            seats.iter().map(|s| goes(s)).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        seats.remove(1);
        // Of those who are served only those go that have not moved for long.
        drop(fifth);
        let all: Vec<_> = seats
            .iter()
            .map(|seat| seat.request(false, 0).unwrap())
            .collect();
        assert!(memory.seat(ONE, 1500).is_none());
        assert!(!seats.iter().any(|seat| goes(seat)));
        tokio::time::advance(SILENT).await;
        assert!(memory.seat(ONE, 1100).is_some());
        assert!(goes(&seats[0]) || goes(&seats[1]));
        drop((served, all));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_more_than_its_share_makes_room_even_where_it_is_served() {
        let memory = memory(4000, 1000, 1000);
        let taken: Vec<_> = (0..4).map(|_| memory.seat(ONE, 900).unwrap()).collect();
        let served: Vec<_> = taken
            .iter()
            .map(|seat| seat.request(false, 100).unwrap())
            .collect();
        let gone = || taken.iter().filter(|seat| seat.leaving() > 0).count();
        assert!(
            memory.seat(ONE, 200).is_none(),
            "the same address has enough"
        );
        assert_eq!(gone(), 0);
        let other = memory.seat(OTHER, 200).unwrap();
        assert_eq!(gone(), 1, "another one's caller goes for it");
        // Not for long idle, it is no reason for the first address to take its place.
        tokio::time::advance(2 * IDLE).await;
        assert!(memory.seat(ONE, 2000).is_none());
        assert_eq!(other.leaving(), 0);
        drop((served, taken));
        assert_eq!(memory.all().used(), 200);
        drop(other);
        assert!(memory.lock().hosts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_no_address_is_nobodys_share() {
        let memory = memory(4000, 2000, 2000);
        // Streams of tunnels, and ways to pods.
        let streams = memory.take(&memory.session(), 2000, None).unwrap();
        let ways = memory.pin(memory.all(), 1000);
        let taken = memory.seat(ONE, 950).unwrap();
        let served = taken.request(false, 0).unwrap();
        assert!(memory.seat(OTHER, 100).is_some());
        assert!(taken.leaving() > 0, "callers hold hardly anything else");
        drop((streams, ways, served));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_hold_about_the_same_none_is_cut_off_while_it_is_served() {
        let memory = memory(4000, 1000, 1000);
        let mut seats = vec![memory.seat(ONE, 1100).unwrap()];
        seats.push(memory.seat(ONE, 1100).unwrap());
        seats.extend((0..2).map(|_| memory.seat(OTHER, 900).unwrap()));
        let served: Vec<_> = seats
            .iter()
            .map(|seat| seat.request(false, 0).unwrap())
            .collect();
        for address in [ONE, OTHER] {
            assert!(memory.seat(address, 100).is_none(), "{address}");
        }
        assert!(seats.iter().all(|seat| seat.leaving() == 0));
        drop(served);
        tokio::time::advance(PAUSE).await;
        // What is between two requests goes, of the one that holds more.
        assert!(memory.seat(OTHER, 100).is_some());
        assert!(seats[..2].iter().any(|seat| seat.leaving() > 0));
        assert!(seats[2..].iter().all(|seat| seat.leaving() == 0));
    }
}
