//! Where all is well, or well enough.

use kdev_sim::{Options, TurnAway};

use crate::support::{Doctor, cluster};

/// The checks of a cluster that answers, in their order, which scripts may rely on.
const IDS: [&str; 24] = [
    "kubeconfig",
    "api-server",
    "login",
    "permission.get.pods",
    "permission.list.pods",
    "permission.get.services",
    "permission.list.services",
    "permission.get.pods/portforward",
    "permission.create.pods/portforward",
    "permission.watch.pods",
    "permission.watch.services",
    "permission.list.endpointslices",
    "permission.cluster-wide",
    "permission.intercept",
    "permission.install",
    "port-forward",
    "relay",
    "install",
    "speed",
    "container.engine",
    "container.reach",
    "local.proxies",
    "local.runtime-folder",
    "local.capture",
];

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well() {
    let cluster = cluster(Options::default()).await;
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(found.ok && found.role.is_none());
    let ids: Vec<_> = found.checks.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids[..IDS.len()], IDS);
    assert_eq!(ids[IDS.len()..], ["local.sessions"]);
    assert_eq!(found.with("fail"), [""; 0]);
    assert_eq!(found.with("warn"), [""; 0]);
    assert_eq!(
        found.with("skipped"),
        ["container.engine", "container.reach"]
    );
    let needed = found.checks.iter().filter(|c| c.needed).count();
    assert_eq!(needed, 10, "{found:#?}");
    assert!(found.checks.iter().all(|c| !c.title.is_empty()));
    assert!(
        found
            .get("api-server")
            .detail
            .starts_with("v1.37.2 at https://127.0.0.1:")
    );
    assert_eq!(found.get("login").detail, "accepted, as dev");
    let forward = &found.get("port-forward").detail;
    assert!(
        forward.starts_with("SPDY/3.1 in a WebSocket: opened in "),
        "{forward}"
    );
    assert!(forward.contains("round trip"), "{forward}");
    assert!(
        forward.contains("spdy, spdy-get, websocket-v4 would do as well"),
        "{forward}"
    );
    assert!(found.get("speed").detail.starts_with("round trip "));
    let streams = cluster.counts().streams;
    assert_eq!(
        streams, 1,
        "only the form that cannot do without dials the pod"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_that_fail_say_nothing_of_the_login() {
    let cluster = cluster(Options::default()).await;
    cluster.faults().turn_away(TurnAway {
        code: 503,
        retry_after: None,
        path: "/selfsubject".into(),
        count: u64::MAX,
    });
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.get("login").detail, "accepted");
    assert_eq!(found.with("warn"), ["permissions"], "it is said once");
    assert_eq!(found.get("port-forward").status, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_people_are_plain_in_a_pipe() {
    let cluster = cluster(Options::default()).await;
    let (text, code) = Doctor::of(&cluster, "dev")
        .env("LANG", "C.UTF-8")
        .text(&["-v"])
        .await;
    assert_eq!(code, 0);
    assert!(text.is_ascii() && !text.contains('\x1b'), "{text}");
    assert!(
        text.contains("\n\nok   kubeconfig: context sim of"),
        "{text}"
    );
    assert!(
        text.contains("\nskip container engine: not checked: "),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_has_what_is_needed() {
    let cluster = cluster(Options::old()).await;
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(found.ok);
    assert_eq!(found.with("warn"), [""; 0]);
    assert_eq!(found.get("permission.get.endpoints").status, "ok");
    assert_eq!(
        found.get("login").detail,
        "accepted",
        "it cannot say as whom"
    );
    let forward = &found.get("port-forward").detail;
    assert!(forward.starts_with("SPDY/3.1: opened in "), "{forward}");
    assert!(
        forward.contains("refused: websocket-spdy: this server does not have it"),
        "{forward}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_resort_is_said_to_be_one() {
    let cluster = cluster(Options::default()).await;
    cluster.set_habits(|habits| {
        habits.tunnel = false;
        habits.spdy = false;
    });
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(found.ok);
    assert_eq!(found.with("warn"), ["port-forward"]);
    let forward = found.get("port-forward");
    assert!(
        forward.detail.starts_with("v4.channel.k8s.io"),
        "{forward:?}"
    );
    assert!(forward.fix.as_ref().unwrap().contains("let WebSockets"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_pods_has_nothing_to_try() {
    let cluster = cluster(Options::default()).await;
    cluster.add_namespace("empty");
    let found = Doctor::new(&cluster.kubeconfig("admin", "empty"))
        .json()
        .await;
    assert!(found.ok);
    let forward = found.get("port-forward");
    assert_eq!(forward.status, "skipped");
    assert!(
        forward.detail.contains("no ready pod in namespace empty"),
        "{forward:?}"
    );
    assert!(
        found
            .get("permission.cluster-wide")
            .detail
            .starts_with("allowed"),
        "the administrator sees everything"
    );
    let found = Doctor::new(&cluster.kubeconfig("admin", "shpo"))
        .json()
        .await;
    assert!(!found.ok);
    assert_eq!(
        found.get("port-forward").detail,
        "there is no namespace shpo"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_explained() {
    let cluster = cluster(Options::default()).await;
    let found = Doctor::of(&cluster, "dev")
        .env("HTTPS_PROXY", "http://me:secret@proxy.corp:3128")
        .env("NO_PROXY", ".svc,intranet")
        .json()
        .await;
    assert!(found.ok);
    let proxies = found.get("local.proxies");
    assert_eq!(proxies.status, "warn");
    let detail = &proxies.detail;
    assert!(!detail.contains("secret"), "{detail}");
    assert!(detail.contains("http://proxy.corp:3128"), "{detail}");
    assert!(detail.contains("does not resolve"), "{detail}");
    assert!(detail.contains("a NO_PROXY without .svc,"), "{detail}");
    // Under which names there are Services is the setting's to say.
    let found = Doctor::of(&cluster, "dev")
        .env("HTTPS_PROXY", "http://proxy.corp:3128")
        .env("NO_PROXY", "intranet,k8s.corp,.cluster.local")
        .env("KDEV_CLUSTER_DOMAIN", "k8s.corp")
        .json()
        .await;
    let detail = &found.get("local.proxies").detail;
    assert!(detail.contains("a NO_PROXY without k8s.corp,"), "{detail}");
}
