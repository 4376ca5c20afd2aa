//! How an intercept begins: look, put the claim on record, have the relay try, change the Service.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::block::{self, NoneFree, REST};
use super::guard::Guard;
use super::marks::ENDED;
use super::object::{name, uid};
use super::policies::Known;
use super::preflight::Force;
use super::reach::{Callers, Check};
use super::site::{Changed, Site, Tries};
use super::{Redirector, events, keys, leave, origin, policies, preflight, rights, swap};
use crate::intercept::claim::{Claim, Verdict};
use crate::intercept::redirect::{Left, RedirectError, Say, Told, Wanted};
use crate::k8s::install::shape::Shape;

/// What is said where policies could not be looked at.
const UNREAD: &str = "network policies that you may not read could keep callers in their namespaces \
    from the relay: see that those get answers";

/// Brings a Service to the relay for one more claim.
pub(super) async fn engage(to: &Redirector, wanted: Wanted) -> Result<Guard, RedirectError> {
    let site = to.site();
    let step = |what: &str| (wanted.say)(Told::Step(what.to_owned()));
    step("looking at the Service and the relay");
    let (_, ready, namespace) =
        tokio::try_join!(rights::permitted(site), keys::relays(site), async {
            Ok(rights::namespace(site).await)
        },)?;
    let (live, origins) = look(site, &wanted.service).await?;
    let (known, plain) = preflight::plain_of(&live, &origins);
    let forced = preflight::check(
        &live,
        &plain,
        known.is_some(),
        &ready,
        namespace.as_ref(),
        wanted.force,
    )?;
    for reason in forced {
        (wanted.say)(Told::Note(format!("by --force, although {reason}")));
    }
    if let Some(origin) = known {
        let _ = admitted(site, origin, &wanted)?;
    }
    step("reading the network policies");
    let read = policies::known(site, &live, &plain, &ready, namespace.as_ref()).await;
    let there = known.is_some_and(|origin| swap::astray(&live, origin).is_none());
    let callers = may_call(&wanted, read.as_ref(), there)?;
    // Nothing shows later what callers meet there: the relay does not see who never comes.
    if !there && !read.as_ref().is_some_and(Known::is_all) {
        (wanted.say)(Told::Note(UNREAD.to_owned()));
    }
    let ready = keys::carried(site, &plain, ready, &wanted.say).await?;
    let (service, id) = (&wanted.service, &wanted.claim.id);
    step("putting the intercept on record");
    wanted.on_record.begin(service, id);
    let mut unsure = false;
    let joined = join(to, &wanted, &mut unsure).await.inspect_err(|_| {
        if !unsure {
            wanted.on_record.end(service, id, &Left::Nothing);
        }
    })?;
    let result = bring(to, &wanted, &joined, &ready, callers).await;
    let (live, origin) = match result {
        Ok(both) => both,
        Err(error) => {
            // What was not done needs no grace: the next `kdev restore` finds what this cannot undo.
            match leave::undo(site, service, &joined.origin, id).await {
                Ok(()) => wanted.on_record.end(service, id, &Left::Nothing),
                Err(error) => tracing::warn!("the claim on Service {service} stays: {error}"),
            }
            return Err(error);
        }
    };
    events::started(site, &live, &wanted.claim).await;
    let following = to.follow(&wanted.service, name(&origin));
    Ok(Guard::new(
        to.clone(),
        &live,
        &origin,
        wanted,
        callers,
        following,
    ))
}

/// Refuses where policies that can be read would let callers reach the Service's pods and not the
/// relay, unless it is forced, or callers go `there` already. Says what is to hold of their way.
fn may_call(wanted: &Wanted, known: Option<&Known>, there: bool) -> Result<Callers, RedirectError> {
    let refusal = known.and_then(Known::refusal).filter(|_| !there);
    match (refusal, wanted.force) {
        (Some((reason, fix)), false) => Err(RedirectError::Unfit {
            service: wanted.service.clone(),
            reason,
            fix: Force::Risky.beside(&fix),
        }),
        (Some((reason, _)), true) => {
            let cost = Force::Risky.cost();
            (wanted.say)(Told::Note(format!("by --force, although {reason}{cost}")));
            Ok(Callers::MayFail)
        }
        (None, true) => Ok(Callers::MayFail),
        (None, false) => Ok(known.map_or(Callers::MustPass, Known::callers)),
    }
}

/// The Service and all origins of its namespace.
async fn look(site: &Site, service: &str) -> Result<(Value, Vec<Value>), RedirectError> {
    let (live, origins) = tokio::try_join!(site.service(service), site.origins())?;
    let Some(live) = live else {
        return Err(site.missing(service).await);
    };
    Ok((live, origins))
}

pub(super) fn no_service(site: &Site, service: &str) -> RedirectError {
    RedirectError::Missing {
        what: format!("Service {service} in namespace {}", site.namespace),
        fix: String::new(),
    }
}

/// A claim on record.
struct Joined {
    /// The UID of the Service.
    uid: String,
    /// The name of its origin.
    origin: String,
    /// Whether the Service was being given back, which somebody may still be about to do.
    revived: bool,
}

/// Puts the claim on record, in the origin that there is or in a new one. Where it fails, `unsure`
/// says whether the claim may be there all the same.
async fn join(
    to: &Redirector,
    wanted: &Wanted,
    unsure: &mut bool,
) -> Result<Joined, RedirectError> {
    let site = to.site();
    let mut tries = Tries::new();
    let (mut taken, mut revived) = (Vec::new(), false);
    loop {
        let (live, origins) = look(site, &wanted.service).await?;
        let done = match origin::of(&origins, uid(&live)) {
            Some(origin) => {
                let (claims, ousted) = admitted(site, origin, wanted)?;
                revived |= origin::given_back(origin).is_some();
                let mut patch = origin::recorded(origin, &claims, block::now());
                if !ousted.is_empty() {
                    patch["metadata"]["annotations"][ENDED] =
                        json!(origin::ended(origin, &ousted, &wanted.claim.owner));
                }
                // One that another session made has what was asked for then.
                let mut shape = Shape::default();
                to.inner.asked.over(&mut shape);
                shape.mark(&mut patch["metadata"]);
                site.patch(name(origin), &patch).await?
            }
            None => match create(to, &live, &origins, &mut taken, wanted).await? {
                Some(changed) => changed,
                None => continue,
            },
        };
        match done {
            Changed::Done(origin) => {
                // Another kdev may have taken another block at the same moment: one is left.
                let origins = site.origins().await?;
                let first = origin::of(&origins, uid(&live));
                if first.is_some_and(|first| name(first) != name(&origin)) {
                    site.delete(&origin).await?;
                    continue;
                }
                return Ok(Joined {
                    uid: uid(&live).to_owned(),
                    origin: name(&origin).to_owned(),
                    revived,
                });
            }
            Changed::Unsure(error) => {
                *unsure = true;
                tries.after(error).await?;
            }
            Changed::Stale | Changed::Gone => {
                tries
                    .next(&format!("what is on record for Service {}", wanted.service))
                    .await?;
            }
        }
    }
}

/// The claims of `origin` with the wanted one, and the ids of those that go for it.
fn admitted(
    site: &Site,
    origin: &Value,
    wanted: &Wanted,
) -> Result<(Vec<Claim>, Vec<String>), RedirectError> {
    let mut ousted = Vec::new();
    let mut claims = origin::claims(origin).map_err(RedirectError::Cluster)?;
    // One that was put on record by a request whose answer got lost.
    claims.retain(|claim| claim.id != wanted.claim.id);
    match (wanted.judge)(&claims, &wanted.claim) {
        Verdict::Admitted => {}
        Verdict::InPlaceOf(ids) => {
            claims.retain(|claim| !ids.contains(&claim.id));
            ousted = ids;
        }
        Verdict::Conflict(why) => return Err(RedirectError::Conflict(why)),
    }
    claims.push(wanted.claim.clone());
    match origin::too_many(&claims) {
        None => Ok((claims, ousted)),
        Some(what) => Err(RedirectError::Full {
            what: format!(
                "Service {} in namespace {} would have {what}",
                wanted.service, site.namespace
            ),
            fix: "`kdev list` shows them, `kdev leave` takes one off".to_owned(),
        }),
    }
}

/// Creates an origin in a block that is free; none where that turned out to be taken.
async fn create(
    to: &Redirector,
    live: &Value,
    origins: &[Value],
    taken: &mut Vec<u16>,
    wanted: &Wanted,
) -> Result<Option<Changed>, RedirectError> {
    let site = to.site();
    let Some(deployment) = site.deployment().await? else {
        return Err(RedirectError::Missing {
            what: format!("the relay's Deployment in namespace {}", site.namespace),
            fix: format!("`kdev install -n {}` makes one", site.namespace),
        });
    };
    let record = site.ports().await?;
    let choice = block::choose(uid(live), origins, &record, taken, block::now());
    let choice = choice.map_err(|NoneFree(soonest)| RedirectError::Full {
        what: format!(
            "all {} places for intercepted Services in namespace {} are taken",
            block::BLOCKS,
            site.namespace
        ),
        fix: match soonest {
            Some(seconds) => format!(
                "one was given back less than {} min ago and is free again in {} min",
                REST.as_secs() / 60,
                seconds.div_ceil(60),
            ),
            None => "`kdev list` shows who has them".to_owned(),
        },
    })?;
    // Before the Service: what vanishes with its owner has left its mark then.
    site.begin_ports(&choice.notes, &deployment).await?;
    // What policies asked of the relay's objects they ask of this Service, too.
    let mut shape = Shape::of(&deployment);
    to.inner.asked.over(&mut shape);
    let claim = std::slice::from_ref(&wanted.claim);
    let object = origin::new(live, choice.first, claim, &shape);
    if let Some(what) = origin::too_many(std::slice::from_ref(&wanted.claim)) {
        return Err(RedirectError::Full {
            what,
            fix: "fewer or shorter conditions make it smaller".to_owned(),
        });
    }
    match site.create(&object).await? {
        Changed::Stale => {
            // It may be this Service's, by a kdev that was faster.
            let there = site.service(name(&object)).await?;
            if there.is_some_and(|there| origin::owner(&there).1 != uid(live)) {
                taken.push(choice.first);
            }
            Ok(None)
        }
        // Without the namespace nothing can be made.
        Changed::Gone => Err(no_service(site, &wanted.service)),
        changed => Ok(Some(changed)),
    }
}

/// Changes the Service, once the relay has shown that it reaches the original pods.
async fn bring(
    to: &Redirector,
    wanted: &Wanted,
    joined: &Joined,
    ready: &[Value],
    callers: Callers,
) -> Result<(Value, Value), RedirectError> {
    let mut way = Way {
        to,
        service: &wanted.service,
        uid: &joined.uid,
        origin: &joined.origin,
        relays: Some(ready),
        renew: joined.revived,
        port: wanted.port,
        callers,
        say: &wanted.say,
        told_to_end: Some(&wanted.told_to_end),
    };
    way.bring().await
}

/// What it takes to change a Service.
pub(super) struct Way<'a> {
    pub(super) to: &'a Redirector,
    pub(super) service: &'a str,
    pub(super) uid: &'a str,
    pub(super) origin: &'a str,
    /// Who has to show first that it reaches the original pods; nobody where that is known.
    pub(super) relays: Option<&'a [Value]>,
    /// Whether it is changed even if it is as it should be: whoever is about to give it back notices
    /// then.
    pub(super) renew: bool,
    /// The port whose requests are wanted.
    pub(super) port: u16,
    pub(super) callers: Callers,
    pub(super) say: &'a Say,
    /// Whether it is still wanted; it is where nobody can say.
    pub(super) told_to_end: Option<&'a CancellationToken>,
}

impl Way<'_> {
    /// Makes the origin the backup of the Service, and the Service lead to the relay. Gives both as
    /// they are then.
    pub(super) async fn bring(&mut self) -> Result<(Value, Value), RedirectError> {
        let (site, mut tries) = (self.to.site(), Tries::new());
        loop {
            let (live, origin) =
                tokio::try_join!(site.service(self.service), site.service(self.origin))?;
            let live = live.filter(|live| uid(live) == self.uid);
            let live = live.ok_or_else(|| no_service(site, self.service))?;
            let origin = origin.ok_or_else(|| no_service(site, self.origin))?;
            let away = swap::astray(&live, &origin).is_some();
            if !away && !self.renew {
                return Ok((live, origin));
            }
            let plain = swap::plain(&live, &origin);
            // It may be another than it was when it was looked at.
            preflight::check(&live, &plain, true, &[], None, true)?;
            let changed = match origin::renewed(&origin, &live, &plain) {
                Some(patch) if away => Some(site.patch(self.origin, &patch).await?),
                _ => None,
            };
            let origin = match changed {
                None => origin,
                Some(Changed::Done(origin)) => origin,
                Some(Changed::Unsure(error)) => {
                    tries.after(error).await?;
                    continue;
                }
                Some(Changed::Stale | Changed::Gone) => {
                    tries.next(&format!("Service {}", self.origin)).await?;
                    continue;
                }
            };
            if away && let Some(relays) = self.relays {
                let check = Check {
                    site,
                    ways: self.to.inner.ways.as_ref(),
                    relays,
                    port: self.port,
                    callers: self.callers,
                    say: self.say,
                };
                // It only looks, so it can be broken off anywhere.
                match self.told_to_end {
                    None => check.pass(&live, &origin).await?,
                    Some(told) => told
                        .run_until_cancelled(check.pass(&live, &origin))
                        .await
                        .unwrap_or(Err(RedirectError::ToldToEnd))?,
                }
                // Once is enough, however often others change the Service meanwhile.
                self.relays = None;
            }
            if self
                .told_to_end
                .is_some_and(CancellationToken::is_cancelled)
            {
                return Err(RedirectError::ToldToEnd);
            }
            (self.say)(Told::Step(format!("changing Service {}", self.service)));
            let mark = format!("{:08x}", rand::random::<u32>());
            match site
                .patch(self.service, &swap::there(&live, &origin, &mark))
                .await?
            {
                Changed::Done(live) => return Ok((live, origin)),
                Changed::Unsure(error) => tries.after(error).await?,
                Changed::Stale | Changed::Gone => {
                    tries.next(&format!("Service {}", self.service)).await?;
                }
            }
        }
    }
}
