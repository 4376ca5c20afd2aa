//! `kdev demo`: the main jobs against a simulated cluster on loopback, each by the real command.

mod intercept;
mod network;
mod relay;

use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kdev_sim::{Options, SimCluster, shop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::process::{Child, Command};

pub use self::network::Network;
pub use self::relay::relay_pods;
use super::descriptors;
use super::signals::Ending;
use crate::config::SETTINGS;

/// How long one step may take: each takes well below a second.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// The domain of a network that pods reach and this laptop, as the demo has it, does not.
const OFFICE: &str = "office.example";
/// Open files that a network of pods takes: two relays listen on 512 ports each.
const NETWORK_FILES: u64 = 2048;
/// What the office's host says.
const PRICES: &str = "{\"oats\": 3, \"rye\": 4}\n";
/// Longest answer that is shown.
const MAX_SHOWN: usize = 4 << 10;

/// What prints a line.
pub type Say = fn(&str);

/// The simulated cluster, furnished as a small shop, and a kubeconfig for it.
struct Stage {
    cluster: SimCluster,
    folder: Folder,
    kdev: PathBuf,
    /// Where its network is on this machine.
    network: Option<Arc<Network>>,
    say: Say,
}

/// A folder of this user alone, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn create() -> std::io::Result<Self> {
        let name = format!(
            "kdev-demo-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the demo, printing as it goes. With `keep` the cluster stays up until a signal.
///
/// # Errors
/// When a step does not do what it should.
pub async fn run(keep: bool, say: Say) -> anyhow::Result<u8> {
    let stage = Stage::set_up(say).await?;
    stage.say("A Kubernetes cluster, simulated on this machine, with a small shop in it:");
    stage.say(
        "  web, cart (3 and 2 pods, HTTP), orders (HTTP), redis, and a user who may do what `edit` allows.",
    );
    let played = stage.play().await;
    if let Err(error) = played {
        stage.cluster.shutdown().await;
        return Err(error);
    }
    let kubeconfig = stage.kubeconfig("dev");
    if keep {
        stage.say("\nThe cluster stays up until Ctrl-C. In another terminal:");
        stage.say(&format!("  export KUBECONFIG={}", kubeconfig.display()));
        // The simulation's relay reaches addresses of this machine alone, and its Services have none.
        stage.say("  export KDEV_VIA=direct");
        stage.say("  kdev run -- curl http://web.shop/");
        stage.say("  kdev intercept cart --to 3000 --header 'x-user: ada'");
        stage.say("  kdev intercept orders --to 8080");
        stage.say("  kdev connect");
        stage.say("  kubectl get pods,services -n shop");
        Ending::listen()?.asked().await;
    } else {
        stage.say("\nThat was the demo. With a cluster of your own, nothing to set up:");
        stage.say("  kdev doctor                          # what your kubeconfig may do");
        stage.say("  kdev run -- curl http://SERVICE.NAMESPACE/");
        stage.say("  kdev run -- docker run --rm IMAGE");
        stage.say("`kdev demo --keep` leaves this cluster up to play with.");
    }
    stage.cluster.shutdown().await;
    Ok(0)
}

/// Fetches `url` as a program in `kdev run` would, for machines without curl: through the HTTP
/// proxy of the environment where that names one. Gives the exit code and the body.
///
/// # Errors
/// When there is no connection, or no answer with status 200.
pub async fn fetch(url: &str) -> anyhow::Result<(u8, String)> {
    let rest = url
        .strip_prefix("http://")
        .context("only http:// can be fetched")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let proxy = std::env::var("http_proxy").unwrap_or_default();
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let (to, asked_for) = match proxy {
        "" if host.contains(':') => (host.to_owned(), format!("/{path}")),
        "" => (format!("{host}:80"), format!("/{path}")),
        proxy => (proxy.to_owned(), url.to_owned()),
    };
    let request = format!("GET {asked_for} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (head, body) = asked(to, &request).await?;
    Ok((u8::from(!head.starts_with("HTTP/1.1 200")), body))
}

/// Head and body of what is answered to this until the connection ends.
async fn asked(to: impl ToSocketAddrs, request: &str) -> anyhow::Result<(String, String)> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("that was no HTTP answer")?;
    Ok((head.to_owned(), body.to_owned()))
}

impl Stage {
    async fn set_up(say: Say) -> anyhow::Result<Self> {
        let cluster = SimCluster::start(Options::default())
            .await
            .context("the simulated cluster did not start")?;
        shop::furnish(&cluster);
        shop::add_cart(&cluster);
        let folder = Folder::create()?;
        descriptors::raise();
        let network = match descriptors::allowed() {
            NETWORK_FILES.. => Network::take().map(Arc::new),
            _ => None,
        };
        let hosts = format!("{} prices.{OFFICE}", Ipv4Addr::LOCALHOST);
        relay_pods(
            &cluster,
            shop::NAMESPACE,
            &folder.0,
            &hosts,
            network.clone(),
        );
        let stage = Self {
            cluster,
            folder,
            network,
            say,
            kdev: std::env::current_exe()?,
        };
        for user in ["dev", "viewer"] {
            stage
                .cluster
                .write_kubeconfig(&stage.kubeconfig(user), user, "shop")?;
        }
        Ok(stage)
    }

    /// Prints a line at once.
    fn say(&self, line: &str) {
        (self.say)(line);
    }

    /// Runs a command and shows what it says; gives its exit code too.
    async fn show(&self, command: &mut Command) -> anyhow::Result<(Option<i32>, String)> {
        let output = tokio::time::timeout(STEP_TIMEOUT, command.output())
            .await
            .context("the step took too long")??;
        // Remarks on the way come before the result.
        let mut shown = output.stderr;
        shown.extend_from_slice(&output.stdout);
        shown.truncate(MAX_SHOWN);
        let shown = String::from_utf8_lossy(&shown).trim_end().to_owned();
        self.say(&shown);
        Ok((output.status.code(), shown))
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.0.join(format!("{user}.kubeconfig"))
    }

    /// The steps; each fails the demo when it shows something else than it should.
    async fn play(&self) -> anyhow::Result<()> {
        self.say("\n1. A command sees the cluster. Each connection picks a ready pod:");
        for _ in 0..2 {
            let shown = self.fetched("http://web.shop/").await?;
            ensure!(
                shown.contains("hello from web-"),
                "the shop's web did not answer: {shown}"
            );
        }
        self.say("\n2. Short names mean Services of your namespace:");
        let shown = self.fetched("http://orders/").await?;
        ensure!(
            shown.contains('{'),
            "the shop's orders did not answer: {shown}"
        );
        self.say("\n3. A plain local port, which survives a rollout:");
        self.forward().await?;
        self.say("\n4. What only a pod reaches, here a host of another network, takes the relay:");
        self.office().await?;
        self.say(
            "\n5. Your requests of a Service come to a program on this laptop, all others to its pods:",
        );
        self.intercept().await?;
        self.say("\n6. What may be missing is named:");
        let error = self.fail_as("viewer", "http://web.shop/").await?;
        ensure!(
            error.contains("pods/portforward"),
            "the missing permission is not named: {error}"
        );
        Ok(())
    }

    /// `kdev run -- curl`, or this program's own fetch where there is no curl.
    async fn fetched(&self, url: &str) -> anyhow::Result<String> {
        let (code, shown) = self.run_fetch("dev", &[], url).await?;
        ensure!(code == Some(0), "it ended with exit code {code:?}: {shown}");
        Ok(shown)
    }

    async fn fail_as(&self, user: &str, url: &str) -> anyhow::Result<String> {
        let (_, shown) = self.run_fetch(user, &[], url).await?;
        Ok(shown)
    }

    async fn run_fetch(
        &self,
        user: &str,
        flags: &[&str],
        url: &str,
    ) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = self.command(user);
        command.arg("run").args(flags).arg("--");
        if !flags.is_empty() {
            // A pod of the simulation has this machine's loopback for an address, where a captured
            // command finds itself.
            command.env("KDEV_CAPTURE", "off");
        }
        if has_curl() {
            command.args(["curl", "-sS", url]);
        } else {
            command.arg(&self.kdev).args(["demo", "--fetch", url]);
        }
        let flags: String = flags.iter().map(|flag| format!("{flag} ")).collect();
        self.say(&format!("$ kdev run {flags}-- curl -sS {url}"));
        self.show(&mut command).await
    }

    /// A host of another network: out of reach until there is a relay.
    async fn office(&self) -> anyhow::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://prices.{OFFICE}:{}/", listener.local_addr()?.port());
        let flags = ["--resolve-in-cluster", OFFICE];
        let asking = async {
            let (_, shown) = self.run_fetch("dev", &flags, &url).await?;
            ensure!(
                shown.contains("kdev install"),
                "what reaches the host is not named: {shown}"
            );
            self.say("$ kdev install --image kdev-relay");
            let mut install = self.command("dev");
            install.args(["install", "--image", "kdev-relay"]);
            let (code, shown) = self.show(&mut install).await?;
            ensure!(code == Some(0), "the relay could not be installed: {shown}");
            let (code, shown) = self.run_fetch("dev", &flags, &url).await?;
            ensure!(
                code == Some(0) && shown.contains("oats"),
                "the host did not answer through the relay: {shown}"
            );
            Ok(())
        };
        tokio::select! {
            asked = asking => asked,
            served = answer_all(&listener, PRICES) => served,
        }
    }

    async fn forward(&self) -> anyhow::Result<()> {
        self.say("$ kdev forward redis.shop:6379=0 &");
        let mut command = self.command("dev");
        command
            .args(["forward", "redis.shop:6379=0", "--json"])
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let port = tokio::time::timeout(STEP_TIMEOUT, local_port(&mut child))
            .await
            .context("kdev forward did not get ready")??;
        self.say(&format!("{port} -> redis.shop:6379"));
        self.ping(&port).await?;
        self.say("  (the pod is replaced by a new one)");
        let quick = Duration::from_millis(100);
        self.cluster
            .rolling_restart("shop", ("app", "redis"), quick, quick)
            .await;
        self.ping(&port).await?;
        send(&child, Signal::SIGINT)?;
        tokio::time::timeout(STEP_TIMEOUT, child.wait())
            .await
            .context("it did not end")??;
        Ok(())
    }

    async fn ping(&self, port: &str) -> anyhow::Result<()> {
        let talk = async {
            let mut redis = TcpStream::connect(port).await?;
            redis.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            redis.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).trim().to_owned())
        };
        let answer = tokio::time::timeout(STEP_TIMEOUT, talk)
            .await
            .context("no answer")??;
        self.say(&format!(
            "$ redis-cli -p {} PING\n{answer}",
            port.rsplit(':').next().unwrap_or(port)
        ));
        ensure!(answer == "+PONG", "redis answered {answer}");
        Ok(())
    }

    fn command(&self, user: &str) -> Command {
        let mut command = Command::new(&self.kdev);
        command
            .args(["--kubeconfig".as_ref(), self.kubeconfig(user).as_os_str()])
            .stdin(Stdio::null())
            .env_remove("RUST_LOG")
            .env("KDEV_PROJECT", "off")
            .env("XDG_CONFIG_HOME", &self.folder.0)
            .kill_on_drop(true);
        // Nor may the user's own settings, which are about other clusters.
        for setting in SETTINGS {
            command.env_remove(setting.variable());
        }
        // The laptop's own proxies must not come between the demo and its loopback cluster.
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command
    }
}

/// Sends a signal to a program, unless it has ended.
fn send(child: &Child, signal: Signal) -> anyhow::Result<()> {
    if let Some(pid) = child.id() {
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
    }
    Ok(())
}

/// Answers every connection with this.
async fn answer_all(listener: &TcpListener, body: &str) -> anyhow::Result<()> {
    loop {
        let (mut caller, _) = listener.accept().await?;
        let mut request = [0; 1024];
        // Whatever is asked for; who leaves early gets nothing.
        let _ = caller.read(&mut request).await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = caller.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = caller.shutdown().await;
    }
}

#[derive(Deserialize)]
struct Ready {
    ports: Vec<ReadyPort>,
}

#[derive(Deserialize)]
struct ReadyPort {
    local: String,
}

/// The local port in the line that `kdev forward --json` prints.
async fn local_port(child: &mut Child) -> anyhow::Result<String> {
    let Some(stdout) = child.stdout.take() else {
        bail!("kdev forward has no output")
    };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let ready: Ready = serde_json::from_str(&line).context("kdev forward said nothing")?;
    let port = ready
        .ports
        .into_iter()
        .next()
        .context("kdev forward opened no port")?;
    Ok(port.local)
}

fn has_curl() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join("curl").is_file())
}
