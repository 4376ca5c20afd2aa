//! Connections of HTTP/2, each for many requests at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::request::RequestBody;
use super::turnover::{Rate, Turnover};
use crate::addr::Target;

/// Connections that are opened at a time, by all who find none: the others wait for these.
const DIALLING: usize = 16;
/// Connections that take requests, to all destinations; of more, any goes.
const MOST: usize = 256;

/// Connections of HTTP/2, by authority. Cloning is shallow.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    all: Arc<Mutex<HashMap<Target, Taken>>>,
    dialling: Arc<Semaphore>,
    turnover: Option<Turnover>,
}

#[derive(Debug, Default)]
struct Taken {
    open: Vec<Open>,
    next: usize,
    rate: Rate,
}

#[derive(Debug)]
struct Open {
    send: SendRequest<RequestBody>,
    served: u32,
    born: Instant,
}

impl Shared {
    pub(super) fn new(turnover: Option<Turnover>) -> Self {
        Self {
            all: Arc::default(),
            dialling: Arc::new(Semaphore::new(DIALLING)),
            turnover,
        }
    }

    /// A connection to `target` for one request more; `None` where one is to be opened.
    pub(super) fn take(&self, target: &Target) -> Option<SendRequest<RequestBody>> {
        let mut all = self.lock();
        let taken = all.get_mut(target)?;
        let Taken { open, next, rate } = taken;
        rate.count(Instant::now());
        let over = |one: &Open| {
            let turnover = self.turnover;
            turnover.is_some_and(|turnover| turnover.is_over(one.served, one.born, rate))
        };
        open.retain(|one| !one.send.is_closed() && !over(one));
        let width = self.turnover.map_or(1, |turnover| turnover.width);
        if open.len() < width {
            return None;
        }
        *next = (*next + 1) % open.len();
        let one = &mut open[*next];
        one.served += 1;
        Some(one.send.clone())
    }

    /// For whoever opens a connection, until it is there.
    pub(super) async fn dialling(&self) -> Option<SemaphorePermit<'_>> {
        self.dialling.acquire().await.ok()
    }

    /// A new connection, for others as well, that has carried `served` requests.
    pub(super) fn put(&self, target: &Target, send: SendRequest<RequestBody>, served: u32) {
        let mut all = self.lock();
        let total: usize = all.values().map(|taken| taken.open.len()).sum();
        if total >= MOST {
            all.retain(|_, taken| {
                taken.open.retain(|one| !one.send.is_closed());
                !taken.open.is_empty()
            });
            // Whichever: its requests go on, and it ends after them.
            let some = all.values_mut().find(|taken| !taken.open.is_empty());
            drop(some.and_then(|taken| taken.open.pop()));
        }
        let taken = all.entry(target.clone()).or_default();
        taken.open.push(Open {
            send,
            served,
            born: Instant::now(),
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Taken>> {
        // Every change is whole when the lock is released, so a panic elsewhere leaves it sound.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
