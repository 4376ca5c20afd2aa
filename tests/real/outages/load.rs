//! A hundred requests a second while something happens to the way, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::app::Way;

/// Pause between the starts of two requests: a hundred a second.
const PAUSE: Duration = Duration::from_millis(10);

/// A request that was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    pub(super) ok: bool,
}

/// Requests that are made all the time, each on a connection of its own.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    making: JoinSet<Vec<Request>>,
}

impl Load {
    /// Starts to ask `target` through `way`.
    pub(super) fn start(way: Way, target: &str) -> Self {
        let (stop, target) = (Arc::new(AtomicBool::new(false)), target.to_owned());
        let stopped = stop.clone();
        let mut making = JoinSet::new();
        making.spawn(async move {
            let mut requests = JoinSet::new();
            let mut tick = tokio::time::interval(PAUSE);
            while !stopped.load(Ordering::Relaxed) {
                tick.tick().await;
                let target = target.clone();
                requests.spawn(async move {
                    let begun = Instant::now();
                    let answer = way.get(&target, "/").await;
                    let ok = answer.is_ok_and(|a| a.status == 200);
                    let ended = Instant::now();
                    Request { begun, ended, ok }
                });
            }
            requests.join_all().await
        });
        Self { stop, making }
    }

    /// Makes no more, and gives all in the order of their starts.
    pub(super) async fn stop(mut self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        let mut requests = self.making.join_next().await.unwrap().unwrap();
        requests.sort_by_key(|r| r.begun);
        requests
    }
}

/// When the way went away, and when it was back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) away: Instant,
    pub(super) back: Instant,
}

/// What a new request may take once the way is back.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// How long a way that is lost may be taken for a slow one.
pub(super) const KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// Looks whether only requests in flight on a lost path failed, and new ones went through.
pub(super) fn judge(what: &str, requests: &[Request], outage: Outage) {
    judge_known(what, requests, outage, KNOWN_WITHIN);
}

/// The same, where the loss may go unnoticed for so long.
pub(super) fn judge_known(
    what: &str,
    requests: &[Request],
    Outage { away, back }: Outage,
    known: Duration,
) {
    let failed: Vec<_> = requests.iter().filter(|r| !r.ok).collect();
    let late: Vec<_> = requests.iter().filter(|r| r.begun >= back).collect();
    let slowest = late
        .iter()
        .map(|r| r.ended - r.begun)
        .max()
        .unwrap_or_default();
    let first = requests.iter().filter(|r| r.ok && r.ended >= back);
    let first = first.map(|r| r.ended - back).min();
    println!(
        "{what}: {} of {} failed, away for {:?}, first good one {first:?} after it was back, the \
         slowest begun later took {slowest:?}",
        failed.len(),
        requests.len(),
        back - away,
    );
    for request in &failed {
        assert!(
            request.begun < away + known,
            "{what}: one begun {:?} after the loss failed",
            request.begun - away
        );
    }
    let before = failed.iter().filter(|r| r.ended < away).count();
    assert_eq!(before, 0, "{what}: failed while the way was there");
    let first = first.unwrap_or_else(|| panic!("{what}: none worked again"));
    assert!(first <= BACK_WITHIN, "{what}: {first:?} until one worked");
    for request in late {
        // Those of the first moments wait for the tunnel, the later ones for nothing.
        let limit = BACK_WITHIN + BACK_WITHIN.saturating_sub(request.begun - back);
        let took = request.ended - request.begun;
        assert!(
            took <= limit,
            "{what}: one begun {:?} after the way was back took {took:?}",
            request.begun - back
        );
    }
}

/// Looks whether all went well.
pub(super) fn all_went_well(what: &str, requests: &[Request]) {
    let failed = requests.iter().filter(|r| !r.ok).count();
    println!("{what}: {failed} of {} failed", requests.len());
    assert!(requests.len() > 100, "{what}: too few requests to tell");
    assert_eq!(failed, 0, "{what}");
}
