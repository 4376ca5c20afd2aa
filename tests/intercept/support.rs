//! A simulated cluster with a relay, laptops with kdev, apps on them, and callers in the cluster.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kdev::app::demo::{Network, relay_pods};
use kdev_sim::{Options, Rule, SimCluster, User, shop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::done::Done;
use crate::finish::finish;
use crate::relays::ready_relays;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long after the first signal a second one counts.
pub(crate) const AGAIN: Duration = Duration::from_millis(1200);

/// A namespace with the Service `cart`, an installed relay, and people who share it.
pub(crate) struct Team {
    pub(crate) cluster: SimCluster,
    folder: tempfile::TempDir,
    network: Arc<Network>,
}

impl Team {
    pub(crate) async fn set_up() -> Self {
        Self::on(Options::default()).await
    }

    /// The same on another kind of cluster.
    pub(crate) async fn on(options: Options) -> Self {
        kdev::app::descriptors::raise();
        let cluster = SimCluster::start(options).await.unwrap();
        shop::furnish(&cluster);
        shop::add_cart(&cluster);
        let folder = tempfile::tempdir().unwrap();
        let network = Network::take().expect("Linux has all of 127.0.0.0/8");
        let network = Arc::new(network);
        let pods = folder.path().join("pods");
        relay_pods(&cluster, shop::NAMESPACE, &pods, "", Some(network.clone()));
        let kubeconfig = folder.path().join("kubeconfig");
        cluster
            .write_kubeconfig(&kubeconfig, "dev", shop::NAMESPACE)
            .unwrap();
        let team = Self {
            cluster,
            folder,
            network,
        };
        team.kdev("ada", &["install", "--image", "relay"])
            .await
            .ok();
        team
    }

    pub(crate) fn command(&self, owner: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        command
            .args(args)
            .env_clear()
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("KDEV_PROJECT", "off")
            // What is said of it stands in tests/capture.
            .env("KDEV_CAPTURE", "off")
            .env("KDEV_OWNER", format!("{owner}@laptop"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs kdev to its end.
    pub(crate) async fn kdev(&self, owner: &str, args: &[&str]) -> Done {
        finish(self.command(owner, args)).await
    }

    /// `kdev intercept cart --to PORT ARGS`, once it is live.
    pub(crate) async fn intercept(&self, owner: &str, port: u16, args: &[&str]) -> Live {
        let mut live = self.begin(owner, port, args);
        let begun = live.event("live").await;
        live.id = begun["id"].as_str().unwrap().to_owned();
        live
    }

    /// The same from its first moment.
    pub(crate) fn begin(&self, owner: &str, port: u16, args: &[&str]) -> Live {
        self.begin_of("cart", owner, port, args)
    }

    /// The same of any Service.
    pub(crate) fn begin_of(&self, service: &str, owner: &str, port: u16, args: &[&str]) -> Live {
        let to = port.to_string();
        let first = ["intercept", service, "--to", &to, "--json"];
        let mut command = self.command(owner, &[&first, args].concat());
        Live::of(command.stderr(Stdio::inherit()))
    }

    /// Ids of the claims on record for the Service.
    pub(crate) fn claims(&self) -> Vec<String> {
        let services = self.cluster.objects("services", shop::NAMESPACE);
        let claims = services.iter().filter_map(|service| {
            let text = &service["metadata"]["annotations"]["kdev.dev/claims"];
            serde_json::from_str::<Vec<Value>>(text.as_str()?).ok()
        });
        let ids = claims
            .flatten()
            .map(|claim| claim["id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// Whether a Service of kdev's own is left.
    pub(crate) fn is_clear(&self) -> bool {
        let left = self.cluster.objects("services", shop::NAMESPACE);
        left.iter().all(|service| {
            !service["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("kdev-")
        })
    }

    /// Waits until no Service of kdev's own is left, which nobody waits for but a test.
    pub(crate) async fn clears(&self) {
        until("what late callers need is cleared away", || async {
            self.is_clear()
        })
        .await;
    }

    /// The helpers that kdevs of this team have left.
    pub(crate) fn helpers(&self) -> Vec<Pid> {
        let home = format!("HOME={}", self.folder.path().display());
        let of = |pid: &i32| {
            let read = |what| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            let mut variables = read("environ");
            variables.push(0);
            read("cmdline").ends_with(b"/kdev\0clear\0")
                && String::from_utf8_lossy(&variables).contains(&format!("{home}\0"))
        };
        let all = std::fs::read_dir("/proc").unwrap();
        let all = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        all.filter(of).map(Pid::from_raw).collect()
    }

    /// What a caller gets whose request has these headers besides: status and body.
    pub(crate) async fn get(&self, header: &str) -> (u16, String) {
        timeout(LIMIT, self.got(header)).await.expect("an answer")
    }

    async fn got(&self, header: &str) -> (u16, String) {
        self.got_of("cart", shop::CART, header).await
    }

    /// The same of another Service of the shop.
    pub(crate) async fn get_of(&self, service: &str, port: u16) -> (u16, String) {
        let got = self.got_of(service, port, "");
        timeout(LIMIT, got).await.expect("an answer")
    }

    async fn got_of(&self, service: &str, port: u16, header: &str) -> (u16, String) {
        let at = self.network.service(service, port);
        let mut socket = TcpStream::connect(at).await.unwrap();
        let more = match header {
            "" => String::new(),
            header => format!("{header}\r\n"),
        };
        let head = format!("GET /c HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Whether such a request reaches one of the Service's own pods.
    pub(crate) async fn is_at_the_pods(&self, header: &str) -> bool {
        // They know one page, and it is another one.
        self.get(header).await == (404, "not found\n".to_owned())
    }

    /// The Service without what counts its changes.
    pub(crate) fn service(&self) -> Value {
        let mut service = self
            .cluster
            .object("services", shop::NAMESPACE, "cart")
            .unwrap();
        let metadata = service["metadata"].as_object_mut().unwrap();
        metadata.remove("resourceVersion");
        metadata.remove("generation");
        service
    }

    /// Has the API server know the user's token again.
    pub(crate) fn log_in_again(&self) {
        let user = User::new("dev").rules(Rule::edit(shop::NAMESPACE));
        self.cluster.add_user(user);
    }

    /// Names of the relay's pods that are ready.
    pub(crate) fn relays(&self) -> Vec<String> {
        ready_relays(&self.cluster)
    }
}

/// An intercept that goes on.
pub(crate) struct Live {
    child: Child,
    events: Option<Lines<BufReader<ChildStdout>>>,
    pub(crate) id: String,
}

impl Live {
    /// A command that prints events.
    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let events = child.stdout.take().unwrap();
        Self {
            events: Some(BufReader::new(events).lines()),
            ..Self::of_child(child)
        }
    }

    /// One whose output is somebody else's matter.
    pub(crate) fn of_child(child: Child) -> Self {
        Self {
            child,
            events: None,
            id: String::new(),
        }
    }

    /// The next event of this kind.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        let mut seen = Vec::new();
        let found = async {
            let events = self.events.as_mut().unwrap();
            while let Some(line) = events.next_line().await.unwrap() {
                let event: Value = serde_json::from_str(&line).unwrap();
                if event["event"] == kind {
                    return Some(event);
                }
                seen.push(line);
            }
            None
        };
        match timeout(LIMIT, found).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("it ended before {kind}: {seen:?}"),
            Err(_) => panic!("no {kind}: {seen:?}"),
        }
    }

    /// The next note that says this.
    pub(crate) async fn note(&mut self, text: &str) {
        loop {
            let note = self.event("note").await;
            if note["text"].as_str().unwrap().contains(text) {
                return;
            }
        }
    }

    pub(crate) fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Sends both within a millisecond.
    pub(crate) async fn send_both(&self, [first, second]: [Signal; 2]) {
        self.send(first);
        sleep(Duration::from_millis(1)).await;
        self.send(second);
    }

    /// All that it tells from now on, and its exit code.
    pub(crate) async fn rest(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        let reading = async {
            let events = self.events.as_mut().unwrap();
            while let Some(line) = events.next_line().await.unwrap() {
                rest.push_str(&line);
                rest.push('\n');
            }
        };
        timeout(LIMIT, reading).await.expect("it ends in time");
        (rest, self.ended().await)
    }

    /// Waits for its end, and gives its exit code and what it said on standard error.
    pub(crate) async fn said(self) -> (Option<i32>, String) {
        let output = timeout(LIMIT, self.child.wait_with_output()).await;
        let output = output.expect("it ends in time").unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code(), said)
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        let status = timeout(LIMIT, self.child.wait()).await;
        status.expect("it ends in time").unwrap().code()
    }

    /// Ends it as by Ctrl-C.
    pub(crate) async fn end(self) {
        self.send(Signal::SIGINT);
        assert_eq!(self.ended().await, Some(0));
    }
}

/// An app on a laptop, which says whose it is; gives its port.
pub(crate) async fn app(owner: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's runtime.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        loop {
            let (mut caller, _) = listener.accept().await.unwrap();
            let _ = caller.read(&mut [0; 4096]).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{owner}",
                owner.len()
            );
            let _ = caller.write_all(answer.as_bytes()).await;
            let _ = caller.shutdown().await;
        }
    });
    port
}

/// A port of this machine at which nobody listens.
pub(crate) async fn nobody() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits for something.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let end = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
