//! The way to the relay in the session's namespace: which of its pods there are, what proves kdev
//! to them, and what carries the tunnels.

mod carrier;
mod find;
mod secret;
mod transport;

use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use self::carrier::Carrier;
use self::find::Fit;
use self::transport::{Choice, ToRelay};
use super::catalog::LabelledPod;
use super::install::rollout::Standing;
use super::install::site::{InstallError, Site};
use super::install::{NAME, NAME_LABEL};
use super::portforward::PortForward;
use super::{Catalog, Client, ClientError, listing};
use crate::dial::DialError;
use crate::intercept::reverse::{Event, Reverse};
use crate::task::Tasks;
use crate::tunnel::Role;
use crate::tunnel::pool::{Pool, Probe, Replicas, Transport, Trouble};

/// What selects the relay's pods.
pub(super) fn selector() -> String {
    format!("{NAME_LABEL}={NAME}")
}

/// Keeps tunnels to the relay of the client's namespace, for as long as the pool lives. With
/// `only`, over no other carrier. Nothing is waited for.
#[must_use]
pub fn start(
    client: &Client,
    catalog: &Catalog,
    pods: &PortForward,
    only: Option<Carrier>,
    tasks: &Tasks,
) -> Pool {
    let (transport, replicas) = way(client, catalog, pods, only, tasks, Role::Forward);
    Pool::start(transport, replicas)
}

/// Keeps reverse tunnels to that relay, likewise. What happens is told to `events`.
#[must_use]
pub fn reverse(
    client: &Client,
    catalog: &Catalog,
    pods: &PortForward,
    only: Option<Carrier>,
    tasks: &Tasks,
    events: mpsc::Sender<Event>,
) -> Reverse {
    let (transport, replicas) = way(client, catalog, pods, only, tasks, Role::Reverse);
    Reverse::start(transport, replicas, events)
}

/// Reverse tunnels to the relay's pods of this moment in `namespace`, for asking what it knows.
/// Close it when it was asked. `None` where no pod of a relay runs there.
///
/// # Errors
/// When its pods cannot be listed.
pub async fn reverse_at(
    client: &Client,
    pods: &PortForward,
    namespace: &str,
) -> Result<Option<Reverse>, ClientError> {
    let found = listing::labelled(client, namespace, &selector()).await?;
    let names = find::choose(&found, namespace, Fit::Ready).names;
    if names.is_empty() {
        return Ok(None);
    }
    let (_, replicas) = watch::channel(Replicas::of(names));
    let (events, _) = mpsc::channel(1);
    let transport = ToRelay::new(
        client.clone(),
        pods.clone(),
        namespace.to_owned(),
        Choice::Forward,
        Role::Reverse,
    );
    Ok(Some(Reverse::start(transport, replicas, events)))
}

/// The way to the relay's replicas, for tunnels of `role`, and which there are.
fn way(
    client: &Client,
    catalog: &Catalog,
    pods: &PortForward,
    only: Option<Carrier>,
    tasks: &Tasks,
    role: Role,
) -> (impl Transport, watch::Receiver<Replicas>) {
    let namespace = client.namespace().to_owned();
    let found = watch::Sender::new(Replicas::default());
    let replicas = found.subscribe();
    tasks.spawn(find::follow(
        client.clone(),
        catalog.clone(),
        namespace.clone(),
        found,
        match role {
            Role::Forward => Fit::Ready,
            Role::Reverse => Fit::Running,
        },
    ));
    let choice = only.map_or_else(|| Choice::Best(catalog.clone()), Choice::Only);
    let transport = ToRelay::new(client.clone(), pods.clone(), namespace, choice, role);
    (transport, replicas)
}

/// What is said where no relay is installed.
#[must_use]
pub fn missing(namespace: &str) -> DialError {
    DialError::NotFound {
        what: format!("a relay in namespace {namespace}"),
        fix: "`kdev install` puts one there".to_owned(),
    }
}

/// The relay that is installed in the client's namespace, and why it has no ready pods; none where there is none.
///
/// # Errors
/// When the API server cannot be asked, or the user may not look at Deployments.
pub async fn standing(client: &Client) -> Result<Option<Standing>, InstallError> {
    let site = Site {
        client: client.clone(),
        namespace: client.namespace().to_owned(),
    };
    site.standing().await
}

/// What is said where a relay is installed and has no pod that could serve.
#[must_use]
pub fn unready(namespace: &str, standing: &Standing) -> DialError {
    DialError::Unreachable {
        target: format!("the relay in namespace {namespace}"),
        reason: format!("it is {standing}"),
        fix: again(namespace),
    }
}

/// What helps a relay that is installed and not ready.
#[must_use]
pub fn again(namespace: &str) -> String {
    format!("once that is mended, `kdev install -n {namespace}` has it try again")
}

/// The relay's pods in the client's namespace, asked for once.
///
/// # Errors
/// When the API server cannot be reached or the user may not list them.
pub async fn pods(client: &Client) -> Result<Vec<LabelledPod>, ClientError> {
    listing::labelled(client, client.namespace(), &selector()).await
}

/// What tells why its pods do not run.
#[must_use]
pub fn describe(namespace: &str) -> String {
    format!(
        "`kubectl -n {namespace} describe pods -l {}` says why",
        selector()
    )
}

/// Whether the user may read the Secret that admits tunnels, and it is one.
///
/// # Errors
/// Why not.
pub async fn readable(client: &Client) -> Result<(), DialError> {
    let read = secret::read(client, client.namespace(), Role::Forward).await;
    read.map(drop).map_err(|trouble| trouble.error)
}

/// Makes a tunnel to the pod `replica` over `carrier`, measures it, and says goodbye.
///
/// # Errors
/// Why there is none.
pub async fn probe(
    client: &Client,
    pods: &PortForward,
    replica: &str,
    carrier: Carrier,
) -> Result<Probe, Trouble> {
    let namespace = client.namespace().to_owned();
    let transport = ToRelay::new(
        client.clone(),
        pods.clone(),
        namespace,
        Choice::Only(carrier),
        Role::Forward,
    );
    crate::tunnel::pool::probe(&transport, replica).await
}

/// Tunnels to the pod `replica` in `namespace` and to no other. Close the pool when it was used.
///
/// # Errors
/// Why there is no tunnel within `limit`.
pub async fn to_one(
    client: &Client,
    pods: &PortForward,
    namespace: &str,
    replica: &str,
    limit: Duration,
) -> Result<Pool, DialError> {
    let transport = ToRelay::new(
        client.clone(),
        pods.clone(),
        namespace.to_owned(),
        Choice::Forward,
        Role::Forward,
    );
    let (_, replicas) = watch::channel(Replicas::of([replica]));
    let pool = Pool::start(transport, replicas);
    match pool.ready(limit).await {
        Ok(()) => Ok(pool),
        Err(error) => {
            pool.close(Duration::ZERO).await;
            Err(error)
        }
    }
}
