//! Starting, stopping, and pods that go away.

use std::time::Duration;

use kdev_sim::{Options, Pod, SimCluster, shop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::frames::{Frame, Spdy, data};
use crate::support::http::get;
use crate::support::{connect, shop, until, within};

#[tokio::test]
async fn the_api_server_comes_back_on_the_same_port_with_the_same_objects() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    let pair = [spdy.pair(1, 7), data(3, b"hi")].concat();
    spdy.send(&pair).await;
    assert_eq!(spdy.data(3, 2).await, b"hi");
    within(cluster.stop_api()).await;
    assert_eq!(spdy.next().await, Frame::End);
    assert!(connect(&cluster).await.is_err());
    assert_eq!(cluster.counts().live_connections, 0);
    cluster.start_api().await.unwrap();
    cluster.start_api().await.unwrap();
    assert_eq!(
        get(&cluster, "dev-token", "/api/v1/namespaces/shop/pods/web-1")
            .await
            .code,
        200
    );
    // The pod saw its connection end a second after the API server did.
    until("the echo ends", || {
        cluster.pod_counts("shop", "echo-1").unwrap().live == 0
    })
    .await;
}

#[test]
fn a_stopped_cluster_leaves_nothing_running() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let alive = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        for wait in [true, false] {
            let before = alive();
            let cluster = shop().await;
            let mut spdy = Spdy::tunnelled(&cluster, "echo-1").await;
            let pair = [spdy.pair(1, 7), data(3, b"hi")].concat();
            spdy.send(&pair).await;
            spdy.data(3, 2).await;
            let line = "GET /api/v1/namespaces/shop/pods?watch=true";
            let _watch = crate::support::http::open(&cluster, "dev-token", line, &[]).await;
            assert!(alive() > before);
            if wait {
                within(cluster.shutdown()).await;
            } else {
                drop(cluster);
                until("the tasks end", || alive() == before).await;
            }
            assert_eq!(alive(), before);
        }
    });
}

#[tokio::test]
async fn a_pod_that_goes_away_ends_its_connections_quietly_and_refuses_new_ones() {
    let cluster = shop().await;
    cluster.set_habits(|habits| habits.eof_grace = Duration::from_millis(50));
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    let pair = [spdy.pair(1, 7), data(3, b"hi")].concat();
    spdy.send(&pair).await;
    spdy.data(3, 2).await;
    cluster.remove_pod("shop", "echo-1");
    // No error: to the runtime this is a connection that ended.
    assert_eq!(spdy.story(2).await, [Frame::Fin(3), Frame::Fin(1)]);
    let pair = spdy.pair(5, 7);
    spdy.send(&pair).await;
    let story = spdy.story(2).await;
    let [Frame::Fin(7), Frame::Data(5, text), _] = story.as_slice() else {
        panic!("{story:?}")
    };
    assert!(String::from_utf8_lossy(text).contains("network namespace for sandbox"));
    // A new pod of that name is not this connection's pod.
    cluster.add_pod(Pod::new("shop", "echo-1").serve(7, |_| async {}));
    let pair = spdy.pair(9, 7);
    spdy.send(&pair).await;
    assert!(matches!(
        spdy.story(2).await.as_slice(),
        [Frame::Fin(11), Frame::Data(9, _), _]
    ));
}

#[tokio::test]
async fn a_restarted_container_cuts_connections_and_takes_new_ones() {
    let cluster = shop().await;
    cluster.set_habits(|habits| habits.eof_grace = Duration::from_millis(50));
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    let pair = [spdy.pair(1, 7), data(3, b"hi")].concat();
    spdy.send(&pair).await;
    spdy.data(3, 2).await;
    assert!(cluster.cut_pod("shop", "echo-1"));
    assert_eq!(spdy.story(2).await, [Frame::Fin(3), Frame::Fin(1)]);
    let pair = [spdy.pair(5, 7), data(7, b"again")].concat();
    spdy.send(&pair).await;
    assert_eq!(spdy.data(7, 5).await, b"again");
}

#[tokio::test]
async fn pods_may_be_real_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    shop::furnish(&cluster);
    let address = listener.local_addr().unwrap();
    cluster.add_pod(Pod::new("shop", "real").forward(1000, address));
    let mut spdy = Spdy::plain(&cluster, "real").await;
    let pair = [spdy.pair(1, 1000), data(3, b"ping")].concat();
    spdy.send(&pair).await;
    let (mut socket, _) = within(listener.accept()).await.unwrap();
    let mut asked = [0; 4];
    within(socket.read_exact(&mut asked)).await.unwrap();
    socket.write_all(b"pong").await.unwrap();
    assert_eq!(spdy.data(3, 4).await, b"pong");
    drop((socket, listener));
    spdy.story(2).await;
    let pair = spdy.pair(5, 1000);
    spdy.send(&pair).await;
    let story = spdy.story(2).await;
    let [Frame::Fin(7), Frame::Data(5, text), _] = story.as_slice() else {
        panic!("{story:?}")
    };
    assert!(String::from_utf8_lossy(text).contains("connection refused"));
}
