//! A pod from inside: its network, its processes, its memory.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};

use crate::lab;

/// A container of a pod.
pub(crate) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(crate) ip: IpAddr,
    container: String,
    network: File,
}

impl Pod {
    pub(crate) fn find(namespace: &str, name: &str) -> Self {
        let field = |path: &str| {
            let path = format!("jsonpath={{{path}}}");
            lab::kubectl(&["-n", namespace, "get", "pod", name, "-o", &path]).unwrap()
        };
        let id = field(".status.containerStatuses[0].containerID");
        let container = id.strip_prefix("containerd://").unwrap().to_owned();
        let first = processes(&container)[0];
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ip: field(".status.podIP").parse().unwrap(),
            network: File::open(format!("/proc/{first}/ns/net")).unwrap(),
            container,
        }
    }

    /// Runs `work` inside the pod's network. Sockets stay in the network that they were made in.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        // The network is the thread's, so the thread is one of its own.
        let run = || {
            setns(&self.network, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// Sockets of the pod's network, not connected yet.
    pub(super) fn sockets(&self, count: usize) -> Vec<TcpSocket> {
        let make = move || {
            let all = (0..count).map(|_| TcpSocket::new_v4().unwrap());
            all.collect()
        };
        self.inside(make)
    }

    /// A connection to a port of the pod's own loopback, from there.
    pub(crate) async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        let socket = self.sockets(1).remove(0);
        socket.set_nodelay(true)?;
        socket
            .connect(SocketAddr::from(([127, 0, 0, 1], port)))
            .await
    }

    /// A listener on any port of the pod's address.
    pub(super) fn listen(&self) -> tokio::net::TcpListener {
        let address = SocketAddr::new(self.ip, 0);
        let listener = self.inside(move || TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(listener).unwrap()
    }

    /// Its processes, the first one first.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes(&self.container)
    }

    /// Bytes in memory: of its processes, and of its sockets where the kernel counts them.
    pub(crate) fn memory(&self) -> Memory {
        let resident = self.processes().into_iter().map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kilobytes =
                line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            kilobytes.unwrap_or(0) << 10
        });
        Memory {
            resident: resident.sum(),
            peak: self
                .group()
                .and_then(|folder| number(&format!("{folder}/memory.max_usage_in_bytes"))),
            sockets: self
                .group()
                .and_then(|folder| number(&format!("{folder}/memory.kmem.tcp.usage_in_bytes"))),
        }
    }

    /// Has the kernel count what the sockets hold, which version 1 of the control groups does only
    /// where there is a limit. For connections made from here on.
    pub(crate) fn count_sockets(&self) {
        if let Some(folder) = self.group() {
            let file = format!("{folder}/memory.kmem.tcp.limit_in_bytes");
            // Where there is no such file the kernel counts them, or cannot.
            let _ = std::fs::write(file, (1_u64 << 32).to_string());
        }
    }

    /// The folder of its memory's control group, where that is of version 1.
    fn group(&self) -> Option<String> {
        let first = *self.processes().first()?;
        let groups = std::fs::read_to_string(format!("/proc/{first}/cgroup")).ok()?;
        let path = groups
            .lines()
            .find_map(|line| line.split_once(":memory:"))?
            .1;
        Some(format!("/sys/fs/cgroup/memory{path}"))
    }

    /// How often its container was started again.
    pub(crate) fn restarts(&self) -> u32 {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        let count = lab::kubectl(&["-n", &self.namespace, "get", "pod", &self.name, "-o", path]);
        count.unwrap().parse().unwrap()
    }

    /// A line of the relay's metrics, by its name and labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:20600/proxy/metrics",
            self.namespace, self.name
        );
        let page = lab::kubectl(&["get", "--raw", &path]).unwrap();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {name} in {page}"))
            .parse()
            .unwrap()
    }
}

/// What a pod uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The most that the control group ever had, files included.
    pub(crate) peak: Option<u64>,
    pub(crate) sockets: Option<u64>,
}

impl Memory {
    /// What counts against the pod where the kernel counts sockets, too.
    pub(crate) fn total(&self) -> u64 {
        self.resident + self.sockets.unwrap_or(0)
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "{:.1} MiB resident", mb(self.resident))?;
        if let Some(peak) = self.peak {
            write!(f, ", {:.1} at most in its group", mb(peak))?;
        }
        if let Some(sockets) = self.sockets {
            write!(f, ", {:.1} in sockets", mb(sockets))?;
        }
        Ok(())
    }
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn processes(container: &str) -> Vec<u32> {
    let state = std::env::var("KDEV_LAB_STATE").unwrap();
    let socket = format!("{state}/containerd/containerd.sock");
    let listed = Command::new("ctr")
        .args(["-a", &socket, "-n", "k8s.io", "task", "ps", container])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let lines = text.lines().skip(1);
    let pids = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    pids.collect()
}
