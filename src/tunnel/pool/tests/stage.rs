//! Replicas that answer in this process, and what may happen to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::watch;

use super::super::*;
use crate::task::Tasks;
use crate::tunnel::{Incoming, Keys, Secret, accept, serve};

/// The port that is refused.
pub(super) const REFUSED: u16 = 1;
/// The port that answers with the replica's name.
pub(super) const NAME: u16 = 2;
/// The port that sends and takes as much as anybody wants.
pub(super) const ENDLESS: u16 = 3;
/// Any other port sends back what it gets.
pub(super) const ECHO: u16 = 7;

/// A replica.
#[derive(Default)]
pub(super) struct Replica {
    /// Nobody gets through.
    pub(super) down: AtomicBool,
    /// Attempts hang.
    pub(super) hangs: AtomicBool,
    /// It has another secret.
    pub(super) other_secret: AtomicBool,
    /// Attempts to connect.
    pub(super) attempts: AtomicUsize,
    /// Tunnels that are open.
    pub(super) tunnels: AtomicUsize,
    /// Tunnels that kdev closed in order.
    pub(super) goodbyes: AtomicUsize,
    life: Mutex<Tasks>,
}

impl Replica {
    /// Cuts all of its tunnels.
    pub(super) fn cut(&self) {
        std::mem::take(&mut *self.life.lock().unwrap()).kill();
    }

    /// Lets all of its tunnels run out.
    pub(super) fn drain(&self) {
        self.life.lock().unwrap().drain();
    }

    async fn serve(self: Arc<Self>, name: String, io: DuplexStream, life: Tasks) {
        let secret = if self.other_secret.load(Ordering::Relaxed) {
            9
        } else {
            1
        };
        let keys = Keys {
            forward: Secret::new([secret; 32]).unwrap(),
            reverse: None,
        };
        let Ok(accepted) = accept(io, &keys, |_| Ok(())).await else {
            return;
        };
        let share = Budget::new(64 << 20).share().unwrap();
        let mut listener = serve(accepted.io, share).await.unwrap();
        let live = Count::new(self.clone());
        let mut draining = false;
        loop {
            tokio::select! {
                incoming = listener.next() => match incoming {
                    Some(incoming) => life.spawn(answer(name.clone(), incoming)),
                    None => break,
                },
                () = life.draining(), if !draining => {
                    draining = true;
                    listener.drain();
                }
            }
        }
        if !matches!(listener.ended(), crate::tunnel::Ended::Silent) && !draining {
            self.goodbyes.fetch_add(1, Ordering::Relaxed);
        }
        drop(live);
    }
}

struct Count(Arc<Replica>);

impl Count {
    fn new(replica: Arc<Replica>) -> Self {
        replica.tunnels.fetch_add(1, Ordering::Relaxed);
        Self(replica)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(replica: String, incoming: Incoming) {
    let (target, port) = (incoming.target.to_string(), incoming.target.port);
    if port == REFUSED {
        let reason = "nothing listens".to_owned();
        return incoming.refuse(&DialError::Refused { target, reason });
    }
    let mut stream = incoming.accept().unwrap();
    match port {
        NAME => {
            stream.write_all(replica.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // Until the other direction has ended too.
            let _ = stream.read(&mut [0]).await;
        }
        ENDLESS => {
            let piece = vec![7; 32 << 10];
            while stream.write_all(&piece).await.is_ok() {}
        }
        _ => {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
            let _ = stream.shutdown().await;
        }
    }
}

/// Opens pipes to the replicas.
pub(super) struct Pipes {
    replicas: BTreeMap<String, Arc<Replica>>,
    tasks: Tasks,
}

impl Transport for Pipes {
    type Io = DuplexStream;

    async fn open(&self, name: &str) -> Result<Carried<DuplexStream>, Trouble> {
        let replica = self.replicas[name].clone();
        replica.attempts.fetch_add(1, Ordering::Relaxed);
        if replica.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if replica.down.load(Ordering::Relaxed) {
            return Err(Trouble::passing(DialError::Unreachable {
                target: name.to_owned(),
                reason: "it is down".to_owned(),
                fix: String::new(),
            }));
        }
        let (near, far) = duplex(64 << 10);
        let life = {
            let mut life = replica.life.lock().unwrap();
            if life.is_draining() {
                *life = self.tasks.child();
            }
            life.clone()
        };
        let inside = life.clone();
        life.spawn(replica.serve(name.to_owned(), far, inside));
        Ok(Carried {
            io: near,
            secret: Secret::new([1; 32]).unwrap(),
            carrier: "pipe",
        })
    }
}

/// A pool with some replicas.
pub(super) struct Stage {
    pub(super) pool: Pool,
    pub(super) replicas: BTreeMap<String, Arc<Replica>>,
    pub(super) names: watch::Sender<Replicas>,
}

impl Stage {
    /// With these replicas, each first given to `prepare`.
    pub(super) fn new(names: &[&str], prepare: impl Fn(&Replica)) -> Self {
        let tasks = Tasks::new();
        let replicas: BTreeMap<_, _> = names
            .iter()
            .map(|name| {
                let replica = Replica::default();
                prepare(&replica);
                ((*name).to_owned(), Arc::new(replica))
            })
            .collect();
        let sender = watch::Sender::new(Replicas::of(names.iter().copied()));
        let pipes = Pipes {
            replicas: replicas.clone(),
            tasks,
        };
        Self {
            pool: Pool::start(pipes, sender.subscribe()),
            replicas,
            names: sender,
        }
    }

    /// With tunnels to all of these.
    pub(super) async fn ready(names: &[&str]) -> Self {
        let stage = Self::new(names, |_| {});
        stage.until(|pool| pool.connected() == names.len()).await;
        stage
    }

    /// Waits until the pool is like this.
    pub(super) async fn until(&self, like: impl Fn(&PoolStatus) -> bool) {
        let waiting = async {
            while !like(&self.pool.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "it stays {:?}", self.pool.status());
    }

    pub(super) async fn dial(&self, port: u16) -> Result<PoolStream, DialError> {
        let target = Target::new(crate::addr::Host::Name("web.shop".into()), port);
        self.pool.dial_relay(&target, Answer::Awaited).await
    }

    /// The name of the replica that a new stream goes through.
    pub(super) async fn who(&self) -> String {
        let mut name = String::new();
        let mut stream = self.dial(NAME).await.unwrap();
        stream.read_to_string(&mut name).await.unwrap();
        stream.shutdown().await.unwrap();
        name
    }
}

/// Sends `text` and gets it back.
pub(super) async fn echo(stream: &mut PoolStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text.as_bytes());
}
