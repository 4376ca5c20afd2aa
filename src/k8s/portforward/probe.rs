//! Trying one wire form on one pod, for whoever wants to know what works and why not.

use std::time::{Duration, Instant};

use super::form::{Form, Handshake};
use super::open::{Opened, start};
use crate::addr::Namespaced;
use crate::dial::PodPort;
use crate::k8s::pods::{Pod, Pods};
use crate::k8s::{Client, ClientError, UpgradeError};
use crate::task::Tasks;

/// How long a ping may take: as long as a session's connection would wait for one.
pub const PING_LIMIT: Duration = Duration::from_secs(2);
/// How often the answer to the ping is looked for: a small part of any network's round trip.
const PING_LOOK: Duration = Duration::from_millis(1);
/// Pods that are looked at for a ready one. Where a hundred are not ready, none will be.
const LOOKED_AT: usize = 100;
/// The port in the request where the pod declares none; only [`Form::V4`] dials it.
const ANY_PORT: u16 = 80;

/// A form that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// From the request to the upgraded connection: TCP, TLS, and the API server's way to the
    /// node.
    pub handshake: Duration,
    /// A ping to the node and back on the upgraded connection. `None` where nobody answered, and
    /// for [`Form::V4`], which has no pings.
    pub round_trip: Option<Duration>,
}

/// Why a form does not work.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no upgraded connection.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// There is one, to something else than was asked for.
    #[error("{0}")]
    Answer(String),
}

/// Connects to the pod of `at` by `form`, measures, and says goodbye. Opens no stream to the pod,
/// except for [`Form::V4`], where the request itself dials `at.port`.
///
/// # Errors
/// What the API server, or something before it, answered instead.
pub async fn probe(
    client: &Client,
    at: &PodPort,
    form: Form,
    tasks: &Tasks,
) -> Result<Probe, ProbeError> {
    let began = Instant::now();
    let handshake = Handshake::new(form, &at.pod, at.port);
    let upgrade = client.upgrade(handshake.request.clone()).await?;
    handshake
        .check(&upgrade.headers)
        .map_err(ProbeError::Answer)?;
    let opened = began.elapsed();
    let target = at.pod.to_string();
    let round_trip = match start(form, upgrade.io, &target, Default::default(), tasks) {
        // Dropping the stream ends its connection.
        Opened::Stream(_) => None,
        Opened::Connection(connection) => {
            // A connection begins with a ping.
            let answered = async {
                loop {
                    if let Some(round_trip) = connection.round_trip() {
                        return round_trip;
                    }
                    tokio::time::sleep(PING_LOOK).await;
                }
            };
            let round_trip = tokio::time::timeout(PING_LIMIT, answered).await.ok();
            connection.close();
            round_trip
        }
    };
    Ok(Probe {
        handshake: opened,
        round_trip,
    })
}

/// Ready pods of `namespace`, a hundred at most, with a port that each declares.
///
/// # Errors
/// When pods cannot be listed.
pub async fn ready_pods(client: &Client, namespace: &str) -> Result<Vec<PodPort>, ClientError> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?limit={LOOKED_AT}&fieldSelector=status.phase%3DRunning"
    );
    let list: Pods = client.get(&path).await?;
    let ready = list.items.into_iter().filter(Pod::is_ready);
    Ok(ready
        .map(|pod| PodPort {
            port: pod.port().unwrap_or(ANY_PORT),
            pod: Namespaced::new(namespace, &pod.metadata.name),
            uid: pod.metadata.uid,
        })
        .collect())
}
