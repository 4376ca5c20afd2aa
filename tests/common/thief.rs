//! Somebody who knows the key of intercepts and the id of a colleague's session, and wants its
//! requests: says all of the handshake that can be said with these.

use std::fmt::Write as _;

use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kdev::tunnel::{SessionId, VERSION};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What the thief shows for the session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shows {
    /// Nothing.
    Nothing,
    /// A key pair of its own.
    OwnKey,
}

/// Asks for a reverse tunnel of `session`, and gives the relay's last word.
pub(crate) async fn join<T>(mut io: T, key: &[u8], session: SessionId, shows: Shows) -> String
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let nonce = [7; 32];
    let hello = format!(
        "KDEV-TUNNEL {VERSION}\r\nrole: reverse\r\nsession: {session}\r\nnonce: {}\r\n\
         program: 0.1.0\r\n\r\n",
        hex(&nonce)
    );
    io.write_all(hello.as_bytes()).await.unwrap();
    let challenge = head(&mut io).await;
    assert!(challenge.contains(" challenge\r\n"), "{challenge}");
    let theirs = challenge.split_once("nonce: ").unwrap().1;
    let transcript = [
        &VERSION.to_be_bytes()[..],
        b"reverse\0",
        &session.0,
        &nonce,
        &bytes(&theirs[..64]),
    ]
    .concat();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(b"kdev-tunnel kdev\0");
    mac.update(&transcript);
    let mut proof = format!(
        "KDEV-TUNNEL proof\r\nproof: {}\r\n",
        hex(&mac.finalize().into_bytes())
    );
    if let Shows::OwnKey = shows {
        let own = SigningKey::from_bytes(&[9; 32]);
        let signature = own.sign(&transcript).to_bytes();
        let (key, signature) = (hex(own.verifying_key().as_bytes()), hex(&signature));
        write!(proof, "key: {key}\r\nsignature: {signature}\r\n").unwrap();
    }
    proof += "\r\n";
    io.write_all(proof.as_bytes()).await.unwrap();
    head(&mut io).await
}

/// The next message.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(read).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let pairs = digits.map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}
