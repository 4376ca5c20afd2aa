//! A command in this machine's own network, whose connects wait for kdev ([`crate::capture::held`]).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use tokio::sync::mpsc;
use tracing::debug;

use super::child::Command;
use crate::capture::held::{Call, OWN_PROGRAM, hold};
use crate::capture::wire::Talk;

/// Connects that may wait to be looked at. More wait in the kernel.
const WAITING: usize = 256;

/// What a command is started with so that its connects wait.
#[derive(Debug)]
pub struct Hold {
    socket: OwnedFd,
}

impl Hold {
    /// One for a command, and where its connects come to.
    ///
    /// # Errors
    /// As the system says.
    pub fn new() -> io::Result<(Self, mpsc::Receiver<Call>)> {
        let (talk, socket) = Talk::pair()?;
        let (calls, receiver) = mpsc::channel(WAITING);
        // A thread of its own: the kernel may have it wait at any time. It ends with the command, or with
        // this process.
        std::thread::Builder::new()
            .name("connects".to_owned())
            .spawn(move || {
                if let Err(error) = pass_on(talk, &calls) {
                    debug!(%error, "the command's connects do not come any more");
                }
            })?;
        Ok((Self { socket }, receiver))
    }

    /// The command `argv`, for one start.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn command(&self, argv: &[OsString], env: Vec<(String, String)>) -> io::Result<Command> {
        let socket = self.socket.try_clone()?;
        Ok(Command {
            program: OWN_PROGRAM.into(),
            args: hold::arguments(socket.as_raw_fd(), argv),
            env,
            inherit: vec![socket],
        })
    }
}

fn pass_on(mut talk: Talk, to: &mpsc::Sender<Call>) -> io::Result<()> {
    let calls = hold::received(&mut talk)?;
    while let Some(call) = calls.next(None)? {
        // Where nobody is left to serve it, it goes on.
        if to.blocking_send(call).is_err() {
            debug!("a connect that nobody serves any more");
        }
    }
    Ok(())
}
