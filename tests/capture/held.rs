//! The same where there are no namespaces, and connects wait for kdev.

use crate::echo_tcp;
use crate::stage::{Stage, text};

#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_services_answer_too() {
    let stage = Stage::without_namespaces().await;
    stage.run("services", &[("HELD", "1")]).await.ok();
    stage.run("thousand", &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_waited_is_what_it_was() {
    let stage = Stage::without_namespaces().await;
    let port = echo_tcp().to_string();
    stage.run("held", &[("PORTS", &port)]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_a_running_connect_is_used_too() {
    let stage = Stage::without_namespaces().await;
    let _connect = stage.connect().await;
    let udp = crate::echo_udp().to_string();
    stage.run("lent", &[("PORTS", &udp)]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_network_of_its_own_is_refused_and_the_rest_is_as_ever() {
    let stage = Stage::without_namespaces().await;
    let args = ["run", "--publish", "18080:80", "--", "true"];
    let refused = stage.kdev(&args).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(125));
    let said = text(&refused.stderr);
    assert!(
        said.contains("--publish") && said.contains("network of the command's own"),
        "{said}"
    );
    for (command, code) in [("exit 7", 7), ("kill -TERM $$", 143), ("exec nosuch", 127)] {
        let args = ["run", "-q", "--", "sh", "-c", command];
        let ran = stage.kdev(&args).output().await.unwrap();
        assert_eq!(ran.status.code(), Some(code), "{ran:?}");
    }
    let missing = stage
        .kdev(&["run", "-q", "--", "nosuch"])
        .output()
        .await
        .unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert!(
        text(&missing.stderr).contains("nosuch: command not found"),
        "{missing:?}"
    );
    let output = stage.kdev(&["doctor", "-v"]).output().await.unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("kdev looks at each connect"), "{said}");
}
