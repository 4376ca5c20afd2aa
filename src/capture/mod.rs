//! A network namespace whose every connection comes to kdev, made without root.
//!
//! A program in it has no network but `lo`. All addresses lead there (a local default route), and a
//! rule of netfilter hands every TCP connection and datagram to sockets that kdev holds from
//! outside (TPROXY: nothing is translated, so a socket's own address is where the program wanted to
//! go). There is no TUN device and no TCP in user space.
//!
//! Two helpers stand between, each a single thread of this program:
//!
//! ```text
//! kdev ──spawns──▶ agent    makes the namespaces, hands the sockets out, lives as long as kdev
//!      ──spawns──▶ enter    joins them and becomes the command: same process id, terminal, group
//! ```
//!
//! * [`agent`]: the first helper, and what kdev can ask of it
//! * [`enter`]: the second one
//! * [`wire`]: what kdev and the agent say to each other
//! * `namespace`, `network`, `rules`, `files`: the steps of the agent
//! * `netlink`: messages to the kernel

pub mod agent;
pub mod enter;
pub mod wire;

mod files;
mod namespace;
mod netlink;
mod network;
mod rules;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The first argument of kdev that makes it a helper.
pub const HELPER: &str = "__capture";

/// The address that programs in the namespace have, besides the loopback ones: the dummy address of
/// RFC 7600, which nobody can have. Without one, `getaddrinfo` with `AI_ADDRCONFIG` finds no address
/// at all.
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6, a unique local one (RFC 4193).
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd6b, 0x6465, 0x7600, 0, 0, 0, 0, 1);
/// The address by which a program reaches this machine's loopback, whatever listens in its own: from
/// the block of IETF protocols (RFC 6890), which no network uses, and unassigned there.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 11);
/// The name of that address.
pub const HOST_NAME: &str = "host.kdev.internal";
/// Where kdev answers questions about names: in the loopback block, where nothing else listens.
pub const DNS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 53);
/// Where connections to elsewhere are accepted; nobody has to know it.
const CATCH_V4: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// What became of a helper.
#[derive(Debug)]
pub enum Helped {
    /// It has done its work, and ends with this code.
    Ended(u8),
    /// The command did not start.
    NotStarted {
        /// The command's first word.
        program: OsString,
        /// Why.
        error: io::Error,
    },
    /// It did not come to the command.
    Broken(String),
}

/// Does the work of a helper where `args`, the program's name excluded, ask for one. Where that is
/// to become the command, it returns only if it fails.
///
/// Call it before there is a second thread: only a process with one may join a user namespace.
#[must_use]
pub fn helper(args: &[OsString]) -> Option<Helped> {
    let [name, what, rest @ ..] = args else {
        return None;
    };
    if name != HELPER {
        return None;
    }
    Some(match what.to_str() {
        Some(agent::AGENT) => Helped::Ended(agent::run()),
        Some(enter::ENTER) => enter::run(rest),
        _ => Helped::Broken("it is no helper's name".to_owned()),
    })
}
