//! The way to the relay in the session's namespace: which of its pods there are, what proves kdev
//! to them, and what carries the tunnels.

mod carrier;
mod find;
mod secret;
mod transport;

use tokio::sync::watch;

pub use self::carrier::Carrier;
use self::transport::ToRelay;
use super::portforward::PortForward;
use super::{Catalog, Client};
use crate::dial::DialError;
use crate::task::Tasks;
use crate::tunnel::pool::{Pool, Replicas};

/// The name of the relay's Deployment and of the Secret that admits forward tunnels.
pub const NAME: &str = "kdev-relay";
/// The label of the relay's pods.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/name", NAME);
/// The same as a selector.
const SELECTOR: &str = "app.kubernetes.io/name=kdev-relay";

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
    let namespace = client.namespace().to_owned();
    let found = watch::Sender::new(Replicas::default());
    let replicas = found.subscribe();
    tasks.spawn(find::follow(
        client.clone(),
        catalog.clone(),
        namespace.clone(),
        found,
    ));
    let transport = ToRelay::new(client.clone(), pods.clone(), namespace, only);
    Pool::start(transport, replicas)
}

/// What is said where no relay is installed.
#[must_use]
pub fn missing(namespace: &str) -> DialError {
    DialError::NotFound {
        what: format!("a relay in namespace {namespace}"),
        fix: "`kdev install` puts one there".to_owned(),
    }
}
