//! A TLS proxy before an API server that writes down the port-forwards that pass through it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use kdev_transcript::{Decoder, Form, Side, Transcript, What};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Nothing more comes once so long nothing came: the runtime passes ends on a second late.
const QUIET: Duration = Duration::from_millis(2500);
/// How long a connection may go on before it is quiet.
const PATIENCE: Duration = Duration::from_secs(60);

/// An account of the lab, as its kubeconfig has it.
pub(crate) struct Account {
    address: String,
    ca: Vec<u8>,
    pub(crate) token: String,
}

impl Account {
    pub(crate) fn of(kubeconfig: &Path) -> Self {
        let output = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["config", "view", "--raw", "--flatten", "-o", "json"])
            .output()
            .unwrap();
        let config: Value = serde_json::from_slice(&output.stdout).unwrap();
        let cluster = &config["clusters"][0]["cluster"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ca = text(&cluster["certificate-authority-data"]);
        Self {
            address: text(&cluster["server"]).replace("https://", ""),
            ca: base64::engine::general_purpose::STANDARD
                .decode(ca)
                .unwrap(),
            token: text(&config["users"][0]["user"]["token"]),
        }
    }
}

/// A running proxy; its connections end with it.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    certificate: CertificateDer<'static>,
    recordings: Arc<Mutex<Vec<Arc<Mutex<Recording>>>>>,
    _serving: JoinSet<()>,
}

struct Recording {
    transcript: Transcript,
    decoders: [Decoder; 2],
    last: Instant,
    over: bool,
}

impl Recording {
    fn feed(&mut self, side: Side, bytes: &[u8]) {
        if self.over {
            return;
        }
        let decoder = &mut self.decoders[usize::from(side == Side::Server)];
        let events = decoder.feed(bytes);
        if let Ok(events) = &events {
            self.last = Instant::now();
            let events = events.iter().cloned();
            events.for_each(|what| self.transcript.push(side, what));
        }
        if !self.transcript.events.is_empty() && !self.is_forward() {
            self.over = true;
            return;
        }
        events.unwrap();
        // Whose end is seen first says who ended it; what is under way then may arrive or not. After
        // a GOAWAY both sides end, and chance says who is first: it counts as its sender's.
        if bytes.is_empty() {
            let mut events = self.transcript.events.iter();
            let goodbye = events.find(|event| event.what == What::GoAway);
            let side = goodbye.map_or(side, |event| event.side);
            self.transcript.push(side, What::End);
            self.over = true;
        }
    }

    fn is_forward(&self) -> bool {
        let head = self.transcript.events.first().map(|event| &event.what);
        matches!(head, Some(What::Head(lines)) if lines[0].contains("/portforward"))
    }
}

impl Recorder {
    /// Starts before the account's API server.
    pub(crate) async fn start(account: &Account, form: Form) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes());
        let certificate = made.cert.der().clone();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&account.ca).unwrap())
            .unwrap();
        let connector = connector(provider, roots);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recordings: Arc<Mutex<Vec<_>>> = Arc::default();
        let (upstream, all) = (account.address.clone(), recordings.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let recording = Arc::new(Mutex::new(Recording {
                    transcript: Transcript::default(),
                    decoders: [Decoder::new(form), Decoder::new(form)],
                    last: Instant::now(),
                    over: false,
                }));
                all.lock().unwrap().push(recording.clone());
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                let upstream = upstream.clone();
                connections.spawn(async move {
                    socket.set_nodelay(true).unwrap();
                    let Ok(client) = acceptor.accept(socket).await else {
                        return;
                    };
                    let socket = TcpStream::connect(&upstream).await.unwrap();
                    socket.set_nodelay(true).unwrap();
                    let name = ServerName::try_from("127.0.0.1").unwrap();
                    let server = connector.connect(name, socket).await.unwrap();
                    let (client_read, client_write) = tokio::io::split(client);
                    let (server_read, server_write) = tokio::io::split(server);
                    tokio::join!(
                        pass(client_read, server_write, &recording, Side::Client),
                        pass(server_read, client_write, &recording, Side::Server),
                    );
                });
            }
        });
        Self {
            address,
            certificate,
            recordings,
            _serving: serving,
        }
    }

    /// TLS to the proxy.
    pub(crate) async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connected = connector(provider, roots).connect(name, socket).await;
        connected.unwrap()
    }

    /// The newest port-forward.
    fn newest(&self) -> Option<Arc<Mutex<Recording>>> {
        let recordings = self.recordings.lock().unwrap();
        let mut newest = recordings.iter().rev();
        newest
            .find(|recording| recording.lock().unwrap().is_forward())
            .cloned()
    }

    /// Notes that the pod is about to go.
    pub(crate) fn pod_removed(&self) {
        let recording = self.newest().expect("a port-forward");
        let mut recording = recording.lock().unwrap();
        recording.transcript.push(Side::Cluster, What::PodRemoved);
    }

    /// The newest port-forward, once nothing more comes.
    pub(crate) async fn finished(&self) -> Transcript {
        // What was done last may have taken a while, and its consequence is yet to come.
        let begun = Instant::now();
        loop {
            if let Some(recording) = self.newest() {
                let recording = recording.lock().unwrap();
                if recording.over || recording.last.max(begun).elapsed() > QUIET {
                    return recording.transcript.clone();
                }
            }
            assert!(begun.elapsed() < PATIENCE, "it does not come to an end");
            tokio::time::sleep(QUIET / 20).await;
        }
    }
}

fn connector(provider: Arc<rustls::crypto::CryptoProvider>, roots: RootCertStore) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Passes one direction on to its end.
async fn pass<R, W>(mut from: R, mut to: W, recording: &Mutex<Recording>, side: Side)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 64 << 10];
    loop {
        // Go ends connections without TLS' own farewell, which is an error to read.
        let n = from.read(&mut buffer).await.unwrap_or(0);
        recording.lock().unwrap().feed(side, &buffer[..n]);
        if n == 0 || to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}
