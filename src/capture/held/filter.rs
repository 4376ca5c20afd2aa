//! The filter: which system calls wait for kdev (classic BPF, seccomp(2)).

use std::mem::offset_of;

use nix::libc::{
    self, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF, sock_filter,
};

/// The machine's own calling convention (linux/audit.h). Programs of another one, 32-bit ones above
/// all, number their calls otherwise and are let through.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// The filter, or `None` on a machine whose calls are not known here.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn filter() -> Option<Vec<sock_filter>> {
    let connect = u32::try_from(libc::SYS_connect).ok()?;
    let uring = u32::try_from(libc::SYS_io_uring_setup).ok()?;
    let errno = libc::ENOSYS.unsigned_abs();
    Some(vec![
        load(offset_of!(libc::seccomp_data, arch))?,
        unless_equal(ARCH, 5),
        load(offset_of!(libc::seccomp_data, nr))?,
        unless_equal(connect, 1),
        give(SECCOMP_RET_USER_NOTIF),
        // It connects past system calls. Programs that use it can do without.
        unless_equal(uring, 1),
        give(SECCOMP_RET_ERRNO | errno),
        give(SECCOMP_RET_ALLOW),
    ])
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn filter() -> Option<Vec<sock_filter>> {
    None
}

fn load(offset: usize) -> Option<sock_filter> {
    Some(statement(
        BPF_LD | BPF_W | BPF_ABS,
        u32::try_from(offset).ok()?,
    ))
}

/// Skips so many statements unless what was loaded is `value`.
fn unless_equal(value: u32, skipped: u8) -> sock_filter {
    sock_filter {
        jf: skipped,
        ..statement(BPF_JMP | BPF_JEQ | BPF_K, value)
    }
}

fn give(action: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        // All codes have one byte.
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}
