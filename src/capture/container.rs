//! The network of a container, of which only what may be the cluster's is caught.
//!
//! It has addresses and routes of its own, which stay as they are. What programs send to elsewhere
//! gets a mark, by which it is led to `lo` and caught there:
//!
//! ```text
//! chain output:     from kdev's own sockets; answers to who came from outside;
//!                   to loopback, to all, to the networks that it is part of     accept
//!                   TCP, UDP                                                    mark
//! chain prerouting: marked, by lo                                               tproxy, accept
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use socket2::{Socket, Type};

use super::netlink::Message;
use super::nft::{AT_LEAST, Chain, EQUAL, IPV4, IPV6, OWN_MARK, Rule, TCP, Table, UDP};
use super::sockets::{bound, datagrams, inside, listener, port};
use super::{CATCH_V4, DNS, marked};

/// The mark of what is caught.
const CAUGHT: u32 = 0x6b64_6577;
/// The number that `lo` has in every namespace.
const LO: u32 = 1;

/// Sockets that take what is caught, none of them blocking.
#[derive(Debug)]
pub struct Sockets {
    /// Accept connections whose own address is where they wanted to go.
    pub tcp: Vec<Socket>,
    /// Receive datagrams, each with the address where it wanted to go.
    pub udp: Vec<Socket>,
    /// Accepts questions about names.
    pub dns_tcp: Socket,
    /// Receives questions about names.
    pub dns_udp: Socket,
}

/// The network that this process is in. What is caught there is caught as long as this lives.
#[derive(Debug)]
pub struct Network {
    v4: u16,
    v6: Option<u16>,
    near: Vec<(IpAddr, u8)>,
    table: Option<Table>,
}

impl Network {
    /// Begins to catch.
    ///
    /// # Errors
    /// What the kernel refused, as a part of a sentence.
    pub fn make() -> Result<(Self, Sockets), String> {
        let at = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let has_v6 = marked::lead_to_lo(CAUGHT).map_err(at("routes by mark"))?;
        let sockets = at("its sockets");
        let tcp = listener((CATCH_V4, 0).into()).map_err(sockets)?;
        let v4 = port(&tcp).map_err(sockets)?;
        let udp = datagrams((CATCH_V4, v4).into()).map_err(sockets)?;
        let (mut tcp, mut udp) = (vec![tcp], vec![udp]);
        let mut v6 = None;
        if has_v6 {
            let at = SocketAddr::from((Ipv6Addr::LOCALHOST, v4));
            tcp.push(listener(at).map_err(sockets)?);
            udp.push(datagrams(at).map_err(sockets)?);
            v6 = Some(v4);
        }
        let dns = SocketAddr::from((DNS, 53));
        let dns_tcp = listener(dns).map_err(at("the port for names"))?;
        let dns_udp = bound(dns, Type::DGRAM).map_err(at("the port for names"))?;
        let mut network = Self {
            v4,
            v6,
            near: Vec::new(),
            table: None,
        };
        network.look().map_err(at("rules of nf_tables"))?;
        let sockets = Sockets {
            tcp,
            udp,
            dns_tcp,
            dns_udp,
        };
        Ok((network, sockets))
    }

    /// Looks which networks it is part of, and changes the rules where those have changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn look(&mut self) -> io::Result<()> {
        let near = near()?;
        if self.table.is_some() && near == self.near {
            return Ok(());
        }
        // One after the other, since both have the same name.
        self.table = None;
        self.table = Some(Table::make(|| batch(self.v4, self.v6, &near))?);
        self.near = near;
        Ok(())
    }
}

/// A socket that sends datagrams from `address`, whoever has that.
///
/// # Errors
/// As the system says.
pub fn answering(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = inside(address.is_ipv6(), true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket of the container's own, which nothing catches.
///
/// # Errors
/// As the system says.
pub fn own(v6: bool, datagram: bool) -> io::Result<Socket> {
    let socket = inside(v6, datagram)?;
    match v6 {
        true => socket.set_ip_transparent_v6(false)?,
        false => socket.set_ip_transparent_v4(false)?,
    }
    Ok(socket)
}

/// The networks that its interfaces are part of: an address and the length of its prefix each.
fn near() -> io::Result<Vec<(IpAddr, u8)>> {
    let mut near = Vec::new();
    for interface in getifaddrs()? {
        let ip = |storage: &nix::sys::socket::SockaddrStorage| {
            let v4 = storage.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip())))
        };
        let address = interface.address.as_ref().and_then(ip);
        let mask = interface.netmask.as_ref().and_then(ip);
        let prefix = match mask {
            Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
            Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
            None => continue,
        };
        if let Some(address) = address.filter(|address| !address.is_loopback()) {
            near.push((address, u8::try_from(prefix).unwrap_or(u8::MAX)));
        }
    }
    near.sort();
    near.dedup();
    Ok(near)
}

fn batch(v4: u16, v6: Option<u16>, near: &[(IpAddr, u8)]) -> Vec<Message> {
    let mut batch = vec![Chain::Output.message(), Chain::Prerouting.message()];
    batch.extend(
        output(near)
            .into_iter()
            .map(|rule| rule.message(Chain::Output)),
    );
    let caught = caught(v4, v6);
    batch.extend(
        caught
            .into_iter()
            .map(|rule| rule.message(Chain::Prerouting)),
    );
    batch
}

fn output(near: &[(IpAddr, u8)]) -> Vec<Rule> {
    let mut all = vec![
        Rule::default().mark(OWN_MARK).accept(),
        Rule::default().answers().accept(),
        Rule::of(IPV4).first_byte(EQUAL, 127).accept(),
        Rule::of(IPV4).first_byte(AT_LEAST, 224).accept(),
        Rule::of(IPV6)
            .destination(&Ipv6Addr::LOCALHOST.octets())
            .accept(),
        Rule::of(IPV6).first_byte(EQUAL, 0xff).accept(),
    ];
    let link_local = [
        (Ipv4Addr::new(169, 254, 0, 0).into(), 16),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
    ];
    for (network, prefix) in link_local.iter().chain(near) {
        let family = if network.is_ipv4() { IPV4 } else { IPV6 };
        all.push(Rule::of(family).within(*network, *prefix).accept());
    }
    for family in [IPV4, IPV6] {
        for protocol in [TCP, UDP] {
            all.push(Rule::of(family).protocol(protocol).set_mark(CAUGHT));
        }
    }
    all
}

fn caught(v4: u16, v6: Option<u16>) -> Vec<Rule> {
    let marked = |family| Rule::of(family).by_interface(LO).mark(CAUGHT);
    let mut all = Vec::new();
    for protocol in [TCP, UDP] {
        let rule = marked(IPV4).protocol(protocol);
        all.push(rule.tproxy(IPV4, &CATCH_V4.octets(), v4));
        if let Some(v6) = v6 {
            let rule = marked(IPV6).protocol(protocol);
            all.push(rule.tproxy(IPV6, &Ipv6Addr::LOCALHOST.octets(), v6));
        }
    }
    all
}
