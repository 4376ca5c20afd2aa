//! A call that waits for its answer.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;

use super::kernel;

/// Bytes of the longest address (`sockaddr_storage`).
const LONGEST: usize = 128;

/// Where the calls of a command and its children come from.
#[derive(Clone, Debug)]
pub struct Calls(Arc<OwnedFd>);

/// A connect that waits. Dropped without an answer it goes on as the program wanted it.
#[derive(Debug)]
pub struct Call {
    calls: Calls,
    id: u64,
    /// The thread that waits.
    thread: u32,
    /// The socket's number there, and where its address stands.
    number: u64,
    at: u64,
    length: u64,
    answered: bool,
}

/// Where a socket shall be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host and port.
    Inet(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
    /// Anything else.
    Other,
}

impl From<OwnedFd> for Calls {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Arc::new(descriptor))
    }
}

impl Calls {
    /// The next one; `None` where nobody is left who could call. Waits for it, at most `limit`.
    ///
    /// # Errors
    /// When that is over, or as the system says.
    pub fn next(&self, limit: Option<Duration>) -> io::Result<Option<Call>> {
        let limit = match limit {
            Some(limit) => PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        loop {
            let mut asked = [PollFd::new(self.fd(), PollFlags::POLLIN)];
            match poll(&mut asked, limit) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let came = asked[0].revents().unwrap_or_else(PollFlags::empty);
            if !came.contains(PollFlags::POLLIN) {
                return Ok(None);
            }
            match kernel::receive(self.fd()) {
                Ok(call) => {
                    let [number, at, length, ..] = call.data.args;
                    return Ok(Some(Call {
                        calls: self.clone(),
                        id: call.id,
                        thread: call.pid,
                        number,
                        at,
                        length,
                        answered: false,
                    }));
                }
                // Who called was killed meanwhile, or this was interrupted.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Call {
    /// The address that the program has given.
    ///
    /// # Errors
    /// When kdev may not look into the program, or it is gone.
    pub fn address(&self) -> io::Result<Address> {
        let mut bytes = [0; LONGEST];
        let length = usize::try_from(self.length).unwrap_or(LONGEST).min(LONGEST);
        let there = RemoteIoVec {
            base: usize::try_from(self.at).map_err(|_| io::ErrorKind::InvalidInput)?,
            len: length,
        };
        let thread = i32::try_from(self.thread).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut here = [IoSliceMut::new(&mut bytes[..length])];
        let length = process_vm_readv(Pid::from_raw(thread), &mut here, &[there])?;
        // Or it was another process of the same number.
        self.still_waits()?;
        Ok(read(&bytes[..length]))
    }

    /// The program's own socket.
    ///
    /// # Errors
    /// When kdev may not have it, or the program is gone.
    pub fn socket(&self) -> io::Result<Socket> {
        let process = self.process()?;
        let process = rustix::process::Pid::from_raw(process).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        self.still_waits()?;
        let number = i32::try_from(self.number).map_err(|_| io::ErrorKind::InvalidInput)?;
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        Ok(Socket::from(socket))
    }

    /// Fails where nobody waits for the answer any more.
    ///
    /// # Errors
    /// As the system says.
    pub fn still_waits(&self) -> io::Result<()> {
        kernel::still_waits(self.calls.fd(), self.id)
    }

    /// Gives the call its result: done, or an error number (errno(3)).
    ///
    /// # Errors
    /// When nobody waits for it any more.
    pub fn answer(mut self, error: Option<i32>) -> io::Result<()> {
        self.answered = true;
        self.send(-error.unwrap_or_default(), 0)
    }

    fn send(&self, error: i32, flags: u32) -> io::Result<()> {
        let answer = libc::seccomp_notif_resp {
            id: self.id,
            val: 0,
            error,
            flags,
        };
        kernel::send(self.calls.fd(), answer)
    }

    /// The process of the thread.
    fn process(&self) -> io::Result<i32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread))?;
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let process = line.and_then(|number| number.trim().parse().ok());
        process.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE);
            // Where the program is gone, nobody waits.
            let _ = self.send(0, flags.unwrap_or_default());
        }
    }
}

/// An address as it stands in memory (`sockaddr_in`, `sockaddr_in6`, `sockaddr_un`).
fn read(bytes: &[u8]) -> Address {
    let Some((family, rest)) = bytes.split_first_chunk::<2>() else {
        return Address::Other;
    };
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_UNIX => {
            use std::os::unix::ffi::OsStrExt as _;
            let path = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            Address::Unix(std::ffi::OsStr::from_bytes(path).into())
        }
        libc::AF_INET => match rest.split_first_chunk::<2>() {
            Some((port, rest)) => rest.first_chunk::<4>().map_or(Address::Other, |ip| {
                let ip = Ipv4Addr::from(*ip);
                Address::Inet((ip, u16::from_be_bytes(*port)).into())
            }),
            None => Address::Other,
        },
        libc::AF_INET6 => {
            let port = rest.first_chunk::<2>();
            // Behind four bytes about the flow.
            let ip = rest.get(6..22).and_then(|ip| <[u8; 16]>::try_from(ip).ok());
            let scope = rest.get(22..26).and_then(|id| <[u8; 4]>::try_from(id).ok());
            match port.zip(ip) {
                Some((port, ip)) => {
                    let port = u16::from_be_bytes(*port);
                    let scope = scope.map(u32::from_ne_bytes).unwrap_or_default();
                    Address::Inet(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
                }
                None => Address::Other,
            }
        }
        _ => Address::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_stand_in_memory() {
        let family = |family: i32| u16::try_from(family).unwrap().to_ne_bytes().to_vec();
        let v4 = [family(libc::AF_INET), vec![0, 80, 10, 96, 0, 7], vec![0; 8]].concat();
        let v6 = [
            family(libc::AF_INET6),
            vec![0x15, 0x38, 9, 9, 9, 9, 0xfd, 0],
            vec![0; 13],
            vec![7],
            3_u32.to_ne_bytes().to_vec(),
        ]
        .concat();
        let unix = [family(libc::AF_UNIX), b"/run/x\0left".to_vec()].concat();
        let mut at_v6: SocketAddrV6 = "[fd00::7]:5432".parse().unwrap();
        at_v6.set_scope_id(3);
        for (bytes, address) in [
            (&v4[..], Address::Inet("10.96.0.7:80".parse().unwrap())),
            (&v6, Address::Inet(at_v6.into())),
            (&unix, Address::Unix("/run/x".into())),
            (&v4[..7], Address::Other),
            (&v6[..20], Address::Other),
            (&family(libc::AF_UNSPEC), Address::Other),
            (&[1], Address::Other),
            (&[], Address::Other),
        ] {
            assert_eq!(read(bytes), address, "{bytes:?}");
        }
    }
}
