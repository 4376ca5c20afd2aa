//! What the command listens on.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::stage::{PATIENCE, Stage, text};

/// A command that listens.
struct Listening {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Listening {
    async fn start(stage: &Stage, at: &str, flags: &[&str]) -> Self {
        let mut kdev = stage.inside("listen", flags);
        let mut child = kdev.env("PORTS", at).stdin(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = Self::line(&mut lines, "listening ").await;
        let port = said.parse().unwrap();
        Self { child, lines, port }
    }

    /// The rest of the line that has `begin` in it: the test program may say something before.
    async fn line(lines: &mut Lines<BufReader<ChildStdout>>, begin: &str) -> String {
        let reading = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it ended");
                if let Some((_, rest)) = line.split_once(begin) {
                    return rest.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("it says nothing")
    }

    async fn end(mut self) -> String {
        self.child
            .stdin
            .take()
            .unwrap()
            .write_all(b"\n")
            .await
            .unwrap();
        let output = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await;
        let output = output.expect("kdev hangs").unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr)
    }
}

/// Tries until `port` answers `byte`, or until it does not any more.
fn answers(port: u16, byte: u8, wanted: bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&[byte])?;
            let mut back = [0];
            stream.read_exact(&mut back)?;
            Ok(back)
        });
        if asked.as_ref().is_ok_and(|back| *back == [byte]) == wanted {
            return;
        }
        assert!(Instant::now() < until, "port {port}: {asked:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_reachable_at_the_same_port_as_long_as_the_command_listens() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    for at in ["127.0.0.1:0", "0.0.0.0:0"] {
        let mut listening = Listening::start(&stage, at, &[]).await;
        answers(listening.port, b'a', true);
        answers(listening.port, b'q', true);
        Listening::line(&mut listening.lines, "closed").await;
        answers(listening.port, b'a', false);
        listening.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_reachable_where_publish_says() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    // The command has the same port for itself, which is taken outside.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let inside = taken.local_addr().unwrap().port();
    let publish = format!("{port}:{inside}");
    let at = format!("127.0.0.1:{inside}");
    let mut listening = Listening::start(&stage, &at, &["--publish", &publish]).await;
    answers(port, b'a', true);
    answers(port, b'q', true);
    Listening::line(&mut listening.lines, "closed").await;
    listening.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_outside_is_told_of() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listening = Listening::start(&stage, &format!("127.0.0.1:{port}"), &[]).await;
    // Longer than kdev takes to look.
    tokio::time::sleep(Duration::from_millis(600)).await;
    // And it is reachable as soon as the other one has ended.
    drop(taken);
    answers(port, b'a', true);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port_taken = taken.local_addr().unwrap().port();
    let mut child = listening.child;
    child.start_kill().unwrap();
    let said = text(&child.wait_with_output().await.unwrap().stderr);
    let word = format!("the command listens on port {port}, which only itself reaches");
    assert!(
        said.contains(&word) && said.contains("--publish OTHER"),
        "{said}"
    );

    let mut kdev = stage.kdev(&["run", "--publish", &port_taken.to_string(), "--", "true"]);
    let output = kdev.output().await.unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("cannot be listened on"),
        "{output:?}"
    );
}

/// This machine's address towards the world, where it has one. Asks the routing table, and sends nothing.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.88.99.1:9").ok()?;
    let ip = socket.local_addr().unwrap().ip();
    (!ip.is_loopback()).then_some(ip)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_sees_who_comes_and_may_listen_on_the_address_of_this_machine() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let Some(own) = own_address() else {
        return println!("this machine has no address but loopback");
    };
    let who = |port: u16| {
        let mut stream = TcpStream::connect((own, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"p").unwrap();
        let mut peer = String::new();
        stream.read_to_string(&mut peer).unwrap();
        peer
    };
    for at in ["0.0.0.0:0".to_owned(), format!("{own}:0")] {
        let mut listening = Listening::start(&stage, &at, &[]).await;
        if at.starts_with("0.0") {
            answers(listening.port, b'a', true);
        } else {
            Listening::line(&mut listening.lines, "reached itself").await;
        }
        // A server that trusts loopback must not take it for that.
        assert_eq!(who(listening.port), own.to_string(), "{at}");
        let mut stream = TcpStream::connect((own, listening.port)).unwrap();
        stream.write_all(b"q").unwrap();
        Listening::line(&mut listening.lines, "closed").await;
        listening.end().await;
    }
}
