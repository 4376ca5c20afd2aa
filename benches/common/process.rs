//! The programs under comparison.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// A pod to talk to.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) ip: String,
}

/// A running way to the pod; ends when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// A user's kubeconfig.
pub(crate) fn kubeconfig(user: &str) -> PathBuf {
    let state = PathBuf::from(std::env::var_os("KDEV_LAB_STATE").unwrap());
    state.join("kubeconfig").join(format!("{user}.kubeconfig"))
}

/// The first pod with the label `app=NAME`.
pub(crate) fn pod(kubeconfig: &Path, app: &str) -> Pod {
    let output = Command::new("kubectl")
        .args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
        .args([
            "-n",
            "shop",
            "get",
            "pods",
            "-l",
            &format!("app={app}"),
            "-o",
        ])
        .arg("jsonpath={.items[0].metadata.name} {.items[0].status.podIP}")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (name, ip) = text.split_once(' ').expect("a pod of the shop");
    Pod {
        name: name.to_owned(),
        ip: ip.to_owned(),
    }
}

/// Which kubectl this is.
pub(crate) fn kubectl_version() -> String {
    let output = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .next()
        .unwrap_or_default()
        .replace("Client Version:", "kubectl")
}

impl Running {
    pub(crate) async fn kubectl(kubeconfig: &Path, pod: &Pod) -> Self {
        let mut command = tokio::process::Command::new("kubectl");
        command.args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()]);
        command.args([
            "-n",
            "shop",
            "port-forward",
            &format!("pod/{}", pod.name),
            ":8080",
        ]);
        // "Forwarding from 127.0.0.1:39001 -> 8080"
        Self::start(command, |line| line.split(' ').nth(2)?.parse().ok()).await
    }

    pub(crate) async fn connect(kubeconfig: &Path, flags: &[&str]) -> Self {
        let mut command = Self::kdev(kubeconfig);
        command.args(["connect", "--json"]).args(flags);
        Self::start(command, |line| {
            let ready: serde_json::Value = serde_json::from_str(line).ok()?;
            ready["proxy"].as_str()?.parse().ok()
        })
        .await
    }

    pub(crate) fn kdev(kubeconfig: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kdev"));
        command.args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()]);
        command
    }

    /// Starts it, and finds where it listens in the first line that says so.
    pub(crate) async fn start(
        mut command: tokio::process::Command,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> Self {
        let mut child = command
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.expect("a line once it is ready");
            match address(&line) {
                Some(address) => break address,
                None => eprintln!("{line}"),
            }
        };
        // kubectl writes a line per connection and stops when nobody reads them.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address }
    }

    /// Ends it as Ctrl-C does, and waits until it has.
    #[allow(dead_code)] // Who leaves nothing behind in the cluster is killed.
    pub(crate) async fn interrupt(mut self) {
        let pid = self.child.id().expect("it runs").try_into().unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().await.unwrap();
    }

    fn proc(&self, file: &str) -> String {
        let pid = self.child.id().expect("it runs");
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
    }

    /// CPU seconds since it began.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th after.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        // USER_HZ, which Linux shows to every program as 100.
        ticks / 100.0
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}
