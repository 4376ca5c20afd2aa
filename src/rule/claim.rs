//! A claim of one session on one port.

use serde::{Deserialize, Serialize};

use super::{AppProtocol, Conditions, Invalid};
use crate::tunnel::SessionId;

/// Bytes of a claim's id.
pub const LONGEST_ID: usize = 40;
/// Bytes of an owner's name.
pub const LONGEST_OWNER: usize = 128;

/// What a session wants of a port: the requests that fulfil its conditions, or all that arrives.
///
/// A field that a version does not know makes a claim unreadable to it: ignoring one could route
/// requests to the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Tells it from all others on the Service; see [`Claim::check`].
    pub id: String,
    /// Whose it is, for people.
    pub owner: String,
    /// The kdev process whose it is.
    pub session: SessionId,
    /// Which requests; none is all of them, and connections that are no HTTP.
    #[serde(default, skip_serializing_if = "Conditions::is_empty", rename = "when")]
    pub conditions: Conditions,
    /// When it was made, in milliseconds since 1970: the older of two goes first.
    pub since: u64,
    /// Whether it gets copies only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mirror: bool,
    /// Whether the original pods answer when the app does not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fallback: bool,
    /// Whether the original pods never answer, not even while the owner is silent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict: bool,
    /// What callers speak.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub protocol: AppProtocol,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde asks.
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde asks.
fn is_auto(protocol: &AppProtocol) -> bool {
    *protocol == AppProtocol::Auto
}

impl Claim {
    /// Whether its texts are such that they can be shown, logged and sent on: an id of letters,
    /// digits and `-`, an owner of one printable line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Invalid> {
        let of_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let id = &self.id;
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(of_id) {
            return Err(Invalid(format!("{id:?} is no id of a claim")));
        }
        let owner = &self.owner;
        let printable = !owner.chars().any(char::is_control);
        if owner.is_empty() || owner.len() > LONGEST_OWNER || !printable {
            return Err(Invalid(format!("{owner:?} is no name of an owner")));
        }
        if self.strict && (self.fallback || self.mirror) {
            return Err(Invalid::new(
                "a strict claim is neither a fallback nor a mirror",
            ));
        }
        Ok(())
    }

    /// Whether it takes all that arrives, connections that are no HTTP included.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.conditions.is_everything() && !self.mirror
    }
}
