//! Trying one tunnel, for whoever wants to know what works and why not.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::budget;
use super::keep::attempt;
use super::transport::{Replicas, Transport, Trouble};
use super::tunnels::Shared;
use crate::task::Tasks;

/// How long a ping may take.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// How often its answer is looked for: a small part of any network's round trip.
const PING_LOOK: Duration = Duration::from_millis(1);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// A tunnel that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The relay's program version.
    pub program: String,
    /// From nothing to a tunnel: connection, TLS, upgrade and the mutual proof.
    pub took: Duration,
    /// A ping and back through the open tunnel; `None` where it was not answered in time.
    pub round_trip: Option<Duration>,
}

/// Makes a tunnel to `replica`, measures, and says goodbye. Opens no stream. As long as
/// [`Transport::open`] and the handshake may take; dropping the future closes all.
///
/// # Errors
/// Why there is no tunnel.
pub async fn probe<T: Transport>(transport: &T, replica: &str) -> Result<Probe, Trouble> {
    let nobody = watch::Sender::new(Replicas::default()).subscribe();
    let shared = Shared::new(nobody, budget(), Tasks::new());
    let (replica, began) = (Arc::from(replica), Instant::now());
    let (tunnel, driver) = attempt(&shared, transport, &replica).await?;
    let took = began.elapsed();
    let mut run = pin!(driver.run());
    let measured = async {
        loop {
            if let Some(round_trip) = tunnel.opener.round_trip() {
                return round_trip;
            }
            tokio::time::sleep(PING_LOOK).await;
        }
    };
    let round_trip = tokio::select! {
        measured = tokio::time::timeout(PING_LIMIT, measured) => measured.ok(),
        _ = &mut run => None,
    };
    let program = tunnel.program.clone();
    // The driver says goodbye once nobody could open a stream any more.
    drop(tunnel);
    let _ = tokio::time::timeout(GOODBYE, run).await;
    Ok(Probe {
        program,
        took,
        round_trip,
    })
}
