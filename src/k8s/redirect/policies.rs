//! The NetworkPolicies that the user can read, and what they mean for an intercept.

use futures_util::future::join_all;
use serde_json::Value;

use super::marks::relay_value;
use super::object::{label, name, port_label, ports, selector, selects, text};
use super::reach::Callers;
use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::install::netpolicy::POLICIES;
use crate::k8s::install::site::PODS;
use crate::k8s::install::{NAME, NAME_LABEL};
use crate::k8s::netpolicy::advice::LAST_PORT;
use crate::k8s::netpolicy::losses::{
    Half, Loss, Port, Scene, landings, losses, relays_reach_relays,
};
use crate::k8s::netpolicy::party::{Party, Place};
use crate::k8s::netpolicy::selector::labels;
use crate::k8s::netpolicy::spec::Policy;
use crate::k8s::netpolicy::verdict::{Verdict, reaches};
use crate::relay::FIRST_PORT;

/// Namespaces beside the Service's that are looked into: what a user with rights in a few has. Of
/// those with more, the ones with policies.
const MOST_PLACES: usize = 30;
/// Pods of a namespace that are looked at; for those beyond stand the rules that mean them.
const MOST_PODS: usize = 1000;
/// Losses that are told, each with what would mend it.
const MOST_TOLD: usize = 3;

/// What is known of policies, and of those whom they are about.
#[derive(Debug)]
pub(super) struct Known {
    policies: Vec<Policy>,
    place: Place,
    places: Vec<Place>,
    pods: Vec<Party>,
    app: Vec<Party>,
    relays: Vec<Party>,
    ports: Vec<Port>,
    landings: Vec<u16>,
    outside: bool,
    selector: Value,
    /// Whether these are all policies of the cluster.
    all: bool,
}

/// What of the policies that the user can read.
struct Read {
    policies: Vec<Policy>,
    places: Vec<Place>,
    /// Whether there are no others.
    all: bool,
}

/// Where the policies of a namespace are.
pub(super) fn path(namespace: &str) -> String {
    POLICIES.path(namespace, "")
}

/// What can be read of the policies that callers of the Service `live` depend on, whose spec is
/// `plain` without kdev. None where not even those of its own namespace can be read.
pub(super) async fn known(
    site: &Site,
    live: &Value,
    plain: &Value,
    relays: &[Value],
    namespace: Option<&Value>,
) -> Option<Known> {
    match look(site, live, plain, relays, namespace).await {
        Ok(known) => known,
        Err(error) => {
            tracing::debug!(%error, "policies are not looked at");
            None
        }
    }
}

async fn look(
    site: &Site,
    live: &Value,
    plain: &Value,
    relays: &[Value],
    namespace: Option<&Value>,
) -> Result<Option<Known>, RedirectError> {
    let own_place = Place::new(
        &site.namespace,
        labels(&namespace.unwrap_or(&Value::Null)["metadata"]["labels"]),
    );
    let Some(Read {
        policies,
        places,
        all,
    }) = policies(site, &own_place).await?
    else {
        return Ok(None);
    };
    let mut known = Known {
        landings: landings(&policies, (FIRST_PORT, LAST_PORT)),
        policies,
        places,
        pods: Vec::new(),
        app: Vec::new(),
        relays: relays
            .iter()
            .filter_map(|pod| Party::pod(&labelled(pod, plain), &own_place))
            .collect(),
        ports: ports(plain)
            .map(|port| Port {
                name: port_label(port, name(live)),
                target: port["targetPort"].clone(),
            })
            .collect(),
        outside: ["NodePort", "LoadBalancer"]
            .iter()
            .any(|kind| plain["type"] == *kind)
            || plain["externalIPs"]
                .as_array()
                .is_some_and(|ips| !ips.is_empty()),
        selector: plain["selector"].clone(),
        all,
        place: own_place,
    };
    if known.policies.is_empty() {
        return Ok(Some(known));
    }
    // Who may be kept from going somewhere, and who is in the namespace itself.
    let with_egress = |place: &&Place| {
        let mut policies = known
            .policies
            .iter()
            .filter(|policy| policy.egress.is_some());
        place.namespace != site.namespace && policies.any(|p| p.namespace == place.namespace)
    };
    let others: Vec<Place> = known
        .places
        .iter()
        .filter(with_egress)
        .take(MOST_PLACES)
        .cloned()
        .collect();
    let all = std::iter::once(&known.place).chain(&others);
    let listed = join_all(all.map(|place| async move {
        let path = format!("{}?limit={MOST_PODS}", PODS.path(&place.namespace, ""));
        (
            place,
            site.readable(&path, "list pods")
                .await
                .ok()
                .flatten()
                .unwrap_or_default(),
        )
    }));
    for (place, pods) in listed.await {
        let own = place.namespace == site.namespace;
        for pod in pods {
            let Some(party) = Party::pod(&pod, place) else {
                continue;
            };
            if own && label(&pod, NAME_LABEL) == NAME {
                continue;
            }
            if own && selects(plain, &pod["metadata"]["labels"]) {
                known.app.push(party.clone());
            }
            known.pods.push(party);
        }
    }
    Ok(Some(known))
}

/// All policies that can be read, and the namespaces that can be seen.
async fn policies(site: &Site, own: &Place) -> Result<Option<Read>, RedirectError> {
    let everywhere = format!("/apis/{}/{}", POLICIES.api, POLICIES.plural);
    let what = "list networkpolicies.networking.k8s.io";
    let (all, namespaces) = tokio::try_join!(
        site.readable(&everywhere, what),
        site.readable("/api/v1/namespaces", "list namespaces"),
    )?;
    let read = |list: Vec<Value>| list.iter().map(Policy::read).collect::<Vec<_>>();
    let sees_all = namespaces.is_some();
    let mut places: Vec<Place> = namespaces
        .into_iter()
        .flatten()
        .map(|namespace| Place::new(name(&namespace), labels(&namespace["metadata"]["labels"])))
        .collect();
    if !places.iter().any(|place| place.namespace == own.namespace) {
        places.push(own.clone());
    }
    if let Some(all) = all {
        return Ok(Some(Read {
            policies: read(all),
            places,
            all: true,
        }));
    }
    let Some(mine) = site.readable(&path(&own.namespace), what).await? else {
        return Ok(None);
    };
    let mut found = read(mine);
    let mut all = sees_all && places.len() <= MOST_PLACES;
    // Who may see namespaces may have rights in some of them.
    if places.len() <= MOST_PLACES {
        let others = places
            .iter()
            .filter(|place| place.namespace != own.namespace);
        let others = others.map(|place| async move {
            site.readable(&path(&place.namespace), what)
                .await
                .ok()
                .flatten()
        });
        for list in join_all(others).await {
            all &= list.is_some();
            found.extend(read(list.unwrap_or_default()));
        }
    }
    Ok(Some(Read {
        policies: found,
        places,
        all,
    }))
}

/// A pod of the relay with the labels that it has, or is about to get, for a Service's selector.
fn labelled(pod: &Value, plain: &Value) -> Value {
    let mut pod = pod.clone();
    for (key, _) in selector(plain) {
        pod["metadata"]["labels"][key] = relay_value(key).into();
    }
    pod
}

impl Known {
    fn scene(&self) -> Scene<'_> {
        Scene {
            policies: &self.policies,
            place: &self.place,
            places: &self.places,
            pods: &self.pods,
            app: &self.app,
            relays: &self.relays,
            ports: &self.ports,
            landings: &self.landings,
            outside: self.outside,
        }
    }

    /// Whether there are no policies that could not be read.
    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    /// What callers would lose, with what mends it; none where they lose nothing.
    pub(super) fn refusal(&self) -> Option<(String, String)> {
        let losses = losses(&self.scene());
        self.told(&losses)
    }

    fn told(&self, losses: &[Loss<'_>]) -> Option<(String, String)> {
        let place = &self.place.namespace;
        let told = losses.iter().take(MOST_TOLD);
        let what: Vec<String> = told.clone().map(|loss| loss.what(place)).collect();
        let mut rules: Vec<String> = told.map(|loss| loss.rule(place, &self.selector)).collect();
        rules.dedup();
        (!what.is_empty()).then(|| (what.join("; "), rules.join(", and ")))
    }

    /// Whether what the relay's pods find on the way to each other says anything of callers.
    pub(super) fn callers(&self) -> Callers {
        match relays_reach_relays(&self.scene()) {
            true => Callers::MustPass,
            false => Callers::Unlike,
        }
    }

    /// What keeps the relay from the Service's pods at this port of theirs, if policies do.
    pub(super) fn passage(&self, pod: &str, number: u16) -> Option<(String, String)> {
        let to = self
            .app
            .iter()
            .find(|party| party.name == format!("pod {pod}"))?;
        let relay = self.relays.first()?;
        let Verdict::Shut(direction, by) = reaches(&self.policies, relay, to, number) else {
            return None;
        };
        let port = self
            .ports
            .iter()
            .find(|port| to.port(&port.target) == Some(number))?;
        let half = Half::ToPods(number);
        let caller = relay.clone();
        let loss = Loss {
            caller,
            port,
            half,
            direction,
            by,
        };
        let place = &self.place.namespace;
        Some((loss.by_whom(place), loss.rule(place, &self.selector)))
    }
}

/// Tells one set of policies from another.
pub(super) fn print_of<'a>(policies: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut all: Vec<String> = policies
        .map(|policy| {
            let uid = text(policy, &["metadata", "uid"]);
            format!("{uid} {}", policy["spec"])
        })
        .collect();
    all.sort();
    all
}
