//! What somebody's intercept left: shown, put back, and in the way of an uninstall.

use kdev_sim::{Options, shop};
use serde_json::{Value, json};

use crate::support::{Done, Stage};

/// A title for the window, text turned round, a line that looks like kdev's.
const HARM: &str = "\u{1b}]0;x\u{7}\u{202e}\nkdev: all is well";

/// Makes the Service `web` what it is while `ada` intercepts it, or did, and gives it as it was.
fn intercept(stage: &Stage, claims: &str) -> Value {
    let web = stage.object("services", "web").unwrap();
    let origin = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kdev-20000",
            "namespace": shop::NAMESPACE,
            "labels": {"kdev.dev/origin-of": "web"},
            "annotations": {"kdev.dev/claims": claims},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web", "uid": web["metadata"]["uid"],
            }],
        },
        "spec": {
            "selector": web["spec"]["selector"],
            "ports": [{"name": "http", "port": 20000, "protocol": "TCP", "targetPort": "http"}],
        },
    });
    stage.cluster.put_object("services", origin);
    let mut taken = web.clone();
    taken["metadata"]["labels"] = json!({"kdev.dev/intercepted": "kdev-20000.1"});
    taken["spec"]["selector"] = json!({"app": "kdev-relay"});
    taken["spec"]["ports"][0]["targetPort"] = json!(20000);
    stage.cluster.put_object("services", taken);
    web
}

const ADAS: &str = r#"[{"id": "a1", "owner": "ada", "port": 80, "since": 1,
    "session": "00112233445566778899aabbccddeeff", "when": [{"header": ["x-user", "ada"]}]}]"#;

fn is_as_before(stage: &Stage, web: &Value) {
    let after = stage.object("services", "web").unwrap();
    assert_eq!(after["spec"], web["spec"]);
    assert_eq!(
        after["metadata"].get("labels"),
        web["metadata"].get("labels")
    );
    assert_eq!(stage.object("services", "kdev-20000"), None);
}

#[tokio::test]
async fn it_is_given_back_before_the_relay_goes() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let web = intercept(&stage, ADAS);
    let refused = stage.kdev(&["uninstall", "--yes"]).await.failed();
    assert!(refused.contains("web by ada"), "{refused}");
    assert!(refused.contains("--force"), "{refused}");
    assert!(stage.object("deployments", "kdev-relay").is_some());
    let removed = stage.kdev(&["uninstall", "--yes", "--force"]).await.ok();
    assert!(
        removed.contains("Gave back what was intercepted: web."),
        "{removed}"
    );
    is_as_before(&stage, &web);
}

#[tokio::test]
async fn it_is_listed_and_restored() {
    let stage = Stage::new().await;
    let none = stage.kdev(&["list"]).await.ok();
    assert!(none.contains("Nothing is intercepted"), "{none}");
    let none = stage.kdev(&["restore", "-A"]).await.ok();
    assert!(none.contains("Nothing to restore"), "{none}");

    stage.install(&[]).await.ok();
    let web = intercept(&stage, ADAS);
    for args in [&["list"][..], &["list", "-A"]] {
        let listed = stage.kdev(args).await.ok();
        assert!(
            listed.contains("web.shop") && listed.contains("port 80: --header 'x-user: ada'"),
            "{listed}"
        );
    }
    let listed = stage.kdev(&["list", "--json"]).await.json();
    assert_eq!(listed[0]["claims"][0]["id"], "a1");
    assert_eq!(listed[0]["claims"][0]["owner"], "ada");
    assert_eq!(listed[0]["ports"][0]["relay_port"], 20000);

    // What somebody still claims is theirs.
    let kept = stage.kdev(&["restore"]).await.ok();
    assert!(kept.contains("still intercepted (claims: 1)"), "{kept}");
    let kept = stage.kdev(&["restore", "web"]).await;
    let said = kept.out.contains("still intercepted (claims: 1)");
    assert!(said && kept.code == 1, "{kept:?}");
    for args in [&["list"][..], &["restore"]] {
        let args = [args, &["--owner", "carol"]].concat();
        let carols = stage.kdev(&args).await.ok();
        assert!(carols.contains("carol intercepts nothing here"), "{carols}");
    }
    let other = stage.kdev(&["restore", "orders", "--force"]).await.ok();
    assert!(other.contains("Nothing to restore"), "{other}");
    let done = stage
        .kdev(&["restore", "web", "--force", "--json"])
        .await
        .json();
    assert_eq!(done[0]["ended"][0]["owner"], "ada");
    is_as_before(&stage, &web);
}

#[tokio::test]
async fn what_nobody_claims_is_put_back_without_force() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let web = intercept(&stage, "[]");
    let listed = stage.kdev(&["list"]).await.ok();
    assert!(listed.contains("traces"), "{listed}");
    let done = stage.kdev(&["restore"]).await.ok();
    assert!(done.contains("web.shop has its own pods again"), "{done}");
    is_as_before(&stage, &web);
}

/// Whoever may change Services, or brings a policy, does not write on other people's terminals.
#[tokio::test]
async fn what_others_wrote_does_nothing_to_the_terminal() {
    let stage = Stage::on(Options {
        version: ("1".to_owned(), "30".to_owned(), format!("v1.30.0{HARM}")),
        ..Options::default()
    })
    .await;
    let harmless = |done: &Done| {
        let all = format!("{}{}", done.out, done.err);
        let harm =
            |c: char| (c.is_control() && c != '\n') || ('\u{200b}'..='\u{202e}').contains(&c);
        assert!(!all.chars().any(harm), "{all:?}");
        assert!(
            !all.lines()
                .any(|line| line.starts_with("kdev: all is well")),
            "{all}"
        );
        all
    };
    let shown = r"\u{1b}]0;x\u{7}\u{202e}";
    stage.install(&[]).await.ok();
    let mut claims: Value = serde_json::from_str(ADAS).unwrap();
    claims[0]["owner"] = json!(format!("ada{HARM}"));
    intercept(&stage, &claims.to_string());
    for args in [&["list"][..], &["uninstall", "--yes"], &["leave", "web"]] {
        let all = harmless(&stage.kdev(args).await);
        assert!(all.contains(shown), "{args:?}: {all}");
    }
    // What is said as JSON says the same, and is as harmless.
    let listed = stage.kdev(&["list", "--json"]).await;
    harmless(&listed);
    assert_eq!(listed.json()[0]["claims"][0]["owner"], format!("ada{HARM}"));
    harmless(&stage.kdev(&["doctor"]).await);
    harmless(&stage.kdev(&["-vv", "list"]).await);
    intercept(&stage, &format!("no JSON {HARM}"));
    harmless(&stage.kdev(&["list"]).await);
    stage
        .cluster
        .add_policy(HARM, &["deployments"], |_| Err(format!("by {HARM}")));
    let refused = harmless(&stage.install(&["--replicas", "1"]).await);
    assert!(refused.contains(shown), "{refused}");
}
