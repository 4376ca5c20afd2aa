//! Connections and datagrams that were caught on their way: nobody says where they shall go, since
//! the socket that took them knows.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::BoxFuture;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::io::{BufReader, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::{Instrument as _, debug, debug_span, field};

use super::conn::{HANDSHAKE_BUFFER, Session, unbuffer};
use super::datagrams::all_to;
use super::flows::{Ends, Flows};
use super::stats::Counted;
use super::{Config, Stats};
use crate::addr::{Host, Target};
use crate::dial::{Dial, DialUdp};
use crate::io::{Io as _, accept_each, splice};
use crate::task::Tasks;

/// Datagrams that are taken at once before other tasks have their turn.
const BATCH: usize = 64;
/// Connections with questions about names at a time: as many as kdev's own DNS server takes.
const MAX_QUESTIONS: usize = 128;
/// Largest datagram.
const LARGEST: usize = 64 << 10;

/// Makes a socket from which answers of an address come.
pub type AnswersFrom =
    Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<UdpSocket>> + Send + Sync>;

/// Serves what was caught.
#[derive(Debug)]
pub struct Captured {
    /// Accept connections whose own address is where they wanted to go.
    pub tcp: Vec<TcpListener>,
    /// Receive datagrams, each with the address where it wanted to go.
    pub udp: Vec<UdpSocket>,
    /// An address that means this machine's loopback.
    pub host: IpAddr,
}

impl Captured {
    /// Serves until `tasks` drain. Connections live in `tasks`.
    pub fn serve<D: Dial + DialUdp>(
        self,
        dial: D,
        answers: AnswersFrom,
        config: Config,
        tasks: &Tasks,
    ) {
        let (stats, host, most) = (config.stats.clone(), self.host, config.max_connections);
        let session = Arc::new(Session::new(dial.clone(), config, tasks.clone()));
        for listener in self.tcp {
            let session = session.clone();
            tasks.spawn(accept_each(
                listener,
                most,
                tasks.clone(),
                move |stream, peer| {
                    let session = session.clone();
                    let span = debug_span!("conn", %peer, target = field::Empty);
                    async move { session.caught(stream, host).await }.instrument(span)
                },
            ));
        }
        for socket in self.udp {
            let datagrams = Datagrams {
                host: self.host,
                answers: answers.clone(),
                sockets: Arc::default(),
            };
            let serving = datagrams.serve(socket, dial.clone(), stats.clone(), tasks.clone());
            tasks.spawn(serving);
        }
    }
}

/// Questions about names that were caught.
#[derive(Debug)]
pub struct Names {
    /// Takes them by connection.
    pub tcp: TcpListener,
    /// Takes them by datagram.
    pub udp: UdpSocket,
}

impl Names {
    /// Passes them on to `nameserver` until `tasks` drain.
    pub fn serve<D: Dial + DialUdp>(
        self,
        nameserver: SocketAddr,
        dial: D,
        stats: Arc<Stats>,
        tasks: &Tasks,
    ) {
        let target = Target::new(Host::Ip(nameserver.ip()), nameserver.port());
        let (by, to) = (dial.clone(), target.clone());
        tasks.spawn(accept_each(
            self.tcp,
            MAX_QUESTIONS,
            tasks.clone(),
            move |mut stream, _| {
                let (by, to) = (by.clone(), to.clone());
                async move {
                    match by.dial(&to).await {
                        // How it ends is the resolver's business.
                        Ok(io) => drop(splice(stream, io).await),
                        Err(_) => stream.reset(),
                    }
                }
            },
        ));
        tasks.spawn(all_to(self.udp, target, dial, stats, tasks.clone()));
    }
}

/// Where something that went to `address` is meant to go.
fn meant(address: SocketAddr, host: IpAddr) -> Target {
    let ip = match address.ip().to_canonical() {
        ip if ip == host => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    Target::new(Host::Ip(ip), address.port())
}

impl<D: Dial + DialUdp> Session<D> {
    /// Serves a caught connection to its end. It stands already: a dial that fails can only reset
    /// it.
    async fn caught(&self, stream: TcpStream, host: IpAddr) {
        let Ok(address) = stream.local_addr() else {
            return debug!("the program left at once");
        };
        // Fails only on a socket that is gone already; the first read says so.
        let _ = stream.set_nodelay(true);
        let _live = self.config.stats.connection();
        let target = meant(address, host);
        let stream = Counted::new(stream, self.config.stats.clone());
        let mut stream = BufReader::with_capacity(HANDSHAKE_BUFFER, stream);
        match self.dial_for(&mut stream, &target).await {
            Some(Ok(dialled)) => self.join(unbuffer(stream), dialled).await,
            Some(Err(_)) => stream.into_inner().reset(),
            None => {}
        }
    }
}

/// Datagrams that were caught.
struct Datagrams {
    host: IpAddr,
    answers: AnswersFrom,
    /// Sockets by the address that they send from, while a flow has them.
    sockets: Arc<Mutex<HashMap<SocketAddr, Weak<UdpSocket>>>>,
}

impl Datagrams {
    async fn serve<D: DialUdp>(self, socket: UdpSocket, dial: D, stats: Arc<Stats>, tasks: Tasks) {
        let mut flows = Flows::new(socket, dial, stats.clone(), tasks.child());
        let socket = flows.socket.clone();
        let mut room = Room {
            payload: vec![0; LARGEST],
            beside: nix::cmsg_space!(nix::libc::sockaddr_in6),
        };
        let receiving = async {
            loop {
                let received = receive(&socket, &mut room, |datagram, from, to| {
                    let passed = flows.pass(&(from, to), datagram, || Ok(self.ends(from, to)));
                    if let Err(why) = passed {
                        stats.drop_datagram();
                        debug!(%from, %to, why, "dropped a datagram");
                    }
                });
                if let Err(error) = received.await {
                    return error;
                }
            }
        };
        tokio::select! {
            // Datagrams have nothing to finish.
            () = tasks.draining() => {}
            error = receiving => debug!(%error, "the socket for datagrams broke"),
        }
        flows.kill();
    }

    fn ends(&self, from: SocketAddr, to: SocketAddr) -> ((SocketAddr, SocketAddr), Ends) {
        let (sockets, answers) = (self.sockets.clone(), self.answers.clone());
        let answering = async move {
            let known = |sockets: &Mutex<HashMap<SocketAddr, Weak<UdpSocket>>>| {
                let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
                sockets.retain(|_, socket| socket.strong_count() > 0);
                sockets.get(&to).and_then(Weak::upgrade)
            };
            if let Some(socket) = known(&sockets) {
                return Ok(socket);
            }
            let socket = Arc::new(answers(to).await?);
            let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
            sockets.insert(to, Arc::downgrade(&socket));
            Ok(socket)
        };
        let ends = Ends {
            target: meant(to, self.host),
            client: from,
            header: Box::default(),
            from: Some(Box::pin(answering)),
        };
        ((from, to), ends)
    }
}

/// Waits for datagrams and hands all that are there to `take`, with their senders and where they
/// should go.
async fn receive(
    socket: &UdpSocket,
    room: &mut Room,
    mut take: impl FnMut(&[u8], SocketAddr, SocketAddr),
) -> io::Result<()> {
    socket.readable().await?;
    for _ in 0..BATCH {
        match socket.try_io(Interest::READABLE, || one(socket, room)) {
            Ok((length, Some((from, to)))) => take(&room.payload[..length], from, to),
            Ok((_, None)) => debug!("a datagram without a destination"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    tokio::task::yield_now().await;
    Ok(())
}

type Between = (SocketAddr, SocketAddr);

/// Where a datagram is received.
struct Room {
    payload: Vec<u8>,
    /// What the system says of it.
    beside: Vec<u8>,
}

fn one(socket: &UdpSocket, room: &mut Room) -> io::Result<(usize, Option<Between>)> {
    let mut into = [IoSliceMut::new(&mut room.payload)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut into,
        Some(&mut room.beside),
        MsgFlags::empty(),
    )?;
    let from = received.address.as_ref().and_then(socket_address);
    let mut to = None;
    for part in received.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4OrigDstAddr(at) => {
                let ip = IpAddr::from(at.sin_addr.s_addr.to_ne_bytes());
                to = Some(SocketAddr::new(ip, u16::from_be(at.sin_port)));
            }
            ControlMessageOwned::Ipv6OrigDstAddr(at) => {
                let ip = IpAddr::from(at.sin6_addr.s6_addr);
                to = Some(SocketAddr::new(ip, u16::from_be(at.sin6_port)));
            }
            _ => {}
        }
    }
    Ok((received.bytes, from.zip(to)))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}
