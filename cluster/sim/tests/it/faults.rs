//! The fault switches.

use std::time::{Duration, Instant};

use kdev_sim::TurnAway;
use tokio::io::AsyncReadExt;

use crate::support::frames::{Frame, SPDY, Spdy, data, path, ping, websocket};
use crate::support::http::{ask, get, open};
use crate::support::{connect, pending_for, shop, within};

const VERSION: &str = "/version";

#[tokio::test]
async fn latency_delays_each_direction_and_keeps_the_order() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    let pair = spdy.pair(1, 7);
    spdy.send(&pair).await;
    let hundred = Duration::from_millis(100);
    cluster.faults().latency(hundred, 2 * hundred);
    let start = Instant::now();
    for word in ["one ", "two ", "three"] {
        spdy.send(&data(3, word.as_bytes())).await;
    }
    assert_eq!(spdy.data(3, 13).await, b"one two three");
    let took = start.elapsed();
    assert!(
        (300..700).contains(&took.as_millis()),
        "{took:?}: one round trip, not three"
    );
}

#[tokio::test]
async fn a_stall_holds_bytes_and_lets_them_go() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    let pair = spdy.pair(1, 7);
    spdy.send(&pair).await;
    cluster.faults().stall(true);
    spdy.send(&data(3, b"held")).await;
    assert!(spdy.is_quiet(200).await);
    assert!(
        pending_for(200, connect(&cluster)).await,
        "the handshake is held too"
    );
    cluster.faults().stall(false);
    assert_eq!(spdy.data(3, 4).await, b"held");
}

#[tokio::test]
async fn a_black_hole_loses_bytes_and_only_new_connections_recover() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    cluster.faults().black_hole(true);
    spdy.send(&ping(1)).await;
    assert!(pending_for(200, connect(&cluster)).await);
    cluster.faults().black_hole(false);
    spdy.send(&ping(3)).await;
    assert!(spdy.is_quiet(200).await, "nothing, not even an end");
    assert_eq!(get(&cluster, "", VERSION).await.code, 200);
}

#[tokio::test]
async fn connections_can_be_cut_while_the_server_listens_on() {
    let cluster = shop().await;
    let mut both = Spdy::both(&cluster, "echo-1").await;
    cluster.drop_connections();
    for spdy in &mut both {
        assert_eq!(spdy.next().await, Frame::End);
    }
    assert_eq!(get(&cluster, "", VERSION).await.code, 200);
}

#[tokio::test]
async fn a_frame_can_be_cut_in_its_middle() {
    let cluster = shop().await;
    for mut spdy in Spdy::both(&cluster, "echo-1").await {
        cluster.faults().truncate_next_frame(5);
        spdy.send(&ping(1)).await;
        assert_eq!(spdy.next().await, Frame::End, "five bytes are no frame");
    }
    let line = format!("GET {}?ports=7", path("echo-1"));
    cluster.faults().truncate_next_frame(3);
    let headers = websocket("v4.channel.k8s.io");
    let (_, _, mut io) = open(&cluster, "dev-token", &line, &headers).await;
    let mut rest = Vec::new();
    // The end is abrupt, without TLS's goodbye.
    let _ = within(io.read_to_end(&mut rest)).await;
    assert_eq!(rest, [0x82, 3, 0]);
    assert_eq!(get(&cluster, "", VERSION).await.code, 200);
}

#[tokio::test]
async fn garbage_comes_by_itself_on_live_connections() {
    let cluster = shop().await;
    let mut both = Spdy::both(&cluster, "echo-1").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.faults().inject(&ping(4242));
    for spdy in &mut both {
        assert_eq!(spdy.next().await, Frame::Ping(4242));
    }
}

#[tokio::test]
async fn upgrades_are_refused_with_or_without_a_status() {
    let cluster = shop().await;
    let line = format!("POST {}", path("web-1"));
    cluster
        .faults()
        .refuse_upgrades(Some((503, "the node is away")));
    let refused = ask(&cluster, "dev-token", &line, &SPDY, "").await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (503, "the node is away")
    );
    cluster.faults().refuse_upgrades(Some((502, "")));
    let refused = ask(&cluster, "dev-token", &line, &SPDY, "").await;
    assert_eq!((refused.code, refused.body.as_str()), (502, ""));
    cluster.faults().clear();
    assert_eq!(open(&cluster, "dev-token", &line, &SPDY).await.0, 101);
}

#[tokio::test]
async fn the_api_can_be_slow_silent_or_broken() {
    let cluster = shop().await;
    cluster.faults().api_delay(Duration::from_millis(200));
    let start = Instant::now();
    get(&cluster, "", VERSION).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    cluster.faults().clear();

    cluster.faults().hold_api(true);
    let held = get(&cluster, "", VERSION);
    tokio::pin!(held);
    assert!(pending_for(200, &mut held).await);
    cluster.faults().hold_api(false);
    assert_eq!(held.await.code, 200);

    cluster.faults().fail_api(Some((429, "slow down")));
    let failed = get(&cluster, "dev-token", "/api/v1/namespaces/shop/pods").await;
    assert_eq!(failed.json()["reason"], "TooManyRequests");
    cluster.faults().fail_api(None);

    cluster.faults().gone_lists(true);
    let path = "/api/v1/namespaces/shop/pods";
    assert_eq!(
        get(&cluster, "dev-token", &format!("{path}?resourceVersion=2"))
            .await
            .code,
        410
    );
    assert_eq!(
        get(&cluster, "dev-token", &format!("{path}?resourceVersion=0"))
            .await
            .code,
        200
    );
    assert_eq!(get(&cluster, "dev-token", path).await.code, 200);
}

#[tokio::test]
async fn pings_can_be_ignored_while_streams_work() {
    let cluster = shop().await;
    cluster.faults().ignore_pings(true);
    for mut spdy in Spdy::both(&cluster, "echo-1").await {
        let pair = [ping(1), spdy.pair(1, 7), data(3, b"hi")].concat();
        spdy.send(&pair).await;
        assert_eq!(spdy.data(3, 2).await, b"hi");
        assert!(spdy.is_quiet(100).await);
    }
}

#[tokio::test]
async fn requests_are_turned_away_before_anything_is_looked_at() {
    let cluster = shop().await;
    let pods = "/api/v1/namespaces/shop/pods";
    cluster.faults().turn_away(TurnAway {
        code: 429,
        retry_after: Some(3),
        path: "/pods".into(),
        count: 2,
    });
    assert_eq!(get(&cluster, "", VERSION).await.code, 200, "another path");
    for token in ["dev-token", "nobody"] {
        let away = get(&cluster, token, pods).await;
        assert_eq!((away.code, away.header("retry-after")), (429, Some("3")));
        assert_eq!(away.body, "Too many requests, please try again later.\n");
    }
    assert_eq!(
        get(&cluster, "dev-token", pods).await.code,
        200,
        "the third"
    );
    cluster.faults().turn_away(TurnAway {
        code: 503,
        retry_after: None,
        path: String::new(),
        count: u64::MAX,
    });
    let away = get(&cluster, "dev-token", pods).await;
    assert_eq!((away.code, away.header("retry-after")), (503, None));
    cluster.faults().clear();
    assert_eq!(get(&cluster, "dev-token", pods).await.code, 200);
}
