//! The heartbeat of a tunnel: pings where it is quiet, death where it stays quiet, and changes
//! of its window.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use h2::{Ping, PingPong};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::backlog::Backlog;
use super::budget::Share;
use super::life::{DEAD_AFTER, Life, PING_EVERY};

/// How often the silence is looked at: death is noticed so much late at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
    asked: bool,
    life: Life,
    look: Interval,
    change: BoxFuture<'static, (Share, u32)>,
    backlog: Arc<Backlog>,
}

impl Pulse {
    pub(super) fn new(
        pings: Option<PingPong>,
        life: Life,
        share: Share,
        backlog: Arc<Backlog>,
    ) -> Self {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            pings,
            asked: false,
            life,
            look,
            change: change(share),
            backlog,
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
            && self.asked
            && pings.poll_pong(cx).is_ready()
        {
            self.asked = false;
        }
        while self.look.poll_tick(cx).is_ready() {
            let silence = self.life.silence();
            if silence >= DEAD_AFTER {
                return Poll::Ready(Beat::Dead);
            }
            if silence >= PING_EVERY
                && !self.asked
                && let Some(pings) = &mut self.pings
            {
                // Fails on a connection that has ended, which its driver sees itself.
                self.asked = pings.send_ping(Ping::opaque()).is_ok();
            }
        }
        Poll::Pending
    }
}

impl Pulse {
    /// The tunnel has ended: whoever waits to write shall see that.
    pub(super) fn release(&self) {
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
