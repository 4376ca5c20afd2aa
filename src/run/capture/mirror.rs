//! What the command listens on is reachable from this machine at the same address, as if it ran
//! outside of a network of its own; and the other way round for this machine's loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::super::publish::{Publish, PublishError};
use super::{Network, ports};
use crate::capture::wire::{Failure, Ports, Step};
use crate::io::listening::{Listener, listening, questions};
use crate::io::{Io as _, accept_each, splice};
use crate::proxy::MAX_CONNECTIONS;
use crate::task::Tasks;

/// Looks after which the command's files are looked after, too: within a second.
const FILES: u64 = 5;
/// How often is looked who listens where: a server that just started is found before a person has
/// typed its address.
const LOOK: Duration = Duration::from_millis(200);
/// Connections that wait to be accepted, as Rust's own listeners have it.
const BACKLOG: i32 = 1024;

/// Keeps the loopback of this machine and of a network alike.
#[derive(Debug)]
pub(super) struct Mirror {
    network: Network,
    machine: OwnedFd,
    /// By where the command listens.
    published: BTreeMap<SocketAddr, Published>,
    /// What was asked for, with the command's port.
    asked: Vec<(u16, Published)>,
    /// Whether the helper is known to be gone.
    alone: bool,
    /// What the network was told of this machine.
    told: Ports,
    /// Where kdev listens in the command's place.
    own: BTreeSet<SocketAddr>,
    tasks: Tasks,
}

/// What became of a port of the command's.
#[derive(Debug)]
enum Published {
    /// It is reachable at this address.
    At(
        SocketAddr,
        #[expect(dead_code, reason = "ends with it")] DropGuard,
    ),
    /// It is not, and that was told.
    Not,
}

/// Hears what the user should know.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

impl Network {
    /// Serves `wanted`, and from now on whatever the command listens on; until `tasks` drain.
    ///
    /// # Errors
    /// When a port that is asked for cannot be listened on.
    pub fn publish(
        &self,
        wanted: &[Publish],
        tell: Tell,
        tasks: &Tasks,
    ) -> Result<(), PublishError> {
        let mut mirror = Mirror {
            network: self.clone(),
            machine: questions()?,
            published: BTreeMap::new(),
            asked: Vec::new(),
            alone: false,
            told: Ports::default(),
            own: BTreeSet::new(),
            tasks: tasks.clone(),
        };
        for publish in wanted {
            let listener = listen(publish.at);
            let published = listener.and_then(|listener| mirror.serve(listener, publish.port));
            let published = published.map_err(|reason| PublishError::Taken {
                publish: *publish,
                reason,
            })?;
            mirror.asked.push((publish.port, published));
        }
        // What the command's first look at loopback shall find.
        mirror.lead_out()?;
        let draining = tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = draining.draining() => {}
                () = mirror.run(tell) => {}
            }
        });
        Ok(())
    }
}

impl Mirror {
    async fn run(mut self, tell: Tell) {
        for looks in 1_u64.. {
            tokio::time::sleep(LOOK).await;
            // Each is a question to the kernel, answered at once.
            let mut kept = self.lead_in(&tell).and_then(|()| self.lead_out());
            if kept.is_ok() && looks % FILES == 0 {
                kept = self.network.keep_files().map_err(told);
            }
            if let Err(error) = kept {
                debug!(%error, "not known who listens where");
                if error.kind() == io::ErrorKind::BrokenPipe
                    && !std::mem::replace(&mut self.alone, true)
                {
                    tell(
                        "the helper of the command's network is gone: what the command listens on from \
                         now on is not reachable from outside",
                    );
                }
            }
        }
    }

    /// Has the network lead to what this machine listens on.
    fn lead_out(&mut self) -> io::Result<()> {
        let ports = ports::of_machine(&self.machine, &self.own)?;
        if ports != self.told {
            self.network.set_ports(ports.clone()).map_err(told)?;
            self.told = ports;
        }
        Ok(())
    }

    /// Has this machine lead to what the command listens on.
    fn lead_in(&mut self, tell: &Tell) -> io::Result<()> {
        let all = listening(&self.network.inner.questions, Listener::Tcp)?;
        let all: BTreeSet<SocketAddr> =
            all.into_iter().filter(|at| self.is_commands(*at)).collect();
        let gone: Vec<SocketAddr> = self
            .published
            .keys()
            .filter(|at| !all.contains(at))
            .copied()
            .collect();
        for at in gone {
            if let Some(Published::At(own, _)) = self.published.remove(&at) {
                self.own.remove(&own);
            }
        }
        for inside in all {
            let known = match self.published.get(&inside) {
                Some(Published::At(..)) => continue,
                known => known.is_some(),
            };
            let published = match self.open(inside) {
                Ok(published) => published,
                // What is told once may change still: the other program may end.
                Err(error) => {
                    let asked = self.asked.iter().any(|(port, _)| *port == inside.port());
                    if !known && !asked {
                        tell(&not_published(inside, &error));
                    }
                    Published::Not
                }
            };
            self.published.insert(inside, published);
        }
        Ok(())
    }

    /// Whether the command listens there, and not kdev's helper.
    fn is_commands(&self, at: SocketAddr) -> bool {
        !self.network.inner.own.contains(&at)
    }

    fn open(&mut self, inside: SocketAddr) -> io::Result<Published> {
        // One that listens for both families has a second one beside it at times.
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), inside.port());
        if inside.ip().is_unspecified() && self.own.contains(&both) {
            return Ok(Published::Not);
        }
        let listener = match listen(inside) {
            // An address that only the network has.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Ok(Published::Not);
            }
            listener => listener?,
        };
        self.serve(listener, inside.port())
    }

    fn serve(&mut self, listener: StdListener, port: u16) -> io::Result<Published> {
        let listener = TcpListener::from_std(listener)?;
        let at = listener.local_addr()?;
        self.own.insert(at);
        debug!(%at, port, "the command's port is published");
        let (network, ended) = (self.network.clone(), CancellationToken::new());
        let guard = ended.clone().drop_guard();
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            let accepting = accept_each(listener, MAX_CONNECTIONS, tasks, |stream, _| {
                let network = network.clone();
                async move { connect(&network, stream, port).await }
            });
            tokio::select! {
                () = ended.cancelled() => {}
                () = accepting => {}
            }
        });
        Ok(Published::At(at, guard))
    }
}

fn not_published(inside: SocketAddr, error: &io::Error) -> String {
    let port = inside.port();
    let (why, fix) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "another program of this machine listens there".to_owned(),
            format!("; end that one, or use --publish OTHER:{port}"),
        ),
        io::ErrorKind::PermissionDenied => (
            "this machine keeps it for root".to_owned(),
            format!("; --publish 8080:{port} makes it reachable at port 8080"),
        ),
        _ => (error.to_string(), String::new()),
    };
    format!("the command listens on port {port}, which only itself reaches: {why}{fix}")
}

/// Listens as the command does.
fn listen(at: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified())?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn connect(network: &Network, mut outside: TcpStream, port: u16) {
    match into(network, &outside, port).await {
        Ok(inside) => {
            let (_, result) = splice(outside, inside).await;
            if let Err(error) = result {
                debug!(port, %error, "a connection to the command broke");
            }
        }
        Err(error) => {
            debug!(port, %error, "the command is not reached");
            outside.reset();
        }
    }
}

/// A connection to what the command listens on at `port`, from the address of who is `outside`: many
/// a server trusts who comes from loopback.
async fn into(network: &Network, outside: &TcpStream, port: u16) -> io::Result<TcpStream> {
    outside.set_nodelay(true)?;
    let (peer, local) = (
        outside.peer_addr()?.ip().to_canonical(),
        outside.local_addr()?,
    );
    let all = listening(&network.inner.questions, Listener::Tcp)?;
    let all: Vec<IpAddr> = all
        .into_iter()
        .filter(|at| at.port() == port)
        .map(|at| at.ip())
        .collect();
    let to =
        destination(&all, local.ip().to_canonical()).ok_or(io::ErrorKind::ConnectionRefused)?;
    let socket = network.socket(to.is_ipv6(), false).await?;
    let is_link_local = matches!(peer, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if !peer.is_loopback() && peer.is_ipv4() == to.is_ipv4() && !is_link_local {
        socket.bind(&SocketAddr::new(peer, 0).into())?;
    }
    let to = SocketAddr::new(to, port);
    let inside = TcpSocket::from_std_stream(socket.into())
        .connect(to)
        .await?;
    inside.set_nodelay(true)?;
    Ok(inside)
}

/// Which address to connect to where the command listens on `all`, for who came to `local`.
fn destination(all: &[IpAddr], local: IpAddr) -> Option<IpAddr> {
    let any = |v6: bool| {
        all.iter()
            .any(|ip| ip.is_unspecified() && ip.is_ipv6() == v6)
    };
    if all.contains(&local) || any(local.is_ipv6()) || (local.is_ipv4() && any(true)) {
        return Some(local);
    }
    // One of the other family, or at an address of its own.
    all.first().map(|ip| match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => *ip,
    })
}

/// A failure of the helper; a broken pipe where it is gone.
fn told(failure: Failure) -> io::Error {
    match failure.step {
        Step::Talk => io::Error::new(io::ErrorKind::BrokenPipe, failure.to_string()),
        _ => io::Error::other(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_reached_where_it_listens() {
        let to = |all: &[&str], local: &str| {
            let all: Vec<IpAddr> = all.iter().map(|ip| ip.parse().unwrap()).collect();
            destination(&all, local.parse().unwrap()).map(|ip| ip.to_string())
        };
        for (all, local, wanted) in [
            (&["127.0.0.1"][..], "127.0.0.1", Some("127.0.0.1")),
            (&["0.0.0.0"], "10.0.0.5", Some("10.0.0.5")),
            (&["::"], "10.0.0.5", Some("10.0.0.5")),
            (&["::1"], "127.0.0.1", Some("::1")),
            (&["0.0.0.0"], "::1", Some("127.0.0.1")),
            (&["10.0.0.5"], "127.0.0.1", Some("10.0.0.5")),
            (&[], "127.0.0.1", None),
        ] {
            assert_eq!(to(all, local).as_deref(), wanted, "{all:?} {local}");
        }
    }
}
