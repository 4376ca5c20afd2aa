//! Keeps one kind of object in one scope current: list in pages, then watch, again and again.
//!
//! kube's own watcher would hold one set of credentials for ever and keep whole objects; here
//! each request goes through [`Client`], and an object is parsed into what matters of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use kube::client::Body;
use serde::Deserialize;

use super::object::{Object, Page, RawPod, RawService};
use super::shared::{FeedKey, FeedState, Kind, Shared};
use super::store::{Key, Store};
use crate::k8s::client::{Client, ClientError, Status};

/// Objects per page of a list: what kubectl and client-go ask for.
const PAGE: usize = 500;
/// How long a watch is asked to last; the real length is random up to a tenth less, so that the
/// watches of many laptops do not end together.
const WATCH_SECONDS: u64 = 290;
/// A watch from which nothing came for so long is dead: the server ends it before.
const WATCH_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// Longest event: etcd keeps no object above 1.5 MiB; JSON may double it.
const MAX_EVENT: usize = 8 << 20;
/// The first and the longest pause before a retry. New dials must work within 2 s after the API
/// server is back, with current pods.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause where a retry will hardly help: the credentials are not accepted.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// A watch that ended sooner than this counts as a failure, or a broken proxy would make a storm.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

impl FeedKey {
    /// Where it is listed and watched.
    fn path(&self) -> String {
        let plural = self.kind.plural();
        match &self.scope {
            None => format!("/api/v1/{plural}"),
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/{plural}"),
        }
    }
}

/// A kind of object that a feed keeps.
pub(super) trait Resource: Object + Sync {
    /// Which.
    const KIND: Kind;
    /// Takes the object in its new form.
    fn apply(&self, store: &mut Store) -> Key;
    /// Forgets what is in `scope` and not in `seen`.
    fn sweep(store: &mut Store, scope: Option<&str>, seen: &HashSet<Key>);
    /// Forgets the object.
    fn remove(&self, store: &mut Store);
}

impl Resource for RawService {
    const KIND: Kind = Kind::Services;

    fn apply(&self, store: &mut Store) -> Key {
        store.apply_service(self)
    }

    fn remove(&self, store: &mut Store) {
        store.remove_service(&self.metadata.namespace, &self.metadata.name);
    }

    fn sweep(store: &mut Store, scope: Option<&str>, seen: &HashSet<Key>) {
        for (namespace, name) in gone(store, scope, seen, |n| n.services.keys()) {
            store.remove_service(&namespace, &name);
        }
    }
}

impl Resource for RawPod {
    const KIND: Kind = Kind::Pods;

    fn apply(&self, store: &mut Store) -> Key {
        store.apply_pod(self)
    }

    fn remove(&self, store: &mut Store) {
        store.remove_pod(&self.metadata.namespace, &self.metadata.name);
    }

    fn sweep(store: &mut Store, scope: Option<&str>, seen: &HashSet<Key>) {
        for (namespace, name) in gone(store, scope, seen, |n| n.pods.keys()) {
            store.remove_pod(&namespace, &name);
        }
    }
}

/// What the store has in `scope` and a list has not.
fn gone<'a, I: Iterator<Item = &'a Arc<str>>>(
    store: &'a Store,
    scope: Option<&str>,
    seen: &HashSet<Key>,
    names: impl Fn(&'a super::store::Namespace) -> I,
) -> Vec<Key> {
    let namespaces = store.namespaces.iter();
    namespaces
        .filter(|(namespace, _)| scope.is_none_or(|scope| scope == &***namespace))
        .flat_map(|(namespace, content)| {
            names(content).map(move |name| (Arc::clone(namespace), Arc::clone(name)))
        })
        .filter(|key| !seen.contains(key))
        .collect()
}

/// A line of a watch.
#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum Event<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    Bookmark(T),
    Error(WatchStatus),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WatchStatus {
    code: u16,
    reason: String,
    message: String,
}

/// Runs until the feed is forbidden or `shared`'s tasks are asked to end.
pub(super) async fn run<T: Resource>(shared: Arc<Shared>, key: FeedKey) {
    tokio::select! {
        () = shared.tasks.draining() => {}
        () = keep::<T>(&shared, &key) => {}
    }
}

async fn keep<T: Resource>(shared: &Arc<Shared>, key: &FeedKey) {
    let mut version: Option<String> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let (verb, result) = match &mut version {
            None => ("list", list::<T>(shared, key).await.map(Some)),
            Some(version) => ("watch", watch::<T>(shared, key, version).await),
        };
        let error = match result {
            Ok(Some(listed)) => {
                shared.set_feed(key, FeedState::Live);
                version = Some(listed);
                continue;
            }
            Ok(None) if begun.elapsed() >= SHORTEST_WATCH => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let mut wait = pause;
        if let Some(error) = error {
            match error.code() {
                Some(403) => {
                    tracing::debug!(kind = T::KIND.plural(), scope = ?key.scope, verb, "forbidden");
                    shared.forbidden(key, verb);
                    return;
                }
                // What was watched from is forgotten by now: list again.
                Some(410) => version = None,
                Some(401) => wait = REFUSED_PAUSE,
                None if !error.is_passing() => wait = REFUSED_PAUSE,
                _ => {}
            }
            tracing::debug!(kind = T::KIND.plural(), scope = ?key.scope, verb, %error, "feed broke");
        }
        if begun.elapsed() >= LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lists all pages; returns the version to watch from.
async fn list<T: Resource>(shared: &Shared, key: &FeedKey) -> Result<String, ClientError> {
    let base = key.path();
    let mut seen = HashSet::new();
    let mut next = String::new();
    loop {
        let path = if next.is_empty() {
            format!("{base}?limit={PAGE}")
        } else {
            format!("{base}?limit={PAGE}&continue={}", escaped(&next))
        };
        let page: Page<T> = shared.client.get(&path).await?;
        shared.change(|store| {
            seen.extend(page.items.iter().map(|item| item.apply(store)));
        });
        next = page.metadata.next;
        if next.is_empty() {
            shared.change(|store| T::sweep(store, key.scope.as_deref(), &seen));
            return Ok(page.metadata.resource_version);
        }
    }
}

/// Follows a watch to its end; `version` is moved on with every event. `Ok` is always `None`.
async fn watch<T: Resource>(
    shared: &Shared,
    key: &FeedKey,
    version: &mut String,
) -> Result<Option<String>, ClientError> {
    let seconds = rand::random_range(WATCH_SECONDS * 9 / 10..=WATCH_SECONDS);
    let request = Request::get(format!(
        "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
        key.path(),
        escaped(version)
    ))
    .header(ACCEPT, "application/json")
    // Since 1.37 each event would be a gzip member of its own, which the decoder does not follow.
    .header(ACCEPT_ENCODING, "identity")
    .body(Body::empty())
    .map_err(|e| shared.client.not_understood(&e))?;
    let response = shared.client.send(request).await?;
    if !response.status().is_success() {
        shared.client.body(response).await?;
        return Ok(None);
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    while let Ok(Some(frame)) = tokio::time::timeout(WATCH_SILENCE, body.frame()).await {
        let frame = frame.map_err(|e| shared.client.not_understood(&e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        buffer.extend_from_slice(&data);
        take_events::<T>(shared, &mut buffer, version)?;
        if buffer.len() > MAX_EVENT {
            return Err(too_long(&shared.client));
        }
    }
    Ok(None)
}

/// Takes the complete lines out of `buffer` and applies them in one change.
fn take_events<T: Resource>(
    shared: &Shared,
    buffer: &mut BytesMut,
    version: &mut String,
) -> Result<(), ClientError> {
    let Some(end) = buffer.iter().rposition(|b| *b == b'\n') else {
        return Ok(());
    };
    let lines = buffer.split_to(end + 1).freeze();
    let mut events = Vec::new();
    for line in lines[..].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let event: Event<T> = match serde_json::from_slice(line) {
            Ok(event) => event,
            Err(e) => match Status::parse(line) {
                Some(status) => return Err(gone_wrong(0, status.reason, status.message)),
                None => return Err(shared.client.not_understood(&e)),
            },
        };
        events.push(event);
    }
    let mut failed = Ok(());
    let mut changed = false;
    shared.change_if(|store| {
        for event in events {
            let object = match event {
                Event::Added(object) | Event::Modified(object) => {
                    object.apply(store);
                    changed = true;
                    object
                }
                Event::Deleted(object) => {
                    object.remove(store);
                    changed = true;
                    object
                }
                Event::Bookmark(object) => object,
                Event::Error(status) => {
                    failed = Err(gone_wrong(status.code, status.reason, status.message));
                    break;
                }
            };
            version.clone_from(&object.meta().resource_version);
        }
        changed
    });
    failed
}

fn gone_wrong(code: u16, reason: String, message: String) -> ClientError {
    let expired = matches!(reason.as_str(), "Expired" | "Gone");
    ClientError::Status {
        code: if expired { 410 } else { code },
        reason,
        message,
    }
}

fn too_long(client: &Client) -> ClientError {
    ClientError::Answer {
        server: client.server().to_owned(),
        reason: format!("an event is longer than {MAX_EVENT} bytes"),
    }
}

/// `text` as the value of a query's parameter.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
