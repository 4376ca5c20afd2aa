// Tests end with their runtime, so nothing has to wait for these tasks.
#![allow(clippy::disallowed_methods)]

mod handshake;
mod joined;
mod life;
mod wire;

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::head::{RefusalCode, Role};
use super::tally::Counted;
use super::*;
use crate::addr::Target;
use crate::dial::DialError;
use crate::io::Io;
use crate::task::Tasks;

/// Bytes that the pipes of most tests hold: far less than a frame, so that everything is cut.
const NARROW: usize = 64;
const BUDGET: u32 = 64 << 20;

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32]).unwrap()
}

fn keys() -> Keys {
    Keys {
        forward: secret(1),
        reverse: Some(secret(2)),
    }
}

fn admit(_: &Hello) -> Result<(), String> {
    Ok(())
}

/// A tunnel over a pipe of `width` bytes; its far side does with each stream what `far` says.
async fn tunnel<F, R>(width: usize, tasks: &Tasks, far: F) -> Opener
where
    F: Fn(Incoming) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let (near, distant) = duplex(width);
    let (both, budget) = (tasks.clone(), Budget::new(BUDGET));
    let share = budget.share().unwrap();
    tasks.spawn(async move {
        let mut listener = serve(distant, share).await.unwrap();
        while let Some(incoming) = listener.next().await {
            both.spawn(far(incoming));
        }
    });
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    tasks.spawn(async move {
        driver.run().await;
    });
    opener
}

async fn echo(incoming: Incoming) {
    // One that was given up meanwhile is nobody's.
    let Ok(mut stream) = incoming.accept() else {
        return;
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            n => stream.write_all(&buffer[..n]).await.unwrap(),
        }
    }
    stream.shutdown().await.unwrap();
}

fn target() -> Target {
    "web.shop:80".parse().unwrap()
}

#[tokio::test]
async fn bytes_come_back_and_each_direction_ends_by_itself() {
    let tasks = Tasks::new();
    let opener = tunnel(NARROW, &tasks, echo).await;
    let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
    // Before it was answered.
    stream.write_all(b"early").await.unwrap();
    stream.opened().await.unwrap();
    for _ in 0..500 {
        stream.write_all(b"x").await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, [b"early".to_vec(), vec![b'x'; 500]].concat());
    assert_eq!(opener.streams(), 1);
    drop(stream);
    assert_eq!(opener.streams(), 0);
    tasks.kill();
}

#[tokio::test]
async fn refusals_carry_their_cause() {
    let tasks = Tasks::new();
    let opener = tunnel(NARROW, &tasks, |incoming| async move {
        let target = incoming.target.to_string();
        let reason = "why\n\u{1b}[31mnot".to_owned();
        let error = match incoming.target.port {
            1 => DialError::Refused { target, reason },
            2 => DialError::NotFound {
                what: "host x".into(),
                fix: String::new(),
            },
            3 => DialError::TimedOut {
                target,
                after: Duration::from_secs(7),
            },
            4 => DialError::Forbidden { target, reason },
            _ => DialError::Unreachable {
                target,
                reason,
                fix: String::new(),
            },
        };
        incoming.refuse(&error);
    })
    .await;
    for port in 1..=5 {
        let target = Target::new("web".parse().unwrap(), port);
        let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
        let error = stream.opened().await.unwrap_err();
        let fits = match &error {
            DialError::Refused { reason, .. } => port == 1 && reason == "why??[31mnot",
            DialError::NotFound { what, .. } => port == 2 && what == "host x",
            DialError::TimedOut { after, .. } => port == 3 && after.as_secs() == 7,
            DialError::Forbidden { .. } => port == 4,
            DialError::Unreachable { .. } => port == 5,
            _ => false,
        };
        assert!(fits, "{port}: {error}");
        let read = stream.read_u8().await.unwrap_err();
        assert!(DialError::from_io(&read).is_some(), "{read}");
    }
    tasks.kill();
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_no_broken_tunnel() {
    let tasks = Tasks::new();
    // As by who takes it and is ended before it is answered.
    let opener = tunnel(NARROW, &tasks, |incoming| async move { drop(incoming) }).await;
    let target = Target::new("web".parse().unwrap(), 1);
    let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
    let error = stream.opened().await.unwrap_err().to_string();
    assert!(error.contains("gave it up"), "{error}");
    tasks.kill();
    // Whether that is known at once or not.
    let error = match opener.open(&target, Protocol::Tcp).await {
        Ok(mut stream) => stream.opened().await.unwrap_err(),
        Err(error) => error,
    };
    let error = error.to_string();
    assert!(error.contains("the tunnel to the relay broke"), "{error}");
}

#[tokio::test]
async fn resets_travel_both_ways() {
    let tasks = Tasks::new();
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let opener = tunnel(NARROW, &tasks, move |incoming| {
        let report = report.clone();
        async move {
            let port = incoming.target.port;
            let mut stream = incoming.accept().unwrap();
            stream.read_u8().await.unwrap();
            if port == 1 {
                stream.reset();
                return;
            }
            stream.write_all(b"y").await.unwrap();
            let _ = report.send(stream.read_u8().await.unwrap_err().kind());
        }
    })
    .await;
    let open = |port| {
        let target = Target::new("web".parse().unwrap(), port);
        let opener = opener.clone();
        async move {
            let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream
        }
    };
    let error = open(1).await.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut stream = open(2).await;
    stream.read_u8().await.unwrap();
    drop(stream);
    assert_eq!(
        reports.recv().await,
        Some(std::io::ErrorKind::ConnectionReset)
    );
    tasks.kill();
}

#[tokio::test]
async fn many_uploads_at_once_arrive_whole() {
    const SIZE: usize = 1 << 20;
    let tasks = Tasks::new();
    let opener = tunnel(16 << 10, &tasks, echo).await;
    let mut done = tokio::task::JoinSet::new();
    for seed in 0..13_u8 {
        let opener = opener.clone();
        done.spawn(async move {
            let stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let sent: Vec<u8> = (0..SIZE).map(|i| (i / 7) as u8 ^ seed).collect();
            let mut back = Vec::new();
            let (wrote, _) = tokio::join!(
                async {
                    write.write_all(&sent).await?;
                    write.shutdown().await
                },
                async { read.read_to_end(&mut back).await.unwrap() }
            );
            wrote.unwrap();
            assert!(back == sent, "{seed}");
        });
    }
    done.join_all().await;
    tasks.kill();
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_itself_alone() {
    let tasks = Tasks::new();
    let opener = tunnel(16 << 10, &tasks, |incoming| async move {
        let port = incoming.target.port;
        let mut stream = incoming.accept().unwrap();
        if port == 1 {
            // Nobody reads here.
            std::future::pending::<()>().await;
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(&byte).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let stalled = Target::new("web".parse().unwrap(), 1);
    let mut stalled = opener.open(&stalled, Protocol::Tcp).await.unwrap();
    let stuck = tokio::spawn(async move {
        let piece = vec![0; 64 << 10];
        let mut sent = 0_usize;
        loop {
            stalled.write_all(&piece).await.unwrap();
            sent += piece.len();
            assert!(sent < 8 << 20, "the window bounds what is under way");
        }
    });
    for _ in 0..50 {
        let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
        stream.write_all(b"y").await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"y");
    }
    stuck.abort();
    tasks.kill();
}

#[test]
fn a_budget_is_shared_by_all_tunnels() {
    let budget = Budget::new(1 << 20);
    let mut first = budget.share().unwrap();
    assert_eq!(first.window(), 1 << 20);
    let others: Vec<_> = (0..3).map(|_| budget.share().unwrap()).collect();
    assert_eq!(first.window(), 256 << 10);
    assert!(budget.share().is_none(), "what is left would be too little");
    drop(others);
    assert_eq!(first.window(), 1 << 20);
    assert_eq!(budget.tunnels(), 1);
}

#[tokio::test]
async fn a_budget_that_grows_with_its_use_has_room_for_many() {
    let budget = Budget::growing(40 << 20);
    let shares: Vec<_> = std::iter::from_fn(|| budget.share()).collect();
    assert_eq!(shares.len(), 640);
}

#[tokio::test(start_paused = true)]
async fn a_window_grows_with_what_is_read_and_shrinks_when_that_is_little() {
    const KIB: u32 = 1 << 10;
    const UNUSED: Duration = Duration::from_secs(6);
    let budget = Budget::growing(2 << 20);
    let mut first = budget.share().unwrap();
    let (own, mut window) = (Counted::new(&first.tally()), first.window());
    assert_eq!(window, 64 * KIB);
    own.read(1);
    assert_eq!(first.window(), 64 * KIB, "nothing was read yet to speak of");
    for wider in [128, 256, 512, 1024, 1024] {
        own.read(window as usize / 2);
        first.changed().await;
        window = first.window();
        assert_eq!(window, wider * KIB);
    }
    // Others who are there, and read nothing, leave it all to the one who does.
    let mut second = budget.share().unwrap();
    assert_eq!((second.window(), first.window()), (64 * KIB, 1024 * KIB));
    Counted::new(&second.tally()).read(64 << 10);
    second.changed().await;
    assert_eq!(second.window(), 128 * KIB);
    first.changed().await;
    assert_eq!(first.window(), 512 * KIB);
    // What is not used is given up bit by bit, and then the other may have all.
    for narrower in [256, 128, 64] {
        tokio::time::advance(UNUSED).await;
        first.changed().await;
        assert_eq!(first.window(), narrower * KIB);
    }
    let other = Counted::new(&second.tally());
    for _ in 0..5 {
        other.read(1 << 20);
        second.window();
    }
    assert_eq!(second.window(), 1024 * KIB);
    drop((first, second));
    assert_eq!(budget.tunnels(), 0);
}
