//! Sessions that come, go, fall silent and quarrel.

use std::time::{Duration, Instant};

use kdev::rule::control::{Ask, Tell};
use kdev::rule::{AppProtocol, Condition};
use kdev::tunnel::Identity;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::support::*;
use super::thief::{self, Shows};

fn over(claim: kdev::rule::Claim, port: u16, by: Option<&str>) -> Ask {
    Ask::Attach {
        port,
        claim: Box::new(claim),
        over: by.map(str::to_owned),
        log: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_gives_all_back_at_once() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    ann.mine("ann").await;
    assert!(
        stage
            .get("/", &[("x-user", "ann")])
            .await
            .1
            .contains("ann GET")
    );
    assert_eq!(ann.ask(&Ask::Bye).await, Tell::Bye);
    let begun = Instant::now();
    assert!(
        stage
            .get("/", &[("x-user", "ann")])
            .await
            .1
            .contains("pods GET")
    );
    assert!(begun.elapsed() < Duration::from_millis(500));
    ann.kill();
    assert!(
        stage
            .get("/", &[("x-user", "ann")])
            .await
            .1
            .contains("pods GET")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_is_waited_for_and_its_claim_kept() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let (identity, server) = (Identity::random(), app("ann").await);
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    ann.mine("ann").await;
    let claim = ann.claim("ann", &[Condition::header("x-user: ann").unwrap()]);
    ann.kill();
    // Held, and served when it is back within that time.
    let (held, _) = tokio::join!(stage.get("/", &[("x-user", "ann")]), async {
        sleep(Duration::from_millis(700)).await;
        let ann = stage.kdev_of(&identity, "ann", server).await;
        std::mem::forget(ann);
    });
    assert!(held.1.contains("ann GET /"), "{}", held.1);
    let mut again = stage.kdev_of(&identity, "ann", server).await;
    assert!(matches!(
        again.attach(claim.clone()).await,
        Tell::Attached { .. }
    ));
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_long_and_nobody_twice() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let (identity, server) = (Identity::random(), app("ann").await);
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    ann.mine("ann").await;
    let mut strict = ann.claim("strict", &[Condition::header("x-user: strict").unwrap()]);
    strict.strict = true;
    ann.attach(strict).await;
    ann.kill();
    let begun = Instant::now();
    let (status, answer) = stage.get("/", &[("x-user", "strict")]).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
    assert!(
        answer.contains("ann intercepts") && answer.contains("x-kdev-error: silent"),
        "{answer}"
    );
    assert!(answer.contains("kdev leave strict --force"), "{answer}");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let begun = Instant::now();
    assert_eq!(stage.get("/", &[("x-user", "strict")]).await.0, 503);
    let (status, answer) = stage.get("/", &[("x-user", "ann")]).await;
    assert_eq!(status, 200);
    assert!(answer.contains("pods GET"), "{answer}");
    assert_eq!(fallback(&answer), Some("owner silent"), "{answer}");
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    // The claim is still there, and works when its owner is, for callers at once.
    let mut back = stage.kdev_of(&identity, "ann", server).await;
    let told = back.ask(&Ask::Look { port: back.port }).await;
    assert!(
        matches!(&told, Tell::Seen { claims, .. } if claims.len() == 2),
        "{told:?}"
    );
    let sessions = vec![identity.session(), Identity::random().session()];
    let told = back.ask(&Ask::Live { sessions }).await;
    assert_eq!(
        told,
        Tell::Live {
            sessions: vec![identity.session()]
        }
    );
    assert!(
        stage
            .get("/", &[("x-user", "ann")])
            .await
            .1
            .contains("ann GET")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_session_costs_its_requests_six_seconds_at_most() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    ann.mine("ann").await;
    let mut strict = ann.claim("strict", &[Condition::header("x-user: strict").unwrap()]);
    strict.strict = true;
    ann.attach(strict).await;
    assert!(
        stage
            .get("/", &[("x-user", "ann")])
            .await
            .1
            .contains("ann GET")
    );
    ann.freeze();
    let begun = Instant::now();
    let early = async {
        let (answer, refused) = tokio::join!(
            stage.get("/", &[("x-user", "ann")]),
            stage.get("/", &[("x-user", "strict")])
        );
        assert_eq!(refused.0, 503, "{}", refused.1);
        (answer, begun.elapsed())
    };
    let late = async {
        sleep(Duration::from_secs(4)).await;
        let posted = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-User: ann\r\nContent-Length: 2\r\n\r\nhi";
        (stage.raw(posted).await, begun.elapsed())
    };
    let others = async {
        for _ in 0..50 {
            assert!(stage.get("/", &[]).await.1.contains("pods GET"));
            sleep(Duration::from_millis(100)).await;
        }
    };
    let ((early, first), (late, second), ()) = tokio::join!(early, late, others);
    assert_eq!(fallback(&early.1), Some("owner silent"), "{}", early.1);
    assert!(early.1.contains("pods GET"), "{}", early.1);
    // The app may have had it, and would have it once more when its laptop wakes.
    assert!(
        late.contains(" 503 ") && late.contains("ann intercepts"),
        "{late}"
    );
    assert!(late.to_lowercase().contains("retry-after: 1"), "{late}");
    // Six seconds, and what a busy machine takes.
    let took = first.max(second);
    assert!(took < Duration::from_secs(7), "{took:?}");
    let begun = Instant::now();
    let posted = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-User: ann\r\nContent-Length: 2\r\n\r\nhi";
    let answer = stage.raw(posted).await;
    assert_eq!(fallback(&answer), Some("owner silent"), "{answer}");
    assert!(
        answer.contains("pods POST") && answer.contains("body: 2\n"),
        "{answer}"
    );
    assert_eq!(stage.get("/", &[("x-user", "strict")]).await.0, 503);
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_key_and_id_joins_no_session_and_its_owner_is_told() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let (identity, server) = (Identity::random(), app("ann").await);
    let session = identity.session();
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    ann.mine("ann").await;
    let steal = async |stage: &Stage, shows| {
        let socket = TcpStream::connect(stage.tunnels).await.unwrap();
        let told = thief::join(socket, &KEY, session, shows).await;
        assert!(told.contains("refused"), "{told}");
        assert!(told.contains("code: session"), "{told}");
    };
    let mine = async || {
        for _ in 0..30 {
            let (_, answer) = stage.get("/", &[("x-user", "ann")]).await;
            assert!(answer.contains("ann GET"), "{answer}");
        }
    };
    steal(&stage, Shows::Nothing).await;
    let told = ann.tells.recv().await.unwrap();
    assert_eq!(told, Tell::Intruded { attempts: 1 });
    // Many attempts are no flood for the owner.
    for _ in 0..20 {
        steal(&stage, Shows::OwnKey).await;
    }
    mine().await;
    assert!(ann.tells.try_recv().is_err());

    // Nor is there anything to gain where the owner has not been yet.
    let fresh = stage.replica().await;
    for shows in [Shows::Nothing, Shows::OwnKey] {
        steal(&fresh, shows).await;
    }
    let mut there = fresh.kdev_of(&identity, "ann", server).await;
    there.mine("ann").await;

    // The owner's next tunnel is let in, beside the first and after it.
    let beside = stage.kdev_of(&identity, "ann", server).await;
    ann.kill();
    mine().await;
    beside.kill();
    let _back = stage.kdev_of(&identity, "ann", server).await;
    mine().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_id_of_a_claim_first_does_not_keep_it() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let mut bob = stage.kdev("bob", app("bob").await).await;
    let when = [Condition::header("x-user: ann").unwrap()];
    let told = bob.attach(bob.claim("a1", &when)).await;
    assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    let told = ann.attach(ann.claim("a1", &when)).await;
    assert!(
        matches!(&told, Tell::Refused { reason, .. } if reason.contains("another session's")),
        "{told:?}"
    );
    // Whoever has it in the cluster's record insists, and the other one is told.
    let told = ann
        .ask(&over(ann.claim("a1", &when), stage.first, Some("ann")))
        .await;
    assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    let told = bob.tells.recv().await.unwrap();
    assert!(
        matches!(&told, Tell::Ousted { by, .. } if by == "ann"),
        "{told:?}"
    );
    let (_, answer) = stage.get("/", &[("x-user", "ann")]).await;
    assert!(answer.contains("ann GET"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_do_not_get_the_same_requests() {
    let stage = Stage::set_up().await;
    let port = stage.first;
    let mut ann = stage.kdev("ann", nobody().await).await;
    let mut bob = stage.kdev("bob", nobody().await).await;
    let header = |text: &str| Condition::header(text).unwrap();
    let one = ann.claim("a1", &[header("x-user: ann")]);
    assert!(matches!(
        ann.attach(one.clone()).await,
        Tell::Attached { .. }
    ));
    // Again, as after a reconnect.
    assert!(matches!(
        ann.attach(one.clone()).await,
        Tell::Attached { .. }
    ));
    for (conditions, allowed) in [
        (vec![header("x-user: ann")], false),
        (
            vec![header("x-user: ann"), Condition::path("/x").unwrap()],
            false,
        ),
        (vec![header("x-user~=a.*")], false),
        (vec![], false),
        (vec![header("x-user: bob")], true),
        (vec![header("x-other: 1")], true),
    ] {
        let told = bob.attach(bob.claim("b1", &conditions)).await;
        match told {
            Tell::Attached { .. } if allowed => {}
            Tell::Refused { reason, .. } if !allowed => {
                assert!(
                    reason.contains("ann has --header 'x-user: ann'"),
                    "{reason}"
                );
            }
            told => panic!("{conditions:?} {told:?}"),
        }
        bob.ask(&Ask::Detach {
            port,
            id: "b1".to_owned(),
        })
        .await;
    }
    let mut mirror = bob.claim("b2", &[]);
    mirror.mirror = true;
    assert!(matches!(bob.attach(mirror).await, Tell::Attached { .. }));
    // What is another's stays another's.
    bob.ask(&Ask::Detach {
        port,
        id: "a1".to_owned(),
    })
    .await;
    let mut forged = one.clone();
    forged.id = "b3".to_owned();
    let told = bob.attach(forged).await;
    assert!(matches!(told, Tell::Refused { .. }), "{told:?}");
    // Taken over, the owner is told, and cannot have it back by itself.
    let told = bob
        .ask(&over(bob.claim("b4", &[]), port, Some("bob@desk")))
        .await;
    assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    let told = ann.tells.recv().await.unwrap();
    let ousted = Tell::Ousted {
        port,
        id: "a1".to_owned(),
        by: "bob@desk".to_owned(),
    };
    assert_eq!(told, ousted);
    let Tell::Refused { reason, .. } = ann.attach(one.clone()).await else {
        panic!()
    };
    assert!(reason.contains("ended by bob@desk"), "{reason}");
    // Ended by force.
    let oust = Ask::Oust {
        port,
        id: "b4".to_owned(),
        by: "ann".to_owned(),
    };
    assert!(matches!(ann.ask(&oust).await, Tell::Detached { .. }));
    assert!(matches!(bob.tells.recv().await.unwrap(), Tell::Ousted { by, .. } if by == "ann"));
    let told = ann.ask(&over(one, port, Some("ann"))).await;
    assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_ghost_makes_room() {
    let stage = Stage::set_up().await;
    let mut ghost = stage.kdev("ann", nobody().await).await;
    ghost.mine("ann").await;
    let mut ann = stage.kdev("ann", nobody().await).await;
    let claim = ann.claim("new", &[Condition::header("x-user: ann").unwrap()]);
    assert!(matches!(
        ann.attach(claim.clone()).await,
        Tell::Refused { .. }
    ));
    ghost.kill();
    sleep(Duration::from_millis(300)).await;
    assert!(matches!(ann.attach(claim).await, Tell::Attached { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_wins() {
    let stage = Stage::set_up().await;
    let mut all = Vec::new();
    for _ in 0..50 {
        all.push(stage.kdev("ann", nobody().await).await);
    }
    let asking = all.iter_mut().zip(0..).map(|(kdev, n)| async move {
        let claim = kdev.claim(&format!("c{n}"), &[]);
        matches!(kdev.attach(claim).await, Tell::Attached { .. })
    });
    let won = futures_util::future::join_all(asking).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_500_claims_and_each_gets_its_own() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    for n in 0..500 {
        let condition = Condition::header(&format!("x-user: u{n}")).unwrap();
        let mut claim = ann.claim(&format!("c{n}"), &[condition]);
        claim.protocol = AppProtocol::Http;
        let told = ann.attach(claim).await;
        assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    }
    // Also on another port of the same Service.
    let claim = Box::new(ann.claim("more", &[Condition::mine("me").unwrap()]));
    let told = ann
        .ask(&Ask::Attach {
            port: stage.first + 1,
            claim,
            over: None,
            log: false,
        })
        .await;
    assert!(
        matches!(&told, Tell::Refused { reason, .. } if reason.contains("500")),
        "{told:?}"
    );
    for n in (0..500).step_by(50) {
        let (_, answer) = stage.get("/", &[("x-user", &format!("u{n}"))]).await;
        assert!(answer.contains("ann GET"), "{answer}");
    }
    assert!(
        stage
            .get("/", &[("x-user", "u500")])
            .await
            .1
            .contains("pods GET")
    );
    let Tell::Seen { claims, .. } = ann.ask(&Ask::Look { port: ann.port }).await else {
        panic!()
    };
    assert_eq!(claims.len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relay_does_not_know_it_says() {
    let stage = Stage::set_up().await;
    let mut ann = stage.kdev("ann", nobody().await).await;
    for odd in [
        json!({"do": "dance"}),
        json!({"do": "attach", "port": 1}),
        json!({"do": "attach", "port": ann.port, "claim": {
            "id": "a", "owner": "ann", "session": ann.session, "since": 1,
            "when": [{"weather": "rain"}]}}),
        json!("what"),
    ] {
        let told = ann.raw(&odd).await;
        assert!(
            matches!(&told, Tell::Unknown { reason } if reason.contains("version")),
            "{told:?}"
        );
    }
    let told = ann.ask(&Ask::Look { port: 1 }).await;
    assert!(matches!(told, Tell::Refused { .. }), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_would_cost_everybody_are_refused_with_the_reason() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut of = Vec::new();
    for owner in ["ann", "bob", "cy", "dan", "eve"] {
        of.push(stage.kdev(owner, nobody().await).await);
    }
    let patterns = |id: &str| -> Vec<_> {
        let all = (0..8).map(|n| Condition::header(&format!("x-h{n}~=.*{id}")));
        all.map(Result::unwrap).collect()
    };
    let refused = |told: Tell, words: &str| match told {
        Tell::Refused { reason, .. } => assert!(reason.contains(words), "{reason}"),
        told => panic!("{told:?}"),
    };
    for kdev in &mut of[..4] {
        for n in 0..4 {
            let id = format!("{}-{n}", kdev.owner);
            let told = kdev.attach(kdev.claim(&id, &patterns(&id))).await;
            assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
        }
        let more = kdev.claim("more", &patterns("more"));
        refused(kdev.attach(more).await, "40 of this kdev's");
    }
    let eve = &mut of[4];
    let one = [patterns("eve").remove(0)];
    refused(
        eve.attach(eve.claim("eve", &one)).await,
        "129 of all people's",
    );
    // What is looked up first costs nobody else anything.
    let both = [&one[..], &[Condition::mine("eve").unwrap()]].concat();
    let told = eve.attach(eve.claim("eve", &both)).await;
    assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    // Nor is there room without end in memory.
    let mut large = patterns("large");
    for (n, one) in large.iter_mut().enumerate() {
        *one = Condition::header(&format!("x-h{n}~=[^/]{{1,128}}/[^/]{{1,64}}{n}")).unwrap();
    }
    let mut taken = 0;
    let why = loop {
        let id = format!("large-{taken}");
        let mut all = large.clone();
        all.push(Condition::header(&format!("x-user: {taken}")).unwrap());
        match eve.attach(eve.claim(&id, &all)).await {
            Tell::Attached { .. } => taken += 1,
            Tell::Refused { reason, .. } => break reason,
            told => panic!("{told:?}"),
        }
    };
    assert!(why.contains("8 MiB"), "{why}");
    assert!(taken > 15, "{taken}");
    let (_, answer) = stage.get("/", &[("x-h0", &"a".repeat(4000))]).await;
    assert!(answer.contains("pods GET"), "{answer}");
}
