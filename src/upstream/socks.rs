//! SOCKS5 to a proxy (RFC 1928), with user and password (RFC 1929).

use std::net::{Ipv4Addr, SocketAddr};

use fast_socks5::client::{Config, Socks5Stream};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{AuthenticationMethod, ReplyError, Socks5Command, SocksError, new_udp_header};

use super::error::ProxyError;
use super::url::ProxyUrl;
use crate::addr::{Host, Target};
use crate::io::BoxIo;

/// Longest user name or password that fits into a message (RFC 1929, 2).
const MAX_FIELD: usize = 255;

/// Asks the proxy behind `stream` for a connection to `target`, whose name it resolves.
pub(super) async fn open(
    proxy: &ProxyUrl,
    stream: BoxIo,
    target: &Target,
) -> Result<BoxIo, ProxyError> {
    let login = match &proxy.login {
        Some((user, password)) if user.len() > MAX_FIELD || password.len() > MAX_FIELD => {
            return Err(ProxyError::LoginRefused {
                proxy: proxy.to_string(),
                who: format!("a user name or password of more than {MAX_FIELD} bytes"),
                methods: vec!["SOCKS5".to_owned()],
            });
        }
        Some((user, password)) => Some(AuthenticationMethod::Password {
            username: user.clone(),
            password: password.clone(),
        }),
        None => None,
    };
    let asked = async {
        let mut stream = Socks5Stream::use_stream(stream, login, Config::default()).await?;
        let command = Socks5Command::TCPConnect;
        stream.request(command, address(target)).await?;
        Ok(stream.get_socket())
    };
    asked.await.map_err(|error| why(proxy, target, error))
}

/// Asks the proxy behind `stream`, which wants no login, to pass datagrams to `target` on. They go to
/// the address that is given, each behind a [`header`], as long as the stream is open.
pub(super) async fn associate(
    proxy: &ProxyUrl,
    stream: BoxIo,
    target: &Target,
) -> Result<(BoxIo, SocketAddr), ProxyError> {
    // From whatever port: it is not bound yet.
    let anywhere = TargetAddr::Ip((Ipv4Addr::UNSPECIFIED, 0).into());
    let asked = async {
        let mut stream = Socks5Stream::use_stream(stream, None, Config::default()).await?;
        let at = stream
            .request(Socks5Command::UDPAssociate, anywhere)
            .await?;
        Ok((stream.get_socket(), at))
    };
    match asked.await.map_err(|error| why(proxy, target, error))? {
        (stream, TargetAddr::Ip(at)) => Ok((stream, at)),
        (_, TargetAddr::Domain(name, _)) => Err(ProxyError::Protocol {
            proxy: proxy.to_string(),
            reason: format!("it takes datagrams at {name:?}, which is no address"),
        }),
    }
}

/// What stands before each datagram to `target`, and before each from there.
pub(super) fn header(proxy: &ProxyUrl, target: &Target) -> Result<Vec<u8>, ProxyError> {
    new_udp_header(address(target)).map_err(|error| ProxyError::Protocol {
        proxy: proxy.to_string(),
        reason: error.to_string(),
    })
}

fn address(target: &Target) -> TargetAddr {
    match &target.host {
        Host::Ip(ip) => TargetAddr::Ip((*ip, target.port).into()),
        Host::Name(name) => TargetAddr::Domain(name.clone(), target.port),
    }
}

fn why(proxy: &ProxyUrl, target: &Target, error: SocksError) -> ProxyError {
    let (name, methods) = (proxy.to_string(), vec!["SOCKS5".to_owned()]);
    match error {
        SocksError::AuthMethodUnacceptable(_) | SocksError::AuthenticationRejected(_) => {
            match proxy.user() {
                Some(user) => ProxyError::LoginRefused {
                    proxy: name,
                    who: format!("user {user:?} with the password of its URL"),
                    methods,
                },
                None => ProxyError::LoginNeeded {
                    proxy: name,
                    methods,
                },
            }
        }
        SocksError::ReplyError(ReplyError::ConnectionNotAllowed) => ProxyError::Refused {
            proxy: name,
            target: target.to_string(),
            reason: "its rules do not allow it".to_owned(),
        },
        SocksError::ReplyError(reply) => ProxyError::NotConnected {
            proxy: name,
            target: target.to_string(),
            refused: matches!(reply, ReplyError::ConnectionRefused),
            reason: reply.to_string(),
        },
        error => ProxyError::Protocol {
            proxy: name,
            reason: innermost(&error),
        },
    }
}

/// The innermost cause.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
