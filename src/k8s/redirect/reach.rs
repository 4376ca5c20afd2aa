//! Whether callers would be served once a Service leads to the relay, which is asked before the first
//! of them depends on it: whether each replica reaches the original pods, and whether it is reached.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::behind::{Ready, behind, serves};
use super::object::{name, port_label, port_name, port_number, ports, text};
use super::site::Site;
use super::ways::{Replica, Ways};
use crate::addr::{Host, Target};
use crate::dial::DialError;
use crate::intercept::redirect::{RedirectError, Say, Told};
use crate::k8s::netpolicy::advice;

/// How long a Service that was just made may take until the relay's pods know it: the cluster's DNS
/// keeps "no such name" for 5 s, and kube-proxy gathers changes for a second.
const SETTLE: Duration = Duration::from_secs(12);
/// How long the way from one of the relay's pods to another may take to open: enforcers of policies
/// know of a pod that is ready within a second or two.
const SETTLE_PODS: Duration = Duration::from_secs(4);
/// How long the first connection may take, and the longest of those after it. Before kube-proxy
/// knows an address nobody answers there, and the same connection never learns better, so another
/// one is tried soon; on a slow line to the relay the answer takes longer.
const FIRST_TRY: Duration = Duration::from_millis(400);
const LONGEST_TRY: Duration = Duration::from_secs(3);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a port that was not asked for may take.
const GLANCE: Duration = Duration::from_secs(1);

/// What is asked of the relay.
pub(super) struct Check<'a> {
    pub(super) site: &'a Site,
    pub(super) ways: &'a dyn Ways,
    /// Its replicas.
    pub(super) relays: &'a [Value],
    /// The number of the Service's port whose requests are wanted.
    pub(super) port: u16,
    /// What is to hold of the way from callers to the replicas.
    pub(super) callers: Callers,
    /// Who hears what is waited for.
    pub(super) say: &'a Say,
}

/// What is known of the way from callers to the relay's pods, of which its pods' way to each other is
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// It has to be open.
    MustPass,
    /// It is told where it is not: the user wants it all the same.
    MayFail,
    /// Policies let callers pass and the relay's own pods not, so there is nothing to try.
    Unlike,
}

/// A replica that can be told to dial.
type Open = (String, Arc<dyn Replica>);

impl Check<'_> {
    /// Has every replica find `origin` and connect to the port that is wanted of the Service `live`,
    /// where a pod of it is ready there, and to the other replicas where callers will arrive.
    pub(super) async fn pass(&self, live: &Value, origin: &Value) -> Result<(), RedirectError> {
        let plain = super::swap::plain(live, origin);
        let ready = behind(self.site, name(live), &plain).await?;
        self.awaits("tunnels to the relay's pods");
        let opened: Vec<Open> = match self.open().await.into_iter().collect() {
            Ok(opened) => opened,
            Err(error) => return Err(error),
        };
        let result = self.ask(live, origin, &opened, &ready).await;
        join_all(opened.iter().map(|(_, replica)| replica.close())).await;
        result
    }

    fn awaits(&self, what: &str) {
        (self.say)(Told::Step(format!("waiting for {what}")));
    }

    fn note(&self, text: String) {
        (self.say)(Told::Note(text));
    }

    async fn open(&self) -> Vec<Result<Open, RedirectError>> {
        let opening = self.relays.iter().map(|relay| async move {
            let relay = name(relay);
            match self.ways.to(relay).await {
                Ok(replica) => Ok((relay.to_owned(), replica)),
                Err(error) => Err(RedirectError::Unreachable {
                    reason: format!("pod {relay} of the relay: {error}"),
                    fix: "`kdev doctor` says which tunnels to the relay work".to_owned(),
                }),
            }
        });
        join_all(opening).await
    }

    async fn ask(
        &self,
        live: &Value,
        origin: &Value,
        opened: &[Open],
        ready: &[Ready],
    ) -> Result<(), RedirectError> {
        let service = name(live);
        let host = Host::Name(name(origin).into());
        let own = |port: &&Value| port_number(port) == self.port;
        let asked = ports(&live["spec"]).find(own);
        // A port that went away meanwhile is noticed by whoever wanted it.
        let Some(landing) = asked.and_then(|port| super::swap::landing_of(port, &origin["spec"]))
        else {
            return Ok(());
        };
        let (label, is_served) = (
            asked.map(|port| port_label(port, service)),
            serves(ready, port_name(landing)),
        );
        let label = label.unwrap_or_default();
        let target = Target::new(host.clone(), port_number(landing));
        let what = match is_served {
            true => format!("the relay to reach {label}"),
            false => format!("the relay to know Service {}", name(origin)),
        };
        let tries = opened.iter().map(|(relay, replica)| {
            let (target, limit) = (&target, SETTLE);
            async move {
                (
                    relay,
                    settled(target, is_served, limit, || replica.dial(target)).await,
                )
            }
        });
        self.awaits(&what);
        for (relay, outcome) in join_all(tries).await {
            if let Err(error) = outcome
                && let Some((why, fix)) = judge(&error, is_served)
            {
                let why = why.replace(&target.to_string(), &label);
                return Err(RedirectError::Unreachable {
                    reason: format!("from pod {relay}, {why}"),
                    fix,
                });
            }
        }
        self.arrive(origin, port_number(landing), opened).await?;
        let others: Vec<(String, Target)> = ports(&live["spec"])
            .filter(|port| port_number(port) != self.port && serves(ready, port_name(port)))
            .filter_map(|port| {
                let landing = super::swap::landing_of(port, &origin["spec"])?;
                Some((
                    port_label(port, service),
                    Target::new(host.clone(), port_number(landing)),
                ))
            })
            .collect();
        if let Some((_, replica)) = opened.first() {
            self.glance(replica.as_ref(), service, &others).await;
        }
        Ok(())
    }

    /// Has each replica connect to the others where callers will arrive.
    async fn arrive(
        &self,
        origin: &Value,
        landing: u16,
        opened: &[Open],
    ) -> Result<(), RedirectError> {
        if self.callers == Callers::Unlike {
            return Ok(());
        }
        let pairs = opened.iter().flat_map(|(relay, replica)| {
            let others = self.relays.iter().filter(move |other| name(other) != relay);
            others.flat_map(move |other| {
                let ips = addresses(other, origin).into_iter();
                ips.map(move |ip| {
                    (
                        relay,
                        replica,
                        name(other),
                        Target::new(Host::Ip(ip), landing),
                    )
                })
            })
        });
        let tries = pairs.map(|(relay, replica, other, target)| async move {
            let outcome = settled(&target, true, SETTLE_PODS, || replica.dial(&target)).await;
            (relay, other, target, outcome)
        });
        self.awaits("the relay's pods to reach each other where callers will arrive");
        for (relay, other, target, outcome) in join_all(tries).await {
            let Err(error) = outcome else { continue };
            if judge(&error, true).is_none() {
                continue;
            }
            let why = error
                .to_string()
                .replace(&target.to_string(), &format!("port {landing} of it"));
            let reason = format!("pod {relay} tried pod {other} in their place, and {why}");
            let fix = advice::let_callers_in(&self.site.namespace);
            match self.callers {
                Callers::MayFail => {
                    self.note(format!(
                        "callers may get no answer, since they may not reach the relay: {reason}; {fix}"
                    ));
                    return Ok(());
                }
                _ => return Err(RedirectError::Shut { reason, fix }),
            }
        }
        Ok(())
    }

    /// Looks at ports that nobody asked for, which come along all the same.
    async fn glance(&self, replica: &dyn Replica, service: &str, others: &[(String, Target)]) {
        let looks = others.iter().map(|(label, target)| async move {
            let outcome = timeout(GLANCE, replica.dial(target)).await;
            let why = match outcome {
                Ok(Ok(()) | Err(DialError::Forbidden { .. })) => return None,
                Ok(Err(error)) => error.to_string().replace(&target.to_string(), "it"),
                Err(_) => format!("it did not answer within {} s", GLANCE.as_secs()),
            };
            Some((label, why))
        });
        for (label, why) in join_all(looks).await.into_iter().flatten() {
            self.note(format!(
                "the relay does not reach {label} ({why}), so nobody does while {service} is \
                 intercepted"
            ));
        }
    }
}

/// Where a pod is reached by callers of a Service: its addresses of the Service's families.
fn addresses(pod: &Value, service: &Value) -> BTreeSet<IpAddr> {
    let families = service["spec"]["ipFamilies"].as_array();
    let wanted = |ip: &IpAddr| {
        let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
        families.is_none_or(|families| families.iter().any(|own| own == family))
    };
    let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let ips = ips.filter_map(|ip| text(ip, &["ip"]).parse().ok());
    ips.filter(wanted).collect()
}

/// Dials until it works, or for `limit`, which is as long as what is new may take.
async fn settled<F>(
    target: &Target,
    served: bool,
    limit: Duration,
    dial: impl Fn() -> F,
) -> Result<(), DialError>
where
    F: Future<Output = Result<(), DialError>>,
{
    let until = Instant::now() + limit;
    let mut patience = FIRST_TRY;
    loop {
        let tried = timeout(patience, dial()).await;
        patience = (patience * 3 / 2).min(LONGEST_TRY);
        let error = match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        match error {
            // No rule of the relay's is any newer in a moment.
            Some(error @ DialError::Forbidden { .. }) => return Err(error),
            // Whatever came of it, the name was known.
            Some(DialError::Refused { .. }) | None if !served => return Ok(()),
            Some(error) if Instant::now() >= until => return Err(error),
            None if Instant::now() >= until => {
                return Err(DialError::TimedOut {
                    target: target.to_string(),
                    after: limit,
                });
            }
            _ => sleep(PAUSE).await,
        }
    }
}

/// What a failure means: what happened, and the likely cause. None where it is no trouble.
fn judge(error: &DialError, served: bool) -> Option<(String, String)> {
    let fix = match error {
        // Its rules are for what kdev asks for, not for callers.
        DialError::Forbidden { .. } => return None,
        DialError::NotFound { .. } => {
            "the DNS of the relay's pods does not know a Service that was just made: look at the \
             cluster's DNS, and at network policies between it and the relay"
        }
        // That nobody takes the connection is no news then.
        _ if !served => return None,
        DialError::Refused { .. } => {
            "a network policy or a mesh may keep the relay's pods from these, which are ready; allow \
             what the label app.kubernetes.io/name=kdev-relay marks"
        }
        DialError::TimedOut { .. } | DialError::Unreachable { .. } => {
            "a network policy may keep the relay's pods from these; allow what the label \
             app.kubernetes.io/name=kdev-relay marks"
        }
        DialError::Denied { .. } | DialError::Cluster { .. } => {
            "`kdev doctor` says which tunnels to the relay work"
        }
    };
    Some((error.to_string(), fix.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart() {
        let refused = DialError::Refused {
            target: "t".into(),
            reason: String::new(),
        };
        assert!(judge(&refused, true).unwrap().1.contains("mesh"));
        assert_eq!(judge(&refused, false), None);
        let unknown = DialError::NotFound {
            what: "host".into(),
            fix: String::new(),
        };
        assert!(judge(&unknown, false).unwrap().1.contains("DNS"));
        let rule = DialError::Forbidden {
            target: "t".into(),
            reason: String::new(),
        };
        assert_eq!(judge(&rule, true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_new_is_waited_for() {
        let target = Target::new(Host::Name("kdev-20000".into()), 20_000);
        let tries = std::cell::Cell::new(0);
        let dial = || async {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 => Err(DialError::NotFound {
                    what: "host".into(),
                    fix: String::new(),
                }),
                2 => std::future::pending().await,
                _ => Ok(()),
            }
        };
        settled(&target, true, SETTLE, dial).await.unwrap();
        let never = settled(&target, true, SETTLE, std::future::pending).await;
        assert!(matches!(never, Err(DialError::TimedOut { .. })));
        settled(&target, false, SETTLE, std::future::pending)
            .await
            .unwrap();
    }
}
