//! An intercept that is live: what others do to it, and how it ends.

use std::time::Duration;

use tokio::time::Instant;

use super::Asked;
use super::begin::{Site, down};
use crate::intercept::reverse::Standing;
use crate::intercept::{Change, Left, RedirectError, Redirected as _};
use crate::k8s::redirect::Guard;

/// How long after it was brought back a Service that is set back again is left alone: whoever does
/// that will go on.
const SET_BACK_AGAIN: Duration = Duration::from_secs(60);

/// One intercept.
pub(super) struct Live {
    pub(super) asked: Asked,
    pub(super) standing: Standing,
    guard: Guard,
    brought_back: Option<Instant>,
    /// Whether the app has never answered yet, and the original pods do meanwhile.
    pub(super) starting: bool,
}

/// What becomes of an intercept.
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// Its owner ended it from elsewhere.
    Left,
    /// It is over, because of this, and its requests go to the original pods.
    Over(String),
    /// It begins again once the relay is back.
    Waits(String),
}

impl Live {
    pub(super) fn new(asked: Asked, standing: Standing, guard: Guard, starting: bool) -> Self {
        Self {
            asked,
            standing,
            guard,
            brought_back: None,
            starting,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.standing.claim.id
    }

    pub(super) fn service(&self) -> &str {
        &self.asked.service.service
    }

    /// Looks whether the app answers for the first time; from then on it is to answer by itself.
    pub(super) async fn look(&mut self, site: &Site) {
        if !self.starting || down(&self.asked.app).await.is_some() {
            return;
        }
        let mut standing = self.standing.clone();
        standing.claim.fallback = site.terms.fallback;
        let by = Some(site.owner.clone());
        match site.reverse.attach(standing.clone(), by).await {
            Ok(()) => (self.starting, self.standing) = (false, standing),
            // It stands as it was, and the next look tries again.
            Err(why) => tracing::debug!(why, "the original pods go on to answer for the app"),
        }
    }

    /// The relay says that it does not reach the original pods of what arrives on `landing`.
    pub(super) fn doubt(&mut self, landing: u16) {
        self.guard.doubt(landing);
    }

    /// Waits for the next thing that somebody else did. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) -> Change {
        self.guard.changed().await
    }

    /// Does what is to be done about it.
    pub(super) async fn meet(&mut self, site: &Site, change: Change) -> Fate {
        let service = self.service().to_owned();
        match change {
            Change::Drifted(how) => self.drifted(site, &how).await,
            Change::ClaimGone(by) => {
                self.lost(site).await;
                match by {
                    Some(by) if by == site.owner => Fate::Left,
                    Some(by) => Fate::Over(format!("{by} ended it")),
                    None => Fate::Over("somebody ended it".to_owned()),
                }
            }
            Change::ServiceGone => {
                self.lost(site).await;
                Fate::Over(format!("Service {service} was deleted"))
            }
            Change::NamespaceGone => {
                self.lost(site).await;
                Fate::Over("its namespace is being deleted".to_owned())
            }
            Change::RightsGone => {
                self.let_go(site).await;
                Fate::Over("you may not read it any more, and so not keep it".to_owned())
            }
            Change::CutOff(why) => {
                let released = self.release(site).await;
                Fate::Over(because(released, &why))
            }
            Change::RelayGone => {
                let released = self.release(site).await;
                Fate::Over(because(released, "the relay was uninstalled"))
            }
            Change::RelayDown => {
                let which = self.release(site).await.unwrap_or_else(|kept| kept);
                Fate::Waits(format!(
                    "no replica of the relay is ready; {which}, and your requests come again once \
                     one is"
                ))
            }
            Change::RelayBack => Fate::Lives,
        }
    }

    async fn drifted(&mut self, site: &Site, how: &str) -> Fate {
        let service = self.service().to_owned();
        let again = self.brought_back.replace(Instant::now());
        if again.is_some_and(|at| at.elapsed() < SET_BACK_AGAIN) {
            self.give_back_quickly(site).await;
            return Fate::Over(format!(
                "Service {service} was set back twice ({how}), and whoever does that would go on; \
                 have them pause (helm, Argo CD, Flux, a pipeline) and intercept it again"
            ));
        }
        site.note(format!(
            "Service {service} was set back ({how}); bringing it again"
        ));
        match self.guard.again().await {
            Ok(()) => self.moved(site).await,
            Err(error) => {
                self.give_back_quickly(site).await;
                Fate::Over(format!(
                    "it was set back ({how}) and cannot be kept: {error}"
                ))
            }
        }
    }

    /// The port may arrive elsewhere now.
    async fn moved(&mut self, site: &Site) -> Fate {
        let landings = self.guard.landings();
        let port = landings
            .iter()
            .find(|landing| Some(landing.port) == self.port());
        let Some(landing) = port.map(|port| port.landing) else {
            self.give_back_quickly(site).await;
            return Fate::Over("the Service has no such port any more".to_owned());
        };
        if landing != self.standing.port {
            self.let_go(site).await;
            self.standing.port = landing;
            let by = Some(site.owner.clone());
            if let Err(why) = site.reverse.attach(self.standing.clone(), by).await {
                self.give_back_quickly(site).await;
                return Fate::Over(format!("the relay does not take it any more: {why}"));
            }
        }
        site.note(format!(
            "Service {} comes to the relay again",
            self.service()
        ));
        Fate::Lives
    }

    /// The Service's port.
    fn port(&self) -> Option<u16> {
        let (port, _) = crate::intercept::record::recorded(self.guard.claim()).ok()?;
        Some(port)
    }

    /// Registers the claim again at a replica that refused it, where it is still on record; else
    /// gives the reason why it is over.
    pub(super) async fn insist(&mut self, site: &Site, reason: &str) -> Fate {
        let Some(found) = site.others(self.service()).await else {
            // Who cannot ask now is told by the watch.
            return Fate::Lives;
        };
        if !found.claims.iter().any(|claim| claim.id == self.id()) {
            self.lost(site).await;
            return Fate::Over(reason.to_owned());
        }
        let by = Some(site.owner.clone());
        match site.reverse.attach(self.standing.clone(), by).await {
            Ok(()) => Fate::Lives,
            Err(why) => {
                self.give_back_quickly(site).await;
                Fate::Over(why)
            }
        }
    }

    /// Its requests go to the original pods, and its claim is none any more.
    async fn lost(&self, site: &Site) {
        self.let_go(site).await;
        self.ended(site, &Left::Nothing);
    }

    /// Its requests go to the original pods.
    async fn let_go(&self, site: &Site) {
        site.reverse.detach(self.standing.port, self.id()).await;
    }

    /// Its requests go to the original pods, and the Service to them as well where no claim of
    /// others is on it. What late callers need stays.
    pub(super) async fn give_back_quickly(&mut self, site: &Site) -> Option<Left> {
        site.step(format!("giving Service {} back", self.service()));
        self.let_go(site).await;
        let given_back = self.guard.restore().await;
        match &given_back {
            Ok(left) => self.ended(site, left),
            Err(error) => {
                site.note(self.kept(error));
                self.ended(site, &Left::Nothing);
            }
        }
        given_back.ok()
    }

    /// Its claim is off, or that it is not was said.
    fn ended(&self, site: &Site, left: &Left) {
        site.on_record.end(self.service(), self.id(), left);
    }

    fn kept(&self, error: &RedirectError) -> String {
        let service = self.service();
        format!("Service {service} was not given back: {error}; `kdev restore` does it")
    }

    /// The Service goes to the original pods, whoever else has a claim on it, because there is no relay
    /// that could serve anybody. Says that it does, or that it does not.
    async fn release(&mut self, site: &Site) -> Result<String, String> {
        // No replica that is gone has to be waited for before callers are served again.
        let released = self.guard.release().await;
        self.let_go(site).await;
        self.ended(site, released.as_ref().unwrap_or(&Left::Nothing));
        match released {
            Ok(_) => Ok(format!("Service {} has its own pods again", self.service())),
            Err(error) => Err(self.kept(&error)),
        }
    }

    /// The same, and has callers who are still connected to the relay move.
    pub(super) async fn end(mut self, site: &Site) {
        match self.give_back_quickly(site).await {
            Some(Left::Last) => {}
            Some(Left::Others(count)) => return site.note(go_on(self.service(), count)),
            Some(Left::Nothing) | None => return,
        }
        for landing in self.guard.landings() {
            site.reverse.retire(landing.landing).await;
        }
        let service = self.service();
        site.note(format!("Service {service} has its own pods again"));
    }
}

/// What became of the Service, and why. What mends it comes last, where it is shown as that.
fn because(released: Result<String, String>, why: &str) -> String {
    match released {
        Ok(back) => format!("{back}, because {why}"),
        Err(kept) => format!("{why}; {kept}"),
    }
}

/// That the Service is not given back, because of so many claims of others.
fn go_on(service: &str, count: usize) -> String {
    let (intercepts, go) = match count {
        1 => ("intercept", "goes"),
        _ => ("intercepts", "go"),
    };
    format!("{count} other {intercepts} of {service} {go} on; `kdev list` shows whose")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_it_comes_last() {
        let back = because(
            Ok("it is back".to_owned()),
            "a policy is in the way; allow it",
        );
        assert_eq!(back, "it is back, because a policy is in the way; allow it");
        let kept = because(Err("it is not; restore it".to_owned()), "a policy");
        assert_eq!(kept, "a policy; it is not; restore it");
    }

    #[test]
    fn those_who_go_on_are_counted() {
        assert!(go_on("orders", 1).starts_with("1 other intercept of orders goes on; "));
        assert!(go_on("orders", 2).starts_with("2 other intercepts of orders go on; "));
    }
}
