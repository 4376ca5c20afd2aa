//! All conditions of one claim.

use serde::{Deserialize, Serialize};

use super::condition::{Condition, Kind};
use super::relation::excludes;
use super::{Head, Invalid, LONGEST_CONDITIONS, MOST_CONDITIONS};

/// Conditions that must all hold; none at all is every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Condition>", into = "Vec<Condition>")]
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
        if all.len() > MOST_CONDITIONS {
            return Err(Invalid(format!(
                "{} conditions are more than {MOST_CONDITIONS}",
                all.len()
            )));
        }
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
        self.0.iter().all(|condition| condition.holds(head))
    }
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

impl TryFrom<Vec<Condition>> for Conditions {
    type Error = Invalid;

    fn try_from(all: Vec<Condition>) -> Result<Self, Invalid> {
        Self::new(all)
    }
}

impl From<Conditions> for Vec<Condition> {
    fn from(conditions: Conditions) -> Self {
        conditions.0
    }
}
