//! Watches.

use std::time::Duration;

use kdev_sim::{Options, Pod, SimCluster};
use serde_json::Value;

use crate::support::http::{chunk, get, open};
use crate::support::{Tls, pending_for, shop, shop_with, within};

/// A running watch and what is left of its last chunk.
struct Watch {
    io: Tls,
    lines: Vec<Value>,
}

impl Watch {
    async fn start(cluster: &SimCluster, query: &str) -> Self {
        let line = format!("GET /api/v1/namespaces/shop/pods?watch=true&{query}");
        let (code, head, io) = open(cluster, "dev-token", &line, &[]).await;
        assert_eq!(code, 200, "{head}");
        Self {
            io,
            lines: Vec::new(),
        }
    }

    async fn event(&mut self) -> Option<Value> {
        if self.lines.is_empty() {
            let chunk = within(chunk(&mut self.io)).await?;
            let text = String::from_utf8(chunk).unwrap();
            self.lines = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
        }
        Some(self.lines.remove(0))
    }

    /// The next event as `TYPE name`.
    async fn next(&mut self) -> String {
        let event = self.event().await.expect("an event");
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

async fn version(cluster: &SimCluster) -> String {
    let list = get(cluster, "dev-token", "/api/v1/namespaces/shop/pods")
        .await
        .json();
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn web(name: &str) -> Pod {
    Pod::new("shop", name)
        .label("app", "web")
        .port("http", 8080)
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_version() {
    let cluster = shop().await;
    let from = version(&cluster).await;
    cluster.add_pod(web("web-4"));
    let mut watch = Watch::start(&cluster, &format!("resourceVersion={from}")).await;
    assert_eq!(watch.next().await, "ADDED web-4");
    cluster.set_ready("shop", "web-4", false);
    assert_eq!(watch.next().await, "MODIFIED web-4");
    cluster.remove_pod("shop", "web-4");
    assert_eq!(watch.next().await, "DELETED web-4");
    cluster.add_pod(Pod::new("elsewhere", "web-5"));
    assert!(pending_for(200, watch.event()).await);
}

#[tokio::test]
async fn without_a_version_the_present_comes_first() {
    let cluster = shop().await;
    let mut watch = Watch::start(&cluster, "labelSelector=app%3Dweb").await;
    for name in ["web-1", "web-2", "web-3"] {
        assert_eq!(watch.next().await, format!("ADDED {name}"));
    }
    cluster.add_pod(web("web-4"));
    assert_eq!(watch.next().await, "ADDED web-4");
}

#[tokio::test]
async fn leaving_a_selectors_view_is_a_deletion() {
    let cluster = shop().await;
    let from = version(&cluster).await;
    let query = format!("labelSelector=app%3Dweb&resourceVersion={from}");
    let mut watch = Watch::start(&cluster, &query).await;
    cluster.set_label("shop", "web-1", ("app", "old"));
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "web");
    cluster.set_label("shop", "web-1", ("app", "web"));
    assert_eq!(watch.next().await, "ADDED web-1");
    cluster.add_pod(web("web-1"));
    assert_eq!(
        watch.next().await,
        "DELETED web-1",
        "another pod of that name"
    );
    assert_eq!(watch.next().await, "ADDED web-1");
}

#[tokio::test]
async fn streamed_lists_end_with_a_bookmark_that_says_so() {
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let cluster = shop().await;
    let mut watch = Watch::start(&cluster, query).await;
    for _ in 0..7 {
        assert!(watch.next().await.starts_with("ADDED"));
    }
    let bookmark = watch.event().await.unwrap();
    let annotations = &bookmark["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn bookmarks_come_to_whoever_asks() {
    let options = Options {
        bookmark_every: Duration::from_millis(50),
        ..Options::default()
    };
    let cluster = shop_with(options).await;
    let from = version(&cluster).await;
    let query = format!("resourceVersion={from}&allowWatchBookmarks=true");
    let mut watch = Watch::start(&cluster, &query).await;
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "Pod");
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        from.as_str()
    );
}

#[tokio::test]
async fn watches_end_in_time_and_with_410_when_the_past_is_gone() {
    let cluster = shop().await;
    let from = version(&cluster).await;
    let mut short = Watch::start(
        &cluster,
        &format!("resourceVersion={from}&timeoutSeconds=1"),
    )
    .await;
    assert_eq!(short.event().await, None);

    let mut watch = Watch::start(&cluster, &format!("resourceVersion={from}")).await;
    cluster.expire_watches();
    let error = watch.event().await.unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(error["object"]["code"], 410);
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(watch.event().await, None);

    let mut late = Watch::start(&cluster, &format!("resourceVersion={from}")).await;
    let message = late.event().await.unwrap()["object"]["message"].clone();
    assert!(
        message
            .as_str()
            .unwrap()
            .starts_with("too old resource version: ")
    );

    let mut fresh = Watch::start(
        &cluster,
        &format!("resourceVersion={}", version(&cluster).await),
    )
    .await;
    cluster.add_pod(web("web-4"));
    assert_eq!(fresh.next().await, "ADDED web-4");
}
