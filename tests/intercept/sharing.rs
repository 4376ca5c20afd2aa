//! Several people on one Service.

use nix::sys::signal::Signal;

use crate::support::{Live, Team, app, nobody};

#[tokio::test(flavor = "multi_thread")]
async fn each_has_their_own_requests_and_the_last_gives_it_back() {
    let team = Team::set_up().await;
    let before = team.service();
    let ada = ["--header", "x-user: ada"];
    let adas = team.intercept("ada", app("ada's").await, &ada).await;
    let bob = ["--header", "x-user: bob"];
    let bobs = team.intercept("bob", app("bob's").await, &bob).await;
    for _ in 0..5 {
        assert_eq!(team.get("x-user: ada").await.1, "ada's");
        assert_eq!(team.get("x-user: bob").await.1, "bob's");
        assert!(team.is_at_the_pods("").await);
    }
    // What somebody has already is refused by name.
    let to = nobody().await.to_string();
    let again = [&["intercept", "cart", "--to", &to], &ada[..]].concat();
    let refused = team.kdev("carol", &again).await.failed();
    assert!(refused.contains("ada@laptop"), "{refused}");
    assert!(refused.contains("x-user: ada"), "{refused}");

    adas.send(Signal::SIGINT);
    let (told, code) = adas.rest().await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("1 other intercept of cart goes on"), "{told}");
    assert!(team.is_at_the_pods("x-user: ada").await);
    assert_eq!(team.get("x-user: bob").await.1, "bob's");
    assert_ne!(team.service(), before);
    bobs.end().await;
    assert!(team.is_at_the_pods("x-user: bob").await);
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_begin_at_one_instant_the_winner_is_not_called_gone() {
    let team = Team::set_up().await;
    let to = app("somebody's").await.to_string();
    let begin = |owner| {
        let args = ["intercept", "cart", "--to", &to, "--header", "x-user: one"];
        team.command(owner, &args).spawn().unwrap()
    };
    let (mut ada, mut bob) = (begin("ada"), begin("bob"));
    let (loser, winner) = tokio::select! {
        _ = ada.wait() => ((ada, "bob@laptop"), bob),
        _ = bob.wait() => ((bob, "ada@laptop"), ada),
    };
    let (code, said) = Live::of_child(loser.0).said().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(loser.1) && said.contains("already"), "{said}");
    assert!(!said.contains("gone"), "{said}");
    let winner = Live::of_child(winner);
    winner.send(Signal::SIGINT);
    // It may still be beginning.
    let code = winner.ended().await;
    assert!([Some(0), Some(130)].contains(&code), "{code:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_global_one_is_alone_and_ends_by_force_of_others() {
    let team = Team::set_up().await;
    let before = team.service();
    let mut adas = team.intercept("ada", app("ada's").await, &[]).await;
    assert_eq!(team.get("").await.1, "ada's");
    assert_eq!(team.get("x-user: bob").await.1, "ada's");
    let to = nobody().await.to_string();
    let bob = ["intercept", "cart", "--to", &to, "--header", "x-user: bob"];
    let refused = team.kdev("bob", &bob).await.failed();
    assert!(refused.contains("ada@laptop"), "{refused}");

    let id = adas.id.clone();
    for args in [
        &["leave", &id][..],
        // That it names her makes bob nobody else.
        &["leave", &id, "--owner", "ada@laptop"],
        &["leave", "--all", "--owner", "ada@laptop"],
    ] {
        let refused = team.kdev("bob", args).await.failed();
        let names = refused.contains("ada@laptop") && refused.contains("bob@laptop");
        assert!(names && refused.contains("--force"), "{args:?}: {refused}");
    }
    assert_eq!(team.get("").await.1, "ada's");
    team.kdev("bob", &["leave", &id, "--force"]).await.ok();
    let over = adas.event("ended").await;
    let reason = over["reason"].as_str().unwrap();
    assert!(reason.contains("bob@laptop"), "{reason}");
    assert_eq!(over["wanted"], false);
    assert!(team.is_at_the_pods("").await);
    assert_eq!(adas.ended().await, Some(1));
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_intercept_is_taken_over_is_told_by_whom() {
    let team = Team::set_up().await;
    let before = team.service();
    let mut adas = team.intercept("ada", app("ada's").await, &[]).await;
    let bobs = team
        .intercept("bob", app("bob's").await, &["--take-over"])
        .await;
    let over = adas.event("ended").await;
    let reason = over["reason"].as_str().unwrap();
    assert!(reason.contains("bob@laptop ended it"), "{reason}");
    assert_eq!(over["wanted"], false);
    assert_eq!(adas.ended().await, Some(1));
    // The one that has it still has all of it.
    assert_eq!(team.get("").await.1, "bob's");
    bobs.end().await;
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_leave_is_a_wanted_end() {
    let team = Team::set_up().await;
    let before = team.service();
    let adas = team
        .intercept("ada", app("ada's").await, &["--header", "x-user: ada"])
        .await;
    let bobs = team
        .intercept("bob", app("bob's").await, &["--header", "x-user: bob"])
        .await;
    let left = team.kdev("ada", &["leave", "cart"]).await.ok();
    assert!(left.contains(&adas.id), "{left}");
    assert!(left.contains("1 of others"), "{left}");
    let (told, code) = adas.rest().await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("you ended it from elsewhere"), "{told}");
    assert!(told.contains(r#""wanted":true"#), "{told}");
    assert!(team.is_at_the_pods("x-user: ada").await);
    assert_eq!(team.get("x-user: bob").await.1, "bob's");
    // `--force` ends those of the owner that is named, and nobody else's.
    let args = ["leave", "--all", "--owner", "ada@laptop", "--force"];
    let none = team.kdev("carol", &args).await.failed();
    assert!(none.contains("no intercept of ada@laptop"), "{none}");
    assert_eq!(team.get("x-user: bob").await.1, "bob's");
    bobs.end().await;
    assert_eq!(team.service(), before);
}
