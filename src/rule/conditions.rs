//! All conditions of one claim.

use serde::{Deserialize, Serialize};

use super::condition::{Condition, Kind};
use super::form::Wire;
use super::pattern::{Pattern, Work};
use super::relation::excludes;
use super::{Head, Invalid, LONGEST_CONDITIONS, MOST_CONDITIONS, MOST_PATTERNS_OF_CLAIM};

/// Conditions that must all hold; none at all is every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Wire>", into = "Vec<Condition>")]
pub struct Conditions(Vec<Condition>);

impl Conditions {
    /// Every request.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Conditions in a fixed order, each once.
    ///
    /// # Errors
    /// When they are too many, too long, or no request can fulfil them all.
    pub fn new(mut all: Vec<Condition>) -> Result<Self, Invalid> {
        all.sort_by_cached_key(|condition| (rank(condition), condition.to_string()));
        all.dedup();
        let patterns = all.iter().filter_map(|c| c.0.pattern()).count();
        count(all.len(), patterns)?;
        let bytes: usize = all.iter().map(|c| c.to_string().len()).sum();
        if bytes > LONGEST_CONDITIONS {
            return Err(Invalid(format!(
                "the conditions have {bytes} bytes together, more than {LONGEST_CONDITIONS}"
            )));
        }
        for (place, one) in all.iter().enumerate() {
            if let Some(other) = all[place + 1..].iter().find(|other| excludes(one, other)) {
                return Err(Invalid(format!(
                    "no request can fulfil both {one} and {other}"
                )));
            }
        }
        Ok(Self(all))
    }

    /// Whether there are none, so that every request fulfils them.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other, what distinguishes requests best first.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// Whether a request fulfils them all.
    #[must_use]
    pub fn hold(&self, head: &Head<'_>) -> bool {
        self.hold_within(head, &Work::of_request())
    }

    /// As [`hold`](Self::hold), as far as there is `work` left.
    pub(super) fn hold_within(&self, head: &Head<'_>, work: &Work) -> bool {
        let mut all = self.0.iter();
        all.all(|condition| condition.holds_within(head, work))
    }

    /// How many regular expressions each request of the port is tried against because of these:
    /// none where one of them is looked up before.
    pub(super) fn tried(&self) -> usize {
        match self.0.iter().any(|condition| condition.0.is_looked_up()) {
            true => 0,
            false => self.patterns().count(),
        }
    }

    /// Bytes that their regular expressions take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.patterns().map(Pattern::memory).sum()
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().filter_map(|condition| condition.0.pattern())
    }
}

/// Whether so many may be of one claim.
fn count(conditions: usize, patterns: usize) -> Result<(), Invalid> {
    if conditions > MOST_CONDITIONS {
        return Err(Invalid(format!(
            "{conditions} conditions are more than {MOST_CONDITIONS}"
        )));
    }
    if patterns > MOST_PATTERNS_OF_CLAIM {
        return Err(Invalid(format!(
            "{patterns} regular expressions are more than the {MOST_PATTERNS_OF_CLAIM} that one \
             intercept may have"
        )));
    }
    Ok(())
}

/// What is looked up before what has to be tried.
fn rank(condition: &Condition) -> u8 {
    match &condition.0 {
        Kind::Header(..) => 0,
        Kind::Mine(_) => 1,
        Kind::Baggage(..) => 2,
        Kind::Path(_) => 3,
        Kind::PathPrefix(_) => 4,
        Kind::Method(_) => 5,
        Kind::HeaderMatches(..) => 6,
        Kind::PathMatches(_) => 7,
    }
}

impl TryFrom<Vec<Wire>> for Conditions {
    type Error = Invalid;

    fn try_from(all: Vec<Wire>) -> Result<Self, Invalid> {
        // Before any of them is compiled, which takes time.
        count(all.len(), all.iter().filter(|one| one.is_pattern()).count())?;
        let all = all.into_iter().map(Condition::try_from);
        Self::new(all.collect::<Result<_, _>>()?)
    }
}

impl From<Conditions> for Vec<Condition> {
    fn from(conditions: Conditions) -> Self {
        conditions.0
    }
}
