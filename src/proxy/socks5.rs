//! SOCKS5 (RFC 1928, 1929): CONNECT and UDP ASSOCIATE, with and without a password. The messages are the
//! `fast-socks5` crate's; who may pass and where it goes is decided here.

use fast_socks5::server::{
    AuthMethodSuccessState, NoAuthentication, PasswordAuthentication, Socks5ServerProtocol,
    SocksServerError, StandardAuthentication, StandardAuthenticationStarted,
};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::debug;

use super::HANDSHAKE_TIMEOUT;
use super::access::{Access, Trust};
use super::conn::{Handshake, Session, linger, unbuffer};
use super::reply;
use super::udp::{self, Ends};
use crate::addr::{Host, Target};
use crate::dial::{Dial, DialUdp};
use crate::io::Io;

/// The first byte of each of its messages.
pub(super) const VERSION: u8 = 5;

/// A method for the app that needs no password; for others only the second.
const METHODS: [StandardAuthentication; 2] = [
    StandardAuthentication::NoAuthentication(NoAuthentication),
    StandardAuthentication::PasswordAuthentication(PasswordAuthentication),
];

/// What an app asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Connect(Target),
    /// The port that its datagrams will come from; 0 where it does not know.
    Associate(u16),
}

pub(super) async fn serve<T: Io, D: Dial + DialUdp>(
    session: &Session<D>,
    mut stream: Handshake<T>,
    trust: Trust,
    ends: Option<Ends>,
) {
    // Boxed, so that a connection that stands has nothing of its handshake.
    let asking = Box::pin(ask(&mut stream, trust, &session.config.access));
    let dialled = match timeout(HANDSHAKE_TIMEOUT, asking).await {
        Ok(Ok(Ok(Request::Associate(port)))) => {
            // Boxed, because few apps ask for it and it would make each connection larger.
            return Box::pin(udp::serve(session, stream, ends, port)).await;
        }
        Ok(Ok(Ok(Request::Connect(target)))) => {
            match session.dial_for(&mut stream, &target).await {
                Some(result) => result.map_err(|e| reply::socks5(&e)),
                None => return,
            }
        }
        Ok(Ok(Err(refusal))) => Err(refusal),
        Ok(Err(error)) => {
            debug!(%error, "SOCKS5 handshake failed");
            return linger(stream).await;
        }
        Err(_) => return debug!("the SOCKS5 handshake took too long"),
    };
    let code = match &dialled {
        Ok(_) => ReplyError::Succeeded,
        Err(refusal) => *refusal,
    };
    // Not fast-socks5's `reply_success`, which does not look at how much of it was written. The
    // address is kdev's own towards the destination: there is none, as the stream ends in the pod.
    let reply = [VERSION, code.as_u8(), 0, 1, 0, 0, 0, 0, 0, 0];
    if let Err(error) = stream.write_all(&reply).await {
        return debug!(%error, "the app left during the SOCKS5 handshake");
    }
    match dialled {
        Ok(upstream) => session.join(unbuffer(stream), upstream).await,
        Err(_) => linger(stream).await,
    }
}

/// Reads a request to its end, or why that cannot be done. An error has been answered, as
/// far as it can be.
async fn ask<T: Io>(
    stream: &mut Handshake<T>,
    trust: Trust,
    access: &Access,
) -> Result<Result<Request, ReplyError>, SocksServerError> {
    let methods = match trust {
        Trust::Full => &METHODS[..],
        Trust::NeedsPassword | Trust::None => &METHODS[1..],
    };
    let proto = match Socks5ServerProtocol::start(stream)
        .negotiate_auth(methods)
        .await?
    {
        StandardAuthenticationStarted::NoAuthentication(auth) => auth.finish_auth(),
        StandardAuthenticationStarted::PasswordAuthentication(auth) => {
            let (_, password, auth) = auth.read_username_password().await?;
            if trust != Trust::Full && !access.admits(password.as_bytes()) {
                auth.reject().await?;
                return Err(SocksServerError::AuthenticationRejected);
            }
            auth.accept().await?.finish_auth()
        }
    };
    let (_, command, addr) = proto.read_command().await?;
    Ok(match command {
        Socks5Command::TCPConnect => target(addr).map(Request::Connect),
        // The address is what the app takes for its own, which another network may see otherwise.
        Socks5Command::UDPAssociate => Ok(Request::Associate(match addr {
            TargetAddr::Ip(addr) => addr.port(),
            TargetAddr::Domain(_, port) => port,
        })),
        Socks5Command::TCPBind => Err(ReplyError::CommandNotSupported),
    })
}

/// The destination that a message names.
pub(super) fn target(addr: TargetAddr) -> Result<Target, ReplyError> {
    let (host, port) = match addr {
        TargetAddr::Ip(addr) => (Host::from(addr.ip()), addr.port()),
        TargetAddr::Domain(name, port) => match name.parse() {
            Ok(host) => (host, port),
            Err(error) => {
                debug!(%error, "no such host");
                return Err(ReplyError::HostUnreachable);
            }
        },
    };
    if port == 0 {
        return Err(ReplyError::ConnectionRefused);
    }
    Ok(Target::new(host, port))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, BufReader};

    use super::super::access::Password;
    use super::super::stats::Counted;
    use super::*;

    /// What the proxy makes of `bytes`, and what it leaves unread and writes.
    fn asked(bytes: &[u8], password: Option<&str>) -> (Option<Target>, Vec<u8>, Vec<u8>) {
        let trust = match password {
            Some(_) => Trust::NeedsPassword,
            None => Trust::Full,
        };
        let access = Access::SameUser {
            password: password.map(Password::new),
        };
        let talk = async {
            let (mut app, stream) = tokio::io::duplex(4096);
            app.write_all(bytes).await.unwrap();
            app.shutdown().await.unwrap();
            let mut stream = BufReader::new(Counted::new(stream, std::sync::Arc::default()));
            let target = ask(&mut stream, trust, &access).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            drop(stream);
            let mut written = Vec::new();
            app.read_to_end(&mut written).await.unwrap();
            let target = match target.ok().and_then(Result::ok) {
                Some(Request::Connect(target)) => Some(target),
                Some(Request::Associate(_)) | None => None,
            };
            (target, rest, written)
        };
        // Everything is there already, so nothing waits.
        talk.now_or_never().unwrap()
    }

    fn hosts() -> impl Strategy<Value = Host> {
        prop_oneof![
            any::<std::net::IpAddr>().prop_map(Host::from),
            "[a-z]{1,20}(\\.[a-z0-9_-]{1,60}){0,3}".prop_map(Host::Name),
        ]
    }

    fn write(target: &Target) -> Vec<u8> {
        let mut bytes = vec![VERSION, 1, 0];
        match &target.host {
            Host::Ip(std::net::IpAddr::V4(ip)) => {
                bytes.push(1);
                bytes.extend(ip.octets());
            }
            Host::Ip(std::net::IpAddr::V6(ip)) => {
                bytes.push(4);
                bytes.extend(ip.octets());
            }
            Host::Name(name) => {
                bytes.extend([3, name.len() as u8]);
                bytes.extend(name.as_bytes());
            }
        }
        bytes.extend(target.port.to_be_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(host in hosts(), port in 1..=u16::MAX, after: Vec<u8>) {
            let target = Target::new(host, port);
            let request = [&[5, 1, 0][..], &write(&target)].concat();
            let (asked_for, rest, written) = asked(&[&request[..], &after].concat(), None);
            prop_assert_eq!(asked_for, Some(target));
            prop_assert_eq!(rest, after);
            prop_assert_eq!(written, [5, 0]);
            for end in 0..request.len() {
                prop_assert_eq!(asked(&request[..end], None).0, None);
            }
        }

        #[test]
        fn only_the_password_opens(user in ".{1,60}", password in ".{1,60}", right: bool) {
            let target: Target = "web.shop:80".parse().unwrap();
            let mut request = vec![5, 2, 0, 2, 1, user.len() as u8];
            request.extend(user.as_bytes());
            request.push(password.len() as u8);
            request.extend(password.as_bytes());
            request.extend(write(&target));
            let expected = if right { password.clone() } else { password.clone() + "x" };
            let (asked_for, _, written) = asked(&request, Some(&expected));
            prop_assert_eq!(asked_for, right.then_some(target));
            prop_assert_eq!(written, if right { [5, 2, 1, 0] } else { [5, 2, 1, 0xff] });
        }
    }
}
