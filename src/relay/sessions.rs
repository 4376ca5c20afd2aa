//! The kdev processes that have reverse tunnels here, and how long they are waited for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::rule::control::Tell;
use crate::tunnel::{Health, Opener, SessionId};

/// How long requests are held for a session whose last tunnel broke: it may be back at once, after
/// an API server's restart for example. All that come meanwhile wait until the same moment, and
/// nobody waits after it.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// How long the claims of a session without a tunnel are kept: a laptop that wakes resumes.
pub(super) const SILENT: Duration = Duration::from_secs(600);
/// How often a session is told that others want to be it: at once, and then so that its owner sees
/// it goes on and still reads everything else.
const WARN_EACH: Duration = Duration::from_secs(10);
/// How long it may take until a session whose tunnel breaks is seen to be without it: both are
/// noticed at the same moment, by different tasks.
const NOTICED: Duration = Duration::from_millis(20);
/// Messages that wait for one tunnel's control stream.
const TELLS: usize = 64;

/// A kdev process.
#[derive(Debug)]
pub(super) struct Session {
    /// Which one.
    pub(super) id: SessionId,
    link: Mutex<Link>,
    changed: Notify,
    losses: AtomicU64,
    intrusions: Mutex<Intrusions>,
}

/// Attempts of others to be this session.
#[derive(Debug, Default)]
struct Intrusions {
    /// Those that the owner does not know of.
    untold: u64,
    told: Option<Instant>,
}

#[derive(Debug, Default)]
struct Link {
    tunnels: Vec<Tunnel>,
    down: Option<Down>,
}

#[derive(Debug)]
struct Tunnel {
    number: u64,
    opener: Opener,
    tell: mpsc::Sender<Tell>,
}

/// When the last tunnel ended, and until when requests wait for another one.
#[derive(Clone, Copy, Debug)]
struct Down {
    since: Instant,
    hold: Instant,
}

impl Link {
    /// The fittest first: kdev makes another tunnel where it does not trust the one that it has, and
    /// what goes into one that is silent may never arrive.
    fn by_fitness(&self) -> impl Iterator<Item = &Tunnel> {
        let newest_first = || self.tunnels.iter().rev();
        let is_sound = |tunnel: &&Tunnel| tunnel.opener.health() == Health::Sound;
        let sound = newest_first().filter(is_sound);
        sound.chain(newest_first().filter(move |tunnel| !is_sound(tunnel)))
    }
}

impl Session {
    pub(super) fn new(id: SessionId) -> Self {
        Self {
            id,
            link: Mutex::default(),
            changed: Notify::new(),
            losses: AtomicU64::new(0),
            intrusions: Mutex::default(),
        }
    }

    /// A tunnel is open. What it is to tell comes out of the result.
    pub(super) fn up(&self, number: u64, opener: Opener) -> mpsc::Receiver<Tell> {
        let (tell, tells) = mpsc::channel(TELLS);
        let mut link = self.lock();
        link.tunnels.push(Tunnel {
            number,
            opener,
            tell,
        });
        link.down = None;
        drop(link);
        self.changed.notify_waiters();
        tells
    }

    /// A tunnel has ended. One that was `silent` has kept its callers waiting already.
    pub(super) fn down(&self, number: u64, silent: bool) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        let mut link = self.lock();
        link.tunnels.retain(|tunnel| tunnel.number != number);
        if link.tunnels.is_empty() {
            let since = Instant::now();
            let hold = if silent { since } else { since + HOLD };
            link.down = Some(Down { since, hold });
        }
        drop(link);
        self.changed.notify_waiters();
    }

    /// Whether it has a tunnel.
    pub(super) fn is_live(&self) -> bool {
        !self.lock().tunnels.is_empty()
    }

    /// Whether it has been without a tunnel for so long that requests no longer wait for one.
    pub(super) fn is_silent(&self) -> bool {
        let down = self.lock().down;
        down.is_some_and(|down| down.hold <= Instant::now())
    }

    /// Whether it has been without a tunnel for so long that its claims end.
    pub(super) fn is_gone(&self) -> bool {
        let down = self.lock().down;
        down.is_some_and(|down| down.since.elapsed() >= SILENT)
    }

    /// How many of its tunnels have ended: whoever compares two counts knows whether one did.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Whether a request failed because a tunnel did: one has ended since there were so many
    /// [`Session::losses`], or there is none.
    pub(super) async fn is_lost(&self, losses: u64) -> bool {
        let lost = || self.losses() != losses || !self.is_live();
        if !lost() {
            tokio::time::sleep(NOTICED).await;
        }
        lost()
    }

    /// A tunnel, once there is one; `None` when nobody is to wait any longer.
    pub(super) async fn opener(&self) -> Option<Opener> {
        let asked = Instant::now();
        loop {
            // Before looking, so that no change is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let until = {
                let link = self.lock();
                let mut open = link.by_fitness().map(|tunnel| &tunnel.opener);
                if let Some(fittest) = open.find(|opener| opener.takes_streams()) {
                    return Some(fittest.clone());
                }
                // One that has just ended, or is about to, is still among them.
                link.down.map_or(asked + HOLD, |down| down.hold)
            };
            if timeout_at(until, changed).await.is_err() {
                return None;
            }
        }
    }

    /// Somebody else wanted to be this session and was refused. Says how often that was since its
    /// owner was told, where that is due again.
    pub(super) fn intruded(&self) -> Option<u64> {
        let mut seen = self
            .intrusions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.untold += 1;
        if seen.told.is_some_and(|at| at.elapsed() < WARN_EACH) {
            return None;
        }
        seen.told = Some(Instant::now());
        let attempts = std::mem::take(&mut seen.untold);
        self.tell(&Tell::Intruded { attempts });
        Some(attempts)
    }

    /// Tells it something, through whichever tunnel takes it; whether one does.
    pub(super) fn tell(&self, tell: &Tell) -> bool {
        let link = self.lock();
        let mut tunnels = link.by_fitness();
        tunnels.any(|tunnel| tunnel.tell.try_send(tell.clone()).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
