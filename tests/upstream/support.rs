//! A proxy of the company, which resolves names that nobody else does.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kdev::task::Tasks;
use kdev::upstream::{Helper, Proxies, ProxyVars};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a proxy answers to one request: nothing to let it through, or a whole response.
pub(crate) type Judge = dyn Fn(&Request) -> Option<String> + Send + Sync;

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    /// Which request of its connection it is, from 0.
    pub(crate) nth: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter_map(|line| line.split_once(": "));
        all.find_map(|(n, value)| n.eq_ignore_ascii_case(name).then_some(value))
    }
}

pub(crate) struct Corporate {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
    pub(crate) tasks: Tasks,
}

pub(crate) const LOGIN: &str = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 0\r\n\r\n";

impl Corporate {
    /// Names end at `origin`, whatever they are.
    pub(crate) async fn start(
        origin: SocketAddr,
        judge: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, tasks) = (Arc::default(), Tasks::new());
        let judge: Arc<Judge> = Arc::new(judge);
        let (log, group) = (Arc::clone(&seen), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (judge, log) = (Arc::clone(&judge), Arc::clone(&log));
                group.spawn(async move {
                    // The other side may leave whenever it wants.
                    let _ = serve(stream, origin, &*judge, &log).await;
                });
            }
        });
        Self { addr, seen, tasks }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|request| request.line.clone()).collect()
    }

    /// Every variable leads here.
    pub(crate) fn proxies(&self, login: &str, helper: Option<&str>) -> Proxies {
        let url = format!("http://{login}{}", self.addr);
        let vars = ProxyVars {
            https: url.clone(),
            http: url,
            no: ".direct.test".into(),
            ..ProxyVars::default()
        };
        Proxies::new(vars, helper.and_then(Helper::new))
    }
}

async fn serve(
    stream: TcpStream,
    origin: SocketAddr,
    judge: &Judge,
    log: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    for nth in 0.. {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let request = Request {
            line: head.remove(0),
            headers: head,
            nth,
        };
        log.lock().unwrap().push(request.clone());
        if let Some(answer) = judge(&request) {
            stream.write_all(answer.as_bytes()).await?;
            if answer.contains("Connection: close") {
                return stream.shutdown().await;
            }
            continue;
        }
        if request.line.starts_with("CONNECT ") {
            let mut upstream = TcpStream::connect(origin).await?;
            stream
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await?;
            return Ok(());
        }
        let body = format!("proxied {}", request.line);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// A server that says `hello` to whoever connects, and ends.
pub(crate) async fn hello(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"hello").await;
        }
    });
    addr
}

pub(crate) async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut text));
    read.await.expect("the stream ends").unwrap();
    text
}

/// A helper script in `folder` that counts its runs in the file `runs`.
pub(crate) fn script(folder: &tempfile::TempDir, text: &str) -> (String, PathBuf) {
    let path = folder.path().join("helper");
    let runs = folder.path().join("runs");
    std::fs::write(&path, format!("echo run >> {}\n{text}\n", runs.display())).unwrap();
    (format!("sh {}", path.display()), runs)
}

pub(crate) fn count(runs: &PathBuf) -> usize {
    std::fs::read_to_string(runs).map_or(0, |text| text.lines().count())
}
