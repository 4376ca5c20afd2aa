//! Namespaces of one's own.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::wire::{At as _, Failure, Step};

/// Where the system says from which port on anybody may listen. It is of the network namespace.
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Moves this process into a network and a mount namespace of its own, and into a user namespace
/// where that is what it takes. Gives whether it took one.
pub(super) fn make() -> Result<bool, Failure> {
    let port = fs::read_to_string(FIRST_FREE_PORT);
    let both = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    // Root needs no user namespace, in which other users' files would be nobody's.
    let user = unshare(both).is_err();
    if user {
        let (uid, gid) = (geteuid(), getegid());
        unshare(both | CloneFlags::CLONE_NEWUSER).at(Step::User)?;
        map("uid_map", uid.as_raw()).at(Step::User)?;
        // Without privilege the groups must stay as they are. They do: files see them all.
        fs::write("/proc/self/setgroups", "deny").at(Step::User)?;
        map("gid_map", gid.as_raw()).at(Step::User)?;
    }
    // What is mounted outside appears here still; nothing goes the other way.
    let slave = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SLAVE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).at(Step::Namespaces)?;
    // Fails where /proc/sys is read-only; then the usual limit holds.
    if let Ok(port) = port {
        let _ = fs::write(FIRST_FREE_PORT, port);
    }
    Ok(user)
}

/// Lets an id mean the same inside as outside.
fn map(file: &str, id: u32) -> io::Result<()> {
    fs::write(format!("/proc/self/{file}"), format!("{id} {id} 1"))
}
