//! Streams through a relay.

mod stage;
mod streams;

use kdev::dial::{Answer, DialRelay as _};
use kdev::k8s::relay::Carrier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::stage::{Relay, Tunnels};
use crate::lab;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn every_carrier_reaches_a_service_through_both_doors() {
    let relay = Relay::install("carriers");
    for door in lab::doors() {
        for carrier in Carrier::ALL {
            let tunnels = Tunnels::open(&relay, &door, carrier).await;
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
            assert!(answer.contains("web-"), "{door} {carrier}: {answer}");
            drop(stream);
            tunnels.close().await;
        }
    }
}
