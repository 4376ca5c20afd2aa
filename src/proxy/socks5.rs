//! SOCKS5 (RFC 1928, 1929): CONNECT, with and without a password. The messages are the
//! `fast-socks5` crate's; who may pass and where it goes is decided here.

use std::net::{Ipv4Addr, SocketAddr};

use fast_socks5::server::{
    AuthMethodSuccessState, NoAuthentication, PasswordAuthentication, Socks5ServerProtocol,
    SocksServerError, StandardAuthentication, StandardAuthenticationStarted, states,
};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use tokio::time::timeout;
use tracing::debug;

use super::HANDSHAKE_TIMEOUT;
use super::access::{Access, Trust};
use super::conn::{Handshake, Session, linger, unbuffer};
use super::reply;
use crate::addr::{Host, Target};
use crate::dial::Dial;
use crate::io::Io;

/// The first byte of each of its messages.
pub(super) const VERSION: u8 = 5;

/// What CONNECT's reply gives as kdev's own address towards the destination: there is none, as
/// the stream ends in the pod. Clients ignore it.
const BOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A method for the app that needs no password; for others only the second.
const METHODS: [StandardAuthentication; 2] = [
    StandardAuthentication::NoAuthentication(NoAuthentication),
    StandardAuthentication::PasswordAuthentication(PasswordAuthentication),
];

/// A request that was read, and the way to answer it.
type Asked<'a, T> = (
    Socks5ServerProtocol<&'a mut Handshake<T>, states::CommandRead>,
    Target,
);

pub(super) async fn serve<T: Io, D: Dial>(
    session: &Session<D>,
    mut stream: Handshake<T>,
    trust: Trust,
) {
    let asking = ask(&mut stream, trust, &session.config.access);
    let joined = match timeout(HANDSHAKE_TIMEOUT, asking).await {
        Ok(Ok(Some((asked, target)))) => match session.dial(&target).await {
            Ok(upstream) => asked.reply_success(BOUND).await.map(|_| Some(upstream)),
            Err(error) => asked
                .reply_error(&reply::socks5(&error))
                .await
                .map(|()| None),
        },
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(_) => return debug!("the SOCKS5 handshake took too long"),
    };
    match joined {
        Ok(Some(upstream)) => session.join(unbuffer(stream), upstream).await,
        Ok(None) => linger(stream).await,
        Err(error) => {
            debug!(%error, "SOCKS5 handshake failed");
            linger(stream).await;
        }
    }
}

/// Reads a request up to its CONNECT. `None` when it was refused and told so.
async fn ask<'a, T: Io>(
    stream: &'a mut Handshake<T>,
    trust: Trust,
    access: &Access,
) -> Result<Option<Asked<'a, T>>, SocksServerError> {
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
                debug!("wrong password");
                auth.reject().await?;
                return Ok(None);
            }
            auth.accept().await?.finish_auth()
        }
    };
    let (proto, command, addr) = proto.read_command().await?;
    let refusal = match (command, target(addr)) {
        (Socks5Command::TCPConnect, Ok(target)) => return Ok(Some((proto, target))),
        (Socks5Command::TCPConnect, Err(refusal)) => refusal,
        (Socks5Command::TCPBind | Socks5Command::UDPAssociate, _) => {
            ReplyError::CommandNotSupported
        }
    };
    proto.reply_error(&refusal).await?;
    Ok(None)
}

fn target(addr: TargetAddr) -> Result<Target, ReplyError> {
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
