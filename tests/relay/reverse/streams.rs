//! Bytes of callers, and how they end.

use std::time::{Duration, Instant};

use kdev::intercept::reverse::Event;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::*;

/// Bytes that differ from place to place.
fn bytes(many: usize) -> Vec<u8> {
    (0..many as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(many)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn much_goes_both_ways_as_it_is() {
    let stage = Stage::set_up().await;
    let ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    let body = bytes(5 << 20);
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: x\r\nX-User: ann\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let several = (0..3).map(|_| async {
        let (mut from, mut to) = stage.caller().await.into_split();
        let sending = async {
            to.write_all(head.as_bytes()).await.unwrap();
            to.write_all(&body).await.unwrap();
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(sending, from.read_to_end(&mut answer));
        read.unwrap();
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        // Chunks or not, the last bytes tell: what is echoed is framed by the relay.
        dechunked(&answer[at + 4..], &body);
    });
    futures_util::future::join_all(several).await;
}

/// Checks a body that came in chunks, or whole.
fn dechunked(mut from: &[u8], expected: &[u8]) {
    if from == expected {
        return;
    }
    let mut body = Vec::with_capacity(expected.len());
    loop {
        let end = from.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = std::str::from_utf8(&from[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&from[end + 2..end + 2 + size]);
        from = &from[end + 2 + size + 2..];
    }
    assert!(
        body == expected,
        "{} bytes of {}",
        body.len(),
        expected.len()
    );
}

/// A claim on everything, whose app gives each connection to the test.
async fn open(side: &Side) -> TcpListener {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    side.claim("all", listener.local_addr().unwrap()).await;
    listener
}

/// A caller's connection, and the app's end of it.
async fn pair(stage: &Stage, app: &TcpListener) -> (TcpStream, TcpStream) {
    let mut caller = stage.caller().await;
    caller.write_all(b"PING\r\n").await.unwrap();
    let (mut app, _) = timeout(LONG, app.accept()).await.unwrap().unwrap();
    let mut ping = [0; 6];
    app.read_exact(&mut ping).await.unwrap();
    (caller, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_end_first_and_still_hear_the_other() {
    let stage = Stage::set_up().await;
    let ann = Side::of("ann", &[&stage]).await;
    let listener = open(&ann).await;
    let (large, mut heard) = (bytes(3 << 20), Vec::new());
    for turned in [false, true] {
        let (caller, app) = pair(&stage, &listener).await;
        let (mut first, mut second) = match turned {
            false => (caller, app),
            true => (app, caller),
        };
        first.write_all(b"last words").await.unwrap();
        first.shutdown().await.unwrap();
        heard.clear();
        timeout(LONG, second.read_to_end(&mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(heard, b"last words");
        heard.clear();
        let sending = async {
            second.write_all(&large).await.unwrap();
            second.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(sending, timeout(LONG, first.read_to_end(&mut heard)));
        read.unwrap().unwrap();
        assert!(heard == large, "{} bytes", heard.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_breaks_off_is_seen_by_the_caller() {
    let stage = Stage::set_up().await;
    let ann = Side::of("ann", &[&stage]).await;
    let listener = open(&ann).await;
    let (mut caller, app) = pair(&stage, &listener).await;
    app.set_zero_linger().unwrap();
    drop(app);
    let read = timeout(LONG, caller.read(&mut [0; 8])).await.unwrap();
    assert!(!matches!(read, Ok(n) if n > 0), "{read:?}");
    // And the other way round.
    let (caller, mut app) = pair(&stage, &listener).await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    let read = timeout(LONG, app.read(&mut [0; 8])).await.unwrap();
    assert!(!matches!(read, Ok(n) if n > 0), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_gives_claims_back_at_once_and_ends_what_does_not_end() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let listener = open(&ann).await;
    let (mut caller, _app) = pair(&stage, &listener).await;
    let begun = Instant::now();
    tokio::join!(ann.reverse.close(Duration::from_secs(1)), async {
        sleep(Duration::from_millis(300)).await;
        assert_eq!(who(&stage, "eve").await, "pods");
        assert!(begun.elapsed() < Duration::from_millis(900));
    });
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let read = timeout(LONG, caller.read(&mut [0; 8])).await.unwrap();
    assert!(!matches!(read, Ok(n) if n > 0), "{read:?}");
    ann.left(0).await;
    assert_eq!(ann.wire.opened(), 1);
    let told = ann.all().await;
    assert!(!told.iter().any(|e| matches!(e, Event::Away)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_what_ends_in_time_and_no_longer() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let ann = Side::of("ann", &[&stage]).await;
    let listener = open(&ann).await;
    let (mut caller, mut app) = pair(&stage, &listener).await;
    let begun = Instant::now();
    tokio::join!(ann.reverse.close(Duration::from_secs(5)), async {
        sleep(Duration::from_millis(700)).await;
        app.write_all(b"done").await.unwrap();
        drop(app);
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "done");
        drop(caller);
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    ann.left(0).await;
    assert_eq!(who(&stage, "eve").await, "pods");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_keeps_its_limit_where_nothing_moves() {
    let stage = Stage::set_up().await;
    let other = stage.replica().await;
    let ann = Side::of("ann", &[&stage, &other]).await;
    let listener = open(&ann).await;
    let _open = pair(&stage, &listener).await;
    ann.wire.pass(false);
    ann.wire.silence(true);
    let begun = Instant::now();
    ann.reverse.close(Duration::from_secs(2)).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    ann.left(0).await;
}
