//! Routes for what carries a mark: it leads to `lo`, whatever else the routes say.

use std::io;

use super::netlink::{Attributes, Message, NLM_F_CREATE, Netlink};

// linux/rtnetlink.h, linux/fib_rules.h
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The number that `lo` has in every namespace.
const LO: u32 = 1;
/// The table of these routes: "kd", which no one else is likely to have.
const TABLE: u32 = 0x6b64;
/// Before the rule of the main table, which has 32766.
const PRIORITY: u32 = 0x6b64;

/// Leads what carries `mark` to `lo`. Gives whether it does so for IPv6, too.
pub(super) fn lead_to_lo(mark: u32) -> io::Result<bool> {
    lead(AF_INET, mark)?;
    // A network without IPv6 refuses, and then nothing is to be caught there.
    Ok(lead(AF_INET6, mark).is_ok())
}

fn lead(family: u8, mark: u32) -> io::Result<()> {
    // NETLINK_ROUTE is number 0.
    let netlink = Netlink::open(None)?;
    for message in [route(family), rule(family, mark)] {
        match netlink.send(vec![message]) {
            // It is there since another time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
    }
    Ok(())
}

fn route(family: u8) -> Message {
    let scope = if family == AF_INET { RT_SCOPE_HOST } else { 0 };
    let fixed = [
        [family, 0, 0, 0],
        // The table stands in an attribute, since it has more than 8 bits.
        [0, RTPROT_BOOT, scope, RTN_LOCAL],
        [0; 4],
    ];
    let attributes = Attributes::default()
        .put(RTA_OIF, &LO.to_ne_bytes())
        .put(RTA_TABLE, &TABLE.to_ne_bytes());
    Message::new(RTM_NEWROUTE, CREATE_ONCE, &fixed.concat(), &attributes)
}

fn rule(family: u8, mark: u32) -> Message {
    let fixed = [[family, 0, 0, 0], [0, 0, 0, FR_ACT_TO_TBL], [0; 4]];
    let attributes = Attributes::default()
        .put(FRA_FWMARK, &mark.to_ne_bytes())
        .put(FRA_TABLE, &TABLE.to_ne_bytes())
        .put(FRA_PRIORITY, &PRIORITY.to_ne_bytes());
    Message::new(RTM_NEWRULE, CREATE_ONCE, &fixed.concat(), &attributes)
}

/// Refused where it is there already.
const CREATE_ONCE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const NLM_F_EXCL: u16 = 0x200;
