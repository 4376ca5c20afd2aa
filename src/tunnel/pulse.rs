//! The heartbeat of a tunnel: pings where it is quiet, death where it stays quiet, and changes
//! of its window.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::backlog::Backlog;
use super::budget::Share;
use super::health::{Health, Vitals};
use super::life::{DEAD_AFTER, Life, PING_EVERY};

/// How often the silence is looked at: death is noticed so much late at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
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
    look: Interval,
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
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            pings,
            asked: None,
            measuring: false,
            life,
            look,
            change: change(share),
            backlog,
            vitals,
            silent: false,
        }
    }

    /// Ready when the driver has to do something; call again after that.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        if let Poll::Ready((share, window)) = self.change.poll_unpin(cx) {
            self.change = change(share);
            // Registers for the next change; a window that changes again meanwhile is seen then.
            cx.waker().wake_by_ref();
            self.backlog.limit(Share::backlog(window));
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
        while self.look.poll_tick(cx).is_ready() {
            let silence = self.life.silence();
            if silence >= DEAD_AFTER {
                return Poll::Ready(Beat::Dead);
            }
            let quiet = silence >= PING_EVERY;
            if quiet
                && self
                    .asked
                    .is_some_and(|asked| asked.elapsed() >= self.late())
            {
                self.silent = true;
                self.vitals.set(Health::Silent);
            }
            if (quiet || !self.measuring)
                && self.asked.is_none()
                && let Some(pings) = &mut self.pings
            {
                // Fails on a connection that has ended, which its driver sees itself.
                let sent = pings.send_ping(Ping::opaque()).is_ok();
                self.asked = sent.then(Instant::now);
                self.measuring |= sent;
            }
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
