//! SOCKS5 UDP ASSOCIATE (RFC 1928, 7): a socket for the datagrams of one app, each of which says
//! where it goes. It lives as long as the TCP connection that asked for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fast_socks5::ReplyError;
use fast_socks5::parse_udp_request;
use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;
use tracing::debug;

use super::access::Access;
use super::conn::{Handshake, Session, linger};
use super::socks5::{VERSION, target};
use super::stats::{CountedDial, Stats};
use crate::dial::{self, Count as _, Dial, DialUdp, Flows, receive_from};
use crate::io::Io;

/// The two ends of the TCP connection that asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The app.
    pub(super) peer: IpAddr,
    /// The listener, as the app reached it.
    pub(super) local: IpAddr,
}

/// Serves an app that sends its datagrams from `port`, or from any where that is 0, until it
/// closes its TCP connection.
pub(super) async fn serve<T: Io, D: Dial + DialUdp>(
    session: &Session<D>,
    mut stream: Handshake<T>,
    ends: Option<Ends>,
    port: u16,
) {
    let bound = match ends {
        Some(ends) => bind(ends.local.to_canonical()).await.map(|b| (ends, b)),
        None => Err(io::ErrorKind::Unsupported.into()),
    };
    let (ends, (socket, address)) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            debug!(%error, "no socket for datagrams");
            let refusal = reply(ReplyError::GeneralFailure, ([0, 0, 0, 0], 0).into());
            // Whether the app sees it or not, the connection is over.
            let _ = stream.write_all(&refusal).await;
            return linger(stream).await;
        }
    };
    if let Err(error) = stream
        .write_all(&reply(ReplyError::Succeeded, address))
        .await
    {
        return debug!(%error, "the app left during the SOCKS5 handshake");
    }
    let stats = session.config.stats.clone();
    let tasks = session.tasks.child();
    let mut association = Association {
        address,
        access: session.config.access.clone(),
        peer: ends.peer.to_canonical(),
        port,
        client: None,
        flows: Flows::new(socket, session.dial.clone(), stats.clone(), tasks),
        stats,
    };
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        // Datagrams have nothing to finish.
        () = session.tasks.draining() => {}
        // Nothing is to be said on it any more but its end.
        _ = tokio::io::copy(&mut stream, &mut nowhere) => {}
        error = association.receive() => debug!(%error, "the socket for datagrams broke"),
    }
    association.flows.kill();
}

async fn bind(ip: IpAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind((ip, 0)).await?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// A reply (RFC 1928, 6) with the address where datagrams are expected.
fn reply(code: ReplyError, address: SocketAddr) -> Vec<u8> {
    let mut reply = vec![VERSION, code.as_u8(), 0];
    match address.ip() {
        IpAddr::V4(ip) => {
            reply.push(1);
            reply.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            reply.push(4);
            reply.extend(ip.octets());
        }
    }
    reply.extend(address.port().to_be_bytes());
    reply
}

/// One app's socket, and what goes through it.
struct Association<D> {
    address: SocketAddr,
    access: Access,
    peer: IpAddr,
    port: u16,
    /// Where the app sends from: nobody else is heard once that is known.
    client: Option<SocketAddr>,
    /// By the header of their datagrams, which says where they go.
    flows: Flows<Box<[u8]>, CountedDial<D>>,
    stats: Arc<Stats>,
}

impl<D: Dial + DialUdp> Association<D> {
    async fn receive(&mut self) -> io::Error {
        let socket = self.flows.socket.clone();
        loop {
            let received = receive_from(&socket, |datagram, from| {
                if let Err(why) = self.received(datagram, from) {
                    self.stats.dropped();
                    debug!(%from, why, "dropped a datagram");
                }
            });
            if let Err(error) = received.await {
                return error;
            }
        }
    }

    /// Passes a datagram on, or says why not.
    fn received(&mut self, datagram: &[u8], from: SocketAddr) -> Result<(), &'static str> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let is_client = match self.client {
            Some(client) => client == from,
            None => from.ip() == self.peer && (self.port == 0 || self.port == from.port()),
        };
        if !is_client {
            return Err("it is not the app's");
        }
        // All of it is there, so nothing waits.
        let parsed = parse_udp_request(datagram).now_or_never();
        let Some(Ok((fragment, address, payload))) = parsed else {
            return Err("its header is malformed");
        };
        if fragment != 0 {
            return Err("it is a fragment");
        }
        if self.client.is_none() {
            if !self.access.admits_datagrams(from, self.address) {
                return Err("it is of another user");
            }
            self.client = Some(from);
        }
        let header = &datagram[..datagram.len() - payload.len()];
        self.flows.pass(header, payload, || {
            let ends = dial::Ends {
                target: target(address).map_err(|_| "it has no destination")?,
                client: from,
                header: header.into(),
                from: None,
            };
            Ok((header.into(), ends))
        })
    }
}
