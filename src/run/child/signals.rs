//! Which signals go on to the child, and which it has already.

use std::fs::File;
use std::io;
use std::task::Poll;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use tokio::signal::unix::{SignalKind, signal};

/// The signals that would end kdev and may be meant for the child. SIGWINCH, SIGTSTP and SIGCONT
/// are not among them: terminals and shells send these to the whole group.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Whether a signal leaves no doubt that the child shall end. SIGINT and SIGHUP mean to many programs
/// something else.
pub(super) fn tells_to_end(signal: Signal) -> bool {
    signal == Signal::SIGTERM
}

/// The signals that kdev receives.
#[derive(Debug)]
pub(super) struct Signals {
    streams: Vec<(Signal, tokio::signal::unix::Signal)>,
}

impl Signals {
    /// Receives signals from now on, instead of dying of them.
    ///
    /// What is ignored already stays ignored, for the child too: a handler would turn `nohup kdev
    /// run` and `kdev run &` of a script into children that die of SIGHUP and SIGINT.
    pub(super) fn listen() -> io::Result<Self> {
        let streams = PASSED_ON
            .into_iter()
            .filter(|s| !is_ignored(*s))
            .map(|s| Ok((s, signal(SignalKind::from_raw(s as i32))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { streams })
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Whether this process ignores a signal, as `nohup` has it; no, where the system does not say.
/// Asking `sigaction` itself is not possible in safe code.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    ignored & (1 << (signal as i32 - 1)) != 0
}

/// Gives the child a signal that kdev received, unless it got the same one from the terminal.
pub(super) fn pass_on(signal: Signal, pid: u32) {
    let from_keyboard = matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && in_foreground();
    tracing::debug!(%signal, from_keyboard, "signal received");
    if !from_keyboard {
        send(signal, pid);
    }
}

/// Whether keys typed at the terminal signal our group, child included. A SIGINT that somebody
/// sends to kdev alone meanwhile looks the same, and is not passed on: a child that is interrupted
/// twice for one Ctrl-C (and so skips its own clean-up) would be worse.
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(&tty) == Ok(getpgrp()))
}

pub(super) fn send(signal: Signal, pid: u32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    // Fails only when the child has ended; then there is nobody to tell.
    let _ = kill(Pid::from_raw(pid), signal);
}
