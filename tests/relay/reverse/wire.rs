//! What carries the tunnels of a test: TCP to the relay, which can be cut, fall silent and be slow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kdev::dial::DialError;
use kdev::tunnel::Secret;
use kdev::tunnel::pool::{Carried, Transport, Trouble};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::support::{KEY, Stage};

/// Bytes that are on the way at most.
const ON_THE_WAY: usize = 64 << 10;

/// The lines to all replicas. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wire(Arc<State>);

struct State {
    /// Where each replica is, or why it cannot be reached.
    ways: BTreeMap<String, Result<SocketAddr, Trouble>>,
    /// Whether new lines come about.
    passable: watch::Sender<bool>,
    /// How long new lines delay each piece.
    delay: Mutex<Duration>,
    lines: Mutex<Vec<Line>>,
    opened: AtomicUsize,
    /// Those that kdev has not closed.
    live: Arc<AtomicUsize>,
}

struct Line {
    moves: watch::Sender<bool>,
    _pumps: JoinSet<()>,
}

impl Wire {
    /// To these replicas.
    pub(super) fn to(stages: &[&Stage]) -> Self {
        let ways = stages.iter().enumerate();
        Self::over(ways.map(|(n, stage)| (format!("replica-{n}"), Ok(stage.tunnels))))
    }

    /// As [`Wire::to`], with one more, which cannot be reached.
    pub(super) fn and_trouble(stages: &[&Stage], trouble: Trouble) -> Self {
        let ways = stages.iter().enumerate();
        let ways = ways.map(|(n, stage)| (format!("replica-{n}"), Ok(stage.tunnels)));
        Self::over(ways.chain([("sick".to_owned(), Err(trouble))]))
    }

    fn over(ways: impl Iterator<Item = (String, Result<SocketAddr, Trouble>)>) -> Self {
        Self(Arc::new(State {
            ways: ways.collect(),
            passable: watch::Sender::new(true),
            delay: Mutex::default(),
            lines: Mutex::default(),
            opened: AtomicUsize::new(0),
            live: Arc::default(),
        }))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.ways.keys().cloned().collect()
    }

    /// Ends all lines at both ends.
    pub(super) fn cut(&self) {
        self.0.lines.lock().unwrap().clear();
    }

    /// From now on nothing moves in the lines that there are, or all that waits goes on.
    pub(super) fn silence(&self, silent: bool) {
        for line in self.0.lines.lock().unwrap().iter() {
            line.moves.send_replace(!silent);
        }
    }

    /// Whether new lines come about; until then attempts hang.
    pub(super) fn pass(&self, passable: bool) {
        self.0.passable.send_replace(passable);
    }

    /// Lines that are made from now on take so long for each piece.
    pub(super) fn slow(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    /// How many lines there ever were.
    pub(super) fn opened(&self) -> usize {
        self.0.opened.load(Ordering::Relaxed)
    }

    /// How many of them kdev has not closed.
    pub(super) fn live(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }
}

impl Transport for Wire {
    type Io = DuplexStream;

    async fn open(&self, replica: &str) -> Result<Carried<DuplexStream>, Trouble> {
        let address = self.0.ways[replica].clone()?;
        let mut passable = self.0.passable.subscribe();
        let _ = passable.wait_for(|passable| *passable).await;
        let socket = TcpStream::connect(address).await.map_err(|error| {
            Trouble::passing(DialError::Refused {
                target: address.to_string(),
                reason: error.to_string(),
            })
        })?;
        socket.set_nodelay(true).unwrap();
        let (kdev, line) = duplex(ON_THE_WAY);
        let (moves, delay) = (watch::Sender::new(true), *self.0.delay.lock().unwrap());
        let ((from_kdev, to_kdev), (from_relay, to_relay)) = (split(line), socket.into_split());
        let mut pumps = JoinSet::new();
        let live = Live::new(&self.0.live);
        pumps.spawn(pump(
            from_kdev,
            to_relay,
            moves.subscribe(),
            delay,
            Some(live),
        ));
        pumps.spawn(pump(from_relay, to_kdev, moves.subscribe(), delay, None));
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let mut lines = self.0.lines.lock().unwrap();
        lines.push(Line {
            moves,
            _pumps: pumps,
        });
        Ok(Carried {
            io: kdev,
            secret: Secret::new(KEY).unwrap(),
            carrier: "TCP",
        })
    }
}

/// Counts a line that kdev has not closed.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Moves one direction. What comes while nothing moves is kept until it does again.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut moves: watch::Receiver<bool>,
    delay: Duration,
    mut live: Option<Live>,
) {
    let (mut kept, mut ended) = (Vec::with_capacity(ON_THE_WAY), false);
    loop {
        tokio::select! {
            read = from.read_buf(&mut kept), if !ended => ended = !matches!(read, Ok(n) if n > 0),
            Ok(()) = moves.changed() => {}
            else => return,
        }
        if ended {
            live = None;
        }
        if !*moves.borrow() {
            continue;
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(&kept).await.is_err() {
            return;
        }
        kept.clear();
        if ended {
            break;
        }
    }
    drop(live);
    let _ = to.shutdown().await;
}
