//! Tunnels that break, relays that come and go.

use std::time::{Duration, Instant};

use kdev::dial::DialError;
use kdev::intercept::reverse::Event;
use kdev::tunnel::pool::{Replicas, Trouble};
use tokio::time::sleep;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_cut_comes_back_and_requests_wait_for_it() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    for _ in 0..3 {
        ann.wire.pass(false);
        ann.wire.cut();
        ann.wait(|event| matches!(event, Event::Away).then_some(()))
            .await;
        let (one, two, ()) = tokio::join!(who(&stage, "ann"), who(&stage, "eve"), async {
            sleep(Duration::from_millis(500)).await;
            ann.wire.pass(true);
        });
        assert_eq!((&*one, &*two), ("ann", "pods"));
        ann.wait(|event| matches!(event, Event::Back).then_some(()))
            .await;
        assert_eq!(ann.known().await, [["ann"]]);
    }
    assert_eq!(ann.wire.live(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_cannot_be_changed_now_stands_as_it_was() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let app = app("ann").await;
    ann.claim("ann", app).await;
    ann.wire.pass(false);
    ann.wire.cut();
    ann.wait(|event| matches!(event, Event::Away).then_some(()))
        .await;
    let mut changed = ann.standing("ann", app);
    changed.claim.fallback = true;
    ann.reverse.attach(changed, None).await.unwrap_err();
    ann.wire.pass(true);
    ann.wait(|event| matches!(event, Event::Back).then_some(()))
        .await;
    assert_eq!(ann.known().await, [["ann"]]);
    assert_eq!(who(&stage, "ann").await, "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_tunnel_that_falls_silent_another_one_is_made() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    assert_eq!(who(&stage, "ann").await, "ann");
    ann.wire.silence(true);
    let begun = Instant::now();
    let early = async {
        let answer = who(&stage, "ann").await;
        assert!(
            begun.elapsed() < Duration::from_secs(7),
            "{:?} {answer}",
            begun.elapsed()
        );
    };
    let others = async {
        while begun.elapsed() < Duration::from_secs(7) {
            assert_eq!(who(&stage, "eve").await, "pods");
            sleep(Duration::from_millis(50)).await;
        }
    };
    let second = async {
        while ann.wire.opened() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        // From here on nothing goes into the old one.
        sleep(Duration::from_millis(200)).await;
        for _ in 0..10 {
            let asked = Instant::now();
            assert_eq!(who(&stage, "ann").await, "ann");
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
        // While the old one is still there.
        assert_eq!(ann.wire.live(), 2);
        assert_eq!(ann.known().await, [["ann"]]);
    };
    tokio::join!(early, others, second);
    ann.left(1).await;
    assert_eq!(ann.wire.opened(), 2);
    // Nobody was without a tunnel.
    let told = ann.all().await;
    assert!(!told.iter().any(|e| matches!(e, Event::Away)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_heard_again_makes_room_for_the_newer_one_when_its_streams_end() {
    let stage = Stage::set_up().await;
    let ann = Side::of("ann", &[&stage]).await;
    ann.claim("all", plain("ann").await).await;
    // Open before the silence, and used after it.
    let mut caller = stage.caller().await;
    caller.write_all(b"PING ").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    ann.wire.silence(true);
    while ann.wire.opened() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(500)).await;
    ann.wire.silence(false);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(ann.wire.live(), 2);
    caller.write_all(b"PONG").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "ann: PING PONG");
    ann.left(1).await;
    assert_eq!(ann.known().await, [["all"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ousts_a_claim_is_told_beside_a_silent_tunnel() {
    let stage = Stage::set_up().await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let bob = Side::of("bob", &[&stage]).await;
    ann.claim("ann", nobody().await).await;
    ann.wire.silence(true);
    while ann.wire.opened() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    ann.reverse.ready(LONG).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    bob.reverse.oust(stage.first, "ann", "bob").await;
    let begun = Instant::now();
    ann.wait(|event| matches!(event, Event::Ousted { .. }).then_some(()))
        .await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_no_broken_one() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let wire = Wire::to(&[&stage]);
    wire.slow(Duration::from_millis(150));
    let ann = Side::over("ann", stage.first, wire);
    ann.reverse.ready(LONG).await.unwrap();
    ann.claim("ann", app("ann").await).await;
    for _ in 0..2 {
        assert_eq!(who(&stage, "ann").await, "ann");
        sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(ann.wire.opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_knows_nothing_of_before_is_told_again() {
    let mut stage = Stage::mortal().await;
    stage.pods("pods").await;
    let ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.claim("two", app("two").await).await;
    assert_eq!(who(&stage, "ann").await, "ann");
    for _ in 0..2 {
        stage.kill();
        stage.revive().await;
        let again = async {
            while ann.known().await != [["ann", "two"]] {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(3), again).await.unwrap();
        assert_eq!(who(&stage, "ann").await, "ann");
        assert_eq!(who(&stage, "two").await, "two");
        assert_eq!(who(&stage, "eve").await, "pods");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_taken_again_is_told() {
    let mut stage = Stage::mortal().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.claim("two", app("two").await).await;
    ann.wire.pass(false);
    stage.kill();
    stage.revive().await;
    let bob = Side::of("bob", &[&stage]).await;
    let mut first = bob.standing("ann", app("bob").await);
    first.claim.id = "first".to_owned();
    bob.reverse.attach(first, None).await.unwrap();
    ann.wire.pass(true);
    let refused = ann.wait(|event| match event {
        Event::Refused { id, reason } => Some((id.clone(), reason.clone())),
        _ => None,
    });
    let (id, reason) = refused.await;
    assert_eq!(id, "ann");
    assert!(
        reason.contains("bob has --header 'x-user: ann'"),
        "{reason}"
    );
    assert_eq!(who(&stage, "ann").await, "bob");
    assert_eq!(who(&stage, "two").await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_has_a_tunnel_and_all_claims() {
    let stage = Stage::set_up().await;
    let other = stage.replica().await;
    stage.pods("pods").await;
    let ann = Side::of("ann", &[&stage, &other]).await;
    assert_eq!(ann.wire.live(), 2);
    ann.claim("ann", app("ann").await).await;
    for stage in [&stage, &other] {
        assert_eq!(who(stage, "ann").await, "ann");
        assert_eq!(who(stage, "eve").await, "pods");
    }
    ann.reverse.detach(stage.first, "ann").await;
    for stage in [&stage, &other] {
        assert_eq!(who(stage, "ann").await, "pods");
    }
    // One that comes later is told of what stands.
    ann.replicas.send_replace(Replicas::of(["replica-1"]));
    ann.claim("late", app("late").await).await;
    ann.replicas.send_replace(Replicas::of(ann.wire.names()));
    ann.reverse.ready(LONG).await.unwrap();
    for stage in [&stage, &other] {
        assert_eq!(who(stage, "late").await, "late");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_waits_for_all_replicas_but_not_for_those_that_cannot_be_had() {
    let stage = Stage::set_up().await;
    let other = stage.replica().await;
    let wire = Wire::to(&[&stage, &other]);
    wire.pass(false);
    let ann = Side::over("ann", stage.first, wire);
    let begun = Instant::now();
    let error = ann.reverse.ready(Duration::from_millis(300)).await;
    assert!(error.is_err() && begun.elapsed() < Duration::from_secs(1));
    let (ready, ()) = tokio::join!(ann.reverse.ready(LONG), async {
        sleep(Duration::from_millis(100)).await;
        ann.wire.pass(true);
    });
    ready.unwrap();
    assert_eq!(ann.known().await.len(), 2);

    let why = |passing| Trouble {
        error: DialError::Forbidden {
            target: "relay sick".to_owned(),
            reason: "somebody has to mend it".to_owned(),
        },
        passing,
    };
    let begun = Instant::now();
    let wire = Wire::and_trouble(&[&stage], why(false));
    let bob = Side::over("bob", stage.first, wire);
    bob.reverse.ready(LONG).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(bob.known().await.len(), 1);

    // Nor is one waited for that may heal: it is told of the claims once it does.
    let wire = Wire::and_trouble(&[&stage], why(true));
    let eve = Side::over("eve", stage.first, wire);
    let begun = Instant::now();
    eve.reverse.ready(LONG).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));

    for (passing, within) in [(false, 0..900), (true, 1000..1900)] {
        let none = Side::over("none", 1, Wire::and_trouble(&[], why(passing)));
        let begun = Instant::now();
        let error = none
            .reverse
            .ready(Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("somebody has to mend it"),
            "{error}"
        );
        let took = begun.elapsed().as_millis();
        assert!(within.contains(&took), "{took} ms");
    }
}
