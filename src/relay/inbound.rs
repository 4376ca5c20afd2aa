//! Callers of intercepted Services: what arrives on port L goes to the sessions that have claims
//! on it, request by request where it is HTTP, or else to the original pods.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::claims::Claims;
use super::fallback::Fallback;
use super::kept::Kept;
use super::laptop::Laptop;
use super::memory::Memory;
use super::metered::{Cost, Metered};
use super::metrics::Metrics;
use super::mirror::Mirrors;
use super::origin::Origin;
use super::ports::{Entry, Port};
use super::seat::{Caller, Seat};
use super::sniff::{Begun, listen};
use super::sockets::{CALLER as KERNEL, CallerSockets};
use super::strangers::Strangers;
use super::web::Web;
use crate::addr::Target;
use crate::dial::{Dial as _, DialError};
use crate::http::{ERROR_HEADER, Forwarder, Spoken, Turnover};
use crate::io::{self as streams, BoxIo, Io, Prefixed, splice};
use crate::rule::AppProtocol;
use crate::rule::control::Tell;
use crate::task::Tasks;
use crate::tunnel::{Speaks, Stream, join};

/// What a caller's connection is charged with for itself: what the relay and the kernel keep of one
/// that is idle, rounded up. `benches/README.md` has the figures.
const CALLER: usize = 10 << 10;
/// The same of one that is served as a whole, or whose request is: what runs for it, and hyper's two
/// buffers of 8 KiB.
pub(super) const SERVED: usize = 24 << 10;
/// What the way to a caller that does not read holds besides its socket: a piece that waits to be
/// written, one that was read meanwhile, and the buffer for the next.
const PIECES: usize = 3 * (8 << 10);
/// Bytes of a caller that are read at a time. Heads and most bodies are shorter.
const READ: usize = 64 << 10;
/// Callers at a time who are told that there is no room for them, and how long each has for its
/// request. One more cuts off the oldest.
const MOST_TOLD: usize = 64;
const TELLING: Duration = Duration::from_millis(500);
/// How long after its start a relay looks into what arrives on any port: the sessions that had claims
/// at its predecessor are about to renew them, and callers' connections last longer than that takes.
const YOUNG: Duration = Duration::from_secs(60);
/// How long after its start a relay says of answers that claims were not asked for, because it
/// knows of none: sessions that had some at its predecessor renew them within a second or two.
const UNTOLD: Duration = Duration::from_secs(5);
/// How requests are spread over the original pods. A pod that is new has its share when the
/// connections from before are gone, so within 4 s.
const TURNOVER: Turnover = Turnover {
    requests: 10,
    connections: 20,
    age: Duration::from_secs(4),
    width: 4,
};

/// Serves the fixed range. Cheap to clone.
#[derive(Clone)]
pub(super) struct Inbound {
    pub(super) origin: Origin,
    /// Requests to the original pods.
    pub(super) pods: Forwarder<Origin>,
    pub(super) claims: Claims,
    pub(super) mirrors: Mirrors,
    pub(super) memory: Memory,
    pub(super) metrics: Metrics,
    pub(super) tasks: Tasks,
    sockets: CallerSockets,
    /// Those who are told that there is no room.
    told: Strangers,
    began: Instant,
}

impl Inbound {
    /// Nothing is listened on before [`Inbound::listen`]. Connections are tasks of `tasks`.
    #[must_use]
    pub(super) fn new(
        origin: Origin,
        claims: Claims,
        memory: Memory,
        metrics: Metrics,
        tasks: Tasks,
    ) -> Self {
        Self {
            pods: Forwarder::spreading(origin.clone(), tasks.clone(), TURNOVER),
            origin,
            claims,
            mirrors: Mirrors::new(tasks.clone()),
            memory,
            metrics,
            tasks,
            sockets: CallerSockets::new(),
            told: Strangers::new(MOST_TOLD),
            began: Instant::now(),
        }
    }

    /// Listens on the ports of `range`, with what was kept of them, as tasks of `listening`.
    ///
    /// # Errors
    /// When a port is taken.
    pub(super) fn listen(
        &self,
        ip: IpAddr,
        range: Range<u16>,
        kept: &mut Kept,
        listening: &Tasks,
    ) -> io::Result<()> {
        let mut listeners = Vec::with_capacity(range.len());
        for number in range {
            let bound = kept.take(SocketAddr::new(ip, number))?;
            listeners.extend(self.claims.port(number).cloned().map(|port| (port, bound)));
        }
        for (port, listener) in listeners {
            listening.spawn(self.clone().accept(listener, port));
        }
        Ok(())
    }

    async fn accept(self, listener: TcpListener, port: Arc<Port>) {
        loop {
            let (socket, peer) = streams::accept(&listener).await;
            let open = port.accept();
            // Fails only on a socket that is gone already.
            let _ = socket.set_nodelay(true);
            let (this, port) = (self.clone(), port.clone());
            let Some(seat) = self.memory.seat(peer.ip(), CALLER) else {
                self.metrics.crowded();
                // Of raw TCP nobody can be told.
                if self.looks_into(&port) && port.routes().protocol != AppProtocol::Tcp {
                    let cut = self.told.enter();
                    self.tasks.spawn(async move {
                        tokio::select! {
                            () = cut => {}
                            _ = timeout(TELLING, refuse(socket)) => {}
                        }
                        drop(open);
                    });
                }
                continue;
            };
            self.tasks.spawn(async move {
                let _live = this.metrics.caller();
                let (place, send) = this.sockets.place(&socket);
                let cost = Cost {
                    unread: 2 * KERNEL as usize,
                    unsent: send + PIECES,
                    read: READ,
                };
                let caller = Metered::new(socket, seat.clone(), cost);
                tokio::select! {
                    biased;
                    () = seat.cut() => debug!(%peer, "a caller is closed for others"),
                    () = this.serve(caller, peer, port) => {}
                }
                drop((place, open));
            });
        }
    }

    /// Whether claims on a port may not be known yet, after a start.
    pub(super) fn may_be_claimed(&self, port: &Port) -> bool {
        !port.is_claimed() && self.began.elapsed() < UNTOLD
    }

    /// Whether what arrives on a port is looked into. One that nobody claims, of a Service with
    /// several, is none of the relay's business.
    fn looks_into(&self, port: &Port) -> bool {
        port.is_claimed() || port.is_retired() || self.began.elapsed() < YOUNG
    }

    async fn serve(&self, caller: Caller, peer: SocketAddr, port: Arc<Port>) {
        let routes = port.routes();
        if !self.looks_into(&port) {
            drop(routes);
            let caller = Prefixed::new(bytes::Bytes::new(), caller);
            return Box::pin(self.whole(caller, None, None, None, peer, &port)).await;
        }
        let global = routes.rules.everything().cloned();
        let protocol = routes.protocol;
        drop(routes);
        let mut fallback = None;
        let begun = match protocol {
            AppProtocol::Tcp => {
                let caller = Prefixed::new(bytes::Bytes::new(), caller);
                return Box::pin(self.whole(caller, None, global, None, peer, &port)).await;
            }
            AppProtocol::Auto => {
                let meeting = self.meet(caller, peer, &port, global.as_deref());
                let begun;
                (begun, fallback) = Box::pin(meeting).await;
                port.caller_first(begun.caller_first);
                begun
            }
            AppProtocol::Http | AppProtocol::H1 | AppProtocol::H2c | AppProtocol::Grpc => {
                let nobody = None::<std::future::Pending<Result<BoxIo, DialError>>>;
                Box::pin(listen(caller, nobody, false)).await
            }
        };
        let second = match begun.spoken {
            Spoken::Other => {
                let Begun { caller, other, .. } = begun;
                let whole = self.whole(caller, other, global, fallback, peer, &port);
                return Box::pin(whole).await;
            }
            Spoken::First => false,
            Spoken::Second => true,
        };
        let led_to = global.filter(|_| fallback.is_none());
        let spare = begun.other.map(|other| (led_to, other));
        let seat = begun.caller.inner().purse().clone();
        let web = Web::new(self.clone(), port, peer, second, spare, seat);
        Box::pin(web.serve(begun.caller)).await;
    }

    /// Waits for whoever speaks first: the caller, or where it goes by default. With the reason where
    /// that is the original pods instead of a claim's app.
    async fn meet(
        &self,
        caller: Caller,
        peer: SocketAddr,
        port: &Port,
        global: Option<&Entry>,
    ) -> (Begun<BoxIo>, Option<Fallback>) {
        let target = self.origin.target(port.number);
        let fallback = OnceLock::new();
        let dial = async {
            if let Some(entry) = global {
                // Once a caller is joined with the app there is no way back to the pods.
                let certain = entry.claim.fallback;
                match self.open(entry, &target, peer, certain).await {
                    Ok(stream) => return Ok(Box::new(stream) as BoxIo),
                    Err((error, None)) => return Err(error),
                    Err((_, Some(why))) => drop(fallback.set(why)),
                }
            }
            Ok(Box::new(self.origin.dial(&target).await?) as BoxIo)
        };
        let begun = listen(caller, Some(dial), port.is_caller_first()).await;
        (begun, fallback.into_inner())
    }

    /// Opens a stream to the app of a claim for the connection of `peer`; with `certain`, waits
    /// until the app has taken it.
    ///
    /// # Errors
    /// With why the original pods take the connection instead, where they may.
    async fn open(
        &self,
        entry: &Entry,
        target: &Target,
        peer: SocketAddr,
        certain: bool,
    ) -> Result<Stream, (DialError, Option<Fallback>)> {
        let losses = entry.session.losses();
        let opening = async {
            let laptop = Laptop::of(entry, Speaks::Any);
            let mut stream = laptop.open(target, Some(peer)).await?;
            if certain {
                stream.opened().await?;
            }
            Ok(stream)
        };
        match opening.await {
            Ok(stream) => Ok(stream),
            Err(error) => {
                let lost = entry.session.is_lost(losses).await;
                Err((error, entry.fallback(lost)))
            }
        }
    }

    /// Carries a whole connection: to the claim that gets all, or else to the original pods.
    /// `other` is where it goes, if that is known to be there: to the pods where there is a
    /// `fallback`.
    async fn whole(
        &self,
        caller: Prefixed<Caller>,
        other: Option<Prefixed<BoxIo>>,
        global: Option<Arc<Entry>>,
        fallback: Option<Fallback>,
        peer: SocketAddr,
        port: &Port,
    ) {
        let seat: &Arc<Seat> = caller.inner().purse();
        let Some(_served) = seat.request(global.is_some(), SERVED) else {
            // Nobody can be told 503 here.
            debug!(%peer, "there is no memory left to serve a caller");
            return self.metrics.crowded();
        };
        let Some(entry) = global else {
            if self.may_be_claimed(port) {
                port.passed_unclaimed();
            }
            return self.to_pods(caller, other, port).await;
        };
        entry.hit();
        if let Some(why) = fallback {
            entry.fell_back(why, &self.tasks);
            return self.to_pods(caller, other, port).await;
        }
        let began = Instant::now();
        self.to_laptop(caller, other, &entry, peer, port).await;
        if entry.log {
            entry.session.tell(&Tell::Served {
                id: entry.claim.id.clone(),
                method: String::new(),
                path: String::new(),
                status: 0,
                took: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
                why: None,
            });
        }
    }

    async fn to_laptop(
        &self,
        mut caller: Prefixed<Caller>,
        other: Option<Prefixed<BoxIo>>,
        entry: &Arc<Entry>,
        peer: SocketAddr,
        port: &Port,
    ) {
        if let Some(other) = other {
            return self.joined(caller, other, true).await;
        }
        let target = self.origin.target(port.number);
        // What the caller has said is still here, for the pods if need be.
        match self.open(entry, &target, peer, true).await {
            Ok(stream) => {
                self.metrics.inbound(true);
                let (moved, _) = join(stream, caller).await;
                self.metrics.carried(moved);
            }
            Err((_, Some(why))) => {
                entry.fell_back(why, &self.tasks);
                self.to_pods(caller, None, port).await;
            }
            // Nobody can be told 502 or 503 here.
            Err((error, None)) => {
                debug!(%error, port = port.number, "a connection has nobody to go to");
                self.metrics.inbound(true);
                self.metrics.failed();
                caller.reset();
            }
        }
    }

    async fn to_pods<C: Io>(&self, mut caller: C, pod: Option<Prefixed<BoxIo>>, port: &Port) {
        if let Some(pod) = pod {
            return self.joined(caller, pod, false).await;
        }
        match self.origin.dial(&self.origin.target(port.number)).await {
            Ok(pod) => self.joined(caller, pod, false).await,
            Err(error) => {
                self.metrics.inbound(false);
                self.metrics.failed();
                debug!(%error, port = port.number, "the original pods cannot be reached");
                caller.reset();
            }
        }
    }

    /// Joins a caller with whoever answers.
    pub(super) async fn joined<A: Io, B: Io>(&self, caller: A, other: B, to_kdev: bool) {
        self.metrics.inbound(to_kdev);
        let (moved, _) = splice(caller, other).await;
        self.metrics.carried(moved);
    }
}

/// Answers a caller's request for whom there is no room.
async fn refuse(mut caller: TcpStream) -> io::Result<()> {
    // An end while a request is still unread would be a reset, which takes the answer along.
    let _ = caller.read(&mut [0; 1024]).await?;
    let text = "kdev: the relay has no memory left for another caller; try again later\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nRetry-After: 1\r\n{ERROR_HEADER}: full\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    caller.write_all(answer.as_bytes()).await?;
    caller.shutdown().await?;
    caller.read(&mut [0; 1024]).await.map(drop)
}
