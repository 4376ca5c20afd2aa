//! No flow control: what one stream does to the others.

use std::time::Duration;

use kdev_sim::{Options, Pod, SimCluster};

use crate::support::frames::{Frame, Spdy, data, fin, ping};
use crate::support::{shop, shop_with};

/// Pings that come back of five in a row, which the server spreads over its five workers.
async fn pings(spdy: &mut Spdy, first: u32) -> Vec<u32> {
    let ids: Vec<u32> = (0..5).map(|i| first + 2 * i).collect();
    let all: Vec<u8> = ids.iter().flat_map(|&id| ping(id)).collect();
    spdy.send(&all).await;
    let mut back = Vec::new();
    while let Ok(frame) = tokio::time::timeout(Duration::from_millis(300), spdy.next()).await {
        if let Frame::Ping(id) = frame {
            back.push(id);
        }
    }
    back
}

/// A pod whose port 1000 takes connections and never reads.
async fn with_deaf_pod() -> SimCluster {
    let cluster = shop().await;
    cluster.add_pod(Pod::new("shop", "deaf").serve(1000, |io| async move {
        std::future::pending::<()>().await;
        drop(io);
    }));
    cluster
}

#[tokio::test]
async fn a_pod_that_does_not_read_stalls_its_worker_then_the_connection() {
    let cluster = with_deaf_pod().await;
    let mut spdy = Spdy::plain(&cluster, "deaf").await;
    let pair = spdy.pair(1, 1000);
    spdy.send(&pair).await;
    let piece = data(3, &[0; 32 * 1024]);
    for _ in 0..20 {
        spdy.send(&piece).await;
    }
    // One worker of five is stuck: so is one ping of five.
    assert_eq!(pings(&mut spdy, 101).await.len(), 4);
    let mut sent = 0;
    while spdy.try_send(&piece).await {
        sent += 1;
        assert!(sent < 1000, "the connection never stalls");
    }
}

#[tokio::test]
async fn streams_of_the_other_workers_go_on_beside_a_stalled_one() {
    let cluster = with_deaf_pod().await;
    cluster.add_pod(
        Pod::new("shop", "deaf")
            .serve(7, |io| async move {
                let (mut from, mut to) = tokio::io::split(io);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            })
            .serve(1000, |io| async move {
                std::future::pending::<()>().await;
                drop(io);
            }),
    );
    let mut spdy = Spdy::plain(&cluster, "deaf").await;
    let pair = spdy.pair(1, 1000);
    spdy.send(&pair).await;
    for _ in 0..20 {
        spdy.send(&data(3, &[0; 32 * 1024])).await;
    }
    // 5 and 7 are the workers 0 and 2; 3 is stuck.
    let pair = [spdy.pair(5, 7), data(7, b"free")].concat();
    spdy.send(&pair).await;
    assert_eq!(spdy.data(7, 4).await, b"free");
    // 11 and 13: the data stream is the stuck worker's, so it is not even accepted.
    let pair = [spdy.pair(11, 7), data(13, b"stuck")].concat();
    spdy.send(&pair).await;
    assert_eq!(spdy.next().await, Frame::Reply(11));
    assert!(spdy.is_quiet(300).await);
}

#[tokio::test]
async fn bytes_for_a_stream_that_ended_block_its_worker_for_good() {
    let cluster = shop().await;
    cluster.set_habits(|habits| habits.eof_grace = Duration::from_millis(50));
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let pair = [spdy.pair(1, 8080), data(3, b"nonsense\r\n\r\n")].concat();
    spdy.send(&pair).await;
    spdy.story(2).await;
    assert_eq!(pings(&mut spdy, 101).await.len(), 5);
    // The first frame is still taken, by a copy that has nowhere to put it.
    spdy.send(&data(3, b"late")).await;
    assert_eq!(pings(&mut spdy, 201).await.len(), 5);
    spdy.send(&data(3, b"later")).await;
    spdy.send(&fin(3)).await;
    assert_eq!(pings(&mut spdy, 301).await.len(), 4);
}

#[tokio::test]
async fn ending_a_stream_in_time_keeps_its_worker_free() {
    let cluster = shop().await;
    cluster.set_habits(|habits| habits.eof_grace = Duration::from_millis(50));
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let pair = [spdy.pair(1, 8080), data(3, b"nonsense\r\n\r\n")].concat();
    spdy.send(&pair).await;
    spdy.story(2).await;
    spdy.send(&[fin(3), data(3, b"late"), data(3, b"later")].concat())
        .await;
    assert_eq!(pings(&mut spdy, 101).await.len(), 5);
}

#[tokio::test]
async fn bytes_sent_ahead_to_a_refused_port_cost_an_old_runtimes_worker() {
    let cluster = shop_with(Options::old()).await;
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let pair = [spdy.pair(1, 9999), data(3, b"ahead")].concat();
    spdy.send(&pair).await;
    spdy.story(2).await;
    assert_eq!(pings(&mut spdy, 101).await.len(), 4);

    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let pair = [spdy.pair(1, 9999), data(3, b"ahead")].concat();
    spdy.send(&pair).await;
    spdy.story(2).await;
    assert_eq!(
        pings(&mut spdy, 101).await.len(),
        5,
        "a reset frees it on new ones"
    );
}

#[tokio::test]
async fn frames_down_wait_for_a_client_that_does_not_read() {
    let cluster = shop().await;
    cluster.add_pod(Pod::new("shop", "source").serve(1000, |mut io| async move {
        // It writes until nobody takes it any more.
        let piece = vec![1; 64 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut io, &piece)
            .await
            .is_ok()
        {}
    }));
    let mut spdy = Spdy::plain(&cluster, "source").await;
    let pair = spdy.pair(1, 1000);
    spdy.send(&pair).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Ten megabytes and more come once the client reads; no frame exceeds 32 KiB.
    spdy.data(3, 16 << 20).await;
}
