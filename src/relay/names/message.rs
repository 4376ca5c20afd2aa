//! Questions for addresses and their answers on the wire (RFC 1035, 4; RFC 6891 for the size).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The record type of IPv4 addresses.
pub(super) const A: u16 = 1;
/// The record type of IPv6 addresses.
pub(super) const AAAA: u16 = 28;
/// The record type that says how large a UDP answer may be.
const OPT: u16 = 41;
/// The class of the Internet.
const IN: u16 = 1;
/// Bytes of a UDP answer: what passes every path unfragmented (DNS flag day 2020).
pub(super) const LARGEST: usize = 1232;
/// Bytes of a message's header.
const HEADER: usize = 12;
/// Most addresses that are taken from an answer.
const MOST_ADDRESSES: usize = 16;
/// Longest name on the wire.
const LONGEST_NAME: usize = 255;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Name, type and class on the wire.
    wire: Vec<u8>,
}

impl Question {
    /// `None` for a name that fits no message.
    pub(super) fn new(name: &str, kind: u16) -> Option<Self> {
        let mut wire = Vec::with_capacity(name.len() + 6);
        for label in name.split('.') {
            let length = u8::try_from(label.len())
                .ok()
                .filter(|n| (1..=63).contains(n))?;
            wire.push(length);
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        if wire.len() > LONGEST_NAME {
            return None;
        }
        wire.extend(kind.to_be_bytes());
        wire.extend(IN.to_be_bytes());
        Some(Self { wire })
    }

    /// The message with a fresh number.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + self.wire.len() + 11);
        message.extend(id);
        // Recursion desired; one question, one additional record.
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        message.extend(&self.wire);
        // The root's OPT record.
        message.push(0);
        message.extend(OPT.to_be_bytes());
        #[allow(clippy::cast_possible_truncation)]
        message.extend((LARGEST as u16).to_be_bytes());
        message.extend([0; 6]);
        Ok(message)
    }
}

/// What a server knows; without addresses there are none of that type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    /// How long the addresses hold, the aliases on the way to them included.
    pub(super) ttl: Duration,
    /// It does not fit: TCP has all of it.
    pub(super) truncated: bool,
}

impl Answer {
    /// Reads the answer to `query`; `None` for a message that answers something else.
    ///
    /// # Errors
    /// When the server says that it failed, or the message breaks off.
    pub(super) fn parse(query: &[u8], message: &[u8]) -> io::Result<Option<Self>> {
        // The question ends where the OPT record begins.
        let question = &query[HEADER..query.len() - 11];
        let same = message.len() >= HEADER + question.len()
            && message[..2] == query[..2]
            && message[2] & 0x80 != 0
            && message[4..6] == [0, 1]
            && message[HEADER..HEADER + question.len()].eq_ignore_ascii_case(question);
        if !same {
            return Ok(None);
        }
        match message[3] & 0x0f {
            // No error, and no such name.
            0 | 3 => {}
            2 => return Err(failed("SERVFAIL")),
            5 => return Err(failed("REFUSED")),
            code => return Err(failed(&format!("code {code}"))),
        }
        if message[2] & 0x02 != 0 {
            return Ok(Some(Self {
                truncated: true,
                ..Self::default()
            }));
        }
        let kind = &question[question.len() - 4..question.len() - 2];
        let mut answer = Self {
            ttl: Duration::MAX,
            ..Self::default()
        };
        let records = u16::from_be_bytes([message[6], message[7]]);
        let mut rest = &message[HEADER + question.len()..];
        for _ in 0..records {
            let record =
                Record::read(&mut rest).ok_or_else(|| failed("a message that breaks off"))?;
            answer.ttl = answer.ttl.min(record.ttl);
            // Aliases are followed by the server; other types are not asked for.
            if record.kind != kind || answer.addresses.len() >= MOST_ADDRESSES {
                continue;
            }
            let ip = match (
                <[u8; 4]>::try_from(record.data),
                <[u8; 16]>::try_from(record.data),
            ) {
                (Ok(v4), _) => Ipv4Addr::from(v4).into(),
                (_, Ok(v6)) => IpAddr::from(Ipv6Addr::from(v6)),
                _ => return Err(failed("an address of a wrong length")),
            };
            answer.addresses.push(ip);
        }
        Ok(Some(answer))
    }
}

fn failed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the nameserver answered {what}"),
    )
}

struct Record<'a> {
    kind: &'a [u8],
    ttl: Duration,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(rest: &mut &'a [u8]) -> Option<Self> {
        skip_name(rest)?;
        let (head, tail) = rest.split_at_checked(10)?;
        let length = u16::from_be_bytes([head[8], head[9]]);
        let (data, tail) = tail.split_at_checked(length.into())?;
        *rest = tail;
        let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        Some(Self {
            kind: &head[..2],
            ttl: Duration::from_secs(ttl.into()),
            data,
        })
    }
}

/// Moves past a name, which may end in a pointer to another one (RFC 1035, 4.1.4).
fn skip_name(rest: &mut &[u8]) -> Option<()> {
    loop {
        let (first, tail) = rest.split_first()?;
        match first {
            0 => {
                *rest = tail;
                return Some(());
            }
            0xc0.. => {
                *rest = tail.get(1..)?;
                return Some(());
            }
            1..=63 => *rest = tail.get(usize::from(*first)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query() -> Vec<u8> {
        Question::new("web.shop", A).unwrap().encode().unwrap()
    }

    /// An answer to `query` with so many records, given without their name.
    fn answer(query: &[u8], records: &[&[u8]]) -> Vec<u8> {
        let mut message = query[..query.len() - 11].to_vec();
        message[2] = 0x81;
        message[3] = 0x80;
        message[7] = u8::try_from(records.len()).unwrap();
        message[11] = 0;
        for record in records {
            message.extend([0xc0, 12]);
            message.extend(*record);
        }
        message
    }

    const ALIAS: &[u8] = &[0, 5, 0, 1, 0, 0, 0, 3, 0, 2, 0xc0, 12];
    const ADDRESS: &[u8] = &[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 7];

    #[test]
    fn addresses_are_read_behind_aliases() {
        let query = query();
        let found = Answer::parse(&query, &answer(&query, &[ALIAS, ADDRESS]));
        let found = found.unwrap().unwrap();
        assert_eq!(found.addresses, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.ttl, Duration::from_secs(3));
        // The question in another case is the same one.
        let mut shouting = answer(&query, &[ADDRESS]);
        shouting[13..16].make_ascii_uppercase();
        assert!(Answer::parse(&query, &shouting).unwrap().is_some());
    }

    #[test]
    fn answers_to_other_questions_do_not_count() {
        let query = query();
        let good = answer(&query, &[ADDRESS]);
        for (at, byte) in [(0, good[0] ^ 1), (2, 0x01), (5, 0), (13, b'x')] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(Answer::parse(&query, &other).unwrap(), None, "{at}");
        }
    }

    #[test]
    fn failures_and_missing_names_differ() {
        let query = query();
        let mut message = answer(&query, &[]);
        assert!(
            Answer::parse(&query, &message)
                .unwrap()
                .unwrap()
                .addresses
                .is_empty()
        );
        message[3] = 0x83;
        assert!(
            Answer::parse(&query, &message)
                .unwrap()
                .unwrap()
                .addresses
                .is_empty()
        );
        for code in [1, 2, 4, 5] {
            message[3] = 0x80 | code;
            assert!(Answer::parse(&query, &message).is_err(), "{code}");
        }
        let mut cut = answer(&query, &[ADDRESS]);
        cut[2] |= 0x02;
        assert!(Answer::parse(&query, &cut).unwrap().unwrap().truncated);
        cut[2] &= !0x02;
        cut.truncate(cut.len() - 1);
        assert!(Answer::parse(&query, &cut).is_err());
    }

    #[test]
    fn names_that_fit_no_message_are_not_asked_for() {
        assert!(Question::new(&"a".repeat(64), A).is_none());
        assert!(Question::new(&["a"; 130].join("."), A).is_none());
        assert!(Question::new("a..b", A).is_none());
    }

    proptest! {
        #[test]
        fn no_message_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let query = query();
            let _ = Answer::parse(&query, &bytes);
            let mut message = answer(&query, &[]);
            message[7] = 3;
            message.extend(bytes);
            let _ = Answer::parse(&query, &message);
        }
    }
}
