//! The proof that both sides know the same secret, which itself never travels.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::head::{Nonce, Role, SessionId};

/// Bytes of a proof: an HMAC-SHA-256 (RFC 2104, FIPS 180-4).
pub(super) const PROOF: usize = 32;
/// Fewest bytes of a secret: half of the hash, below which guessing gets thinkable.
const SHORTEST_SECRET: usize = 16;
/// Most bytes of a secret, so that a Secret filled with something else is noticed.
const LONGEST_SECRET: usize = 1024;

/// What admits a role: the content of a Kubernetes Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret from its bytes, or `None` where they are too few or far too many.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (SHORTEST_SECRET..=LONGEST_SECRET)
            .contains(&bytes.len())
            .then_some(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who proves. It is part of what is signed, so that one side's proof is no use as the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Kdev,
    Relay,
}

/// What both sides sign: all that was agreed on before.
#[derive(Clone, Debug)]
pub(super) struct Transcript {
    pub(super) version: u16,
    pub(super) role: Role,
    pub(super) session: SessionId,
    pub(super) kdev: Nonce,
    pub(super) relay: Nonce,
}

impl Transcript {
    fn mac(&self, secret: &Secret, side: Side) -> Hmac<Sha256> {
        // HMAC takes keys of any length, so this cannot fail.
        #[allow(clippy::unwrap_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).unwrap();
        // The labels end in a zero byte, as none of them is another's beginning.
        mac.update(match side {
            Side::Kdev => b"kdev-tunnel kdev\0",
            Side::Relay => b"kdev-tunnel relay\0",
        });
        mac.update(&self.to_bytes());
        mac
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Every field has a fixed length but the role, which ends in a zero byte.
        [
            &self.version.to_be_bytes()[..],
            self.role.name().as_bytes(),
            b"\0",
            &self.session.0,
            &self.kdev.0,
            &self.relay.0,
        ]
        .concat()
    }

    pub(super) fn sign(&self, secret: &Secret, side: Side) -> [u8; PROOF] {
        self.mac(secret, side).finalize().into_bytes().into()
    }

    /// Whether `proof` is the one of `side`; takes the same time wherever it differs.
    pub(super) fn verify(&self, secret: &Secret, side: Side, proof: &[u8]) -> bool {
        self.mac(secret, side).verify_slice(proof).is_ok()
    }
}
