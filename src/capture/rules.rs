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
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. A rule with `tproxy` goes on to the next one
//! where the packet is of a connection that exists, which is how answers reach the program.

use std::io;

use rustix::net::netlink::NETFILTER;

use super::netlink::{Attributes, Message, NLM_F_APPEND, NLM_F_CREATE, Netlink};
use super::wire::Ports;
use super::{CATCH_V4, OWN_V4, OWN_V6};

/// The mark of what kdev's own sockets send, so that it is not caught again.
pub(super) const OWN_MARK: u32 = 0x6b64_6576;

const TABLE: &str = "kdev";
const CHAIN: &str = "prerouting";

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const NEW_RULE: u16 = NEW_TABLE + 6;
const NEW_SET: u16 = NEW_TABLE + 9;
const NEW_ELEMENTS: u16 = NEW_TABLE + 12;
const DELETE_ELEMENTS: u16 = NEW_TABLE + 14;

/// Elements of one message: their list's length is a number of 16 bits.
const ELEMENTS: usize = 1024;

const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// After what looks at connections, before what routes again.
const PRIORITY_MANGLE: i32 = -150;

/// A register for what a rule compares, and one for a second value.
const ONE: u32 = 1;
const TWO: u32 = 2;
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;
const AT_LEAST: u32 = 5;

/// The rules of the namespace.
#[derive(Debug)]
pub(super) struct Rules {
    ports: Ports,
}

impl Rules {
    /// Makes them; what is caught goes to the port `v4` of [`CATCH_V4`], and to `v6` of `::1`.
    pub(super) fn make(v4: u16, v6: Option<u16>) -> io::Result<Self> {
        let mut batch = vec![table(), chain()];
        for name in ["tcp4", "udp4", "tcp6", "udp6"] {
            batch.push(set(name));
        }
        batch.extend(rules(v4, v6).into_iter().map(Rule::message));
        send(batch)?;
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
            for (kind, ports) in [
                (DELETE_ELEMENTS, missing(now, before)),
                (NEW_ELEMENTS, missing(before, now)),
            ] {
                let some = ports.chunks(ELEMENTS);
                batch.extend(some.map(|ports| elements(kind, set, ports)));
            }
        }
        if !batch.is_empty() {
            send(batch)?;
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

/// All of it, or none where the kernel refuses.
fn send(batch: Vec<Message>) -> io::Result<()> {
    let mark = |kind| Message::silent(kind, &[0, 0, 0, 10]);
    let mut all = vec![mark(BATCH_BEGIN)];
    all.extend(batch);
    all.push(mark(BATCH_END));
    Netlink::open(Some(NETFILTER))?.send(all)
}

fn message(kind: u16, flags: u16, attributes: &Attributes) -> Message {
    Message::new(kind, flags, &[INET, 0, 0, 0], attributes)
}

fn table() -> Message {
    let attributes = Attributes::default().text(1, TABLE);
    message(NEW_TABLE, NLM_F_CREATE, &attributes)
}

fn chain() -> Message {
    // NF_INET_PRE_ROUTING
    let hook = Attributes::default()
        .number(1, 0)
        .put(2, &PRIORITY_MANGLE.to_be_bytes());
    let attributes = Attributes::default()
        .text(1, TABLE)
        .text(3, CHAIN)
        .nest(4, hook)
        .text(7, "filter");
    message(NEW_CHAIN, NLM_F_CREATE, &attributes)
}

/// A set of ports.
fn set(name: &str) -> Message {
    /// `inet_service` in the numbers of `nft`, which says it so to who lists the rules.
    const PORT: u32 = 13;
    let attributes = Attributes::default()
        .text(1, TABLE)
        .text(2, name)
        .number(3, 0)
        .number(4, PORT)
        .number(5, 2)
        // No other set of this batch is meant by its number.
        .number(10, 1);
    message(NEW_SET, NLM_F_CREATE, &attributes)
}

fn elements(kind: u16, set: &str, ports: &[u16]) -> Message {
    let flags = if kind == NEW_ELEMENTS {
        NLM_F_CREATE
    } else {
        0
    };
    let all = ports.iter().fold(Attributes::default(), |all, port| {
        let key = Attributes::default().put(1, &port.to_be_bytes());
        all.nest(1, Attributes::default().nest(1, key))
    });
    let attributes = Attributes::default()
        .text(1, TABLE)
        .text(2, set)
        .nest(3, all);
    message(kind, flags, &attributes)
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

/// A rule: its expressions, one after the other.
#[derive(Default)]
struct Rule {
    family: u8,
    expressions: Attributes,
}

impl Rule {
    /// About packets of a family.
    fn of(family: u8) -> Self {
        let rule = Self {
            family,
            ..Self::default()
        };
        // NFT_META_NFPROTO
        rule.meta(15).compare(EQUAL, &[family])
    }

    fn with(mut self, name: &str, data: Attributes) -> Self {
        let expression = Attributes::default().text(1, name).nest(2, data);
        self.expressions = self.expressions.nest(1, expression);
        self
    }

    fn meta(self, key: u32) -> Self {
        self.with("meta", Attributes::default().number(2, key).number(1, ONE))
    }

    fn compare(self, how: u32, value: &[u8]) -> Self {
        let data = Attributes::default().put(1, value);
        let compared = Attributes::default().number(1, ONE).number(2, how);
        self.with("cmp", compared.nest(3, data))
    }

    /// Loads bytes of the network header (base 1) or of what it carries (2).
    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let from = Attributes::default().number(1, ONE).number(2, base);
        self.with("payload", from.number(3, offset).number(4, length))
    }

    fn mark(self, mark: u32) -> Self {
        // NFT_META_MARK
        self.meta(3).compare(EQUAL, &mark.to_ne_bytes())
    }

    fn protocol(self, protocol: u8) -> Self {
        // NFT_META_L4PROTO
        self.meta(16).compare(EQUAL, &[protocol])
    }

    /// Where the destination stands in the header.
    fn at(&self) -> u32 {
        if self.family == IPV4 { 16 } else { 24 }
    }

    fn destination(self, address: &[u8]) -> Self {
        let (at, length) = (self.at(), if self.family == IPV4 { 4 } else { 16 });
        self.payload(1, at, length).compare(EQUAL, address)
    }

    /// About the first byte of the destination.
    fn first_byte(self, how: u32, byte: u8) -> Self {
        let at = self.at();
        self.payload(1, at, 1).compare(how, &[byte])
    }

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

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        let data = Attributes::default().put(1, value);
        let loaded = Attributes::default().number(1, register).nest(2, data);
        self.with("immediate", loaded)
    }

    fn tproxy(self, family: u8, address: &[u8], port: u16) -> Self {
        let to = Attributes::default().number(1, u32::from(family));
        self.immediate(ONE, address)
            .immediate(TWO, &port.to_be_bytes())
            .with("tproxy", to.number(2, ONE).number(3, TWO))
            .accept()
    }

    fn verdict(self, code: u32) -> Self {
        // NFT_REG_VERDICT, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE
        let verdict = Attributes::default().number(1, code);
        let data = Attributes::default().nest(2, verdict);
        self.with(
            "immediate",
            Attributes::default().number(1, 0).nest(2, data),
        )
    }

    fn accept(self) -> Self {
        self.verdict(1)
    }

    fn drop(self) -> Self {
        self.verdict(0)
    }

    fn message(self) -> Message {
        let attributes = Attributes::default()
            .text(1, TABLE)
            .text(2, CHAIN)
            .nest(4, self.expressions);
        message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &attributes)
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
