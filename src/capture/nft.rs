//! Messages to nf_tables: what makes tables, chains and rules.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. A rule with `tproxy` goes on to the next one
//! where the packet is of a connection that exists, which is how answers reach the program.

use std::io;
use std::net::IpAddr;

use rustix::net::netlink::NETFILTER;

use super::netlink::{Attributes, Message, NLM_F_APPEND, NLM_F_CREATE, Netlink};

/// The mark of what kdev's own sockets send, so that it is not caught again.
pub(super) const OWN_MARK: u32 = 0x6b64_6576;

pub(super) const TABLE: &str = "kdev";

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = NEW_TABLE + 2;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const NEW_RULE: u16 = NEW_TABLE + 6;

/// A table that goes with the socket that made it.
const OWNED: u32 = 2;

const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// After what looks at connections, before what routes again.
const PRIORITY_MANGLE: i32 = -150;

/// A register for what a rule compares, and one for a second value.
pub(super) const ONE: u32 = 1;
const TWO: u32 = 2;
pub(super) const EQUAL: u32 = 0;
pub(super) const AT_LEAST: u32 = 5;

/// Where packets meet the rules of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// All that comes from an interface, `lo` included.
    Prerouting,
    /// All that programs send; what gets another mark is routed again.
    Output,
}

impl Chain {
    fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }

    /// Makes it.
    pub(super) fn message(self) -> Message {
        // NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT
        let (number, kind) = match self {
            Self::Prerouting => (0, "filter"),
            Self::Output => (3, "route"),
        };
        let hook = Attributes::default()
            .number(1, number)
            .put(2, &PRIORITY_MANGLE.to_be_bytes());
        let attributes = Attributes::default()
            .text(1, TABLE)
            .text(3, self.name())
            .nest(4, hook)
            .text(7, kind);
        message(NEW_CHAIN, NLM_F_CREATE, &attributes)
    }
}

/// All of it, or none where the kernel refuses.
pub(super) fn send(batch: Vec<Message>) -> io::Result<()> {
    send_by(&Netlink::open(Some(NETFILTER))?, batch)
}

fn send_by(netlink: &Netlink, batch: Vec<Message>) -> io::Result<()> {
    let mark = |kind| Message::silent(kind, &[0, 0, 0, 10]);
    let mut all = vec![mark(BATCH_BEGIN)];
    all.extend(batch);
    all.push(mark(BATCH_END));
    netlink.send(all)
}

/// A table that goes when this value does.
#[derive(Debug)]
pub(super) struct Table {
    /// Where the kernel binds the table to it; none where it is too old for that (before 5.12).
    owner: Option<Netlink>,
}

impl Table {
    /// Makes it of `batch`, in place of one that is there.
    pub(super) fn make(batch: impl Fn() -> Vec<Message>) -> io::Result<Self> {
        // What another process left; there may be none.
        drop(send(vec![delete()]));
        let owner = Netlink::open(Some(NETFILTER))?;
        let owned = table_with(Some(OWNED));
        let made = send_by(&owner, std::iter::once(owned).chain(batch()).collect());
        if made.is_ok() {
            return Ok(Self { owner: Some(owner) });
        }
        drop(owner);
        send(std::iter::once(table()).chain(batch()).collect())?;
        Ok(Self { owner: None })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.owner.is_none() {
            // Without it nothing is caught by rules that nobody serves; there is nobody to tell.
            let _ = send(vec![delete()]);
        }
    }
}

fn delete() -> Message {
    let attributes = Attributes::default().text(1, TABLE);
    message(DELETE_TABLE, 0, &attributes)
}

pub(super) fn message(kind: u16, flags: u16, attributes: &Attributes) -> Message {
    Message::new(kind, flags, &[INET, 0, 0, 0], attributes)
}

/// Makes a table that stays.
pub(super) fn table() -> Message {
    table_with(None)
}

fn table_with(flags: Option<u32>) -> Message {
    let mut attributes = Attributes::default().text(1, TABLE);
    if let Some(flags) = flags {
        attributes = attributes.number(2, flags);
    }
    message(NEW_TABLE, NLM_F_CREATE, &attributes)
}

/// A rule: its expressions, one after the other.
#[derive(Default)]
pub(super) struct Rule {
    family: u8,
    expressions: Attributes,
}

impl Rule {
    /// About packets of a family.
    pub(super) fn of(family: u8) -> Self {
        let rule = Self {
            family,
            ..Self::default()
        };
        // NFT_META_NFPROTO
        rule.meta(15).compare(EQUAL, &[family])
    }

    pub(super) fn with(mut self, name: &str, data: Attributes) -> Self {
        let expression = Attributes::default().text(1, name).nest(2, data);
        self.expressions = self.expressions.nest(1, expression);
        self
    }

    fn meta(self, key: u32) -> Self {
        self.with("meta", Attributes::default().number(2, key).number(1, ONE))
    }

    pub(super) fn compare(self, how: u32, value: &[u8]) -> Self {
        let data = Attributes::default().put(1, value);
        let compared = Attributes::default().number(1, ONE).number(2, how);
        self.with("cmp", compared.nest(3, data))
    }

    /// Loads bytes of the network header (base 1) or of what it carries (2).
    pub(super) fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let from = Attributes::default().number(1, ONE).number(2, base);
        self.with("payload", from.number(3, offset).number(4, length))
    }

    pub(super) fn mark(self, mark: u32) -> Self {
        // NFT_META_MARK
        self.meta(3).compare(EQUAL, &mark.to_ne_bytes())
    }

    pub(super) fn protocol(self, protocol: u8) -> Self {
        // NFT_META_L4PROTO
        self.meta(16).compare(EQUAL, &[protocol])
    }

    /// Where the destination stands in the header.
    fn at(&self) -> u32 {
        if self.family == IPV4 { 16 } else { 24 }
    }

    pub(super) fn destination(self, address: &[u8]) -> Self {
        let (at, length) = (self.at(), if self.family == IPV4 { 4 } else { 16 });
        self.payload(1, at, length).compare(EQUAL, address)
    }

    /// About the first byte of the destination.
    pub(super) fn first_byte(self, how: u32, byte: u8) -> Self {
        let at = self.at();
        self.payload(1, at, 1).compare(how, &[byte])
    }

    /// About what goes to a network: an address and the length of its prefix.
    pub(super) fn within(self, network: IpAddr, prefix: u8) -> Self {
        let bytes = match network {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ones = |at: usize| {
            let left = usize::from(prefix).saturating_sub(at * 8).min(8);
            u8::MAX.checked_shl(8 - left as u32).unwrap_or_default()
        };
        let mask: Vec<u8> = (0..bytes.len()).map(ones).collect();
        let network: Vec<u8> = bytes.iter().zip(&mask).map(|(a, b)| a & b).collect();
        let (at, length) = (self.at(), bytes.len());
        let data = |value: &[u8]| Attributes::default().put(1, value);
        let masked = Attributes::default()
            .number(1, ONE)
            .number(2, ONE)
            .number(3, length as u32)
            .nest(4, data(&mask))
            .nest(5, data(&vec![0; length]));
        self.payload(1, at, length as u32)
            .with("bitwise", masked)
            .compare(EQUAL, &network)
    }

    /// About answers of connections that somebody else opened.
    pub(super) fn answers(self) -> Self {
        // NFT_CT_DIRECTION, and IP_CT_DIR_REPLY
        let direction = Attributes::default().number(1, ONE).number(2, 1);
        self.with("ct", direction).compare(EQUAL, &[1])
    }

    /// About what comes by an interface.
    pub(super) fn by_interface(self, number: u32) -> Self {
        // NFT_META_IIF
        self.meta(4).compare(EQUAL, &number.to_ne_bytes())
    }

    /// Gives a mark, and no other rule a look.
    pub(super) fn set_mark(self, mark: u32) -> Self {
        // NFT_META_MARK, from a register
        let set = Attributes::default().number(2, 3).number(3, ONE);
        self.immediate(ONE, &mark.to_ne_bytes())
            .with("meta", set)
            .accept()
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        let data = Attributes::default().put(1, value);
        let loaded = Attributes::default().number(1, register).nest(2, data);
        self.with("immediate", loaded)
    }

    pub(super) fn tproxy(self, family: u8, address: &[u8], port: u16) -> Self {
        let to = Attributes::default().number(1, u32::from(family));
        self.immediate(ONE, address)
            .immediate(TWO, &port.to_be_bytes())
            .with("tproxy", to.number(2, ONE).number(3, TWO))
            .accept()
    }

    pub(super) fn verdict(self, code: u32) -> Self {
        // NFT_REG_VERDICT, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE
        let verdict = Attributes::default().number(1, code);
        let data = Attributes::default().nest(2, verdict);
        self.with(
            "immediate",
            Attributes::default().number(1, 0).nest(2, data),
        )
    }

    pub(super) fn accept(self) -> Self {
        self.verdict(1)
    }

    pub(super) fn message(self, chain: Chain) -> Message {
        let attributes = Attributes::default()
            .text(1, TABLE)
            .text(2, chain.name())
            .nest(4, self.expressions);
        message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &attributes)
    }
}
