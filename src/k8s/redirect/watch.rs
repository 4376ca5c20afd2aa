//! Following a Service, its origin and the relay's pods, by watches: what somebody does to one of
//! them is known at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use kube::client::Body;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::keys::is_ready;
use super::object::{name, text};
use super::policies;
use super::site::Site;
use crate::k8s::{Client, ClientError};
use crate::task::Tasks;

/// How long a watch is asked to last.
const WATCH_SECONDS: u64 = 290;
/// A watch from which nothing came for so long is dead: the server ends it before.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// Longest event: etcd keeps no object above 1.5 MiB; JSON may double it.
const MAX_EVENT: usize = 8 << 20;
/// The first and the longest pause before a broken watch is made again: what happens meanwhile is
/// known a little later.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause before policies are asked for again that may not be read: nothing depends on them alone.
const POLICIES_PAUSE: Duration = Duration::from_secs(60);

/// What is known of one object.
#[derive(Clone, Debug, Default)]
pub(super) enum Thing {
    /// Nothing yet.
    #[default]
    Unknown,
    /// There is none.
    Gone,
    /// It.
    There(Arc<Value>),
}

/// What is known of the relay's pods.
#[derive(Clone, Debug, Default)]
pub(super) enum Relays {
    /// Nothing yet.
    #[default]
    Unknown,
    /// None has been ready since then.
    None(Instant),
    /// One is at least.
    Ready,
}

/// All that is followed, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) service: Thing,
    pub(super) origin: Thing,
    pub(super) relays: Relays,
    /// The NetworkPolicies of the namespace, as far as they may be seen: what tells them apart.
    pub(super) policies: Arc<Vec<String>>,
}

/// A Service that is followed until this is dropped.
#[derive(Debug)]
pub(super) struct Following {
    seen: watch::Receiver<Seen>,
    tasks: Tasks,
}

impl Following {
    /// What is known, with a mark for whoever waits for news.
    pub(super) fn news(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.tasks.kill();
    }
}

/// Follows a Service and its origin, as tasks of `tasks`.
pub(super) fn follow(site: &Site, service: &str, origin: &str, tasks: &Tasks) -> Following {
    let (seen, told) = watch::channel(Seen::default());
    let (seen, tasks) = (Arc::new(seen), tasks.child());
    let spawn_with = |path: String, denied: Duration, take: fn(&mut Seen, &Objects)| {
        let (client, seen) = (site.client.clone(), seen.clone());
        tasks.spawn(async move { keep(&client, &path, &seen, take, denied).await });
    };
    let spawn = |path, take| spawn_with(path, Duration::ZERO, take);
    let policies = format!("{}?labelSelector=", policies::path(&site.namespace));
    spawn_with(policies, POLICIES_PAUSE, |seen, objects| {
        let print = policies::print_of(objects.values().map(AsRef::as_ref));
        seen.policies = Arc::new(print);
    });
    let named = |name: &str| format!("{}?fieldSelector=metadata.name%3D{name}", site.services(""));
    spawn(named(service), |seen, objects| seen.service = only(objects));
    spawn(named(origin), |seen, objects| seen.origin = only(objects));
    spawn(site.relay_pods_path(), |seen, objects| {
        seen.relays = match (&seen.relays, objects.values().any(|pod| is_ready(pod))) {
            (_, true) => Relays::Ready,
            (Relays::None(since), false) => Relays::None(*since),
            (_, false) => Relays::None(Instant::now()),
        };
    });
    Following { seen: told, tasks }
}

/// Objects of one list, by name.
type Objects = HashMap<String, Arc<Value>>;

fn only(objects: &Objects) -> Thing {
    match objects.values().next() {
        Some(object) => Thing::There(object.clone()),
        None => Thing::Gone,
    }
}

/// Lists and watches `path` (with its query), for ever; where it may not, again after `denied`.
async fn keep(
    client: &Client,
    path: &str,
    seen: &watch::Sender<Seen>,
    take: fn(&mut Seen, &Objects),
    denied: Duration,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        if let Err(error) = round(client, path, seen, take).await {
            tracing::debug!(%error, path, "a watch broke");
            if matches!(error.code(), Some(403 | 404)) {
                sleep(denied).await;
            }
        }
        if begun.elapsed() >= LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One list, and the watch from there to its end.
async fn round(
    client: &Client,
    path: &str,
    seen: &watch::Sender<Seen>,
    take: fn(&mut Seen, &Objects),
) -> Result<(), ClientError> {
    let list: Value = client.get(path).await?;
    let items = list["items"].as_array().into_iter().flatten();
    let mut objects: Objects = items
        .map(|item| (name(item).to_owned(), Arc::new(item.clone())))
        .collect();
    seen.send_modify(|seen| take(seen, &objects));
    let version = text(&list, &["metadata", "resourceVersion"]);
    let request = Request::get(format!(
        "{path}&watch=1&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
    ))
    .header(ACCEPT, "application/json")
    // Since 1.37 each event would be a gzip member of its own, which the decoder does not follow.
    .header(ACCEPT_ENCODING, "identity")
    .body(Body::empty())
    .map_err(|e| client.not_understood(&e))?;
    let response = client.send(request).await?;
    if !response.status().is_success() {
        client.body(response).await?;
        return Ok(());
    }
    let (mut body, mut buffer) = (response.into_body(), BytesMut::new());
    while let Ok(Some(frame)) = timeout(SILENCE, body.frame()).await {
        let frame = frame.map_err(|e| client.not_understood(&e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        buffer.extend_from_slice(&data);
        let end = buffer.iter().rposition(|byte| *byte == b'\n');
        let lines = end.map(|end| buffer.split_to(end + 1)).unwrap_or_default();
        for line in lines[..]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let event: Value =
                serde_json::from_slice(line).map_err(|e| client.not_understood(&e))?;
            let object = &event["object"];
            match text(&event, &["type"]) {
                "ADDED" | "MODIFIED" => {
                    objects.insert(name(object).to_owned(), Arc::new(object.clone()));
                }
                "DELETED" => {
                    objects.remove(name(object));
                }
                "BOOKMARK" => {}
                // What was watched from is forgotten: it is listed again.
                _ => return Ok(()),
            }
        }
        seen.send_modify(|seen| take(seen, &objects));
        if buffer.len() > MAX_EVENT {
            return Ok(());
        }
    }
    Ok(())
}
