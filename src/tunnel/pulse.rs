//! The heartbeat of a tunnel: pings where it is quiet, death where it stays quiet, and changes
//! of its window.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::backlog::Backlog;
use super::budget::Share;
use super::health::{Health, Vitals};
use super::life::{DEAD_AFTER, Life, PING_EVERY};

/// How often a silence is looked at that a ping did not end.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// A ping that is not answered for so long is late, where the round trip is not known to be long.
const LATE: Duration = Duration::from_millis(400);
/// The same as a multiple of the round trip.
const LATE_ROUND_TRIPS: u32 = 4;

/// What a tunnel's driver has to do.
pub(super) enum Beat {
    /// The other side is gone.
    Dead,
    /// The tunnel may have so many bytes on the way to this side from here on.
    Window(u32),
}

/// The heartbeat of a tunnel.
pub(super) struct Pulse {
    pings: Option<PingPong>,
    /// When the ping went out that was not answered yet.
    asked: Option<Instant>,
    /// A first ping has measured the round trip, or will.
    measuring: bool,
    life: Life,
    look: Pin<Box<Sleep>>,
    change: BoxFuture<'static, (Share, u32)>,
    backlog: Arc<Backlog>,
    vitals: Arc<Vitals>,
    silent: bool,
}

impl Pulse {
    pub(super) fn new(
        pings: Option<PingPong>,
        life: Life,
        share: Share,
        backlog: Arc<Backlog>,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self {
            pings,
            asked: None,
            measuring: false,
            life,
            look: Box::pin(sleep(Duration::ZERO)),
            change: change(share),
            backlog,
            vitals,
            silent: false,
        }
    }

    /// Ready when the driver has to do something; call again after that.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        if let Poll::Ready((share, window)) = self.change.poll_unpin(cx) {
            self.backlog.limit(share.backlog());
            self.change = change(share);
            // Registers for the next change; a window that changes again meanwhile is seen then.
            cx.waker().wake_by_ref();
            return Poll::Ready(Beat::Window(window));
        }
        if let Some(pings) = &mut self.pings
            && let Some(asked) = self.asked
            && let Poll::Ready(pong) = pings.poll_pong(cx)
        {
            self.asked = None;
            if pong.is_ok() {
                self.vitals.measured(asked.elapsed());
            }
        }
        while self.look.as_mut().poll(cx).is_ready() {
            if self.life.is_over() {
                return Poll::Ready(Beat::Dead);
            }
            let silence = self.life.silence();
            let pause = self.look_at(silence);
            // Not a look too late; where something is still on its way, the usual ones do.
            let left = DEAD_AFTER
                .checked_sub(silence)
                .filter(|left| !left.is_zero());
            let next = Instant::now() + left.map_or(pause, |left| pause.min(left).max(LOOK_PAUSE));
            self.look.as_mut().reset(next);
        }
        Poll::Pending
    }

    /// Bytes may have come. Call it after the connection was looked at.
    pub(super) fn heard(&mut self) {
        if self.silent && self.life.silence() < PING_EVERY {
            self.silent = false;
            self.vitals.set(Health::Sound);
        }
    }

    /// Asks after a silence, and says when to look again.
    fn look_at(&mut self, silence: Duration) -> Duration {
        let quiet = silence >= PING_EVERY;
        if (quiet || !self.measuring)
            && self.asked.is_none()
            && let Some(pings) = &mut self.pings
        {
            // Fails on a connection that has ended, which its driver sees itself.
            let sent = pings.send_ping(Ping::opaque()).is_ok();
            self.asked = sent.then(Instant::now);
            self.measuring |= sent;
        }
        if !quiet {
            return (PING_EVERY - silence).max(LOOK_PAUSE);
        }
        let Some(asked) = self.asked else {
            return LOOK_EVERY;
        };
        let left = self.late().saturating_sub(asked.elapsed());
        if left.is_zero() {
            self.silent = true;
            self.vitals.set(Health::Silent);
            return LOOK_EVERY;
        }
        left.max(LOOK_PAUSE)
    }

    fn late(&self) -> Duration {
        let usual = self.vitals.round_trip().unwrap_or_default();
        LATE.max(usual * LATE_ROUND_TRIPS)
    }
}

impl Pulse {
    /// The tunnel has ended: whoever waits to write shall see that.
    pub(super) fn release(&self) {
        self.vitals.set(Health::Ended);
        self.backlog.release();
    }
}

fn change(mut share: Share) -> BoxFuture<'static, (Share, u32)> {
    async move {
        share.changed().await;
        let window = share.window();
        (share, window)
    }
    .boxed()
}
