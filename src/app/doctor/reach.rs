//! What the relay reaches: a Service beside it, and the API server's own, dialled by one of its pods as
//! any program in it would.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::{millis, within};
use crate::addr::{Host, Target};
use crate::dial::DialError;
use crate::k8s::Client;
use crate::k8s::install::{NAME, NAME_LABEL};
use crate::k8s::portforward::PortForward;
use crate::k8s::redirect::{Replica, served, through_tunnels};

/// How long finding a Service may take.
const FIND_LIMIT: Duration = Duration::from_secs(3);
/// How long the tunnel may take.
const TUNNEL_LIMIT: Duration = Duration::from_secs(4);
/// How long a connection may take from inside of the cluster: one lost packet at the start, which is
/// sent again after 1 s, with a name looked up before.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// What every cluster has.
const API_SERVER: (&str, u16) = ("kubernetes.default.svc", 443);

pub(super) const ID: &str = "relay.reach";
const TITLE: &str = "what the relay reaches";

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped(ID, TITLE, why)
}

/// What was dialled, and how long it took, or why it failed.
type Tried = (Target, Result<Duration, DialError>);

/// Has `pod` of the relay dial. Gives as well whether it reaches the Service beside it, as far as that
/// is known.
pub(super) async fn check(
    client: &Client,
    forward: &PortForward,
    pod: &str,
    until: Instant,
) -> (Check, Option<bool>) {
    let namespace = client.namespace();
    let ways = through_tunnels(client, forward, namespace);
    let (found, tunnel) = tokio::join!(
        within(FIND_LIMIT, until, served(client, namespace)),
        within(TUNNEL_LIMIT, until, ways.to(pod)),
    );
    let replica = match tunnel {
        Ok(Ok(replica)) => replica,
        Ok(Err(error)) => return (skipped(&error.to_string()), None),
        Err(_) => return (skipped("the tunnel for it takes too long"), None),
    };
    // Who may not be seen is not tried.
    let service = found.ok().and_then(Result::ok).flatten();
    let target = |(host, port): (&str, u16)| Target::new(Host::Name(host.into()), port);
    let service = service.map(|(host, port)| target((&host, port)));
    let (own, api) = tokio::join!(
        async {
            match service {
                Some(target) => Some(dial(replica.as_ref(), target, until).await),
                None => None,
            }
        },
        dial(replica.as_ref(), target(API_SERVER), until),
    );
    replica.close().await;
    judge(pod, namespace, own, api)
}

async fn dial(replica: &dyn Replica, target: Target, until: Instant) -> Tried {
    let began = Instant::now();
    let dialled = within(DIAL_LIMIT, until, replica.dial(&target)).await;
    let result = match dialled {
        Ok(result) => result.map(|()| began.elapsed()),
        Err(_) => Err(DialError::TimedOut {
            target: target.to_string(),
            after: DIAL_LIMIT,
        }),
    };
    (target, result)
}

fn judge(pod: &str, namespace: &str, own: Option<Tried>, api: Tried) -> (Check, Option<bool>) {
    let lacks_own = own.is_none();
    let decides = match &own {
        Some((_, result)) => result,
        None => &api.1,
    };
    let fix = match decides {
        Err(error) => cause(error, namespace),
        Ok(_) => None,
    };
    let reaches = own.as_ref().and_then(|(_, result)| match result {
        Ok(_) => Some(true),
        Err(error) => cause(error, namespace).map(|_| false),
    });
    let (mut reached, mut failed) = (Vec::new(), Vec::new());
    for (target, result) in own.into_iter().chain([api]) {
        match result {
            Ok(took) => reached.push(format!("{target} in {}", millis(took))),
            Err(error) => failed.push(error.to_string()),
        }
    }
    let mut parts = Vec::new();
    if !reached.is_empty() {
        parts.push(format!("pod {pod} reaches {}", reached.join(" and ")));
    }
    if !failed.is_empty() {
        parts.push(format!("pod {pod} tried, and {}", failed.join("; ")));
    }
    if lacks_own {
        parts.push(format!("no Service in {namespace} has a ready pod to try"));
    }
    let detail = parts.join("; ");
    let check = match fix {
        Some(fix) => Check::warn(ID, TITLE, detail).fix(fix),
        None => Check::ok(ID, TITLE, detail),
    };
    (check, reaches)
}

/// The likely cause of a failure, and what to do; none where the relay was told not to.
fn cause(error: &DialError, namespace: &str) -> Option<String> {
    let pods = format!("the relay's pods ({NAME_LABEL}={NAME} in namespace {namespace})");
    Some(match error {
        DialError::Forbidden { .. } => return None,
        DialError::NotFound { .. } => {
            "the DNS of the relay's pods answers and does not know the name: look at the cluster's DNS"
                .to_owned()
        }
        DialError::Refused { .. } => format!(
            "a mesh or a NetworkPolicy that rejects may stand between: allow {pods} egress to it, and \
             its pods ingress from them"
        ),
        // The name is looked up first.
        DialError::TimedOut { .. } | DialError::Unreachable { .. } => format!(
            "a NetworkPolicy probably keeps {pods} from it: they need egress to it and to the cluster's \
             DNS (port 53), and its pods ingress from them"
        ),
        DialError::Denied { .. } | DialError::Cluster { .. } => {
            "the tunnel broke meanwhile; try again".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::Status;

    fn tried(target: &str, result: Result<u64, DialError>) -> Tried {
        (target.parse().unwrap(), result.map(Duration::from_millis))
    }

    fn silent(target: &str) -> Tried {
        let error = DialError::TimedOut {
            target: target.to_owned(),
            after: DIAL_LIMIT,
        };
        tried(target, Err(error))
    }

    #[test]
    fn the_service_beside_it_decides() {
        let api = || silent("kubernetes.default.svc:443");
        let (check, reaches) = judge("r", "shop", Some(tried("web:80", Ok(3))), api());
        assert_eq!((check.status, reaches), (Status::Ok, Some(true)));
        assert_eq!(
            check.detail,
            "pod r reaches web:80 in 3.0 ms; pod r tried, and kubernetes.default.svc:443 did not \
             answer within 3 s"
        );
        let answers = tried("kubernetes.default.svc:443", Ok(3));
        let (check, reaches) = judge("r", "shop", Some(silent("web:80")), answers);
        assert_eq!((check.status, reaches), (Status::Warn, Some(false)));
        let fix = check.fix.unwrap();
        assert!(
            fix.contains("NetworkPolicy") && fix.contains("egress"),
            "{fix}"
        );
        let (check, reaches) = judge("r", "shop", None, api());
        assert_eq!((check.status, reaches), (Status::Warn, None));
        assert!(
            check
                .detail
                .ends_with("no Service in shop has a ready pod to try"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn what_the_relay_was_told_not_to_do_is_no_fault() {
        let ruled = DialError::Forbidden {
            target: "web:80".to_owned(),
            reason: "the relay's rules".to_owned(),
        };
        let api = tried("kubernetes.default.svc:443", Ok(1));
        let (check, reaches) = judge("r", "shop", Some(tried("web:80", Err(ruled))), api);
        assert_eq!((check.status, reaches), (Status::Ok, None));
    }
}
