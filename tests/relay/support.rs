//! A relay, laptops with reverse tunnels to it, pods behind it, and callers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kdev::relay::{MEMORY_LIMIT, Names, Policy, Relay, Settings};
use kdev::rule::control::{Ask, Tell};
use kdev::rule::{AppProtocol, Claim, Condition, Conditions};
use kdev::tunnel::control::{Reader, write};
use kdev::tunnel::{
    Budget, Caller, Identity, Protocol, Role, Secret, SessionId, connect, join, serve,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

pub const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the relay listens; the pods are on [`LOCAL`], at the same ports.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub const KEY: [u8; 32] = [2; 32];

pub struct Stage {
    /// Where the relay takes tunnels.
    pub tunnels: SocketAddr,
    pub first: u16,
    ip: Ipv4Addr,
    folder: tempfile::TempDir,
    /// The relay's own threads, where it has some.
    threads: Option<Runtime>,
}

/// A free port with some free ones after it, most likely: each test has a range of its own.
fn range() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let process = std::process::id() as usize % 500;
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    (10_000 + (process * 8 * 12 + next * 8) % 20_000) as u16
}

fn secrets() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for role in ["forward", "intercept"] {
        std::fs::create_dir(folder.path().join(role)).unwrap();
        std::fs::write(folder.path().join(role).join("key"), KEY).unwrap();
    }
    folder
}

fn relay(folder: &Path, ip: Ipv4Addr, first: u16, tunnels: SocketAddr) -> io::Result<Relay> {
    relay_of(MEMORY_LIMIT, folder, ip, first, tunnels)
}

fn relay_of(
    memory: usize,
    folder: &Path,
    ip: Ipv4Addr,
    first: u16,
    tunnels: SocketAddr,
) -> io::Result<Relay> {
    let hosts = format!("127.0.0.1 kdev-{first}\n");
    let settings = Settings {
        tunnel: tunnels,
        pod_tunnel: None,
        http: None,
        inbound: (ip.into(), first, 8),
        secrets: folder.to_owned(),
        policy: Policy {
            allow: vec!["127.0.0.1".parse().unwrap()],
            deny: Vec::new(),
        },
        memory,
    };
    Relay::start(&settings, Names::of("nameserver 127.0.0.9\n", &hosts))
}

impl Stage {
    pub async fn set_up() -> Self {
        Self::with_memory(MEMORY_LIMIT).await
    }

    /// A relay whose container may use so many bytes.
    pub async fn with_memory(bytes: usize) -> Self {
        let folder = secrets();
        loop {
            let first = range();
            let tunnels = (LOCAL, 0).into();
            let Ok(relay) = relay_of(bytes, folder.path(), RELAY, first, tunnels) else {
                continue;
            };
            let tunnels = relay.address().unwrap();
            tokio::spawn(relay.run(std::future::pending()));
            return Self {
                tunnels,
                first,
                ip: RELAY,
                folder,
                threads: None,
            };
        }
    }

    /// Another replica of the same relay, at an address of its own.
    pub async fn replica(&self) -> Self {
        let (folder, ip) = (secrets(), Ipv4Addr::new(127, 0, 0, 3));
        let relay = relay(folder.path(), ip, self.first, (LOCAL, 0).into()).unwrap();
        let tunnels = relay.address().unwrap();
        tokio::spawn(relay.run(std::future::pending()));
        Self {
            tunnels,
            first: self.first,
            ip,
            folder,
            threads: None,
        }
    }

    /// A relay that can be restarted.
    pub async fn mortal() -> Self {
        loop {
            let mut stage = Self {
                tunnels: (LOCAL, 0).into(),
                first: range(),
                ip: RELAY,
                folder: secrets(),
                threads: None,
            };
            if stage.launch().is_ok() {
                return stage;
            }
        }
    }

    fn launch(&mut self) -> io::Result<()> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(1).enable_all().build()?;
        let within = threads.enter();
        let started = relay(self.folder.path(), self.ip, self.first, self.tunnels);
        drop(within);
        let started = started.and_then(|relay| {
            self.tunnels = relay.address()?;
            threads.spawn(relay.run(std::future::pending()));
            Ok(())
        });
        match started {
            Ok(()) => self.threads = Some(threads),
            Err(_) => threads.shutdown_background(),
        }
        started
    }

    /// Ends the relay, as by SIGKILL.
    pub fn kill(&mut self) {
        self.threads.take().unwrap().shutdown_background();
    }

    /// Starts it again: it knows nothing of before.
    pub async fn revive(&mut self) {
        while self.launch().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection of a caller to the first port.
    pub async fn caller(&self) -> TcpStream {
        self.call().await.unwrap()
    }

    /// The same, which may be reset as it begins.
    pub async fn call(&self) -> io::Result<TcpStream> {
        TcpStream::connect((self.ip, self.first)).await
    }

    /// What one GET is answered, on a connection of its own.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut text = format!("GET {path} HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let answer = self.raw(&(text + "\r\n")).await;
        let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    /// What is answered to these bytes until the connection ends.
    pub async fn raw(&self, bytes: &str) -> String {
        let mut caller = self.caller().await;
        caller.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = caller.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), reading).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The pods of the first port.
    pub async fn pods(&self, name: &'static str) {
        let listener = TcpListener::bind((LOCAL, self.first)).await.unwrap();
        tokio::spawn(web(listener, name));
    }

    /// The same, which hold nothing themselves: 1 KiB is answered, or 10 MB to `/much`, and nothing
    /// to `/never`.
    pub async fn plain_pods(&self) {
        let listener = TcpListener::bind((LOCAL, self.first)).await.unwrap();
        tokio::spawn(plain(listener));
    }

    pub async fn kdev(&self, owner: &str, app: SocketAddr) -> Kdev {
        self.kdev_of(&Identity::random(), owner, app).await
    }

    pub async fn kdev_of(&self, identity: &Identity, owner: &str, app: SocketAddr) -> Kdev {
        let socket = TcpStream::connect(self.tunnels).await.unwrap();
        let secret = Secret::new(KEY).unwrap();
        let (io, _) = connect(socket, Role::Reverse, identity, &secret)
            .await
            .unwrap();
        let mut listener = serve(io, Budget::new(64 << 20).share().unwrap())
            .await
            .unwrap();
        let control = listener.next().await.unwrap();
        assert_eq!(control.protocol, Protocol::Control);
        let (from, to) = tokio::io::split(control.accept().unwrap());
        let callers = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (seen, (frozen, freeze)) = (callers.clone(), oneshot::channel());
        let task = tokio::spawn(async move {
            let mut freeze = freeze;
            loop {
                let incoming = tokio::select! {
                    incoming = listener.next() => incoming,
                    // Nothing moves any more, and nothing ends.
                    _ = &mut freeze => std::future::pending().await,
                };
                let Some(incoming) = incoming else { return };
                seen.lock().unwrap().push(incoming.caller.clone());
                tokio::spawn(async move {
                    match TcpStream::connect(app).await {
                        Ok(app) => drop(join(incoming.accept().unwrap(), app).await),
                        Err(error) => incoming.refuse(&kdev::dial::DialError::Refused {
                            target: String::new(),
                            reason: format!("nothing listens on {app}: {error}"),
                        }),
                    }
                });
            }
        });
        let (told, tells) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut reader = Reader::new(from);
            while let Ok(Some(tell)) = reader.next::<Tell>().await {
                let _ = told.send(tell).await;
            }
        });
        Kdev {
            session: identity.session(),
            owner: owner.to_owned(),
            port: self.first,
            to,
            tells,
            fallbacks: Vec::new(),
            callers,
            frozen: Some(frozen),
            task,
        }
    }
}

/// Why an answer says that the original pods gave it, where it does.
pub fn fallback(answer: &str) -> Option<&str> {
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    lines.find_map(|line| line.strip_prefix("x-kdev-fallback: "))
}

impl Drop for Stage {
    fn drop(&mut self) {
        // One that is dropped within another runtime must not wait for its threads.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// A laptop with one reverse tunnel.
pub struct Kdev {
    pub session: SessionId,
    pub owner: String,
    pub port: u16,
    to: tokio::io::WriteHalf<kdev::tunnel::Stream>,
    pub tells: mpsc::Receiver<Tell>,
    /// What it was told of requests that went to the pods, while it waited for answers.
    pub fallbacks: Vec<Tell>,
    pub callers: Arc<std::sync::Mutex<Vec<Caller>>>,
    frozen: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Kdev {
    pub async fn ask(&mut self, ask: &Ask) -> Tell {
        write(&mut self.to, ask).await.unwrap();
        self.told().await
    }

    /// The next that is told, but for what comes unasked of the pods.
    async fn told(&mut self) -> Tell {
        loop {
            match self.tells.recv().await.unwrap() {
                told @ Tell::Fallback { .. } => self.fallbacks.push(told),
                told => return told,
            }
        }
    }

    /// The next that is told of requests that went to the pods.
    pub async fn fallback(&mut self) -> (String, u64, bool) {
        let told = match self.fallbacks.pop() {
            Some(told) => told,
            None => {
                let next = tokio::time::timeout(Duration::from_secs(10), self.tells.recv());
                next.await.expect("nothing is told").unwrap()
            }
        };
        match told {
            Tell::Fallback {
                reason,
                times,
                unread,
                ..
            } => (reason, times, unread),
            other => panic!("{other:?}"),
        }
    }

    pub async fn raw(&mut self, line: &serde_json::Value) -> Tell {
        write(&mut self.to, line).await.unwrap();
        self.told().await
    }

    pub fn claim(&self, id: &str, conditions: &[Condition]) -> Claim {
        Claim {
            id: id.to_owned(),
            owner: self.owner.clone(),
            session: self.session,
            conditions: Conditions::new(conditions.to_vec()).unwrap(),
            since: 1,
            mirror: false,
            fallback: false,
            strict: false,
            protocol: AppProtocol::Auto,
        }
    }

    pub async fn attach(&mut self, claim: Claim) -> Tell {
        let (port, claim) = (self.port, Box::new(claim));
        let over = None;
        let log = false;
        self.ask(&Ask::Attach {
            port,
            claim,
            over,
            log,
        })
        .await
    }

    /// Claims requests with `x-user: VALUE`.
    pub async fn mine(&mut self, value: &str) {
        let condition = Condition::header(&format!("x-user: {value}")).unwrap();
        let told = self.attach(self.claim(value, &[condition])).await;
        assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    }

    /// Stops doing anything, as by SIGSTOP.
    pub fn freeze(&mut self) {
        let _ = self.frozen.take().unwrap().send(());
    }

    /// Ends without a word, as by SIGKILL.
    pub fn kill(self) {
        self.task.abort();
    }
}

pub type AnyBody = BoxBody<Bytes, hyper::Error>;

pub fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

/// An HTTP/1 server that says who it is, and what it was asked.
pub async fn web(listener: TcpListener, name: &'static str) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(name, request));
            let _ = http1::Builder::new()
                .preserve_header_case(true)
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// As [`web`], of HTTP/2 alone.
pub async fn web2(listener: TcpListener, name: &'static str) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(name, request));
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
) -> Result<Response<AnyBody>, hyper::Error> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/echo" {
        return Ok(Response::new(body.boxed()));
    }
    if parts.uri.path() == "/early" {
        return Ok(Response::builder()
            .status(413)
            .body(full("too large"))
            .unwrap());
    }
    let mut text = format!("{name} {} {}\n", parts.method, parts.uri.path());
    for (name, value) in &parts.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
    }
    let length = body.collect().await?.to_bytes().len();
    text += &format!("body: {length}\n");
    Ok(Response::builder()
        .header("X-Server", name)
        .body(full(text))
        .unwrap())
}

/// A server of [`web`] at a free port.
pub async fn app(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(web(listener, name));
    address
}

/// A server of [`web2`] at a free port.
pub async fn app2(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(web2(listener, name));
    address
}

/// Where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// What [`plain`] answers with.
static MUCH: [u8; 10 << 20] = [7; 10 << 20];

/// A server of HTTP/1 that holds nothing.
pub async fn plain(listener: TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut head = [0; 1024];
            while let Ok(n @ 1..) = socket.read(&mut head).await {
                let body = match &head[..n] {
                    head if head.starts_with(b"GET /much ") => &MUCH[..],
                    head if head.starts_with(b"GET /never ") => std::future::pending().await,
                    _ => &MUCH[..1024],
                };
                let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let said = socket.write_all(said.as_bytes()).await;
                if said.is_err() || socket.write_all(body).await.is_err() {
                    return;
                }
            }
        });
    }
}
