// Tests end with their runtime, so nothing has to wait for these tasks.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::head::{RefusalCode, Role, SessionId};
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

fn hello(role: Role) -> Hello {
    Hello::new(role, SessionId::random())
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
    let mut stream = incoming.accept().unwrap();
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
async fn both_sides_prove_themselves_and_bytes_follow_at_once() {
    for role in [Role::Forward, Role::Reverse] {
        let (near, far) = duplex(NARROW);
        let said = hello(role);
        let secret = secret(if role == Role::Forward { 1 } else { 2 });
        let (kdev, relay) = tokio::join!(
            async {
                let (mut io, program) = connect(near, &said, &secret).await.unwrap();
                assert_eq!(program, env!("CARGO_PKG_VERSION"));
                io.write_all(b"forth").await.unwrap();
                let mut back = [0; 4];
                io.read_exact(&mut back).await.unwrap();
                back
            },
            async {
                let mut accepted = accept(far, &keys(), admit).await.unwrap();
                accepted.io.write_all(b"back").await.unwrap();
                let mut forth = [0; 5];
                accepted.io.read_exact(&mut forth).await.unwrap();
                (accepted.hello, forth)
            }
        );
        assert_eq!(&kdev, b"back");
        assert_eq!(&relay.1, b"forth");
        assert_eq!((relay.0.role, relay.0.session), (role, said.session));
    }
}

#[tokio::test]
async fn a_secret_of_another_role_proves_nothing() {
    let (near, far) = duplex(4096);
    let said = hello(Role::Reverse);
    // The forward secret: its owner may not take reverse tunnels.
    let (known, relay_keys) = (secret(1), keys());
    let (kdev, relay) = tokio::join!(
        connect(near, &said, &known),
        accept(far, &relay_keys, admit)
    );
    // The relay proves itself with the secret that kdev does not have, so kdev stops there.
    assert!(matches!(kdev, Err(HandshakeError::Impostor)), "{kdev:?}");
    assert!(relay.is_err());
}

#[tokio::test]
async fn a_proof_that_was_recorded_is_refused() {
    // What kdev says in a good handshake, recorded.
    let (near, mut tap) = duplex(4096);
    let (mut forth, far) = duplex(4096);
    let said = hello(Role::Forward);
    let (known, relay_keys) = (secret(1), keys());
    let recording = async {
        let mut recorded = Vec::new();
        let mut buffer = [0; 4096];
        // Two messages from each side.
        for _ in 0..2 {
            let n = tap.read(&mut buffer).await.unwrap();
            recorded.push(buffer[..n].to_vec());
            forth.write_all(&buffer[..n]).await.unwrap();
            let n = forth.read(&mut buffer).await.unwrap();
            tap.write_all(&buffer[..n]).await.unwrap();
        }
        recorded
    };
    let (kdev, relay, recorded) = tokio::join!(
        connect(near, &said, &known),
        accept(far, &relay_keys, admit),
        recording
    );
    kdev.unwrap();
    relay.unwrap();
    let (mut again, far) = duplex(4096);
    again.write_all(&recorded.concat()).await.unwrap();
    let refused = accept(far, &keys(), admit).await.unwrap_err();
    let HandshakeError::Refused(refusal) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal.code, RefusalCode::Proof);
    let mut told = String::new();
    again.read_to_string(&mut told).await.unwrap();
    assert!(
        told.contains("refused") && told.contains("another secret"),
        "{told}"
    );
}

#[tokio::test]
async fn a_relay_without_room_says_so_to_those_who_may_know() {
    let (near, far) = duplex(4096);
    let (said, known, relay_keys) = (hello(Role::Forward), secret(1), keys());
    let full = |_: &Hello| Err::<(), _>("200 tunnels are open".to_owned());
    let (kdev, _) = tokio::join!(connect(near, &said, &known), accept(far, &relay_keys, full));
    let Err(HandshakeError::Refused(refusal)) = kdev else {
        panic!("{kdev:?}");
    };
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert_eq!(refusal.reason, "200 tunnels are open");
}

#[tokio::test]
async fn garbage_and_old_versions_are_told_why() {
    let session = "0".repeat(32);
    let nonce = "0".repeat(64);
    let old =
        format!("KDEV-TUNNEL 0\r\nrole: forward\r\nsession: {session}\r\nnonce: {nonce}\r\n\r\n");
    for (text, code) in [
        (old.as_str(), RefusalCode::Version),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", RefusalCode::Malformed),
        (
            "KDEV-TUNNEL 1\r\nrole: root\r\n\r\n",
            RefusalCode::Malformed,
        ),
    ] {
        let (mut near, far) = duplex(4096);
        near.write_all(text.as_bytes()).await.unwrap();
        match accept(far, &keys(), admit).await.unwrap_err() {
            HandshakeError::Refused(refusal) => assert_eq!(refusal.code, code, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    // Without an end there is a limit; with the end of the stream there is nothing to say.
    for text in [vec![b'x'; 1 << 16], b"KDEV-TUNNEL".to_vec()] {
        let (mut near, far) = duplex(1 << 17);
        near.write_all(&text).await.unwrap();
        drop(near);
        let error = accept(far, &keys(), admit).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Io(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_speaks_is_given_up() {
    let (_near, far) = duplex(4096);
    let error = accept(far, &keys(), admit).await.unwrap_err();
    assert!(matches!(error, HandshakeError::TimedOut), "{error:?}");
}

proptest! {
    #[test]
    fn first_messages_come_back_as_they_were(program in "[ -~]{0,40}", reverse: bool) {
        let mut said = hello(if reverse { Role::Reverse } else { Role::Forward });
        said.program = program.trim().to_owned();
        prop_assert_eq!(Hello::parse(&said.encode()), Some(said));
    }

    #[test]
    fn no_text_of_a_peer_is_a_panic(text in "\\PC{0,200}") {
        let text = format!("{text}\r\n\r\n");
        let _ = Hello::parse(&text);
        let _ = head::Answer::parse(&text);
        let _ = head::parse_proof(&text);
    }

    #[test]
    fn datagrams_come_back_however_they_are_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..8),
        cut in 1_usize..3000,
    ) {
        let mut wire = BytesMut::new();
        for payload in &payloads {
            datagram::encode(payload, &mut wire);
        }
        let (mut read, mut back) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(cut) {
            read.extend_from_slice(piece);
            while let Some(payload) = datagram::decode(&mut read).unwrap() {
                back.push(payload.to_vec());
            }
        }
        prop_assert_eq!(back, payloads);
        prop_assert!(read.is_empty());
    }

    #[test]
    fn capsules_of_a_hostile_peer_are_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut read = BytesMut::from(&bytes[..]);
        while let Ok(Some(payload)) = datagram::decode(&mut read) {
            prop_assert!(payload.len() <= datagram::MAX_PAYLOAD + 8);
        }
        prop_assert!(read.capacity() <= (datagram::MAX_PAYLOAD + 1024) * 2);
    }
}

#[test]
fn capsules_of_other_kinds_are_skipped() {
    // Type 0x17, two bytes; then a datagram of context 2; then ours.
    let mut bytes = BytesMut::from(&[0x17, 2, 9, 9, 0, 2, 2, 7][..]);
    datagram::encode(b"ours", &mut bytes);
    assert_eq!(datagram::decode(&mut bytes).unwrap().unwrap(), &b"ours"[..]);
    assert!(datagram::decode(&mut bytes).unwrap().is_none());
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

#[tokio::test(start_paused = true)]
async fn silence_is_death_within_six_seconds() {
    let (near, far) = duplex(1 << 16);
    let (_opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    // The other side takes bytes and says nothing, as one that was stopped does.
    let ended = driver.run().await;
    assert_eq!(ended, Ended::Silent);
    let took = began.elapsed();
    assert!(
        took >= DEAD_AFTER && took < DEAD_AFTER + Duration::from_secs(1),
        "{took:?}"
    );
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_lives() {
    let tasks = Tasks::new();
    let opener = tunnel(NARROW, &tasks, echo).await;
    tokio::time::sleep(Duration::from_secs(7200)).await;
    let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
    stream.write_all(b"z").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'z');
    tasks.kill();
}

/// A pipe that takes `rate` bytes a second in one direction, as a bad uplink does.
async fn slow_line(mut from: DuplexStream, mut to: DuplexStream, rate: usize) {
    let (mut from_read, mut from_write) = tokio::io::split(&mut from);
    let (mut to_read, mut to_write) = tokio::io::split(&mut to);
    tokio::join!(
        async {
            let mut buffer = vec![0; rate / 10];
            while let Ok(n @ 1..) = from_read.read(&mut buffer).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if to_write.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        },
        async {
            let _ = tokio::io::copy(&mut to_read, &mut from_write).await;
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_line_that_is_full_is_not_dead() {
    let tasks = Tasks::new();
    let (near, middle) = duplex(4096);
    let (distant, far) = duplex(4096);
    tasks.spawn(slow_line(middle, distant, 20_000));
    let handlers = tasks.clone();
    tasks.spawn(async move {
        let mut listener = serve(far, Budget::new(BUDGET).share().unwrap())
            .await
            .unwrap();
        while let Some(incoming) = listener.next().await {
            handlers.spawn(async move {
                let mut stream = incoming.accept().unwrap();
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    let (ended, mut end) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        let _ = ended.send(driver.run().await);
    });
    let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
    let upload = async {
        let piece = vec![0; 16 << 10];
        loop {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    let minute = tokio::time::timeout(Duration::from_secs(60), upload).await;
    assert!(
        minute.is_err(),
        "the tunnel was given up: {:?}",
        end.try_recv()
    );
    assert!(end.try_recv().is_err());
    tasks.kill();
}

#[tokio::test]
async fn a_line_that_takes_nothing_bounds_what_all_streams_queue() {
    let (near, far) = duplex(4096);
    // The far side answers nothing at all, so all stays queued here.
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    let tasks = Tasks::new();
    tasks.spawn(async move {
        driver.run().await;
    });
    let queued = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for _ in 0..200 {
        let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
        let queued = queued.clone();
        tasks.spawn(async move {
            let piece = vec![0; 16 << 10];
            while stream.write_all(&piece).await.is_ok() {
                queued.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let queued = queued.load(std::sync::atomic::Ordering::Relaxed);
    assert!(queued <= 2 << 20, "{queued}");
    tasks.kill();
    drop(far);
}

#[tokio::test]
async fn a_tunnel_that_drains_lets_its_streams_end() {
    let (near, far) = duplex(NARROW);
    let tasks = Tasks::new();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let handlers = tasks.clone();
    let serving = tokio::spawn(async move {
        let mut listener = serve(far, Budget::new(BUDGET).share().unwrap())
            .await
            .unwrap();
        loop {
            tokio::select! {
                incoming = listener.next() => match incoming {
                    Some(incoming) => handlers.spawn(echo(incoming)),
                    None => return listener.ended(),
                },
                _ = &mut stopped, if !stopped.is_terminated() => listener.drain(),
            }
        }
    });
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    let driving = tokio::spawn(driver.run());
    let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
    stream.opened().await.unwrap();
    stop.send(()).unwrap();
    stream.write_all(b"still").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "still");
    drop(stream);
    assert_eq!(driving.await.unwrap(), Ended::Closed);
    assert_eq!(serving.await.unwrap(), Ended::Closed);
    assert!(opener.open(&target(), Protocol::Tcp).await.is_err());
}

#[tokio::test]
async fn a_kdev_that_leaves_says_so() {
    let (near, far) = duplex(4096);
    let serving = tokio::spawn(async move {
        let mut listener = serve(far, Budget::new(BUDGET).share().unwrap())
            .await
            .unwrap();
        assert!(listener.next().await.is_none());
        listener.ended()
    });
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    let driving = tokio::spawn(driver.run());
    drop(opener);
    assert_eq!(driving.await.unwrap(), Ended::Closed);
    // It was told, and may find nobody any more for its own last words.
    assert_ne!(serving.await.unwrap(), Ended::Silent);
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

/// A tunnel between sockets, as kdev and the relay use it: the near side's listener leads to a
/// server of the far side, which sends back what it gets and ends with its client.
async fn between_sockets(tasks: &Tasks) -> std::net::SocketAddr {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (mut socket, _) = server.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    let opener = tunnel(16 << 10, tasks, move |incoming| async move {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = join(incoming.accept().unwrap(), socket).await;
    })
    .await;
    let near = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (socket, _) = near.accept().await.unwrap();
            let opener = opener.clone();
            tokio::spawn(async move {
                let stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
                let _ = join(stream, socket).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_joined_byte_for_byte() {
    let tasks = Tasks::new();
    let near = between_sockets(&tasks).await;
    let mut done = tokio::task::JoinSet::new();
    for seed in 0..13_u8 {
        done.spawn(async move {
            let socket = tokio::net::TcpStream::connect(near).await.unwrap();
            let (mut read, mut write) = socket.into_split();
            // Small writes, then large ones.
            let sent: Vec<u8> = (0..2 << 20).map(|i: usize| (i / 5) as u8 ^ seed).collect();
            let expected = sent.clone();
            let writing = tokio::spawn(async move {
                for piece in sent[..1000].chunks(1).chain(sent[1000..].chunks(100_000)) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            writing.await.unwrap();
            assert!(back == expected, "{seed}: {} bytes", back.len());
        });
    }
    done.join_all().await;
    tasks.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_stops_its_server_alone() {
    let tasks = Tasks::new();
    let near = between_sockets(&tasks).await;
    let mut stuck = tokio::net::TcpStream::connect(near).await.unwrap();
    let flood = async {
        let piece = vec![0; 64 << 10];
        let mut sent = 0_usize;
        while stuck.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    };
    let others = async {
        for _ in 0..20 {
            let mut socket = tokio::net::TcpStream::connect(near).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut back = String::new();
            socket.read_to_string(&mut back).await.unwrap();
            assert_eq!(back, "hello");
        }
    };
    tokio::select! {
        sent = flood => panic!("the way ended after {sent} bytes"),
        () = others => {}
    }
    tasks.kill();
}
