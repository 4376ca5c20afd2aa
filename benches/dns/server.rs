//! The programs under comparison.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::{Client, question};

/// A running server; ends when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) fn kdev(kubeconfig: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kdev"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["connect", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("kdev connect is ready");
        let address = ready["dns"].as_str().unwrap().parse().unwrap();
        Self {
            child,
            address,
            _folder: None,
        }
    }

    pub(crate) fn dnsmasq(services: &[(String, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        let text = services.iter().fold(String::new(), |mut text, (name, ip)| {
            let _ = writeln!(text, "{ip} {name}");
            text
        });
        std::fs::write(&hosts, text).unwrap();
        // Free a moment ago; nobody else looks for one meanwhile.
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--local=/cluster.local/",
                "--local-ttl=5",
            ])
            .args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--cache-size=10000",
            ])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--addn-hosts={}", hosts.display()))
            .args(["--user=root", "--log-facility=-"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq runs (Debian: dnsmasq-base)");
        let server = Self {
            child,
            address,
            _folder: Some(folder),
        };
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        let first = question(&services[0].0, 1);
        probe
            .set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .unwrap();
        for attempt in 0.. {
            assert!(attempt < 200, "dnsmasq does not answer");
            let _ = probe.send_to(&first, address);
            if probe.recv(&mut [0; 512]).is_ok() {
                break;
            }
        }
        assert_eq!(
            Client::new(address).ask(&[first])[7],
            1,
            "dnsmasq has the names"
        );
        server
    }

    pub(crate) fn dnsmasq_version() -> String {
        let output = Command::new("dnsmasq").arg("--version").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
