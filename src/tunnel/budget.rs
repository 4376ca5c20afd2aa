//! One bound for what all tunnels of a process hold in memory.

use std::sync::Arc;

use tokio::sync::watch;

/// Most bytes that one tunnel may have on the way to this side, and so in its memory: enough for
/// 1 Gbit/s over 80 ms, twice, since a window is only widened when half of it was read.
const WIDEST: u32 = 32 << 20;
/// Bytes of one stream that may be on the way, unless a budget says otherwise: 600 Mbit/s over
/// 20 ms.
const STREAM_WINDOW: u32 = 2 << 20;
/// Fewest, below which a tunnel is of little use.
const NARROWEST: u32 = 256 << 10;
/// What a tunnel may have waiting to be written, as a part of its window.
const BACKLOG_SHARE: u32 = 16;
/// Fewest bytes of a backlog: one full frame.
const SMALLEST_BACKLOG: u32 = 64 << 10;

/// The bytes that a process grants to all of its tunnels together.
#[derive(Clone, Debug)]
pub struct Budget {
    total: u32,
    stream: u32,
    parts: u32,
    tunnels: Arc<watch::Sender<u32>>,
}

impl Budget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self {
            total,
            stream: STREAM_WINDOW,
            parts: 1,
            tunnels: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The same, with `bytes` of each stream on the way at most, and less where that is more than
    /// one of `parts` of a new tunnel's window: so many streams that nobody reads fill it.
    #[must_use]
    pub fn with_streams(self, bytes: u32, parts: u32) -> Self {
        let stream = bytes;
        Self {
            stream,
            parts,
            ..self
        }
    }

    /// A share for one more tunnel; the others get less. `None` when so many tunnels leave too
    /// little for each.
    #[must_use]
    pub fn share(&self) -> Option<Share> {
        let (mut fits, most) = (false, self.total / NARROWEST);
        self.tunnels.send_if_modified(|tunnels| {
            fits = *tunnels < most;
            *tunnels += u32::from(fits);
            fits
        });
        fits.then(|| Share {
            budget: self.clone(),
            changes: self.tunnels.subscribe(),
        })
    }

    /// Bytes that may be on the way to this side in each tunnel that there is.
    #[must_use]
    pub fn window(&self) -> u32 {
        (self.total / self.tunnels().max(1)).clamp(NARROWEST, WIDEST)
    }

    /// How many tunnels have a share.
    #[must_use]
    pub fn tunnels(&self) -> u32 {
        *self.tunnels.borrow()
    }
}

/// One tunnel's part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    changes: watch::Receiver<u32>,
}

impl Share {
    /// Bytes that may be on the way to this side in all streams of the tunnel together.
    pub(super) fn window(&mut self) -> u32 {
        self.changes.mark_unchanged();
        self.budget.window()
    }

    /// Bytes that may be on the way to this side in one stream.
    pub(super) fn stream_window(&self) -> u32 {
        self.budget
            .stream
            .min(self.budget.window() / self.budget.parts)
    }

    /// Bytes that may wait to be written to the tunnel.
    pub(super) fn backlog(window: u32) -> u32 {
        (window / BACKLOG_SHARE).max(SMALLEST_BACKLOG)
    }

    /// Completes when the window may have changed.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as this share's own budget.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.tunnels.send_modify(|tunnels| *tunnels -= 1);
    }
}
