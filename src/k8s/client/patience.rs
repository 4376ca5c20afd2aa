//! API servers that ask for patience: they answer 429, or 503, and say by `Retry-After` when to ask
//! again.
//!
//! API priority and fairness does so where a user, or everybody, asks for more than the server can
//! do, and so does a server that fills its caches or is about to stop. Nothing of such a request was
//! done, so it is sent again, as client-go does, for a bounded time. A 429 without `Retry-After` is
//! an answer like any other: an eviction that a PodDisruptionBudget forbids gets one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use tokio::sync::watch;

use super::{Client, ClientError};

/// How long one request waits in all. client-go tries ten times, and priority and fairness asks for
/// one second at first and for twice as much each second in which it turns somebody away, up to 32.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The same for an upgrade: below what a dial may take, whose failure then names the reason.
pub(super) const UPGRADE_PATIENCE: Duration = Duration::from_secs(15);
/// Shortest pause at first, for a server that asks for none; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_FLOOR: Duration = Duration::from_secs(1);
/// Most that is added at random, so that a team that was turned away together does not come back
/// together.
const JITTER: Duration = Duration::from_millis(250);
/// Waits up to this long are nothing to speak of; who is no more patient says nothing either.
pub const UNSAID: Duration = Duration::from_secs(1);
/// How long it is not said again.
const SAID_FOR: Duration = Duration::from_secs(300);

/// What a server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    code: StatusCode,
    after: Duration,
}

impl Asked {
    /// What the `response` to a request with `method` asks for, if it does.
    pub(super) fn of<B>(response: &Response<B>, method: &Method) -> Option<Self> {
        let code = response.status();
        let undone = match code {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
            // It may have been done all the same; reading twice does no harm.
            code => code.is_server_error() && method == Method::GET,
        };
        let after = retry_after(response.headers())?;
        undone.then_some(Self { code, after })
    }
}

/// `Retry-After` in seconds, the only form that Kubernetes has.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The patience that one request has left.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    waited: Duration,
    floor: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            floor: FIRST_PAUSE,
        }
    }

    /// The next pause; none where nothing is left. One that is too long ends with the patience: the
    /// server counts up what it has turned away, and may have time long before it says so.
    fn next(&mut self, asked: Asked) -> Option<Duration> {
        let left = self.limit - self.waited;
        if left.is_zero() {
            return None;
        }
        let pause = asked.after.max(self.floor).min(left);
        self.floor = (self.floor * 2).min(LONGEST_FLOOR);
        self.waited += pause;
        Some(pause)
    }
}

/// Which requests of a client wait because the API server asked for it.
#[derive(Debug)]
pub(super) struct Held {
    count: watch::Sender<usize>,
    last: Mutex<Option<Asked>>,
    said: Mutex<Option<Instant>>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            count: watch::Sender::new(0),
            last: Mutex::default(),
            said: Mutex::default(),
        }
    }
}

/// Counts one request as waiting until dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Held {
    /// Waits as `asked`; false where `patience` is at its end.
    pub(super) async fn wait(&self, patience: &mut Patience, asked: Asked) -> bool {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        let Some(pause) = patience.next(asked) else {
            return false;
        };
        if patience.waited > UNSAID {
            self.say(asked, patience.limit);
        }
        self.count.send_modify(|count| *count += 1);
        let _waiting = Waiting(&self.count);
        tokio::time::sleep(pause + JITTER.mul_f64(rand::random())).await;
        true
    }

    fn say(&self, asked: Asked, limit: Duration) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|at| at.elapsed() < SAID_FOR) {
            return;
        }
        *said = Some(Instant::now());
        tracing::warn!(
            "the API server is busy and asks to wait {} s ({}); kdev does, for {} s in all at most",
            asked.after.as_secs(),
            asked.code,
            limit.as_secs()
        );
    }

    async fn becomes(&self, held: bool) {
        // The sender is `self`'s own, so waiting cannot fail.
        let mut count = self.count.subscribe();
        let _ = count.wait_for(|count| (*count > 0) == held).await;
    }

    fn last(&self) -> Option<Asked> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// The same client, whose requests wait at most `limit` in all where the API server asks for
    /// patience.
    #[must_use]
    pub fn patient_for(&self, limit: Duration) -> Self {
        Self {
            patience: limit,
            ..self.clone()
        }
    }

    /// The same client, whose requests give back 429 and 503 as they come.
    #[must_use]
    pub fn impatient(&self) -> Self {
        self.patient_for(Duration::ZERO)
    }

    /// Waits for `work` that asks the API server, for at most `limit`. Time that the server asked
    /// this client to wait does not count, up to the client's patience.
    ///
    /// # Errors
    /// When it takes longer.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, ClientError> {
        let held = &self.inner.held;
        let (mut left, mut patience) = (limit, self.patience);
        tokio::pin!(work);
        loop {
            let began = Instant::now();
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = held.becomes(true), if !patience.is_zero() => {}
                () = tokio::time::sleep(left) => return Err(match patience < self.patience {
                    true => self.busy(held.last(), self.patience - patience),
                    false => ClientError::Unreachable {
                        server: self.about().way(),
                        reason: format!("it did not answer within {} s", limit.as_secs()),
                    },
                }),
            }
            left = left.saturating_sub(began.elapsed());
            let began = Instant::now();
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = held.becomes(false) => {}
                () = tokio::time::sleep(patience) => {}
            }
            patience = patience.saturating_sub(began.elapsed());
        }
    }

    /// The failure of a request whose patience has ended.
    pub(super) fn out_of(&self, patience: &Patience, asked: Asked) -> ClientError {
        self.busy(Some(asked), patience.waited)
    }

    fn busy(&self, asked: Option<Asked>, waited: Duration) -> ClientError {
        ClientError::Busy {
            server: self.server().to_owned(),
            code: asked.map_or(429, |asked| asked.code.as_u16()),
            waited,
            asked: asked.map_or(Duration::ZERO, |asked| asked.after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, after: Option<&str>) -> Response<()> {
        let mut response = Response::builder().status(code);
        if let Some(after) = after {
            response = response.header(RETRY_AFTER, after);
        }
        response.body(()).unwrap()
    }

    fn asked(seconds: u64) -> Asked {
        Asked {
            code: StatusCode::TOO_MANY_REQUESTS,
            after: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn only_what_was_not_done_is_asked_again() {
        for (method, code, after, expected) in [
            (Method::POST, 429, Some("1"), Some(1)),
            (Method::POST, 503, Some("5"), Some(5)),
            (Method::GET, 504, Some("1"), Some(1)),
            (Method::GET, 429, Some(" 0 "), Some(0)),
            (Method::PATCH, 504, Some("1"), None),
            // A PodDisruptionBudget's refusal of an eviction.
            (Method::POST, 429, None, None),
            (Method::GET, 503, None, None),
            (Method::GET, 200, Some("1"), None),
            (
                Method::GET,
                429,
                Some("Sun, 29 Nov 2026 20:00:00 GMT"),
                None,
            ),
            (Method::GET, 429, Some("-1"), None),
        ] {
            let found = Asked::of(&answer(code, after), &method);
            let found = found.map(|asked| asked.after.as_secs());
            assert_eq!(found, expected, "{method} {code} {after:?}");
        }
    }

    #[test]
    fn patience_is_bounded_and_no_server_is_asked_without_a_pause() {
        let mut patience = Patience::new(Duration::from_secs(3));
        assert_eq!(patience.next(asked(2)), Some(Duration::from_secs(2)));
        let last = patience.next(asked(32));
        assert_eq!(last, Some(Duration::from_secs(1)), "it is asked once more");
        assert_eq!(patience.next(asked(0)), None);

        let mut patience = Patience::new(Duration::from_secs(4));
        let pauses = std::iter::from_fn(|| patience.next(asked(0)));
        let millis: Vec<u128> = pauses.map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1000, 1000, 500]);

        assert_eq!(Patience::new(Duration::ZERO).next(asked(0)), None);
    }
}
