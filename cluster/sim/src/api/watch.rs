//! Watches: the change log through a selector, one JSON document a line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::options::ListOptions;
use super::read::View;
use super::route::Target;
use super::table;
use crate::http::{self, Answer, Failure};
use crate::store::Change;
use crate::task::Tasks;
use crate::world::World;

/// Events written ahead of a slow reader; after that the watch waits, and the log may pass it by.
const AHEAD: usize = 100;

/// Servers from this minor version on send the present state as events where asked to.
const STREAMED_LISTS: u32 = 27;

/// How long a watch lives that named no timeout: the real range is 30 to 60 minutes.
const LIFETIME: Duration = Duration::from_secs(45 * 60);

pub(crate) fn answer(
    world: &Arc<World>,
    connection: &Tasks,
    target: &Target,
    options: ListOptions,
    as_table: bool,
) -> Answer {
    let (events, receiver) = mpsc::channel(AHEAD);
    let watch = Watch {
        kind: target.resource.kind,
        api_version: target.resource.api_version(),
        initial_end: options.initial_events && world.options.minor() >= STREAMED_LISTS,
        ends: Instant::now() + options.timeout.map_or(LIFETIME, Duration::from_secs),
        view: View::of(target, options),
        as_table,
        events,
    };
    let world = world.clone();
    connection.spawn(async move {
        // An error is a reader that left.
        let _ = watch.run(&world).await;
    });
    http::events(receiver)
}

struct Watch {
    view: View,
    kind: &'static str,
    api_version: String,
    /// The reader wants the present state as events and a bookmark after them.
    initial_end: bool,
    ends: Instant,
    as_table: bool,
    events: mpsc::Sender<Bytes>,
}

/// The reader is gone.
struct Left;

impl Watch {
    async fn run(&self, world: &World) -> Result<(), Left> {
        let mut moved = world.store.subscribe();
        let mut seen = match self.view.options.version.filter(|version| *version > 0) {
            Some(version) if !self.initial_end => version,
            _ => self.present(world).await?,
        };
        let mut bookmark = Instant::now() + world.options.bookmark_every;
        loop {
            moved.borrow_and_update();
            match world.store.since(seen) {
                Ok((version, changes)) => {
                    for change in changes {
                        self.tell(&change).await?;
                    }
                    seen = version;
                }
                Err(gone) => {
                    let message = format!("too old resource version: {seen} ({})", gone.oldest);
                    return self
                        .send("ERROR", &Failure::expired(message).status())
                        .await;
                }
            }
            tokio::select! {
                changed = moved.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = sleep_until(bookmark), if self.view.options.bookmarks => {
                    self.send("BOOKMARK", &self.bookmark(seen)).await?;
                    bookmark = Instant::now() + world.options.bookmark_every;
                }
                () = sleep_until(self.ends) => return Ok(()),
                () = self.events.closed() => return Err(Left),
            }
        }
    }

    /// Tells what is there now, as additions.
    async fn present(&self, world: &World) -> Result<u64, Left> {
        let (version, objects) = self.view.objects(world);
        for object in objects {
            self.send("ADDED", &object).await?;
        }
        if self.initial_end && self.view.options.bookmarks {
            let mut bookmark = self.bookmark(version);
            bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            self.send("BOOKMARK", &bookmark).await?;
        }
        Ok(version)
    }

    /// Tells one change the way it looks through the selector.
    async fn tell(&self, change: &Change) -> Result<(), Left> {
        if !self.view.covers(&change.key.0, &change.key.1) {
            return Ok(());
        }
        let before = change
            .before
            .as_ref()
            .is_some_and(|object| self.view.shows(object));
        let after = !change.deleted && self.view.shows(&change.after);
        match (before, after) {
            (false, false) => Ok(()),
            (false, true) => self.send("ADDED", &change.after).await,
            (true, true) => self.send("MODIFIED", &change.after).await,
            (true, false) if change.deleted => self.send("DELETED", &change.after).await,
            (true, false) => {
                // The last state that was in view, with the version of the change.
                let mut last = change.before.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                self.send("DELETED", &last).await
            }
        }
    }

    fn bookmark(&self, version: u64) -> Value {
        json!({
            "kind": self.kind,
            "apiVersion": self.api_version,
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
        })
    }

    async fn send(&self, kind: &str, object: &Value) -> Result<(), Left> {
        let version = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let table = (self.as_table && object["kind"] == self.kind)
            .then(|| table::of(self.kind, [object], &version));
        let object = table.as_ref().unwrap_or(object);
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.events.send(Bytes::from(line)).await.map_err(|_| Left)
    }
}
