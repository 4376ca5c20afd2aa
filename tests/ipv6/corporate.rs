//! An API server with an IPv6 address behind a corporate proxy with another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use kdev::task::Tasks;
use kdev::upstream::{Carries, ProxyVars};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Stage, finish, text};

/// An address for documentation (RFC 3849), which nothing here dials.
const API: &str = "[2001:db8::6443]:6443";

/// A CONNECT proxy whose every tunnel ends at `origin`, and what it was asked for.
async fn proxy(origin: SocketAddr, tasks: &Tasks) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, group) = (asked.clone(), tasks.clone());
    tasks.spawn(async move {
        while let Ok((app, _)) = listener.accept().await {
            let log = log.clone();
            group.spawn(async move {
                // Either side may leave whenever it wants.
                let _ = tunnel(app, origin, &log).await;
            });
        }
    });
    (address, asked)
}

async fn tunnel(
    app: TcpStream,
    origin: SocketAddr,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut app = BufReader::new(app);
    let mut line = String::new();
    app.read_line(&mut line).await?;
    log.lock().unwrap().push(line.trim_end().to_owned());
    while line != "\r\n" {
        line.clear();
        app.read_line(&mut line).await?;
    }
    let mut origin = TcpStream::connect(origin).await?;
    app.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut app, &mut origin).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_is_asked_for_an_address_in_brackets() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let tasks = Tasks::new();
    let (proxy, asked) = proxy(stage.cluster.address(), &tasks).await;
    let server = format!("https://{API}\n    tls-server-name: localhost");
    let config = stage.cluster.kubeconfig("dev", "shop");
    let config = config.replace(&stage.cluster.url(), &server);
    std::fs::write(stage.folder.path().join("kubeconfig"), config).unwrap();
    let mut command = stage.kdev(&["resolve", "six:80"]);
    command.env("HTTPS_PROXY", format!("http://{proxy}"));
    // None of these is the API server.
    let past = "2001:db8::1,[2001:db8::6443]:443,fd00::/8,2001:db9::/32,::1";
    command.env("NO_PROXY", past);
    let output = finish(command).await;
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("six-0"), "{said}");
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    for line in asked {
        assert_eq!(line, format!("CONNECT {API} HTTP/1.1"));
    }
    tasks.shutdown(std::time::Duration::ZERO).await;
}

#[test]
fn what_is_listed_goes_past_the_proxy() {
    let goes = |list: &str| {
        let vars = ProxyVars {
            https: "http://[fd00::3128]:3128".to_owned(),
            no: list.to_owned(),
            ..ProxyVars::default()
        };
        let chosen = vars.choose(&API.parse().unwrap(), Carries::Stream);
        chosen.map(|(url, _)| url.to_owned())
    };
    for past in [
        "2001:db8::6443",
        "2001:0db8:0:0::6443",
        "[2001:db8::6443]",
        "[2001:db8::6443]:6443",
        "2001:db8::/32",
        "corp.example, 2001:db8::/32",
        "::/0",
        "*",
    ] {
        assert_eq!(goes(past), None, "{past}");
    }
    for through in [
        "",
        "2001:db8::6444",
        "[2001:db8::6443]:443",
        "fd00::/8",
        "0.0.0.0/0",
    ] {
        assert_eq!(
            goes(through).as_deref(),
            Some("http://[fd00::3128]:3128"),
            "{through}"
        );
    }
}
