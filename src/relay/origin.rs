//! The original pods of what arrives on a port: they stand behind the Service `kdev-<block>`, the
//! same port.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::claims::Claims;
use super::memory::Memory;
use super::metered::{Cost, Metered};
use super::names::Names;
use super::part::{Charge, Part};
use super::settings::BLOCK;
use super::sockets::{Place, Sockets, held};
use crate::addr::{Host, Target};
use crate::dial::{Dial, DialError};
use crate::io::{Io, Prefixed, pass_writes};

/// Longest time for one original pod to answer, before the next try: a pod that was just deleted
/// answers nothing.
const LIMIT: Duration = Duration::from_secs(1);
/// How often the original pods are tried.
const TRIES: usize = 3;

/// What a connection to a pod is charged with for itself: what the relay and the kernel keep of one
/// that is idle, hyper's buffer of 8 KiB among it.
const POD: usize = 16 << 10;
/// Bytes that are read of a pod at a time, on the first connections and on all others: hyper's buffer
/// stays as small as it begins where it is never filled.
const READ: [usize; 2] = [64 << 10, (8 << 10) - 1];

/// Dials original pods. Cheap to clone.
#[derive(Clone)]
pub(super) struct Origin {
    names: Names,
    sockets: Sockets,
    /// The last address of each Service, for when the DNS does not answer.
    known: Arc<Mutex<HashMap<u16, Vec<IpAddr>>>>,
    /// The first port of the range, from which blocks count.
    first: u16,
    /// Who hears of pods that cannot be reached.
    claims: Claims,
    memory: Memory,
}

/// A connection to an original pod, with what it has said already.
pub(super) type Pod = Prefixed<Placed>;

impl Origin {
    #[must_use]
    pub(super) fn new(
        names: Names,
        sockets: Sockets,
        first: u16,
        claims: Claims,
        memory: Memory,
    ) -> Self {
        Self {
            names,
            sockets,
            known: Arc::default(),
            first,
            claims,
            memory,
        }
    }

    /// What stands for the original pods of what arrives on `port`.
    pub(super) fn target(&self, port: u16) -> Target {
        let block = port - (port - self.first) % BLOCK;
        Target::new(Host::Name(format!("kdev-{block}")), port)
    }

    /// The Service's addresses, the last known ones where the DNS does not answer. A name that
    /// the DNS says does not exist is not remembered: its address may be another Service's.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        let name = target.host.to_string();
        let found = self.names.lookup(&name, target).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(ips) => {
                known.insert(target.port, ips.clone());
                Ok(ips)
            }
            Err(error @ DialError::NotFound { .. }) => {
                known.remove(&target.port);
                Err(error)
            }
            Err(error) => known.get(&target.port).cloned().ok_or(error),
        }
    }
}

impl Dial for Origin {
    type Io = Pod;

    async fn dial(&self, target: &Target) -> Result<Pod, DialError> {
        let mut last = DialError::NotFound {
            what: format!("Service {}", target.host),
            fix: String::new(),
        };
        for _ in 0..TRIES {
            for ip in self.addresses(target).await? {
                let pod = self.sockets.connect((ip, target.port).into());
                match timeout(LIMIT, pod).await {
                    Ok(Ok((stream, place))) => {
                        let all = self.memory.all();
                        let cost = Cost {
                            unread: held(&place),
                            unsent: held(&place),
                            read: READ[usize::from(place.is_none())],
                        };
                        let placed = Placed {
                            stream: Metered::new(stream, (self.memory.clone(), all.clone()), cost),
                            _charge: self.memory.pin(all, POD),
                            _place: place,
                        };
                        return Ok(Prefixed::new(Bytes::new(), placed));
                    }
                    Ok(Err(error)) => {
                        last = DialError::Unreachable {
                            target: target.to_string(),
                            reason: error.to_string(),
                            fix: String::new(),
                        };
                    }
                    Err(_) => {
                        last = DialError::TimedOut {
                            target: target.to_string(),
                            after: LIMIT,
                        };
                    }
                }
            }
        }
        // Whether that is the pods' fault or the network's, kdev can find out.
        self.claims.unreached(target.port);
        Err(last)
    }
}

/// A connection and its place among those that have room.
#[derive(Debug)]
pub(super) struct Placed {
    stream: Metered<(Memory, Part)>,
    _charge: Charge,
    _place: Place,
}

impl Io for Placed {
    fn reset(&mut self) {
        self.stream.reset();
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    pass_writes!(stream);
}
