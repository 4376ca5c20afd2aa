//! What the relay knows of claims.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::intercept::record::{Life, recorded};
use crate::intercept::reverse::Reverse;
use crate::k8s::redirect::list::Intercepted;
use crate::rule::control::Tell;
use crate::tunnel::SessionId;

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

/// Sessions that a relay is asked for at a time: nobody has that many kdevs on a Service.
const MOST_ASKED: usize = 64;

/// What is known of the claims on a Service, by id; those that are not here nobody knows. Of claims of
/// `owner` that the relay does not know it is asked whether their kdev lives.
pub async fn seen(reverse: &Reverse, found: &Intercepted, owner: &str) -> BTreeMap<String, Seen> {
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
    let unknown = found.claims.iter();
    let unknown = unknown.filter(|claim| claim.owner == owner && !all.contains_key(&claim.id));
    let unknown = unknown.filter_map(|claim| Some((claim.id.clone(), recorded(claim).ok()?.1)));
    let unknown: Vec<_> = unknown
        .map(|(id, claim)| (id, claim.session))
        .take(MOST_ASKED)
        .collect();
    if unknown.is_empty() {
        return all;
    }
    let sessions: Vec<SessionId> = unknown.iter().map(|(_, session)| *session).collect();
    let Some(live) = reverse.live(&sessions).await else {
        return all;
    };
    for (id, session) in unknown {
        let life = match live.contains(&session) {
            true => Life::Live,
            false => Life::Dead,
        };
        let seen = Seen {
            life,
            last: None,
            requests: 0,
        };
        all.insert(id, seen);
    }
    all
}
