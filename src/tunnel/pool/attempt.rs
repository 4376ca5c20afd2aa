//! One try to get a tunnel to a replica, of either role, and when to make the next one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::transport::{Carried, Replicas, Transport, Trouble};
use crate::dial::DialError;
use crate::io::Prefixed;
use crate::task::Tasks;
use crate::tunnel::{HandshakeError, Identity, RefusalCode, Role, connect};

/// Longest pause before the first try after a loss: just enough that a team's kdevs do not come
/// back in one instant.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries where time may heal: new dials must work within 2 s after the
/// path is back, connecting included.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause where somebody has to do something first.
pub(crate) const LASTING_PAUSE: Duration = Duration::from_secs(10);
/// How long after a tunnel was lost a refusal is taken for one that passes: an API server that has
/// just started refuses what it will admit once it has read its roles, and a gateway before it may
/// refuse what it cannot ask about.
pub(crate) const STARTING: Duration = Duration::from_secs(30);
/// A tunnel that lived so long was a good one: the next try comes at once.
pub(crate) const GOOD_TUNNEL: Duration = Duration::from_secs(5);
/// When a second attempt is made beside one that hangs, and again after each: packets that were
/// sent into a path that was down are sent again later and later.
const HEDGE_AFTER: Duration = Duration::from_millis(1500);

/// The pause after one more failure.
pub(crate) fn longer(pause: Option<Duration>) -> Duration {
    let pause = pause.map_or(FIRST_PAUSE, |pause| pause * 2);
    pause.clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

/// Runs what `came` makes for each replica, as a task of `keepers`, from when it comes until it goes,
/// which is told to `went`; `changed` hears of both. Ends with the task that it is part of.
pub(crate) async fn keep_each<F>(
    mut replicas: watch::Receiver<Replicas>,
    keepers: &Tasks,
    came: impl Fn(Arc<str>) -> F,
    went: impl Fn(&str),
    changed: impl Fn(),
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut kept: BTreeMap<Arc<str>, Tasks> = BTreeMap::new();
    loop {
        let names = replicas.borrow_and_update().names.clone();
        kept.retain(|name, keeper| {
            let stays = names.contains(name);
            if !stays {
                keeper.kill();
                went(name);
            }
            stays
        });
        for name in names {
            kept.entry(name.clone()).or_insert_with(|| {
                let keeper = keepers.child();
                keeper.spawn(came(name));
                keeper
            });
        }
        changed();
        if replicas.changed().await.is_err() {
            // Whoever found them is gone; those that are known are kept.
            std::future::pending::<()>().await;
        }
    }
}

/// A stream to a relay that has proved itself.
pub(crate) struct Greeted<T> {
    pub(crate) io: Prefixed<T>,
    /// The relay's program version.
    pub(crate) program: String,
    pub(crate) carrier: &'static str,
}

/// Connects to `replica` and proves both sides.
pub(crate) async fn greet<T: Transport>(
    transport: &T,
    replica: &str,
    identity: &Identity,
    role: Role,
) -> Result<Greeted<T::Io>, Trouble> {
    let Carried {
        io,
        secret,
        carrier,
    } = transport.open(replica).await?;
    let connected = connect(io, role, identity, &secret).await;
    let (io, program) = connected.map_err(|error| judge(&error, replica))?;
    Ok(Greeted {
        io,
        program,
        carrier,
    })
}

/// Makes an attempt; beside one that hangs others are made, and the first that succeeds wins.
pub(crate) async fn hedged<M, F>(attempt: impl Fn() -> F) -> Result<M, Trouble>
where
    F: Future<Output = Result<M, Trouble>>,
{
    let mut first = pin!(attempt());
    let others = async {
        loop {
            sleep(HEDGE_AFTER).await;
            if let Ok(Ok(made)) = timeout(HEDGE_AFTER, attempt()).await {
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

/// A failure that time may heal.
pub(crate) fn unreachable(replica: &str, reason: String) -> Trouble {
    Trouble::passing(DialError::Unreachable {
        target: format!("relay {replica}"),
        reason,
        fix: String::new(),
    })
}

/// Whether time may heal a failed handshake.
fn judge(error: &HandshakeError, replica: &str) -> Trouble {
    let text = || unreachable(replica, error.to_string());
    match error {
        // What carries the stream may say better why it ended.
        HandshakeError::Io(io) => match DialError::from_io(io) {
            Some(cause) => Trouble::passing(cause.clone()),
            None => text(),
        },
        HandshakeError::TimedOut => text(),
        HandshakeError::Refused(refusal) if refusal.code == RefusalCode::Busy => text(),
        HandshakeError::Refused(_)
        | HandshakeError::NotTheOwner(_)
        | HandshakeError::NotARelay
        | HandshakeError::Impostor
        | HandshakeError::Version { .. } => Trouble::lasting(text().error),
    }
}
