//! What a user may be about to type: names from the kubeconfig and from the cluster, now.
//!
//! Whoever presses the tab key waits, and can do nothing about an error: what does not answer in
//! time, or at all, is left out.

use std::time::Duration;

use super::intercept::owner;
use crate::config::Config;
use crate::k8s::client::UNSAID;
use crate::k8s::redirect::list::{self, Scope};
use crate::k8s::{Client, kubeconfig, listing};
use crate::task::Tasks;

/// How long a user waits for a tab key.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How many namespaces are asked one by one for a Service: what an API server answers at once.
const MOST_ASKED: usize = 16;

/// The kubeconfig's contexts.
#[must_use]
pub fn contexts(config: &Config) -> Vec<String> {
    kubeconfig::contexts(&config.kube, &config.environment()).unwrap_or_default()
}

/// The cluster's namespaces.
pub async fn namespaces(config: &Config) -> Vec<String> {
    let names = async {
        let tasks = Tasks::new();
        Some(known_namespaces(&client(config, &tasks).await?).await)
    };
    in_time(names).await
}

/// The ids and the Services of one's own intercepts.
pub async fn intercepts(config: &Config) -> Vec<String> {
    let own = owner(config);
    in_time(async {
        let mut out = Vec::new();
        for found in on_record(config).await? {
            let ids = found.claims.iter().filter(|claim| claim.owner == own);
            let before = out.len();
            out.extend(ids.map(|claim| claim.id.clone()));
            if out.len() > before {
                out.push(found.service);
            }
        }
        Some(out)
    })
    .await
}

/// The Services that somebody intercepts, or that are not cleaned up yet.
pub async fn intercepted(config: &Config) -> Vec<String> {
    in_time(async {
        let found = on_record(config).await?.into_iter();
        Some(found.map(|found| found.service).collect())
    })
    .await
}

/// What is on record in the namespace.
async fn on_record(config: &Config) -> Option<Vec<list::Intercepted>> {
    let tasks = Tasks::new();
    let client = client(config, &tasks).await?;
    let scope = Scope::Namespace(client.namespace().to_owned());
    list::list(&client, &scope).await.ok()
}

/// Which Services are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// All.
    All,
    /// Those that can be intercepted.
    Interceptable,
}

/// What may follow `typed`, which is the beginning of `SERVICE:PORT` or `SERVICE.NAMESPACE:PORT`, or of
/// kubectl's form with `svc/` before it.
pub async fn targets(config: &Config, typed: &str, offer: Offer) -> Vec<String> {
    match typed.split_once('/') {
        None => services(config, typed, offer).await,
        Some((kind @ ("svc" | "service" | "services"), typed)) => {
            let all = services(config, typed, offer).await.into_iter();
            all.map(|target| format!("{kind}/{target}")).collect()
        }
        // Of pods and workloads nothing is known here.
        Some(_) => Vec::new(),
    }
}

async fn services(config: &Config, typed: &str, offer: Offer) -> Vec<String> {
    in_time(async {
        let tasks = Tasks::new();
        let client = client(config, &tasks).await?;
        let (host, port) = match typed.split_once(':') {
            Some((host, _)) => (host, true),
            None => (typed, false),
        };
        let (namespace, suffix) = match host.split_once('.') {
            Some((service, begun)) if !port => {
                return Some(in_namespaces(&client, service, begun).await);
            }
            Some((_, namespace)) => (namespace, format!(".{namespace}")),
            None => (client.namespace(), String::new()),
        };
        // `svc.ns.svc` is right too, and no name of a namespace has a dot.
        let namespace = namespace.split('.').next().unwrap_or(namespace);
        if namespace.is_empty() || !is_label(namespace) {
            return None;
        }
        let services = listing::services(&client, namespace).await.ok()?;
        let mut out = Vec::new();
        for service in services {
            let name = format!("{}{suffix}", service.name);
            let is_offered = match offer {
                Offer::All => !service.is_ours,
                Offer::Interceptable => service.interceptable,
            };
            if port && name != host || !is_offered {
                continue;
            }
            for (named, number) in &service.ports {
                out.push(format!("{name}:{number}"));
                if port && !named.is_empty() {
                    out.push(format!("{name}:{named}"));
                }
            }
        }
        Some(out)
    })
    .await
}

/// `SERVICE.NAMESPACE:` for every namespace with that beginning that has the Service.
async fn in_namespaces(client: &Client, service: &str, begun: &str) -> Vec<String> {
    if !is_label(service) {
        return Vec::new();
    }
    let namespaces = match listing::namespaces_with(client, service).await {
        Ok(Some(namespaces)) => namespaces,
        Ok(None) => {
            let known = known_namespaces(client).await.into_iter();
            let known = known.filter(|ns| ns.starts_with(begun)).take(MOST_ASKED);
            let asked = known.map(|namespace| async {
                let has = listing::has_service(client, &namespace, service).await;
                has.then_some(namespace)
            });
            let asked = futures_util::future::join_all(asked).await;
            asked.into_iter().flatten().collect()
        }
        Err(_) => return Vec::new(),
    };
    let alike = namespaces.into_iter().filter(|ns| ns.starts_with(begun));
    alike.map(|ns| format!("{service}.{ns}:")).collect()
}

/// All namespaces, or where those are not this user's to see, the one that surely is.
async fn known_namespaces(client: &Client) -> Vec<String> {
    let listed = listing::namespaces(client).await;
    listed.unwrap_or_else(|_| vec![client.namespace().to_owned()])
}

/// Whether it may stand in the path of a request.
fn is_label(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

async fn client(config: &Config, tasks: &Tasks) -> Option<Client> {
    let connecting = Client::connect_silently(config.kube.clone(), config.environment(), tasks);
    // Where it has to be said that it is waited, there is no place to say it.
    Some(connecting.await.ok()?.patient_for(UNSAID))
}

async fn in_time(names: impl Future<Output = Option<Vec<String>>>) -> Vec<String> {
    let names = tokio::time::timeout(PATIENCE, names).await;
    names.ok().flatten().unwrap_or_default()
}
