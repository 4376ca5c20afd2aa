//! One claim on one Service whose traffic comes to the relay.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::doubt::Doubt;
use super::engage::{Way, no_service};
use super::leave::Despite;
use super::object::{name, port_name, port_number, ports, uid, version};
use super::reach::Callers;
use super::site::Changed;
use super::watch::{Following, Relays, Seen, Thing};
use super::{Redirector, events, keys, leave, origin, swap};
use crate::intercept::claim::Claim;
use crate::intercept::redirect::{Change, Landing, Left, RedirectError, Redirected, Say, Wanted};

/// How long no replica may be ready before that is said: a node's restart of both takes less.
const DOWN_AFTER: Duration = Duration::from_secs(3);

/// A claim on a Service whose traffic comes to the relay.
pub struct Guard {
    pub(super) to: Redirector,
    pub(super) service: String,
    uid: String,
    pub(super) origin: String,
    claim: Claim,
    pub(super) landings: Vec<Landing>,
    following: Arc<Following>,
    /// The origin as it was last seen, to make it anew.
    last: Arc<Value>,
    /// The version of the Service that was reported as set back.
    drifted: Option<String>,
    /// Whether the relay was reported as down or gone.
    down: bool,
    left: bool,
    /// As it was asked for.
    pub(super) port: u16,
    pub(super) force: bool,
    say: Say,
    /// What is to hold of the way from callers to the relay.
    pub(super) callers: Callers,
    /// Looks whether callers are cut off, while there is reason to.
    pub(super) doubt: Option<Doubt>,
    /// The policies that were looked at last.
    pub(super) policies: Arc<Vec<String>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            service,
            origin,
            claim,
            ..
        } = self;
        write!(f, "Guard({service} by {origin} for {})", claim.id)
    }
}

impl Guard {
    pub(super) fn new(
        to: Redirector,
        live: &Value,
        origin: &Value,
        wanted: Wanted,
        callers: Callers,
        following: Arc<Following>,
    ) -> Self {
        Self {
            to,
            service: name(live).to_owned(),
            uid: uid(live).to_owned(),
            origin: name(origin).to_owned(),
            claim: wanted.claim,
            landings: landings(live, origin),
            following,
            last: Arc::new(origin.clone()),
            drifted: None,
            down: false,
            left: false,
            port: wanted.port,
            force: wanted.force,
            say: wanted.say,
            callers,
            doubt: None,
            policies: Arc::default(),
        }
    }

    /// The Service that leads to the original pods.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What the news mean, if anything; `None` for those that are known. Asks again before it says
    /// so: a watch may tell of what was before this intercept.
    async fn judge(&mut self, seen: &Seen) -> Option<Change> {
        if let Thing::There(origin) = &seen.origin {
            self.last = origin.clone();
        }
        if let Some(change) = self.of_relays(&seen.relays).await {
            return Some(change);
        }
        let suspicious = match (&seen.service, &seen.origin) {
            (Thing::Unknown, _) | (_, Thing::Unknown) => false,
            (Thing::There(live), Thing::There(origin)) => {
                uid(live) != self.uid
                    || (swap::astray(live, origin).is_some()
                        && self.drifted.as_deref() != Some(version(live)))
                    || !self.is_claimed(origin)
            }
            (Thing::Gone, _) | (_, Thing::Gone) => true,
        };
        if !suspicious {
            return None;
        }
        let site = self.to.site();
        let both = tokio::try_join!(site.service(&self.service), site.service(&self.origin));
        let (live, origin) = match both {
            Ok(both) => both,
            Err(RedirectError::Denied { .. }) => return Some(self.without_rights().await),
            // The next news, or the next look, says it again.
            Err(_) => return None,
        };
        let Some(live) = live.filter(|live| uid(live) == self.uid) else {
            return Some(match self.namespace_ends().await {
                true => Change::NamespaceGone,
                false => Change::ServiceGone,
            });
        };
        let Some(origin) = origin else {
            let lost = "orphaned".to_owned();
            if self.drifted.as_ref() == Some(&lost) {
                return None;
            }
            self.drifted = Some(lost);
            if self.namespace_ends().await {
                return Some(Change::NamespaceGone);
            }
            return Some(Change::Drifted(format!(
                "Service {} was deleted",
                self.origin
            )));
        };
        if !self.is_claimed(&origin) {
            return Some(Change::ClaimGone(origin::ended_by(&origin, &self.claim.id)));
        }
        let why = swap::astray(&live, &origin)?;
        if matches!(seen.relays, Relays::None(_)) || self.doubt.is_some() {
            // It leads to its pods, which is best until a replica is ready, or it is known that
            // callers get through; that is news again.
            return None;
        }
        let news = self.drifted.as_deref() != Some(version(&live));
        self.drifted = Some(version(&live).to_owned());
        news.then_some(Change::Drifted(why))
    }

    async fn of_relays(&mut self, relays: &Relays) -> Option<Change> {
        match relays {
            Relays::Ready if self.down => {
                self.down = false;
                Some(Change::RelayBack)
            }
            Relays::None(since) if !self.down && since.elapsed() >= DOWN_AFTER => {
                self.down = true;
                if self.namespace_ends().await {
                    return Some(Change::NamespaceGone);
                }
                match self.to.site().deployment().await {
                    Ok(None) => Some(Change::RelayGone),
                    Err(RedirectError::Denied { .. }) => Some(self.without_rights().await),
                    _ => Some(Change::RelayDown),
                }
            }
            _ => None,
        }
    }

    async fn without_rights(&self) -> Change {
        match self.namespace_ends().await {
            true => Change::NamespaceGone,
            false => Change::RightsGone,
        }
    }

    /// Whether the namespace is being deleted, as far as that may be seen.
    async fn namespace_ends(&self) -> bool {
        match self.to.site().namespace().await {
            Ok(Some(namespace)) => namespace["metadata"]["deletionTimestamp"].is_string(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    async fn take_back(&mut self, despite: Despite) -> Result<Left, RedirectError> {
        let site = self.to.site();
        let id = &self.claim.id;
        let taken = leave::take_off(site, &self.origin, None, |claim| claim.id == *id).await?;
        let Some(taken) = taken else {
            return Ok(Left::Nothing);
        };
        if !self.left && !taken.gone.is_empty() {
            self.left = true;
            events::ended(site, (&self.service, &self.uid), &self.claim, None).await;
        }
        match (taken.left, despite) {
            (others @ 1.., Despite::Nobody) => Ok(Left::Others(others)),
            _ => leave::give_back(site, &self.service, name(&taken.origin), despite).await,
        }
    }

    fn is_claimed(&self, origin: &Value) -> bool {
        // What cannot be read is nobody's proof.
        origin::claims(origin).map_or(true, |claims| claims.iter().any(|c| c.id == self.claim.id))
    }

    /// Makes the origin again that somebody deleted, as it was last seen.
    async fn remade(&self) -> Result<(), RedirectError> {
        let site = self.to.site();
        let mut object = Value::clone(&self.last);
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|key, _| {
                [
                    "name",
                    "namespace",
                    "labels",
                    "annotations",
                    "ownerReferences",
                ]
                .contains(&key.as_str())
            });
        }
        object["apiVersion"] = "v1".into();
        object["kind"] = "Service".into();
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        // At the address that it had, which the relay's pods know, unless somebody else has it now.
        let made = match site.create(&object).await {
            Err(RedirectError::Cluster(_)) => {
                if let Some(spec) = object["spec"].as_object_mut() {
                    spec.retain(|key, _| !["clusterIP", "clusterIPs"].contains(&key.as_str()));
                }
                site.create(&object).await?
            }
            made => made?,
        };
        match made {
            Changed::Done(_) | Changed::Stale => Ok(()),
            Changed::Gone => Err(no_service(site, &self.service)),
            Changed::Unsure(error) => Err(error),
        }
    }
}

/// Where the Service's ports arrive.
fn landings(live: &Value, origin: &Value) -> Vec<Landing> {
    let all = origin::landings(origin);
    let of = |port: &Value| {
        let (name, landing) = all.iter().find(|(name, _)| name == port_name(port))?;
        Some(Landing {
            name: name.clone(),
            port: port_number(port),
            protocol: port["appProtocol"].as_str().map(str::to_owned),
            landing: *landing,
        })
    };
    ports(&live["spec"]).filter_map(of).collect()
}

impl Redirected for Guard {
    fn claim(&self) -> &Claim {
        &self.claim
    }

    fn landings(&self) -> &[Landing] {
        &self.landings
    }

    async fn changed(&mut self) -> Change {
        let mut news = self.following.news();
        loop {
            let seen = news.borrow_and_update().clone();
            self.doubt_policies(&seen);
            if let Some(change) = self.judge(&seen).await {
                return change;
            }
            let down = match (&seen.relays, self.down) {
                (Relays::None(since), false) => Some(*since + DOWN_AFTER),
                _ => None,
            };
            let later = async {
                match down {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let doubt = &mut self.doubt;
            let doubt = async {
                match doubt {
                    Some(doubt) => doubt.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = news.changed() => if changed.is_err() {
                    // The session ends; whoever waits here does too.
                    std::future::pending::<()>().await;
                },
                cut = doubt => {
                    self.doubt = None;
                    if let Ok(Some(why)) = cut {
                        return Change::CutOff(why);
                    }
                }
                () = later => {}
            }
        }
    }

    async fn again(&mut self) -> Result<(), RedirectError> {
        if self.to.site().service(&self.origin).await?.is_none() {
            self.remade().await?;
        }
        // Much may have changed since: callers are best where they are unless they get through.
        let relays = keys::relays(self.to.site()).await?;
        let mut way = Way {
            to: &self.to,
            service: &self.service,
            uid: &self.uid,
            origin: &self.origin,
            relays: Some(&relays),
            renew: false,
            port: self.port,
            callers: self.callers,
            say: &self.say,
            told_to_end: None,
        };
        let (live, origin) = way.bring().await?;
        self.landings = landings(&live, &origin);
        self.last = Arc::new(origin);
        self.drifted = None;
        Ok(())
    }

    async fn restore(&mut self) -> Result<Left, RedirectError> {
        self.take_back(Despite::Nobody).await
    }

    async fn release(&mut self) -> Result<Left, RedirectError> {
        self.take_back(Despite::Others).await
    }
}
