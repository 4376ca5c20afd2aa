//! Keeps a tunnel to each replica, makes spare ones where bulk is in the way, and lets go of what
//! is not needed any more.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use super::load::Load;
use super::transport::{Carried, Transport, Trouble};
use super::tunnels::{Shared, Tunnel};
use crate::dial::DialError;
use crate::io::{Io, Prefixed};
use crate::task::Tasks;
use crate::tunnel::{
    Driver, Ended, HandshakeError, Health, Hello, RefusalCode, Role, connect, open,
};

/// Longest pause before the first try after a loss: just enough that a team's kdevs do not come
/// back in one instant.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries where time may heal: new dials must work within 2 s after the
/// path is back, connecting included.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause where somebody has to do something first.
const LASTING_PAUSE: Duration = Duration::from_secs(10);
/// How long after a tunnel was lost a refusal is taken for one that passes: an API server that has
/// just started refuses what it will admit once it has read its roles, and a gateway before it may
/// refuse what it cannot ask about.
const STARTING: Duration = Duration::from_secs(30);
/// A tunnel that lived so long was a good one: the next try comes at once.
const GOOD_TUNNEL: Duration = Duration::from_secs(5);
/// When a second attempt is made beside one that hangs, and again after each: packets that were
/// sent into a path that was down are sent again later and later.
const HEDGE_AFTER: Duration = Duration::from_millis(1500);
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
    let mut replicas = shared.replicas.clone();
    let mut keepers: BTreeMap<Arc<str>, Tasks> = BTreeMap::new();
    loop {
        let names = replicas.borrow_and_update().names.clone();
        keepers.retain(|name, keeper| {
            let stays = names.contains(name);
            if !stays {
                // Its tunnel goes on as long as it has streams.
                keeper.kill();
                shared.forget(name);
            }
            stays
        });
        for name in names {
            keepers.entry(name.clone()).or_insert_with(|| {
                let keeper = shared.keepers.child();
                keeper.spawn(keep(shared.clone(), transport.clone(), name));
                keeper
            });
        }
        shared.changed();
        if replicas.changed().await.is_err() {
            // Whoever found them is gone; those that are known are kept.
            std::future::pending::<()>().await;
        }
    }
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
        match hedged(&shared, &*transport, &replica).await {
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

fn longer(pause: Option<Duration>) -> Duration {
    let pause = pause.map_or(FIRST_PAUSE, |pause| pause * 2);
    pause.clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

type Made<T> = (Tunnel, Driver<Prefixed<T>>);

/// Connects; beside an attempt that hangs others are made, the first that succeeds wins.
async fn hedged<T: Transport>(
    shared: &Shared,
    transport: &T,
    replica: &Arc<str>,
) -> Result<Made<T::Io>, Trouble> {
    let mut first = pin!(attempt(shared, transport, replica));
    let others = async {
        loop {
            sleep(HEDGE_AFTER).await;
            let again = attempt(shared, transport, replica);
            if let Ok(Ok(made)) = timeout(HEDGE_AFTER, again).await {
                return made;
            }
        }
    };
    tokio::select! {
        biased;
        result = &mut first => result,
        made = others => Ok(made),
    }
}

/// Connects once.
pub(super) async fn attempt<T: Transport>(
    shared: &Shared,
    transport: &T,
    replica: &Arc<str>,
) -> Result<Made<T::Io>, Trouble> {
    let unreachable = |reason: String| DialError::Unreachable {
        target: format!("relay {replica}"),
        reason,
        fix: String::new(),
    };
    let Some(share) = shared.budget.share() else {
        return Err(Trouble::passing(unreachable("too many tunnels".to_owned())));
    };
    let Carried {
        io,
        secret,
        carrier,
    } = transport.open(replica).await?;
    let hello = Hello::new(Role::Forward, shared.session);
    let (io, program) = connect(io, &hello, &secret)
        .await
        .map_err(|error| judge(error, unreachable))?;
    let opened = open(io, share).await;
    let (opener, driver) =
        opened.map_err(|error| Trouble::passing(unreachable(error.to_string())))?;
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

/// Whether time may heal a failed handshake.
fn judge(error: HandshakeError, unreachable: impl Fn(String) -> DialError) -> Trouble {
    match &error {
        // What carries the stream may say better why it ended.
        HandshakeError::Io(io) => Trouble::passing(match DialError::from_io(io) {
            Some(cause) => cause.clone(),
            None => unreachable(error.to_string()),
        }),
        HandshakeError::TimedOut => Trouble::passing(unreachable(error.to_string())),
        HandshakeError::Refused(refusal) if refusal.code == RefusalCode::Busy => {
            Trouble::passing(unreachable(error.to_string()))
        }
        HandshakeError::Refused(_)
        | HandshakeError::NotARelay
        | HandshakeError::Impostor
        | HandshakeError::Version { .. } => Trouble::lasting(unreachable(error.to_string())),
    }
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
