//! A session beside whatever goes on: how long its requests take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::LIMIT;
use super::pod::Pod;
use crate::peer;

/// Requests of one measurement: the 99th percentile is the fourth worst.
const REQUESTS: usize = 400;
/// Pause between two, as between those of somebody at work.
const PAUSE: Duration = Duration::from_millis(2);
/// Below this a difference is the scheduler's of a machine that runs all of the cluster on two cores.
const FLOOR: Duration = Duration::from_millis(4);
/// How often it is tried: a machine may be busy with something else at the wrong moment.
const TRIES: usize = 6;

/// The relay, and an echo server in another pod.
#[derive(Clone)]
pub(super) struct Beside {
    pub(super) relay: Arc<Pod>,
    pub(super) key: Vec<u8>,
    pub(super) echo: String,
}

impl Beside {
    /// The 99th percentile of a new session's requests: a stream is opened and brings one answer.
    ///
    /// It has a thread of its own, so that what is done to the relay meanwhile is not in its way.
    pub(super) async fn p99(&self) -> Duration {
        let this = self.clone();
        let measure = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(this.measure())
        };
        tokio::task::spawn_blocking(measure).await.unwrap()
    }

    async fn measure(&self) -> Duration {
        let io = self.relay.dial(kdev::tunnel::TUNNEL_PORT).await.unwrap();
        let opener = peer::tunnel(io, &self.key).await.unwrap();
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            tokio::time::sleep(PAUSE).await;
            let began = Instant::now();
            let mut stream = peer::dial(&opener, &self.echo).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello");
            times.push(began.elapsed());
        }
        times.sort();
        times[REQUESTS * 99 / 100 - 1]
    }

    /// Holds the session's 99th percentile while `attack` goes on against that before and after.
    pub(super) async fn stays_quick<A, F: Future<Output = A>>(
        &self,
        what: &str,
        attack: impl Fn() -> F,
    ) {
        let mut seen = Vec::new();
        for _ in 0..TRIES {
            let before = self.p99().await;
            let going_on = attack().await;
            let during = self.p99().await;
            let memory = self.relay.memory();
            println!("{what}: {memory}");
            assert!(memory.total() < LIMIT, "{what}: {memory}");
            drop(going_on);
            // What was cut off is put away.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after = self.p99().await;
            println!("{what}: p99 {during:.1?}, before {before:.1?}, after {after:.1?}");
            if during <= 2 * before.max(after).max(FLOOR) {
                return;
            }
            seen.push((before, during, after));
        }
        panic!("{what}: a session beside it was slowed down more than twice: {seen:?}");
    }
}
