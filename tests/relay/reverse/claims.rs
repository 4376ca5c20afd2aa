//! Whose requests come to which app, and when no longer.

use std::time::{Duration, Instant};

use kdev::intercept::reverse::Event;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_comes_to_the_app_and_all_else_to_the_pods() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let ann = Side::of("ann", &[&stage]).await;
    let bob = Side::of("bob", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.claim("two", app("two").await).await;
    bob.claim("bob", app("bob").await).await;
    for user in ["ann", "two", "bob"] {
        assert_eq!(who(&stage, user).await, user);
    }
    assert_eq!(who(&stage, "eve").await, "pods");
    assert_eq!(ann.known().await, [["ann", "two", "bob"]]);
    // What others have is not to be had.
    let why = bob
        .reverse
        .attach(bob.standing("ann", nobody().await), None);
    let why = why.await.unwrap_err();
    assert!(why.contains("another session"), "{why}");
    let mut same = bob.standing("ann", nobody().await);
    same.claim.id = "same".to_owned();
    let why = bob.reverse.attach(same, None).await.unwrap_err();
    assert!(why.contains("ann has --header 'x-user: ann'"), "{why}");
    assert_eq!(who(&stage, "ann").await, "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_claim_goes_to_the_pods_at_once() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.claim("two", app("two").await).await;
    assert_eq!(who(&stage, "ann").await, "ann");
    let begun = Instant::now();
    ann.reverse.detach(stage.first, "ann").await;
    assert_eq!(who(&stage, "ann").await, "pods");
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(who(&stage, "two").await, "two");
    // It may come again.
    ann.claim("ann", app("again").await).await;
    assert_eq!(who(&stage, "ann").await, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_detached_without_a_tunnel_goes_when_there_is_one() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.claim("two", app("two").await).await;
    ann.wire.pass(false);
    ann.wire.cut();
    ann.wait(|event| matches!(event, Event::Away).then_some(()))
        .await;
    ann.reverse.detach(stage.first, "ann").await;
    ann.wire.pass(true);
    ann.reverse.ready(LONG).await.unwrap();
    assert_eq!(ann.known().await, [["two"]]);
    assert_eq!(who(&stage, "ann").await, "pods");
    assert_eq!(who(&stage, "two").await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_ousted_is_told_and_stays_so() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let bob = Side::of("bob", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.claim("two", app("two").await).await;
    bob.reverse.oust(stage.first, "ann", "bob@desk").await;
    let by = ann.wait(|event| match event {
        Event::Ousted { id, by } => Some((id.clone(), by.clone())),
        _ => None,
    });
    assert_eq!(by.await, ("ann".to_owned(), "bob@desk".to_owned()));
    assert_eq!(who(&stage, "ann").await, "pods");
    ann.wire.cut();
    ann.wait(|event| matches!(event, Event::Back).then_some(()))
        .await;
    assert_eq!(who(&stage, "two").await, "two");
    let more = ann.all().await;
    assert!(!more.iter().any(|e| matches!(e, Event::Refused { .. })));
    assert_eq!(who(&stage, "ann").await, "pods");
    // Taken over, it is the same.
    let mut over = bob.standing("two", app("bob").await);
    over.claim.id = "over".to_owned();
    bob.reverse
        .attach(over, Some("bob".to_owned()))
        .await
        .unwrap();
    let by = ann.wait(|event| match event {
        Event::Ousted { id, by } => Some((id.clone(), by.clone())),
        _ => None,
    });
    assert_eq!(by.await, ("two".to_owned(), "bob".to_owned()));
    assert_eq!(who(&stage, "two").await, "bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_when_it_was_ousted_is_told_who_did_it() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let bob = Side::of("bob", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    ann.wire.pass(false);
    ann.wire.cut();
    ann.wait(|event| matches!(event, Event::Away).then_some(()))
        .await;
    bob.reverse.oust(stage.first, "ann", "bob@desk").await;
    ann.wire.pass(true);
    let why = ann.wait(|event| match event {
        Event::Refused { id, reason } if id == "ann" => Some(reason.clone()),
        _ => None,
    });
    let why = why.await;
    assert!(why.contains("ended by bob@desk"), "{why}");
    assert_eq!(who(&stage, "ann").await, "pods");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_replicas_one_oust_is_told_once() {
    let stage = Stage::set_up().await;
    let other = stage.replica().await;
    let mut ann = Side::of("ann", &[&stage, &other]).await;
    let bob = Side::of("bob", &[&stage, &other]).await;
    ann.claim("ann", nobody().await).await;
    bob.reverse.oust(stage.first, "ann", "bob").await;
    let all = ann.all().await;
    let ousted = all.iter().filter(|e| matches!(e, Event::Ousted { .. }));
    assert_eq!(ousted.count(), 1, "{all:?}");
    assert_eq!(bob.known().await, [[""; 0]; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_a_claim_that_this_kdev_does_not_have_is_refused_with_the_reason() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    // Of the same session, by a tunnel that Reverse knows nothing of.
    let identity = ann.reverse.identity();
    let mut same = stage.kdev_of(identity, "ann", nobody().await).await;
    same.mine("ghost").await;
    same.kill();
    let answer = who(&stage, "ghost").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("no such claim any more"), "{answer}");
    assert_eq!(who(&stage, "ann").await, "ann");
}
