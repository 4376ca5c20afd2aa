//! The HTTP upgrade before a tunnel that comes to the pod's own address, through the API server's
//! proxy for pods.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::tunnel::{HANDSHAKE_LIMIT, UPGRADE_PROTOCOL};

/// Most bytes of the request's head: several times what the API server and a few proxies add.
const MAX_HEAD: usize = 8 << 10;
/// Where the head ends.
const END: &[u8] = b"\r\n\r\n";

/// Reads the request and answers it. What follows is the tunnel's handshake.
///
/// # Errors
/// When nothing of the kind is asked for, which the peer is told, or the stream fails.
pub(super) async fn take<T>(io: &mut T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let taken = tokio::time::timeout(HANDSHAKE_LIMIT, taking(io)).await;
    taken.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn taking<T>(io: &mut T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let head = head(io).await?;
    if !asks_for_tunnel(&head) {
        let text = "this is kdev's tunnel port; nothing else is served here\n";
        let answer = format!(
            "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\n\
             Upgrade: {UPGRADE_PROTOCOL}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{text}",
            text.len()
        );
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await?;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no upgrade to a tunnel was asked for",
        ));
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
         Upgrade: {UPGRADE_PROTOCOL}\r\n\r\n"
    );
    io.write_all(answer.as_bytes()).await?;
    io.flush().await
}

/// The request's head, nothing behind it: what came before the 101 would be lost on the way or
/// taken for something else, so nobody who knows the protocol sends any.
async fn head<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<String> {
    let mut head = BytesMut::with_capacity(1 << 10);
    loop {
        if let Some(at) = head.windows(END.len()).position(|window| window == END) {
            if at + END.len() < head.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "bytes before the answer to an upgrade",
                ));
            }
            let head = String::from_utf8(head.into());
            return head.map_err(|_| io::ErrorKind::InvalidData.into());
        }
        if head.len() >= MAX_HEAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of the request is too long",
            ));
        }
        let room = (MAX_HEAD - head.len()) as u64;
        if (&mut *io).take(room).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn asks_for_tunnel(head: &str) -> bool {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let get = first.starts_with("GET ") && first.ends_with(" HTTP/1.1");
    let upgrade = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    get && upgrade.is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case(UPGRADE_PROTOCOL))
}

#[cfg(test)]
// Tests end with their runtime, so nothing has to wait for these tasks.
#[allow(clippy::disallowed_methods)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What comes back, and whether a tunnel may follow.
    async fn answer(width: usize, request: &str) -> (String, bool) {
        let (mut near, mut far) = duplex(width);
        let taking = tokio::spawn(async move { take(&mut far).await.is_ok() });
        let (mut from, mut to) = tokio::io::split(&mut near);
        let mut answer = Vec::new();
        let sending = async {
            // Whoever is refused in the middle needs the rest no more.
            let _ = to.write_all(request.as_bytes()).await;
            let _ = to.shutdown().await;
        };
        let (_, read) = tokio::join!(sending, from.read_to_end(&mut answer));
        read.unwrap();
        (String::from_utf8(answer).unwrap(), taking.await.unwrap())
    }

    #[tokio::test]
    async fn an_upgrade_is_answered_with_101_and_nothing_more() {
        let request = "GET / HTTP/1.1\r\nHost: 10.0.0.5:7001\r\nconnection: Upgrade\r\n\
                       upgrade: Kdev-Tunnel\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
        let (answer, taken) = answer(8, request).await;
        assert!(taken);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for request in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "POST / HTTP/1.1\r\nUpgrade: kdev-tunnel\r\n\r\n",
        ] {
            let (answer, taken) = answer(8, request).await;
            assert!(!taken);
            assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        }
        let early = "GET / HTTP/1.1\r\nUpgrade: kdev-tunnel\r\n\r\nKDEV-TUNNEL 2\r\n";
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
        for request in [early, &long, "KDEV-TUNNEL 2\r\nrole: forward\r\n", ""] {
            let (answer, taken) = answer(64 << 10, request).await;
            assert!(!taken && answer.is_empty(), "{answer}");
        }
    }
}
