//! Connections and datagrams that were caught on their way: nobody says where they shall go, since
//! the socket that took them knows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::{Instrument as _, debug, debug_span, field};

use super::conn::{HANDSHAKE_BUFFER, Session, unbuffer};
use super::datagrams::all_to;
use super::stats::Counted;
use super::{Config, Stats};
use crate::addr::{Host, Target};
use crate::dial::{AnswersFrom, Caught, Dial, DialUdp};
use crate::io::{Io as _, accept_each, splice};
use crate::task::Tasks;

/// Connections with questions about names at a time: as many as kdev's own DNS server takes.
const MAX_QUESTIONS: usize = 128;
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
            let caught = Caught::new(
                Arc::new(move |address| meant(address, host)),
                answers.clone(),
            );
            tasks.spawn(caught.serve(socket, dial.clone(), stats.clone(), tasks.clone()));
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
