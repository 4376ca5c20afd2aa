//! Whether each replica of the relay can pass callers on to the original pods, which is asked before
//! the first caller depends on it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::object::{name, port_name, ports};
use super::site::Site;
use crate::addr::{Host, Target};
use crate::dial::{Answer, DialError, DialRelay as _};
use crate::intercept::redirect::RedirectError;
use crate::k8s::portforward::PortForward;
use crate::k8s::{Client, relay};

/// How long a Service that was just made may take until the relay's pods know it: the cluster's DNS
/// keeps "no such name" for 5 s, and kube-proxy gathers changes for a second.
const SETTLE: Duration = Duration::from_secs(12);
/// How long a tunnel to a replica may take.
const TUNNEL_LIMIT: Duration = Duration::from_secs(10);
/// How long saying goodbye on it may take.
const GOODBYE: Duration = Duration::from_millis(200);
/// How long the first connection may take, and the longest of those after it. Before kube-proxy
/// knows an address nobody answers there, and the same connection never learns better, so another
/// one is tried soon; on a slow line to the relay the answer takes longer.
const FIRST_TRY: Duration = Duration::from_millis(400);
const LONGEST_TRY: Duration = Duration::from_secs(3);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(150);

/// Has a replica (a pod's name) dial one target after the other, and gives each one's outcome. Where
/// it says so, a pod is ready behind each; elsewhere the names have to be known, and that is all.
pub type Ask = Arc<dyn Fn(String, Vec<Target>, bool) -> Asked + Send + Sync>;
/// What comes of that.
pub type Asked = Pin<Box<dyn Future<Output = Vec<Result<(), DialError>>> + Send>>;

/// Asks the relay's pods in `namespace` through a tunnel of its own to each.
#[must_use]
pub fn through_tunnels(client: &Client, pods: &PortForward, namespace: &str) -> Ask {
    let (client, pods, namespace) = (client.clone(), pods.clone(), namespace.to_owned());
    Arc::new(move |replica, targets, served| {
        let (client, pods, namespace) = (client.clone(), pods.clone(), namespace.clone());
        Box::pin(async move {
            let none = |error: DialError| targets.iter().map(|_| Err(error.clone())).collect();
            let one = relay::to_one(&client, &pods, &namespace, &replica, TUNNEL_LIMIT).await;
            let pool = match one {
                Ok(pool) => pool,
                Err(error) => return none(error),
            };
            let mut all = Vec::new();
            for target in &targets {
                let dial = || async { pool.dial_relay(target, Answer::Awaited).await.map(drop) };
                all.push(settled(target, served, dial).await);
            }
            pool.close(GOODBYE).await;
            all
        })
    })
}

/// Dials until it works, or for as long as what is new may take.
async fn settled<F>(target: &Target, served: bool, dial: impl Fn() -> F) -> Result<(), DialError>
where
    F: Future<Output = Result<(), DialError>>,
{
    let until = Instant::now() + SETTLE;
    let mut limit = FIRST_TRY;
    loop {
        let tried = timeout(limit, dial()).await;
        limit = (limit * 3 / 2).min(LONGEST_TRY);
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
                    after: SETTLE,
                });
            }
            _ => sleep(PAUSE).await,
        }
    }
}

/// Has every one of `replicas` find `origin` and connect to each port behind which the Service
/// `live` has a ready pod.
pub(super) async fn check(
    site: &Site,
    ask: &Ask,
    replicas: &[Value],
    live: &Value,
    origin: &Value,
) -> Result<(), RedirectError> {
    let behind = site.endpoints(name(live)).await?.unwrap_or_default();
    let served = served(&behind);
    let host = Host::Name(name(origin).into());
    let all: Vec<(Target, bool)> = ports(&origin["spec"])
        .map(|port| {
            let number = super::object::port_number(port);
            (
                Target::new(host.clone(), number),
                served.contains(&port_name(port)),
            )
        })
        .collect();
    // Where no pod is ready the name at least has to mean something.
    let any = all.iter().any(|(_, served)| *served);
    let asked: Vec<&(Target, bool)> = match any {
        true => all.iter().filter(|(_, served)| *served).collect(),
        false => all.iter().take(1).collect(),
    };
    let targets: Vec<Target> = asked.iter().map(|(target, _)| target.clone()).collect();
    let answers = replicas.iter().map(|replica| {
        let (replica, asking) = (
            name(replica),
            ask(name(replica).to_owned(), targets.clone(), any),
        );
        async move { (replica, asking.await) }
    });
    for (replica, answers) in join_all(answers).await {
        for answer in answers {
            if let Err(error) = answer
                && let Some((why, fix)) = judge(&error, any)
            {
                return Err(RedirectError::Unreachable {
                    reason: format!("from pod {replica}, {why}"),
                    fix,
                });
            }
        }
    }
    Ok(())
}

/// Names of the Service's ports behind which a pod is ready.
fn served(endpoints: &Value) -> Vec<&str> {
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let ready = subsets.filter(|subset| {
        let addresses = subset["addresses"].as_array();
        addresses.is_some_and(|addresses| !addresses.is_empty())
    });
    ready.flat_map(ports).map(port_name).collect()
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
            "the pods are ready and refuse the relay: a mesh or a network policy may stand between"
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
    use serde_json::json;

    #[test]
    fn ports_of_ready_pods_are_served() {
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "http", "port": 80}]},
            {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "admin", "port": 81}]},
        ]});
        assert_eq!(served(&endpoints), ["http"]);
        assert!(served(&json!({})).is_empty());
        let unnamed = json!({"subsets": [{"addresses": [{}], "ports": [{"port": 80}]}]});
        assert_eq!(served(&unnamed), [""]);
    }

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
        settled(&target, true, dial).await.unwrap();
        let never = settled(&target, true, std::future::pending).await;
        assert!(matches!(never, Err(DialError::TimedOut { .. })));
        settled(&target, false, std::future::pending).await.unwrap();
    }
}
