//! The helper that has the command's connects wait for kdev, and becomes the command.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::super::wire::{Answer, Failure, Step, Talk};
use super::super::{HELPER, Helped};
use super::call::Calls;
use super::{filter, kernel};

/// The name of this helper among the arguments.
pub(in crate::capture) const HOLD: &str = "hold";

/// The arguments of the helper that becomes `argv`, and sends the descriptor of its calls to the socket
/// of that number.
#[must_use]
pub fn arguments(socket: RawFd, argv: &[OsString]) -> Vec<OsString> {
    let own = [HELPER.to_owned(), HOLD.to_owned(), socket.to_string()];
    own.into_iter()
        .map(OsString::from)
        .chain(argv.iter().cloned())
        .collect()
}

/// The calls of a command that was started with the other end of `talk`. Waits for the helper.
///
/// # Errors
/// When it does not come so far, or the system does not allow it.
pub fn received(talk: &mut Talk) -> io::Result<Calls> {
    match talk.receive::<Answer>()? {
        Some((Answer::Done, descriptors)) => {
            let calls = descriptors.into_iter().next().map(Calls::from);
            calls.ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        Some((Answer::Failed(failure), _)) => Err(io::Error::other(failure.reason)),
        Some((Answer::Made(_), _)) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Becomes the command; what is given is why it did not.
pub(in crate::capture) fn run(args: &[OsString]) -> Helped {
    let [socket, program, rest @ ..] = args else {
        return Helped::Broken("its arguments are incomplete".to_owned());
    };
    if let Err(error) = hold(socket) {
        return Helped::Broken(format!("its connections cannot be caught: {error}"));
    }
    let error = Command::new(program).args(rest).exec();
    Helped::NotStarted {
        program: program.clone(),
        error,
    }
}

fn hold(socket: &OsString) -> io::Result<()> {
    let number = socket.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    let kdev = Talk::from(kernel::inherited(number)?);
    // Without kdev nothing answers the calls of the command, which then has no network.
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    prctl::set_no_new_privs()?;
    let installed = match filter::filter() {
        Some(filter) => kernel::install(&filter),
        None => Err(io::ErrorKind::Unsupported.into()),
    };
    match installed {
        Ok(calls) => kdev.send(&Answer::Done, &[calls.as_fd()]),
        Err(error) => {
            // What is told here says more than its end does.
            let _ = kdev.send(&Answer::Failed(Failure::new(Step::Filter, &error)), &[]);
            Err(error)
        }
    }
}
