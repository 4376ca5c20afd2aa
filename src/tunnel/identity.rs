//! Which kdev a tunnel is of, so that nobody else can say it is theirs.
//!
//! A session is a key pair that lives only in its kdev's memory. Its id is a hash of the public key:
//! whoever shows that key and signs the handshake with the other one is the session. A relay needs
//! to remember nothing for this, so a replica that has just begun knows the owner as well as the
//! others do. The id is in annotations and logs, and helps nobody.

use std::fmt;

use ed25519_dalek::{PUBLIC_KEY_LENGTH, Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::head::{SessionId, random};
use super::proof::Transcript;

/// Bytes of a public key (RFC 8032, 5.1).
pub(super) const PUBLIC_KEY: usize = PUBLIC_KEY_LENGTH;
/// Bytes of a signature (RFC 8032, 5.1).
pub(super) const SIGNATURE: usize = Signature::BYTE_SIZE;

/// What makes a kdev the owner of its session, over all of its tunnels and reconnects. It goes
/// nowhere: neither on the wire, nor on disk.
pub struct Identity(SigningKey);

impl Identity {
    /// One that nobody else has.
    #[must_use]
    pub fn random() -> Self {
        Self(SigningKey::from_bytes(&random()))
    }

    /// The session, for all to see.
    #[must_use]
    pub fn session(&self) -> SessionId {
        session_of(self.0.verifying_key().as_bytes())
    }

    /// Says that this handshake is of this session.
    pub(super) fn sign(&self, transcript: &Transcript) -> Ownership {
        Ownership {
            key: self.0.verifying_key().to_bytes(),
            signature: self.0.sign(&transcript.to_bytes()).to_bytes(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, …)", self.session())
    }
}

/// What shows that a handshake is of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) key: [u8; PUBLIC_KEY],
    pub(super) signature: [u8; SIGNATURE],
}

impl Ownership {
    /// Whether the key is the session's, and has signed this handshake.
    pub(super) fn verify(&self, transcript: &Transcript) -> bool {
        session_of(&self.key) == transcript.session
            && VerifyingKey::from_bytes(&self.key).is_ok_and(|key| {
                let signature = Signature::from_bytes(&self.signature);
                key.verify_strict(&transcript.to_bytes(), &signature)
                    .is_ok()
            })
    }
}

/// The session of a public key. Another key with the same half of a hash would take 2^128 tries.
fn session_of(key: &[u8; PUBLIC_KEY]) -> SessionId {
    let hash = Sha256::new()
        .chain_update(b"kdev-tunnel session\0")
        .chain_update(key)
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    SessionId(id)
}
