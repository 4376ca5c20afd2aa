//! Where a request goes, and what becomes of one that nobody answers.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::hops;
use super::mirror::Mirrors;
use super::ports::Entry;
use super::seat::Served as Charged;
use super::web::{Switched, Web};
use crate::http::{Body, Failed, Failure, Forwarded, Passing, Upstream};
use crate::rule::Head;
use crate::rule::control::Tell;

/// How long it may take until a session whose tunnel breaks is seen to be without it: both are
/// noticed at the same moment, by different tasks.
const NOTICED: Duration = Duration::from_millis(20);
/// Bytes of a path that kdev is told: a line of a terminal.
const LONGEST_PATH: usize = 200;

/// A request that kdev is told of once it is answered.
struct Served {
    method: String,
    path: String,
    began: Instant,
}

impl Served {
    fn new(passing: &Passing) -> Self {
        // What follows the path may be secret. Paths are ASCII.
        let path = passing.uri().path();
        Self {
            method: passing.method().to_string(),
            path: path[..path.len().min(LONGEST_PATH)].to_owned(),
            began: Instant::now(),
        }
    }

    fn tell(self, entry: &Entry, status: StatusCode) {
        entry.session.tell(&Tell::Served {
            id: entry.claim.id.clone(),
            method: self.method,
            path: self.path,
            status: status.as_u16(),
            took: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }
}

impl Web {
    /// Sends a request to the app whose claim it fulfils, or else to the original pods. `caller` is
    /// the caller's side of an upgrade; what the request is charged with comes into `charged`.
    ///
    /// # Errors
    /// What the caller is told when nobody answers.
    pub(super) async fn route(
        &self,
        mut passing: Passing,
        caller: Option<OnUpgrade>,
        charged: &mut Option<Charged>,
    ) -> Result<Response<Body>, Failure> {
        let routes = self.port.routes();
        let head = Head {
            method: passing.method(),
            uri: passing.uri(),
            headers: passing.headers(),
        };
        let mut entry = routes.rules.pick(&head).cloned();
        if entry.as_ref().is_some_and(|entry| entry.session.is_gone()) {
            self.inbound.claims.sweep();
            entry = self.port.routes().rules.pick(&head).cloned();
        }
        let mirrors = Mirrors::wanted(&routes, &head);
        drop(routes);
        *charged = Some(self.room(entry.is_some())?);
        // Only now: conditions are about what the caller sent.
        let uri = passing.uri().clone();
        hops::add(passing.headers_mut(), &uri, self.peer)?;
        if !mirrors.is_empty() {
            let mirroring = &self.inbound.mirrors;
            mirroring.send(mirrors, &passing, &self.target, self.second);
        }
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((global, io)) = spare.filter(|_| !passing.is_upgrade()) {
            match (&entry, global) {
                (None, None) => {
                    let pods = &self.inbound.pods;
                    pods.adopt(&self.target, Box::new(io), self.second).await;
                }
                (Some(entry), Some(global)) if Arc::ptr_eq(entry, &global) => {
                    let line = entry.lines(&self.inbound.tasks).of(self.second);
                    line.adopt(&self.target, Box::new(io), self.second).await;
                }
                _ => {}
            }
        }
        match entry {
            Some(entry) if entry.log => {
                let served = Served::new(&passing);
                let result = self.to_laptop(&entry, passing, caller).await;
                let status = match &result {
                    Ok(response) => response.status(),
                    Err(failure) => failure.status,
                };
                served.tell(&entry, status);
                result
            }
            Some(entry) => self.to_laptop(&entry, passing, caller).await,
            None => self.to_pods(passing, caller).await,
        }
    }

    /// Sends a request to the app of a claim. Where its tunnel breaks, it is sent again once that
    /// is back, if that does no harm.
    async fn to_laptop(
        &self,
        entry: &Entry,
        mut passing: Passing,
        caller: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Failure> {
        entry.hit();
        self.inbound.metrics.request(true);
        let line = entry.lines(&self.inbound.tasks).of(self.second);
        let (session, owner) = (&entry.session, &entry.claim.owner);
        let mut repeated = false;
        loop {
            let before = session.losses();
            let Failed { failure, again } = match line.pass(&self.target, passing).await {
                Ok(forwarded) => {
                    let mut response = self.forwarded(forwarded, caller, Switched::Laptop);
                    let headers = response.headers_mut();
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if failure.status == StatusCode::BAD_REQUEST {
                return Err(failure);
            }
            let lost = || session.losses() != before || !session.is_live();
            if !lost() {
                tokio::time::sleep(NOTICED).await;
            }
            let lost = lost();
            match again {
                Some(again) if lost && !repeated => {
                    (passing, repeated) = (*again, true);
                    continue;
                }
                Some(again) if entry.claim.fallback => {
                    debug!(
                        owner,
                        text = failure.text,
                        "the original pods answer instead"
                    );
                    return self.to_pods(*again, caller).await;
                }
                _ => {}
            }
            return Err(if lost {
                Failure {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    word: "silent",
                    text: format!(
                        "{owner} intercepts this request, and their kdev does not answer; it has \
                         the claim {}, which `kdev leave {0} --force` ends",
                        entry.claim.id
                    ),
                }
            } else {
                let status = match failure.status {
                    StatusCode::GATEWAY_TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::BAD_GATEWAY,
                };
                let text = failure.text.replace(&self.target.to_string(), "it");
                let text = format!("{owner} intercepts this request with an app, and {text}");
                Failure {
                    status,
                    word: failure.word,
                    text,
                }
            });
        }
    }

    async fn to_pods(
        &self,
        passing: Passing,
        caller: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Failure> {
        self.inbound.metrics.request(false);
        match self.inbound.pods.pass(&self.target, passing).await {
            Ok(forwarded) => Ok(self.forwarded(forwarded, caller, Switched::Pod)),
            Err(Failed { mut failure, again }) => {
                self.inbound.metrics.failed();
                // Nobody was reached: there may be a pod again in a moment.
                if again.is_some() {
                    failure.status = StatusCode::SERVICE_UNAVAILABLE;
                }
                if failure.status != StatusCode::BAD_REQUEST {
                    failure.text = format!("the original pods: {}", failure.text);
                }
                Err(failure)
            }
        }
    }

    fn forwarded(
        &self,
        forwarded: Forwarded,
        caller: Option<OnUpgrade>,
        to: fn(Upstream) -> Switched,
    ) -> Response<Body> {
        let Forwarded { response, upstream } = forwarded;
        if let (Some(upstream), Some(caller)) = (upstream, caller) {
            let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
            *switch = Some((caller, to(upstream)));
        }
        response
    }
}
