//! What happened to an object since a run began, as events tell it.

use serde_json::Value;

use super::rollout::Before;
use super::site::{Kind, Site};

/// Events that are looked at: of one pod there are a handful.
const EVENTS_LOOKED_AT: usize = 200;

impl Site {
    /// The last warning about an object since `before`, where events may be seen.
    pub(super) async fn news(&self, object: &Value, before: &Before) -> Option<Value> {
        let uid = object["metadata"]["uid"].as_str()?;
        let events = self.events_of(uid).await.into_iter();
        let is_new = |event: &Value| {
            let [uid, version] = ["uid", "resourceVersion"].map(|f| event["metadata"][f].as_str());
            let known = uid.and_then(|uid| before.events.get(uid));
            known.map(String::as_str) != version
        };
        let mut warnings: Vec<Value> = events
            .filter(|event| event["type"] == "Warning" && is_new(event))
            .collect();
        warnings.sort_by_cached_key(when);
        warnings.pop()
    }

    /// What happened to the object with this UID, where that may be seen.
    pub(super) async fn events_of(&self, uid: &str) -> Vec<Value> {
        let path = EVENTS.path(&self.namespace, "");
        let path =
            format!("{path}?fieldSelector=involvedObject.uid%3D{uid}&limit={EVENTS_LOOKED_AT}");
        let list: Result<Value, _> = self.client.get(&path).await;
        let items = list.ok().and_then(|list| list["items"].as_array().cloned());
        items.unwrap_or_default()
    }
}

/// When an event happened last, in either form of events.
fn when(event: &Value) -> String {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    let mut times = times.into_iter().filter_map(Value::as_str);
    times.next().unwrap_or_default().to_owned()
}

static EVENTS: Kind = Kind {
    api: "v1",
    plural: "events",
    kind: "Event",
};
