//! What somebody who can reach the relay's pod tries: section by section, what is refused, what it
//! costs, and how a session beside it fares. All of it goes to a relay that the scenario installed,
//! inside the network of its pod, in bounded numbers.

mod beside;
mod flood;
mod peers;
pub(crate) mod pod;
mod stalled;
mod targets;

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use self::beside::Beside;
use self::pod::Pod;
use crate::lab;
use crate::site::{SECRETS, Site};

/// What the pod may use.
pub(crate) const LIMIT: u64 = 128 << 20;

/// One relay, and servers in another pod.
struct Stage {
    site: Site,
    relay: Arc<Pod>,
    /// Where servers of a scenario listen.
    other: Pod,
    keys: [Vec<u8>; 2],
    /// Its first processes: one that is killed would be another one later.
    processes: Vec<u32>,
}

impl Stage {
    fn set_up(what: &str) -> Self {
        // Ten thousand connections have two ends here.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let site = Site::create(what);
        site.install_chart(&json!({"replicas": 1}));
        let name = site.await_relays(1).remove(0);
        let relay = Pod::find(&site.0, &name);
        relay.count_sockets();
        let (peer, _) = lab::pod_address("peer");
        let keys = SECRETS.map(|secret| site.key(secret));
        Self {
            processes: relay.processes(),
            relay: Arc::new(relay),
            other: Pod::find("shop", &peer),
            keys,
            site,
        }
    }

    /// A session beside what happens, with an echo server in another pod.
    async fn beside(&self) -> Beside {
        let listener = self.other.listen();
        let echo = listener.local_addr().unwrap().to_string();
        serve(listener, |mut socket| async move {
            let (mut from, mut to) = socket.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        Beside {
            relay: self.relay.clone(),
            key: self.keys[0].clone(),
            echo,
        }
    }

    /// Waits until no stream is open: all that belonged to somebody who left is put away.
    fn until_idle(&self) {
        let relay = &self.relay;
        self.site.wait("streams to end", |_| {
            relay.metric("kdev_relay_streams") == 0.0
        });
    }

    /// The same processes run as at the start, within the pod's memory.
    fn unharmed(&self) {
        let memory = self.relay.memory();
        println!("{}: {memory}", self.site.0);
        assert_eq!(self.relay.restarts(), 0);
        assert_eq!(
            self.relay.processes(),
            self.processes,
            "a worker was replaced"
        );
        assert!(memory.resident < LIMIT, "{memory}");
        assert!(memory.peak.is_none_or(|peak| peak < LIMIT), "{memory}");
        assert_eq!(self.site.relays().len(), 1, "not ready any more");
    }
}

/// Serves connections until the test ends, on a thread of its own.
fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: tokio::net::TcpListener,
    answer: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) {
    let listener = listener.into_std().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                #[allow(clippy::disallowed_methods)]
                tokio::spawn(answer(socket));
            }
        });
    });
}
