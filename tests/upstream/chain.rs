//! kdev's own proxy in front of the company's.

use std::net::SocketAddr;

use kdev::addr::Target;
use kdev::dial::{Dial, DialError, Laptop};
use kdev::proxy::{self, Access, Config};
use kdev::task::Tasks;
use kdev::upstream::{Proxies, ProxyVars, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Corporate, LOGIN, Request, count, hello, read_all, script};

async fn kdev_at(listener: TcpListener, proxies: Proxies, tasks: &Tasks) {
    let upstream = Upstream::new(Laptop { loopback: true }, proxies);
    let config = Config::new(Access::SameUser { password: None });
    tasks.spawn(proxy::serve(listener, upstream, config, tasks.clone()));
}

async fn kdev(proxies: Proxies, tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    kdev_at(listener, proxies, tasks).await;
    addr
}

async fn ask(kdev: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(kdev).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

async fn get(kdev: SocketAddr, url: &str) -> String {
    let head = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ask(kdev, &head).await
}

/// SOCKS5 to a name: the reply, and what comes then.
async fn socks(kdev: SocketAddr, name: &str, port: u16) -> (u8, String) {
    let mut stream = TcpStream::connect(kdev).await.unwrap();
    let mut hello = vec![5, 1, 0, 5, 1, 0, 3, name.len() as u8];
    hello.extend(name.as_bytes());
    hello.extend(port.to_be_bytes());
    stream.write_all(&hello).await.unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).await.unwrap();
    (reply[3], read_all(&mut stream).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_into_kdev_goes_on_through_the_proxy() {
    let tasks = Tasks::new();
    let corporate = Corporate::start(hello(&tasks).await, |_: &Request| None).await;
    let kdev = kdev(corporate.proxies("", None), &tasks).await;
    assert_eq!(socks(kdev, "far.test", 443).await, (0, "hello".to_owned()));
    let said = ask(kdev, "CONNECT far.test:443 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(said.ends_with("\r\n\r\nhello"), "{said}");
    let said = get(kdev, "http://far.test/a?b=c").await;
    assert!(
        said.ends_with("proxied GET http://far.test/a?b=c HTTP/1.1"),
        "{said}"
    );
    let said = get(kdev, "http://far.test:8080/").await;
    assert!(
        said.ends_with("proxied GET http://far.test:8080/ HTTP/1.1"),
        "{said}"
    );
    let said = get(kdev, "http://no.direct.test/").await;
    assert!(said.contains("this machine resolves"), "past it: {said}");
    assert_eq!(corporate.lines().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_log_in_too() {
    let tasks = Tasks::new();
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, "Bearer one").unwrap();
    let accepted = good.clone();
    // As many do: a login for everything, and CONNECT to 443 only.
    let corporate = Corporate::start(hello(&tasks).await, move |request: &Request| {
        let good = std::fs::read_to_string(&accepted).unwrap();
        if request.header("proxy-authorization") != Some(good.as_str()) {
            return Some(LOGIN.to_owned());
        }
        let connect = request.line.starts_with("CONNECT ") && !request.line.contains(":443 ");
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        connect.then(|| refusal.to_owned())
    })
    .await;
    let (command, runs) = script(&folder, &format!("cat {}", good.display()));
    let kdev = kdev(corporate.proxies("", Some(&command)), &tasks).await;
    for _ in 0..2 {
        let said = get(kdev, "http://far.test/").await;
        assert!(said.contains("proxied GET http://far.test/ "), "{said}");
    }
    assert_eq!(count(&runs), 1);
    std::fs::write(&good, "Bearer two").unwrap();
    let said = get(kdev, "http://far.test/").await;
    assert!(said.contains("proxied GET"), "the next login: {said}");
    assert_eq!(count(&runs), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_407_is_kdevs_to_explain_and_not_the_apps() {
    let tasks = Tasks::new();
    let corporate = Corporate::start(hello(&tasks).await, |_: &Request| Some(LOGIN.to_owned()));
    let corporate = corporate.await;
    let kdev = kdev(corporate.proxies("me:secret@", None), &tasks).await;
    let connect = "CONNECT far.test:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for said in [
        get(kdev, "http://far.test/").await,
        ask(kdev, connect).await,
    ] {
        assert!(said.starts_with("HTTP/1.1 502 "), "{said}");
        assert!(said.contains("does not accept user \"me\""), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_port_is_dialled_directly_but_not_a_refused_website() {
    let tasks = Tasks::new();
    let origin = hello(&tasks).await;
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let corporate = Corporate::start(origin, move |_: &Request| Some(refusal.to_owned())).await;
    let upstream = Upstream::new(Laptop { loopback: true }, corporate.proxies("", None));
    let web: Target = "far.test:443".parse().unwrap();
    let error = upstream.dial(&web).await.err().unwrap();
    assert!(
        matches!(&error, DialError::Unreachable { reason, .. } if reason.contains("refuses")),
        "{error}"
    );
    let database: Target = "far.test:5432".parse().unwrap();
    let error = upstream.dial(&database).await.err().unwrap();
    assert!(error.to_string().contains("refuses"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_that_lead_to_each_other_end() {
    let tasks = Tasks::new();
    let bind = || TcpListener::bind("127.0.0.1:0");
    for scheme in ["http", "socks5"] {
        let (a, b) = (bind().await.unwrap(), bind().await.unwrap());
        let to = |listener: &TcpListener| {
            let url = format!("{scheme}://{}", listener.local_addr().unwrap());
            let vars = ProxyVars {
                https: url.clone(),
                http: url,
                ..ProxyVars::default()
            };
            Proxies::new(vars, None)
        };
        let (through_a, through_b) = (to(&a), to(&b));
        let address = a.local_addr().unwrap();
        kdev_at(a, through_b, &tasks).await;
        kdev_at(b, through_a, &tasks).await;
        let (code, _) = socks(address, "far.test", 443).await;
        assert_ne!(code, 0, "{scheme}");
        let said = get(address, "http://far.test/").await;
        assert!(said.starts_with("HTTP/1.1 50"), "{scheme}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_leads_to_kdev_itself_is_not_followed() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let vars = ProxyVars {
            all: format!("http://{host}:{}", address.port()),
            ..ProxyVars::default()
        };
        let proxies = Proxies::new(vars, None);
        proxies.is_own(address);
        let upstream = Upstream::new(Laptop { loopback: true }, proxies);
        let target = "no-such-host.invalid:443".parse().unwrap();
        let error = upstream.dial(&target).await.err().unwrap();
        assert!(matches!(error, DialError::NotFound { .. }), "{error}");
    }
    drop((tasks, listener));
}

#[tokio::test(flavor = "multi_thread")]
async fn socks5_proxies_get_the_name_and_the_login() {
    let tasks = Tasks::new();
    let origin = hello(&tasks).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut methods = [0; 4];
            stream.read_exact(&mut methods).await.unwrap();
            assert_eq!(methods, [5, 2, 0, 2]);
            stream.write_all(&[5, 2]).await.unwrap();
            let mut login = [0; 11];
            stream.read_exact(&mut login).await.unwrap();
            let good = login == *b"\x01\x02me\x06secret";
            stream.write_all(&[1, u8::from(!good)]).await.unwrap();
            let mut request = [0; 15];
            if !good || stream.read_exact(&mut request).await.is_err() {
                continue;
            }
            assert_eq!(request, *b"\x05\x01\x00\x03\x08far.test\x01\xbb");
            let ok = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            stream.write_all(&ok).await.unwrap();
            let mut upstream = TcpStream::connect(origin).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
        }
    });
    let dial = |password: &str| {
        let vars = ProxyVars {
            all: format!("socks5h://me:{password}@{addr}"),
            ..ProxyVars::default()
        };
        let upstream = Upstream::new(Laptop { loopback: true }, Proxies::new(vars, None));
        async move { upstream.dial(&"far.test:443".parse().unwrap()).await }
    };
    let mut stream = dial("secret").await.unwrap();
    assert_eq!(read_all(&mut stream).await, "hello");
    drop(stream);
    let error = dial("secreT").await.err().unwrap().to_string();
    assert!(error.contains("does not accept user \"me\""), "{error}");
}
