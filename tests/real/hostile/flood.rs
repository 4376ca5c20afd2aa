//! Many at once: connections that say nothing, first messages that mean nothing, streams that are
//! reset as soon as they are opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kdev::tunnel::{Protocol, TUNNEL_PORT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Stage;
use super::pod::Pod;
use crate::peer;

/// Connections that never speak.
const SILENT: usize = 10_000;
/// Two probes that fail make a pod count as not ready; this is time for three.
const PROBES: Duration = Duration::from_secs(3);
/// Wrong first messages in all, and how many come per second: what they cost is the relay's own
/// processor time, which a session beside them shares.
const WRONG: usize = 6_000;
const WRONG_PER_SECOND: u32 = 1_000;
/// Streams that are reset at once, and how many a second.
const RESETS: usize = 20_000;
const RESETS_PER_SECOND: u32 = 4_000;
/// How many of something are done between two pauses.
const BATCH: usize = 20;

/// Connections to a port of the pod's own loopback, all open at once as far as it lets them be.
async fn silent(pod: &Pod, port: u16, count: usize) -> Vec<TcpStream> {
    let address = ([127, 0, 0, 1], port).into();
    let mut all = Vec::with_capacity(count);
    for sockets in 0..count.div_ceil(100) {
        let mut batch = JoinSet::new();
        for socket in pod.sockets(100.min(count - sockets * 100)) {
            // One that is refused is one that says nothing, too.
            batch.spawn(async move { socket.connect(address).await.ok() });
        }
        all.extend(batch.join_all().await.into_iter().flatten());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn ten_thousand_that_never_speak_cost_nobody_anything() {
    let stage = Stage::set_up("silent");
    let beside = stage.beside().await;
    for (port, what) in [
        (TUNNEL_PORT, "silent, tunnel port"),
        (20_000, "silent, a listener"),
        (20_600, "silent, metrics port"),
    ] {
        let attack = || async {
            let all = silent(&stage.relay, port, SILENT).await;
            // Whom the relay does not want it ends at once, some before they knew to be connected.
            assert!(all.len() > SILENT / 2, "{what}: {} connected", all.len());
            // Long enough for probes to fail, if they did.
            tokio::time::sleep(PROBES).await;
            assert_eq!(stage.site.relays().len(), 1, "{what}: not ready any more");
            all
        };
        beside.stays_quick(what, attack).await;
        stage.unharmed();
    }
    let crowded = "kdev_relay_handshakes_refused_total{reason=\"crowded\"}";
    let cut = stage.relay.metric(crowded);
    assert!(cut > (SILENT * 9 / 10) as f64, "{cut} cut off");
}

/// Something that goes on until this is dropped.
struct GoingOn(Arc<AtomicBool>);

impl Drop for GoingOn {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `batch` on a thread of its own, `rate` of its parts a second and `most` in all.
fn go_on<F: Future<Output = ()>>(
    rate: u32,
    most: usize,
    batch: impl Fn() -> F + Send + 'static,
) -> GoingOn {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (began, mut done) = (Instant::now(), 0_u32);
            while !stopped.load(Ordering::Relaxed) && (done as usize) < most {
                batch().await;
                done += BATCH as u32;
                let due = began + Duration::from_secs(1) * done / rate;
                tokio::time::sleep_until(due.into()).await;
            }
        });
    });
    GoingOn(stop)
}

/// First messages that are none, or not quite.
fn wrong() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "KDEV-TUNNEL\r\n\r\n",
        "KDEV-TUNNEL 99999999999999999999\r\n\r\n",
        "KDEV-TUNNEL 2\r\nrole: forward\r\nrole: reverse\r\n\r\n",
        "KDEV-TUNNEL 2\r\nrole: admin\r\nsession: 0\r\nnonce: 0\r\n\r\n",
        "KDEV-TUNNEL 2\r\nrole: forward\r\nsession: zz\r\nnonce: zz\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    all.push(vec![0; 5000]);
    all.push(vec![0xff; 5000]);
    all.push(b"KDEV-TUNNEL 2\r\n".repeat(1000));
    all.push(vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_flood_of_wrong_first_messages_is_answered_and_forgotten() {
    let stage = Stage::set_up("wrong");
    let beside = stage.beside().await;
    let (sent, next) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let attack = || async {
        let (relay, sent, next) = (stage.relay.clone(), sent.clone(), next.clone());
        go_on(WRONG_PER_SECOND, WRONG, move || {
            let (kinds, sent, next) = (wrong(), sent.clone(), next.clone());
            let sockets = relay.sockets(BATCH);
            async move {
                let mut batch = JoinSet::new();
                for socket in sockets {
                    let kind = kinds[next.fetch_add(1, Ordering::Relaxed) % kinds.len()].clone();
                    let sent = sent.clone();
                    batch.spawn(async move {
                        let address = ([127, 0, 0, 1], TUNNEL_PORT).into();
                        let mut stream = socket.connect(address).await.unwrap();
                        // Some are cut off before they have said it all.
                        let _ = stream.write_all(&kind).await;
                        let _ = stream.shutdown().await;
                        let mut answer = Vec::new();
                        let _ = stream.read_to_end(&mut answer).await;
                        assert!(!answer.starts_with(b"KDEV-RELAY 2 challenge"), "{kind:?}");
                        sent.fetch_add(1, Ordering::Relaxed);
                    });
                }
                batch.join_all().await;
            }
        })
    };
    beside.stays_quick("wrong first messages", attack).await;
    let sent = sent.load(Ordering::Relaxed);
    let refused = ["malformed", "broken"].map(|reason| {
        let name = format!("kdev_relay_handshakes_refused_total{{reason=\"{reason}\"}}");
        stage.relay.metric(&name)
    });
    println!("{sent} wrong first messages: {refused:?}");
    assert!(refused.iter().sum::<f64>() >= sent as f64);
    assert!(refused[0] > 0.0, "{refused:?}");
    stage.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn rapid_resets_of_an_admitted_session_hurt_no_other() {
    let stage = Stage::set_up("resets");
    let beside = stage.beside().await;
    let opened = Arc::new(AtomicUsize::new(0));
    // To a pod, to nobody, and to a name that does not exist.
    let targets = [
        beside.echo.clone(),
        "10.244.0.251:9".to_owned(),
        "nobody.at.all:80".to_owned(),
    ];
    let attack = || async {
        let io = stage.relay.dial(TUNNEL_PORT).await.unwrap();
        let first = peer::tunnel(io, &stage.keys[0]).await.unwrap();
        let (relay, key, opened) = (stage.relay.clone(), stage.keys[0].clone(), opened.clone());
        let (opener, targets) = (Arc::new(std::sync::Mutex::new(first)), targets.clone());
        go_on(RESETS_PER_SECOND, RESETS, move || {
            let (opener, relay, key) = (opener.clone(), relay.clone(), key.clone());
            let (opened, targets) = (opened.clone(), targets.clone());
            async move {
                for _ in 0..BATCH {
                    let target = &targets[opened.fetch_add(1, Ordering::Relaxed) % targets.len()];
                    let current = opener.lock().unwrap().clone();
                    let target = target.parse().unwrap();
                    if current.open(&target, Protocol::Tcp).await.is_err() {
                        // Cut off, as it may be: it comes back.
                        let io = relay.dial(TUNNEL_PORT).await.unwrap();
                        *opener.lock().unwrap() = peer::tunnel(io, &key).await.unwrap();
                    }
                }
            }
        })
    };
    beside.stays_quick("rapid resets", attack).await;
    println!(
        "{} streams opened and reset",
        opened.load(Ordering::Relaxed)
    );
    stage.until_idle();
    stage.unharmed();
}
