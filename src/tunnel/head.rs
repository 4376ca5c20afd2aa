//! The messages of the handshake: a first line, `name: value` lines, an empty line. Names that a
//! side does not know are skipped, so that later versions may add some.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::identity::Ownership;
use super::proof::PROOF;

/// First word of what kdev says.
const KDEV: &str = "KDEV-TUNNEL";
/// First word of what the relay says.
const RELAY: &str = "KDEV-RELAY";
/// Most bytes of a message, its empty line included: several times what one needs.
pub(super) const MAX_HEAD: usize = 2048;
/// Most bytes of a reason that is passed on to a user.
const MAX_REASON: usize = 512;
/// Most bytes of a version's text.
const MAX_VERSION: usize = 64;

/// What a tunnel is for, and so which secret admits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// kdev opens streams out of the relay.
    Forward,
    /// The relay opens streams to kdev.
    Reverse,
}

impl Role {
    /// The word for it on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        }
    }
}

/// Tells one kdev process from another; the same over all of its tunnels and reconnects. Knowing it
/// is no use to others: it is what an [`Identity`](super::Identity) shows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        let id = unhex(&text).map(Self);
        id.ok_or_else(|| de::Error::custom("a session is 32 hexadecimal digits"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number used once: what makes a recorded proof worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce(pub(super) [u8; 32]);

impl Nonce {
    pub(super) fn random() -> Self {
        Self(random())
    }
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Fails only on a system without a random number source, where nothing is safe.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// kdev's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest version that kdev speaks.
    pub version: u16,
    /// What the tunnel is for.
    pub role: Role,
    /// Which kdev this is.
    pub session: SessionId,
    /// The version of the program, for people.
    pub program: String,
    pub(super) nonce: Nonce,
}

impl Hello {
    /// A first message with a fresh nonce.
    #[must_use]
    pub(super) fn new(role: Role, session: SessionId) -> Self {
        Self {
            version: super::VERSION,
            role,
            session,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            nonce: Nonce::random(),
        }
    }

    pub(super) fn encode(&self) -> String {
        format!(
            "{KDEV} {}\r\nrole: {}\r\nsession: {}\r\nnonce: {}\r\nprogram: {}\r\n\r\n",
            self.version,
            self.role.name(),
            self.session,
            hex(&self.nonce.0),
            self.program,
        )
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, fields) = split(text)?;
        let version = first.strip_prefix(KDEV)?.strip_prefix(' ')?.parse().ok()?;
        let role = match fields.get("role")? {
            "forward" => Role::Forward,
            "reverse" => Role::Reverse,
            _ => return None,
        };
        Some(Self {
            version,
            role,
            session: SessionId(unhex(fields.get("session")?)?),
            nonce: Nonce(unhex(fields.get("nonce")?)?),
            program: clean(fields.get("program").unwrap_or_default(), MAX_VERSION),
        })
    }
}

/// Why a relay does not take a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The question that kdev asks.
    pub code: RefusalCode,
    /// What people read.
    pub reason: String,
}

/// What a refusal means for kdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// No version that both speak.
    Version,
    /// The proof is wrong: another secret.
    Proof,
    /// The session is another kdev's.
    Session,
    /// The relay has no room or is about to end; later, or another replica.
    Busy,
    /// The first message makes no sense.
    Malformed,
}

const CODES: [(RefusalCode, &str); 5] = [
    (RefusalCode::Version, "version"),
    (RefusalCode::Proof, "proof"),
    (RefusalCode::Session, "session"),
    (RefusalCode::Busy, "busy"),
    (RefusalCode::Malformed, "malformed"),
];

/// What the relay says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its nonce and its own proof.
    Challenge {
        /// The version that both speak.
        version: u16,
        nonce: Nonce,
        proof: [u8; PROOF],
        /// The version of the program, for people.
        program: String,
    },
    /// The proof was right: HTTP/2 follows.
    Welcome,
    Refused(Refusal),
}

impl Answer {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Challenge {
                version,
                nonce,
                proof,
                program,
            } => format!(
                "{RELAY} {version} challenge\r\nnonce: {}\r\nproof: {}\r\nprogram: {program}\r\n\r\n",
                hex(&nonce.0),
                hex(proof),
            ),
            Self::Welcome => format!("{RELAY} {} welcome\r\n\r\n", super::VERSION),
            Self::Refused(refusal) => {
                let code = CODES.iter().find(|(code, _)| *code == refusal.code);
                format!(
                    "{RELAY} {} refused\r\ncode: {}\r\nreason: {}\r\n\r\n",
                    super::VERSION,
                    code.map_or("malformed", |(_, name)| name),
                    clean(&refusal.reason, MAX_REASON),
                )
            }
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, fields) = split(text)?;
        let (version, kind) = first
            .strip_prefix(RELAY)?
            .strip_prefix(' ')?
            .split_once(' ')?;
        Some(match kind {
            "challenge" => Self::Challenge {
                version: version.parse().ok()?,
                nonce: Nonce(unhex(fields.get("nonce")?)?),
                proof: unhex(fields.get("proof")?)?,
                program: clean(fields.get("program").unwrap_or_default(), MAX_VERSION),
            },
            "welcome" => Self::Welcome,
            "refused" => {
                let name = fields.get("code").unwrap_or_default();
                let code = CODES.iter().find(|(_, n)| *n == name);
                Self::Refused(Refusal {
                    code: code.map_or(RefusalCode::Malformed, |(code, _)| *code),
                    reason: clean(fields.get("reason").unwrap_or_default(), MAX_REASON),
                })
            }
            _ => return None,
        })
    }
}

/// kdev's second message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// It knows the secret of its role.
    pub(super) proof: [u8; PROOF],
    /// The session is its own; a peer that cannot show it may leave this out.
    pub(super) ownership: Option<Ownership>,
}

impl Proof {
    pub(super) fn encode(&self) -> String {
        let mut text = format!("{KDEV} proof\r\nproof: {}\r\n", hex(&self.proof));
        if let Some(Ownership { key, signature }) = &self.ownership {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "key: {}\r\nsignature: {}\r\n",
                hex(key),
                hex(signature)
            );
        }
        text + "\r\n"
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, fields) = split(text)?;
        if first.strip_prefix(KDEV) != Some(" proof") {
            return None;
        }
        let ownership = || {
            Some(Ownership {
                key: unhex(fields.get("key")?)?,
                signature: unhex(fields.get("signature")?)?,
            })
        };
        Some(Self {
            proof: unhex(fields.get("proof")?)?,
            ownership: ownership(),
        })
    }
}

struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    /// The value of the first line of that name.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0
            .split("\r\n")
            .filter_map(|line| line.split_once(": "))
            .find_map(|(n, value)| (n == name).then_some(value))
    }
}

/// The first line and the others of a message that ends in an empty line.
fn split(text: &str) -> Option<(&str, Fields<'_>)> {
    let text = text.strip_suffix("\r\n\r\n")?;
    let (first, rest) = text.split_once("\r\n").unwrap_or((text, ""));
    Some((first, Fields(rest)))
}

/// Only what a terminal may show, and not too much of it: the other side wrote it.
fn clean(text: &str, most: usize) -> String {
    let kept = text.chars().filter(|c| (' '..='~').contains(c));
    kept.take(most).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}
