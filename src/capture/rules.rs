//! The rules of netfilter (nf_tables) by which connections and datagrams come to kdev's sockets.
//!
//! ```text
//! table inet kdev, chain prerouting:
//!   from kdev's own sockets, or to the namespace's own address     accept
//!   to loopback: somebody here listens                             accept
//!                somebody of this machine does (sets of ports)     tproxy, accept
//!                nobody does                                       accept: refused by the kernel
//!   multicast, ping                                                drop: nobody would answer
//!   TCP, UDP                                                       tproxy, accept
//! ```

use std::io;

use super::netlink::Attributes;
use super::nft::{self, AT_LEAST, Chain, EQUAL, IPV4, IPV6, ONE, OWN_MARK, Rule, TCP, UDP};
use super::sets::{self, Change};
use super::wire::Ports;
use super::{CATCH_V4, OWN_V4, OWN_V6};

/// Elements of one message: their list's length is a number of 16 bits.
const ELEMENTS: usize = 1024;

const DIFFERENT: u32 = 1;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The rules of the namespace.
#[derive(Debug)]
pub(super) struct Rules {
    ports: Ports,
}

impl Rules {
    /// Makes them; what is caught goes to the port `v4` of [`CATCH_V4`], and to `v6` of `::1`.
    pub(super) fn make(v4: u16, v6: Option<u16>) -> io::Result<Self> {
        let mut batch = vec![nft::table(), Chain::Prerouting.message()];
        for name in ["tcp4", "udp4", "tcp6", "udp6"] {
            batch.push(sets::set(name));
        }
        batch.extend(
            rules(v4, v6)
                .into_iter()
                .map(|rule| rule.message(Chain::Prerouting)),
        );
        nft::send(batch)?;
        Ok(Self {
            ports: Ports::default(),
        })
    }

    /// Changes which ports of loopback are this machine's.
    pub(super) fn set_ports(&mut self, ports: Ports) -> io::Result<()> {
        let mut batch = Vec::new();
        let sets = [
            ("tcp4", &self.ports.tcp4, &ports.tcp4),
            ("tcp6", &self.ports.tcp6, &ports.tcp6),
            ("udp4", &self.ports.udp4, &ports.udp4),
            ("udp6", &self.ports.udp6, &ports.udp6),
        ];
        for (set, before, now) in sets {
            for (change, ports) in [
                (Change::Remove, missing(now, before)),
                (Change::Add, missing(before, now)),
            ] {
                let some = ports.chunks(ELEMENTS);
                batch.extend(some.map(|ports| sets::elements(change, set, ports)));
            }
        }
        if !batch.is_empty() {
            nft::send(batch)?;
        }
        self.ports = ports;
        Ok(())
    }
}

/// What is in `of` and not in `from`, both of which are sorted.
fn missing(from: &[u16], of: &[u16]) -> Vec<u16> {
    let missing = of.iter().filter(|port| from.binary_search(port).is_err());
    missing.copied().collect()
}

fn rules(v4: u16, v6: Option<u16>) -> Vec<Rule> {
    let local4 = || Rule::of(IPV4).first_byte(EQUAL, 127);
    let local6 = || {
        let loopback = std::net::Ipv6Addr::LOCALHOST;
        Rule::of(IPV6).destination(&loopback.octets())
    };
    let catch4 = |rule: Rule| rule.tproxy(IPV4, &CATCH_V4.octets(), v4);
    let mut all = vec![
        Rule::default().mark(OWN_MARK).accept(),
        Rule::of(IPV4).destination(&OWN_V4.octets()).accept(),
        local4().somebody_listens().accept(),
        catch4(local4().protocol(TCP).port_in("tcp4")),
        catch4(local4().protocol(UDP).port_in("udp4")),
        local4().accept(),
        Rule::of(IPV4).first_byte(AT_LEAST, 224).drop(),
        Rule::of(IPV4).protocol(ICMP).kind(8).drop(),
        catch4(Rule::of(IPV4).protocol(TCP)),
        catch4(Rule::of(IPV4).protocol(UDP)),
    ];
    let Some(v6) = v6 else {
        return all;
    };
    let catch6 = |rule: Rule| {
        let to = std::net::Ipv6Addr::LOCALHOST;
        rule.tproxy(IPV6, &to.octets(), v6)
    };
    all.extend([
        Rule::of(IPV6).destination(&OWN_V6.octets()).accept(),
        local6().somebody_listens().accept(),
        catch6(local6().protocol(TCP).port_in("tcp6")),
        catch6(local6().protocol(UDP).port_in("udp6")),
        local6().accept(),
        Rule::of(IPV6).first_byte(EQUAL, 0xff).drop(),
        Rule::of(IPV6).protocol(ICMPV6).kind(128).drop(),
        catch6(Rule::of(IPV6).protocol(TCP)),
        catch6(Rule::of(IPV6).protocol(UDP)),
    ]);
    all
}

impl Rule {
    /// About the type of an ICMP message.
    fn kind(self, kind: u8) -> Self {
        self.payload(2, 0, 1).compare(EQUAL, &[kind])
    }

    fn port_in(self, set: &str) -> Self {
        let lookup = Attributes::default().text(1, set).number(2, ONE);
        self.payload(2, 2, 2).with("lookup", lookup)
    }

    /// Goes on only where a socket takes the packet that is none of kdev's own, by which it answers in
    /// another's place.
    fn somebody_listens(self) -> Self {
        // NFT_SOCKET_MARK
        self.with("socket", Attributes::default().number(1, 1).number(2, ONE))
            .compare(DIFFERENT, &OWN_MARK.to_ne_bytes())
    }

    fn drop(self) -> Self {
        self.verdict(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_said() {
        assert_eq!(missing(&[1, 3, 5], &[1, 2, 3, 6]), [2, 6]);
        assert_eq!(missing(&[], &[7]), [7]);
        assert_eq!(missing(&[7], &[]), [0; 0]);
    }
}
