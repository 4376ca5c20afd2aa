//! Who is there: versions, roles and the mutual proof, before the first byte of HTTP/2.
//!
//! ```text
//! kdev   KDEV-TUNNEL 2, role, session, nonce
//! relay  KDEV-RELAY 2 challenge, nonce, proof        or  refused, code, reason
//! kdev   KDEV-TUNNEL proof, proof, key, signature, and HTTP/2 at once in a forward tunnel
//! relay  KDEV-RELAY 2 welcome, HTTP/2                or  refused, code, reason
//! ```
//!
//! The relay proves itself first: kdev sends nothing of its user's to what does not know the
//! secret. A recorded proof is worthless, since each side's nonce is new. All who may use a role
//! know its secret, so kdev also signs: the session is its own and no colleague's.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::head::{Answer, Hello, MAX_HEAD, Nonce, Proof, Refusal, RefusalCode, Role, SessionId};
use super::identity::Identity;
use super::proof::{Secret, Side, Transcript};
use super::{OLDEST_VERSION, VERSION};
use crate::io::{Io, Prefixed};

/// Longest time that the handshake may take: a few round trips on a bad line.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The stream under it failed or ended.
    #[error("the way to the relay broke during the handshake: {0}")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("the relay did not answer within {} s", HANDSHAKE_LIMIT.as_secs())]
    TimedOut,
    /// The relay says no.
    #[error("the relay refused the tunnel: {}", .0.reason)]
    Refused(Refusal),
    /// Somebody who knows the secret wants to be a session that is not theirs.
    #[error("session {0} is another kdev's")]
    NotTheOwner(SessionId),
    /// Whatever answers is no relay.
    #[error("what answers on the tunnel port is not kdev's relay")]
    NotARelay,
    /// It does not know the secret, so it is not the relay that was installed.
    #[error("the relay could not prove that it knows the secret; `kdev upgrade` renews both")]
    Impostor,
    /// The relay speaks only versions that this kdev does not.
    #[error(
        "the relay {relay} speaks tunnel version {version}, this kdev needs {OLDEST_VERSION} to {VERSION}; `kdev upgrade` brings the relay up to date"
    )]
    Version {
        /// The relay's program version.
        relay: String,
        /// What it speaks.
        version: u16,
    },
}

/// The secrets that a relay knows: one for each role.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Admits forward tunnels.
    pub forward: Secret,
    /// Admits reverse tunnels; none where the relay takes no intercepts.
    pub reverse: Option<Secret>,
}

/// A tunnel that a relay took.
#[derive(Debug)]
pub struct Accepted<T, A> {
    /// What kdev said.
    pub hello: Hello,
    /// The version that both speak.
    pub version: u16,
    /// HTTP/2 follows.
    pub io: Prefixed<T>,
    /// What the relay set aside for it.
    pub admitted: A,
}

/// kdev's half, for a tunnel of `role`. Gives the stream that HTTP/2 goes over, and the relay's
/// program version.
///
/// # Errors
/// When the relay refuses, is none, cannot prove itself, or the stream fails.
pub async fn connect<T: Io>(
    io: T,
    role: Role,
    identity: &Identity,
    secret: &Secret,
) -> Result<(Prefixed<T>, String), HandshakeError> {
    tokio::time::timeout(HANDSHAKE_LIMIT, connecting(io, role, identity, secret))
        .await
        .map_err(|_| HandshakeError::TimedOut)?
}

async fn connecting<T: Io>(
    io: T,
    role: Role,
    identity: &Identity,
    secret: &Secret,
) -> Result<(Prefixed<T>, String), HandshakeError> {
    let hello = Hello::new(role, identity.session());
    let mut heads = Heads::new(io);
    heads.send(&hello.encode()).await?;
    let (transcript, proof, program) = match heads.answer().await? {
        Answer::Challenge {
            version,
            nonce,
            proof,
            program,
        } => {
            if !(OLDEST_VERSION..=hello.version).contains(&version) {
                return Err(HandshakeError::Version {
                    relay: program,
                    version,
                });
            }
            (transcript(&hello, version, nonce), proof, program)
        }
        Answer::Refused(refusal) => return Err(HandshakeError::Refused(refusal)),
        Answer::Welcome => return Err(HandshakeError::NotARelay),
    };
    if !transcript.verify(secret, Side::Relay, &proof) {
        return Err(HandshakeError::Impostor);
    }
    let proof = Proof {
        proof: transcript.sign(secret, Side::Kdev),
        ownership: Some(identity.sign(&transcript)),
    };
    heads.send(&proof.encode()).await?;
    match heads.answer().await? {
        Answer::Welcome => Ok((heads.into_io(), program)),
        Answer::Refused(refusal) => Err(HandshakeError::Refused(refusal)),
        Answer::Challenge { .. } => Err(HandshakeError::NotARelay),
    }
}

/// The relay's half. Where it fails, kdev was told why, as far as it listens. `admit` is asked
/// about a peer that has proved itself, and says why there is no room for it.
///
/// # Errors
/// When the peer is no kdev, is too old, cannot prove itself or is not admitted, or the stream
/// fails.
pub async fn accept<T: Io, A>(
    io: T,
    keys: &Keys,
    admit: impl FnOnce(&Hello) -> Result<A, String>,
) -> Result<Accepted<T, A>, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_LIMIT, accepting(io, keys, admit))
        .await
        .map_err(|_| HandshakeError::TimedOut)?
}

async fn accepting<T: Io, A>(
    io: T,
    keys: &Keys,
    admit: impl FnOnce(&Hello) -> Result<A, String>,
) -> Result<Accepted<T, A>, HandshakeError> {
    let mut heads = Heads::new(io);
    let first = match heads.receive().await {
        // Too long, or no text at all.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        first => first?,
    };
    let Some(hello) = Hello::parse(&first) else {
        let reason = "this is kdev's tunnel port; nothing else is served here";
        return Err(heads.refuse(RefusalCode::Malformed, reason).await);
    };
    let version = hello.version.min(VERSION);
    if version < OLDEST_VERSION {
        let reason = format!(
            "kdev {} speaks tunnel version {}, this relay needs {OLDEST_VERSION} or newer; \
             install a newer kdev",
            hello.program, hello.version
        );
        return Err(heads.refuse(RefusalCode::Version, &reason).await);
    }
    let secret = match hello.role {
        Role::Forward => &keys.forward,
        Role::Reverse => match &keys.reverse {
            Some(secret) => secret,
            None => {
                let reason = "this relay was installed without intercepts";
                return Err(heads.refuse(RefusalCode::Proof, reason).await);
            }
        },
    };
    let nonce = Nonce::random();
    let transcript = transcript(&hello, version, nonce);
    let challenge = Answer::Challenge {
        version,
        nonce,
        proof: transcript.sign(secret, Side::Relay),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    heads.send(&challenge.encode()).await?;
    let proof = Proof::parse(&heads.receive().await?);
    let proof = proof.filter(|said| transcript.verify(secret, Side::Kdev, &said.proof));
    let Some(proof) = proof else {
        let reason = format!(
            "the proof for a {} tunnel is wrong: another secret than the relay's",
            hello.role.name()
        );
        return Err(heads.refuse(RefusalCode::Proof, &reason).await);
    };
    let ownership = proof.ownership;
    if !ownership.is_some_and(|ownership| ownership.verify(&transcript)) {
        let error = HandshakeError::NotTheOwner(hello.session);
        let reason = format!("{error}; only the one that began it can prove that it is its own");
        // Whoever it is knows why now; the relay has somebody else to tell.
        let _ = heads.refuse(RefusalCode::Session, &reason).await;
        return Err(error);
    }
    let admitted = match admit(&hello) {
        Ok(admitted) => admitted,
        Err(reason) => return Err(heads.refuse(RefusalCode::Busy, &reason).await),
    };
    heads.send(&Answer::Welcome.encode()).await?;
    Ok(Accepted {
        hello,
        version,
        io: heads.into_io(),
        admitted,
    })
}

fn transcript(hello: &Hello, version: u16, relay: Nonce) -> Transcript {
    Transcript {
        version,
        role: hello.role,
        session: hello.session,
        kdev: hello.nonce,
        relay,
    }
}

/// Messages over a stream, with what was read beyond them kept.
struct Heads<T> {
    io: T,
    read: BytesMut,
}

impl<T: Io> Heads<T> {
    fn new(io: T) -> Self {
        Self {
            io,
            read: BytesMut::new(),
        }
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        self.io.write_all(text.as_bytes()).await?;
        self.io.flush().await
    }

    /// The next message, its empty line included.
    async fn receive(&mut self) -> io::Result<String> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            if let Some(at) = self.read.windows(END.len()).position(|w| w == END) {
                let message = self.read.split_to(at + END.len());
                return String::from_utf8(message.into())
                    .map_err(|_| io::ErrorKind::InvalidData.into());
            }
            if self.read.len() >= MAX_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let room = MAX_HEAD - self.read.len();
            let mut piece = (&mut self.io).take(room as u64);
            if piece.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn answer(&mut self) -> Result<Answer, HandshakeError> {
        let text = self.receive().await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => HandshakeError::NotARelay,
            _ => HandshakeError::Io(error),
        })?;
        Answer::parse(&text).ok_or(HandshakeError::NotARelay)
    }

    /// Tells the peer why, and gives the same as an error.
    async fn refuse(&mut self, code: RefusalCode, reason: &str) -> HandshakeError {
        let refusal = Refusal {
            code,
            reason: reason.to_owned(),
        };
        // A peer that is gone needs no reason.
        let _ = self.send(&Answer::Refused(refusal.clone()).encode()).await;
        let _ = self.io.shutdown().await;
        HandshakeError::Refused(refusal)
    }

    fn into_io(self) -> Prefixed<T> {
        Prefixed::new(self.read.freeze(), self.io)
    }
}
