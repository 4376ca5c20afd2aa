//! Addresses and routes: everything leads to `lo`.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use super::netlink::{Attributes, Message, NLM_F_CREATE, Netlink};
use super::{OWN_V4, OWN_V6};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
/// An address that needs no search for another who has it.
const IFA_F_NODAD: u8 = 2;
const IFF_UP: u32 = 1;
/// The number that `lo` has in every namespace.
const LO: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Unique local addresses, which clusters have where the world's are out of reach.
const ULA: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);

/// Leads all of IPv4 to `lo`, and of IPv6 all or the unique local addresses. Gives whether there is
/// IPv6 at all.
pub(super) fn lead_to_lo(world_v6: bool) -> io::Result<bool> {
    // NETLINK_ROUTE is number 0.
    let netlink = Netlink::open(None)?;
    netlink.send(vec![up()])?;
    netlink.send(vec![address(OWN_V4.into()), route(None, OWN_V4.into())])?;
    let range = (!world_v6).then_some(ULA);
    // A kernel without IPv6 refuses, and then nothing is to be caught there.
    let v6 = netlink.send(vec![address(OWN_V6.into()), route(range, OWN_V6.into())]);
    Ok(v6.is_ok())
}

fn up() -> Message {
    let fixed = [
        [0; 4],
        LO.to_ne_bytes(),
        IFF_UP.to_ne_bytes(),
        IFF_UP.to_ne_bytes(),
    ];
    Message::new(RTM_NEWLINK, 0, &fixed.concat(), &Attributes::default())
}

fn address(ip: IpAddr) -> Message {
    let (family, bytes) = family(ip);
    let prefix = u8::try_from(bytes.len() * 8).unwrap_or_default();
    let fixed = [[family, prefix, IFA_F_NODAD, 0], LO.to_ne_bytes()];
    let attributes = Attributes::default()
        .put(IFA_LOCAL, &bytes)
        .put(IFA_ADDRESS, &bytes);
    Message::new(RTM_NEWADDR, NLM_F_CREATE, &fixed.concat(), &attributes)
}

/// A route to `lo`, for all of the family of `source` or a range of IPv6.
fn route(range: Option<(Ipv6Addr, u8)>, source: IpAddr) -> Message {
    let (family, source) = family(source);
    let length = range.map_or(0, |(_, length)| length);
    let scope = if family == AF_INET { RT_SCOPE_HOST } else { 0 };
    let fixed = [
        [family, length, 0, 0],
        [RT_TABLE_LOCAL, RTPROT_BOOT, scope, RTN_LOCAL],
        [0; 4],
    ];
    let mut attributes = Attributes::default()
        .put(RTA_OIF, &LO.to_ne_bytes())
        .put(RTA_PREFSRC, &source);
    if let Some((first, _)) = range {
        attributes = attributes.put(RTA_DST, &first.octets());
    }
    Message::new(RTM_NEWROUTE, NLM_F_CREATE, &fixed.concat(), &attributes)
}

fn family(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    }
}
