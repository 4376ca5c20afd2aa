//! kdev's port-forward against recorded connections between real clients and real servers: a
//! server plays the real one's side, and kdev has to do what kubectl did.
//!
//! On purpose kdev differs in this ([`as_kdev_does`]):
//! * The error stream is ended by the frame that opens it; kubectl sends another for that.
//! * A pair of streams goes by the number of its first one, not by a count.
//! * It waits for no SYN_REPLY. (What it sends is compared stream by stream, so that is no rule.)
//! * A pod that refuses a port costs one stream. kubectl from 1.31 on gives up its connection, and
//!   so its whole forward.
//! * In the form v4 every stream has a connection of its own, so there are no two on one, and the
//!   WebSocket is what ends when a stream does.

use std::time::Duration;

use kdev::addr::Namespaced;
use kdev::dial::PodPort;
use kdev::k8s::kubeconfig::Environment;
use kdev::k8s::portforward::{Form as KdevForm, KnownForm, PodStream, PortForward, websocket};
use kdev::k8s::{Client, KubeOptions};
use kdev::task::Tasks;
use kdev_transcript::{
    CASES, Case, Decoder, Encoder, Form, Side, Step, Stories, Transcript, What, reached, told,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing more may come behind what was recorded.
const QUIET: Duration = Duration::from_millis(100);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn it_says_what_kubectl_said() {
    let mut played = 0;
    for form in Form::ALL {
        for case in CASES {
            if form == Form::V4 && case.name == "two" {
                continue;
            }
            // The newest client's comes first; v4 cannot end one direction.
            let Some((name, recorded)) = Transcript::all(form, &case).unwrap().into_iter().next()
            else {
                assert_eq!((form, case.name), (Form::V4, "half-close"));
                continue;
            };
            let said = play(form, &case, &recorded).await;
            let should = as_kdev_does(&recorded).stories(Side::Client);
            assert!(
                said == should,
                "{name}: it said\n{}not\n{}",
                told(&said),
                told(&should)
            );
            played += 1;
        }
    }
    assert_eq!(played, 13);
}

/// A recording with kubectl's ways replaced by kdev's, where they differ on purpose.
fn as_kdev_does(recorded: &Transcript) -> Transcript {
    let mut error_streams = Vec::new();
    let mut own = Transcript::default();
    for event in &recorded.events {
        let mut what = event.what.clone();
        if event.side == Side::Client {
            if let What::Open { headers, .. } = &mut what {
                for (_, count) in headers.iter_mut().filter(|(name, _)| name == "requestid") {
                    // Two streams a pair, and clients have the odd numbers.
                    *count = (4 * count.parse::<u32>().unwrap() + 1).to_string();
                }
            }
            match &mut what {
                What::Open {
                    stream,
                    fin,
                    headers,
                } if headers.contains(&("streamtype".to_owned(), "error".to_owned())) => {
                    error_streams.push(*stream);
                    *fin = true;
                }
                What::Fin { stream } if error_streams.contains(stream) => continue,
                What::GoAway | What::Close { .. } | What::End => continue,
                _ => {}
            }
        }
        own.push(event.side, what);
    }
    own
}

/// Does the case's steps against the recorded server's side; returns what kdev sent.
async fn play(form: Form, case: &Case, recorded: &Transcript) -> Stories {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (script, name) = (as_kdev_does(recorded), case.name);
    let tasks = Tasks::new();
    let (said, server) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let _ = said.send(serve(socket, form, &script, name).await);
    });
    let forward = PortForward::new(
        client(&format!("http://{address}"), &tasks).await,
        KnownForm::remembered(match form {
            Form::Spdy => KdevForm::Spdy,
            Form::Tunnel => KdevForm::Tunnel,
            Form::V4 => KdevForm::V4,
        }),
    );
    let pod = PodPort {
        pod: Namespaced::new("shop", "POD"),
        uid: "uid".to_owned(),
        port: case.port,
    };
    let mut streams: Vec<PodStream> = Vec::new();
    for step in case.steps {
        match *step {
            Step::Open(_) => {
                let opened = within("a stream", forward.open(&pod, "pod")).await;
                streams.push(opened.unwrap());
            }
            Step::Send(i, bytes) => streams[i].write_all(bytes).await.unwrap(),
            Step::Expect(i, bytes) => {
                let mut read = vec![0; bytes.len()];
                let reading = streams[i].read_exact(&mut read);
                within("bytes", reading).await.unwrap();
                assert_eq!(read, bytes);
            }
            Step::Finish(i) => streams[i].shutdown().await.unwrap(),
            Step::ReadToEnd(i) => {
                let mut rest = Vec::new();
                let end = within("the end", streams[i].read_to_end(&mut rest)).await;
                let refused = end.as_ref().err().map(std::io::Error::kind);
                let expected =
                    (case.name == "refused").then_some(std::io::ErrorKind::ConnectionRefused);
                assert_eq!(refused, expected, "{form:?} {}", case.name);
                assert_eq!(rest, b"");
            }
            Step::RemovePod => {}
        }
    }
    drop(streams);
    let said = within("the server's end", server).await.unwrap();
    forward.close(Duration::from_secs(1)).await;
    said
}

async fn client(server: &str, tasks: &Tasks) -> Client {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n\
         users:\n- name: u\n  user: {{}}\ncontexts:\n- name: c\n  context:\n    cluster: c\n    \
         user: u\n    namespace: shop\ncurrent-context: c\n"
    );
    std::fs::write(&path, config).unwrap();
    let options = KubeOptions {
        kubeconfig: Some(path),
        ..KubeOptions::default()
    };
    let client = Client::connect_in(options, Environment::default(), tasks).await;
    client.unwrap()
}

/// Plays the server's side, each event once what the client did before it came; then waits until
/// the client has done all it should, and a moment more.
async fn serve(mut socket: TcpStream, form: Form, script: &Transcript, case: &str) -> Stories {
    let mut client = Heard {
        decoder: Decoder::new(form),
        raw: Vec::new(),
        seen: Transcript::default(),
        case: case.to_owned(),
    };
    let mut encoder = Encoder::new(form, Side::Server);
    let mut before = Transcript::default();
    let mut ended = false;
    for event in &script.events {
        match (event.side, &event.what) {
            (Side::Client, what) => before.push(Side::Client, what.clone()),
            (Side::Cluster, _) => {}
            (Side::Server, what) => {
                client.until(&mut socket, &before).await;
                let bytes = match what {
                    What::Head(lines) => head(lines, &client.raw).into_bytes(),
                    what => encoder.encode(what),
                };
                // What the recorded server sent behind the client's end may meet a closed socket.
                let sent = socket.write_all(&bytes).await;
                ended |= *what == What::End || sent.is_err();
                if *what == What::End {
                    let _ = socket.shutdown().await;
                }
            }
        }
    }
    if !ended {
        client.until(&mut socket, &before).await;
    }
    while tokio::time::timeout(QUIET, client.more(&mut socket)).await == Ok(true) {}
    client.seen.stories(Side::Client)
}

/// The answer as it was before it was masked.
fn head(lines: &[String], request: &[u8]) -> String {
    let request = String::from_utf8_lossy(request);
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let accept = key.map_or_else(String::new, websocket::accept_for);
    let mut text = format!("{} Switching Protocols\r\n", lines[0]);
    for line in &lines[1..] {
        text += &line.replace("RANDOM", &accept);
        text += "\r\n";
    }
    text + "\r\n"
}

struct Heard {
    decoder: Decoder,
    /// The bytes up to now, for the nonce in the request.
    raw: Vec<u8>,
    seen: Transcript,
    case: String,
}

impl Heard {
    async fn until(&mut self, socket: &mut TcpStream, before: &Transcript) {
        let wanted = before.stories(Side::Client);
        while !reached(&self.seen.stories(Side::Client), &wanted) {
            let more = tokio::time::timeout(PATIENCE, self.more(socket)).await;
            assert!(
                more == Ok(true),
                "{}: so far\n{}wanted\n{before}",
                self.case,
                self.seen
            );
        }
    }

    /// Reads once; false at the end.
    async fn more(&mut self, socket: &mut TcpStream) -> bool {
        let mut buffer = vec![0; 16 << 10];
        let n = socket.read(&mut buffer).await.unwrap_or(0);
        self.raw.extend_from_slice(&buffer[..n]);
        for what in self.decoder.feed(&buffer[..n]).unwrap() {
            // How the connection ends is kdev's own business.
            if !matches!(what, What::GoAway | What::Close { .. }) {
                self.seen.push(Side::Client, what);
            }
        }
        n > 0
    }
}
