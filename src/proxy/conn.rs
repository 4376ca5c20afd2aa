//! One connection of an app: who it is, which protocol it speaks, and the end of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{Span, debug, field};

use super::access::Trust;
use super::stats::{Counted, CountedDial};
use super::udp::Ends;
use super::{Config, HANDSHAKE_TIMEOUT, http, inside, socks4, socks5};
use crate::addr::Target;
use crate::dial::{Dial, DialError, DialUdp, Mark};
use crate::http::Forwarder;
use crate::io::{Io, Prefixed, splice};
use crate::task::Tasks;

/// Bytes of a handshake that are read at once. Holds any SOCKS message, and the head of most
/// CONNECT requests; it is freed when the handshake is over.
pub(super) const HANDSHAKE_BUFFER: usize = 1 << 10;

/// How long a program without a password may be one of a container that was started this moment,
/// and of which the engine has not told yet.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(1);

/// How long, and how much, an app that was turned away may go on sending. Closing at once would
/// reset the connection, and the app could lose the answer that says why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 256 << 10;

/// What the connections of one listener share.
pub(super) struct Session<D> {
    pub(super) dial: CountedDial<D>,
    pub(super) forwarder: Forwarder<CountedDial<D>>,
    pub(super) config: Config,
    pub(super) tasks: Tasks,
}

/// An app's stream while its handshake is read.
pub(super) type Handshake<T> = BufReader<Counted<T>>;

/// An app's stream after that.
pub(super) type App<T> = Prefixed<Counted<T>>;

/// What was dialled for an app.
pub(super) struct Dialled<I> {
    io: I,
    /// Where it leads, if requests there are to be marked.
    marked: Option<Box<(Target, Mark)>>,
}

impl<D: Dial> Session<D> {
    pub(super) fn new(dial: D, config: Config, tasks: Tasks) -> Self {
        let dial = CountedDial::new(dial, config.stats.clone());
        let forwarder = Forwarder::new(dial.clone(), tasks.clone());
        Self {
            dial,
            forwarder,
            config,
            tasks,
        }
    }
}

impl<D: Dial + DialUdp> Session<D> {
    /// Serves an accepted connection to its end.
    pub(super) async fn accepted(&self, stream: TcpStream, peer: SocketAddr) {
        // Fails only on a socket that is gone already; the first read says so.
        let _ = stream.set_nodelay(true);
        match self.config.access.trust(peer, stream.local_addr().ok()) {
            Trust::None => {
                self.config.stats.refuse();
                debug!("refused the peer");
            }
            trust => {
                let local = stream.local_addr().ok().map(|address| address.ip());
                let ends = local.map(|local| Ends {
                    peer: peer.ip(),
                    local,
                });
                self.serve(stream, trust, ends).await;
            }
        }
    }

    /// Serves an app of which its trust is known, and the ends of its connection where it has any.
    pub(super) async fn serve<T: Io>(&self, stream: T, mut trust: Trust, ends: Option<Ends>) {
        let _live = self.config.stats.connection();
        let stream = Counted::new(stream, self.config.stats.clone());
        let mut stream = BufReader::with_capacity(HANDSHAKE_BUFFER, stream);
        let (first, offered) = match timeout(HANDSHAKE_TIMEOUT, stream.fill_buf()).await {
            Ok(Ok(bytes)) => (bytes.first().copied(), offers_password(bytes)),
            Ok(Err(error)) => return debug!(%error, "the app broke the connection"),
            Err(_) => return debug!("the app sent nothing"),
        };
        if trust == Trust::NeedsPassword && !offered {
            let access = &self.config.access;
            let known = match ends {
                Some(ends) => access.admits_soon(ends.peer, NEWCOMER_PATIENCE).await,
                None => false,
            };
            if known {
                trust = Trust::Full;
            }
        }
        match first {
            Some(socks5::VERSION) => socks5::serve(self, stream, trust, ends).await,
            Some(socks4::VERSION) => socks4::serve(self, stream, trust).await,
            // A method, or the empty lines that a server should skip (RFC 9112, 2.2).
            Some(b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n') => {
                // Boxed, because it is by far the largest and would make each connection so.
                Box::pin(http::serve(self, unbuffer(stream), trust)).await;
            }
            Some(byte) => {
                debug!(
                    byte,
                    "neither SOCKS nor HTTP (0x16 is TLS: the proxy's own address is http://, not https://)"
                );
                linger(stream).await;
            }
            None => debug!("the app closed the connection"),
        }
    }
}

impl<D: Dial> Session<D> {
    /// Dials for an app that waits for the answer on `stream`. `None` when it has left meanwhile,
    /// which abandons the dial; hyper does the same for CONNECT.
    pub(super) async fn dial_for<T: Io>(
        &self,
        stream: &mut Handshake<T>,
        target: &Target,
    ) -> Option<Result<Dialled<D::Io>, DialError>> {
        tokio::select! {
            biased;
            result = self.dial(target) => Some(result),
            () = gone(stream) => {
                debug!("the app left before its dial was through");
                None
            }
        }
    }

    /// Joins an app with what was dialled for it, until both have ended.
    pub(super) async fn join<A: Io>(&self, app: A, Dialled { io, marked }: Dialled<D::Io>) {
        match marked {
            None => self.splice(app, io).await,
            // Boxed, because few streams are so and it would make each larger.
            Some(marked) => Box::pin(inside::serve(self, app, io, *marked)).await,
        }
    }

    /// Joins two streams until both have ended.
    pub(super) async fn splice<A: Io, B: Io>(&self, app: A, upstream: B) {
        let (moved, result) = splice(app, upstream).await;
        match result {
            Ok(()) => debug!(sent = moved.forth, received = moved.back, "ended"),
            Err(error) => {
                if DialError::from_io(&error).is_some() {
                    self.dial.failed_late();
                }
                debug!(sent = moved.forth, received = moved.back, %error, "broke");
            }
        }
    }

    /// Dials for the connection whose span this is.
    pub(super) async fn dial(&self, target: &Target) -> Result<Dialled<D::Io>, DialError> {
        Span::current().record("target", field::display(target));
        let mark = self.dial.mark(target);
        // Boxed, as what a dial needs is large and a connection that stands keeps none of it.
        let result = Box::pin(self.dial.dial(target)).await;
        if let Err(error) = &result {
            debug!(%error, "dial failed");
        }
        let io = result?;
        // What came or went meanwhile may not be so where this stream leads.
        let mark = mark.filter(|mark| self.dial.mark(target).as_ref() == Some(mark));
        let marked = mark.map(|mark| Box::new((target.clone(), mark)));
        Ok(Dialled { io, marked })
    }
}

/// Whether the beginning of a handshake promises a password: the method of SOCKS5, the header of
/// HTTP, as far as it arrived at once.
fn offers_password(bytes: &[u8]) -> bool {
    match bytes {
        [socks5::VERSION, count, methods @ ..] => methods
            .iter()
            .take(usize::from(*count))
            .any(|method| *method == 2),
        [socks4::VERSION, ..] => false,
        text => {
            let header = b"proxy-authorization:";
            text.windows(header.len())
                .any(|window| window.eq_ignore_ascii_case(header))
        }
    }
}

/// Completes when the app is gone: nothing is left of it but an end. One that sends before it
/// was answered is there.
async fn gone<T: Io>(stream: &mut Handshake<T>) {
    if stream.buffer().is_empty() && stream.fill_buf().await.map_or(true, <[u8]>::is_empty) {
        return;
    }
    std::future::pending().await
}

/// The stream, with what the handshake read too far in front.
pub(super) fn unbuffer<T: Io>(stream: Handshake<T>) -> App<T> {
    let rest = Bytes::copy_from_slice(stream.buffer());
    Prefixed::new(rest, stream.into_inner())
}

/// Ends a connection so that what was written last arrives although the app may still be sending.
pub(super) async fn linger<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: T) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(
            &mut (&mut stream).take(LINGER_BYTES),
            &mut tokio::io::sink(),
        )
        .await?;
        io::Result::Ok(())
    };
    // Whether the app saw it through or not, the connection is over.
    let _ = timeout(LINGER, drained).await;
}
