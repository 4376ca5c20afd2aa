//! The system calls about seccomp that no library wraps (seccomp(2), seccomp_unotify(2)).
#![allow(unsafe_code)] // Each call says why it is sound.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::libc;

/// Once kdev has a call, only what kills the program interrupts it (linux/seccomp.h, from Linux 5.19):
/// one that is begun anew would find its socket connected.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Has this thread and all of its children go by `filter` from now on, and gives the descriptor from
/// which their calls are read. This needs `no_new_privs`.
pub(super) fn install(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        // The kernel only reads it.
        filter: filter.as_ptr().cast_mut(),
    };
    let set = |flags: libc::c_ulong| {
        // SAFETY: `program` and the statements that it points to outlive the call, which copies them.
        let made = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        match RawFd::try_from(made) {
            // SAFETY: the kernel has made this descriptor in this call, so nobody else has it.
            Ok(made) if made >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(made) }),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    match set(listener | WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set(listener),
        made => made,
    }
}

/// The next call. Waits for one.
pub(super) fn receive(calls: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: it has numbers alone, for which zero is a value; and the kernel wants it so.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one of these there, which is this long (the request says how long).
    let got = unsafe {
        libc::ioctl(
            calls.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut call,
        )
    };
    done(got).map(|()| call)
}

/// Answers a call.
pub(super) fn send(calls: BorrowedFd<'_>, mut answer: libc::seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: the kernel reads one of these there, which is this long (the request says how long).
    done(unsafe {
        libc::ioctl(
            calls.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut answer,
        )
    })
}

/// Fails where a call is not waited for any more.
pub(super) fn still_waits(calls: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    // SAFETY: the kernel reads a number of this length there.
    done(unsafe {
        libc::ioctl(
            calls.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    })
}

/// A descriptor that this process was started with. Once, since whoever has it closes it.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number, whatever it is.
    done(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: it is open, and only the caller knows of it: it was opened for this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
