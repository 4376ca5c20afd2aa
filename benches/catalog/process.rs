//! The programs under comparison.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

/// A program that listens; ends when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What a program took that ran to its end.
pub(crate) struct Used {
    pub(crate) peak_mib: f64,
    pub(crate) seconds: f64,
}

/// Which kubectl this is.
pub(crate) fn kubectl_version() -> String {
    let output = std::process::Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .expect("kubectl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default();
    line.replace("Client Version:", "kubectl")
}

fn command(program: &str, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    // Nothing of this user's, and nothing left behind.
    let home = kubeconfig.parent().unwrap();
    command
        .args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
        .env("HOME", home)
        .env("XDG_STATE_HOME", home)
        .env("XDG_CACHE_HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs kubectl to its end.
pub(crate) async fn kubectl(kubeconfig: &Path, words: &[&str]) -> Used {
    let begun = Instant::now();
    let mut child = command("kubectl", kubeconfig).args(words).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while out.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    });
    let mut peak_mib = 0.0;
    // Its high-water mark is gone with it, so it is looked at until then.
    let status = loop {
        if let Some(mib) = child.id().and_then(|pid| status(pid, "VmHWM:")) {
            peak_mib = mib;
        }
        match tokio::time::timeout(Duration::from_millis(10), child.wait()).await {
            Ok(status) => break status.unwrap(),
            Err(_) => continue,
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    reading.await.unwrap();
    assert!(status.success());
    Used { peak_mib, seconds }
}

/// A line of a process's status, in MiB.
fn status(pid: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

impl Running {
    pub(crate) async fn connect(kubeconfig: &Path) -> Self {
        let mut kdev = command(env!("CARGO_BIN_EXE_kdev"), kubeconfig);
        kdev.args(["connect", "--json"]);
        Self::start(kdev, |line| {
            let ready: serde_json::Value = serde_json::from_str(line).ok()?;
            ready["proxy"].as_str()?.parse().ok()
        })
        .await
    }

    pub(crate) async fn port_forward(kubeconfig: &Path) -> Self {
        let mut kubectl = command("kubectl", kubeconfig);
        kubectl.args(["port-forward", "--address=127.0.0.1", "svc/web", ":80"]);
        // "Forwarding from 127.0.0.1:39001 -> 8080"
        Self::start(kubectl, |line| line.split(' ').nth(2)?.parse().ok()).await
    }

    async fn start(mut command: Command, address: impl Fn(&str) -> Option<SocketAddr>) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap();
        let first = first.expect("a line once it is ready");
        let address = address(&first).unwrap_or_else(|| panic!("no address in {first:?}"));
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address }
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        let pid = self.child.id().expect("it runs");
        status(pid, "VmRSS:").unwrap()
    }

    pub(crate) async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Asks what listens at `address` and waits for the first byte.
pub(crate) async fn first_byte(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    ask(stream).await;
}

/// As [`first_byte`], of a name by SOCKS5.
pub(crate) async fn first_byte_by_socks(proxy: SocketAddr, host: &str, port: u16) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0]);
    let name = [&[5, 1, 0, 3, host.len() as u8], host.as_bytes()].concat();
    let request = [&name[..], &port.to_be_bytes()].concat();
    stream.write_all(&request).await.unwrap();
    // The bound address is an IPv4 one.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..2], [5, 0]);
    ask(stream).await;
}

async fn ask(mut stream: TcpStream) {
    stream.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"H");
}
