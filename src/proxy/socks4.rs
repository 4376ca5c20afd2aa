//! SOCKS4 and SOCKS4a: what old clients and some libraries speak. CONNECT alone; there is no
//! password in it, so only an app that needs none can use it.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tracing::debug;

use super::HANDSHAKE_TIMEOUT;
use super::access::Trust;
use super::conn::{Handshake, Session, linger, unbuffer};
use crate::addr::{Host, Target};
use crate::dial::Dial;
use crate::io::Io;

/// The first byte of a request.
pub(super) const VERSION: u8 = 4;

/// Longest user name, and longest host name: the same as SOCKS5 can say.
const MAX_FIELD: u64 = 255;

const CONNECT: u8 = 1;
const GRANTED: u8 = 0x5a;
const REJECTED: u8 = 0x5b;

/// What an app asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    command: u8,
    port: u16,
    host: Name,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Ip(Ipv4Addr),
    /// SOCKS4a.
    Text(Vec<u8>),
}

pub(super) async fn serve<T: Io, D: Dial>(
    session: &Session<D>,
    mut stream: Handshake<T>,
    trust: Trust,
) {
    let request = match timeout(HANDSHAKE_TIMEOUT, read(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            debug!(%error, "SOCKS4 handshake failed");
            return linger(stream).await;
        }
        Err(_) => return debug!("the SOCKS4 handshake took too long"),
    };
    let upstream = match request.target() {
        _ if trust != Trust::Full => {
            debug!("SOCKS4 has no password, and this app needs one: use socks5h:// or http://");
            None
        }
        Some(target) => match session.dial_for(&mut stream, &target).await {
            Some(result) => result.ok(),
            None => return,
        },
        None => None,
    };
    let code = if upstream.is_some() {
        GRANTED
    } else {
        REJECTED
    };
    if let Err(error) = stream.write_all(&[0, code, 0, 0, 0, 0, 0, 0]).await {
        return debug!(%error, "the app left during the SOCKS4 handshake");
    }
    match upstream {
        Some(upstream) => session.join(unbuffer(stream), upstream).await,
        None => linger(stream).await,
    }
}

/// Reads a request: version, command, port, address, user name and, for SOCKS4a, host name.
async fn read<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Request> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    let [_, command, port_high, port_low, a, b, c, d] = head;
    read_text(stream).await?;
    // 0.0.0.x is no address: the name follows (SOCKS4a).
    let host = match [a, b, c, d] {
        [0, 0, 0, last] if last != 0 => Name::Text(read_text(stream).await?),
        ip => Name::Ip(ip.into()),
    };
    Ok(Request {
        command,
        port: u16::from_be_bytes([port_high, port_low]),
        host,
    })
}

/// Reads up to a zero byte.
async fn read_text<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    stream.take(MAX_FIELD + 1).read_until(0, &mut text).await?;
    match text.pop() {
        Some(0) => Ok(text),
        Some(_) if text.len() as u64 == MAX_FIELD => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a field is longer than {MAX_FIELD} bytes"),
        )),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Request {
    /// Where it wants to go; `None` where it is no CONNECT or the place cannot exist.
    fn target(&self) -> Option<Target> {
        let host = match &self.host {
            Name::Ip(ip) => Host::Ip((*ip).into()),
            Name::Text(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        };
        (self.command == CONNECT && self.port != 0).then(|| Target::new(host, self.port))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn parse(mut bytes: &[u8]) -> io::Result<(Request, usize)> {
        let before = bytes.len();
        // A slice never waits.
        let request = read(&mut bytes).now_or_never().unwrap()?;
        Ok((request, before - bytes.len()))
    }

    fn write(request: &Request, user: &[u8]) -> Vec<u8> {
        let mut bytes = vec![VERSION, request.command];
        bytes.extend(request.port.to_be_bytes());
        match &request.host {
            Name::Ip(ip) => bytes.extend(ip.octets()),
            Name::Text(_) => bytes.extend([0, 0, 0, 7]),
        }
        bytes.extend(user);
        bytes.push(0);
        if let Name::Text(text) = &request.host {
            bytes.extend(text);
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn both_forms() {
        let (request, _) = parse(b"\x04\x01\x00\x50\x0a\x60\x00\x01me\0").unwrap();
        assert_eq!(request.target(), Some("10.96.0.1:80".parse().unwrap()));
        let (request, _) = parse(b"\x04\x01\x00\x50\0\0\0\x01me\0web.shop\0").unwrap();
        assert_eq!(request.target(), Some("web.shop:80".parse().unwrap()));
        for refused in [
            &b"\x04\x02\x00\x50\x0a\x60\x00\x01\0"[..],
            b"\x04\x01\x00\x00\x0a\x60\x00\x01\0",
            b"\x04\x01\x00\x50\0\0\0\x01\0\0",
            b"\x04\x01\x00\x50\0\0\0\x01\0a b\0",
            b"\x04\x01\x00\x50\0\0\0\x01\0\xff\0",
        ] {
            assert_eq!(parse(refused).unwrap().0.target(), None, "{refused:?}");
        }
    }

    #[test]
    fn fields_are_bounded() {
        let mut long = b"\x04\x01\x00\x50\x0a\x60\x00\x01".to_vec();
        long.extend([b'a'; 255]);
        assert!(parse(&[&long[..], b"\0"].concat()).is_ok());
        assert!(parse(&[&long[..], b"a\0"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            command: u8,
            port: u16,
            ip in any::<[u8; 4]>(),
            name in proptest::option::of(proptest::collection::vec(1..=255u8, 0..=255)),
            user in proptest::collection::vec(1..=255u8, 0..=255),
            after: Vec<u8>,
        ) {
            prop_assume!(name.is_some() || ip[..3] != [0, 0, 0] || ip[3] == 0);
            let host = name.map_or_else(|| Name::Ip(ip.into()), Name::Text);
            let request = Request { command, port, host };
            let written = write(&request, &user);
            let (read, used) = parse(&[&written[..], &after].concat()).unwrap();
            prop_assert_eq!(read, request);
            prop_assert_eq!(used, written.len());
            // No part of it is a request.
            for end in 0..written.len() {
                prop_assert!(parse(&written[..end]).is_err());
            }
        }
    }
}
