//! The line between kdev and the API server: one that can be cut, go silent, or be slow.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A line; everything on it ends when this is dropped.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    /// How often it was cut.
    cuts: watch::Sender<u64>,
    /// Bytes per second towards the API server and back, each; 0 without a limit.
    rate: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Line {
    /// A line that begins at `here` and ends at `server`.
    pub(crate) async fn new(here: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(here).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = watch::Sender::new(0);
        let (rate, made) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (cut, limit, count) = (cuts.clone(), rate.clone(), made.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (mut cut, limit) = (cut.subscribe(), limit.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = carry(near, server, limit) => {}
                        // The change drops both sockets.
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            rate,
            made,
            _serving: serving,
        }
    }

    /// Ends every connection that there is, at once.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Makes it slow, in bytes per second.
    pub(crate) fn narrow(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Connections that were ever made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}

async fn carry(near: TcpStream, server: SocketAddr, rate: Arc<AtomicU64>) {
    let Ok(far) = TcpStream::connect(server).await else {
        return;
    };
    let (Ok(()), Ok(())) = (near.set_nodelay(true), far.set_nodelay(true)) else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(
        one_way(near_in, far_out, rate.clone()),
        one_way(far_in, near_out, rate)
    );
}

/// Most bytes read at once; little, so that a slow line is not slow in jerks.
const PIECE: usize = 16 << 10;

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: Arc<AtomicU64>) {
    let mut piece = vec![0; PIECE];
    let mut free = Instant::now();
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        let rate = rate.load(Ordering::Relaxed);
        if rate > 0 {
            // Each connection of the line has this rate of its own.
            free = free.max(Instant::now()) + Duration::from_secs_f64(n as f64 / rate as f64);
            tokio::time::sleep_until(free.into()).await;
        }
        if to.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }
    // Either end may already be gone.
    let _ = to.shutdown().await;
}

/// Where a kubeconfig of the lab leads.
pub(crate) fn server(kubeconfig: &Path) -> SocketAddr {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let rest = text.split("https://").nth(1).unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

/// A copy of a kubeconfig that leads over a line.
pub(crate) fn over(kubeconfig: &Path, line: SocketAddr, folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let old = format!("\"https://{}\"", server(kubeconfig));
    // The certificate knows the API server's names, not the line's address.
    let new = format!("\"https://{line}\", tls-server-name: kubernetes");
    let path = folder.join(format!("over-{}", line.port()));
    std::fs::write(&path, text.replace(&old, &new)).unwrap();
    path
}
