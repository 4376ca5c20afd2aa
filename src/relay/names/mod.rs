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

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
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

/// A question that is under way, for all who ask it: thousands of callers of one Service want one
/// answer. It ends with the last of them.
type Asking = Shared<BoxFuture<'static, Result<Kept, Arc<str>>>>;
type AskingAll = HashMap<String, WeakShared<BoxFuture<'static, Result<Kept, Arc<str>>>>>;

/// Resolves names. Cheap to clone.
#[derive(Clone)]
pub struct Names {
    conf: Arc<Conf>,
    cache: Arc<Mutex<HashMap<String, Kept>>>,
    asking: Arc<Mutex<AskingAll>>,
    /// What is added to ports below [`UNPRIVILEGED`]: nothing in a cluster.
    low_ports: u16,
}

/// The first port that anybody may listen on.
const UNPRIVILEGED: u16 = 1024;

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
        Ok(Self::of(&resolv, &hosts))
    }

    /// As the texts of these two files say.
    #[must_use]
    pub fn of(resolv: &str, hosts: &str) -> Self {
        Self::new(Conf::parse(resolv, hosts))
    }

    /// As `conf` says.
    pub(super) fn new(conf: Conf) -> Self {
        Self {
            conf: Arc::new(conf),
            cache: Arc::default(),
            asking: Arc::default(),
            low_ports: 0,
        }
    }

    /// Has what is named be dialled `by` higher where its port is below 1024, for clusters that are
    /// simulated by somebody who may not listen there.
    #[must_use]
    pub fn low_ports(mut self, by: u16) -> Self {
        self.low_ports = by;
        self
    }

    /// Where the port of something that is named is dialled.
    pub(super) fn port(&self, port: u16) -> u16 {
        match port {
            ..UNPRIVILEGED => port.saturating_add(self.low_ports),
            _ => port,
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
                let found = self.asking(name).await;
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

    /// The question that is under way for `name`, or a new one.
    fn asking(&self, name: &str) -> Asking {
        let mut all = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = all.get(name).and_then(WeakShared::upgrade);
        if let Some(asked) = asked.filter(|asked| asked.peek().is_none()) {
            return asked;
        }
        let (conf, wanted) = (self.conf.clone(), name.to_owned());
        let found = async move {
            let found = find(&conf, &wanted).await;
            found.map_err(|error| error.to_string().into())
        };
        let asking = found.boxed().shared();
        all.retain(|_, one| one.upgrade().is_some());
        if let Some(weak) = asking.downgrade() {
            all.insert(name.to_owned(), weak);
        }
        asking
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

async fn find(conf: &Conf, name: &str) -> io::Result<Kept> {
    if let Some(addresses) = conf.host(name) {
        return Ok(Kept::new(addresses, LONGEST_TTL));
    }
    for full in conf.candidates(name) {
        let (addresses, ttl) = ask::ask(conf, &full).await?;
        if !addresses.is_empty() {
            return Ok(Kept::new(addresses, ttl.min(LONGEST_TTL)));
        }
    }
    Ok(Kept::new(Vec::new(), NEGATIVE_TTL))
}

impl Kept {
    fn new(addresses: Vec<IpAddr>, ttl: Duration) -> Self {
        Self {
            addresses,
            until: Instant::now() + ttl,
        }
    }
}

#[cfg(test)]
mod tests {
    // Tests end with their runtime, so nothing has to wait for these tasks.
    #![allow(clippy::disallowed_methods)]

    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UdpSocket;

    use super::*;
    use crate::addr::Host;

    /// A nameserver that knows no name, counts the questions and takes its time.
    async fn nobody() -> (Names, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut conf = Conf::parse("options ndots:0\n", "");
        conf.servers.push(socket.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (n, from) = socket.recv_from(&mut query).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                let mut answer = query[..n].to_vec();
                // A response that says that there is no such name.
                (answer[2], answer[3]) = (0x81, 0x83);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        (Names::new(conf), asked)
    }

    #[tokio::test]
    async fn many_who_want_one_name_ask_once() {
        let (names, asked) = nobody().await;
        let target = Target::new(Host::Name("orders".into()), 80);
        let all = (0..100).map(|_| names.lookup("orders", &target));
        let mut all: Vec<_> = all.map(Box::pin).collect();
        // The first one leaves in the middle, which is no loss to the others.
        let mut first = all.remove(0);
        assert!(first.as_mut().now_or_never().is_none());
        for one in &mut all {
            assert!(one.as_mut().now_or_never().is_none());
        }
        drop(first);
        for found in futures_util::future::join_all(all).await {
            assert!(
                matches!(found, Err(DialError::NotFound { .. })),
                "{found:?}"
            );
        }
        // For each of the two kinds of addresses.
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(
            names
                .asking
                .lock()
                .unwrap()
                .values()
                .all(|one| one.upgrade().is_none())
        );
    }
}
