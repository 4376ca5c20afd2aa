//! Apps and pods that close idle connections without a word.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kdev::rule::{AppProtocol, Condition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::support::*;

/// How long the end of a connection is on its way.
const DISTANCE: Duration = Duration::from_millis(3);

/// A server that forgets connections that are idle for a time.
#[derive(Clone)]
struct Forgetful {
    idle: Duration,
    connections: Arc<AtomicUsize>,
    /// How often each request was served.
    served: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Forgetful {
    async fn start(at: SocketAddr, idle: Duration) -> (Self, SocketAddr) {
        let this = Self {
            idle,
            connections: Arc::default(),
            served: Arc::default(),
        };
        let listener = TcpListener::bind(at).await.unwrap();
        let (at, server) = (listener.local_addr().unwrap(), this.clone());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                server.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(server.clone().serve(socket));
            }
        });
        (this, at)
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut patience = Duration::from_secs(10);
        loop {
            let Ok(Some(head)) = timeout(patience, read_request(&mut socket)).await else {
                // It is closed, and the other side does not know it yet.
                return sleep(DISTANCE).await;
            };
            patience = self.idle;
            let id = head.lines().find_map(|line| line.strip_prefix("x-id: "));
            let id = id.unwrap_or("none").to_owned();
            *self.served.lock().unwrap().entry(id).or_default() += 1;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if socket.write_all(answer).await.is_err() {
                return;
            }
        }
    }

    fn count(&self) -> usize {
        self.connections.swap(0, Ordering::SeqCst)
    }

    /// That each of so many requests was served once.
    #[track_caller]
    fn assert_once(&self, requests: usize) {
        let served = std::mem::take(&mut *self.served.lock().unwrap());
        assert_eq!(served.len(), requests);
        assert!(served.values().all(|times| *times == 1), "{served:?}");
    }
}

/// One request with its body.
async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let value = value.parse::<usize>().ok()?;
                name.eq_ignore_ascii_case("content-length").then_some(value)
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        if socket.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

/// Sends a request on a connection of its own; its status.
async fn send(stage: &Stage, method: &str, user: &str, id: &str) -> String {
    let body = if method == "GET" { "" } else { "0123456789" };
    let text = format!(
        "{method} / HTTP/1.1\r\nHost: x\r\nx-user: {user}\r\nx-id: {id}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stage.raw(&text).await
}

/// A relay with forgetful pods, and an app as forgetful for `x-user: ann`.
async fn set_up(idle: Duration) -> (Stage, Kdev, [(&'static str, Forgetful); 2]) {
    let stage = Stage::set_up().await;
    let (pods, _) = Forgetful::start((LOCAL, stage.first).into(), idle).await;
    let (app, at) = Forgetful::start((LOCAL, 0).into(), idle).await;
    let mut ann = stage.kdev("ann", at).await;
    let mut claim = ann.claim("ann", &[Condition::header("x-user: ann").unwrap()]);
    claim.protocol = AppProtocol::Http;
    ann.attach(claim).await;
    (stage, ann, [("ann", app), ("eve", pods)])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_post_meets_a_connection_that_is_just_being_closed() {
    for (idle, count) in [(5, 500), (20, 250)] {
        let (stage, _ann, servers) = set_up(Duration::from_millis(idle)).await;
        for (user, server) in servers {
            for n in 0..count {
                // Around the moment when the last one is closed.
                let around = idle * 750 + n * idle * 500 / count;
                sleep(Duration::from_micros(around)).await;
                let method = ["POST", "PATCH", "PUT", "DELETE", "POST"][n as usize % 5];
                let answer = send(&stage, method, user, &n.to_string()).await;
                assert!(answer.contains("200 OK"), "{user} {n}: {method}: {answer}");
            }
            server.assert_once(count as usize);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_many_at_a_time_where_each_is_closed_at_once() {
    let (stage, _ann, servers) = set_up(Duration::ZERO).await;
    for (user, server) in servers {
        let stage = &stage;
        let callers = (0..8).map(|caller| async move {
            for n in 0..100 {
                let answer = send(stage, "POST", user, &format!("{caller}-{n}")).await;
                assert!(answer.contains("200 OK"), "{user} {caller}-{n}: {answer}");
                // So that it takes as long as a proof would.
                sleep(Duration::from_millis(20)).await;
            }
        });
        futures_util::future::join_all(callers).await;
        server.assert_once(800);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_for_what_may_be_sent_twice() {
    let (stage, _ann, servers) = set_up(Duration::from_secs(10)).await;
    for (user, server) in &servers {
        for n in 0..40 {
            send(&stage, "GET", user, &n.to_string()).await;
        }
        // The pods' turn over after ten requests.
        let connections = server.count();
        assert!(connections <= 5, "{user}: {connections}");
        for n in 0..10 {
            send(&stage, "POST", user, &n.to_string()).await;
        }
        assert_eq!(server.count(), 10, "{user}");
    }
}
