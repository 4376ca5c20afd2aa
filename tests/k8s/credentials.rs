//! Credentials that are renewed: plugins, and files that another program rewrites.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Request;
use kdev::k8s::client::UPGRADE_TIMEOUT;
use kdev::k8s::{Client, ClientError, UpgradeError};
use kdev_sim::{Options, Rule, User};
use serde_json::Value;

use crate::support::{World, within};

const PODS: &str = "/api/v1/namespaces/shop/pods";

/// A kubeconfig whose plugin hands out `token-1`, `token-2`, … and counts its runs in a file.
/// `more` is shell code that runs before it prints.
fn with_plugin(world: &World, more: &str, status: &str) -> String {
    let count = world.dir.path().join("count");
    let script = format!(
        "echo run >> {count}\nn=$(wc -l < {count})\n{more}\necho '{{\"status\":{{\"token\":\"token-'$n'\"{status}}}}}'",
        count = count.display()
    );
    let script = world.write("plugin", &script);
    let config = world.cluster.kubeconfig_with_token("bot", "x", "shop");
    let token = config.lines().find(|l| l.contains("token:")).unwrap();
    let indent = &token[..token.len() - token.trim_start().len()];
    let exec = format!(
        "{indent}exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: ['{}'], interactiveMode: Never}}",
        script.display()
    );
    config.replace(token, &exec)
}

fn runs(world: &World) -> usize {
    let count = fs::read_to_string(world.dir.path().join("count"));
    count.unwrap_or_default().lines().count()
}

/// Lets `token` act as `bot`, and no other token.
fn accept(world: &World, token: &str, old: &str) {
    world.cluster.revoke_token(old);
    let rule = Rule::new(&["get", "list"], &["pods"]).namespace("shop");
    world
        .cluster
        .add_user(User::new("bot").token(token).rule(rule));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_waits_for_a_login_longer_than_for_the_api_server() {
    let world = World::new(Options::default()).await;
    accept(&world, "token-1", "none");
    let wait = UPGRADE_TIMEOUT.as_secs() + 1;
    let slow = format!("[ $n = 1 ] || sleep {wait}");
    let client = world.connect(&with_plugin(&world, &slow, "")).await;
    let client = client.unwrap();
    accept(&world, "token-2", "token-1");
    let request = Request::get(format!("{PODS}/web-0/portforward")).body(());
    let error = client.upgrade(request.unwrap()).await.unwrap_err();
    // The API server knows the user by the second token, who may not do this.
    assert!(
        matches!(error, UpgradeError::Status { code: 403, .. }),
        "{error}"
    );
    assert_eq!(runs(&world), 2);
}

async fn list(client: &Client) -> Result<Value, ClientError> {
    client.get(PODS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_renewed_once_for_all_who_wait() {
    let world = World::new(Options::default()).await;
    accept(&world, "token-1", "none");
    let config = with_plugin(&world, "sleep 0.2", "");
    let client = world.connect(&config).await.unwrap();
    assert_eq!(runs(&world), 1, "not three times, as kube would");
    list(&client).await.unwrap();
    accept(&world, "token-2", "token-1");
    for result in join_all((0..20).map(|_| list(&client))).await {
        result.unwrap();
    }
    assert_eq!(runs(&world), 2);
    client.kube().await.unwrap();
    assert_eq!(runs(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_tokens_are_refused_does_not_run_for_every_request() {
    let world = World::new(Options::default()).await;
    accept(&world, "other", "none");
    let client = world.connect(&with_plugin(&world, "", "")).await.unwrap();
    for _ in 0..10 {
        let error = list(&client).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unauthorized { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("log in again"), "{error}");
    }
    assert_eq!(runs(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_later_says_why() {
    let world = World::new(Options::default()).await;
    accept(&world, "token-1", "none");
    let fail = "[ $n = 1 ] || { echo 'your session has ended' >&2; exit 1; }";
    let client = world.connect(&with_plugin(&world, fail, "")).await.unwrap();
    world.cluster.revoke_token("token-1");
    for _ in 0..3 {
        let error = list(&client).await.unwrap_err().to_string();
        assert!(error.contains("your session has ended"), "{error}");
    }
    assert_eq!(runs(&world), 2, "a failure is not repeated at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_in_the_background_before_it_ends() {
    let world = World::new(Options::default()).await;
    accept(&world, "token-1", "none");
    let end = r#",\"expirationTimestamp\":\"'$(date -u -d '+8 seconds' +%Y-%m-%dT%H:%M:%SZ)'\""#
        .replace('\\', "");
    let config = with_plugin(&world, "[ $n = 1 ] || sleep 0.3", &end);
    let client = world.connect(&config).await.unwrap();
    list(&client).await.unwrap();
    assert_eq!(runs(&world), 1);
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let begun = std::time::Instant::now();
    list(&client).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(250),
        "waits for nothing"
    );
    within(Duration::from_secs(3), "the next run", || runs(&world) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_another_program_rewrote_is_read_again() {
    let world = World::new(Options::default()).await;
    accept(&world, "first", "none");
    let config = |token| world.cluster.kubeconfig_with_token("bot", token, "shop");
    let client = world.connect(&config("first")).await.unwrap();
    list(&client).await.unwrap();
    accept(&world, "second", "first");
    list(&client).await.unwrap_err();
    world.write("config", &config("second"));
    tokio::time::sleep(Duration::from_millis(5200)).await;
    list(&client).await.unwrap();
}
