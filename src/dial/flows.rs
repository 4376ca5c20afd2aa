//! Flows of datagrams that came to one socket: each has a destination, and a sender who gets what
//! comes back. Their number is bounded, and those that carry nothing end.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::flow::{Activity, DialUdp, Room, Taken};
use crate::addr::Target;
use crate::task::Tasks;

/// Flows of one socket at a time; for another one the quietest has to go. What asks many servers
/// at once, such as a DNS resolver, has some tens.
pub const MAX_FLOWS: usize = 256;
/// How long a flow may carry nothing. DNS and QUIC are done or sent again long before, and who
/// comes later gets a new one.
pub const FLOW_IDLE: Duration = Duration::from_secs(60);
/// Datagrams of one flow that wait, for its dial above all; the next ones are lost.
const WAITING: usize = 64;
/// Bytes of all datagrams of one socket that wait.
const WAITING_BYTES: usize = 1 << 20;
/// How long a flow that cannot be opened takes its place: an app that repeats its datagrams must
/// not dial for each.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the buffer for answers that a flow keeps: a frame of Ethernet and the SOCKS header.
const KEPT: usize = 2 << 10;

/// Counts the datagrams of flows.
pub trait Count: Send + Sync + 'static {
    /// One of so many bytes went to its destination.
    fn sent(&self, bytes: usize);

    /// One of so many bytes came back.
    fn received(&self, bytes: usize);

    /// One was lost here.
    fn dropped(&self);
}

/// The flows of one socket, told apart by `K`.
pub struct Flows<K, D> {
    /// Where they come.
    pub socket: Arc<UdpSocket>,
    flows: HashMap<K, FlowEntry>,
    waiting: Room,
    /// Whether the user was told of a flow that cannot be opened.
    warned: Arc<AtomicBool>,
    dial: D,
    stats: Arc<dyn Count>,
    tasks: Tasks,
}

/// Between whom a flow is.
pub struct Ends {
    /// Where it goes.
    pub target: Target,
    /// Who gets the answers.
    pub client: SocketAddr,
    /// What stands before each answer.
    pub header: Box<[u8]>,
    /// The socket that answers are sent from, where it is not the one that datagrams come to.
    pub from: Option<Answering>,
}

/// Makes a socket for answers.
pub type Answering = BoxFuture<'static, io::Result<Arc<UdpSocket>>>;

struct FlowEntry {
    payloads: mpsc::Sender<(Bytes, Taken)>,
    activity: Arc<Activity>,
}

impl<K: Clone + Eq + Hash, D: DialUdp> Flows<K, D> {
    /// None yet; they will dial by `dial`, and live in `tasks`.
    pub fn new(socket: UdpSocket, dial: D, stats: Arc<dyn Count>, tasks: Tasks) -> Self {
        Self {
            socket: Arc::new(socket),
            flows: HashMap::new(),
            waiting: Room::new(WAITING_BYTES),
            warned: Arc::default(),
            dial,
            stats,
            tasks,
        }
    }

    /// Ends all of them.
    pub fn kill(&self) {
        self.tasks.kill();
    }

    /// Passes a datagram on in the flow `key`, for which `open` says between whom it is where it
    /// is new; or says why not.
    pub fn pass<Q: Eq + Hash + ?Sized>(
        &mut self,
        key: &Q,
        payload: &[u8],
        open: impl FnOnce() -> Result<(K, Ends), &'static str>,
    ) -> Result<(), &'static str>
    where
        K: Borrow<Q>,
    {
        let taken = self.waiting.take(payload.len()).ok_or("too much waits")?;
        let mut message = (Bytes::copy_from_slice(payload), taken);
        if let Some(flow) = self.flows.get(key) {
            match flow.payloads.try_send(message) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => return Err("too many wait"),
                // It was quiet for too long.
                Err(mpsc::error::TrySendError::Closed(returned)) => message = returned,
            }
        }
        let (key, ends) = open()?;
        let flow = self.open(ends);
        // A new queue takes the first.
        let _ = flow.payloads.try_send(message);
        self.flows.insert(key, flow);
        Ok(())
    }

    fn open(&mut self, ends: Ends) -> FlowEntry {
        if self.flows.len() >= MAX_FLOWS {
            self.flows.retain(|_, flow| !flow.payloads.is_closed());
        }
        if self.flows.len() >= MAX_FLOWS {
            let quietest = self.flows.iter().max_by_key(|(_, f)| f.activity.quiet());
            if let Some(quietest) = quietest.map(|(key, _)| key.clone()) {
                self.flows.remove(&quietest);
            }
        }
        let (payloads_tx, payloads_rx) = mpsc::channel(WAITING);
        let activity = Arc::new(Activity::new());
        let carrying = Carrying {
            ends,
            socket: self.socket.clone(),
            activity: activity.clone(),
            stats: self.stats.clone(),
            warned: self.warned.clone(),
        };
        let dial = self.dial.clone();
        self.tasks
            .spawn(async move { carrying.run(dial, payloads_rx).await });
        FlowEntry {
            payloads: payloads_tx,
            activity,
        }
    }
}

/// One flow.
struct Carrying {
    ends: Ends,
    socket: Arc<UdpSocket>,
    activity: Arc<Activity>,
    stats: Arc<dyn Count>,
    warned: Arc<AtomicBool>,
}

impl Carrying {
    async fn run<D: DialUdp>(mut self, dial: D, mut payloads: mpsc::Receiver<(Bytes, Taken)>) {
        if let Some(from) = self.ends.from.take() {
            match from.await {
                Ok(socket) => self.socket = socket,
                Err(error) => return debug!(%error, "no socket for answers"),
            }
        }
        let Ends {
            target,
            client,
            header,
            ..
        } = &self.ends;
        let flow = match dial.dial_udp(target).await {
            Ok(flow) => flow,
            Err(error) => {
                // There is no way to tell the app; the user is told once.
                match self.warned.swap(true, Ordering::Relaxed) {
                    false => warn!("datagrams to {target}: {error}"),
                    true => debug!(%target, %error, "dial failed"),
                }
                return tokio::time::sleep(FAILED_PAUSE).await;
            }
        };
        let (mut sender, mut receiver) = flow.split();
        let forth = async {
            while let Some((payload, _taken)) = payloads.recv().await {
                self.activity.touch();
                if let Err(error) = sender.send(&payload).await {
                    return debug!(%target, %error, "a flow broke");
                }
                self.stats.sent(payload.len());
            }
        };
        let back = async {
            let mut answer = BytesMut::from(&header[..]);
            while let Ok(true) = receiver.receive(&mut answer).await {
                self.activity.touch();
                match self.socket.send_to(&answer, client).await {
                    Ok(_) => self.stats.received(answer.len() - header.len()),
                    Err(error) => debug!(%client, %error, "an answer is lost"),
                }
                match answer.capacity() > KEPT {
                    true => answer = BytesMut::from(&header[..]),
                    false => answer.truncate(header.len()),
                }
            }
        };
        tokio::select! {
            () = forth => {}
            () = back => {}
            () = self.activity.idle(FLOW_IDLE) => {}
        }
        sender.finish().await;
    }
}
