//! How an intercept ends: the claim is taken off; with the last one the Service is given back, then
//! its fields; and once nobody needs it any more, the origin goes.
//!
//! Whoever takes the last claim off says so on the origin, and gives the Service back only from a
//! version that it read before it looked once more whether that still holds. A kdev that joins at
//! that moment takes the word off and then changes the Service, so one of the two notices the other.

use serde_json::{Value, json};

use super::block::{self, note};
use super::fields;
use super::marks::ENDED;
use super::object::{name, uid, version};
use super::site::{Changed, Site, Tries};
use super::{origin, swap};
use crate::intercept::claim::Claim;
use crate::intercept::redirect::{Left, RedirectError};

/// Takes the claims that `ends` says off the record of `origin`, in the name of `by` where they are
/// not one's own. Gives the origin then, the claims that were taken off and those that are left;
/// none where there is no such origin.
pub(super) async fn take_off(
    site: &Site,
    origin: &str,
    by: Option<&str>,
    ends: impl Fn(&Claim) -> bool,
) -> Result<Option<Taken>, RedirectError> {
    let mut tries = Tries::new();
    // What an answer that got lost may have taken off.
    let mut before: Vec<Claim> = Vec::new();
    loop {
        let Some(there) = site.service(origin).await? else {
            return Ok(None);
        };
        let claims = origin::claims(&there).map_err(RedirectError::Cluster)?;
        let (gone, left): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| ends(claim));
        let said = origin::given_back(&there).is_some();
        if gone.is_empty() && (said || !left.is_empty()) {
            return Ok(Some(Taken {
                origin: there,
                gone: before,
                left: left.len(),
            }));
        }
        let mut patch = origin::recorded(&there, &left, block::now());
        if let Some(by) = by {
            let ids: Vec<&str> = gone.iter().map(|claim| claim.id.as_str()).collect();
            patch["metadata"]["annotations"][ENDED] = json!(origin::ended(&there, &ids, by));
        }
        match site.patch(origin, &patch).await? {
            Changed::Done(origin) => {
                return Ok(Some(Taken {
                    origin,
                    gone,
                    left: left.len(),
                }));
            }
            Changed::Gone => return Ok(None),
            Changed::Stale => tries.next(&format!("Service {origin}")).await?,
            Changed::Unsure(error) => {
                before = gone;
                tries.after(error).await?;
            }
        }
    }
}

/// What was taken off.
pub(super) struct Taken {
    pub(super) origin: Value,
    pub(super) gone: Vec<Claim>,
    pub(super) left: usize,
}

/// Whose claims do not keep a Service from being given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Despite {
    /// Each claim does.
    Nobody,
    /// None does: there is no relay, so nobody gets anything by it.
    Others,
}

/// Gives the Service back that `origin` is for, where no claim on it is left that keeps it, and its
/// fields to whoever had set them. Can be repeated from any point where it was broken off.
pub(super) async fn give_back(
    site: &Site,
    service: &str,
    origin: &str,
    despite: Despite,
) -> Result<Left, RedirectError> {
    let mut tries = Tries::new();
    let what = format!("Service {service}");
    loop {
        // In this order: see above.
        let live = site.service(service).await?;
        let Some(there) = site.service(origin).await? else {
            return Ok(Left::Nothing);
        };
        let claims = origin::claims(&there).map_err(RedirectError::Cluster)?;
        let left = match (claims.len(), despite) {
            (0, _) => Left::Last,
            (others, Despite::Nobody) => return Ok(Left::Others(others)),
            (others, Despite::Others) => Left::Others(others),
        };
        let live = live.filter(|live| uid(live) == origin::owner(&there).1);
        // One that is gone, or another one of the same name, needs nothing.
        let Some(mut live) = live else {
            return Ok(left);
        };
        if let Some(patch) = swap::back(&live, &there) {
            match site.patch(service, &patch).await? {
                Changed::Done(after) => live = after,
                Changed::Gone => return Ok(left),
                Changed::Stale => {
                    tries.next(&what).await?;
                    continue;
                }
                Changed::Unsure(error) => {
                    tries.after(error).await?;
                    continue;
                }
            }
        }
        let list = &live["metadata"]["managedFields"];
        let Some(list) = fields::given_back(list, &origin::saved_fields(&there)) else {
            return Ok(left);
        };
        // Alone: together with a change of what is in the fields it would have no effect.
        let patch = json!({"metadata": {"resourceVersion": version(&live), "managedFields": list}});
        match site.patch(service, &patch).await? {
            Changed::Done(_) | Changed::Gone => return Ok(left),
            Changed::Stale => tries.next(&what).await?,
            Changed::Unsure(error) => tries.after(error).await?,
        }
    }
}

/// Deletes an origin without claims, and notes that its ports rest. One that got a claim meanwhile
/// stays.
pub(super) async fn remove(site: &Site, origin: &str) -> Result<(), RedirectError> {
    let mut tries = Tries::new();
    loop {
        let Some(there) = site.service(origin).await? else {
            return Ok(());
        };
        let claims = origin::claims(&there).map_err(RedirectError::Cluster)?;
        if !claims.is_empty() {
            return Ok(());
        }
        let note = note(
            origin::first_port(&there),
            origin::owner(&there).1,
            Some(block::now()),
        );
        match site.note_ports(&note).await {
            // Without a relay nobody has these ports any more.
            Ok(()) | Err(RedirectError::Cluster(_)) => {}
            Err(error) => return Err(error),
        }
        match site.delete(&there).await? {
            Changed::Done(_) | Changed::Gone => return Ok(()),
            Changed::Stale => tries.next(&format!("Service {}", name(&there))).await?,
            Changed::Unsure(error) => tries.after(error).await?,
        }
    }
}

/// Undoes what an intercept that did not come about has done.
pub(super) async fn undo(
    site: &Site,
    service: &str,
    origin: &str,
    id: &str,
) -> Result<(), RedirectError> {
    let taken = take_off(site, origin, None, |claim| claim.id == id).await?;
    if taken.is_some_and(|taken| taken.left == 0)
        && give_back(site, service, origin, Despite::Nobody).await? == Left::Last
    {
        remove(site, origin).await?;
    }
    Ok(())
}
