//! The signals that end a session.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the signals that ask a program to end.
#[derive(Debug)]
pub(crate) struct Ending {
    signals: [(Signal, u8); 3],
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
        Ok(Self {
            signals: [
                take(SignalKind::interrupt())?,
                take(SignalKind::terminate())?,
                take(SignalKind::hangup())?,
            ],
        })
    }

    /// Completes with the number of the next such signal.
    pub(crate) async fn next(&mut self) -> u8 {
        let [(interrupt, a), (terminate, b), (hangup, c)] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => *a,
            _ = terminate.recv() => *b,
            _ = hangup.recv() => *c,
        }
    }
}
