//! Where something is broken: it is named, and what depends on it is skipped.

use std::time::{Duration, Instant};

use base64::Engine as _;
use kdev_sim::{Options, SimCluster, TurnAway};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Doctor, Document, cluster};

/// What is skipped where the API server is not reached.
const BEHIND_SERVER: [&str; 4] = ["login", "permissions", "port-forward", "speed"];

fn assert_unreached(found: &Document) {
    assert_eq!(found.with("fail"), ["api-server"], "{found:#?}");
    let server = found.get("api-server");
    assert!(server.needed && server.fix.is_some(), "{server:?}");
    for id in BEHIND_SERVER {
        let check = found.get(id);
        assert_eq!(check.status, "skipped", "{check:?}");
        assert_eq!(check.detail, "the API server cannot be reached");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens() {
    let cluster = cluster(Options::default()).await;
    cluster.stop_api().await;
    let found = Doctor::of(&cluster, "dev").json().await;
    assert_unreached(&found);
    let server = found.get("api-server");
    assert!(
        server.detail.ends_with("nothing listens there"),
        "{server:?}"
    );
    assert!(
        server
            .fix
            .as_ref()
            .unwrap()
            .starts_with("start the cluster")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_is_unknown() {
    let cluster = cluster(Options::default()).await;
    let kubeconfig = cluster.kubeconfig("dev", "shop");
    let nowhere = kubeconfig.replace(&cluster.url(), "https://api.kdev.invalid:6443");
    let found = Doctor::new(&nowhere).json().await;
    assert_unreached(&found);
    let detail = &found.get("api-server").detail;
    assert!(
        detail.contains("cannot resolve the API server's name api.kdev.invalid"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_another() {
    let cluster = cluster(Options::default()).await;
    let other = SimCluster::start(Options::default()).await.unwrap();
    let kubeconfig = other
        .kubeconfig_with_token("dev", "dev-token", "shop")
        .replace(&other.url(), &cluster.url());
    let found = Doctor::new(&kubeconfig).json().await;
    assert_unreached(&found);
    let server = found.get("api-server");
    assert!(
        server.detail.starts_with("no trust between kdev and "),
        "{server:?}"
    );
    assert!(
        server
            .fix
            .as_ref()
            .unwrap()
            .contains("certificate-authority-data")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cluster = cluster(Options::default()).await;
    let kubeconfig = cluster
        .kubeconfig("dev", "shop")
        .replace(&cluster.url(), &url);
    let doctor = Doctor::new(&kubeconfig);
    let portal = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let page = "<html>log in</html>";
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    };
    let found = tokio::select! {
        found = doctor.json() => found,
        () = portal => unreachable!(),
    };
    assert_unreached(&found);
    let server = found.get("api-server");
    assert!(server.detail.contains("not understood"), "{server:?}");
    assert!(server.fix.as_ref().unwrap().contains("login page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_takes_bounded_time() {
    let cluster = cluster(Options::default()).await;
    cluster.faults().hold_api(true);
    let began = Instant::now();
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_unreached(&found);
    let detail = &found.get("api-server").detail;
    assert!(detail.contains("did not answer within"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_asks_to_wait_is_said_to_be_busy() {
    let cluster = cluster(Options::default()).await;
    let away = |path: &str, count| TurnAway {
        code: 429,
        retry_after: Some(1),
        path: path.to_owned(),
        count,
    };
    // A moment is waited for, and no other fault is made of it.
    cluster.faults().turn_away(away("", 2));
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.with("warn"), [""; 0]);
    cluster.faults().turn_away(away("", u64::MAX));
    let began = Instant::now();
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_unreached(&found);
    let server = found.get("api-server");
    assert!(server.detail.contains("too busy (429)"), "{server:?}");
    let fix = server.fix.as_ref().unwrap();
    assert!(fix.contains("priority and fairness"), "{fix}");
}

fn assert_refused(found: &Document) {
    assert_eq!(found.with("fail"), ["login"], "{found:#?}");
    assert_eq!(found.get("api-server").status, "ok");
    for id in ["permissions", "port-forward", "speed"] {
        let check = found.get(id);
        assert_eq!(
            check.detail, "the credentials are not accepted",
            "{check:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_not_accepted() {
    let cluster = cluster(Options::default()).await;
    cluster.revoke_token("dev-token");
    let found = Doctor::of(&cluster, "dev").json().await;
    assert_refused(&found);
    let login = found.get("login");
    assert!(
        login.detail.contains("user \"dev\" (context \"sim\")"),
        "{login:?}"
    );
    assert!(login.fix.as_ref().unwrap().starts_with("log in again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_expired() {
    let cluster = cluster(Options::default()).await;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = base64.encode(r#"{"sub":"dev","exp":1700000000}"#);
    let kubeconfig = cluster.kubeconfig_with_token("dev", &format!("e30.{claims}.c2ln"), "shop");
    let found = Doctor::new(&kubeconfig).json().await;
    assert_refused(&found);
    let login = found.get("login");
    assert!(
        login.detail.contains("they expired ") && login.detail.ends_with(" days ago"),
        "{login:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_credentials() {
    for options in [Options::default(), Options::old()] {
        let cluster = cluster(options).await;
        let kubeconfig = cluster.kubeconfig("dev", "shop");
        let found = Doctor::new(&kubeconfig.replace("token: dev-token", "{}"))
            .json()
            .await;
        assert_refused(&found);
        let login = found.get("login");
        assert!(login.detail.contains("system:anonymous"), "{login:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_is_not_installed() {
    let cluster = cluster(Options::default()).await;
    let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1, command: cloud-login, \
                  interactiveMode: Never}";
    let kubeconfig = cluster
        .kubeconfig("dev", "shop")
        .replace("token: dev-token", plugin);
    let found = Doctor::new(&kubeconfig).json().await;
    assert_eq!(found.with("fail"), ["login"], "{found:#?}");
    let login = found.get("login");
    assert!(
        login.detail.contains("\"cloud-login\" is not installed"),
        "{login:?}"
    );
    assert!(
        found
            .get("kubeconfig")
            .detail
            .ends_with("credentials by cloud-login")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubeconfig_is_missing_or_wrong() {
    let doctor = Doctor::new("clusters: [");
    let found = doctor.json().await;
    assert_eq!(found.with("fail"), ["kubeconfig"], "{found:#?}");
    assert!(
        found
            .get("kubeconfig")
            .detail
            .contains("is not a kubeconfig")
    );
    for id in [
        "api-server",
        "login",
        "permissions",
        "port-forward",
        "speed",
    ] {
        assert_eq!(found.get(id).detail, "the kubeconfig cannot be used");
    }
    assert_eq!(
        found.get("local.runtime-folder").status,
        "ok",
        "the rest is looked at"
    );
    let nothing = doctor.folder.0.join("nothing");
    let doctor = doctor.env("KUBECONFIG", nothing.to_str().unwrap());
    let found = doctor.json().await;
    let check = found.get("kubeconfig");
    assert!(check.detail.starts_with("no kubeconfig found"), "{check:?}");
    assert!(check.fix.as_ref().unwrap().contains("kdev demo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_passes() {
    let cluster = cluster(Options::default()).await;
    cluster.faults().refuse_upgrades(Some((403, "")));
    let found = Doctor::of(&cluster, "dev").json().await;
    assert_eq!(found.with("fail"), ["port-forward"], "{found:#?}");
    let forward = found.get("port-forward");
    for form in ["websocket-spdy", "spdy", "spdy-get", "websocket-v4"] {
        assert!(forward.detail.contains(&format!("{form}: ")), "{forward:?}");
    }
    assert!(
        forward
            .fix
            .as_ref()
            .unwrap()
            .contains("proxy before the API server")
    );
}

/// A relay that is installed and whose pods nobody lets be made is not one that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_pods_is_told_as_installed_and_why() {
    let cluster = cluster(Options::default()).await;
    cluster.add_policy("labelled", &["pods"], |_| {
        Err("label team is required".to_owned())
    });
    let labels = json!({
        "app.kubernetes.io/name": "kdev-relay", "app.kubernetes.io/managed-by": "kdev",
    });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kdev-relay", "namespace": "shop", "labels": labels},
        "spec": {
            "replicas": 2,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "relay", "image": "relay:1"}]},
            },
        },
    });
    cluster.put_object("deployments", deployment);
    let refused = || {
        let sets = cluster.objects("replicasets", "shop");
        sets.iter()
            .any(|set| set["status"]["conditions"][0]["type"] == "ReplicaFailure")
    };
    while !refused() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let found = Doctor::of(&cluster, "dev").json().await;
    let relay = found.get("relay");
    assert_eq!(relay.status, "warn");
    for text in [
        "in namespace shop it is installed, 0 of 2 pods ready: no pod can be made (FailedCreate): ",
        "label team is required",
    ] {
        assert!(relay.detail.contains(text), "{}", relay.detail);
    }
    assert!(!relay.detail.contains("none needed"), "{}", relay.detail);
    let fix = relay.fix.as_deref().unwrap();
    assert!(fix.contains("kdev install -n shop"), "{fix}");
}
