//! Names, resolved as every program of the relay's pod would: `/etc/hosts`, then the pod's
//! nameservers with its search list.
//!
//! A resolver of our own: a static binary has no use of the C library's, which loads parts of
//! itself at run time, and one of the complete ones is a fifth of the relay's size.

mod ask;
mod conf;
mod message;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::conf::Conf;
use crate::addr::Target;
use crate::dial::DialError;

/// Longest time that an answer is kept: a Service's address may pass to another one.
const LONGEST_TTL: Duration = Duration::from_secs(5);
/// How long "no such name" is kept: a Service may be made any moment.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// Names that are kept.
const CACHE: usize = 1024;

/// Resolves names. Cheap to clone.
#[derive(Clone)]
pub struct Names {
    conf: Arc<Conf>,
    cache: Arc<Mutex<HashMap<String, Kept>>>,
}

/// An answer; without addresses there is no such name.
#[derive(Clone)]
struct Kept {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Names {
    /// As `/etc/resolv.conf` and `/etc/hosts` say.
    ///
    /// # Errors
    /// When they cannot be read or name no server.
    pub fn system() -> io::Result<Self> {
        let resolv = std::fs::read_to_string("/etc/resolv.conf")?;
        // A pod without the file has no aliases.
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        Ok(Self::new(Conf::parse(&resolv, &hosts)))
    }

    /// As `conf` says.
    pub(super) fn new(conf: Conf) -> Self {
        Self {
            conf: Arc::new(conf),
            cache: Arc::default(),
        }
    }

    /// The pod's nameservers.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.conf.servers
    }

    /// The addresses of a name, at least one.
    ///
    /// # Errors
    /// [`DialError::NotFound`] or, when no nameserver answers, [`DialError::Unreachable`].
    pub async fn lookup(&self, name: &str, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        let kept = match self.kept(name) {
            Some(kept) => kept,
            None => {
                let found = self.find(name).await;
                let kept = found.map_err(|error| DialError::Unreachable {
                    target: target.to_string(),
                    reason: format!("the DNS of the relay's pod failed: {error}"),
                    fix: String::new(),
                })?;
                self.keep(name, kept.clone());
                kept
            }
        };
        match kept.addresses.is_empty() {
            false => Ok(kept.addresses),
            true => Err(DialError::NotFound {
                what: format!("host {name}"),
                fix: String::new(),
            }),
        }
    }

    async fn find(&self, name: &str) -> io::Result<Kept> {
        if let Some(addresses) = self.conf.host(name) {
            return Ok(Kept::new(addresses, LONGEST_TTL));
        }
        for full in self.conf.candidates(name) {
            let (addresses, ttl) = ask::ask(&self.conf, &full).await?;
            if !addresses.is_empty() {
                return Ok(Kept::new(addresses, ttl.min(LONGEST_TTL)));
            }
        }
        Ok(Kept::new(Vec::new(), NEGATIVE_TTL))
    }

    fn kept(&self, name: &str) -> Option<Kept> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = cache.get(name).filter(|kept| Instant::now() < kept.until);
        kept.cloned()
    }

    fn keep(&self, name: &str, kept: Kept) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE {
            let now = Instant::now();
            cache.retain(|_, kept| now < kept.until);
        }
        // Names that all live are asked for again and again, rather than take more memory.
        if cache.len() < CACHE {
            cache.insert(name.to_owned(), kept);
        }
    }
}

impl Kept {
    fn new(addresses: Vec<IpAddr>, ttl: Duration) -> Self {
        Self {
            addresses,
            until: Instant::now() + ttl,
        }
    }
}
