//! Port-forwards of somebody who comes anew.

use std::time::{Duration, Instant};

use hyper::Request;
use kdev::k8s::Client;
use kdev::task::Tasks;

use crate::lab;

/// How long a component may take to be back.
const LIMIT: Duration = Duration::from_secs(60);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Pause between two attempts.
const POLL: Duration = Duration::from_millis(50);

/// What asks for a port-forward to a pod.
pub(crate) fn spdy(namespace: &str, pod: &str) -> Request<()> {
    Request::post(format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    ))
    .header("Connection", "Upgrade")
    .header("Upgrade", "SPDY/3.1")
    .header("X-Stream-Protocol-Version", "portforward.k8s.io")
    .body(())
    .unwrap()
}

/// Waits until `account` can open a port-forward to a pod of `namespace`: to the
/// first one that `pod` finds.
pub(crate) async fn until_open(account: &str, namespace: &str, pod: impl Fn() -> Option<String>) {
    let end = Instant::now() + LIMIT;
    let mut found = None;
    loop {
        if found.is_none() {
            found = pod();
        }
        if let Some(pod) = &found
            && opens(account, spdy(namespace, pod)).await
        {
            return;
        }
        assert!(Instant::now() < end, "the way is not back");
        tokio::time::sleep(POLL).await;
    }
}

async fn opens(account: &str, request: Request<()>) -> bool {
    let asked = tokio::time::timeout(ATTEMPT, async {
        let tasks = Tasks::new();
        let client = Client::connect(lab::options(account), &tasks).await;
        match client {
            Ok(client) => client.upgrade(request).await.is_ok(),
            Err(_) => false,
        }
    });
    asked.await.unwrap_or(false)
}
