//! All that callers and kdevs can do to the relay's memory, at a time and for long, beside a load that
//! must notice nothing.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kdev::tunnel::{Opener, Protocol, Stream, TUNNEL_PORT};
use tokio::io::AsyncWriteExt as _;

use super::app::{App, SCRIPT};
use super::beside::with;
use super::pods::deploy;
use super::session::{Intercept, LAG, command};
use crate::callers::{Load, Manner, plain};
use crate::hostile::LIMIT;
use crate::hostile::pod::Pod;
use crate::lab;
use crate::peer;
use crate::program::finish_within;
use crate::site::SECRETS;
use crate::team::Team;

/// How long it lasts; `KDEV_HOSTILE_SECONDS` is for more.
const SECONDS: u64 = 60;
/// What the scripts may take beyond that.
const BEYOND: Duration = Duration::from_secs(60);
/// How often it is looked what the relay's pods use.
const LOOK: Duration = Duration::from_millis(250);
/// Streams that each tunnel of somebody with the forward key tries to hold, and tunnels of each relay.
const STREAMS: usize = 3_000;
const TUNNELS: usize = 4;
/// Calls in a second that notice nothing.
const LOAD: u64 = 50;

/// Some 75 calls in a second as they are wanted, so that there are enough on a busy machine.
const MANNERS: [Manner; 3] = [
    plain("fresh", 2, false),
    Manner {
        looks: true,
        ..plain("kept", 2, true)
    },
    with("ann", &[("x-user", "ann-herself")]),
];

fn folder() -> &'static str {
    std::path::Path::new(SCRIPT)
        .parent()
        .unwrap()
        .to_str()
        .unwrap()
}

fn app(owner: &str) -> App {
    let mut command = Command::new("python3");
    let script = format!("{}/plain.py", folder());
    command.args([&script, &format!("laptop-of-{owner}"), "0"]);
    App::start(owner, command)
}

/// Streams that do nothing, and downloads that nobody reads, as many as one gets; how many those are, and
/// why there were no more.
async fn hold(opener: &Opener, target: &str) -> (Vec<Stream>, String) {
    let target = target.parse().unwrap();
    let mut held = Vec::new();
    for number in 0..STREAMS {
        let Ok(mut stream) = opener.open(&target, Protocol::Tcp).await else {
            return (held, "the tunnel ended".to_owned());
        };
        if let Err(error) = stream.opened().await {
            return (held, error.to_string());
        }
        if number % 4 == 0 {
            let request = b"GET /much HTTP/1.1\r\nHost: web\r\n\r\n";
            let _ = stream.write_all(request).await;
        }
        held.push(stream);
    }
    (held, String::new())
}

/// Whatever becomes of the script, the others end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs the lab"]
fn mixed_hostile_traffic_ends_no_relay_and_costs_no_call() {
    let seconds = std::env::var("KDEV_HOSTILE_SECONDS");
    let seconds = seconds.map_or(SECONDS, |text| text.parse().unwrap());
    let team = Team::set_up("mixed", true);
    let serve = "exec python3 /from/plain.py $(hostname) 8080";
    deploy(&team, "plain", serve, folder(), &[("http", 80, 8080)]);
    // They have an address of their own, as pods have.
    let hostile = "exec python3 -m http.server 8080";
    deploy(&team, "hostile", hostile, folder(), &[("http", 80, 8080)]);
    let address = team.address("plain");
    let (ann, herself) = (app("ann"), app("herself"));
    let start = |owner, app: &App, args: &[&str]| {
        let to = app.port.to_string();
        let args = [&["plain", "--to", &to], args].concat();
        let live = Intercept::attempt(&mut command(&team, owner, &args));
        live.unwrap_or_else(|refused| panic!("{args:?}: {refused:?}"))
    };
    let all = [
        start("ann", &ann, &["--header", "x-user: ann"]),
        start("ann", &herself, &["--header", "x-user: ann-herself"]),
        start("bob", &ann, &["--header", "x-pattern~=(a|aa|aaa|a[ab]+)*b"]),
    ];
    std::thread::sleep(LAG);
    let relays = team.place.site.await_relays(2);
    let relays: Vec<Pod> = relays
        .iter()
        .map(|pod| Pod::find(&team.place.site.0, pod))
        .collect();
    for relay in &relays {
        relay.count_sockets();
        println!("before: {}", relay.memory());
    }
    let processes: Vec<_> = relays.iter().map(Pod::processes).collect();
    let load = Load::start(&address, 80, &MANNERS);

    let key = team.place.site.key(SECRETS[0]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = AtomicBool::new(false);
    let (most, came) = std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = relays
                    .iter()
                    .map(|pod| pod.memory().total())
                    .fold(most, u64::max);
                std::thread::sleep(LOOK);
            }
            most
        });
        let streams = scope.spawn(|| {
            runtime.block_on(async {
                let mut held = Vec::new();
                for relay in &relays {
                    for _ in 0..TUNNELS {
                        let io = relay.dial(TUNNEL_PORT).await.unwrap();
                        let opener = peer::tunnel(io, &key).await.unwrap();
                        let (streams, why) = hold(&opener, &format!("{address}:80")).await;
                        println!("{} streams held, then: {why}", streams.len());
                        held.push((opener, streams));
                    }
                }
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(LOOK).await;
                }
            });
        });
        let ending = Stop(&stop);
        let admin = lab::kubeconfig("admin");
        let mut script = Command::new("kubectl");
        script.args(["--kubeconfig", admin.to_str().unwrap()]);
        script.args(["-n", &team.place.site.0, "exec", "deploy/hostile", "--"]);
        script.args(["python3", "/from/mixed.py", &address, "80"]);
        script.arg(seconds.to_string());
        let limit = Duration::from_secs(seconds) + BEYOND;
        let came = finish_within(limit, &mut script, b"").ok();
        drop(ending);
        streams.join().unwrap();
        (look.join().unwrap(), came)
    });
    println!("{came}");
    println!(
        "{:.1} MiB at most in one pod",
        most as f64 / f64::from(1 << 20)
    );
    let calls = load.stop();
    let count = calls.0.len() as u64;
    let failed = calls.0.iter().filter(|call| call.status != 200).count() as u64;
    println!("{failed} of {count} calls failed");
    for call in calls.0.iter().filter(|call| call.status != 200).take(40) {
        println!("{call:?}");
    }
    assert_eq!(failed, 0, "of {count} calls");
    assert!(count >= LOAD * seconds, "only {count} calls in {seconds} s");
    for call in calls.0.iter().filter(|call| call.status == 200) {
        match &*call.manner {
            "ann" => assert_eq!(call.answer, herself.name, "{call:?}"),
            _ => assert!(call.answer.starts_with("plain-"), "{call:?}"),
        }
    }
    assert!(most < LIMIT, "{most}");
    for (relay, processes) in relays.iter().zip(&processes) {
        let memory = relay.memory();
        println!("after: {memory}");
        for name in [
            "kdev_relay_callers_closed_total{reason=\"idle\"}",
            "kdev_relay_callers_closed_total{reason=\"stuck\"}",
            "kdev_relay_callers_closed_total{reason=\"pausing\"}",
            "kdev_relay_callers_closed_total{reason=\"silent\"}",
            "kdev_relay_callers_closed_total{reason=\"share\"}",
            "kdev_relay_crowded_total",
        ] {
            println!("{name} {}", relay.metric(name));
        }
        assert_eq!(relay.restarts(), 0);
        assert_eq!(&relay.processes(), processes, "a worker was replaced");
        assert!(memory.peak.is_none_or(|peak| peak < LIMIT), "{memory}");
    }
    all.into_iter().for_each(Intercept::end);
}
