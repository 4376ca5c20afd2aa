//! Streams through a relay.

mod bridge;
mod reach;
mod streams;
mod tunnels;

use kdev::dial::{Answer, DialRelay as _};
use kdev::k8s::relay::Carrier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::tunnels::Tunnels;
use crate::installed::Relay;
use crate::lab;

/// A relay that also takes tunnels on its pods' own address.
fn install(what: &str) -> Relay {
    Relay::install_with(what, &["--pods-proxy"])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn every_carrier_reaches_a_service() {
    let relay = install("carriers");
    for carrier in Carrier::ALL.map(Some).into_iter().chain([None]) {
        let tunnels = Tunnels::open(&relay, carrier).await;
        let target = "web.shop:80".parse().unwrap();
        let mut stream = tunnels
            .pool
            .dial_relay(&target, Answer::Awaited)
            .await
            .unwrap();
        let request = b"GET / HTTP/1.0\r\nHost: web\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("web-"), "{carrier:?}: {answer}");
        drop(stream);
        let status = tunnels.pool.status();
        let by = status.tunnels[0].carrier;
        let expected = match carrier {
            // The relay's pods say that they take it.
            Some(Carrier::PodsProxy) | None => "pods-proxy",
            Some(Carrier::WebSocket) => "websocket-v4",
            Some(Carrier::Spdy) if lab::tunnels_spdy() => "websocket-spdy",
            Some(Carrier::Spdy) => "spdy",
        };
        assert_eq!(by, expected, "{carrier:?}");
        tunnels.close().await;
    }
}
