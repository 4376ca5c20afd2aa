//! Whether the other end of loopback is this user: other users of the machine reach loopback too.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing is said of strangers after something was: whoever knocks all the time must not
/// fill the terminal.
const QUIET: Duration = Duration::from_secs(60);
/// Accounts of resolvers that ask in everybody's name, where the user has pointed them here.
const RESOLVERS: [&str; 7] = [
    "systemd-resolve",
    "systemd-resolved",
    "dnsmasq",
    "unbound",
    "named",
    "bind",
    "knot-resolver",
];

/// Whether the peer of a loopback connection is a process of the user that kdev runs as, or of
/// root; anybody where the system does not say whose it is. `local` is this end of the connection.
#[must_use]
pub fn is_same_user(peer: SocketAddr, local: Option<SocketAddr>) -> bool {
    local.is_none_or(|local| admits(owner_of_connection(peer, local), peer, is_own))
}

/// The same for the sender of datagrams that come to `local`.
#[must_use]
pub fn is_same_users_socket(peer: SocketAddr, local: SocketAddr) -> bool {
    admits(owner_of_socket(peer, local), peer, is_own)
}

/// As [`is_same_user`], or a resolver of this machine.
#[must_use]
pub fn may_resolve(peer: SocketAddr, local: SocketAddr) -> bool {
    admits(owner_of_connection(peer, local), peer, is_own_or_resolver)
}

/// As [`is_same_users_socket`], or a resolver of this machine.
#[must_use]
pub fn socket_may_resolve(peer: SocketAddr, local: SocketAddr) -> bool {
    admits(owner_of_socket(peer, local), peer, is_own_or_resolver)
}

fn is_own(uid: u32) -> bool {
    uid == nix::unistd::geteuid().as_raw() || uid == 0
}

fn is_own_or_resolver(uid: u32) -> bool {
    is_own(uid) || is_resolver(uid)
}

/// Whether an account is a resolver's. The last answer is kept, since an account may come from
/// another machine, and a resolver asks again and again.
fn is_resolver(uid: u32) -> bool {
    static LAST: Mutex<Option<(u32, bool)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, answer)) = *last
        && known == uid
    {
        return answer;
    }
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    let account = account.ok().flatten();
    let answer = account.is_some_and(|account| RESOLVERS.contains(&account.name.as_str()));
    *last = Some((uid, answer));
    answer
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A process of this user had it open.
    Uid(u32),
    /// No process has it open any more.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Gone,
    /// There is no way to find out.
    Unknown,
}

#[cfg(target_os = "linux")]
fn owner_of_connection(peer: SocketAddr, local: SocketAddr) -> Owner {
    super::peer::owner(super::peer::Kind::Tcp, peer, local)
}

#[cfg(target_os = "linux")]
fn owner_of_socket(peer: SocketAddr, local: SocketAddr) -> Owner {
    super::peer::owner(super::peer::Kind::Udp, peer, local)
}

#[cfg(not(target_os = "linux"))]
fn owner_of_connection(_: SocketAddr, _: SocketAddr) -> Owner {
    Owner::Unknown
}

#[cfg(not(target_os = "linux"))]
fn owner_of_socket(_: SocketAddr, _: SocketAddr) -> Owner {
    Owner::Unknown
}

fn admits(owner: Owner, peer: SocketAddr, may: fn(u32) -> bool) -> bool {
    static STRANGERS: Mutex<Strangers> = Mutex::new(Strangers {
        said: None,
        since: 0,
    });
    match owner {
        Owner::Uid(uid) if may(uid) => true,
        Owner::Uid(uid) => {
            let mut strangers = STRANGERS.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(more) = strangers.came(Instant::now()) {
                let more = match more {
                    0 => String::new(),
                    more => format!(" ({more} more since the last word about it)"),
                };
                tracing::warn!(
                    "refused a connection of another user of this machine (uid {uid}, from {peer}){more}"
                );
            }
            false
        }
        // It sent and left, so nobody misses the answer, and whose it was cannot be told.
        Owner::Gone => false,
        // No way to ask, as in some sandboxes: loopback alone must do, as on other systems.
        Owner::Unknown => true,
    }
}

/// What was said of strangers.
#[derive(Debug)]
struct Strangers {
    said: Option<Instant>,
    /// How many came since.
    since: u64,
}

impl Strangers {
    /// Whether to say that one came, with how many came before without a word.
    fn came(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now - said < QUIET) {
            self.since += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_told_of_once_a_while_with_their_number() {
        let mut strangers = Strangers {
            said: None,
            since: 0,
        };
        let begin = Instant::now();
        assert_eq!(strangers.came(begin), Some(0));
        for _ in 0..1000 {
            assert_eq!(strangers.came(begin + QUIET / 2), None);
        }
        assert_eq!(strangers.came(begin + QUIET), Some(1000));
        assert_eq!(strangers.came(begin + QUIET), None);
    }

    #[test]
    fn another_users_socket_is_refused_and_a_resolvers_may_ask_for_names() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let nobody = 65_534;
        assert!(!is_own(nobody) || nix::unistd::geteuid().as_raw() == nobody);
        assert!(!admits(Owner::Uid(nobody), peer, |_| false));
        assert!(admits(Owner::Uid(nobody), peer, |_| true));
        assert!(!admits(Owner::Gone, peer, |_| true));
        assert!(admits(Owner::Unknown, peer, |_| false));
        // Neither is an account of a resolver; twice, since the answer is kept.
        for _ in 0..2 {
            assert!(!is_resolver(nobody));
            assert!(!is_resolver(0));
        }
    }
}
