//! Which dials go through the relay.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::dial::Answer;

/// A relay that notes what it is asked for.
#[derive(Clone, Default)]
struct Fake(Arc<State>);

#[derive(Default)]
struct State {
    installed: AtomicBool,
    usable: AtomicBool,
    /// Whether that is being found out.
    unknown: AtomicBool,
    dialled: Mutex<Vec<(String, Answer)>>,
}

impl Fake {
    fn new(installed: bool, usable: bool) -> Self {
        let fake = Self::default();
        fake.0.installed.store(installed, Ordering::Relaxed);
        fake.0.usable.store(usable, Ordering::Relaxed);
        fake
    }

    fn dialled(&self) -> Vec<(String, Answer)> {
        std::mem::take(&mut *self.0.dialled.lock().unwrap())
    }
}

impl DialRelay for Fake {
    type Io = DuplexStream;

    fn usable(&self) -> bool {
        self.0.usable.load(Ordering::Relaxed)
    }

    fn hopeless(&self) -> Option<DialError> {
        let installed = self.0.installed.load(Ordering::Relaxed);
        (!installed).then(|| DialError::Cluster {
            reason: "no relay was found".to_owned(),
            fix: "`kdev install`".to_owned(),
        })
    }

    async fn settled(&self) {
        while self.0.unknown.load(Ordering::Relaxed) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    async fn dial_relay(&self, target: &Target, answer: Answer) -> Result<DuplexStream, DialError> {
        let mut dialled = self.0.dialled.lock().unwrap();
        dialled.push((target.to_string(), answer));
        match target.port {
            1 => Err(DialError::Refused {
                target: target.to_string(),
                reason: String::new(),
            }),
            _ => Ok(tokio::io::duplex(8).0),
        }
    }

    async fn dial_relay_udp(&self, target: &Target) -> Result<DuplexStream, DialError> {
        self.dial_relay(target, Answer::Awaited).await
    }
}

fn inside(targets: &[&str], known: bool) -> Inside {
    Inside {
        targets: targets.iter().map(|t| t.parse().unwrap()).collect(),
        known,
    }
}

/// Something of the cluster's that port-forward does not reach.
fn hidden(targets: &[&str], known: bool) -> Resolution {
    Resolution::Inside {
        inside: inside(targets, known),
        why: DialError::Unreachable {
            target: "hidden:80".to_owned(),
            reason: "its endpoints are not pods".to_owned(),
            fix: NEEDS_RELAY.to_owned(),
        },
    }
}

fn world() -> Vec<(&'static str, Resolution)> {
    vec![
        ("web", pods("web")),
        ("hidden", hidden(&["10.96.0.9:80"], true)),
        ("vague", hidden(&["10.96.0.10:80"], false)),
        ("refusing", hidden(&["10.96.0.11:1"], false)),
        ("headless", hidden(&["10.0.0.1:80", "10.0.0.2:80"], true)),
        ("front", alias("hidden.x.svc.local")),
        ("hidden.x.svc.local", hidden(&["10.96.0.9:80"], true)),
        ("out", alias("db.example.com")),
        ("in", alias("db.corp.example")),
    ]
}

type Relayed = Router<World, World, World, Fake>;

fn with(relay: &Fake, via: Via) -> Relayed {
    router(
        &world(),
        &["also.example", "10.7.0.0/16"],
        &["www.corp.example"],
    )
    .with_routes(
        Routes::parse(
            &["also.example".to_owned(), "10.7.0.0/16".to_owned()],
            &["www.corp.example".to_owned()],
            &["corp.example".to_owned()],
        )
        .unwrap(),
    )
    .with_relay(Some(relay.clone()), via)
}

/// What a dial of `target` comes to: what the relay was asked for, `pod`, or the error.
async fn dial(router: &Relayed, relay: &Fake, target: &str) -> String {
    let result = router.dial(&target.parse().unwrap()).await;
    match (result, relay.dialled().pop()) {
        (Err(error), _) => error.to_string(),
        (Ok(_), Some((target, answer))) => format!("{answer:?} {target}"),
        (Ok(_), None) => "pod".to_owned(),
    }
}

#[tokio::test]
async fn a_usable_relay_takes_what_is_the_clusters() {
    let relay = Fake::new(true, true);
    for via in [Via::Auto, Via::Relay] {
        let router = with(&relay, via);
        for (target, expected) in [
            ("web:80", "AtOnce 10.96.0.7:80"),
            ("hidden:80", "AtOnce 10.96.0.9:80"),
            ("vague:80", "Awaited 10.96.0.10:80"),
            ("front:80", "AtOnce 10.96.0.9:80"),
            // Only the cluster knows what these are.
            ("also.example:443", "Awaited also.example:443"),
            ("db.corp.example:5432", "Awaited db.corp.example:5432"),
            ("corp.example:80", "Awaited corp.example:80"),
            ("in:5432", "Awaited db.corp.example:5432"),
            ("10.7.1.2:80", "Awaited 10.7.1.2:80"),
        ] {
            assert_eq!(dial(&router, &relay, target).await, expected, "{target}");
        }
        for target in ["github.com:80", "out:80", "www.corp.example:80"] {
            let way = router
                .decide(&target.parse().unwrap(), &mut Notes::off())
                .await
                .way;
            assert!(matches!(way, Way::Laptop), "{target}: {way:?}");
        }
    }
}

#[tokio::test]
async fn equal_destinations_take_turns() {
    let relay = Fake::new(true, true);
    let router = with(&relay, Via::Auto);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(dial(&router, &relay, "headless:80").await);
    }
    for ip in ["10.0.0.1", "10.0.0.2"] {
        let count = seen.iter().filter(|s| s.contains(ip)).count();
        assert_eq!(count, 2, "{seen:?}");
    }
}

#[tokio::test]
async fn failures_are_told_of_what_was_asked_for() {
    let relay = Fake::new(true, true);
    let error = dial(&with(&relay, Via::Auto), &relay, "refusing:80").await;
    assert_eq!(error, "refusing:80 refused the connection");
}

#[tokio::test]
async fn pods_are_reached_without_a_relay_that_reconnects_and_the_rest_waits_for_it() {
    let relay = Fake::new(true, false);
    let router = with(&relay, Via::Auto);
    assert_eq!(dial(&router, &relay, "web:80").await, "pod");
    assert_eq!(
        dial(&router, &relay, "hidden:80").await,
        "AtOnce 10.96.0.9:80"
    );
    let only = with(&relay, Via::Relay);
    assert_eq!(dial(&only, &relay, "web:80").await, "AtOnce 10.96.0.7:80");
}

#[tokio::test]
async fn what_port_forward_may_not_the_relay_does() {
    let denied = DialError::Denied {
        verb: "create".to_owned(),
        resource: "pods/portforward".to_owned(),
        namespace: "shop".to_owned(),
        message: String::new(),
    };
    let (there, nowhere) = (Fake::new(true, false), Fake::new(false, false));
    let mut router = with(&there, Via::Auto);
    router.pods.forbidden = Some(denied);
    let answer = dial(&router, &there, "web:80").await;
    assert_eq!(answer, "AtOnce 10.96.0.7:80");
    let router = router.with_relay(Some(nowhere.clone()), Via::Auto);
    let answer = dial(&router, &nowhere, "web:80").await;
    assert!(answer.contains("pods/portforward"), "{answer}");
}

#[tokio::test]
async fn without_a_relay_the_error_says_how_to_get_one() {
    let relay = Fake::new(false, false);
    let router = with(&relay, Via::Auto);
    assert_eq!(dial(&router, &relay, "web:80").await, "pod");
    for target in ["hidden:80", "also.example:80", "db.corp.example:80"] {
        let error = dial(&router, &relay, target).await;
        assert!(
            error.contains("a relay in the cluster reaches it, but"),
            "{target}: {error}"
        );
        assert!(
            error.ends_with("no relay was found; `kdev install`"),
            "{error}"
        );
    }
    let error = dial(&with(&relay, Via::Relay), &relay, "web:80").await;
    assert!(
        error.contains("--via relay") && error.ends_with("`kdev install`"),
        "{error}"
    );
    let none = with(&relay, Via::Auto).with_relay(None::<Fake>, Via::Auto);
    let error = dial(&none, &relay, "hidden:80").await;
    assert!(error.ends_with(NEEDS_RELAY), "{error}");
}

#[tokio::test]
async fn direct_leaves_the_relay_out_and_says_so() {
    let relay = Fake::new(true, true);
    let router = with(&relay, Via::Direct);
    assert_eq!(dial(&router, &relay, "web:80").await, "pod");
    let error = dial(&router, &relay, "hidden:80").await;
    assert!(
        error.contains("--via direct") && !error.contains("install"),
        "{error}"
    );
}

#[tokio::test]
async fn datagrams_go_through_the_relay_alone() {
    let relay = Fake::new(true, true);
    let target: Target = "web:80".parse().unwrap();
    let way = async |router: &Relayed| {
        let notes = &mut Notes::off();
        router.decide_for(&target, Protocol::Udp, notes).await.way
    };
    for via in [Via::Auto, Via::Relay] {
        let way = way(&with(&relay, via)).await;
        let Way::Relay(found, Some(_)) = way else {
            panic!("{way:?}");
        };
        assert_eq!(found, inside(&["10.96.0.7:80"], true));
    }
    for (relay, via) in [(relay, Via::Direct), (Fake::new(false, false), Via::Auto)] {
        let Way::Failed(error) = way(&with(&relay, via)).await else {
            panic!("{via:?}");
        };
        assert!(error.to_string().contains("UDP"), "{error}");
    }
}

#[tokio::test]
async fn a_flow_is_opened_to_what_the_relay_would_dial() {
    let relay = Fake::new(true, true);
    let router = with(&relay, Via::Auto);
    for (target, dialled) in [
        ("web:80", "10.96.0.7:80"),
        ("db.corp.example:53", "db.corp.example:53"),
    ] {
        let flow = router.dial_udp(&target.parse().unwrap()).await.unwrap();
        assert_eq!(format!("{flow:?}"), "Flow(capsules)");
        assert_eq!(relay.dialled().pop().unwrap().0, dialled);
    }
    let error = router
        .dial_udp(&"refusing:80".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "refusing:80 refused the connection");
    // Not the cluster's: the laptop's own network.
    let error = router
        .dial_udp(&"out:53".parse().unwrap())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("db.example.com"), "{error}");
    assert!(
        relay
            .dialled()
            .pop()
            .is_some_and(|(t, _)| t == "10.96.0.11:1")
    );
}

#[tokio::test]
async fn an_address_that_the_clusters_dns_gave_is_the_clusters() {
    let relay = Fake::new(true, true);
    let answered = Answered::default();
    let router = with(&relay, Via::Auto).with_answered(answered.clone());
    let target: Target = "10.20.0.5:5432".parse().unwrap();
    let way = async || router.decide(&target, &mut Notes::off()).await.way;
    assert!(matches!(way().await, Way::Laptop));
    answered.note("10.20.0.5".parse().unwrap());
    let answer = dial(&router, &relay, "10.20.0.5:5432").await;
    assert_eq!(answer, "Awaited 10.20.0.5:5432");
    let direct = with(&relay, Via::Direct).with_answered(answered);
    let error = dial(&direct, &relay, "10.20.0.5:5432").await;
    assert!(error.contains("--resolve-in-cluster"), "{error}");
}

/// While it is not known whether there is a relay, what only one reaches waits for that.
#[tokio::test(start_paused = true)]
async fn nothing_is_said_in_ignorance() {
    let relay = Fake::new(true, false);
    relay.0.unknown.store(true, Ordering::Relaxed);
    let router = with(&relay, Via::Auto);
    let (found, ()) = tokio::join!(dial(&router, &relay, "hidden:80"), async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        relay.0.installed.store(false, Ordering::Relaxed);
        relay.0.unknown.store(false, Ordering::Relaxed);
    });
    assert!(
        found.ends_with("no relay was found; `kdev install`"),
        "{found}"
    );
    relay.0.unknown.store(true, Ordering::Relaxed);
    assert_eq!(dial(&router, &relay, "web:80").await, "pod", "at once");
}
