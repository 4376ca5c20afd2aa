//! Listeners for callers that outlive the worker: its supervisor has them too, so callers who come
//! while there is no worker wait in the kernel for the next one, instead of being refused.
//!
//! A worker gets them over its standard input, which is a socket.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::settings::Settings;
use super::sockets::{CALLER, listener};

/// Most that go into one message; the kernel takes 253.
const MESSAGE: usize = 128;
/// What a message says besides: some systems carry none that says nothing.
const WORD: [u8; 1] = [b'l'];

/// Listeners by their ports.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<u16, TcpListener>);

impl Kept {
    /// Listens for callers. Call it inside a runtime.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn listen(settings: &Settings) -> io::Result<Self> {
        let (ip, first, count) = settings.inbound;
        let each = |port| {
            let listener = listener(SocketAddr::new(ip, port), CALLER)?;
            Ok((port, listener.into_std()?))
        };
        let all = (first..first + count).map(each);
        all.collect::<io::Result<_>>().map(Self)
    }

    /// The standard input for a worker, with all of them.
    ///
    /// # Errors
    /// As the system says.
    pub fn hand_over(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let all: Vec<_> = self.0.values().map(AsFd::as_fd).collect();
        for some in all.chunks(MESSAGE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE))];
            let mut message = SendAncillaryBuffer::new(&mut space);
            if !message.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(io::Error::other("too many listeners for one message"));
            }
            // Nobody reads yet, and some hundred bytes have room.
            sendmsg(
                &ours,
                &[IoSlice::new(&WORD)],
                &mut message,
                SendFlags::empty(),
            )?;
        }
        Ok(theirs.into())
    }

    /// What a supervisor hands over by standard input; nothing where that is none of its making.
    ///
    /// # Errors
    /// When it broke off.
    pub fn received() -> io::Result<Self> {
        Self::from(io::stdin().as_fd().try_clone_to_owned()?)
    }

    fn from(handed: OwnedFd) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        loop {
            let mut word = WORD;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE))];
            let mut message = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut word)];
            match recvmsg(&handed, &mut into, &mut message, RecvFlags::empty()) {
                Ok(received) if received.bytes == 0 => return Ok(Self(all)),
                Ok(_) => {}
                Err(rustix::io::Errno::NOTSOCK) => return Ok(Self(all)),
                Err(error) => return Err(error.into()),
            }
            for part in message.drain() {
                let RecvAncillaryMessage::ScmRights(some) = part else {
                    continue;
                };
                for listener in some.map(TcpListener::from) {
                    all.insert(listener.local_addr()?.port(), listener);
                }
            }
        }
    }

    /// The listener for `address`, made where none was kept.
    ///
    /// # Errors
    /// When the port is taken.
    pub(super) fn take(&mut self, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        match self.0.remove(&address.port()) {
            Some(kept) => tokio::net::TcpListener::from_std(kept),
            None => listener(address, CALLER),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_comes_between_two_workers_waits_for_the_next() {
        // More than one message has.
        let some = (0..MESSAGE + 2).map(|_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            (listener.local_addr().unwrap().port(), listener)
        });
        let kept = Kept(some.collect());
        let ports: Vec<u16> = kept.0.keys().copied().collect();
        for _ in 0..2 {
            let callers = ports.iter().map(|port| (*port, connect(*port)));
            let callers: Vec<_> = callers.collect();
            let mut worker = Kept::from(kept.hand_over().unwrap()).unwrap();
            for (port, caller) in callers {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                let listener = worker.take(address).unwrap();
                assert_eq!(listener.local_addr().unwrap(), address);
                let accepted = tokio::time::timeout(Duration::from_secs(5), listener.accept());
                let (_, peer) = accepted.await.unwrap().unwrap();
                assert_eq!(peer, caller.local_addr().unwrap());
            }
            assert!(worker.0.is_empty());
        }
        drop(kept);
        assert!(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).is_err());
    }

    fn connect(port: u16) -> std::net::TcpStream {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
    }

    #[test]
    fn another_input_hands_over_nothing() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(Kept::from(null.into()).unwrap().0.is_empty());
    }
}
