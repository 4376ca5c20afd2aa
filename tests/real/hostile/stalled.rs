//! Sessions that open streams and then stop reading, or writing, or both.

use std::time::Duration;

use kdev::tunnel::{
    Budget, Identity, Opener, Protocol, Role, Secret, Stream, TUNNEL_PORT, connect, open,
};
use tokio::io::AsyncWriteExt as _;

use super::{Stage, serve};

/// Sessions, and streams of each: what all of them may hold when each is stuck.
const SESSIONS: usize = 20;
const STREAMS: usize = 30;
/// What each offers to hold: more than the relay has in all.
const OFFERED: u32 = 16 << 20;
/// How long a write may make no progress before it counts as stuck.
const STUCK: Duration = Duration::from_millis(300);

/// Which way nothing moves.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A server sends and the session does not read.
    Down,
    /// The session sends and the server does not read.
    Up,
}

/// A session with its streams, all of them stuck.
struct Session {
    _opener: Opener,
    _streams: Vec<Stream>,
}

async fn session(stage: &Stage, target: &str, way: Way) -> Session {
    let io = stage.relay.dial(TUNNEL_PORT).await.unwrap();
    let secret = Secret::new(stage.keys[0].clone()).unwrap();
    let (io, _) = connect(io, Role::Forward, &Identity::random(), &secret)
        .await
        .unwrap();
    let share = Budget::new(OFFERED).share().unwrap();
    let (opener, driver) = open(io, share).await.unwrap();
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(driver.run());
    let target = target.parse().unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
        stream.opened().await.unwrap();
        if matches!(way, Way::Up) {
            let bytes = [7; 64 << 10];
            let full = async { while stream.write_all(&bytes).await.is_ok() {} };
            let stuck = tokio::time::timeout(STUCK, full).await;
            assert!(stuck.is_err(), "the server reads or the tunnel broke");
        }
        streams.push(stream);
    }
    Session {
        _opener: opener,
        _streams: streams,
    }
}

async fn stalled(way: Way) {
    let stage = Stage::set_up("stalled");
    let beside = stage.beside().await;
    let listener = stage.other.listen();
    let target = listener.local_addr().unwrap().to_string();
    serve(listener, move |mut socket| async move {
        match way {
            Way::Down => {
                let bytes = vec![7; 64 << 10];
                while socket.write_all(&bytes).await.is_ok() {}
            }
            Way::Up => std::future::pending().await,
        }
    });
    let attack = || async {
        let all = (0..SESSIONS).map(|_| session(&stage, &target, way));
        let all: Vec<Session> = futures_util::future::join_all(all).await;
        let streams = stage.relay.metric("kdev_relay_streams");
        assert!(streams >= (SESSIONS * STREAMS) as f64, "{streams}");
        all
    };
    beside
        .stays_quick(&format!("{SESSIONS} sessions stalled, {way:?}"), attack)
        .await;
    stage.until_idle();
    stage.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn sessions_that_do_not_read_hold_what_they_may_and_no_more() {
    stalled(Way::Down).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn sessions_whose_servers_do_not_read_hold_no_more_either() {
    stalled(Way::Up).await;
}
