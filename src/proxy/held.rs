//! Connects that wait until it is known where they lead: what is the cluster's is dialled here, and
//! the program's own socket is connected to this process.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nix::libc;
use socket2::{Socket, Type};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument as _, debug, debug_span, field};

use super::Config;
use super::conn::{HANDSHAKE_BUFFER, Session, unbuffer};
use super::datagrams::all_to;
use super::stats::Counted;
use crate::addr::{Host, Protocol, Target};
use crate::capture::held::{Address, Call};
use crate::dial::{Dial, DialError, DialUdp};
use crate::io::{Io as _, Prefixed};
use crate::task::Tasks;

/// Sockets of services that answer questions about names without a nameserver: systemd's, glibc's.
/// Where they are not, programs ask the nameserver.
const NAME_SERVICES: [&str; 3] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/var/run/nscd/socket",
];
/// Ways for datagrams that are there at a time. The eldest ends for the next one.
const DATAGRAMS: usize = 256;

/// Says whether connections to a target are kdev's to dial; all others go on by themselves.
pub type IsOurs = Arc<dyn Fn(Target, Protocol) -> BoxFuture<'static, bool> + Send + Sync>;

/// Says whether a target is a nameserver.
pub type IsNameserver = Arc<dyn Fn(&Target) -> bool + Send + Sync>;

/// Serves the connects of a command.
pub struct Held {
    /// The connects.
    pub calls: mpsc::Receiver<Call>,
    /// What is kdev's.
    pub is_ours: IsOurs,
    /// Where kdev answers questions about names, on loopback.
    pub nameserver: SocketAddr,
    /// Whether a target is a nameserver that programs ask.
    pub is_nameserver: IsNameserver,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("nameserver", &self.nameserver)
            .finish_non_exhaustive()
    }
}

/// What all connects need.
struct Serving<D> {
    session: Session<D>,
    is_ours: IsOurs,
    nameserver: SocketAddr,
    is_nameserver: IsNameserver,
    datagrams: Mutex<VecDeque<Tasks>>,
}

impl Held {
    /// Serves until `tasks` drain. Connections live in `tasks`.
    pub fn serve<D: Dial + DialUdp>(mut self, dial: D, config: Config, tasks: &Tasks) {
        let permits = Arc::new(Semaphore::new(config.max_connections));
        let serving = Arc::new(Serving {
            session: Session::new(dial, config, tasks.clone()),
            is_ours: self.is_ours,
            nameserver: self.nameserver,
            is_nameserver: self.is_nameserver,
            datagrams: Mutex::default(),
        });
        let tasks = tasks.clone();
        let within = tasks.clone();
        tasks.spawn(async move {
            let calling = async {
                while let Some(call) = self.calls.recv().await {
                    let Ok(permit) = permits.clone().acquire_owned().await else {
                        return;
                    };
                    let serving = serving.clone();
                    let span = debug_span!("conn", target = field::Empty);
                    let one = async move {
                        serving.one(call).await;
                        drop(permit);
                    };
                    within.spawn(one.instrument(span));
                }
            };
            tokio::select! {
                () = within.draining() => {}
                () = calling => {}
            }
        });
    }
}

impl<D: Dial + DialUdp> Serving<D> {
    /// Serves a connect and what follows it. One that nothing is known of goes on.
    async fn one(&self, call: Call) {
        match call.address() {
            Ok(Address::Inet(address)) => {
                if let Err(error) = Box::pin(self.inet(call, address)).await {
                    debug!(%address, %error, "a connect goes past kdev");
                }
            }
            Ok(Address::Unix(path)) => {
                if NAME_SERVICES.iter().any(|it| Path::new(it) == path) {
                    answer(call, Some(libc::ENOENT));
                }
            }
            Ok(Address::Other) => {}
            Err(error) => debug!(%error, "a connect goes past kdev"),
        }
    }

    async fn inet(&self, call: Call, address: SocketAddr) -> io::Result<()> {
        let ip = address.ip().to_canonical();
        let target = Target::new(Host::Ip(ip), address.port());
        if (self.is_nameserver)(&target) {
            let socket = call.socket()?;
            let there = as_seen_by(&socket, address, self.nameserver);
            answer(call, connect(&socket, there).err());
            return Ok(());
        }
        if ip.is_loopback() || ip.is_unspecified() {
            return Ok(());
        }
        let socket = call.socket()?;
        let protocol = match socket.r#type()? {
            Type::STREAM => Protocol::Tcp,
            Type::DGRAM => Protocol::Udp,
            _ => return Ok(()),
        };
        // Some ask in this way whether their connect is through (hiredis); what is said depends on
        // the socket alone.
        if protocol == Protocol::Tcp
            && let Ok(peer) = socket.peer_addr()
        {
            let said = socket.connect(&peer).err();
            answer(call, said.and_then(|error| error.raw_os_error()));
            return Ok(());
        }
        if !(self.is_ours)(target.clone(), protocol).await {
            return Ok(());
        }
        match protocol {
            Protocol::Udp => self.datagrams(call, &socket, address, target).await,
            _ if socket.nonblocking()? => self.at_once(call, socket, address, target).await,
            _ => self.once_dialled(call, socket, address, target).await,
        }
    }

    /// Connects a program that waits, once it is known how that ends.
    async fn once_dialled(
        &self,
        call: Call,
        socket: Socket,
        address: SocketAddr,
        target: Target,
    ) -> io::Result<()> {
        let _live = self.session.config.stats.connection();
        let dialled = match self.session.dial(&target).await {
            Ok(dialled) => dialled,
            Err(error) => {
                answer(call, Some(errno(&error)));
                return Ok(());
            }
        };
        // Or its socket would be connected though it has given up.
        call.still_waits()?;
        let (stream, connected) = self.meet(&socket, address).await?;
        drop(socket);
        answer(call, connected);
        if let Some(stream) = stream {
            let stream = Counted::new(stream, self.session.config.stats.clone());
            let stream = Prefixed::new(Bytes::new(), stream);
            self.session.join(stream, dialled).await;
        }
        Ok(())
    }

    /// Connects a program that does not wait, and then dials: what fails resets its connection.
    async fn at_once(
        &self,
        call: Call,
        socket: Socket,
        address: SocketAddr,
        target: Target,
    ) -> io::Result<()> {
        let (stream, connected) = self.meet(&socket, address).await?;
        drop(socket);
        answer(call, connected);
        let Some(stream) = stream else {
            return Ok(());
        };
        let _live = self.session.config.stats.connection();
        let stream = Counted::new(stream, self.session.config.stats.clone());
        let mut stream = BufReader::with_capacity(HANDSHAKE_BUFFER, stream);
        match self.session.dial_for(&mut stream, &target).await {
            Some(Ok(dialled)) => self.session.join(unbuffer(stream), dialled).await,
            Some(Err(_)) => stream.into_inner().reset(),
            None => {}
        }
        Ok(())
    }

    /// Connects the program's socket to this process. Gives this end, and what the program is told.
    async fn meet(
        &self,
        socket: &Socket,
        address: SocketAddr,
    ) -> io::Result<(Option<TcpStream>, Option<i32>)> {
        let listener = TcpListener::bind(meeting_place(socket, address)).await?;
        let there = as_seen_by(socket, address, listener.local_addr()?);
        let connected = connect(socket, there);
        if let Err(error) = connected
            && error != libc::EINPROGRESS
        {
            return Ok((None, Some(error)));
        }
        let own = socket.local_addr()?.as_socket().map(canonical);
        loop {
            let (stream, peer) = listener.accept().await?;
            // Anybody may have come in between.
            if Some(canonical(peer)) == own {
                // Fails only on a socket that is gone already; the first read says so.
                let _ = stream.set_nodelay(true);
                return Ok((Some(stream), connected.err()));
            }
        }
    }

    /// Connects a socket for datagrams to one of this process, which passes them on.
    async fn datagrams(
        &self,
        call: Call,
        socket: &Socket,
        address: SocketAddr,
        target: Target,
    ) -> io::Result<()> {
        let own = UdpSocket::bind(meeting_place(socket, address)).await?;
        let there = as_seen_by(socket, address, own.local_addr()?);
        let connected = connect(socket, there);
        if connected.is_ok() {
            let tasks = self.session.tasks.child();
            let (dial, stats) = (self.session.dial.clone(), self.session.config.stats.clone());
            tasks.spawn(all_to(own, target, dial, stats, tasks.clone()));
            let datagrams = self.datagrams.lock();
            let mut datagrams = datagrams.unwrap_or_else(PoisonError::into_inner);
            datagrams.push_back(tasks);
            if datagrams.len() > DATAGRAMS
                && let Some(eldest) = datagrams.pop_front()
            {
                eldest.kill();
            }
        }
        answer(call, connected.err());
        Ok(())
    }
}

/// Tells the program how its connect ended. One that is gone meanwhile needs to know nothing.
fn answer(call: Call, error: Option<i32>) {
    if let Err(error) = call.answer(error) {
        debug!(%error, "the program left");
    }
}

/// Whether a socket takes addresses of IPv6 alone.
fn only_v6(socket: &Socket, address: SocketAddr) -> bool {
    address.is_ipv6() && socket.only_v6().unwrap_or(false)
}

/// A free port on the loopback that `socket`, which was to be connected to `address`, can reach.
fn meeting_place(socket: &Socket, address: SocketAddr) -> SocketAddr {
    match only_v6(socket, address) {
        true => (Ipv6Addr::LOCALHOST, 0).into(),
        false => (Ipv4Addr::LOCALHOST, 0).into(),
    }
}

/// The address `there` as `socket`, which was to be connected to `address`, has to name it.
fn as_seen_by(socket: &Socket, address: SocketAddr, there: SocketAddr) -> SocketAddr {
    match (address, there.ip()) {
        (SocketAddr::V6(_), IpAddr::V4(v4)) if !only_v6(socket, address) => {
            (v4.to_ipv6_mapped(), there.port()).into()
        }
        _ => there,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// Connects, or gives the error number.
fn connect(socket: &Socket, there: SocketAddr) -> Result<(), i32> {
    let connected = socket.connect(&there.into());
    connected.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// What connect(2) calls a failed dial.
fn errno(error: &DialError) -> i32 {
    match error {
        DialError::NotFound { .. } | DialError::Unreachable { .. } => libc::EHOSTUNREACH,
        DialError::Refused { .. } => libc::ECONNREFUSED,
        DialError::TimedOut { .. } => libc::ETIMEDOUT,
        DialError::Denied { .. } | DialError::Forbidden { .. } => libc::EACCES,
        DialError::Cluster { .. } => libc::ENETUNREACH,
    }
}
