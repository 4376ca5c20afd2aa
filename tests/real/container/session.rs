//! A session as `kdev run` has one, with a dial in the place of the cluster.

use std::ffi::OsString;
use std::process::Output;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use kdev::addr::Target;
use kdev::dial::{Dial, DialError, DialUdp};
use kdev::proxy::{Access, AllowedPeers, Config, Password, serve};
use kdev::run::child::Child;
use kdev::run::container::{ContainerError, Detected, Plan, Started, detect};
use kdev::run::environment::{AllProxy, Credentials, ProxyAddress, Settings};
use kdev::task::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(super) const IMAGE: &str = "kdev-lab/tools:1";
/// Containers of other scenarios have theirs on their command lines.
pub(super) static SECRET: LazyLock<String> =
    LazyLock::new(|| format!("s3cr3t-of-{}", std::process::id()));
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
/// Reaches the proxy by its variables, then by SOCKS without the password, then by HTTP without.
pub(super) const ALL_WAYS: &str = "set -e; curl -sSf http://http.shop/; curl -sSf -x $KDEV_SOCKS_PROXY http://socks.shop/; \
    sleep 1; curl -sSf --noproxy '' -x http://$KDEV_HTTP http://http.bare/; \
    curl -sSf --noproxy '' --socks5-hostname $KDEV_SOCKS http://socks.bare/";

/// Leads every destination to one HTTP server, and remembers it.
#[derive(Clone)]
struct Anywhere {
    server: Arc<TcpListener>,
    dialled: Arc<Mutex<Vec<String>>>,
}

impl Dial for Anywhere {
    type Io = TcpStream;

    async fn dial(&self, target: &Target) -> Result<TcpStream, DialError> {
        self.dialled.lock().unwrap().push(target.host.to_string());
        let address = self.server.local_addr().unwrap();
        Ok(TcpStream::connect(address).await.unwrap())
    }
}

impl DialUdp for Anywhere {}

impl Anywhere {
    async fn start(tasks: &Tasks) -> Self {
        let this = Self {
            server: Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap()),
            dialled: Arc::default(),
        };
        let (server, connections) = (this.server.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Ok((mut io, _)) = server.accept().await {
                connections.spawn(async move {
                    let _ = io.read(&mut [0; 4096]).await;
                    let _ = io.write_all(ANSWER).await;
                });
            }
        });
        this
    }
}

/// A session as `kdev run` has one.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) plan: Plan,
    pub(super) proxy: ProxyAddress,
    dial: Anywhere,
    tasks: Tasks,
}

pub(super) async fn session(argv: &[&str]) -> Result<Session, ContainerError> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let id = format!("test-{}-{number}", std::process::id());
    let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
    let Detected::Container(run) = detect(&argv)? else {
        panic!("{argv:?} is no container");
    };
    let plan = run.plan().await?;
    let listener = plan.listen.bind(0)?;
    let proxy = plan.proxy(
        listener.local_addr().unwrap().port(),
        Credentials {
            user: "kdev".to_owned(),
            password: SECRET.clone(),
        },
    );
    let tasks = Tasks::new();
    let dial = Anywhere::start(&tasks).await;
    let allowed = AllowedPeers::new();
    let access = Access::Peers {
        allowed: allowed.clone(),
        password: Password::new(SECRET.as_str()),
    };
    tasks.spawn(serve(
        listener,
        dial.clone(),
        Config::new(access),
        tasks.clone(),
    ));
    plan.watch(&id, allowed, &tasks);
    Ok(Session {
        id,
        plan,
        proxy,
        dial,
        tasks,
    })
}

impl Session {
    pub(super) async fn start(&self) -> (u8, Started) {
        let settings = Settings {
            proxy: self.proxy.clone(),
            direct: Vec::new(),
            domain: "cluster.local".to_owned(),
            context: None,
            namespace: Some("shop".to_owned()),
            all_proxy: AllProxy::default(),
        };
        let variables = self.plan.variables(&settings).set;
        let (command, started) = self.plan.command(&self.id, &variables).unwrap();
        let code = Child::spawn(command).unwrap().wait().await.unwrap();
        (code, started)
    }

    pub(super) fn dialled(&self) -> Vec<String> {
        self.dial.dialled.lock().unwrap().clone()
    }

    pub(super) async fn end(self) {
        self.tasks.shutdown(Duration::ZERO).await;
    }
}

/// Runs a script in a container to its end, and gives its exit code and what was dialled for it.
pub(super) async fn run(flags: &[&str], script: &str) -> (u8, Vec<String>) {
    let argv = [
        &["docker", "run", "--rm"],
        flags,
        &[IMAGE, "sh", "-c", script],
    ]
    .concat();
    let session = session(&argv).await.unwrap();
    let (code, _) = session.start().await;
    let dialled = session.dialled();
    session.end().await;
    (code, dialled)
}

pub(super) async fn docker(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new("docker");
    command.args(args).output().await.unwrap()
}

/// A network that is gone when the test is.
pub(super) struct Network(pub(super) &'static str);

impl Network {
    pub(super) async fn create(name: &'static str, flags: &[&str]) -> Self {
        docker(&["network", "rm", name]).await;
        let out = docker(&[&["network", "create"], flags, &[name]].concat()).await;
        assert!(out.status.success(), "{out:?}");
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let rm = ["network", "rm", self.0];
        let _ = std::process::Command::new("docker").args(rm).output();
    }
}
