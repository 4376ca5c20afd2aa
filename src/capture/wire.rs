//! What kdev and the agent say to each other: one JSON object per message of a socket that keeps
//! messages apart, with descriptors beside it.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest message: what such a socket takes at once where nobody changed the system's limits (208
/// KiB). Lists of thirty thousand ports have room.
const LARGEST: usize = 200 << 10;
/// Most descriptors of one message.
const DESCRIPTORS: usize = 16;

/// What kdev asks of the agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make the namespaces; answered by [`Made`], with descriptors.
    Make {
        /// Whether IPv6 addresses lead anywhere outside, so that all of them are caught.
        world_v6: bool,
    },
    /// Put these files over the machine's own, for the namespace alone.
    Files(Vec<File>),
    /// Put those files there again that are not there any more: where the machine's own is replaced,
    /// as by a VPN that comes, the one over it goes with it.
    Keep,
    /// What programs of this machine listen on, which the namespace's loopback leads to.
    Ports(Ports),
    /// Make a socket in the namespace; answered with its descriptor.
    Socket {
        /// Whether it is of IPv6.
        v6: bool,
        /// Whether it is for datagrams.
        datagram: bool,
    },
    /// End, and leave what runs in the namespace alone.
    Leave,
}

/// A file and what stands in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct File {
    /// Its path, which exists.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

/// Ports of loopback listeners, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// TCP at 127.0.0.1.
    pub tcp4: Vec<u16>,
    /// TCP at ::1.
    pub tcp6: Vec<u16>,
    /// UDP at 127.0.0.1.
    pub udp4: Vec<u16>,
    /// UDP at ::1.
    pub udp6: Vec<u16>,
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done; what was made is beside the message.
    Done,
    /// The namespaces are there; beside the message stand the sockets and namespaces, in the order
    /// of [`Made`].
    Made(Made),
    /// It did not work.
    Failed(Failure),
}

/// Which descriptors are beside the message, in this order: network and mount namespace, TCP, UDP
/// and DNS sockets for IPv4, a socket for questions about sockets, then what is told here.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Made {
    /// TCP and UDP for IPv6.
    pub v6: bool,
    /// The user namespace; there is none where the user is root.
    pub user: bool,
}

/// A step that the system refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was to be done.
    pub step: Step,
    /// What the system said.
    pub reason: String,
}

/// The steps of making a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A user namespace.
    User,
    /// A network and a mount namespace.
    Namespaces,
    /// Addresses and routes.
    Network,
    /// The rules of netfilter.
    Rules,
    /// The sockets.
    Sockets,
    /// The files.
    Files,
    /// The filter of system calls.
    Filter,
    /// The messages between kdev and the agent.
    Talk,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            Step::User => "no user namespace",
            Step::Namespaces => "no network namespace",
            Step::Network => "no routes in a network namespace of one's own",
            Step::Rules => "no transparent proxy in a network namespace of one's own",
            Step::Sockets => "no sockets in a network namespace of one's own",
            Step::Files => "no /etc/resolv.conf of one's own",
            Step::Filter => "no filter of system calls",
            Step::Talk => "its helper ended",
        };
        write!(f, "{what} ({})", self.reason)
    }
}

impl Failure {
    /// The failure of `step`.
    #[must_use]
    pub fn new(step: Step, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or_default();
        let reason = match (step, errno) {
            // What the system says of a limit sounds like a full disk.
            (Step::User, nix::libc::ENOSPC) => {
                "the limit user.max_user_namespaces is reached".to_owned()
            }
            _ => error.to_string(),
        };
        Self { step, reason }
    }
}

/// Names the step that an error broke.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, &error.into()))
    }
}

/// One end of the way to talk.
#[derive(Debug)]
pub struct Talk {
    socket: UnixStream,
    /// Where messages are received.
    room: Vec<u8>,
}

impl From<OwnedFd> for Talk {
    fn from(socket: OwnedFd) -> Self {
        Self {
            socket: socket.into(),
            room: vec![0; LARGEST],
        }
    }
}

impl Talk {
    /// One end, and the socket that is the other.
    ///
    /// # Errors
    /// As the system says.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let (one, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((one.into(), other))
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// When the other side is gone, or the message is too large.
    pub fn send(&self, message: &impl Serialize, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > LARGEST {
            return Err(io::Error::other("the message is too large"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !beside.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(beside)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let bytes = [IoSlice::new(&bytes)];
        sendmsg(&self.socket, &bytes, &mut rights, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message with its descriptors; `None` where the other side has ended.
    ///
    /// # Errors
    /// When the other side breaks off, or sends what is no message.
    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut self.room)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.socket, &mut into, &mut rights, flags) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for part in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = part {
                descriptors.extend(some);
            }
        }
        let message = serde_json::from_slice(&self.room[..received.bytes])?;
        Ok(Some((message, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn messages_come_whole_with_their_descriptors_or_not_at_all() {
        let (mut one, other) = Talk::pair().unwrap();
        let other = Talk::from(other);
        // As many as fit, each with five digits.
        let many = |count: u16| Ports {
            tcp4: (0..count).map(|n| u16::MAX - n).collect(),
            ..Ports::default()
        };
        let some = Request::Ports(many(30_000));
        other.send(&some, &[io::stdin().as_fd()]).unwrap();
        let (heard, descriptors) = one.receive::<Request>().unwrap().unwrap();
        assert!(matches!(heard, Request::Ports(ports) if ports == many(30_000)));
        assert_eq!(descriptors.len(), 1);
        other
            .send(&Request::Ports(many(u16::MAX)), &[])
            .unwrap_err();
        drop(other);
        assert!(one.receive::<Request>().unwrap().is_none());
    }
}
