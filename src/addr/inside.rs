//! Addresses that mean kdev itself, in networks whose connections come to it.

use std::net::Ipv4Addr;

/// The address by which a program reaches this machine's loopback, whatever listens in its own: from
/// the block of IETF protocols (RFC 6890), which no network uses, and unassigned there.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 11);
/// The name of that address.
pub const HOST_NAME: &str = "host.kdev.internal";
/// Where kdev answers questions about names: in the loopback block, where nothing else listens.
pub const DNS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 53);
