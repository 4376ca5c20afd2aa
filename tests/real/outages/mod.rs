//! What breaks between kdev and its relay costs the requests that were on the lost path, and no
//! others: a hundred a second are made while it happens.

mod idle;
pub(crate) mod line;
mod load;
pub(crate) mod mobile;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use self::line::Line;
use self::load::{KNOWN_WITHIN, Load, Outage, all_went_well, judge, judge_known};
use self::mobile::Mobile;
use crate::app::Way;
use crate::installed::Relay;
use crate::lab::{self, Fault};
use crate::program::Running;

/// How long requests are made before anything happens, and after it is over.
const CALM: Duration = Duration::from_secs(3);
/// A Service, found by its name.
const SERVICE: &str = "web.shop:80";
/// What kdev may have grown by when all is over: allocators keep some of a burst.
const GROWTH: u64 = 24 << 20;

/// Makes requests to `target` through `connect` while `fault` runs.
async fn survive(what: &str, connect: Running, target: &str, fault: impl Future<Output = Outage>) {
    let way = Way::Socks5(connect.proxy());
    way.get(target, "/").await.unwrap();
    let before = connect.memory();
    let load = Load::start(way, target);
    tokio::time::sleep(CALM).await;
    let outage = fault.await;
    tokio::time::sleep(CALM).await;
    let requests = load.stop().await;
    judge(what, &requests, outage);
    let after = connect.memory();
    println!(
        "{what}: kdev had {} KiB before, {} KiB after",
        before >> 10,
        after >> 10
    );
    assert!(after < before + GROWTH, "{what}: memory did not return");
    connect.stop();
}

async fn ctl(verb: &'static str, component: &'static str) {
    let done = tokio::task::spawn_blocking(move || lab::ctl(verb, component)).await;
    done.unwrap();
}

/// What happens in one moment, after which the way is there again.
fn moment() -> Outage {
    let now = Instant::now();
    Outage {
        away: now,
        back: now,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_killed_relay_pod_costs_its_own_requests_alone() {
    lab::settle();
    let relay = Relay::install("outage-kill");
    survive("relay pod killed", relay.connect(), SERVICE, async {
        let outage = moment();
        relay.kill_a_pod();
        outage
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_relay_is_reached_again_after_a_restart_of_the_api_server() {
    lab::settle();
    let relay = Relay::install("outage-api");
    survive("API server killed", relay.connect(), SERVICE, async {
        let guard = Fault {
            component: "apiserver",
            again: "start",
        };
        let away = Instant::now();
        ctl("kill", "apiserver").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ctl("start", "apiserver").await;
        let back = relay.back().await;
        drop(guard);
        Outage { away, back }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_relay_is_reached_again_after_a_restart_of_the_kubelet() {
    lab::settle();
    let relay = Relay::install("outage-kubelet");
    // A kubelet that comes back calls all its pods unready until it probed them, so a Service
    // has none for a moment, whoever asks.
    let (_, address) = lab::pod_address("web");
    let target = format!("{address}:8080");
    survive("kubelet restarted", relay.connect(), &target, async {
        let guard = Fault {
            component: "kubelet",
            again: "start",
        };
        let away = Instant::now();
        ctl("stop", "kubelet").await;
        ctl("start", "kubelet").await;
        let back = relay.back().await;
        drop(guard);
        Outage { away, back }
    })
    .await;
    lab::settle();
}

/// A session whose every byte goes over a line of ours.
async fn over_a_line(relay: &Relay) -> (Line, Running) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = lab::kubeconfig("admin");
    let loopback = ([127, 0, 0, 1], 0).into();
    let line = Line::new(loopback, line::server(&kubeconfig)).await;
    let over = line::over(&kubeconfig, line.address, folder.path());
    let connect = Running::start(&mut relay.connect_with(&over));
    (line, connect)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_cut_of_every_socket_costs_what_was_on_them() {
    lab::settle();
    let relay = Relay::install("outage-cut");
    let (line, connect) = over_a_line(&relay).await;
    survive("every socket cut", connect, SERVICE, async {
        let outage = moment();
        line.cut();
        outage
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_relay_session_wakes_after_a_minute() {
    lab::settle();
    let relay = Relay::install("outage-sleep");
    let connect = relay.connect();
    let way = Way::Socks5(connect.proxy());
    way.get(SERVICE, "/").await.unwrap();
    connect.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let outage = moment();
    connect.signal(Signal::SIGCONT);
    let load = Load::start(way, SERVICE);
    tokio::time::sleep(CALM * 2).await;
    let requests = load.stop().await;
    judge("stopped for a minute", &requests, outage);
    connect.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_laptop_that_changes_its_address_goes_on() {
    lab::settle();
    let relay = Relay::install("outage-moves");
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = lab::kubeconfig("admin");
    let mobile = Mobile::set_up();
    let line = Line::new(mobile::here(), line::server(&kubeconfig)).await;
    let over = line::over(&kubeconfig, line.address, folder.path());
    let there = relay.connect_with(&over);
    let connect = Running::start(&mut mobile.command(&there));
    let way = Way::Socks5(connect.proxy());
    let (done, end) = tokio::sync::oneshot::channel::<()>();
    let app = mobile.app(move || async move {
        way.get(SERVICE, "/").await.unwrap();
        let load = Load::start(way, SERVICE);
        let _ = end.await;
        load.stop().await
    });
    tokio::time::sleep(CALM).await;
    mobile.moves();
    // Not before: what begins while it moves may still get through.
    let outage = moment();
    // Silence is noticed within 6 s; those who dial meanwhile wait.
    tokio::time::sleep(Duration::from_secs(12)).await;
    done.send(()).unwrap();
    let requests = tokio::task::spawn_blocking(|| app.join().unwrap()).await;
    judge_move("address changed", &requests.unwrap(), outage);
    connect.stop();
}

/// A laptop is not told that its old address leads nowhere, so the path is back when kdev has
/// noticed: within 6 s.
fn judge_move(what: &str, requests: &[load::Request], moved: Outage) {
    let first = requests.iter().filter(|r| r.ok && r.begun > moved.away);
    let first = first.map(|r| r.ended).min();
    let first = first.unwrap_or_else(|| panic!("{what}: none worked again"));
    assert!(
        first - moved.away < Duration::from_secs(8),
        "{what}: noticed after {:?}",
        first - moved.away
    );
    let back = first;
    let outage = Outage { back, ..moved };
    judge_known(what, requests, outage, KNOWN_WITHIN.max(back - moved.away));
}

/// Downloads at once on a line of 5 Mbit/s.
const DOWNLOADS: usize = 8;
/// What tunnels may be made beside them in a minute: a ping that is late by chance makes one, and
/// taking a line for dead again and again one every few seconds.
const MADE_BESIDE: u64 = 5;

/// A line of 5 Mbit/s with windows full of bulk is slow, and not dead.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_narrow_line_that_is_full_is_not_taken_for_dead() {
    lab::settle();
    let relay = Relay::install("outage-narrow");
    let (line, connect) = over_a_line(&relay).await;
    let way = Way::Socks5(connect.proxy());
    way.get(SERVICE, "/").await.unwrap();
    line.narrow(5_000_000 / 8);
    let got = Arc::new(AtomicU64::new(0));
    let mut downloads = JoinSet::new();
    for _ in 0..DOWNLOADS {
        let (mut download, _) = way.download(SERVICE, "/big").await.unwrap();
        let got = got.clone();
        downloads.spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = download.read(&mut buffer).await {
                got.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
    }
    // The tunnels for bulk are made by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let made = line.made();
    let minute = tokio::time::sleep(Duration::from_secs(60));
    tokio::select! {
        () = minute => {}
        _ = downloads.join_next() => panic!("a download broke off"),
    }
    let made = line.made() - made;
    let rate = got.load(Ordering::Relaxed) / 65 / 1024;
    println!("{rate} KiB/s in a minute, {made} connections beside them");
    assert!(rate > 300, "the downloads stand still");
    assert!(made <= MADE_BESIDE, "kdev connected anew");
    line.narrow(0);
    connect.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_rolling_upgrade_is_not_noticed() {
    lab::settle();
    let relay = Relay::install("outage-upgrade");
    let connect = relay.connect();
    let way = Way::Socks5(connect.proxy());
    way.get(SERVICE, "/").await.unwrap();
    let load = Load::start(way, SERVICE);
    tokio::time::sleep(CALM).await;
    relay.upgrade().await;
    tokio::time::sleep(CALM).await;
    let requests = load.stop().await;
    all_went_well("rolling upgrade", &requests);
    connect.stop();
}
