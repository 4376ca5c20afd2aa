//! Signals that come twice, ends that are not waited for, and what they leave.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGKILL, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::getsid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::sleep;

use crate::support::{AGAIN, Live, Team, app, nobody, until};

const ADA: &str = "x-user: ada";
/// What comes from a runner that forwards signals, a terminal that closes, a supervisor.
const PAIRS: [[Signal; 2]; 5] = [
    [SIGINT, SIGINT],
    [SIGINT, SIGTERM],
    [SIGTERM, SIGINT],
    [SIGHUP, SIGHUP],
    [SIGTERM, SIGHUP],
];

/// Whether it is the exit code of one of them.
fn is_of(pair: [Signal; 2], code: Option<i32>) -> bool {
    let of = |signal: &Signal| match signal {
        SIGINT => 0,
        signal => 128 + *signal as i32,
    };
    pair.iter().any(|signal| code == Some(of(signal)))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_as_soon_as_the_service_is_safe_and_the_next_one_begins_at_once() {
    let team = Team::set_up().await;
    let before = team.service();
    let port = app("ada's").await;
    for pair in PAIRS {
        let live = team.intercept("ada", port, &["--header", ADA]).await;
        assert_eq!(team.get(ADA).await.1, "ada's");
        // Two at once are one.
        live.send_both(pair).await;
        let (told, code) = live.rest().await;
        assert!(is_of(pair, code), "{pair:?}: {code:?}");
        assert!(told.contains("has its own pods again"), "{pair:?}: {told}");
        assert!(told.contains("it was told to end"), "{pair:?}: {told}");
        // Nobody has to do anything.
        assert!(!told.contains("kdev restore"), "{pair:?}: {told}");
        assert!(team.is_at_the_pods(ADA).await, "{pair:?}");
        assert_eq!(team.service(), before, "{pair:?}");
        assert!(team.claims().is_empty(), "{pair:?}");
        // What late callers need is there still, and is no intercept.
        assert!(!team.is_clear(), "{pair:?}");
        let listed = team.kdev("ada", &["list"]).await.ok();
        assert_eq!(listed, "Nothing is intercepted.\n", "{pair:?}");
    }
    team.clears().await;
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_has_let_go_of_the_terminal_and_is_replaced_by_the_next_kdev() {
    let team = Team::set_up().await;
    let before = team.service();
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    live.end().await;
    let helpers = team.helpers();
    assert_eq!(helpers.len(), 1, "{helpers:?}");
    assert_eq!(getsid(Some(helpers[0])).unwrap(), helpers[0]);
    assert_ne!(getsid(None).unwrap(), helpers[0]);
    kill(helpers[0], SIGKILL).unwrap();
    assert!(!team.is_clear());
    // Each kdev that looks there does what is due.
    until("list clears up", || async {
        let listed = team.kdev("ada", &["list"]).await.ok();
        assert_eq!(listed, "Nothing is intercepted.\n");
        team.is_clear()
    })
    .await;
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_end_while_it_begins_does_not_go_live() {
    let team = Team::set_up().await;
    let before = team.service();
    let port = app("ada's").await;
    // So that there is time between its steps.
    let slow = Duration::from_millis(400);
    team.cluster.faults().api_delay(slow);
    let is_on_record = || !team.claims().is_empty();
    let leads_to_relay = || team.service()["spec"] != before["spec"];
    let moments: [(&str, &dyn Fn() -> bool); 2] =
        [("on record", &is_on_record), ("led there", &leads_to_relay)];
    for (moment, has_come) in moments {
        let live = team.begin("ada", port, &[]);
        while !has_come() {
            sleep(Duration::from_millis(2)).await;
        }
        live.send(SIGINT);
        let (told, code) = live.rest().await;
        assert_eq!(code, Some(130), "{moment}: {told}");
        assert!(!told.contains(r#""event":"live""#), "{moment}: {told}");
        assert!(!told.contains("may still lead"), "{moment}: {told}");
        assert!(team.claims().is_empty(), "{moment}: {told}");
        assert_eq!(team.service(), before, "{moment}");
        assert!(team.is_at_the_pods("").await, "{moment}");
    }
    team.cluster.faults().api_delay(Duration::ZERO);
    team.clears().await;
}

/// An intercept whose end was asked for twice while the API server says nothing.
async fn broken_off(team: &Team) {
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    let id = live.id.clone();
    team.cluster.faults().hold_api(true);
    live.send(SIGINT);
    sleep(AGAIN).await;
    live.send(SIGINT);
    let (told, code) = live.rest().await;
    assert_eq!(code, Some(130));
    let words = format!("may still lead to the relay, with your claim {id} on record");
    assert!(told.contains(&words), "{told}");
    assert!(
        told.contains("`kdev restore cart -n shop` gives it back"),
        "{told}"
    );
    // Its connections are gone, and what it asked for with them.
    sleep(Duration::from_millis(300)).await;
    team.cluster.faults().hold_api(false);
    assert_eq!(team.claims(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_second_signal_left_is_in_nobodys_way() {
    let team = Team::set_up().await;
    let before = team.service();
    broken_off(&team).await;
    // At once, long before the claim counts as forgotten.
    let began = Instant::now();
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    println!("again after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(team.claims(), std::slice::from_ref(&live.id));
    assert_eq!(team.get(ADA).await.1, "ada's");
    live.end().await;
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_second_signal_left_is_given_back_by_the_command_that_it_named() {
    let team = Team::set_up().await;
    let before = team.service();
    broken_off(&team).await;
    assert_ne!(team.service(), before);
    let told = team.kdev("ada", &["restore", "cart", "-n", "shop"]).await;
    assert!(told.ok().contains("has its own pods again"));
    assert_eq!(team.service(), before);
    assert!(team.is_clear());
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_claims_no_more_than_it_did() {
    let team = Team::set_up().await;
    let told = team.kdev("ada", &["restore", "cart"]).await.ok();
    assert_eq!(told, "Nothing to restore: cart is not intercepted.\n");
    let missing = team.kdev("ada", &["restore", "crat"]).await;
    assert_eq!(missing.code, 1, "{missing:?}");
    let said = missing.failed();
    assert!(
        said.contains("Service crat in namespace shop was not found"),
        "{said}"
    );
    assert!(said.contains("did you mean cart?"), "{said}");

    // After an orderly end the Service has its pods, and something is left for late callers.
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    live.end().await;
    assert!(!team.is_clear());
    let told = team.kdev("ada", &["restore", "cart"]).await.ok();
    assert!(
        told.contains("cart.shop had its own pods already"),
        "{told}"
    );
    assert!(!told.contains("again"), "{told}");
    assert!(team.is_clear());
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_kdevs_that_were_killed_while_they_began_are_in_nobodys_way() {
    let team = Team::set_up().await;
    let before = team.service();
    let mut left: Vec<String> = Vec::new();
    for _ in 0..2 {
        // Slow enough that there is a middle: a claim on record that the relay does not know.
        team.cluster.faults().api_delay(Duration::from_millis(100));
        let begins = team.begin("ada", nobody().await, &["--header", ADA]);
        until("another claim is on record", || async {
            team.claims().iter().any(|id| !left.contains(id))
        })
        .await;
        begins.send(SIGKILL);
        assert_eq!(begins.ended().await, None);
        team.cluster.faults().clear();
        left = team.claims();
        assert_eq!(left.len(), 1, "the second takes the place of the first");
    }
    until("the relay knows that its kdev is gone", || async {
        let listed = team.kdev("ada", &["list"]).await.ok();
        listed.contains("(gone, ")
    })
    .await;
    let live = team
        .intercept("ada", app("ada's").await, &["--header", ADA])
        .await;
    assert_eq!(team.claims(), std::slice::from_ref(&live.id));
    assert_eq!(team.get(ADA).await.1, "ada's");
    // What somebody is beginning just now is no ghost of theirs.
    let again = ["intercept", "cart", "--to", "1", "--header", ADA];
    let refused = team.kdev("ada", &again).await.failed();
    assert!(refused.contains("you have"), "{refused}");
    live.end().await;
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_told_twice_gives_back_what_it_intercepted() {
    let team = Team::set_up().await;
    let before = team.service();
    let to = app("ada's").await.to_string();
    let asked = format!("cart={to}");
    for pair in [[SIGINT, SIGINT], [SIGTERM, SIGINT]] {
        let folder = tempfile::tempdir().unwrap();
        let started = folder.path().join("started");
        let script = format!("touch {}; exec sleep 100", started.display());
        let run = ["run", "--intercept", &asked, "--header", ADA];
        let run = [&run[..], &["--", "sh", "-c", &script]].concat();
        let child = team.command("ada", &run).spawn().unwrap();
        // Requests may come before the command runs.
        until("her requests come", || async {
            team.get(ADA).await.1 == "ada's" && started.exists()
        })
        .await;
        let live = Live::of_child(child);
        live.send_both(pair).await;
        until("it is given back", || async {
            team.claims().is_empty() && team.service() == before
        })
        .await;
        let (code, said) = live.said().await;
        // The command ends by one of them.
        let by = |signal: &Signal| code == Some(128 + *signal as i32);
        assert!(pair.iter().any(by), "{code:?}: {said}");
        assert!(said.contains("has its own pods again"), "{said}");
        assert!(!said.contains("may still lead"), "{said}");
        assert!(!team.is_clear(), "{said}");
    }
    team.clears().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_keeps_nothing_from_being_given_back() {
    let team = Team::set_up().await;
    let before = team.service();
    let to = app("ada's").await.to_string();
    let mut command = team.command(
        "ada",
        &["intercept", "cart", "--to", &to, "--json", "--header", ADA],
    );
    // Much is said to where nobody can read it.
    command.env("RUST_LOG", "debug").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let mut said = BufReader::new(err).lines();
    let mut told = BufReader::new(out).lines();
    let lives = async {
        loop {
            tokio::select! {
                Ok(Some(line)) = told.next_line() => if line.contains("\"live\"") { return },
                Ok(Some(_)) = said.next_line() => {}
                else => panic!("it ended before it was live"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), lives)
        .await
        .expect("it is live in time");
    drop((said, told));
    let live = Live::of_child(child);
    live.send_both([SIGHUP, SIGHUP]).await;
    assert_eq!(live.ended().await, Some(129));
    assert_eq!(team.service(), before);
    team.clears().await;
}
