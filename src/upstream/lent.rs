//! The proxy of another kdev of this user, for what was caught: by SOCKS5, datagrams too
//! (RFC 1928, 7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::socks;
use super::url::ProxyUrl;
use crate::addr::{Host, Target};
use crate::dial::{Dial, DialError, DialUdp, Flow, LAPTOP_DIAL_TIMEOUT};
use crate::io::BoxIo;

/// Says hello without a login, and asks for an association with whatever port.
const ASSOCIATE: [u8; 13] = [5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0];
/// What is answered to that before the address: hello, and "granted".
const GRANTED: [u8; 5] = [5, 0, 5, 0, 0];

/// Dials through the proxy of another kdev.
#[derive(Clone, Debug)]
pub struct Lent {
    at: SocketAddr,
    url: Option<Arc<ProxyUrl>>,
}

impl Lent {
    /// Through the one that listens at `at`.
    #[must_use]
    pub fn new(at: SocketAddr) -> Self {
        let url = format!("socks5h://{at}").parse().ok();
        Self {
            at,
            url: url.map(Arc::new),
        }
    }

    fn gone(&self, target: &Target, error: &io::Error) -> DialError {
        DialError::Unreachable {
            target: target.to_string(),
            reason: format!("the kdev at {} does not serve any more: {error}", self.at),
            fix: String::new(),
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn associate(&self, target: &Target) -> io::Result<Flow> {
        let mut control = self.connect().await?;
        control.write_all(&ASSOCIATE).await?;
        let mut granted = [0; GRANTED.len()];
        control.read_exact(&mut granted).await?;
        if granted != GRANTED {
            return Err(io::Error::other("it carries no datagrams"));
        }
        let at = match control.read_u8().await? {
            1 => IpAddr::from(control.read_u32().await?.to_be_bytes()),
            _ => IpAddr::from(control.read_u128().await?.to_be_bytes()),
        };
        let at = SocketAddr::new(at, control.read_u16().await?);
        let socket = UdpSocket::bind((self.at.ip(), 0)).await?;
        socket.connect(at).await?;
        let mut header = vec![0; 3];
        match &target.host {
            Host::Ip(IpAddr::V4(ip)) => {
                header.push(1);
                header.extend(ip.octets());
            }
            Host::Ip(IpAddr::V6(ip)) => {
                header.push(4);
                header.extend(ip.octets());
            }
            Host::Name(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        header.extend(target.port.to_be_bytes());
        Ok(Flow::behind(socket, header, control))
    }
}

impl Dial for Lent {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        let Some(url) = &self.url else {
            return Err(self.gone(target, &io::ErrorKind::InvalidInput.into()));
        };
        let dialling = async {
            let stream = self.connect().await.map_err(|e| self.gone(target, &e))?;
            let opened = socks::open(url, Box::new(stream), target).await;
            opened.map_err(|error| error.into_dial(target))
        };
        // The other one bounds its own dials, which may take the relay's time.
        match timeout(LAPTOP_DIAL_TIMEOUT * 2, dialling).await {
            Ok(result) => result,
            Err(_) => Err(DialError::TimedOut {
                target: target.to_string(),
                after: LAPTOP_DIAL_TIMEOUT * 2,
            }),
        }
    }
}

impl DialUdp for Lent {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let opened = timeout(LAPTOP_DIAL_TIMEOUT, self.associate(target)).await;
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        opened.map_err(|error| self.gone(target, &error))
    }
}
