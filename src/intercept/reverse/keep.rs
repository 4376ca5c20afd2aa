//! Keeps a reverse tunnel to each replica.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Shared, line};
use crate::io::Prefixed;
use crate::tunnel::pool::attempt::{
    FIRST_PAUSE, GOOD_TUNNEL, LASTING_PAUSE, STARTING, greet, hedged, keep_each, longer,
    unreachable,
};
use crate::tunnel::pool::{Transport, Trouble};
use crate::tunnel::{Health, Listener, Role, serve};

/// Follows the replicas as they come and go.
pub(super) async fn follow<T: Transport>(shared: Arc<Shared>, transport: Arc<T>) {
    let came = |name| keep(shared.clone(), transport.clone(), name);
    // A tunnel goes on as long as the relay wants: a pod that drains has callers.
    let went = |name: &str| drop(shared.lock().troubles.remove(name));
    let replicas = shared.replicas.clone();
    keep_each(replicas, &shared.keepers, came, went, || shared.changed()).await;
}

/// Keeps a tunnel to one replica.
async fn keep<T: Transport>(shared: Arc<Shared>, transport: Arc<T>, replica: Arc<str>) {
    let mut pause = None;
    let mut lost: Option<Instant> = None;
    loop {
        if let Some(pause) = pause {
            // Jitter, since one event may have cut the tunnels of many.
            sleep(Duration::mul_f64(pause, 0.5 + rand::random::<f64>() / 2.0)).await;
        }
        match hedged(|| attempt(&shared, &*transport, &replica)).await {
            Ok(listener) => {
                let mut health = listener.follow();
                shared
                    .tasks
                    .spawn(line::run(shared.clone(), replica.clone(), listener));
                // One that has fallen silent may come back, and another one is made beside it.
                let began = Instant::now();
                drop(health.wait_for(|h| *h != Health::Sound).await);
                lost = Some(Instant::now());
                // One that is lost at once must not be made again and again at full speed.
                pause = Some(match began.elapsed() < GOOD_TUNNEL {
                    true => longer(pause),
                    false => FIRST_PAUSE,
                });
            }
            Err(mut trouble) => {
                trouble.passing |= lost.is_some_and(|at| at.elapsed() < STARTING);
                tracing::debug!(%replica, error = %trouble.error, "no reverse tunnel");
                pause = Some(match trouble.passing {
                    true => longer(pause),
                    false => LASTING_PAUSE,
                });
                shared.lock().troubles.insert(replica.clone(), trouble);
                shared.changed();
            }
        }
    }
}

/// Connects once.
async fn attempt<T: Transport>(
    shared: &Shared,
    transport: &T,
    replica: &Arc<str>,
) -> Result<Listener<Prefixed<T::Io>>, Trouble> {
    let Some(share) = shared.budget.share() else {
        return Err(unreachable(replica, "too many tunnels".to_owned()));
    };
    let greeted = greet(transport, replica, &shared.identity, Role::Reverse).await?;
    let served = serve(greeted.io, share).await;
    served.map_err(|error| unreachable(replica, error.to_string()))
}
