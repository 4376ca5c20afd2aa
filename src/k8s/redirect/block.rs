//! Which of the relay's ports a Service gets: a block of eight, which is nobody else's for an hour
//! after it was given back. A node whose kube-proxy lags would send one Service's callers to another
//! one's pods otherwise.
//!
//! The Service `kdev-PORT` is the lock. Whose a block was stands in a ConfigMap beside the relay from
//! before that Service is made, because one that is deleted with the intercepted Service leaves no
//! trace. Under a block's first port there is the UID of the Service that has it, and where it has
//! it no more since when, in seconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::object::{name, text};
use crate::relay::{BLOCK, FIRST_PORT, PORTS};

/// How long a block is nobody else's.
pub(super) const REST: Duration = Duration::from_secs(3600);
/// How long it is not even for the same Service: DNS caches and kube-proxy may still know the address
/// of the Service `kdev-PORT` that was deleted, and its successor has another one.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How many there are.
pub(super) const BLOCKS: u16 = PORTS / BLOCK;

/// A block that a Service may take, and what to write about blocks before it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its first port.
    pub(super) first: u16,
    /// What to write into the record of blocks; null for what to take off.
    pub(super) notes: Value,
}

/// All blocks are taken or rest; the next one is free in so many seconds, if that is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoneFree(pub(super) Option<u64>);

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// The name of the Service that leads to the original pods of a block.
pub(super) fn origin_name(first: u16) -> String {
    format!("kdev-{first}")
}

/// The note that a block is the Service's with this UID, or was until `ended`.
pub(super) fn note(first: u16, uid: &str, ended: Option<u64>) -> Value {
    let text = match ended {
        None => uid.to_owned(),
        Some(at) => format!("{uid} {at}"),
    };
    json!({first.to_string(): text})
}

/// Finds a block for the Service with this UID, from the `origins` that exist, what is on `record`,
/// and the blocks that turned out to be taken.
pub(super) fn choose(
    uid: &str,
    origins: &[Value],
    record: &Value,
    taken: &[u16],
    now: u64,
) -> Result<Choice, NoneFree> {
    let digest = Sha256::digest(uid.as_bytes());
    let start = u16::from_be_bytes([digest[0], digest[1]]) % BLOCKS;
    let mut notes = Map::new();
    let mut soonest = None;
    let mut found = None;
    for number in (0..BLOCKS).map(|n| (start + n) % BLOCKS) {
        let first = FIRST_PORT + number * BLOCK;
        let key = first.to_string();
        let exists = origins
            .iter()
            .any(|origin| name(origin) == origin_name(first));
        let mut words = text(record, &[&key]).split(' ');
        let (whose, ended) = (words.next().unwrap_or_default(), words.next());
        let ended = ended.and_then(|at| at.parse::<u64>().ok());
        let rests = match (whose, ended) {
            _ if exists => continue,
            ("", _) => 0,
            // Another kdev is about to make it, or somebody else has deleted it. All who want one for
            // this Service try the same name, so that one wins.
            (whose, None) if whose == uid => 0,
            // It went without a word, with its Service: nobody knows when.
            (_, None) => {
                notes.extend(as_map(note(first, whose, Some(now))));
                REST.as_secs()
            }
            // Another laptop's clock may be ahead.
            (whose, Some(at)) => {
                let rest = if whose == uid { FORGOTTEN } else { REST };
                rest.as_secs().saturating_sub(now.saturating_sub(at))
            }
        };
        if found.is_none() && !taken.contains(&first) && rests == 0 {
            found = Some(first);
            notes.extend(as_map(note(first, uid, None)));
        } else if rests == 0 && !whose.is_empty() && whose != uid {
            notes.insert(key, Value::Null);
        } else if rests > 0 {
            soonest = Some(soonest.map_or(rests, |s: u64| s.min(rests)));
        }
    }
    let notes = Value::Object(notes);
    found
        .map(|first| Choice { first, notes })
        .ok_or(NoneFree(soonest))
}

fn as_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn origins(firsts: impl IntoIterator<Item = u16>) -> Vec<Value> {
        let origins = firsts.into_iter();
        origins
            .map(|first| json!({"metadata": {"name": origin_name(first)}}))
            .collect()
    }

    fn first(uid: &str) -> u16 {
        choose(uid, &[], &json!({}), &[], NOW).unwrap().first
    }

    #[test]
    fn services_are_spread_and_come_back_to_their_block() {
        let firsts: std::collections::BTreeSet<u16> =
            (0..40).map(|n| first(&format!("uid-{n}"))).collect();
        assert!(firsts.len() > 20, "{firsts:?}");
        for first in &firsts {
            assert!((20_000..20_512).contains(first) && first % 8 == 0);
        }
        assert_eq!(first("a"), first("a"));
        let own = choose("a", &[], &json!({}), &[], NOW).unwrap();
        assert_eq!(own.notes, note(own.first, "a", None));
    }

    #[test]
    fn the_next_block_is_taken_where_one_is_not_free() {
        let own = first("a");
        let next = |record: &Value, origins: &[Value], taken: &[u16]| {
            choose("a", origins, record, taken, NOW).unwrap().first
        };
        let none = json!({});
        assert_ne!(next(&none, &origins([own]), &[]), own);
        assert_ne!(next(&none, &[], &[own]), own);
        let recent = note(own, "b", Some(NOW - 10));
        assert_ne!(next(&recent, &[], &[]), own);
        let long_ago = note(own, "b", Some(NOW - 3601));
        assert_eq!(next(&long_ago, &[], &[]), own);
        let same = note(own, "a", Some(NOW - 61));
        assert_eq!(next(&same, &[], &[]), own);
        let just_now = note(own, "a", Some(NOW - 10));
        assert_ne!(next(&just_now, &[], &[]), own);
    }

    #[test]
    fn all_who_want_one_for_the_same_service_try_the_same() {
        let own = first("a");
        // One of them has said so, and makes it in a moment.
        let noted = note(own, "a", None);
        let choice = choose("a", &[], &noted, &[], NOW).unwrap();
        assert_eq!(choice.first, own);
        assert_eq!(choice.notes, note(own, "a", None));
    }

    #[test]
    fn a_block_whose_service_vanished_rests_from_when_that_was_noticed() {
        let own = first("a");
        let vanished = note(own, "b", None);
        let choice = choose("a", &[], &vanished, &[], NOW).unwrap();
        assert_ne!(choice.first, own);
        assert_eq!(choice.notes[own.to_string()], format!("b {NOW}"));
        assert_eq!(choice.notes.as_object().unwrap().len(), 2);
    }

    #[test]
    fn notes_of_rested_blocks_go() {
        let other = FIRST_PORT + (first("a") - FIRST_PORT + BLOCK) % PORTS;
        let rested = note(other, "b", Some(NOW - 4000));
        let choice = choose("a", &[], &rested, &[], NOW).unwrap();
        assert_eq!(choice.notes[other.to_string()], Value::Null);
    }

    #[test]
    fn the_last_one_says_when_there_is_room_again() {
        let all = (0..BLOCKS).map(|n| FIRST_PORT + n * BLOCK);
        let origins = origins(all.clone().skip(1));
        let rests = note(FIRST_PORT, "b", Some(NOW - 600));
        assert_eq!(
            choose("a", &origins, &rests, &[], NOW),
            Err(NoneFree(Some(3000)))
        );
        let full = self::origins(all);
        assert_eq!(
            choose("a", &full, &json!({}), &[], NOW),
            Err(NoneFree(None))
        );
    }
}
