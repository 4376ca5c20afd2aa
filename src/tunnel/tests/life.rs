//! Silence, slow lines, and ends in order.

use super::*;

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

/// A pipe that loses all that comes after a while, as a peer that was stopped does.
async fn cut_line(mut near: DuplexStream, mut far: DuplexStream, after: Duration) {
    let whole = tokio::io::copy_bidirectional(&mut near, &mut far);
    let _ = tokio::time::timeout(after, whole).await;
    let _ = tokio::io::copy(&mut near, &mut tokio::io::sink()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_still_written_does_not_put_death_off() {
    const GOOD: Duration = Duration::from_secs(3);
    let tasks = Tasks::new();
    let (near, middle) = duplex(1 << 16);
    let (distant, far) = duplex(1 << 16);
    tasks.spawn(cut_line(middle, distant, GOOD));
    tasks.spawn(async move {
        let mut listener = serve(far, Budget::new(BUDGET).share().unwrap())
            .await
            .unwrap();
        while listener.next().await.is_some() {}
    });
    let began = tokio::time::Instant::now();
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    let requests = async {
        let target = target();
        loop {
            let stream = opener.open(&target, Protocol::Tcp);
            let _ = tokio::time::timeout(Duration::from_millis(50), stream).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = tokio::select! {
        ended = driver.run() => Some(ended),
        () = requests => None,
        () = tokio::time::sleep(GOOD + 2 * DEAD_AFTER) => None,
    };
    assert_eq!(ended, Some(Ended::Silent));
    let took = began.elapsed() - GOOD;
    assert!(took <= DEAD_AFTER + Duration::from_millis(100), "{took:?}");
    tasks.kill();
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

#[tokio::test(start_paused = true)]
async fn a_reader_behind_a_long_queue_is_not_dead() {
    let tasks = Tasks::new();
    let (near, middle) = duplex(64 << 10);
    // Buffers on the way that take all at once, and a line that takes a minute for it.
    let (distant, far) = duplex(64 << 20);
    tasks.spawn(slow_line(distant, middle, 200_000));
    let handlers = tasks.clone();
    tasks.spawn(async move {
        let mut listener = serve(far, Budget::new(BUDGET).share().unwrap())
            .await
            .unwrap();
        while let Some(incoming) = listener.next().await {
            handlers.spawn(async move {
                let mut stream = incoming.accept().unwrap();
                let _ = tokio::io::copy(&mut tokio::io::repeat(7), &mut stream).await;
            });
        }
    });
    let (opener, driver) = open(near, Budget::new(BUDGET).share().unwrap())
        .await
        .unwrap();
    tasks.spawn(async move {
        driver.run().await;
    });
    let mut downloads = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
        downloads.spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    }
    let minute = tokio::time::timeout(Duration::from_secs(60), downloads.join_next()).await;
    assert!(minute.is_err(), "a download broke off: {minute:?}");
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

#[tokio::test]
async fn hundreds_of_dials_that_are_given_up_at_once_end_no_tunnel() {
    let tasks = Tasks::new();
    let opener = tunnel(1 << 20, &tasks, echo).await;
    for _ in 0..500 {
        drop(opener.open(&target(), Protocol::Tcp).await.unwrap());
    }
    let mut stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
    stream.write_all(b"still there").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "still there");
    tasks.kill();
}
