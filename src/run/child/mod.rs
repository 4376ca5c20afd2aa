//! The child process: kdev stands beside it and does not show.
//!
//! The child inherits stdin, stdout, stderr and the terminal, and stays in kdev's process group,
//! so that job control works as if it were started by the shell itself: Ctrl-C, Ctrl-\ and Ctrl-Z
//! reach both, `fg` continues both, and reading from the terminal is allowed. kdev outlives it,
//! passes on the signals that only kdev got ([`signals`]), and ends with its exit code.
//!
//! Should kdev itself be killed with SIGKILL, the child goes on without a proxy.

mod command;
#[cfg(unix)]
mod signals;

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

pub use command::{Command, SpawnError, look_up};
#[cfg(unix)]
pub use signals::is_ignored;

/// A running child.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    /// When it was told to end.
    told: Option<Instant>,
    #[cfg(unix)]
    signals: signals::Signals,
}

impl Child {
    /// Starts `command`. From now on kdev does not die of SIGINT, SIGQUIT, SIGTERM, SIGHUP,
    /// SIGUSR1 and SIGUSR2: [`Child::wait`] passes them on.
    pub fn spawn(command: Command) -> Result<Self, SpawnError> {
        // Before the child exists, or a signal in between would end kdev alone.
        #[cfg(unix)]
        let signals = signals::Signals::listen().map_err(SpawnError::Signals)?;
        let inner = command.spawn()?;
        Ok(Self {
            inner,
            told: None,
            #[cfg(unix)]
            signals,
        })
    }

    /// The process id, until the child has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.inner.id()
    }

    /// Waits for the end of the child, passing signals on, and gives its exit code as a shell
    /// does: 128 + n where signal n ended it. Cancel-safe.
    pub async fn wait(&mut self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.wait_until_told(true).await? {
                return Ok(code);
            }
        }
    }

    /// Waits as [`Child::wait`]; gives `None` when the child is told to end, unless that is `known`.
    async fn wait_until_told(&mut self, known: bool) -> io::Result<Option<u8>> {
        #[cfg(unix)]
        loop {
            let pid = self.inner.id();
            tokio::select! {
                status = self.inner.wait() => return status.map(exit_code).map(Some),
                signal = self.signals.next() => {
                    if let Some(pid) = pid {
                        signals::pass_on(signal, pid);
                    }
                    if signals::tells_to_end(signal) {
                        self.told.get_or_insert_with(Instant::now);
                        if !known {
                            return Ok(None);
                        }
                    }
                }
            }
        }
        #[cfg(not(unix))]
        loop {
            let _ = known;
            // The console gives Ctrl-C to every process that is attached; the child decides.
            tokio::select! {
                status = self.inner.wait() => return status.map(exit_code).map(Some),
                _ = tokio::signal::ctrl_c() => {}
            }
        }
    }

    /// As [`Child::wait`], but gives `None` once the child was told to end and `grace` is over since;
    /// that counts anew from then on. Cancel-safe.
    pub async fn wait_within(&mut self, grace: Duration) -> io::Result<Option<u8>> {
        loop {
            let until = self.told.map(|told| told + grace);
            // Told meanwhile, it is waited for anew.
            let told = self.told.is_some();
            tokio::select! {
                biased;
                code = self.wait_until_told(told) => if let Some(code) = code? {
                    return Ok(Some(code));
                },
                () = sleep_until(until.unwrap_or_else(Instant::now)), if told => {
                    self.told = Some(Instant::now());
                    return Ok(None);
                }
            }
        }
    }

    /// Asks the child to end, as SIGTERM does that is passed on.
    pub fn end(&mut self) {
        self.told.get_or_insert_with(Instant::now);
        self.ask_to_end();
    }

    /// Kills the child.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.inner.start_kill()
    }

    fn ask_to_end(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.inner.id() {
            signals::send(nix::sys::signal::Signal::SIGTERM, pid);
        }
        #[cfg(not(unix))]
        // Fails only when the child has ended.
        let _ = self.inner.start_kill();
    }
}

impl Drop for Child {
    /// A child that nobody waits for any more is asked to end: it has lost its proxy.
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return u8::try_from(128 + signal).unwrap_or(u8::MAX);
        }
    }
    // Unix has eight bits; Windows codes that do not fit are failures all the same.
    status
        .code()
        .map_or(1, |code| u8::try_from(code).unwrap_or(u8::MAX))
}
