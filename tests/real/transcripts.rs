//! The recorded port-forwards that the simulation and kdev are held against, recorded again: real
//! clients, real servers. `KDEV_RECORD=1` writes what differs in place of failing.
//!
//! A recording is compared with those of the same server: the lab's version. The client is kubectl:
//! the one in the path, which is the lab's, and each that `cluster/lab/kubectls` fetched. No kubectl
//! speaks `v4.channel.k8s.io`; there it is a WebSocket client made of this file.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kdev_transcript::{CASES, Case, Encoder, Form, Side, Step, Transcript, What, mask};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::lab;
use crate::recorder::{Account, Recorder};

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Recordings under way at once.
const AT_ONCE: usize = 4;
/// The first kubectl, 1.30, that may tunnel.
const TUNNELS: u32 = 30;

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Who spoke with whom.
#[derive(Clone, Debug)]
struct Pairing {
    form: Form,
    case: Case,
    /// kubectl; none for the client in this file.
    client: Option<PathBuf>,
}

/// A pod to forward to; one that was made for this goes again when dropped.
struct Pod {
    name: String,
    own: bool,
}

impl Pod {
    fn shared() -> Self {
        Self {
            name: lab::ready_pods("peer").remove(0),
            own: false,
        }
    }

    fn own(number: usize) -> Self {
        let name = format!("transcript-{number}");
        let pod = Self { name, own: true };
        lab::apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{}", "namespace": "shop"}},
                "spec": {{"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                    "containers": [{{"name": "peer", "image": "kdev-lab/server:1",
                    "imagePullPolicy": "Never", "command": ["/opt/lab/peer"],
                    "readinessProbe": {{"tcpSocket": {{"port": 9001}}, "periodSeconds": 1}}}}]}}}}"#,
            pod.name
        ));
        let object = format!("pod/{}", pod.name);
        let ready = ["wait", "--for=condition=Ready", "--timeout=60s"];
        lab::kubectl(&[&["-n", "shop"], &ready[..], &[&object]].concat()).unwrap();
        pod
    }

    fn remove(&self) {
        let flags = ["delete", "pod", "--ignore-not-found", &self.name];
        lab::kubectl(&[&["-n", "shop"], &flags[..]].concat()).unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.own {
            self.remove();
        }
    }
}

/// The kubectl programs: the lab's own, and others by their folders' names.
fn kubectls() -> Vec<PathBuf> {
    let cache = std::env::var_os("KDEV_LAB_CACHE").map(PathBuf::from);
    let root = || match std::env::var_os("XDG_CACHE_HOME") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
    };
    let fetched = cache.unwrap_or_else(|| root().join("kdev-lab"));
    let fetched = std::fs::read_dir(fetched.join("kubectl")).into_iter();
    let mut all: Vec<PathBuf> = fetched
        .flatten()
        .map(|dir| dir.unwrap().path().join("kubectl"))
        .filter(|program| program.exists())
        .collect();
    all.sort();
    all.insert(0, PathBuf::from("kubectl"));
    // Perhaps one of those fetched is the lab's too.
    let mut seen = std::collections::HashSet::new();
    all.retain(|program| seen.insert(version(program).1));
    all
}

/// 36 and `v1.36.4`, say.
fn version(program: &Path) -> (u32, String) {
    let mut command = std::process::Command::new(program);
    let output = command.args(["version", "--client", "-o", "json"]).output();
    let version: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let text = version["clientVersion"]["gitVersion"].as_str().unwrap();
    let minor = text.split('.').nth(1).unwrap().parse().unwrap();
    (minor, text.to_owned())
}

/// Who can speak the form with the lab's server: kubectl tunnels from 1.30 on.
fn pairings() -> Vec<Pairing> {
    let mut all = Vec::new();
    let kubectls: Vec<_> = kubectls().into_iter().map(|k| (version(&k).0, k)).collect();
    for case in CASES {
        let with = |form, client| Pairing { form, case, client };
        // A v4 stream cannot be ended in one direction.
        if case.name != "half-close" {
            all.push(with(Form::V4, None));
        }
        for (minor, kubectl) in &kubectls {
            all.push(with(Form::Spdy, Some(kubectl.clone())));
            if *minor >= TUNNELS && lab::tunnels_spdy() {
                all.push(with(Form::Tunnel, Some(kubectl.clone())));
            }
        }
    }
    all
}

impl Pairing {
    async fn record(&self, number: usize) -> Transcript {
        let pod = if self.case.name == "pod-gone" {
            Pod::own(number)
        } else {
            Pod::shared()
        };
        let uid = lab::field(&format!("pod/{}", pod.name), ".metadata.uid");
        let account = Account::of(&lab::kubeconfig("edit"));
        let recorder = Recorder::start(&account, self.form).await;
        let mut transcript = match &self.client {
            Some(kubectl) => self.by_kubectl(kubectl, &account, &recorder, &pod).await,
            None => self.by_hand(&account, &recorder, &pod).await,
        };
        let masked = |text: &str| mask(&text.replace(&pod.name, "POD").replace(&uid, "UUID"));
        for event in &mut transcript.events {
            match &mut event.what {
                What::Head(lines) => lines.iter_mut().for_each(|line| *line = masked(line)),
                What::Data { payload, .. } => {
                    if let Ok(text) = str::from_utf8(payload) {
                        *payload = masked(text).into_bytes();
                    }
                }
                _ => {}
            }
        }
        let client = match &self.client {
            Some(kubectl) => format!("kubectl {}", version(kubectl).1),
            None => "the WebSocket client of tests/real/transcripts.rs".to_owned(),
        };
        transcript.notes = vec![
            format!("{}: {}", self.form.name(), self.case.name),
            format!("{client} with API server v1.{}, containerd", lab::kube()),
        ];
        transcript
    }

    async fn by_kubectl(
        &self,
        kubectl: &Path,
        account: &Account,
        recorder: &Recorder,
        pod: &Pod,
    ) -> Transcript {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: lab\n  cluster:\n    \
             server: https://{}\n    insecure-skip-tls-verify: true\nusers:\n- name: lab\n  user:\n    \
             token: {}\ncontexts:\n- name: lab\n  context:\n    cluster: lab\n    user: lab\n    \
             namespace: shop\ncurrent-context: lab\n",
            recorder.address, account.token
        );
        std::fs::write(&config, text).unwrap();
        let websockets = (self.form == Form::Tunnel).to_string();
        let mut child = Command::new(kubectl)
            .args(["port-forward", "--address=127.0.0.1"])
            .arg(format!("pod/{}", pod.name))
            .arg(format!(":{}", self.case.port))
            .env("KUBECONFIG", config)
            .env("HOME", home.path())
            .env("NO_PROXY", "127.0.0.1")
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("kubectl's first line", lines.next_line()).await;
        let line = line.unwrap().expect("a line");
        let port: u16 = line.split([':', ' ']).nth(3).unwrap().parse().unwrap();
        let mut sockets = Vec::new();
        for step in self.case.steps {
            match *step {
                Step::Open(_) => {
                    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    sockets.push(socket);
                }
                Step::Send(i, bytes) => sockets[i].write_all(bytes).await.unwrap(),
                Step::Expect(i, bytes) => {
                    let mut read = vec![0; bytes.len()];
                    let reading = sockets[i].read_exact(&mut read);
                    let result = within("bytes", reading).await;
                    if let Err(error) = result {
                        let seen = recorder.finished().await;
                        panic!("{self:?}: {error} after\n{seen}");
                    }
                    assert_eq!(read, bytes);
                }
                Step::Finish(i) => sockets[i].shutdown().await.unwrap(),
                Step::ReadToEnd(i) => {
                    let mut rest = Vec::new();
                    // A connection that is cut ends too.
                    let _ = within("the end", sockets[i].read_to_end(&mut rest)).await;
                }
                Step::RemovePod => {
                    recorder.pod_removed();
                    pod.remove();
                }
            }
        }
        let transcript = recorder.finished().await;
        child.kill().await.unwrap();
        transcript
    }

    /// As [`Self::by_kubectl`] in the form v4: all streams are there from the beginning, and end
    /// with the connection.
    async fn by_hand(&self, account: &Account, recorder: &Recorder, pod: &Pod) -> Transcript {
        let mut io = recorder.connect().await;
        let opened = self.case.steps.iter();
        let streams = opened.filter(|s| matches!(s, Step::Open(_))).count();
        let ports = vec![format!("ports={}", self.case.port); streams].join("&");
        let head = format!(
            "GET /api/v1/namespaces/shop/pods/{}/portforward?{ports} HTTP/1.1\r\nHost: {}\r\n\
             Authorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n",
            pod.name, recorder.address, account.token
        );
        io.write_all(head.as_bytes()).await.unwrap();
        let mut encoder = Encoder::new(Form::V4, Side::Client);
        let mut decoder = kdev_transcript::Decoder::new(Form::V4);
        let mut seen = Transcript::default();
        // Both channels of every port begin with its number.
        let mut wanted = vec![2; streams * 2];
        for step in self.case.steps {
            match *step {
                Step::Open(_) | Step::ReadToEnd(_) => {}
                Step::Send(i, payload) => {
                    let stream = 2 * i as u32;
                    let payload = payload.to_vec();
                    let message = encoder.encode(&What::Data { stream, payload });
                    io.write_all(&message).await.unwrap();
                }
                Step::Expect(i, bytes) => wanted[2 * i] += bytes.len(),
                Step::Finish(0) => {
                    let message = encoder.encode(&What::Close { code: 1000 });
                    io.write_all(&message).await.unwrap();
                }
                Step::Finish(_) => {}
                Step::RemovePod => {
                    recorder.pod_removed();
                    pod.remove();
                }
            }
            let mut buffer = vec![0; 4096];
            let all_there = |seen: &Transcript| {
                let stories = seen.stories(Side::Server);
                wanted.iter().enumerate().all(|(channel, wanted)| {
                    let story = stories.get(&Some(channel as u32));
                    matches!(story.and_then(|s| s.first()), Some(What::Data { payload, .. })
                        if payload.len() >= *wanted)
                })
            };
            while !all_there(&seen) {
                let n = within("messages", io.read(&mut buffer)).await.unwrap();
                for what in decoder.feed(&buffer[..n]).unwrap() {
                    seen.push(Side::Server, what);
                }
                assert!(n > 0, "ended before its time:\n{seen}");
            }
        }
        recorder.finished().await
    }
}

// kubectl as the administrator blocks a thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "needs the lab"]
async fn port_forwards_look_as_they_were_recorded() {
    let write = std::env::var_os("KDEV_RECORD").is_some();
    let server = format!("1.{}", lab::kube());
    let only = std::env::var("KDEV_RECORD_ONLY").unwrap_or_default();
    let mut running = JoinSet::new();
    let mut failed = Vec::new();
    let mut results = Vec::new();
    let pairings = pairings().into_iter().enumerate();
    for (number, pairing) in pairings {
        if !format!("{}-{}", pairing.form.name(), pairing.case.name).contains(&only) {
            continue;
        }
        if running.len() >= AT_ONCE
            && let Some(result) = running.join_next().await
        {
            results.push(result.unwrap());
        }
        running.spawn(async move {
            let transcript = pairing.record(number).await;
            (number, pairing, transcript)
        });
    }
    results.extend(running.join_all().await);
    // The newest kubectl first.
    results.sort_by_key(|(number, pairing, _)| {
        let minor = pairing.client.as_deref().map(|kubectl| version(kubectl).0);
        (std::cmp::Reverse(minor), *number)
    });
    for (_, pairing, transcript) in results {
        let (form, case) = (pairing.form, &pairing.case);
        // Those that this run has written are among them: an older kubectl that does the same
        // needs no file of its own.
        let known = Transcript::with_server(form, case, &server).unwrap();
        let same = known.iter().any(|(_, known)| {
            [Side::Client, Side::Server]
                .into_iter()
                .all(|side| known.stories(side) == transcript.stories(side))
        });
        let notes = transcript.notes.join(": ");
        println!("{} {notes}", if same { "as recorded" } else { "OTHER" });
        if same {
            continue;
        }
        println!("{transcript}");
        if write {
            let client = match pairing.client.as_deref() {
                Some(kubectl) => format!("kubectl-1.{}", version(kubectl).0),
                None => "by-hand".to_owned(),
            };
            let path = Transcript::path(form, case, &server, &client);
            std::fs::write(path, transcript.to_string()).unwrap();
        } else {
            failed.push(notes);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
