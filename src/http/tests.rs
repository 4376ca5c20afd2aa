use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::pool::{Lease, Pool, Sender};
use super::request::RequestBody;
use super::{IDLE_TIMEOUT, MAX_IDLE, MAX_IDLE_PER_AUTHORITY};
use crate::addr::Target;
use crate::task::Tasks;

fn target(name: &str) -> Target {
    Target::parse(name, Some(80)).unwrap()
}

/// A connection that can carry a request, and the origin's end of it.
async fn connection(tasks: &Tasks) -> (Sender, DuplexStream) {
    let (stream, origin) = tokio::io::duplex(1024);
    let (mut sender, connection) = http1::handshake::<_, RequestBody>(TokioIo::new(stream))
        .await
        .unwrap();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap();
    let via = None;
    let sender = Sender {
        send: sender,
        via,
        mark: None,
        served: 0,
        born: Instant::now(),
    };
    (sender, origin)
}

#[tokio::test]
async fn the_pool_is_bounded_for_each_authority_and_in_total() {
    let tasks = Tasks::new();
    let pool = Pool::new(tasks.clone(), None);
    let mut origins = Vec::new();
    for n in 0..MAX_IDLE_PER_AUTHORITY + 5 {
        let (sender, origin) = connection(&tasks).await;
        Lease::new(sender, &pool, &target("web.shop")).give_back();
        origins.push(origin);
        assert_eq!(pool.len(), (n + 1).min(MAX_IDLE_PER_AUTHORITY));
    }
    for n in 0..MAX_IDLE {
        let (sender, origin) = connection(&tasks).await;
        Lease::new(sender, &pool, &target(&format!("web{n}"))).give_back();
        origins.push(origin);
        assert!(pool.len() <= MAX_IDLE);
    }
    // The longest unused went first.
    assert_eq!(pool.len(), MAX_IDLE);
    assert!(pool.take(&target("web.shop"), None, true).is_none());
    assert!(pool.take(&target("web0"), None, true).is_some());
    assert_eq!(pool.len(), MAX_IDLE - 1);
    tasks.drain();
}

#[tokio::test(start_paused = true)]
async fn a_connection_grows_old() {
    let tasks = Tasks::new();
    let pool = Pool::new(tasks.clone(), None);
    let web = target("web.shop");
    let (sender, _origin) = connection(&tasks).await;
    Lease::new(sender, &pool, &web).give_back();
    tokio::time::sleep(IDLE_TIMEOUT / 2).await;
    let sender = pool.take(&web, None, true).unwrap();
    Lease::new(sender, &pool, &web).give_back();
    // Nobody asks, and it goes all the same.
    tokio::time::sleep(IDLE_TIMEOUT * 2).await;
    assert_eq!(pool.len(), 0);
    let (sender, _origin) = connection(&tasks).await;
    Lease::new(sender, &pool, &web).give_back();
    tokio::time::sleep(IDLE_TIMEOUT * 2).await;
    assert_eq!(pool.len(), 0, "the second sweep works as the first");
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_is_not_handed_out() {
    let tasks = Tasks::new();
    let pool = Pool::new(tasks.clone(), None);
    let web = target("web.shop");
    let (sender, origin) = connection(&tasks).await;
    Lease::new(sender, &pool, &web).give_back();
    drop(origin);
    tokio::task::yield_now().await;
    assert!(pool.take(&web, None, true).is_none());
    assert_eq!(pool.len(), 0);
}

#[tokio::test]
async fn what_may_not_be_sent_twice_gets_no_idle_connection() {
    let tasks = Tasks::new();
    let pool = Pool::new(tasks.clone(), None);
    let web = target("web.shop");
    let (sender, mut origin) = connection(&tasks).await;
    Lease::new(sender, &pool, &web).give_back();
    assert!(pool.take(&web, None, false).is_none());
    // It makes room for the fresh one.
    assert_eq!(pool.len(), 0);
    let end = tokio::io::AsyncReadExt::read_u8(&mut origin).await;
    assert!(end.is_err(), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn where_idle_connections_last_one_that_was_just_used_carries_anything() {
    let tasks = Tasks::new();
    let pool = Pool::new(tasks.clone(), None);
    let web = target("web.shop");
    let give = |sender| Lease::new(sender, &pool, &web).give_back();
    let tick = |millis| tokio::time::sleep(Duration::from_millis(millis));
    let (witness, _origin) = connection(&tasks).await;
    let (used, _other) = connection(&tasks).await;
    give(witness);
    tick(2001).await;
    give(used);
    let used = pool.take(&web, None, false).unwrap();
    give(used);
    // Not after a pause, proof or not; the other one stays for the next proof.
    tick(20).await;
    for _ in 0..2 {
        assert!(pool.take(&web, None, false).is_none());
        assert_eq!(pool.len(), 1);
    }
    let (next, _next) = connection(&tasks).await;
    give(next);
    let next = pool.take(&web, None, false).unwrap();
    // Nor where one is found closed that was not idle for long.
    let (ended, origin) = connection(&tasks).await;
    give(ended);
    drop(origin);
    tick(1).await;
    give(next);
    assert!(pool.take(&web, None, false).is_none());
}

#[tokio::test]
async fn draining_empties_the_pool() {
    let tasks = Tasks::new();
    let pool = Pool::new(tasks.clone(), None);
    let (sender, _origin) = connection(&tasks).await;
    Lease::new(sender, &pool, &target("web.shop")).give_back();
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
    assert_eq!(pool.len(), 0);
}
