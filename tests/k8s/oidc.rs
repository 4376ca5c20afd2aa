//! Logins by OpenID Connect, against a small identity provider.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use kdev::k8s::kubeconfig::Environment;
use kdev::k8s::{Client, ClientError, KubeOptions};
use kdev::upstream::{Proxies, ProxyVars};
use kdev_sim::{Options, Rule, User};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::World;

/// Names that the provider's certificate has; only the proxy of these tests resolves the second.
const NAMES: [&str; 2] = ["localhost", "idp.corp.test"];

/// An unsigned token that ends `left` seconds from now; `name` makes it different.
fn jwt(name: &str, left: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let exp = i64::try_from(now.unwrap().as_secs()).unwrap() + left;
    let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{name}","exp":{exp}}}"#));
    format!("e30.{claims}.c2ln")
}

/// How the token endpoint answers.
#[derive(Clone)]
enum Habit {
    Grant(String),
    Refuse,
    Hang,
}

struct Issuer {
    addr: SocketAddr,
    ca: String,
    /// Authorization and body of each request to the token endpoint.
    asked: Arc<Mutex<Vec<(String, String)>>>,
    /// A file that changes when the token endpoint is asked.
    meanwhile: Arc<Mutex<Option<(PathBuf, String)>>>,
}

impl Issuer {
    async fn start(world: &World, methods: &'static str, habit: Habit) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            addr: listener.local_addr().unwrap(),
            ca: BASE64_STANDARD.encode(certificate.pem()),
            asked: Arc::default(),
            meanwhile: Arc::default(),
        };
        let (asked, meanwhile) = (Arc::clone(&issuer.asked), Arc::clone(&issuer.meanwhile));
        let group = world.tasks.clone();
        world.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                let (habit, meanwhile) = (habit.clone(), Arc::clone(&meanwhile));
                group.spawn(async move {
                    // A client that does not trust it leaves.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let told = |authorization, body| {
                            asked.lock().unwrap().push((authorization, body));
                            if let Some((file, text)) = meanwhile.lock().unwrap().take() {
                                fs::write(file, text).unwrap();
                            }
                        };
                        serve(BufReader::new(stream), methods, told, habit).await;
                    }
                });
            }
        });
        issuer
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }

    /// A kubeconfig of the user `bot` with these tokens.
    fn kubeconfig(&self, world: &World, host: &str, id: &str, more: &str) -> String {
        let config = world.cluster.kubeconfig_with_token("bot", "x", "shop");
        let login = format!(
            "auth-provider: {{name: oidc, config: {{idp-issuer-url: 'https://{host}:{port}', client-id: kdev, idp-certificate-authority-data: {ca}, id-token: {id}, refresh-token: r-1{more}}}}}",
            port = self.addr.port(),
            ca = self.ca,
        );
        config.replace("token: x", &login)
    }
}

async fn serve(
    mut stream: BufReader<tokio_rustls::server::TlsStream<TcpStream>>,
    methods: &str,
    told: impl Fn(String, String),
    habit: Habit,
) {
    let (mut head, mut length) = (String::new(), 0);
    let mut authorization = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if lower.starts_with("authorization: ") {
            authorization = line["authorization: ".len()..].trim().to_owned();
        }
        head.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let host = head.lines().find_map(|line| line.strip_prefix("host: "));
    let (status, answer) = if head.starts_with("GET /.well-known/openid-configuration ") {
        let host = host.unwrap();
        let endpoint = format!(r#"{{"token_endpoint":"https://{host}/token"{methods}}}"#);
        ("200 OK", endpoint)
    } else {
        assert!(head.starts_with("POST /token "), "{head}");
        let body = String::from_utf8(body).unwrap();
        told(authorization, body);
        match habit {
            Habit::Grant(id) => {
                let answer = format!(r#"{{"id_token":"{id}","refresh_token":"r-2"}}"#);
                ("200 OK", answer)
            }
            Habit::Refuse => (
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"r-1 is revoked"}"#.to_owned(),
            ),
            Habit::Hang => std::future::pending().await,
        }
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn world(token: &str) -> World {
    let world = World::new(Options::default()).await;
    accept(&world, token);
    world
}

fn accept(world: &World, token: &str) {
    let rule = Rule::new(&["get", "list"], &["pods"]).namespace("shop");
    let user = User::new("bot").token(token).rule(rule);
    world.cluster.add_user(user);
}

async fn list(client: &Client) -> Result<Value, ClientError> {
    client.get("/api/v1/namespaces/shop/pods").await
}

fn written(world: &World) -> String {
    fs::read_to_string(world.dir.path().join("config")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_used_without_asking() {
    let token = jwt("first", 3600);
    let world = world(&token).await;
    let issuer = Issuer::start(&world, "", Habit::Refuse).await;
    let config = issuer.kubeconfig(&world, "localhost", &token, "");
    let client = world.connect(&config).await.unwrap();
    list(&client).await.unwrap();
    assert_eq!(issuer.asked(), []);
    assert_eq!(written(&world), config);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_token_is_renewed_before_the_first_request_and_kept() {
    let (old, fresh) = (jwt("old", -5), jwt("fresh", 3600));
    let world = world(&fresh).await;
    let issuer = Issuer::start(&world, "", Habit::Grant(fresh.clone())).await;
    let config = issuer.kubeconfig(&world, "localhost", &old, ", client-secret: 'a b'");
    let client = world.connect(&config).await.unwrap();
    list(&client).await.unwrap();
    let login = format!("Basic {}", BASE64_STANDARD.encode("kdev:a%20b"));
    let body = "grant_type=refresh_token&refresh_token=r%2D1".to_owned();
    assert_eq!(issuer.asked(), [(login, body)]);
    let kept = config.replace(&old, &format!("{fresh:?}"));
    assert_eq!(written(&world), kept.replace("r-1", "\"r-2\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_a_secret_and_with_one_in_the_body() {
    let (old, fresh) = (jwt("old", -5), jwt("fresh", 3600));
    let post = r#","token_endpoint_auth_methods_supported":["client_secret_post"]"#;
    for (methods, more, end) in [
        ("", "", "&client_id=kdev"),
        (
            post,
            ", client-secret: s",
            "&client_id=kdev&client_secret=s",
        ),
    ] {
        let world = world(&fresh).await;
        let issuer = Issuer::start(&world, methods, Habit::Grant(fresh.clone())).await;
        let config = issuer.kubeconfig(&world, "localhost", &old, more);
        list(&world.connect(&config).await.unwrap()).await.unwrap();
        let (authorization, body) = issuer.asked().remove(0);
        assert_eq!(authorization, "");
        assert!(body.ends_with(end), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_renewed_once_for_all_who_wait() {
    let (revoked, fresh) = (jwt("revoked", 3600), jwt("fresh", 3600));
    let world = world(&fresh).await;
    let issuer = Issuer::start(&world, "", Habit::Grant(fresh)).await;
    let config = issuer.kubeconfig(&world, "localhost", &revoked, "");
    let client = world.connect(&config).await.unwrap();
    for result in futures_util::future::join_all((0..20).map(|_| list(&client))).await {
        result.unwrap();
    }
    assert_eq!(issuer.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_ends_the_session_with_one_clear_line() {
    let token = jwt("first", 3600);
    let world = world(&token).await;
    let issuer = Issuer::start(&world, "", Habit::Refuse).await;
    let config = issuer.kubeconfig(&world, "localhost", &token, ", client-secret: hidden");
    let client = world.connect(&config).await.unwrap();
    list(&client).await.unwrap();
    world.cluster.revoke_token(&token);
    for _ in 0..3 {
        let text = list(&client).await.unwrap_err().to_string();
        assert!(text.starts_with("log in again: "), "{text}");
        assert!(text.contains("invalid_grant: … is revoked"), "{text}");
    }
    assert_eq!(
        issuer.asked().len(),
        1,
        "what is refused is not asked for again"
    );
    let lost = tokio::time::timeout(Duration::from_secs(30), client.lost());
    let lost = lost.await.unwrap();
    assert!(lost.to_string().starts_with("log in again: "), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_is_given_up() {
    let world = World::new(Options::default()).await;
    let issuer = Issuer::start(&world, "", Habit::Hang).await;
    let config = issuer.kubeconfig(&world, "localhost", &jwt("old", -5), "");
    let text = world.connect(&config).await.unwrap_err().to_string();
    assert!(text.contains("did not answer within 10 s"), "{text}");
    assert!(!text.contains("r-1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_another_program_renewed_meanwhile_is_taken() {
    let (old, theirs) = (jwt("old", -5), jwt("theirs", 3600));
    let world = world(&theirs).await;
    let issuer = Issuer::start(&world, "", Habit::Refuse).await;
    let config = issuer.kubeconfig(&world, "localhost", &old, "");
    let renewed = config.replace(&old, &theirs).replace("r-1", "r-2");
    // It used the refresh token up while this one was being sent.
    let file = world.dir.path().join("config");
    *issuer.meanwhile.lock().unwrap() = Some((file, renewed));
    list(&world.connect(&config).await.unwrap()).await.unwrap();
    assert_eq!(issuer.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_is_reached_through_the_proxy_of_its_host() {
    let (old, fresh) = (jwt("old", -5), jwt("fresh", 3600));
    let world = world(&fresh).await;
    let issuer = Issuer::start(&world, "", Habit::Grant(fresh.clone())).await;
    let tunnels = Arc::new(AtomicUsize::new(0));
    let proxy = proxy(&world, issuer.addr, &tunnels).await;
    let config = issuer.kubeconfig(&world, "idp.corp.test", &old, "");
    let options = KubeOptions {
        kubeconfig: Some(world.write("config", &config)),
        ..KubeOptions::default()
    };
    let vars = ProxyVars {
        https: format!("http://{proxy}"),
        ..ProxyVars::default()
    };
    let environment = Environment {
        proxies: Proxies::new(vars, None),
        ..Environment::default()
    };
    let client = Client::connect_in(options, environment, &world.tasks).await;
    list(&client.unwrap()).await.unwrap();
    assert_eq!(tunnels.load(Ordering::Relaxed), 2, "discovery and token");
}

/// A proxy that takes every CONNECT to `origin`.
async fn proxy(world: &World, origin: SocketAddr, tunnels: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (group, tunnels) = (world.tasks.clone(), Arc::clone(tunnels));
    world.tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tunnels = Arc::clone(&tunnels);
            group.spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                assert!(line.starts_with("CONNECT idp.corp.test:"), "{line}");
                while line.trim() != "" {
                    line.clear();
                    stream.read_line(&mut line).await.unwrap();
                }
                tunnels.fetch_add(1, Ordering::Relaxed);
                let mut upstream = TcpStream::connect(origin).await.unwrap();
                let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
                stream.write_all(established).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_nothing_renews_says_so() {
    let world = World::new(Options::default()).await;
    let issuer = Issuer::start(&world, "", Habit::Refuse).await;
    let config = issuer.kubeconfig(&world, "localhost", &jwt("old", -5), "");
    let error = world
        .connect(&config.replace(", refresh-token: r-1", ""))
        .await;
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("log in again: "), "{text}");
    assert_eq!(issuer.asked(), []);

    let gcp = config.replace("name: oidc", "name: gcp");
    let text = world.connect(&gcp).await.unwrap_err().to_string();
    assert!(text.contains("gke-gcloud-auth-plugin"), "{text}");

    let both = config.replace("auth-provider:", "exec: {command: x}\n    auth-provider:");
    let text = world.connect(&both).await.unwrap_err().to_string();
    assert!(text.contains("both a credential plugin"), "{text}");

    let untrusted = config.replace(&issuer.ca, &BASE64_STANDARD.encode(world.cluster.ca_pem()));
    let text = world.connect(&untrusted).await.unwrap_err().to_string();
    assert!(
        text.contains("is signed by \"rcgen self signed cert\""),
        "{text}"
    );
}
