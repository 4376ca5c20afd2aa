// Tests end with their runtime, so nothing has to wait for these tasks.
#![allow(clippy::disallowed_methods)]

mod stage;

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::stage::{ECHO, ENDLESS, REFUSED, Stage, echo};
use super::*;

#[tokio::test]
async fn every_replica_has_a_tunnel_and_each_gets_its_turn() {
    let stage = Stage::ready(&["a", "b"]).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        seen.insert(stage.who().await);
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let status = stage.pool.status();
    assert_eq!(status.tunnels.len(), 2);
    assert_eq!(
        (status.traffic.streams_total, status.traffic.received),
        (20, 20)
    );
    // The busier one is left alone.
    let busy: Vec<_> = [stage.dial(ECHO).await, stage.dial(ECHO).await].into();
    stage
        .until(|pool| pool.tunnels.iter().all(|t| t.streams == 1))
        .await;
    drop(busy);
}

#[tokio::test]
async fn a_replica_that_is_lost_costs_its_own_streams_only() {
    let stage = Stage::ready(&["a", "b"]).await;
    let mut streams = vec![
        stage.dial(ECHO).await.unwrap(),
        stage.dial(ECHO).await.unwrap(),
    ];
    stage.replicas["a"].down.store(true, Ordering::Relaxed);
    stage.replicas["a"].cut();
    stage.until(|pool| pool.connected() == 1).await;
    let mut lost = 0;
    for stream in &mut streams {
        let _ = stream.write_all(b"there?").await;
        let mut back = [0; 6];
        lost += usize::from(stream.read_exact(&mut back).await.is_err());
    }
    assert_eq!(lost, 1);
    for _ in 0..5 {
        assert_eq!(stage.who().await, "b");
    }
    stage
        .until(|pool| {
            let mut errors = pool.replicas.iter().filter_map(|r| r.last_error.as_ref());
            errors.any(|error| error.contains("it is down"))
        })
        .await;
    assert_eq!(stage.pool.status().trouble, None, "there is a way");
    stage.replicas["a"].down.store(false, Ordering::Relaxed);
    stage.until(|pool| pool.connected() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn new_dials_wait_while_no_tunnel_lives_and_then_work() {
    let stage = Stage::ready(&["a"]).await;
    let replica = &stage.replicas["a"];
    replica.down.store(true, Ordering::Relaxed);
    replica.cut();
    stage.until(|pool| pool.connected() == 0).await;
    assert!(!stage.pool.usable());
    let dialling = async {
        let mut stream = stage.dial(ECHO).await.unwrap();
        echo(&mut stream, "late").await;
    };
    let mending = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        replica.down.store(false, Ordering::Relaxed);
        let back = Instant::now();
        stage.until(|pool| pool.connected() == 1).await;
        assert!(
            back.elapsed() < Duration::from_secs(2),
            "{:?}",
            back.elapsed()
        );
    };
    tokio::join!(dialling, mending);
    // Not at full speed.
    let attempts = replica.attempts.load(Ordering::Relaxed);
    assert!((8..40).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_overtaken() {
    let stage = Stage::new(&["a"], |replica| {
        replica.hangs.store(true, Ordering::Relaxed)
    });
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.replicas["a"].hangs.store(false, Ordering::Relaxed);
    stage.until(|pool| pool.connected() == 1).await;
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_dial_gives_up_in_the_end_and_says_why() {
    let stage = Stage::new(&["a"], |replica| {
        replica.down.store(true, Ordering::Relaxed)
    });
    let began = Instant::now();
    let error = stage.dial(ECHO).await.unwrap_err().to_string();
    assert!(
        error.contains("within 20 s") && error.contains("it is down"),
        "{error}"
    );
    assert!(began.elapsed() >= DIAL_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_has_to_mend_is_said_at_once_and_not_hammered() {
    let stage = Stage::new(&["a"], |r| r.other_secret.store(true, Ordering::Relaxed));
    let began = Instant::now();
    let error = stage.dial(ECHO).await.unwrap_err().to_string();
    assert!(error.contains("could not prove"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = stage.replicas["a"].attempts.load(Ordering::Relaxed);
    assert!((3..=12).contains(&attempts), "{attempts}");
    // An upgrade of the relay renewed its secret.
    stage.replicas["a"]
        .other_secret
        .store(false, Ordering::Relaxed);
    stage.until(|pool| pool.connected() == 1).await;
}

#[tokio::test]
async fn without_replicas_there_is_a_reason_and_no_waiting() {
    let stage = Stage::ready(&["a"]).await;
    let none = DialError::NotFound {
        what: "relay".to_owned(),
        fix: "`kdev install`".to_owned(),
    };
    stage.replicas["a"].cut();
    stage
        .names
        .send_replace(Replicas::none(Trouble::lasting(none)));
    stage.until(|pool| pool.tunnels.is_empty()).await;
    let error = stage.dial(ECHO).await.unwrap_err().to_string();
    assert!(error.contains("kdev install"), "{error}");
}

#[tokio::test]
async fn replicas_are_followed() {
    let stage = Stage::ready(&["a", "b"]).await;
    let mut names = Stage::ready(&["a"]).await.names.borrow().clone();
    names.names.insert("b".into());
    stage.names.send_replace(Replicas::of(["b"]));
    for _ in 0..5 {
        assert_eq!(stage.who().await, "b");
    }
    stage.names.send_replace(names);
    stage.until(|pool| pool.connected() == 2).await;
}

#[tokio::test]
async fn a_relay_that_drains_gets_no_new_streams_and_the_old_ones_end() {
    let stage = Stage::ready(&["a", "b"]).await;
    let mut streams = vec![
        stage.dial(ECHO).await.unwrap(),
        stage.dial(ECHO).await.unwrap(),
    ];
    stage.replicas["a"].down.store(true, Ordering::Relaxed);
    stage.replicas["a"].drain();
    stage.until(|pool| pool.connected() == 1).await;
    for _ in 0..5 {
        assert_eq!(stage.who().await, "b");
    }
    for stream in &mut streams {
        echo(stream, "still here").await;
    }
    drop(streams);
    while stage.replicas["a"].tunnels.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_small_request_takes_a_tunnel_without_bulk() {
    let stage = Stage::ready(&["a"]).await;
    let mut bulk = stage.dial(ENDLESS).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while bulk.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    });
    // Another tunnel comes up beside it by itself.
    stage.until(|pool| pool.tunnels.len() == 2).await;
    let mut small = stage.dial(ECHO).await.unwrap();
    echo(&mut small, "small").await;
    let status = stage.pool.status();
    let with = |bulk| status.tunnels.iter().find(|t| t.bulk == bulk).unwrap();
    assert_eq!(with(true).streams, 1);
    assert_eq!(with(false).streams, 1);
    reading.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_that_stop_reading_hold_up_nobody_else() {
    let stage = Stage::ready(&["a"]).await;
    let mut stalled = Vec::new();
    for _ in 0..FILLED_BY - 2 {
        let mut stream = stage.dial(ENDLESS).await.unwrap();
        stream.read_u8().await.unwrap();
        stalled.push(stream);
    }
    // With two more nothing that comes later would pass.
    stage.until(|pool| pool.tunnels.len() > 1).await;
    let mut small = stage.dial(ECHO).await.unwrap();
    let echoed = tokio::time::timeout(Duration::from_secs(10), echo(&mut small, "small"));
    echoed
        .await
        .expect("it waits behind those that nobody reads");
    // Those are not cut, and go on when they are read again.
    let reading = stalled.into_iter().map(|mut stream| async move {
        stream.read_exact(&mut vec![0; 8 << 20]).await.unwrap();
    });
    futures_util::future::join_all(reading).await;
}

#[tokio::test(start_paused = true)]
async fn tunnels_made_for_bulk_are_bounded_and_go_when_idle() {
    let stage = Stage::ready(&["a"]).await;
    let mut readers = Vec::new();
    for round in 1..=5usize {
        let mut bulk = stage.dial(ENDLESS).await.unwrap();
        readers.push(tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while bulk.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
        let expected = (round + 1).min(tunnels::MOST_PER_REPLICA);
        stage.until(|pool| pool.tunnels.len() == expected).await;
    }
    for reader in &readers {
        reader.abort();
    }
    drop(readers);
    stage.until(|pool| pool.tunnels.len() == 1).await;
    assert!(stage.pool.usable());
}

#[tokio::test]
async fn refusals_of_the_destination_are_errors_and_cost_no_tunnel() {
    let stage = Stage::ready(&["a"]).await;
    let error = stage.dial(REFUSED).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
    // Answered at once, it comes with the first read.
    let target = "web.shop:1".parse().unwrap();
    let mut stream = stage
        .pool
        .dial_relay(&target, Answer::AtOnce)
        .await
        .unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    let cause = DialError::from_io(&error);
    assert!(matches!(cause, Some(DialError::Refused { .. })), "{error}");
    assert_eq!(stage.replicas["a"].attempts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_pool_that_is_closed_says_goodbye() {
    let stage = Stage::ready(&["a", "b"]).await;
    stage.pool.close(Duration::from_secs(5)).await;
    for replica in stage.replicas.values() {
        while replica.tunnels.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(replica.goodbyes.load(Ordering::Relaxed), 1);
    }
}
