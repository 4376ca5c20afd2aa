//! A dial: which of a destination's pods takes it, and how often it is tried.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::denials::{MAX_DENIED, named_pods};
use super::open::OpenError;
use super::pool::{InFlight, Inner, Pod, PortForward};
use super::stream::PodStream;
use crate::addr::{Namespaced, Target};
use crate::dial::{DialError, DialPods, Endpoints, PodPort};

/// How long a dial waits for a way to the cluster: longer than an API server's restart, shorter
/// than most programs wait for a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// First pause between two attempts to reach a cluster that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two such attempts: new dials must work within 2 s after it is back.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long an undeclared port may take to be refused before the dial is answered.
const UNDECLARED_WAIT: Duration = Duration::from_millis(50);

impl DialPods for PortForward {
    type Io = PodStream;

    fn pod_of(stream: &PodStream) -> Option<&Namespaced> {
        stream.pod()
    }

    async fn dial_pods(
        &self,
        target: &Target,
        endpoints: &Endpoints,
    ) -> Result<PodStream, DialError> {
        let name = target.to_string();
        let deadline = Instant::now() + DIAL_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            let attempt = self.inner.dial_once(&name, endpoints);
            let Ok(result) = tokio::time::timeout_at(deadline, attempt).await else {
                // What failed before says more than that the next try took too long.
                return Err(last.unwrap_or(DialError::TimedOut {
                    target: name,
                    after: DIAL_TIMEOUT,
                }));
            };
            let failure = match result {
                Ok(stream) => return Ok(stream),
                Err(failure) => failure,
            };
            if !failure.passing || failure.busy || Instant::now() + pause > deadline {
                return Err(failure.error);
            }
            tracing::debug!(error = %failure.error, "dialling again");
            last = Some(failure.error);
            // Jitter keeps the streams of a whole team from coming back in one instant.
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Inner {
    /// Tries the pods once, the least busy first and those last that were denied a moment ago.
    async fn dial_once(
        self: &Arc<Self>,
        name: &str,
        endpoints: &Endpoints,
    ) -> Result<PodStream, OpenError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let pods = endpoints.pods.iter().enumerate().map(|(i, at)| {
            let pod = self.pod(at);
            let order = (i + turn) % endpoints.pods.len();
            (pod.denial.is_fresh(), pod.load(), order, at, pod)
        });
        let mut candidates: Vec<_> = pods.collect();
        candidates.sort_by_key(|(denied, load, order, ..)| (*denied, *load, *order));
        let mut failed = None;
        let (mut denied, mut denials) = (None, 0);
        for next in 0..candidates.len() {
            let (known, _, _, at, pod) = &candidates[next];
            if (*known && next > 0) || denials == MAX_DENIED {
                break;
            }
            // Counted before the first await, so that dials of the same moment see each other.
            let in_flight = InFlight::new(pod);
            let failure = match self.open_at(pod, at, name, endpoints.declared).await {
                Ok(stream) => return Ok(stream),
                Err(failure) => failure,
            };
            drop(in_flight);
            tracing::debug!(pod = %at.pod, error = %failure.error, "dial failed");
            if matches!(failure.error, DialError::Denied { .. }) {
                // Another pod may be one that the user's Role names.
                pod.denial.note();
                denied.get_or_insert(failure);
                denials += 1;
                // As many can be tried; of more, the API server may tell which.
                if denials == 1 && candidates.len() - next > MAX_DENIED {
                    let named = named_pods(&self.client, &at.pod.namespace).await;
                    candidates[next + 1..].sort_by_key(|(.., at, _)| !named.contains(&at.pod.name));
                }
            } else if failure.error.is_of_one_pod() {
                failed = Some(failure);
            } else {
                return Err(failure);
            }
        }
        Err(failed.or(denied).unwrap_or_else(|| {
            OpenError::lasting(DialError::Unreachable {
                target: name.to_owned(),
                reason: "it has no ready pod".to_owned(),
                fix: String::new(),
            })
        }))
    }

    /// Opens a stream, and awaits an early refusal where one is likely.
    async fn open_at(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        at: &PodPort,
        name: &str,
        declared: bool,
    ) -> Result<PodStream, OpenError> {
        let mut stream = self.open_on(pod, at, name).await?;
        pod.denial.forget();
        stream.leads_to(at.pod.clone());
        if declared && !pod.refusals.expects(at.port) {
            stream.note_refusal(pod.refusals.clone(), at.port);
            return Ok(stream);
        }
        match stream.early_failure(UNDECLARED_WAIT).await {
            None => Ok(stream),
            Some(error) => Err(OpenError::lasting(error)),
        }
    }
}
