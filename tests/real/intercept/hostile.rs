//! Callers that mean to be misunderstood, and to do harm: what they send is refused or made plain, gets to
//! nobody whose it is not, and costs the relay's pods no more than they may use.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::app::{App, SCRIPT};
use super::beside::with;
use super::crowd::assert_right;
use super::kinds::caller;
use super::pods::deploy;
use super::session::{Intercept, LAG, command};
use super::strict;
use super::two::two;
use crate::callers::{Load, on_the_node, plain};
use crate::hostile::LIMIT;
use crate::hostile::pod::Pod;
use crate::lab;
use crate::program::finish_within;
use crate::team::Team;

const ANNS: &str = "x-user: ann";
const BOBS: &str = "/bob";
/// How long all tricks may take: some hear nothing for seconds.
const LONG: Duration = Duration::from_secs(240);
/// A line that is longer is none of HTTP's to the relay.
const LONGEST_LINE: usize = 16 << 10;
/// How often it is looked what the relay's pods use.
const LOOK: Duration = Duration::from_millis(250);

/// The folder of the scripts.
fn folder() -> &'static str {
    Path::new(SCRIPT).parent().unwrap().to_str().unwrap()
}

/// An app that writes down what it is sent.
fn raw(owner: &str) -> App {
    let mut command = Command::new("python3");
    command.args([
        &format!("{}/raw.py", folder()),
        &format!("laptop-of-{owner}"),
    ]);
    App::start(owner, command)
}

/// A script of callers on the node; its lines.
fn script(name: &str, address: &str) -> Vec<Value> {
    let mut command = on_the_node();
    command.args(["python3", &format!("{}/{name}", folder()), address, "80"]);
    let said = finish_within(LONG, &mut command, b"").ok();
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Whether what came of a trick is among what may.
fn assert_allowed(tricks: &[Value]) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for trick in tricks {
        let (allowed, came) = (text(&trick[1]), text(&trick[2]));
        let shape = match came.len() {
            0..40 => came.clone(),
            _ => "many".to_owned(),
        };
        *outcomes.entry(shape).or_default() += 1;
        if !allowed.split('/').any(|one| one == came) {
            wrong.push(trick);
        }
    }
    println!("{} tricks: {outcomes:?}", tricks.len());
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        tricks.len()
    );
}

/// What each connection brought, from a record's lines.
fn streams(lines: &str) -> Vec<Vec<u8>> {
    lines
        .lines()
        .map(|line| STANDARD.decode(line).unwrap())
        .collect()
}

fn told_by(app: &App) -> Vec<Vec<u8>> {
    let mut lines = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", app.greeter)).unwrap();
    stream.read_to_string(&mut lines).unwrap();
    streams(&lines)
}

fn told_by_pods(team: &Team) -> Vec<Vec<u8>> {
    let pods = lab::ready(&team.place.site.0, "app=raw").unwrap();
    let of = |pod: &String| {
        let ip = team
            .place
            .site
            .field(&format!("pod/{pod}"), ".status.podIP");
        streams(&caller("raw", &ip, &["9000"], b""))
    };
    pods.iter().flat_map(of).collect()
}

/// Whose a request is.
fn whose(request: &strict::Request) -> &'static str {
    let path = request.target.split('?').next().unwrap();
    match request.value("x-user").as_deref() {
        Some("ann") => "ann",
        _ if path == BOBS || path.starts_with("/bob/") => "bob",
        _ => "pods",
    }
}

/// All that a side was sent is plain, and its own; gives how many requests that were.
fn assert_own(side: &str, streams: &[Vec<u8>]) -> usize {
    let (mut count, mut carried) = (0, 0);
    for stream in streams {
        if stream.starts_with(b"PRI * HTTP/2.0") {
            assert_eq!(side, "pods", "HTTP/2 to an app that gets none");
            continue;
        }
        let text = String::from_utf8_lossy(stream);
        let shown: String = text.chars().take(500).collect();
        // What does not begin as HTTP does is carried as it is, to whoever had it before.
        let first = text.lines().next().unwrap_or_default();
        let known = [" HTTP/1.1", " HTTP/1.0"]
            .iter()
            .any(|end| first.ends_with(end));
        if !known || first.len() > LONGEST_LINE {
            assert_eq!(side, "pods", "{shown:?}");
            carried += 1;
            continue;
        }
        let requests = strict::requests(stream);
        let requests = requests.unwrap_or_else(|why| panic!("{side}: {why} in {shown:?}"));
        for request in &requests {
            assert_eq!(whose(request), side, "{request:?}");
            assert_eq!(request.value("http2-settings"), None, "{request:?}");
            assert_ne!(
                request.value("upgrade").as_deref(),
                Some("h2c"),
                "{request:?}"
            );
        }
        count += requests.len();
    }
    println!(
        "{count} requests to {side}, each plain and its own; {carried} connections as they are"
    );
    count
}

/// Does `work` while it is looked what the relay's pods use at most.
fn watched<T>(pods: &[Pod], work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = pods
                    .iter()
                    .map(|pod| pod.memory().resident)
                    .fold(most, u64::max);
                std::thread::sleep(LOOK);
            }
            most
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let most = look.join().unwrap();
        println!(
            "{:.1} MiB resident at most in one pod",
            most as f64 / f64::from(1 << 20)
        );
        assert!(most < LIMIT, "{most}");
        done
    })
}

#[test]
#[ignore = "needs the lab"]
fn hostile_callers_reach_nobody_else_and_harm_nothing() {
    if lab::leaves_out_long() {
        return;
    }
    let team = Team::set_up("hostile", true);
    let serve = "exec python3 /from/raw.py $(hostname) 8080 9000";
    deploy(&team, "raw", serve, folder(), &[("http", 80, 8080)]);
    let address = team.address("raw");
    let (ann, bob, (two_port, asked)) = (raw("ann"), raw("bob"), two());
    let start = |owner, port: u16, args: &[&str]| {
        let to = port.to_string();
        let args = [&["raw", "--to", &to], args].concat();
        let live = Intercept::attempt(&mut command(&team, owner, &args));
        live.unwrap_or_else(|refused| panic!("{args:?}: {refused:?}"))
    };
    let all = [
        start("ann", ann.port, &["--header", ANNS]),
        start("bob", bob.port, &["--path-prefix", BOBS]),
        start("two", two_port, &["--header", "x-user: two"]),
    ];
    std::thread::sleep(LAG);
    let relays = team.place.site.await_relays(2);
    let relays: Vec<Pod> = relays
        .iter()
        .map(|pod| Pod::find(&team.place.site.0, pod))
        .collect();
    let processes: Vec<_> = relays.iter().map(Pod::processes).collect();
    let manners = [
        plain("fresh", 3, false),
        plain("kept", 2, true),
        with("ann", &[("x-user", "ann")]),
    ];
    let load = Load::start(&address, 80, &manners);
    for relay in &relays {
        println!("before: {}", relay.memory());
    }

    let begun = Instant::now();
    let tricks = watched(&relays, || script("hostile.py", &address));
    println!("HTTP/1 took {:?}", begun.elapsed());
    // Before it is told what came of them: that says where.
    let sides = [told_by(&ann), told_by(&bob), told_by_pods(&team)];
    assert_allowed(&tricks);
    for (side, streams) in ["ann", "bob", "pods"].into_iter().zip(&sides) {
        assert!(assert_own(side, streams) > 10, "{side}");
    }

    let begun = Instant::now();
    let tricks = watched(&relays, || script("frames.py", &address));
    println!("HTTP/2 took {:?}", begun.elapsed());
    let is_flood = |line: &Value| line[1].is_u64();
    let (floods, tricks): (Vec<_>, Vec<_>) = tricks.into_iter().partition(is_flood);
    assert_allowed(&tricks);
    for flood in &floods {
        println!("{}: {} sent, cut off: {}", flood[0], flood[1], flood[2]);
    }
    // Nobody could have served them.
    let resets = floods
        .iter()
        .filter(|flood| flood[0] == "requests reset at once");
    assert!(
        resets.clone().count() == 10 && resets.clone().all(|flood| flood[2] == true),
        "{floods:?}"
    );
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let mut paths: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for one in &asked {
        *paths.entry((&one.path, one.whole)).or_default() += 1;
        assert!(
            ["/ok", "/late", "/reset", "/flood"].contains(&&*one.path),
            "{one:?}"
        );
        let values: Vec<_> = one.headers.get_all("x-user").iter().collect();
        assert_eq!(values, ["two"], "{one:?}");
        let hop = [
            "connection",
            "transfer-encoding",
            "upgrade",
            "keep-alive",
            "proxy-connection",
        ];
        assert!(
            !hop.iter().any(|name| one.headers.contains_key(*name)),
            "{one:?}"
        );
    }
    println!("the app of HTTP/2 was asked {paths:?}");
    let sides = [told_by(&ann), told_by(&bob), told_by_pods(&team)];
    for (side, streams) in ["ann", "bob", "pods"].into_iter().zip(&sides) {
        assert_own(side, streams);
    }

    assert_right(&address, &ann, |answer| answer.starts_with("raw-"));
    let calls = load.stop();
    calls.assert_no_failure();
    for call in &calls.0 {
        match &*call.manner {
            "ann" => assert_eq!(call.answer, ann.name, "{call:?}"),
            _ => assert!(call.answer.starts_with("raw-"), "{call:?}"),
        }
    }
    for (relay, processes) in relays.iter().zip(&processes) {
        let memory = relay.memory();
        println!("after: {memory}");
        assert_eq!(relay.restarts(), 0);
        assert_eq!(&relay.processes(), processes, "a worker was replaced");
        assert!(memory.total() < LIMIT, "{memory}");
        assert!(memory.peak.is_none_or(|peak| peak < LIMIT), "{memory}");
    }
    all.into_iter().for_each(Intercept::end);
}
