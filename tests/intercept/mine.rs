//! One's own requests through the proxy of `connect` and `run`, which say whose they are where one
//! intercepts with `--mine`.

use std::net::SocketAddr;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::support::{Live, Team, app, until};

/// What kdev says once it marks requests of the Service.
const NOTE: &str = "requests to cart carry baggage kdev=ada from now on";

/// The ways through the proxy.
const WAYS: [&str; 3] = ["absolute", "connect", "socks5"];

/// A `kdev connect`.
struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    async fn of(team: &Team, owner: &str, args: &[&str]) -> Self {
        // The relays of the simulation dial no more than its Services' own pods.
        let first = ["connect", "--json", "--via", "direct"];
        let mut command = team.command(owner, &[&first, args].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).await.unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let address = ready["proxy"].as_str().unwrap().parse().unwrap();
        Self { child, address }
    }

    /// A connection on which requests of the way go to the Service.
    async fn open(&self, way: &str) -> Requests {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (request, reply): (&[u8], usize) = match way {
            "connect" => (
                b"CONNECT cart:8080 HTTP/1.1\r\n\r\n",
                "HTTP/1.1 200 OK\r\n\r\n".len(),
            ),
            "socks5" => (b"\x05\x01\x00\x05\x01\x00\x03\x04cart\x1f\x90", 12),
            _ => (b"", 0),
        };
        stream.write_all(request).await.unwrap();
        stream.read_exact(&mut vec![0; reply]).await.unwrap();
        let target = match way {
            "absolute" => "http://cart:8080/c",
            _ => "/c",
        };
        Requests { stream, target }
    }

    /// Who answers a request that comes by this way.
    async fn answer(&self, way: &str) -> String {
        self.open(way).await.answer().await
    }

    /// Ends it, and gives what it said.
    async fn said(mut self) -> String {
        self.child.start_kill().unwrap();
        let output = self.child.wait_with_output().await.unwrap();
        String::from_utf8(output.stderr).unwrap()
    }
}

struct Requests {
    stream: TcpStream,
    target: &'static str,
}

impl Requests {
    /// Who answers the next request of the connection.
    async fn answer(&mut self) -> String {
        let request = format!("GET {} HTTP/1.1\r\nHost: cart:8080\r\n\r\n", self.target);
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split_once("content-length: ").unwrap().1;
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }
}

const PODS: &str = "not found\n";

#[tokio::test(flavor = "multi_thread")]
async fn they_come_to_the_app_while_nobody_elses_do() {
    let team = Team::set_up().await;
    let adas = Proxy::of(&team, "ada", &[]).await;
    let bobs = Proxy::of(&team, "bob", &[]).await;
    let off = Proxy::of(&team, "ada", &["--mine-header", "off"]).await;
    let mut kept = adas.open("absolute").await;
    assert_eq!(kept.answer().await, PODS);

    let live = team.intercept("ada", app("ada's").await, &["--mine"]).await;
    until("her proxy knows of it", || async {
        adas.answer("absolute").await == "ada's"
    })
    .await;
    // Also on the connection that was there before.
    for _ in 0..3 {
        assert_eq!(kept.answer().await, "ada's");
    }
    for way in WAYS {
        let mut requests = adas.open(way).await;
        for _ in 0..3 {
            assert_eq!(requests.answer().await, "ada's", "{way}");
        }
        for other in [&bobs, &off] {
            assert_eq!(other.answer(way).await, PODS, "{way}");
        }
    }
    assert!(team.is_at_the_pods("").await);

    live.end().await;
    until("her proxy knows that it has ended", || async {
        adas.answer("connect").await == PODS
    })
    .await;
    assert_eq!(kept.answer().await, PODS);
    let said = adas.said().await;
    assert_eq!(said.matches(NOTE).count(), 1, "{said}");
    for other in [bobs, off] {
        let said = other.said().await;
        assert!(!said.contains("baggage"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_claim_with_mine_counts() {
    let team = Team::set_up().await;
    let adas = Proxy::of(&team, "ada", &[]).await;
    let header = ["--header", "x-user: ada"];
    let live = team.intercept("ada", app("ada's").await, &header).await;
    assert_eq!(team.get("x-user: ada").await.1, "ada's");
    for way in WAYS {
        assert_eq!(adas.answer(way).await, PODS, "{way}");
    }
    live.end().await;
    let said = adas.said().await;
    assert!(!said.contains("baggage"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_it_too() {
    let team = Team::set_up().await;
    let to = format!("cart={}", app("ada's").await);
    // The shell's own socket, for there may be no curl; and some tries, until the proxy knows of it.
    let get = r#"
        address=${HTTP_PROXY#http://}
        for try in $(seq $TRIES); do
            exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
            printf 'GET http://cart:8080/c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
            answer=$(cat <&3)
            case $answer in *"ada's") break;; esac
            sleep 0.1
        done
        echo "$answer""#;
    let run = |more: &'static [&'static str], tries: &'static str| {
        let first = ["run", "--via", "direct", "--intercept", &to, "--mine"];
        let args = [&first, more, &["--", "bash", "-c", get]].concat();
        let command = team.command("ada", &args);
        async move {
            let mut command = command;
            let command = command.env("PATH", "/usr/bin:/bin").env("TRIES", tries);
            command.output().await.unwrap()
        }
    };
    let done = run(&[], "100").await;
    let (out, said) = (
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8(done.stderr).unwrap(),
    );
    assert!(out.ends_with("ada's\n"), "{out}\n{said}");
    assert_eq!(said.matches(NOTE).count(), 1, "{said}");
    let done = run(&["--mine-header", "off"], "5").await;
    let out = String::from_utf8(done.stdout).unwrap();
    assert!(out.ends_with(PODS), "{out}");
}

/// The line to try of an intercept that begins now, once it is live, and its end.
async fn line_to_try(team: &Team, owner: &str, args: &[&str]) -> String {
    let to = app("new").await.to_string();
    let first = ["intercept", "cart", "--to", &to];
    let mut child = team
        .command(owner, &[&first, args].concat())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut found = None;
    loop {
        let line = told.next_line().await.unwrap().expect("it ended");
        if let Some(rest) = line.strip_prefix("  try   ") {
            found = Some(rest.to_owned());
        }
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    let live = Live::of_child(child);
    live.send(Signal::SIGINT);
    assert_eq!(live.ended().await, Some(0));
    found.expect("a line to try")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_to_try_leads_to_the_intercept_that_says_it() {
    let team = Team::set_up().await;
    let header = ["--header", "x-user: one"];
    let plain = "kdev run -n shop -- curl -H 'x-user: one' http://cart:8080/";
    assert_eq!(line_to_try(&team, "ada", &header).await, plain);
    let live = team.intercept("ada", app("old").await, &["--mine"]).await;
    // The older one has all that her proxy marks.
    let off = "kdev run --mine-header off -n shop -- curl -H 'x-user: one' http://cart:8080/";
    assert_eq!(line_to_try(&team, "ada", &header).await, off);
    assert_eq!(line_to_try(&team, "bob", &header).await, plain);
    // What has more conditions goes before it.
    let more = ["--header", "x-user: one", "--path-regex", "/v[0-9]+"];
    let line = "kdev run -n shop -- curl -H 'x-user: one' http://cart:8080/v0";
    assert_eq!(line_to_try(&team, "ada", &more).await, line);
    live.end().await;
}
