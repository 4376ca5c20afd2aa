//! Keeps a tunnel to each replica, makes spare ones where bulk is in the way, and lets go of what
//! is not needed any more.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use super::attempt::{
    FIRST_PAUSE, GOOD_TUNNEL, Greeted, LASTING_PAUSE, STARTING, greet, hedged, keep_each, longer,
    unreachable,
};
use super::load::Load;
use super::transport::{Transport, Trouble};
use super::tunnels::{Shared, Tunnel};
use crate::io::{Io, Prefixed};
use crate::tunnel::{Driver, Ended, Health, Role, open};

/// How often it is looked for tunnels that nobody needs.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Looks without a stream after which a spare tunnel goes: 30 s, since bulk comes in rows.
const IDLE_LOOKS: u32 = 3;
/// How often tunnels are asked whether they are full: apps that stop reading fill one slowly.
const FULL_LOOK: Duration = Duration::from_millis(500);
/// Pause after a spare tunnel could not be made.
const SPARE_PAUSE: Duration = Duration::from_secs(2);

/// Follows the replicas as they come and go.
pub(super) async fn follow<T: Transport>(shared: Arc<Shared>, transport: Arc<T>) {
    let came = |name| keep(shared.clone(), transport.clone(), name);
    // A tunnel goes on as long as it has streams.
    let went = |name: &str| shared.forget(name);
    let replicas = shared.replicas.clone();
    keep_each(replicas, &shared.keepers, came, went, || shared.changed()).await;
}

/// Keeps a tunnel to one replica.
async fn keep<T: Transport>(shared: Arc<Shared>, transport: Arc<T>, replica: Arc<str>) {
    let mut changes = shared.follow();
    // None for the very first try.
    let mut pause = None;
    let mut worked: Option<Instant> = None;
    loop {
        while shared.has_fit(&replica) {
            if changes.changed().await.is_err() {
                return;
            }
            worked = Some(Instant::now());
        }
        if let Some(pause) = pause {
            // Jitter, since one event may have cut the tunnels of many.
            sleep(Duration::mul_f64(pause, 0.5 + rand::random::<f64>() / 2.0)).await;
            if shared.has_fit(&replica) {
                continue;
            }
        }
        let began = Instant::now();
        match hedged(|| attempt(&shared, &*transport, &replica)).await {
            Ok((tunnel, driver)) => {
                tracing::debug!(
                    %replica, carrier = tunnel.carrier, relay = tunnel.program,
                    took = ?began.elapsed(), "tunnel open"
                );
                let mut health = tunnel.opener.follow();
                launch(&shared, tunnel, driver);
                // One that is lost at once must not be made again and again at full speed.
                let end = health.wait_for(|h| *h != Health::Sound);
                let short = timeout(GOOD_TUNNEL, end).await.is_ok();
                pause = Some(match short {
                    true => longer(pause),
                    false => FIRST_PAUSE,
                });
            }
            Err(mut trouble) => {
                trouble.passing |= worked.is_some_and(|at| at.elapsed() < STARTING);
                let passing = trouble.passing;
                let error = trouble.error.to_string();
                if shared.note(&replica, trouble) && !passing {
                    tracing::info!(%replica, error, "no tunnel until somebody mends it");
                } else {
                    tracing::debug!(%replica, error, "no tunnel");
                }
                pause = Some(match passing {
                    true => longer(pause),
                    false => LASTING_PAUSE,
                });
            }
        }
    }
}

type Made<T> = (Tunnel, Driver<Prefixed<T>>);

/// Connects once.
pub(super) async fn attempt<T: Transport>(
    shared: &Shared,
    transport: &T,
    replica: &Arc<str>,
) -> Result<Made<T::Io>, Trouble> {
    let Some(share) = shared.budget.share() else {
        return Err(unreachable(replica, "too many tunnels".to_owned()));
    };
    let Greeted {
        io,
        program,
        carrier,
    } = greet(transport, replica, &shared.identity, Role::Forward).await?;
    let opened = open(io, share).await;
    let (opener, driver) = opened.map_err(|error| unreachable(replica, error.to_string()))?;
    let tunnel = Tunnel {
        replica: replica.clone(),
        opener,
        carrier,
        program,
        since: SystemTime::now(),
        load: Arc::new(Load::new(shared.grow.clone())),
        idle_looks: 0.into(),
        full: false.into(),
    };
    Ok((tunnel, driver))
}

/// Moves the tunnel's bytes until it ends, and lets streams go there.
fn launch<T: Io>(shared: &Arc<Shared>, tunnel: Tunnel, driver: Driver<T>) {
    let tunnel = Arc::new(tunnel);
    let mut health = tunnel.opener.follow();
    shared.add(tunnel.clone());
    // It ends when the last handle is gone, so none is kept here.
    let (gone, replica) = (Arc::downgrade(&tunnel), tunnel.replica.clone());
    let this = shared.clone();
    shared.tasks.spawn(async move {
        let mut run = pin!(driver.run());
        let ended = loop {
            tokio::select! {
                ended = &mut run => break ended,
                Ok(()) = health.changed() => this.changed(),
            }
        };
        if let Some(tunnel) = gone.upgrade() {
            this.remove(&tunnel);
        }
        match ended {
            Ended::Closed => tracing::debug!(%replica, "tunnel closed"),
            Ended::Silent | Ended::Broken(_) => {
                tracing::debug!(%replica, why = %ended, "tunnel lost");
            }
        }
    });
}

/// Makes another tunnel whenever bulk moves through all of them, or they are full.
pub(super) async fn spares<T: Transport>(shared: Arc<Shared>, transport: Arc<T>) {
    loop {
        shared.grow.notified().await;
        while let Some(replica) = shared.wants_spare() {
            match attempt(&shared, &*transport, &replica).await {
                Ok((tunnel, driver)) => {
                    tracing::debug!(%replica, "another tunnel, beside busy ones");
                    launch(&shared, tunnel, driver);
                }
                Err(trouble) => {
                    tracing::debug!(%replica, error = %trouble.error, "no tunnel beside busy ones");
                    sleep(SPARE_PAUSE).await;
                }
            }
        }
    }
}

/// Lets go of tunnels that nobody needs any more.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        sleep(SWEEP_INTERVAL).await;
        shared.sweep(IDLE_LOOKS);
    }
}

/// Looks for tunnels that are full.
pub(super) async fn look(shared: Arc<Shared>) {
    loop {
        sleep(FULL_LOOK).await;
        shared.look_for_full();
    }
}
