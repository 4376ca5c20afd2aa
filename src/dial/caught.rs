//! Datagrams that were caught on their way: nobody says where they shall go, since the socket that
//! took them knows.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::BoxFuture;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use super::flow::DialUdp;
use super::flows::{Count, Ends, Flows};
use crate::addr::Target;
use crate::task::Tasks;

/// Datagrams that are taken at once before other tasks have their turn.
const BATCH: usize = 64;
/// Largest datagram.
const LARGEST: usize = 64 << 10;

/// Makes a socket from which answers of an address come.
pub type AnswersFrom =
    Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<UdpSocket>> + Send + Sync>;

/// Says where what went to an address is meant to go.
pub type Meant = Arc<dyn Fn(SocketAddr) -> Target + Send + Sync>;

/// Serves them.
pub struct Caught {
    /// What a destination means.
    meant: Meant,
    answers: AnswersFrom,
    /// Sockets by the address that they send from, while a flow has them.
    sockets: Arc<Mutex<HashMap<SocketAddr, Weak<UdpSocket>>>>,
}

impl Caught {
    /// Answers come from sockets that `answers` makes.
    pub fn new(meant: Meant, answers: AnswersFrom) -> Self {
        Self {
            meant,
            answers,
            sockets: Arc::default(),
        }
    }

    /// Serves what comes to `socket` until `tasks` drain.
    pub async fn serve<D: DialUdp>(
        self,
        socket: UdpSocket,
        dial: D,
        stats: Arc<dyn Count>,
        tasks: Tasks,
    ) {
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
                        stats.dropped();
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
            target: (self.meant)(to),
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
