//! The signals that end a session.
//!
//! One wish to end may come as several signals: a runner (npm, make, `timeout`) forwards the
//! terminal's SIGINT to children that have it already, a shell sends SIGHUP beside the kernel, a
//! supervisor sends SIGTERM right after. So what comes within [`SAME`] of the first is the same wish;
//! only a later one means that what is left shall not be waited for.

use std::time::Duration;

use futures_util::FutureExt as _;
use nix::sys::signal::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::run::child::is_ignored;

/// How long after the first signal others are taken for the same one. Runners forward within
/// milliseconds; who presses Ctrl-C again to get away does so for as long as it takes.
pub(crate) const SAME: Duration = Duration::from_secs(1);

/// Waits for the signals that ask a program to end.
#[derive(Debug)]
pub(crate) struct Ending {
    signals: [(Signal, u8); 2],
    /// SIGHUP, unless it is ignored: what `nohup` starts goes on without its terminal.
    hangup: Option<(Signal, u8)>,
    /// When the end was asked for first, and last.
    asked: Option<(Instant, Instant)>,
}

impl Ending {
    /// Takes the signals over from now on.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let take = |kind: SignalKind| {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX);
            Ok::<_, std::io::Error>((signal(kind)?, number))
        };
        // Asked first: a handler takes the place of what was there.
        let hangup = match is_ignored(Number::SIGHUP) {
            true => None,
            false => Some(take(SignalKind::hangup())?),
        };
        Ok(Self {
            signals: [
                take(SignalKind::interrupt())?,
                take(SignalKind::terminate())?,
            ],
            hangup,
            asked: None,
        })
    }

    /// Completes with the number of the first signal. Dropping the future loses none.
    pub(crate) async fn asked(&mut self) -> u8 {
        let number = self.next().await;
        let now = Instant::now();
        let (first, _) = self.asked.unwrap_or((now, now));
        self.asked = Some((first, now));
        number
    }

    /// Completes when the end, which began at `since` or with the first signal before that, is
    /// asked for again: [`SAME`] later at the earliest. Dropping the future loses nothing that
    /// counts.
    pub(crate) async fn again(&mut self, since: Instant) {
        let (first, last) = self.asked.unwrap_or((since, since));
        let counts = since.min(first) + SAME;
        // The end had begun by itself, and the signal that came first asks for nothing less.
        if last >= counts {
            return;
        }
        if Instant::now() < counts {
            sleep_until(counts).await;
            while self.next().now_or_never().is_some() {}
        }
        self.next().await;
    }

    async fn next(&mut self) -> u8 {
        let [(interrupt, a), (terminate, b)] = &mut self.signals;
        let hangup = async {
            match &mut self.hangup {
                Some((hangup, number)) => {
                    hangup.recv().await;
                    *number
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Of two that came at once the same one is always the first.
            biased;
            _ = interrupt.recv() => *a,
            _ = terminate.recv() => *b,
            number = hangup => number,
        }
    }
}

/// Does `work`, unless a signal asks for the end: its number then. Whoever calls says what is left.
///
/// # Errors
/// When the system refuses signal handlers.
pub(crate) async fn unless_told<T>(
    work: impl Future<Output = T>,
) -> std::io::Result<Result<T, u8>> {
    let mut ending = Ending::listen()?;
    Ok(tokio::select! {
        biased;
        done = work => Ok(done),
        number = ending.asked() => Err(number),
    })
}
