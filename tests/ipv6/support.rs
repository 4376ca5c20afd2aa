//! A simulated cluster on `::1` with pods and Services of both families, and an app.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Output, Stdio};
use std::time::Duration;

use kdev_sim::{Families, Options, Pod, Service, SimCluster, shop};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Longer than any of these commands takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    pub(crate) folder: tempfile::TempDir,
}

impl Stage {
    /// `None` where this machine has no `::1`, which is said.
    pub(crate) async fn set_up() -> Option<Self> {
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_err() {
            println!("SKIPPED: ipv6: no ::1 on this machine");
            return None;
        }
        let options = Options {
            listen: Ipv6Addr::LOCALHOST.into(),
            ..Options::default()
        };
        let cluster = SimCluster::start(options).await.unwrap();
        shop::furnish(&cluster);
        for (name, families) in [("six", Families::V6), ("dual", Families::Dual)] {
            let pod = Pod::new("shop", &format!("{name}-0")).families(families);
            let pod = pod.label("app", name).port("http", 8080).host("zero", name);
            cluster.add_pod(pod.serve(8080, move |io| answer(io, name)));
            for (service, headless) in [(name.to_owned(), false), (format!("{name}-pods"), true)] {
                let mut service = Service::new("shop", &service).families(families);
                if headless {
                    service = service.headless();
                }
                let service = service.selector("app", name);
                cluster.add_service(service.port_to_named("http", 80, "http"));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        cluster.write_kubeconfig(&path, "dev", "shop").unwrap();
        Some(Self { cluster, folder })
    }

    /// `kdev` as the developer, with no proxy in the environment.
    pub(crate) fn kdev(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        let folder = self.folder.path();
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .env("XDG_RUNTIME_DIR", folder)
            .env("KDEV_PROJECT", "off")
            // What is said of it stands in tests/capture.
            .env("KDEV_CAPTURE", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What a running command is ready with, and the command.
    pub(crate) async fn ready(&self, args: &[&str]) -> (serde_json::Value, Child) {
        let mut child = self.kdev(args).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let read = tokio::time::timeout(PATIENCE, out.read_line(&mut line));
        read.await.expect("kdev hangs").unwrap();
        let ready = serde_json::from_str(&line);
        (
            ready.unwrap_or_else(|e| panic!("{args:?}: {line:?}: {e}")),
            child,
        )
    }

    pub(crate) async fn output(&self, args: &[&str]) -> Output {
        finish(self.kdev(args)).await
    }

    /// The address of a kind of object, by its place among those that it has.
    fn address(&self, kind: &str, name: &str, pointer: &str) -> IpAddr {
        let object = self.cluster.object(kind, "shop", name).unwrap();
        let text = object.pointer(pointer).and_then(|ip| ip.as_str()).unwrap();
        text.parse().unwrap()
    }

    pub(crate) fn service(&self, name: &str, nth: usize) -> IpAddr {
        self.address("services", name, &format!("/spec/clusterIPs/{nth}"))
    }

    pub(crate) fn pod(&self, name: &str, nth: usize) -> IpAddr {
        self.address("pods", name, &format!("/status/podIPs/{nth}/ip"))
    }

    /// What an app may dial, and which pod's answer it gets.
    pub(crate) fn targets(&self) -> Vec<(String, &'static str)> {
        let mut targets: Vec<(String, &str)> = Vec::new();
        let mut ip =
            |ip: IpAddr, port, app| targets.push((SocketAddr::new(ip, port).to_string(), app));
        ip(self.service("six", 0), 80, "six");
        ip(self.pod("six-0", 0), 8080, "six");
        for nth in 0..2 {
            ip(self.service("dual", nth), 80, "dual");
            ip(self.pod("dual-0", nth), 8080, "dual");
        }
        let dashed = |ip: IpAddr| ip.to_string().replace([':', '.'], "-");
        for (pod, app) in [
            (self.pod("six-0", 0), "six"),
            (self.pod("dual-0", 1), "dual"),
        ] {
            assert!(pod.is_ipv6());
            targets.push((format!("{app}:80"), app));
            targets.push((format!("{app}.shop.svc.cluster.local.:80"), app));
            targets.push((format!("{}.shop.pod.cluster.local:8080", dashed(pod)), app));
            targets.push((format!("{}.{app}-pods.shop.svc:8080", dashed(pod)), app));
            targets.push((format!("zero.{app}.shop:8080"), app));
        }
        targets
    }
}

/// A pod's web server: one answer per connection, with the pod's app.
async fn answer(io: kdev_sim::SimStream, app: &'static str) {
    let mut io = BufReader::new(io);
    let mut line = String::new();
    // The client is the judge of what comes back.
    while io.read_line(&mut line).await.is_ok_and(|n| n > 2) {
        line.clear();
    }
    let (head, length) = ("HTTP/1.1 200 OK\r\nConnection: close", app.len());
    let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{app}");
    let _ = io.write_all(answer.as_bytes()).await;
    let _ = io.shutdown().await;
}

pub(crate) async fn finish(mut command: Command) -> Output {
    let output = tokio::time::timeout(PATIENCE, command.output());
    output.await.expect("kdev hangs").unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How an app gets through the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Socks5,
    Connect,
    Absolute,
}

/// The whole answer to a GET of `target` (`HOST:PORT`).
pub(crate) async fn get(way: Way, proxy: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let mut origin = String::new();
    match way {
        Way::Socks5 => socks5(&mut stream, target).await,
        Way::Connect => {
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(
                head.starts_with(b"HTTP/1.1 200"),
                "{target}: {}",
                text(&head)
            );
        }
        Way::Absolute => origin = format!("http://{target}"),
    }
    request(&mut stream, &origin, "/", target).await
}

/// Sends a GET and reads its whole answer.
pub(crate) async fn request(
    stream: &mut TcpStream,
    origin: &str,
    path: &str,
    host: &str,
) -> String {
    let request = format!("GET {origin}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, answered(BufReader::new(stream)));
    answer.await.expect("the answer ends")
}

/// One answer. It does not wait for the stream's end, which takes a runtime its time.
async fn answered(mut stream: BufReader<&mut TcpStream>) -> String {
    let mut answer = String::new();
    let mut length = 0;
    while !answer.ends_with("\r\n\r\n") {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "{answer}");
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        answer += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    answer + &text(&body)
}

/// RFC 1928, with the address type that suits the target.
async fn socks5(stream: &mut TcpStream, target: &str) {
    let mut hello = vec![5, 1, 0, 5, 1, 0];
    let (host, port) = target.rsplit_once(':').unwrap();
    match target.parse::<SocketAddr>().map(|target| target.ip()) {
        Ok(IpAddr::V4(ip)) => {
            hello.push(1);
            hello.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            hello.push(4);
            hello.extend(ip.octets());
        }
        Err(_) => {
            hello.extend([3, host.len() as u8]);
            hello.extend(host.as_bytes());
        }
    }
    hello.extend(port.parse::<u16>().unwrap().to_be_bytes());
    stream.write_all(&hello).await.unwrap();
    let mut reply = [0; 6];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[3], 0, "{target}: {reply:?}");
    let rest = if reply[5] == 4 { 18 } else { 6 };
    stream.read_exact(&mut vec![0; rest]).await.unwrap();
}
