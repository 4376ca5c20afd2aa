//! Who may use a listener.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::watch;

/// Who may use a listener.
#[derive(Clone, Debug)]
pub enum Access {
    /// For a listener on loopback: the user that kdev runs as, and root. Elsewhere than on Linux,
    /// where the system does not say whose a connection is, anybody on this machine.
    SameUser {
        /// What they must send besides, if anything.
        password: Option<Password>,
    },
    /// For a listener on an address that other machines reach too, where the containers' own
    /// connections come from this machine's address: all others are cut off.
    OnlyFrom {
        /// This machine's address.
        ip: IpAddr,
        /// What everybody must send.
        password: Password,
    },
    /// For a listener that containers reach: some addresses just so, all others with a password.
    Peers {
        /// The containers of this session.
        allowed: AllowedPeers,
        /// What everybody else must send.
        password: Password,
    },
}

/// What a connection may do before it has sent a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Everything.
    Full,
    /// Say the password.
    NeedsPassword,
    /// Nothing.
    None,
}

impl Access {
    /// How far the peer of an accepted connection is trusted. `local` is this end of it.
    pub(super) fn trust(&self, peer: SocketAddr, local: Option<SocketAddr>) -> Trust {
        let ip = peer.ip().to_canonical();
        match self {
            Self::SameUser { .. } if !ip.is_loopback() || !is_same_user(peer, local) => Trust::None,
            Self::SameUser { password: None } => Trust::Full,
            Self::OnlyFrom { ip: only, .. } if ip != only.to_canonical() => Trust::None,
            Self::Peers { allowed, .. } if allowed.contains(ip) => Trust::Full,
            Self::SameUser { password: Some(_) } | Self::OnlyFrom { .. } | Self::Peers { .. } => {
                Trust::NeedsPassword
            }
        }
    }

    /// Whether datagrams from `peer` may be those of an app that was let in, at an address of ours
    /// that is `local`: on loopback other users have the same address.
    pub(super) fn admits_datagrams(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        match self {
            Self::SameUser { .. } => is_same_users_socket(peer, local),
            Self::OnlyFrom { .. } | Self::Peers { .. } => true,
        }
    }

    /// Whether `ip` needs no password, or will not need one within `patience`.
    pub(super) async fn admits_soon(&self, ip: IpAddr, patience: Duration) -> bool {
        match self {
            Self::Peers { allowed, .. } => allowed.admits(ip, patience).await,
            Self::SameUser { .. } | Self::OnlyFrom { .. } => false,
        }
    }

    /// Whether `password` is the one that opens this listener.
    pub(super) fn admits(&self, password: &[u8]) -> bool {
        match self {
            Self::SameUser { password: None } => true,
            Self::SameUser {
                password: Some(expected),
            }
            | Self::OnlyFrom {
                password: expected, ..
            }
            | Self::Peers {
                password: expected, ..
            } => expected.matches(password),
        }
    }
}

/// Whether the peer of a loopback connection is a process of the user that kdev runs as, or of
/// root. `local` is this end of the connection.
#[cfg(target_os = "linux")]
#[must_use]
pub fn is_same_user(peer: SocketAddr, local: Option<SocketAddr>) -> bool {
    use super::peer::{Kind, Owner, owner};
    local.map_or_else(
        || is_ours(peer, Owner::Unknown),
        |local| is_ours(peer, owner(Kind::Tcp, peer, local)),
    )
}

/// The same for the sender of datagrams that come to `local`.
#[cfg(target_os = "linux")]
pub(super) fn is_same_users_socket(peer: SocketAddr, local: SocketAddr) -> bool {
    use super::peer::{Kind, owner};
    is_ours(peer, owner(Kind::Udp, peer, local))
}

#[cfg(target_os = "linux")]
fn is_ours(peer: SocketAddr, owner: super::peer::Owner) -> bool {
    use super::peer::Owner;
    let me = nix::unistd::geteuid().as_raw();
    match owner {
        Owner::Uid(uid) => {
            if uid != me && uid != 0 {
                tracing::warn!(%peer, uid, "refused a connection of another user of this machine");
            }
            uid == me || uid == 0
        }
        // It sent and left, so nobody misses the answer, and whose it was cannot be told.
        Owner::Gone => false,
        // No way to ask, as in some sandboxes: loopback alone must do, as on other systems.
        Owner::Unknown => true,
    }
}

/// Whether the peer is a process of the same user: this system does not tell.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn is_same_user(_: SocketAddr, _: Option<SocketAddr>) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_same_users_socket(_: SocketAddr, _: SocketAddr) -> bool {
    true
}

/// A password of one session: the password part of `http://kdev:PASSWORD@…`. The user name does
/// not matter, because some clients cannot send an empty one.
#[derive(Clone)]
pub struct Password(Arc<str>);

impl Password {
    /// A password. It must not be empty: SOCKS cannot send an empty one.
    pub fn new(password: impl Into<Arc<str>>) -> Self {
        Self(password.into())
    }

    /// The text, to put into the variables of a container.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Takes the same time wherever the first difference is.
    fn matches(&self, other: &[u8]) -> bool {
        !self.0.is_empty() && self.0.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Addresses that need no password. Cloning is shallow, so that whoever starts containers can
/// change it while the proxy runs.
#[derive(Clone, Debug)]
pub struct AllowedPeers(Arc<watch::Sender<HashSet<IpAddr>>>);

impl Default for AllowedPeers {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl AllowedPeers {
    /// No address.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `ip` in from its next connection on.
    pub fn insert(&self, ip: IpAddr) {
        self.0.send_modify(|set| {
            set.insert(ip.to_canonical());
        });
    }

    /// Lets `ip` in no more. Its open connections stay.
    pub fn remove(&self, ip: IpAddr) {
        self.0.send_modify(|set| {
            set.remove(&ip.to_canonical());
        });
    }

    /// Lets in these and no others.
    pub fn replace(&self, ips: impl IntoIterator<Item = IpAddr>) {
        let new: HashSet<IpAddr> = ips.into_iter().map(|ip| ip.to_canonical()).collect();
        self.0.send_if_modified(|set| {
            let changed = *set != new;
            *set = new;
            changed
        });
    }

    /// Whether `ip` needs no password.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.borrow().contains(&ip.to_canonical())
    }

    /// As [`AllowedPeers::contains`], but gives a container that was started this moment the time
    /// to become known: a fast program connects before the engine has told of it. Dropping the
    /// future is harmless.
    pub async fn admits(&self, ip: IpAddr, patience: Duration) -> bool {
        let ip = ip.to_canonical();
        let mut changes = self.0.subscribe();
        let found = changes.wait_for(|set| set.contains(&ip));
        matches!(tokio::time::timeout(patience, found).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn containers_are_let_in_by_address_or_password() {
        let allowed = AllowedPeers::new();
        let access = Access::Peers {
            allowed: allowed.clone(),
            password: Password::new("secret"),
        };
        let trust = |peer| access.trust(addr(peer), None);
        assert_eq!(trust("172.17.0.2:1"), Trust::NeedsPassword);
        allowed.insert("172.17.0.2".parse().unwrap());
        assert_eq!(trust("172.17.0.2:1"), Trust::Full);
        assert_eq!(trust("[::ffff:172.17.0.2]:1"), Trust::Full);
        assert_eq!(trust("172.17.0.3:1"), Trust::NeedsPassword);
        allowed.replace(["172.17.0.3".parse().unwrap()]);
        assert_eq!(trust("172.17.0.2:1"), Trust::NeedsPassword);
        allowed.remove("172.17.0.3".parse().unwrap());
        assert_eq!(trust("172.17.0.3:1"), Trust::NeedsPassword);
        assert!(access.admits(b"secret"));
        for wrong in ["", "secre", "secret ", "Secret"] {
            assert!(!access.admits(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!format!("{access:?}").contains("secret"));
    }

    #[test]
    fn an_empty_password_opens_nothing() {
        let access = Access::SameUser {
            password: Some(Password::new("")),
        };
        assert!(!access.admits(b""));
    }

    #[test]
    fn a_listener_for_one_user_takes_nobody_from_elsewhere() {
        let access = Access::SameUser { password: None };
        assert_eq!(access.trust(addr("192.0.2.1:1"), None), Trust::None);
        assert_eq!(access.trust(addr("127.0.0.1:1"), None), Trust::Full);
    }
}
