//! Requests that are marked on their way to some ports of Services, in whichever way they come, and
//! all else, which stays as it is.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use kdev::addr::{Host, Namespaced, Target};
use kdev::dial::{
    DialError, DialPods, Endpoints, Inside, Laptop, Marker, Notes, Resolution, Resolve, Router,
    Standing, Wanted,
};
use kdev::io::BoxIo;
use kdev::proxy::{Access, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::support::{Proxy, read_all, read_head, read_until, within};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// What a marked request has.
const MARK: &str = "x-mark: ada\r\n";

/// A cluster whose Services are servers of the test.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<HashMap<String, SocketAddr>>>);

impl Cluster {
    fn find(&self, target: &Target) -> Option<(String, SocketAddr)> {
        let Host::Name(name) = &target.host else {
            return None;
        };
        let address = *self.0.lock().unwrap().get(&target.to_string())?;
        Some((name.clone(), address))
    }
}

impl Resolve for Cluster {
    fn resolve_as(&self, wanted: Wanted<'_>, _: &mut Notes) -> Resolution {
        match self.find(wanted.target) {
            Some((name, _)) if name == "alias" => Resolution::Alias {
                service: Namespaced::new("shop", name),
                name: "web".to_owned(),
            },
            Some((name, _)) => Resolution::Pods(Endpoints {
                service: Some(Namespaced::new("shop", name)),
                pods: Vec::new(),
                declared: true,
                inside: Inside::default(),
            }),
            None => Resolution::Elsewhere,
        }
    }

    async fn learn_as(&self, wanted: Wanted<'_>, notes: &mut Notes) -> Resolution {
        self.resolve_as(wanted, notes)
    }
}

impl DialPods for Cluster {
    type Io = BoxIo;

    async fn dial_pods(&self, target: &Target, _: &Endpoints) -> Result<BoxIo, DialError> {
        let (_, address) = self.find(target).unwrap();
        Ok(Box::new(TcpStream::connect(address).await.unwrap()))
    }
}

/// Marks the requests of these Services' ports.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<HashSet<(String, u16)>>>);

impl Marks {
    fn begin(&self, service: &str, port: u16) {
        self.0.lock().unwrap().insert((service.to_owned(), port));
    }

    fn end(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl Marker for Marks {
    fn any(&self) -> bool {
        !self.0.lock().unwrap().is_empty()
    }

    fn standing(&self, service: &Namespaced, port: u16) -> Option<Standing> {
        let marked = self.0.lock().unwrap();
        let marked = marked.contains(&(service.to_string(), port));
        marked.then_some(Standing::Settled)
    }

    fn mark(&self, service: &Namespaced, port: u16, headers: &mut HeaderMap) {
        assert!(self.standing(service, port).is_some());
        let value = HeaderValue::from_static("ada");
        headers.entry("x-mark").or_insert(value);
    }
}

/// A proxy in front of the cluster, and what its servers heard.
struct Stage {
    proxy: Proxy,
    cluster: Cluster,
    marks: Marks,
    heard: mpsc::UnboundedReceiver<String>,
    hear: mpsc::UnboundedSender<String>,
}

impl Stage {
    /// With `web:80`, which is marked, and `api:80`, which is not: they tell each head that they get,
    /// and answer it.
    async fn set_up() -> Self {
        let (cluster, marks) = (Cluster::default(), Marks::default());
        let laptop = Laptop { loopback: true };
        let marker: Arc<dyn Marker> = Arc::new(marks.clone());
        let router =
            Router::new(cluster.clone(), cluster.clone(), laptop).with_marker(Some(marker));
        let config = Config::new(Access::SameUser { password: None });
        let proxy = Proxy::dialling(router, config).await;
        let (hear, heard) = mpsc::unbounded_channel();
        let stage = Self {
            proxy,
            cluster,
            marks,
            heard,
            hear,
        };
        for name in ["web:80", "web:81", "api:80"] {
            let hear = stage.hear.clone();
            let serve = move |mut stream: TcpStream| {
                let hear = hear.clone();
                async move {
                    while let Some(head) = read_head(&mut stream).await {
                        hear.send(head).unwrap();
                        stream.write_all(OK.as_bytes()).await.unwrap();
                    }
                }
            };
            stage.server(name, serve).await;
        }
        stage.marks.begin("web.shop", 80);
        stage
    }

    /// Gives `name` to a server of its own; gives its address.
    async fn server<F, Fut>(&self, name: &str, serve: F) -> SocketAddr
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut all = self.cluster.0.lock().unwrap();
        all.insert(name.to_owned(), address);
        drop(all);
        let tasks = self.proxy.tasks.clone();
        self.proxy.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(serve(stream));
            }
        });
        address
    }

    /// The next head that a server got.
    async fn head(&mut self) -> String {
        within(self.heard.recv()).await.unwrap()
    }

    /// What a server got of `GET http://TARGET/`, with these lines besides.
    async fn absolute(&mut self, target: &str, lines: &str) -> String {
        let request =
            format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        let answer = self.proxy.ask(request).await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        self.head().await
    }

    /// A stream to a port through the proxy, opened in one of its ways.
    async fn stream(&self, way: &str, name: &str, port: u8) -> TcpStream {
        let mut stream = self.proxy.connect().await;
        let (length, name) = (name.len() as u8, name.as_bytes());
        let (request, reply) = match way {
            "connect" => {
                let name = String::from_utf8_lossy(name);
                let request = format!("CONNECT {name}:{port} HTTP/1.1\r\n\r\n");
                (request.into_bytes(), "HTTP/1.1 200 OK\r\n\r\n".len())
            }
            "socks5" => {
                let head = [&[5, 1, 0, 5, 1, 0, 3, length][..], name, &[0, port]];
                (head.concat(), 12)
            }
            _ => {
                let head = [&[4, 1, 0, port, 0, 0, 0, 1, 0][..], name, &[0]];
                (head.concat(), 8)
            }
        };
        stream.write_all(&request).await.unwrap();
        let mut granted = vec![0; reply];
        within(stream.read_exact(&mut granted)).await.unwrap();
        stream
    }
}

const WAYS: [&str; 3] = ["connect", "socks5", "socks4"];

#[tokio::test]
async fn only_what_goes_to_the_port_is_marked() {
    let mut stage = Stage::set_up().await;
    for (target, marked) in [
        ("web", true),
        ("web:80", true),
        ("web:81", false),
        ("api", false),
    ] {
        let head = stage.absolute(target, "").await;
        assert_eq!(head.contains(MARK), marked, "{target}: {head}");
    }
    // What says already whose it is stays as it is.
    let head = stage.absolute("web", "X-Mark: bob\r\n").await;
    assert!(
        head.contains("X-Mark: bob") && !head.contains("ada"),
        "{head}"
    );
    // By another name it is the same, and what is no Service's is not.
    let address = stage.cluster.0.lock().unwrap()["web:80"];
    stage
        .cluster
        .0
        .lock()
        .unwrap()
        .insert("alias:80".to_owned(), address);
    let head = stage.absolute("alias", "").await;
    assert!(head.contains(MARK), "{head}");
    let head = stage.absolute(&address.to_string(), "").await;
    assert!(!head.contains("x-mark"), "{head}");
}

#[tokio::test]
async fn it_begins_and_ends_with_the_next_request() {
    let mut stage = Stage::set_up().await;
    let mut app = stage.proxy.connect().await;
    let mut one = async |stage: &mut Stage| {
        app.write_all(b"GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n")
            .await
            .unwrap();
        assert!(read_until(&mut app, "\r\n\r\nok").await.is_some());
        let head = stage.head().await;
        (head.starts_with("new "), head.contains(MARK))
    };
    // Connections that lead to where requests went before are not used any more: pods may be there.
    assert_eq!(one(&mut stage).await, (false, true));
    assert_eq!(one(&mut stage).await, (false, true));
    stage.marks.end();
    let hear = stage.hear.clone();
    stage
        .server("web:80", move |mut stream| {
            let hear = hear.clone();
            async move {
                while let Some(head) = read_head(&mut stream).await {
                    hear.send(format!("new {head}")).unwrap();
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
            }
        })
        .await;
    assert_eq!(one(&mut stage).await, (true, false));
    stage.marks.begin("web.shop", 80);
    for _ in 0..3 {
        assert_eq!(one(&mut stage).await, (true, true));
    }
}

#[tokio::test]
async fn each_request_inside_a_stream_is_marked() {
    let mut stage = Stage::set_up().await;
    for way in WAYS {
        let mut app = stage.stream(way, "web", 80).await;
        for (n, line) in ["", "X-Mark: bob\r\n", ""].into_iter().enumerate() {
            let request = format!("GET /{n} HTTP/1.1\r\nHost: web\r\n{line}\r\n");
            // In pieces, as networks deliver it.
            for piece in request.as_bytes().chunks(20) {
                app.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(read_until(&mut app, "\r\n\r\nok").await.is_some());
            let head = stage.head().await;
            assert!(head.starts_with(&format!("GET /{n} ")), "{way}: {head}");
            assert_eq!(head.contains(MARK), line.is_empty(), "{way}: {head}");
        }
        // Two at once.
        let request = "GET /a HTTP/1.1\r\nHost: web\r\n\r\nGET /b HTTP/1.1\r\nHost: web\r\n\r\n";
        app.write_all(request.as_bytes()).await.unwrap();
        for path in ["a", "b"] {
            assert!(read_until(&mut app, "\r\n\r\nok").await.is_some());
            let head = stage.head().await;
            let begins = format!("GET /{path} HTTP/1.1\r\n");
            assert!(head.starts_with(&begins) && head.contains(MARK), "{head}");
        }
        // And none once it has ended.
        stage.marks.end();
        app.write_all(b"GET /c HTTP/1.1\r\nHost: web\r\n\r\n")
            .await
            .unwrap();
        assert!(!stage.head().await.contains(MARK));
        stage.marks.begin("web.shop", 80);
    }
}

#[tokio::test]
async fn bodies_go_through_whole() {
    let stage = Stage::set_up().await;
    let echo = |mut stream: TcpStream| async move {
        while let Some(head) = read_head(&mut stream).await {
            assert!(head.contains(MARK), "{head}");
            let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
                true => read_until(&mut stream, "\r\n0\r\n\r\n").await.unwrap(),
                false => read_until(&mut stream, "GET / HTTP/1.1\r\n\r\n")
                    .await
                    .unwrap(),
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    stage.server("web:80", echo).await;
    for way in WAYS {
        let mut app = stage.stream(way, "web", 80).await;
        // A body that looks like a request is none.
        let body = "GET / HTTP/1.1\r\n\r\n";
        let request = format!(
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        app.write_all(request.as_bytes()).await.unwrap();
        read_head(&mut app).await.unwrap();
        assert_eq!(read_until(&mut app, body).await.unwrap(), body);
        let head = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
        app.write_all(head.as_bytes()).await.unwrap();
        app.write_all(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut app).await.unwrap();
        let body = read_until(&mut app, "0\r\n\r\n").await.unwrap();
        assert!(body.contains("one") && body.contains("two"), "{body}");
    }
}

#[tokio::test]
async fn who_waits_for_100_gets_it_from_the_server() {
    let stage = Stage::set_up().await;
    stage
        .server("web:80", |mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(
                head.contains(MARK) && head.contains("100-continue"),
                "{head}"
            );
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(read_until(&mut stream, "body").await.unwrap(), "body");
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
    let mut app = stage.stream("connect", "web", 80).await;
    let head = "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    app.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut app).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
    app.write_all(b"body").await.unwrap();
    assert!(read_until(&mut app, "\r\n\r\nok").await.is_some());
}

#[tokio::test]
async fn an_upgrade_is_marked_and_what_follows_is_not_looked_at() {
    let stage = Stage::set_up().await;
    stage
        .server("web:80", |mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains(MARK), "{head}");
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\nhi";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let said = read_all(&mut stream).await;
            stream.write_all(said.as_bytes()).await.unwrap();
        })
        .await;
    for way in WAYS {
        let mut app = stage.stream(way, "web", 80).await;
        let after = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        let head = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: odd\r\n\r\n";
        app.write_all(head.as_bytes()).await.unwrap();
        let head = read_head(&mut app).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        app.write_all(after.as_bytes()).await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(read_all(&mut app).await, format!("hi{after}"));
    }
}

/// Has `web:80`, which is marked, and `api:80`, which is not, say a word first where there is one, and
/// send back all that they get to its end.
async fn echoing(stage: &Stage, first: &'static str) {
    for name in ["web:80", "api:80"] {
        let echo = move |mut stream: TcpStream| async move {
            stream.write_all(first.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
        };
        stage.server(name, echo).await;
    }
}

#[tokio::test]
async fn what_is_no_http_or_goes_elsewhere_stays_byte_for_byte() {
    let stage = Stage::set_up().await;
    echoing(&stage, "").await;
    let odd = "gEt  /  HTTP/1.1\r\nhOST :web\r\n\r\n";
    for way in WAYS {
        for (name, said) in [
            ("api", "GET / HTTP/1.1\r\nhOsT: api\r\n\r\n"),
            ("api", odd),
            ("web", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}"),
            ("web", "*1\r\n$4\r\nPING\r\n"),
            (
                "web",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
            ),
            ("web", "GET"),
            ("web", ""),
        ] {
            let mut app = stage.stream(way, name, 80).await;
            app.write_all(said.as_bytes()).await.unwrap();
            app.shutdown().await.unwrap();
            assert_eq!(read_all(&mut app).await, said, "{way} {name}");
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_who_speaks_second() {
    let stage = Stage::set_up().await;
    echoing(&stage, "220 ready\r\n").await;
    for way in WAYS {
        let began = Instant::now();
        let mut app = stage.stream(way, "web", 80).await;
        assert!(read_until(&mut app, "220 ready\r\n").await.is_some());
        assert!(began.elapsed() < Duration::from_secs(1), "{way}");
        // HTTP behind it is none.
        let said = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        app.write_all(said.as_bytes()).await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(read_all(&mut app).await, said, "{way}");
    }
}

#[tokio::test]
async fn half_a_line_is_not_kept_for_ever() {
    let stage = Stage::set_up().await;
    stage
        .server("web:80", |mut stream| async move {
            assert_eq!(read_until(&mut stream, "HELLO").await.unwrap(), "HELLO");
            stream.write_all(b"hello\n").await.unwrap();
        })
        .await;
    let mut app = stage.stream("socks5", "web", 80).await;
    app.write_all(b"HELLO").await.unwrap();
    assert_eq!(read_until(&mut app, "\n").await.unwrap(), "hello\n");
}
