//! A session that nobody used for long works at once.

use std::time::{Duration, Instant};

use super::over_a_line;
use crate::app::Way;
use crate::installed::Relay;
use crate::lab;

/// What kubelet and runtime are told to end as idle, to see within seconds what takes them four
/// hours.
const LIMIT: &str = "15s";
/// How long nobody asks for anything, under that limit.
const SHORT: Duration = Duration::from_secs(40);
/// And under their own limits: longer than load balancers and firewalls keep what says nothing (4 to 10 minutes).
const LONG: Duration = Duration::from_secs(12 * 60);
/// What a request may take that finds its tunnel: far less than a new one would need on a line
/// where that is noticed.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Limits that are shortened, until this is dropped.
struct Shortened;

impl Shortened {
    fn set() -> Self {
        let shortened = Self;
        lab::script("idle", &[LIMIT]).unwrap();
        shortened
    }
}

impl Drop for Shortened {
    fn drop(&mut self) {
        if let Err(error) = lab::script("idle", &["off"]) {
            eprintln!("{error}");
        }
    }
}

/// A session whose tunnel nobody uses for as long as `idle`.
async fn idles(namespace: &str, idle: Duration) {
    let relay = Relay::install(namespace);
    let (line, connect) = over_a_line(&relay).await;
    let way = Way::Socks5(connect.proxy());
    way.get(super::SERVICE, "/").await.unwrap();
    tokio::time::sleep(idle).await;
    let (made, begun) = (line.made(), Instant::now());
    way.get(super::SERVICE, "/").await.unwrap();
    let took = begun.elapsed();
    println!("the first request took {took:?}, after {made} connections in all");
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(line.made(), made, "a new connection was needed");
    connect.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn an_idle_session_works_at_once() {
    let _shortened = Shortened::set();
    lab::settle();
    idles("outage-idle", SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_session_that_idles_for_long_works_at_once() {
    idles("outage-idle-long", LONG).await;
}
