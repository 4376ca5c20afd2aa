//! The intercepts that there are, whoever made them, and what they left: `kdev list`, `kdev leave`,
//! `kdev restore`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::intercept::{DEAD, Seen, owner, seen};
use super::late::{self, ByRelay, Helper};
use crate::addr::is_label;
use crate::config::Config;
use crate::intercept::record::{Life, recorded};
use crate::intercept::reverse::Reverse;
use crate::intercept::{Claim, Left};
use crate::k8s::portforward::{KnownForm, PortForward};
use crate::k8s::redirect::list::{Intercepted, Scope};
use crate::k8s::redirect::sweep::{Last, LateCallers, Put, Stays};
use crate::k8s::redirect::{Doing, list, sweep};
use crate::k8s::{Client, discovery, relay};
use crate::task::Tasks;

/// How long a relay may take until it can be asked.
const ASK: Duration = Duration::from_secs(5);
/// How long saying goodbye to it may take.
const GOODBYE: Duration = Duration::from_millis(300);

/// An intercepted Service, and what its relay knows of the claims.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is on record.
    pub on_record: Intercepted,
    /// What the relay knows, by claim; `None` where it could not be asked.
    pub seen: Option<BTreeMap<String, Seen>>,
}

impl Found {
    /// How the kdev of a claim is doing; `None` where that could not be asked.
    #[must_use]
    pub fn life(&self, claim: &Claim) -> Option<Life> {
        let seen = self.seen.as_ref()?.get(&claim.id);
        Some(match (seen, recorded(claim)) {
            (Some(seen), _) => seen.life,
            (None, Ok((_, claim))) => Life::unknown(&claim, now()),
            (None, Err(_)) => Life::Gone,
        })
    }
}

/// The intercepted Services of the session's namespace, or with `all` of all that the user may see;
/// with an `owner` only those of theirs.
///
/// # Errors
/// When the cluster cannot be asked, or the user may look nowhere.
pub async fn list(config: &Config, all: bool, owner: Option<&str>) -> anyhow::Result<Vec<Found>> {
    let place = Place::open(config).await?;
    let mut found = place.find(all).await?;
    let left: BTreeSet<String> = found
        .iter()
        .filter(|one| one.on_record.is_given_back())
        .map(|one| one.on_record.namespace.clone())
        .collect();
    for namespace in left {
        // What is not due yet is nobody's intercept either, and goes by itself.
        if let Some(stays) = late::clear_due(&place.client, &namespace, &place).await {
            let shown = |one: &Intercepted| {
                let mut stays = stays.iter().filter(|stays| stays.leads_to_relay);
                stays.any(|stays| stays.found.service == one.service)
            };
            found.retain(|one| {
                let one = &one.on_record;
                one.namespace != namespace || !one.is_given_back() || shown(one)
            });
        }
    }
    place.close().await;
    if let Some(owner) = owner {
        for one in &mut found {
            one.on_record.claims.retain(|claim| claim.owner == owner);
        }
        // What has no claim, or cannot be read, is nobody's.
        found.retain(|one| !one.on_record.claims.is_empty());
    }
    Ok(found)
}

/// Clears away what leads late callers of the namespace's Services to their pods, each once none has
/// come for a while: what the helper does.
///
/// # Errors
/// When the cluster cannot be asked or refuses.
pub async fn clear(config: &Config) -> anyhow::Result<()> {
    let place = Place::open(config).await?;
    let cleared = place
        .clear(&place.scope(false), &|_| true, late::HELPER)
        .await;
    place.close().await;
    cleared.map(drop)
}

/// What to end.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// A claim's id, or a Service.
    pub what: Option<String>,
    /// All in the namespace.
    pub all: bool,
    /// Also those of others, who are told.
    pub force: bool,
    /// Only those of this owner; whoever is not them needs `force`.
    pub owner: Option<String>,
}

/// Ends intercepts. Calls `tell` after each Service.
///
/// # Errors
/// When there is no such intercept, it is somebody else's, or the cluster refuses.
pub async fn leave(
    config: &Config,
    what: &Leave,
    tell: &mut (dyn FnMut(&Put) + Send),
) -> anyhow::Result<Vec<Put>> {
    let place = Place::open(config).await?;
    let by = owner(config);
    let found = place.find(false).await?;
    let chosen = choose(&found, what, &by, place.client.namespace());
    let ids: BTreeSet<String> = match chosen {
        Ok(ids) => ids,
        Err(why) => {
            place.close().await;
            bail!(why);
        }
    };
    // Its requests go to the original pods from here on, and its kdev learns who did it.
    place
        .oust(&found, &by, |claim| ids.contains(&claim.id))
        .await;
    // A kdev that is told may take its claim off before this does, and leaves the rest to this.
    let ended: BTreeMap<&str, Vec<Claim>> = found
        .iter()
        .map(|one| (one.on_record.service.as_str(), of(&one.on_record, &ids)))
        .filter(|(_, claims)| !claims.is_empty())
        .collect();
    let meant = |found: &Intercepted| ended.contains_key(found.service.as_str());
    let ends = |_: &Intercepted, claim: &Claim| ids.contains(&claim.id);
    let scope = place.scope(false);
    let mut done = Vec::new();
    let mut each = |put: &Put| {
        let put = Put {
            ended: ended.get(put.service.as_str()).cloned().unwrap_or_default(),
            ..put.clone()
        };
        tell(&put);
        done.push(put);
    };
    let put = sweep::put_back(&place.client, &scope, &by, &meant, &ends, &mut each).await;
    place.close().await;
    put?;
    if done.iter().any(|put| put.left == Left::Last) {
        Helper::new(config, &place.client).start().await;
    }
    Ok(done)
}

/// Those of a Service's claims that have one of these ids.
fn of(found: &Intercepted, ids: &BTreeSet<String>) -> Vec<Claim> {
    let claims = found.claims.iter();
    claims
        .filter(|claim| ids.contains(&claim.id))
        .cloned()
        .collect()
}

/// The ids of the claims that are meant.
fn choose(
    found: &[Found],
    what: &Leave,
    by: &str,
    namespace: &str,
) -> Result<BTreeSet<String>, String> {
    let all = found
        .iter()
        .flat_map(|one| one.on_record.claims.iter().map(move |claim| (one, claim)));
    let meant: Vec<(&Found, &Claim)> = match &what.what {
        Some(text) => all
            .filter(|(one, claim)| claim.id == *text || one.on_record.service == *text)
            .collect(),
        None => all.collect(),
    };
    let whose = what.owner.as_deref();
    let is_meant = |claim: &Claim| whose.is_none_or(|whose| whose == claim.owner);
    let meant: Vec<(&Found, &Claim)> = meant
        .into_iter()
        .filter(|(_, claim)| is_meant(claim))
        .collect();
    let is_own = |claim: &Claim| claim.owner == by;
    let ids: BTreeSet<String> = meant
        .iter()
        .filter(|(_, claim)| what.force || is_own(claim))
        .map(|(_, claim)| claim.id.clone())
        .collect();
    // Whoever has none has left all of theirs, whatever others have.
    if !ids.is_empty() || (what.all && what.what.is_none() && whose.is_none()) {
        return Ok(ids);
    }
    match (meant.first(), whose) {
        (Some((one, claim)), _) => Err(format!(
            "intercept {} of {} is {}'s, and you are {by}; `kdev leave {} --force` ends it and \
             tells them",
            claim.id, one.on_record.service, claim.owner, claim.id
        )),
        (None, whose) => {
            let what = what.what.as_deref().map(|what| format!(" {what}"));
            let whose = whose.map(|whose| format!(" of {whose}"));
            Err(format!(
                "there is no intercept{}{} in namespace {namespace}; `kdev list -A` shows all",
                what.unwrap_or_default(),
                whose.unwrap_or_default()
            ))
        }
    }
}

/// What to put back.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// Only this Service.
    pub service: Option<String>,
    /// In all namespaces that the user may see.
    pub all: bool,
    /// Also what somebody still claims.
    pub force: bool,
    /// Only those of this owner: others' stay, also by `force`.
    pub owner: Option<String>,
}

/// Gives Services back that nobody claims any more, and cleans up after them: claims that the relay
/// has forgotten are nobody's, and those of one's own kdevs that are gone without a word. Calls
/// `tell` after each.
///
/// # Errors
/// When the cluster cannot be asked or refuses, or there is no such Service. What was done stays.
pub async fn restore(
    config: &Config,
    what: &Restore,
    tell: &mut (dyn FnMut(&Put) + Send),
) -> anyhow::Result<Vec<Put>> {
    if let Some(service) = &what.service
        && !is_label(service)
    {
        bail!("{service:?} is not the name of a Service; `kdev list` shows what is intercepted");
    }
    let place = Place::open(config).await?;
    let by = owner(config);
    let is_theirs = |claim: &Claim| what.owner.as_ref().is_none_or(|own| *own == claim.owner);
    let meant = |found: &Intercepted| {
        what.service.as_ref().is_none_or(|s| *s == found.service)
            && (what.owner.is_none() || found.claims.iter().any(is_theirs))
    };
    let mut found = place.find(what.all).await?;
    if let Some(service) = &what.service
        && !found.iter().any(|one| one.on_record.service == *service)
        && let Err(missing) = list::exists(&place.client, service).await
    {
        place.close().await;
        return Err(missing.into());
    }
    let began = Instant::now();
    let is_own = |claim: &Claim| claim.owner == by;
    let unsure = |one: &Found| {
        let mut own = one.on_record.claims.iter().filter(|claim| is_own(claim));
        let settled = |claim: &Claim| match one.life(claim) {
            Some(Life::Live) => began.elapsed() >= DYING,
            Some(Life::Dead) => began.elapsed() >= DEAD,
            Some(Life::Gone | Life::Beginning | Life::Silent) | None => true,
        };
        meant(&one.on_record) && own.any(|claim| !settled(claim))
    };
    while !what.force && found.iter().any(unsure) {
        sleep(DYING_LOOK).await;
        found = place.find(what.all).await?;
    }
    if what.force {
        let meant: Vec<Found> = found
            .iter()
            .filter(|f| meant(&f.on_record))
            .cloned()
            .collect();
        place.oust(&meant, &by, is_theirs).await;
    }
    let gone: BTreeSet<&str> = found
        .iter()
        .flat_map(|one| one.on_record.claims.iter().map(move |claim| (one, claim)))
        .filter(|(_, claim)| is_theirs(claim))
        .filter(|(one, claim)| match one.life(claim) {
            Some(Life::Gone) => true,
            Some(Life::Dead | Life::Silent) => is_own(claim),
            Some(Life::Beginning | Life::Live) | None => false,
        })
        .map(|(_, claim)| claim.id.as_str())
        .collect();
    let ends = |_: &Intercepted, claim: &Claim| {
        what.force && is_theirs(claim) || gone.contains(claim.id.as_str())
    };
    let scope = place.scope(what.all);
    let done = sweep::put_back(&place.client, &scope, &by, &meant, &ends, tell).await;
    let left = match &done {
        Ok(_) => place.clear(&scope, &meant, CALLERS).await,
        Err(_) => Ok(Vec::new()),
    };
    place.close().await;
    for Stays { found, .. } in left? {
        let service = format!("{}.{}", found.service, found.namespace);
        tracing::warn!(
            "{service} has its own pods again, and callers still come by way of the relay: the next \
             kdev that looks there clears up"
        );
    }
    Ok(done?)
}

/// How long `restore` waits for callers who still come.
pub const CALLERS: Duration = Duration::from_secs(45);

/// How long it may take until the relay knows that a kdev was killed: the end of a port-forward
/// comes a second late.
const DYING: Duration = Duration::from_millis(2500);
/// How often it is looked.
const DYING_LOOK: Duration = Duration::from_millis(300);
/// Milliseconds since 1970.
fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The relay of a namespace.
#[derive(Clone)]
enum Relay {
    /// None runs.
    None,
    /// It cannot be asked.
    Silent,
    /// It answers.
    There(Reverse),
}

/// The cluster, and the relays that were asked.
struct Place {
    client: Client,
    owner: String,
    pods: PortForward,
    relays: tokio::sync::Mutex<BTreeMap<String, Relay>>,
    _tasks: Tasks,
}

impl Place {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let tasks = Tasks::new();
        let client = Client::connect_in(config.kube.clone(), config.environment(), &tasks).await?;
        // Tells a broken way from a missing permission.
        discovery::version(&client).await?;
        let pods = PortForward::new(client.clone(), KnownForm::default());
        Ok(Self {
            client,
            owner: owner(config),
            pods,
            relays: tokio::sync::Mutex::default(),
            _tasks: tasks,
        })
    }

    async fn clear(
        &self,
        scope: &Scope,
        meant: &(dyn Fn(&Intercepted) -> bool + Sync),
        limit: Duration,
    ) -> anyhow::Result<Vec<Stays>> {
        Ok(sweep::clear(&self.client, scope, meant, self, limit).await?)
    }

    fn scope(&self, all: bool) -> Scope {
        match all {
            true => Scope::All,
            false => Scope::Namespace(self.client.namespace().to_owned()),
        }
    }

    /// All that is on record, with what the relays know.
    async fn find(&self, all: bool) -> anyhow::Result<Vec<Found>> {
        let mut every = Vec::new();
        for on_record in list::list(&self.client, &self.scope(all)).await? {
            let seen = match on_record.claims.is_empty() {
                true => Some(BTreeMap::new()),
                false => self.ask(&on_record).await,
            };
            every.push(Found { on_record, seen });
        }
        Ok(every)
    }

    /// What the relay of a Service knows; nothing at all where none runs, so that nobody's claims
    /// can be alive.
    async fn ask(&self, found: &Intercepted) -> Option<BTreeMap<String, Seen>> {
        match self.relay(&found.namespace).await {
            Relay::None => Some(BTreeMap::new()),
            Relay::Silent => None,
            Relay::There(reverse) => Some(seen(&reverse, found, &self.owner).await),
        }
    }

    /// The relay of a namespace, which is looked for once.
    async fn relay(&self, namespace: &str) -> Relay {
        let mut relays = self.relays.lock().await;
        if let Some(known) = relays.get(namespace) {
            return known.clone();
        }
        let relay = match relay::reverse_at(&self.client, &self.pods, namespace).await {
            // One may come.
            Ok(None) => return Relay::None,
            Ok(Some(reverse)) => match reverse.tried(ASK).await {
                true => Relay::There(reverse),
                false => {
                    reverse.close(Duration::ZERO).await;
                    Relay::Silent
                }
            },
            Err(error) => {
                tracing::debug!(%error, namespace, "the relay cannot be asked");
                Relay::Silent
            }
        };
        relays.insert(namespace.to_owned(), relay.clone());
        relay
    }

    /// Ends claims at their relays, whose owners are told that `by` did it.
    async fn oust(&self, found: &[Found], by: &str, which: impl Fn(&Claim) -> bool) {
        let relays = self.relays.lock().await;
        for one in found {
            let found = &one.on_record;
            let Some(Relay::There(reverse)) = relays.get(&found.namespace) else {
                continue;
            };
            for claim in found.claims.iter().filter(|claim| which(claim)) {
                for (_, landing) in &found.landings {
                    reverse.oust(*landing, &claim.id, by).await;
                }
            }
        }
    }

    async fn close(&self) {
        for relay in self.relays.lock().await.values() {
            if let Relay::There(reverse) = relay {
                reverse.close(GOODBYE).await;
            }
        }
        self.pods.close(GOODBYE).await;
    }
}

impl LateCallers for Place {
    fn last<'a>(&'a self, found: &'a Intercepted) -> Doing<'a, Last> {
        Box::pin(async move {
            match self.relay(&found.namespace).await {
                Relay::None => Last::Never,
                Relay::Silent => Last::Unknown,
                Relay::There(reverse) => ByRelay(&reverse).last(found).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(service: &str, claims: &[(&str, &str)]) -> Found {
        let claims = claims.iter().map(|(id, owner)| Claim {
            id: (*id).to_owned(),
            owner: (*owner).to_owned(),
            rule: serde_json::Map::new(),
        });
        Found {
            on_record: Intercepted {
                namespace: "shop".to_owned(),
                service: service.to_owned(),
                origin: "kdev-20000".to_owned(),
                landings: Vec::new(),
                claims: claims.collect(),
                given_back: None,
                unreadable: None,
            },
            seen: None,
        }
    }

    #[test]
    fn one_that_the_relay_does_not_know_yet_is_not_gone() {
        let mut found = found("orders", &[]);
        found.seen = Some(BTreeMap::new());
        let claim = |age| {
            let claim = crate::rule::Claim {
                id: "a".to_owned(),
                owner: "ada".to_owned(),
                session: crate::tunnel::Identity::random().session(),
                conditions: crate::rule::Conditions::new(Vec::new()).unwrap(),
                since: now() - age,
                mirror: false,
                fallback: false,
                strict: false,
                protocol: crate::rule::AppProtocol::Auto,
            };
            crate::intercept::record::record(80, &claim)
        };
        assert_eq!(found.life(&claim(3_500)), Some(Life::Beginning));
        assert_eq!(found.life(&claim(60_000)), Some(Life::Gone));
        let seen = Seen {
            life: Life::Live,
            last: None,
            requests: 0,
        };
        found.seen = Some([("a".to_owned(), seen)].into());
        assert_eq!(found.life(&claim(3_500)), Some(Life::Live));
        found.seen = None;
        assert_eq!(found.life(&claim(3_500)), None);
    }

    #[test]
    fn ones_own_go_and_those_of_others_by_force() {
        let all = [
            found("orders", &[("a", "ada"), ("b", "bob")]),
            found("web", &[("c", "bob")]),
        ];
        let leave = |what: Option<&str>, all_of_them, force| {
            let what = Leave {
                what: what.map(str::to_owned),
                all: all_of_them,
                force,
                owner: None,
            };
            choose(&all, &what, "ada", "shop").map(|ids| ids.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(leave(Some("orders"), false, false).unwrap(), ["a"]);
        assert_eq!(leave(Some("orders"), false, true).unwrap(), ["a", "b"]);
        assert_eq!(leave(None, true, false).unwrap(), ["a"]);
        assert_eq!(leave(None, true, true).unwrap(), ["a", "b", "c"]);
        assert_eq!(leave(Some("c"), false, true).unwrap(), ["c"]);
        let refused = leave(Some("c"), false, false).unwrap_err();
        assert!(
            refused.contains("bob's") && refused.contains("--force"),
            "{refused}"
        );
        let none = leave(Some("x"), false, false).unwrap_err();
        assert!(none.contains("no intercept x"), "{none}");
        let of_bob = |force| {
            let what = Leave {
                all: true,
                force,
                owner: Some("bob".to_owned()),
                ..Leave::default()
            };
            choose(&all, &what, "ada", "shop").map(|ids| ids.into_iter().collect::<Vec<_>>())
        };
        assert!(of_bob(false).unwrap_err().contains("--force"));
        assert_eq!(of_bob(true).unwrap(), ["b", "c"]);
        let every = Leave {
            all: true,
            ..Leave::default()
        };
        for there in [&[][..], &all[1..]] {
            let nothing = choose(there, &every, "ada", "shop");
            assert!(nothing.unwrap().is_empty());
        }
    }
}
