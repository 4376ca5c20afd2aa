//! What breaks on the way to the pods comes back without a restart of kdev: new dials work within
//! two seconds after the way is there again, and what was open fails instead of hanging.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::app::{Stream, Way};
use crate::lab::{self, Fault};
use crate::probe;
use crate::program::Running;

/// What a new dial may take once the way is back.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// How long dials are watched after that.
const WATCHED: Duration = Duration::from_secs(4);
/// Pause between two dials.
const POLL: Duration = Duration::from_millis(100);
/// Liveness is judged within 6 s, plus a second for a busy machine.
const FAILS_WITHIN: Duration = Duration::from_secs(7);
/// How long after the way went away a dial may still go into a connection that nobody knows to be
/// dead. Whoever dials later waits and gets through, up to 20 s.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// A dial that was tried.
#[derive(Clone, Copy, Debug)]
struct Try {
    begun: Instant,
    ended: Instant,
    ok: bool,
}

/// A Service, found by its name.
const SERVICE: &str = "web.shop:80";

/// A `connect` and a `forward`.
struct Session {
    /// What is dialled all the time.
    web: String,
    connect: Running,
    forward: Running,
}

/// Streams that an app has open: an echo server behind each.
type Open = Vec<(String, Stream)>;

impl Session {
    async fn start(web: &str) -> (Self, Open) {
        let connect = Running::connect("dev");
        let forward = Running::forward("dev", &[web, "peer.shop:9001"]);
        let mut open = Vec::new();
        for way in [
            Way::Socks5(connect.proxy()),
            Way::Connect(connect.proxy()),
            Way::Port(forward.port(1)),
        ] {
            let mut stream = way.open("peer.shop:9001").await.unwrap();
            echo(&mut stream).await.unwrap();
            open.push((format!("{way:?}"), stream));
        }
        let session = Self {
            web: web.to_owned(),
            connect,
            forward,
        };
        (session, open)
    }

    /// Ways to `web`.
    fn ways(&self) -> Vec<Way> {
        let [socks5, _, absolute] = self.connect.ways();
        vec![socks5, absolute, Way::Port(self.forward.port(0))]
    }

    fn stop(self) {
        let (connect, forward) = (self.connect.stop(), self.forward.stop());
        // In words of kdev's own, however often a connection broke.
        let words = ["rustls", "docs.rs", "close_notify"];
        for said in [&connect, &forward] {
            assert!(!words.iter().any(|word| said.contains(word)), "{said}");
        }
        if std::env::var_os("KDEV_LAB_LOG").is_some() {
            println!("connect said:\n{connect}\nforward said:\n{forward}");
        }
    }
}

/// Whether a stream may live through what happened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ends,
    EndsOrLives,
}

/// Looks what becomes of open streams. None may hang.
async fn await_end(open: Open, fate: Fate) {
    let mut all = JoinSet::new();
    for (what, mut stream) in open {
        all.spawn(async move {
            let begun = Instant::now();
            let echoed = tokio::time::timeout(FAILS_WITHIN, echo(&mut stream)).await;
            let took = begun.elapsed();
            match echoed {
                Ok(Err(error)) => println!("{what}: the open stream failed in {took:?}: {error}"),
                Ok(Ok(())) => {
                    assert!(fate == Fate::EndsOrLives, "{what}: an echo without a way");
                    println!("{what}: the open stream lives");
                }
                Err(_) => panic!("{what}: the open stream hangs"),
            }
        });
    }
    all.join_all().await;
}

/// Sends a line to an echo server and awaits it.
async fn echo(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(b"are you there?\n").await?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"are you there?\n");
    Ok(())
}

/// Dials `web` through `way` every 100 ms until told to stop; gives all tries.
async fn dial_all_the_time(way: Way, web: String, stop: Arc<AtomicBool>) -> Vec<Try> {
    let mut tries = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        let web = web.clone();
        tries.spawn(async move {
            let begun = Instant::now();
            let answer = way.get(&web, "/").await;
            Try {
                begun,
                ended: Instant::now(),
                ok: answer.is_ok_and(|a| a.status == 200),
            }
        });
        tokio::time::sleep(POLL).await;
    }
    tries.join_all().await
}

/// When the way went away, and when it was back.
#[derive(Clone, Copy)]
struct Outage {
    away: Instant,
    back: Instant,
}

/// Dials through all ways while `fault` runs, which ends when the way is back; then looks at what
/// became of the dials.
async fn survive(session: &Session, what: &str, fault: impl Future<Output = Outage>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut dialling = JoinSet::new();
    for way in session.ways() {
        let dials = dial_all_the_time(way, session.web.clone(), stop.clone());
        dialling.spawn(async move { (way, dials.await) });
    }
    let outage = fault.await;
    tokio::time::sleep(WATCHED).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(joined) = dialling.join_next().await {
        let (way, mut tries) = joined.unwrap();
        let what = format!("{what}: {way:?}");
        tries.sort_by_key(|t| t.begun);
        judge(&what, &tries, outage);
    }
}

fn judge(what: &str, tries: &[Try], Outage { away, back }: Outage) {
    let good = tries.iter().filter(|t| t.ok);
    // The first dial that ended well after the way was back, waiting ones included...
    let first = good.filter(|t| t.ended >= back).map(|t| t.ended).min();
    let first = first.unwrap_or_else(|| panic!("{what}: no dial worked again"));
    // ... and the last one that did not, or took long.
    let bad = tries
        .iter()
        .filter(|t| t.begun >= back && (!t.ok || t.ended - t.begun > BACK_WITHIN));
    let worst = bad.map(|t| t.begun.saturating_duration_since(back)).max();
    let late = tries.iter().filter(|t| t.begun >= back);
    let slowest = late.map(|t| t.ended - t.begun).max().unwrap();
    let failed = tries.iter().filter(|t| !t.ok).count();
    println!(
        "{what}: first good dial {:?} after the way was back, the last bad one begun {worst:?} \
         after, the slowest took {slowest:?}; {failed} of {} failed in all",
        first - back,
        tries.len()
    );
    assert!(first - back <= BACK_WITHIN, "{what}: {:?}", first - back);
    let worst = worst.unwrap_or_default();
    assert!(
        worst <= BACK_WITHIN,
        "{what}: a dial begun {worst:?} after the way was back"
    );
    let impatient = tries
        .iter()
        .filter(|t| !t.ok && t.begun >= away + KNOWN_WITHIN)
        .count();
    assert_eq!(impatient, 0, "{what}: dials that did not wait");
}

/// Waits for the way.
async fn way_is_back() -> Instant {
    let pod = a_pod();
    probe::until_open("dev", "shop", || Some(pod.clone())).await;
    Instant::now()
}

/// A pod to try the way with. Remembered, since the API server may not be there to ask.
fn a_pod() -> String {
    use std::sync::OnceLock;
    static POD: OnceLock<String> = OnceLock::new();
    POD.get_or_init(|| lab::ready_pods("peer").remove(0))
        .clone()
}

async fn start(web: &str) -> (Session, Open) {
    lab::settle();
    a_pod();
    Session::start(web).await
}

async fn ctl(verb: &'static str, component: &'static str) {
    let done = tokio::task::spawn_blocking(move || lab::ctl(verb, component)).await;
    done.unwrap();
}

/// Takes `component` away by `verb` until `open` streams have failed and `pause` is over, brings
/// it back by the opposite, and looks what a session makes of it.
async fn outage(component: &'static str, verb: &'static str, pause: Duration, web: &str) {
    let (session, open) = start(web).await;
    let again = if verb == "pause" { "continue" } else { "start" };
    let guard = Fault { component, again };
    survive(&session, &format!("{component} {verb}"), async {
        ctl(verb, component).await;
        let away = Instant::now();
        // What was open fails while the way is away, not only when it is back.
        await_end(open, Fate::Ends).await;
        tokio::time::sleep(pause.saturating_sub(away.elapsed())).await;
        // `start` returns when the component says that it is ready, which is later than this.
        let (back, ()) = tokio::join!(way_is_back(), ctl(again, component));
        Outage { away, back }
    })
    .await;
    drop(guard);
    session.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_api_server_is_killed_and_started_again() {
    outage("apiserver", "kill", Duration::from_secs(3), SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_kubelet_is_restarted() {
    // A pod by its address: a kubelet that comes back calls all its pods unready until it probed
    // them, and then the Service has no pod, whoever asks.
    lab::settle();
    let (_, address) = lab::pod_address("web");
    let web = format!("{address}:8080");
    outage("kubelet", "stop", Duration::from_secs(1), &web).await;
}

/// Nothing answers and nothing is closed, as when a laptop loses its network.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_way_goes_silent() {
    outage("apiserver", "pause", Duration::from_secs(8), SERVICE).await;
}

/// As when a laptop sleeps.
async fn asleep(span: Duration, meanwhile: impl Future<Output = ()>, fate: Fate) {
    let (session, open) = start(SERVICE).await;
    let both = [&session.connect, &session.forward];
    both.into_iter()
        .for_each(|kdev| kdev.signal(Signal::SIGSTOP));
    let stopped = Instant::now();
    meanwhile.await;
    tokio::time::sleep(span.saturating_sub(stopped.elapsed())).await;
    let what = format!("stopped for {} s", span.as_secs());
    survive(&session, &what, async {
        both.into_iter()
            .for_each(|kdev| kdev.signal(Signal::SIGCONT));
        let back = Instant::now();
        Outage { away: back, back }
    })
    .await;
    await_end(open, fate).await;
    session.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn kdev_is_stopped_for_a_minute() {
    asleep(Duration::from_secs(60), async {}, Fate::EndsOrLives).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn kdev_is_stopped_while_its_connections_break() {
    let meanwhile = async {
        let _guard = Fault {
            component: "apiserver",
            again: "start",
        };
        ctl("kill", "apiserver").await;
        ctl("start", "apiserver").await;
        way_is_back().await;
    };
    asleep(Duration::from_secs(5), meanwhile, Fate::Ends).await;
}
