//! The helper that joins the namespaces and becomes the command.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::Helped;

/// The arguments of the helper that becomes `argv` in the namespaces of these descriptors.
#[must_use]
pub fn arguments(net: i32, mnt: i32, user: Option<i32>, argv: &[OsString]) -> Vec<OsString> {
    let user = user.map_or_else(|| NONE.to_owned(), |user| user.to_string());
    let own = [
        super::HELPER.to_owned(),
        ENTER.to_owned(),
        net.to_string(),
        mnt.to_string(),
        user,
    ];
    own.into_iter()
        .map(OsString::from)
        .chain(argv.iter().cloned())
        .collect()
}

/// The name of this helper among the arguments.
pub(super) const ENTER: &str = "enter";
/// In place of a descriptor.
const NONE: &str = "-";

/// Becomes the command; what is given is why it did not.
pub(super) fn run(args: &[OsString]) -> Helped {
    let [net, mnt, user, program, rest @ ..] = args else {
        return Helped::Broken("its arguments are incomplete".to_owned());
    };
    let here = std::env::current_dir();
    let joined = [
        (user, CloneFlags::CLONE_NEWUSER),
        (net, CloneFlags::CLONE_NEWNET),
        (mnt, CloneFlags::CLONE_NEWNS),
    ]
    .into_iter()
    .filter(|(descriptor, _)| *descriptor != NONE)
    .try_for_each(|(descriptor, kind)| join(descriptor, kind));
    if let Err(error) = joined {
        return Helped::Broken(format!("its namespaces cannot be joined: {error}"));
    }
    // Joining leads to the root folder. Where the folder was removed, that is as good as any.
    if let Ok(here) = here {
        let _ = std::env::set_current_dir(here);
    }
    let error = Command::new(program).args(rest).exec();
    Helped::NotStarted {
        program: program.clone(),
        error,
    }
}

/// Joins the namespace of an inherited descriptor, which ends here.
fn join(descriptor: &OsString, kind: CloneFlags) -> io::Result<()> {
    let number = descriptor
        .to_str()
        .and_then(|text| text.parse::<i32>().ok());
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    setns(File::open(format!("/proc/self/fd/{number}"))?, kind)?;
    Ok(nix::unistd::close(number)?)
}
