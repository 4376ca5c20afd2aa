//! Which requests come to whom: the conditions of an intercept, how two of them relate, which one
//! a request goes to, and the form in which they are written down and sent.
//!
//! Pure: nothing here waits, dials or knows Kubernetes.
//!
//! What a condition looks at is one text for each request, so that two different exact values
//! exclude each other: lines of one header are joined as HTTP says they may be, the last `baggage`
//! member of a name counts, and `--mine` looks at the baggage only where there is no `x-kdev`.

mod app_protocol;
mod baggage;
mod claim;
mod condition;
mod conditions;
pub mod control;
mod form;
mod head;
mod index;
mod mine;
mod pattern;
mod relation;
mod room;
mod sample;
mod syntax;
#[cfg(test)]
mod tests;

pub use self::app_protocol::AppProtocol;
pub use self::claim::{Claim, LONGEST_ID, LONGEST_OWNER};
pub use self::condition::Condition;
pub use self::conditions::Conditions;
pub use self::head::Head;
pub use self::index::RuleSet;
pub use self::mine::{is_mine, mark, mine_of};
pub use self::relation::{Relation, Verdict};
pub use self::room::room;

/// The header that `--mine` looks at; it carries the value of whoever a request belongs to.
pub const MINE_HEADER: &str = "x-kdev";
/// The baggage member that `--mine` looks at where a request has no such header.
pub const MINE_BAGGAGE: &str = "kdev";

/// Claims on one Service at a time: what fits into the annotations of a Service, at some 246 bytes
/// each and 256 KiB for all.
pub const MOST_CLAIMS: usize = 500;
/// Conditions of one claim.
pub const MOST_CONDITIONS: usize = 16;
/// Regular expressions among the conditions of one claim.
pub const MOST_PATTERNS_OF_CLAIM: usize = 8;
/// Regular expressions that each request of a port is tried against: those of claims without a
/// condition that is looked up. They bound what a caller can make a request cost, to 0.9 ms.
pub const MOST_PATTERNS: usize = 128;
/// Those of one session on a port, so that nobody takes the room of all others.
pub const MOST_PATTERNS_OF_SESSION: usize = 32;
/// Bytes of one condition's name or value.
pub const LONGEST_TEXT: usize = 256;
/// Bytes that all conditions of one claim may have together, as they are sent.
pub const LONGEST_CONDITIONS: usize = 1024;

/// A condition or a claim that makes no sense, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(crate) String);

impl Invalid {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
