//! Callers on the cluster's side: this program again, started by `cluster/lab/node`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::load::{Via, bulk_down, bulk_up};
use super::measure::percentile;

/// The argument that makes this program a caller.
pub(crate) const CALL: &str = "--call";
/// What a request has to have to come to the app; `kdev intercept` is told the same.
pub(crate) const CONDITION: &str = "x-user: bench";
/// The lines of a request that fulfils it, and of one that does not. Both look, to the rules, like
/// those of somebody in a team.
const MATCHED: &str = "x-user: bench\r\nx-team: team-0\r\n";
const UNMATCHED: &str = "x-user: nobody\r\nx-team: team-0\r\n";
/// Requests of one way in a row: what else the machine does then meets all ways alike.
const ROW: u64 = 50;
/// Requests before it counts.
const WARM_UP: u64 = 300;
/// Connections for requests per second, and for how long.
const AT_ONCE: usize = 32;
const RATE_TIME: Duration = Duration::from_secs(4);

/// A way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the Service that nobody intercepts.
    Without,
    /// To the intercepted one, on to its pods.
    Unmatched,
    /// To the intercepted one, to the app.
    Matched,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Without, Self::Unmatched, Self::Matched];

    fn name(self) -> &'static str {
        match self {
            Self::Without => "without",
            Self::Unmatched => "unmatched",
            Self::Matched => "matched",
        }
    }

    fn via(self, service: SocketAddr) -> Via {
        match self {
            Self::Matched => Via::With(service, MATCHED),
            Self::Unmatched | Self::Without => Via::With(service, UNMATCHED),
        }
    }
}

/// Ways and the addresses that they go to.
pub(crate) type Ways = Vec<(Way, SocketAddr)>;

/// p50 and p99 of each way in microseconds, of `count` requests each, one at a time.
pub(crate) async fn latency(ways: &Ways, count: u64) -> Vec<(f64, f64)> {
    let out = call("latency", ways, count).await;
    let pairs = out.chunks(2).map(|ms| (ms[0] * 1e3, ms[1] * 1e3));
    pairs.collect()
}

/// Requests of one way that were answered, and in how many seconds.
pub(crate) async fn rate(way: Way, to: SocketAddr) -> (f64, f64) {
    let out = call("rate", &vec![(way, to)], 0).await;
    (out[0], out[1])
}

/// MB/s down and up of `mib` on one connection.
pub(crate) async fn bulk(way: Way, to: SocketAddr, mib: u64) -> (f64, f64) {
    let out = call("bulk", &vec![(way, to)], mib).await;
    (out[0], out[1])
}

/// Has a caller measure, and reads the numbers that it prints.
async fn call(what: &str, ways: &Ways, amount: u64) -> Vec<f64> {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/lab/node");
    let mut command = Command::new(node);
    command.arg(std::env::current_exe().unwrap());
    command.args([CALL, what, &amount.to_string()]);
    for (way, to) in ways {
        command.args([way.name(), &to.to_string()]);
    }
    let output = command.output().await.unwrap();
    let (out, errors) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "a caller failed: {errors}");
    let out = String::from_utf8_lossy(out);
    out.split_whitespace().map(|n| n.parse().unwrap()).collect()
}

/// As a caller: does what [`call`] asks for.
pub(crate) async fn answer(words: &[String]) {
    let [what, amount, ways @ ..] = words else {
        panic!("what to measure?")
    };
    let amount = amount.parse().unwrap();
    let of = |pair: &[String]| {
        let way = Way::ALL.into_iter().find(|way| way.name() == pair[0]);
        (way.unwrap(), pair[1].parse::<SocketAddr>().unwrap())
    };
    let ways: Ways = ways.chunks(2).map(of).collect();
    let numbers = match what.as_str() {
        "latency" => in_turns(&ways, amount).await,
        "rate" => at_once(ways[0]).await,
        "bulk" => {
            let via = ways[0].0.via(ways[0].1);
            vec![
                bulk_down(&via, 1, amount).await,
                bulk_up(&via, amount).await,
            ]
        }
        other => panic!("no such measure: {other}"),
    };
    let numbers: Vec<String> = numbers.iter().map(f64::to_string).collect();
    println!("{}", numbers.join(" "));
}

async fn in_turns(ways: &Ways, count: u64) -> Vec<f64> {
    let mut lines = Vec::new();
    for (way, to) in ways {
        lines.push((Line::new(*way, *to).await, Vec::new()));
    }
    for (line, _) in &mut lines {
        for _ in 0..WARM_UP {
            line.request().await;
        }
    }
    for _ in 0..count.div_ceil(ROW) {
        for (line, times) in &mut lines {
            for _ in 0..ROW {
                let began = Instant::now();
                line.request().await;
                times.push(began.elapsed());
            }
        }
    }
    let both = lines
        .iter()
        .map(|(_, times)| [percentile(times, 0.5), percentile(times, 0.99)]);
    both.flatten().collect()
}

async fn at_once((way, to): (Way, SocketAddr)) -> Vec<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut lines = Vec::new();
    for _ in 0..AT_ONCE {
        let mut line = Line::new(way, to).await;
        line.request().await;
        lines.push(line);
    }
    let began = Instant::now();
    let workers: Vec<_> = lines
        .into_iter()
        .map(|mut line| {
            let done = done.clone();
            tokio::spawn(async move {
                while began.elapsed() < RATE_TIME {
                    line.request().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    vec![
        done.load(Ordering::Relaxed) as f64,
        began.elapsed().as_secs_f64(),
    ]
}

/// A connection that is kept alive, with requests one after the other.
struct Line {
    way: Way,
    to: SocketAddr,
    request: String,
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Line {
    async fn new(way: Way, to: SocketAddr) -> Self {
        let via = way.via(to);
        Self {
            way,
            to,
            request: format!("GET / HTTP/1.1\r\nHost: web\r\n{}\r\n", via.lines()),
            stream: via.connect().await,
            answer: Vec::with_capacity(4096),
        }
    }

    /// One request, and its answer to the end, which has to be of who is meant.
    async fn request(&mut self) {
        self.stream
            .write_all(self.request.as_bytes())
            .await
            .unwrap();
        self.answer.clear();
        let end = loop {
            let n = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert!(n > 0, "{:?}: the connection broke off", self.way);
            if let Some(end) = self.complete() {
                break end;
            }
        };
        let text = std::str::from_utf8(&self.answer).unwrap();
        let by_app = text[end..].starts_with("the-app");
        let right = text.starts_with("HTTP/1.1 200 ") && by_app == (self.way == Way::Matched);
        assert!(right, "{:?} was answered with {text:?}", self.way);
        // nginx closes a connection after a thousand requests.
        if text[..end]
            .to_ascii_lowercase()
            .contains("connection: close")
        {
            self.stream = self.way.via(self.to).connect().await;
        }
    }

    /// Where the body begins, once it is all there.
    fn complete(&self) -> Option<usize> {
        let end = self.answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.answer[..end]).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let length: usize = length
            .unwrap_or_else(|| panic!("{head}"))
            .trim()
            .parse()
            .unwrap();
        (self.answer.len() >= end + length).then_some(end)
    }
}
