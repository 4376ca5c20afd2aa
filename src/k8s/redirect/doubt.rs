//! Whether callers are cut off by an intercept that is live: looked at beside all else, when there is
//! reason to.

use tokio::sync::oneshot;

use super::guard::Guard;
use super::reach::Callers;
use super::watch::Seen;
use super::{cut, keys, policies, rights, swap};

/// A look whether callers are cut off, which gives the reason if they are.
pub(super) type Doubt = oneshot::Receiver<Option<String>>;

impl Guard {
    /// Whether connections of the relay's own pods show what callers get.
    #[must_use]
    pub fn relays_are_like_callers(&self) -> bool {
        self.callers == Callers::MustPass
    }

    /// Whether the user goes on where callers may get no answer.
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        self.callers == Callers::MayFail
    }

    /// The relay says that it does not reach the original pods of `landing`: `changed`
    /// finds out whether callers are cut off.
    pub fn doubt(&mut self, landing: u16) {
        // It was seen to work for this port alone.
        let own = self
            .landings
            .iter()
            .any(|own| own.landing == landing && own.port == self.port);
        if !own || self.doubt.is_some() {
            return;
        }
        let (to, service, origin) = (self.to.clone(), self.service.clone(), self.origin.clone());
        self.look(async move {
            cut::why(
                to.site(),
                to.inner.ways.as_ref(),
                &service,
                &origin,
                landing,
            )
            .await
        });
    }

    /// Looks beside all else, until `changed` gets the reason.
    fn look(&mut self, why: impl Future<Output = Option<String>> + Send + 'static) {
        let (tell, doubt) = oneshot::channel();
        self.doubt = Some(doubt);
        self.to.inner.tasks.spawn(async move {
            // Whoever wanted to know may be gone.
            let _ = tell.send(why.await);
        });
    }

    /// Looks whether policies that changed cut callers off.
    pub(super) fn doubt_policies(&mut self, seen: &Seen) {
        if self.force || self.doubt.is_some() || seen.policies == self.policies {
            return;
        }
        self.policies = seen.policies.clone();
        let (to, service, origin) = (self.to.clone(), self.service.clone(), self.origin.clone());
        self.look(async move {
            let site = to.site();
            let both = tokio::try_join!(site.service(&service), site.service(&origin));
            let Ok((Some(live), Some(origin))) = both else {
                return None;
            };
            let (relays, namespace) = (
                keys::relays(site).await.ok()?,
                rights::namespace(site).await,
            );
            let plain = swap::plain(&live, &origin);
            let known = policies::known(site, &live, &plain, &relays, namespace.as_ref()).await?;
            let (reason, fix) = known.refusal()?;
            Some(format!("{reason}; {fix}"))
        });
    }
}
