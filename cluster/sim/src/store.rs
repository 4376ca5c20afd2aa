//! Objects with resource versions, and the log of changes that watches read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock;

/// Changes kept for watches to resume from; older ones are answered with 410.
const LOG: usize = 8192;

/// Where an object lives: resource (plural), namespace (empty when cluster-wide), name.
pub(crate) type Key = (String, String, String);

/// One change, as watches need it: with the object before it, because a change that leaves a
/// selector's view is a deletion to whoever looks through that selector.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    /// What stands now; for a deletion the last state with the deletion's version.
    pub(crate) after: Arc<Value>,
    pub(crate) deleted: bool,
}

/// The version asked for is no longer in the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) oldest: u64,
}

/// The etcd of the simulation.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

struct Inner {
    version: u64,
    oldest: u64,
    uids: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Arc<Change>>,
}

impl Store {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            version: 1,
            oldest: 1,
            uids: 0,
            objects: BTreeMap::new(),
            log: VecDeque::new(),
        };
        Self {
            inner: Mutex::new(inner),
            version: watch::Sender::new(1),
        }
    }

    /// Creates or replaces an object; one that would not change is left alone.
    pub(crate) fn put(&self, key: Key, mut object: Value) {
        let mut inner = self.lock();
        let before = inner.objects.get(&key).cloned();
        inner.fill_in(&mut object, before.as_deref());
        if before.as_deref() == Some(&object) {
            return;
        }
        let version = inner.stamp(&mut object);
        let after = Arc::new(object);
        inner.objects.insert(key.clone(), after.clone());
        inner.record(Change {
            version,
            key,
            before,
            after,
            deleted: false,
        });
        drop(inner);
        self.version.send_replace(version);
    }

    pub(crate) fn remove(&self, key: &Key) -> Option<Arc<Value>> {
        let mut inner = self.lock();
        let before = inner.objects.remove(key)?;
        let mut last = Value::clone(&before);
        let version = inner.stamp(&mut last);
        inner.record(Change {
            version,
            key: key.clone(),
            before: Some(before.clone()),
            after: Arc::new(last),
            deleted: true,
        });
        drop(inner);
        self.version.send_replace(version);
        Some(before)
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.lock().objects.get(&key).cloned()
    }

    /// The current version and the objects of one resource, in key order.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let inner = self.lock();
        let from = (
            resource.to_owned(),
            namespace.unwrap_or("").to_owned(),
            String::new(),
        );
        let objects = inner
            .objects
            .range(from..)
            .take_while(|(key, _)| key.0 == resource && namespace.is_none_or(|ns| key.1 == ns))
            .map(|(_, object)| object.clone())
            .collect();
        (inner.version, objects)
    }

    /// What changed after `version`, of every resource, and the version it brings the reader to.
    pub(crate) fn since(&self, version: u64) -> Result<(u64, Vec<Arc<Change>>), Gone> {
        let inner = self.lock();
        if version < inner.oldest {
            return Err(Gone {
                oldest: inner.oldest,
            });
        }
        let start = inner
            .log
            .partition_point(|change| change.version <= version);
        Ok((
            inner.version.max(version),
            inner.log.range(start..).cloned().collect(),
        ))
    }

    /// Whether what happened after a version is still known.
    pub(crate) fn remembers(&self, version: u64) -> bool {
        version >= self.lock().oldest
    }

    /// Wakes whenever the version moves.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Forgets the past: every version handed out so far is too old.
    pub(crate) fn compact(&self) {
        let mut inner = self.lock();
        inner.version += 1;
        inner.oldest = inner.version;
        inner.log.clear();
        let version = inner.version;
        drop(inner);
        self.version.send_replace(version);
    }

    #[cfg(test)]
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives the object what the server sets, keeping what it set before.
    fn fill_in(&mut self, object: &mut Value, before: Option<&Value>) {
        let kept = |field: &str| before.map(|old| old["metadata"][field].clone());
        let version = kept("resourceVersion");
        let uid = kept("uid").unwrap_or_else(|| {
            self.uids += 1;
            json!(format!("5d0f0a00-0000-4000-8000-{:012x}", self.uids))
        });
        let created = kept("creationTimestamp").unwrap_or_else(|| json!(clock::now()));
        let metadata = &mut object["metadata"];
        metadata["uid"] = uid;
        metadata["creationTimestamp"] = created;
        if let Some(version) = version {
            metadata["resourceVersion"] = version;
        }
    }

    fn stamp(&mut self, object: &mut Value) -> u64 {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.version
    }

    fn record(&mut self, change: Change) {
        self.log.push_back(Arc::new(change));
        if self.log.len() > LOG
            && let Some(forgotten) = self.log.pop_front()
        {
            self.oldest = forgotten.version;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("pods".into(), "shop".into(), name.into())
    }

    fn pod(name: &str, phase: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"phase": phase}})
    }

    #[test]
    fn an_unchanged_object_makes_no_event() {
        let store = Store::new();
        store.put(key("a"), pod("a", "Running"));
        let version = store.version();
        store.put(key("a"), pod("a", "Running"));
        assert_eq!(store.version(), version);
    }

    #[test]
    fn changes_come_in_order_with_both_states() {
        let store = Store::new();
        let start = store.version();
        store.put(key("a"), pod("a", "Pending"));
        store.put(key("a"), pod("a", "Running"));
        store.remove(&key("a"));
        let (_, changes) = store.since(start).unwrap();
        let deleted: Vec<bool> = changes.iter().map(|c| c.deleted).collect();
        assert_eq!(deleted, [false, false, true]);
        assert!(changes[0].before.is_none());
        assert_eq!(
            changes[1].before.as_ref().unwrap()["status"]["phase"],
            "Pending"
        );
        assert_eq!(
            changes[0].after["metadata"]["uid"],
            changes[2].after["metadata"]["uid"]
        );
    }

    #[test]
    fn the_past_is_gone_after_compaction_and_when_the_log_overflows() {
        let store = Store::new();
        let start = store.version();
        store.compact();
        assert_eq!(store.since(start).unwrap_err(), Gone { oldest: start + 1 });
        let here = store.version();
        for i in 0..=LOG {
            store.put(key("a"), pod("a", &i.to_string()));
        }
        assert!(store.since(here).is_err());
        assert!(store.since(here + 1).is_ok());
    }

    #[test]
    fn a_namespace_is_listed_alone_or_with_all() {
        let store = Store::new();
        store.put(key("a"), pod("a", "Running"));
        store.put(
            ("pods".into(), "other".into(), "b".into()),
            pod("b", "Running"),
        );
        store.put(("services".into(), "shop".into(), "c".into()), pod("c", ""));
        assert_eq!(store.list("pods", Some("shop")).1.len(), 1);
        assert_eq!(store.list("pods", None).1.len(), 2);
    }
}
