//! How two claims on one port stand to each other.

use std::cmp::Reverse;

use super::condition::{Condition, Kind, begins_with, mine_header};
use super::{Claim, Conditions, baggage};

/// How the requests of one set of conditions stand to those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// All of the first are among those of the second.
    Subset,
    /// All of the second are among those of the first.
    Superset,
    /// No request is of both.
    Disjoint,
    /// None of this can be proved: a request may be of both.
    Overlap,
}

/// Whether two claims may stand on one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They have nothing to do with each other.
    Apart,
    /// Both may be: a request that fulfils both goes to the one with more conditions, and of as
    /// many to the older one. Whoever makes the second is told.
    Overlaps,
    /// The second is refused: what one gets, or all of it, the other is bound to want as well.
    Conflicts,
}

impl Conditions {
    /// How the requests of these stand to those of `other`. What is said is proved; the reverse
    /// does not hold: for example, nothing is known of two regular expressions but whether they
    /// are the same text.
    #[must_use]
    pub fn relation(&self, other: &Self) -> Relation {
        match (implies(self, other), implies(other, self)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Subset,
            (false, true) => Relation::Superset,
            _ if self.iter().any(|a| other.iter().any(|b| excludes(a, b))) => Relation::Disjoint,
            _ => Relation::Overlap,
        }
    }
}

impl Claim {
    /// Whether both may stand on one port. A claim that only gets copies is in nobody's way, and
    /// nobody in its.
    #[must_use]
    pub fn verdict(&self, other: &Self) -> Verdict {
        if self.mirror || other.mirror {
            return Verdict::Apart;
        }
        match self.conditions.relation(&other.conditions) {
            Relation::Equal | Relation::Subset | Relation::Superset => Verdict::Conflicts,
            Relation::Overlap => Verdict::Overlaps,
            Relation::Disjoint => Verdict::Apart,
        }
    }
}

impl Claim {
    /// Whether requests that fulfil both come to this one.
    #[must_use]
    pub fn goes_before(&self, other: &Self) -> bool {
        let place = |claim: &Self| (Reverse(claim.conditions.len()), claim.since);
        place(self) < place(other)
    }
}

/// Whether whatever fulfils `a` fulfils `b`.
fn implies(a: &Conditions, b: &Conditions) -> bool {
    let one = |b: &Condition| is_idle(b) || a.iter().any(|a| leads_to(a, b));
    b.iter().all(one)
}

/// Whether every request fulfils it.
fn is_idle(condition: &Condition) -> bool {
    matches!(&condition.0, Kind::PathMatches(pattern) if pattern.as_str() == ".*")
}

/// Whether `a` alone leads to `b`.
fn leads_to(a: &Condition, b: &Condition) -> bool {
    match (&a.0, &b.0) {
        (a, b) if a == b => true,
        (Kind::Header(n, value), Kind::HeaderMatches(m, pattern)) => {
            n == m && pattern.matches_text(value)
        }
        (Kind::Header(name, value), Kind::Mine(mine)) => *name == mine_header() && value == mine,
        (Kind::Header(name, text), Kind::Baggage(key, value)) => {
            name == baggage::HEADER
                && baggage::value_in(text, key).is_some_and(|found| found == value.as_str())
        }
        (Kind::Path(path), Kind::PathPrefix(prefix)) => begins_with(path, prefix),
        (Kind::Path(path), Kind::PathMatches(pattern)) => pattern.matches_text(path),
        (Kind::PathPrefix(longer), Kind::PathPrefix(prefix)) => begins_with(longer, prefix),
        _ => false,
    }
}

/// Whether no request can fulfil both.
pub(super) fn excludes(a: &Condition, b: &Condition) -> bool {
    excludes_so(&a.0, &b.0) || excludes_so(&b.0, &a.0)
}

fn excludes_so(a: &Kind, b: &Kind) -> bool {
    match (a, b) {
        (Kind::Header(n, v), Kind::Header(m, w)) => n == m && v != w,
        (Kind::Header(n, value), Kind::HeaderMatches(m, pattern)) => {
            n == m && !pattern.matches_text(value)
        }
        (Kind::Header(name, value), Kind::Mine(mine)) => *name == mine_header() && value != mine,
        (Kind::Header(name, text), Kind::Baggage(key, value)) => {
            name == baggage::HEADER
                && baggage::value_in(text, key).is_none_or(|found| found != value.as_str())
        }
        (Kind::Mine(v), Kind::Mine(w)) => v != w,
        (Kind::Baggage(k, v), Kind::Baggage(l, w)) => k == l && v != w,
        (Kind::Method(v), Kind::Method(w)) => v != w,
        (Kind::Path(v), Kind::Path(w)) => v != w,
        (Kind::Path(path), Kind::PathPrefix(prefix)) => !begins_with(path, prefix),
        (Kind::Path(path), Kind::PathMatches(pattern)) => !pattern.matches_text(path),
        (Kind::PathPrefix(v), Kind::PathPrefix(w)) => !begins_with(v, w) && !begins_with(w, v),
        _ => false,
    }
}
