//! Where a request goes, and what becomes of one that nobody answers.
//!
//! One that a claim is for goes to its owner's kdev. When the last tunnel of that ends (at once where
//! the process is killed, within 6 s where it is frozen or its network is gone), requests wait for
//! another one for [`HOLD`](super::sessions::HOLD) at most; from then on the owner is silent, and
//! matching requests go to the original pods without waiting, marked (see [`fallback`](super::fallback)),
//! until there is a tunnel again. What was on its way when the tunnel ended is sent to the pods too,
//! where nobody can have served it or it may be done twice, and is a 503 otherwise. Of a strict
//! claim nothing goes to the pods: a 503, and an end of the connection where it is no HTTP.

use std::sync::{Arc, PoisonError};

use http::header::{CACHE_CONTROL, HeaderMap};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::fallback::{self, Fallback};
use super::hops;
use super::mirror::Mirrors;
use super::ports::Entry;
use super::served::Served;
use super::web::{Aside, Switched, Web};
use crate::addr::Target;
use crate::dial::HttpIo;
use crate::http::{Body, Failed, Failure, Forwarded, Passing, Upstream};
use crate::io::BoxIo;
use crate::rule::{Claim, Head};

/// What a caller is told whose request must not go to the original pods: a strict claim's, or one
/// that may have been served already.
fn silent(claim: &Claim) -> Failure {
    let Claim { id, owner, .. } = claim;
    let why = match claim.strict {
        true => "intercepts this request strictly, and their kdev does not answer",
        false => {
            "intercepts this request, and their kdev fell silent while it had it; the original \
             pods answer the next one"
        }
    };
    Failure {
        status: StatusCode::SERVICE_UNAVAILABLE,
        word: "silent",
        text: format!("{owner} {why}; `kdev leave {id} --force` ends the claim"),
    }
}

/// How the owner of a claim is told of what answers there.
pub(super) const APP: &str = "the app";
/// The same of whoever answers in its stead.
const POD: &str = "the pod that answered";

/// Why there is no answer of the app, for its owner: the relay knows it by the name of the Service.
pub(super) fn of_app(failure: &Failure, target: &Target) -> String {
    failure.text.replace(&target.to_string(), APP)
}

/// Caches must not give the answer to others than those whom it is for. What the app says stays.
fn keep_from_caches(headers: &mut HeaderMap) {
    const NO_STORE: &str = "no-store";
    let said = headers.get_all(CACHE_CONTROL).iter();
    let mut said = said.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !said.any(|word| word.trim_ascii().eq_ignore_ascii_case(NO_STORE.as_bytes())) {
        hops::append(headers, CACHE_CONTROL, NO_STORE);
    }
}

impl Web {
    /// Sends a request to the app whose claim it fulfils, or else to the original pods. `caller` is
    /// the caller's side of an upgrade; what goes along with its answer comes into `aside`.
    ///
    /// # Errors
    /// What the caller is told when nobody answers.
    pub(super) async fn route(
        &self,
        mut passing: Passing,
        caller: Option<OnUpgrade>,
        aside: &mut Aside,
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
        let silent = entry.as_ref().filter(|entry| entry.session.is_silent());
        let fallback = silent.and_then(|entry| entry.fallback(true));
        let mirrors = Mirrors::wanted(&routes, &head);
        drop(routes);
        let room = self.room(entry.is_some());
        if let (Err(failure), Some(entry)) = (&room, &entry)
            && let Some(served) = Served::of(entry, &passing)
        {
            served.failed(failure);
        }
        aside.charged = Some(room?);
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
            let io = HttpIo::direct(Box::new(io) as BoxIo);
            match (entry.as_ref().filter(|_| fallback.is_none()), global) {
                (None, None) => {
                    let pods = &self.inbound.pods;
                    pods.adopt(&self.target, io, self.second).await;
                }
                (Some(entry), Some(global)) if Arc::ptr_eq(entry, &global) => {
                    let line = entry.lines(&self.inbound.tasks).of(self.second);
                    line.adopt(&self.target, io, self.second).await;
                }
                _ => {}
            }
        }
        let Some(entry) = entry else {
            let unread = self.inbound.may_be_claimed(&self.port);
            if unread {
                self.port.passed_unclaimed();
            }
            let mut response = self.to_pods(passing, caller).await?;
            if unread {
                Fallback::Started.mark(&mut response);
            }
            return Ok(response);
        };
        entry.hit();
        if let Some(why) = fallback {
            return self.fall_back(&entry, why, passing, caller).await;
        }
        let mut served = Served::of(&entry, &passing);
        let result = self.to_laptop(&entry, passing, caller, &mut served).await;
        match (served, &result) {
            (Some(served), Ok(response)) => {
                let by = if fallback::is_marked(response) {
                    POD
                } else {
                    APP
                };
                aside.answered = served.answered(response.status(), by);
            }
            (Some(served), Err(failure)) => served.failed(failure),
            (None, _) => {}
        }
        result
    }

    /// Sends a request that a claim is for to the original pods.
    async fn fall_back(
        &self,
        entry: &Arc<Entry>,
        why: Fallback,
        passing: Passing,
        caller: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Failure> {
        entry.fell_back(why, &self.inbound.tasks);
        let mut response = self.to_pods(passing, caller).await?;
        why.mark(&mut response);
        Ok(response)
    }

    /// Sends a request to the app of a claim. Where its tunnel breaks, it is sent again once that
    /// is back, or to the original pods when nobody waits for it any more, if that does no harm.
    async fn to_laptop(
        &self,
        entry: &Arc<Entry>,
        mut passing: Passing,
        caller: Option<OnUpgrade>,
        served: &mut Option<Served>,
    ) -> Result<Response<Body>, Failure> {
        self.inbound.metrics.request(true);
        let line = entry.lines(&self.inbound.tasks).of(self.second);
        let (session, owner) = (&entry.session, &entry.claim.owner);
        let mut repeated = false;
        loop {
            let before = session.losses();
            let Failed { failure, again } = match line.pass(&self.target, passing).await {
                Ok(forwarded) => {
                    let mut response = self.forwarded(forwarded, caller, Switched::Laptop);
                    if !entry.claim.is_global() {
                        keep_from_caches(response.headers_mut());
                    }
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if failure.status == StatusCode::BAD_REQUEST {
                return Err(failure);
            }
            let lost = session.is_lost(before).await;
            match (again, entry.fallback(lost)) {
                (Some(again), _) if lost && !repeated => {
                    (passing, repeated) = (*again, true);
                    continue;
                }
                (Some(again), Some(why)) => {
                    debug!(
                        owner,
                        text = failure.text,
                        "the original pods answer instead"
                    );
                    return self.fall_back(entry, why, *again, caller).await;
                }
                _ => {}
            }
            return Err(if lost {
                silent(&entry.claim)
            } else {
                let status = match failure.status {
                    StatusCode::GATEWAY_TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::BAD_GATEWAY,
                };
                if let Some(served) = served {
                    served.because(&of_app(&failure, &self.target));
                }
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
                    // Callers have never heard of the name by which the relay knows them.
                    let service = format!("Service {}", self.target.host);
                    let text = failure
                        .text
                        .replace(&self.target.to_string(), "one of them");
                    let text = text.replace(&service, "their Service");
                    failure.text = format!("the original pods: {text}");
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
