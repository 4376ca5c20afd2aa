//! Has requests that go through kdev's proxy say whose they are, where a Service is intercepted with
//! `--mine`: a browser cannot say it by itself.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::Session;
use super::feed::{Feed, Line};
use super::intercept::{mine, owner};
use crate::addr::Namespaced;
use crate::config::{Config, MineHeader};
use crate::dial::{Marker, Standing};
use crate::k8s::Catalog;
use crate::rule::{self, Condition};

/// Says a line to the user; called from the tasks of connections, so it should not wait.
pub type Note = Arc<dyn Fn(&str) + Send + Sync>;

/// How long after a Service was led to the relay a new connection may still reach one of its own
/// pods: nodes lag behind the API server, busy ones by seconds.
const LAG: Duration = Duration::from_secs(5);

/// Marks requests with the user's name.
struct OwnRequests {
    catalog: Catalog,
    /// The value of `--mine`.
    value: String,
    /// The namespace of bare names.
    home: String,
    /// The Services of which it was said. They are no more than are intercepted.
    told: Mutex<HashSet<Namespaced>>,
    note: Note,
    /// The commands that use this session.
    feed: Arc<Feed>,
}

/// What marks the requests of a session's proxy, unless that is off; `note` hears of each Service
/// when it begins.
pub(super) fn marker(session: &Session, config: &Config, note: Note) -> Option<Arc<dyn Marker>> {
    let owner = owner(config);
    let value = mine(&owner).trim();
    // There is no `--mine` with a name that it does not take.
    if config.mine_header == MineHeader::Off || Condition::mine(value).is_err() {
        return None;
    }
    Some(Arc::new(OwnRequests {
        catalog: session.catalog.clone(),
        value: value.to_owned(),
        home: session.client.namespace().to_owned(),
        told: Mutex::default(),
        note,
        feed: session.feed(),
    }))
}

impl Marker for OwnRequests {
    fn any(&self) -> bool {
        self.catalog.has_mine(&self.value)
    }

    fn standing(&self, service: &Namespaced, port: u16) -> Option<Standing> {
        let since = self.catalog.mine(service, port, &self.value)?;
        Some(match since.elapsed() < LAG {
            true => Standing::New,
            false => Standing::Settled,
        })
    }

    fn mark(&self, service: &Namespaced, _: u16, headers: &mut HeaderMap) {
        if !rule::mark(headers, &self.value) {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.insert(service.clone()) {
            return;
        }
        drop(told);
        let name = match service.namespace == self.home {
            true => service.name.clone(),
            false => service.to_string(),
        };
        let text = format!(
            "requests to {name} carry baggage {}={} from now on, because it is intercepted with \
             --mine; --mine-header off leaves them as they are",
            rule::MINE_BAGGAGE,
            self.value
        );
        (self.note)(&text);
        self.feed.tell(Line::note(&text));
    }
}
