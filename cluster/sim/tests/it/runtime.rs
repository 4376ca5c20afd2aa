//! What the kubelet and the container runtime do with streams, measured on real ones.

use std::time::{Duration, Instant};

use kdev_sim::{Options, Pod};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::frames::{Frame, Spdy, data, fin, go_away, ping, reset};
use crate::support::{shop, shop_with, within};

#[tokio::test]
async fn the_pods_end_of_file_comes_a_second_late() {
    let cluster = shop().await;
    for mut spdy in Spdy::both(&cluster, "web-1").await {
        let request = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        let pair = [spdy.pair(1, 8080), data(3, request)].concat();
        spdy.send(&pair).await;
        spdy.data(3, 100).await;
        let served = Instant::now();
        assert_eq!(spdy.story(2).await, [Frame::Fin(3), Frame::Fin(1)]);
        let late = served.elapsed();
        assert!((900..1500).contains(&late.as_millis()), "{late:?}");
    }
    cluster.set_habits(|habits| habits.eof_grace = Duration::ZERO);
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let pair = [spdy.pair(1, 8080), data(3, b"nonsense\r\n\r\n")].concat();
    spdy.send(&pair).await;
    let asked = Instant::now();
    spdy.story(2).await;
    assert!(asked.elapsed() < Duration::from_millis(500));
}

/// A pod that reports when its connections end, and goes on talking after that.
fn observer() -> (Pod, mpsc::UnboundedReceiver<Duration>) {
    let (ended, reports) = mpsc::unbounded_channel();
    let pod = Pod::new("shop", "observer").serve(1000, move |mut io| {
        let ended = ended.clone();
        async move {
            let opened = Instant::now();
            let mut buffer = [0; 1024];
            while io.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                io.write_all(b"more").await.unwrap();
            }
            ended.send(opened.elapsed()).unwrap();
        }
    });
    (pod, reports)
}

#[tokio::test]
async fn a_client_that_ends_its_half_is_cut_off_a_second_later() {
    let cluster = shop().await;
    let (pod, mut reports) = observer();
    cluster.add_pod(pod);
    for farewell in [fin(3), reset(3), go_away()] {
        let mut spdy = Spdy::plain(&cluster, "observer").await;
        let pair = spdy.pair(1, 1000);
        spdy.send(&pair).await;
        assert_eq!([spdy.next().await, spdy.next().await].len(), 2);
        let said = Instant::now();
        spdy.send(&farewell).await;
        within(reports.recv()).await.unwrap();
        let late = said.elapsed();
        assert!((900..1500).contains(&late.as_millis()), "{late:?}");
    }
    // Hanging up altogether is no different for the pod.
    let mut spdy = Spdy::tunnelled(&cluster, "observer").await;
    let pair = spdy.pair(1, 1000);
    spdy.send(&pair).await;
    spdy.next().await;
    spdy.next().await;
    spdy.hang_up().await;
    let late = within(reports.recv()).await.unwrap();
    assert!((900..1600).contains(&late.as_millis()), "{late:?}");
}

#[tokio::test]
async fn bytes_still_come_after_a_reset_from_the_client_and_no_end_of_data() {
    let cluster = shop().await;
    cluster.add_pod(Pod::new("shop", "slow").serve(1000, |mut io| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // The client is gone by the time this is said; nobody minds.
        let _ = io.write_all(b"late").await;
        let _ = io.read_to_end(&mut Vec::new()).await;
    }));
    let mut spdy = Spdy::plain(&cluster, "slow").await;
    let pair = spdy.pair(1, 1000);
    spdy.send(&pair).await;
    assert!(matches!(spdy.next().await, Frame::Reply(_)));
    assert!(matches!(spdy.next().await, Frame::Reply(_)));
    spdy.send(&reset(3)).await;
    assert_eq!(
        spdy.story(1).await,
        [Frame::Data(3, b"late".to_vec()), Frame::Fin(1)]
    );
}

#[tokio::test]
async fn a_refused_dial_is_an_end_a_text_and_a_reset() {
    let cluster = shop().await;
    for mut spdy in Spdy::both(&cluster, "web-1").await {
        let pair = spdy.pair(1, 9999);
        spdy.send(&pair).await;
        let story = spdy.story(2).await;
        let [Frame::Fin(3), Frame::Data(1, text), Frame::Reset(1, 5)] = story.as_slice() else {
            panic!("{story:?}")
        };
        let text = String::from_utf8_lossy(text);
        assert!(
            text.starts_with("error forwarding port 9999 to pod "),
            "{text}"
        );
        assert!(text.contains("connection refused"), "{text}");
        // Only this connection failed.
        let pair = [
            spdy.pair(5, 8080),
            data(7, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ]
        .concat();
        spdy.send(&pair).await;
        spdy.data(7, 100).await;
    }
}

#[tokio::test]
async fn an_old_runtime_closes_the_data_stream_first_and_resets_nothing() {
    let cluster = shop_with(Options::old()).await;
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let pair = spdy.pair(1, 9999);
    spdy.send(&pair).await;
    let story = spdy.story(2).await;
    assert!(matches!(
        story.as_slice(),
        [Frame::Fin(3), Frame::Data(1, _), Frame::Fin(1)]
    ));
}

#[tokio::test]
async fn a_reset_by_the_pod_is_told_as_an_error() {
    let cluster = shop().await;
    cluster.set_habits(|habits| habits.eof_grace = Duration::from_millis(50));
    cluster.add_pod(Pod::new("shop", "rude").serve(1000, |io| async move { io.reset() }));
    let mut spdy = Spdy::plain(&cluster, "rude").await;
    let pair = spdy.pair(1, 1000);
    spdy.send(&pair).await;
    let story = spdy.story(2).await;
    let [Frame::Fin(3), Frame::Data(1, text), _] = story.as_slice() else {
        panic!("{story:?}")
    };
    assert!(String::from_utf8_lossy(text).ends_with("read: connection reset by peer"));
}

#[tokio::test]
async fn a_half_without_the_other_is_given_up() {
    let cluster = shop().await;
    cluster.set_habits(|habits| habits.pair_timeout = Duration::from_millis(200));
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    let headers = [
        ("streamtype", "error"),
        ("port", "8080"),
        ("requestid", "7"),
    ];
    let error = spdy.syn(1, false, &headers);
    spdy.send(&error).await;
    assert_eq!(spdy.next().await, Frame::Reply(1));
    let Frame::Data(1, text) = spdy.next().await else {
        panic!("no text")
    };
    assert!(String::from_utf8_lossy(&text).ends_with("timed out waiting for streams"));
}

#[tokio::test]
async fn pairs_find_each_other_without_a_request_id_and_never_twice() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "echo-1").await;
    let pair = [
        spdy.syn(1, true, &[("streamtype", "error"), ("port", "7")]),
        spdy.syn(3, false, &[("streamtype", "data"), ("port", "7")]),
        data(3, b"hi"),
    ];
    spdy.send(&pair.concat()).await;
    assert_eq!(spdy.data(3, 2).await, b"hi");
    let twice = ["11", "13"].map(|id: &str| {
        let headers = [("streamtype", "error"), ("port", "7"), ("requestid", "x")];
        spdy.syn(id.parse().unwrap(), false, &headers)
    });
    spdy.send(&twice.concat()).await;
    loop {
        match spdy.next().await {
            Frame::Reply(11 | 13) => {}
            Frame::Data(11 | 13, text) => {
                let text = String::from_utf8(text).unwrap();
                let expected = "error processing stream for request x: error stream already \
                                assigned";
                break assert_eq!(text, expected);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn streams_with_bad_headers_or_ids_are_reset() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    for (id, headers) in [
        (1, vec![("streamtype", "error"), ("port", "0")]),
        (3, vec![("streamtype", "data"), ("port", "x")]),
        (5, vec![("streamtype", "other"), ("port", "80")]),
        (7, vec![("streamtype", "data")]),
    ] {
        let syn = spdy.syn(id, false, &headers);
        spdy.send(&syn).await;
        assert_eq!(spdy.next().await, Frame::Reset(id, 5));
    }
    let again = spdy.syn(5, false, &[("streamtype", "data"), ("port", "80")]);
    spdy.send(&again).await;
    assert_eq!(spdy.next().await, Frame::Reset(5, 1));
}

#[tokio::test]
async fn pings_come_back_and_nonsense_ends_the_connection() {
    let cluster = shop().await;
    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    spdy.send(&[ping(2), ping(41)].concat()).await;
    assert_eq!(
        spdy.next().await,
        Frame::Ping(41),
        "an even id is the server's own"
    );
    spdy.send(&[0x80, 3, 0, 99, 0, 0, 0, 0]).await;
    assert_eq!(spdy.next().await, Frame::GoAway(0));
    assert_eq!(spdy.next().await, Frame::End);

    let mut spdy = Spdy::plain(&cluster, "web-1").await;
    spdy.send(&go_away()).await;
    assert_eq!(spdy.next().await, Frame::End, "a goodbye is not answered");
}

#[tokio::test]
async fn a_tunnel_learns_of_the_nodes_end_with_its_next_message() {
    let cluster = shop().await;
    let mut spdy = Spdy::tunnelled(&cluster, "web-1").await;
    spdy.send(&[0x80, 3, 0, 99, 0, 0, 0, 0]).await;
    assert_eq!(spdy.next().await, Frame::GoAway(0));
    assert!(spdy.is_quiet(300).await);
    spdy.send(&ping(1)).await;
    assert_eq!(spdy.next().await, Frame::End);
}
