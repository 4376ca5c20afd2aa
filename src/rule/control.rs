//! What kdev and the relay tell each other of claims, as lines on the control stream of a reverse
//! tunnel (see [`crate::tunnel::control`]).
//!
//! Each [`Ask`] has exactly one answer, in the order of the asks; [`Tell::Ousted`],
//! [`Tell::Served`], [`Tell::BrokeOff`], [`Tell::Fallback`], [`Tell::Unreached`] and
//! [`Tell::Intruded`] come unasked.

use serde::{Deserialize, Serialize};

use super::Claim;
use crate::tunnel::SessionId;

/// What kdev asks of the relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Ask {
    /// Register a claim of this session on a port. Again with the same id and session, after a
    /// reconnect for example, it stays what it was. Answered by [`Tell::Attached`] or
    /// [`Tell::Refused`].
    Attach {
        /// The port, of the relay's fixed range.
        port: u16,
        /// The claim.
        claim: Box<Claim>,
        /// Claims that are in its way go; who does that, for their owners.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<String>,
        /// Whether each of its requests is told, as [`Tell::Served`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        log: bool,
    },
    /// End a claim of this session. Answered by [`Tell::Detached`], also where there is none.
    Detach {
        /// The port.
        port: u16,
        /// The claim.
        id: String,
    },
    /// End somebody else's claim. Answered by [`Tell::Detached`].
    Oust {
        /// The port.
        port: u16,
        /// The claim.
        id: String,
        /// Who does it, for its owner.
        by: String,
    },
    /// What arrived on a port, and whose claims are on it. Answered by [`Tell::Seen`].
    Look {
        /// The port.
        port: u16,
    },
    /// The Service leads to its pods again: whoever is still connected here shall move. Answered
    /// by [`Tell::Retired`], or [`Tell::Refused`] while sessions that live have claims on it. An
    /// [`Ask::Attach`] ends that state.
    Retire {
        /// The port.
        port: u16,
    },
    /// Which of these sessions have a tunnel here. Answered by [`Tell::Live`], by relays before it by
    /// [`Tell::Unknown`].
    Live {
        /// The sessions.
        sessions: Vec<SessionId>,
    },
    /// This session ends and its claims with it, on all ports, at once. Answered by [`Tell::Bye`].
    Bye,
}

/// What the relay tells kdev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Tell {
    /// The claim stands: its requests come through this tunnel or another one of the session.
    Attached {
        /// The port.
        port: u16,
        /// The claim.
        id: String,
    },
    /// The claim does not stand.
    Detached {
        /// The port.
        port: u16,
        /// The claim.
        id: String,
    },
    /// The relay did not do it.
    Refused {
        /// The port.
        port: u16,
        /// The claim; empty where it is about none.
        #[serde(default)]
        id: String,
        /// Why, for people.
        reason: String,
    },
    /// Somebody else ended a claim of this session. Comes unasked.
    Ousted {
        /// The port.
        port: u16,
        /// The claim.
        id: String,
        /// Who did it, in their own words.
        by: String,
    },
    /// A request of a claim, or a copy for it, was answered or could not be. Comes unasked, where it
    /// was asked for with the claim, and is left out where kdev does not keep up.
    Served {
        /// The claim.
        id: String,
        /// The method; empty for a connection that is no HTTP.
        method: String,
        /// The path, without the query, cut where it is long.
        path: String,
        /// The status that the caller got, or for a copy that of its answer; 0 where the caller left
        /// before, where the copy has no answer, and for a connection that is no HTTP.
        status: u16,
        /// From the request's arrival to the head of its answer, in microseconds; for a connection
        /// that is no HTTP how long it was open.
        took: u64,
        /// Why the app's own answer is missing, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The answer to a request that was told as [`Tell::Served`] broke off in the middle. Comes
    /// unasked, as that does.
    BrokeOff {
        /// The claim.
        id: String,
        /// The method.
        method: String,
        /// The path, as it was told.
        path: String,
        /// The status that the caller got.
        status: u16,
        /// Bytes of the body that came before.
        sent: u64,
        /// Why, for people.
        why: String,
        /// From the request's arrival until then, in microseconds.
        took: u64,
    },
    /// Requests of a claim went to the original pods. Comes unasked, some seconds apart, and after a
    /// reconnect for those that came meanwhile.
    Fallback {
        /// The claim.
        id: String,
        /// Why, as in the header `x-kdev-fallback` of their answers.
        reason: String,
        /// How many since it was last told.
        times: u64,
        /// Whether nobody looked into them, so that some may not have been the claim's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unread: bool,
    },
    /// The original pods of what arrives on a port do not take connections of the relay. Comes
    /// unasked to all who have claims on the Service, at most once a second.
    Unreached {
        /// The port.
        port: u16,
    },
    /// Somebody else wanted a tunnel of this session and was refused. Comes unasked, at most once in
    /// ten seconds.
    Intruded {
        /// How often, since this was told last.
        attempts: u64,
    },
    /// What arrived on a port.
    Seen {
        /// The port.
        port: u16,
        /// Connections that were accepted on it since the relay began.
        accepted: u64,
        /// How long ago the last one was, in milliseconds.
        #[serde(default)]
        ago: Option<u64>,
        /// Connections that are open on it.
        open: u64,
        /// The claims on it.
        claims: Vec<Seen>,
    },
    /// The port's connections are asked to go.
    Retired {
        /// The port.
        port: u16,
        /// How many there are still.
        open: u64,
    },
    /// Of the sessions that were asked for, those that have a tunnel to this relay.
    Live {
        /// The sessions.
        sessions: Vec<SessionId>,
    },
    /// The session's claims are gone.
    Bye,
    /// The relay does not understand what was asked: it is older or newer than this kdev.
    Unknown {
        /// What it did not understand, and its version, for people.
        reason: String,
    },
    /// What this kdev does not understand, of a newer relay.
    #[serde(other)]
    Other,
}

/// What a relay knows of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// Whether its session has a tunnel to this relay.
    pub live: bool,
    /// Connections that were accepted on the port since it was attached here.
    pub accepted: u64,
    /// Requests, or connections, that fulfilled it.
    pub requests: u64,
    /// How long ago the last one was, in milliseconds.
    #[serde(default)]
    pub ago: Option<u64>,
}
