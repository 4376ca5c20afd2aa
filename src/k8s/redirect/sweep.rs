//! Putting back what others left behind: claims without anybody, Services that nobody gave back,
//! origins that nobody needs.

use std::time::Duration;

use tokio::time::sleep;

use super::guard::IDLE;
use super::leave::Despite;
use super::list::{Intercepted, Scope, list};
use super::site::Site;
use super::{block, events, leave};
use crate::intercept::claim::Claim;
use crate::intercept::redirect::{Left, RedirectError};
use crate::k8s::Client;

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
}

/// Looks at the Services in `scope` that are `meant`, takes the claims off that `ends` says, in the name of `by`, and gives each Service
/// back that has none left; calls `tell` after each. What leads the last callers to the original
/// pods goes once it had its time, unless `quick`: then the next call sees to it.
///
/// # Errors
/// When the API server cannot be asked or refuses. What was done stays, and the same again goes on
/// from there.
pub async fn put_back(
    client: &Client,
    scope: &Scope,
    by: &str,
    quick: bool,
    meant: &(dyn Fn(&Intercepted) -> bool + Sync),
    ends: &(dyn Fn(&Intercepted, &Claim) -> bool + Sync),
    tell: &mut (dyn FnMut(&Put) + Send),
) -> Result<Vec<Put>, RedirectError> {
    let all = list(client, scope).await?;
    let (mut done, mut idle) = (Vec::new(), Vec::new());
    for found in all.into_iter().filter(|found| meant(found)) {
        if let Some(why) = &found.unreadable {
            tracing::warn!(service = found.service, "{why}");
            continue;
        }
        let site = Site {
            client: client.clone(),
            namespace: found.namespace.clone(),
        };
        let taken = leave::take_off(&site, &found.origin, Some(by), |claim| ends(&found, claim));
        let Some(taken) = taken.await? else { continue };
        for claim in &taken.gone {
            let uid = super::origin::owner(&taken.origin).1;
            events::ended(&site, (&found.service, uid), claim, Some(by)).await;
        }
        let left = match taken.left {
            0 => leave::give_back(&site, &found.service, &found.origin, Despite::Nobody).await?,
            others => Left::Others(others),
        };
        if left == Left::Last {
            let since = super::origin::given_back(&taken.origin).unwrap_or_default();
            idle.push((site, found.origin.clone(), since));
        }
        let put = Put {
            namespace: found.namespace,
            service: found.service,
            ended: taken.gone,
            left,
        };
        tell(&put);
        done.push(put);
    }
    for (site, origin, since) in idle {
        let age = block::now().saturating_sub(since);
        let rest = IDLE.as_secs().saturating_sub(age);
        if rest > 0 {
            if quick {
                continue;
            }
            sleep(Duration::from_secs(rest)).await;
        }
        leave::remove(&site, &origin).await?;
    }
    Ok(done)
}
