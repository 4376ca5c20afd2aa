//! Connecting to one of several addresses of a host, on the laptop and in the relay's pod alike.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::DialError;
use crate::addr::Target;

/// How long an attempt goes on alone before the next address is tried beside it (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How many addresses of a host are tried: more than any healthy name has.
const MAX_ADDRESSES: usize = 16;

/// A connection to the first of `addresses` that takes one, each of which has `limit` for it.
///
/// # Errors
/// What the last attempt came to; where there are no addresses, that they do not answer.
pub(crate) async fn tcp(
    target: &Target,
    addresses: Vec<SocketAddr>,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let dial = |address| async move {
        let stream = TcpStream::connect(address).await?;
        // Fails only on a socket that is gone already; the first read says so.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    };
    first(target, addresses, limit, dial).await
}

/// What `dial` makes of the first of `addresses` that takes a connection; otherwise as [`tcp`].
///
/// # Errors
/// As [`tcp`].
pub(crate) async fn first<C, F: Future<Output = io::Result<C>>>(
    target: &Target,
    addresses: Vec<SocketAddr>,
    limit: Duration,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<C, DialError> {
    let mut addresses = interleaved(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = timed_out(target, limit);
    loop {
        attempts.extend(addresses.next().map(|a| timeout(limit, dial(a))));
        let more = !addresses.as_slice().is_empty();
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => last = cause(target, &error, limit),
                Some(Err(_)) => last = timed_out(target, limit),
                None => return Err(last),
            },
            () = tokio::time::sleep(STAGGER), if more => {}
        }
    }
}

/// A socket for datagrams to and from the first of `addresses` that there is a route to.
///
/// # Errors
/// Why there is none.
pub(crate) async fn udp(
    target: &Target,
    addresses: Vec<SocketAddr>,
) -> Result<UdpSocket, DialError> {
    let mut last = timed_out(target, Duration::ZERO);
    for address in interleaved(addresses) {
        match connected(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = cause(target, &error, Duration::ZERO),
        }
    }
    Err(last)
}

async fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    // Connected, so that only this peer's datagrams come back.
    socket.connect(address).await?;
    Ok(socket)
}

/// Both families by turns, the system's first choice first (RFC 8305, 4): one family that leads
/// nowhere must not hold the other up.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut found = Vec::new();
    while found.len() < MAX_ADDRESSES {
        let before = found.len();
        found.extend(one.next());
        found.extend(other.next());
        if found.len() == before {
            break;
        }
    }
    found
}

fn timed_out(target: &Target, after: Duration) -> DialError {
    DialError::TimedOut {
        target: target.to_string(),
        after,
    }
}

/// Names the cause of a failed connect, which had `limit`, in the words of [`DialError`].
fn cause(target: &Target, error: &io::Error, limit: Duration) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused {
            target: target.to_string(),
            reason: String::new(),
        },
        io::ErrorKind::TimedOut => timed_out(target, limit),
        _ => DialError::Unreachable {
            target: target.to_string(),
            reason: error.to_string(),
            fix: String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"];
        let sorted = interleaved(all.map(|a| a.parse().unwrap()).into());
        let shown: Vec<String> = sorted.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]);
        let many = (0..100).map(|i| SocketAddr::from(([10, 0, 0, i], 1)));
        assert_eq!(interleaved(many.collect()).len(), MAX_ADDRESSES);
        assert!(interleaved(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_the_others_up_no_longer_than_a_moment() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = server.local_addr().unwrap();
        // A full queue answers no more: the system drops what comes.
        let mute = tokio::net::TcpSocket::new_v4().unwrap();
        mute.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mute = mute.listen(1).unwrap();
        let silent = mute.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(Ok(taken)) =
            timeout(Duration::from_millis(200), TcpStream::connect(silent)).await
        {
            held.push(taken);
        }
        let target: Target = "several:80".parse().unwrap();
        let limit = Duration::from_secs(60);
        let stream = tcp(&target, vec![silent, here], limit).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        let short = Duration::from_millis(300);
        let error = tcp(&target, vec![silent], short).await.unwrap_err();
        assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
    }
}
