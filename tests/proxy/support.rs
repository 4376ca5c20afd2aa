//! What the tests share: a proxy on a port of its own, names to dial, servers behind them.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use kdev::addr::Target;
use kdev::dial::{Dial, DialError, DialUdp, Flow, Laptop};
use kdev::io::{BoxIo, Io};
use kdev::proxy::{self, Access, Config, Stats};
use kdev::task::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// What dialling a name comes to.
#[derive(Clone)]
pub(crate) enum Answer {
    To(SocketAddr),
    Fail(DialError),
    /// The dial goes well, the first read does not.
    Late(DialError),
    Never,
}

/// A dial that knows the names of the test. Every dial takes the next of a name's answers; the
/// last one stays.
#[derive(Clone, Default)]
pub(crate) struct Names {
    answers: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
    pub(crate) dials: Arc<AtomicUsize>,
}

impl Names {
    pub(crate) fn set(&self, name: &str, answers: impl Into<Vec<Answer>>) {
        let mut map = self.answers.lock().unwrap();
        map.insert(name.to_owned(), answers.into());
    }
}

impl Names {
    /// What dialling `name` comes to now.
    pub(crate) fn get(&self, name: &str) -> Answer {
        self.answers.lock().unwrap()[name][0].clone()
    }
}

impl Names {
    /// What dialling `target` comes to this time.
    fn take(&self, target: &Target) -> Option<Answer> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        let mut map = self.answers.lock().unwrap();
        match map.get_mut(&target.to_string()) {
            Some(answers) if answers.len() > 1 => Some(answers.remove(0)),
            Some(answers) => answers.first().cloned(),
            None => None,
        }
    }
}

impl DialUdp for Names {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        match self.take(target) {
            Some(Answer::To(addr)) => {
                let laptop = Laptop { loopback: true };
                laptop.dial_udp(&addr.to_string().parse().unwrap()).await
            }
            Some(Answer::Fail(error) | Answer::Late(error)) => Err(error),
            Some(Answer::Never) => std::future::pending().await,
            None => Err(DialError::NotFound {
                what: format!("host {}", target.host),
                fix: "look at the test".to_owned(),
            }),
        }
    }
}

impl Dial for Names {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        match self.take(target) {
            Some(Answer::To(addr)) => Ok(Box::new(TcpStream::connect(addr).await.unwrap())),
            Some(Answer::Fail(error)) => Err(error),
            Some(Answer::Late(error)) => Ok(Box::new(Late(Some(error)))),
            Some(Answer::Never) => std::future::pending().await,
            None => Err(DialError::NotFound {
                what: format!("host {}", target.host),
                fix: "look at the test".to_owned(),
            }),
        }
    }
}

/// A stream that is refused late, as a port-forward stream is.
struct Late(Option<DialError>);

impl AsyncRead for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.take().map_or(Ok(()), |e| Err(e.into_io())))
    }
}

impl AsyncWrite for Late {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(b.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Late {}

/// A running proxy and everything around it.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) names: Names,
    pub(crate) tasks: Tasks,
    pub(crate) stats: Arc<Stats>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::with(Config::new(Access::SameUser { password: None })).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let names = Names::default();
        Self::dialling(names.clone(), config).await.knowing(names)
    }

    fn knowing(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// One that dials in another way; its names are nobody's.
    pub(crate) async fn dialling<D: Dial + DialUdp>(dial: D, config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (names, tasks) = (Names::default(), Tasks::new());
        let stats = config.stats.clone();
        let serving = proxy::serve(listener, dial, config, tasks.clone());
        tasks.spawn(serving);
        Self {
            addr,
            names,
            tasks,
            stats,
        }
    }

    /// Gives `name` to a server that handles each of its connections with `handle`.
    pub(crate) async fn server<F, Fut>(&self, name: &str, handle: F) -> Arc<AtomicUsize>
    where
        F: Fn(TcpStream, usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        self.names.set(name, [Answer::To(addr)]);
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, tasks) = (accepted.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let n = count.fetch_add(1, Ordering::SeqCst);
                tasks.spawn(handle(stream, n));
            }
        });
        accepted
    }

    /// A server that sends back what it gets, and ends when the other side does.
    pub(crate) async fn echo(&self, name: &str) {
        self.server(name, |mut stream, _| async move {
            let (mut r, mut w) = stream.split();
            let _ = tokio::io::copy(&mut r, &mut w).await;
            let _ = w.shutdown().await;
        })
        .await;
    }

    /// A server that answers every request of a connection with `response`.
    pub(crate) async fn origin(&self, name: &str, response: &'static str) -> Arc<AtomicUsize> {
        self.server(name, move |mut stream, _| async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        })
        .await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends `request` and returns all that comes until the connection ends.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        read_all(&mut stream).await
    }

    /// Waits until no app is connected.
    pub(crate) async fn quiet(&self) {
        within(async {
            while self.stats.snapshot().live > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// Bounds a wait, so that a hang is a failure with a place.
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(Duration::from_secs(10), future).await {
            Ok(output) => output,
            Err(_) => panic!("nothing happened within 10 s at {place}"),
        }
    }
}

/// Reads up to the end of a head. `None` when the stream ends before.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    read_until(stream, "\r\n\r\n").await
}

pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        match within(stream.read(&mut byte)).await {
            Ok(1) => text.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(text).unwrap())
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it too; what came before counts.
    let _ = within(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every kind of failed dial, with the SOCKS5 code and the HTTP status that it must become.
pub(crate) fn failures() -> Vec<(DialError, u8, u16)> {
    let text = |text: &str| text.to_owned();
    let (target, reason, fix) = (text("web.shop:80"), text("the reason"), text("the fix"));
    vec![
        (
            DialError::NotFound {
                what: text("Service web in namespace shop"),
                fix: fix.clone(),
            },
            4,
            502,
        ),
        (
            DialError::Refused {
                target: target.clone(),
                reason: reason.clone(),
            },
            5,
            502,
        ),
        (
            DialError::Unreachable {
                target: target.clone(),
                reason: reason.clone(),
                fix: fix.clone(),
            },
            4,
            502,
        ),
        (
            DialError::TimedOut {
                target: target.clone(),
                after: Duration::from_secs(3),
            },
            6,
            504,
        ),
        (
            DialError::Denied {
                verb: text("create"),
                resource: text("pods/portforward"),
                namespace: text("shop"),
                message: text("the message"),
            },
            2,
            403,
        ),
        (
            DialError::Forbidden {
                target,
                reason: reason.clone(),
            },
            2,
            403,
        ),
        (DialError::Cluster { reason, fix }, 3, 502),
    ]
}
