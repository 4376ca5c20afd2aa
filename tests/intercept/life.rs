//! One intercept from its beginning to its end, however it ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Team, app, nobody, until};

const ADA: &str = "x-user: ada";
const HERS: (u16, &str) = (200, "ada's");

#[tokio::test(flavor = "multi_thread")]
async fn your_requests_come_and_all_is_given_back() {
    let team = Team::set_up().await;
    let before = team.service();
    assert!(team.is_at_the_pods(ADA).await);
    let mut live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    for _ in 0..5 {
        assert!(team.is_at_the_pods("").await);
        assert!(team.is_at_the_pods("x-user: bob").await);
        assert_eq!(team.get(ADA).await, (HERS.0, HERS.1.to_owned()));
        let request = live.event("request").await;
        let said = ["id", "method", "path", "status"].map(|key| request[key].to_string());
        let id = format!("{:?}", live.id);
        assert_eq!(said, [&id, "\"GET\"", "\"/c\"", "200"]);
    }
    let listed = team.kdev("bob", &["list", "--json"]).await.json();
    let listed = listed.to_string();
    for part in [
        "\"ada@laptop\"",
        "\"cart\"",
        "8080",
        "x-user: ada",
        "\"live\"",
    ] {
        assert!(listed.contains(part), "{part} is missing in {listed}");
    }
    live.send(Signal::SIGINT);
    live.note("has its own pods again").await;
    assert!(team.is_at_the_pods(ADA).await);
    assert_eq!(team.service(), before);
    assert_eq!(live.ended().await, Some(0));
    // It goes on for callers that come late, without anybody, and clears up after them.
    team.clears().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_is_intercepted_and_what_went_through() {
    let team = Team::set_up().await;
    let port = app("ada's").await;
    let mut live = team.intercept("ada", port, &["--header", ADA]).await;
    for _ in 0..2 {
        assert_eq!(team.get(ADA).await, (HERS.0, HERS.1.to_owned()));
        live.event("request").await;
    }
    let status = team.kdev("ada", &["status", "--json"]).await.json();
    let session = &status[0];
    let shown = &session["intercepts"][0];
    assert_eq!(shown["id"], live.id, "{session}");
    assert_eq!(shown["service"], "cart");
    assert_eq!(shown["namespace"], "shop");
    assert_eq!(shown["requests"], 2);
    let app = shown["app"].as_str().unwrap();
    assert!(app.ends_with(&format!(":{port}")), "{app}");
    for bytes in ["bytes_sent", "bytes_received"] {
        assert!(session[bytes].as_u64().unwrap() > 50, "{session}");
    }
    let said = team.kdev("ada", &["status"]).await.ok();
    for part in [
        "intercept  cart.shop port 8080 -> ",
        "x-user: ada",
        "2 requests",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_printed_with_the_answers_of_the_app() {
    let team = Team::set_up().await;
    let port = app("ada's").await;
    let args = ["--mirror", "--header", ADA];
    let mut live = team.intercept("ada", port, &args).await;
    assert!(team.is_at_the_pods(ADA).await);
    let request = live.event("request").await;
    let said = ["method", "path", "status", "copy"].map(|key| request[key].to_string());
    assert_eq!(said, ["\"GET\"", "\"/c\"", "200", "true"]);
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_is_named_or_the_pods_answer() {
    let team = Team::set_up().await;
    let port = nobody().await;
    let live = team.intercept("ada", port, &["--header", ADA]).await;
    let (status, said) = team.get(ADA).await;
    assert_eq!(status, 502, "{said}");
    assert!(said.contains("ada@laptop"), "{said}");
    assert!(said.contains(&port.to_string()), "{said}");
    live.end().await;
    let live = team
        .intercept("ada", port, &["--header", ADA, "--fallback"])
        .await;
    assert!(team.is_at_the_pods(ADA).await);
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_a_name_is_refused_as_one() {
    let team = Team::set_up().await;
    let done = team
        .kdev("ada", &["intercept", "legacy", "--to", "8080"])
        .await;
    let said = format!("{done:?}");
    assert!(said.contains("it is an ExternalName"), "{said}");
    assert!(!said.contains("several ports"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_kdev_had_is_put_back() {
    let team = Team::set_up().await;
    let before = team.service();
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    assert_eq!(team.get(ADA).await.1, HERS.1);
    live.send(Signal::SIGKILL);
    assert_eq!(live.ended().await, None);
    assert!(team.is_at_the_pods("").await);
    let began = Instant::now();
    assert!(team.is_at_the_pods(ADA).await);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let listed = team.kdev("ada", &["list"]).await.ok();
    assert!(
        listed.contains("silent, its requests go to the original pods"),
        "{listed}"
    );
    team.kdev("ada", &["restore"]).await.ok();
    assert!(team.is_at_the_pods(ADA).await);
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_strict_one_callers_are_told_instead() {
    let team = Team::set_up().await;
    let port = app("ada's").await;
    let live = team
        .intercept("ada", port, &["--header", ADA, "--strict"])
        .await;
    assert_eq!(team.get(ADA).await.1, HERS.1);
    live.send(Signal::SIGKILL);
    assert_eq!(live.ended().await, None);
    assert!(team.is_at_the_pods("").await);
    let (began, (status, said)) = (Instant::now(), team.get(ADA).await);
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("kdev leave"), "{said}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let listed = team.kdev("ada", &["list"]).await.ok();
    assert!(listed.contains("silent, its callers get a 503"), "{listed}");
    team.kdev("ada", &["restore"]).await.ok();
    assert!(team.is_at_the_pods(ADA).await);
    for wrong in ["--fallback", "--mirror"] {
        let args = ["intercept", "cart", "--to", "1", "--strict", wrong];
        let refused = format!("{:?}", team.kdev("ada", &args).await);
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_login_ends_it_and_the_pods_answer() {
    let team = Team::set_up().await;
    let before = team.service();
    let mut live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    team.cluster.revoke_token("dev-token");
    // So that something is asked for.
    team.cluster.expire_watches();
    // For a while it may be the API server that has trouble.
    assert_eq!(team.get(ADA).await.1, HERS.1);
    live.note("was not given back").await;
    let over = live.event("ended").await;
    let reason = over["reason"].as_str().unwrap();
    assert!(
        reason.contains("the login of this session is lost"),
        "{reason}"
    );
    assert!(team.is_at_the_pods(ADA).await);
    assert!(team.is_at_the_pods("").await);
    assert_eq!(live.ended().await, Some(1));
    assert_ne!(team.service(), before);
    // Whoever may does what is left.
    team.log_in_again();
    team.kdev("ada", &["restore"]).await.ok();
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_set_back_is_brought_again() {
    let team = Team::set_up().await;
    let before = team.service();
    let mut live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    team.cluster.put_object("services", before.clone());
    live.note("was set back").await;
    live.note("comes to the relay again").await;
    until("her requests come again", || async {
        team.get(ADA).await.1 == HERS.1
    })
    .await;
    team.cluster.put_object("services", before.clone());
    let over = live.event("ended").await;
    let reason = over["reason"].as_str().unwrap();
    assert!(reason.contains("set back twice"), "{reason}");
    assert!(team.is_at_the_pods(ADA).await);
    assert_eq!(live.ended().await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_pods_that_go_take_nobody_along() {
    let team = Team::set_up().await;
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    let first = team.relays();
    assert_eq!(first.len(), 2);
    for pod in &first {
        team.cluster.remove_pod("shop", pod);
        assert!(team.is_at_the_pods("").await);
        until("there are two again", || async { team.relays().len() == 2 }).await;
        // The new one hears of the claim within moments.
        until("her requests come", || async {
            let all = [team.get(ADA).await, team.get(ADA).await];
            all.iter().all(|(_, said)| said == HERS.1)
        })
        .await;
    }
    assert!(team.relays().iter().all(|pod| !first.contains(pod)));
    assert!(team.is_at_the_pods("").await);
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_its_time_is_over() {
    let team = Team::set_up().await;
    let before = team.service();
    let args = ["--header", ADA, "--for", "1s"];
    let live = team.intercept("ada", app("ada's").await, &args).await;
    assert_eq!(live.ended().await, Some(0));
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_only_root_may_listen_on_is_intercepted_too() {
    let team = Team::set_up().await;
    // Two Services on one port, each at an address of its own.
    for service in ["orders", "web"] {
        let before = team.get_of(service, 80).await;
        let mut live = team.begin_of(service, "ada", app("ada's").await, &[]);
        assert_eq!(live.event("live").await["port"], 80);
        assert_eq!(team.get_of(service, 80).await.1, "ada's");
        live.end().await;
        assert_eq!(team.get_of(service, 80).await, before);
    }
}
