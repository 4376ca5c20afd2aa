//! A command in a network of its own: what it does there comes to kdev, and what it listens on is
//! reachable from this machine.
//!
//! The namespaces are made by a helper ([`crate::capture`]); here is what kdev does with them from
//! outside.

mod advice;
mod files;
mod mirror;
mod ports;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{self, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::Socket;

pub use self::advice::advice;
pub use self::files::{Names, files};
pub use self::mirror::Tell;
use super::child::Command;
use crate::capture::wire::{Answer, Failure, File, Made, Ports, Request, Step, Talk};
use crate::capture::{HELPER, agent, enter};

/// This program, also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The sockets that everything comes to.
#[derive(Debug)]
pub struct Sockets {
    /// Accept connections; their own address is where the program wanted to go.
    pub tcp: Vec<TcpListener>,
    /// Receive datagrams, with the address where each should go.
    pub udp: Vec<UdpSocket>,
    /// Take questions about names.
    pub dns: (TcpListener, UdpSocket),
}

/// A network for a command. Ends with the last clone.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    agent: Mutex<Agent>,
    net: OwnedFd,
    mnt: OwnedFd,
    user: Option<OwnedFd>,
    /// Asks what is listened on inside.
    questions: OwnedFd,
    /// Where kdev's own sockets are there.
    own: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Agent {
    process: process::Child,
    talk: Talk,
}

impl Network {
    /// Makes one; `world_v6` says whether IPv6 leads anywhere outside. Waits for the helper, some
    /// milliseconds.
    ///
    /// # Errors
    /// Where the system does not allow it.
    pub fn make(world_v6: bool) -> Result<(Self, Sockets), Failure> {
        let broken = |error: io::Error| Failure::new(Step::Talk, &error);
        let (talk, theirs) = Talk::pair().map_err(broken)?;
        let process = process::Command::new(OWN_PROGRAM)
            .args([HELPER, agent::AGENT])
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(broken)?;
        let mut agent = Agent { process, talk };
        let told = match agent.ask(&Request::Make { world_v6 })? {
            (Answer::Made(made), descriptors) => told_apart(agent, made, descriptors),
            (Answer::Failed(failure), _) => return Err(failure),
            (Answer::Done, _) => None,
        };
        let (inner, sockets) = told.ok_or_else(|| broken(io::ErrorKind::InvalidData.into()))?;
        let inner = Arc::new(inner);
        Ok((Self { inner }, sockets))
    }

    /// Puts files over those of this machine, for the command alone.
    ///
    /// # Errors
    /// Where the system does not allow it.
    pub fn cover(&self, files: Vec<File>) -> Result<(), Failure> {
        self.ask(&Request::Files(files)).map(|_| ())
    }

    /// The command `argv` in this network.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn command(&self, argv: &[OsString], env: Vec<(String, String)>) -> io::Result<Command> {
        let (net, mnt) = (self.inner.net.try_clone()?, self.inner.mnt.try_clone()?);
        let user = self
            .inner
            .user
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose()?;
        let number = user.as_ref().map(|user| user.as_raw_fd());
        let args = enter::arguments(net.as_raw_fd(), mnt.as_raw_fd(), number, argv);
        Ok(Command {
            program: OWN_PROGRAM.into(),
            args,
            env,
            inherit: [net, mnt].into_iter().chain(user).collect(),
        })
    }

    /// A socket in this network that sends from `address`, whoever's that is.
    ///
    /// # Errors
    /// As the system says.
    pub async fn answers_from(&self, address: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let socket = self.socket(address.is_ipv6(), true).await?;
        socket.bind(&address.into())?;
        tokio::net::UdpSocket::from_std(socket.into())
    }

    /// A socket in this network, bound to nothing.
    async fn socket(&self, v6: bool, datagram: bool) -> io::Result<Socket> {
        let this = self.clone();
        let asking = move || this.ask(&Request::Socket { v6, datagram });
        let asked = tokio::task::spawn_blocking(asking).await?;
        let descriptors = asked.map_err(|failure| io::Error::other(failure.to_string()))?;
        let socket = descriptors.into_iter().next();
        socket
            .map(Socket::from)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Puts the files there again that something replaced.
    fn keep_files(&self) -> Result<(), Failure> {
        self.ask(&Request::Keep).map(|_| ())
    }

    fn set_ports(&self, ports: Ports) -> Result<(), Failure> {
        self.ask(&Request::Ports(ports)).map(|_| ())
    }

    fn ask(&self, request: &Request) -> Result<Vec<OwnedFd>, Failure> {
        let agent = self.inner.agent.lock();
        let mut agent = agent.unwrap_or_else(PoisonError::into_inner);
        match agent.ask(request)? {
            (Answer::Failed(failure), _) => Err(failure),
            (_, descriptors) => Ok(descriptors),
        }
    }
}

impl Agent {
    fn ask(&mut self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let asked = self
            .talk
            .send(request, &[])
            .and_then(|()| self.talk.receive());
        let answer =
            asked.and_then(|answer| answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        answer.map_err(|error| Failure::new(Step::Talk, &error))
    }
}

impl Drop for Agent {
    /// Lets the helper go, and what the command left behind alone.
    fn drop(&mut self) {
        // Where it is gone already, there is nobody to tell.
        let _ = self.talk.send(&Request::Leave, &[]);
        let _ = self.process.wait();
    }
}

/// What the helper made, in the order of [`Made`]; `None` where something is missing.
fn told_apart(agent: Agent, made: Made, descriptors: Vec<OwnedFd>) -> Option<(Inner, Sockets)> {
    let mut rest = descriptors.into_iter();
    let (net, mnt) = (rest.next()?, rest.next()?);
    let (tcp, udp) = (rest.next()?, rest.next()?);
    let dns: (TcpListener, UdpSocket) = (rest.next()?.into(), rest.next()?.into());
    let questions = rest.next()?;
    let (mut tcp, mut udp) = (vec![TcpListener::from(tcp)], vec![UdpSocket::from(udp)]);
    if made.v6 {
        tcp.push(rest.next()?.into());
        udp.push(rest.next()?.into());
    }
    let user = match made.user {
        true => Some(rest.next()?),
        false => None,
    };
    let listeners = tcp.iter().chain([&dns.0]);
    let inner = Inner {
        own: listeners.filter_map(|tcp| tcp.local_addr().ok()).collect(),
        agent: Mutex::new(agent),
        net,
        mnt,
        user,
        questions,
    };
    Some((inner, Sockets { tcp, udp, dns }))
}
