//! What the relay knows of claims.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::intercept::record::Life;
use crate::intercept::reverse::Reverse;
use crate::k8s::redirect::list::Intercepted;
use crate::rule::control::Tell;

/// What the relay's replicas know of a claim, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How its kdev is doing.
    pub life: Life,
    /// How long ago its last request was.
    pub last: Option<Duration>,
    /// How many there were.
    pub requests: u64,
}

/// What is known of the claims on a Service, by id; those that are not here nobody knows.
pub async fn seen(reverse: &Reverse, found: &Intercepted) -> BTreeMap<String, Seen> {
    let mut all: BTreeMap<String, Seen> = BTreeMap::new();
    for (_, landing) in &found.landings {
        for tell in reverse.look(*landing).await {
            let Tell::Seen { claims, .. } = tell else {
                continue;
            };
            for claim in claims {
                let life = if claim.live { Life::Live } else { Life::Silent };
                let last = claim.ago.map(Duration::from_millis);
                let known = all.entry(claim.id).or_insert(Seen {
                    life,
                    last,
                    requests: 0,
                });
                known.life = life.max(known.life);
                known.last = [known.last, last].into_iter().flatten().min();
                known.requests += claim.requests;
            }
        }
    }
    all
}
