//! SOCKS5 UDP ASSOCIATE (RFC 1928, 7): a socket for the datagrams of one app, each of which says
//! where it goes. It lives as long as the TCP connection that asked for it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fast_socks5::ReplyError;
use fast_socks5::parse_udp_request;
use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::access::Access;
use super::conn::{Handshake, Session, linger};
use super::socks5::{VERSION, target};
use super::stats::{CountedDial, Stats};
use crate::addr::Target;
use crate::dial::{Activity, Dial, DialUdp, Room, Taken, receive_from};
use crate::io::Io;
use crate::task::Tasks;

/// Destinations that one app talks to at a time; for another one the quietest has to go. What asks
/// many servers at once, such as a DNS resolver, has some tens.
pub const MAX_FLOWS: usize = 256;
/// How long a flow may carry nothing. DNS and QUIC are done or sent again long before, and who
/// comes later gets a new one.
pub const FLOW_IDLE: Duration = Duration::from_secs(60);
/// Datagrams of one flow that wait, for its dial above all; the next ones are lost.
const WAITING: usize = 64;
/// Bytes of all datagrams of one app that wait.
const WAITING_BYTES: usize = 1 << 20;
/// How long a flow that cannot be opened takes its place: an app that repeats its datagrams must
/// not dial for each.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the buffer for answers that a flow keeps: a frame of Ethernet and the SOCKS header.
const KEPT: usize = 2 << 10;

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
    let mut association = Association {
        socket: Arc::new(socket),
        address,
        access: session.config.access.clone(),
        peer: ends.peer.to_canonical(),
        port,
        client: None,
        flows: HashMap::new(),
        waiting: Room::new(WAITING_BYTES),
        warned: Arc::default(),
        dial: session.dial.clone(),
        stats: session.config.stats.clone(),
        tasks: session.tasks.child(),
    };
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        // Datagrams have nothing to finish.
        () = session.tasks.draining() => {}
        // Nothing is to be said on it any more but its end.
        _ = tokio::io::copy(&mut stream, &mut nowhere) => {}
        error = association.receive() => debug!(%error, "the socket for datagrams broke"),
    }
    association.tasks.kill();
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
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    access: Access,
    peer: IpAddr,
    port: u16,
    /// Where the app sends from: nobody else is heard once that is known.
    client: Option<SocketAddr>,
    /// By the header of their datagrams, which says where they go.
    flows: HashMap<Box<[u8]>, FlowEntry>,
    waiting: Room,
    /// Whether the user was told of a flow that cannot be opened.
    warned: Arc<AtomicBool>,
    dial: CountedDial<D>,
    stats: Arc<Stats>,
    tasks: Tasks,
}

struct FlowEntry {
    payloads: mpsc::Sender<(Bytes, Taken)>,
    activity: Arc<Activity>,
}

impl<D: Dial + DialUdp> Association<D> {
    async fn receive(&mut self) -> io::Error {
        let socket = self.socket.clone();
        loop {
            let received = receive_from(&socket, |datagram, from| {
                if let Err(why) = self.received(datagram, from) {
                    self.stats.drop_datagram();
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
        let taken = self.waiting.take(payload.len()).ok_or("too much waits")?;
        let header = &datagram[..datagram.len() - payload.len()];
        let mut message = (Bytes::copy_from_slice(payload), taken);
        if let Some(flow) = self.flows.get(header) {
            match flow.payloads.try_send(message) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => return Err("too many wait"),
                // It was quiet for too long.
                Err(mpsc::error::TrySendError::Closed(returned)) => message = returned,
            }
        }
        let target = target(address).map_err(|_| "it has no destination")?;
        let flow = self.open(target, header, from);
        // A new queue takes the first.
        let _ = flow.payloads.try_send(message);
        self.flows.insert(header.into(), flow);
        Ok(())
    }

    fn open(&mut self, target: Target, header: &[u8], client: SocketAddr) -> FlowEntry {
        if self.flows.len() >= MAX_FLOWS {
            self.flows.retain(|_, flow| !flow.payloads.is_closed());
        }
        if self.flows.len() >= MAX_FLOWS {
            let quietest = self.flows.iter().max_by_key(|(_, f)| f.activity.quiet());
            if let Some(quietest) = quietest.map(|(header, _)| header.clone()) {
                self.flows.remove(&quietest);
            }
        }
        let (payloads_tx, payloads_rx) = mpsc::channel(WAITING);
        let activity = Arc::new(Activity::new());
        let carrying = Carrying {
            target,
            header: header.into(),
            client,
            socket: self.socket.clone(),
            activity: activity.clone(),
            stats: self.stats.clone(),
            warned: self.warned.clone(),
        };
        let dial = self.dial.clone();
        self.tasks
            .spawn(async move { carrying.run(dial, payloads_rx).await });
        FlowEntry {
            payloads: payloads_tx,
            activity,
        }
    }
}

/// One flow of an app.
struct Carrying {
    target: Target,
    /// What stands before each of its datagrams, in both directions.
    header: Box<[u8]>,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    activity: Arc<Activity>,
    stats: Arc<Stats>,
    warned: Arc<AtomicBool>,
}

impl Carrying {
    async fn run<D: DialUdp>(self, dial: D, mut payloads: mpsc::Receiver<(Bytes, Taken)>) {
        let flow = match dial.dial_udp(&self.target).await {
            Ok(flow) => flow,
            Err(error) => {
                // There is no way to tell the app; the user is told once.
                match self.warned.swap(true, Ordering::Relaxed) {
                    false => warn!("datagrams to {}: {error}", self.target),
                    true => debug!(target = %self.target, %error, "dial failed"),
                }
                return tokio::time::sleep(FAILED_PAUSE).await;
            }
        };
        let (mut sender, mut receiver) = flow.split();
        let forth = async {
            while let Some((payload, _taken)) = payloads.recv().await {
                self.activity.touch();
                if let Err(error) = sender.send(&payload).await {
                    return debug!(target = %self.target, %error, "a flow broke");
                }
                self.stats.datagram_sent(payload.len());
            }
        };
        let back = async {
            let mut answer = BytesMut::from(&self.header[..]);
            while let Ok(true) = receiver.receive(&mut answer).await {
                self.activity.touch();
                match self.socket.send_to(&answer, self.client).await {
                    Ok(_) => self
                        .stats
                        .datagram_received(answer.len() - self.header.len()),
                    Err(error) => debug!(client = %self.client, %error, "an answer is lost"),
                }
                match answer.capacity() > KEPT {
                    true => answer = BytesMut::from(&self.header[..]),
                    false => answer.truncate(self.header.len()),
                }
            }
        };
        tokio::select! {
            () = forth => {}
            () = back => {}
            () = self.activity.idle(FLOW_IDLE) => {}
        }
        sender.finish().await;
    }
}
