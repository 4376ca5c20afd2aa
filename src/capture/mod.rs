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
//! * [`held`]: what there is where no namespace is to be had
//! * [`wire`]: what kdev and the agent say to each other
//! * `namespace`, `network`, `rules`, `files`: the steps of the agent
//! * [`container`]: the same for the network that a container has, where only some of it is caught
//! * `nft`, `sets`, `marked`, `netlink`, `sockets`: messages to the kernel, and sockets for what is caught

#[cfg(feature = "client")]
pub mod agent;
pub mod container;
#[cfg(feature = "client")]
pub mod enter;
#[cfg(feature = "client")]
pub mod held;
#[cfg(feature = "client")]
pub mod wire;

#[cfg(feature = "client")]
mod files;
mod marked;
#[cfg(feature = "client")]
mod namespace;
mod netlink;
#[cfg(feature = "client")]
mod network;
mod nft;
#[cfg(feature = "client")]
mod rules;
#[cfg(feature = "client")]
mod sets;
mod sockets;

#[cfg(feature = "client")]
use std::ffi::OsString;
#[cfg(feature = "client")]
use std::io;
use std::net::Ipv4Addr;
#[cfg(feature = "client")]
use std::net::Ipv6Addr;

pub use crate::addr::inside::DNS;
#[cfg(feature = "client")]
pub use crate::addr::inside::{HOST_NAME, HOST_V4};

/// The first argument of kdev that makes it a helper.
#[cfg(feature = "client")]
pub const HELPER: &str = "__capture";

/// The address that programs in the namespace have, besides the loopback ones: the dummy address of
/// RFC 7600, which nobody can have. Without one, `getaddrinfo` with `AI_ADDRCONFIG` finds no address
/// at all.
#[cfg(feature = "client")]
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6, a unique local one (RFC 4193).
#[cfg(feature = "client")]
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd6b, 0x6465, 0x7600, 0, 0, 0, 0, 1);
/// Where connections to elsewhere are accepted; nobody has to know it.
const CATCH_V4: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// What became of a helper.
#[cfg(feature = "client")]
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
#[cfg(feature = "client")]
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
        Some(held::hold::HOLD) => held::hold::run(rest),
        Some(held::TRY) => held::tries(),
        _ => Helped::Broken("it is no helper's name".to_owned()),
    })
}
