//! Sets of ports in nf_tables.

use super::netlink::{Attributes, Message, NLM_F_CREATE};
use super::nft::{NEW_TABLE, TABLE, message};

const NEW_SET: u16 = NEW_TABLE + 9;
const NEW_ELEMENTS: u16 = NEW_TABLE + 12;
const DELETE_ELEMENTS: u16 = NEW_TABLE + 14;

/// A set of ports.
pub(super) fn set(name: &str) -> Message {
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

/// What becomes of elements of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// Adds ports to a set, or removes them.
pub(super) fn elements(change: Change, set: &str, ports: &[u16]) -> Message {
    let (kind, flags) = match change {
        Change::Add => (NEW_ELEMENTS, NLM_F_CREATE),
        Change::Remove => (DELETE_ELEMENTS, 0),
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
