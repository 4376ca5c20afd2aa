//! Callers that reach a Service's pods today and would lose that by an intercept: because they do
//! not reach the relay, or because the relay does not reach the pods for them.
//!
//! Who calls is not written down anywhere. So it is whoever may: each pod that can be seen, and for
//! rules that name nobody of these the plainest that they mean.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::party::{Party, Place};
use super::selector::{Labels, Selector};
use super::spec::{Peer, Policy, PortRule, Rule};
use super::verdict::{Direction, Verdict, reaches};
use crate::k8s::install::NAME;

/// An address of nobody (RFC 5737 and 3849), in the name of all that are outside of the cluster.
const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// What stands for any namespace that cannot be seen.
const ANOTHER: &str = "another";

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// All policies that can be seen.
    pub policies: &'a [Policy],
    /// The Service's namespace, where the relay is as well.
    pub place: &'a Place,
    /// All namespaces that can be seen.
    pub places: &'a [Place],
    /// All pods that can be seen, but for the relay's.
    pub pods: &'a [Party],
    /// The pods behind the Service.
    pub app: &'a [Party],
    /// The relay's.
    pub relays: &'a [Party],
    /// The Service's ports.
    pub ports: &'a [Port],
    /// The relay's ports where its callers would arrive.
    pub landings: &'a [u16],
    /// Whether it has an address outside of the cluster.
    pub outside: bool,
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What it is called, for people.
    pub name: String,
    /// Its `targetPort`.
    pub target: Value,
}

/// What somebody would lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss<'a> {
    /// Who, for example.
    pub caller: Party,
    /// By which port.
    pub port: &'a Port,
    /// On which half of the way.
    pub half: Half,
    /// Whose policies are in the way: of whoever connects there, or is connected to.
    pub direction: Direction,
    /// These.
    pub by: Vec<&'a Policy>,
}

/// A half of a caller's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// From the caller to the relay.
    ToRelay,
    /// From the relay to the Service's pods, at this port of theirs.
    ToPods(u16),
}

/// Every different loss, with one of those who have it.
#[must_use]
pub fn losses<'a>(scene: &Scene<'a>) -> Vec<Loss<'a>> {
    let mut all: Vec<Loss<'a>> = Vec::new();
    let mut lose = |caller: &Party, port: &'a Port, half: Half, verdict: Verdict<'a>| {
        let Verdict::Shut(direction, by) = verdict else {
            return;
        };
        let same =
            |other: &Loss<'_>| (other.half, other.direction, &other.by) == (half, direction, &by);
        if !all.iter().any(same) {
            let caller = caller.clone();
            all.push(Loss {
                caller,
                port,
                half,
                direction,
                by,
            });
        }
    };
    let blocks = blocks(scene.policies);
    let (app, relays) = (
        distinct(scene.app, &blocks),
        distinct(scene.relays, &blocks),
    );
    for caller in callers(scene, &blocks) {
        for port in scene.ports {
            let reached = app.iter().filter_map(|pod| {
                let number = pod.port(&port.target)?;
                // A pod of the Service that calls it comes to another one like itself.
                let verdict = reaches(scene.policies, &caller, pod, number);
                verdict.is_open().then_some((*pod, number))
            });
            for (at, (pod, number)) in reached.enumerate() {
                for relay in &relays {
                    // Which of the Service's pods it would have been makes no difference to that.
                    for landing in scene.landings.iter().filter(|_| at == 0) {
                        let verdict = reaches(scene.policies, &caller, relay, *landing);
                        lose(&caller, port, Half::ToRelay, verdict);
                    }
                    let verdict = reaches(scene.policies, relay, pod, number);
                    lose(&caller, port, Half::ToPods(number), verdict);
                }
            }
        }
    }
    all
}

/// Whether the relay's pods reach each other there, as far as policies say: whether one that tries
/// shows what others get.
#[must_use]
pub fn relays_reach_relays(scene: &Scene<'_>) -> bool {
    let pairs = scene.relays.iter().flat_map(|from| {
        let others = scene.relays.iter().filter(move |to| to.name != from.name);
        others.map(move |to| (from, to))
    });
    let mut ways =
        pairs.flat_map(|pair| scene.landings.iter().map(move |landing| (pair, *landing)));
    ways.all(|((from, to), landing)| reaches(scene.policies, from, to, landing).is_open())
}

/// Ports of `range` between which the policies tell a difference, and its ends.
#[must_use]
pub fn landings(policies: &[Policy], range: (u16, u16)) -> Vec<u16> {
    let mut ports = BTreeSet::from([range.0, range.1]);
    let rules = policies.iter().flat_map(rules);
    for rule in rules.flat_map(|rule| &rule.ports) {
        if let PortRule::Range(first, last) = *rule {
            ports.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
        }
    }
    ports.retain(|port| (range.0..=range.1).contains(port));
    ports.into_iter().collect()
}

fn rules(policy: &Policy) -> impl Iterator<Item = &Rule> {
    let both = [&policy.ingress, &policy.egress];
    both.into_iter().flatten().flatten()
}

/// All blocks of addresses that policies speak of.
fn blocks(policies: &[Policy]) -> Vec<IpNet> {
    let peers = policies.iter().flat_map(rules).flat_map(|rule| &rule.peers);
    let blocks = peers.filter_map(|peer| match peer {
        Peer::Block { cidr, except } => Some(std::iter::once(cidr).chain(except)),
        _ => None,
    });
    blocks.flatten().copied().collect()
}

/// Those between which policies tell a difference.
fn distinct<'p>(parties: &'p [Party], blocks: &[IpNet]) -> Vec<&'p Party> {
    let mut seen = BTreeSet::new();
    let new = |party: &&Party| {
        let within = |net: &IpNet| party.ips.iter().any(|ip| net.contains(ip));
        let within: Vec<bool> = blocks.iter().map(within).collect();
        seen.insert((
            party.namespace().cloned(),
            party.labels.clone(),
            within,
            party.ports.clone(),
        ))
    };
    parties.iter().filter(new).collect()
}

/// Whoever may call.
fn callers(scene: &Scene<'_>, blocks: &[IpNet]) -> Vec<Party> {
    let mut all: Vec<Party> = distinct(scene.pods, blocks).into_iter().cloned().collect();
    let shown = |place: &Place, pods: &Selector| {
        // What is selected by its name is the relay, which is no caller.
        let relay = pods.example().values().any(|value| value == NAME);
        let mut all = scene.pods.iter();
        relay
            || all.any(|pod| pod.namespace() == Some(&place.namespace) && pods.selects(&pod.labels))
    };
    // Pods that are not there now, as of a CronJob.
    for policy in scene
        .policies
        .iter()
        .filter(|policy| policy.egress.is_some())
    {
        let known = scene
            .places
            .iter()
            .find(|place| place.namespace == policy.namespace);
        let place = known
            .cloned()
            .unwrap_or_else(|| Place::new(&policy.namespace, Labels::new()));
        if !shown(&place, &policy.pods) {
            all.push(Party::example(place, policy.pods.example()));
        }
    }
    let isolating: Vec<&Policy> = scene
        .policies
        .iter()
        .filter(|policy| policy.ingress.is_some())
        .collect();
    let mut everybody = false;
    for pod in distinct(scene.app, blocks) {
        let own: Vec<&&Policy> = isolating
            .iter()
            .filter(|policy| policy.selects(pod))
            .collect();
        everybody |= own.is_empty();
        for (policy, rule) in own
            .iter()
            .flat_map(|p| p.ingress.iter().flatten().map(move |rule| (p, rule)))
        {
            everybody |= rule.peers.is_empty();
            for peer in &rule.peers {
                match peer {
                    Peer::Pods { pods, namespaces } => {
                        let places = match namespaces {
                            None => vec![scene.place.clone()],
                            Some(namespaces) => {
                                let known = scene.places.iter().chain([scene.place]);
                                let known: Vec<Place> = known
                                    .filter(|p| namespaces.selects(&p.labels))
                                    .cloned()
                                    .collect();
                                match known.is_empty() {
                                    true => vec![example_place(namespaces.example())],
                                    false => known,
                                }
                            }
                        };
                        for place in places {
                            if !shown(&place, pods) {
                                all.push(Party::example(place, pods.example()));
                            }
                        }
                    }
                    Peer::Block { cidr, except } => {
                        let points = points(cidr, except, blocks).into_iter();
                        all.extend(points.map(Party::outside));
                    }
                    Peer::Nobody => {}
                }
            }
            debug_assert_eq!(policy.namespace, scene.place.namespace);
        }
    }
    if everybody {
        if !shown(scene.place, &Selector::default()) {
            all.push(Party::example(scene.place.clone(), Labels::new()));
        }
        all.push(Party::example(example_place(Labels::new()), Labels::new()));
        if scene.outside {
            let has = |v6: bool| {
                let mut ips = scene.app.iter().flat_map(|pod| &pod.ips);
                ips.any(|ip| ip.is_ipv6() == v6)
            };
            let outside = OUTSIDE.into_iter().filter(|ip| has(ip.is_ipv6()));
            all.extend(outside.map(Party::outside));
        }
    }
    all
}

/// A namespace with these labels.
fn example_place(labels: Labels) -> Place {
    let name = labels.get(super::selector::NAMESPACE_NAME).cloned();
    Place::new(name.as_deref().unwrap_or(ANOTHER), labels)
}

/// Addresses of a block between which the policies tell a difference.
fn points(cidr: &IpNet, except: &[IpNet], blocks: &[IpNet]) -> BTreeSet<IpAddr> {
    let mut points = BTreeSet::from([cidr.network(), cidr.broadcast()]);
    for net in blocks.iter().chain(except) {
        points.insert(net.network());
        points.insert(net.broadcast());
        points.extend(
            [beside(net.network(), false), beside(net.broadcast(), true)]
                .into_iter()
                .flatten(),
        );
    }
    points.retain(|ip| cidr.contains(ip) && !except.iter().any(|net| net.contains(ip)));
    points
}

/// The address after or before this one.
fn beside(ip: IpAddr, after: bool) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            let bits = if after {
                bits.checked_add(1)
            } else {
                bits.checked_sub(1)
            };
            bits.map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let bits = if after {
                bits.checked_add(1)
            } else {
                bits.checked_sub(1)
            };
            bits.map(|bits| IpAddr::V6(bits.into()))
        }
    }
}
