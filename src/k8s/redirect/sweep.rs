//! Putting back what others left behind: claims without anybody, Services that nobody gave back,
//! origins that nobody needs.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::leave::Despite;
use super::list::{Intercepted, Scope, list};
use super::site::Site;
use super::ways::Doing;
use super::{block, events, leave, swap};
use crate::intercept::claim::Claim;
use crate::intercept::redirect::{Left, RedirectError};
use crate::k8s::Client;

/// How long nobody may have come before what leads the last callers to the original pods goes: nodes
/// learn of a Service's change within 2 s, and callers that found the old address try for a few more.
const IDLE: Duration = Duration::from_secs(10);
/// How long ago the Service must have been given back where no relay says whether callers come: more
/// than a node lags whose kube-proxy is busy, and less than anybody waits.
const BLIND: Duration = Duration::from_secs(30);
/// How long it is at least until it is asked again.
const LOOK: Duration = Duration::from_millis(250);

/// What became of a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The claims that were taken off.
    pub ended: Vec<Claim>,
    /// What of it.
    pub left: Left,
    /// Whether it had its own pods before anything was done here, so that only what led late callers
    /// there is left.
    pub was_back: bool,
}

/// When a caller of a Service last came to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// So long ago.
    Ago(Duration),
    /// None did, as far as anybody knows.
    Never,
    /// None can: there is no relay any more, and none comes.
    NoRelay,
    /// There is a relay, and it cannot be asked.
    Unknown,
}

/// Who knows of callers that come to the relay after their Service was given back.
pub trait LateCallers: Sync {
    /// When the last one came.
    fn last<'a>(&'a self, found: &'a Intercepted) -> Doing<'a, Last>;
}

/// The same for all Services.
impl LateCallers for Last {
    fn last<'a>(&'a self, _: &'a Intercepted) -> Doing<'a, Last> {
        Box::pin(std::future::ready(*self))
    }
}

/// Looks at the Services in `scope` that are `meant`, takes the claims off that `ends` says, in the name of `by`, and gives each Service
/// back that has none left; calls `tell` after each. What leads the last callers to the original
/// pods stays until [`clear`].
///
/// # Errors
/// When the API server cannot be asked or refuses. What was done stays, and the same again goes on
/// from there.
pub async fn put_back(
    client: &Client,
    scope: &Scope,
    by: &str,
    meant: &(dyn Fn(&Intercepted) -> bool + Sync),
    ends: &(dyn Fn(&Intercepted, &Claim) -> bool + Sync),
    tell: &mut (dyn FnMut(&Put) + Send),
) -> Result<Vec<Put>, RedirectError> {
    let all = list(client, scope).await?;
    let mut done = Vec::new();
    for found in all.into_iter().filter(|found| meant(found)) {
        if let Some(why) = &found.unreadable {
            tracing::warn!(service = found.service, "{why}");
            continue;
        }
        let site = site(client, &found);
        let taken = leave::take_off(&site, &found.origin, Some(by), |claim| ends(&found, claim));
        let Some(taken) = taken.await? else { continue };
        for claim in &taken.gone {
            let uid = super::origin::owner(&taken.origin).1;
            events::ended(&site, (&found.service, uid), claim, Some(by)).await;
        }
        let was_back = found.is_given_back()
            && taken.gone.is_empty()
            && !leads_to_relay(&site, &found).await?;
        let left = match taken.left {
            0 => leave::give_back(&site, &found.service, &found.origin, Despite::Nobody).await?,
            others => Left::Others(others),
        };
        let put = Put {
            namespace: found.namespace,
            service: found.service,
            ended: taken.gone,
            left,
            was_back,
        };
        tell(&put);
        done.push(put);
    }
    Ok(done)
}

/// What was not cleared away.
#[derive(Clone, Debug)]
pub struct Stays {
    /// Of which Service.
    pub found: Intercepted,
    /// Whether the Service leads to the relay still, so that it is `kdev restore`'s; else somebody came
    /// by way of the relay a moment ago.
    pub leads_to_relay: bool,
}

/// Clears away what leads late callers of Services that were given back to the original pods, of each
/// that is `meant` once none has come for [`IDLE`]; with no `limit` left only what is due. Gives what
/// stays. No Service is changed.
///
/// # Errors
/// When the API server cannot be asked or refuses. The same again goes on from there.
pub async fn clear(
    client: &Client,
    scope: &Scope,
    meant: &(dyn Fn(&Intercepted) -> bool + Sync),
    late: &dyn LateCallers,
    limit: Duration,
) -> Result<Vec<Stays>, RedirectError> {
    let until = Instant::now() + limit;
    loop {
        let (mut stays, mut soonest) = (Vec::new(), None);
        let all = list(client, scope).await?.into_iter();
        for found in all.filter(|found| meant(found) && found.is_given_back()) {
            let site = site(client, &found);
            // Whoever took the last claim off may not have come further.
            let leads_to_relay = leads_to_relay(&site, &found).await?;
            if !leads_to_relay {
                let rest = rest(&found, late.last(&found).await);
                if rest.is_zero() {
                    leave::remove(&site, &found.origin).await?;
                    continue;
                }
                soonest = Some(soonest.map_or(rest, |s: Duration| s.min(rest)));
            }
            stays.push(Stays {
                found,
                leads_to_relay,
            });
        }
        let next = soonest.map(|rest| Instant::now() + rest.max(LOOK));
        match next.filter(|next| *next <= until) {
            Some(next) => sleep_until(next).await,
            None => return Ok(stays),
        }
    }
}

/// How long callers of it may come still.
fn rest(found: &Intercepted, last: Last) -> Duration {
    let age = found.given_back.map_or(Duration::ZERO, |at| {
        Duration::from_secs(block::now().saturating_sub(at))
    });
    match last {
        Last::Ago(ago) => IDLE.saturating_sub(age.min(ago)),
        Last::Never => IDLE.saturating_sub(age),
        Last::NoRelay => Duration::ZERO,
        Last::Unknown => BLIND.saturating_sub(age),
    }
}

/// Whether anything of the Service still leads to the relay.
async fn leads_to_relay(site: &Site, found: &Intercepted) -> Result<bool, RedirectError> {
    let both = tokio::try_join!(site.service(&found.service), site.service(&found.origin))?;
    let (Some(live), Some(origin)) = both else {
        return Ok(false);
    };
    let same = super::object::uid(&live) == super::origin::owner(&origin).1;
    Ok(same && swap::back(&live, &origin).is_some())
}

fn site(client: &Client, found: &Intercepted) -> Site {
    Site {
        client: client.clone(),
        namespace: found.namespace.clone(),
    }
}
