//! Connects that wait until kdev has said where they lead, for machines that allow no namespaces.
//!
//! ```text
//! kdev ──spawns──▶ hold    sets a filter of seccomp, hands its descriptor out, becomes the command
//!      ◀──a call── command or a child of it, stopped in connect(2)
//!      ──answer──▶ go on as you would, or: you are connected
//! ```
//!
//! What is the cluster's gets connected by kdev: it takes a copy of the program's own socket
//! (`pidfd_getfd(2)`) and connects that to a listener on loopback, so the socket keeps its options and
//! whatever waits for it. Everything else goes on as without kdev. Nothing of this is a border: who
//! wants to get past it can.
//!
//! * [`Calls`], [`Call`]: what the kernel hands over (`seccomp_unotify(2)`, from Linux 5.6)
//! * [`hold`]: the helper
//! * `filter`, `kernel`: the filter, and the system calls that no library wraps

mod call;
mod filter;
pub mod hold;
mod kernel;

pub use self::call::{Address, Call, Calls};

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc;

use super::wire::Talk;
use super::{HELPER, Helped};

/// This program, also after its file was replaced.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// The name among the arguments of the helper that tries it.
pub(super) const TRY: &str = "try";
/// Where that one connects to; nothing is sent there.
const TRIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// What it is told, which nobody says there.
const TOLD: i32 = libc::EHOSTUNREACH;
/// Where that helper has its end of the talk.
const STDIN: std::os::fd::RawFd = 0;
/// How long the helper may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Tries whether this machine allows it: the kernel, and that kdev may look into its children.
///
/// # Errors
/// What it does not allow.
pub fn try_out() -> io::Result<()> {
    let (mut talk, theirs) = Talk::pair()?;
    let tries = [HELPER, TRY].map(Into::into);
    let argv = [&[OWN_PROGRAM.into()], &tries[..]].concat();
    let mut helper = Command::new(OWN_PROGRAM)
        .args(hold::arguments(STDIN, &argv))
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let tried = try_with(&mut talk);
    // Where it waits for an answer it does not get, it would wait forever.
    let _ = helper.kill();
    let _ = helper.wait();
    tried
}

fn try_with(talk: &mut Talk) -> io::Result<()> {
    let calls = hold::received(talk)?;
    let call = calls.next(Some(LIMIT))?;
    let call = call.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let (address, socket) = (call.address()?, call.socket()?);
    if !matches!(address, Address::Inet(address) if address == TRIED) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    drop(socket);
    call.answer(Some(TOLD))
}

/// Connects, and says by its exit code whether it was told what kdev tells it.
pub(super) fn tries() -> Helped {
    let told = TcpStream::connect(TRIED).err();
    let as_told = told.and_then(|error| error.raw_os_error()) == Some(TOLD);
    Helped::Ended(u8::from(!as_told))
}
